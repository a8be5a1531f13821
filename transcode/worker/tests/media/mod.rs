//! Media that is made here, a publisher that sends it, and a measure of what comes out.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::{
    f64::consts::TAU,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use gst::prelude::*;
use media_core::{
    Cursor, Item, Parameters, Publication, Registry, Sample, Stream, StreamKey, StreamName, Timescale, Timestamp, Track, TrackId,
    codec::{aac, av1, h264, hevc, opus},
    registry::Acquire,
};
use transcode::{Config, Transcoder};

pub const LEFT_HZ: f64 = 440.0;
pub const RIGHT_HZ: f64 = 1000.0;
/// Where media begins on the publisher's timeline, so that nothing lies before zero.
pub const BEGIN_S: i64 = 10;

/// One buffer of a pipeline's.
#[derive(Clone)]
pub struct Unit {
    pub pts_ns: i64,
    pub dts_ns: i64,
    pub keyframe: bool,
    pub data: Bytes,
}

pub fn scale(ticks: u32) -> Timescale {
    Timescale::new(ticks).unwrap()
}

/// Everything that comes out of a chain of elements, and its caps.
pub fn through(head: &str, chain: &str, input: Option<(&gst::Caps, &[Unit])>) -> (gst::Caps, Vec<Unit>) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!("{head} ! {chain} ! appsink name=sink sync=false async=false")).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    if let Some((caps, units)) = input {
        let source = pipeline.by_name("source").unwrap().downcast::<gst_app::AppSrc>().unwrap();
        source.set_caps(Some(caps));
        for unit in units {
            let mut buffer = gst::Buffer::from_slice(unit.data.clone());
            buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_nseconds(unit.pts_ns as u64));
            source.push_buffer(buffer).unwrap();
        }
        source.end_of_stream().unwrap();
    }
    let (mut caps, mut units) = (gst::Caps::new_empty(), Vec::new());
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(20)) {
        let (buffer, segment) = (sample.buffer().unwrap(), sample.segment().unwrap());
        let begin = segment.downcast_ref::<gst::ClockTime>().unwrap().start().unwrap().nseconds() as i64;
        caps = sample.caps_owned().unwrap();
        let ns = |time: Option<gst::ClockTime>| time.map_or(0, |time| time.nseconds() as i64 - begin);
        units.push(Unit {
            pts_ns: ns(buffer.pts()),
            dts_ns: ns(buffer.dts().or(buffer.pts())),
            keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            data: Bytes::copy_from_slice(&buffer.map_readable().unwrap()),
        });
    }
    assert!(sink.is_eos());
    pipeline.set_state(gst::State::Null).unwrap();
    (caps, units)
}

const APPSRC: &str = "appsrc name=source format=time max-bytes=0";

fn codec_data(caps: &gst::Caps) -> Bytes {
    let buffer = caps.structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
    Bytes::copy_from_slice(&buffer.map_readable().unwrap())
}

fn sample(track: &Arc<Track>, pts: Timestamp, dts: Timestamp, duration: Option<u32>, unit: &Unit) -> Sample {
    let received = Instant::now();
    Sample { track: Arc::clone(track), pts, dts, duration, keyframe: unit.keyframe, payload: unit.data.clone(), received }
}

/// `seconds` of 30 pictures a second, a keyframe a second, times in whole milliseconds as RTMP has them.
pub fn video(width: u32, height: u32, seconds: i64, bframes: u32) -> Vec<Sample> {
    clip_of("smpte horizontal-speed=3", width, height, seconds * 30, &format!("bframes={bframes}"), "high")
}

/// Of a pattern of `videotestsrc`, and its options.
pub fn video_of(pattern: &str, width: u32, height: u32, seconds: i64, bframes: u32) -> Vec<Sample> {
    clip_of(pattern, width, height, seconds * 30, &format!("bframes={bframes}"), "high")
}

/// `count` pictures of the same, by further settings of x264enc, in a profile of H.264.
pub fn clip(width: u32, height: u32, count: i64, settings: &str, profile: &str) -> Vec<Sample> {
    clip_of("smpte horizontal-speed=3", width, height, count, settings, profile)
}

fn clip_of(pattern: &str, width: u32, height: u32, count: i64, settings: &str, profile: &str) -> Vec<Sample> {
    let (caps, units) = through(
        &format!("videotestsrc num-buffers={count} pattern={pattern}"),
        &format!(
            "video/x-raw,format=I420,width={width},height={height},framerate=30/1 ! x264enc speed-preset=superfast {settings} \
             b-adapt=false key-int-max=30 rc-lookahead=5 bitrate=2500 option-string=open-gop=0:scenecut=0 \
             ! video/x-h264,profile={profile},stream-format=avc,alignment=au"
        ),
        None,
    );
    pictures(Parameters::H264(h264::Parameters::parse(codec_data(&caps)).unwrap()), &units)
}

fn pictures(parameters: Parameters, units: &[Unit]) -> Vec<Sample> {
    let track = Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters });
    let at = |ns: i64| Timestamp::from_millis((ns + 500_000).div_euclid(1_000_000) + BEGIN_S * 1000);
    units.iter().map(|unit| sample(&track, at(unit.pts_ns), at(unit.dts_ns), None, unit)).collect()
}

/// The same of x265, with two B-frames.
pub fn hevc(seconds: i64) -> Vec<Sample> {
    let (caps, units) = through(
        &format!("videotestsrc num-buffers={} pattern=smpte horizontal-speed=3", seconds * 30),
        "video/x-raw,format=I420,width=640,height=360,framerate=30/1 ! x265enc speed-preset=ultrafast key-int-max=30 bitrate=2500 \
         option-string=bframes=2:b-adapt=0:open-gop=0:scenecut=0:rc-lookahead=5 ! h265parse \
         ! video/x-h265,stream-format=hvc1,alignment=au",
        None,
    );
    for unit in &units {
        assert!(hevc::is_well_formed(&unit.data));
        assert_eq!(hevc::is_keyframe(&unit.data), unit.keyframe, "as GStreamer sees it");
    }
    pictures(Parameters::Hevc(hevc::Parameters::parse(codec_data(&caps)).unwrap()), &units)
}

/// The same of libaom, as browsers use it.
pub fn av1(seconds: i64) -> Vec<Sample> {
    let (_, mut units) = through(
        &format!("videotestsrc num-buffers={} pattern=smpte horizontal-speed=3", seconds * 30),
        "video/x-raw,format=I420,width=640,height=360,framerate=30/1 ! av1enc usage-profile=realtime cpu-used=10 \
         keyframe-max-dist=30 lag-in-frames=0 target-bitrate=1500 ! av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
        None,
    );
    for unit in &mut units {
        // A temporal delimiter, which Samples do not have.
        unit.data = unit.data.strip_prefix(&[0x12, 0]).map_or_else(|| unit.data.clone(), Bytes::copy_from_slice);
        assert!(av1::is_well_formed(&unit.data));
        assert_eq!(av1::is_keyframe(&unit.data), unit.keyframe, "as GStreamer sees it");
    }
    pictures(Parameters::Av1(av1::Parameters::from_unit(&units[0].data).unwrap()), &units)
}

/// Two tones, in stereo or as the front of 5.1.
fn pcm(rate: u32, seconds: usize, channels: usize) -> (gst::Caps, Vec<Unit>) {
    gst::init().unwrap();
    let step = rate as usize / 50;
    let units = (0..seconds * 50).map(|block| {
        let samples = (block * step..(block + 1) * step).flat_map(|n| {
            let t = n as f64 / f64::from(rate);
            let front = [0.4 * (TAU * LEFT_HZ * t).sin(), 0.4 * (TAU * RIGHT_HZ * t).sin()];
            front.into_iter().chain([0.0; 4]).take(channels)
        });
        let data = samples.flat_map(|value| (value as f32).to_le_bytes()).collect();
        Unit { pts_ns: block as i64 * 20_000_000, dts_ns: 0, keyframe: true, data }
    });
    let caps =
        gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("layout", "interleaved").field("rate", rate as i32);
    let mask = gst::Bitmask::new(if channels == 2 { 0x3 } else { 0x3f });
    (caps.field("channels", channels as i32).field("channel-mask", mask).build(), units.collect())
}

/// Two tones, AAC, timed so that what is heard at a time is that time's sound.
pub fn aac(rate: u32, seconds: usize) -> Vec<Sample> {
    aac_of(rate, seconds, 2)
}

pub fn aac_of(rate: u32, seconds: usize, channels: usize) -> Vec<Sample> {
    let (caps, units) = pcm(rate, seconds, channels);
    let (caps, units) = through(
        APPSRC,
        "audioconvert ! avenc_aac bitrate=192000 aac-coder=fast aac-ms=false aac-is=false aac-pns=false",
        Some((&caps, &units)),
    );
    let parameters = Parameters::Aac(aac::Parameters::parse(codec_data(&caps)).unwrap());
    let track = Arc::new(Track { id: TrackId::AUDIO, timescale: scale(rate), parameters });
    let samples = units.iter().enumerate().map(|(n, unit)| {
        let pts = Timestamp::new(BEGIN_S * i64::from(rate) + (n as i64 - 1) * 1024, track.timescale);
        sample(&track, pts, pts, Some(1024), unit)
    });
    samples.collect()
}

/// Two tones, Opus, timed as RTP senders do: from the first sample that went into the packet.
pub fn opus(seconds: usize) -> Vec<Sample> {
    let (caps, units) = pcm(48_000, seconds, 2);
    let (_, units) = through(APPSRC, "audioconvert ! opusenc bitrate=192000 frame-size=20", Some((&caps, &units)));
    let parameters = Parameters::Opus(opus::Parameters { channels: 2 });
    let track = Arc::new(Track { id: TrackId::AUDIO, timescale: scale(48_000), parameters });
    let samples = units.iter().enumerate().map(|(n, unit)| {
        let pts = Timestamp::new(BEGIN_S * 48_000 + n as i64 * 960, track.timescale);
        sample(&track, pts, pts, Some(960), unit)
    });
    samples.collect()
}

/// A stream that is transcoded by the real program.
pub struct Rig {
    pub publication: Option<Publication>,
    pub stream: Arc<Stream>,
    pub metrics: prometheus::Registry,
    _transcoder: Transcoder,
    registry: Registry,
    _runtime: tokio::runtime::Runtime,
    /// Times are measured: one at a time.
    _alone: MutexGuard<'static, ()>,
}

impl Rig {
    pub fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let metrics = prometheus::Registry::new();
        let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_codecast-transcode")));
        let transcoder = Transcoder::new(Config { program, ..Config::default() }, &metrics).unwrap();
        let (adopting, handle) = (transcoder.clone(), runtime.handle().clone());
        let registry = Registry::new(SystemTime::now(), 1, move |stream| {
            let _runtime = handle.enter();
            adopting.adopt(stream);
        });
        let publication = Some(acquire(&registry));
        let stream = registry.stream(&name()).unwrap();
        Self { _alone: alone, publication, stream, metrics, _transcoder: transcoder, registry, _runtime: runtime }
    }

    pub fn publish(&self, sample: &Sample) {
        self.publication.as_ref().unwrap().publish(Sample { received: Instant::now(), ..sample.clone() }).unwrap();
    }

    /// The publisher goes and comes again.
    pub fn rejoin(&mut self) {
        self.publication = None;
        self.publication = Some(acquire(&self.registry));
    }

    /// The program's process.
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once(") ")?;
            let parent = rest.split(' ').nth(1)?;
            let ours = name.contains("(codecast-transc") && parent == std::process::id().to_string() && !rest.starts_with('Z');
            // One that measures what pictures cost makes none.
            let makes = || std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| !line.contains("--measure"));
            (ours && makes()).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
        })
    }

    /// Memory that it holds, in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    }

    /// Seconds of processor time that it has used.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        rest.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

fn name() -> StreamName {
    StreamName::parse("tones").unwrap()
}

fn acquire(registry: &Registry) -> Publication {
    match registry.acquire(&name(), &StreamKey::new("a-key-of-the-tests"), None, Instant::now()) {
        Acquire::Granted(publication) => publication,
        other => panic!("{other:?}"),
    }
}

/// What there is to read now.
pub fn read(cursor: &mut Cursor<Item>) -> Vec<Item> {
    let mut items = Vec::new();
    let _ = cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut items, usize::MAX);
    items
}

/// The width and the height that a JPEG tells (SOF0), and its pixels, RGB.
pub fn shown(jpeg: &Bytes) -> (u16, u16, Bytes) {
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    let side = |at: usize| u16::from_be_bytes([jpeg[frame + at], jpeg[frame + at + 1]]);
    let unit = Unit { pts_ns: 0, dts_ns: 0, keyframe: true, data: jpeg.clone() };
    let caps = gst::Caps::builder("image/jpeg").build();
    let (_, pictures) = through(APPSRC, "jpegdec ! videoconvert ! video/x-raw,format=RGB", Some((&caps, &[unit])));
    (side(7), side(5), pictures[0].data.clone())
}

/// Reads until `enough` says so.
pub fn read_until(cursor: &mut Cursor<Item>, items: &mut Vec<Item>, enough: impl Fn(&[Item]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !enough(items) {
        assert!(
            Instant::now() < deadline,
            "nothing more comes after {} Items, the last {:?}",
            items.len(),
            items.last().map(brief)
        );
        std::thread::sleep(Duration::from_millis(2));
        items.extend(read(cursor));
    }
}

fn brief(item: &Item) -> String {
    match item {
        Item::Sample(sample) => format!("Sample at {:?}", sample.pts),
        other => format!("{other:?}"),
    }
}

pub fn samples(items: &[Item]) -> Vec<Arc<Sample>> {
    items.iter().filter_map(|item| if let Item::Sample(sample) = item { Some(Arc::clone(sample)) } else { None }).collect()
}

/// How many pictures a decoder shows of made ones that share a track.
pub fn decoded(samples: &[Arc<Sample>]) -> usize {
    let Parameters::H264(parameters) = &samples[0].track.parameters else { panic!("a picture is H.264") };
    let caps = gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au");
    let caps = caps.field("codec_data", gst::Buffer::from_slice(parameters.record.clone())).build();
    let at = |s: &Sample| (s.pts - samples[0].pts).as_micros() * 1000;
    let unit = |s: &Arc<Sample>| Unit { pts_ns: at(s), dts_ns: at(s), keyframe: s.keyframe, data: s.payload.clone() };
    let units: Vec<_> = samples.iter().map(unit).collect();
    through(APPSRC, "h264parse ! avdec_h264", Some((&caps, &units))).1.len()
}

/// What is heard of made sound, from its first Sample on, 48 kHz: left and right.
pub fn heard(samples: &[Arc<Sample>]) -> [Vec<f64>; 2] {
    let (caps, decoder) = match &samples[0].track.parameters {
        Parameters::Opus(_) => (
            gst::Caps::builder("audio/x-opus")
                .field("channel-mapping-family", 0i32)
                .field("channels", 2i32)
                .field("rate", 48_000i32)
                .build(),
            "opusdec",
        ),
        Parameters::Aac(p) => {
            let caps =
                gst::Caps::builder("audio/mpeg").field("mpegversion", 4i32).field("stream-format", "raw").field("framed", true);
            let caps = caps.field("rate", p.sample_rate as i32).field("channels", i32::from(p.channels()));
            (caps.field("codec_data", gst::Buffer::from_slice(p.config.clone())).build(), "avdec_aac")
        }
        Parameters::H264(_) | Parameters::Hevc(_) | Parameters::Av1(_) => panic!("a picture makes no sound"),
    };
    let frame = i64::from(samples[0].duration.unwrap());
    let units: Vec<_> = samples
        .iter()
        .enumerate()
        .map(|(n, s)| Unit {
            pts_ns: n as i64 * frame * 1_000_000_000 / 48_000,
            dts_ns: 0,
            keyframe: true,
            data: s.payload.clone(),
        })
        .collect();
    let (_, pcm) = through(
        APPSRC,
        &format!("{decoder} ! audioconvert ! audio/x-raw,format=F32LE,layout=interleaved,channels=2"),
        Some((&caps, &units)),
    );
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for pair in pcm.iter().flat_map(|unit| unit.data.chunks_exact(8)) {
        left.push(f64::from(f32::from_le_bytes(pair[..4].try_into().unwrap())));
        right.push(f64::from(f32::from_le_bytes(pair[4..].try_into().unwrap())));
    }
    [left, right]
}

/// A tone in a piece of sound that begins at sample `at`: level, how late it is in ms (within half a period), and all that
/// is not the tone, in dB of it.
pub struct Tone {
    pub level: f64,
    pub late_ms: f64,
    pub rest_db: f64,
}

pub fn tone(sound: &[f64], at: i64, hz: f64) -> Tone {
    let phase = |n: usize| TAU * hz * (at + n as i64) as f64 / 48_000.0;
    let (mut s, mut c) = (0.0, 0.0);
    for (n, value) in sound.iter().enumerate() {
        s += value * phase(n).sin();
        c += value * phase(n).cos();
    }
    let scale = 2.0 / sound.len() as f64;
    let (s, c) = (s * scale, c * scale);
    let rest: f64 = sound.iter().enumerate().map(|(n, v)| (v - s * phase(n).sin() - c * phase(n).cos()).powi(2)).sum();
    let level = s.hypot(c);
    let power = level * level / 2.0 * sound.len() as f64;
    Tone { level, late_ms: -c.atan2(s) / TAU / hz * 1000.0, rest_db: 10.0 * (rest / power).log10() }
}
