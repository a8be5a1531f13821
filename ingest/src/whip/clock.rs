//! One RTP clock on the session's timeline, which begins when its first frame arrives.
//!
//! Pure. A track is placed by when its first frame arrived, and goes on by its own clock. A clock that
//! was set anew, or stood still while time passed, is placed by arrival again. Where the sender's
//! reports say how its clocks belong together, `wall` tells how far two tracks are apart.

use std::time::Duration;

/// What clock and arrival may differ: longer than any network holds packets back, and than senders are
/// believed to have stopped. The unwrapping below uses the same measure.
const JUMP: Duration = Duration::from_secs(10);
/// How far a picture may be sent after one that is shown later: a second holds 16 pictures, the most
/// that H.264 reorders, from 16 a second on.
const REORDER: Duration = Duration::from_secs(1);
/// Frames over which the usual delay of arrival is averaged: it follows clocks that drift apart, not
/// a network that stumbles.
const LAG_FRAMES: i64 = 256;
/// Fixed-point seconds of NTP: 32 bits before the point and 32 behind it.
const NTP_SECOND: i128 = 1 << 32;

/// What two reports of a steady sender may differ: a picture's length at 5 a second.
const REPORT_JITTER: i64 = 1 << 30;
const _: () = assert!(REPORT_JITTER as i128 * 4 == NTP_SECOND);
/// Frames over which they are averaged: some reports.
const REPORT_FRAMES: i64 = 64;
/// How long a report that is new must fit what comes before it is believed. Some senders (GStreamer) pair a frame with the
/// moment of sending: while they send what they kept until they were connected, that is wrong by all that they still keep.
const PROOF: Duration = Duration::from_secs(1);
/// The same once frames came faster than time passed: by then there was another report (RFC 3550 6.2: every 5 s, and half of
/// that more at most).
const PROOF_OF_HASTY: Duration = Duration::from_secs(8);
/// By how much more than time frames come of a sender that makes up for something. Networks hold back less.
const HASTE: Duration = Duration::from_millis(200);

pub(super) struct Clock {
    rate: u32,
    /// Added to RTP ticks; `None` before the first frame.
    base: Option<i64>,
    /// How much later than its place a frame usually arrives.
    lag: i64,
    /// The latest place of all.
    furthest: i64,
    /// The sender's wall clock where the timeline is zero; wraps, as NTP does.
    wall: Option<u64>,
    /// Another one, not believed yet.
    doubted: Option<Doubted>,
}

struct Doubted {
    wall: u64,
    /// When it is believed: an arrival.
    until: i64,
    /// How far the track was ahead of arrival when this was looked at last.
    ahead: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// In ticks of the clock.
    pub at: i64,
    /// How far the track went forward with it.
    pub advance: i64,
    pub jump: Option<Jump>,
}

/// The clock was set, against the time that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    Forward,
    Backward,
}

impl Clock {
    pub fn new(rate: u32) -> Self {
        Self { rate, base: None, lag: 0, furthest: 0, wall: None, doubted: None }
    }

    /// `arrived` counts from the session's first frame.
    pub fn place(&mut self, arrived: Duration, timestamp: u64, ntp: Option<u64>) -> Placed {
        let ticks = i64::try_from(timestamp).unwrap_or(i64::MAX);
        let arrival = self.ticks(arrived);
        let Some(base) = self.base else {
            self.base = Some(arrival.saturating_sub(ticks));
            self.furthest = arrival;
            self.hear(arrival, arrival, ntp);
            return Placed { at: arrival, advance: 0, jump: None };
        };
        let mut at = ticks.saturating_add(base);
        let jump = self.judge(at, arrival);
        if jump.is_some() {
            let expected = arrival.saturating_sub(self.lag).max(self.furthest.saturating_add(1));
            self.base = Some(expected.saturating_sub(ticks));
            (self.wall, self.doubted) = (None, None);
            at = expected;
        }
        self.lag += (arrival.saturating_sub(at) - self.lag) / LAG_FRAMES;
        self.hear(arrival, at, ntp);
        let advance = (at - self.furthest).max(0);
        self.furthest += advance;
        Placed { at, advance, jump }
    }

    fn judge(&self, at: i64, arrival: i64) -> Option<Jump> {
        let late = arrival.saturating_sub(at).saturating_sub(self.lag);
        if late < -self.ticks(JUMP) {
            return Some(Jump::Forward);
        }
        let back = self.furthest.saturating_sub(at);
        (late > self.ticks(JUMP) || back > self.ticks(REORDER)).then_some(Jump::Backward)
    }

    /// Many senders pair a moment with the last frame before it: their reports differ by a frame's length.
    fn hear(&mut self, arrival: i64, at: i64, ntp: Option<u64>) {
        let Some(ntp) = ntp else { return };
        let told = ntp.wrapping_sub(self.ntp(at));
        if let Some((wall, off)) = self.wall.and_then(|wall| Some((wall, near(told, wall)?))) {
            self.wall = Some(wall.wrapping_add_signed(off / REPORT_FRAMES));
            self.doubted = None;
        } else if self.is_proved(arrival, at, told) {
            (self.wall, self.doubted) = (Some(told), None);
        }
    }

    fn is_proved(&mut self, arrival: i64, at: i64, told: u64) -> bool {
        let [proof, again, haste] = [PROOF, PROOF_OF_HASTY, HASTE].map(|time| self.ticks(time));
        let ahead = at.saturating_sub(arrival);
        let Some(doubted) = self.doubted.as_mut().filter(|doubted| near(told, doubted.wall).is_some()) else {
            self.doubted = Some(Doubted { wall: told, until: arrival.saturating_add(proof), ahead });
            return false;
        };
        if ahead - doubted.ahead > haste {
            (doubted.until, doubted.ahead) = (arrival.saturating_add(again), ahead);
        }
        arrival >= doubted.until
    }

    /// Moves all that follows.
    pub fn shift(&mut self, ticks: i64) {
        self.base = self.base.map(|base| base.saturating_add(ticks));
        self.lag -= ticks;
        self.furthest += ticks.max(0);
        let time = self.ntp(ticks);
        self.wall = self.wall.map(|wall| wall.wrapping_sub(time));
        if let Some(doubted) = &mut self.doubted {
            doubted.wall = doubted.wall.wrapping_sub(time);
            doubted.ahead = doubted.ahead.saturating_add(ticks);
        }
    }

    /// How much this clock's track must move forward to be beside the other's, in ticks of this one.
    pub fn behind(&self, other: &Self) -> Option<i64> {
        // Truncation is meant: both are on a clock that wraps.
        let apart = self.wall?.wrapping_sub(other.wall?) as i64;
        i64::try_from(i128::from(apart) * i128::from(self.rate) / NTP_SECOND).ok()
    }

    pub fn ticks(&self, time: Duration) -> i64 {
        i64::try_from(time.as_nanos() * u128::from(self.rate) / 1_000_000_000).unwrap_or(i64::MAX)
    }

    /// Truncated like NTP itself.
    fn ntp(&self, ticks: i64) -> u64 {
        (i128::from(ticks) * NTP_SECOND / i128::from(self.rate)) as u64
    }
}

/// How far what a report tells is from what is known, where it is the same clock.
fn near(told: u64, known: u64) -> Option<i64> {
    // Truncation is meant: NTP wraps.
    let off = told.wrapping_sub(known) as i64;
    (off.abs() < REPORT_JITTER).then_some(off)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 90_000;
    const FRAME: u64 = 3000;
    const FRAME_TIME: Duration = Duration::from_micros(33_333);
    const HOURS: Duration = Duration::from_secs(8 * 3600);

    /// Two frames, `passed` apart in time and `step` in ticks: how far the second is from the first.
    fn check(passed: Duration, step: i64, expected: i64, jump: Option<Jump>) {
        let mut clock = Clock::new(RATE);
        let first = clock.place(Duration::from_secs(1), 1 << 40, None);
        let second = clock.place(Duration::from_secs(1) + passed, (1_u64 << 40).saturating_add_signed(step), None);
        assert_eq!(first.at, 90_000, "placed by arrival");
        assert_eq!((second.at - first.at, second.jump), (expected, jump), "{passed:?} {step}");
    }

    #[test]
    fn a_clock_is_believed_unless_time_says_otherwise() {
        let hours = 8 * 3600 * i64::from(RATE);
        check(FRAME_TIME, 3000, 3000, None);
        check(Duration::from_secs(5), 3000, 3000, None); // Held back on the way.
        check(FRAME_TIME, 9 * 90_000, 9 * 90_000, None);
        check(FRAME_TIME, -6000, -6000, None); // Shown before.
        check(HOURS, hours, hours, None);
        check(HOURS, hours + 3000, hours + 3000, None);
        check(HOURS, 3000, hours, Some(Jump::Backward)); // Stood still.
        check(FRAME_TIME, hours, 2999, Some(Jump::Forward));
        check(FRAME_TIME, -hours, 2999, Some(Jump::Backward));
        check(FRAME_TIME, -2 * 90_000, 2999, Some(Jump::Backward));
        check(Duration::ZERO, -2 * 90_000, 1, Some(Jump::Backward)); // Never back.
        check(FRAME_TIME, i64::MAX / 2, 2999, Some(Jump::Forward));
    }

    #[test]
    fn clocks_that_drift_apart_for_a_day_are_no_jump() {
        let mut clock = Clock::new(RATE);
        for frame in 0..24 * 3600 {
            // A frame a second; 200 ppm is 17 s a day.
            let arrived = Duration::from_secs(frame) + Duration::from_micros(200 * frame);
            assert_eq!(clock.place(arrived, frame * 90_000, None).jump, None, "{frame}");
        }
    }

    const SECOND: u64 = 1 << 32;

    /// A clock whose report has been believed: its first frame and when that came, and one a second later.
    fn told(rate: u32, arrived: Duration, timestamp: u64, ntp: u64) -> Clock {
        let mut clock = Clock::new(rate);
        clock.place(arrived, timestamp, Some(ntp));
        clock.place(arrived + PROOF, timestamp + u64::from(rate), Some(ntp.wrapping_add(SECOND)));
        clock
    }

    #[test]
    fn reports_tell_how_far_tracks_are_apart() {
        let check = |video_ntp: u64, audio_ntp: u64, expected: i64| {
            let video = told(RATE, Duration::from_millis(500), 7, video_ntp);
            let audio = told(48_000, Duration::ZERO, 9, audio_ntp);
            assert!((video.behind(&audio).unwrap() - expected).abs() <= 1, "{video_ntp:x} {audio_ntp:x}");
        };
        check(SECOND / 2, 0, 0);
        check(SECOND, 0, 45_000);
        check(SECOND / 4, 0, -22_500);
        check(SECOND / 4, u64::MAX - SECOND / 4, 0); // Wrapped.
        let mut video = told(RATE, Duration::ZERO, 7, 5 * SECOND);
        assert_eq!(video.behind(&Clock::new(RATE)), None);
        let other = told(RATE, Duration::ZERO, 7, 4 * SECOND);
        video.shift(9000);
        let behind = |video: &Clock| video.behind(&other).unwrap();
        assert!((behind(&video) - 81_000).abs() <= 1);
        let next = video.place(PROOF + FRAME_TIME, 7 + 90_000 + FRAME, Some(6 * SECOND + SECOND / 30));
        assert_eq!(next.at, 90_000 + 12_000);
        assert!((behind(&video) - 81_000).abs() <= 1);
    }

    /// Reports a second apart that begin `off` seconds from what is told later, heard while `kept` seconds come at once.
    #[test]
    fn a_report_is_believed_when_it_has_lasted() {
        let check = |kept: f64, off: f64, believed_after: f64| {
            let (still, mut clock) = (told(RATE, Duration::ZERO, 7, 0), Clock::new(RATE));
            let after = (0..3000).find_map(|n| {
                let captured = f64::from(n) / 30.0;
                let arrived = (captured - kept).max(captured / 50.0);
                let error = if arrived < 5.0 { off } else { 0.0 };
                let ntp = ((captured + error) * SECOND as f64) as u64;
                clock.place(Duration::from_secs_f64(arrived), (captured * 90_000.0) as u64, Some(ntp));
                clock.behind(&still).map(|behind| (arrived, behind))
            });
            let (arrived, behind) = after.expect("some report is true");
            assert!((arrived - believed_after).abs() < 0.1 && behind.abs() < 90, "{kept} {off}: {behind} after {arrived}");
        };
        check(0.0, 0.0, 1.0);
        check(0.1, 0.0, 1.0);
        // A sender in haste that tells the truth is believed later, one that does not never.
        check(3.0, 0.0, 8.0);
        check(3.0, 2.0, 6.0);
    }

    #[test]
    fn reports_that_tremble_are_averaged() {
        let (mut video, still) = (Clock::new(RATE), told(RATE, Duration::ZERO, 7, 0));
        let mut worst = 0;
        for n in 0..3000_u64 {
            // A report a second, each by up to a frame too late.
            let tremble = (n / 30 * 7 % 30) * (1 << 32) / 900;
            video.place(Duration::from_micros(n * 33_333), 7 + n * FRAME, Some((n << 32) / 30 + tremble));
            if n > 300 {
                worst = worst.max((video.behind(&still).unwrap() - 1500).abs());
            }
        }
        assert!(worst < 900, "{worst} ticks are more than 10 ms");
    }
}
