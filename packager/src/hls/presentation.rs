//! One presentation: from a stream's Items to renditions that players can fetch.
//!
//! ```text
//! Probing --grid known--> Running <--Join / Leave--> Away --end()--> Ended
//! ```
//!
//! Sans-IO. The lead track (video where there is any) feeds the Timeline; sounds and further pictures wait
//! until no cut can come before their frames any more, and obey. Nothing is published of a
//! rendition beyond the newest lead Sample.

mod follower;
mod resume;
mod rungs;
mod running;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use media_core::{
    Announcement, Item, Ladder, Rung, Sample, Timestamp, Track, TrackId,
    timeline::{Cut, Grid, Hints, Place, Probe, State, Timeline},
};

use super::{
    kept::Tracks,
    multivariant::{Bandwidth, Multivariant, Offer, Shown, Source},
    playlist::{Constants, Report},
    rendition::{ClosedSegment, Rendition, playlist_uri},
};

/// How long a presentation waits for a track that was announced, before it starts without.
pub const TRACK_WAIT: Duration = Duration::from_millis(500);
/// And for the lead's first keyframe, when a publisher announced it, or comes back and its other Samples come: as long as a
/// probe waits.
const KEYFRAME_WAIT: Duration = Duration::from_millis(2500);
/// A follower's segment may stay open so much longer than the lead's: then its frames are not
/// coming, and the segment is closed without them.
const FOLLOWER_WAIT_US: i64 = 1_000_000;
/// Samples held before the grid is known: 2.5 s at 60 frames a second of 8 layers with audio, and a rest.
const QUEUE_SAMPLES_MAX: usize = 2048;
/// And their bytes: 2.5 s at 50 Mbit/s.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Longest pause of the lead that is filled with gaps: it bounds what one Sample can make us do. What follows a longer
/// one comes behind a discontinuity.
const PAUSE_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(PAUSE_MAX.as_secs() < follower::CUTS_MAX as u64);

pub use resume::Progress;
pub use rungs::{Supplies, Supply};

/// What is known before the first Sample.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Smallest TARGETDURATION, in seconds; 0 leaves it to the source.
    pub target_duration_min: u32,
    /// Configured for every stream.
    pub keyframe_interval: Option<Duration>,
    /// Of this stream, when it was last seen.
    pub remembered_interval: Option<Duration>,
    /// The last media sequence number a viewer of this name can have seen.
    pub after_msn: Option<u64>,
    /// Bits a second of a picture that is made at the source's size, where that is configured.
    pub made_bitrate: Option<u32>,
    pub ladder: Ladder,
    /// Where the publisher's pictures come too far apart for Parts, the one that leads is made of them at a constant rate.
    pub constant: bool,
}

/// What an Item asks of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// The new publisher lacks the track that leads, or what leads cannot be made: end this presentation, and start another
    /// with what `take_held` gives.
    Replace,
}

/// Counted by the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Samples before the first keyframe, or under parameters that wait for a discontinuity.
    pub undecodable: u64,
    /// Follower frames too late for their segment, or more than may wait.
    pub late: u64,
    /// Samples beyond what may wait for the grid.
    pub queue_full: u64,
    /// Segments of a GOP longer than they may be: cut without a keyframe.
    pub cuts_without_keyframe: u64,
    /// Initialization segments that could not be written.
    pub unwritable: u64,
}

pub struct Presentation {
    settings: Settings,
    epoch: u64,
    announcement: Announcement,
    probe: Probe,
    /// Samples that wait for the grid.
    queue: VecDeque<Arc<Sample>>,
    queue_bytes: usize,
    first_sample: Option<Instant>,
    sound_until: Option<Instant>,
    running: Option<Running>,
    /// By `TrackId::index`.
    bandwidths: [Bandwidth; TrackId::COUNT],
    losses: Losses,
    live: bool,
    ended: bool,
    /// It began in another process, which offered these.
    resumed: Option<Tracks>,
    supplies: Supplies,
    offer: Option<Offer>,
    /// What the offer follows from has changed since it was looked at: that is looked at with each Sample.
    offer_is_stale: bool,
    /// Renditions that could be played then.
    offered: usize,
    multivariant: Option<Arc<Multivariant>>,
}

/// What exists once the grid is known.
struct Running {
    timeline: Timeline,
    grid: Grid,
    /// What followers are held to.
    lengths: follower::Lengths,
    lead: TrackId,
    started: Instant,
    /// When the newest Sample came, and the lead's.
    newest: Instant,
    lead_heard: Instant,
    renditions: Vec<Rendition>,
    /// The tracks beside the lead, until no cut can come before their Samples.
    followers: Vec<follower::Follower>,
    /// Where the lead's open segment began.
    cut: Option<Cut>,
    /// And the one before it, of this publisher.
    cut_before: Option<Cut>,
    /// Up to here the sound was published when the picture took the lead.
    followed_until: Timestamp,
    /// When this publisher's first Sample came, until its first cut.
    joined: Option<Instant>,
    /// This publisher sends the lead track, and no keyframe of it yet.
    lead_comes: bool,
    /// Segments closed since the presentation looked.
    closed: Vec<(TrackId, ClosedSegment)>,
    /// All that can be made of the picture.
    rungs: Arc<[Rung]>,
    supplies: Supplies,
    /// Bits a second, as the publisher says.
    announced: Option<u64>,
    /// Of keyframes since the presentation looked, whether a segment begins there.
    decided: Vec<(Timestamp, bool)>,
    /// Where what is made leads: its track as it came last, and as that of the picture.
    made_lead: Option<(Arc<Track>, Arc<Track>)>,
}

impl Presentation {
    pub fn new(settings: Settings) -> Self {
        let announcement = Announcement::default();
        let probe = Probe::new(hints(&settings, &announcement));
        Self {
            settings,
            epoch: 0,
            announcement,
            probe,
            queue: VecDeque::new(),
            queue_bytes: 0,
            first_sample: None,
            sound_until: None,
            running: None,
            bandwidths: Default::default(),
            losses: Losses::default(),
            live: false,
            ended: false,
            resumed: None,
            supplies: Supplies::default(),
            offer: None,
            offer_is_stale: true,
            offered: 0,
            multivariant: None,
        }
    }

    /// `wall` is the time of day at which the Item is handled; for PROGRAM-DATE-TIME only.
    pub fn handle(&mut self, item: &Item, wall: SystemTime) -> Verdict {
        match item {
            _ if self.ended => {}
            Item::Join { epoch, .. } => self.join(*epoch),
            Item::Announce(announcement) => self.announce(announcement),
            Item::Sample(sample) => return self.sample(sample, wall),
            Item::Leave => self.leave(),
        }
        Verdict::Fine
    }

    /// The multivariant playlist may be due, though nothing arrives.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.update_offer(now);
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        (self.multivariant.is_none() && running.lead_is_playable()).then(|| self.wait_until(running))
    }

    /// The sound is coming, until then at the latest: who starts before would play without.
    pub fn expect_sound(&mut self, until: Instant) {
        self.sound_until = Some(until);
    }

    /// ENDLIST: nothing follows, and nothing ever will.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.leave();
        if let Some(running) = &mut self.running {
            running.renditions.iter_mut().for_each(Rendition::end);
            running.render_all();
        }
    }

    /// Of the publisher whose Samples come, or came last.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn renditions(&mut self) -> &mut [Rendition] {
        self.running.as_mut().map_or(&mut [], |running| &mut running.renditions)
    }

    /// There once a player can start.
    pub fn multivariant(&self) -> Option<&Arc<Multivariant>> {
        self.multivariant.as_ref()
    }

    pub fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    pub fn timeline(&self) -> Option<&State> {
        self.running.as_ref().map(|running| running.timeline.state())
    }

    /// What was found out of the source; never changes.
    pub fn grid(&self) -> Option<&Grid> {
        self.running.as_ref().map(|running| &running.grid)
    }

    /// The picture alike leads, made at a constant rate while somebody publishes.
    pub fn needs_picture_made(&self) -> bool {
        self.live && self.grid().is_some_and(|grid| grid.constant)
    }

    /// All that can be made of the picture, once the grid is known.
    pub fn rungs(&self) -> Option<&Arc<[Rung]>> {
        self.running.as_ref().map(|running| &running.rungs)
    }

    /// The last of the ladder that is offered, by `TrackId::rung_number`.
    pub fn cheapest_rung(&self) -> Option<usize> {
        let offered = self.running.as_ref()?.offered_rungs().filter(|rung| !rung.is_alike());
        offered.last()?.id.rung_number()
    }

    /// Of keyframes since the last call, by the publisher's own clock: whether a segment begins there.
    pub fn take_decided(&mut self) -> Vec<(Timestamp, bool)> {
        self.running.as_mut().map(|running| std::mem::take(&mut running.decided)).unwrap_or_default()
    }

    pub fn losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Samples of the present publisher that were held: for the presentation that replaces this one.
    pub fn take_held(&mut self) -> Vec<Item> {
        let held = self.running.as_mut().map(Running::take_held).unwrap_or_default();
        let mut items = vec![Item::Announce(self.announcement.clone())];
        items.extend(held.into_iter().map(Item::Sample));
        items
    }

    fn join(&mut self, epoch: u64) {
        if self.live {
            self.leave();
        }
        self.epoch = epoch;
        self.live = true;
        self.announcement = Announcement::default();
        self.first_sample = None;
        self.queue.clear();
        self.queue_bytes = 0;
        match &mut self.running {
            Some(running) => running.join(epoch),
            None => self.probe = Probe::new(hints(&self.settings, &self.announcement)),
        }
    }

    /// Metadata and sequence headers each tell a part: what one announced, another does not take back.
    fn announce(&mut self, announcement: &Announcement) {
        let known = &mut self.announcement;
        known.video |= announcement.video;
        known.audio |= announcement.audio;
        known.frame_rate = announcement.frame_rate.or(known.frame_rate);
        known.bitrate = announcement.bitrate.or(known.bitrate);
        if let Some(running) = &mut self.running {
            running.announced = known.bitrate;
        }
        known.keyframes_asked = announcement.keyframes_asked.or(known.keyframes_asked);
        self.offer_is_stale = true;
        // Whoever has several tells of all of them each time.
        known.layers.clone_from(&announcement.layers);
        known.sounds.clone_from(&announcement.sounds);
        if self.running.is_none() && self.first_sample.is_none() {
            self.probe = Probe::new(hints(&self.settings, known));
        }
    }

    fn sample(&mut self, sample: &Arc<Sample>, wall: SystemTime) -> Verdict {
        let verdict = match &mut self.running {
            Some(running) => running.sample(sample, self.epoch, wall, &mut self.losses),
            None => {
                self.probe(sample, wall);
                Verdict::Fine
            }
        };
        self.observe_closed();
        self.update_offer(sample.received);
        verdict
    }

    fn probe(&mut self, sample: &Arc<Sample>, wall: SystemTime) {
        if sample.track.id.is_rung() {
            return;
        }
        if self.queue.len() >= QUEUE_SAMPLES_MAX || self.queue_bytes >= QUEUE_BYTES_MAX {
            self.losses.queue_full += 1;
            return;
        }
        let first = *self.first_sample.get_or_insert(sample.received);
        self.queue_bytes += sample.payload.len();
        self.queue.push_back(Arc::clone(sample));
        // A publisher of several layers is heard before it is known which of them is the picture.
        let wait = if self.announcement.video { KEYFRAME_WAIT } else { TRACK_WAIT };
        let has_video = self.queue.iter().any(|s| s.track.id == TrackId::VIDEO && s.keyframe);
        if sample.track.id == TrackId::AUDIO {
            self.probe.hear(sample);
        }
        let lead = match sample.track.id {
            TrackId::VIDEO => TrackId::VIDEO,
            // Video may still come; until then there is nothing to decide.
            TrackId::AUDIO if !has_video && sample.received - first >= wait => TrackId::AUDIO,
            _ => return,
        };
        let known = self.probe.push(sample);
        let constant = self.probe.constant_grid(known.as_ref()).filter(|_| self.settings.constant);
        if constant.is_some() {
            self.queue.retain(|sample| !sample.track.id.is_picture());
        }
        if let Some(grid) = constant.or(known) {
            self.start(lead, grid, sample.received, wall);
        }
    }

    fn start(&mut self, lead: TrackId, grid: Grid, now: Instant, wall: SystemTime) {
        let queue = std::mem::take(&mut self.queue);
        self.queue_bytes = 0;
        let mut timeline = Timeline::new(State::new(&grid, wall, self.settings.after_msn));
        timeline.join(self.epoch);
        let mut running = Running::new(timeline, grid, &self.settings.ladder, lead, now);
        (running.supplies, running.announced) = (self.supplies, self.announcement.bitrate);
        // What is to be made is asked for only now.
        running.joined = grid.constant.then_some(now);
        let arrived = |sample: &Sample| wall - now.saturating_duration_since(sample.received);
        let first = queue.iter().position(|sample| sample.track.id == lead && sample.keyframe).unwrap_or(0);
        // PROGRAM-DATE-TIME begins with the least late of what is queued: that tells best when the first of it was made.
        let made = |sample: &Arc<Sample>| {
            let into_us = (sample.dts - queue[first].dts).as_micros();
            arrived(sample) - Duration::from_micros(u64::try_from(into_us).unwrap_or(0))
        };
        let begun = queue.range(first..).filter(|sample| sample.track.id == lead).map(made).min().unwrap_or(wall);
        for (n, sample) in queue.iter().enumerate() {
            running.sample(sample, self.epoch, if n == first { begun } else { arrived(sample) }, &mut self.losses);
        }
        self.running = Some(running);
    }

    fn leave(&mut self) {
        self.live = false;
        self.queue.clear();
        self.queue_bytes = 0;
        let Some(running) = &mut self.running else { return };
        running.leave(self.epoch, &mut self.losses);
        self.observe_closed();
    }

    fn observe_closed(&mut self) {
        for (id, closed) in self.running.as_mut().map(Running::take_closed).unwrap_or_default() {
            self.offer_is_stale = true;
            // A gap is no measure of what the rest costs.
            if closed.bytes > 0 {
                self.bandwidths[id.index()].observe(closed.bytes, closed.duration_us);
            }
        }
    }

    /// Renders the multivariant playlist when it is due, and anew when it says something else.
    fn update_offer(&mut self, now: Instant) {
        let Some(running) = &self.running else { return };
        let first = self.multivariant.is_none();
        if !running.lead_is_playable() || (first && self.waits_for_a_track(running, now)) {
            return;
        }
        let playable = running.renditions.iter().filter(|rendition| rendition.is_playable()).count();
        let as_many = std::mem::replace(&mut self.offered, playable) == playable;
        if !std::mem::take(&mut self.offer_is_stale) && as_many {
            return;
        }
        let shown = |r: &Rendition| Shown {
            uri: playlist_uri(r.id),
            track: Arc::clone(r.track()),
            bandwidth: self.bandwidths[r.id.index()].clone(),
            apart: self.announcement.layers.iter().any(|layer| layer.track == r.id && layer.apart),
        };
        let own = |r: &&Rendition| r.is_playable() && !r.id.is_rung();
        let shown: Vec<_> = running.renditions.iter().filter(own).map(shown).collect();
        let mut offer = Offer::new(&shown, self.announcement.bitrate, running.grid.frame_rate, running.grid.independent_segments);
        let main = &self.bandwidths[TrackId::VIDEO.index()];
        let sounds = TrackId::ALL.into_iter().filter(|id| !id.is_picture()).map(|id| &self.bandwidths[id.index()]);
        let sound = sounds.max_by_key(|sound| sound.peak()).expect("there is a place for the main one");
        let source = Source { main, sound, announced: self.announcement.bitrate };
        for rung in running.offered_rungs() {
            let target_duration = running.grid.target_duration;
            let configured = self.settings.made_bitrate.filter(|_| rung.is_alike());
            let cost = source.cost_of_rung(&rung, &self.bandwidths[rung.id.index()], configured, target_duration);
            offer.add_rung(playlist_uri(rung.id), &rung, cost);
        }
        // An average that moves is no reason to tell players anything.
        if !self.offer.as_ref().is_some_and(|known| known.says_the_same(&offer)) {
            self.multivariant = Some(Arc::new(offer.render()));
            self.offer = Some(offer);
        }
    }

    fn waits_for_a_track(&self, running: &Running, now: Instant) -> bool {
        let missing = |id: TrackId, announced: bool| announced && !running.is_playable(id);
        let missing = missing(TrackId::VIDEO, self.announcement.video)
            || missing(TrackId::AUDIO, self.announcement.audio || self.sound_until.is_some())
            || self.announcement.sounds.iter().any(|id| missing(*id, true))
            || running.waits_for_a_further_track();
        missing && now < self.wait_until(running)
    }

    fn wait_until(&self, running: &Running) -> Instant {
        let until = running.started + TRACK_WAIT;
        self.sound_until.map_or(until, |sound| until.max(sound + TRACK_WAIT))
    }
}

fn hints(settings: &Settings, announcement: &Announcement) -> Hints {
    Hints {
        keyframe_interval: settings.keyframe_interval,
        asked_interval: announcement.keyframes_asked,
        remembered_interval: settings.remembered_interval,
        frame_rate: announcement.frame_rate,
        target_duration_min: settings.target_duration_min,
    }
}

#[cfg(test)]
mod tests;
