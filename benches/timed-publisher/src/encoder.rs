//! One child `ffmpeg` as encoder and nothing else: raw pictures into its input, coded access units
//! out of its output, each as soon as it is complete.
//!
//! One thread paints at the grid instants and writes, so a full pipe delays nobody else; another
//! reads. Pictures are fed by number; `slots` remembers which grid instant each number had, since
//! instants are skipped when the encoder does not keep up.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use crate::{
    flv::{self, Kind, Tag},
    picture::{Painter, Size},
};

/// Coded units waiting to be sent: two seconds at 30 fps. Full, the encoder waits, then instants
/// are skipped.
const UNITS_MAX: usize = 64;
/// Pictures remembered between painting and coding: x264's longest lookahead and reordering.
const SLOTS_MAX: usize = 512;
/// Pictures fed before the grid begins, so that the start of the encoder delays none that counts.
const WARM_UP_PICTURES: u64 = 4;
/// Longest wait for the encoder to be warm.
const WARM_UP_WAIT_MAX: Duration = Duration::from_secs(10);

/// Frames a second as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub numerator: u32,
    pub denominator: u32,
}

impl Rate {
    /// When frame `number` is due, counted from frame 0.
    pub fn at(self, number: u64) -> Duration {
        let nanos = u128::from(number) * u128::from(self.denominator) * 1_000_000_000 / u128::from(self.numerator);
        Duration::from_nanos(nanos as u64)
    }

    pub fn per_second(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    /// The number of the frame nearest to a time.
    fn nearest(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.per_second()).round() as u64
    }
}

impl std::str::FromStr for Rate {
    type Err = String;

    /// `30`, `30000/1001`; `29.97` and its kind are taken as the fraction they stand for.
    fn from_str(text: &str) -> Result<Self, String> {
        let (numerator, denominator) = match (text.split_once('/'), text) {
            (Some((n, d)), _) => (n.parse().unwrap_or(0), d.parse().unwrap_or(0)),
            (None, "23.976") => (24_000, 1001),
            (None, "29.97") => (30_000, 1001),
            (None, "59.94") => (60_000, 1001),
            (None, whole) => (whole.parse().unwrap_or(0), 1),
        };
        let rate = Self { numerator, denominator };
        let known = numerator > 0 && denominator > 0 && (1.0..=120.0).contains(&rate.per_second());
        known.then_some(rate).ok_or_else(|| format!("{text}: from 1 to 120 frames a second, as 30 or 30000/1001"))
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub size: Size,
    pub rate: Rate,
    pub gop_seconds: f64,
    pub kbps: u32,
    pub preset: String,
    /// Two B-frames and x264's own lookahead, instead of no delay.
    pub bframes: bool,
}

/// One coded access unit, or the decoder's parameters.
#[derive(Debug)]
pub struct Unit {
    pub tag: Tag,
    /// When it is shown, since the grid's start.
    pub pts: Duration,
    /// The grid instant of the picture in it.
    pub captured: Instant,
    pub painted: Instant,
    pub coded: Instant,
}

/// A picture that went in, until it comes out.
#[derive(Clone, Copy)]
struct Slot {
    number: u64,
    captured: Instant,
    painted: Instant,
}

#[derive(Default)]
pub struct Counters {
    pub late: AtomicU64,
    pub skipped: AtomicU64,
}

struct Shared {
    stop: AtomicBool,
    /// The oldest entry's picture number (as fed), and the entries from there on.
    slots: Mutex<(u64, VecDeque<Slot>)>,
    counters: Counters,
    /// Set when the last picture of the warm-up is out, coded.
    warm: AtomicBool,
}

/// The running encoder. Dropped, its child is killed by pid and its threads end.
pub struct Encoder {
    child: Child,
    shared: Arc<Shared>,
    /// The grid's start: monotonic, and the wall clock in milliseconds.
    pub started: Instant,
    pub started_wall_ms: u64,
    pub header: Tag,
    pub units: mpsc::Receiver<Unit>,
}

impl Encoder {
    /// Starts and warms the child, then starts the grid. `frames` pictures are due on it.
    pub fn start(settings: &Settings, frames: u64) -> Result<Self, String> {
        let mut child = spawn(settings)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("ffmpeg without pipes".into());
        };
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            slots: Mutex::new((0, VecDeque::new())),
            counters: Counters::default(),
            warm: AtomicBool::new(false),
        });
        let (units, receiver) = mpsc::channel(UNITS_MAX);
        let (headers, header) = std::sync::mpsc::sync_channel(1);
        let reading = Reading { rate: settings.rate, shared: shared.clone(), units, headers, first_ms: None };
        thread::spawn(move || reading.run(output));

        let mut painting = Painting::new(settings, input, shared.clone());
        let warm = painting.warm_up().and_then(|()| header.recv_timeout(WARM_UP_WAIT_MAX).map_err(|_| "no coded unit".into()));
        let header = match warm {
            Ok(header) => header,
            Err(error) => {
                end_child(&mut child);
                return Err(error);
            }
        };
        let started = Instant::now() + Duration::from_millis(20);
        thread::spawn(move || painting.run(started, frames));
        Ok(Self { child, shared, started, started_wall_ms: wall_ms(started), header, units: receiver })
    }

    pub fn late(&self) -> u64 {
        self.shared.counters.late.load(Relaxed)
    }

    pub fn skipped(&self) -> u64 {
        self.shared.counters.skipped.load(Relaxed)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        end_child(&mut self.child);
    }
}

fn end_child(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(settings: &Settings) -> Result<Child, String> {
    let gop = ((settings.gop_seconds * settings.rate.per_second()).round() as u64).max(1).to_string();
    let Rate { numerator, denominator } = settings.rate;
    let rate = format!("{}k", settings.kbps);
    let size = settings.size.to_string();
    let fps = format!("{numerator}/{denominator}");
    let first_key = format!("expr:eq(n,{WARM_UP_PICTURES})");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-probesize", "32"])
        .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size, "-r", &fps, "-i", "pipe:0"])
        .args(["-fps_mode", "passthrough", "-an", "-c:v", "libx264", "-preset", &settings.preset, "-pix_fmt", "yuv420p"])
        .args(["-g", &gop, "-keyint_min", &gop, "-sc_threshold", "0", "-force_key_frames", &first_key])
        .args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate]);
    match settings.bframes {
        true => command.args(["-bf", "2"]),
        false => command.args(["-tune", "zerolatency", "-bf", "0"]),
    };
    command
        .args(["-flvflags", "no_duration_filesize", "-flush_packets", "1", "-f", "flv", "pipe:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("ffmpeg does not start: {error}"))
}

/// The painting thread.
struct Painting {
    rate: Rate,
    painter: Painter,
    input: ChildStdin,
    shared: Arc<Shared>,
    fed: u64,
    /// With B-frames nothing comes out until the lookahead is full: do not wait for it.
    waits_for_units: bool,
}

impl Painting {
    fn new(settings: &Settings, input: ChildStdin, shared: Arc<Shared>) -> Self {
        let painter = Painter::new(settings.size);
        Self { rate: settings.rate, painter, input, shared, fed: 0, waits_for_units: !settings.bframes }
    }

    fn warm_up(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + WARM_UP_WAIT_MAX;
        for number in 0..WARM_UP_PICTURES {
            self.feed(number, Instant::now(), 0).map_err(|error| format!("ffmpeg ended: {error}"))?;
        }
        while self.waits_for_units && !self.shared.warm.load(Relaxed) {
            if Instant::now() > deadline {
                return Err("no coded unit within 10 s".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn run(mut self, started: Instant, frames: u64) {
        let half = self.rate.at(1) / 2;
        let mut number = 0;
        while number < frames && !self.shared.stop.load(Relaxed) {
            let due = started + self.rate.at(number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = due.elapsed();
            if late > half {
                self.shared.counters.late.fetch_add(1, Relaxed);
            }
            if self.feed(number, due, wall_ms(due)).is_err() {
                return; // the reading side tells why
            }
            let next = number + 1;
            number = next.max(self.behind(started));
            self.shared.counters.skipped.fetch_add((number - next).min(frames - next), Relaxed);
        }
    }

    /// The first instant that is not yet a whole interval past.
    fn behind(&self, started: Instant) -> u64 {
        let past = started.elapsed().saturating_sub(self.rate.at(1));
        (past.as_secs_f64() * self.rate.per_second()).ceil() as u64
    }

    fn feed(&mut self, number: u64, captured: Instant, wall_ms: u64) -> std::io::Result<()> {
        let painted = Instant::now();
        {
            let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.1.len() == SLOTS_MAX {
                slots.1.pop_front();
                slots.0 += 1;
            }
            slots.1.push_back(Slot { number, captured, painted });
        }
        self.fed += 1;
        let picture = self.painter.paint(self.fed, wall_ms);
        self.input.write_all(picture)
    }
}

/// The wall clock at a monotonic instant near now.
pub fn wall_ms(at: Instant) -> u64 {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let wall = if at > now { wall + (at - now) } else { wall - (now - at) };
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The reading thread.
struct Reading {
    rate: Rate,
    shared: Arc<Shared>,
    units: mpsc::Sender<Unit>,
    headers: std::sync::mpsc::SyncSender<Tag>,
    /// Presentation time of the very first picture: B-frames shift it.
    first_ms: Option<i64>,
}

impl Reading {
    fn run(mut self, mut output: ChildStdout) {
        let (mut reader, mut bytes) = (flv::Reader::default(), vec![0; 256 << 10]);
        while let Ok(n) = output.read(&mut bytes) {
            if n == 0 {
                return;
            }
            let coded = Instant::now();
            reader.push(&bytes[..n]);
            while let Ok(Some(tag)) = reader.next_tag() {
                if tag.is_sequence_header() {
                    let _ = self.headers.try_send(tag);
                } else if let Some(unit) = self.unit(tag, coded)
                    && self.units.blocking_send(unit).is_err()
                {
                    return;
                }
            }
        }
    }

    /// `None` for what was only to warm the encoder.
    fn unit(&mut self, tag: Tag, coded: Instant) -> Option<Unit> {
        if tag.kind != Kind::Video || !tag.is_media() {
            return None;
        }
        let (dts, composition) = (i64::from(tag.dts_ms), i64::from(tag.composition_ms()));
        let first = *self.first_ms.get_or_insert(dts + composition);
        let index = self.rate.nearest(Duration::from_millis(u64::try_from(dts + composition - first).ok()?));
        if index + 1 >= WARM_UP_PICTURES {
            self.shared.warm.store(true, Relaxed);
        }
        let slot = self.slot(index)?;
        (index >= WARM_UP_PICTURES).then(|| {
            let pts = self.rate.at(slot.number);
            Unit { pts, captured: slot.captured, painted: slot.painted, coded, tag }
        })
    }

    fn slot(&self, index: u64) -> Option<Slot> {
        let slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.1.get(usize::try_from(index.checked_sub(slots.0)?).ok()?).copied()
    }
}
