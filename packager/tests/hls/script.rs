//! A publisher that follows a script, in virtual time: Samples as the ingest gives them.

use std::{iter::Peekable, sync::Arc, time::Instant};

use bytes::Bytes;
use media_core::{
    Parameters, Sample, Timescale, Timestamp, Track, TrackId,
    codec::{
        aac,
        h264::{self, FrameRate},
    },
};

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`: the avcC box of the init segment.
const RECORD_360P30: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];
/// The timescale that the ingest gives to video.
const VIDEO_TIMESCALE: Timescale = Timescale::new(90_000).expect("90000 is not 0");
/// Every Sample weighs as much.
pub const PAYLOAD_BYTES: usize = 40;

/// Where keyframes are, by number of frame.
#[derive(Clone, Copy)]
pub enum Keys {
    Every(u64),
    At(&'static [u64]),
    Never,
}

impl Keys {
    fn has(self, frame: u64) -> bool {
        match self {
            Self::Every(frames) => frame.is_multiple_of(frames),
            Self::At(frames) => frames.contains(&frame),
            Self::Never => false,
        }
    }

    /// Of the newest keyframe up to a frame.
    fn before(self, frame: u64) -> u64 {
        (0..=frame).rev().find(|&n| self.has(n)).unwrap_or(0)
    }
}

#[derive(Clone)]
pub struct Video {
    pub track: Arc<Track>,
    pub rate: FrameRate,
    pub keys: Keys,
    /// B-frames in pyramids of four.
    pub pyramid: bool,
}

impl Video {
    pub fn new(frames: u32, seconds: u32, keys: Keys) -> Self {
        let rate = FrameRate { frames, seconds };
        Self { track: video_track(rate, 360), rate, keys, pyramid: false }
    }

    pub fn at_us(&self, frame: u64) -> i64 {
        (frame * 1_000_000 * u64::from(self.rate.seconds) / u64::from(self.rate.frames)) as i64
    }

    fn sample(&self, frame: u64, clock_us: i64, received: Instant) -> Sample {
        let ahead = if self.pyramid { self.ahead(frame) } else { 0 };
        let at = |frame| millis(clock_us + self.at_us(frame));
        Sample {
            track: Arc::clone(&self.track),
            pts: at(frame + ahead),
            dts: at(frame),
            duration: None,
            keyframe: self.keys.has(frame),
            payload: payload(),
            received,
        }
    }

    /// Frames from decoding to showing: a keyframe, then P, B, b, b; what is left of a GOP is of P-frames.
    fn ahead(&self, frame: u64) -> u64 {
        let first = self.keys.before(frame);
        let whole = match self.keys {
            Keys::Every(frames) => (frames - 1) / 4 * 4,
            _ => 0,
        };
        match (frame - first, (frame - first) % 4) {
            (0, _) => 2,
            (n, _) if n > whole => 2,
            (_, 1) => 5,
            (_, 2) => 2,
            (_, 3) => 0,
            _ => 1,
        }
    }
}

#[derive(Clone)]
pub struct Audio {
    pub track: Arc<Track>,
}

impl Audio {
    pub fn new(sample_rate: u32, channels: u8) -> Self {
        Self { track: audio_track(sample_rate, channels) }
    }

    pub fn at_us(&self, frame: u64) -> i64 {
        (frame * 1024 * 1_000_000 / u64::from(self.track.timescale.ticks_per_second())) as i64
    }

    fn sample(&self, frame: u64, clock_us: i64, received: Instant) -> Sample {
        let scale = self.track.timescale;
        let at = Timestamp::new(Timestamp::from_micros(clock_us).ticks_in(scale) + frame as i64 * 1024, scale);
        let track = Arc::clone(&self.track);
        Sample { track, pts: at, dts: at, duration: Some(1024), keyframe: true, payload: payload(), received }
    }
}

#[derive(Clone, Default)]
pub struct Publisher {
    pub video: Option<Video>,
    pub audio: Option<Audio>,
    /// What its own clock shows when it starts.
    pub clock_us: i64,
}

impl Publisher {
    /// Everything it sends from `from_us` to `until_us` of the run, with the moment, in order.
    pub fn samples(&self, base: Instant, from_us: i64, until_us: i64) -> impl Iterator<Item = (i64, Sample)> {
        let until_us = until_us - from_us;
        let clock_us = self.clock_us;
        let received = move |at_us: i64| base + Timestamp::from_micros(at_us).to_duration();
        let video = self.video.clone().into_iter().flat_map(move |video| {
            (0..).map(move |n| (video.at_us(n), video.sample(n, clock_us, received(from_us + video.at_us(n)))))
        });
        let audio = self.audio.clone().into_iter().flat_map(move |audio| {
            (0..).map(move |n| (audio.at_us(n), audio.sample(n, clock_us, received(from_us + audio.at_us(n)))))
        });
        let merged = Merged { video: video.peekable(), audio: audio.peekable() };
        merged.take_while(move |(at_us, _)| *at_us < until_us).map(move |(at_us, sample)| (from_us + at_us, sample))
    }
}

struct Merged<V: Iterator, A: Iterator> {
    video: Peekable<V>,
    audio: Peekable<A>,
}

impl<V, A> Iterator for Merged<V, A>
where
    V: Iterator<Item = (i64, Sample)>,
    A: Iterator<Item = (i64, Sample)>,
{
    type Item = (i64, Sample);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.video.peek(), self.audio.peek()) {
            (Some((video_us, _)), Some((audio_us, _))) if audio_us < video_us => self.audio.next(),
            (Some(_), _) => self.video.next(),
            _ => self.audio.next(),
        }
    }
}

/// `width` tells one set of parameters from another.
pub fn video_track(rate: FrameRate, width: u32) -> Arc<Track> {
    let parsed = h264::Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
    let parameters = h264::Parameters { frame_rate: Some(rate), width, ..parsed };
    Arc::new(Track { id: TrackId::VIDEO, timescale: VIDEO_TIMESCALE, parameters: Parameters::H264(parameters) })
}

/// AAC-LC, as ISO/IEC 14496-3 1.6.2.1 writes it down.
pub fn audio_track(sample_rate: u32, channels: u8) -> Arc<Track> {
    const RATES: [u32; 12] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000];
    let index = RATES.iter().position(|&rate| rate == sample_rate).unwrap() as u16;
    let config = 2 << 11 | index << 7 | u16::from(channels) << 3;
    let parameters = aac::Parameters::parse(Bytes::copy_from_slice(&config.to_be_bytes())).unwrap();
    Arc::new(Track {
        id: TrackId::AUDIO,
        timescale: Timescale::new(sample_rate).unwrap(),
        parameters: Parameters::Aac(parameters),
    })
}

/// RTMP shows whole milliseconds.
fn millis(us: i64) -> Timestamp {
    Timestamp::from_millis((us + 500).div_euclid(1000)).to(VIDEO_TIMESCALE)
}

fn payload() -> Bytes {
    const PAYLOAD: [u8; PAYLOAD_BYTES] = [0; PAYLOAD_BYTES];
    Bytes::from_static(&PAYLOAD)
}
