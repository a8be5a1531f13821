//! What every pipeline here has in common: it starts, it fails or gives out what it holds, it stops.
//!
//! Nothing waits for a clock or a state change: no sink is ready before the first Sample is pushed.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, SyncSender},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use gst::prelude::*;
use media_core::{Timescale, Timestamp};
use transcode::{
    sound::NANOS,
    wire::{Coded, LaneId, Report},
};

/// How long a pipeline may take to give out what it holds.
const FINISH_WAIT: Duration = Duration::from_secs(1);
/// GStreamer's times begin at 0; ours may lie before the first one, by as much as encoders reorder and delay.
const LEAD_NS: i64 = 1_000_000_000;

/// `source` for every appsrc, `sink` for every appsink: live, unbounded (codecast's credit bounds it), on no clock.
pub const SOURCE: &str = "is-live=true format=time do-timestamp=false block=false max-time=0 max-bytes=0 max-buffers=0";
pub const SINK: &str = "sync=false async=false qos=false enable-last-sample=false";

pub struct Chain {
    pipeline: gst::Pipeline,
    failed: Arc<OnceLock<Failure>>,
}

/// The first error of a pipeline.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The element's name in the pipeline.
    pub element: String,
    pub why: String,
}

impl Chain {
    pub fn new(description: &str) -> Result<Self> {
        let pipeline = gst::parse::launch(description).with_context(|| format!("no pipeline of {description}"))?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("several elements are a pipeline")?;
        let failed = Arc::new(OnceLock::new());
        let fails = Arc::clone(&failed);
        // By a sync handler, so there is no main loop.
        pipeline.bus().context("a pipeline has a bus")?.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => {
                    eprintln!("{} {}", error.error(), error.debug().unwrap_or_default());
                    let element = message.src().map_or_else(String::new, |source| source.name().into());
                    // What follows from it has errors of its own.
                    let _ = fails.set(Failure { element, why: error.error().to_string() });
                }
                gst::MessageView::Warning(warning) => eprintln!("{} {}", warning.error(), warning.debug().unwrap_or_default()),
                _ => (),
            }
            gst::BusSyncReply::Drop
        });
        Ok(Self { pipeline, failed })
    }

    pub fn element<E: IsA<gst::Element>>(&self, name: &str) -> Result<E> {
        self.pipeline.by_name(name).and_then(|element| element.downcast().ok()).with_context(|| format!("no element {name}"))
    }

    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    pub fn start(&self) -> Result<()> {
        self.pipeline.set_state(gst::State::Playing).map(|_| ()).context("the pipeline does not start")
    }

    /// Nothing more comes out of it.
    pub fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.failed.get()
    }

    /// Lets everything out; gives what the sink says at its end.
    pub fn finish<T>(self, source: &gst_app::AppSrc, ended: &mpsc::Receiver<T>) -> Option<T> {
        self.finish_all(source, &[ended]).pop()
    }

    /// The same of several sinks, of those that have come to their end.
    pub fn finish_all<T>(self, source: &gst_app::AppSrc, ended: &[&mpsc::Receiver<T>]) -> Vec<T> {
        if self.has_failed() || source.end_of_stream().is_err() {
            return Vec::new();
        }
        let mut wait = FINISH_WAIT;
        let mut ends = Vec::with_capacity(ended.len());
        for ended in ended {
            match ended.recv_timeout(wait) {
                Ok(end) => ends.push(end),
                // The others have had their time as well.
                Err(_) => wait = Duration::ZERO,
            }
        }
        if ends.len() < ended.len() {
            eprintln!("a pipeline did not give out all that it held");
        }
        ends
    }
}

/// The way into a pipeline. Codecast gets a receipt for each Sample: when it leaves the queue, or when the run is over.
pub struct Intake {
    pub source: gst_app::AppSrc,
    lane: LaneId,
    owed: Arc<AtomicU32>,
    reports: SyncSender<Report>,
}

impl Intake {
    pub fn new(chain: &Chain, caps: &gst::Caps, lane: LaneId, reports: SyncSender<Report>) -> Result<Self> {
        let source: gst_app::AppSrc = chain.element("source")?;
        source.set_caps(Some(caps));
        let owed = Arc::new(AtomicU32::new(0));
        let (counted, receipts) = (Arc::clone(&owed), reports.clone());
        source.static_pad("src").context("a source has a pad")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counted.fetch_sub(1, Ordering::Relaxed);
            // Where nobody reads reports, the process is about to end.
            let _ = receipts.send(Report::Consumed(lane, 1));
            gst::PadProbeReturn::Ok
        });
        Ok(Self { source, lane, owed, reports })
    }

    pub fn push(&self, coded: &Coded, clock: Clock) {
        self.owed.fetch_add(1, Ordering::Relaxed);
        // Refused where the pipeline has failed, which is seen with the next Sample.
        let _ = self.source.push_buffer(buffer(coded, clock));
    }

    /// After its pipeline is gone.
    pub fn settle(self) {
        let owed = self.owed.load(Ordering::Relaxed);
        if owed > 0 {
            let _ = self.reports.send(Report::Consumed(self.lane, owed));
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // An error here was told on the bus.
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

/// Between the source's times and GStreamer's, exactly.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base_ns: i64,
}

impl Clock {
    pub fn starting_with(first: &Coded) -> Self {
        Self { base_ns: first.dts.min(first.pts).ticks_in(NANOS).saturating_sub(LEAD_NS) }
    }

    pub fn inward(self, at: Timestamp) -> gst::ClockTime {
        gst::ClockTime::from_nseconds(u64::try_from(at.ticks_in(NANOS).saturating_sub(self.base_ns)).unwrap_or(0))
    }

    pub fn outward(self, at: gst::ClockTime, scale: Timescale) -> Timestamp {
        Timestamp::new(i64::try_from(at.nseconds()).unwrap_or(i64::MAX).saturating_add(self.base_ns), NANOS).to(scale)
    }
}

/// A buffer with a Sample's bytes and times, without a copy.
pub fn buffer(coded: &Coded, clock: Clock) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(coded.payload.clone());
    let fields = buffer.get_mut().expect("a new buffer is not shared");
    fields.set_pts(clock.inward(coded.pts));
    fields.set_dts(clock.inward(coded.dts));
    if !coded.keyframe {
        fields.set_flags(gst::BufferFlags::DELTA_UNIT);
    }
    buffer
}

/// What an appsink has, and its caps.
pub fn pull(sink: &gst_app::AppSink) -> Result<(gst::Buffer, gst::Caps, gst::Segment), gst::FlowError> {
    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
    let (buffer, caps) = (sample.buffer_owned(), sample.caps_owned());
    let segment = sample.segment().cloned().ok_or(gst::FlowError::Error)?;
    Ok((buffer.ok_or(gst::FlowError::Error)?, caps.ok_or(gst::FlowError::NotNegotiated)?, segment))
}

/// A buffer's bytes, without a copy.
pub fn payload(buffer: gst::Buffer) -> Result<Bytes, gst::FlowError> {
    let mapped = buffer.into_mapped_buffer_readable().map_err(|_| gst::FlowError::Error)?;
    Ok(Bytes::from_owner(mapped))
}

/// The decoder configuration that a codec's caps carry.
pub fn codec_data(caps: &gst::Caps) -> Option<Bytes> {
    let data = caps.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
    let bytes = data.map_readable().ok()?;
    Some(Bytes::copy_from_slice(&bytes))
}
