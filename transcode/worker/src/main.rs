//! `codecast-transcode`: started by codecast, one for each stream that needs it; not for hand use. With `--self-test` it
//! says instead what works here (`self_test.rs`), with `--measure` what that costs (`measure.rs`).
//!
//! Orders come on standard input and are dealt out to lanes, each on its own thread; reports leave on
//! standard output; standard error is the log. `codecast-transcode receive` is the listening end of SRT instead. It ends
//! with its input, and on anything it cannot go on after: codecast starts another.

mod branch;
mod chain;
mod decoders;
mod encoders;
mod lane;
mod listener;
mod measure;
mod self_test;
mod sound;
mod steady;
mod thumbnail;
mod video;

use std::{
    io::{IsTerminal, Read, Write},
    process::exit,
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context, Result, bail};
use media_core::stream::Made;
use transcode::wire::{LANES, LaneId, Message, Order, Reader, Report};

use crate::{encoders::Encoders, lane::Lane};

/// Reports that wait to be written: behind that the encoders wait, and soon codecast sees that nothing is consumed.
const REPORTS_MAX: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--self-test"] => self_test::run(None),
        ["--self-test", element] => self_test::run(Some(element)),
        ["--measure"] => measure::run(),
        ["receive"] => run(listener::run),
        _ => run(serve),
    };
    if let Err(error) = done {
        eprintln!("{error:#}");
        exit(1);
    }
}

/// What codecast has started it for.
fn run(task: fn() -> Result<()>) -> Result<()> {
    if std::io::stdin().is_terminal() {
        bail!("codecast-transcode is started by codecast and does nothing by itself");
    }
    // A lane that panics would leave the others working for a stream that is half dead.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        told(info);
        exit(101);
    }));
    task()
}

/// All lanes, until standard input ends.
fn serve() -> Result<()> {
    gst::init().context("GStreamer cannot be loaded")?;
    let (reports, to_write) = mpsc::sync_channel(REPORTS_MAX);
    thread::spawn(move || write(&to_write));
    let all = [Made::Video, Made::Opus, Made::Aac, Made::Thumbnail];
    let missing = all.into_iter().flat_map(|made| missing(made).map(move |element| (made, element.to_owned()))).collect();
    reports.send(Report::Hello { missing })?;
    let encoders = Arc::<Encoders>::default();
    let lanes: [_; LANES] = std::array::from_fn(|id| {
        let (orders, to_do) = mpsc::channel();
        let lane = Lane::new(id as LaneId, Arc::clone(&encoders), reports.clone());
        thread::spawn(move || work(lane, &to_do));
        orders
    });
    read(|order| {
        let lane = match &order {
            Order::Make(lane, ..)
            | Order::Leave(lane, _)
            | Order::Track(lane, _)
            | Order::Sample(lane, _)
            | Order::End(lane)
            | Order::Keyframe(lane, _) => usize::from(*lane),
        };
        // Not bounded here: codecast sends no more than it has credit for.
        lanes[lane].send(order).context("a lane is gone")
    })?;
    // What is in the making is of no use to anybody now, so nothing is torn down.
    exit(0);
}

/// Of pictures one stands for all.
fn missing(made: Made) -> impl Iterator<Item = &'static str> {
    let elements = match made {
        Made::Video | Made::Rung(_) => video::ELEMENTS,
        Made::Opus => sound::OPUS_ELEMENTS,
        Made::Aac => sound::AAC_ELEMENTS,
        Made::Thumbnail => thumbnail::ELEMENTS,
    };
    let decoder = if made.is_picture() || made == Made::Thumbnail { decoders::lacks_h264() } else { None };
    let encoder = if made.is_picture() { encoders::lacks_h264() } else { None };
    elements.iter().copied().filter(|element| !decoders::is_installed(element)).chain(decoder).chain(encoder)
}

fn work(mut lane: Lane, orders: &mpsc::Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        if let Err(error) = lane.handle(order) {
            eprintln!("{error:#}");
            exit(1);
        }
    }
}

fn read(mut handle: impl FnMut(Order) -> Result<()>) -> Result<()> {
    let mut stdin = std::io::stdin().lock();
    let mut reader = Reader::<Order>::default();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = stdin.read(&mut bytes).context("standard input cannot be read")?;
        if length == 0 {
            return Ok(());
        }
        reader.buffer().extend_from_slice(&bytes[..length]);
        while let Some(order) = reader.next_message()? {
            handle(order)?;
        }
    }
}

fn write(reports: &mpsc::Receiver<Report>) {
    let mut stdout = std::io::stdout().lock();
    while let Ok(report) = reports.recv() {
        let frame = report.encode();
        let written = stdout.write_all(&frame.head).and_then(|()| stdout.write_all(&frame.payload)).and_then(|()| stdout.flush());
        if written.is_err() {
            // codecast is gone.
            exit(0);
        }
    }
}
