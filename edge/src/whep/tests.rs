//! Publishers as the tests of this module write them: Samples at given moments, in virtual time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use media_core::{
    Announcement, Item, Layer, Parameters, Sample, Timescale, Timestamp, Track, TrackId,
    codec::{aac, av1, h264, opus},
    stream::Present,
};

pub use super::broadcast::{AUDIO_CLOCK, VIDEO_CLOCK};

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`: the avcC box of the init
/// segment.
pub const RECORD_360P30: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];
/// Slices: I, P and B (first_mb_in_slice 0; slice_type 7, 5, 6).
pub const I: &[u8] = &[0x65, 0b1000_1000, 0x80];
pub const P: &[u8] = &[0x41, 0b1001_1010, 0x80];
pub const B: &[u8] = &[0x01, 0b1001_1110, 0x80];

pub fn access_unit(nals: &[&[u8]]) -> Bytes {
    nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect::<Vec<_>>().into()
}

/// Its parameters promise nothing of the order of pictures.
pub fn video_track(id: TrackId, height: u32) -> Arc<Track> {
    let parsed = h264::Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
    let parameters = h264::Parameters { width: height * 16 / 9, height, reorder_frames: None, ..parsed };
    Arc::new(Track { id, timescale: Timescale::MILLIS, parameters: Parameters::H264(parameters) })
}

/// A picture that is no H.264. ffmpeg 5.1.9 with libaom 3.6.0, `-f lavfi -i testsrc=s=640x360:r=30 -usage realtime`: the
/// av1C box.
pub fn av1_track() -> Arc<Track> {
    const RECORD: &[u8] = b"\x81\x01\x0c\x00\x0a\x0b\x00\x00\x00\x0c\xc4\xff\x67\x36\xbe\x40\x10";
    let parameters = Parameters::Av1(av1::Parameters::parse(Bytes::from_static(RECORD)).unwrap());
    Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters })
}

/// A publisher's clock starts when the script does.
pub struct Script {
    pub start: Instant,
    pub video: Arc<Track>,
    pub opus: Arc<Track>,
    pub aac: Arc<Track>,
}

impl Script {
    pub fn new() -> Self {
        let audio = |timescale, parameters| Arc::new(Track { id: TrackId::AUDIO, timescale, parameters });
        let asc = Bytes::from_static(&[0x12, 0x10]);
        Self {
            start: Instant::now(),
            video: video_track(TrackId::VIDEO, 360),
            opus: audio(AUDIO_CLOCK, Parameters::Opus(opus::Parameters { channels: 2 })),
            aac: audio(Timescale::new(44_100).unwrap(), Parameters::Aac(aac::Parameters::parse(asc).unwrap())),
        }
    }

    pub fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    pub fn join(&self, epoch: u64, ms: u64) -> Item {
        Item::Join { epoch, received: self.at(ms) }
    }

    pub fn sample(&self, track: &Arc<Track>, pts: Timestamp, keyframe: bool, payload: Bytes, received_ms: u64) -> Sample {
        let received = self.at(received_ms);
        Sample { track: Arc::clone(track), pts, dts: pts, duration: None, keyframe, payload, received }
    }

    pub fn picture(&self, pts_ms: i64, keyframe: bool, received_ms: u64) -> Sample {
        self.slice(if keyframe { I } else { P }, pts_ms, received_ms)
    }

    pub fn slice(&self, nal: &[u8], pts_ms: i64, received_ms: u64) -> Sample {
        self.sample(&self.video, Timestamp::from_millis(pts_ms), nal == I, access_unit(&[nal]), received_ms)
    }

    pub fn layer(&self, n: u8, keyframe: bool, pts_ms: i64, received_ms: u64) -> Sample {
        let track = video_track(TrackId::layer(n).unwrap(), 180);
        let nal = if keyframe { I } else { P };
        self.sample(&track, Timestamp::from_millis(pts_ms), keyframe, access_unit(&[nal]), received_ms)
    }

    pub fn opus(&self, pts_ms: i64, received_ms: u64) -> Sample {
        let pts = Timestamp::new(pts_ms * 48, AUDIO_CLOCK);
        self.sample(&self.opus, pts, true, Bytes::from_static(&[0xfc, 0xff, 0xfe]), received_ms)
    }

    pub fn aac(&self, frame: i64, received_ms: u64) -> Sample {
        let pts = Timestamp::new(frame * 1024, Timescale::new(44_100).unwrap());
        self.sample(&self.aac, pts, true, Bytes::from_static(&[0x21, 0x10]), received_ms)
    }
}

/// A publisher of three layers, of which two have been seen.
pub fn simulcast(script: &Script) -> Present {
    let layer = |track, rid: &str| Layer { track, rid: rid.into(), apart: false };
    let (medium, low) = (TrackId::layer(0).unwrap(), TrackId::layer(1).unwrap());
    let layers = vec![layer(low, "l"), layer(medium, "m"), layer(TrackId::VIDEO, "h")];
    let mut present = Present { epoch: Some(1), ..Present::default() };
    present.announcement = Announcement { video: true, layers, ..Announcement::default() };
    present.tracks[TrackId::VIDEO.index()] = Some(Arc::clone(&script.video));
    present.tracks[medium.index()] = Some(video_track(medium, 180));
    present
}
