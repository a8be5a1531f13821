//! The part of a presentation that exists once its grid is known: who leads, who follows.

use super::{
    follower::{Follower, Lengths, Reach},
    rungs::{Supplies, wait_us},
    *,
};

/// Keyframes not yet told of: those of a queue that is replayed.
const DECIDED_MAX: usize = 1024;
/// Closed segments not yet reported: one Sample closes one a rendition, a replay of the queue a few.
const CLOSED_MAX: usize = 64 * TrackId::COUNT;
/// How long the lead may be silent while another layer of the picture comes: then that one leads. Encoders leave out the
/// largest layer first where the network is slow.
const LEAD_WAIT: Duration = Duration::from_millis(1500);

impl Running {
    pub(super) fn new(timeline: Timeline, grid: Grid, ladder: &Ladder, lead: TrackId, started: Instant) -> Self {
        Self {
            rungs: Rung::all(ladder, &grid).into(),
            announced: None,
            decided: Vec::new(),
            made_lead: None,
            followed_until: Timestamp::ZERO,
            lengths: Lengths::new(grid.target_duration, grid.frame_rate),
            timeline,
            grid,
            lead,
            started,
            newest: started,
            lead_heard: started,
            renditions: Vec::with_capacity(2),
            followers: Vec::new(),
            cut: None,
            cut_before: None,
            joined: None,
            lead_comes: false,
            closed: Vec::new(),
            supplies: Supplies::default(),
        }
    }

    pub(super) fn rendition(&self, id: TrackId) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.id == id)
    }

    pub(super) fn rendition_mut(&mut self, id: TrackId) -> Option<&mut Rendition> {
        self.renditions.iter_mut().find(|rendition| rendition.id == id)
    }

    /// A further picture or sound has begun to come, and cannot be played yet.
    pub(super) fn waits_for_a_further_track(&self) -> bool {
        let further = |id: TrackId| id.is_layer() || id.is_further_sound();
        let waits = |follower: &Follower| further(follower.id) && !self.is_playable(follower.id);
        self.followers.iter().any(waits)
    }

    pub(super) fn is_playable(&self, id: TrackId) -> bool {
        self.rendition(id).is_some_and(Rendition::is_playable)
    }

    /// The place of a follower; a track that is new begins at the open segment, if it comes soon enough.
    pub(super) fn follower(&mut self, id: TrackId) -> usize {
        self.followers.iter().position(|follower| follower.id == id).unwrap_or_else(|| {
            self.followers.push(Follower::new(id, self.cut));
            self.followers.len() - 1
        })
    }

    /// What waits of the tracks that follow.
    pub(super) fn take_held(&mut self) -> Vec<Arc<Sample>> {
        let mut held: Vec<_> = self.followers.iter_mut().filter(|f| !f.id.is_rung()).flat_map(Follower::take_samples).collect();
        held.sort_by_key(|sample| sample.received);
        held
    }

    /// Another publisher, whose picture leads again.
    pub(super) fn join(&mut self, epoch: u64) {
        self.timeline.join(epoch);
        (self.joined, self.lead_comes) = (None, false);
        if self.lead.is_picture() {
            self.follow_instead(TrackId::VIDEO);
        }
    }

    /// Makes `id` the lead; what led follows. Answers what waited of it.
    fn follow_instead(&mut self, id: TrackId) -> VecDeque<Arc<Sample>> {
        let before = std::mem::replace(&mut self.lead, id);
        if before == id {
            return VecDeque::new();
        }
        let at = self.follower(id);
        let held = self.followers.swap_remove(at).take_samples();
        if self.rendition(before).is_some() {
            self.followers.push(Follower::new(before, None));
        }
        held
    }

    pub(super) fn lead_is_playable(&self) -> bool {
        self.is_playable(self.lead)
    }

    pub(super) fn take_closed(&mut self) -> Vec<(TrackId, ClosedSegment)> {
        std::mem::take(&mut self.closed)
    }

    pub(super) fn sample(&mut self, sample: &Arc<Sample>, epoch: u64, wall: SystemTime, losses: &mut Losses) -> Verdict {
        let id = sample.track.id;
        if self.grid.constant && id.is_picture() && !id.is_rung() {
            return self.source_sample(sample);
        }
        if self.grid.constant && id == Rung::ALIKE.id {
            self.newest = sample.received;
            self.lead_heard = sample.received;
            let sample = self.as_picture(sample);
            self.lead_sample(&sample, epoch, wall, losses);
            self.follow_all(epoch, losses, false);
            return Verdict::Fine;
        }
        if id.is_rung() {
            self.rung_sample(sample, epoch, losses);
            return Verdict::Fine;
        }
        self.newest = sample.received;
        if id == TrackId::VIDEO && self.lead == TrackId::AUDIO {
            return self.late_video(sample, epoch, wall, losses);
        }
        if id == self.lead {
            self.lead_heard = sample.received;
            self.lead_sample(sample, epoch, wall, losses);
            self.follow_all(epoch, losses, false);
            return Verdict::Fine;
        }
        if sample.keyframe && id == TrackId::VIDEO {
            // Another layer leads: what is made of this one has a keyframe wherever it has.
            self.decide(sample.pts, true);
        }
        let at = self.follower(id);
        losses.late += self.followers[at].push(sample);
        if self.is_orphaned_by_lead(sample) {
            self.take_lead(id, epoch, wall, losses);
            return Verdict::Fine;
        }
        self.follow(at, epoch, losses, false);
        // A publisher that came back without the track that led.
        let joined = *self.joined.get_or_insert(sample.received);
        let wait = if self.lead_comes { KEYFRAME_WAIT } else { TRACK_WAIT };
        let alone = self.timeline.offset().is_none() && sample.received - joined >= wait;
        if alone { Verdict::Replace } else { Verdict::Fine }
    }

    /// Another layer can go on where the one that leads fell silent.
    fn is_orphaned_by_lead(&self, sample: &Sample) -> bool {
        let silent = sample.received.saturating_duration_since(self.lead_heard) >= LEAD_WAIT;
        silent && sample.keyframe && sample.track.id.is_picture() && self.lead.is_picture() && self.timeline.offset().is_some()
    }

    fn take_lead(&mut self, id: TrackId, epoch: u64, wall: SystemTime, losses: &mut Losses) {
        self.timeline.change_lead();
        let at = self.follower(id);
        for cut in self.followers[at].take_cuts() {
            self.cross(id, cut, epoch);
        }
        let broken = self.followers[at].broken;
        let held = self.follow_instead(id);
        // What cannot be decoded is not missed; the last of them is a keyframe.
        let keyframe = if broken { held.iter().position(|sample| sample.keyframe).unwrap_or(0) } else { 0 };
        for sample in held.iter().skip(keyframe) {
            self.lead_heard = sample.received;
            self.lead_sample(sample, epoch, wall, losses);
        }
        self.follow_all(epoch, losses, false);
    }

    /// Video that comes to a presentation of audio leads it from its first keyframe on.
    fn late_video(&mut self, sample: &Arc<Sample>, epoch: u64, wall: SystemTime, losses: &mut Losses) -> Verdict {
        if !sample.keyframe || self.timeline.offset().is_none() {
            losses.undecodable += 1;
            return Verdict::Fine;
        }
        // Sound that was published already is not cut afterwards.
        self.followed_until = self.timeline.horizon();
        self.timeline.change_lead();
        self.follow_instead(TrackId::VIDEO);
        self.lead_heard = sample.received;
        self.lead_sample(sample, epoch, wall, losses);
        self.follow_all(epoch, losses, false);
        Verdict::Fine
    }

    fn lead_sample(&mut self, sample: &Arc<Sample>, epoch: u64, wall: SystemTime, losses: &mut Losses) {
        let (offset, lead) = (self.timeline.offset(), self.lead);
        let mut published = false;
        let mut border = true;
        let mut changed = false;
        if let Some(rendition) = self.rendition_mut(lead) {
            if let Some(offset) = offset {
                published = rendition.settle(sample, offset, epoch, sample.received);
            }
            border = rendition.at_border();
            changed = rendition.track() != &sample.track;
        }
        if changed {
            if !sample.keyframe {
                losses.undecodable += 1;
                return;
            }
            self.timeline.change();
        }
        published |= self.cut_pause(sample, epoch, wall, losses);
        let place = self.timeline.push(sample, border, wall);
        if sample.keyframe && lead == TrackId::VIDEO {
            self.decide(sample.pts, !matches!(place, Place::Continue));
        }
        match place {
            Place::Drop => {
                self.lead_comes = true;
                losses.undecodable += 1;
            }
            Place::Continue => published |= self.push(sample, epoch),
            Place::Open(cut) => {
                losses.cuts_without_keyframe += u64::from(!cut.independent);
                self.joined = None;
                self.open_lead(cut, sample, epoch, losses);
                self.push(sample, epoch);
                // A closed segment is news as well: a player may wait for it whole.
                published = true;
            }
        }
        if published {
            self.render(lead);
        }
    }

    /// For those who make rungs: whether a segment begins at this keyframe, by the publisher's own clock.
    fn decide(&mut self, pts: Timestamp, cut: bool) {
        if self.decided.len() < DECIDED_MAX {
            self.decided.push((pts, cut));
        }
    }

    /// The lead paused for longer than a segment may last: its own segments in there are gaps. After a pause that no
    /// one waits for, the publisher is taken for one that left and came back.
    fn cut_pause(&mut self, sample: &Arc<Sample>, epoch: u64, wall: SystemTime, losses: &mut Losses) -> bool {
        if self.timeline.pause_before(sample) > PAUSE_MAX {
            self.leave(epoch, losses);
            self.timeline.join(epoch);
            return true;
        }
        let mut cut_any = false;
        while let Some(cut) = self.timeline.cut_in_pause(sample, wall) {
            losses.cuts_without_keyframe += 1;
            self.open_lead(cut, sample, epoch, losses);
            cut_any = true;
        }
        cut_any
    }

    fn open_lead(&mut self, cut: Cut, sample: &Arc<Sample>, epoch: u64, losses: &mut Losses) {
        let lead = self.lead;
        self.close(lead, cut.at, epoch, sample.received);
        self.ensure(sample, cut, epoch);
        let offset = self.timeline.offset().unwrap_or(Timestamp::ZERO);
        let first = in_presentation(sample.dts, offset);
        let rendition = self.rendition_mut(lead).expect("ensured above");
        losses.unwritable += u64::from(rendition.open(cut, &sample.track, first, epoch).is_err());
        let behind_us = (self.followed_until - cut.at).as_micros().max(0);
        let cut = Cut { at: cut.at + Timestamp::from_micros(behind_us), wall_us: cut.wall_us + behind_us, ..cut };
        for at in 0..self.followers.len() {
            let id = self.followers[at].id;
            let begun = self.rendition(id).is_some();
            if let Some(overdue) = self.followers[at].owe(cut, begun) {
                self.cross(id, overdue, epoch);
            }
        }
        self.cut_before = self.cut.replace(cut);
        self.cut_rungs(cut, &sample.track, epoch);
    }

    fn ensure(&mut self, sample: &Arc<Sample>, cut: Cut, epoch: u64) {
        if self.rendition(sample.track.id).is_some() {
            return;
        }
        if self.renditions.is_empty() {
            // One that goes on from another process waits for its tracks from here on.
            self.started = self.started.max(sample.received);
        }
        self.add_rendition(sample.track.id, &sample.track, cut, epoch);
    }

    pub(super) fn add_rendition(&mut self, id: TrackId, track: &Arc<Track>, cut: Cut, epoch: u64) {
        let state = self.timeline.state();
        let constants = Constants { target_duration: state.target_duration, part_target_ms: state.part_target_ms };
        self.renditions.push(Rendition::new(id, track, constants, cut.msn, state.discontinuities, epoch));
        self.renditions.sort_by_key(|rendition| rendition.id);
    }

    fn push(&mut self, sample: &Sample, epoch: u64) -> bool {
        let Some(offset) = self.timeline.offset() else { return false };
        self.rendition_mut(sample.track.id)
            .is_some_and(|rendition| rendition.is_open() && rendition.push(sample, offset, epoch, sample.received))
    }

    pub(super) fn close_at_cut(&mut self, id: TrackId, next: Timestamp, epoch: u64) {
        if let Some(rendition) = self.rendition_mut(id) {
            rendition.tear_before(next);
        }
        self.close(id, next, epoch, self.newest);
    }

    pub(super) fn close(&mut self, id: TrackId, next: Timestamp, epoch: u64, now: Instant) {
        let Some(closed) = self.rendition_mut(id).and_then(|rendition| rendition.close(next, epoch, now)) else { return };
        if self.closed.len() < CLOSED_MAX {
            self.closed.push((id, closed));
        }
    }

    fn follow_all(&mut self, epoch: u64, losses: &mut Losses, all: bool) {
        for at in 0..self.followers.len() {
            self.follow(at, epoch, losses, all);
        }
    }

    /// Takes a follower as far as the lead allows; at a stop (`all`) as far as it goes.
    pub(super) fn follow(&mut self, at: usize, epoch: u64, losses: &mut Losses, all: bool) {
        let Some(offset) = self.timeline.offset() else { return };
        let (id, horizon) = (self.followers[at].id, self.timeline.horizon());
        let mut published = false;
        while let Some(sample) = self.followers[at].front() {
            let pts = in_presentation(sample.pts, offset);
            if pts > horizon && (!all || pts > self.timeline.open_until()) {
                // At a stop: what the lead has not come to and the open segment cannot hold is dropped with the rest.
                break;
            }
            let sample = self.followers[at].pop().expect("front was there");
            published |= id.is_picture() && self.settle_picture(at, &sample, offset, epoch);
            published |= self.reach(at, &sample, offset, epoch, losses);
            published |= self.append(at, &sample, offset, epoch, losses);
        }
        published |= self.close_overdue(at, horizon, epoch);
        if published {
            self.render(id);
        }
    }

    /// A picture ends the one before it, also where it opens the next segment.
    fn settle_picture(&mut self, at: usize, sample: &Sample, offset: Timestamp, epoch: u64) -> bool {
        let (whole, now) = (!self.followers[at].broken, self.newest);
        let rendition = self.rendition_mut(sample.track.id).filter(|rendition| whole && rendition.is_open());
        rendition.is_some_and(|rendition| *rendition.track() == sample.track && rendition.settle(sample, offset, epoch, now))
    }

    /// Applies the cuts up to a follower Sample's time.
    fn reach(&mut self, at: usize, sample: &Arc<Sample>, offset: Timestamp, epoch: u64, losses: &mut Losses) -> bool {
        let (id, pts) = (sample.track.id, in_presentation(sample.pts, offset));
        let wait_us = i64::try_from(TRACK_WAIT.as_micros()).expect("half a second fits");
        let mut reached = false;
        loop {
            let begun = self.rendition(id).is_some();
            let Some((cut, reach)) = self.followers[at].reach(sample, pts, begun, self.lengths, wait_us) else { break };
            if reach == Reach::Before {
                break;
            }
            self.followers[at].pop_cut();
            if reach == Reach::Crosses {
                reached |= self.cross(id, cut, epoch);
                continue;
            }
            self.close_at_cut(id, cut.at, epoch);
            self.ensure(sample, cut, epoch);
            reached = true;
            let behind_us = (pts - cut.at).as_micros();
            let started = Cut { wall_us: cut.wall_us + if behind_us > wait_us { 0 } else { behind_us }, ..cut };
            let first = in_presentation(sample.dts, offset);
            let rendition = self.rendition_mut(id).expect("ensured above");
            losses.unwritable += u64::from(rendition.open(started, &sample.track, first, epoch).is_err());
            self.followers[at].broken = false;
        }
        reached
    }

    fn append(&mut self, at: usize, sample: &Arc<Sample>, offset: Timestamp, epoch: u64, losses: &mut Losses) -> bool {
        let (id, broken, now) = (sample.track.id, self.followers[at].broken, self.newest);
        let Some(rendition) = self.rendition_mut(id).filter(|rendition| rendition.is_open()) else {
            losses.late += 1;
            return false;
        };
        if broken || *rendition.track() != sample.track {
            losses.undecodable += 1;
            if !broken {
                // New parameters wait for a discontinuity, on every rendition; a rung's, for its next segment.
                if !id.is_rung() && !self.followers[at].awaits_break() {
                    self.timeline.change();
                }
                self.followers[at].broken = id.is_picture();
            }
            return false;
        }
        let published = !id.is_picture() && rendition.settle(sample, offset, epoch, now);
        rendition.push(sample, offset, epoch, now) || published
    }

    /// The lead is far ahead: the follower's frames are not coming. Its segments close without.
    fn close_overdue(&mut self, at: usize, horizon: Timestamp, epoch: u64) -> bool {
        let id = self.followers[at].id;
        let mut closed = false;
        while let Some(cut) = self.followers[at].front_cut().copied() {
            let awaited = !id.is_rung() || self.is_awaited(id);
            if !awaited || !self.followers[at].is_overdue(&cut, horizon, wait_us(id)) || self.rendition(id).is_none() {
                break;
            }
            self.followers[at].pop_cut();
            closed |= self.cross(id, cut, epoch);
        }
        closed
    }

    /// Takes a follower over a cut that none of its frames has reached.
    pub(super) fn cross(&mut self, id: TrackId, cut: Cut, epoch: u64) -> bool {
        self.close_at_cut(id, cut.at, epoch);
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.id == id) {
            follower.broken = id.is_picture();
        }
        let Some(rendition) = self.rendition_mut(id) else { return false };
        let track = Arc::clone(rendition.track());
        // What went on beyond the cut, waiting for a keyframe, is in the segment before.
        let beyond_us = (rendition.end_of_media() - cut.at).as_micros().max(0);
        let at = cut.at + Timestamp::from_micros(beyond_us);
        let cut = Cut { at, wall_us: cut.wall_us + beyond_us, ..cut };
        if id.is_rung() && !rendition.is_begun() {
            rendition.open_gap(cut);
            return true;
        }
        rendition.open(cut, &track, at, epoch).is_ok()
    }

    /// The publisher is gone: what is open is closed at once, on every rendition.
    pub(super) fn leave(&mut self, epoch: u64, losses: &mut Losses) {
        for at in 0..self.followers.len() {
            self.follow(at, epoch, losses, true);
            losses.late += self.followers[at].take_samples().len() as u64;
            // Numbers have no gap, on any rendition: a cut the follower has not reached is a gap there.
            for cut in self.followers[at].take_cuts() {
                self.cross(self.followers[at].id, cut, epoch);
            }
            self.followers[at].broken = self.followers[at].id.is_picture();
        }
        let end = self.renditions.iter().map(Rendition::end_of_media).max().unwrap_or(Timestamp::ZERO);
        for id in self.ids() {
            self.close(id, end, epoch, self.newest);
        }
        self.timeline.leave(end);
        (self.cut, self.cut_before) = (None, None);
        (self.joined, self.lead_comes) = (None, false);
        self.render_all();
    }

    pub(super) fn render_all(&mut self) {
        for id in self.ids() {
            self.render(id);
        }
    }

    fn ids(&self) -> Vec<TrackId> {
        self.renditions.iter().map(|rendition| rendition.id).collect()
    }

    pub(super) fn render(&mut self, id: TrackId) {
        let reports: Vec<Report> = self.renditions.iter().filter(|r| r.id != id).filter_map(Rendition::report).collect();
        if let Some(rendition) = self.rendition_mut(id) {
            rendition.render(&reports);
        }
    }
}

/// In the Sample's own scale, so that no tick is lost.
fn in_presentation(at: Timestamp, offset: Timestamp) -> Timestamp {
    at + offset
}
