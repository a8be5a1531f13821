//! WebRTC with real clients: every kind of publisher against our page by WHEP and hls.js at once, bad networks, and what
//! happens when the helper program dies or is not there.

mod common;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    Launch, Server,
    clients::{Program, Timed, Turn},
    key_of,
    peers::{live, node, seen, told, view, whip_ffmpeg},
    real::{Clips, checker, decoded, play, publish, seconds, tool},
    relay::{Bound, Weather},
    streams, within,
};
use serde_json::Value;

/// Of what was sent, what a viewer on a busy machine has decoded at least.
const SHARE: f64 = 0.6;

fn assert_watched(seen: &Value, length: u32, fps: f64) {
    assert_eq!(seen["transport"], "webrtc", "{seen}");
    let decoded = seen["framesDecoded"].as_f64().unwrap_or(0.0);
    assert!(decoded >= f64::from(length) * fps * SHARE, "{decoded} pictures: {seen}");
    assert!(seen["audioBytes"].as_u64() > Some(u64::from(length) * 1000), "no sound: {seen}");
    assert_eq!(seen["sessions"], 1, "it was not interrupted: {seen}");
}

/// A viewer by WHEP and one by HLS, at once, of what is being published.
fn assert_reaches_viewers(server: &Server, fps: f64) {
    assert_reaches_viewers_for(server, seconds(10, 60), fps);
}

fn assert_reaches_viewers_for(server: &Server, length: u32, fps: f64) {
    let viewer = view(server, &server.stream, length, &[]);
    let playlist = format!("{}/live/{}/index.m3u8", server.http_url, server.stream);
    let hls = &play(length, &[("hls.js", &playlist)])[0];
    assert_watched(&seen(viewer, length), length, fps);
    let frames = hls["frames"].as_f64().unwrap_or(0.0);
    assert!(frames >= f64::from(length) * fps * SHARE / 1.5, "hls.js: {hls}");
    assert!(hls["audioBytes"].as_u64() > Some(0), "hls.js has no sound: {hls}");
}

#[test]
fn a_browser_reaches_viewers() {
    let _turn = Turn::take();
    let server = Server::start("");
    let publisher = Program::start(node(
        "tools/webrtc-publish.mjs",
        &[&server.http_url, &server.stream, &server.stream_key, &seconds(60, 180).to_string()],
    ));
    live(&publisher);
    server.playable(&server.stream);
    // It sends no keyframe that it is not asked for, and its sound is no answer to that.
    let playlist = server.get(&format!("/live/{}/video.m3u8", server.stream)).text();
    assert!(playlist.contains("#EXT-X-TARGETDURATION:2\n"), "{playlist}");
    assert_reaches_viewers(&server, 30.0);
}

#[test]
fn a_simulcasting_browser_reaches_viewers_who_choose_a_layer() {
    let _turn = Turn::take();
    let server = Server::start("");
    let length = seconds(80, 180).to_string();
    // Chromium sends three layers from 540 lines on; three encoders and two viewers share this machine.
    let publisher = Program::start(node(
        "tools/webrtc-publish.mjs",
        &[&server.http_url, &server.stream, &server.stream_key, &length, "--simulcast", "--size", "960x540", "--fps", "15"],
    ));
    live(&publisher);
    // Chromium sends the largest when it believes that the line carries it.
    within(Duration::from_secs(30), "all layers are renditions", || {
        let variants = server.get(&format!("/live/{}/index.m3u8", server.stream));
        (variants.status == 200 && variants.text().matches("#EXT-X-STREAM-INF").count() == 3).then_some(())
    });
    assert_reaches_viewers(&server, 15.0);
    // The rules that the renditions keep are tested in virtual time: what a busy machine leaves out is not theirs.
    let variants = server.get(&format!("/live/{}/index.m3u8", server.stream)).text();
    assert_eq!(variants.matches("#EXT-X-STREAM-INF").count(), 3, "{variants}");
    for rendition in ["video", "video-2", "video-3"] {
        let playlist = server.get(&format!("/live/{}/{rendition}.m3u8", server.stream)).text();
        assert!(playlist.matches("#EXTINF").count() >= 5 && playlist.matches("#EXT-X-GAP").count() <= 2, "{playlist}");
        let others = ["video", "video-2", "video-3"].map(|other| playlist.contains(&format!("REPORT:URI=\"{other}.m3u8\"")));
        assert_eq!(others.iter().filter(|listed| **listed).count(), 2, "{playlist}");
    }
    let chosen = seen(view(&server, &server.stream, 6, &["--layer", "l"]), 6);
    assert_eq!(chosen["width"].as_u64(), Some(240), "{chosen}");
    assert_eq!(chosen["layers"].as_array().map(Vec::len), Some(3), "{chosen}");
    assert!(chosen["framesDecoded"].as_u64() > Some(54), "{chosen}");
    // One may be counted on a busy machine.
    assert!(chosen["freezeCount"].as_u64() <= Some(1), "the change is seamless: {chosen}");
    assert_eq!(chosen["sessions"], 1, "the same session goes on: {chosen}");
}

/// A browser sends pictures of a screen when something has changed on it: HLS players get them at a constant rate, and are as near
/// to live as with any other source. What is packaged goes on when the program is killed that makes it.
#[test]
fn a_screen_on_which_somebody_types_is_packaged_at_a_constant_rate() {
    let _turn = Turn::take();
    let server = Server::start(&format!("{}[transcode]\nladder = \"180p10 200k\"\n", streams(&["demo"])));
    let length = seconds(60, 180).to_string();
    let options = [server.http_url.as_str(), "demo", &key_of("demo"), &length, "--source", "typing"];
    let publisher = Program::start(node("tools/webrtc-publish.mjs", &options));
    live(&publisher);
    server.playable("demo");
    let playlist = |name: &str| server.get(&format!("/live/demo/{name}.m3u8")).text();
    assert!(playlist("video").contains("PART-TARGET=0.2"), "{}", playlist("video"));
    within(Duration::from_secs(20), "there are whole segments", || {
        (playlist("video").matches("#EXTINF").count() >= 3).then_some(())
    });
    // It follows the rung as well, which begins beside the picture and goes on with it from a cut on.
    let check = checker(&server.playlist("demo"), seconds(14, 60), &[]);
    let watched = seconds(12, 40);
    // The picture alone: among several hls.js begins with the cheapest, and is the later the colder that is.
    let hls = &play(watched, &[("hls.js", &format!("{}/live/demo/video.m3u8", server.http_url))])[0];
    assert!(hls["frames"].as_f64() >= Some(f64::from(watched) * 30.0 * SHARE / 1.5), "{hls}");
    // Of pictures that have just changed; 1 to 1.5 s are usual. As it comes, this source is 4 s behind.
    assert!(hls["latencyMs"]["min"].as_f64() < Some(2500.0), "{hls}");
    let checked = check.wait_with_output().expect("it ends by itself");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let parts =
        || playlist("video").lines().rev().find_map(|line| line.split_once("/part-")?.1.split_once('.')?.0.parse::<u64>().ok());
    let before = parts();
    common::kill_hard(*server.children("codecast-transcode").first().expect("it makes the picture"));
    within(Duration::from_secs(10), "the picture goes on", || (parts() > before.map(|part| part + 15)).then_some(()));
}

/// An encoder whose network is slow leaves out the largest layer first: neither kind of viewer is left with a frozen picture.
#[test]
fn viewers_go_on_with_the_next_layer_where_the_largest_stops() {
    let _turn = Turn::take();
    let server = Server::start("");
    let mut options = vec![server.http_url.as_str(), &server.stream, &server.stream_key, "60"];
    options.extend(["--simulcast", "--size", "960x540", "--fps", "15", "--largest-until", "9"]);
    let publisher = Program::start(node("tools/webrtc-publish.mjs", &options));
    live(&publisher);
    server.playable(&server.stream);
    let viewer = view(&server, &server.stream, 16, &[]);
    let watched = seen(viewer, 16);
    assert_eq!((watched["width"].as_u64(), watched["sessions"].as_u64()), (Some(480), Some(1)), "{watched}");
    // Four seconds of the picture may be missing: the silence that tells, and the way to a keyframe.
    assert!(watched["framesDecoded"].as_f64() >= Some(11.0 * 15.0 * SHARE), "{watched}");
    let hls = &play(6, &[("hls.js", &server.playlist(&server.stream))])[0];
    assert!(hls["frames"].as_f64() >= Some(6.0 * 15.0 * SHARE / 1.5), "hls.js: {hls}");
}

/// Our own page, from "Go live" to "Stop": a screen whose sound is a microphone's, and a camera in three sizes.
#[test]
fn the_studio_page_publishes_and_stops() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["screen", "camera"]));
    for (stream, settings) in
        [("screen", ["--source", "screen", "--layers", "1"]), ("camera", ["--source", "camera", "--layers", "3"])]
    {
        let mut command = node("tools/webrtc-studio.mjs", &[&server.http_url, stream, &key_of(stream), "18"]);
        command.args(settings);
        let mut studio = Program::start(command);
        within(Duration::from_secs(30), "the page is live", || studio.said().contains("\"state\":\"live\"").then_some(()));
        server.playable(stream);
        let watched = seen(view(&server, stream, 5, &[]), 5);
        assert_eq!((&watched["transport"], &watched["sessions"]), (&"webrtc".into(), &1.into()), "{watched}");
        assert!(watched["framesDecoded"].as_u64() > Some(20), "{stream}: {watched}");
        assert!(watched["audioBytes"].as_u64() > Some(5000), "{stream}: no sound: {watched}");
        studio.finish(Duration::from_secs(60));
        let last = told(&studio);
        assert_eq!((&last["stopped"], &last["sessions"]), (&true.into(), &1.into()), "{last}");
        assert_eq!(last["pageErrors"].as_array().map(Vec::len), Some(0), "{last}");
        within(Duration::from_secs(5), "the name is free", || (server.metric("codecast_publishers") == 0.0).then_some(()));
    }
}

#[test]
fn the_library_of_obs_reaches_viewers() {
    let _turn = Turn::take();
    let server = Server::start("");
    let url = format!("{}/whip/{}", server.http_url, server.stream);
    let publisher = Program::start(node("tools/webrtc-obs.mjs", &[&url, &server.stream_key, &seconds(60, 180).to_string()]));
    live(&publisher);
    server.playable(&server.stream);
    assert_reaches_viewers(&server, 30.0);
}

/// Small and slow: its encoder, two decoders of it, another encoder and two viewers share this machine.
const MODEST: [&str; 4] = ["--size", "320x180", "--fps", "15"];

/// The picture that the browser sends is HLS's; viewers by WebRTC see what is made of it.
#[test]
fn a_browser_s_av1_reaches_viewers() {
    let _turn = Turn::take();
    let server = Server::start("");
    let length = seconds(60, 180).to_string();
    let to = [server.http_url.as_str(), &server.stream, &server.stream_key, &length];
    let publisher =
        Program::start(node("tools/webrtc-publish.mjs", &[&to[..], &["--codec", "AV1", "--only"], &MODEST[..]].concat()));
    live(&publisher);
    server.playable(&server.stream);
    let playlist = playlist(&server, &server.stream);
    assert!(playlist.contains("CODECS=\"av01.0."), "{playlist}");
    assert_reaches_viewers_for(&server, seconds(6, 60), 15.0);
}

/// Browsers on this system play no HEVC by HLS, so that side is decoded by ffprobe.
#[test]
fn hevc_and_av1_of_the_library_of_obs_reach_viewers() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["hevc", "av1"]));
    let length = seconds(60, 180).to_string();
    let publish = |stream, codec| {
        let (url, key) = (format!("{}/whip/{stream}", server.http_url), key_of(stream));
        let to = [url.as_str(), &key, &length, "--codec", codec];
        Program::start(node("tools/webrtc-obs.mjs", &[&to[..], &MODEST[..]].concat()))
    };
    let publishers = [publish("hevc", "h265"), publish("av1", "av1")];
    publishers.iter().for_each(live);
    for (stream, codec) in [("hevc", "hvc1.1.6.L"), ("av1", "av01.0.0")] {
        server.playable(stream);
        assert!(playlist(&server, stream).contains(&format!("CODECS=\"{codec}")), "{}", playlist(&server, stream));
        let frames = decoded(&server, stream);
        assert!(frames > 4 * 15 / 2, "{frames} of {stream}");
    }
    let length = seconds(6, 60);
    assert_watched(&seen(view(&server, "hevc", length, &[]), length), length, 15.0);
}

fn playlist(server: &Server, stream: &str) -> String {
    server.get(&format!("/live/{stream}/index.m3u8")).text()
}

#[test]
fn ffmpeg_by_whip_reaches_viewers() {
    let _turn = Turn::take();
    let server = Server::start("");
    let mut ffmpeg = Command::new(whip_ffmpeg());
    let coding = "-hide_banner -loglevel error -nostdin -re -f lavfi -i testsrc2=s=640x360:r=30 -re -f lavfi -i sine=r=48000 \
                  -pix_fmt yuv420p -c:v libx264 -profile:v baseline -preset ultrafast -tune zerolatency -g 60 -bf 0 -b:v 800k \
                  -c:a libopus -ar 48000 -ac 2 -f whip";
    ffmpeg.args(coding.split_whitespace()).args(["-t", &seconds(60, 180).to_string()]);
    ffmpeg.args(["-authorization", &server.stream_key, &format!("{}/whip/{}", server.http_url, server.stream)]);
    let _publisher = Program::start(ffmpeg);
    server.playable(&server.stream);
    assert_reaches_viewers(&server, 30.0);
}

/// x264 as OBS sets it up by default.
#[test]
fn rtmp_with_b_frames_reaches_viewers() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let clip = clips.encode(
        "b-frames",
        // Longer than it is watched: where it begins anew the source jumps.
        seconds(45, 120),
        "-f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=r=44100 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -g 60 \
         -b:v 800k -c:a aac",
    );
    let server = Server::start("");
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let length = seconds(10, 60);
    let last = seen(view(&server, &server.stream, length, &[]), length);
    assert_watched(&last, length, 30.0);
    // One at the start, while the picture catches up, may be counted.
    assert!(last["freezeCount"].as_u64() <= Some(1), "pictures come in the order they are shown: {last}");
}

#[test]
fn rtmp_without_b_frames_reaches_viewers_soon() {
    let _turn = Turn::take();
    let server = Server::start("");
    let publisher = Timed::start(&server.rtmp, &server.stream_key, Duration::from_secs(120));
    server.playable(&server.stream);
    let length = seconds(10, 60);
    let last = seen(view(&server, &server.stream, length, &[]), length);
    assert_watched(&last, length, 30.0);
    // 250 ms is the target; a cold browser on a busy machine is given three times that.
    assert!(last["firstFrameMs"].as_f64() < Some(750.0), "{last}");
    publisher.stop();
}

/// Whoever opens the page before the streamer is ready need not do anything (a fault seen at other servers).
#[test]
fn who_watches_first_sees_the_publisher_come() {
    let _turn = Turn::take();
    let server = Server::start("");
    let viewer = view(&server, &server.stream, 6, &[]);
    within(Duration::from_secs(30), "the viewer has asked", || (server.metric("codecast_http_connections") >= 2.0).then_some(()));
    let url = format!("{}/whip/{}", server.http_url, server.stream);
    let _publisher = Program::start(node("tools/webrtc-obs.mjs", &[&url, &server.stream_key, "40"]));
    let last = seen(viewer, 6);
    assert_eq!(last["transport"], "webrtc", "{last}");
    assert!(last["framesDecoded"].as_u64() > Some(60), "{last}");
}

#[test]
fn where_udp_is_blocked_tcp_carries_the_picture() {
    let _turn = Turn::take();
    let server = Server::start("");
    let publisher = Timed::start(&server.rtmp, &server.stream_key, Duration::from_secs(60));
    server.playable(&server.stream);
    let viewer = view(&server, &server.stream, 5, &["--tcp"]);
    within(Duration::from_secs(30), "a viewer came by TCP", || {
        (server.metric("codecast_webrtc_tcp_connections") >= 1.0).then_some(())
    });
    assert_watched(&seen(viewer, 5), 5, 30.0);
    publisher.stop();
}

/// A server whose WebRTC peers reach it through a relay.
fn behind_a_relay() -> (Server, common::relay::Relay) {
    let bound = Bound::new();
    let server =
        Launch::new("").env("CODECAST_WEBRTC_ADVERTISE", &bound.address().to_string()).env("CODECAST_WEBRTC_TCP", "off").start();
    let relay = bound.start(server.webrtc);
    (server, relay)
}

#[test]
fn a_lossy_slow_link_shows_the_picture_and_recovers() {
    let _turn = Turn::take();
    let (server, relay) = behind_a_relay();
    let publisher = Timed::start(&server.rtmp, &server.stream_key, Duration::from_secs(150));
    server.playable(&server.stream);
    relay.set(Weather { loss_percent: 5, delay: Duration::from_millis(25), rate: 4_000_000, cut: false });
    let length = seconds(15, 60);
    let last = seen(view(&server, &server.stream, length, &[]), length);
    assert_eq!(last["transport"], "webrtc", "{last}");
    let decoded = last["framesDecoded"].as_f64().unwrap_or(0.0);
    assert!(decoded > f64::from(length) * 30.0 * 0.5, "5 % loss both ways: {last}");
    assert!(last["jitterBufferMs"].as_f64() < Some(300.0), "{last}");
    publisher.stop();
}

#[test]
fn an_outage_of_seconds_is_healed_by_the_page_alone() {
    let _turn = Turn::take();
    let (server, relay) = behind_a_relay();
    let publisher = Timed::start(&server.rtmp, &server.stream_key, Duration::from_secs(150));
    server.playable(&server.stream);
    let viewer = view(&server, &server.stream, 30, &[]);
    within(Duration::from_secs(30), "the viewer is connected", || {
        (server.metric("codecast_webrtc_sessions") >= 1.0).then_some(())
    });
    common::real::away(Duration::from_secs(4));
    relay.set(Weather { cut: true, ..Weather::default() });
    common::real::away(Duration::from_secs(8));
    relay.set(Weather::default());
    let last = seen(viewer, 30);
    assert_eq!((&last["transport"], &last["session"]), (&"webrtc".into(), &"playing".into()), "{last}");
    publisher.stop();
}

#[test]
fn a_helper_that_is_killed_is_replaced() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let coding = "-f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -g 60 \
                  -b:v 800k -c:a aac";
    let clip = clips.encode("b-frames", 30, coding);
    let server = Server::start("");
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let viewer = view(&server, &server.stream, 14, &[]);
    let helper = within(Duration::from_secs(30), "the helper runs", || server.children("codecast-transcode").first().copied());
    common::real::away(Duration::from_secs(4));
    common::kill_hard(helper);
    within(Duration::from_secs(10), "another helper runs", || {
        server.children("codecast-transcode").first().copied().filter(|child| *child != helper)
    });
    let last = seen(viewer, 14);
    assert!(last["framesDecoded"].as_f64() > Some(14.0 * 30.0 * 0.4), "{last}");
    assert_eq!(last["transport"], "webrtc", "{last}");
}

#[test]
fn without_the_helper_the_server_runs_and_says_what_is_missing() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let coding = "-f lavfi -i testsrc2=s=320x180:r=30 -c:v libx264 -preset veryfast -bf 2 -pix_fmt yuv420p -g 60 -b:v 300k";
    let clip = clips.encode("b-frames", 10, coding);
    let server = Launch::new("").env("CODECAST_TRANSCODE_PROGRAM", "/nowhere/codecast-transcode").start();
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let offer = fs::read_to_string(tool("../transport/testdata/sdp/chromium156-whep.sdp")).expect("it is there");
    let path = format!("/whep/{}", server.stream);
    let answer = within(Duration::from_secs(20), "the missing helper is told", || {
        let answer = server.post(&path, &[("content-type", "application/sdp")], &offer);
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.text().contains("codecast-transcode"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    // And the page plays HLS, and says so.
    let last = seen(view(&server, &server.stream, 4, &["--transport", "auto"]), 4);
    assert_eq!(last["transport"], "hls", "{last}");
    assert!(last["framesDecoded"].as_u64() > Some(30), "{last}");
}

#[test]
fn the_program_links_no_gstreamer() {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_codecast")).output().expect("ldd is part of the C library");
    let libraries = String::from_utf8_lossy(&output.stdout);
    assert!(libraries.contains("libc.so"), "{libraries}");
    assert!(!libraries.contains("gst") && !libraries.contains("glib"), "{libraries}");
}

/// OBS ends its patience after 8 s; a client is served long before.
#[test]
fn an_offer_is_answered_at_once() {
    let server = Server::start("");
    let offer = fs::read_to_string(tool("../transport/testdata/sdp/obs-like-libdatachannel-whip.sdp")).expect("it is there");
    let key = format!("Bearer {}", server.stream_key);
    let path = format!("/whip/{}", server.stream);
    let began = Instant::now();
    let answer = server.post(&path, &[("content-type", "application/sdp"), ("authorization", &key)], &offer);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(answer.header("content-length").is_some() && answer.header("etag").is_some());
    let location = answer.header("location").expect("a session has an address").to_owned();
    assert!(location.starts_with(&server.http_url), "{location}");
    assert!(!location.contains(&server.stream_key));
    assert_eq!(server.post(&path, &[("content-type", "application/sdp")], &offer).status, 401);
    assert_eq!(server.post(&path, &[("content-type", "text/plain"), ("authorization", &key)], &offer).status, 415);
}

#[test]
fn the_doctor_says_whether_peers_reach_the_advertised_address() {
    let doctor = |advertise: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codecast"));
        // A variable of the tests, and no key of the configuration.
        command.env_remove("CODECAST_E2E");
        command.arg("doctor").env("CODECAST_WEBRTC_ADDRESS", "127.0.0.1:0").env("CODECAST_WEBRTC_ADVERTISE", advertise);
        let output = command.output().expect("cargo has built it");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, well) = doctor("");
    assert!(well.contains("ok      UDP 127.0.0.1:"), "{well}");
    // A port where nobody answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let (success, ill) = doctor(&silent.local_addr().expect("it is bound").to_string());
    assert!(!success && ill.contains("does not reach this server") && ill.contains("webrtc.advertise"), "{ill}");
}

/// As curl, and some encoders behind proxies, send larger bodies.
#[test]
fn a_client_that_asks_first_whether_to_send_is_told_to() {
    let server = Server::start("");
    let offer = fs::read_to_string(tool("../transport/testdata/sdp/ffmpeg9-whip.sdp")).expect("it is there");
    let mut connection = common::http::Connection::open(server.http);
    let head = format!(
        "POST /whip/{} HTTP/1.1\r\nHost: {}\r\nauthorization: Bearer {}\r\nCONTENT-TYPE: application/sdp\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        server.stream,
        server.http,
        server.stream_key,
        offer.len()
    );
    // In two pieces, as a slow network delivers it.
    let (first, second) = head.split_at(40);
    connection.send(first.as_bytes());
    connection.send(second.as_bytes());
    assert_eq!(connection.response("POST").status, 100);
    connection.send(offer.as_bytes());
    let answer = connection.response("POST");
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(answer.text().contains("a=setup:active"), "ffmpeg waits for our ClientHello");
}

/// Milliseconds since 1970, as a browser tells them.
fn wall_ms() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

/// The first moment from `from` on at which a viewer saw a picture of a width that `is` is true of; seconds after that.
fn seen_after(samples: &[Value], from: f64, is: impl Fn(f64) -> bool) -> Option<f64> {
    let mut after = samples.iter().filter(|sample| sample["at"].as_f64() >= Some(from));
    let found = after.find(|sample| sample["frameWidth"].as_f64().is_some_and(&is))?;
    found["at"].as_f64().map(|at| (at - from) / 1000.0)
}

#[test]
fn a_viewer_is_given_the_rung_that_its_way_carries() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let coding = "-f lavfi -i testsrc2=s=1280x720:r=30,noise=alls=12:allf=t -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast \
                  -tune zerolatency -pix_fmt yuv420p -g 60 -b:v 3000k -maxrate 3000k -bufsize 1500k -c:a aac";
    let clip = clips.encode("three-megabits", 20, coding);
    let bound = Bound::new();
    let server = Launch::new("[transcode]\nladder = \"360p 1200k, 270p 600k, 180p 300k\"\n")
        .env("CODECAST_WEBRTC_ADVERTISE", &bound.address().to_string())
        .env("CODECAST_WEBRTC_TCP", "off")
        .start();
    let relay = bound.start(server.webrtc);
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let mut viewer = Program::start(node("tools/webrtc-rungs.mjs", &[&server.http_url, &server.stream, "75"]));
    within(Duration::from_secs(40), "the viewer watches", || viewer.said().contains("\"watching\":true").then_some(()));
    let good = Weather { delay: Duration::from_millis(15), ..Weather::default() };
    relay.set(good);
    common::real::away(Duration::from_secs(8));
    let falls = [1_500_000, 1_000_000].map(|rate| {
        let limited = wall_ms();
        relay.set(Weather { rate, ..good });
        common::real::away(Duration::from_secs(12));
        let lifted = wall_ms();
        relay.set(good);
        common::real::away(Duration::from_secs(19));
        (limited, lifted, wall_ms())
    });
    viewer.finish(Duration::from_secs(60));
    let said = viewer.said();
    let told: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let samples = told["samples"].as_array().cloned().unwrap_or_default();
    let at = |from: f64| samples.iter().rfind(|sample| sample["at"].as_f64() <= Some(from)).cloned().unwrap_or_default();
    let of = |from: f64, name: &str| at(from)[name].as_f64().unwrap_or(0.0);
    // On the second line the queue alone holds what is lost back for a fifth of a second.
    for ((limited, lifted, end), falling_max) in falls.into_iter().zip([0.8, 1.2]) {
        let down = seen_after(&samples, limited, |width| width < 1280.0);
        let up = seen_after(&samples, lifted, |width| width == 1280.0);
        let frozen = |from, to| of(to, "totalFreezesDuration") - of(from, "totalFreezesDuration");
        let [falling, limping, rising] =
            [frozen(limited, limited + 4000.0), frozen(limited + 4000.0, lifted), frozen(lifted, end)];
        println!("down after {down:?} s, up after {up:?} s; frozen for {falling:.2}, then {limping:.2} and {rising:.2} s");
        assert!(down.is_some_and(|seconds| seconds < 2.0), "down after {down:?} s");
        assert!(up.is_some_and(|seconds| seconds < 19.0), "up after {up:?} s");
        assert!(
            falling < falling_max && limping < 0.7 && rising < 0.5,
            "frozen for {falling:.2}, then {limping:.2} and {rising:.2} s"
        );
        // Sequence numbers went on: what a jump of them would leave out counts as lost.
        let lost = of(end, "packetsLost") - of(limited + 4000.0, "packetsLost");
        assert!(lost < 200.0, "{lost} packets lost after going down");
    }
    assert!(server.metric("codecast_webrtc_probes_total") >= 1.0, "more than is sent was tried");
    let went = |direction: &str| {
        server.metric(&format!("codecast_whep_switches_total{{direction=\"{direction}\",reason=\"bandwidth\"}}"))
    };
    assert!(went("down") >= 1.0 && went("up") >= 1.0);
}
