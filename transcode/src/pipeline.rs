//! The task of one stream: it waits for demands, keeps a child while there are any, and carries Items to it and back. It
//! waits on demands, windows, the child, timers and the drain; what is sent and pushed is decided in `lane`.

use std::{
    collections::VecDeque,
    env,
    future::poll_fn,
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use media_core::{
    Cursor, Item, Stream,
    fanout::Next,
    stream::{Asked, Made, Making, Present},
};
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{
    conn::{Ended, Worker},
    lane::{self, History, Lane, Verdict},
    metrics::Metrics,
    wire::{self, Order, Report, Wish},
};

const PROGRAM: &str = "codecast-transcode";
/// Items read from the window at once.
const BATCH: usize = 64;
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
/// How long `drain` waits for children to end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
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
    /// How long something is still made after its last demand.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { program: None, opus_bitrate: 128_000, aac_bitrate: 160_000, video_bitrate: None, idle: Duration::from_secs(10) }
    }
}

/// Transcodes every stream it is given, when and while somebody needs it.
#[derive(Clone)]
pub struct Transcoder(Arc<Shared>);

struct Shared {
    config: Config,
    metrics: Metrics,
    draining: watch::Sender<bool>,
}

impl Transcoder {
    pub fn new(config: Config, registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(registry)?;
        Ok(Self(Arc::new(Shared { config, metrics, draining: watch::Sender::new(false) })))
    }

    /// Takes a stream that has come to life, until it is retired. Called within a runtime, once a stream.
    pub fn adopt(&self, stream: Arc<Stream>) {
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

struct Task {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    outputs: [Output; Made::ALL.len()],
    child: Option<Running>,
    failures: usize,
    not_before: Instant,
    orders: Vec<Order>,
}

struct Output {
    made: Made,
    history: History,
    /// The last time at which somebody wanted it.
    demanded: Option<Instant>,
    missing_until: Option<Instant>,
    reading: Option<Reading>,
}

/// A lane and its place in the source's window.
struct Reading {
    lane: Lane,
    cursor: Cursor<Item>,
    unhandled: VecDeque<Item>,
}

struct Running {
    worker: Worker,
    started: Instant,
    /// It has said `Hello`: it takes orders.
    ready: bool,
}

enum Event {
    Asked(Asked),
    Items(Made, Next),
    Report(Result<Report, Ended>),
    Tick,
    /// The stream is retired, or the server stops.
    Over(&'static str),
}

impl Task {
    fn new(shared: Arc<Shared>, stream: Arc<Stream>) -> Self {
        let output = |made| Output { made, history: History::default(), demanded: None, missing_until: None, reading: None };
        Self {
            shared,
            stream,
            outputs: Made::ALL.map(output),
            child: None,
            failures: 0,
            not_before: Instant::now(),
            orders: Vec::new(),
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
            }
            if let Event::Over(reason) = event {
                return self.close_child(reason);
            }
            self.handle_event(event, now);
        }
    }

    fn needs_ticks(&self) -> bool {
        self.child.is_some() || Made::ALL.iter().any(|made| self.stream.is_demanded(*made))
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
        for output in &mut self.outputs {
            let Some(reading) = &mut output.reading else { continue };
            if let Poll::Ready(next) = reading.poll(cx) {
                return Poll::Ready(if next == Next::Closed { Event::Over(RETIRED) } else { Event::Items(output.made, next) });
            }
        }
        Poll::Pending
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        let outcome = match event {
            Event::Asked(asked) => self.handle_asked(asked, now),
            Event::Tick => self.handle_tick(now).and_then(|()| self.refresh(now)),
            Event::Items(made, next) => self.handle_items(made, next, now),
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
        if asked.keyframe && self.outputs[Made::Video as usize].reading.is_some() {
            self.send(Order::Keyframe(Made::Video))?;
        }
        if asked.demands { self.refresh(now) } else { Ok(()) }
    }

    /// Makes what runs equal to what is wanted.
    fn refresh(&mut self, now: Instant) -> Result<(), String> {
        if self.outputs.iter().all(|output| output.reading.is_none() && !self.stream.is_demanded(output.made)) {
            self.close_child("nobody needs it");
            return Ok(());
        }
        let present = self.stream.present();
        let idle = self.shared.config.idle;
        let mut wanted = false;
        for at in 0..self.outputs.len() {
            let output = &mut self.outputs[at];
            if self.stream.is_demanded(output.made) {
                output.demanded = Some(now);
            } else if self.stream.is_done(output.made) {
                output.demanded = None;
            }
            let demanded = output.demanded.is_some_and(|last| now.duration_since(last) < idle);
            let missing = output.missing_until.is_some_and(|until| now < until);
            let wants = demanded && !missing && (output.reading.is_some() || is_fed(output.made, &present));
            wanted |= wants;
            match (wants, &self.child, &output.reading) {
                (true, Some(Running { ready: true, .. }), None) => self.open(at, &present, now)?,
                (false, Some(_), Some(reading)) if !reading.lane.is_closing() => self.close_output(at)?,
                _ => (),
            }
        }
        if wanted && self.child.is_none() && now >= self.not_before {
            self.start_child(now);
        } else if !wanted && self.outputs.iter().all(|output| output.reading.is_none()) {
            self.close_child("nobody needs it");
        }
        Ok(())
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
                self.child = Some(Running { worker, started: now, ready: false });
            }
            Err(error) => self.lack(&format!("{} cannot be started: {error}", program.display()), now),
        }
    }

    /// Nothing can be made here for a while.
    fn lack(&mut self, sentence: &str, now: Instant) {
        warn!(stream = %self.stream.name, "nothing can be transcoded: {sentence}");
        for output in &mut self.outputs {
            output.missing_until = Some(now + MISSING_RETRY);
            self.stream.set_making(output.made, Making::Unavailable(sentence.into()));
        }
    }

    fn handle_tick(&mut self, now: Instant) -> Result<(), String> {
        if self.child.as_ref().is_some_and(|child| !child.ready && now.duration_since(child.started) > HELLO_WAIT) {
            return Err("it did not start in time".into());
        }
        for at in 0..self.outputs.len() {
            let Output { made, reading: Some(reading), .. } = &mut self.outputs[at] else { continue };
            if !reading.lane.handle_tick(now) {
                continue;
            }
            let (made, closing) = (*made, reading.lane.is_closing());
            let others_work = self.outputs.iter().flat_map(|output| &output.reading).any(|reading| reading.lane.is_answered());
            if closing || !others_work {
                return Err(format!("it was fed and made no {} for too long", made.as_str()));
            }
            self.give_up(at, &format!("no {} can be made of what the publisher sends: see the log", made.as_str()), now)?;
        }
        Ok(())
    }

    /// One output cannot be made of what this publisher sends: the others must not suffer from it.
    fn give_up(&mut self, at: usize, sentence: &str, now: Instant) -> Result<(), String> {
        let made = self.outputs[at].made;
        warn!(stream = %self.stream.name, "{sentence}");
        self.outputs[at].missing_until = Some(now + MISSING_RETRY);
        self.stream.set_making(made, Making::Unavailable(sentence.into()));
        self.close_output(at)
    }

    // ---- what the source sends ----

    fn open(&mut self, at: usize, present: &Present, now: Instant) -> Result<(), String> {
        let made = self.outputs[at].made;
        let (epoch, cursor, unhandled) = begin(&self.stream, made, &self.outputs[at].history);
        let lane = Lane::new(made, epoch, now);
        let order = lane.open(self.wish(made, present), &self.outputs[at].history);
        self.outputs[at].reading = Some(Reading { lane, cursor, unhandled });
        self.shared.metrics.outputs(made).inc();
        self.send(order)?;
        self.feed(at, now)
    }

    fn wish(&self, made: Made, present: &Present) -> Wish {
        let config = &self.shared.config;
        let bitrate = match made {
            Made::Video => config.video_bitrate.unwrap_or(0),
            Made::Opus => config.opus_bitrate,
            Made::Aac => config.aac_bitrate,
        };
        let announcement = &present.announcement;
        Wish {
            bitrate,
            announced_bitrate: announcement.bitrate.and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0),
            frame_rate: announcement.frame_rate.unwrap_or(0.0),
            after: None,
        }
    }

    fn handle_items(&mut self, made: Made, next: Next, now: Instant) -> Result<(), String> {
        if let (Some(reading), Next::Lagged(_)) = (&mut self.outputs[made as usize].reading, next) {
            reading.lane.handle_lag();
        }
        self.feed(made as usize, now)
    }

    /// Sends what may be sent of what was read.
    fn feed(&mut self, at: usize, now: Instant) -> Result<(), String> {
        let Some(reading) = &mut self.outputs[at].reading else { return Ok(()) };
        let mut orders = std::mem::take(&mut self.orders);
        while !reading.lane.is_full()
            && let Some(item) = reading.unhandled.pop_front()
        {
            if reading.lane.handle_item(&item, now, &mut orders) {
                self.shared.metrics.dropped_samples.inc();
            }
        }
        let sent = orders.drain(..).try_for_each(|order| self.send(order));
        self.orders = orders;
        sent
    }

    fn send(&self, order: Order) -> Result<(), String> {
        match &self.child {
            Some(child) => child.worker.send(order).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    // ---- what the child sends ----

    fn handle_report(&mut self, report: Report, now: Instant) -> Result<(), String> {
        let made = match report {
            Report::Hello { missing } => return self.handle_hello(missing, now),
            Report::Note(text) => {
                info!(stream = %self.stream.name, "codecast-transcode: {text}");
                return Ok(());
            }
            Report::Refused(made, sentence) => return self.give_up(made as usize, &sentence, now),
            Report::Track(made, _) | Report::Sample(made, _) | Report::Consumed(made, _) | Report::Ended(made) => made,
        };
        let Output { history, reading: Some(reading), .. } = &mut self.outputs[made as usize] else {
            return Err(format!("it sent {} that nobody asked for", made.as_str()));
        };
        match reading.lane.handle_report(report, now, history).map_err(|e| e.to_string())? {
            Verdict::Nothing | Verdict::Repeated => (),
            Verdict::Push(sample) => {
                for item in sample.items {
                    self.stream.push_made(made, item);
                }
                if let Some(latency) = sample.latency {
                    self.shared.metrics.latency(made).observe(latency.as_secs_f64());
                }
                if !reading.lane.is_closing() {
                    self.stream.set_making(made, Making::Running);
                }
            }
            Verdict::Closed => self.forget_lane(made as usize),
        }
        // What was consumed may have been waited for.
        self.feed(made as usize, now)
    }

    fn handle_hello(&mut self, missing: Vec<(Made, String)>, now: Instant) -> Result<(), String> {
        for output in &mut self.outputs {
            let lacks: Vec<_> =
                missing.iter().filter(|(made, _)| *made == output.made).map(|(_, element)| element.as_str()).collect();
            output.missing_until = (!lacks.is_empty()).then_some(now + MISSING_RETRY);
            let making = match lacks.is_empty() {
                true => Making::Idle,
                false => {
                    let sentence = format!("GStreamer lacks {}: install the plugins that hold it", lacks.join(", "));
                    warn!(stream = %self.stream.name, "{} cannot be made: {sentence}", output.made.as_str());
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

    fn close_output(&mut self, at: usize) -> Result<(), String> {
        let Some(reading) = &mut self.outputs[at].reading else { return Ok(()) };
        let mut orders = Vec::new();
        let nothing_to_wait_for = reading.lane.close(&mut orders);
        orders.into_iter().try_for_each(|order| self.send(order))?;
        if nothing_to_wait_for {
            self.forget_lane(at);
        }
        Ok(())
    }

    fn forget_lane(&mut self, at: usize) {
        let epoch = self.stream.present().epoch;
        let output = &mut self.outputs[at];
        if output.reading.take().is_some() {
            self.shared.metrics.outputs(output.made).dec();
            if let Some(leave) = output.history.settle(epoch) {
                self.stream.push_made(output.made, leave);
            }
            if self.stream.making(output.made) == Making::Running {
                self.stream.set_making(output.made, Making::Idle);
            }
        }
    }

    /// Takes the child away, and all lanes with it.
    fn take_child(&mut self) -> Option<Running> {
        let child = self.child.take()?;
        self.shared.metrics.workers.dec();
        (0..self.outputs.len()).for_each(|at| self.forget_lane(at));
        Some(child)
    }

    fn close_child(&mut self, reason: &str) {
        if let Some(child) = self.take_child() {
            info!(stream = %self.stream.name, "transcoding ends: {reason}");
            child.worker.close();
        }
    }

    fn replace_child(&mut self, reason: &str, now: Instant) {
        let Some(child) = self.take_child() else { return };
        if child.ready && now.duration_since(child.started) >= SOUND_AFTER {
            self.failures = 0;
        }
        let wait = Duration::from_millis(BACKOFF_MS[self.failures.min(BACKOFF_MS.len() - 1)]);
        self.failures += 1;
        self.not_before = now + wait;
        self.shared.metrics.restarts.inc();
        warn!(stream = %self.stream.name, "codecast-transcode is replaced in {} ms: {reason}", wait.as_millis());
        let starts = child.ready;
        child.worker.abort();
        if !starts && self.failures >= START_FAILURES_MAX {
            self.failures = 0;
            self.lack(&format!("{PROGRAM} ends before it has started ({reason}): the log tells what it wrote"), now);
        }
    }
}

impl Reading {
    /// Reads on where nothing read before is left.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.unhandled.is_empty() || self.lane.is_full() {
            return Poll::Pending;
        }
        let mut items = Vec::new();
        let next = self.cursor.poll_next(cx, &mut items, BATCH);
        self.unhandled.extend(items);
        next
    }
}

fn is_fed(made: Made, present: &Present) -> bool {
    present.epoch.is_some() && present.tracks.iter().flatten().any(|track| lane::feeds(made, track))
}

/// Where a lane begins to read, with all that is there already, and the epoch of the first of it.
fn begin(stream: &Stream, made: Made, history: &History) -> (Option<u64>, Cursor<Item>, VecDeque<Item>) {
    loop {
        let epoch = stream.present().epoch;
        let mut cursor = match made {
            // WebRTC has no use for sound of the past.
            Made::Opus => stream.subscribe(),
            Made::Aac => stream.subscribe_at_keyframe(),
            // The open segment of those who package is to be whole.
            Made::Video => match epoch.and_then(|epoch| stream.cut(epoch)) {
                Some(cut) => stream.subscribe_before(history.resumable(epoch, cut).unwrap_or(cut)),
                None => stream.subscribe_at_keyframe(),
            },
        };
        let mut items = Vec::new();
        let _ = cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut items, usize::MAX);
        // The newest keyframe may be an old publisher's: what lies before a `Join` is another epoch's.
        let join = items.iter().rposition(|item| matches!(item, Item::Join { .. }));
        if let Some(join) = join {
            return (None, cursor, items.split_off(join).into());
        }
        // Somebody came or went between the two looks: look again.
        if stream.present().epoch == epoch {
            return (epoch, cursor, items.into());
        }
    }
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
