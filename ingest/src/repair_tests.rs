//! Broken clocks, in virtual time: what goes in is RTMP's milliseconds, what comes out grows and stays together.

use super::*;

const RATE: Timescale = Timescale::new(44_100).expect("44100 is not 0");

/// A publisher of 30 pictures and 43 frames a second whose clock shows `clock(ms)`.
struct Source {
    clocks: Clocks,
    last_video_us: i64,
    last_audio_ticks: Option<i64>,
    /// Ticks between audio frames that were not a whole frame.
    audio_steps: Vec<i64>,
    /// The largest distance between video and audio sent at the same time.
    apart_us: i64,
}

impl Source {
    fn new() -> Self {
        Self { clocks: Clocks::default(), last_video_us: i64::MIN, last_audio_ticks: None, audio_steps: Vec::new(), apart_us: 0 }
    }

    /// Runs from `from` to `to` seconds of true time.
    fn run(&mut self, from: f64, to: f64, video_clock: impl Fn(f64) -> f64, audio_clock: impl Fn(f64) -> f64) {
        let (mut picture, mut frame) = ((from * 30.0).ceil() as i64, (from * 44_100.0 / 1024.0).ceil() as i64);
        loop {
            let (video_at, audio_at) = (picture as f64 / 30.0, frame as f64 * 1024.0 / 44_100.0);
            if video_at.min(audio_at) >= to {
                break;
            }
            if video_at <= audio_at {
                let stamp = self.clocks.picture(TrackId::VIDEO, (video_clock(video_at) * 1000.0).round() as i64 as u32, 0);
                assert!(stamp.dts.as_micros() > self.last_video_us, "video grows strictly");
                assert!(stamp.pts >= stamp.dts);
                self.last_video_us = stamp.dts.as_micros();
                picture += 1;
            } else {
                if let Some(at) =
                    self.clocks.audio(TrackId::AUDIO, (audio_clock(audio_at) * 1000.0).round() as i64 as u32, RATE, 1024)
                {
                    if let Some(last) = self.last_audio_ticks {
                        assert!(at.ticks > last, "audio grows strictly");
                        if at.ticks - last != 1024 {
                            self.audio_steps.push(at.ticks - last);
                        }
                    }
                    self.last_audio_ticks = Some(at.ticks);
                    if self.last_video_us > i64::MIN {
                        self.apart_us = self.apart_us.max((at.as_micros() - self.last_video_us).abs());
                    }
                }
                frame += 1;
            }
        }
    }

    fn count(&self, repair: Repair) -> u64 {
        self.clocks.repairs().of(repair)
    }
}

#[test]
fn a_true_clock_needs_no_repair() {
    let mut source = Source::new();
    source.run(0.0, 3600.0, |t| t, |t| t);
    assert_eq!(source.clocks.repairs().total(), 0, "{:?}", source.clocks.repairs());
    assert!(source.audio_steps.is_empty(), "44.1 kHz has neither gap nor overlap in an hour");
    assert!(source.apart_us < 60_000);
}

#[test]
fn wraps_are_no_jumps() {
    for (start, wraps) in [(f64::from(0xff_ffff) / 1000.0 - 5.0, 0), (4_294_967.296 - 5.0, 1)] {
        let mut source = Source::new();
        source.run(0.0, 10.0, |t| t + start, |t| t + start);
        assert_eq!(source.count(Repair::Wrap), wraps);
        assert_eq!(source.clocks.repairs().total(), wraps, "{:?}", source.clocks.repairs());
        assert!(source.audio_steps.is_empty() && source.apart_us < 60_000);
    }
}

#[test]
fn a_jump_of_both_tracks_is_one_repair_and_keeps_them_together() {
    for (jump, repair) in [
        (-0.5, Repair::JumpBackward),
        (10.0, Repair::JumpForward),
        (-3600.0, Repair::JumpBackward),
        (86_400.0, Repair::JumpForward),
    ] {
        let mut source = Source::new();
        let clock = move |t: f64| 5000.0 + t + if t >= 5.0 { jump } else { 0.0 };
        source.run(0.0, 20.0, clock, clock);
        assert_eq!(source.count(repair), 1, "{jump}: {:?}", source.clocks.repairs());
        assert!(source.apart_us < 150_000, "{jump}: {} us apart", source.apart_us);
        let length_us = source.last_video_us - 5_000_000_000;
        assert!((length_us - 20_000_000).abs() < 200_000, "the timeline goes on: {length_us}");
    }
}

#[test]
fn a_step_back_of_a_millisecond_is_clamped() {
    let mut clocks = Clocks::default();
    let times = [0, 33, 32, 67, 66, 100].map(|ms| clocks.picture(TrackId::VIDEO, ms, 0).dts.ticks);
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert_eq!(clocks.repairs().of(Repair::DtsClamped), 2);
    assert_eq!(clocks.repairs().total(), 2);
}

#[test]
fn a_picture_is_not_shown_before_it_is_decoded() {
    let mut clocks = Clocks::default();
    let stamp = clocks.picture(TrackId::VIDEO, 100, -40);
    assert_eq!(stamp.pts, stamp.dts);
    assert_eq!(clocks.repairs().of(Repair::PtsClamped), 1);
    assert_eq!(clocks.picture(TrackId::VIDEO, 133, 66).pts.as_micros(), 199_000);
}

#[test]
fn lost_audio_is_skipped_in_whole_frames() {
    let mut source = Source::new();
    source.run(0.0, 5.0, |t| t, |t| t);
    source.run(5.0, 10.0, |t| t, |t| t + 0.5);
    assert_eq!(source.count(Repair::AudioGap), 1);
    assert_eq!(source.audio_steps.len(), 1);
    assert_eq!(source.audio_steps[0] % 1024, 0);
}

#[test]
fn a_slow_sound_card_is_corrected_now_and_then() {
    // 200 ppm for two hours is 1.44 s.
    let mut source = Source::new();
    source.run(0.0, 7200.0, |t| t, |t| t * 1.0002);
    let gaps = source.count(Repair::AudioGap);
    assert!((10..=60).contains(&gaps), "{:?}", source.clocks.repairs());
    assert_eq!(source.clocks.repairs().total(), gaps);
}

#[test]
fn no_input_breaks_the_order() {
    // A small generator of its own: the same numbers every time.
    let mut state = 7_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut clocks = Clocks::default();
    let (mut video, mut audio) = (i64::MIN, i64::MIN);
    for n in 0..200_000 {
        let timestamp = if next() % 50 == 0 { next() as u32 } else { (n as u32).wrapping_mul(33) };
        if next() % 2 == 0 {
            let stamp = clocks.picture(TrackId::VIDEO, timestamp, (next() % 400) as i32 - 200);
            assert!(stamp.dts.ticks > video && stamp.pts >= stamp.dts);
            video = stamp.dts.ticks;
        } else if let Some(at) = clocks.audio(TrackId::AUDIO, timestamp, RATE, 1024) {
            assert!(at.ticks > audio);
            audio = at.ticks;
        }
    }
}

#[test]
fn nanoseconds_are_added_to_both_times() {
    let mut clocks = Clocks::default();
    // 30 pictures a second, rounded down to milliseconds, and what was lost by that.
    let times = [0_u64, 33_333_333, 66_666_666, 100_000_000].map(|nanos| {
        let told = Told { ms: (nanos / 1_000_000) as u32, nanos: (nanos % 1_000_000) as u32 };
        let stamp = clocks.picture(TrackId::VIDEO, told, 10);
        assert_eq!(stamp.pts.ticks - stamp.dts.ticks, 900);
        stamp.dts.ticks
    });
    assert_eq!(times, [0, 2999, 5999, 9000]);
    let at = clocks.audio(TrackId::AUDIO, Told { ms: 100, nanos: 500_000 }, Timescale::new(48_000).unwrap(), 960);
    assert_eq!(at.map(|at| at.ticks), Some(4824));
    assert_eq!(clocks.repairs().total(), 0);
}

#[test]
fn a_layer_stays_beside_the_picture() {
    let mut clocks = Clocks::default();
    let layer = TrackId::layer(0).unwrap();
    let mut step = |ms: u32| {
        let [main, further] = [TrackId::VIDEO, layer].map(|id| clocks.picture(id, ms, 0).dts.as_micros() / 1000);
        assert_eq!(main, further, "at {ms}");
        main
    };
    assert_eq!([0, 33, 66].map(&mut step), [0, 33, 66]);
    assert_eq!([900_000, 900_033].map(&mut step), [99, 132], "the clock was set, for both");
    assert_eq!((clocks.repairs().of(Repair::JumpForward), clocks.repairs().total()), (1, 1));
    // The layer pauses.
    (0..300).for_each(|frame| _ = clocks.picture(TrackId::VIDEO, 900_066 + frame * 33, 0));
    let back = clocks.picture(layer, 909_966_u32, 0);
    assert_eq!((back.dts.as_micros() / 1000, clocks.repairs().of(Repair::TrackHole)), (10_065, 1));
}

/// One pauses and comes back; then the clock is set. With a picture, and without.
#[test]
fn further_sounds_stay_beside_the_others() {
    for picture in [true, false] {
        let mut clocks = Clocks::default();
        let mut step = |frame: u32, base_ms: u32, both: bool| {
            let ms = base_ms + frame * 10_240 / 441;
            if picture {
                clocks.picture(TrackId::VIDEO, ms, 0);
            }
            let sounds = [Some(TrackId::AUDIO), TrackId::sound(0).filter(|_| both)].into_iter().flatten();
            let begins: Vec<_> = sounds.filter_map(|id| clocks.audio(id, ms, RATE, 1024)).map(|at| at.as_micros()).collect();
            let apart = begins.iter().map(|us| (us - begins[0]).abs()).max().unwrap_or(0);
            assert!(apart <= 23_220, "a frame at most: {begins:?} at {ms}, {picture}");
        };
        (0..300).for_each(|frame| step(frame, 0, true));
        (300..600).for_each(|frame| step(frame, 0, false));
        (600..900).for_each(|frame| step(frame, 0, true));
        (900..1200).for_each(|frame| step(frame, 700_000, true));
        let repairs = clocks.repairs();
        let made = [Repair::TrackHole, Repair::AudioGap, Repair::JumpForward].map(|repair| repairs.of(repair));
        assert_eq!((made, repairs.total()), ([1, 1, 1], 3), "{repairs:?}, {picture}");
    }
}
