//! What the log tells of publishers that were turned away: a line a second of each protocol, since whoever guesses keys
//! would otherwise fill the disk. The metrics count them all.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, info};

/// A streamer who tries again every few seconds reads a line of each attempt.
const EVERY: Duration = Duration::from_secs(1);

/// One for each protocol, so that a flood by one does not hide the others.
#[derive(Default)]
pub struct Rejections(Mutex<Told>);

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    /// Since then.
    untold: u64,
}

impl Rejections {
    pub fn tell(&self, reason: &impl Display, now: Instant) {
        match self.handle(now) {
            Some(0) => info!(%reason, "publisher rejected"),
            Some(untold) => info!(%reason, untold, "publisher rejected, as were others that have no line"),
            None => debug!(%reason, "publisher rejected"),
        }
    }

    /// How many had no line before this one, if it gets one.
    fn handle(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            told.untold += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_a_line_a_second_and_none_is_lost() {
        let (start, rejections) = (Instant::now(), Rejections::default());
        let at = |ms| rejections.handle(start + Duration::from_millis(ms));
        assert_eq!(at(0), Some(0), "the first is told at once");
        assert_eq!([at(1), at(500), at(999)], [None; 3]);
        assert_eq!(at(1000), Some(3));
        assert_eq!(at(1999), None);
        assert_eq!(at(60_000), Some(1), "however late");
        assert_eq!(at(61_000), Some(0), "nothing is counted twice");

        let flood = (62_000..72_000).filter_map(at);
        let (lines, untold) = flood.fold((0, 0), |(lines, untold), more| (lines + 1, untold + more));
        assert_eq!((lines, lines + untold), (10, 10_000 - 999), "the last second's come with the next line");
    }
}
