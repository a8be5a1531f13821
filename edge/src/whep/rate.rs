//! How many bits a second a track takes when it takes much: what a viewer's way has to carry.
//!
//! Screens stand still for long and then change at once, so it is the fullest two seconds of the last minutes that count.

use std::time::{Duration, Instant};

/// Spans that are remembered, and how long each is: who reads for a minute scrolls again.
const SPANS: usize = 120;
const SPAN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Meter {
    /// When the newest span began.
    since: Option<Instant>,
    /// Bytes, newest last; at most `SPANS`.
    bytes: [u64; SPANS],
    /// How many there are, the newest, which is under way, with them.
    spans: usize,
}

impl Default for Meter {
    fn default() -> Self {
        Self { since: None, bytes: [0; SPANS], spans: 0 }
    }
}

impl Meter {
    pub fn observe(&mut self, at: Instant, bytes: usize) {
        let since = *self.since.get_or_insert(at);
        self.spans = self.spans.max(1);
        let passed = at.saturating_duration_since(since).as_secs() as usize;
        if passed > 0 {
            let shift = passed.min(SPANS);
            self.bytes.rotate_left(shift);
            self.bytes[SPANS - shift..].fill(0);
            self.spans = (self.spans + passed).min(SPANS);
            self.since = Some(since + SPAN * u32::try_from(passed).unwrap_or(u32::MAX));
        }
        self.bytes[SPANS - 1] += bytes as u64;
    }

    /// Bits a second; `None` until two spans are full.
    pub fn rate(&self) -> Option<u64> {
        let full = &self.bytes[SPANS - self.spans..SPANS - 1.min(self.spans)];
        full.windows(2).map(|pair| (pair[0] + pair[1]) * 8 / 2).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_two_seconds_count_and_are_forgotten() {
        let start = Instant::now();
        let mut meter = Meter::default();
        assert_eq!(meter.rate(), None);
        let mut second = |number: u64, bytes: usize| {
            (0..10).for_each(|tenth| meter.observe(start + Duration::from_millis(number * 1000 + tenth * 100), bytes / 10));
            meter.rate()
        };
        assert_eq!(second(0, 1000), None);
        assert_eq!(second(1, 1000), None, "the second one is under way");
        assert_eq!(second(2, 3000), Some(8000));
        assert_eq!(second(3, 1000), Some(16_000));
        assert_eq!(second(4, 0), Some(16_000));
        assert_eq!(second(110, 0), Some(16_000));
        assert_eq!(second(130, 0), Some(0), "a pause takes nothing");
        assert_eq!(second(4_000_000, 10), Some(0));
    }
}
