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
    rungs::{Selector, Switch, name},
    viewer::{End, Front, Taken, Viewer},
};

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
    /// The coding of the picture that the viewer chose; `None` leaves it to us.
    pub(super) wanted: watch::Sender<Option<TrackId>>,
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
        wanted: watch::channel(None).0,
        over: watch::channel(false).0,
        event_streams: Arc::new(Semaphore::new(EVENT_STREAMS_MAX)),
    });
    inner.sessions.insert(attendance.id.clone(), Arc::clone(&entry));
    inner.metrics.viewers.inc();
    let lane = entry.live.lane(TrackId::VIDEO, &inner.engine);
    let (connected, served, selector) = (false, false, Selector::new());
    tokio::spawn(
        Conn { inner, entry, attendance, connected, served, selector, aim: None, lane, next: None, after: None, end: None }.run(),
    );
}

struct Conn {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    attendance: Attendance,
    connected: bool,
    /// Something flows to it.
    served: bool,
    selector: Selector,
    /// As the engine knows it.
    aim: Option<u64>,
    /// Of the picture that it is sent.
    lane: Arc<Lane>,
    /// Of the one that it goes over to, once a keyframe of it has come; and why.
    next: Option<(Arc<Lane>, Switch)>,
    /// Of the one that has to be ready by then, so that it can be gone to.
    after: Option<(TrackId, Arc<Lane>)>,
    /// Why it will be closed, and when.
    end: Option<(End, Instant)>,
}

impl Conn {
    async fn run(mut self) {
        let (stream, viewer) = (self.stream().clone(), self.attendance.number);
        tracing::debug!(%stream, viewer, "WebRTC viewer answered");
        self.count_picture(1);
        let closed = self.serve().await;
        self.inner.sessions.remove(&self.attendance.id);
        self.count_picture(-1);
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
                    Some(Event::Frame { .. }) => {}
                    Some(Event::Switched { track }) => self.switched(track),
                    Some(Event::Bandwidth { bitrate }) => self.measured(bitrate),
                    Some(Event::Closed(reason)) => return reason,
                    None => return Closed::ByUs,
                },
                // Neither sender goes before this task does.
                _ = front.changed() => {}
                _ = wanted.changed() => {}
                () = sleep_until(self.end.map(|(_, at)| at)) => return Closed::ByUs,
                () = sleep_until(self.selector.poll_timeout(now())) => {}
            }
        }
    }

    fn connect(&mut self, peer: std::net::SocketAddr) {
        self.connected = true;
        tracing::info!(stream = %self.stream(), viewer = self.attendance.number, %peer, "WebRTC viewer connected");
    }

    /// Takes what the broadcast shows now, and what the viewer wants.
    fn look(&mut self, front: &Front, wanted: Option<TrackId>) {
        if self.end.is_none() {
            self.end = self.attendance.viewer.closes(front).map(|end| (end, now() + FAREWELL));
        }
        if !self.served && self.connected && self.attendance.viewer.is_served(front) {
            self.served = true;
            self.inner.metrics.first_frame.observe(now().saturating_duration_since(self.attendance.asked).as_secs_f64());
        }
        if self.attendance.viewer.video != Taken::Yes {
            return;
        }
        if let Some(switch) = self.selector.look(now(), front, wanted) {
            self.go(switch);
        }
        let after = self.selector.prepares();
        if after != self.after.as_ref().map(|(track, _)| *track) {
            self.after = after.map(|track| (track, self.entry.live.lane(track, &self.inner.engine)));
        }
        let aim = self.selector.aim();
        if aim != self.aim {
            self.aim = aim;
            self.entry.control.aim(aim);
        }
    }

    fn go(&mut self, switch: Switch) {
        let (from, Switch { to, reason, .. }) = (self.selector.current(), switch);
        tracing::debug!(
            stream = %self.stream(), viewer = self.attendance.number, from = name(from), rung = name(to), reason = reason.as_str(),
            "another picture is wanted"
        );
        let lane = self.entry.live.lane(to, &self.inner.engine);
        self.entry.control.select(&lane.outgoing, switch.rests);
        self.next = (to != from).then_some((lane, switch));
    }

    fn switched(&mut self, track: u64) {
        // Another may have been asked for meanwhile.
        let Some((lane, Switch { reason, .. })) = self.next.take_if(|(lane, _)| lane.outgoing.key() == track) else { return };
        self.count_picture(-1);
        self.lane = lane;
        let before = self.selector.switched();
        self.count_picture(1);
        let current = self.selector.current();
        self.inner.metrics.switched(before, current, reason);
        tracing::debug!(
            stream = %self.stream(), viewer = self.attendance.number, from = name(before), rung = name(current),
            reason = reason.as_str(), "another picture is sent"
        );
    }

    fn measured(&mut self, bitrate: u64) {
        tracing::debug!(stream = %self.stream(), viewer = self.attendance.number, bitrate, "what the way to the viewer carries");
        self.selector.estimate(bitrate);
    }

    fn count_picture(&self, viewers: i64) {
        if self.attendance.viewer.video == Taken::Yes {
            self.inner.metrics.picture(self.selector.current(), viewers);
        }
    }
}
