//! Renditions that are made of the picture (`Rung`), on demand: they follow the lead as its layers do, and are listed
//! whether anything is made of them or not.
//!
//! ```text
//! cold:    every cut is a gap at once, but the newest two, which are kept
//! awaited: they wait for their keyframes, which come faster than real time
//! ```

use super::*;

/// A rung's segments wait so much longer than the lead's: for an encoder that starts, or replaces another, and has to make
/// what was missed.
const RUNG_WAIT_US: i64 = 2_000_000;

/// Cuts that a cold rung keeps: the open segment's, and that of the one before. Shaka 5.2.12 fails on a playlist without
/// one whole segment of media.
const KEPT_CUTS: usize = 2;
/// A rung begins with a whole segment where so much media has to be made for it at most: two segments of 4 s, which take a machine
/// a second or two. hls.js loads no Part of a playlist that has none before the open segment, and takes the gap instead.
const MADE_AGAIN_MAX: Duration = Duration::from_millis(8800);

/// What leads is given so long to be made, where it cannot be: a program that makes it starts anew, or is only just asked.
const LEAD_MADE_WAIT: Duration = Duration::from_secs(3);

/// Whether a rung can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Supply {
    /// It cannot be made here.
    #[default]
    Unavailable,
    /// Nobody asks for it.
    Cold,
    /// It is made, or about to be.
    Awaited,
}

/// By `TrackId::rung_number`.
pub type Supplies = [Supply; TrackId::RUNGS_MAX as usize];

fn supply(supplies: &Supplies, id: TrackId) -> Supply {
    id.rung_number().map_or(Supply::Unavailable, |number| supplies[number])
}

/// How long after a cut a follower's frames are waited for.
pub(super) fn wait_us(id: TrackId) -> i64 {
    if id.is_rung() { RUNG_WAIT_US } else { FOLLOWER_WAIT_US }
}

impl Running {
    /// A picture that was made. What belongs to a publisher before this one does not come here.
    pub(super) fn rung_sample(&mut self, sample: &Arc<Sample>, epoch: u64, losses: &mut Losses) {
        if self.timeline.offset().is_none() || self.rendition(sample.track.id).is_none() {
            losses.late += 1;
            return;
        }
        let at = self.follower(sample.track.id);
        self.followers[at].heard = Some(self.timeline.horizon());
        losses.late += self.followers[at].push(sample);
        self.follow(at, epoch, losses, false);
    }

    /// The picture of a publisher, where one that is made of it leads.
    pub(super) fn source_sample(&mut self, sample: &Sample) -> Verdict {
        self.lead_comes = true;
        let unavailable = supply(&self.supplies, Rung::ALIKE.id) == Supply::Unavailable;
        let missed = sample.received.saturating_duration_since(self.lead_heard) >= LEAD_MADE_WAIT;
        if sample.keyframe && unavailable && missed { Verdict::Replace } else { Verdict::Fine }
    }

    /// What is made alike, as the picture that leads.
    pub(super) fn as_picture(&mut self, sample: &Sample) -> Arc<Sample> {
        let known = self.made_lead.as_ref().filter(|(came, _)| Arc::ptr_eq(came, &sample.track)).map(|(_, own)| Arc::clone(own));
        let track = known.unwrap_or_else(|| {
            let Track { timescale, parameters, .. } = &*sample.track;
            let own = Arc::new(Track { id: TrackId::VIDEO, timescale: *timescale, parameters: parameters.clone() });
            self.made_lead = Some((Arc::clone(&sample.track), Arc::clone(&own)));
            own
        });
        Arc::new(Sample { track, ..Sample::clone(sample) })
    }

    fn set_supplies(&mut self, supplies: Supplies) {
        let horizon = self.timeline.horizon();
        for follower in &mut self.followers {
            let awaited = |supplies: &Supplies| supply(supplies, follower.id) == Supply::Awaited;
            if awaited(&supplies) && !awaited(&self.supplies) {
                follower.heard = Some(horizon);
            }
        }
        self.supplies = supplies;
    }

    /// The lead was cut. A rung is there from the first segment on that some players cannot take.
    pub(super) fn cut_rungs(&mut self, cut: Cut, source: &Arc<Track>, epoch: u64) {
        for rung in Arc::clone(&self.rungs).iter() {
            let supply = supply(&self.supplies, rung.id);
            let known = self.rendition(rung.id).is_some();
            let needed = supply != Supply::Unavailable
                && source.id == TrackId::VIDEO
                && rung.is_needed(&source.parameters, self.announced);
            if !known && needed {
                self.add_rendition(rung.id, source, cut, epoch);
            }
            if known || needed {
                let at = self.follower(rung.id);
                let changed = supply != Supply::Awaited && self.cool(at, epoch);
                if changed || !known {
                    self.render(rung.id);
                }
            }
        }
    }

    /// What waits for it is looked at by the clock; a cold rung's cuts by their number.
    pub(super) fn is_awaited(&self, id: TrackId) -> bool {
        supply(&self.supplies, id) == Supply::Awaited
    }

    /// Nothing is coming: all but the newest cuts are crossed.
    fn cool(&mut self, at: usize, epoch: u64) -> bool {
        let id = self.followers[at].id;
        let mut changed = false;
        while let Some(cut) = self.followers[at].front_cut().copied() {
            if self.rendition(id).is_some_and(Rendition::is_open) {
                self.close_at_cut(id, cut.at, epoch);
                changed = true;
            }
            if self.followers[at].cuts() <= KEPT_CUTS {
                break;
            }
            self.followers[at].pop_cut();
            self.cross(id, cut, epoch);
        }
        changed
    }

    /// Rungs that are listed, and can be had.
    pub(super) fn offered_rungs(&self) -> impl Iterator<Item = Rung> {
        let can_be_had = |rung: &&Rung| supply(&self.supplies, rung.id) != Supply::Unavailable;
        self.rungs.iter().filter(can_be_had).filter(|rung| self.rendition(rung.id).is_some()).copied()
    }

    /// By the publisher's own clock: the newest cut, and the one at which what is made begins.
    pub(super) fn source_cuts(&self) -> Option<(Timestamp, Timestamp)> {
        let (offset, newest) = (self.timeline.offset()?, self.cut?);
        let since = |cut: &Cut| (self.timeline.horizon() - cut.at).to_duration();
        let near = |cut: &Cut| !newest.discontinuity && since(cut) <= MADE_AGAIN_MAX;
        Some((newest.at - offset, self.cut_before.filter(near).unwrap_or(newest).at - offset))
    }
}

impl Presentation {
    pub fn set_supplies(&mut self, supplies: Supplies) {
        if supplies == self.supplies {
            return;
        }
        (self.supplies, self.offer_is_stale) = (supplies, true);
        if let Some(running) = &mut self.running {
            running.set_supplies(supplies);
        }
    }

    /// Of the publisher that sends: its epoch, when it shows the picture that opened the newest segment, and the one at which
    /// what is made of it is to begin.
    pub fn source_cuts(&self) -> Option<(u64, Timestamp, Timestamp)> {
        let (newest, begin) = self.running.as_ref().filter(|_| self.live)?.source_cuts()?;
        Some((self.epoch, newest, begin))
    }
}
