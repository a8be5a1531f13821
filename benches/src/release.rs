//! How long from the last byte of a part's last picture, given to the socket, to the first byte of
//! the held playlist that releases it: with one waiting viewer, then with many.
//!
//! It publishes itself, so it knows when each picture was sent; the playlist's durations tell
//! which picture was a part's last. A thread publishes, another views, so that neither waits for
//! the other's work. Pictures are counted from the first part of the presentation, so the stream
//! must be fresh: nobody has published to it since the server started.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use timed_publisher::{
    clip::{self, Clip},
    flv::Kind,
    report::{Durations, Report},
    rtmp::Target,
};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::{JoinSet, LocalSet},
    time::{sleep, sleep_until},
};

use crate::{
    follow::since,
    http::{Address, Connection},
    playlist, usage,
};

/// From the start of publishing until the first playlist must be there.
const PLAYABLE_WAIT_MAX: Duration = Duration::from_secs(10);
const PLAYABLE_POLL: Duration = Duration::from_millis(50);
/// Between the joins of viewers.
const JOIN_GAP: Duration = Duration::from_millis(5);
/// After the last join, before anything counts.
const SETTLE: Duration = Duration::from_secs(2);
/// Pictures of which the time is kept: an hour at 60 fps.
const PICTURES_MAX: usize = 216_000;

pub struct Settings {
    pub clip: Arc<Clip>,
    pub target: Target,
    /// Of the multivariant playlist.
    pub address: Address,
    /// Viewers of each phase, growing.
    pub viewers: Vec<usize>,
    /// How long each phase is measured.
    pub duration: Duration,
    pub fps: f64,
    pub pid: Option<String>,
}

/// When each picture went to the socket.
type Sent = Arc<Mutex<Vec<Instant>>>;

/// Blocks until the run is over: at most the phases, their joins, and ten seconds.
pub fn run(settings: &Settings) -> Result<Value> {
    let sent = Sent::default();
    let (stop, stopped) = oneshot::channel();
    let publisher = publisher(settings, sent.clone(), stopped);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, watch(settings, sent));
    let _ = stop.send(());
    let report = publisher.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))??;
    if !report.end.is_orderly() {
        bail!("publisher: {}", report.end);
    }
    outcome
}

fn publisher(settings: &Settings, sent: Sent, stopped: oneshot::Receiver<()>) -> std::thread::JoinHandle<Result<Report>> {
    let (clip, target) = (settings.clip.clone(), settings.target.clone());
    let joins: Duration = settings.viewers.iter().map(|n| JOIN_GAP * *n as u32 + SETTLE + settings.duration).sum();
    let longest = joins + PLAYABLE_WAIT_MAX + Duration::from_secs(10);
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stop = async { drop(stopped.await) };
        Ok(runtime.block_on(clip::publish_watched(clip, &target, longest, stop, |tag, at| {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            if tag.kind == Kind::Video && sent.len() < PICTURES_MAX {
                sent.push(at);
            }
        })))
    })
}

/// The first byte of the playlist that answered a question for this part.
struct Release {
    part: (u64, u64),
    first_byte: Instant,
    viewer: usize,
}

#[derive(Default)]
struct Seen {
    releases: Vec<Release>,
    /// What follows the part that was asked for: read once for all viewers, so that reading does
    /// not delay their stamps.
    next: HashMap<(u64, u64), (u64, u64)>,
    /// Number of the last picture of each part, by the first viewer.
    last_picture: HashMap<(u64, u64), usize>,
    pictures: f64,
    errors: u64,
}

impl Seen {
    /// Of the part that answers a question: one past a segment's end is the first of the next.
    fn last_picture(&self, (msn, part): (u64, u64)) -> Option<usize> {
        self.last_picture.get(&(msn, part)).or_else(|| self.last_picture.get(&(msn + 1, 0))).copied()
    }
}

async fn watch(settings: &Settings, sent: Sent) -> Result<Value> {
    let track = playable(settings).await?;
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut viewers = JoinSet::new();
    let mut phases = Vec::new();
    for most in &settings.viewers {
        for number in viewers.len()..*most {
            let watching = View { host: settings.address.host.clone(), track: track.clone(), number, fps: settings.fps };
            viewers.spawn_local(watching.run(seen.clone()));
            sleep(JOIN_GAP).await;
        }
        sleep(SETTLE).await;
        let (from, used) = (Instant::now(), settings.pid.as_deref().and_then(usage::of));
        let until = from + settings.duration;
        sleep_until(until.into()).await;
        let used = settings.pid.as_deref().map(|pid| since(used, usage::of(pid)));
        phases.push((*most, from, until, used));
    }
    viewers.shutdown().await;
    let (seen, sent) = (seen.borrow(), sent.lock().unwrap_or_else(PoisonError::into_inner));
    let phases: Vec<Value> = phases.into_iter().map(|phase| summary(phase, &seen, &sent)).collect();
    Ok(json!({"phases": phases, "errors": seen.errors}))
}

/// Waits for the first media playlist; its address.
async fn playable(settings: &Settings) -> Result<String> {
    let mut connection = Connection::new(&settings.address.host, false);
    let deadline = Instant::now() + PLAYABLE_WAIT_MAX;
    loop {
        let answer = connection.fetch(&settings.address.path).await;
        match answer.map(|answer| playlist::tracks(&String::from_utf8_lossy(&answer.body), &answer.path)) {
            Ok(tracks) if !tracks.is_empty() => return Ok(tracks[0].clone()),
            Err(error) if Instant::now() > deadline => return Err(error).context("the stream was not playable within 10 s"),
            Ok(_) if Instant::now() > deadline => bail!("no variant within 10 s"),
            _ => sleep(PLAYABLE_POLL).await,
        }
    }
}

struct View {
    host: String,
    track: String,
    number: usize,
    fps: f64,
}

impl View {
    /// Until it is aborted at the end of the last phase.
    async fn run(self, seen: Rc<RefCell<Seen>>) {
        let mut connection = Connection::new(&self.host, false);
        let mut asked = None;
        loop {
            let path = match asked {
                Some((msn, part)) => format!("{}?_HLS_msn={msn}&_HLS_part={part}", self.track),
                None => self.track.clone(),
            };
            match connection.fetch(&path).await {
                Ok(answer) => {
                    let mut seen = seen.borrow_mut();
                    if let Some(part) = asked {
                        seen.releases.push(Release { part, first_byte: answer.first_byte, viewer: self.number });
                    }
                    asked = Some(self.next(asked, &answer.body, &mut seen));
                }
                Err(_) => {
                    seen.borrow_mut().errors += 1;
                    asked = None;
                    sleep(PLAYABLE_POLL).await;
                }
            }
        }
    }

    fn next(&self, asked: Option<(u64, u64)>, body: &[u8], seen: &mut Seen) -> (u64, u64) {
        if let Some(next) = asked.and_then(|asked| seen.next.get(&asked)).filter(|_| self.number > 0) {
            return *next;
        }
        let listed = playlist::media(&String::from_utf8_lossy(body));
        if self.number == 0 {
            for part in &listed.parts {
                let place = (part.msn, part.index);
                if !seen.last_picture.contains_key(&place) {
                    seen.pictures += part.seconds * self.fps;
                    let last = (seen.pictures.round() as usize).saturating_sub(1);
                    seen.last_picture.insert(place, last);
                }
            }
        }
        // Only what answers the question is remembered: a repeat, given when the publisher is late, is not.
        if let Some(asked) = asked.filter(|asked| *asked < listed.next) {
            seen.next.insert(asked, listed.next);
        }
        listed.next
    }
}

fn summary((viewers, from, until, server): (usize, Instant, Instant, Option<Value>), seen: &Seen, sent: &[Instant]) -> Value {
    let (mut all, mut first, mut early, mut unknown) = (Durations::default(), HashMap::new(), 0u64, 0u64);
    let counted = seen.releases.iter().filter(|release| release.viewer < viewers);
    for release in counted.filter(|release| release.first_byte >= from && release.first_byte < until) {
        let Some(at) = seen.last_picture(release.part).and_then(|last| sent.get(last)) else {
            unknown += 1;
            continue;
        };
        match release.first_byte.checked_duration_since(*at) {
            Some(latency) => {
                all.push(latency);
                let soonest = first.entry(release.part).or_insert(latency);
                *soonest = latency.min(*soonest);
            }
            None => early += 1,
        }
    }
    let mut soonest = Durations::default();
    first.values().for_each(|latency| soonest.push(*latency));
    json!({
        "viewers": viewers,
        "release_ms": all.summary(),
        "first_viewer_ms": soonest.summary(),
        // Neither should be: a playlist before its part, a part that the durations do not explain.
        "before_its_part": early,
        "unknown_parts": unknown,
        "server": server,
    })
}
