//! A small JPEG of one keyframe: `appsrc ! h264parse ! avdec_h264 ! videoconvertscale ! jpegenc ! appsink`, from the beginning to
//! the end for each. That costs a few milliseconds every some seconds; a decoder that goes on would hold back the keyframe of a
//! source with B-frames until the next ones come, and everything that is made beside it would depend on it.

use anyhow::{Context, Result};
use bytes::Bytes;
use media_core::{Parameters, ladder};
use transcode::wire::Coded;

use crate::{
    chain::{self, Chain, Clock},
    decoders::Decoder,
    video,
};

pub const ELEMENTS: &[&str] = &["appsrc", "h264parse", "videoconvertscale", "jpegenc", "appsink"];

/// Of 100: text of 16 px scaled down by three is as good as it gets.
const QUALITY: u32 = 80;
/// A picture that is not there by then does not come.
const WAIT: gst::ClockTime = gst::ClockTime::from_seconds(2);

/// With so many lines on its shorter side at most.
pub fn make(parameters: &Parameters, decoder: &Decoder, lines: u32, keyframe: &Coded) -> Result<Bytes> {
    let (parser, caps) = video::coding(parameters)?;
    let size = parameters.size().map(|size| ladder::scaled(lines, size));
    let size = size.map_or_else(String::new, |(width, height)| format!(",width={width},height={height}"));
    // JPEG is of the full range, by BT.601 (JFIF 1.02). With lanczos 1.22.0 darkens what it makes three times smaller, by 5 %.
    let chain = Chain::new(&format!(
        "appsrc name=source {source} ! {parser} ! {element} name=decoder {options} ! videoconvertscale method=sinc n-threads=1 \
         ! video/x-raw,format=I420,colorimetry=1:4:0:0{size} ! jpegenc quality={QUALITY} ! appsink name=sink {sink}",
        source = chain::SOURCE,
        element = decoder.element,
        options = decoder.options,
        sink = chain::SINK,
    ))?;
    let source: gst_app::AppSrc = chain.element("source")?;
    let sink: gst_app::AppSink = chain.element("sink")?;
    source.set_caps(Some(&caps.build()));
    chain.start()?;
    source.push_buffer(chain::buffer(keyframe, Clock::starting_with(keyframe)))?;
    source.end_of_stream()?;
    let made = sink.try_pull_sample(WAIT);
    if let Some(failure) = chain.failure() {
        anyhow::bail!("{}", failure.why);
    }
    let buffer = made.context("no picture came of a keyframe")?.buffer_owned().context("a sample has a buffer")?;
    Ok(chain::payload(buffer)?)
}
