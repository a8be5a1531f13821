//! Clocks that jump on one track, by awkward amounts, or run at the wrong speed, in virtual time.

use ingest::repair::{Clocks, Repair};
use media_core::{Timescale, TrackId};

const RATE: Timescale = Timescale::new(44_100).expect("44100 is not 0");
/// How far video and audio sent at the same moment may be apart: what an eye forgives at the lips.
const APART_US_MAX: i64 = 150_000;

/// A publisher of 30 pictures and 43 audio frames a second.
#[derive(Default)]
struct Source {
    clocks: Clocks,
    video_us: Option<i64>,
    audio_us: Option<i64>,
    /// The largest distance between the newest video and the newest audio, since it was last taken.
    apart_us: i64,
}

impl Source {
    /// From `from` to `to` ms of true time; each clock tells its time, or `None` where the track is silent.
    fn run(&mut self, from: i64, to: i64, video: impl Fn(i64) -> Option<i64>, audio: impl Fn(i64) -> Option<i64>) {
        let picture_at = |n: i64| n * 100 / 3;
        let frame_at = |n: i64| n * 1024 * 10 / 441;
        let (mut picture, mut frame) = (0, 0);
        loop {
            let (picture_ms, frame_ms) = (picture_at(picture), frame_at(frame));
            let at = picture_ms.min(frame_ms);
            if at >= to {
                break;
            }
            let told = if picture_ms <= frame_ms { video(at) } else { audio(at) }.filter(|_| at >= from);
            match told {
                Some(ms) if picture_ms <= frame_ms => self.video(ms),
                Some(ms) => self.audio(ms),
                None => {}
            }
            if picture_ms <= frame_ms { picture += 1 } else { frame += 1 }
        }
    }

    fn video(&mut self, ms: i64) {
        let stamp = self.clocks.picture(TrackId::VIDEO, ms as u32, 0);
        assert!(stamp.pts >= stamp.dts);
        grow(&mut self.video_us, stamp.dts.as_micros());
        self.compare();
    }

    fn audio(&mut self, ms: i64) {
        if let Some(at) = self.clocks.audio(TrackId::AUDIO, ms as u32, RATE, 1024) {
            grow(&mut self.audio_us, at.as_micros());
        }
        self.compare();
    }

    fn compare(&mut self) {
        if let (Some(video), Some(audio)) = (self.video_us, self.audio_us) {
            self.apart_us = self.apart_us.max((video - audio).abs());
        }
    }

    fn count(&self, repair: Repair) -> u64 {
        self.clocks.repairs().of(repair)
    }
}

fn grow(last: &mut Option<i64>, at: i64) {
    assert!(last.is_none_or(|last| at > last), "{at} after {last:?}");
    *last = Some(at);
}

/// A clock that is set by `jump` ms after 5 s.
fn jumping(jump: i64) -> impl Fn(i64) -> Option<i64> + Copy {
    move |t| Some(100_000 + t + if t >= 5000 { jump } else { 0 })
}

#[test]
fn a_jump_of_one_track_leaves_the_other_where_it_is() {
    let steady = jumping(0);
    for jump in [-500, 10_000, -60_000] {
        for on_video in [true, false] {
            let mut source = Source::default();
            match on_video {
                true => source.run(0, 20_000, jumping(jump), steady),
                false => source.run(0, 20_000, steady, jumping(jump)),
            }
            let repairs = source.clocks.repairs();
            assert!(source.apart_us < APART_US_MAX, "{jump} ms, video {on_video}: {} us apart, {repairs:?}", source.apart_us);
            assert_eq!(repairs.of(Repair::JumpBackward) + repairs.of(Repair::JumpForward), 1, "{jump} ms: {repairs:?}");
        }
    }
}

/// Near the border between jitter and jump the tracks, whose frames differ in length, may fall on either side of it.
#[test]
fn a_jump_of_both_tracks_by_any_amount_keeps_them_together() {
    for jump in (-300..-20).chain(2900..3100) {
        let mut source = Source::default();
        source.run(0, 12_000, jumping(jump), jumping(jump));
        // The jump itself may show for a moment; what counts is where it ends.
        source.apart_us = 0;
        source.run(12_000, 20_000, jumping(jump), jumping(jump));
        assert!(source.apart_us < APART_US_MAX, "{jump} ms: {} us apart, {:?}", source.apart_us, source.clocks.repairs());
    }
}

/// Audio is muted for 5 s, as when a device is unplugged, some time after video's clock alone was set.
#[test]
fn a_pause_of_one_track_stays_a_pause_after_a_jump_of_the_other() {
    for jump in [0, -500, 10_000] {
        for on_video in [true, false] {
            let (jumped, muted) = (jumping(jump), |t: i64| jumping(0)(t).filter(|_| !(10_000..15_000).contains(&t)));
            let mut source = Source::default();
            match on_video {
                true => source.run(0, 15_000, jumped, muted),
                false => source.run(0, 15_000, muted, jumped),
            }
            // The pause as seen from its end: one frame of the muted track brings it up.
            source.run(15_000, 15_100, if on_video { jumped } else { jumping(0) }, if on_video { jumping(0) } else { jumped });
            source.apart_us = 0;
            source.run(15_100, 20_000, if on_video { jumped } else { jumping(0) }, if on_video { jumping(0) } else { jumped });
            assert!(source.apart_us < APART_US_MAX, "{jump} ms: {} us apart, {:?}", source.apart_us, source.clocks.repairs());
        }
    }
}

/// What a network or a busy encoder does to times: up to 20 ms late, in no order that repeats soon.
#[test]
fn jitter_of_milliseconds_makes_no_gap_in_an_hour_of_audio() {
    let jittery = |t: i64| Some(t + t.wrapping_mul(7919) % 20);
    let mut clocks = Clocks::default();
    let mut next = None;
    for frame in 0..(3600 * 44_100 / 1024) {
        let at = clocks
            .audio(TrackId::AUDIO, jittery(frame * 10_240 / 441).unwrap_or(0) as u32, RATE, 1024)
            .expect("no frame is too many");
        assert!(next.is_none_or(|next| next == at.ticks), "frame {frame}: {next:?}, {at:?}");
        next = Some(at.ticks + 1024);
    }
    assert_eq!(clocks.repairs().total(), 0, "{:?}", clocks.repairs());
}

#[test]
fn a_sound_card_that_is_200_ppm_off_stays_with_the_picture_for_six_hours() {
    for ppm in [200, -200] {
        let mut source = Source::default();
        let drifting = |t: i64| Some(t + t * ppm / 1_000_000);
        source.run(0, 6 * 3_600_000, Some, drifting);
        // What drifts is audio's clock itself, as it says: 4.32 s in six hours. The count must follow it, not run away.
        let off_us = 6 * 3_600 * ppm;
        let repair = if ppm > 0 { Repair::AudioGap } else { Repair::AudioSurplus };
        assert!((20..=200).contains(&source.count(repair)), "{ppm} ppm: {:?}", source.clocks.repairs());
        assert_eq!(source.clocks.repairs().total(), source.count(repair), "{:?}", source.clocks.repairs());
        let apart = source.audio_us.zip(source.video_us).map(|(audio, video)| audio - video);
        assert!(apart.is_some_and(|apart| (apart - off_us).abs() < APART_US_MAX), "{ppm} ppm: {apart:?}, told {off_us}");
    }
}

#[test]
fn a_lost_frame_leaves_a_hole_that_closes_by_whole_frames() {
    let mut clocks = Clocks::default();
    let mut begins = Vec::new();
    for frame in (0..2000_i64).filter(|frame| ![500, 700, 701, 702, 703, 704].contains(frame)) {
        begins.extend(clocks.audio(TrackId::AUDIO, (frame * 10_240 / 441) as u32, RATE, 1024).map(|at| at.ticks));
    }
    assert!(begins.iter().all(|at| (at - begins[0]) % 1024 == 0), "off the grid of frames");
    let late = 1999 * 1024 - begins.last().copied().unwrap_or(0);
    assert!((0..=60 * 441 / 10).contains(&late), "{late} ticks behind its time at the end");
    assert!(clocks.repairs().of(Repair::AudioGap) >= 1, "{:?}", clocks.repairs());
}

/// A clock that stops for good, or for a while, of one track or both: time goes on as the frames do.
#[test]
fn a_clock_that_stands_still_goes_on_by_whole_frames() {
    let steady = jumping(0);
    let stops = |until: i64| move |t: i64| Some(100_000 + if (5_000..until).contains(&t) { 5_000 } else { t });
    for until in [9_000, 65_000] {
        for (picture, sound) in [(true, true), (true, false), (false, true)] {
            let mut source = Source::default();
            let clock = |stopped| move |t| if stopped { stops(until)(t) } else { steady(t) };
            source.run(0, 4_000, clock(picture), clock(sound));
            source.run(4_000, 60_000, clock(picture), clock(sound));
            let case = format!("until {until} ms, picture {picture}, sound {sound}: {:?}", source.clocks.repairs());
            let (video, audio) = (source.video_us.unwrap() / 1000 - 100_000, source.audio_us.unwrap() / 1000 - 100_000);
            assert!((video - audio).abs() < 500, "{case}: picture at {video}, sound at {audio} ms");
            assert!((58_000..62_000).contains(&video), "{case}: {video} ms of 60000");
            assert!(source.count(Repair::ClockStill) > 0, "{case}");
            assert!(source.count(Repair::AudioSurplus) < 20, "{case}");
        }
    }
}
