//! Every kind of publisher against every kind of viewer: Chromium by our page, hls.js, aiortc and GStreamer watch one
//! publisher at once. `make e2e` alone runs these, since it installs and builds what the last two need.

mod common;

use std::process::Command;

use common::{
    Launch, Server,
    clients::{Program, Turn},
    obs::{Obs, publishing},
    peers::{aiortc, gstreamer, live, node, seen, view, whip_ffmpeg},
    real::{Clips, play},
};
use serde_json::Value;

/// How long each viewer watches.
const LENGTH: u32 = 12;
/// Longer than all of it on a busy machine: a publisher is ended with its test.
const PUBLISHED: &str = "120";
/// Pictures a second that each publisher sends.
const FPS: f64 = 30.0;
/// Of these, what each of four decoders on two cores shows at least.
const SHARE: f64 = 0.5;

/// What each of the viewers saw, by its name.
fn watch(server: &Server) -> [(&'static str, Value); 4] {
    let url = format!("{}/whep/{}", server.http_url, server.stream);
    let length = LENGTH.to_string();
    let page = view(server, &server.stream, LENGTH, &[]);
    let by_aiortc = Program::start(aiortc(&["view", &url, &length]));
    let by_gstreamer = Program::start(gstreamer(&["view", &url, &length]));
    let hls = play(LENGTH, &[("hls.js", &server.playlist(&server.stream))]).remove(0);
    [
        ("page", seen(page, LENGTH)),
        ("hls.js", hls),
        ("aiortc", seen(by_aiortc, LENGTH)),
        ("gstreamer", seen(by_gstreamer, LENGTH)),
    ]
}

/// What is wrong with what a viewer saw.
fn complaint(viewer: &str, seen: &Value) -> Option<String> {
    let number = |name: &str| seen[name].as_f64().unwrap_or(0.0);
    let (frames, sound) = match viewer {
        "page" => (number("framesDecoded"), number("audioBytes")),
        "hls.js" => (number("frames"), number("audioBytes")),
        _ => (number("framesDecoded"), number("audioFrames")),
    };
    // A player of HLS begins later than it is counted from.
    let share = if viewer == "hls.js" { SHARE / 1.5 } else { SHARE };
    let by_webrtc = viewer != "page" || (seen["transport"] == "webrtc" && seen["sessions"] == 1);
    let well = frames >= f64::from(LENGTH) * FPS * share && sound > 0.0 && by_webrtc;
    (!well).then(|| format!("{viewer}: {frames} pictures, {sound} of sound: {seen}"))
}

/// All cells of a publisher's row are looked at, also when the first is wrong.
fn assert_reaches_all(server: &Server) {
    server.playable(&server.stream);
    let all = watch(server);
    for (viewer, seen) in &all {
        println!("{viewer}: {seen}");
    }
    // What the server lost or mended tells whose fault a hole is.
    let counts = server.get("/metrics").text();
    let counted = |line: &&str| !line.starts_with('#') && ["losses", "repairs", "dropped"].iter().any(|word| line.contains(word));
    counts.lines().filter(counted).filter(|line| !line.ends_with(" 0")).for_each(|line| println!("{line}"));
    let wrong: Vec<_> = all.iter().filter_map(|(viewer, seen)| complaint(viewer, seen)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As it is by default, on all of this machine's addresses: libnice, which is GStreamer's ICE, sends no UDP to loopback.
fn serve() -> Server {
    Launch::new("").env("CODECAST_WEBRTC_ADDRESS", "0.0.0.0:0").start()
}

fn whip(server: &Server) -> String {
    format!("{}/whip/{}", server.http_url, server.stream)
}

#[test]
#[ignore = "a matrix of clients that `make e2e` installs"]
fn aiortc_reaches_every_viewer() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let coding = "-f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
                  -b:v 800k -c:a aac -ac 2";
    let clip = clips.encode("source", 120, coding);
    let server = serve();
    let publisher = Program::start(aiortc(&["publish", &whip(&server), &server.stream_key, &clip.to_string_lossy(), PUBLISHED]));
    live(&publisher);
    assert_reaches_all(&server);
}

#[test]
#[ignore = "a matrix of clients that `make e2e` builds"]
fn gstreamer_reaches_every_viewer() {
    let _turn = Turn::take();
    let server = serve();
    let publisher = Program::start(gstreamer(&["publish", &whip(&server), &server.stream_key, PUBLISHED]));
    live(&publisher);
    assert_reaches_all(&server);
}

#[test]
#[ignore = "a matrix of clients that `make e2e` builds"]
fn chromium_reaches_every_viewer() {
    let _turn = Turn::take();
    let server = serve();
    let command = node("tools/webrtc-publish.mjs", &[&server.http_url, &server.stream, &server.stream_key, PUBLISHED]);
    let publisher = Program::start(command);
    live(&publisher);
    assert_reaches_all(&server);
}

#[test]
#[ignore = "a matrix of clients that `make e2e` builds"]
fn the_library_of_obs_reaches_every_viewer() {
    let _turn = Turn::take();
    let server = serve();
    let publisher = Program::start(node("tools/webrtc-obs.mjs", &[&whip(&server), &server.stream_key, PUBLISHED]));
    live(&publisher);
    assert_reaches_all(&server);
}

#[test]
#[ignore = "a matrix of clients that `make e2e` builds"]
fn ffmpeg_by_whip_reaches_every_viewer() {
    let _turn = Turn::take();
    let server = serve();
    let _publisher = Program::start(ffmpeg_by_whip(&server));
    assert_reaches_all(&server);
}

fn ffmpeg_by_whip(server: &Server) -> Command {
    let mut command = Command::new(whip_ffmpeg());
    let coding = "-hide_banner -loglevel error -nostdin -re -f lavfi -i testsrc2=s=640x360:r=30 -re -f lavfi -i sine=r=48000 \
                  -pix_fmt yuv420p -c:v libx264 -profile:v baseline -preset ultrafast -tune zerolatency -g 60 -bf 0 -b:v 800k \
                  -c:a libopus -ar 48000 -ac 2 -f whip";
    command.args(coding.split_whitespace()).args(["-t", PUBLISHED, "-authorization", &server.stream_key, &whip(server)]);
    command
}

/// High profile without B-frames: sent on as it is.
#[test]
#[ignore = "a matrix of clients that `make e2e` builds"]
fn obs_without_b_frames_reaches_every_viewer() {
    obs_reaches_every_viewer(r#"{"bf":0,"bitrate":800}"#);
}

/// As OBS is set up by default: decoded and coded anew by the helper.
#[test]
#[ignore = "a matrix of clients that `make e2e` builds"]
fn obs_with_b_frames_reaches_every_viewer() {
    obs_reaches_every_viewer(r#"{"bitrate":800}"#);
}

fn obs_reaches_every_viewer(encoder: &str) {
    let _turn = Turn::take();
    let server = serve();
    let _obs = Obs::with(&server.rtmp, &server.stream_key, "640x360", encoder);
    publishing(&server);
    assert_reaches_all(&server);
}
