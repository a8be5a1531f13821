//! Sequence numbers and timestamps that do not wrap.
//!
//! The first value is placed one turn above zero, so that one that was sent before it has a place too.
//! A timestamp is judged by the time that passed since the last one: a clock that ran on through an
//! hour-long pause, one that stood still and one that was set anew are told apart.

use std::time::{Duration, Instant};

/// What a sender's clock and the network may differ over one step. A step that is further off is
/// no time that passed, but a clock that was set anew.
const SLACK: Duration = Duration::from_secs(10);

/// The number congruent to `number` that is nearest to `near`.
pub(super) fn sequence(near: u64, number: u16) -> u64 {
    near.saturating_add_signed(i64::from(number.wrapping_sub(near as u16) as i16))
}

/// Where an unwrapped sequence starts.
pub(super) fn first_sequence(number: u16) -> u64 {
    (1 << 16) + u64::from(number)
}

/// One source's RTP clock.
pub(super) struct Timestamps {
    clock_rate: u32,
    last: Option<Last>,
    /// The next timestamp has nothing to do with the last one.
    reset: bool,
}

#[derive(Clone, Copy)]
struct Last {
    raw: u32,
    ticks: u64,
    at: Instant,
}

impl Timestamps {
    pub(super) fn new(clock_rate: u32) -> Self {
        Self { clock_rate, last: None, reset: false }
    }

    /// Another SSRC: its timestamps start anywhere (RFC 3550 5.1).
    pub(super) fn reset(&mut self) {
        self.reset = true;
    }

    /// `at` is when its packet arrived.
    pub(super) fn unwrap(&mut self, at: Instant, raw: u32) -> u64 {
        let ticks = match self.last {
            Some(last) => self.follow(last, at, raw),
            None => (1 << 32) + u64::from(raw),
        };
        self.reset = false;
        self.last = Some(Last { raw, ticks, at });
        ticks
    }

    fn follow(&self, last: Last, at: Instant, raw: u32) -> u64 {
        let passed = ticks(at.saturating_duration_since(last.at), self.clock_rate);
        let expected = last.ticks.saturating_add(passed);
        if self.reset {
            return expected.max(last.ticks.saturating_add(1));
        }
        // Truncation is meant: both are distances on a clock of 32 bits.
        let step = raw.wrapping_sub(last.raw);
        let off = i64::from(step.wrapping_sub(passed as u32) as i32);
        if off.unsigned_abs() <= ticks(SLACK, self.clock_rate) {
            return expected.saturating_add_signed(off);
        }
        // The sender's clock stood still while it sent nothing: its ticks are taken as they are.
        let step = i64::from(step as i32);
        if step.unsigned_abs() <= ticks(SLACK, self.clock_rate) {
            return last.ticks.saturating_add_signed(step);
        }
        expected
    }
}

fn ticks(time: Duration, clock_rate: u32) -> u64 {
    let ticks = time.as_nanos() * u128::from(clock_rate) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_both_ways() {
        for (near, number, expected) in [
            (65_536, 1, 65_537),
            (65_536 + 65_535, 0, 131_072),
            (131_072, 65_535, 131_071),
            (first_sequence(0), 65_535, 65_535),
            (0, 65_535, 0),
        ] {
            assert_eq!(sequence(near, number), expected, "{number} near {near}");
        }
    }

    /// From `raw` after `pause` to `next`: how far the unwrapped clock went, in ticks.
    fn check(raw: u32, pause: Duration, next: u32, expected: i64) {
        let start = Instant::now();
        let mut timestamps = Timestamps::new(90_000);
        let first = timestamps.unwrap(start, raw);
        let second = timestamps.unwrap(start + pause, next);
        assert_eq!(second as i64 - first as i64, expected, "{raw:#x}, {pause:?}, {next:#x}");
    }

    #[test]
    fn a_clock_goes_on_through_wraps_pauses_and_jumps() {
        const FRAME: Duration = Duration::from_millis(33);
        const HOURS: Duration = Duration::from_secs(8 * 3600);
        let hours = 8 * 3600 * 90_000_u64;
        check(0, FRAME, 3000, 3000);
        check(u32::MAX - 999, FRAME, 2000, 3000); // 2^32
        check((1 << 31) - 1000, FRAME, (1 << 31) + 2000, 3000); // 2^31
        check(2000, FRAME, u32::MAX - 999, -3000); // sent before the first, or a B-frame
        check(5, HOURS, (5 + hours) as u32, hours as i64); // a pause; the clock ran on
        check(5, HOURS, (5 + hours) as u32 + 3000, hours as i64 + 3000);
        check(5, HOURS, 3005, 3000); // a pause; the clock stood still
        check(5, HOURS, 0x7000_0000, hours as i64); // a pause; another clock
        check(5, FRAME, 5 + (1 << 31), 2970); // jumps: time goes on as it passed
        check(5, FRAME, 5 + (1 << 31) + 3000, 2970);
        check(1 << 31, FRAME, 5, 2970);
        check(5, Duration::from_secs(10 * 365 * 86_400), 9, 4); // nor does it overflow
    }

    #[test]
    fn another_ssrc_goes_on_where_the_last_one_was() {
        let start = Instant::now();
        let mut timestamps = Timestamps::new(48_000);
        let first = timestamps.unwrap(start, 1000);
        timestamps.reset();
        assert_eq!(timestamps.unwrap(start + Duration::from_millis(20), 1001) - first, 960);
        assert_eq!(timestamps.unwrap(start + Duration::from_millis(40), 1961) - first, 1920);
        timestamps.reset();
        assert_eq!(timestamps.unwrap(start + Duration::from_millis(40), 7) - first, 1921, "never twice the same");
    }
}
