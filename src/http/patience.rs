//! How long a connection may keep us waiting: for a request's head, between requests, and with
//! bytes that it does not take.
//!
//! Sans-IO: the listener tells what happened and when, and asks for the verdict. A held request is
//! no such wait: while a response is being made or sent, only untaken bytes count.
//!
//! ```text
//!             first byte            head complete            response ended
//!   Resting ------------> Heading ----------------> Serving ----------------> Resting
//! ```

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// Between two requests.
    pub rest: Duration,
    /// With bytes ready that the peer takes none of.
    pub untaken: Duration,
}

pub struct Patience {
    limits: Limits,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Since when the socket has taken nothing of what we have for it.
    untaken_since: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing asked, nothing owed.
    Resting { since: Instant },
    /// Part of a head is here.
    Heading { since: Instant },
    /// A response is being made or sent.
    Serving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again then: nothing runs out before.
    WaitUntil(Instant),
    /// Close it.
    Over(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The head of a request took too long.
    SlowHead,
    /// Nothing was asked for a long time.
    Idle,
    /// The peer takes none of the bytes it asked for.
    SlowReader,
}

impl Reason {
    /// As the metric's label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
        }
    }
}

impl Patience {
    /// A new connection: its first head is expected from now on.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, state: Mutex::new(State { phase: Phase::Heading { since: now }, untaken_since: None }) }
    }

    /// Bytes came.
    pub fn handle_bytes(&self, now: Instant) {
        let mut state = self.lock();
        if let Phase::Resting { .. } = state.phase {
            state.phase = Phase::Heading { since: now };
        }
    }

    /// A head is complete.
    pub fn handle_request(&self) {
        self.lock().phase = Phase::Serving;
    }

    /// The last byte of a response is buffered, or the response was given up.
    pub fn handle_response_end(&self, now: Instant) {
        self.lock().phase = Phase::Resting { since: now };
    }

    /// Whether a response is being made or sent, its last buffered bytes included.
    pub fn is_serving(&self) -> bool {
        let state = self.lock();
        matches!(state.phase, Phase::Serving) || state.untaken_since.is_some()
    }

    /// Whether the socket took some of what we had for it.
    pub fn handle_write(&self, taken: bool, now: Instant) {
        let mut state = self.lock();
        if !taken {
            state.untaken_since.get_or_insert(now);
            return;
        }
        state.untaken_since = None;
        // The rest begins when the buffered end of a response is gone, however slowly.
        if let Phase::Resting { since } = &mut state.phase {
            *since = now;
        }
    }

    pub fn verdict(&self, now: Instant) -> Verdict {
        let state = self.lock();
        let phase = match state.phase {
            Phase::Resting { since } => Some((since + self.limits.rest, Reason::Idle)),
            Phase::Heading { since } => Some((since + self.limits.head, Reason::SlowHead)),
            Phase::Serving => None,
        };
        let untaken = state.untaken_since.map(|since| (since + self.limits.untaken, Reason::SlowReader));
        // Whatever begins after this question runs out no earlier than its own limit from now.
        let later = now + self.limits.head.min(self.limits.rest).min(self.limits.untaken);
        match [phase, untaken].into_iter().flatten().min_by_key(|(at, _)| *at) {
            Some((at, reason)) if at <= now => Verdict::Over(reason),
            Some((at, _)) => Verdict::WaitUntil(at.min(later)),
            None => Verdict::WaitUntil(later),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; the state is whole either way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const LIMITS: Limits =
        Limits { head: Duration::from_secs(10), rest: Duration::from_secs(60), untaken: Duration::from_secs(30) };

    /// The first reason to close, and when, if nothing else happens.
    fn end(patience: &Patience, start: Instant, mut now: Instant) -> Option<(u64, Reason)> {
        for _ in 0..100 {
            match patience.verdict(now) {
                Verdict::Over(reason) => return Some(((now - start).as_secs(), reason)),
                Verdict::WaitUntil(at) => {
                    assert!(at > now, "a wait always ends later");
                    now = at;
                }
            }
        }
        None
    }

    #[test]
    fn each_wait_has_its_limit() {
        let t = Instant::now();
        let patience = Patience::new(LIMITS, t);
        assert_eq!(end(&patience, t, t), Some((10, Reason::SlowHead)), "a silent new connection");
        patience.handle_bytes(t + 9 * S);
        assert_eq!(end(&patience, t, t), Some((10, Reason::SlowHead)), "a trickled head gains no time");
        assert!(!patience.is_serving());
        patience.handle_request();
        assert!(patience.is_serving());
        assert_eq!(end(&patience, t, t), None, "a held request is our own wait");
        patience.handle_response_end(t + 20 * S);
        assert_eq!(end(&patience, t, t + 20 * S), Some((80, Reason::Idle)));
        patience.handle_bytes(t + 70 * S);
        assert_eq!(end(&patience, t, t + 70 * S), Some((80, Reason::SlowHead)));
    }

    #[test]
    fn bytes_that_nobody_takes_end_a_connection_in_any_phase() {
        let t = Instant::now();
        let patience = Patience::new(LIMITS, t);
        patience.handle_request();
        patience.handle_write(false, t + S);
        patience.handle_write(false, t + 20 * S);
        assert_eq!(end(&patience, t, t), Some((31, Reason::SlowReader)), "counted from the first refusal");
        patience.handle_write(true, t + 25 * S);
        assert_eq!(end(&patience, t, t + 25 * S), None, "a slow reader that reads is served");
        patience.handle_write(false, t + 26 * S);
        patience.handle_response_end(t + 26 * S);
        assert_eq!(end(&patience, t, t + 26 * S), Some((56, Reason::SlowReader)), "the last bytes count too");
        assert!(patience.is_serving());
        patience.handle_write(true, t + 50 * S);
        assert!(!patience.is_serving());
        assert_eq!(end(&patience, t, t + 50 * S), Some((110, Reason::Idle)), "a slow end is no rest");
    }
}
