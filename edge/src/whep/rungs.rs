//! Which picture one viewer is sent: the source's, one of its layers or a rung of the ladder.
//!
//! ```text
//! as good as there is --the way carries less--> what fits --it carries 1.2 times the next one's, for a while--> that
//!         ^-- nothing is known of the way  |      ^       ^-- and again too little: a longer wait each time --|
//!                                          |      |-- once it is there
//!                                          |--> what is there at once, and fits as well, while what fits is made
//! ```
//!
//! Down at once, up slowly, and what the viewer chose goes before all of it. A choice counts from the keyframe on at which
//! the picture goes over; until then there is the old one. Pure: rates and choices come in, the next track comes out.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use media_core::{TrackId, stream::Made};

use super::{
    broadcast::Tracks,
    viewer::{Front, shown},
};

/// A picture that a viewer can be sent without choosing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub track: TrackId,
    /// What it takes on the wire, sound with it, in bits a second. 0: nobody knows yet.
    pub bitrate: u64,
    /// It is there: its next keyframe comes as soon as it is asked for.
    pub ready: bool,
}

/// Below this share of what it takes, a picture is given up at once: percent.
const DOWN_AT_ONCE: u64 = 80;
/// Below this one, nothing of it is seen anyway.
const REST: u64 = 60;
/// And where the way carries just less than that, after this.
const DOWN_WAIT: Duration = Duration::from_millis(2500);
/// To go up, the way has to carry this share of what the better one takes: percent. Its keyframes need room.
const UP: u64 = 120;
/// For so long.
const UP_WAIT: Duration = Duration::from_secs(2);
/// From going down to going up; doubled each time that going up was a mistake.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(120);
/// A mistake shows within this.
const MISTAKE: Duration = Duration::from_secs(30);
/// A rung that is made anew comes within seconds, and a publisher's keyframe within ten; after that it is done without.
const PENDING_MAX: Duration = Duration::from_secs(12);
/// And is not tried again for so long.
const MISSING: Duration = Duration::from_secs(60);
/// From going to what was there at once to going on to what fits: until then nothing is known of the way but that it was full.
const STOPOVER: Duration = Duration::from_secs(1);
/// A rung is worth going to where it takes this share of the source at most: percent.
const SHARE_MAX: u64 = 80;
/// Headers, and what is sent again on a good way: percent of the media.
const OVERHEAD: u64 = 106;
/// Rates move all the time; less than this, in percent, is told to nobody.
const STEADY: u64 = 12;

/// Why a viewer's picture changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What the way carries.
    Bandwidth,
    /// The viewer chose.
    Choice,
    /// The one before is not sent any more, or a better one of the publisher's is again.
    Supply,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Choice => "choice",
            Self::Supply => "supply",
        }
    }
}

/// The next picture, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    pub to: TrackId,
    pub reason: Reason,
    /// Until it is there the old picture rests: so little of it arrives that none would be seen.
    pub rests: bool,
}

impl Switch {
    fn new(to: TrackId, reason: Reason) -> Self {
        Self { to, reason, rests: false }
    }
}

#[derive(Debug)]
pub struct Selector {
    /// What is sent.
    current: TrackId,
    /// What was asked for and is not there yet; until when it may take.
    pending: Option<(TrackId, Instant)>,
    /// What the way carries. `None`: all that was sent.
    estimate: Option<u64>,
    /// Since when the way carries less than what is sent takes.
    under: Option<Instant>,
    /// Since when it carries enough for something better.
    over: Option<Instant>,
    rose: Option<Instant>,
    patience: Duration,
    /// No sooner does it go up.
    not_before: Option<Instant>,
    /// It did not come, and until when it is not asked for again.
    missing: Option<(TrackId, Instant)>,
    /// What fits, where something else was there sooner; since when that has been waited for.
    bound_for: Option<(TrackId, Instant)>,
    aim: Option<u64>,
}

impl Selector {
    pub fn new() -> Self {
        Self {
            current: TrackId::VIDEO,
            pending: None,
            estimate: None,
            under: None,
            over: None,
            rose: None,
            patience: PATIENCE,
            not_before: None,
            missing: None,
            bound_for: None,
            aim: None,
        }
    }

    /// What the way carries, in bits a second.
    pub fn estimate(&mut self, bitrate: u64) {
        self.estimate = Some(bitrate);
    }

    /// What was asked for is being sent. Gives what was sent before.
    pub fn switched(&mut self) -> TrackId {
        let before = self.current;
        self.current = self.pending.take().map_or(before, |(track, _)| track);
        before
    }

    pub fn current(&self) -> TrackId {
        self.current
    }

    /// What the next better picture would need, in bits a second, so that it is found out whether that fits.
    pub fn aim(&self) -> Option<u64> {
        self.aim
    }

    /// What has to be made ready, since it is gone to next.
    pub fn prepares(&self) -> Option<TrackId> {
        self.bound_for.map(|(track, _)| track)
    }

    /// Takes what there is now, and what the viewer chose; says what it is to be sent instead of what it is, or waits for.
    pub fn look(&mut self, now: Instant, front: &Front, choice: Option<TrackId>) -> Option<Switch> {
        if let Some((track, _)) = self.pending.filter(|(_, until)| now >= *until) {
            self.missing = Some((track, now + MISSING));
            self.pending = None;
            return Some(self.go(now, Switch::new(self.current, Reason::Supply)));
        }
        self.missing = self.missing.filter(|(_, until)| now < *until);
        let wanted = match choice {
            Some(chosen) => {
                self.bound_for = None;
                self.choose(chosen, front)
            }
            None => self.fit(now, front),
        };
        self.aim = if choice.is_none() { self.next_aim(now, front) } else { None };
        let switch = wanted.filter(|switch| switch.to != self.chosen())?;
        Some(self.go(now, switch))
    }

    /// When to look again though nothing has changed.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let up = self.over.map(|since| (since + UP_WAIT).max(self.not_before.unwrap_or(since)));
        let on = self.bound_for.map(|(_, since)| since + STOPOVER);
        let times = [self.under.map(|since| since + DOWN_WAIT), up, self.pending.map(|(_, until)| until), on];
        let aim = self.not_before.filter(|_| self.aim.is_none() && self.estimate.is_some());
        times.into_iter().flatten().chain(aim).filter(|at| *at > now).min()
    }

    fn chosen(&self) -> TrackId {
        self.pending.map_or(self.current, |(track, _)| track)
    }

    fn go(&mut self, now: Instant, switch: Switch) -> Switch {
        self.pending = (switch.to != self.current).then(|| (switch.to, now + PENDING_MAX));
        (self.under, self.over, self.aim) = (None, None, None);
        switch
    }

    fn choose(&self, chosen: TrackId, front: &Front) -> Option<Switch> {
        let is_rung = front.candidates.iter().any(|candidate| candidate.track == chosen && chosen.is_rung());
        let to = if is_rung { chosen } else { shown(chosen, front) };
        Some(Switch::new(to, Reason::Choice))
    }

    /// What fits, without a choice.
    fn fit(&mut self, now: Instant, front: &Front) -> Option<Switch> {
        let best = shown(TrackId::VIDEO, front);
        let Some(estimate) = self.estimate else { return Some(Switch::new(best, Reason::Supply)) };
        let all = self.useful(front);
        let Some(now_takes) = all.iter().find(|one| one.track == self.chosen()).map(|one| one.bitrate) else {
            // It is not there any more.
            let to = fitting(&all, estimate).map_or(best, |one| one.track);
            return Some(Switch::new(to, Reason::Supply));
        };
        if let Some(to) = self.down(now, &all, estimate, now_takes) {
            let takes = all.iter().find(|one| one.track == self.current).map_or(0, |one| one.bitrate);
            let rests = estimate * 100 < takes * if to.ready { DOWN_AT_ONCE } else { REST };
            return Some(Switch { rests, ..Switch::new(to.track, Reason::Bandwidth) });
        }
        if let Some((_, since)) = self.bound_for.filter(|_| self.pending.is_none()) {
            return self.go_on(now, since, &all, estimate);
        }
        let better = |one: &&Candidate| one.bitrate > now_takes && one.bitrate * UP <= estimate * 100;
        let Some(better) = all.iter().find(better).filter(|_| self.pending.is_none()) else {
            self.over = None;
            return None;
        };
        let since = *self.over.get_or_insert(now);
        if now < since + UP_WAIT || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        // One that has held is no mistake.
        if self.rose.is_some_and(|rose| now >= rose + MISTAKE) {
            self.patience = PATIENCE;
        }
        self.rose = Some(now);
        Some(Switch::new(better.track, Reason::Bandwidth))
    }

    /// From what was there at once to what fits, once that is there as well.
    fn go_on(&mut self, now: Instant, since: Instant, all: &[Candidate], estimate: u64) -> Option<Switch> {
        if now < since + STOPOVER {
            return None;
        }
        let to = fitting(all, estimate)?;
        let is_here = to.track == self.current;
        self.bound_for = (!is_here && !to.ready && now < since + PENDING_MAX).then_some((to.track, since));
        (!is_here && to.ready).then_some(Switch::new(to.track, Reason::Bandwidth))
    }

    fn down(&mut self, now: Instant, all: &[Candidate], estimate: u64, now_takes: u64) -> Option<Candidate> {
        if estimate >= now_takes {
            self.under = None;
            return None;
        }
        let since = *self.under.get_or_insert(now);
        let at_once = estimate * 100 < now_takes * DOWN_AT_ONCE;
        if !at_once && now < since + DOWN_WAIT {
            return None;
        }
        let to = fitting(all, estimate).filter(|one| one.bitrate < now_takes)?;
        if self.rose.take().is_some_and(|rose| now < rose + MISTAKE) {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        self.not_before = Some(now + self.patience);
        let sooner = all.iter().find(|one| one.ready && one.bitrate < to.bitrate).filter(|_| at_once && !to.ready);
        self.bound_for = sooner.map(|_| (to.track, now));
        Some(*sooner.unwrap_or(to))
    }

    /// The least that is better than what is known to fit.
    fn next_aim(&self, now: Instant, front: &Front) -> Option<u64> {
        let estimate = self.estimate?;
        if self.not_before.is_some_and(|at| now < at) || self.pending.is_some() {
            return None;
        }
        let all = self.useful(front);
        let now_takes = all.iter().find(|one| one.track == self.current)?.bitrate;
        let needs = all.iter().filter(|one| one.bitrate > now_takes).map(|one| one.bitrate * UP / 100 + 1);
        needs.filter(|need| *need > estimate).min()
    }

    /// Of those there are, best first. A rung that takes nearly what the source does is no help; the one that is sent may stay.
    fn useful(&self, front: &Front) -> Vec<Candidate> {
        let source = front.candidates.iter().find(|one| !one.track.is_rung()).map_or(0, |one| one.bitrate);
        let helps = |one: &&Candidate| {
            let cheap = !one.track.is_rung() || source == 0 || one.bitrate * 100 <= source * SHARE_MAX;
            let missing = self.missing.is_some_and(|(track, _)| track == one.track);
            (cheap || one.track == self.chosen()) && !missing
        };
        front.candidates.iter().filter(helps).copied().collect()
    }
}

/// The best that fits, or the least.
fn fitting(all: &[Candidate], estimate: u64) -> Option<&Candidate> {
    all.iter().find(|one| one.bitrate <= estimate).or(all.last())
}

/// Best first. `pictures` are the publisher's, with what they take; of the rungs, those that are `ready` are being made; `known`
/// is what was told before.
pub fn candidates(
    pictures: impl IntoIterator<Item = (TrackId, Option<u64>)>,
    rungs: impl IntoIterator<Item = (TrackId, u64)>,
    ready: Tracks,
    sound: u64,
    known: &[Candidate],
) -> Vec<Candidate> {
    let pictures = pictures.into_iter().map(|(track, bitrate)| (track, bitrate.unwrap_or(0)));
    let all = pictures.chain(rungs).map(|(track, bitrate)| {
        let bitrate = if bitrate == 0 { 0 } else { (bitrate + sound) * OVERHEAD / 100 };
        let before = known.iter().find(|one| one.track == track).map_or(0, |one| one.bitrate);
        let steady = before > 0 && bitrate.abs_diff(before) * 100 <= before * STEADY;
        Candidate { track, bitrate: if steady { before } else { bitrate }, ready: !track.is_rung() || ready.has(track) }
    });
    let mut all: Vec<_> = all.collect();
    // Of unknown cost: the publisher's best.
    all.sort_by_key(|one| Reverse(if one.bitrate == 0 { u64::MAX } else { one.bitrate }));
    all
}

/// All that a ladder may have: the track, and what is made for it.
pub fn all() -> impl Iterator<Item = (TrackId, Made)> {
    (0..TrackId::RUNGS_MAX).filter_map(TrackId::rung).filter_map(|track| Some((track, Made::of_rung(track)?)))
}

/// As metric labels and logs say it.
pub fn name(track: TrackId) -> &'static str {
    match Made::of_rung(track) {
        Some(made) => made.as_str(),
        None if track == TrackId::VIDEO => "source",
        None => "layer",
    }
}

#[cfg(test)]
mod tests;
