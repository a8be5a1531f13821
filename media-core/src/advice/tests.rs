//! Each advice where it is due, and none where all is well.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::*;
use crate::{
    codec::{aac, h264},
    sample::{Announcement, Item, Sample, Track},
    timestamp::{Timescale, Timestamp},
};

const MICROS: Timescale = Timescale::new(1_000_000).expect("a million is not 0");

fn video() -> Arc<Track> {
    let record = Bytes::from_static(h264::tests::RECORD_360P30);
    let parameters = Parameters::H264(h264::Parameters::parse(record).unwrap());
    Arc::new(Track { id: TrackId::VIDEO, timescale: MICROS, parameters })
}

fn audio(config: &'static [u8]) -> Arc<Track> {
    let parameters = Parameters::Aac(aac::Parameters::parse(Bytes::from_static(config)).unwrap());
    Arc::new(Track { id: TrackId::AUDIO, timescale: MICROS, parameters })
}

/// AAC-LC of 48 kHz in stereo, as OBS sends it.
const STEREO_48: &[u8] = &[0x11, 0x90];

/// A publisher as the settings of its encoder make it.
struct Source {
    seconds: i64,
    /// Distance of a picture from the one before, by number.
    frame_us: fn(i64) -> i64,
    /// Where keyframes are, by number of picture.
    key: fn(i64) -> bool,
    bytes: fn(i64) -> usize,
    config: Option<&'static [u8]>,
    picture: bool,
    /// How fast its clock runs, in millionths.
    fast_ppm: i64,
    present: Present,
    packaged: Packaged,
}

fn source() -> Source {
    Source {
        seconds: 40,
        frame_us: |_| 33_333,
        key: |n| n % 60 == 0,
        bytes: |_| 8_000,
        config: Some(STEREO_48),
        picture: true,
        fast_ppm: 0,
        present: Present { epoch: Some(1), order: Order::Shown, ..Present::default() },
        packaged: Packaged::default(),
    }
}

impl Source {
    fn advice(&self) -> Vec<Advice> {
        let (start, mut observer, mut present) = (Instant::now(), Observer::default(), self.present.clone());
        observer.push(&Item::Join { epoch: 1, received: start });
        let mut push = |track: &Arc<Track>, at_us: i64, keyframe: bool, bytes: usize| {
            let received = start + Duration::from_micros((at_us - at_us * self.fast_ppm / 1_000_000) as u64);
            present.tracks[track.id.index()] = Some(Arc::clone(track));
            let at = Timestamp::from_micros(at_us);
            let payload = Bytes::from(vec![0; bytes]);
            let (track, duration) = (Arc::clone(track), None);
            observer.push(&Item::Sample(Arc::new(Sample { track, pts: at, dts: at, duration, keyframe, payload, received })));
        };
        let (picture, sound) = (video(), self.config.map(audio));
        let (mut n, mut at_us, mut sound_us) = (0, 0, 0);
        while at_us < self.seconds * 1_000_000 {
            if self.picture {
                push(&picture, at_us, (self.key)(n), (self.bytes)(n));
            }
            while let Some(track) = sound.as_ref().filter(|_| sound_us <= at_us) {
                push(track, sound_us, true, 400);
                sound_us += 21_333;
            }
            n += 1;
            at_us += (self.frame_us)(n);
        }
        advise(&present, &observer.measured(), &self.packaged)
    }

    /// The only advice, which holds these words.
    fn gets(&self, code: Code, words: &str) {
        let advice = self.advice();
        let codes: Vec<_> = advice.iter().map(|advice| advice.code).collect();
        assert_eq!(codes, [code], "{advice:?}");
        assert!(advice[0].text.contains(words), "{words:?} is not in {:?}", advice[0].text);
        assert_eq!(advice[0].severity, code.severity());
    }
}

#[test]
fn a_good_source_gets_none() {
    assert_eq!(source().advice(), []);
    assert_eq!(Source { frame_us: |n| if n % 3 == 0 { 34_000 } else { 33_000 }, ..source() }.advice(), [], "whole milliseconds");
}

#[test]
fn what_is_missing_is_said_after_a_while() {
    Source { config: None, ..source() }.gets(Code::NoAudio, "39 s");
    Source { picture: false, ..source() }.gets(Code::NoVideo, "39 s");
    assert_eq!(Source { config: None, seconds: 9, ..source() }.advice(), []);
}

#[test]
fn keyframes_are_measured() {
    Source { key: |n| n % 250 == 0, ..source() }.gets(Code::KeyframeInterval, "8.3 s");
    Source { key: |n| n == 0, ..source() }.gets(Code::KeyframeInterval, "40.0 s apart");
    Source { key: |n| n % 60 == 0 || n % 180 == 20, ..source() }.gets(Code::KeyframesIrregular, "0.7 to 2.0 s");
    let announcement = Announcement { keyframes_asked: Some(Duration::from_secs(2)), ..Announcement::default() };
    let asked = Present { announcement, ..source().present };
    assert_eq!(Source { key: |n| n % 250 == 0, present: asked, ..source() }.advice(), [], "it has no such setting");
    let packaged = Packaged { cuts_without_keyframe: 3, ..Packaged::default() };
    Source { packaged, ..source() }.gets(Code::CutWithoutKeyframe, "3 segments");
}

#[test]
fn the_frame_rate_is_measured() {
    Source { frame_us: |n| if n % 4 == 0 { 80_000 } else { 33_333 }, key: |n| n % 40 == 0, ..source() }
        .gets(Code::FrameRateIrregular, "25 % of the frames come at another distance, up to 80 ms");
    let grid = Grid {
        target_duration: 2,
        part_target_ms: 1000,
        keyframe_interval_us: None,
        independent_segments: true,
        irregular: true,
        constant: false,
        frame_rate: 0.0,
    };
    let packaged = Packaged { grid: Some(grid), ..Packaged::default() };
    Source { packaged, ..source() }.gets(Code::FrameRateIrregular, "parts of 1 s");
}

#[test]
fn b_frames_are_told() {
    let present = Present { order: Order::Reordered, ..source().present };
    Source { present, ..source() }.gets(Code::BFrames, "coded anew");
}

#[test]
fn the_bit_rate_is_measured_against_size_and_word() {
    // 640x360 at 30: 207 kbit/s are the least.
    Source { bytes: |_| 100, config: Some(STEREO_48), ..source() }.gets(Code::BitrateLow, "below 207 kbit/s text blurs");
    let announced = |bits| {
        let announcement = Announcement { bitrate: Some(bits), ..Announcement::default() };
        Present { announcement, ..source().present }
    };
    let still = Source { bytes: |_| 100, present: announced(2_000_000), ..source() };
    assert_eq!(still.advice(), [], "a picture that stands still needs little");
    Source { bytes: |n| if n / 30 == 20 { 60_000 } else { 8_000 }, present: announced(2_000_000), ..source() }
        .gets(Code::BitratePeaks, "though 2000 kbit/s are announced");
}

#[test]
fn the_sound_is_looked_at() {
    Source { config: Some(&[0x12, 0x10]), ..source() }.gets(Code::SampleRate, "44.1 kHz");
    Source { config: Some(&[0x11, 0x88]), ..source() }.gets(Code::ChannelsMono, "1 channel");
    Source { config: Some(&[0x11, 0xb0]), ..source() }.gets(Code::ChannelsSurround, "6 channels");
}

#[test]
fn a_clock_that_runs_away_is_told() {
    Source { seconds: 300, fast_ppm: 3_000, ..source() }.gets(Code::ClockDrift, "ahead of the clock");
    Source { seconds: 300, fast_ppm: -3_000, ..source() }.gets(Code::ClockDrift, "behind the clock");
    assert_eq!(Source { seconds: 300, fast_ppm: 100, ..source() }.advice(), [], "any real clock");
}

#[test]
fn losses_and_repairs_are_told() {
    let packaged = Packaged { lost: 17, ..Packaged::default() };
    Source { packaged, ..source() }.gets(Code::MediaLost, "17 pictures or sounds");
    let present = Present { repairs: 5, ..source().present };
    Source { present, ..source() }.gets(Code::TimestampsRepaired, "5 timestamps");
}

#[test]
fn every_code_has_a_name_of_its_own() {
    let mut names: Vec<_> = Code::ALL.into_iter().map(Code::as_str).collect();
    for code in Code::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
    assert!(Code::ALL.is_sorted(), "the strongest first");
}
