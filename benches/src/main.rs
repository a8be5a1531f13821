//! `codecast-load`: publishers and viewers in number, and the time a part takes through the server.
//! Each run ends by itself and prints one line of JSON.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use benches::{
    clip::{self, Folder, Recipe},
    follow::{self, since},
    http::Address,
    release, usage,
};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use timed_publisher::{
    clip::{self as loops, Clip},
    picture::Size,
    report::{Durations, Report},
    rtmp::Target,
};
use tokio::time::sleep;

/// Longest run: an hour.
const SECONDS_MAX: f64 = 3600.0;
/// Publishers of one run: above, one process is no longer the right load generator.
const PUBLISHERS_MAX: usize = 1000;
/// Publishers start this far apart, so that their keyframes do not all arrive at once.
const PUBLISHER_GAP: Duration = Duration::from_millis(37);
/// After the last start, before the server's use is measured.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Parser)]
#[command(about = "Load for CodeCast: every run ends by itself and prints one line of JSON")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the synthetic clip as FLV, for several runs with the same bytes.
    Clip {
        #[command(flatten)]
        clip: ClipOptions,
        #[arg(long)]
        out: PathBuf,
    },
    /// N publishers of one clip, in real time.
    Publish {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        clip: ClipOptions,
        #[command(flatten)]
        run: Run,
        /// How many; with more than one, --key contains {n}, which becomes the number.
        #[arg(long, default_value_t = 1)]
        publishers: usize,
    },
    /// N LL-HLS viewers at the live edge of a stream that somebody publishes.
    Follow {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        run: Run,
        #[arg(long, default_value_t = 1)]
        viewers: usize,
        /// Ask for delta updates.
        #[arg(long)]
        delta: bool,
        #[arg(long)]
        gzip: bool,
    },
    /// From a part's last byte in to the first byte of its playlist out, publishing itself.
    Release {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        clip: ClipOptions,
        #[command(flatten)]
        run: Run,
        /// Waiting viewers, phase by phase.
        #[arg(long, value_delimiter = ',', default_value = "1,500")]
        viewers: Vec<usize>,
    },
}

#[derive(Args)]
struct Server {
    /// The server's ready file: stands for all addresses, the stream and the key.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// rtmp://host:port/app
    #[arg(long)]
    rtmp: Option<String>,
    #[arg(long)]
    key: Option<String>,
    /// Of a multivariant playlist: http://host:port/live/demo/index.m3u8
    #[arg(long)]
    playlist: Option<Address>,
}

#[derive(Args)]
struct Run {
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The server's process: its CPU-seconds and memory are reported.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Args)]
struct ClipOptions {
    /// An FLV instead of a synthetic clip.
    #[arg(long)]
    file: Option<PathBuf>,
    #[arg(long, default_value = "1280x720")]
    size: Size,
    /// Also of --file, where pictures are counted.
    #[arg(long, default_value_t = 30)]
    fps: u32,
    #[arg(long, default_value_t = 2)]
    gop_seconds: u32,
    #[arg(long, default_value_t = 2500)]
    kbps: u32,
    #[arg(long, default_value_t = 0)]
    bframes: u32,
    #[arg(long, default_value_t = 10)]
    clip_seconds: u32,
}

fn main() -> ExitCode {
    match run(&Options::parse().command) {
        Ok((line, ok)) => {
            println!("{line}");
            if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("codecast-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The line to print, and whether all went well.
fn run(command: &Command) -> Result<(Value, bool)> {
    match command {
        Command::Clip { clip, out } => {
            clip::make(&clip.recipe(), out)?;
            let bytes = std::fs::metadata(out).with_context(|| format!("cannot read {}", out.display()))?.len();
            Ok((json!({"bytes": bytes, "seconds": clip.clip_seconds}), true))
        }
        Command::Publish { server, clip, run, publishers } => {
            let (clip, duration) = (clip.load()?, run.duration()?);
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(publish(server, clip, duration, run.pid(), *publishers))
        }
        Command::Follow { server, run, viewers, delta, gzip } => {
            let viewers = bounded(*viewers)?;
            let (address, duration) = (server.playlist()?, run.duration()?);
            let settings = follow::Settings { address, viewers, duration, delta: *delta, gzip: *gzip, pid: run.pid() };
            let line = follow::run(&settings)?;
            let ok = line["errors"].as_object().is_none_or(serde_json::Map::is_empty);
            Ok((line, ok))
        }
        Command::Release { server, clip, run, viewers } => {
            let (address, target, duration) = (server.playlist()?, server.target(0)?, run.duration()?);
            let viewers = viewers.iter().map(|n| bounded(*n)).collect::<Result<Vec<_>>>()?;
            let (pid, fps) = (run.pid(), f64::from(clip.fps));
            let settings = release::Settings { clip: clip.load()?, target, address, viewers, duration, fps, pid };
            Ok((release::run(&settings)?, true))
        }
    }
}

fn bounded(viewers: usize) -> Result<usize> {
    match viewers {
        1..=follow::VIEWERS_MAX => Ok(viewers),
        _ => bail!("from 1 to {} viewers", follow::VIEWERS_MAX),
    }
}

async fn publish(
    server: &Server,
    clip: Arc<Clip>,
    duration: Duration,
    pid: Option<String>,
    publishers: usize,
) -> Result<(Value, bool)> {
    let many_need_keys = publishers > 1 && !server.key.as_ref().is_some_and(|key| key.contains("{n}"));
    if publishers == 0 || publishers > PUBLISHERS_MAX || many_need_keys {
        bail!("from 1 to {PUBLISHERS_MAX} publishers, and more than one need {{n}} in --key");
    }
    let mut running = Vec::new();
    for n in 0..publishers {
        let (clip, target) = (clip.clone(), server.target(n)?);
        running.push(tokio::spawn(async move { loops::publish(clip, &target, duration, std::future::pending()).await }));
        sleep(PUBLISHER_GAP).await;
    }
    let watching = tokio::spawn(watch(pid, duration.saturating_sub(PUBLISHER_GAP * publishers as u32)));
    let mut reports = Vec::new();
    for one in running {
        reports.push(one.await?);
    }
    let server = match reports.iter().all(|report| report.end.is_orderly()) {
        true => watching.await?,
        false => Value::Null,
    };
    Ok(published(&reports, server))
}

/// The server's use while all publish: from shortly after the last start to shortly before the first end.
async fn watch(pid: Option<String>, duration: Duration) -> Value {
    let Some(pid) = pid else { return Value::Null };
    sleep(SETTLE).await;
    let before = usage::of(&pid);
    let measured = duration.saturating_sub(SETTLE + Duration::from_millis(500));
    sleep(measured).await;
    let mut used = since(before, usage::of(&pid));
    let per_minute = used["cpu_seconds"].as_f64().map(|s| (s * 6000.0 / measured.as_secs_f64()).round() / 100.0);
    used["cpu_seconds_per_minute"] = json!(per_minute);
    used["measured_seconds"] = json!(measured.as_secs_f64());
    used
}

fn published(reports: &[Report], server: Value) -> (Value, bool) {
    let sum = |field: fn(&Report) -> u64| reports.iter().map(field).sum::<u64>();
    let mut delay = Durations::default();
    reports.iter().for_each(|report| delay.extend(&report.source_delay));
    let failures: Vec<String> = reports.iter().filter(|r| !r.end.is_orderly()).map(|r| r.end.to_string()).collect();
    let ok = failures.is_empty();
    let line = json!({
        "publishers": reports.len(),
        "failures": failures,
        "video_frames": sum(|r| r.video_frames),
        "audio_frames": sum(|r| r.audio_frames),
        "late_frames": sum(|r| r.late_frames),
        "bytes": sum(|r| r.bytes),
        "send_delay_ms": delay.summary(),
        "server": server,
    });
    (line, ok)
}

impl Server {
    fn ready(&self, field: &str) -> Result<Option<String>> {
        let Some(path) = &self.ready_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let ready: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        Ok(ready[field].as_str().map(str::to_owned))
    }

    fn target(&self, number: usize) -> Result<Target> {
        let url = self.rtmp.clone().map_or_else(|| self.ready("rtmp"), |url| Ok(Some(url)))?.context("--rtmp or --ready-file")?;
        let key =
            self.key.clone().map_or_else(|| self.ready("stream_key"), |key| Ok(Some(key)))?.context("--key or --ready-file")?;
        Target::new(&url, &key.replace("{n}", &number.to_string())).map_err(anyhow::Error::msg)
    }

    fn playlist(&self) -> Result<Address> {
        if let Some(address) = &self.playlist {
            return Ok(address.clone());
        }
        let http = self.ready("http")?.context("--playlist or --ready-file")?;
        let stream = self.ready("stream")?.context("the ready file names no stream")?;
        format!("{}/live/{stream}/index.m3u8", http.trim_end_matches('/')).parse().map_err(anyhow::Error::msg)
    }
}

impl Run {
    fn duration(&self) -> Result<Duration> {
        match self.seconds {
            seconds if (1.0..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => bail!("--seconds: from 1 to 3600"),
        }
    }

    fn pid(&self) -> Option<String> {
        self.pid.map(|pid| pid.to_string())
    }
}

impl ClipOptions {
    fn load(&self) -> Result<Arc<Clip>> {
        if let Some(path) = &self.file {
            return Ok(Arc::new(Clip::load(path).map_err(anyhow::Error::msg)?));
        }
        let folder = Folder::new()?;
        let file = folder.file("clip.flv");
        clip::make(&self.recipe(), &file)?;
        Ok(Arc::new(Clip::load(&file).map_err(anyhow::Error::msg)?))
    }

    /// Within what x264 and a temporary folder can take.
    fn recipe(&self) -> Recipe {
        let fps = self.fps.clamp(1, 120);
        Recipe {
            size: self.size,
            fps,
            gop_frames: fps * self.gop_seconds.clamp(1, 20),
            kbps: self.kbps.clamp(50, 100_000),
            seconds: self.clip_seconds.clamp(1, 120),
            bframes: self.bframes.min(4),
        }
    }
}
