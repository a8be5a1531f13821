//! Publishes until done, then prints one line of JSON. Exit code 1 where the server refused or
//! ended it, or the encoder failed; the reason in words on standard error too.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use serde_json::{Value, json};
use timed_publisher::{
    clip::{self, Clip},
    encoder::{self, Rate},
    live,
    picture::Size,
    report::{Durations, Report},
    rtmp::Target,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

/// Longest run: a day. Everything here ends by itself.
const SECONDS_MAX: f64 = 86_400.0;
/// Copies of a clip: above, one process is no longer the right load generator.
const COPIES_MAX: usize = 1000;
/// Copies start this far apart, so that their keyframes do not all arrive at once.
const COPY_GAP: Duration = Duration::from_millis(37);
/// How soon it is noticed that the parent process is gone.
const PARENT_LOOK: Duration = Duration::from_millis(500);

/// Publishes RTMP with the capture time in every picture, or an FLV in a loop.
#[derive(Parser)]
struct Options {
    /// rtmp://host:port/app
    #[arg(long)]
    url: String,
    /// The stream key; with --copies it contains {n}, which becomes the copy's number.
    #[arg(long)]
    key: String,
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Publish this FLV in a loop instead of painting.
    #[arg(long)]
    file: Option<PathBuf>,
    /// How many publishers of that file, each with its own key.
    #[arg(long, default_value_t = 1, requires = "file")]
    copies: usize,
    #[arg(long, default_value = "640x360")]
    size: Size,
    /// 30, 25, 29.97, 30000/1001
    #[arg(long, default_value = "30")]
    fps: Rate,
    #[arg(long, default_value_t = 2.0)]
    gop_seconds: f64,
    #[arg(long, default_value_t = 800)]
    kbps: u32,
    /// x264's preset.
    #[arg(long, default_value = "veryfast")]
    preset: String,
    /// Two B-frames and lookahead, with the delay they bring.
    #[arg(long)]
    bframes: bool,
    #[arg(long)]
    no_audio: bool,
    #[arg(long, conflicts_with = "no_audio")]
    no_video: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.1..=SECONDS_MAX).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "from 0.1 to 86400".into())
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let (stopping, stop) = watch::channel(false);
    tokio::spawn(watch_for_the_end(stopping));
    let outcome = match &options.file {
        Some(path) => publish_copies(&options, path, stop).await,
        None => publish_live(&options, stop).await,
    };
    match outcome {
        Ok((line, failure)) => {
            println!("{line}");
            failure.map_or(ExitCode::SUCCESS, |failure| fail(&failure))
        }
        Err(error) => fail(&error),
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("timed-publisher: {reason}");
    ExitCode::FAILURE
}

type Outcome = Result<(Value, Option<String>), String>;

async fn publish_live(options: &Options, stop: watch::Receiver<bool>) -> Outcome {
    let settings = live::Settings {
        encoder: encoder::Settings {
            size: options.size,
            rate: options.fps,
            gop_seconds: options.gop_seconds.clamp(0.1, 60.0),
            kbps: options.kbps,
            preset: options.preset.clone(),
            bframes: options.bframes,
        },
        video: !options.no_video,
        audio: !options.no_audio,
        duration: options.seconds,
    };
    let report = live::publish(&settings, &Target::new(&options.url, &options.key)?, stopped(stop)).await;
    Ok((report.to_json(), failure(&report)))
}

async fn publish_copies(options: &Options, path: &std::path::Path, stop: watch::Receiver<bool>) -> Outcome {
    if options.copies == 0 || options.copies > COPIES_MAX || (options.copies > 1 && !options.key.contains("{n}")) {
        return Err(format!("--copies: from 1 to {COPIES_MAX}, and more than one need {{n}} in --key"));
    }
    let clip = Arc::new(Clip::load(path)?);
    let mut copies = Vec::new();
    for n in 0..options.copies {
        let target = Target::new(&options.url, &options.key.replace("{n}", &n.to_string()))?;
        let (clip, stop, duration) = (clip.clone(), stop.clone(), options.seconds);
        copies.push(tokio::spawn(async move {
            sleep(COPY_GAP * n as u32).await;
            clip::publish(clip, &target, duration, stopped(stop)).await
        }));
    }
    let mut reports = Vec::new();
    for copy in copies {
        reports.push(copy.await.map_err(|error| error.to_string())?);
    }
    let failure = reports.iter().find_map(failure);
    let line = match &reports[..] {
        [one] => one.to_json(),
        many => together(many),
    };
    Ok((line, failure))
}

/// Many reports as one line: sums, all delays, each reason that was not an orderly end.
fn together(reports: &[Report]) -> Value {
    let sum = |field: fn(&Report) -> u64| reports.iter().map(field).sum::<u64>();
    let mut delay = Durations::default();
    reports.iter().for_each(|report| delay.extend(&report.source_delay));
    json!({
        "copies": reports.len(),
        "ok": reports.iter().all(|r| r.end.is_orderly()),
        "reasons": reports.iter().filter_map(failure).collect::<Vec<_>>(),
        "video_frames": sum(|r| r.video_frames),
        "audio_frames": sum(|r| r.audio_frames),
        "late_frames": sum(|r| r.late_frames),
        "bytes": sum(|r| r.bytes),
        "source_delay_ms": delay.summary(),
    })
}

fn failure(report: &Report) -> Option<String> {
    (!report.end.is_orderly()).then(|| report.end.to_string())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await;
}

/// SIGINT, SIGTERM, or a parent that is gone: nobody is left to read the report.
async fn watch_for_the_end(stopping: watch::Sender<bool>) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return;
    };
    let parent = std::os::unix::process::parent_id();
    let orphaned = async {
        while std::os::unix::process::parent_id() == parent {
            sleep(PARENT_LOOK).await;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = orphaned => {}
    }
    let _ = stopping.send(true);
}
