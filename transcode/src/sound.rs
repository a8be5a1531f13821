//! The arithmetic of sound that is decoded and encoded again: where each piece of PCM belongs, and at which time each
//! frame that comes out is heard.
//!
//! Decoders are late, clocks are rounded, packets get lost. PCM is laid end to end by counting samples, and only a
//! difference that can be heard is mended, exactly; encoders get one seamless sound, so what comes out is counted too.

use media_core::{Timescale, Timestamp};

/// Nanoseconds, in which GStreamer counts.
pub const NANOS: Timescale = Timescale::new(1_000_000_000).expect("a billion is not 0");

/// A source's times may be this far from the count, as rounding to milliseconds makes them; a lost packet is longer.
const TOLERANCE_MS: i64 = 10;
/// A longer hole is not filled: the output has it as well.
pub const FILL_MS_MAX: i64 = 1000;

/// What is to be done with one piece of PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind so many samples of silence, and without so many of its first own ones.
    Keep { silence: usize, skip: usize },
    /// So far from what came before that it begins anew.
    Apart,
}

/// Lays decoded PCM end to end.
#[derive(Debug)]
pub struct Joiner {
    rate: u32,
    /// Samples by which the source's sound is later than its times say.
    late: i64,
    begin: i64,
    counted: i64,
    started: bool,
}

impl Joiner {
    /// The sound begins at exactly `begin`; samples before it are skipped.
    pub fn new(rate: u32, begin: Timestamp, late: u32) -> Self {
        Self { rate, late: late.into(), begin: begin.ticks_in(NANOS), counted: 0, started: false }
    }

    /// Takes a piece of `samples` that the decoder says is heard at `at`.
    pub fn place(&mut self, at: Timestamp, samples: usize) -> Place {
        let rate = i64::from(self.rate);
        let from_begin = Timestamp::new(at.ticks_in(NANOS).saturating_sub(self.begin), NANOS);
        let index = Timescale::new(self.rate).map_or(0, |scale| from_begin.ticks_in(scale)) - self.late;
        let off = index - self.counted;
        let exact = !self.started;
        if off > rate * FILL_MS_MAX / 1000 || (self.started && off < -rate * FILL_MS_MAX / 1000) {
            return Place::Apart;
        }
        let off = if exact || off.abs() > rate * TOLERANCE_MS / 1000 { off } else { 0 };
        let silence = usize::try_from(off).unwrap_or(0);
        let skip = usize::try_from(-off).unwrap_or(0).min(samples);
        self.started |= skip < samples;
        self.counted += (silence + samples - skip) as i64;
        Place::Keep { silence, skip }
    }
}

/// When the frames of an encoder are heard.
#[derive(Debug)]
pub struct FrameTimes {
    next: Timestamp,
    frame: u32,
}

impl FrameTimes {
    /// The encoder was given sound from `begin` on; what it makes of it comes `lead` samples later.
    pub fn new(begin: Timestamp, scale: Timescale, frame: u32, lead: u32) -> Self {
        let begin = begin.to(scale);
        Self { next: Timestamp::new(begin.ticks.saturating_sub(lead.into()), scale), frame }
    }

    /// Where the next frame will be: where the sound made so far ends.
    pub fn end(&self) -> Timestamp {
        self.next
    }

    /// The time of the next frame.
    pub fn take(&mut self) -> Timestamp {
        let now = self.next;
        self.next.ticks = now.ticks.saturating_add(self.frame.into());
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(silence: usize, skip: usize) -> Place {
        Place::Keep { silence, skip }
    }

    fn ms(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn rounded_times_are_counted_and_holes_are_filled_exactly() {
        let mut joiner = Joiner::new(48_000, ms(5000), 0);
        let mut check = |at, place| assert_eq!(joiner.place(ms(at), 1024), place, "at {at} ms");
        check(5000, keep(0, 0));
        check(5021, keep(0, 0));
        check(5043, keep(0, 0));
        // 1024 samples are missing, to the precision of the times.
        check(5085, keep(1008, 0));
        check(5107, keep(0, 0));
        check(5107, keep(0, 992));
        check(7000, Place::Apart);
        check(3000, Place::Apart);
    }

    #[test]
    fn an_hour_of_rounded_times_mends_nothing() {
        let mut joiner = Joiner::new(44_100, ms(0), 0);
        for frame in 0..155_000 {
            let at = Timestamp::new(frame * 1024, Timescale::new(44_100).unwrap()).to(Timescale::MILLIS);
            assert_eq!(joiner.place(at, 1024), keep(0, 0));
        }
    }

    #[test]
    fn it_begins_where_it_is_told_and_without_a_codecs_delay() {
        let mut joiner = Joiner::new(48_000, ms(0), 312);
        assert_eq!(joiner.place(ms(0), 960), keep(0, 312));
        assert_eq!(joiner.place(ms(20), 960), keep(0, 0));
        let mut joiner = Joiner::new(48_000, ms(30), 0);
        assert_eq!(joiner.place(ms(-4000), 960), keep(0, 960));
        assert_eq!(joiner.place(ms(0), 960), keep(0, 960));
        assert_eq!(joiner.place(ms(20), 960), keep(0, 480));
        assert_eq!(joiner.place(ms(40), 960), keep(0, 0));
        let mut joiner = Joiner::new(48_000, ms(30), 0);
        assert_eq!(joiner.place(ms(40), 960), keep(480, 0));
    }

    #[test]
    fn frames_follow_each_other() {
        let mut times = FrameTimes::new(ms(100), Timescale::new(48_000).unwrap(), 960, 312);
        assert_eq!([times.take().ticks, times.take().ticks], [4488, 5448]);
        assert_eq!(times.end().ticks, 6408);
    }
}
