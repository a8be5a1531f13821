//! The task of one viewer's session, from the answer to its end: it keeps the viewer's place in the broadcast, shows it
//! the layer that it wants, and closes it when the stream is over or no longer fits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use media_core::{StreamName, TrackId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use transport::{Closed, Control, Event, Session};

use super::{
    metrics::Outcome,
    pipeline::{Inner, Lane, Live, Seat, lock, now, sleep_until},
    viewer::{End, Front, Viewer, shown},
};

/// How long a layer is still sent after another was chosen: the new one begins at its next keyframe, which was asked for.
const SWITCH_WAIT: Duration = Duration::from_secs(10);
/// How long a session outlives its stream: the `ended` event arrives before the connection closes.
const FAREWELL: Duration = Duration::from_secs(1);
/// Event streams of one session at once: one, and the next when the network has changed.
const EVENT_STREAMS_MAX: usize = 2;

/// Sessions by their secret names; there are never more than places.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Entry>>>);

/// A session as requests about it see it.
pub(super) struct Entry {
    pub(super) control: Control,
    pub(super) viewer: Viewer,
    pub(super) live: Arc<Live>,
    /// The coding of the picture that the viewer chose.
    pub(super) wanted: watch::Sender<TrackId>,
    pub(super) over: watch::Sender<bool>,
    pub(super) event_streams: Arc<Semaphore>,
}

impl Sessions {
    pub(super) fn find(&self, stream: &str, id: &str) -> Option<Arc<Entry>> {
        let entry = lock(&self.0).get(id).cloned()?;
        (entry.live.stream.name.as_str() == stream).then_some(entry)
    }

    fn insert(&self, id: String, entry: Arc<Entry>) {
        lock(&self.0).insert(id, entry);
    }

    fn remove(&self, id: &str) {
        lock(&self.0).remove(id);
    }
}

/// A viewer whose offer was answered.
pub(super) struct Attendance {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) session: Session,
    pub(super) viewer: Viewer,
    pub(super) seat: Seat,
    pub(super) place: OwnedSemaphorePermit,
    /// When the offer came.
    pub(super) asked: Instant,
}

/// Serves the viewer in a task of its own.
pub(super) fn attend(inner: Arc<Inner>, attendance: Attendance) {
    let entry = Arc::new(Entry {
        control: attendance.session.control(),
        viewer: attendance.viewer,
        live: Arc::clone(&attendance.seat.0),
        wanted: watch::channel(TrackId::VIDEO).0,
        over: watch::channel(false).0,
        event_streams: Arc::new(Semaphore::new(EVENT_STREAMS_MAX)),
    });
    inner.sessions.insert(attendance.id.clone(), Arc::clone(&entry));
    inner.metrics.viewers.inc();
    tokio::spawn(Conn { inner, entry, attendance, connected: false, served: false, lane: None, former: None, end: None }.run());
}

struct Conn {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    attendance: Attendance,
    connected: bool,
    /// Something flows to it.
    served: bool,
    /// Of the layer that it is shown; `None` for the picture itself.
    lane: Option<(TrackId, Arc<Lane>)>,
    /// Of the layer before, until the new one's keyframe has come.
    former: Option<(Arc<Lane>, Instant)>,
    /// Why it will be closed, and when.
    end: Option<(End, Instant)>,
}

impl Conn {
    async fn run(mut self) {
        let (stream, viewer) = (self.stream().clone(), self.attendance.number);
        tracing::debug!(%stream, viewer, "WebRTC viewer answered");
        let closed = self.serve().await;
        self.inner.sessions.remove(&self.attendance.id);
        self.entry.over.send_replace(true);
        self.inner.metrics.viewers.dec();
        self.inner.metrics.session(if self.connected { Outcome::Watched } else { Outcome::NeverConnected });
        let seconds = now().saturating_duration_since(self.attendance.asked).as_secs();
        let reason = self.end.map_or_else(|| closed.to_string(), |(end, _)| end.as_str().to_owned());
        // Offers of nobody come by the thousand; their counter tells of them.
        if closed == Closed::CrowdedOut {
            tracing::debug!(%stream, viewer, seconds, reason, "WebRTC viewer left");
        } else {
            tracing::info!(%stream, viewer, seconds, reason, "WebRTC viewer left");
        }
        drop(self.attendance.place);
    }

    fn stream(&self) -> &StreamName {
        &self.attendance.seat.0.stream.name
    }

    async fn serve(&mut self) -> Closed {
        let mut front = self.entry.live.front.subscribe();
        let mut wanted = self.entry.wanted.subscribe();
        loop {
            let shows = front.borrow_and_update().clone();
            self.look(&shows, *wanted.borrow_and_update());
            tokio::select! {
                event = self.attendance.session.event() => match event {
                    Some(Event::Connected { peer }) => self.connect(peer),
                    Some(Event::Frame { .. } | Event::Switched { .. } | Event::Bandwidth { .. }) => {}
                    Some(Event::Closed(reason)) => return reason,
                    None => return Closed::ByUs,
                },
                // Neither sender goes before this task does.
                _ = front.changed() => {}
                _ = wanted.changed() => {}
                () = sleep_until(self.end.map(|(_, at)| at)) => return Closed::ByUs,
                () = sleep_until(self.former.as_ref().map(|(_, at)| *at)) => self.former = None,
            }
        }
    }

    fn connect(&mut self, peer: std::net::SocketAddr) {
        self.connected = true;
        tracing::info!(stream = %self.stream(), viewer = self.attendance.number, %peer, "WebRTC viewer connected");
    }

    /// Takes what the broadcast shows now, and what the viewer wants.
    fn look(&mut self, front: &Front, wanted: TrackId) {
        if self.end.is_none() {
            self.end = self.attendance.viewer.closes(front).map(|end| (end, now() + FAREWELL));
        }
        if !self.served && self.connected && self.attendance.viewer.is_served(front) {
            self.served = true;
            self.inner.metrics.first_frame.observe(now().saturating_duration_since(self.attendance.asked).as_secs_f64());
        }
        self.show(shown(wanted, front));
    }

    fn show(&mut self, track: TrackId) {
        let current = self.lane.as_ref().map_or(TrackId::VIDEO, |(track, _)| *track);
        if track == current {
            return;
        }
        let lane = self.entry.live.lane(track, &self.inner.engine);
        self.entry.control.select(&lane.outgoing, false);
        let former = self.lane.replace((track, lane));
        self.former = former.map(|(_, lane)| (lane, now() + SWITCH_WAIT));
    }
}
