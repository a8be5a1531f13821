//! Tracks and Samples for the tests of this folder. What becomes of timestamps is tested in `tests/hls/segmenter.rs`.

use media_core::{
    Timescale,
    codec::{aac, h264},
};

use super::*;

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`: the avcC box of the init segment.
const RECORD_360P30: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];

pub fn video_track() -> Arc<Track> {
    let parameters = h264::Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
    Arc::new(Track { timescale: Timescale::new(90_000).unwrap(), parameters: Parameters::H264(parameters) })
}

pub fn audio_track(rate: u32) -> Arc<Track> {
    let index: u16 = if rate == 48_000 { 3 } else { 4 };
    let config = (2 << 11 | index << 7 | 2 << 3).to_be_bytes();
    let parameters = aac::Parameters::parse(Bytes::copy_from_slice(&config)).unwrap();
    assert_eq!(parameters.sample_rate, rate);
    Arc::new(Track { timescale: Timescale::new(rate).unwrap(), parameters: Parameters::Aac(parameters) })
}

pub fn sample(track: &Arc<Track>, dts: Timestamp, pts: Timestamp, keyframe: bool) -> Sample {
    let (pts, dts) = (pts.to(track.timescale), dts.to(track.timescale));
    let payload = Bytes::from_static(&[0; 100]);
    Sample { track: Arc::clone(track), pts, dts, duration: None, keyframe, payload, received: std::time::Instant::now() }
}
