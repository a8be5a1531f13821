//! OBS Studio, the real one, on a virtual screen: it publishes, is refused, is killed, and comes back.

mod common;

use std::{thread, time::Duration};

use common::{
    Server,
    clients::Turn,
    obs::{Obs, publishing},
    peers::{seen, view},
    real::{play, seconds},
    within,
};
use rustix::process::{Signal, kill_process};

/// OBS draws in software, starts in 3 to 10 s, and shares two cores.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pause between the end of one OBS and the start of the next: a streamer's program that crashed.
const AWAY: Duration = Duration::from_secs(2);

fn assert_shown(server: &Server) {
    let playlist = server.playlist(&server.stream);
    let seen = &play(seconds(10, 60), &[("hls.js", &playlist)])[0];
    // OBS draws 20 frames a second and more when the machine is busy; two a second is a picture that moves.
    assert!(seen["shownFrames"].as_u64() >= Some(20), "{seen}");
    assert!(seen["audioBytes"].as_u64() > Some(0), "no sound: {seen}");
    let errors = seen["errors"].as_object().expect("a report lists its errors");
    assert!(!errors.keys().any(|name| name.contains("fatal")), "{seen}");
}

/// By WebRTC: OBS's B-frames and AAC are transcoded, and the streamer need not know.
fn assert_shown_by_webrtc(server: &Server) {
    let length = seconds(6, 60);
    let seen = seen(view(server, &server.stream, length, &[]), length);
    assert_eq!(seen["transport"], "webrtc", "{seen}");
    assert!(seen["framesDecoded"].as_u64() >= Some(60), "{seen}");
    assert!(seen["audioBytes"].as_u64() > Some(0), "no sound: {seen}");
}

#[test]
fn obs_publishes_crashes_and_continues() {
    let _turn = Turn::take();
    let server = Server::start("");
    let obs = Obs::start(&server.rtmp, &server.stream_key);
    publishing(&server);
    server.playable(&server.stream);
    assert_shown(&server);
    assert_shown_by_webrtc(&server);

    drop(obs);
    thread::sleep(AWAY);
    let _again = Obs::start(&server.rtmp, &server.stream_key);
    publishing(&server);
    within(PATIENCE, "the playlist goes on behind a discontinuity", || {
        let text = server.get(&format!("/live/{}/video.m3u8", server.stream)).text();
        text.contains("#EXT-X-DISCONTINUITY\n").then_some(())
    });
    assert_shown(&server);
}

/// Two encoders with one key: one that has fallen silent gives way, long before its connection times out.
#[test]
fn a_frozen_obs_gives_way_to_the_next() {
    let _turn = Turn::take();
    let server = Server::start("");
    let obs = Obs::start(&server.rtmp, &server.stream_key);
    publishing(&server);
    // Frozen, not ended: its connection stays open as that of a pulled cable does.
    let pid = obs.pids().next().expect("run-obs.sh has written it");
    kill_process(pid, Signal::STOP).expect("OBS is there");
    let _again = Obs::start(&server.rtmp, &server.stream_key);
    within(PATIENCE, "the second OBS has taken the stream over", || {
        (server.metric("codecast_rtmp_connections_total{outcome=\"taken_over\"}") == 1.0).then_some(())
    });
    publishing(&server);
    server.playable(&server.stream);
}

#[test]
fn obs_is_told_that_its_key_is_wrong() {
    let _turn = Turn::take();
    let server = Server::start("");
    let obs = Obs::start(&server.rtmp, "a-wrong-secret-98765");
    within(PATIENCE, "OBS has been refused", || {
        (server.metric("codecast_rtmp_connections_total{outcome=\"denied\"}") >= 1.0).then_some(())
    });
    within(PATIENCE, "OBS has the reason in its log", || {
        let log = obs.log();
        (log.contains("NetStream.Publish.BadName") && log.contains("stream key is not known")).then_some(())
    });
    assert!(server.log().contains("publisher rejected"), "the server's log does not tell");
    assert!(!server.log().contains("a-wrong-secret-98765"), "the log told the key");
    assert_eq!(server.metric("codecast_publishers"), 0.0);
}
