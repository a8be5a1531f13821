//! The task of one stream: it waits for demands, keeps a child while there are any, and carries Items to it and back. It
//! waits on demands, windows, the child, timers and the drain; what is sent and pushed is decided in `lane`.

use std::{
    env,
    future::poll_fn,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use media_core::{
    Item, Stream, Timestamp, TrackId,
    codec::h264,
    fanout::Next,
    stream::{Asked, Made, Making, Present, Thumbnail},
};
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{
    budget::{Budget, Owner, Work},
    conn::{self, Ended, Worker},
    lane::{Histories, Lane},
    metrics::Metrics,
    prices::Prices,
    reading::{self, Reading, is_fed, lanes_of},
    usage::Usage,
    wire::{self, LANES, LaneId, Order, PICTURE_LANES, Picture, Report, THUMBNAIL_LANE, Wish},
};

const PROGRAM: &str = "codecast-transcode";
/// How often a stream looks at its timers; also how late it may notice that a source fits a demand.
const TICK: Duration = Duration::from_millis(100);
/// How long a child may take to load GStreamer: the first start on a machine reads all plugins.
const HELLO_WAIT: Duration = Duration::from_secs(20);
/// After a child's death the next one comes so much later, twice as late each time.
const BACKOFF_MS: [u64; 6] = [200, 400, 800, 1600, 3200, 5000];
/// A child that lived so long was sound: the next death counts as a first.
const SOUND_AFTER: Duration = Duration::from_secs(10);
/// A child that so often ends before it has started lacks a library, and the next one will too.
const START_FAILURES_MAX: usize = 3;
/// What is missing is looked for again so much later: the operator may have installed it.
const MISSING_RETRY: Duration = Duration::from_secs(30);
/// And after something had no place on the machine.
const BUSY_RETRY: Duration = Duration::from_secs(10);
/// So many pictures left out in a short time mean that the machine has too much to do; one is forgiven with each tick.
const SHED_MAX: u32 = 30;
/// How long `drain` waits for children to end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// Of a thumbnail's shorter side.
const THUMBNAIL_LINES: u32 = 360;
/// One that is larger is not kept: text fills a fifth of it, noise half.
const THUMBNAIL_BYTES_MAX: usize = 256 << 10;
const RETIRED: &str = "the stream is over";

#[derive(Clone, Debug)]
pub struct Config {
    /// The child's program; otherwise `codecast-transcode` beside the running program, then in PATH.
    pub program: Option<PathBuf>,
    /// Bits a second.
    pub opus_bitrate: u32,
    pub aac_bitrate: u32,
    /// As the source has where `None`.
    pub video_bitrate: Option<u32>,
    /// From one thumbnail to the next, at least.
    pub thumbnail_interval: Duration,
    /// How much of the machine pictures may cost, over all streams.
    pub cores: f64,
    /// How long something is still made after its last demand.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: None,
            opus_bitrate: 128_000,
            aac_bitrate: 160_000,
            video_bitrate: None,
            thumbnail_interval: Duration::from_secs(5),
            cores: cores(75),
            idle: Duration::from_secs(10),
        }
    }
}

/// So many percent of the machine.
pub fn cores(percent: u32) -> f64 {
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    all as f64 * f64::from(percent) / 100.0
}

/// Transcodes every stream it is given, when and while somebody needs it.
#[derive(Clone)]
pub struct Transcoder(Arc<Shared>);

struct Shared {
    config: Config,
    budget: Budget,
    metrics: Metrics,
    /// What pictures cost here is found out, or was.
    measures: AtomicBool,
    draining: watch::Sender<bool>,
}

impl Transcoder {
    pub fn new(config: Config, registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let (metrics, budget) = (Metrics::new(registry)?, Budget::new(config.cores));
        metrics.set_prices(Prices::ASSUMED);
        let (measures, draining) = (AtomicBool::new(false), watch::Sender::new(false));
        Ok(Self(Arc::new(Shared { config, budget, metrics, measures, draining })))
    }

    /// Takes a stream that has come to life, until it is retired. Called within a runtime, once a stream.
    pub fn adopt(&self, stream: Arc<Stream>) {
        // Before anybody watches, and not before there is anything to watch. Until it is known, what is assumed holds.
        if !self.0.measures.swap(true, Ordering::Relaxed) {
            let (shared, draining) = (Arc::clone(&self.0), self.0.draining.subscribe());
            tokio::spawn(async move { shared.measure(draining).await });
        }
        let draining = self.0.draining.subscribe();
        tokio::spawn(Task::new(Arc::clone(&self.0), stream).run(draining));
    }

    /// Ends all children and makes nothing any more.
    pub async fn drain(&self) {
        self.0.draining.send_replace(true);
        // A child that does not end in time is killed when its handle is dropped.
        let _ = timeout(DRAIN_WAIT, self.0.draining.closed()).await;
    }
}

impl Shared {
    async fn measure(&self, mut draining: watch::Receiver<bool>) {
        // What is not there is told when something is asked of it.
        let Some(program) = find_program(self.config.program.as_deref()) else { return };
        let measured = tokio::select! {
            _ = draining.wait_for(|draining| *draining) => return,
            measured = conn::measure(&program) => measured,
        };
        match measured {
            Ok(measured) => {
                let prices = Prices::from(&measured);
                self.budget.reprice(prices);
                self.metrics.set_prices(prices);
                self.metrics.load.set(self.budget.load() / 1000.0);
                info!("a million pixels were measured, in ms of one core: {measured}");
            }
            Err(problem) => info!("what pictures cost here could not be measured, and is assumed: {problem}"),
        }
    }
}

/// A publisher that sends nothing for so long may send nothing for long.
const SILENCE: Duration = Duration::from_millis(250);
/// How long a keyframe waits to be told whether a segment begins with it: whoever decides has the same Sample. After that it
/// is taken for one, which costs bits and nothing else.
const CUT_WAIT: Duration = Duration::from_millis(100);
/// What goes on in another lane at a cut is told so long before: pictures on their way to the encoders are past it.
const MERGE_AHEAD_US: i64 = 500_000;
/// And the lane that it leaves is closed so long after, if nothing comes.
const MERGE_WAIT: Duration = Duration::from_secs(2);
/// What a lane has made of an output that another lane still ends.
const HELD_MAX: usize = 256;

struct Task {
    shared: Arc<Shared>,
    owner: Owner,
    stream: Arc<Stream>,
    /// By `Made::index`.
    outputs: [Output; Made::COUNT],
    histories: Histories,
    /// By `LaneId`.
    lanes: [Option<Reading>; LANES],
    child: Option<Running>,
    failures: usize,
    not_before: Instant,
    orders: Vec<Order>,
    /// Where the stream stood when decoders were drained last.
    drained: Option<u64>,
    /// Pictures left out since a place was taken away for it, less what time forgives.
    shed: u32,
}

struct Output {
    made: Made,
    /// The last time at which somebody wanted it.
    demanded: Option<Instant>,
    missing_until: Option<Instant>,
    /// It is not offered, because it had no place on the machine.
    crowded_out: bool,
    /// Where it is made.
    lane: Option<LaneId>,
    /// Where it was made until a cut, and what comes after that from `lane` meanwhile.
    leaving: Option<LaneId>,
    held: Vec<Report>,
}

struct Running {
    worker: Worker,
    started: Instant,
    /// It has said `Hello`: it takes orders.
    ready: bool,
    cost: Usage,
}

enum Event {
    Asked(Asked),
    Items(LaneId, Next),
    Report(Result<Report, Ended>),
    Tick,
    /// The stream is retired, or the server stops.
    Over(&'static str),
}

impl Task {
    fn new(shared: Arc<Shared>, stream: Arc<Stream>) -> Self {
        let output = |made| Output {
            made,
            demanded: None,
            missing_until: None,
            crowded_out: false,
            lane: None,
            leaving: None,
            held: Vec::new(),
        };
        Self {
            owner: shared.budget.owner(),
            shared,
            stream,
            outputs: Made::ALL.map(output),
            histories: Histories::default(),
            lanes: Default::default(),
            child: None,
            failures: 0,
            not_before: Instant::now(),
            orders: Vec::new(),
            drained: None,
            shed: 0,
        }
    }

    async fn run(mut self, mut draining: watch::Receiver<bool>) {
        let mut next_tick = Instant::now();
        loop {
            let ticks = self.needs_ticks();
            let event = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => Event::Over("the server stops"),
                () = sleep_until(next_tick.into()), if ticks => Event::Tick,
                event = poll_fn(|cx| self.poll_event(cx)) => event,
            };
            let now = Instant::now();
            if matches!(event, Event::Tick) {
                next_tick = now + TICK;
                self.shed = self.shed.saturating_sub(1);
            }
            if let Event::Over(reason) = event {
                return self.close_child(reason);
            }
            self.handle_event(event, now);
        }
    }

    fn needs_ticks(&self) -> bool {
        self.child.is_some() || self.outputs.iter().any(|output| output.crowded_out || self.stream.is_demanded(output.made))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(asked) = self.stream.poll_asked(cx) {
            return Poll::Ready(if asked.over { Event::Over(RETIRED) } else { Event::Asked(asked) });
        }
        if let Some(child) = &mut self.child
            && let Poll::Ready(report) = child.worker.reports.poll_recv(cx)
        {
            return Poll::Ready(Event::Report(report.unwrap_or(Err(Ended::Closed))));
        }
        for (id, reading) in self.lanes.iter_mut().enumerate() {
            let Some(reading) = reading else { continue };
            if let Poll::Ready(next) = reading.poll(cx) {
                return Poll::Ready(if next == Next::Closed { Event::Over(RETIRED) } else { Event::Items(id as LaneId, next) });
            }
        }
        Poll::Pending
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        let outcome = match event {
            Event::Asked(asked) => self.handle_asked(asked, now),
            Event::Tick => self.handle_tick(now).and_then(|()| self.refresh(now)),
            Event::Items(lane, next) => self.handle_items(lane, next, now),
            Event::Report(Err(Ended::Protocol(error @ wire::Error::Version(_)))) => {
                self.close_child("it is of another release");
                return self.lack(&error.to_string(), now);
            }
            Event::Report(report) => report.map_err(|e| e.to_string()).and_then(|report| self.handle_report(report, now)),
            Event::Over(_) => Ok(()),
        };
        if let Err(reason) = outcome {
            self.replace_child(&reason, now);
        }
    }

    fn handle_asked(&mut self, asked: Asked, now: Instant) -> Result<(), String> {
        for made in Made::ALL.into_iter().filter(|made| asked.wants_keyframe(*made)) {
            if let Some(lane) = self.outputs[made.index()].lane {
                self.send(Order::Keyframe(lane, made))?;
            }
        }
        if asked.demands {
            self.refresh(now)?;
        }
        if asked.cut { PICTURE_LANES.into_iter().try_for_each(|lane| self.feed(lane, now)) } else { Ok(()) }
    }

    /// Makes what runs equal to what is wanted.
    fn refresh(&mut self, now: Instant) -> Result<(), String> {
        self.offer_again(now);
        if self.is_idle() && !Made::ALL.iter().any(|made| self.stream.is_demanded(*made)) {
            self.close_child("nobody needs it");
            return Ok(());
        }
        let present = self.stream.present();
        let idle = self.shared.config.idle;
        let ready = self.child.as_ref().is_some_and(|child| child.ready);
        let (mut wanted, mut fresh) = (false, Vec::new());
        for at in 0..self.outputs.len() {
            let output = &mut self.outputs[at];
            let made = output.made;
            if self.stream.is_demanded(made) {
                output.demanded = Some(now);
            } else if self.stream.is_done(made) {
                output.demanded = None;
            }
            let demanded = output.demanded.is_some_and(|last| now.duration_since(last) < idle);
            let missing = output.missing_until.is_some_and(|until| now < until);
            let known = !made.is_picture() || self.stream.rung(made).is_some();
            let wants = demanded && !missing && known && (output.lane.is_some() || is_fed(made, &present));
            wanted |= wants;
            match (wants, output.lane) {
                (true, None) if ready && output.leaving.is_none() && self.afford(made, &present, now) => fresh.push(made),
                (false, Some(_)) => self.leave(made)?,
                (false, None) => self.shared.budget.release(self.owner, made),
                _ => (),
            }
        }
        self.open(&fresh, &present, now)?;
        if wanted && self.child.is_none() && now >= self.not_before {
            self.start_child(now);
        } else if !wanted && self.is_idle() {
            self.close_child("nobody needs it");
        }
        Ok(())
    }

    /// Asks for a place on the machine.
    fn afford(&mut self, made: Made, present: &Present, now: Instant) -> bool {
        let Some(work) = self.work(made, present) else { return true };
        let admitted = self.shared.budget.admit(self.owner, made, work);
        if admitted {
            self.offer(made)
        } else {
            self.go_without(made, now)
        }
        self.shared.metrics.load.set(self.shared.budget.load() / 1000.0);
        admitted
    }

    /// `None`: it needs no place.
    fn work(&self, made: Made, present: &Present) -> Option<Work> {
        let size = present.track(TrackId::VIDEO).and_then(|track| track.parameters.size());
        match made {
            Made::Thumbnail => Some(Work::of_thumbnail(size, self.shared.config.thumbnail_interval)),
            _ => self.stream.rung(made).map(|rung| Work::of(&rung, size)),
        }
    }

    /// What had no place is offered when there is one: nobody asks for what is not offered.
    fn offer_again(&mut self, now: Instant) {
        if !self.outputs.iter().any(|output| output.crowded_out) {
            return;
        }
        let present = self.stream.present();
        for made in Made::ALL {
            let Output { crowded_out, missing_until, .. } = self.outputs[made.index()];
            let rests = missing_until.is_some_and(|until| now < until);
            let fits = |work| self.shared.budget.has_room(self.owner, made, work);
            if crowded_out && !rests && !self.stream.is_demanded(made) && self.work(made, &present).is_none_or(fits) {
                info!(stream = %self.stream.name, "there is room for {} again", made.as_str());
                self.offer(made);
            }
        }
    }

    fn offer(&mut self, made: Made) {
        if std::mem::take(&mut self.outputs[made.index()].crowded_out) {
            self.stream.set_making(made, Making::Idle);
        }
    }

    /// The machine has no place for it now.
    fn go_without(&mut self, made: Made, now: Instant) {
        self.shared.metrics.refused(made).inc();
        let sentence = "the machine is busy with other pictures (transcode.cpu_percent)";
        info!(stream = %self.stream.name, "{} is not made: {sentence}", made.as_str());
        let output = &mut self.outputs[made.index()];
        (output.missing_until, output.crowded_out) = (Some(now + BUSY_RETRY), true);
        self.stream.set_making(made, Making::Unavailable(sentence.into()));
    }

    /// What had to make room for something else is made no longer; and what children cost is learnt.
    fn keep_to_the_budget(&mut self, now: Instant) -> Result<(), String> {
        for made in Made::ALL.into_iter().filter(|made| made.is_picture() || *made == Made::Thumbnail) {
            let lane = self.outputs[made.index()].lane.and_then(|id| self.lanes[usize::from(id)].as_ref());
            let is_made = lane.is_some_and(|reading| !reading.lane.is_closing());
            if is_made && !self.shared.budget.holds(self.owner, made) {
                self.leave(made)?;
                self.go_without(made, now);
            }
        }
        if let Some(child) = &mut self.child
            && let Some(used) = child.cost.look(child.worker.id(), now)
            && self.lanes.iter().flatten().map(|reading| &reading.lane).all(tells_costs)
        {
            self.shared.budget.observe(self.owner, used);
            self.shared.metrics.load.set(self.shared.budget.load() / 1000.0);
        }
        Ok(())
    }

    /// A child that died of a thumbnail would do so again, and end everything else that it makes.
    fn rest_thumbnails(&mut self, now: Instant) {
        let lane = self.lanes[usize::from(THUMBNAIL_LANE)].as_ref();
        if lane.is_some_and(|reading| reading.lane.is_at_work()) {
            self.outputs[Made::Thumbnail.index()].missing_until = Some(now + MISSING_RETRY);
        }
    }

    fn is_idle(&self) -> bool {
        self.lanes.iter().all(Option::is_none)
    }

    fn start_child(&mut self, now: Instant) {
        let configured = self.shared.config.program.as_deref();
        let Some(program) = find_program(configured) else {
            let sentence = match configured {
                Some(program) => format!("transcode.program names {}, which is no file", program.display()),
                None => format!(
                    "{PROGRAM} was not found beside codecast or in PATH: install it there to get pictures without B-frames, \
                     Opus and AAC made"
                ),
            };
            return self.lack(&sentence, now);
        };
        match Worker::spawn(&program, None, &self.stream.name) {
            Ok(worker) => {
                info!(stream = %self.stream.name, "transcoding starts");
                self.shared.metrics.workers.inc();
                self.child = Some(Running { worker, started: now, ready: false, cost: Usage::default() });
            }
            Err(error) => self.lack(&format!("{} cannot be started: {error}", program.display()), now),
        }
    }

    /// Nothing can be made here for a while.
    fn lack(&mut self, sentence: &str, now: Instant) {
        warn!(stream = %self.stream.name, "nothing can be transcoded: {sentence}");
        for output in &mut self.outputs {
            (output.missing_until, output.crowded_out) = (Some(now + MISSING_RETRY), false);
            self.stream.set_making(output.made, Making::Unavailable(sentence.into()));
        }
    }

    fn handle_tick(&mut self, now: Instant) -> Result<(), String> {
        if self.child.as_ref().is_some_and(|child| !child.ready && now.duration_since(child.started) > HELLO_WAIT) {
            return Err("it did not start in time".into());
        }
        for id in 0..LANES as LaneId {
            let Some(reading) = &mut self.lanes[usize::from(id)] else { continue };
            if !reading.lane.handle_tick(now) {
                continue;
            }
            let (kind, closing) = (reading.lane.kind(), reading.lane.is_closing());
            let mut others = self.lanes.iter().flatten().filter(|reading| reading.lane.id() != id).map(|reading| &reading.lane);
            // Nothing else is ended for the sake of a thumbnail.
            let spared =
                if kind == Made::Thumbnail { others.next().is_some() } else { others.any(Lane::is_answered) && !closing };
            if spared && closing {
                continue;
            }
            if !spared {
                return Err(format!("it was fed and made no {} for too long", kind.as_str()));
            }
            self.give_up(id, &format!("no {} can be made of what the publisher sends: see the log", kind.as_str()), now)?;
        }
        self.keep_to_the_budget(now)?;
        self.drain_decoders(now)?;
        self.close_outdated_lanes()?;
        self.merge_lanes(now)?;
        // A keyframe that nobody has decided about goes on after a while.
        PICTURE_LANES.into_iter().try_for_each(|lane| self.feed(lane, now))
    }

    /// A publisher fell silent, and a decoder of pictures that are not shown as they come holds the last ones: they are let out. The
    /// next lane begins at once, so that whatever comes then is late by nothing.
    fn drain_decoders(&mut self, now: Instant) -> Result<(), String> {
        // What is repeated at a constant rate is not let out: it would begin anew.
        if self.stream.present().order != h264::Order::Reordered || self.is_constant() {
            return Ok(());
        }
        for id in PICTURE_LANES {
            let Some(reading) = &self.lanes[usize::from(id)] else { continue };
            let silent = now.saturating_duration_since(reading.heard) >= SILENCE && reading.lane.is_live();
            if silent && self.drained != Some(reading.position()) {
                self.drained = Some(reading.position());
                self.close_lane(id)?;
            }
        }
        Ok(())
    }

    /// What a lane makes cannot be made of what this publisher sends: the others must not suffer from it.
    fn give_up(&mut self, id: LaneId, sentence: &str, now: Instant) -> Result<(), String> {
        warn!(stream = %self.stream.name, "{sentence}");
        let Some(reading) = &self.lanes[usize::from(id)] else { return Ok(()) };
        for made in reading.lane.outputs().collect::<Vec<_>>() {
            let output = &mut self.outputs[made.index()];
            (output.missing_until, output.crowded_out) = (Some(now + MISSING_RETRY), false);
            self.stream.set_making(made, Making::Unavailable(sentence.into()));
        }
        self.close_lane(id)
    }

    // ---- what the source sends ----

    /// Begins to make what is wanted and not made: pictures that begin at one place go one way.
    fn open(&mut self, fresh: &[Made], present: &Present, now: Instant) -> Result<(), String> {
        let mut groups: Vec<(Option<Timestamp>, Vec<Made>)> = Vec::new();
        for made in fresh.iter().copied() {
            let begin = present.epoch.and_then(|epoch| self.stream.begin_of(made, epoch));
            let together = groups.iter_mut().find(|(at, group)| *at == begin && lanes_of(group[0]) == lanes_of(made));
            match together {
                Some((_, group)) => group.push(made),
                None => groups.push((begin, vec![made])),
            }
        }
        for (_, group) in groups {
            let mut free = lanes_of(group[0]);
            // Where all are taken it is tried again with the next tick: they catch up in seconds.
            let Some(id) = free.find(|id| self.lanes[usize::from(*id)].is_none()) else { continue };
            let (epoch, cursor, unhandled) = reading::begin(&self.stream, &group, &self.histories);
            let mut lane = Lane::new(id, group[0], epoch, now);
            if group[0] == Made::Thumbnail {
                lane = lane.only_keyframes(self.shared.config.thumbnail_interval);
            }
            let cut_every_ms = self.cut_every_ms();
            let (opened, heard, undecided, ends) = (now, now, None, None);
            let reading = Reading { lane, cursor, unhandled, opened, undecided, heard, cut_every_ms, ends };
            self.lanes[usize::from(id)] = Some(reading);
            for made in group {
                let after = self.begin_of_constant(made, epoch);
                self.make(id, made, Wish { after, ..self.wish(made, present) })?;
            }
            self.feed(id, now)?;
        }
        Ok(())
    }

    fn cut_every_ms(&self) -> u32 {
        self.stream.rung(Made::Video).map_or(0, |rung| rung.cut_every_ms)
    }

    /// Pictures are given at a constant rate: where segments begin follows from the clock.
    fn is_constant(&self) -> bool {
        self.cut_every_ms() > 0
    }

    /// The presentation has come to want pictures at a constant rate, or as the source has them: what is made otherwise is made anew.
    fn close_outdated_lanes(&mut self) -> Result<(), String> {
        let wanted = self.cut_every_ms();
        for id in PICTURE_LANES {
            if self.lanes[usize::from(id)].as_ref().is_some_and(|reading| reading.cut_every_ms != wanted) {
                self.close_lane(id)?;
            }
        }
        Ok(())
    }

    /// Behind what a picture of a constant rate begins: no keyframe of the source is where its segment begins.
    fn begin_of_constant(&self, made: Made, epoch: Option<u64>) -> Option<Timestamp> {
        let begin = epoch.filter(|_| made.is_picture() && self.is_constant()).and_then(|of| self.stream.begin_of(made, of))?;
        let history = &self.histories[made.index()];
        let known = history.resumable(epoch, begin).or_else(|| history.after(epoch).filter(|after| *after >= begin));
        Some(known.unwrap_or(begin - Timestamp::from_millis(1)))
    }

    fn make(&mut self, id: LaneId, made: Made, wish: Wish) -> Result<(), String> {
        let Some(reading) = &mut self.lanes[usize::from(id)] else { return Ok(()) };
        let order = reading.lane.make(made, wish, &self.histories[made.index()]);
        let output = &mut self.outputs[made.index()];
        if output.lane.replace(id).is_none() {
            self.shared.metrics.outputs(made).inc();
        }
        self.send(order)
    }

    fn wish(&self, made: Made, present: &Present) -> Wish {
        let config = &self.shared.config;
        let rung = self.stream.rung(made);
        let bitrate = match made {
            Made::Video => config.video_bitrate.unwrap_or(0),
            Made::Rung(_) => rung.map_or(0, |rung| rung.setting.bitrate),
            Made::Opus => config.opus_bitrate,
            Made::Aac => config.aac_bitrate,
            Made::Thumbnail => {
                return Wish { picture: Picture { lines: THUMBNAIL_LINES, ..Picture::default() }, ..Wish::default() };
            }
        };
        let announcement = &present.announcement;
        // Measured, as the presentation's grid is, before what the source says of itself.
        let gridded = rung.map(|rung| rung.source_rate).filter(|rate| *rate > 0.0);
        let own = || present.track(TrackId::VIDEO)?.parameters.frame_rate().map(|rate| rate.as_f64());
        Wish {
            bitrate,
            announced_bitrate: announcement.bitrate.and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0),
            frame_rate: gridded.or_else(own).or(announcement.frame_rate).unwrap_or(0.0),
            after: None,
            picture: rung.as_ref().map(Picture::from).unwrap_or_default(),
        }
    }

    fn handle_items(&mut self, id: LaneId, next: Next, now: Instant) -> Result<(), String> {
        if let Some(reading) = &mut self.lanes[usize::from(id)] {
            reading.heard = now;
            if matches!(next, Next::Lagged(_)) {
                reading.lane.handle_lag();
            }
        }
        self.feed(id, now)
    }

    /// Sends what may be sent of what was read.
    fn feed(&mut self, id: LaneId, now: Instant) -> Result<(), String> {
        let constant = self.is_constant();
        loop {
            let Some(reading) = &mut self.lanes[usize::from(id)] else { return Ok(()) };
            if reading.lane.is_full() || reading.unhandled.is_empty() {
                return Ok(());
            }
            let mut cut = false;
            if let Some(pts) = reading.next_keyframe()
                && !constant
            {
                let since = *reading.undecided.get_or_insert(now);
                let decided = reading.lane.epoch().map_or(Some(true), |epoch| self.stream.is_cut(epoch, pts));
                let Some(decided) = decided.or_else(|| (now - since >= CUT_WAIT).then_some(true)) else { return Ok(()) };
                if decided && !self.meet(id, pts, now)? {
                    return Ok(());
                }
                cut = decided;
            }
            let Some(reading) = &mut self.lanes[usize::from(id)] else { return Ok(()) };
            reading.undecided = None;
            let Some(item) = reading.unhandled.pop_front() else { return Ok(()) };
            let mut orders = std::mem::take(&mut self.orders);
            if reading.lane.handle_item(&item, cut, now, &mut orders) {
                self.shared.metrics.dropped_samples.inc();
            }
            let sent = orders.drain(..).try_for_each(|order| self.send(order));
            self.orders = orders;
            sent?;
        }
    }

    /// Before a lane takes a keyframe at which a segment begins: whatever has caught up with the oldest lane goes on in that one
    /// from here on. False: it waits for the oldest.
    fn meet(&mut self, id: LaneId, pts: Timestamp, now: Instant) -> Result<bool, String> {
        let place = |lanes: &[Option<Reading>; LANES], id: LaneId| lanes[usize::from(id)].as_ref().map(Reading::position);
        let live = |reading: &&Reading| reading.lane.kind().is_picture() && reading.lane.is_live();
        let oldest =
            self.lanes.iter().flatten().filter(live).min_by_key(|reading| reading.opened).map(|reading| reading.lane.id());
        let Some(oldest) = oldest else { return Ok(true) };
        if oldest != id {
            let waits = self.lanes[usize::from(id)].as_ref().filter(live).is_some();
            return Ok(!waits || place(&self.lanes, oldest) > place(&self.lanes, id));
        }
        for other in PICTURE_LANES.filter(|other| *other != id) {
            if self.lanes[usize::from(other)].as_ref().filter(live).is_none() {
                continue;
            }
            if let Some(reading) = &mut self.lanes[usize::from(other)]
                && let Poll::Ready(Next::Lagged(_)) = reading.poll(&mut Context::from_waker(Waker::noop()))
            {
                reading.lane.handle_lag();
            }
            self.feed(other, now)?;
            if place(&self.lanes, other) == place(&self.lanes, id) {
                self.hand_over(other, id, pts)?;
            }
        }
        Ok(true)
    }

    /// What one lane makes is made by another from the keyframe at `pts` on, which is the next thing that both read.
    fn hand_over(&mut self, from: LaneId, to: LaneId, pts: Timestamp) -> Result<(), String> {
        let Some(reading) = &self.lanes[usize::from(from)] else { return Ok(()) };
        let present = self.stream.present();
        for made in reading.lane.outputs().collect::<Vec<_>>() {
            let after = Some(pts - Timestamp::from_millis(1));
            self.make(to, made, Wish { after, ..self.wish(made, &present) })?;
            self.outputs[made.index()].leaving = Some(from);
        }
        self.close_lane(from)
    }

    /// Of a constant rate no keyframe of the source is a place to meet: what has caught up with the oldest lane goes on in that one
    /// from the next cut but a moment on, which both know by the clock.
    fn merge_lanes(&mut self, now: Instant) -> Result<(), String> {
        let every_ms = self.cut_every_ms();
        if every_ms == 0 {
            return Ok(());
        }
        let of = |reading: &Reading| (reading.opened, reading.lane.id(), reading.lane.epoch(), reading.ends);
        let live = self.lanes.iter().flatten().filter(|reading| reading.lane.kind().is_picture() && reading.lane.is_live());
        let mut live: Vec<_> = live.map(of).collect();
        live.sort_unstable();
        let Some((_, oldest, ..)) = live.iter().copied().find(|(.., ends)| ends.is_none()) else { return Ok(()) };
        for (_, id, epoch, ends) in live {
            if let Some((_, until)) = ends {
                // It ended otherwise, or makes nothing any more.
                if now > until {
                    self.close_lane(id)?;
                }
            } else if id != oldest {
                self.merge_at_next_cut(id, oldest, epoch, every_ms, now)?;
            }
        }
        Ok(())
    }

    fn merge_at_next_cut(
        &mut self,
        from: LaneId,
        to: LaneId,
        epoch: Option<u64>,
        every_ms: u32,
        now: Instant,
    ) -> Result<(), String> {
        let outputs = |id: LaneId| self.lanes[usize::from(id)].iter().flat_map(|reading| reading.lane.outputs());
        let newest = |id| outputs(id).filter_map(|made| self.histories[made.index()].after(epoch)).max();
        // One may be behind the other.
        let Some(newest) = newest(from).zip(newest(to)).map(|(from, to)| from.max(to)) else { return Ok(()) };
        let outputs: Vec<_> = outputs(from).collect();
        let every_us = i64::from(every_ms) * 1000;
        let ready_us = newest.as_micros() + MERGE_AHEAD_US;
        let cut = Timestamp::from_micros((ready_us.div_euclid(every_us) + 1) * every_us);
        let Some(reading) = &mut self.lanes[usize::from(from)] else { return Ok(()) };
        reading.ends = Some((cut, now + Duration::from_millis(every_ms.into()) + MERGE_WAIT));
        let present = self.stream.present();
        for made in outputs {
            let after = Some(cut - Timestamp::from_millis(1));
            self.make(to, made, Wish { after, ..self.wish(made, &present) })?;
            self.outputs[made.index()].leaving = Some(from);
        }
        Ok(())
    }

    fn send(&self, order: Order) -> Result<(), String> {
        match &self.child {
            Some(child) => child.worker.send(order).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    // ---- what the child sends ----

    fn handle_report(&mut self, report: Report, now: Instant) -> Result<(), String> {
        let lane = match &report {
            Report::Hello { missing } => return self.handle_hello(missing, now),
            Report::Note(text) => {
                info!(stream = %self.stream.name, "codecast-transcode: {text}");
                return Ok(());
            }
            Report::Refused(lane, sentence) => return self.give_up(*lane, sentence, now),
            Report::Shed(made, pictures) => {
                self.shared.metrics.shed(*made).inc_by((*pictures).into());
                self.shed += pictures;
                if self.shed >= SHED_MAX && self.shared.budget.relieve(now) {
                    self.shed = 0;
                }
                return Ok(());
            }
            Report::Consumed(lane, _) | Report::Ended(lane) | Report::Thumbnail(lane, _) => *lane,
            Report::Sample(lane, _, coded) if self.is_past_its_end(*lane, coded.pts) => return self.close_lane(*lane),
            Report::Track(lane, made, _) | Report::Sample(lane, made, _) => {
                let output = &mut self.outputs[made.index()];
                if output.leaving.is_some_and(|leaving| leaving != *lane) && output.lane == Some(*lane) {
                    if output.held.len() == HELD_MAX {
                        return Err(format!("it does not end what it made of {}", made.as_str()));
                    }
                    output.held.push(report);
                    return Ok(());
                }
                *lane
            }
        };
        self.handle_lane_report(lane, report, now)?;
        // What was consumed may have been waited for.
        self.feed(lane, now)
    }

    /// Another lane makes this picture.
    fn is_past_its_end(&self, lane: LaneId, pts: Timestamp) -> bool {
        let ends = self.lanes.get(usize::from(lane)).and_then(|reading| reading.as_ref()?.ends);
        ends.is_some_and(|(cut, _)| pts >= cut)
    }

    fn handle_lane_report(&mut self, id: LaneId, report: Report, now: Instant) -> Result<(), String> {
        let Some(reading) = &mut self.lanes[usize::from(id)] else {
            return Err("it sent what nobody asked for".into());
        };
        let verdict = reading.lane.handle_report(report, now, &mut self.histories).map_err(|e| e.to_string())?;
        for (made, item) in verdict.push {
            let Output { lane, missing_until, .. } = &self.outputs[made.index()];
            // Of one that was just given up, the last pictures may still be coming.
            let is_made = lane.is_some() && missing_until.is_none_or(|until| now >= until);
            if is_made && matches!(item, Item::Sample(_)) {
                self.stream.set_making(made, Making::Running);
                if let Some(latency) = verdict.latency {
                    self.shared.metrics.latency(made).observe(latency.as_secs_f64());
                }
            }
            self.stream.push_made(made, item);
        }
        if let Some(jpeg) = verdict.thumbnail {
            self.show_thumbnail(jpeg);
        }
        if verdict.closed { self.finish_lane(id, now) } else { Ok(()) }
    }

    fn show_thumbnail(&self, jpeg: Bytes) {
        if jpeg.len() > THUMBNAIL_BYTES_MAX {
            return self.shared.metrics.large_thumbnails.inc();
        }
        self.shared.metrics.thumbnails.inc();
        if self.outputs[Made::Thumbnail.index()].lane.is_some() {
            self.stream.set_making(Made::Thumbnail, Making::Running);
        }
        self.stream.push_thumbnail(Thumbnail { jpeg, wall: SystemTime::now() });
    }

    fn handle_hello(&mut self, missing: &[(Made, String)], now: Instant) -> Result<(), String> {
        let rests = |output: &Output| output.made == Made::Thumbnail && output.missing_until.is_some_and(|until| now < until);
        for output in self.outputs.iter_mut().filter(|output| !rests(output)) {
            let concerns = |made: Made| made == output.made || (made.is_picture() && output.made.is_picture());
            let lacks: Vec<_> = missing.iter().filter(|(made, _)| concerns(*made)).map(|(_, element)| element.as_str()).collect();
            output.missing_until = (!lacks.is_empty()).then_some(now + MISSING_RETRY);
            output.crowded_out = false;
            let making = match lacks.is_empty() {
                true => Making::Idle,
                false => {
                    let sentence = format!("GStreamer lacks {}: install the plugins that hold it", lacks.join(", "));
                    if !matches!(output.made, Made::Rung(_)) {
                        warn!(stream = %self.stream.name, "{} cannot be made: {sentence}", output.made.as_str());
                    }
                    Making::Unavailable(sentence.into())
                }
            };
            self.stream.set_making(output.made, making);
        }
        match &mut self.child {
            Some(child) if !child.ready => child.ready = true,
            _ => return Err("it said hello twice".into()),
        }
        self.refresh(now)
    }

    // ---- endings ----

    /// One output is not wanted any more.
    fn leave(&mut self, made: Made) -> Result<(), String> {
        let Some(id) = self.outputs[made.index()].lane else { return Ok(()) };
        let Some(reading) = &mut self.lanes[usize::from(id)] else { return Ok(()) };
        if reading.lane.is_closing() {
            return Ok(());
        }
        if reading.lane.outputs().count() == 1 {
            return self.close_lane(id);
        }
        let order = reading.lane.leave(made);
        self.forget(made);
        self.send(order)
    }

    fn close_lane(&mut self, id: LaneId) -> Result<(), String> {
        let Some(reading) = &mut self.lanes[usize::from(id)] else { return Ok(()) };
        if reading.lane.is_closing() {
            return Ok(());
        }
        let mut orders = Vec::new();
        let nothing_to_wait_for = reading.lane.close(&mut orders);
        orders.into_iter().try_for_each(|order| self.send(order))?;
        if nothing_to_wait_for { self.finish_lane(id, Instant::now()) } else { Ok(()) }
    }

    /// Nothing comes of a lane any more.
    fn finish_lane(&mut self, id: LaneId, now: Instant) -> Result<(), String> {
        let Some(mut reading) = self.lanes[usize::from(id)].take() else { return Ok(()) };
        for made in reading.lane.outputs().collect::<Vec<_>>() {
            let order = reading.lane.leave(made);
            self.send(order)?;
            let output = &mut self.outputs[made.index()];
            if output.lane == Some(id) {
                self.forget(made);
            } else if output.leaving == Some(id) {
                output.leaving = None;
                let held = std::mem::take(&mut output.held);
                let Some(lane) = output.lane else { continue };
                held.into_iter().try_for_each(|report| self.handle_lane_report(lane, report, now))?;
            }
        }
        Ok(())
    }

    /// An output is not made now.
    fn forget(&mut self, made: Made) {
        let epoch = self.stream.present().epoch;
        let output = &mut self.outputs[made.index()];
        output.held.clear();
        self.shared.budget.release(self.owner, made);
        if output.lane.take().is_some() {
            self.shared.metrics.outputs(made).dec();
            if let Some(leave) = self.histories[made.index()].settle(epoch) {
                self.stream.push_made(made, leave);
            }
            if self.stream.making(made) == Making::Running {
                self.stream.set_making(made, Making::Idle);
            }
        }
    }

    /// Takes the child away, and all lanes with it.
    fn take_child(&mut self) -> Option<Running> {
        let child = self.child.take()?;
        self.shared.metrics.workers.dec();
        self.lanes = Default::default();
        for made in Made::ALL {
            self.outputs[made.index()].leaving = None;
            self.forget(made);
        }
        Some(child)
    }

    fn close_child(&mut self, reason: &str) {
        if let Some(child) = self.take_child() {
            info!(stream = %self.stream.name, "transcoding ends: {reason}");
            child.worker.close();
        }
    }

    fn replace_child(&mut self, reason: &str, now: Instant) {
        self.rest_thumbnails(now);
        let Some(child) = self.take_child() else { return };
        if child.ready && now.duration_since(child.started) >= SOUND_AFTER {
            self.failures = 0;
        }
        let wait = Duration::from_millis(BACKOFF_MS[self.failures.min(BACKOFF_MS.len() - 1)]);
        self.failures += 1;
        self.not_before = now + wait;
        self.shared.metrics.restarts.inc();
        let starts = child.ready;
        child.worker.abort(format!("codecast-transcode is replaced in {} ms: {reason}", wait.as_millis()));
        if !starts && self.failures >= START_FAILURES_MAX {
            self.failures = 0;
            self.lack(&format!("{PROGRAM} ends before it has started ({reason}): the log tells what it wrote"), now);
        }
    }
}

/// Whether a child's use of the machine is that of its pictures, made as they come.
fn tells_costs(lane: &Lane) -> bool {
    lane.kind() == Made::Thumbnail || (lane.kind().is_picture() && lane.is_live())
}

/// The child's program: the configured one, or `codecast-transcode` beside the running program, or in PATH.
pub fn find_program(configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(program) = configured {
        return program.is_file().then(|| program.to_owned());
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    beside.into_iter().chain(in_path).find(|program| program.is_file())
}
