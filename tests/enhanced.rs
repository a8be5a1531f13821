//! Enhanced RTMP with the real program: ffmpeg 9 publishes HEVC, AV1, Opus, several pictures and sounds, and viewers get them.

mod common;

use std::{process::Command, time::Duration};

use common::{
    Server,
    clients::{Program, Turn},
    key_of,
    peers::{seen, view, whip_ffmpeg},
    real::{checker, decoded, decoded_as, ffmpeg, play_with, seconds, told},
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
/// A ladder of two, a camera of another shape, and two sounds.
const TRACKS: &str = "-f lavfi -i testsrc2=s=320x180:r=15 -f lavfi -i testsrc2=s=160x90:r=15 -f lavfi -i testsrc2=s=128x96:r=15 \
                      -f lavfi -i sine=f=440:r=48000 -f lavfi -i sine=f=800:r=48000 -map 0 -map 1 -map 2 -map 3 -map 4 \
                      -c:v libx264 -preset ultrafast -tune zerolatency -g 30 -b:v 200k -c:a aac";
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
fn hevc_and_av1_of_ffmpeg_reach_viewers() {
    let _turn = Turn::take();
    let mut server = Server::start(&streams(&["hevc", "av1"]));
    let publishers = [("hevc", HEVC), ("av1", AV1)].map(|(stream, coding)| publish(&server, stream, coding));
    for (stream, codec) in [("hevc", "hvc1.1.6.L"), ("av1", "av01.0.0")] {
        let offer = offer(&server, stream);
        assert!(offer.contains(&format!("CODECS=\"{codec}")), "{offer}");
        let frames = decoded(&server, stream);
        assert!(frames >= PICTURES_MIN, "{frames} of {stream}");
    }

    // By WebRTC everybody is promised H.264: of HEVC it is made by the helper program.
    let length = seconds(5, 60);
    let watched = seen(view(&server, "hevc", length, &[]), length);
    assert!(watched["framesDecoded"].as_u64() >= Some(u64::from(length) * 15 / 2), "{watched}");

    server.signal(Signal::TERM);
    until("the publishers are told", || (server.log().matches("publisher ended").count() == 2).then_some(()));
    assert!(server.wait().success());
    drop(publishers);
}

/// Times a second that a sound of the stream crosses zero upwards.
fn pitch(server: &Server, playlist: &str) -> usize {
    let url = format!("{}/live/h264/{playlist}", server.http_url);
    let mut decode = ffmpeg();
    decode.args(["-live_start_index", "0", "-i", &url, "-t", "2", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"]);
    let decoded = decode.output().expect("ffmpeg is installed");
    let pcm: Vec<_> = decoded.stdout.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
    // The first half second holds what the encoder begins with.
    let second = pcm.get(24_000..72_000).unwrap_or_else(|| panic!("{playlist}: {} of it, {}", pcm.len(), told(&decoded)));
    second.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count()
}

#[test]
fn every_track_of_a_publisher_reaches_viewers() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["h264"]));
    let publisher = publish(&server, "h264", TRACKS);
    let offer = within(Duration::from_secs(20), "a ladder of two, with two sounds", || {
        let offer = offer(&server, "h264");
        let counts = ["#EXT-X-STREAM-INF", "#EXT-X-MEDIA:TYPE=AUDIO"].map(|tag| offer.matches(tag).count());
        (counts == [2, 2]).then_some(offer)
    });
    assert!(offer.contains("NAME=\"Sound 2\"") && !offer.contains("128x96"), "{offer}");
    let status = server.get("/live/h264/status.json").json();
    let playlists =
        |of: &str| -> Vec<_> { status[of].as_array().into_iter().flatten().map(|one| one["playlist"].clone()).collect() };
    assert_eq!(playlists("pictures"), ["index.m3u8", "index-3.m3u8"], "{status}");
    assert_eq!(playlists("sounds"), ["audio.m3u8", "audio-2.m3u8"], "{status}");
    let camera = server.get("/live/h264/index-3.m3u8").text();
    assert!(camera.contains("RESOLUTION=128x96") && camera.contains("audio-2.m3u8"), "{camera}");

    within(Duration::from_secs(20), "some seconds are there", || {
        (server.get("/live/h264/audio-2.m3u8").text().matches("#EXTINF").count() >= 4).then_some(())
    });
    let url = |playlist: &str| format!("{}/live/h264/{playlist}", server.http_url);
    let checkers = [("index.m3u8", &[][..]), ("index-3.m3u8", &["--long-gop"])];
    let checkers = checkers.map(|(playlist, arguments)| (playlist, checker(&url(playlist), 12, arguments)));
    assert!(decoded_as(&server, "h264", "h264") >= PICTURES_MIN);
    for (playlist, hertz) in [("audio.m3u8", 440), ("audio-2.m3u8", 800)] {
        let heard = pitch(&server, playlist);
        assert!(heard.abs_diff(hertz) <= 5, "{heard} Hz of {playlist}");
    }
    for (playlist, checker) in checkers {
        let output = checker.wait_with_output().expect("a child can be waited for");
        assert!(output.status.success(), "{playlist}: {}", told(&output));
    }

    let (main, camera) = (url("index.m3u8"), url("index-3.m3u8"));
    let players = [("hls.js", main.as_str()), ("hls.js", camera.as_str())];
    for played in play_with(12, &players, &[("SOUND", "Sound 2")]) {
        assert_eq!((played["audioTracks"].as_u64(), played["sound"].as_str()), (Some(2), Some("Sound 2")), "{played}");
        assert!(played["currentTimeAdvancedS"].as_f64() > Some(6.0) && played["errors"].as_object().is_some(), "{played}");
        assert!(!played["errors"].to_string().contains("fatal"), "{played}");
    }

    // By WebRTC the camera is listed, and shown to who chooses it.
    let length = seconds(5, 60);
    for (layer, size) in [("track-1", (160, 90)), ("track-2", (128, 96))] {
        let chosen = seen(view(&server, "h264", length, &["--layer", layer]), length);
        let shown = (chosen["width"].as_u64(), chosen["height"].as_u64());
        assert_eq!(shown, (Some(size.0), Some(size.1)), "{chosen}");
        assert_eq!(chosen["layers"].as_array().map(Vec::len), Some(3), "{chosen}");
    }
    assert_eq!(server.metric("codecast_ingest_dropped_total{reason=\"extra_track\"}"), 0.0);
    drop(publisher);
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
