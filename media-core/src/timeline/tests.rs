//! The Timeline's rules, in virtual time.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::*;
use crate::{
    codec::{aac, h264},
    sample::{Parameters, Track, TrackId},
    timestamp::Timescale,
};

fn video_track() -> Arc<Track> {
    let record = Bytes::from_static(h264::tests::RECORD_360P30);
    Arc::new(Track {
        id: TrackId::VIDEO,
        timescale: Timescale::MILLIS,
        parameters: Parameters::H264(h264::Parameters::parse(record).unwrap()),
    })
}

fn rateless_track() -> Arc<Track> {
    let Parameters::H264(p) = video_track().parameters.clone() else { unreachable!() };
    Arc::new(Track {
        id: TrackId::VIDEO,
        timescale: Timescale::MILLIS,
        parameters: Parameters::H264(h264::Parameters { frame_rate: None, ..p }),
    })
}

fn sample(track: &Arc<Track>, us: i64, keyframe: bool, payload: &[u8]) -> Sample {
    Sample {
        track: Arc::clone(track),
        pts: Timestamp::from_micros(us),
        dts: Timestamp::from_micros(us),
        duration: None,
        keyframe,
        payload: Bytes::copy_from_slice(payload),
        received: Instant::now(),
    }
}

/// Frames at a rate as RTMP shows them: whole milliseconds.
fn frame_us(n: u32, rate: f64) -> i64 {
    (f64::from(n) * 1000.0 / rate).round() as i64 * 1000
}

fn wall(us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000) + Duration::from_micros(us as u64)
}

fn probe(track: &Arc<Track>, hints: Hints, rate: f64, keys: &[u32], payload: &[u8]) -> (Grid, u32) {
    let mut probe = Probe::new(hints);
    for n in 0..1000 {
        let key = keys.contains(&n);
        if let Some(grid) = probe.push(&sample(track, frame_us(n, rate), key, if key { payload } else { b"" })) {
            return (grid, n);
        }
    }
    panic!("never settled");
}

#[test]
fn target_duration_holds_the_keyframe_interval() {
    let check = |keys: &[u32], hint_ms: Option<u64>, target, settled_at| {
        let hints = Hints { keyframe_interval: hint_ms.map(Duration::from_millis), ..Hints::default() };
        let (grid, frame) = probe(&video_track(), hints, 30.0, keys, b"");
        assert_eq!((grid.target_duration, frame), (target, settled_at), "{keys:?} {hint_ms:?}");
    };
    check(&[0, 60], None, 2, 60); // the second keyframe tells
    check(&[0, 30], None, 2, 30);
    check(&[0, 9, 57], None, 2, 57); // a scene cut does not
    check(&[0, 72], None, 2, 72);
    check(&[0, 74], None, 6, 74);
    check(&[0], None, 10, 75); // after 2.5 s without one
    check(&[0, 9], None, 10, 84); // behind the last one
    check(&[0, 15, 77], None, 2, 77); // a publisher that was asked for a second one at its start
    check(&[0], Some(2000), 2, 6); // known: as soon as the rate is
    check(&[0], Some(4000), 6, 6);
    check(&[0], Some(8340), 10, 6);
    check(&[0], Some(20_000), 10, 6);
    let (grid, _) =
        probe(&video_track(), Hints { keyframe_interval: Some(Duration::from_secs(20)), ..Hints::default() }, 30.0, &[0], b"");
    assert!(!grid.independent_segments, "known from the start to need cuts without keyframes");
}

#[test]
fn x264_settings_tell_the_interval_at_the_first_keyframe() {
    let payload = h264::tests::access_unit(&[b"\x06\x05\xffx264 options: keyint=60 min-keyint=6", b"\x65\x88"]);
    // They are of this publisher; what is remembered may be of another.
    let before = Hints { remembered_interval: Some(Duration::from_secs(8)), ..Hints::default() };
    for hints in [Hints::default(), before.clone()] {
        let (grid, frame) = probe(&video_track(), hints, 30.0, &[0], &payload);
        assert_eq!((grid.target_duration, grid.keyframe_interval_us, frame), (2, Some(2_000_000), 6));
    }
    let (grid, frame) = probe(&video_track(), before, 30.0, &[0], b"");
    assert_eq!((grid.target_duration, frame), (10, 6), "remembered, where nothing is written");
}

/// aiortc writes 250 frames, and sends a keyframe whenever it is asked; OBS by WHIP writes what it sends, and does not listen.
#[test]
fn what_is_written_is_doubted_where_keyframes_are_asked_for_more_often() {
    let check = |written: &str, asked_s: u64, keys: &[u32], target, settled_at| {
        let settings = format!("\x06\x05\x7fx264 options: keyint={written} min-keyint=6");
        let payload = h264::tests::access_unit(&[settings.as_bytes(), b"\x65\x88"]);
        let hints = Hints { asked_interval: Some(Duration::from_secs(asked_s)), ..Hints::default() };
        let (grid, frame) = probe(&video_track(), hints, 30.0, keys, &payload);
        assert_eq!((grid.target_duration, frame), (target, settled_at), "{written} {asked_s} {keys:?}");
    };
    check("60", 2, &[0], 2, 6);
    check("250", 2, &[0, 61], 2, 61); // it listens
    check("250", 2, &[0, 14, 40], 2, 40);
    check("250", 2, &[0], 10, 75); // it does not
    check("250", 5, &[0], 10, 75);
    check("infinite", 2, &[0], 10, 75);
    check("infinite", 5, &[0], 6, 75); // it may still
}

#[test]
fn part_target_is_whole_frames() {
    let known = Hints { keyframe_interval: Some(Duration::from_secs(2)), ..Hints::default() };
    let check = |track: &Arc<Track>, announced: Option<f64>, rate: f64, part_ms| {
        let hints = Hints { frame_rate: announced, ..known.clone() };
        let (grid, _) = probe(track, hints, rate, &[0], b"");
        assert_eq!((grid.part_target_ms, grid.irregular), (part_ms, false), "{announced:?} {rate}");
    };
    check(&video_track(), None, 30.0, 200); // SPS
    check(&video_track(), Some(25.0), 30.0, 200); // a lie in metadata
    check(&video_track(), None, 15.0, 200); // a lie in the SPS: 3 frames of 15 fps
    let track = rateless_track();
    for (rate, part_ms) in
        [(24.0, 250), (25.0, 240), (30_000.0 / 1001.0, 201), (48.0, 250), (50.0, 240), (60_000.0 / 1001.0, 201)]
    {
        check(&track, Some(rate), rate, part_ms);
    }
    check(&track, Some(60.0), 60.0, 200);
    check(&track, None, 30.0, 201); // 29.97 or 30: the slower holds both
    check(&track, None, 15.0, 200);
    check(&track, None, 20.0, 200);
    check(&track, None, 120.0, 201);
    check(&track, None, 5.0, 200);
    check(&track, None, 2.0, 500); // one frame, where that is longer
    check(&track, None, 27.0, 222); // none of the known: six frames as measured
}

#[test]
fn a_source_with_gaps_is_irregular() {
    let mut probe = Probe::new(Hints { keyframe_interval: Some(Duration::from_secs(2)), ..Hints::default() });
    let grid = (0..20).find_map(|n| {
        probe.push(&sample(&rateless_track(), i64::from(n) * 33_000 + if n > 3 { 900_000 } else { 0 }, n == 0, b""))
    });
    let grid = grid.unwrap();
    assert_eq!((grid.part_target_ms, grid.irregular), (1000, true));
}

#[test]
fn of_pictures_far_apart_a_constant_rate_can_be_made() {
    let of = |asked_interval: Option<Duration>, at: fn(i64) -> i64, pictures: i64, target_duration_min| {
        let mut probe = Probe::new(Hints { target_duration_min, asked_interval, ..Hints::default() });
        (0..pictures).find_map(|n| {
            let known = probe.push(&sample(&rateless_track(), at(n) * 1000, n == 0, b""));
            probe.constant_grid(known.as_ref()).map(|grid| (n, grid))
        })
    };
    let grid = |at, pictures, min| of(Some(Duration::from_secs(2)), at, pictures, min);
    let (n, constant) = grid(|n| n * 33 + if n > 3 { 900 } else { 0 }, 100, 0).unwrap();
    assert_eq!(n, 4, "one long gap tells");
    assert_eq!((constant.constant, constant.irregular, constant.frame_rate), (true, false, 30.0));
    assert_eq!((constant.part_target_ms, constant.target_duration, constant.keyframe_interval_us), (200, 2, Some(2_000_000)));
    assert_eq!(grid(|n| n * 1000, 100, 4).map(|(n, grid)| (n, grid.target_duration)), Some((1, 4)), "a still screen");
    assert!(grid(|n| n * 33 + n / 7 * 300, 100, 0).is_some(), "many short ones tell, too");
    assert_eq!(grid(|n| n * 33, 300, 0), None);
    assert_eq!(grid(|n| n * 200, 300, 0), None, "slow, and regular");
    assert_eq!(of(None, |n| n * 1000, 100, 4), None, "an encoder at one picture a second");
    assert!(of(None, |n| n * 33 + n / 3 * 700, 100, 0).is_some_and(|(n, _)| n > 6), "others are looked at until all is known");
}

/// The distances of a WebRTC publisher: `at` gives the nth picture's capture, in microseconds.
fn probe_uneven(keyframe_interval: Option<Duration>, keys: impl Fn(u32) -> bool, at: impl Fn(u32) -> i64) -> (Grid, u32) {
    let mut probe = Probe::new(Hints { keyframe_interval, ..Hints::default() });
    let track = rateless_track();
    (0..300).find_map(|n| Some((probe.push(&sample(&track, at(n), keys(n), b""))?, n))).expect("it settles")
}

#[test]
fn jitter_makes_no_source_irregular() {
    let jitter = |n: u32, most: i64| i64::from(n.wrapping_mul(2_654_435_761) >> 8) % (2 * most + 1) - most;
    let check =
        |rate: f64, jitter_us: i64, dropped: fn(u32) -> i64, frame_rate: std::ops::Range<f64>, parts: std::ops::Range<u32>| {
            for known in [None, Some(Duration::from_secs(2))] {
                let at = |n: u32| (f64::from(n) * 1e6 / rate) as i64 + jitter(n, jitter_us) + dropped(n);
                let key = |n: u32| n.is_multiple_of((rate * 2.0) as u32);
                let (grid, _) = probe_uneven(known, key, at);
                assert!(
                    !grid.irregular && frame_rate.contains(&grid.frame_rate) && parts.contains(&grid.part_target_ms),
                    "{rate}: {grid:?}"
                );
            }
        };
    check(30.0, 7_500, |_| 0, 28.5..31.5, 190..225);
    // Pictures that were left out, one or two at a time.
    check(30.0, 7_500, |n| i64::from(n / 20) * 33_333 + i64::from(n / 45) * 66_667, 28.5..31.5, 190..225);
    check(15.0, 15_000, |_| 0, 14.0..16.0, 185..215);
    check(5.0, 15_000, |_| 0, 4.8..5.2, 190..210);
    // An encoder that starts slowly.
    check(30.0, 3_000, |n| if n > 0 { 350_000 } else { 0 }, 28.5..31.5, 190..225);
    // A screen that stands still at first, as it does at its start.
    let idle = |n: u32| if n < 8 { i64::from(n) * 1_000_000 } else { 7_000_000 + i64::from(n - 7) * 33_333 };
    let (grid, _) = probe_uneven(None, |n| n.is_multiple_of(2), idle);
    assert_eq!((grid.part_target_ms, grid.irregular), (1000, false), "one picture a Part");
    let idles = |n: u32| i64::from(n) * 33_333 + i64::from(n / 20) * 700_000;
    let (grid, _) = probe_uneven(None, |n| n.is_multiple_of(40), idles);
    assert!(grid.irregular, "{grid:?}");
}

#[test]
fn audio_alone_settles_at_once() {
    let parameters = Parameters::Aac(aac::Parameters::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    let track = Arc::new(Track { id: TrackId::AUDIO, timescale: Timescale::new(48_000).unwrap(), parameters });
    let grid = Probe::new(Hints::default()).push(&sample(&track, 0, true, b"")).unwrap();
    assert_eq!((grid.target_duration, grid.part_target_ms), (2, 200));
}

struct Run {
    timeline: Timeline,
    track: Arc<Track>,
}

fn state(target_duration: u32, interval_ms: Option<i64>) -> State {
    let grid = Grid {
        target_duration,
        part_target_ms: 200,
        keyframe_interval_us: interval_ms.map(|ms| ms * 1000),
        independent_segments: true,
        irregular: false,
        constant: false,
        frame_rate: 30.0,
    };
    State::new(&grid, wall(0), None)
}

impl Run {
    fn new(state: State) -> Self {
        let mut timeline = Timeline::new(state);
        timeline.join(1);
        Self { timeline, track: video_track() }
    }

    /// The times, in frames of 30 a second, at which segments open; `!` behind those without a keyframe.
    fn cuts(&mut self, frames: u32, keys: &[u32]) -> Vec<String> {
        let first = self.timeline.state().next_msn;
        let mut cuts = Vec::new();
        for n in 0..frames {
            let us = i64::from(n) * 100_000 / 3;
            let offset_us = self.timeline.offset().map_or(0, Timestamp::as_micros);
            let border = (us + offset_us - self.timeline.last_cut_us + 5) % 200_000 < 10;
            if let Place::Open(cut) = self.timeline.push(&sample(&self.track, us, keys.contains(&n), b""), border, wall(us)) {
                assert_eq!(cut.msn, first + cuts.len() as u64, "numbers have no gap");
                cuts.push(format!("{n}{}", if cut.independent { "" } else { "!" }));
            }
        }
        cuts
    }
}

#[test]
fn a_cut_comes_when_waiting_for_the_next_keyframe_could_be_too_long() {
    let check = |target, interval_ms, keys: &[u32], expected: &[&str]| {
        assert_eq!(Run::new(state(target, interval_ms)).cuts(190, keys), expected, "{target} {interval_ms:?} {keys:?}");
    };
    check(2, Some(2000), &[0, 60, 120, 180], &["0", "60", "120", "180"]);
    check(2, Some(1000), &[0, 30, 60, 90, 120, 150, 180], &["0", "60", "120", "180"]); // two GOPs each
    check(2, Some(2000), &[0, 9, 57, 87, 147], &["0", "57", "87", "147"]); // scene cuts at 0.3, 1.9, 2.9 s
    check(4, Some(2000), &[0, 60, 120, 180], &["0", "60", "180"]); // the ladder's grid, behind a short first segment
    check(6, Some(4000), &[0, 120], &["0", "120"]);
    check(2, None, &[0, 60], &["0", "60", "132!"]);
    check(2, Some(6000), &[0, 180], &["0", "72!", "144!", "180"]); // on Part borders, at 2.4 s
    check(2, Some(2000), &[5, 65], &["5", "65", "137!"]); // nothing before the first keyframe
}

#[test]
fn the_next_publisher_continues_behind_a_discontinuity() {
    let mut run = Run::new(state(2, Some(2000)));
    run.cuts(100, &[0, 60]);
    run.timeline.leave(Timestamp::from_millis(3400));
    run.timeline.join(2);
    assert_eq!(run.timeline.push(&sample(&run.track, 7_000_000, false, b""), true, wall(9_000_000)), Place::Drop);
    let place = run.timeline.push(&sample(&run.track, 7_040_000, true, b""), true, wall(9_040_000));
    let Place::Open(cut) = place else { panic!("{place:?}") };
    assert!(cut.discontinuity && cut.independent);
    assert_eq!(cut.at, Timestamp::from_millis(3400), "media time has no gap");
    assert_eq!(cut.wall_us, micros(wall(9_040_000)), "the wall clock has");
    assert_eq!(run.timeline.state().discontinuities, 1);
    assert_eq!(run.timeline.offset(), Some(Timestamp::from_micros(3_400_000 - 7_040_000)));
}

#[test]
fn new_parameters_cut_at_the_next_keyframe() {
    let mut run = Run::new(state(2, Some(1000)));
    run.cuts(10, &[0]);
    run.timeline.change();
    let place = run.timeline.push(&sample(&run.track, 500_000, true, b""), false, wall(500_000));
    assert!(matches!(place, Place::Open(Cut { discontinuity: true, .. })), "{place:?}");
}

#[test]
fn state_survives_saving_and_loading() {
    let mut run = Run::new(state(2, Some(2000)));
    run.cuts(100, &[0, 60]);
    run.timeline.leave(Timestamp::from_millis(3333));
    let text = serde_json::to_string(run.timeline.state()).unwrap();
    let loaded: State = serde_json::from_str(&text).unwrap();
    assert_eq!(&loaded, run.timeline.state());
    let mut continued = Run::new(loaded);
    let place = continued.timeline.push(&sample(&continued.track, 0, true, b""), true, wall(60_000_000));
    let Place::Open(cut) = place else { panic!("{place:?}") };
    assert_eq!(cut.msn, run.timeline.state().next_msn);
    assert!(cut.discontinuity);
    assert_eq!(cut.at, Timestamp::from_millis(3333));
}

#[test]
fn numbers_of_one_name_never_go_back() {
    let grid = Probe::new(Hints::default()).audio_grid_for_tests();
    assert_eq!(State::new(&grid, wall(0), None).next_msn, 1_000_000_000);
    assert_eq!(State::new(&grid, wall(0), Some(5_000_000_000)).next_msn, 5_000_000_002);
}

#[test]
fn program_date_time_follows_a_drifting_publisher() {
    // 200 ppm slow for an hour, with arrivals up to 300 ms late.
    let mut run = Run::new(state(2, Some(2000)));
    let mut last = 0;
    for second in 0..3600_i64 {
        for n in 0..30 {
            let us = second * 1_000_000 + n * 100_000 / 3;
            let late = (second * 7919 + n * 104_729) % 300_000;
            let arrival = us + us / 5000 + late;
            let key = n == 0 && second % 2 == 0;
            if let Place::Open(cut) = run.timeline.push(&sample(&run.track, us, key, b""), true, wall(arrival)) {
                let truth = micros(wall(us + us / 5000));
                assert!((cut.wall_us - truth).abs() < 300_000 + 10_000, "at {second} s: off by {}", cut.wall_us - truth);
                assert!(last == 0 || (cut.wall_us - last - 2_000_000).abs() <= PDT_STEP_MAX_US, "steps stay small");
                last = cut.wall_us;
            }
        }
    }
}

#[test]
fn program_date_time_goes_with_the_media_of_an_even_publisher() {
    // Its first picture is late, and each other up to 9 ms.
    let dates = |first_late_us: i64| {
        let mut run = Run::new(state(2, Some(2000)));
        let mut dates = Vec::new();
        for n in 0..1800_i64 {
            let us = n * 100_000 / 3;
            let late = if n == 0 { first_late_us } else { (n * 7919) % 9_000 };
            if let Place::Open(cut) = run.timeline.push(&sample(&run.track, us, n % 60 == 0, b""), true, wall(us + late)) {
                dates.push(cut.wall_us - us);
            }
        }
        assert_eq!(dates.len(), 30);
        dates
    };
    let steady = dates(40_000);
    assert!((steady[0] - steady[1]).abs() > 30_000, "the first arrival is not believed any longer than must be");
    assert!(steady[1..].iter().all(|date| *date == steady[1]), "{steady:?}");
    let very_late = dates(300_000);
    assert_eq!(very_late[0] - very_late[1], PDT_SETTLE_MAX_US, "no date is another's");
    assert!(very_late[1..].windows(2).all(|pair| (0..=PDT_STEP_MAX_US).contains(&(pair[0] - pair[1]))), "{very_late:?}");
}

#[test]
fn another_process_goes_on_beyond_what_was_reserved() {
    let track = video_track();
    let (grid, _) = probe(&track, Hints::default(), 30.0, &[0, 60, 120], b"");
    let mut timeline = Timeline::new(State::new(&grid, wall(0), None));
    assert_eq!(timeline.state().reserve(), None, "nothing was published");
    timeline.join(1);
    let cut = |timeline: &mut Timeline, n: u32, from_us: i64| {
        let us = frame_us(n, 30.0);
        let Place::Open(cut) = timeline.push(&sample(&track, us, true, b""), true, wall(from_us + us)) else {
            panic!("a keyframe after 2 s opens a segment")
        };
        cut
    };
    cut(&mut timeline, 0, 0);
    let kept = timeline.state().reserve().unwrap();
    let mut last = None;
    for n in 1..8 {
        assert_eq!(timeline.state().outgrows(&kept), n > 4, "after {n} cuts");
        last = Some(cut(&mut timeline, n * 60, 0));
    }
    // Killed before it was kept again; started 3 s later.
    let mut next = Timeline::new(kept.resume(wall(0), wall(17_000_000)));
    next.join(2);
    let (last, first) = (last.unwrap(), cut(&mut next, 0, 20_000_000));
    assert!(first.msn > last.msn && first.at > last.at + Timestamp::from_micros(2_400_000), "{first:?}");
    assert!(first.discontinuity && first.independent);
    assert_eq!(first.wall_us, micros(wall(20_000_000)), "the time of day is true");
    let (before, after) = (timeline.state(), next.state());
    assert_eq!((after.target_duration, after.part_target_ms), (before.target_duration, before.part_target_ms));
    assert_eq!(after.discontinuities, before.discontinuities + 1);
}
