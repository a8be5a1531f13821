//! One way through the child as the server sees it: which of the source's Items go in, and what becomes of what comes
//! back. A sound has one output; a picture may have several, which are made of one decoded source.
//!
//! Pure. `handle_item` and `handle_report` take what happened and `now`, and say what is to be sent and pushed. A lane
//! lives as long as one child makes its outputs; what must outlive a child is in `History`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use media_core::{Item, Parameters, Sample, Timescale, Timestamp, Track, TrackId, TrackKind, stream::Made};

use crate::wire::{Coded, LaneId, Order, Report, Wish};

/// Media that the child may hold unread, and for how long. Past both it is too slow, and late media is worth less than live
/// media. A publisher that sends what it kept while connecting gives more at once, and nobody is slow.
const UNREAD_MAX: Duration = Duration::from_secs(1);
/// And in bytes: as much as a reader of the stream may lag behind.
const UNREAD_BYTES_MAX: usize = media_core::fanout::LAG_BYTES_MAX;
/// And in Samples, whatever their times say.
const UNREAD_SAMPLES_MAX: usize = 512;
/// A child that has read all but so much of what was just received has caught up with the stream it began behind.
const CAUGHT_UP: Duration = Duration::from_millis(200);
/// One that has not caught up by then will not: a GOP of some seconds is made several times faster than it plays.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// A child that is fed for so long and gives nothing hangs.
const HANG: Duration = Duration::from_secs(5);
/// A child that has given something so lately works.
const ANSWERED: Duration = Duration::from_secs(1);
/// The longest pause between two looks that counts as feeding: a publisher's silence is nobody's fault.
const FEED_GAP_MAX: Duration = Duration::from_millis(500);
/// A child that died is made up for as far back: what is older costs more time to make than it is worth.
const RESUME_MAX: Duration = Duration::from_secs(2);
/// Source times remembered to tell when an output's source arrived: more than an encoder holds back, and what is unread.
const ARRIVALS_MAX: usize = UNREAD_SAMPLES_MAX + 256;

/// Whether this output can be made from this track.
pub fn feeds(made: Made, track: &Track) -> bool {
    match made {
        Made::Video | Made::Rung(_) | Made::Thumbnail => track.id == TrackId::VIDEO && track.kind() == TrackKind::Video,
        Made::Opus => track.id == TrackId::AUDIO && matches!(track.parameters, Parameters::Aac(_)),
        Made::Aac => track.id == TrackId::AUDIO && matches!(track.parameters, Parameters::Opus(_)),
    }
}

/// What readers of an output have been given, over all children that made it.
#[derive(Debug, Default)]
pub struct History {
    /// The epoch of the last `Join`, until its `Leave`.
    joined: Option<u64>,
    /// The newest Sample's epoch, its decode time, and the time at which it ends or, for a picture, is shown.
    last: Option<(u64, Timestamp, Timestamp)>,
    track: Option<Arc<Track>>,
}

impl History {
    /// Where a new child has to go on.
    pub fn after(&self, epoch: Option<u64>) -> Option<Timestamp> {
        self.last.filter(|(last, ..)| Some(*last) == epoch).map(|(_, _, end)| end)
    }

    /// Where a new child takes up what the one before left unmade of the segment before `cut`, if that is worth while.
    pub fn resumable(&self, epoch: Option<u64>, cut: Timestamp) -> Option<Timestamp> {
        self.after(epoch).filter(|after| *after < cut && (cut - *after).to_duration() <= RESUME_MAX)
    }

    /// No child makes this output any more: readers hear of a publisher that went meanwhile.
    pub fn settle(&mut self, epoch: Option<u64>) -> Option<Item> {
        (self.joined.is_some() && self.joined != epoch).then(|| {
            self.joined = None;
            Item::Leave
        })
    }
}

/// By `Made::index`.
pub type Histories = [History; Made::COUNT];

pub struct Lane {
    id: LaneId,
    /// What is made here, and the child's track of each.
    outputs: Vec<(Made, Option<Arc<Track>>)>,
    /// The lane is one of pictures, or of this sound.
    kind: Made,
    /// Of the Items that are being read; `None` while nobody publishes.
    epoch: Option<u64>,
    /// The track that the child was told last, in the run that is open.
    track: Option<Arc<Track>>,
    /// Keyframes so far apart at least are all that is read.
    keyframes_apart: Option<Duration>,
    /// Of those, the one that was read last in this run.
    read_keyframe: Option<Timestamp>,
    /// Non-keyframes are skipped: the lane begins, or something is missing before them.
    needs_keyframe: bool,
    /// The lane began with media from the past: nothing is skipped until the child has read it, or so long.
    catching_up_until: Option<Instant>,
    unread: VecDeque<Unread>,
    unread_bytes: usize,
    arrivals: VecDeque<(Timestamp, Instant)>,
    /// Epochs of the runs that the child was given and has not ended, oldest first.
    runs: VecDeque<u64>,
    /// For how long the child was fed since its last output.
    unanswered: Duration,
    looked: Instant,
    /// The server wants no more of it; the child has to say `Ended`.
    closing: bool,
}

/// A Sample that the child has and has not read.
struct Unread {
    bytes: usize,
    dts: Timestamp,
    given: Instant,
}

/// What a report asks for.
#[derive(Default)]
pub struct Verdict {
    /// For the readers of each.
    pub push: Vec<(Made, Item)>,
    pub thumbnail: Option<Bytes>,
    /// Of a Sample, from the arrival of its source; `None` where that lay in the past from the beginning.
    pub latency: Option<Duration>,
    /// The lane was closed and may go.
    pub closed: bool,
}

/// The child breaks the rules: it is not worth listening to any longer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("codecast-transcode sent {0}")]
pub struct Broken(pub &'static str);

impl Lane {
    /// Begins with the Items that follow, which are of this epoch until a `Join` says otherwise. `kind` is the sound, or one of
    /// the pictures.
    pub fn new(id: LaneId, kind: Made, epoch: Option<u64>, now: Instant) -> Self {
        Self {
            id,
            outputs: Vec::new(),
            kind,
            epoch,
            track: None,
            keyframes_apart: None,
            read_keyframe: None,
            needs_keyframe: true,
            catching_up_until: Some(now + CATCH_UP_MAX),
            unread: VecDeque::new(),
            unread_bytes: 0,
            arrivals: VecDeque::new(),
            runs: VecDeque::new(),
            unanswered: Duration::ZERO,
            looked: now,
            closing: false,
        }
    }

    /// Of the source it needs keyframes so far apart at least, and nothing else.
    pub fn only_keyframes(self, apart: Duration) -> Self {
        Self { keyframes_apart: Some(apart), ..self }
    }

    /// Makes something more, from the next Sample on.
    pub fn make(&mut self, made: Made, wish: Wish, history: &History) -> Order {
        self.outputs.push((made, None));
        let after = wish.after.or_else(|| history.after(self.epoch));
        Order::Make(self.id, made, Wish { after, ..wish })
    }

    /// Makes it no longer.
    pub fn leave(&mut self, made: Made) -> Order {
        self.outputs.retain(|(known, _)| *known != made);
        Order::Leave(self.id, made)
    }

    pub fn outputs(&self) -> impl Iterator<Item = Made> {
        self.outputs.iter().map(|(made, _)| *made)
    }

    pub fn id(&self) -> LaneId {
        self.id
    }

    /// The sound, or one of the pictures.
    pub fn kind(&self) -> Made {
        self.kind
    }

    /// Of the Items that are being read.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// It has come up with the stream.
    pub fn is_live(&self) -> bool {
        self.catching_up_until.is_none() && !self.closing && !self.runs.is_empty()
    }

    /// Whether reading the stream has to wait: only while catching up, for then everything is to be made.
    pub fn is_full(&self) -> bool {
        self.catching_up_until.is_some() && (self.unread_span() > UNREAD_MAX || self.is_loaded())
    }

    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Takes one Item of the source; appends what to send. True when a Sample was dropped. `cut`: a segment begins with it.
    pub fn handle_item(&mut self, item: &Item, cut: bool, now: Instant, orders: &mut Vec<Order>) -> bool {
        match item {
            Item::Join { epoch, .. } => {
                self.end_run(orders);
                self.epoch = Some(*epoch);
            }
            Item::Leave => {
                self.end_run(orders);
                self.epoch = None;
            }
            Item::Announce(_) => (),
            Item::Sample(sample) => return self.handle_sample(sample, cut, now, orders),
        }
        false
    }

    /// The reader of the stream has missed Items.
    pub fn handle_lag(&mut self) {
        self.needs_keyframe = true;
        self.catching_up_until = None;
    }

    /// Nothing of it is wanted any more. True when there is nothing to wait for.
    pub fn close(&mut self, orders: &mut Vec<Order>) -> bool {
        self.end_run(orders);
        self.closing = true;
        self.unanswered = Duration::ZERO;
        self.runs.is_empty()
    }

    /// Looks at the clock. True when the child was asked and has not answered for too long.
    pub fn handle_tick(&mut self, now: Instant) -> bool {
        self.look(now, self.closing || !self.unread.is_empty());
        self.unanswered > HANG
    }

    /// The child is at something.
    pub fn is_at_work(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The child makes this output now.
    pub fn is_answered(&self) -> bool {
        !self.runs.is_empty() && !self.closing && self.unanswered < ANSWERED
    }

    pub fn handle_report(&mut self, report: Report, now: Instant, histories: &mut Histories) -> Result<Verdict, Broken> {
        match report {
            Report::Consumed(_, samples) => self.handle_consumed(samples).map(|()| Verdict::default()),
            Report::Track(_, made, track) => {
                let history = &mut histories[made.index()];
                // A child that replaces another makes the same track, and readers need not hear of it.
                let track = history.track.take().filter(|known| *known == track).unwrap_or(track);
                history.track = Some(Arc::clone(&track));
                if let Some((_, known)) = self.outputs.iter_mut().find(|(known, _)| *known == made) {
                    *known = Some(track);
                }
                Ok(Verdict::default())
            }
            Report::Sample(_, made, coded) => self.handle_made(made, coded, now, &mut histories[made.index()]),
            Report::Thumbnail(_, jpeg) => {
                self.unanswered = Duration::ZERO;
                Ok(Verdict { thumbnail: Some(jpeg), ..Verdict::default() })
            }
            Report::Ended(_) => self.handle_ended(histories),
            Report::Hello { .. } | Report::Note(_) | Report::Refused(..) | Report::Shed(..) => {
                Err(Broken("what concerns no lane"))
            }
        }
    }

    fn handle_sample(&mut self, sample: &Arc<Sample>, cut: bool, now: Instant, orders: &mut Vec<Order>) -> bool {
        let Some(epoch) = self.epoch.filter(|_| feeds(self.kind, &sample.track) && !self.closing) else { return false };
        if let Some(apart) = self.keyframes_apart {
            let due = self.read_keyframe.is_none_or(|last| (sample.pts - last).to_duration() >= apart);
            if !sample.keyframe || !due {
                return false;
            }
            self.read_keyframe = Some(sample.pts);
        }
        let near = now.saturating_duration_since(sample.received) <= CAUGHT_UP && self.unread_span() <= CAUGHT_UP;
        self.catching_up_until = self.catching_up_until.filter(|until| now < *until && !near);
        self.look(now, !self.runs.is_empty());
        if self.needs_keyframe && !sample.keyframe {
            return !self.runs.is_empty();
        }
        let waited = self.unread.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.given));
        let slow = waited > UNREAD_MAX && self.unread_span() > UNREAD_MAX;
        if self.catching_up_until.is_none() && (slow || self.is_loaded()) {
            self.needs_keyframe = true;
            return true;
        }
        self.needs_keyframe = false;
        if !self.track.as_ref().is_some_and(|told| Arc::ptr_eq(told, &sample.track) || **told == *sample.track) {
            if self.track.is_none() {
                self.runs.push_back(epoch);
            }
            orders.push(Order::Track(self.id, Arc::clone(&sample.track)));
        }
        self.track = Some(Arc::clone(&sample.track));
        self.unread.push_back(Unread { bytes: sample.payload.len(), dts: sample.dts, given: now });
        self.unread_bytes += sample.payload.len();
        self.remember_arrival(sample);
        orders.push(Order::Sample(self.id, coded(sample, cut && sample.keyframe, self.catching_up_until.is_none())));
        false
    }

    fn end_run(&mut self, orders: &mut Vec<Order>) {
        if self.track.take().is_some() {
            orders.push(Order::End(self.id));
        }
        (self.needs_keyframe, self.read_keyframe) = (true, None);
    }

    /// With as much as the child is ever given.
    fn is_loaded(&self) -> bool {
        self.unread_bytes > UNREAD_BYTES_MAX || self.unread.len() >= UNREAD_SAMPLES_MAX
    }

    fn unread_span(&self) -> Duration {
        match (self.unread.front(), self.unread.back()) {
            (Some(first), Some(last)) => (last.dts - first.dts).to_duration(),
            _ => Duration::ZERO,
        }
    }

    fn look(&mut self, now: Instant, fed: bool) {
        let gap = now.saturating_duration_since(self.looked).min(FEED_GAP_MAX);
        self.looked = now;
        if fed {
            self.unanswered += gap;
        }
    }

    fn remember_arrival(&mut self, sample: &Sample) {
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((sample.pts, sample.received));
    }

    fn handle_consumed(&mut self, samples: u32) -> Result<(), Broken> {
        for _ in 0..samples {
            let Unread { bytes, .. } = self.unread.pop_front().ok_or(Broken("a receipt for more than it was given"))?;
            self.unread_bytes -= bytes;
        }
        Ok(())
    }

    fn handle_made(&mut self, made: Made, coded: Coded, now: Instant, history: &mut History) -> Result<Verdict, Broken> {
        let epoch = *self.runs.front().ok_or(Broken("a Sample though it was fed nothing"))?;
        let known = self.outputs.iter().find(|(known, _)| *known == made);
        // What is not made here any more was on its way.
        let Some((_, track)) = known else { return Ok(Verdict::default()) };
        let track = track.clone().ok_or(Broken("a Sample before its track"))?;
        if coded.pts.scale != track.timescale {
            return Err(Broken("a Sample in another timescale than its track's"));
        }
        self.unanswered = Duration::ZERO;
        // Readers have it already.
        if history.last.is_some_and(|(last, dts, _)| last == epoch && coded.dts <= dts) {
            return Ok(Verdict::default());
        }
        let received = self.arrival_of(&coded).unwrap_or(now);
        let mut push = Vec::with_capacity(1);
        if history.joined != Some(epoch) {
            history.joined = Some(epoch);
            push.push((made, Item::Join { epoch, received }));
        }
        let length = if made.is_picture() { 0 } else { i64::from(coded.duration) };
        let end = Timestamp::new(coded.pts.ticks.saturating_add(length), coded.pts.scale);
        history.last = Some((epoch, coded.dts, end));
        let latency = self.catching_up_until.is_none().then(|| now.saturating_duration_since(received));
        let sample = Sample {
            track,
            pts: coded.pts,
            dts: coded.dts,
            duration: (coded.duration > 0).then_some(coded.duration),
            keyframe: coded.keyframe,
            payload: coded.payload,
            received,
        };
        push.push((made, Item::Sample(Arc::new(sample))));
        Ok(Verdict { push, latency, ..Verdict::default() })
    }

    /// When the source of this output had arrived: of a picture, the one of the same time (to the coarser tick); of
    /// sound, the last one that begins before the output ends.
    fn arrival_of(&mut self, coded: &Coded) -> Option<Instant> {
        let end = Timestamp::new(coded.pts.ticks.saturating_add(i64::from(coded.duration)), coded.pts.scale);
        let found = if self.kind.is_picture() {
            let same = |pts: &Timestamp| pts.to(coded.pts.scale) == coded.pts || coded.pts.to(pts.scale) == *pts;
            self.arrivals.iter().position(|(pts, _)| same(pts))
        } else {
            self.arrivals.iter().rposition(|(pts, _)| *pts < end)
        }?;
        let (_, received) = self.arrivals[found];
        // B-frames arrive behind what they are shown before: keep what the encoder may still hold back.
        self.arrivals.drain(..found.saturating_sub(64));
        Some(received)
    }

    fn handle_ended(&mut self, histories: &mut Histories) -> Result<Verdict, Broken> {
        self.runs.pop_front().ok_or(Broken("the end of a run that it was not given"))?;
        self.unanswered = Duration::ZERO;
        if self.closing {
            return Ok(Verdict { closed: self.runs.is_empty(), ..Verdict::default() });
        }
        let next = self.runs.front().copied();
        let left = |made: Made| Some((made, histories[made.index()].settle(next)?));
        Ok(Verdict { push: self.outputs.iter().map(|(made, _)| *made).filter_map(left).collect(), ..Verdict::default() })
    }
}

fn coded(sample: &Sample, cut: bool, live: bool) -> Coded {
    Coded {
        pts: sample.pts,
        dts: sample.dts.to(sample.pts.scale),
        duration: sample.duration.unwrap_or(0),
        keyframe: sample.keyframe,
        cut,
        live,
        payload: sample.payload.clone(),
    }
}

/// The timescale in which outputs are made; `rate` is the sound's samples a second.
pub fn timescale(made: Made, rate: u32) -> Option<Timescale> {
    match made {
        // RTP's clock for video (RFC 6184 5.1), of which RTMP's milliseconds are whole multiples.
        Made::Video | Made::Rung(_) | Made::Thumbnail => Timescale::new(90_000),
        Made::Opus => Timescale::new(media_core::codec::opus::SAMPLE_RATE),
        Made::Aac => Timescale::new(rate),
    }
}

#[cfg(test)]
mod tests;
