//! The thumbnail of one stream: it is made while somebody asks for it, and the newest is shown for as long as the stream lives.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use media_core::{
    Cursor, Stream,
    stream::{Demand, Made, Thumbnail},
};

/// It is made for so long after a request at least: a page that lists streams asks every few seconds.
const WANTED_MIN: Duration = Duration::from_secs(5);

/// As viewers see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) newest: Option<Thumbnail>,
    /// It is made now: `newest` is how the stream looks, or looked last.
    pub(super) current: bool,
}

/// Has it made.
pub(super) struct Feed {
    stream: Arc<Stream>,
    pub(super) cursor: Cursor<Thumbnail>,
    /// Kept while it is wanted.
    demand: Option<Demand>,
    wanted_until: Option<Instant>,
}

impl Feed {
    pub(super) fn new(stream: &Arc<Stream>) -> Self {
        Self { stream: Arc::clone(stream), cursor: stream.subscribe_thumbnails(), demand: None, wanted_until: None }
    }

    /// Has it made while it is asked for. False: it is not, and the newest grows old.
    pub(super) fn keep(&mut self, asked: Option<Instant>, idle: Duration, now: Instant) -> bool {
        self.wanted_until = asked.map(|last| last + idle.max(WANTED_MIN)).filter(|until| *until > now);
        if self.wanted_until.is_some() {
            self.demand.get_or_insert_with(|| self.stream.demand(Made::Thumbnail));
        } else if let Some(demand) = self.demand.take() {
            demand.finish();
        }
        self.demand.is_some()
    }

    /// When it will not be wanted any more, as it looks now.
    pub(super) fn until(&self) -> Option<Instant> {
        self.wanted_until
    }
}
