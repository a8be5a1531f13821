//! What of a `State` is reserved when it is kept, and how the next process goes on from it.
//!
//! A State is kept ahead of what was used, so that a process that dies repeats nothing: it has used at most what was
//! reserved. Where a disk failed and it used more, the time that has passed since tells how much at most.

use std::time::SystemTime;

use super::{PAUSE_SLACK_US, SECONDS_A_NUMBER, State, micros};

/// Numbers that a process may use before its State is kept again.
pub const RESERVED: u64 = 8;
/// So many of them may be used before it is to be kept anew: a slow disk has the time of the others.
const USED_MAX: u64 = RESERVED / 2;

impl State {
    /// To be kept now, with all that may be used before it is kept again. `None` before the first cut: there is
    /// nothing to go on with.
    pub fn reserve(&self) -> Option<Self> {
        let anchor = self.anchor?;
        let longest_us = i64::from(self.target_duration) * 1_000_000 + PAUSE_SLACK_US;
        let reserved = i64::try_from(RESERVED).expect("a handful fits") + 1;
        let end_us = self.end_us.max(anchor.media_us) + reserved * longest_us;
        Some(Self { next_msn: self.next_msn + RESERVED, end_us, ..self.clone() })
    }

    /// Whether `kept`, which `reserve` made, is to be kept anew.
    pub fn outgrows(&self, kept: &Self) -> bool {
        self.next_msn + RESERVED >= kept.next_msn + USED_MAX || self.discontinuities != kept.discontinuities
    }

    /// Where the next process goes on. `self` was kept at `at`, now it is `wall`.
    pub fn resume(&self, at: SystemTime, wall: SystemTime) -> Self {
        let seconds = wall.duration_since(at).map_or(0, |passed| passed.as_secs());
        let overdue = (seconds / SECONDS_A_NUMBER).saturating_sub(RESERVED);
        let by_clock_us = self.anchor.map_or(0, |anchor| anchor.media_us + (micros(wall) - anchor.wall_us).max(0));
        Self { next_msn: self.next_msn + overdue, end_us: self.end_us.max(by_clock_us), ..self.clone() }
    }

    /// How long a process may have lived on what was reserved, in microseconds.
    pub fn reserved_us(&self) -> u64 {
        RESERVED * u64::from(self.target_duration) * 1_000_000
    }
}
