//! What becomes of a source's timestamps, in virtual time.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use media_core::{
    Parameters, Sample, Timescale, Timestamp, Track, TrackKind,
    codec::{h264, h264::FrameRate},
};
use packager::hls::segmenter::{Part, Segmenter};

use crate::{
    reader::{Fragment, Placed},
    script::{self, Audio, Keys, Publisher, Video},
};

/// A run of the Segmenter: the Parts of each segment, read back.
struct Cut {
    part_target: Timestamp,
    timescale: Timescale,
    segments: Vec<Vec<(Part, Fragment)>>,
}

/// Cuts before each video keyframe and, without video, every two seconds.
fn cut(samples: &[Sample], part_target_ms: u32) -> Cut {
    let track = Arc::clone(&samples[0].track);
    let part_target = Timestamp::from_millis(part_target_ms.into());
    let mut segmenter = Segmenter::new(Arc::clone(&track), part_target);
    let mut segments: Vec<Vec<Part>> = vec![Vec::new()];
    let mut next_us = 2_000_000;
    for (n, sample) in samples.iter().enumerate() {
        let settled = segmenter.settle(sample, Timestamp::ZERO);
        segments.last_mut().unwrap().extend(settled);
        let due = match track.kind() {
            TrackKind::Video => sample.keyframe && n > 0,
            TrackKind::Audio => sample.dts.as_micros() >= next_us,
        };
        if due {
            next_us += 2_000_000;
            segments.last_mut().unwrap().extend(segmenter.close_part());
            segments.push(Vec::new());
        }
        segments.last_mut().unwrap().extend(segmenter.push(sample, Timestamp::ZERO));
    }
    segments.last_mut().unwrap().extend(segmenter.close_part());
    let read = |part: Part| {
        let fragment = Fragment::read(&part.bytes);
        (part, fragment)
    };
    let segments = segments.into_iter().map(|parts| parts.into_iter().map(read).collect()).collect();
    Cut { part_target, timescale: track.timescale, segments }
}

impl Cut {
    fn parts(&self) -> impl Iterator<Item = &(Part, Fragment)> {
        self.segments.iter().flatten()
    }

    fn placed(&self) -> Vec<Placed> {
        self.parts().flat_map(|(_, fragment)| fragment.samples.clone()).collect()
    }

    fn micros(&self, ticks: i64) -> i64 {
        Timestamp::new(ticks, self.timescale).as_micros()
    }

    /// No Part exceeds PART-TARGET, and says truly how long it is and whether it can be started from.
    fn check_lengths(&self, case: &str) {
        for (n, (part, fragment)) in self.parts().enumerate() {
            let ticks = fragment.end() - fragment.begin;
            assert!(ticks <= self.part_target.ticks_in(self.timescale), "{case}: Part {n} lasts {ticks}");
            assert_eq!(self.micros(ticks), part.duration.as_micros(), "{case}: Part {n}");
            assert_eq!(part.independent, fragment.samples.iter().any(|sample| sample.sync), "{case}: Part {n}");
        }
    }

    /// Only the last of a segment may be short.
    fn check_fullness(&self, case: &str) {
        for (msn, parts) in self.segments.iter().enumerate() {
            for (n, (part, _)) in parts.iter().enumerate().take(parts.len().saturating_sub(1)) {
                let least_us = self.part_target.as_micros() * 85 / 100;
                assert!(
                    part.duration.as_micros() >= least_us,
                    "{case}: segment {msn}, Part {n}: {} us",
                    part.duration.as_micros()
                );
            }
        }
    }

    fn check_seamless(&self, case: &str) {
        let mut end = 0;
        for (_, fragment) in self.parts() {
            assert_eq!(fragment.begin, end, "{case}: decode time has no gap");
            end = fragment.end();
        }
    }

    fn check_shown(&self, samples: &[Sample], within_us: i64, case: &str) {
        let placed = self.placed();
        assert_eq!(placed.len(), samples.len(), "{case}: every Sample, once");
        for (n, (placed, sample)) in placed.iter().zip(samples).enumerate() {
            let off_us = self.micros(placed.pts) - sample.pts.as_micros();
            assert!(off_us.abs() <= within_us, "{case}: Sample {n} is shown {off_us} us late");
        }
    }
}

/// Rates of real sources, with PART-TARGET as the Timeline gives it and frames in about two seconds.
const RATES: [(u32, u32, u32, u64); 8] = [
    (24_000, 1001, 251, 48),
    (24, 1, 250, 48),
    (25, 1, 240, 50),
    (30_000, 1001, 201, 60),
    (30, 1, 200, 60),
    (50, 1, 240, 100),
    (60_000, 1001, 201, 120),
    (60, 1, 200, 120),
];

fn samples_of(publisher: &Publisher, seconds: i64) -> Vec<Sample> {
    publisher.samples(Instant::now(), 0, seconds * 1_000_000).map(|(_, sample)| sample).collect()
}

fn video_samples(video: Video, seconds: i64) -> Vec<Sample> {
    samples_of(&Publisher { video: Some(video), ..Publisher::default() }, seconds)
}

fn at_30_fps(seconds: i64) -> Vec<Sample> {
    video_samples(Video::new(30, 1, Keys::Every(60)), seconds)
}

/// Moves decoding and showing alike.
fn shift(sample: &mut Sample, us: i64) {
    sample.pts = sample.pts + Timestamp::from_micros(us);
    sample.dts = sample.dts + Timestamp::from_micros(us);
}

#[test]
fn parts_are_full_and_seamless_at_every_frame_rate() {
    for (frames, seconds, part_ms, gop) in RATES {
        let case = format!("{frames}/{seconds} fps");
        let samples = video_samples(Video::new(frames, seconds, Keys::Every(gop)), 120);
        let cut = cut(&samples, part_ms);
        cut.check_lengths(&case);
        cut.check_fullness(&case);
        cut.check_seamless(&case);
        cut.check_shown(&samples, 2_000, &case);
    }
}

#[test]
fn parts_are_full_and_seamless_at_every_sample_rate() {
    for rate in [11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000] {
        for channels in [1, 2] {
            let case = format!("{rate} Hz, {channels} channels");
            let audio = Some(Audio::new(rate, channels));
            let samples = samples_of(&Publisher { audio, ..Publisher::default() }, 60);
            let cut = cut(&samples, 200);
            cut.check_lengths(&case);
            cut.check_seamless(&case);
            cut.check_shown(&samples, 0, &case);
            if rate > 11_025 {
                // There, a frame is half a Part.
                cut.check_fullness(&case);
            }
        }
    }
}

#[test]
fn jitter_does_not_add_up() {
    for (frames, seconds, part_ms, gop) in RATES {
        let case = format!("{frames}/{seconds} fps, 8 ms of jitter");
        let mut samples = video_samples(Video::new(frames, seconds, Keys::Every(gop)), 120);
        for (n, sample) in samples.iter_mut().enumerate().skip(1) {
            shift(sample, (n as i64 * 7919 % 17 - 8) * 1_000);
        }
        let cut = cut(&samples, part_ms);
        cut.check_lengths(&case);
        cut.check_seamless(&case);
        cut.check_shown(&samples, 20_000, &case);
        let short = cut.segments.iter().flat_map(|parts| parts.iter().rev().skip(1));
        let short = short.filter(|(part, _)| part.duration.as_micros() * 100 < i64::from(part_ms) * 1000 * 85).count();
        assert!(short * 50 < cut.parts().count(), "{case}: {short} short Parts of {}", cut.parts().count());
    }
}

#[test]
fn a_dropped_frame_moves_no_other() {
    let mut samples = at_30_fps(20);
    for n in [400, 301, 186, 97, 35] {
        samples.remove(n);
    }
    let cut = cut(&samples, 200);
    cut.check_lengths("dropped frames");
    cut.check_fullness("dropped frames");
    cut.check_seamless("dropped frames");
    cut.check_shown(&samples, 2_000, "dropped frames");
}

#[test]
fn a_gap_splits_no_rule() {
    for gap_ms in [300, 1500] {
        for at in [70, 71, 72, 77] {
            let case = format!("{gap_ms} ms before frame {at}");
            let mut samples = at_30_fps(20);
            samples.iter_mut().skip(at).for_each(|sample| shift(sample, gap_ms * 1000));
            let cut = cut(&samples, 200);
            cut.check_lengths(&case);
            cut.check_seamless(&case);
            cut.check_shown(&samples, 17_000, &case);
        }
    }
}

#[test]
fn b_frames_keep_their_order() {
    for (frames, seconds, part_ms, gop) in RATES {
        let case = format!("{frames}/{seconds} fps, B-frames");
        let samples = video_samples(Video { pyramid: true, ..Video::new(frames, seconds, Keys::Every(gop)) }, 60);
        let cut = cut(&samples, part_ms);
        cut.check_lengths(&case);
        cut.check_fullness(&case);
        cut.check_seamless(&case);
        cut.check_shown(&samples, 2_000, &case);
        let order = |key: &dyn Fn(usize) -> i64| {
            let mut order: Vec<usize> = (0..samples.len()).collect();
            order.sort_by_key(|&n| key(n));
            order
        };
        let placed = cut.placed();
        assert_eq!(order(&|n| placed[n].pts), order(&|n| samples[n].pts.ticks), "{case}");
    }
}

#[test]
fn a_part_is_complete_with_its_last_sample() {
    for (frames, seconds, part_ms, gop) in RATES {
        let samples = video_samples(Video::new(frames, seconds, Keys::Every(gop)), 10);
        let a_part = u64::from(part_ms) * u64::from(frames) / (u64::from(seconds) * 1000);
        let mut segmenter = Segmenter::new(Arc::clone(&samples[0].track), Timestamp::from_millis(part_ms.into()));
        for (n, sample) in samples.iter().enumerate() {
            assert!(segmenter.settle(sample, Timestamp::ZERO).is_none(), "{frames}/{seconds}: frame {n} came too late for it");
            let complete = segmenter.push(sample, Timestamp::ZERO).is_some();
            assert_eq!(complete, (n as u64 + 1).is_multiple_of(a_part), "{frames}/{seconds}: frame {n}");
            assert_eq!(segmenter.at_border(), complete);
        }
    }
}

#[test]
fn sound_that_paused_is_a_hole_and_nothing_is_stretched() {
    let mut samples = samples_of(&Publisher { audio: Some(Audio::new(48_000, 2)), ..Publisher::default() }, 4);
    samples.iter_mut().skip(90).for_each(|sample| shift(sample, 1_000_000));
    let cut = cut(&samples, 200);
    cut.check_lengths("a pause");
    cut.check_shown(&samples, 21_334, "a pause");
}

#[test]
fn a_restart_does_not_go_back_behind_a_picture_that_came_early() {
    let mut samples = at_30_fps(1);
    shift(&mut samples[6], -15_000);
    let part_target = Timestamp::from_millis(200);
    let mut segmenter = Segmenter::new(Arc::clone(&samples[0].track), part_target);
    let mut parts = Vec::new();
    for sample in &samples[..6] {
        parts.extend(segmenter.settle(sample, Timestamp::ZERO));
        parts.extend(segmenter.push(sample, Timestamp::ZERO));
    }
    let end = Fragment::read(&parts.last().unwrap().bytes).end();
    assert!(segmenter.at_border() && samples[6].dts < segmenter.end(), "the Part is out, and ends behind the picture");
    segmenter.settle(&samples[6], Timestamp::ZERO);
    segmenter.restart(&samples[6].track, samples[6].dts, part_target);
    segmenter.push(&samples[6], Timestamp::ZERO);
    assert_eq!(Fragment::read(&segmenter.close_part().unwrap().bytes).begin, end);
}

#[test]
fn keyframes_bring_their_parameters_from_a_change_on() {
    let [before, after] = [640, 1280].map(|width| script::video_track(FrameRate { frames: 30, seconds: 1 }, width));
    let Parameters::H264(parameters) = &after.parameters else { unreachable!("the script's picture is H.264") };
    let part_target = Timestamp::from_millis(200);
    let mut segmenter = Segmenter::new(Arc::clone(&before), part_target);
    // A delimiter and a slice.
    let unit = |slice: u8| Bytes::from(vec![0, 0, 0, 2, 9, 0xf0, 0, 0, 0, 2, slice, 1]);
    let mut nals = |track: &Arc<Track>, n: i64, keyframe: bool| {
        let at = Timestamp::from_millis(n * 33);
        if *segmenter.track() != *track {
            segmenter.restart(track, at, part_target);
        }
        let payload = unit(if keyframe { 0x65 } else { 0x41 });
        let sample =
            Sample { track: Arc::clone(track), pts: at, dts: at, duration: None, keyframe, payload, received: Instant::now() };
        segmenter.push(&sample, Timestamp::ZERO);
        let part = segmenter.close_part().expect("one picture");
        let mdat = part.bytes.windows(4).position(|kind| kind == b"mdat").expect("a Part has media") + 4;
        h264::nal_units(&part.bytes[mdat..]).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let (delimiter, idr, slice) = (vec![9, 0xf0], vec![0x65, 1], vec![0x41, 1]);
    assert_eq!(nals(&before, 0, true), [delimiter.clone(), idr.clone()]);
    let (sps, pps) = (parameters.sps()[0].to_vec(), parameters.pps()[0].to_vec());
    for n in [1, 3] {
        assert_eq!(nals(&after, n, true), [delimiter.clone(), sps.clone(), pps.clone(), idr.clone()]);
        assert_eq!(nals(&after, n + 1, false), [delimiter.clone(), slice.clone()]);
    }
}

/// A rung of `auto`: 10 pictures a second, 30 from a cut on, and 10 again. It says how long each is shown.
#[test]
fn a_pace_that_changes_at_a_cut_keeps_parts_whole() {
    let publisher = Publisher { video: Some(Video::new(30, 1, Keys::Every(60))), audio: None, clock_us: 0 };
    let all = publisher.samples(Instant::now(), 0, 12_000_000).map(|(_, sample)| sample);
    let step = |n: usize| if (120..240).contains(&n) { 1 } else { 3 };
    let taken: Vec<_> = all
        .enumerate()
        .filter(|(n, _)| n.is_multiple_of(step(*n)))
        .map(|(n, sample)| {
            let length = Timestamp::from_micros(step(n) as i64 * 100_000 / 3).ticks_in(sample.track.timescale);
            Sample { duration: u32::try_from(length).ok(), ..sample }
        })
        .collect();
    let cut = cut(&taken, 200);
    cut.check_lengths("auto");
    for (msn, parts) in cut.segments.iter().enumerate() {
        let pictures = if (2..4).contains(&msn) { 6 } else { 2 };
        assert_eq!(parts.len(), 10, "segment {msn}");
        assert!(parts.iter().all(|(_, fragment)| fragment.samples.len() == pictures), "segment {msn}");
    }
    let shown: Vec<_> = cut.placed().iter().map(|placed| cut.micros(placed.pts)).collect();
    let sent: Vec<_> = taken.iter().map(|sample| sample.pts.as_micros()).collect();
    assert_eq!(shown.len(), sent.len());
    let off = shown.iter().zip(&sent).map(|(shown, sent)| shown.abs_diff(*sent)).max();
    assert!(off <= Some(1_000), "{off:?} us off");
}
