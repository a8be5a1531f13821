//! The rungs of one stream: whether they are asked for, and what is made of them on its way to the presentation.
//!
//! ```text
//! a request --Asked--> demand, kept for some time --the transcoder--> Item --take--> Sample of the rung
//! ```
//!
//! Whoever else demands the same is welcome: what is made is packaged as long as it comes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use media_core::{
    Cursor, Item, Sample, Stream, Timestamp, Track, TrackId,
    stream::{Demand, Made, Making},
};

use super::presentation::Supply;

/// A rung is wanted for so many target durations after a request at least: a player that reads whole segments asks once
/// in each, and the next request may be late.
const WANTED_TARGETS: u32 = 2;

/// Where the presentation stands.
pub(super) struct Place {
    /// The newest cut, and where what is made is to begin: each the epoch and the time of a keyframe.
    pub cut: Option<(u64, Timestamp)>,
    pub begin: Option<(u64, Timestamp)>,
    pub target_duration: u32,
    /// How long a rung is made after the last request.
    pub idle: Duration,
}

/// A rung on its way.
pub(super) struct Feed {
    id: TrackId,
    made: Made,
    stream: Arc<Stream>,
    pub cursor: Cursor<Item>,
    /// Kept while it is wanted.
    demand: Option<Demand>,
    wanted_until: Option<Instant>,
    /// The cut that was the newest when it was not wanted any more: it is made up to the next.
    ends_behind: Option<(u64, Timestamp)>,
    /// That next one: pictures from there on are of no use.
    ended: Option<Timestamp>,
    /// Of the source that what comes was made of.
    epoch: Option<u64>,
    /// The track that came last, and the rung's own of the same parameters.
    track: Option<(Arc<Track>, Arc<Track>)>,
}

impl Feed {
    /// By `TrackId::rung_number`.
    pub fn all(stream: &Arc<Stream>) -> Vec<Self> {
        let ids = (0..TrackId::RUNGS_MAX).filter_map(TrackId::rung);
        let feed = |(id, made): (TrackId, Made)| Self {
            id,
            made,
            stream: Arc::clone(stream),
            cursor: stream.subscribe_made(made),
            demand: None,
            wanted_until: None,
            ends_behind: None,
            ended: None,
            epoch: None,
            track: None,
        };
        ids.zip(std::iter::once(Made::Video).chain((1..).map(Made::Rung))).map(feed).collect()
    }

    /// It is the picture at the source's size.
    pub fn is_alike(&self) -> bool {
        self.made == Made::Video
    }

    /// Has it made while it is asked for. Answers what the presentation may count on. `always`: it is asked for now.
    pub fn keep(&mut self, asked: Option<Instant>, always: bool, place: &Place, now: Instant) -> Supply {
        let wait = place.idle.max(Duration::from_secs(place.target_duration.into()) * WANTED_TARGETS);
        let asked = if always { Some(now) } else { asked };
        self.wanted_until = asked.map(|last| last + wait).filter(|until| *until > now);
        let making = self.stream.making(self.made);
        let unavailable = matches!(making, Making::Unavailable(_));
        if self.wanted_until.is_some() {
            (self.ends_behind, self.ended) = (None, None);
            self.stream.mark_begin(self.made, place.begin);
            // Where it is not to be had, too: what is missing may be there by now.
            self.demand.get_or_insert_with(|| self.stream.demand(self.made));
        } else if self.demand.is_some() {
            self.finish(place.cut);
        }
        match making {
            _ if unavailable => Supply::Unavailable,
            Making::Running => Supply::Awaited,
            _ if self.demand.is_some() => Supply::Awaited,
            _ => Supply::Cold,
        }
    }

    /// The open segment is made to its end: a hole in it could not be told to players.
    fn finish(&mut self, cut: Option<(u64, Timestamp)>) {
        match cut {
            Some(cut) if *self.ends_behind.get_or_insert(cut) == cut => {}
            // Pictures are made in the order in which they are shown, and the last of the segment may still come.
            Some((_, next)) if *self.ended.get_or_insert(next) == next => {}
            // None came for a whole segment.
            Some(_) => self.release(),
            None => self.release(),
        }
    }

    fn release(&mut self) {
        self.ends_behind = None;
        self.stream.mark_begin(self.made, None);
        if let Some(demand) = self.demand.take() {
            demand.finish();
        }
        if self.stream.is_demanded(self.made) {
            // Others have it made: it goes on here, too.
            self.ended = None;
        }
    }

    /// When it will not be wanted any more, as it looks now.
    pub fn until(&self) -> Option<Instant> {
        self.wanted_until
    }

    /// What the presentation of the publisher with `epoch` gets of an Item.
    pub fn take(&mut self, item: &Item, epoch: Option<u64>) -> Option<Item> {
        match item {
            Item::Join { epoch, .. } => (self.epoch, self.ended) = (Some(*epoch), None),
            Item::Leave => self.epoch = None,
            Item::Sample(sample) if self.ended.is_some_and(|ended| sample.pts >= ended) => self.release(),
            Item::Sample(sample) if epoch.is_some() && epoch == self.epoch => {
                let track = self.track_of(sample);
                return Some(Item::Sample(Arc::new(Sample { track, ..Sample::clone(sample) })));
            }
            _ => {}
        }
        None
    }

    fn track_of(&mut self, sample: &Sample) -> Arc<Track> {
        if let Some((came, own)) = &self.track
            && Arc::ptr_eq(came, &sample.track)
        {
            return Arc::clone(own);
        }
        let Track { timescale, parameters, .. } = &*sample.track;
        let own = Arc::new(Track { id: self.id, timescale: *timescale, parameters: parameters.clone() });
        self.track = Some((Arc::clone(&sample.track), Arc::clone(&own)));
        own
    }
}
