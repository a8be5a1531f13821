//! The task of one watched stream: it reads the windows, keeps what must be made in demand, and gives each frame to
//! all viewers at once. It starts with the first viewer and ends some time after the last one.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicU64},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use media_core::{
    Cursor, Item, Registry, Rung, Stream, StreamName, TrackId,
    fanout::Next,
    stream::{Demand, Made, Making},
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
    time::MissedTickBehavior,
};
use transport::{
    Engine, OutFrame, Outgoing,
    resource::{IceServer, Reach},
};

use super::{
    broadcast::{Broadcast, Tracks},
    conn::Sessions,
    layers,
    metrics::Metrics,
    packets::Packets,
    rungs::{self, Candidate, candidates},
    viewer::{End, Front},
};

/// Items read from a window at once: a GOP, when the first viewer comes.
const BATCH: usize = 256;
/// How long a broadcast goes on without a viewer: one that reloads its page finds everything ready.
const LINGER: Duration = Duration::from_secs(10);
/// How often slow things are looked at: what can be made, which layers pause.
const TICK: Duration = Duration::from_millis(500);
/// How long `drain` waits for viewers to be told.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Its texts go into headers: visible ASCII, as the configuration's reader makes sure.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sessions at once.
    pub viewers_max: usize,
    /// Told to viewers in `Link` headers.
    pub ice_servers: Vec<IceServer>,
    /// Where viewers reach this server, for the addresses of sessions.
    pub reach: Reach,
    /// The cheapest rung is made while anybody watches: who falls back finds it there.
    pub rescue: bool,
}

/// Sends every watched stream to its viewers.
#[derive(Clone)]
pub struct Whep(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) registry: Weak<Registry>,
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) sessions: Sessions,
    pub(super) places: Arc<Semaphore>,
    pub(super) draining: watch::Sender<bool>,
    /// Numbers of viewers, for the log: a session's address is its viewer's secret.
    pub(super) viewers: AtomicU64,
    broadcasts: Mutex<HashMap<StreamName, Arc<Live>>>,
}

/// A broadcast as its viewers see it.
pub(super) struct Live {
    pub(super) stream: Arc<Stream>,
    pub(super) front: watch::Sender<Front>,
    lanes: Mutex<Lanes>,
    /// There is another lane: what it shows may have to be made.
    opened: Notify,
    seats: watch::Sender<usize>,
}

type Lanes = [Option<Arc<Lane>>; TrackId::COUNT];

/// A track on its way to viewers.
pub(super) struct Lane {
    pub(super) outgoing: Arc<Outgoing>,
    wishes: AbortHandle,
}

/// A viewer's place in a broadcast.
pub(super) struct Seat(pub(super) Arc<Live>);

impl Whep {
    /// Errors only when a metric's name is registered twice.
    pub fn new(
        engine: Engine,
        registry: Weak<Registry>,
        config: Config,
        metrics: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self(Arc::new(Inner {
            engine,
            registry,
            metrics: Metrics::new(metrics)?,
            sessions: Sessions::default(),
            places: Arc::new(Semaphore::new(config.viewers_max.min(Semaphore::MAX_PERMITS))),
            draining: watch::channel(false).0,
            viewers: AtomicU64::new(0),
            broadcasts: Mutex::default(),
            config,
        })))
    }

    /// Tells every viewer that the server stops, and closes their sessions. Returns when that is done.
    pub async fn drain(&self) {
        self.0.draining.send_replace(true);
        let all = u32::try_from(self.0.config.viewers_max).unwrap_or(u32::MAX);
        // Every place is free when every session is over.
        if tokio::time::timeout(DRAIN_WAIT, self.0.places.acquire_many(all)).await.is_err() {
            tracing::warn!("some WHEP viewers were not told in time that the server stops");
        }
    }
}

impl Inner {
    /// A place in the broadcast of the stream, which starts if nobody watched.
    pub(super) fn attend(self: &Arc<Self>, stream: &Arc<Stream>) -> Seat {
        let mut broadcasts = lock(&self.broadcasts);
        let known = broadcasts.get(&stream.name).filter(|live| Arc::ptr_eq(&live.stream, stream)).cloned();
        let live = known.unwrap_or_else(|| {
            let live = Arc::new(Live::new(Arc::clone(stream), &self.engine));
            broadcasts.insert(stream.name.clone(), Arc::clone(&live));
            tokio::spawn(Task::new(Arc::clone(self), Arc::clone(&live)).run());
            live
        });
        live.seats.send_modify(|seats| *seats += 1);
        Seat(live)
    }

    /// False when a viewer came in this very moment.
    fn close_unless_watched(&self, live: &Arc<Live>) -> bool {
        let mut broadcasts = lock(&self.broadcasts);
        let empty = *live.seats.borrow() == 0;
        if empty {
            remove(&mut broadcasts, live);
        }
        empty
    }
}

/// The name may belong to a later stream already.
fn remove(broadcasts: &mut HashMap<StreamName, Arc<Live>>, live: &Arc<Live>) {
    if broadcasts.get(&live.stream.name).is_some_and(|known| Arc::ptr_eq(known, live)) {
        broadcasts.remove(&live.stream.name);
    }
}

impl Live {
    fn new(stream: Arc<Stream>, engine: &Engine) -> Self {
        let live = Self {
            stream,
            front: watch::channel(Front::default()).0,
            lanes: Mutex::default(),
            opened: Notify::new(),
            seats: watch::channel(0).0,
        };
        // Both are there from the start, so that their history is.
        live.lane(TrackId::VIDEO, engine);
        live.lane(TrackId::AUDIO, engine);
        live
    }

    /// The lane of a track; that of a layer or a rung starts when the first viewer goes there.
    pub(super) fn lane(&self, track: TrackId, engine: &Engine) -> Arc<Lane> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes[track.index()].get_or_insert_with(|| {
            self.opened.notify_one();
            Arc::new(Lane::new(&self.stream, track, engine))
        });
        Arc::clone(lane)
    }

    fn open_lanes(&self) -> Tracks {
        let lanes = lock(&self.lanes);
        TrackId::ALL.into_iter().filter(|track| lanes[track.index()].is_some()).fold(Tracks::default(), Tracks::with)
    }

    /// What can be made of the picture for who wants less of it.
    pub(super) fn rungs(&self) -> Vec<Rung> {
        let unavailable = |made| matches!(self.stream.making(made), Making::Unavailable(_));
        rungs::all().filter(|(_, made)| !unavailable(*made)).filter_map(|(_, made)| self.stream.rung(made)).collect()
    }

    /// A layer or a rung that nobody watches any more is not packetised. Who watches holds its lane, and so does who waits
    /// for it.
    fn drop_idle_lanes(&self) {
        let mut lanes = lock(&self.lanes);
        for track in TrackId::ALL.into_iter().filter(|track| track.is_layer() || track.is_rung()) {
            let lane = &mut lanes[track.index()];
            if lane.as_ref().is_some_and(|lane| Arc::strong_count(lane) == 1) {
                *lane = None;
            }
        }
    }

    pub(super) fn viewers(&self) -> usize {
        *self.seats.borrow()
    }
}

impl Lane {
    fn new(stream: &Arc<Stream>, track: TrackId, engine: &Engine) -> Self {
        let outgoing = Arc::new(engine.outgoing());
        let wishes = tokio::spawn(pass_wishes(Arc::clone(&outgoing), Arc::clone(stream), track)).abort_handle();
        Self { outgoing, wishes }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.wishes.abort();
    }
}

/// Viewers who need a keyframe ask the publisher for one.
async fn pass_wishes(outgoing: Arc<Outgoing>, stream: Arc<Stream>, track: TrackId) {
    loop {
        outgoing.keyframe_wanted().await;
        stream.request_keyframe(track);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.send_modify(|seats| *seats -= 1);
    }
}

struct Task {
    inner: Arc<Inner>,
    live: Arc<Live>,
    broadcast: Broadcast,
    packets: Packets,
    /// Of what is in demand.
    feeds: Vec<Feed>,
    /// Of the rung that is kept ready.
    rescue: Option<(TrackId, Arc<Lane>)>,
    /// When a broadcast that nobody watches ends.
    until: Option<Instant>,
    /// The stream's description may have changed since the layers were shown.
    layers_changed: bool,
    warned_of_audio: bool,
}

struct Feed {
    made: Made,
    demand: Demand,
    cursor: Cursor<Item>,
}

impl Task {
    fn new(inner: Arc<Inner>, live: Arc<Live>) -> Self {
        Self {
            inner,
            live,
            broadcast: Broadcast::default(),
            packets: Packets::default(),
            feeds: Vec::new(),
            rescue: None,
            until: None,
            layers_changed: true,
            warned_of_audio: false,
        }
    }

    async fn run(mut self) {
        self.inner.metrics.broadcasts.inc();
        tracing::info!(stream = %self.live.stream.name, "broadcast over WebRTC started");
        let (end, reason) = self.serve().await;
        self.live.front.send_modify(|front| front.ended = end);
        remove(&mut lock(&self.inner.broadcasts), &self.live);
        self.inner.metrics.dropped(self.broadcast.take_drops());
        self.inner.metrics.broadcasts.dec();
        tracing::info!(stream = %self.live.stream.name, reason, "broadcast over WebRTC ended");
    }

    async fn serve(&mut self) -> (Option<End>, &'static str) {
        let mut source = self.subscribe();
        let mut draining = self.inner.draining.subscribe();
        let mut seats = self.live.seats.subscribe();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut made_batch) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            self.keep_demands();
            self.show();
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return (Some(End::Drain), "the server is shutting down"),
                next = poll_fn(|cx| source.poll_next(cx, &mut batch, BATCH)) => match next {
                    Next::Items => self.handle(&mut batch),
                    Next::Lagged(items) => self.lagged(None, items),
                    Next::Closed => return (Some(End::Stream), "the publisher did not come back"),
                },
                (made, next) = poll_fn(|cx| poll_feeds(&mut self.feeds, cx, &mut made_batch)) => match next {
                    Next::Items => self.handle_made(made, &mut made_batch),
                    Next::Lagged(items) => self.lagged(Some(made), items),
                    Next::Closed => self.feeds.retain(|feed| feed.made != made),
                },
                _ = seats.changed() => self.until = None,
                () = self.live.opened.notified() => {}
                _ = tick.tick() => self.tick(),
                () = sleep_until(self.until) => if self.inner.close_unless_watched(&self.live) {
                    return (None, "nobody watches");
                },
            }
        }
    }

    /// From the newest keyframe of a publisher that sends; the last pictures of one that has left are no start.
    fn subscribe(&mut self) -> Cursor<Item> {
        let stream = &self.live.stream;
        // First, so that no Join falls between.
        let from_now = stream.subscribe();
        let present = stream.present();
        self.broadcast = Broadcast::new(&present);
        if present.epoch.is_some() { stream.subscribe_at_keyframe() } else { from_now }
    }

    /// Things are made only while somebody watches.
    fn keep_demands(&mut self) {
        let watched = self.live.viewers() > 0;
        if !watched && self.until.is_none() {
            self.until = Some(now() + LINGER);
        }
        let lanes = self.live.open_lanes();
        let ours = [Made::Video, Made::Opus].map(|made| (made, None)).into_iter();
        for (made, track) in ours.chain(rungs::all().map(|(track, made)| (made, Some(track)))) {
            let wanted = watched && track.map_or_else(|| self.broadcast.wants(made), |track| lanes.has(track));
            let known = self.feeds.iter().position(|feed| feed.made == made);
            match (wanted, known) {
                (true, None) => self.demand(made),
                (false, Some(at)) => {
                    self.feeds.remove(at);
                    self.broadcast.unsubscribed(made);
                }
                _ => {}
            }
        }
    }

    /// A viewer whose line gives out has no time for a rung to be started.
    fn keep_rescue(&mut self) {
        let is_wanted = self.inner.config.rescue && self.live.viewers() > 0 && self.broadcast.flowing().has(TrackId::VIDEO);
        let rungs = if is_wanted { self.live.rungs() } else { Vec::new() };
        let cheapest = rungs.iter().rfind(|rung| !rung.is_alike()).map(|rung| rung.id);
        if cheapest != self.rescue.as_ref().map(|(track, _)| *track) {
            self.rescue = cheapest.map(|track| (track, self.live.lane(track, &self.inner.engine)));
        }
    }

    fn demand(&mut self, made: Made) {
        let demand = self.live.stream.demand(made);
        let cursor = demand.subscribe_at_keyframe();
        self.broadcast.subscribed(made);
        self.feeds.push(Feed { made, demand, cursor });
    }

    fn handle(&mut self, batch: &mut Vec<Item>) {
        // The stream knew these Items before we read them.
        let present = self.live.stream.present();
        self.broadcast.observe(&present);
        for item in batch.drain(..) {
            self.layers_changed |= !matches!(item, Item::Sample(_));
            self.broadcast.handle(&item);
        }
        self.broadcast.observe(&present);
        self.send();
    }

    fn handle_made(&mut self, made: Made, batch: &mut Vec<Item>) {
        batch.drain(..).for_each(|item| self.broadcast.handle_made(made, &item));
        self.send();
    }

    fn lagged(&mut self, made: Option<Made>, items: u64) {
        tracing::debug!(stream = %self.live.stream.name, items, "a broadcast fell behind and lost input");
        self.broadcast.lagged(made, items);
        // Where nothing says otherwise, the picture is what suffers most.
        let rung = rungs::all().find(|(_, rung)| Some(*rung) == made).map(|(track, _)| track);
        self.live.stream.request_keyframe(rung.unwrap_or(TrackId::VIDEO));
    }

    fn send(&mut self) {
        let lanes = lock(&self.live.lanes).clone();
        while let Some(out) = self.broadcast.poll_outgoing() {
            let Some(lane) = &lanes[out.track.index()] else { continue };
            match self.packets.payloads(out.track, &out.sample) {
                payloads if payloads.is_empty() => self.inner.metrics.unsendable.inc(),
                payloads => lane.outgoing.push(OutFrame {
                    timestamp: out.timestamp,
                    at_us: out.at_us,
                    keyframe: out.sample.keyframe,
                    payloads,
                }),
            }
        }
    }

    fn tick(&mut self) {
        for feed in &self.feeds {
            if let Making::Unavailable(reason) = feed.demand.making() {
                self.broadcast.unavailable(feed.made);
                if feed.made == Made::Opus && !std::mem::replace(&mut self.warned_of_audio, true) {
                    tracing::warn!(stream = %self.live.stream.name, %reason, "WebRTC viewers get no sound");
                }
            }
        }
        self.keep_rescue();
        self.live.drop_idle_lanes();
        self.layers_changed = true;
        self.inner.metrics.dropped(self.broadcast.take_drops());
    }

    /// Shows viewers what is true now.
    fn show(&mut self) {
        let (flowing, pictures, refused) = (self.broadcast.flowing(), self.broadcast.pictures(), self.broadcast.is_refused());
        let known = self.live.front.borrow().clone();
        let apart = self.broadcast.apart();
        let moved = (known.flowing, known.pictures, known.apart, known.refused) != (flowing, pictures, apart, refused);
        if !moved && !std::mem::take(&mut self.layers_changed) {
            return;
        }
        let rungs = self.live.rungs();
        let layers = layers::document(&self.live.stream.present(), pictures, &rungs);
        let layers = if *layers == *known.layers { Arc::clone(&known.layers) } else { layers.into() };
        let candidates = self.candidates(pictures.except(apart), &rungs, &known);
        let front = Front { flowing, pictures, apart, candidates, layers, refused, ended: known.ended };
        self.live.front.send_if_modified(|shown| {
            front != *shown && {
                *shown = front;
                true
            }
        });
    }
}

impl Task {
    /// What viewers are given without choosing it.
    fn candidates(&self, pictures: Tracks, rungs: &[Rung], known: &Front) -> Arc<[Candidate]> {
        let pictures = TrackId::ALL.into_iter().filter(|track| pictures.has(*track));
        let pictures = pictures.map(|track| (track, self.broadcast.rate(track)));
        let rungs = rungs.iter().map(|rung| (rung.id, u64::from(rung.setting.bitrate)));
        let sound = self.broadcast.rate(TrackId::AUDIO).unwrap_or(0);
        let all = candidates(pictures, rungs, self.broadcast.flowing(), sound, &known.candidates);
        if all == *known.candidates { Arc::clone(&known.candidates) } else { all.into() }
    }
}

fn poll_feeds(feeds: &mut [Feed], cx: &mut Context<'_>, batch: &mut Vec<Item>) -> Poll<(Made, Next)> {
    for feed in feeds {
        if let Poll::Ready(next) = feed.cursor.poll_next(cx, batch, BATCH) {
            return Poll::Ready((feed.made, next));
        }
    }
    Poll::Pending
}

/// Of the runtime's clock, as everything that waits: a test may stop it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of ours panics while it holds one of these locks; the data is whole either way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
