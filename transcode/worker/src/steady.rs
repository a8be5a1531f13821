//! Gives what is decoded at a constant rate (`transcode::cadence`), whatever the source sends:
//! `decoder ! appsink | a thread with a clock | appsrc ! tee`.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use gst::prelude::*;
use media_core::{Timestamp, codec::FrameRate};
use transcode::{
    cadence::{self, Cadence},
    pacing::Mark,
    sound::NANOS,
};

use crate::{
    chain::{self, Chain, Clock},
    video::Keys,
};

/// Decoded pictures on their way: a decoder that is ahead waits.
const DECODED_MAX: usize = 4;
/// What is given so much later than pictures come is of the past, or of a source that was silent.
const LATE_NS: i64 = 100_000_000;
/// And for so long after, branches may hold some of it.
const CATCH_UP_NS: i64 = 500_000_000;
/// Where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What stands between the decoder and the branches.
pub fn elements() -> String {
    format!(
        "appsink name=decoded {sink} appsrc name=steady is-live=true format=time do-timestamp=false block=true \
         max-buffers={DECODED_MAX} max-bytes=0 max-time=0",
        sink = chain::SINK,
    )
}

/// How the pictures of a source are given.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rate: FrameRate,
    /// A segment begins at each multiple of this on the source's clock.
    pub cut_every: Duration,
    /// Pictures in a Part.
    pub in_part: u32,
    pub clock: Clock,
}

impl Pace {
    fn source_ns(&self, at: gst::ClockTime) -> i64 {
        self.clock.outward(at, NANOS).ticks
    }

    fn inward(&self, slot: i64) -> gst::ClockTime {
        self.clock.inward(Timestamp::new(cadence::time_ns(self.rate, slot), NANOS))
    }

    /// What the picture is that is given at this time.
    fn mark(&self, at: gst::ClockTime) -> Mark {
        let slot = cadence::slot(self.rate, self.source_ns(at));
        let cut = cadence::cut_before(self.rate, slot, self.cut_every) == slot;
        Mark { keyframe: cut, cut: cut.then(|| at.nseconds()) }
    }

    /// The first slot of a run: there a Part begins on every rung.
    fn first_slot(&self, first: gst::ClockTime) -> i64 {
        let slot = cadence::slot(self.rate, self.source_ns(first));
        cadence::border_after(self.rate, slot, self.cut_every, self.in_part)
    }
}

/// Whether pictures come as they are shown: those of the source, and those that are given.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub source: Arc<AtomicBool>,
    pub given: Arc<AtomicBool>,
}

/// The slot that a run begins with at the earliest: one that follows on another gives nothing twice.
#[derive(Clone, Debug)]
pub struct NextSlot(Arc<AtomicI64>);

impl Default for NextSlot {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

/// Starts the thread; it ends with its chain.
pub fn start(chain: &Chain, pace: Pace, first: gst::ClockTime, keys: Arc<Mutex<Keys>>, live: Live, next: NextSlot) -> Result<()> {
    let slot = pace.first_slot(first);
    next.0.fetch_max(slot, Ordering::Relaxed);
    keys.lock().unwrap_or_else(PoisonError::into_inner).base = Some(pace.inward(slot).nseconds());
    let (sender, decoded) = mpsc::sync_channel(DECODED_MAX);
    send_decoded(&chain.element("decoded")?, sender);
    let steady: gst_app::AppSrc = chain.element("steady")?;
    steady.static_pad("src").context("a source has a pad")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) else { return gst::PadProbeReturn::Drop };
        keys.lock().unwrap_or_else(PoisonError::into_inner).set(pace.mark(pts));
        gst::PadProbeReturn::Ok
    });
    thread::spawn(move || {
        // An error is of a pipeline that has failed or ends, which others tell.
        let _ = give(&decoded, &steady, pace, &live, &next);
        let _ = steady.end_of_stream();
    });
    Ok(())
}

/// A decoder that is ahead waits here.
fn send_decoded(sink: &gst_app::AppSink, sender: SyncSender<Option<gst::Sample>>) {
    let at_end = sender.clone();
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            sender.send(Some(sample)).map(|()| gst::FlowSuccess::Ok).map_err(|_| gst::FlowError::Eos)
        })
        .eos(move |_| _ = at_end.send(None));
    sink.set_callbacks(callbacks.build());
}

/// Until nothing more is decoded.
fn give(
    decoded: &Receiver<Option<gst::Sample>>,
    steady: &gst_app::AppSrc,
    pace: Pace,
    live: &Live,
    NextSlot(next): &NextSlot,
) -> Result<(), gst::FlowError> {
    let (started, mut cadence) = (Instant::now(), Cadence::new(pace.rate, Some(next.load(Ordering::Relaxed))));
    let now_ns = || i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let mut late_until_ns = i64::MIN;
    let mut give = |sample: &gst::Sample, slot: i64, late_ns: i64| {
        if late_ns > LATE_NS {
            late_until_ns = now_ns() + CATCH_UP_NS;
        }
        live.given.store(live.source.load(Ordering::Relaxed) && now_ns() > late_until_ns, Ordering::Relaxed);
        let caps = sample.caps_owned();
        if steady.caps() != caps {
            steady.set_caps(caps.as_ref());
        }
        // Its pixels are shared.
        let mut buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
        let times = buffer.make_mut();
        times.set_pts(pace.inward(slot));
        times.set_dts(None);
        times.set_duration(pace.inward(slot + 1).saturating_sub(pace.inward(slot)));
        next.store(slot + 1, Ordering::Relaxed);
        steady.push_buffer(buffer).map(|_| ())
    };
    let mut newest: Option<gst::Sample> = None;
    loop {
        let due_ns = cadence.due_ns(live.source.load(Ordering::Relaxed)).filter(|_| newest.is_some());
        let wait = due_ns.map_or(IDLE, |due| Duration::from_nanos(u64::try_from(due - now_ns()).unwrap_or(0)));
        match decoded.recv_timeout(wait) {
            Ok(Some(sample)) => {
                let Some(pts) = sample.buffer().and_then(gst::BufferRef::pts) else { continue };
                let filled = cadence.push(pace.source_ns(pts), now_ns());
                if let Some(newest) = &newest {
                    filled.before.clone().try_for_each(|slot| give(newest, slot, cadence.late_ns(slot, now_ns())))?;
                }
                let newest = newest.insert(sample);
                filled.own.map_or(Ok(()), |slot| give(newest, slot, cadence.late_ns(slot, now_ns())))?;
            }
            Err(RecvTimeoutError::Timeout) if due_ns.is_none() => {}
            Err(RecvTimeoutError::Timeout) => {
                if let Some((slot, sample)) = cadence.repeat().zip(newest.as_ref()) {
                    give(sample, slot, cadence.late_ns(slot, now_ns()))?;
                }
            }
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
