//! OBS Studio, the real one, on a virtual screen: it publishes, is refused, is killed, and comes back.

mod common;

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use common::{
    Folder, Server,
    clients::{Program, Turn},
    real::{play, seconds, tool},
    within,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// OBS draws in software, starts in 3 to 10 s, and shares two cores.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pause between the end of one OBS and the start of the next: a streamer's program that crashed.
const AWAY: Duration = Duration::from_secs(2);

/// OBS and its screen, both killed by their ids at the end.
struct Obs {
    folder: Folder,
}

impl Obs {
    fn start(server: &str, key: &str, websocket_port: u16) -> Self {
        let folder = Folder::new();
        let mut command = Command::new("bash");
        command.arg(tool("tools/obs/run-obs.sh")).arg(folder.path()).args([server, key, &websocket_port.to_string()]);
        command.stdout(std::process::Stdio::null());
        let status = command.status().expect("bash is there");
        assert!(status.success(), "run-obs.sh: {status}");
        Self { folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("obs.log")).unwrap_or_default()
    }

    /// The program and its screen, where their ids are known.
    fn pids(&self) -> impl Iterator<Item = Pid> {
        ["obs.pid", "xvfb.pid"].into_iter().filter_map(|name| {
            let text = fs::read_to_string(self.folder.join(name)).ok()?;
            Pid::from_raw(text.trim().parse().ok()?)
        })
    }
}

impl Drop for Obs {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(60);
            eprintln!("OBS:\n{}", log.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
        for pid in self.pids() {
            // SIGKILL: what a crash and a pulled plug look like. It may have ended already.
            let _ = kill_process(pid, Signal::KILL);
            within(Duration::from_secs(10), "OBS is gone", || is_gone(pid).then_some(()));
        }
    }
}

/// No longer there, or dead and not yet collected by whoever inherits it.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{}/stat", pid.as_raw_nonzero()))).unwrap_or_default();
    test_kill_process(pid).is_err() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

fn publishing(server: &Server) {
    within(PATIENCE, "OBS publishes", || (server.metric("codecast_publishers") == 1.0).then_some(()));
}

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
    let url = format!("{}/watch/{}", server.http_url, server.stream);
    let mut command = Command::new("node");
    command.arg(tool("tools/webrtc-view.mjs")).args([&url, &seconds(6, 60).to_string()]);
    let mut viewer = Program::start(command);
    viewer.finish(Duration::from_secs(120));
    let said = viewer.said();
    let seen: Value = said.lines().rev().find_map(|line| serde_json::from_str(line).ok()).expect("the tool tells what it saw");
    assert_eq!(seen["transport"], "webrtc", "{seen}");
    assert!(seen["framesDecoded"].as_u64() >= Some(60), "{seen}");
    assert!(seen["audioBytes"].as_u64() > Some(0), "no sound: {seen}");
}

#[test]
fn obs_publishes_crashes_and_continues() {
    let _turn = Turn::take();
    let server = Server::start("");
    let obs = Obs::start(&server.rtmp, &server.stream_key, 0);
    publishing(&server);
    server.playable(&server.stream);
    assert_shown(&server);
    assert_shown_by_webrtc(&server);

    drop(obs);
    thread::sleep(AWAY);
    let _again = Obs::start(&server.rtmp, &server.stream_key, 0);
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
    let obs = Obs::start(&server.rtmp, &server.stream_key, 0);
    publishing(&server);
    // Frozen, not ended: its connection stays open as that of a pulled cable does.
    let pid = obs.pids().next().expect("run-obs.sh has written it");
    kill_process(pid, Signal::STOP).expect("OBS is there");
    let _again = Obs::start(&server.rtmp, &server.stream_key, 0);
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
    let obs = Obs::start(&server.rtmp, "a-wrong-secret-98765", 0);
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
