//! The task of one stream: it reads the window, drives the presentation, and shows what is new to
//! those who serve it. It waits on the window, on timers and on the drain; it decides nothing.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use dashmap::DashMap;
use media_core::{
    Cursor, Item, Ladder, Registry, Rung, Stream, StreamName, TrackId,
    advice::Advice,
    fanout::Next,
    ladder::When,
    stream::{Demand, Made, Making, Thumbnail},
    timeline,
};
use tokio::sync::watch;

use super::{
    advisor::Advisor,
    front::{Front, Live, Shown, State, THUMBNAIL},
    inbox::Inbox,
    kept::{Keeper, Kept},
    metrics::Metrics,
    presentation::{Presentation, Settings, Supplies, Verdict},
    rungs::{Feed, Place},
    sound::{Decided, Sound},
    thumbnail,
};

/// Items read from the window at once: several Parts' worth.
const BATCH: usize = 256;
/// How long an ended presentation can still be fetched: a playlist's length and a rest.
const LINGER: Duration = Duration::from_secs(30);
/// How long `drain` waits for the tasks to write ENDLIST.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// Names whose last number and keyframe interval are remembered.
const MEMORY_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub struct Config {
    /// How long a publisher may be away before its presentation ends.
    pub resume_window: Duration,
    /// Smallest TARGETDURATION, in seconds; 0 leaves it to the source (2, 6 or 10).
    pub target_duration_min: u32,
    /// Distance between keyframes where the operator knows it; found out otherwise.
    pub keyframe_interval: Option<Duration>,
    /// There is a program that makes pictures: rungs are listed.
    pub rungs: bool,
    /// Bits a second of the one at the source's size; as the source has where `None`.
    pub made_bitrate: Option<u32>,
    /// What is made of streams that have none of their own.
    pub ladder: Ladder,
    pub ladders: HashMap<StreamName, Ladder>,
    /// Where a source's pictures come too far apart for Parts, what is packaged is made of them at a constant rate.
    pub constant_rate: bool,
    /// The cheapest rung is made while anybody follows the source's live edge.
    pub rescue: bool,
    /// How long a rung, or a thumbnail, is made after the last request for it.
    pub rung_idle: Duration,
    /// There is a program that makes thumbnails.
    pub thumbnails: bool,
}

impl Default for Config {
    fn default() -> Self {
        let resume_window = Duration::from_secs(60);
        let rung_idle = Duration::from_secs(10);
        Self {
            resume_window,
            target_duration_min: 0,
            keyframe_interval: None,
            rungs: false,
            made_bitrate: None,
            ladder: Ladder::default(),
            ladders: HashMap::new(),
            constant_rate: true,
            rescue: true,
            rung_idle,
            thumbnails: false,
        }
    }
}

/// Packages every stream it is given, and serves them.
#[derive(Clone)]
pub struct Packager(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) streams: DashMap<StreamName, Arc<Live>>,
    memory: Mutex<HashMap<StreamName, Remembered>>,
    inbox: Inbox,
    draining: watch::Sender<bool>,
    tasks: AtomicUsize,
    idle: tokio::sync::Notify,
}

/// Of a name whose presentation is over.
#[derive(Clone, Copy)]
struct Remembered {
    last_msn: u64,
    keyframe_interval: Option<Duration>,
}

impl Packager {
    /// Errors only when a metric's name is registered twice.
    pub fn new(config: Config, registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        Ok(Self(Arc::new(Inner {
            config,
            metrics: Metrics::new(registry)?,
            streams: DashMap::new(),
            memory: Mutex::default(),
            inbox: Inbox::default(),
            draining: watch::channel(false).0,
            tasks: AtomicUsize::new(0),
            idle: tokio::sync::Notify::new(),
        })))
    }

    /// Packages a stream from its first Item on, in a task of its own. `registry` is asked whether
    /// it is over when the publisher stays away.
    pub fn adopt(&self, stream: &Arc<Stream>, registry: Weak<Registry>) {
        let (live, presentation) = self.0.resume(&stream.name).unwrap_or_else(|| self.0.begin(&stream.name));
        self.0.metrics.streams.inc();
        self.0.tasks.fetch_add(1, Ordering::AcqRel);
        let task = Task::new(Arc::clone(&self.0), live, presentation, Arc::clone(stream), registry);
        let cursor = stream.subscribe();
        tokio::spawn(task.run(cursor));
    }

    /// What is to be kept of the streams from now on, for the one who writes it.
    pub fn keep(&self) -> Inbox {
        self.0.inbox.attach();
        self.0.inbox.clone()
    }

    /// Takes what an earlier process kept: until the resume window ends its streams are away rather than offline, and
    /// go on when their publishers return. Answers how many those are; of the others the numbers are remembered.
    pub fn restore(&self, kept: Vec<(StreamName, Kept)>) -> usize {
        let wall = SystemTime::now();
        let mut resumable = 0;
        for (name, kept) in kept {
            match kept.remaining(self.0.config.resume_window, wall) {
                Some(left) => {
                    self.0.put_away(name, kept, left);
                    resumable += 1;
                }
                None => self.0.forget(&name, &kept),
            }
        }
        resumable
    }

    /// The routes under `/live`.
    pub fn router(&self) -> axum::Router {
        super::server::router(Arc::clone(&self.0))
    }

    /// Ends every presentation with EXT-X-ENDLIST and answers who waits. Returns when that is done.
    pub async fn drain(&self) {
        self.0.draining.send_replace(true);
        let away: Vec<_> = self.0.streams.iter().map(|live| Arc::clone(live.value())).collect();
        away.iter().for_each(|live| self.0.give_up(live));
        let done = async {
            loop {
                let idle = self.0.idle.notified();
                if self.0.tasks.load(Ordering::Acquire) == 0 {
                    break;
                }
                idle.await;
            }
            // What has ended here must not go on in the next process.
            self.0.inbox.settled().await;
        };
        if tokio::time::timeout(DRAIN_WAIT, done).await.is_err() {
            tracing::warn!("some streams did not end in time");
        }
    }
}

impl Inner {
    /// A presentation that begins.
    fn begin(&self, name: &StreamName) -> (Arc<Live>, Presentation) {
        let live = self.insert(name, Front::new(State::Live, SystemTime::now()), None);
        (live, Presentation::new(self.settings(name)))
    }

    /// One that an earlier process began, if its publisher is awaited.
    fn resume(&self, name: &StreamName) -> Option<(Arc<Live>, Presentation)> {
        let live = self.streams.get(name).map(|live| Arc::clone(live.value()))?;
        let kept = live.take_kept()?;
        let presentation = Presentation::resume(self.settings(name), &kept, now(), SystemTime::now());
        self.metrics.presentation_resumed();
        Some((live, presentation))
    }

    fn insert(&self, name: &StreamName, front: Front, kept: Option<Kept>) -> Arc<Live> {
        let live = Arc::new(Live::new(name.clone(), front, kept));
        self.streams.insert(name.clone(), Arc::clone(&live));
        live
    }

    /// Awaits a publisher for so long.
    fn put_away(self: &Arc<Self>, name: StreamName, kept: Kept, left: Duration) {
        let live = self.insert(&name, Front::away(&kept), Some(kept));
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            inner.give_up(&live);
        });
    }

    /// A publisher that is awaited since the start does not come, or may not any more.
    fn give_up(&self, live: &Arc<Live>) {
        let Some(kept) = live.take_kept() else { return };
        live.set_state(State::Offline);
        self.streams.remove_if(&live.name, |_, known| Arc::ptr_eq(known, live));
        self.forget(&live.name, &kept);
        tracing::info!(stream = %live.name, "presentation of an earlier run ended: the publisher did not come back");
    }

    /// Of a presentation that is over only its numbers count.
    fn forget(&self, name: &StreamName, kept: &Kept) {
        self.remember(name, &kept.state);
        self.inbox.put(name, None);
    }

    fn settings(&self, name: &StreamName) -> Settings {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memory.get(name);
        let configured = self.config.ladders.get(name).unwrap_or(&self.config.ladder);
        let ladder = if self.config.rungs { configured.clone() } else { Ladder::default() };
        Settings {
            target_duration_min: self.config.target_duration_min.max(ladder.target_duration_min()),
            keyframe_interval: self.config.keyframe_interval,
            remembered_interval: known.and_then(|known| known.keyframe_interval),
            after_msn: known.map(|known| known.last_msn),
            made_bitrate: self.config.made_bitrate,
            ladder,
            constant: self.config.rungs && self.config.constant_rate,
        }
    }

    fn remember(&self, name: &StreamName, state: &timeline::State) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() >= MEMORY_MAX && !memory.contains_key(name) {
            // Any will do: a forgotten name starts at the wall clock, which is beyond its numbers.
            if let Some(other) = memory.keys().next().cloned() {
                memory.remove(&other);
            }
        }
        let keyframe_interval = state.keyframe_interval_us.and_then(|us| u64::try_from(us).ok()).filter(|&us| us > 0);
        memory.insert(
            name.clone(),
            Remembered {
                last_msn: state.next_msn.saturating_sub(1),
                keyframe_interval: keyframe_interval.map(Duration::from_micros),
            },
        );
    }
}

struct Task {
    inner: Arc<Inner>,
    live: Arc<Live>,
    stream: Arc<Stream>,
    registry: Weak<Registry>,
    presentation: Presentation,
    keeper: Keeper,
    advisor: Advisor,
    sound: Sound,
    /// AAC in the place of the publisher's Opus, from its first packet on while the stream lives.
    made: Option<(Demand, Cursor<Item>)>,
    /// By `TrackId::rung_number`.
    rungs: Vec<Feed>,
    thumbnail: thumbnail::Feed,
    /// What the stream was told that can be made of it.
    told: Option<Arc<[Rung]>>,
    /// When the resume window ends.
    away_until: Option<Instant>,
    /// Counted so far, by `TrackId::index`.
    segments: [u64; TrackId::COUNT],
}

impl Task {
    fn new(
        inner: Arc<Inner>,
        live: Arc<Live>,
        presentation: Presentation,
        stream: Arc<Stream>,
        registry: Weak<Registry>,
    ) -> Self {
        Self {
            inner,
            live,
            rungs: Feed::all(&stream),
            thumbnail: thumbnail::Feed::new(&stream),
            stream,
            registry,
            presentation,
            keeper: Keeper::default(),
            advisor: Advisor::default(),
            sound: Sound::default(),
            made: None,
            told: None,
            away_until: None,
            segments: [0; TrackId::COUNT],
        }
    }

    async fn run(mut self, mut cursor: Cursor<Item>) {
        self.stream.decide_cuts();
        self.keep_rungs();
        let mut draining = self.inner.draining.subscribe();
        let (mut batch, mut made, mut of_rung) = (Vec::with_capacity(BATCH), Vec::new(), Vec::new());
        let mut thumbnails = Vec::new();
        let reason = loop {
            let timeouts = [self.away_until, self.presentation.poll_timeout(), self.sound.until(), self.thumbnail.until()];
            let deadline = timeouts.into_iter().chain(self.rungs.iter().map(Feed::until)).flatten().min();
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break "the server is shutting down",
                next = poll_fn(|cx| cursor.poll_next(cx, &mut batch, BATCH)) => match next {
                    Next::Items => self.handle(&mut batch),
                    Next::Lagged(items) => {
                        self.advisor.missed(items);
                        tracing::warn!(stream = %self.live.name, items, "the packager fell behind and lost input");
                    }
                    Next::Closed => break "the publisher did not come back",
                },
                next = poll_fn(|cx| match &mut self.made {
                    Some((_, cursor)) => cursor.poll_next(cx, &mut made, BATCH),
                    None => Poll::Pending,
                }) => match next {
                    Next::Items => self.handle_made(&mut made),
                    Next::Lagged(items) => tracing::warn!(stream = %self.live.name, items, "the packager fell behind and lost AAC"),
                    Next::Closed => self.made = None,
                },
                (at, next) = poll_fn(|cx| poll_rungs(&mut self.rungs, cx, &mut of_rung)) => match next {
                    Next::Items => self.handle_rung(at, &mut of_rung),
                    Next::Lagged(items) => tracing::warn!(stream = %self.live.name, items, "the packager fell behind and lost a rung's pictures"),
                    Next::Closed => break "the publisher did not come back",
                },
                next = poll_fn(|cx| self.thumbnail.cursor.poll_next(cx, &mut thumbnails, BATCH)) => match next {
                    Next::Items => self.show_thumbnail(&mut thumbnails),
                    // Of which only the newest counts.
                    Next::Lagged(_) => {}
                    Next::Closed => break "the publisher did not come back",
                },
                () = self.live.asked.news() => {
                    self.keep_rungs();
                    self.keep_thumbnail();
                }
                () = sleep_until(deadline) => {
                    self.keep_rungs();
                    self.keep_thumbnail();
                    if self.away_until.is_some_and(|until| until <= now()) && self.retire() {
                        break "the publisher did not come back";
                    }
                    self.decide_sound();
                    self.presentation.handle_timeout(now());
                    self.show();
                }
            }
        };
        self.end(reason);
        self.made = None;
        self.inner.tasks.fetch_sub(1, Ordering::AcqRel);
        self.inner.idle.notify_waiters();
        // Viewers that are behind still read to the end.
        tokio::time::sleep(LINGER).await;
        self.inner.streams.remove_if(&self.live.name, |_, live| Arc::ptr_eq(live, &self.live));
    }

    fn handle(&mut self, batch: &mut Vec<Item>) {
        let mut taken = Vec::with_capacity(batch.len());
        for item in batch.drain(..) {
            self.advisor.push(&item);
            self.hear(item, &mut taken);
        }
        self.package(taken);
        self.keep_rungs();
        self.decide_sound();
        self.show();
        self.advise();
    }

    /// Tells the streamer what could be set better; the log learns of each advice once.
    fn advise(&mut self) {
        if !self.advisor.is_due(now()) {
            return;
        }
        let advised = self.advisor.look(&self.stream.present(), self.presentation.grid().copied(), now());
        for Advice { code, text, change, .. } in &advised.fresh {
            self.inner.metrics.advised(*code);
            tracing::info!(stream = %self.live.name, code = code.as_str(), change, "advice to the streamer: {text}");
        }
        self.live.advice.send_if_modified(|known| {
            let changed = **known != *advised.all;
            if changed {
                *known = advised.all.into();
            }
            changed
        });
    }

    /// Lets the sound be chosen: the AAC is asked for when the first Opus comes.
    fn hear(&mut self, item: Item, taken: &mut Vec<Item>) {
        if self.made.is_none() && self.sound.wants_made(&item) {
            let demand = self.stream.demand(Made::Aac);
            let cursor = demand.subscribe();
            self.made = Some((demand, cursor));
        }
        self.sound.take(item, now(), taken);
        if let Some(until) = self.sound.until() {
            self.presentation.expect_sound(until);
        }
    }

    fn handle_made(&mut self, batch: &mut Vec<Item>) {
        let mut taken = Vec::with_capacity(batch.len());
        for item in batch.drain(..) {
            if self.sound.take_made(item, &mut taken) == Some(Decided::Made) {
                tracing::debug!(stream = %self.live.name, "the sound is the AAC that is made of the publisher's Opus");
            }
        }
        self.package(taken);
        self.show();
    }

    fn handle_rung(&mut self, at: usize, batch: &mut Vec<Item>) {
        self.keep_rungs();
        let epoch = self.away_until.is_none().then(|| self.presentation.epoch());
        let taken: Vec<_> = batch.drain(..).filter_map(|item| self.rungs[at].take(&item, epoch)).collect();
        self.package(taken);
        self.show();
    }

    /// Has made what is asked for, and tells the presentation what it may count on.
    fn keep_rungs(&mut self) {
        if !self.inner.config.rungs {
            return;
        }
        let (asked, now) = (&self.live.asked, now());
        let target_duration = self.presentation.grid().map_or(2, |grid| grid.target_duration);
        let cuts = self.presentation.source_cuts();
        let place = Place {
            cut: cuts.map(|(epoch, newest, _)| (epoch, newest)),
            begin: cuts.map(|(epoch, _, begin)| (epoch, begin)),
            target_duration,
            idle: self.inner.config.rung_idle,
        };
        let mut supplies = Supplies::default();
        let rungs = self.presentation.rungs().cloned();
        for (at, (feed, supply)) in self.rungs.iter_mut().zip(&mut supplies).enumerate() {
            let of = |rung: &&Rung| rung.id.rung_number() == Some(at);
            let rung = rungs.as_ref().and_then(|rungs| rungs.iter().find(of));
            let always = rung.is_some_and(|rung| rung.setting.when == When::Always) && cuts.is_some();
            let leads = self.presentation.needs_picture_made() && feed.is_alike();
            let always = always || leads;
            *supply = feed.keep(asked.last(at), always, &place, now);
        }
        self.presentation.set_supplies(supplies);
    }

    fn keep_thumbnail(&mut self) {
        let (asked, idle) = (self.live.asked.last(THUMBNAIL), self.inner.config.rung_idle);
        if !self.thumbnail.keep(asked, idle, now()) {
            self.live.thumbnail.send_if_modified(|shown| std::mem::take(&mut shown.current));
        }
    }

    fn show_thumbnail(&mut self, thumbnails: &mut Vec<Thumbnail>) {
        let current = self.thumbnail.until().is_some();
        self.live.thumbnail.send_replace(thumbnail::Shown { newest: thumbnails.pop(), current });
        thumbnails.clear();
    }

    fn decide_sound(&mut self) {
        if self.sound.until().is_none() {
            return;
        }
        let making = self.stream.making(Made::Aac);
        let mut taken = Vec::new();
        if self.sound.handle_timeout(now(), matches!(making, Making::Unavailable(_)), &mut taken).is_none() {
            return;
        }
        let reason = match &making {
            Making::Unavailable(reason) => reason,
            Making::Idle | Making::Running => "none came in time",
        };
        tracing::info!(
            stream = %self.live.name, reason,
            "the sound is packaged as the publisher's Opus, without AAC: players that take no Opus in MP4 stay silent"
        );
        self.package(taken);
    }

    fn package(&mut self, items: Vec<Item>) {
        let wall = SystemTime::now();
        for item in items {
            match &item {
                Item::Join { epoch, .. } => self.joined(*epoch),
                Item::Leave => self.away_until = Some(now() + self.inner.config.resume_window),
                _ => {}
            }
            if self.presentation.handle(&item, wall) == Verdict::Replace {
                self.replace(wall);
            }
            self.tell_of_cuts();
            if matches!(item, Item::Leave) {
                self.show();
                self.live.set_state(State::Away);
            }
        }
    }

    /// Whoever makes rungs has to know before the next picture is decoded.
    fn tell_of_cuts(&mut self) {
        let epoch = self.presentation.epoch();
        for (pts, cut) in self.presentation.take_decided() {
            self.stream.decide_cut(epoch, pts, cut);
        }
        if let Some(rungs) =
            self.presentation.rungs().filter(|rungs| !self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, rungs)))
        {
            self.told = Some(Arc::clone(rungs));
            self.stream.set_rungs(Arc::clone(rungs));
        }
    }

    fn joined(&mut self, epoch: u64) {
        self.away_until = None;
        if self.live.front.borrow().presentation == 0 {
            self.live.front.send_modify(|front| front.presentation = epoch);
            self.inner.metrics.presentation_started();
        }
        self.live.set_state(State::Live);
    }

    /// The publisher came back without the track that led: what follows is another presentation.
    fn replace(&mut self, wall: SystemTime) {
        let mut held = self.presentation.take_held();
        let epoch = self.presentation.epoch();
        let in_vain = self.presentation.needs_picture_made();
        if in_vain {
            // The sound of so long would lead before the picture's next keyframe comes.
            held.truncate(1);
        }
        self.presentation.end();
        self.show();
        self.remember();
        self.inner.inbox.put(&self.live.name, None);
        self.inner.metrics.presentation_ended();
        self.inner.metrics.presentation_started();
        let mut settings = self.inner.settings(&self.live.name);
        if in_vain {
            tracing::warn!(stream = %self.live.name, "the source is packaged as it is: no picture of a constant rate can be made of it");
            settings.constant = false;
        }
        self.presentation = Presentation::new(settings);
        self.keep_rungs();
        self.segments = [0; TrackId::COUNT];
        self.live.front.send_modify(|front| {
            (front.presentation, front.resumed) = (epoch, None);
            (front.multivariant, front.offer, front.shown) = (None, None, Default::default());
        });
        self.presentation.handle(&Item::Join { epoch, received: now() }, wall);
        self.sound.renew();
        let mut taken = Vec::with_capacity(held.len());
        for item in held {
            self.hear(item, &mut taken);
        }
        for item in taken {
            self.presentation.handle(&item, wall);
        }
    }

    /// Asks whether the stream is over. False: a publisher came in this very moment.
    fn retire(&mut self) -> bool {
        self.away_until = None;
        self.registry.upgrade().is_none_or(|registry| registry.retire(&self.live.name))
    }

    fn end(&mut self, reason: &str) {
        self.presentation.end();
        self.show();
        self.live.set_state(State::Offline);
        self.remember();
        self.inner.inbox.put(&self.live.name, None);
        self.inner.metrics.presentation_ended();
        self.inner.metrics.streams.dec();
        tracing::info!(stream = %self.live.name, reason, "presentation ended");
    }

    /// Shows what is new.
    fn show(&mut self) {
        let metrics = &self.inner.metrics;
        let losses = self.presentation.losses();
        metrics.count(losses);
        self.advisor.count(losses, now());
        for rendition in self.presentation.renditions() {
            let (published, dirty) = rendition.take_news();
            if !dirty {
                continue;
            }
            let known = {
                let front = self.live.front.borrow();
                front.shown(rendition.id).cloned()
            };
            match known {
                Some(shown) => {
                    shown.rendered.send_replace(Arc::clone(rendition.rendered()));
                }
                None => {
                    let rendered = watch::channel(Arc::clone(rendition.rendered())).0;
                    let shown = Some(Arc::new(Shown { rendered, shelf: rendition.shelf.clone() }));
                    self.live.front.send_modify(|front| front.shown[rendition.id.index()] = shown);
                }
            }
            // What is made of a rung may be of the past.
            for received in published.iter().filter(|_| !rendition.id.is_rung()) {
                metrics.part_publish.observe(received.elapsed().as_secs_f64());
            }
            metrics.parts(rendition.kind).inc_by(published.len() as u64);
            let segments = &mut self.segments[rendition.id.index()];
            metrics.segments(rendition.kind).inc_by(rendition.segments() - *segments);
            *segments = rendition.segments();
        }
        self.show_offer();
        self.keep();
    }

    /// Lets be kept what the next process would go on with.
    fn keep(&mut self) {
        let presentation = self.live.front.borrow().presentation;
        let Some(progress) = self.presentation.progress() else { return };
        if let Some(kept) = self.keeper.poll(presentation, &progress, SystemTime::now()) {
            self.inner.inbox.put(&self.live.name, Some(kept));
        }
    }

    fn remember(&self) {
        if let Some(state) = self.presentation.timeline() {
            self.inner.remember(&self.live.name, state);
        }
    }

    fn show_offer(&self) {
        let multivariant = self.presentation.multivariant();
        if let (Some(_), Some(grid), None) = (multivariant, self.presentation.grid(), &self.live.front.borrow().multivariant) {
            tracing::info!(
                stream = %self.live.name, target_duration_s = grid.target_duration, part_target_ms = grid.part_target_ms,
                irregular = grid.irregular,
                constant = grid.constant, resumed = self.live.front.borrow().resumed.is_some(), "presentation started"
            );
        }
        let (target_duration, part_target_ms) =
            self.presentation.grid().map_or((2, 200), |grid| (grid.target_duration, grid.part_target_ms));
        self.live.front.send_if_modified(|front| {
            let same = match (&front.multivariant, multivariant) {
                (Some(known), Some(new)) => Arc::ptr_eq(known, new),
                (None, None) => true,
                _ => false,
            };
            if !same {
                front.multivariant = multivariant.cloned();
                front.offer = self.presentation.offer().cloned();
                front.rescue = self.presentation.cheapest_rung().filter(|_| self.inner.config.rescue);
                front.target_duration = target_duration;
                front.part_target = Duration::from_millis(part_target_ms.into());
            }
            !same
        });
    }
}

fn poll_rungs(rungs: &mut [Feed], cx: &mut Context<'_>, batch: &mut Vec<Item>) -> Poll<(usize, Next)> {
    for (at, feed) in rungs.iter_mut().enumerate() {
        if let Poll::Ready(next) = feed.cursor.poll_next(cx, batch, BATCH) {
            return Poll::Ready((at, next));
        }
    }
    Poll::Pending
}

/// Of the runtime's clock, as everything that waits: a test may stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
