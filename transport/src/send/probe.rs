//! Short bursts of more than there is to send, which show whether a link carries the next better picture.
//!
//! ```text
//! Idle --a rate is aimed at, the link is calm, the pause is over--> Running --its time is over--> Ended --answers are in--> Idle
//!   ^                                                                |  ^---- the short one fits: the long one ----|
//!   |----------------- a queue grows: given up, a longer pause ------|
//! ```
//!
//! A picture that is sent says nothing of how much more would fit. What is sent in addition are retransmissions of packets
//! that the viewer has: it drops them. The first burst is so short that a link which carries no more than is known has but a
//! small queue of it. A link may pass that on out of a store of its own, as shapers do, so a longer one has to fit as well.
//! Pure: it says how many bytes are due, others send them.

use std::time::{Duration, Instant};

use super::numbers::{Outcome, ticks};

/// Longer than the buffers of most links let pass unnoticed, and shorter than a viewer minds.
const LENGTH: Duration = Duration::from_millis(200);
/// Of the first: enough for its packets to say something, and for no longer a queue than that.
const SHORT_MIN: Duration = Duration::from_millis(30);
const SHORT_QUEUE: Duration = Duration::from_millis(50);
/// What is told after that is waited for.
const ANSWERS: Duration = Duration::from_millis(400);
/// Between two portions.
const STEP: Duration = Duration::from_millis(10);
/// More than is aimed at: of a rate that just fits, less arrives.
const MORE: f64 = 1.15;
/// Nothing is aimed at above that: a ladder's best rung, or a source that is worth it.
const BITRATE_MAX: f64 = 25_000_000.0;
/// Bytes of one portion: ten packets of a burst.
const PORTION_MAX: f64 = 40_000.0;
/// The queue that a probe may make before it is given up, in ticks of 250 us: viewers do not see it.
const QUEUE_MAX: i64 = ticks(Duration::from_millis(80));
/// Packets that say how fast they came.
const PACKETS_MIN: u32 = 8;
/// Of a probe so much may be lost: as on any radio link.
const LOST_SHARE_MAX: f64 = 0.05;
/// From congestion or a failure to the next probe; doubled with each failure up to the second. A viewer whose link has
/// recovered waits so long at most.
const PAUSE: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_secs(12);
/// From a success to the next: there may be a better picture still.
const PAUSE_SHORT: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct Prober {
    aim: Option<u64>,
    state: State,
    /// No sooner is there another one.
    not_before: Option<Instant>,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Idle,
    Running { began: Instant, next: Instant, sent: u64, seen: Seen, length: Duration },
    Ended { until: Instant, seen: Seen, length: Duration },
}

/// What is known of a probe's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    packets: u32,
    lost: u32,
    bytes: u64,
    /// Ticks of the viewer's clock, of the first and the last one; and the first one's bytes.
    first: Option<(i64, u32)>,
    last: i64,
}

/// What a probe has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shown {
    /// So many bits a second arrived, and that is enough.
    Enough(f64),
    /// They did not.
    Less(f64),
    /// A queue grew, or too much was lost.
    Refused,
}

impl Prober {
    pub(crate) fn new() -> Self {
        Self { aim: None, state: State::Idle, not_before: None, pause: PAUSE }
    }

    /// What a better picture would need; `None`: there is none.
    pub(crate) fn aim(&mut self, bitrate: Option<u64>) {
        self.aim = bitrate;
        if bitrate.is_none() {
            self.state = State::Idle;
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// There was congestion.
    pub(crate) fn put_off(&mut self, now: Instant) {
        if self.state == State::Idle {
            self.not_before = self.not_before.max(Some(now + self.pause));
        }
    }

    /// `estimate` is what is known to fit. True when a probe has begun.
    pub(crate) fn start(&mut self, now: Instant, estimate: Option<u64>) -> bool {
        let wanted = self.rate().zip(self.aim.zip(estimate)).filter(|(_, (aim, estimate))| estimate < aim);
        let Some((rate, (_, estimate))) = wanted.filter(|_| self.state == State::Idle) else { return false };
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let estimate = estimate as f64;
        let short = SHORT_QUEUE.mul_f64((estimate / (rate - estimate).max(1.0)).min(10.0));
        self.run(now, short.clamp(SHORT_MIN, LENGTH));
        true
    }

    fn run(&mut self, now: Instant, length: Duration) {
        self.state = State::Running { began: now, next: now, sent: 0, seen: Seen::default(), length };
    }

    /// Bytes were sent anyway, or as this asked for.
    pub(crate) fn sent(&mut self, bytes: u64) {
        if let State::Running { sent, .. } = &mut self.state {
            *sent += bytes;
        }
    }

    /// Bytes that are due beside what is sent anyway.
    pub(crate) fn poll_bytes(&mut self, now: Instant) -> u64 {
        let Some(rate) = self.rate() else { return 0 };
        match &mut self.state {
            State::Running { began, seen, length, .. } if now >= *began + *length => {
                self.state = State::Ended { until: now + ANSWERS, seen: *seen, length: *length };
                0
            }
            State::Running { began, next, sent, .. } if now >= *next => {
                *next = now + STEP;
                let since = now.saturating_duration_since(*began) + STEP;
                let due = rate / 8.0 * since.as_secs_f64() - *sent as f64;
                due.clamp(0.0, PORTION_MAX) as u64
            }
            _ => 0,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Running { next, .. } => Some(next),
            State::Ended { until, .. } => Some(until),
        }
    }

    /// What a message tells; `queue` is how long the newest burst waited.
    pub(crate) fn handle(&mut self, now: Instant, outcomes: &[Outcome], queue: i64) -> Option<Shown> {
        let (State::Running { seen, .. } | State::Ended { seen, .. }) = &mut self.state else { return None };
        outcomes.iter().filter(|outcome| outcome.probe).for_each(|outcome| seen.observe(outcome));
        if queue > QUEUE_MAX || seen.is_lossy() {
            return Some(self.end(now, Shown::Refused));
        }
        self.conclude(now)
    }

    /// Time has passed.
    pub(crate) fn conclude(&mut self, now: Instant) -> Option<Shown> {
        let State::Ended { until, seen, length } = self.state else { return None };
        if now < until {
            return None;
        }
        let aim = self.aim.unwrap_or_default() as f64;
        let shown = match seen.bitrate() {
            Some(bitrate) if bitrate >= aim && length < LENGTH => {
                self.run(now, LENGTH);
                return None;
            }
            Some(bitrate) if bitrate >= aim => Shown::Enough(bitrate),
            Some(bitrate) => Shown::Less(bitrate),
            None => Shown::Refused,
        };
        Some(self.end(now, shown))
    }

    fn end(&mut self, now: Instant, shown: Shown) -> Shown {
        self.state = State::Idle;
        if let Shown::Enough(_) = shown {
            self.pause = PAUSE;
            self.not_before = Some(now + PAUSE_SHORT);
        } else {
            self.not_before = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        shown
    }

    fn rate(&self) -> Option<f64> {
        self.aim.map(|aim| (aim as f64 * MORE).min(BITRATE_MAX))
    }
}

impl Seen {
    fn observe(&mut self, outcome: &Outcome) {
        let Some(arrived) = outcome.arrived else {
            self.lost += 1;
            return;
        };
        self.packets += 1;
        self.bytes += u64::from(outcome.bytes);
        if self.first.is_none_or(|(first, _)| arrived < first) {
            self.first = Some((arrived, outcome.bytes));
        }
        self.last = self.last.max(arrived);
    }

    fn is_lossy(&self) -> bool {
        self.lost > 2 && f64::from(self.lost) > LOST_SHARE_MAX * f64::from(self.packets + self.lost)
    }

    /// The first packet's own time is not among what passed.
    fn bitrate(&self) -> Option<f64> {
        let (first, bytes) = self.first.filter(|_| self.packets >= PACKETS_MIN)?;
        let seconds = self.last.saturating_sub(first).max(1) as f64 / ticks(Duration::from_secs(1)) as f64;
        Some((self.bytes - u64::from(bytes)) as f64 * 8.0 / seconds)
    }
}
