//! The tools of the tests with WebRTC: programs that publish or watch, and end with a line of JSON.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use super::{Server, clients::Program, real::tool, within};

pub fn node(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(tool(script)).args(arguments);
    command
}

/// aiortc, in the environment that `make e2e` installs.
pub fn aiortc(arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("../.tools/e2e-venv/bin/python"));
    command.arg("-B").arg(tool("tools/webrtc-aiortc.py")).args(arguments);
    command
}

/// GStreamer's own clients, which `make e2e` builds. Debian's Python: another one does not find Debian's packages.
pub fn gstreamer(arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-B").arg(tool("tools/webrtc-gstreamer.py")).args(arguments);
    command
}

/// The newest ffmpeg of the tests: Debian's has no WHIP.
pub fn whip_ffmpeg() -> PathBuf {
    let packages = tool("../.tools/venv/lib");
    let python =
        fs::read_dir(packages).expect("`make test` installs it").next().expect("one Python").expect("it can be read").path();
    let programs = fs::read_dir(python.join("site-packages/imageio_ffmpeg/binaries")).expect("the package has programs");
    programs
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("ffmpeg-"))
        .expect("an ffmpeg")
}

/// The last line of JSON that a tool has printed.
pub fn told(program: &Program) -> Value {
    let said = program.said();
    said.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("no JSON in {said}"))
}

/// What one viewer by WHEP, in Chromium, sees in so many seconds.
pub fn view(server: &Server, stream: &str, length: u32, more: &[&str]) -> Program {
    let url = format!("{}/watch/{stream}", server.http_url);
    let length = length.to_string();
    Program::start(node("tools/webrtc-view.mjs", &[&[url.as_str(), &length], more].concat()))
}

pub fn seen(mut viewer: Program, length: u32) -> Value {
    viewer.finish(Duration::from_secs(u64::from(length) + 45));
    told(&viewer)
}

/// Waits until the publisher's tool says that it is connected.
pub fn live(publisher: &Program) {
    within(Duration::from_secs(30), "the publisher is connected", || publisher.said().contains("\"live\":true").then_some(()));
}
