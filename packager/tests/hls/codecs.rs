//! Publishers of HEVC and AV1: how players are told, and what they get.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use media_core::{
    Announcement, Parameters, Publication, Sample, Timescale, Timestamp, Track, TrackId,
    codec::{av1, hevc},
};
use tokio::time::Instant;

use crate::{
    http::{Site, settle},
    script,
};

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -pix_fmt yuv420p`: the hvcC box of libx265 (`-preset ultrafast -tune
/// zerolatency -x265-params info=0:keyint=60`), and the av1C box of libaom-av1 (`-usage realtime -cpu-used 8`).
pub const HVCC: &[u8] = b"\x01\x01\x60\x00\x00\x00\x90\x00\x00\x00\x00\x00\x3f\xf0\x00\xfc\xfd\xf8\xf8\x00\x00\x0f\x03\xa0\x00\x01\x00\x18\
    \x40\x01\x0c\x01\xff\xff\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xba\x02\x40\xa1\x00\x01\x00\x2b\
    \x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xa0\x05\x02\x01\x71\xf2\xe5\xba\x4a\x4c\x2f\x01\x68\x08\
    \x00\x00\x03\x00\x08\x00\x00\x03\x00\xf0\x40\xa2\x00\x01\x00\x06\x44\x01\xc0\x71\x83\x12";
const AV1C: &[u8] = b"\x81\x01\x0c\x00\x0a\x0b\x00\x00\x00\x0c\xc4\xff\x67\x36\xbe\x40\x10";

/// Five seconds of 30 pictures a second, a keyframe every two.
async fn publish(site: &Site, stream: &str, parameters: Parameters) -> Publication {
    let publication = site.publish(stream);
    publication.announce(Announcement { video: true, ..Announcement::default() }).unwrap();
    let track = Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::new(90_000).unwrap(), parameters });
    let payload = Bytes::from_static(&[0; script::PAYLOAD_BYTES]);
    let start = Instant::now();
    for n in 0..150 {
        tokio::time::sleep_until(start + Duration::from_micros(n * 33_333)).await;
        let (track, at, received) =
            (Arc::clone(&track), Timestamp::new(n as i64 * 3000, track.timescale), Instant::now().into_std());
        let (keyframe, payload) = (n % 60 == 0, payload.clone());
        publication.publish(Sample { track, pts: at, dts: at, duration: None, keyframe, payload, received }).unwrap();
    }
    settle().await;
    publication
}

#[tokio::test(start_paused = true)]
async fn hevc_and_av1_are_told_and_packaged() {
    let site = Site::new();
    let hevc = Parameters::Hevc(hevc::Parameters::parse(Bytes::from_static(HVCC)).unwrap());
    let av1 = Parameters::Av1(av1::Parameters::parse(Bytes::from_static(AV1C)).unwrap());
    for (stream, parameters, codec, entry, record) in
        [("hevc", hevc, "hvc1.1.6.L63.90", b"hvc1", HVCC), ("av1", av1, "av01.0.01M.08", b"av01", AV1C)]
    {
        let _publication = publish(&site, stream, parameters).await;
        let answer = site.get(&format!("/live/{stream}/index.m3u8")).await;
        let index = answer.text();
        assert!(index.contains(&format!("CODECS=\"{codec}\"")), "{index}");
        assert!(index.contains("RESOLUTION=640x360"), "{index}");
        let media = site.get(&format!("/live/{stream}/video.m3u8")).await.media();
        media.check();
        let map = site.get(&format!("/live/{stream}/{}", media.segments.last().unwrap().map)).await.body;
        let holds = |bytes: &[u8]| map.windows(bytes.len()).any(|window| window == bytes);
        assert!(holds(entry) && holds(record), "{stream}: {map:02x?}");
    }
}
