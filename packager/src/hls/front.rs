//! What a stream shows to those who serve it: whether it is live, what it offers, and its renditions.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use media_core::{StreamName, TrackId, advice::Advice};
use tokio::sync::{Notify, watch};

use super::{
    kept::{Kept, Tracks},
    multivariant::{Multivariant, Offer},
    playlist::Rendered,
    rendition::SharedShelf,
    thumbnail::Shown as ShownThumbnail,
};

/// A request so soon after another of the same rung is no news: they come with every Part of every viewer.
const NEWS_EVERY: Duration = Duration::from_millis(250);

/// Behind the rungs, of what viewers ask for.
pub(super) const THUMBNAIL: usize = TrackId::RUNGS_MAX as usize;

/// What a stream shows to viewers.
pub(super) struct Live {
    pub(super) name: StreamName,
    pub(super) front: watch::Sender<Front>,
    /// What its streamer could set better.
    pub(super) advice: watch::Sender<Arc<[Advice]>>,
    pub(super) asked: Asked,
    pub(super) thumbnail: watch::Sender<ShownThumbnail>,
    /// What an earlier process has kept of it, until its publisher is back.
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A publisher sends.
    Live,
    /// It is gone, and may come back to the same presentation.
    Away,
    /// The presentation is over.
    Offline,
}

#[derive(Clone)]
pub(super) struct Front {
    pub(super) state: State,
    /// When the state began.
    pub(super) since: SystemTime,
    /// Names the presentation: another number, another presentation.
    pub(super) presentation: u64,
    pub(super) target_duration: u32,
    pub(super) part_target: Duration,
    /// It began in an earlier process, which offered these: they are coming back.
    pub(super) resumed: Option<Tracks>,
    pub(super) multivariant: Option<Arc<Multivariant>>,
    pub(super) offer: Option<Offer>,
    /// The cheapest rung, where it is to be made while anybody follows the source.
    pub(super) rescue: Option<usize>,
    /// By `TrackId::index`.
    pub(super) shown: [Option<Arc<Shown>>; TrackId::COUNT],
}

/// A rendition as it is served.
pub(super) struct Shown {
    pub(super) rendered: watch::Sender<Arc<Rendered>>,
    pub(super) shelf: SharedShelf,
}

/// When viewers last asked for each rung, and the thumbnail; shared by those who serve them and the one who has it made.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// By `TrackId::rung_number`, or `THUMBNAIL`.
    last: Mutex<[Option<Instant>; THUMBNAIL + 1]>,
    news: Notify,
}

impl Asked {
    pub(super) fn ask(&self, what: usize, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last[what].is_some_and(|last| now.saturating_duration_since(last) < NEWS_EVERY);
        if !known {
            last[what] = Some(now);
            drop(last);
            self.news.notify_one();
        }
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn last(&self, what: usize) -> Option<Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)[what]
    }
}

impl Live {
    pub(super) fn new(name: StreamName, front: Front, kept: Option<Kept>) -> Self {
        let (front, advice) = (watch::channel(front).0, watch::channel(Arc::default()).0);
        let thumbnail = watch::Sender::default();
        Self { name, front, advice, asked: Asked::default(), thumbnail, kept: Mutex::new(kept) }
    }

    pub(super) fn set_state(&self, state: State) {
        self.front.send_if_modified(|front| {
            let changed = front.state != state;
            if changed {
                (front.state, front.since) = (state, SystemTime::now());
            }
            changed
        });
    }

    pub(super) fn take_kept(&self) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Front {
    pub(super) fn new(state: State, since: SystemTime) -> Self {
        Self {
            state,
            since,
            presentation: 0,
            target_duration: 2,
            part_target: Duration::from_millis(200),
            resumed: None,
            multivariant: None,
            offer: None,
            rescue: None,
            shown: Default::default(),
        }
    }

    /// Of an earlier process, until its publisher is back.
    pub(super) fn away(kept: &Kept) -> Self {
        let (presentation, target_duration) = (kept.presentation, kept.state.target_duration);
        Self { presentation, target_duration, resumed: Some(kept.tracks), ..Self::new(State::Away, kept.kept_at()) }
    }

    pub(super) fn shown(&self, id: TrackId) -> Option<&Arc<Shown>> {
        self.shown[id.index()].as_ref()
    }

    /// The stream was cut off by the end of an earlier process, and nothing of it is here yet.
    pub(super) fn is_coming_back(&self) -> bool {
        self.resumed.is_some() && self.multivariant.is_none() && self.state != State::Offline
    }
}
