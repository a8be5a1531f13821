//! What every pipeline here has in common: it starts, errors end the process, it gives out what it holds, it stops.
//!
//! Nothing waits for a clock or a state change: no sink is ready before the first Sample is pushed.

use std::{process::exit, sync::mpsc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use gst::prelude::*;
use media_core::{Timescale, Timestamp};
use transcode::{sound::NANOS, wire::Coded};

/// How long a pipeline may take to give out what it holds.
const FINISH_WAIT: Duration = Duration::from_secs(1);
/// GStreamer's times begin at 0; ours may lie before the first one, by as much as encoders reorder and delay.
const LEAD_NS: i64 = 1_000_000_000;

/// `source` for every appsrc, `sink` for every appsink: live, unbounded (codecast's credit bounds it), on no clock.
pub const SOURCE: &str = "is-live=true format=time do-timestamp=false block=false max-time=0 max-bytes=0 max-buffers=0";
pub const SINK: &str = "sync=false async=false qos=false enable-last-sample=false";

pub struct Chain {
    pipeline: gst::Pipeline,
}

impl Chain {
    pub fn new(description: &str) -> Result<Self> {
        let pipeline = gst::parse::launch(description).with_context(|| format!("no pipeline of {description}"))?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("several elements are a pipeline")?;
        // By a sync handler, so there is no main loop.
        pipeline.bus().context("a pipeline has a bus")?.set_sync_handler(|_, message| {
            match message.view() {
                gst::MessageView::Error(error) => {
                    eprintln!("{} {}", error.error(), error.debug().unwrap_or_default());
                    exit(2);
                }
                gst::MessageView::Warning(warning) => eprintln!("{} {}", warning.error(), warning.debug().unwrap_or_default()),
                _ => (),
            }
            gst::BusSyncReply::Drop
        });
        Ok(Self { pipeline })
    }

    pub fn element<E: IsA<gst::Element>>(&self, name: &str) -> Result<E> {
        self.pipeline.by_name(name).and_then(|element| element.downcast().ok()).with_context(|| format!("no element {name}"))
    }

    pub fn start(&self) -> Result<()> {
        self.pipeline.set_state(gst::State::Playing).map(|_| ()).context("the pipeline does not start")
    }

    /// Calls `counted` for each buffer that leaves a source's queue.
    pub fn count(&self, source: &gst_app::AppSrc, counted: impl Fn() + Send + Sync + 'static) -> Result<()> {
        let pad = source.static_pad("src").context("a source has a pad")?;
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counted();
            gst::PadProbeReturn::Ok
        });
        Ok(())
    }

    /// Lets everything out.
    pub fn finish(self, source: &gst_app::AppSrc, ended: &mpsc::Receiver<()>) {
        if source.end_of_stream().is_ok() && ended.recv_timeout(FINISH_WAIT).is_err() {
            eprintln!("a pipeline did not give out all that it held");
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
