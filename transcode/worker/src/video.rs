//! Pictures in the order in which they are shown: H.264, HEVC or AV1 is decoded once, and encoded as H.264 without B-frames
//! for each that is made of it: at its size, its share of the pictures and its keyframes (`branch.rs`).
//!
//! `appsrc ! h264parse ! avdec_h264 ! tee ! { queue ! videoconvertscale ! x264enc ! appsink } for each`. A probe behind the
//! decoder tells which pictures are keyframes of the source. Where pictures are given at a constant rate, they are repeated
//! between the decoder and the tee (`steady.rs`), and the clock tells.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc::SyncSender},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use gst::prelude::*;
use media_core::{Parameters, codec::FrameRate, rung, stream::Made};
use transcode::{
    pacing::Mark,
    wire::{Coded, LaneId, Report, Wish},
};

use crate::{
    branch::{Branch, Setup},
    chain::{self, Chain, Clock, Failure, Intake},
    decoders::{self, Decoder},
    encoders::{Encoder, Encoders},
    steady::{self, Live, NextSlot, Pace},
};

/// For most sources, beside a decoder and an encoder. Parsers of other codecs are looked for when such a source comes.
pub const ELEMENTS: &[&str] = &["appsrc", "h264parse", "tee", "queue", "videoconvertscale", "appsink"];

/// For the encoder's rate control where nobody tells.
const FRAME_RATE_UNKNOWN: FrameRate = FrameRate { frames: 30, seconds: 1 };
/// Keyframes on their way through the decoder: it holds back 16 pictures at most (H.264 A.3.1).
const KEYFRAMES_MAX: usize = 64;

pub struct Run {
    chain: Chain,
    intake: Intake,
    lane: LaneId,
    source: Source,
    decoder: &'static Decoder,
    branches: Vec<Branch>,
    keys: Arc<Mutex<Keys>>,
    /// Some pictures may be left out: they come as fast as they are shown.
    live: Live,
    /// The source's codec is one of those that came after H.264.
    denser: bool,
    reports: SyncSender<Report>,
}

/// Of what is decoded, for all that is made of it.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub size: Option<(u32, u32)>,
    pub frame_rate: FrameRate,
    pub clock: Clock,
}

/// The source's keyframes.
#[derive(Default)]
pub struct Keys {
    /// Not yet decoded; and whether a segment begins there.
    pending: VecDeque<(gst::ClockTime, bool)>,
    /// What the picture is that is between decoder and branches now.
    pub mark: Mark,
    /// The newest cut that was decoded, in nanoseconds: rungs count from there.
    pub base: Option<u64>,
    newest: Option<gst::ClockTime>,
}

impl Run {
    pub fn start(
        lane: LaneId,
        parameters: &Parameters,
        decoder: &'static Decoder,
        first_wish: &Wish,
        first: &Coded,
        next_slot: &NextSlot,
        reports: SyncSender<Report>,
    ) -> Result<Self> {
        let frame_rate = announced(first_wish.frame_rate).or_else(|| parameters.frame_rate()).unwrap_or(FRAME_RATE_UNKNOWN);
        let (parser, caps) = coding(parameters)?;
        let cut_every = Duration::from_millis(first_wish.picture.cut_every_ms.into());
        let steadily = if cut_every.is_zero() { String::new() } else { format!("{} !", steady::elements()) };
        let chain = Chain::new(&format!(
            "appsrc name=source {source} ! {parser} ! {element} name=decoder {options} ! {steadily} tee name=tee allow-not-linked=true",
            source = chain::SOURCE,
            element = decoder.element,
            options = decoder.options,
        ))?;
        let rate = gst::Fraction::new(frame_rate.frames as i32, frame_rate.seconds as i32);
        let intake = Intake::new(&chain, &caps.field("framerate", rate).build(), lane, reports.clone())?;
        let source = Source { size: parameters.size(), frame_rate, clock: Clock::starting_with(first) };
        let (keys, mut live) = (Arc::<Mutex<Keys>>::default(), Live::default());
        if cut_every.is_zero() {
            live.given = Arc::clone(&live.source);
            mark_pictures(&chain, Arc::clone(&keys))?;
        } else {
            let pace = Pace { rate: frame_rate, cut_every, in_part: first_wish.picture.in_part, clock: source.clock };
            let begins = source.clock.inward(first.pts);
            steady::start(&chain, pace, begins, Arc::clone(&keys), live.clone(), next_slot.clone())?;
        }
        let denser = !matches!(parameters, Parameters::H264(_));
        Ok(Self { chain, intake, lane, source, decoder, branches: Vec::new(), keys, live, denser, reports })
    }

    /// When all that is made from the beginning has its branch.
    pub fn play(&self) -> Result<()> {
        self.chain.start()
    }

    /// Makes something more, also while it runs: from the first picture on that is shown after `wish.after`. With the first
    /// encoder that starts.
    pub fn make(&mut self, made: Made, wish: &Wish, encoders: &Encoders) -> Result<()> {
        let mut failed = anyhow!("no encoder of H.264 is installed");
        for encoder in encoders.all() {
            let setup = Setup { lane: self.lane, made, wish, encoder, source: self.source };
            match Branch::start(&self.chain, setup, &self.keys, &self.live.given, self.reports.clone()) {
                Ok(branch) => {
                    self.branches.push(branch);
                    return Ok(());
                }
                Err(error) => {
                    encoders.demote(encoder, &format!("{error:#}"));
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    pub fn leave(&mut self, made: Made) {
        if let Some(at) = self.branches.iter().position(|branch| branch.made == made) {
            self.branches.swap_remove(at).cut_off(&self.chain);
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.chain.failure()
    }

    /// The decoder, and why, where it is what has failed.
    pub fn failed_decoder(&self) -> Option<(&'static Decoder, String)> {
        let failure = self.chain.failure().filter(|failure| failure.element == "decoder")?;
        Some((self.decoder, failure.why.clone()))
    }

    pub fn failed_encoder(&self) -> Option<(&'static Encoder, String)> {
        let failure = self.chain.failure().filter(|failure| failure.element == "encoder")?;
        Some((self.branches.first()?.encoder, failure.why.clone()))
    }

    pub fn push(&mut self, coded: &Coded) {
        if coded.keyframe {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if keys.pending.len() == KEYFRAMES_MAX {
                keys.pending.pop_front();
            }
            keys.pending.push_back((self.source.clock.inward(coded.pts), coded.cut));
        }
        self.live.source.store(coded.live, Ordering::Relaxed);
        let halves = if self.denser { rung::DENSER_HALVES as usize } else { 2 };
        let bytes = coded.payload.len() * halves / 2;
        self.branches.iter_mut().for_each(|branch| branch.follow_rate(coded.dts, bytes));
        self.intake.push(coded, self.source.clock);
    }

    pub fn request_keyframe(&self, made: Made) {
        if let Some(branch) = self.branches.iter().find(|branch| branch.made == made) {
            branch.request_keyframe();
        }
    }

    /// Lets everything out.
    pub fn finish(self) {
        let ended: Vec<_> = self.branches.iter().map(|branch| &branch.ended).collect();
        self.chain.finish_all(&self.intake.source, &ended);
        drop(self.branches);
        self.intake.settle();
    }
}

impl Keys {
    pub fn set(&mut self, mark: Mark) {
        self.mark = mark;
        self.base = mark.cut.or(self.base);
    }

    /// Of the picture that comes out of the decoder; `None` where one of its time, or a later one, has come before.
    fn next(&mut self, pts: gst::ClockTime) -> Option<Mark> {
        if self.newest.is_some_and(|newest| pts <= newest) {
            return None;
        }
        self.newest = Some(pts);
        let mut mark = Mark::default();
        while let Some((at, cut)) = self.pending.pop_front_if(|(at, _)| *at <= pts) {
            mark.keyframe = true;
            if cut {
                mark.cut = Some(at.nseconds());
            }
        }
        Some(mark)
    }
}

/// On the decoder's output, between two pictures.
fn mark_pictures(chain: &Chain, keys: Arc<Mutex<Keys>>) -> Result<()> {
    let pad = chain.element::<gst::Element>("decoder")?.static_pad("src").context("a decoder has an output")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(pts) = info.buffer().and_then(|buffer| buffer.pts()) else { return gst::PadProbeReturn::Drop };
        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mark) = keys.next(pts) else { return gst::PadProbeReturn::Drop };
        keys.set(mark);
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// The parser of a codec, and how GStreamer is told of it.
pub fn coding(parameters: &Parameters) -> Result<(&'static str, gst::caps::Builder<gst::caps::NoFeature>)> {
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

fn announced(frame_rate: f64) -> Option<FrameRate> {
    (1.0..=240.0).contains(&frame_rate).then(|| FrameRate { frames: (frame_rate * 1000.0).round() as u32, seconds: 1000 })
}
