//! `codecast-transcode --measure`: what encoding and decoding cost here, for codecast's budget of the machine.
//!
//! A screen on which a little changes is encoded as a rung in the middle of a ladder is, by the first encoder that works, and
//! decoded again. What counts is the processor time of this process, so it does not matter who else is at work; it has the
//! lowest priority, so nobody is kept from it. A quarter of a second of one core in all.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use fastrand::Rng;
use media_core::{Parameters, codec::h264, rung};
use transcode::prices::Measured;

use crate::{
    chain::{self, Chain},
    decoders::{Decoder, Decoders},
    encoders::{Encoder, Encoders, Target},
    video,
};

/// The clip: 24 pictures cost little and tell enough; 10 a second and 800 kbit/s are the second rung of `legible`.
const SIZE: (usize, usize) = (1280, 720);
const PICTURES: usize = 24;
const PER_SECOND: u64 = 10;
const BITRATE: u32 = 800_000;
const BUFFER_MS: u32 = 1000;
/// How long a picture may take. Many times what it needs alone on a machine, since all others come first.
const PICTURE_WAIT: gst::ClockTime = gst::ClockTime::from_seconds(20);
const LOWEST_PRIORITY: i32 = 19;

pub fn run() -> Result<()> {
    // Where it is not allowed the machine is busy for a moment.
    let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
    gst::init().context("GStreamer cannot be loaded")?;
    println!("{}", measure(&Encoders::default())?);
    Ok(())
}

fn measure(encoders: &Encoders) -> Result<Measured> {
    let clip = screen();
    let (encoder, (encode, coded)) =
        first_that_works(encoders.all(), |encoder| encode(encoder, &clip)).context("nothing encodes H.264")?;
    let caps = coded.first().and_then(|picture| picture.caps_owned()).context("nothing came out of the encoder")?;
    let record = chain::codec_data(&caps).context("coded pictures have parameters")?;
    let parameters = Parameters::H264(h264::Parameters::parse(record).context("parameters of H.264")?);
    let decoders = Decoders::default().of(&parameters);
    let (decoder, decode) =
        first_that_works(decoders, |decoder| decode(decoder, &parameters, &coded)).context("nothing decodes H.264")?;
    Ok(Measured { encoder: encoder.element.into(), encode, decoder: decoder.element.into(), decode })
}

fn first_that_works<T, R>(all: Vec<&'static T>, run: impl Fn(&T) -> Result<R>) -> Result<(&'static T, R)> {
    let mut failed = anyhow!("none is installed");
    for one in all {
        match run(one) {
            Ok(done) => return Ok((one, done)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Of all threads of this process.
fn processor_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// What it costs, and what comes out.
fn encode(encoder: &Encoder, clip: &[Bytes]) -> Result<(f64, Vec<gst::Sample>)> {
    let (width, height) = (SIZE.0 as u32, SIZE.1 as u32);
    let target = Target { bitrate: BITRATE, buffer_ms: BUFFER_MS, level: Some(rung::level(width, height)) };
    let caps = format!("video/x-raw,format=I420,width={width},height={height},framerate={PER_SECOND}/1");
    let mut coded = Vec::with_capacity(PICTURES);
    let cost = flow(
        &format!(
            "appsrc name=source {source} ! videoconvertscale ! video/x-raw,format={format} ! {element} ! {behind} ! appsink name=sink {sink}",
            source = chain::SOURCE,
            format = encoder.format,
            element = encoder.element(target),
            behind = encoder.behind,
            sink = chain::SINK,
        ),
        &caps.parse().context("caps of a raw picture")?,
        clip.iter().map(|picture| gst::Buffer::from_slice(picture.clone())),
        |sample| coded.push(sample),
    )?;
    Ok((cost, coded))
}

fn decode(decoder: &Decoder, parameters: &Parameters, coded: &[gst::Sample]) -> Result<f64> {
    let (parser, caps) = video::coding(parameters)?;
    flow(
        &format!(
            "appsrc name=source {source} ! {parser} ! {element} {options} ! appsink name=sink {sink}",
            source = chain::SOURCE,
            element = decoder.element,
            options = decoder.options,
            sink = chain::SINK,
        ),
        &caps.build(),
        coded.iter().filter_map(|sample| Some(sample.buffer()?.copy())),
        // Where they were kept, each would be in memory that is new to the process.
        drop,
    )
}

/// What it costs that pictures go through a chain, in milliseconds of one core a million pixels. As many come out as go in.
fn flow(
    description: &str,
    caps: &gst::Caps,
    pictures: impl Iterator<Item = gst::Buffer>,
    mut take: impl FnMut(gst::Sample),
) -> Result<f64> {
    let chain = Chain::new(description)?;
    let (source, sink): (gst_app::AppSrc, gst_app::AppSink) = (chain.element("source")?, chain.element("sink")?);
    source.set_caps(Some(caps));
    chain.start()?;
    // By now libraries are loaded, which a stream pays for once.
    let begun = processor_ns();
    let between = gst::ClockTime::SECOND / PER_SECOND;
    for (n, mut picture) in pictures.enumerate() {
        let times = picture.get_mut().context("a new buffer is not shared")?;
        times.set_pts(between * n as u64);
        times.set_dts(between * n as u64);
        source.push_buffer(picture)?;
    }
    source.end_of_stream()?;
    let made = std::iter::from_fn(|| sink.try_pull_sample(PICTURE_WAIT)).map(&mut take).count();
    let ns = processor_ns() - begun;
    if made < PICTURES {
        let why = chain.failure().map_or("no more came", |failure| failure.why.as_str());
        bail!("{made} pictures of {PICTURES}: {why}");
    }
    Ok(ns as f64 / (PICTURES * SIZE.0 * SIZE.1) as f64)
}

// ---- the clip -------------------------------------------------------------------------------------------------------

/// A character's cell, and how dark the page is.
const CELL: (usize, usize) = (8, 16);
const PAGE: u8 = 30;
/// The page scrolls by three lines with so many pictures.
const SCROLL_EVERY: usize = 8;
/// Something like a camera, in the corner.
const CAMERA: (usize, usize) = (320, 180);

/// I420: lines of text, of which a few characters change with each picture, and all move now and then.
fn screen() -> Vec<Bytes> {
    // The same clip everywhere.
    let mut random = Rng::with_seed(1);
    let columns = SIZE.0 / CELL.0;
    let lines = SIZE.1 / CELL.1;
    let mut picture = vec![PAGE; SIZE.0 * SIZE.1];
    (0..lines).for_each(|line| write_line(&mut picture, line, &mut random));
    let chroma = vec![128; SIZE.0 * SIZE.1 / 2];
    (0..PICTURES)
        .map(|n| {
            if n % SCROLL_EVERY == SCROLL_EVERY - 1 {
                let rows = 3 * CELL.1 * SIZE.0;
                picture.copy_within(rows.., 0);
                (lines - 3..lines).for_each(|line| write_line(&mut picture, line, &mut random));
            }
            for _ in 0..3 {
                let (column, line) = (random.usize(..columns), random.usize(..lines));
                write_character(&mut picture, column, line, &mut random);
            }
            show_camera(&mut picture, n, &mut random);
            [&picture[..], &chroma].concat().into()
        })
        .collect()
}

/// Indented, a third of it written on, with a blank after every sixth character or so.
fn write_line(picture: &mut [u8], line: usize, random: &mut Rng) {
    let at = line * CELL.1 * SIZE.0;
    picture[at..at + CELL.1 * SIZE.0].fill(PAGE);
    let (indent, length) = (4 * random.usize(..5), 10 + random.usize(..80));
    for column in indent..indent + length {
        if random.usize(..6) > 0 {
            write_character(picture, column, line, random);
        }
    }
}

/// Strokes, one pixel wide, most of which stand or lie.
fn write_character(picture: &mut [u8], column: usize, line: usize, random: &mut Rng) {
    let shape = random.u64(..);
    for y in 2..CELL.1 - 3 {
        for x in 1..CELL.0 - 1 {
            let stands = shape >> x & 1 == 1 && shape >> (8 + y) & 1 == 1;
            let lies = shape >> (24 + y) & 1 == 1 && shape >> (40 + x) & 1 == 1;
            picture[(line * CELL.1 + y) * SIZE.0 + column * CELL.0 + x] = if stands || lies { 220 } else { PAGE };
        }
    }
}

/// Slopes that move, and a sensor's noise.
fn show_camera(picture: &mut [u8], n: usize, random: &mut Rng) {
    for y in 0..CAMERA.1 {
        let at = (SIZE.1 - CAMERA.1 + y) * SIZE.0 + SIZE.0 - CAMERA.0;
        for (x, pixel) in picture[at..at + CAMERA.0].iter_mut().enumerate() {
            let slope = (x + 5 * n) % 128 + (2 * y + 3 * n) % 96;
            *pixel = 16 + (slope + random.usize(..4)) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_that_fails_is_not_what_is_measured() {
        gst::init().unwrap();
        let measured = measure(&Encoders::among(&crate::encoders::FIRST_FAILS)).unwrap();
        assert_eq!(measured.encoder, "x264enc");
        assert!(measured.encode > 0.1 && measured.decode > 0.1, "{measured}");
    }
}
