//! The listening end of SRT for one caller: `srtsrc ! appsink`, and what comes out goes to codecast as it is.
//!
//! It listens on loopback alone, where codecast hands the caller's datagrams on; SRT itself (repair of losses, order,
//! encryption) happens here. What the bytes mean is codecast's.

use std::{
    io::{Read, Write},
    net::UdpSocket,
    process::exit,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gst::{glib, prelude::*};
use transcode::wire::{
    Message, Reader,
    receive::{Heard, Listen},
};

use crate::chain;

const ELEMENTS: [&str; 2] = ["srtsrc", "appsink"];
/// Messages that wait for codecast to read them, a second of 3 Mbit/s. Behind that SRT's own buffer fills, and drops.
const HEARD_MAX: usize = 256;
/// How often losses are told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What libsrt says of its own end is no news.
static LEAVING: AtomicBool = AtomicBool::new(false);
/// Where that is told, once there is something to end.
static BUS: OnceLock<gst::Bus> = OnceLock::new();
/// libsrt crashes where the process ends around its threads, so it is closed first. It may take so long.
const LEAVE_WAIT: Duration = Duration::from_millis(500);
/// A port may be taken between our look and `srtsrc`'s.
const PORTS_TRIED: usize = 5;

pub fn run() -> Result<()> {
    let listen = read_order()?;
    let (heard, to_write) = mpsc::sync_channel(HEARD_MAX);
    let writer = thread::spawn(move || write(&to_write));
    gst::init().context("GStreamer cannot be loaded")?;
    if let Some(element) = ELEMENTS.into_iter().find(|element| gst::ElementFactory::find(element).is_none()) {
        heard.send(Heard::Failed(format!("GStreamer lacks {element}: install its \"bad\" plugins")))?;
    } else {
        match start(&listen, &heard) {
            Ok(pipeline) => {
                wait(&pipeline, &heard)?;
                // The caller has gone, so nothing is waited for.
                let _ = pipeline.set_state(gst::State::Null);
            }
            Err(error) => heard.send(Heard::Failed(format!("{error:#}")))?,
        }
    }
    drop(heard);
    // The last word is to be heard.
    let _ = writer.join();
    exit(0);
}

/// The only one. From then on the end of standard input ends this program.
fn read_order() -> Result<Listen> {
    let mut stdin = std::io::stdin().lock();
    let mut reader = Reader::<Listen>::default();
    let mut bytes = [0; 1024];
    let listen = loop {
        let length = stdin.read(&mut bytes).context("standard input cannot be read")?;
        if length == 0 {
            bail!("standard input ended before an order");
        }
        reader.buffer().extend_from_slice(&bytes[..length]);
        if let Some(listen) = reader.next_message()? {
            break listen;
        }
    };
    drop(stdin);
    thread::spawn(|| {
        let mut rest = [0; 64];
        while std::io::stdin().read(&mut rest).is_ok_and(|length| length > 0) {}
        LEAVING.store(true, Ordering::SeqCst);
        if let Some(bus) = BUS.get() {
            // Refused by one that is being closed already.
            let _ = bus.post(gst::message::Eos::new());
        }
        thread::sleep(LEAVE_WAIT);
        exit(0);
    });
    Ok(listen)
}

fn start(listen: &Listen, heard: &mpsc::SyncSender<Heard>) -> Result<gst::Pipeline> {
    let mut last = None;
    for _ in 0..PORTS_TRIED {
        let port = free_port()?;
        match open(listen, port, heard) {
            Ok(pipeline) => {
                heard.send(Heard::Listening { port })?;
                return Ok(pipeline);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no port was tried")?)
}

fn free_port() -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("loopback has no free port")?;
    Ok(socket.local_addr().context("it is bound")?.port())
}

fn open(listen: &Listen, port: u16, heard: &mpsc::SyncSender<Heard>) -> Result<gst::Pipeline> {
    let description = format!(
        "srtsrc name=source uri=srt://127.0.0.1:{port}?mode=listener latency={latency} keep-listening=false auto-reconnect=false \
         authentication=true \
         ! appsink name=sink {sink} max-buffers=64",
        latency = listen.latency_ms,
        sink = chain::SINK,
    );
    let pipeline = gst::parse::launch(&description).with_context(|| format!("no pipeline of {description}"))?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("several elements are a pipeline")?;
    let source = pipeline.by_name("source").context("it was just made")?;
    if let Some(passphrase) = &listen.passphrase {
        source.set_property("passphrase", passphrase.expose());
    }
    // Without `authentication`, which is not on whatever it says of itself, nobody is asked.
    let from_port = listen.from_port;
    source.connect("caller-connecting", false, move |values| {
        // A `GInetSocketAddress`, of which a port is all that is asked: on loopback everybody has the same address.
        let address = values.get(1).and_then(|value| value.get::<glib::Object>().ok());
        let port = address.filter(|address| address.has_property("port")).map(|address| address.property_value("port"));
        let port = port.and_then(|port| port.get::<u32>().ok());
        Some((port == Some(from_port.into())).to_value())
    });
    let sink = pipeline.by_name("sink").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok()).context("it was just made")?;
    let heard = heard.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let bytes = chain::payload(sample.buffer_owned().ok_or(gst::FlowError::Error)?)?;
                heard.send(Heard::Bytes(bytes)).map(|()| gst::FlowSuccess::Ok).map_err(|_| gst::FlowError::Eos)
            })
            .build(),
    );
    if pipeline.set_state(gst::State::Playing).is_err() {
        let _ = pipeline.set_state(gst::State::Null);
        bail!("SRT cannot listen on port {port}");
    }
    Ok(pipeline)
}

/// Until the caller has gone.
fn wait(pipeline: &gst::Pipeline, heard: &mpsc::SyncSender<Heard>) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let _ = BUS.set(bus.clone());
    let mut told = Instant::now();
    while !LEAVING.load(Ordering::SeqCst) {
        let message = bus.timed_pop(gst::ClockTime::from_mseconds(TELL_EVERY.as_millis() as u64));
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Eos(_)) => break,
            Some(gst::MessageView::Error(error)) if !LEAVING.load(Ordering::SeqCst) => {
                eprintln!("{} {}", error.error(), error.debug().unwrap_or_default());
                break;
            }
            Some(gst::MessageView::Error(_)) => break,
            _ => (),
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell_losses(pipeline, heard)?;
        }
    }
    if LEAVING.load(Ordering::SeqCst) {
        // Nobody listens any more.
        return Ok(());
    }
    tell_losses(pipeline, heard)?;
    heard.send(Heard::Gone)?;
    Ok(())
}

/// `srtsrc` counts for each caller; here is one at most.
fn tell_losses(pipeline: &gst::Pipeline, heard: &mpsc::SyncSender<Heard>) -> Result<()> {
    let Some(source) = pipeline.by_name("source") else { return Ok(()) };
    let callers = source.property::<gst::Structure>("stats").get::<glib::ValueArray>("callers");
    let caller = callers.ok().and_then(|callers| callers.first().and_then(|caller| caller.get::<gst::Structure>().ok()));
    let lost =
        caller.and_then(|caller| caller.get::<i32>("packets-received-lost").ok()).and_then(|lost| u64::try_from(lost).ok());
    lost.map_or(Ok(()), |lost| heard.send(Heard::Lost(lost)).context("nobody listens"))
}

fn write(heard: &mpsc::Receiver<Heard>) {
    let mut stdout = std::io::stdout().lock();
    while let Ok(heard) = heard.recv() {
        let frame = heard.encode();
        let written = stdout.write_all(&frame.head).and_then(|()| stdout.write_all(&frame.payload)).and_then(|()| stdout.flush());
        if written.is_err() {
            // codecast is gone.
            exit(0);
        }
    }
}
