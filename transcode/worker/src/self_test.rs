//! `codecast-transcode --self-test`: which elements of GStreamer are there, and work. For `codecast doctor`.
//!
//! Without a name it lists what can be tried, a JSON object a line. With one it tries that alone, so that one that crashes
//! or hangs takes nothing with it; who started it bounds the time.

use anyhow::{Context, Result, bail};
use gst::prelude::*;

/// What is tried.
struct Probe {
    /// The element, and the name of the probe.
    element: &'static str,
    /// What it is for, in words.
    purpose: &'static str,
    need: Need,
    way: Way,
}

/// What is missing without it.
#[derive(Clone, Copy)]
enum Need {
    /// What every server does.
    Core,
    /// One of its kind has to be there.
    Codec,
    /// Good to have.
    Spare,
}

enum Way {
    /// A picture of a test pattern goes through it.
    Pictures,
    /// A coded picture or sound goes in: its caps, its parser, its bytes.
    Bytes(&'static str, &'static str, &'static [u8]),
    /// Sound goes through this chain, in which it is.
    Sound(&'static str),
    /// It can be made.
    Made,
}

const H264: Way =
    Way::Bytes("video/x-h264,stream-format=byte-stream,alignment=au", "h264parse", include_bytes!("sample/picture.h264"));
const HEVC: Way =
    Way::Bytes("video/x-h265,stream-format=byte-stream,alignment=au", "h265parse", include_bytes!("sample/picture.h265"));
const AV1: Way =
    Way::Bytes("video/x-av1,stream-format=obu-stream,alignment=tu", "av1parse", include_bytes!("sample/picture.obu"));
const AAC: Way = Way::Bytes("audio/mpeg,mpegversion=4,stream-format=adts", "aacparse", include_bytes!("sample/tone.aac"));

const fn probe(element: &'static str, purpose: &'static str, need: Need, way: Way) -> Probe {
    Probe { element, purpose, need, way }
}

const PROBES: [Probe; 17] = [
    probe("x264enc", "encodes H.264", Need::Core, Way::Pictures),
    probe("avdec_h264", "decodes H.264", Need::Core, H264),
    probe("avdec_aac", "decodes AAC", Need::Core, AAC),
    probe("avenc_aac", "encodes AAC", Need::Core, Way::Sound("avenc_aac")),
    probe("opusenc", "encodes Opus", Need::Core, Way::Sound("opusenc")),
    probe("opusdec", "decodes Opus", Need::Core, Way::Sound("opusenc ! opusdec")),
    probe("avdec_h265", "decodes HEVC", Need::Codec, HEVC),
    probe("dav1ddec", "decodes AV1", Need::Codec, AV1),
    probe("av1dec", "decodes AV1", Need::Codec, AV1),
    probe("nvh264enc", "encodes H.264 by NVIDIA", Need::Spare, Way::Pictures),
    probe("vah264enc", "encodes H.264 by VA", Need::Spare, Way::Pictures),
    probe("vaapih264enc", "encodes H.264 by VA-API", Need::Spare, Way::Pictures),
    probe("qsvh264enc", "encodes H.264 by Intel", Need::Spare, Way::Pictures),
    probe("openh264enc", "encodes H.264", Need::Spare, Way::Pictures),
    probe("jpegenc", "makes thumbnails", Need::Spare, Way::Pictures),
    probe("srtsrc", "takes SRT", Need::Spare, Way::Made),
    probe("v4l2h264enc", "encodes H.264 by the kernel's driver", Need::Spare, Way::Pictures),
];

/// How long one may take to give its first frame: a graphics card that sleeps wakes in less.
const FRAME_WAIT: gst::ClockTime = gst::ClockTime::from_seconds(8);

pub fn run(name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        for probe in &PROBES {
            let need = match probe.need {
                Need::Core => "core",
                Need::Codec => "codec",
                Need::Spare => "spare",
            };
            println!("{}", serde_json::json!({ "element": probe.element, "purpose": probe.purpose, "need": need }));
        }
        return Ok(());
    };
    let probe = PROBES.iter().find(|probe| probe.element == name).with_context(|| format!("no test of {name}"))?;
    gst::init().context("GStreamer cannot be loaded")?;
    let (outcome, problem) = match gst::ElementFactory::find(probe.element) {
        None => ("missing", None),
        Some(_) => match probe.try_it() {
            Ok(()) => ("works", None),
            Err(error) => ("fails", Some(format!("{error:#}"))),
        },
    };
    println!("{}", serde_json::json!({ "element": probe.element, "outcome": outcome, "problem": problem }));
    Ok(())
}

impl Probe {
    fn try_it(&self) -> Result<()> {
        let element = self.element;
        match self.way {
            Way::Pictures => flows(
                &format!(
                    "videotestsrc num-buffers=10 ! video/x-raw,width=320,height=240,framerate=30/1 ! videoconvert ! {element} ! appsink name=sink sync=false"
                ),
                None,
            ),
            Way::Sound(chain) => flows(
                &format!(
                    "audiotestsrc num-buffers=50 ! audio/x-raw,rate=48000,channels=2 ! audioconvert ! {chain} ! appsink name=sink sync=false"
                ),
                None,
            ),
            Way::Bytes(caps, parser, bytes) => flows(
                &format!("appsrc name=source caps=\"{caps}\" format=time ! {parser} ! {element} ! appsink name=sink sync=false"),
                Some(bytes),
            ),
            Way::Made => gst::ElementFactory::make(element).build().map(drop).context("it cannot be made"),
        }
    }
}

/// Whether anything comes out.
fn flows(description: &str, bytes: Option<&'static [u8]>) -> Result<()> {
    let pipeline =
        gst::parse::launch(description)?.downcast::<gst::Pipeline>().ok().context("several elements are a pipeline")?;
    let sink = pipeline.by_name("sink").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok()).context("there is a sink")?;
    let started = pipeline.set_state(gst::State::Playing);
    if let (Some(bytes), Some(source)) = (bytes, pipeline.by_name("source")) {
        let source = source.downcast::<gst_app::AppSrc>().ok().context("there is a source")?;
        let mut buffer = gst::Buffer::from_slice(bytes);
        buffer.get_mut().context("a new buffer is not shared")?.set_pts(gst::ClockTime::ZERO);
        source.push_buffer(buffer)?;
        source.end_of_stream()?;
    }
    let got = started.is_ok().then(|| sink.try_pull_sample(FRAME_WAIT)).flatten();
    let told = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    let _ = pipeline.set_state(gst::State::Null);
    match (got, told.as_ref().map(|message| message.view())) {
        (Some(_), _) => Ok(()),
        (None, Some(gst::MessageView::Error(error))) => bail!("{}", error.error()),
        (None, _) => bail!("nothing came out of it within {} s", FRAME_WAIT.seconds()),
    }
}
