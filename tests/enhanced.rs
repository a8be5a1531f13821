//! Enhanced RTMP with the real program: ffmpeg 9 publishes HEVC, AV1, Opus and several pictures, and viewers get them.

mod common;

use std::{process::Command, time::Duration};

use common::{
    Server,
    clients::{Program, Turn},
    key_of,
    peers::{seen, view, whip_ffmpeg},
    real::{decoded, seconds},
    streams, until, within,
};
use rustix::process::Signal;

/// 15 pictures a second of 320x180, and half of that where a machine is busy.
const PICTURES_MIN: u32 = 4 * 15 / 2;

/// Inputs, then codings. ffmpeg writes every further track of its kind as multitrack.
const HEVC: &str = "-f lavfi -i testsrc2=s=320x180:r=15 -f lavfi -i sine=r=48000 -map 0 -map 1 -c:v libx265 -preset ultrafast \
                    -x265-params log-level=error -g 30 -b:v 300k -c:a aac";
const AV1: &str = "-f lavfi -i testsrc2=s=320x180:r=15 -f lavfi -i sine=r=48000 -map 0 -map 1 -c:v libsvtav1 -preset 12 \
                   -svtav1-params pred-struct=1 -g 30 -crf 50 -c:a libopus -ac 2";
const TRACKS: &str = "-f lavfi -i testsrc2=s=320x180:r=15 -f lavfi -i testsrc2=s=160x90:r=15 -f lavfi -i sine=r=48000 \
                      -f lavfi -i sine=f=800:r=48000 -map 0 -map 1 -map 2 -map 3 -c:v libx264 -preset ultrafast -tune zerolatency \
                      -g 30 -b:v 200k -c:a aac";
const VP9: &str = "-f lavfi -i testsrc2=s=160x90:r=5 -map 0 -c:v libvpx-vp9 -deadline realtime -cpu-used 8";

fn publish(server: &Server, stream: &str, coding: &str) -> Program {
    let mut command = Command::new(whip_ffmpeg());
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-re"]);
    // Every input in real time.
    command.args(coding.replace(" -f lavfi", " -re -f lavfi").split_whitespace());
    command.args(["-pix_fmt", "yuv420p", "-t", &seconds(60, 180).to_string(), "-f", "flv"]);
    command.args(["-rtmp_enhanced_codecs", "hvc1,av01,vp09,Opus"]).arg(format!("{}/{}", server.rtmp, key_of(stream)));
    Program::start(command)
}

fn offer(server: &Server, stream: &str) -> String {
    server.playable(stream);
    server.get(&format!("/live/{stream}/index.m3u8")).text()
}

#[test]
fn hevc_av1_and_several_pictures_of_ffmpeg_reach_viewers() {
    let _turn = Turn::take();
    let mut server = Server::start(&streams(&["hevc", "av1", "h264"]));
    let publishers = [("hevc", HEVC), ("av1", AV1), ("h264", TRACKS)].map(|(stream, coding)| publish(&server, stream, coding));
    for (stream, codec) in [("hevc", "hvc1.1.6.L"), ("av1", "av01.0.0"), ("h264", "avc1.")] {
        let offer = offer(&server, stream);
        assert!(offer.contains(&format!("CODECS=\"{codec}")), "{offer}");
        let frames = decoded(&server, stream);
        assert!(frames >= PICTURES_MIN, "{frames} of {stream}");
    }
    within(Duration::from_secs(5), "both pictures are variants", || {
        (offer(&server, "h264").matches("#EXT-X-STREAM-INF").count() == 2).then_some(())
    });
    assert!(server.metric("codecast_ingest_dropped_total{reason=\"extra_track\"}") > 0.0, "the second sound is counted");

    // By WebRTC everybody is promised H.264: of HEVC it is made by the helper program.
    let length = seconds(5, 60);
    let watched = seen(view(&server, "hevc", length, &[]), length);
    assert!(watched["framesDecoded"].as_u64() >= Some(u64::from(length) * 15 / 2), "{watched}");
    let chosen = seen(view(&server, "h264", length, &["--layer", "track-1"]), length);
    assert_eq!((chosen["width"].as_u64(), chosen["layers"].as_array().map(Vec::len)), (Some(160), Some(2)), "{chosen}");

    server.signal(Signal::TERM);
    until("the publishers are told", || (server.log().matches("publisher ended").count() == 3).then_some(()));
    assert!(server.wait().success());
    drop(publishers);
}

#[test]
fn what_is_not_taken_is_refused_by_name() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["vp9"]));
    let publisher = publish(&server, "vp9", VP9);
    within(Duration::from_secs(15), "VP9 is refused", || server.log().contains("but VP9 was sent").then_some(()));
    assert_eq!(server.metric("codecast_rtmp_connections_total{outcome=\"media_refused\"}"), 1.0);
    drop(publisher);
}
