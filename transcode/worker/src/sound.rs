//! AAC to Opus and back, at the source's times to the sample.
//!
//! `appsrc ! decoder ! appsink` gives PCM, which a `Joiner` lays end to end; `appsrc ! resampler ! encoder ! appsink` gets
//! a sound without holes, so its frames are counted and no time of GStreamer's is used for them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
    mpsc::{self, SyncSender},
};

use anyhow::{Context, Result, bail};
use media_core::{
    Parameters, Timescale, Timestamp, Track, TrackId,
    codec::{aac, opus},
    stream::Made,
};
use transcode::{
    lane as rules,
    sound::{FILL_MS_MAX, FrameTimes, Joiner, NANOS, Place},
    wire::{Coded, LaneId, Report},
};

use crate::chain::{self, Chain, Clock, Failure, Intake};

pub const OPUS_ELEMENTS: &[&str] = &["appsrc", "avdec_aac", "audioconvert", "audioresample", "opusenc", "appsink"];
pub const AAC_ELEMENTS: &[&str] = &["appsrc", "opusdec", "audioconvert", "audioresample", "avenc_aac", "appsink"];

const RATE: u32 = opus::SAMPLE_RATE;
/// By so much libopus is late at 48 kHz (its lookahead, RFC 7845's usual pre-skip).
const OPUS_LATE: u32 = 312;
/// avenc_aac is late by one frame: its first frame holds nothing.
const AAC_FRAME: u32 = 1024;
const OPUS_FRAME: u32 = 960;
/// Two channels of 32-bit floats.
const PCM_BYTES: usize = 8;

pub struct Run {
    chain: Chain,
    intake: Intake,
    clock: Clock,
    scale: Timescale,
    /// Where the source's next Sample is due.
    due: Timestamp,
    /// What came out of the decoder does not join any more.
    apart: Arc<AtomicBool>,
    ended: mpsc::Receiver<Timestamp>,
}

impl Run {
    pub fn start(
        lane: LaneId,
        made: Made,
        track: &Track,
        bitrate: u32,
        after: Option<Timestamp>,
        first: &Coded,
        reports: SyncSender<Report>,
    ) -> Result<Self> {
        let (caps, decoder) = match &track.parameters {
            Parameters::Aac(p) => (aac_caps(p), "avdec_aac max-errors=-1"),
            Parameters::Opus(p) => (opus_caps(p), "opusdec max-errors=-1 plc=false"),
            Parameters::H264(_) | Parameters::Hevc(_) | Parameters::Av1(_) => bail!("sound cannot be made of a picture"),
        };
        let encoder = match made {
            Made::Opus => {
                format!("opusenc bitrate={bitrate} frame-size=20 audio-type=generic bandwidth=fullband perfect-timestamp=true")
            }
            // GStreamer forces M/S stereo on by default, which makes wide stereo nearly mono; without it and its like the fast
            // coder is also the clean one (two tones: 80 dB above the rest, the default one 32).
            _ => format!(
                "avenc_aac bitrate={bitrate} perfect-timestamp=true aac-coder=fast aac-ms=false aac-is=false aac-pns=false"
            ),
        };
        let chain = Chain::new(&format!(
            "appsrc name=source {source} ! {decoder} ! audioconvert ! audio/x-raw,format=F32LE,layout=interleaved,channels=2 \
             ! appsink name=pcm-sink {sink} \
             appsrc name=pcm-source {source} ! audioresample ! audio/x-raw,rate={RATE} ! audioconvert ! {encoder} \
             ! appsink name=sink {sink}",
            source = chain::SOURCE,
            sink = chain::SINK,
        ))?;
        let intake = Intake::new(&chain, &caps, lane, reports.clone())?;
        let clock = Clock::starting_with(first);
        let timing = Timing::new(made, &track.parameters, after, first);
        let apart = Arc::new(AtomicBool::new(false));
        join(&chain, clock, &timing, Arc::clone(&apart))?;
        let ended = report_samples(&chain.element("sink")?, (lane, made), &timing, reports)?;
        chain.start()?;
        Ok(Self { chain, intake, clock, scale: track.timescale, due: first.pts, apart, ended })
    }

    /// Whether a Sample is so far from the one before, or the sound so broken, that a new run has to begin with it.
    pub fn is_apart(&self, coded: &Coded) -> bool {
        let off = (coded.pts - self.due).ticks_in(Timescale::MILLIS);
        off.abs() > FILL_MS_MAX || self.apart.load(Ordering::Relaxed)
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.chain.failure()
    }

    pub fn push(&mut self, coded: &Coded) {
        self.due = coded.pts + Timestamp::new(coded.duration.into(), self.scale);
        self.intake.push(coded, self.clock);
    }

    /// Gives where the sound ends.
    pub fn finish(self) -> Option<Timestamp> {
        let end = self.chain.finish(&self.intake.source, &self.ended);
        self.intake.settle();
        end
    }
}

/// Where sound begins, and by how much codecs are late.
struct Timing {
    begin: Timestamp,
    decoder_late: u32,
    encoder_late: u32,
    frame: u32,
}

impl Timing {
    fn new(made: Made, source: &Parameters, after: Option<Timestamp>, first: &Coded) -> Self {
        // Who sends Opus over RTP counts from what was given to the encoder (RFC 7587 4.1), not from what comes out.
        let decoder_late = if matches!(source, Parameters::Opus(_)) { OPUS_LATE } else { 0 };
        let (frame, encoder_late) = if made == Made::Opus { (OPUS_FRAME, OPUS_LATE) } else { (AAC_FRAME, 0) };
        // What goes on from an earlier run begins so that its first frame follows the last one of that.
        let joined = after.map(|after| after.to(NANOS) + Timestamp::new(encoder_late.into(), rate_scale()));
        let begin = joined.filter(|joined| (first.pts - *joined).ticks_in(Timescale::MILLIS) < FILL_MS_MAX).unwrap_or(first.pts);
        Self { begin, decoder_late, encoder_late, frame }
    }
}

/// From the decoder to the encoder.
fn join(chain: &Chain, clock: Clock, timing: &Timing, apart: Arc<AtomicBool>) -> Result<()> {
    let sink: gst_app::AppSink = chain.element("pcm-sink")?;
    let source: gst_app::AppSrc = chain.element("pcm-source")?;
    let (begin, late) = (timing.begin, timing.decoder_late);
    let mut joiner: Option<(u32, Joiner)> = None;
    let mut pushed = 0u64;
    let end = source.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let (buffer, caps, _) = chain::pull(sink)?;
                let rate = rate_of(&caps).ok_or(gst::FlowError::NotNegotiated)?;
                let (known, joiner) = joiner.get_or_insert_with(|| {
                    source.set_caps(Some(&caps));
                    (rate, Joiner::new(rate, begin, late))
                });
                if *known != rate {
                    apart.store(true, Ordering::Relaxed);
                    return Ok(gst::FlowSuccess::Ok);
                }
                let at = clock.outward(buffer.pts().ok_or(gst::FlowError::Error)?, NANOS);
                let Place::Keep { silence, skip } = joiner.place(at, buffer.size() / PCM_BYTES) else {
                    apart.store(true, Ordering::Relaxed);
                    return Ok(gst::FlowSuccess::Ok);
                };
                if silence > 0 {
                    push_pcm(&source, gst::Buffer::from_slice(vec![0u8; silence * PCM_BYTES]), rate, &mut pushed)?;
                }
                let rest = buffer.size() - skip * PCM_BYTES;
                if rest == 0 {
                    return Ok(gst::FlowSuccess::Ok);
                }
                let kept =
                    buffer.copy_region(gst::BufferCopyFlags::MEMORY, skip * PCM_BYTES..).map_err(|_| gst::FlowError::Error)?;
                push_pcm(&source, kept, rate, &mut pushed)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| _ = end.end_of_stream())
            .build(),
    );
    Ok(())
}

/// With times that are counted from nothing, so neither resampler nor encoder ever sees a discontinuity.
fn push_pcm(source: &gst_app::AppSrc, mut buffer: gst::Buffer, rate: u32, pushed: &mut u64) -> Result<(), gst::FlowError> {
    let time = |samples: u64| gst::ClockTime::from_nseconds((u128::from(samples) * 1_000_000_000 / u128::from(rate)) as u64);
    let fields = buffer.make_mut();
    let samples = (fields.size() / PCM_BYTES) as u64;
    fields.set_pts(time(*pushed));
    fields.set_duration(time(*pushed + samples) - time(*pushed));
    fields.set_offset(*pushed);
    *pushed += samples;
    source.push_buffer(buffer).map(|_| ())
}

fn report_samples(
    sink: &gst_app::AppSink,
    (lane, made): (LaneId, Made),
    timing: &Timing,
    reports: SyncSender<Report>,
) -> Result<mpsc::Receiver<Timestamp>> {
    let (eos, ended) = mpsc::channel();
    let scale = rules::timescale(made, RATE).context("48 kHz is a timescale")?;
    let times = Arc::new(Mutex::new(FrameTimes::new(timing.begin, scale, timing.frame, timing.encoder_late)));
    let at_end = Arc::clone(&times);
    let (mut told, mut empty, frame) = (false, made == Made::Aac, timing.frame);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let (buffer, caps, _) = chain::pull(sink)?;
                if !std::mem::replace(&mut told, true) {
                    let track = Track { id: TrackId::AUDIO, timescale: scale, parameters: parameters(made, &caps)? };
                    reports.send(Report::Track(lane, made, track.into())).map_err(|_| gst::FlowError::Eos)?;
                }
                // AAC's first frame is all before the beginning.
                if std::mem::take(&mut empty) {
                    return Ok(gst::FlowSuccess::Ok);
                }
                let pts = lock(&times).take();
                let coded = Coded {
                    pts,
                    dts: pts,
                    duration: frame,
                    keyframe: true,
                    cut: false,
                    live: true,
                    payload: chain::payload(buffer)?,
                };
                reports.send(Report::Sample(lane, made, coded)).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| _ = eos.send(lock(&at_end).end()))
            .build(),
    );
    Ok(ended)
}

fn lock(times: &Mutex<FrameTimes>) -> MutexGuard<'_, FrameTimes> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parameters(made: Made, caps: &gst::Caps) -> Result<Parameters, gst::FlowError> {
    if made == Made::Opus {
        return Ok(Parameters::Opus(opus::Parameters { channels: 2 }));
    }
    let config = chain::codec_data(caps).ok_or(gst::FlowError::NotNegotiated)?;
    aac::Parameters::parse(config).map(Parameters::Aac).map_err(|_| gst::FlowError::NotNegotiated)
}

fn aac_caps(parameters: &aac::Parameters) -> gst::Caps {
    gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4i32)
        .field("stream-format", "raw")
        .field("framed", true)
        .field("rate", parameters.sample_rate as i32)
        .field("channels", i32::from(parameters.channels()))
        .field("codec_data", gst::Buffer::from_slice(parameters.config.clone()))
        .build()
}

fn opus_caps(parameters: &opus::Parameters) -> gst::Caps {
    gst::Caps::builder("audio/x-opus")
        .field("channel-mapping-family", 0i32)
        .field("channels", i32::from(parameters.channels))
        .field("rate", RATE as i32)
        .build()
}

fn rate_of(caps: &gst::Caps) -> Option<u32> {
    caps.structure(0)?.get::<i32>("rate").ok().and_then(|rate| u32::try_from(rate).ok()).filter(|rate| *rate > 0)
}

fn rate_scale() -> Timescale {
    Timescale::new(RATE).expect("48,000 is not 0")
}
