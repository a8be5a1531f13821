//! Transport streams of real muxers, to Samples.

use std::time::Instant;

use media_core::{Parameters, TrackKind};

use super::*;

/// ffmpeg 5.1.9, see `testdata/README.md`.
const H264_AAC: &[u8] = include_bytes!("../../testdata/srt/h264-aac.ts");
const HEVC_OPUS: &[u8] = include_bytes!("../../testdata/srt/hevc-opus.ts");
const MPEG2_MP2: &[u8] = include_bytes!("../../testdata/srt/mpeg2-mp2.ts");

struct Fed1 {
    samples: Vec<Sample>,
    announced: Vec<Announcement>,
    feed: Feed,
}

fn feed(stream: &[u8], piece: usize) -> Result<Fed1, Refused> {
    let now = Instant::now();
    let mut feed = Feed::default();
    let (mut samples, mut announced) = (Vec::new(), Vec::new());
    let pieces = stream.chunks(piece).map(Some).chain([None]);
    for piece in pieces {
        match piece {
            Some(piece) => feed.push(now, piece)?,
            None => feed.finish(now),
        }
        while let Some(output) = feed.poll_output() {
            match output {
                Fed::Sample(sample) => samples.push(sample),
                Fed::Announced(announcement) => announced.push(announcement),
            }
        }
    }
    Ok(Fed1 { samples, announced, feed })
}

fn of(samples: &[Sample], kind: TrackKind) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.track.kind() == kind).collect()
}

/// Pictures of 30 a second with B-frames, 24 of them, and as much sound.
fn check(stream: &[u8], codecs: [&str; 2]) {
    let whole = feed(stream, stream.len()).unwrap();
    assert_eq!(whole.announced.len(), 1);
    assert!(whole.announced[0].video && whole.announced[0].audio);
    assert_eq!((whole.feed.repairs().total(), whole.feed.drops().total()), (0, 0), "{:?}", whole.feed.drops());
    let (pictures, sound) = (of(&whole.samples, TrackKind::Video), of(&whole.samples, TrackKind::Audio));
    assert_eq!(pictures.len(), 24);
    assert!(pictures[0].keyframe && pictures[0].track.parameters.size() == Some((160, 90)));
    let steps: Vec<_> = pictures.windows(2).map(|pair| pair[1].dts.ticks - pair[0].dts.ticks).collect();
    assert!(steps.iter().all(|step| *step == 3000), "to the tick: {steps:?}");
    assert!(pictures.iter().any(|sample| sample.pts != sample.dts), "B-frames");
    assert!(pictures.iter().all(|sample| (sample.pts.ticks - sample.dts.ticks) % 3000 == 0));
    assert_eq!([pictures[0], sound[0]].map(|sample| sample.track.codec_string()), codecs);
    assert!(sound.len() > 30);
    assert!(sound.windows(2).all(|pair| pair[1].pts.ticks - pair[0].pts.ticks == i64::from(pair[0].duration.unwrap())));
    for piece in [1, 188, 1316, 4096] {
        let cut = feed(stream, piece).unwrap();
        let same = |a: &Sample, b: &Sample| (a.pts, a.dts, &a.payload) == (b.pts, b.dts, &b.payload);
        assert_eq!(cut.samples.len(), whole.samples.len(), "in pieces of {piece}");
        assert!(cut.samples.iter().zip(&whole.samples).all(|(a, b)| same(a, b)), "in pieces of {piece}");
    }
}

#[test]
fn what_ffmpeg_sends_becomes_samples() {
    check(H264_AAC, ["avc1.4d400b", "mp4a.40.2"]);
    check(HEVC_OPUS, ["hvc1.1.6.L30.90", "opus"]);
    let opus = feed(HEVC_OPUS, 1316).unwrap();
    let sound = of(&opus.samples, TrackKind::Audio);
    assert!(matches!(&sound[0].track.parameters, Parameters::Opus(opus) if opus.channels == 1));
}

#[test]
fn codecs_that_are_not_taken_are_named() {
    let Err(refused) = feed(MPEG2_MP2, 1316) else { panic!("it is refused") };
    assert_eq!(refused, Refused::Picture("MPEG-2 video"));
}

#[test]
fn lost_packets_cost_what_they_held() {
    let lossless = feed(H264_AAC, 1316).unwrap();
    // Seven transport packets each; the first hold tables and the first keyframe. A PES packet has up to 40 frames of sound.
    for lost in 4..H264_AAC.len() / 1316 {
        let mut stream = H264_AAC.to_vec();
        stream.drain(lost * 1316..(lost + 1) * 1316);
        let fed = feed(&stream, 1316).unwrap();
        let missing = lossless.samples.len() - fed.samples.len();
        assert!((1..=40).contains(&missing), "{missing} without datagram {lost}");
        let known = |sample: &Sample| lossless.samples.iter().any(|other| other.payload == sample.payload);
        assert!(fed.samples.iter().all(known), "nothing damaged is passed on, without datagram {lost}");
        assert!(fed.feed.drops().of(Dropped::Malformed) >= 1, "counted, without datagram {lost}");
    }
}

#[test]
fn ticks_go_through_the_clocks_as_they_are() {
    for ticks in [0, 1, 44, 89, 90, 91, 12_345_678, (1 << 33) - 1, 1 << 33, -1, -90, -91] {
        let mut clocks = Clocks::default();
        let first = clocks.picture_after(TrackId::VIDEO, told(ticks), 7);
        let next = clocks.picture_after(TrackId::VIDEO, told(ticks + 3003), -7);
        assert_eq!((next.dts.ticks - first.dts.ticks, first.pts.ticks - first.dts.ticks), (3003, 7), "{ticks}");
    }
}
