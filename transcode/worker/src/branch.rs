//! One picture that is made of what is decoded: `tee ! queue ! videoconvertscale ! encoder ! appsink`. One probe on the pad
//! of the tee holds the policy: which pictures are encoded, which become keyframes, and which are left out when the encoder
//! is too slow: before the queue, where a keyframe can be spared, never in it, where it cannot.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use gst::prelude::*;
use gst_video::prelude::*;
use media_core::{
    Parameters, Timestamp, Track, TrackId,
    codec::{FrameRate, h264},
    ladder, rung,
    stream::Made,
};
use transcode::{
    lane,
    motion::{Blocks, Motion},
    pacing::{Mark, Pacing},
    rate::SourceRate,
    wire::{Coded, LaneId, Picture, Report, Wish},
};

use crate::{
    chain::{self, Chain, Clock},
    encoders::{Encoder, Target},
    video::{Keys, Source},
};

/// Pictures in the queue: those of 200 ms, which a decoder gives at once when it has waited for a missing one, and a rest.
const QUEUE_MAX: u32 = 16;
/// How much of a queue is filled before pictures are left out, in pictures a second: 200 ms.
const BACKLOG_SHARE: u32 = 5;
/// A branch that has not come up with its source by then is too slow for it.
const ARMED_AFTER: gst::ClockTime = gst::ClockTime::from_seconds(5);
/// Rounding of a picture's time in another scale must not make it another picture.
const SAME_PICTURE: gst::ClockTime = gst::ClockTime::from_useconds(100);
/// How long the decoder may take for the picture that it is at.
const CUT_OFF_WAIT: Duration = Duration::from_secs(1);
/// By `Made::index`: the pace that the last branch of a rung of `auto` had, for the next one, in whatever lane. A process is one
/// stream's.
static FAST: [AtomicBool; Made::COUNT] = [const { AtomicBool::new(false) }; Made::COUNT];

pub struct Branch {
    pub made: Made,
    pub encoder: &'static Encoder,
    /// Told when all has come out.
    pub ended: mpsc::Receiver<()>,
    bin: gst::Bin,
    tee_pad: gst::Pad,
    /// `None` where the bit rate is configured.
    rate: Option<SourceRate>,
    key_requested: Arc<AtomicBool>,
}

/// What a branch is made of.
pub struct Setup<'a> {
    pub lane: LaneId,
    pub made: Made,
    pub wish: &'a Wish,
    pub encoder: &'static Encoder,
    pub source: Source,
}

impl Branch {
    pub fn start(
        chain: &Chain,
        setup: Setup<'_>,
        keys: &Arc<Mutex<Keys>>,
        live: &Arc<AtomicBool>,
        reports: SyncSender<Report>,
    ) -> Result<Self> {
        let Setup { lane, made, wish, encoder, source } = setup;
        let rate = (wish.bitrate == 0).then(|| SourceRate::new(wish.announced_bitrate));
        let bitrate = rate.as_ref().map_or(wish.bitrate, SourceRate::bitrate);
        let size = source.size.map(|(width, height)| ladder::scaled(wish.picture.lines, (width, height)));
        // The level that playlists tell of a picture that is not made yet.
        let level = size.map(|(width, height)| rung::level(width, height));
        let target = Target { bitrate, buffer_ms: wish.picture.buffer_ms, level };
        let begins_fast = FAST[made.index()].load(Ordering::Relaxed);
        let changing = (wish.picture.slow_divisor != wish.picture.divisor).then(|| Changing::new(begins_fast, target, encoder));
        let divisor = if begins_fast { wish.picture.divisor } else { wish.picture.slow_divisor };
        let target = target.slower(divisor / wish.picture.divisor);
        // One at the source's size follows it without being told.
        let scaled = size.filter(|size| Some(*size) != source.size);
        let method = scaled.zip(source.size).map_or("lanczos", |(made, source)| method(source, made));
        let size = scaled.map_or_else(String::new, |(width, height)| format!(",width={width},height={height}"));
        let bin = gst::parse::bin_from_description(
            &format!(
                "queue name=queue max-size-buffers={QUEUE_MAX} max-size-bytes=0 max-size-time=0 \
                 ! videoconvertscale method={method} n-threads=1 ! video/x-raw,format={format}{size} \
                 ! {element} ! {behind} ! appsink name=sink {sink}",
                format = encoder.format,
                element = encoder.element(target),
                behind = encoder.behind,
                sink = chain::SINK,
            ),
            true,
        )
        .with_context(|| format!("no branch of {}", made.as_str()))?;
        let sink = bin.by_name("sink").and_then(|sink| sink.downcast().ok()).context("a branch has an end")?;
        let ended = report_samples(&sink, lane, made, source.clock, changing.is_some(), reports.clone());
        let pipeline = chain.pipeline();
        pipeline.add(&bin)?;
        // Before it is linked: a pad that is not active yet answers FLUSHING, and that stops every branch without a word.
        bin.sync_state_with_parent()?;
        let tee: gst::Element = chain.element("tee")?;
        let tee_pad = tee.request_pad_simple("src_%u").context("a tee has as many outputs as are asked for")?;
        let key_requested = Arc::<AtomicBool>::default();
        let choice = Choice {
            pacing: {
                let base = keys.lock().unwrap_or_else(PoisonError::into_inner).base;
                Pacing::new(Picture { divisor, ..wish.picture }, source.frame_rate.as_f64(), base)
            },
            picture: wish.picture,
            changing,
            encoder: bin.by_name("encoder").context("a branch has an encoder")?,
            keys: Arc::clone(keys),
            live: Arc::clone(live),
            key_requested: Arc::clone(&key_requested),
            after: wish.after.map(|at| source.clock.inward(at) + SAME_PICTURE),
            started: false,
            queue: bin.by_name("queue").context("a branch has a queue")?,
            shedding: Shedding::new(source.frame_rate, Picture { divisor, ..wish.picture }),
            source_rate: source.frame_rate,
            made,
            reports,
        };
        choice.apply(&tee_pad);
        tee_pad.link(&bin.static_pad("sink").context("a branch has a beginning")?)?;
        Ok(Self { made, encoder, ended, bin, tee_pad, rate, key_requested })
    }

    /// Of the source's newest Sample: what is encoded alike has as many bits.
    pub fn follow_rate(&mut self, dts: Timestamp, bytes: usize) {
        let Some(bitrate) = self.rate.as_mut().and_then(|rate| rate.observe(dts, bytes)) else { return };
        if let Some(encoder) = self.bin.by_name("encoder") {
            encoder.set_property("bitrate", self.encoder.bitrate(bitrate));
        }
    }

    pub fn request_keyframe(&self) {
        self.key_requested.store(true, Ordering::Relaxed);
    }

    /// Takes it out of a running chain; the others do not notice. What it still holds is of no use.
    pub fn cut_off(self, chain: &Chain) {
        let Self { bin, tee_pad, .. } = self;
        let (done, is_done) = mpsc::channel();
        let Some(begin) = bin.static_pad("sink") else { return };
        // Between two pictures.
        tee_pad.add_probe(gst::PadProbeType::IDLE, move |pad, _| {
            let _ = pad.unlink(&begin);
            let _ = done.send(());
            gst::PadProbeReturn::Remove
        });
        if is_done.recv_timeout(CUT_OFF_WAIT).is_err() {
            eprintln!("a branch could not be cut off between two pictures");
        }
        let _ = bin.set_state(gst::State::Null);
        let _ = chain.pipeline().remove(&bin);
        if let Ok(tee) = chain.element::<gst::Element>("tee") {
            tee.release_request_pad(&tee_pad);
        }
    }
}

/// How pictures are scaled. The lanczos of 1.22.0 darkens what it makes three times smaller by 5 %; sinc, nearly as sharp, does not.
fn method(source: (u32, u32), made: (u32, u32)) -> &'static str {
    let whole = |source: u32, made: u32| source.is_multiple_of(made.max(1));
    if whole(source.0, made.0) && whole(source.1, made.1) { "sinc" } else { "lanczos" }
}

/// Which pictures the branch takes.
struct Choice {
    pacing: Pacing,
    picture: Picture,
    /// Where the pace is not always the same.
    changing: Option<Changing>,
    encoder: gst::Element,
    keys: Arc<Mutex<Keys>>,
    live: Arc<AtomicBool>,
    key_requested: Arc<AtomicBool>,
    /// The newest picture that is made already.
    after: Option<gst::ClockTime>,
    /// The encoder has had its first picture.
    started: bool,
    queue: gst::Element,
    shedding: Shedding,
    source_rate: FrameRate,
    made: Made,
    reports: SyncSender<Report>,
}

impl Choice {
    fn apply(self, pad: &gst::Pad) {
        let choice = Mutex::new(self);
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
            let mut choice = choice.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let Some(pts) = buffer.pts() else { return gst::PadProbeReturn::Drop };
                    let Some(key) = choice.take(pts) else { return gst::PadProbeReturn::Drop };
                    choice.watch(pts, buffer);
                    drop(choice);
                    if key {
                        ask_for_keyframe(pad, pts);
                    }
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        // Rate control goes wrong by the factor that the rate is told wrong by.
                        let mut caps = caps.caps_owned();
                        if let Some(changing) = &mut choice.changing {
                            changing.info = gst_video::VideoInfo::from_caps(&caps).ok();
                        }
                        caps.make_mut().set("framerate", fraction(choice.source_rate, choice.picture.divisor));
                        info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
                    }
                }
                _ => (),
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Whether a picture is encoded, and then whether the encoder is to be asked for a keyframe.
    fn take(&mut self, pts: gst::ClockTime) -> Option<bool> {
        let mark = self.keys.lock().unwrap_or_else(PoisonError::into_inner).mark;
        let taken = self.pace(pts.nseconds(), mark);
        if self.after.is_some_and(|after| pts <= after) {
            return None;
        }
        let asked = self.key_requested.load(Ordering::Relaxed);
        let key = taken? || asked;
        let backlog = self.queue.property::<u32>("current-level-buffers");
        let live = self.live.load(Ordering::Relaxed);
        if self.shedding.sheds(pts.nseconds(), backlog, live) && !key && self.started {
            // Where nobody reads reports, the process is about to end.
            let _ = self.reports.send(Report::Shed(self.made, 1));
            return None;
        }
        self.shedding.taken = Some(pts.nseconds());
        if asked {
            self.key_requested.store(false, Ordering::Relaxed);
        }
        // The first picture is a keyframe anyway, and a request that meets it makes 1.22.0 refuse all later ones: it books the
        // request at running time 1000 h, by which x264enc moves its times.
        Some(std::mem::replace(&mut self.started, true) && key)
    }

    /// Whether it is the picture's turn, and then whether as a keyframe. At a cut the pace may change.
    fn pace(&mut self, at: u64, mark: Mark) -> Option<bool> {
        let Some(changing) = &mut self.changing else { return self.pacing.take(at, mark) };
        let Picture { divisor, slow_divisor, .. } = self.picture;
        let fast = changing.motion.wants_fast(at);
        let before = self.pacing.divisor();
        self.pacing.change_at_cut(if fast { divisor } else { slow_divisor });
        let taken = self.pacing.take(at, mark);
        let now = self.pacing.divisor();
        if now != before {
            changing.motion.changed(at, fast);
            FAST[self.made.index()].store(fast, Ordering::Relaxed);
            // Early by what is in the queue, which is a few pictures.
            changing.coder.retarget(&self.encoder, changing.target.slower(now / divisor));
            self.shedding.change(self.source_rate, Picture { divisor: now, ..self.picture });
        }
        taken
    }

    /// Looks at a picture that is taken, and says how long it is shown: the next pace tells another length.
    fn watch(&mut self, pts: gst::ClockTime, buffer: &mut gst::Buffer) {
        let Some(changing) = &mut self.changing else { return };
        changing.look(pts, buffer);
        let length = f64::from(self.pacing.divisor()) / self.source_rate.as_f64().max(1.0);
        buffer.make_mut().set_duration(gst::ClockTime::from_nseconds((length * 1e9) as u64));
    }
}

/// How a rung of `auto` goes.
struct Changing {
    motion: Motion,
    blocks: Blocks,
    /// Of the pictures that come.
    info: Option<gst_video::VideoInfo>,
    /// At the full pace, which the encoder was told.
    target: Target,
    coder: &'static Encoder,
}

impl Changing {
    fn new(is_fast: bool, target: Target, coder: &'static Encoder) -> Self {
        Self { motion: Motion::new(is_fast), blocks: Blocks::default(), info: None, target, coder }
    }

    fn look(&mut self, pts: gst::ClockTime, buffer: &gst::BufferRef) {
        // Where pixels have more than a byte, it stays as it is.
        let Some(info) = self.info.as_ref().filter(|info| info.is_yuv() && info.comp_depth(0) == 8) else { return };
        let Ok(frame) = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info) else { return };
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let (Ok(luma), stride) = (frame.plane_data(0), frame.plane_stride()[0]) else { return };
        let share = self.blocks.compare(luma, usize::try_from(stride).unwrap_or(0), width, height);
        if let Some(share) = share {
            self.motion.observe(pts.nseconds(), share);
        }
    }
}

fn ask_for_keyframe(pad: &gst::Pad, pts: gst::ClockTime) {
    let event = gst_video::DownstreamForceKeyUnitEvent::builder().timestamp(pts).stream_time(pts).running_time(pts);
    pad.push_event(event.all_headers(true).build());
}

/// Whether pictures are left out for an encoder that is too slow.
struct Shedding {
    /// Pictures in the queue from which on some are.
    backlog_max: u32,
    /// Of two that are taken, the second comes so soon that no Part is without: in nanoseconds.
    distance_max: u64,
    interval: u64,
    taken: Option<u64>,
    /// What came faster than it is shown is encoded, or has had its time: the queue says how slow the encoder is.
    armed: bool,
    live_from: Option<u64>,
}

impl Shedding {
    fn new(frame_rate: FrameRate, picture: Picture) -> Self {
        let source_rate = frame_rate.as_f64().max(1.0);
        let rate = (source_rate / f64::from(picture.divisor)).round() as u32;
        let interval = (1e9 / source_rate) as u64;
        Self {
            backlog_max: (rate / BACKLOG_SHARE).clamp(2, QUEUE_MAX - 4),
            distance_max: interval * u64::from(picture.in_part),
            interval: interval * u64::from(picture.divisor),
            taken: None,
            armed: false,
            live_from: None,
        }
    }

    /// Goes on at another pace.
    fn change(&mut self, frame_rate: FrameRate, picture: Picture) {
        let Self { taken, armed, live_from, .. } = *self;
        *self = Self { taken, armed, live_from, ..Self::new(frame_rate, picture) };
    }

    fn sheds(&mut self, at: u64, backlog: u32, live: bool) -> bool {
        if !live {
            return false;
        }
        let live_from = *self.live_from.get_or_insert(at);
        self.armed |= backlog <= 1 || at.saturating_sub(live_from) >= ARMED_AFTER.nseconds();
        let next_in_time = self.taken.is_some_and(|taken| at + self.interval <= taken + self.distance_max);
        self.armed && backlog >= self.backlog_max && next_in_time
    }
}

fn fraction(frame_rate: FrameRate, divisor: u32) -> gst::Fraction {
    let seconds = frame_rate.seconds.saturating_mul(divisor);
    gst::Fraction::new(i32::try_from(frame_rate.frames).unwrap_or(30), i32::try_from(seconds).unwrap_or(1).max(1))
}

fn report_samples(
    sink: &gst_app::AppSink,
    lane: LaneId,
    made: Made,
    clock: Clock,
    with_lengths: bool,
    reports: SyncSender<Report>,
) -> mpsc::Receiver<()> {
    let (eos, ended) = mpsc::channel();
    let mut told = None;
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let (buffer, caps, segment) = chain::pull(sink)?;
                if told.as_ref() != Some(&caps) {
                    let track = track(made, &caps).ok_or(gst::FlowError::NotNegotiated)?;
                    reports.send(Report::Track(lane, made, track.into())).map_err(|_| gst::FlowError::Eos)?;
                    told = Some(caps);
                }
                let coded = coded(made, buffer, &segment, clock, with_lengths).ok_or(gst::FlowError::Error)?;
                reports.send(Report::Sample(lane, made, coded)).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| _ = eos.send(()))
            .build(),
    );
    ended
}

fn track(made: Made, caps: &gst::Caps) -> Option<Track> {
    let parameters = Parameters::H264(h264::Parameters::parse(chain::codec_data(caps)?).ok()?);
    Some(Track { id: TrackId::VIDEO, timescale: lane::timescale(made, 0)?, parameters })
}

fn coded(made: Made, buffer: gst::Buffer, segment: &gst::Segment, clock: Clock, with_length: bool) -> Option<Coded> {
    // x264enc moves its times by 1000 h, and its segment with them: only the running time is the source's.
    let running = segment.downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?)?;
    let scale = lane::timescale(made, 0)?;
    let pts = clock.outward(running, scale);
    let length = buffer.duration().filter(|_| with_length).map_or(0, |length| length.nseconds());
    let duration = u64::from(scale.ticks_per_second()).saturating_mul(length).saturating_add(500_000_000) / 1_000_000_000;
    let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    let (duration, payload) = (u32::try_from(duration).unwrap_or(0), chain::payload(buffer).ok()?);
    Some(Coded { pts, dts: pts, duration, keyframe, cut: false, live: true, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_stays_white_whatever_its_size() {
        gst::init().unwrap();
        for made in [(32u32, 18u32), (48, 28), (80, 46), (64, 36)] {
            let (width, height) = made;
            let pipeline = gst::parse::launch(&format!(
                "videotestsrc num-buffers=1 pattern=white ! video/x-raw,format=I420,width=96,height=54 ! videoconvertscale method={} \
                 ! video/x-raw,format=I420,width={width},height={height} ! appsink name=sink sync=false",
                method((96, 54), made)
            ));
            let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
            let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            let (buffer, ..) = chain::pull(&sink).unwrap();
            pipeline.set_state(gst::State::Null).unwrap();
            let bytes = chain::payload(buffer).unwrap();
            let luma = &bytes[..(width * height) as usize];
            assert!(luma.iter().all(|value| *value >= 233), "{made:?}: {:?}", luma.iter().min());
        }
    }
}
