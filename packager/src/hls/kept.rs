//! What is kept of a presentation, so that the next process goes on with it after a crash.
//!
//! ```text
//! Presentation --Keeper: is it due?--> Kept --Inbox--> a file (the shell)
//! a file --parse--> Kept --remaining: young enough?--> Presentation::resume
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use media_core::timeline::{Grid, State};
use serde::{Deserialize, Serialize};

use super::presentation::Progress;

/// Of the text of a `Kept`. Another one is not read: what it says may mean something else.
const VERSION: u32 = 1;
/// Numbers in it are far below: they are seconds or microseconds of our time.
const NUMBER_MAX: u64 = 1 << 60;
/// Longest TARGETDURATION and PART-TARGET that can have been ours.
const TARGET_DURATION_MAX: u32 = 60;
const PART_TARGET_MS_MAX: u32 = 10_000;

/// A presentation, as the next process finds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    version: u32,
    /// Names the presentation.
    pub presentation: u64,
    /// When it was kept, in microseconds since 1970.
    kept_us: u64,
    /// A publisher was sending then.
    live: bool,
    pub lead: Lead,
    pub tracks: Tracks,
    pub grid: Grid,
    /// With what is reserved (`State::reserve`).
    pub state: State,
}

/// The track that feeds the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lead {
    Video,
    Audio,
}

/// What viewers are offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracks {
    pub video: bool,
    pub audio: bool,
}

/// Why a text is no `Kept`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is not what this server writes: {0}")]
    Unreadable(String),
    #[error("it was written by another version of this server (format {found}, not {VERSION})")]
    OtherVersion { found: u64 },
    #[error("it holds a {0} that no presentation has")]
    Impossible(&'static str),
}

impl Kept {
    pub fn parse(text: &str) -> Result<Self, Damage> {
        let unreadable = |e: serde_json::Error| Damage::Unreadable(e.to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(unreadable)?;
        match value["version"].as_u64() {
            Some(found) if found != u64::from(VERSION) => return Err(Damage::OtherVersion { found }),
            _ => {}
        }
        let kept: Self = serde_json::from_value(value).map_err(unreadable)?;
        kept.check()
    }

    fn check(self) -> Result<Self, Damage> {
        let Self { grid, state, .. } = &self;
        let small = |number: i64| u64::try_from(number).is_ok_and(|number| number < NUMBER_MAX);
        let anchored = state.anchor.is_some_and(|anchor| small(anchor.media_us) && small(anchor.wall_us));
        let target = (1..=TARGET_DURATION_MAX).contains(&state.target_duration) && grid.target_duration == state.target_duration;
        let part = (1..=PART_TARGET_MS_MAX).contains(&state.part_target_ms) && grid.part_target_ms == state.part_target_ms;
        let problem = match () {
            () if !target => "target duration",
            () if !part => "part target",
            () if [state.next_msn, state.discontinuities, state.epoch].iter().any(|&number| number >= NUMBER_MAX) => {
                "sequence number"
            }
            () if !small(state.end_us) || !anchored || self.kept_us >= NUMBER_MAX => "time",
            () if state.keyframe_interval_us.is_some_and(|us| !small(us)) => "keyframe interval",
            () if !(0.0..=1e4).contains(&grid.frame_rate) => "frame rate",
            () if self.presentation == 0 => "name",
            () => return Ok(self),
        };
        Err(Damage::Impossible(problem))
    }

    pub fn render(&self) -> String {
        serde_json::to_string(self).expect("numbers and names always fit JSON")
    }

    /// How much of the resume window is left, if any. A crash tells no time: the process may have lived on for as long
    /// as what it had reserved. A clock that was set back does not make it longer than it ever was.
    pub fn remaining(&self, resume_window: Duration, wall: SystemTime) -> Option<Duration> {
        let lived = if self.live { self.state.reserved_us() } else { 0 };
        let whole = Duration::from_micros(lived) + resume_window;
        let age = wall.duration_since(self.kept_at()).unwrap_or_default();
        whole.checked_sub(age).filter(|left| !left.is_zero() && !resume_window.is_zero())
    }

    pub fn kept_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.kept_us)
    }

    /// Where its timeline goes on.
    pub fn resumed(&self, wall: SystemTime) -> State {
        self.state.resume(self.kept_at(), wall)
    }
}

/// Knows what was kept last, and when it is out of date: at a reservation's middle, a discontinuity, another track, and
/// when the publisher comes or goes. Never at a Part.
#[derive(Debug, Default)]
pub struct Keeper {
    last: Option<Kept>,
}

impl Keeper {
    /// What is to be kept now, if that differs from what is.
    pub fn poll(&mut self, presentation: u64, progress: &Progress<'_>, wall: SystemTime) -> Option<Kept> {
        let &Progress { live, lead, tracks, grid, state } = progress;
        let same = |last: &Kept| {
            (last.presentation, last.live, last.lead, last.tracks) == (presentation, live, lead, tracks)
                && !state.outgrows(&last.state)
        };
        if self.last.as_ref().is_some_and(same) {
            return None;
        }
        let kept_us = wall.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        let state = state.reserve()?;
        self.last = Some(Kept { version: VERSION, presentation, kept_us, live, lead, tracks, grid: *grid, state });
        self.last.clone()
    }
}

#[cfg(test)]
mod tests;
