//! How long a connection may keep us waiting: for a request's head, between requests, and with
//! bytes that it does not take.
//!
//! Sans-IO: the listener tells what happened and when, and asks for the verdict. A held request is
//! no such wait: while a response is being made or sent, only untaken bytes count.
//!
//! Over HTTP/2 responses are many at once, and bytes tell nothing of heads: the rest begins when the last response has
//! ended, and a response that has something of which nothing can be sent for long counts as untaken bytes do.
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

/// So many requests may be given up in a while: a player gives up a handful when it seeks.
const GIVEN_UP_MAX: u32 = 200;
const GIVEN_UP_WHILE: Duration = Duration::from_secs(10);

pub struct Patience {
    limits: Limits,
    /// HTTP/2.
    multiplexed: bool,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Responses that are being made or sent.
    serving: usize,
    /// Of those, the ones that have bytes for the peer, and when any of those were last taken.
    sending: usize,
    taken: Instant,
    /// Requests given up since a while ago.
    given_up: u32,
    given_up_since: Instant,
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
    /// Requests were given up in masses as soon as they were made (CVE-2023-44487).
    RapidReset,
    /// The peer takes none of the bytes it asked for.
    SlowReader,
}

impl Reason {
    /// As the metric's label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
            Self::RapidReset => "rapid_reset",
            Self::SlowReader => "slow_reader",
        }
    }
}

impl Patience {
    /// A new connection: its first head is expected from now on.
    pub fn new(limits: Limits, multiplexed: bool, now: Instant) -> Self {
        let state = State {
            phase: Phase::Heading { since: now },
            serving: 0,
            sending: 0,
            taken: now,
            given_up: 0,
            given_up_since: now,
            untaken_since: None,
        };
        Self { limits, multiplexed, state: Mutex::new(state) }
    }

    /// Bytes came.
    pub fn handle_bytes(&self, now: Instant) {
        let mut state = self.lock();
        if let Phase::Resting { .. } = state.phase
            && !self.multiplexed
        {
            state.phase = Phase::Heading { since: now };
        }
    }

    /// A head is complete.
    pub fn handle_request(&self) {
        let mut state = self.lock();
        state.serving += 1;
        state.phase = Phase::Serving;
    }

    /// A response has bytes for the peer.
    pub fn handle_ready(&self, now: Instant) {
        let mut state = self.lock();
        state.sending += 1;
        state.taken = now;
    }

    /// Some of them were taken.
    pub fn handle_taken(&self, now: Instant) {
        self.lock().taken = now;
    }

    /// It has none for now: what follows is our own wait.
    pub fn handle_lull(&self) {
        let mut state = self.lock();
        state.sending = state.sending.saturating_sub(1);
    }

    /// The last byte of a response is buffered, or the response was given up: `whole` tells. Call `handle_lull` before,
    /// where it had bytes left.
    pub fn handle_response_end(&self, whole: bool, now: Instant) {
        let mut state = self.lock();
        state.serving = state.serving.saturating_sub(1);
        if state.serving == 0 {
            state.phase = Phase::Resting { since: now };
        }
        if now.saturating_duration_since(state.given_up_since) > GIVEN_UP_WHILE {
            (state.given_up, state.given_up_since) = (0, now);
        }
        state.given_up += u32::from(!whole);
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
        let stuck = (self.multiplexed && state.sending > 0).then(|| (state.taken + self.limits.untaken, Reason::SlowReader));
        if self.multiplexed && state.given_up > GIVEN_UP_MAX {
            return Verdict::Over(Reason::RapidReset);
        }
        // Whatever begins after this question runs out no earlier than its own limit from now.
        let later = now + self.limits.head.min(self.limits.rest).min(self.limits.untaken);
        match [phase, untaken, stuck].into_iter().flatten().min_by_key(|(at, _)| *at) {
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
        let patience = Patience::new(LIMITS, false, t);
        assert_eq!(end(&patience, t, t), Some((10, Reason::SlowHead)), "a silent new connection");
        patience.handle_bytes(t + 9 * S);
        assert_eq!(end(&patience, t, t), Some((10, Reason::SlowHead)), "a trickled head gains no time");
        assert!(!patience.is_serving());
        patience.handle_request();
        assert!(patience.is_serving());
        assert_eq!(end(&patience, t, t), None, "a held request is our own wait");
        patience.handle_response_end(true, t + 20 * S);
        assert_eq!(end(&patience, t, t + 20 * S), Some((80, Reason::Idle)));
        patience.handle_bytes(t + 70 * S);
        assert_eq!(end(&patience, t, t + 70 * S), Some((80, Reason::SlowHead)));
    }

    #[test]
    fn many_responses_at_once_are_one_service() {
        let t = Instant::now();
        let patience = Patience::new(LIMITS, true, t);
        assert_eq!(end(&patience, t, t), Some((10, Reason::SlowHead)), "a silent new connection");
        for _ in 0..3 {
            patience.handle_request();
        }
        assert_eq!(end(&patience, t, t), None, "held requests are our own wait");
        patience.handle_ready(t + S);
        assert_eq!(end(&patience, t, t), Some((31, Reason::SlowReader)), "a window that stays shut");
        patience.handle_taken(t + 20 * S);
        assert_eq!(end(&patience, t, t + 20 * S), Some((50, Reason::SlowReader)));
        patience.handle_lull();
        assert_eq!(end(&patience, t, t + 20 * S), None, "events that do not happen are our own wait, too");
        patience.handle_response_end(true, t + 21 * S);
        assert_eq!(end(&patience, t, t + 21 * S), None);
        patience.handle_response_end(false, t + 22 * S);
        patience.handle_response_end(false, t + 22 * S);
        patience.handle_bytes(t + 23 * S);
        assert_eq!(end(&patience, t, t + 23 * S), Some((82, Reason::Idle)), "what its frames say is no head");
    }

    #[test]
    fn requests_that_are_given_up_in_masses_end_a_connection() {
        let t = Instant::now();
        let give_up = |patience: &Patience, at: Instant| {
            patience.handle_request();
            patience.handle_response_end(false, at);
        };
        let patience = Patience::new(LIMITS, true, t);
        (0..GIVEN_UP_MAX + 1).for_each(|_| give_up(&patience, t + S));
        assert_eq!(patience.verdict(t + S), Verdict::Over(Reason::RapidReset));
        let patience = Patience::new(LIMITS, true, t);
        (0..10 * GIVEN_UP_MAX).for_each(|n| give_up(&patience, t + n * S / 10));
        assert!(matches!(patience.verdict(t + GIVEN_UP_MAX * S), Verdict::WaitUntil(_)), "a busy viewer's are spread");
    }

    #[test]
    fn bytes_that_nobody_takes_end_a_connection_in_any_phase() {
        let t = Instant::now();
        let patience = Patience::new(LIMITS, false, t);
        patience.handle_request();
        patience.handle_write(false, t + S);
        patience.handle_write(false, t + 20 * S);
        assert_eq!(end(&patience, t, t), Some((31, Reason::SlowReader)), "counted from the first refusal");
        patience.handle_write(true, t + 25 * S);
        assert_eq!(end(&patience, t, t + 25 * S), None, "a slow reader that reads is served");
        patience.handle_write(false, t + 26 * S);
        patience.handle_response_end(true, t + 26 * S);
        assert_eq!(end(&patience, t, t + 26 * S), Some((56, Reason::SlowReader)), "the last bytes count too");
        assert!(patience.is_serving());
        patience.handle_write(true, t + 50 * S);
        assert!(!patience.is_serving());
        assert_eq!(end(&patience, t, t + 50 * S), Some((110, Reason::Idle)), "a slow end is no rest");
    }
}
