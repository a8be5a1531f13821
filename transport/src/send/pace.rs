//! How fast packets leave for a viewer whose way is known to be narrow.
//!
//! A keyframe that leaves at once fills the way's queue, and what does not fit there is lost. It arrives no later when it leaves
//! somewhat faster than the way carries it. A bucket of bytes: it fills at that rate, and what leaves may take it below empty by
//! one packet. Pure: virtual time.

use std::time::{Duration, Instant};

/// Of the rate that is known to fit. That is somewhat less than the way carries, and a keyframe must not wait here when the way
/// has become faster.
const FASTER: f64 = 1.5;
/// What leaves at once: most pictures do, so that a packet of them does not cost a timer. In time of the rate, and bytes.
const AT_ONCE: Duration = Duration::from_millis(40);
const AT_ONCE_BYTES: (f64, f64) = (3000.0, 60_000.0);
/// How far what is sent again may go below empty: it goes before all else, and what is beyond is asked for once more.
const AGAIN: Duration = Duration::from_millis(100);
/// A queue is waited for no longer than this.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// And so much of it is left, so that the way never has a pause.
const HOLD_LEAVES: Duration = Duration::from_millis(30);
/// Least distance of two turns.
const TURN: Duration = Duration::from_millis(5);

/// Without a rate everything leaves at once.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// Bytes a second.
    rate: Option<f64>,
    /// Bytes in the bucket at that time.
    bytes: f64,
    at: Option<Instant>,
}

impl Pacer {
    /// What is known to fit, in bits a second.
    pub(crate) fn set(&mut self, now: Instant, bitrate: Option<u64>) {
        let rate = bitrate.map(|bits| bits as f64 / 8.0 * FASTER);
        match (self.rate, rate) {
            (None, None) => return,
            (None, Some(rate)) => (self.bytes, self.at) = (most(rate), Some(now)),
            _ => self.fill(now),
        }
        self.rate = rate;
    }

    /// The way has a queue of this length: more would not fit into it.
    pub(crate) fn hold(&mut self, now: Instant, queue: Duration) {
        self.fill(now);
        if let Some(rate) = self.rate {
            let wait = queue.min(HOLD_MAX).saturating_sub(HOLD_LEAVES);
            self.bytes = self.bytes.min(-rate * wait.as_secs_f64());
        }
    }

    /// Whether a packet may leave.
    pub(crate) fn is_open(&self) -> bool {
        self.rate.is_none() || self.bytes > 0.0
    }

    /// Whether one may that is sent again.
    pub(crate) fn is_open_again(&self) -> bool {
        self.rate.is_none_or(|rate| self.bytes > -rate * AGAIN.as_secs_f64())
    }

    /// It has left.
    pub(crate) fn take(&mut self, bytes: usize) {
        if self.rate.is_some() {
            self.bytes -= bytes as f64;
        }
    }

    /// When the next packet may leave.
    pub(crate) fn opens_at(&self, now: Instant) -> Instant {
        let wait = self.rate.map_or(0.0, |rate| (-self.bytes / rate).max(0.0));
        now + Duration::from_secs_f64(wait.min(1.0)).max(TURN)
    }

    fn fill(&mut self, now: Instant) {
        if let (Some(rate), Some(at)) = (self.rate, self.at.replace(now)) {
            let since = now.saturating_duration_since(at).as_secs_f64();
            self.bytes = (self.bytes + rate * since).min(most(rate));
        }
    }
}

/// Bytes that are saved up.
fn most(rate: f64) -> f64 {
    (rate * AT_ONCE.as_secs_f64()).clamp(AT_ONCE_BYTES.0, AT_ONCE_BYTES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Bytes that leave in this time, in packets of 1,000, and when the last one did.
    fn leaves(pacer: &mut Pacer, bitrate: Option<u64>, from: Instant, span: Duration) -> (u64, Duration) {
        let (mut bytes, mut now, mut last) = (0, from, from);
        while now < from + span {
            pacer.set(now, bitrate);
            while pacer.is_open() && bytes < 1_000_000 {
                pacer.take(1000);
                bytes += 1000;
                last = now;
            }
            now = pacer.opens_at(now);
        }
        (bytes, last - from)
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let (bytes, last) = leaves(&mut Pacer::default(), None, Instant::now(), 100 * MS);
        assert_eq!((bytes, last), (1_000_000, Duration::ZERO));
    }

    #[test]
    fn a_keyframe_leaves_half_as_fast_again_as_the_way_is_known_to_be() {
        let mut pacer = Pacer::default();
        let start = Instant::now();
        let (bytes, _) = leaves(&mut pacer, Some(1_000_000), start, 1000 * MS);
        assert!((187_500..200_000).contains(&bytes), "{bytes} bytes in a second");
        let (at_once, _) = leaves(&mut pacer, Some(1_000_000), start + 2000 * MS, MS);
        assert_eq!(at_once, 8000, "a pause saves up 40 ms");
    }

    #[test]
    fn a_full_way_is_waited_for() {
        let mut pacer = Pacer::default();
        let now = Instant::now();
        pacer.set(now, Some(1_000_000));
        pacer.hold(now, 200 * MS);
        assert!(!pacer.is_open() && !pacer.is_open_again());
        assert_eq!(pacer.opens_at(now), now + 170 * MS);
        pacer.set(now + 80 * MS, Some(1_000_000));
        assert!(!pacer.is_open() && pacer.is_open_again(), "what was lost goes first");
        pacer.set(now + 171 * MS, Some(1_000_000));
        assert!(pacer.is_open());
        pacer.hold(now + 171 * MS, Duration::MAX);
        assert_eq!(pacer.opens_at(now), now + 220 * MS, "but not for ever");
    }
}
