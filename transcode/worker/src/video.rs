//! Pictures in the order in which they are shown: H.264, HEVC or AV1 is decoded and encoded as H.264 without B-frames, at
//! the source's size, times and keyframes.
//!
//! `appsrc ! h264parse ! avdec_h264 ! queue ! videoconvert ! x264enc ! appsink`. One probe behind the decoder holds the
//! policy: which pictures are encoded, and which become keyframes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, SyncSender},
    },
};

use anyhow::{Context, Result, bail};
use gst::prelude::*;
use media_core::{
    Parameters, Timestamp, Track, TrackId,
    codec::h264::{self, FrameRate},
    rung,
    stream::Made,
};
use transcode::{
    lane,
    rate::SourceRate,
    wire::{Coded, Report, Wish},
};

use crate::{
    chain::{self, Chain, Clock, Intake},
    decoders::{self, Decoder},
};

/// For most sources, beside a decoder (`decoders.rs`). Parsers of other codecs are looked for when such a source comes.
pub const ELEMENTS: &[&str] = &["appsrc", "h264parse", "queue", "videoconvert", "x264enc", "appsink"];

/// For x264's rate control where nobody tells.
const FRAME_RATE_UNKNOWN: FrameRate = FrameRate { frames: 30, seconds: 1 };
/// Keyframes on their way through the decoder: it holds back 16 pictures at most (H.264 A.3.1).
const KEYFRAMES_MAX: usize = 64;
/// Rounding of a picture's time in another scale must not make it another picture.
const SAME_PICTURE: gst::ClockTime = gst::ClockTime::from_useconds(100);

pub struct Run {
    chain: Chain,
    intake: Intake,
    encoder: gst::Element,
    decoder: &'static Decoder,
    clock: Clock,
    keys: Arc<Mutex<Keys>>,
    /// `None` where the bit rate is configured.
    rate: Option<SourceRate>,
    /// The source's codec is one of those that came after H.264.
    denser: bool,
    ended: mpsc::Receiver<()>,
}

/// Which pictures become keyframes.
#[derive(Default)]
struct Keys {
    /// Of the source, not yet decoded.
    pending: VecDeque<gst::ClockTime>,
    requested: bool,
    /// The encoder has had its first picture.
    started: bool,
    /// The newest picture that is not to be encoded again.
    after: Option<gst::ClockTime>,
}

impl Run {
    pub fn start(
        parameters: &Parameters,
        decoder: &'static Decoder,
        wish: &Wish,
        after: Option<Timestamp>,
        first: &Coded,
        reports: SyncSender<Report>,
    ) -> Result<Self> {
        let rate = (wish.bitrate == 0).then(|| SourceRate::new(wish.announced_bitrate));
        let bitrate = rate.as_ref().map_or(wish.bitrate, SourceRate::bitrate);
        let FrameRate { frames, seconds } =
            parameters.frame_rate().or_else(|| announced(wish.frame_rate)).unwrap_or(FRAME_RATE_UNKNOWN);
        let (parser, caps) = coding(parameters)?;
        // The level that playlists tell of a picture that is not made yet.
        let level =
            parameters.size().map_or_else(String::new, |(width, height)| format!(":level={}", rung::level(width, height)));
        // `zerolatency` implies most of the rest; each is stated so that a preset cannot bring it back. More threads of
        // x264 would cost a picture of delay each. The queue lets decoder and encoder work at once.
        let chain = Chain::new(&format!(
            "appsrc name=source {source} ! {parser} ! {element} name=decoder {options} ! queue max-size-buffers=8 max-size-bytes=0 max-size-time=0 ! videoconvert n-threads=1 ! video/x-raw,format=I420 \
             ! x264enc name=encoder tune=zerolatency speed-preset=veryfast pass=cbr bitrate={kbit} vbv-buf-capacity={buffer_ms} bframes=0 \
               rc-lookahead=0 sync-lookahead=0 mb-tree=false threads=1 sliced-threads=false aud=false key-int-max=100000 \
               option-string=scenecut=0:open-gop=0{level} \
             ! video/x-h264,profile=high,stream-format=avc,alignment=au ! appsink name=sink {sink}",
            source = chain::SOURCE,
            element = decoder.element,
            options = decoder.options,
            sink = chain::SINK,
            kbit = bitrate / 1000,
            buffer_ms = rung::BUFFER_MS,
        ))?;
        let caps = caps.field("framerate", gst::Fraction::new(frames as i32, seconds as i32)).build();
        let intake = Intake::new(&chain, &caps, Made::Video, reports.clone())?;
        let clock = Clock::starting_with(first);
        let keys = Keys { after: after.map(|at| clock.inward(at) + SAME_PICTURE), ..Keys::default() };
        let keys = Arc::new(Mutex::new(keys));
        choose_pictures(&chain, Arc::clone(&keys))?;
        let ended = report_samples(&chain.element("sink")?, clock, reports);
        chain.start()?;
        let denser = !matches!(parameters, Parameters::H264(_));
        Ok(Self { intake, encoder: chain.element("encoder")?, decoder, chain, clock, keys, rate, denser, ended })
    }

    pub fn has_failed(&self) -> bool {
        self.chain.has_failed()
    }

    /// The decoder, and why, where it is what has failed.
    pub fn failed_decoder(&self) -> Option<(&'static Decoder, String)> {
        let failure = self.chain.failure().filter(|failure| failure.element == "decoder")?;
        Some((self.decoder, failure.why.clone()))
    }

    pub fn push(&mut self, coded: &Coded) {
        if coded.keyframe {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if keys.pending.len() == KEYFRAMES_MAX {
                keys.pending.pop_front();
            }
            keys.pending.push_back(self.clock.inward(coded.pts));
        }
        let halves = if self.denser { rung::DENSER_HALVES as usize } else { 2 };
        let bytes = coded.payload.len() * halves / 2;
        if let Some(bitrate) = self.rate.as_mut().and_then(|rate| rate.observe(coded.dts, bytes)) {
            self.encoder.set_property("bitrate", bitrate / 1000);
        }
        self.intake.push(coded, self.clock);
    }

    pub fn request_keyframe(&self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).requested = true;
    }

    /// Pictures are told apart by their times, so nothing has to be joined.
    pub fn finish(self) -> Option<Timestamp> {
        self.chain.finish(&self.intake.source, &self.ended);
        self.intake.settle();
        None
    }
}

/// The parser of a codec, and how GStreamer is told of it.
fn coding(parameters: &Parameters) -> Result<(&'static str, gst::caps::Builder<gst::caps::NoFeature>)> {
    let parser = parser(parameters).context("sound is no picture")?;
    let (media, format, alignment, record) = match parameters {
        Parameters::H264(p) => ("video/x-h264", "avc", "au", &p.record),
        Parameters::Hevc(p) => ("video/x-h265", "hvc1", "au", &p.record),
        Parameters::Av1(p) => ("video/x-av1", "obu-stream", "tu", &p.record),
        Parameters::Aac(_) | Parameters::Opus(_) => bail!("sound is no picture"),
    };
    let caps = gst::Caps::builder(media).field("stream-format", format).field("alignment", alignment);
    Ok((parser, caps.field("codec_data", gst::Buffer::from_slice(record.clone()))))
}

fn parser(parameters: &Parameters) -> Option<&'static str> {
    match parameters {
        Parameters::H264(_) => Some("h264parse"),
        Parameters::Hevc(_) => Some("h265parse"),
        Parameters::Av1(_) => Some("av1parse"),
        Parameters::Aac(_) | Parameters::Opus(_) => None,
    }
}

/// The elements that a source of these parameters needs and that are not installed.
pub fn lacks(parameters: &Parameters) -> Option<String> {
    let parser = parser(parameters).filter(|parser| !decoders::is_installed(parser));
    let missing: Vec<_> = parser.map(str::to_owned).into_iter().chain(decoders::lacking(parameters)).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// On the decoder's output, between two pictures: what is made already is left out, and the encoder is told of keyframes.
fn choose_pictures(chain: &Chain, keys: Arc<Mutex<Keys>>) -> Result<()> {
    let pad = chain.element::<gst::Element>("decoder")?.static_pad("src").context("a decoder has an output")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) else { return gst::PadProbeReturn::Drop };
        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.after.is_some_and(|after| pts <= after) {
            return gst::PadProbeReturn::Drop;
        }
        keys.after = Some(pts);
        let mut key = std::mem::take(&mut keys.requested);
        while keys.pending.front().is_some_and(|pending| *pending <= pts) {
            keys.pending.pop_front();
            key = true;
        }
        // The first picture is a keyframe anyway, and a request that meets it makes 1.22.0 refuse all later ones: it books
        // the request at running time 1000 h, by which x264enc moves its times.
        let started = std::mem::replace(&mut keys.started, true);
        drop(keys);
        if key && started {
            pad.push_event(
                gst_video::DownstreamForceKeyUnitEvent::builder()
                    .timestamp(pts)
                    .stream_time(pts)
                    .running_time(pts)
                    .all_headers(true)
                    .build(),
            );
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn report_samples(sink: &gst_app::AppSink, clock: Clock, reports: SyncSender<Report>) -> mpsc::Receiver<()> {
    let (eos, ended) = mpsc::channel();
    let mut told = None;
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let (buffer, caps, segment) = chain::pull(sink)?;
                if told.as_ref() != Some(&caps) {
                    let track = track(&caps).ok_or(gst::FlowError::NotNegotiated)?;
                    reports.send(Report::Track(Made::Video, track.into())).map_err(|_| gst::FlowError::Eos)?;
                    told = Some(caps);
                }
                let coded = coded(buffer, &segment, clock).ok_or(gst::FlowError::Error)?;
                reports.send(Report::Sample(Made::Video, coded)).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| _ = eos.send(()))
            .build(),
    );
    ended
}

fn track(caps: &gst::Caps) -> Option<Track> {
    let parameters = Parameters::H264(h264::Parameters::parse(chain::codec_data(caps)?).ok()?);
    Some(Track { id: TrackId::VIDEO, timescale: lane::timescale(Made::Video, 0)?, parameters })
}

fn coded(buffer: gst::Buffer, segment: &gst::Segment, clock: Clock) -> Option<Coded> {
    // x264enc moves its times by 1000 h, and its segment with them: only the running time is the source's.
    let running = segment.downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?)?;
    let pts = clock.outward(running, lane::timescale(Made::Video, 0)?);
    let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    Some(Coded { pts, dts: pts, duration: 0, keyframe, payload: chain::payload(buffer).ok()? })
}

fn announced(frame_rate: f64) -> Option<FrameRate> {
    (1.0..=240.0).contains(&frame_rate).then(|| FrameRate { frames: (frame_rate * 1000.0).round() as u32, seconds: 1000 })
}
