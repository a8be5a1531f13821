//! N viewers of one stream at the live edge, as hls.js behaves: for the first variant and the first
//! audio rendition each, on its own connection, a blocking reload for the next part, then a GET of
//! every part not seen before.
//!
//! Lateness of a part: how much later it was there whole than the media clock of its follower
//! says, that clock being set by the part that came soonest. It needs no clock of the server's.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use timed_publisher::report::Durations;
use tokio::{
    task::{JoinSet, LocalSet},
    time::{sleep, sleep_until},
};

use crate::{
    http::{Address, Connection, resolve},
    playlist::{self, Media},
    usage,
};

/// Viewers join this far apart, so that the server is not asked for everything at once.
const JOIN_GAP: Duration = Duration::from_millis(20);
/// From the last join to the start of the measurement.
const SETTLE: Duration = Duration::from_secs(3);
/// After an error a viewer waits before it asks again, as players do.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// Kinds of errors told apart; more are counted as "other".
const ERROR_KINDS_MAX: usize = 16;
/// Parts of one follower remembered for their lateness: an hour of 200 ms parts.
const ARRIVALS_MAX: usize = 18_000;
/// Most viewers of one run: file descriptors, two each.
pub const VIEWERS_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the multivariant playlist.
    pub address: Address,
    pub viewers: usize,
    pub duration: Duration,
    /// Ask for delta updates once a whole playlist is known.
    pub delta: bool,
    pub gzip: bool,
    /// The server's process, for its CPU time and memory.
    pub pid: Option<String>,
}

#[derive(Default)]
struct Counts {
    playlists: u64,
    /// Of those, delta updates that left something out.
    deltas: u64,
    playlist_bytes: u64,
    playlist_wire_bytes: u64,
    parts: u64,
    part_bytes: u64,
    /// Times a follower had lost its place and joined anew.
    rejoins: u64,
    errors: HashMap<String, u64>,
    /// Of the variant, and of the audio rendition.
    lateness: [Durations; 2],
}

impl Counts {
    fn error(&mut self, what: &str, error: &std::io::Error) {
        let kind = format!("{what}: {error}");
        let known = self.errors.contains_key(&kind) || self.errors.len() < ERROR_KINDS_MAX;
        *self.errors.entry(if known { kind } else { "other".into() }).or_default() += 1;
    }
}

type Shared = Rc<RefCell<Counts>>;

/// Blocks until the run is over.
pub fn run(settings: &Settings) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, measure(settings.clone())))
}

async fn measure(settings: Settings) -> Value {
    let counts = Shared::default();
    let ready = Instant::now() + JOIN_GAP * settings.viewers as u32 + SETTLE;
    let until = ready + settings.duration;
    let mut viewers = JoinSet::new();
    for n in 0..settings.viewers {
        let viewer = Viewer { settings: settings.clone(), counts: counts.clone(), ready, until };
        viewers.spawn_local(async move {
            sleep(JOIN_GAP * n as u32).await;
            viewer.watch().await;
        });
    }
    sleep_until(ready.into()).await;
    counts.take();
    let (server, own) = (settings.pid.as_deref().and_then(usage::of), usage::of("self"));
    sleep_until(until.into()).await;
    let used = settings.pid.as_deref().map(|pid| since(server, usage::of(pid)));
    let own = since(own, usage::of("self"));
    viewers.join_all().await;
    summary(&settings, &counts.take(), used, &own)
}

/// CPU-seconds and context switches between two looks, memory at the second.
pub fn since(before: Option<usage::Usage>, after: Option<usage::Usage>) -> Value {
    before.zip(after).map_or(Value::Null, |(before, after)| {
        json!({
            "cpu_seconds": ((after.cpu_seconds - before.cpu_seconds) * 100.0).round() / 100.0,
            "resident_mib": (after.resident_mib * 10.0).round() / 10.0,
            "context_switches": after.context_switches.saturating_sub(before.context_switches),
        })
    })
}

fn summary(settings: &Settings, counts: &Counts, server: Option<Value>, own: &Value) -> Value {
    json!({
        "viewers": settings.viewers,
        "seconds": settings.duration.as_secs_f64(),
        "delta": settings.delta,
        "gzip": settings.gzip,
        "gbit": (counts.part_bytes + counts.playlist_wire_bytes) as f64 * 8e-9,
        "parts": counts.parts,
        "part_bytes": counts.part_bytes,
        "playlists": counts.playlists,
        "deltas": counts.deltas,
        "playlist_bytes": counts.playlist_bytes,
        "playlist_wire_bytes": counts.playlist_wire_bytes,
        "rejoins": counts.rejoins,
        "errors": counts.errors,
        "variant_lateness_ms": counts.lateness[0].summary(),
        "audio_lateness_ms": counts.lateness[1].summary(),
        "server": server,
        "own": own,
    })
}

#[derive(Clone)]
struct Viewer {
    settings: Settings,
    counts: Shared,
    ready: Instant,
    until: Instant,
}

impl Viewer {
    async fn watch(self) {
        let mut connection = Connection::new(&self.settings.address.host, self.settings.gzip);
        let tracks = loop {
            match connection.fetch(&self.settings.address.path).await {
                Ok(answer) => break playlist::tracks(&String::from_utf8_lossy(&answer.body), &answer.path),
                Err(error) => self.counts.borrow_mut().error("multivariant", &error),
            }
            if Instant::now() >= self.until {
                return;
            }
            sleep(ERROR_PAUSE).await;
        };
        let mut followers = JoinSet::new();
        for (rendition, track) in tracks.into_iter().enumerate().take(2) {
            let follower = Follower::new(self.clone(), rendition, track);
            followers.spawn_local(follower.follow());
        }
        followers.join_all().await;
    }
}

struct Follower {
    viewer: Viewer,
    /// 0: the variant; 1: the audio rendition.
    rendition: usize,
    connection: Connection,
    playlist: String,
    /// The newest part fetched.
    newest: Option<(u64, u64)>,
    media_seconds: f64,
    /// Arrival less media time, for the parts since the last join.
    arrivals: Vec<f64>,
    started: Instant,
}

impl Follower {
    fn new(viewer: Viewer, rendition: usize, playlist: String) -> Self {
        let connection = Connection::new(&viewer.settings.address.host, viewer.settings.gzip);
        Self {
            viewer,
            rendition,
            connection,
            playlist,
            newest: None,
            media_seconds: 0.0,
            arrivals: Vec::new(),
            started: Instant::now(),
        }
    }

    async fn follow(mut self) {
        let mut ask = self.playlist.clone();
        while Instant::now() < self.viewer.until {
            let listed = match self.connection.fetch(&ask).await {
                Ok(answer) => {
                    let mut counts = self.viewer.counts.borrow_mut();
                    counts.playlists += 1;
                    counts.playlist_bytes += answer.body.len() as u64;
                    counts.playlist_wire_bytes += answer.wire_bytes;
                    let listed = playlist::media(&String::from_utf8_lossy(&answer.body));
                    counts.deltas += u64::from(listed.skipped > 0);
                    listed
                }
                Err(error) => {
                    self.viewer.counts.borrow_mut().error("playlist", &error);
                    sleep(ERROR_PAUSE).await;
                    ask.clone_from(&self.playlist);
                    continue;
                }
            };
            self.fetch_new(&listed).await;
            if listed.ended {
                break;
            }
            ask = self.next_question(&listed);
        }
        self.settle();
    }

    fn next_question(&self, listed: &Media) -> String {
        let join = if self.playlist.contains('?') { '&' } else { '?' };
        let skip = if self.viewer.settings.delta && listed.can_skip { "&_HLS_skip=YES" } else { "" };
        let (msn, part) = listed.next;
        format!("{}{join}_HLS_msn={msn}&_HLS_part={part}{skip}", self.playlist)
    }

    async fn fetch_new(&mut self, listed: &Media) {
        let known = self.newest.and_then(|newest| listed.parts.iter().position(|part| (part.msn, part.index) == newest));
        let first = known.map_or_else(|| self.join(listed), |at| at + 1);
        if first == listed.parts.len() {
            // The server repeats itself when nobody publishes: do not spin.
            sleep(Duration::from_millis(5)).await;
        }
        for part in &listed.parts[first..] {
            match self.connection.fetch(&resolve(&self.playlist, &part.uri)).await {
                Ok(answer) => self.arrived(part.seconds, answer.wire_bytes),
                Err(error) => self.viewer.counts.borrow_mut().error("part", &error),
            }
            self.newest = Some((part.msn, part.index));
        }
    }

    /// Where a viewer starts: at the last independent part.
    fn join(&mut self, listed: &Media) -> usize {
        if self.newest.is_some() && !listed.parts.is_empty() {
            self.viewer.counts.borrow_mut().rejoins += 1;
        }
        self.settle();
        listed.parts.iter().rposition(|part| part.independent).unwrap_or(listed.parts.len().saturating_sub(1))
    }

    fn arrived(&mut self, seconds: f64, bytes: u64) {
        self.media_seconds += seconds;
        let now = Instant::now();
        if now >= self.viewer.ready && now < self.viewer.until && self.arrivals.len() < ARRIVALS_MAX {
            self.arrivals.push(now.duration_since(self.started).as_secs_f64() - self.media_seconds);
        }
        let mut counts = self.viewer.counts.borrow_mut();
        counts.parts += 1;
        counts.part_bytes += bytes;
    }

    fn settle(&mut self) {
        let soonest = self.arrivals.iter().copied().fold(f64::INFINITY, f64::min);
        let lateness = &mut self.viewer.counts.borrow_mut().lateness[self.rendition];
        self.arrivals.drain(..).for_each(|at| lateness.push(Duration::from_secs_f64(at - soonest)));
    }
}
