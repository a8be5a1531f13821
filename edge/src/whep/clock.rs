//! The media timeline of one broadcast: where a Sample lies on it, and what its RTP clock shows there.
//!
//! A publisher's own times are laid onto it with one offset an epoch, in whole milliseconds, which both RTP clocks
//! count exactly: within an epoch nothing is rounded twice and nothing drifts, and picture, sound and what is made of
//! them share the offset. When a publisher returns, the timeline has gone on by as much as the wall clock has.

use std::time::Instant;

use media_core::{Sample, Timescale, Timestamp};

/// Where the timeline begins: what lies before its first Sample (a keyframe that was made earlier) still has a time,
/// since RTP's unwrapped clock counts from 0.
const START: Timestamp = Timestamp::from_millis(3_600_000);

#[derive(Debug, Default)]
pub struct Clock {
    /// From the epoch's own time to ours, in milliseconds; `None` until its first Sample.
    offset: Option<Timestamp>,
    /// The newest moment of the source, and when it arrived.
    newest: Option<(Timestamp, Instant)>,
}

impl Clock {
    /// Another publisher sends from here on.
    pub fn join(&mut self) {
        self.offset = None;
    }

    /// Takes note of a Sample of the source. The first one of an epoch decides where the epoch lies.
    pub fn observe(&mut self, sample: &Sample) {
        let offset = *self.offset.get_or_insert_with(|| {
            let at = self.newest.map_or(START, |(at, received)| at + since(received, sample.received));
            Timestamp::from_millis((at - sample.pts).ticks_in(Timescale::MILLIS))
        });
        let at = sample.pts + offset;
        if self.newest.is_none_or(|(newest, _)| at > newest) {
            self.newest = Some((at, sample.received));
        }
    }

    /// What an RTP clock shows at a time of the epoch. `None` before the timeline's start, or when no Sample of the
    /// source has placed the epoch.
    pub fn ticks(&self, pts: Timestamp, clock: Timescale) -> Option<u64> {
        let ticks = pts.ticks_in(clock).checked_add(self.offset?.ticks_in(clock))?;
        u64::try_from(ticks).ok()
    }
}

/// The same moment in microseconds, for sender reports.
pub fn micros(ticks: u64, clock: Timescale) -> i64 {
    Timestamp::new(i64::try_from(ticks).unwrap_or(i64::MAX), clock).as_micros()
}

fn since(earlier: Instant, later: Instant) -> Timestamp {
    Timestamp::from_millis(i64::try_from(later.saturating_duration_since(earlier).as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::whep::tests::{AUDIO_CLOCK, Script, VIDEO_CLOCK};

    #[test]
    fn an_epoch_keeps_its_own_ticks() {
        let script = Script::new();
        let mut clock = Clock::default();
        clock.observe(&script.picture(1_000, true, 1_000));
        let start = START.ticks_in(VIDEO_CLOCK) as u64;
        assert_eq!(clock.ticks(Timestamp::from_millis(1_000), VIDEO_CLOCK), Some(start));
        // 44.1 kHz audio, 1024 samples a frame, for ten hours: the time of the last is not the sum of roundings.
        let scale = Timescale::new(44_100).unwrap();
        let frames = 10 * 3600 * 44_100 / 1024;
        let ticks = clock.ticks(Timestamp::new(frames * 1024, scale), AUDIO_CLOCK).unwrap();
        let exact = START.ticks_in(AUDIO_CLOCK) - 48_000 + (frames * 1024 * 48_000 + 22_050) / 44_100;
        assert_eq!(ticks, exact as u64);
        assert_eq!(micros(start + 90, VIDEO_CLOCK), 3_600_001_000);
    }

    #[test]
    fn a_return_adds_the_wall_gap() {
        let script = Script::new();
        let mut clock = Clock::default();
        clock.observe(&script.picture(0, true, 0));
        clock.observe(&script.picture(5_000, false, 5_000));
        clock.join();
        assert_eq!(clock.ticks(Timestamp::ZERO, VIDEO_CLOCK), None, "nothing of the new epoch has come");
        clock.observe(&script.picture(77_777_000, true, 12_500));
        let start = START.ticks_in(VIDEO_CLOCK) as u64;
        assert_eq!(clock.ticks(Timestamp::from_millis(77_777_000), VIDEO_CLOCK), Some(start + 12_500 * 90));
    }

    #[test]
    fn no_time_of_a_publisher_panics() {
        let at =
            |ticks| Sample { received: Instant::now() + Duration::from_secs(1), pts: ticks, ..Script::new().picture(0, true, 0) };
        for ticks in [i64::MIN, -1, 0, i64::MAX] {
            let mut clock = Clock::default();
            clock.observe(&at(Timestamp::from_millis(ticks)));
            clock.join();
            clock.observe(&at(Timestamp::from_millis(ticks)));
            for other in [i64::MIN, 0, i64::MAX] {
                let _ = clock.ticks(Timestamp::from_micros(other), VIDEO_CLOCK);
            }
        }
    }
}
