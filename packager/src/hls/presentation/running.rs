//! The part of a presentation that exists once its grid is known: who leads, who follows.

use super::*;

/// Closed lead segments not yet reported: one Sample closes one, a replay of the queue a few.
const CLOSED_MAX: usize = 64;

impl Running {
    pub(super) fn new(timeline: Timeline, grid: Grid, lead: TrackKind, started: Instant) -> Self {
        Self {
            timeline,
            grid,
            lead,
            started,
            newest: started,
            renditions: Vec::with_capacity(2),
            followers: VecDeque::new(),
            cuts: VecDeque::new(),
            follower_bytes: 0,
            joined: None,
            lead_comes: false,
            closed: Vec::new(),
        }
    }

    pub(super) fn rendition(&self, kind: TrackKind) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.kind == kind)
    }

    fn rendition_mut(&mut self, kind: TrackKind) -> Option<&mut Rendition> {
        self.renditions.iter_mut().find(|rendition| rendition.kind == kind)
    }

    fn follower(&self) -> TrackKind {
        match self.lead {
            TrackKind::Video => TrackKind::Audio,
            TrackKind::Audio => TrackKind::Video,
        }
    }

    pub(super) fn lead_is_playable(&self) -> bool {
        self.rendition(self.lead).is_some_and(Rendition::is_playable)
    }

    pub(super) fn take_closed(&mut self) -> Vec<ClosedSegment> {
        std::mem::take(&mut self.closed)
    }

    pub(super) fn sample(&mut self, sample: &Arc<Sample>, epoch: u64, wall: SystemTime, losses: &mut Losses) -> Verdict {
        self.newest = sample.received;
        let kind = sample.track.kind();
        if kind == TrackKind::Video && self.lead == TrackKind::Audio {
            return self.late_video(sample, epoch, wall, losses);
        }
        if kind == self.lead {
            self.lead_sample(sample, epoch, wall, losses);
            self.follow(epoch, losses, false);
            return Verdict::Fine;
        }
        if self.followers.len() >= FOLLOWERS_MAX {
            self.followers.pop_front();
            losses.late += 1;
        }
        self.followers.push_back(Arc::clone(sample));
        self.follow(epoch, losses, false);
        // A publisher that came back without the track that led.
        let joined = *self.joined.get_or_insert(sample.received);
        let wait = if self.lead_comes { KEYFRAME_WAIT } else { TRACK_WAIT };
        let alone = self.timeline.offset().is_none() && sample.received - joined >= wait;
        if alone { Verdict::Replace } else { Verdict::Fine }
    }

    /// Video that comes to a presentation of audio leads it from its first keyframe on.
    fn late_video(&mut self, sample: &Arc<Sample>, epoch: u64, wall: SystemTime, losses: &mut Losses) -> Verdict {
        if !sample.keyframe || self.timeline.offset().is_none() {
            losses.undecodable += 1;
            return Verdict::Fine;
        }
        self.timeline.change_lead();
        self.lead = TrackKind::Video;
        self.cuts.clear();
        self.lead_sample(sample, epoch, wall, losses);
        self.follow(epoch, losses, false);
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
        match self.timeline.push(sample, border, wall) {
            Place::Drop => {
                self.lead_comes = true;
                losses.undecodable += 1;
            }
            Place::Continue => published |= self.push(lead, sample, epoch),
            Place::Open(cut) => {
                losses.cuts_without_keyframe += u64::from(!cut.independent);
                self.joined = None;
                self.open_lead(cut, sample, epoch, losses);
                self.push(lead, sample, epoch);
                // A closed segment is news as well: a player may wait for it whole.
                published = true;
            }
        }
        if published {
            self.render(lead);
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
        self.ensure(lead, sample, cut, epoch);
        let offset = self.timeline.offset().unwrap_or(Timestamp::ZERO);
        let first = in_presentation(sample.dts, offset);
        let rendition = self.rendition_mut(lead).expect("ensured above");
        losses.unwritable += u64::from(rendition.open(cut, &sample.track, first, epoch).is_err());
        if self.rendition(self.follower()).is_none() {
            // Without a follower only the newest cut matters: one that comes later starts there.
            self.cuts.clear();
        } else if self.cuts.len() >= CUTS_MAX
            && let Some(oldest) = self.cuts.pop_front()
        {
            // Numbers have no gap: what the follower is not going to reach is crossed.
            self.cross(self.follower(), oldest, epoch);
        }
        self.cuts.push_back(cut);
    }

    fn ensure(&mut self, kind: TrackKind, sample: &Arc<Sample>, cut: Cut, epoch: u64) {
        if self.rendition(kind).is_some() {
            return;
        }
        let state = self.timeline.state();
        let constants = Constants { target_duration: state.target_duration, part_target_ms: state.part_target_ms };
        self.renditions.push(Rendition::new(&sample.track, constants, cut.msn, state.discontinuities, epoch));
        self.renditions.sort_by_key(|rendition| rendition.kind);
    }

    fn push(&mut self, kind: TrackKind, sample: &Sample, epoch: u64) -> bool {
        let Some(offset) = self.timeline.offset() else { return false };
        self.rendition_mut(kind)
            .is_some_and(|rendition| rendition.is_open() && rendition.push(sample, offset, epoch, sample.received))
    }

    /// Closes a rendition's open segment; the lead's is reported, with the follower's bytes.
    fn close(&mut self, kind: TrackKind, next: Timestamp, epoch: u64, now: Instant) {
        let Some(closed) = self.rendition_mut(kind).and_then(|rendition| rendition.close(next, epoch, now)) else { return };
        if kind != self.lead {
            self.follower_bytes += closed.bytes;
        } else if self.closed.len() < CLOSED_MAX {
            let bytes = closed.bytes + std::mem::take(&mut self.follower_bytes);
            self.closed.push(ClosedSegment { bytes, ..closed });
        }
    }

    /// Takes the follower as far as the lead allows; at a stop (`all`) as far as it goes.
    fn follow(&mut self, epoch: u64, losses: &mut Losses, all: bool) {
        let Some(offset) = self.timeline.offset() else { return };
        let (kind, horizon, now) = (self.follower(), self.timeline.horizon(), self.newest);
        let mut published = false;
        while let Some(sample) = self.followers.front() {
            let pts = in_presentation(sample.pts, offset);
            if pts > horizon && (!all || pts > self.timeline.open_until()) {
                // At a stop: what the lead has not come to and the open segment cannot hold is dropped with the rest.
                break;
            }
            let sample = self.followers.pop_front().expect("front was there");
            published |= self.reach(kind, &sample, pts, epoch, losses);
            let Some(rendition) = self.rendition_mut(kind).filter(|rendition| rendition.is_open()) else {
                losses.late += 1;
                continue;
            };
            if *rendition.track() != sample.track {
                // New parameters wait for a discontinuity, on every rendition.
                losses.undecodable += 1;
                self.timeline.change();
                continue;
            }
            published |= rendition.settle(&sample, offset, epoch, now);
            published |= rendition.push(&sample, offset, epoch, now);
        }
        published |= self.close_overdue(kind, horizon, epoch);
        if published {
            self.render(kind);
        }
    }

    /// Applies the cuts up to a follower Sample's time.
    fn reach(&mut self, kind: TrackKind, sample: &Arc<Sample>, pts: Timestamp, epoch: u64, losses: &mut Losses) -> bool {
        let mut reached = false;
        while self.cuts.front().is_some_and(|cut| cut.at <= pts) {
            let cut = self.cuts.pop_front().expect("front was there");
            if self.cuts.front().is_some_and(|next| next.at <= pts) && self.rendition(kind).is_none() {
                continue;
            }
            // A track that comes in the middle of a segment starts with the next.
            let late = pts - cut.at > Timestamp::from_millis(TRACK_WAIT.as_millis() as i64);
            if late && self.rendition(kind).is_none() {
                continue;
            }
            self.close(kind, cut.at, epoch, self.newest);
            self.ensure(kind, sample, cut, epoch);
            reached = true;
            let started = Cut { wall_us: cut.wall_us + if late { 0 } else { (pts - cut.at).as_micros() }, ..cut };
            let rendition = self.rendition_mut(kind).expect("ensured above");
            losses.unwritable += u64::from(rendition.open(started, &sample.track, pts, epoch).is_err());
        }
        reached
    }

    /// The lead is far ahead: the follower's frames are not coming. Its segments close without.
    fn close_overdue(&mut self, kind: TrackKind, horizon: Timestamp, epoch: u64) -> bool {
        let mut closed = false;
        while let Some(&cut) = self.cuts.front() {
            let overdue = (horizon - cut.at).as_micros() > FOLLOWER_WAIT_US;
            if !overdue || self.rendition(kind).is_none() {
                break;
            }
            self.cuts.pop_front();
            closed |= self.cross(kind, cut, epoch);
        }
        closed
    }

    /// Takes a follower over a cut that none of its frames has reached.
    fn cross(&mut self, kind: TrackKind, cut: Cut, epoch: u64) -> bool {
        self.close(kind, cut.at, epoch, self.newest);
        let Some(rendition) = self.rendition_mut(kind) else { return false };
        let track = Arc::clone(rendition.track());
        rendition.open(cut, &track, cut.at, epoch).is_ok()
    }

    /// The publisher is gone: what is open is closed at once, on every rendition.
    pub(super) fn leave(&mut self, epoch: u64, losses: &mut Losses) {
        self.follow(epoch, losses, true);
        losses.late += self.followers.len() as u64;
        self.followers.clear();
        // Numbers have no gap, on any rendition: a cut the follower has not reached is a gap there.
        for cut in std::mem::take(&mut self.cuts) {
            self.cross(self.follower(), cut, epoch);
        }
        let end = self.renditions.iter().map(Rendition::end_of_media).max().unwrap_or(Timestamp::ZERO);
        for kind in [self.follower(), self.lead] {
            self.close(kind, end, epoch, self.newest);
        }
        self.timeline.leave(end);
        (self.joined, self.lead_comes) = (None, false);
        self.render_all();
    }

    pub(super) fn render_all(&mut self) {
        for kind in [self.lead, self.follower()] {
            self.render(kind);
        }
    }

    fn render(&mut self, kind: TrackKind) {
        let reports: Vec<Report> = self.renditions.iter().filter(|r| r.kind != kind).filter_map(Rendition::report).collect();
        if let Some(rendition) = self.rendition_mut(kind) {
            rendition.render(&reports);
        }
    }
}

/// In the Sample's own scale, so that no tick is lost.
fn in_presentation(at: Timestamp, offset: Timestamp) -> Timestamp {
    at + offset
}
