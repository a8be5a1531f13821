//! Real publishers and players, each a process of its own that ends with the value.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use super::{Folder, Server};

/// A process that is killed by its id when the value is dropped.
pub struct Client(Child);

impl Client {
    pub fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|e| panic!("{name}: {e} (`make test` installs it)")))
    }

    /// As a pulled plug does it: no farewell of the program.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Clips encoded once, for publishers that only copy.
pub struct Clips {
    folder: Folder,
}

impl Clips {
    pub fn new() -> Self {
        Self { folder: Folder::new() }
    }

    /// An FLV of so many seconds; `coding` are ffmpeg's arguments from inputs to codecs.
    pub fn encode(&self, name: &str, seconds: u32, coding: &str) -> PathBuf {
        let file = self.folder.join(&format!("{name}.flv"));
        let mut command = ffmpeg();
        command.args(coding.split_whitespace()).args(["-t", &seconds.to_string(), "-f", "flv"]).arg(&file);
        let made = command.output().expect("ffmpeg is installed by `make test`");
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        file
    }
}

pub fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    command
}

/// Publishes a clip again and again, in real time, without coding it.
pub fn publish(file: &Path, url: &str) -> Client {
    let mut command = ffmpeg();
    command.args(["-re", "-stream_loop", "-1", "-i"]).arg(file).args(["-c", "copy", "-f", "flv", url]);
    Client::start(command)
}

/// A file under tests/.
pub fn tool(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

/// The outside checker, started; `wait_with_output` tells what it found.
pub fn checker(url: &str, seconds: u32, arguments: &[&str]) -> Child {
    Command::new("python3")
        .arg("-B")
        .arg(tool("tools/llhls_check.py"))
        .args([url, "--seconds", &seconds.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is installed by `make test`")
}

pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Pictures of 320x180 that ffprobe decodes of the first four seconds that HLS has, of a stream named after its codec.
pub fn decoded(server: &Server, stream: &str) -> u32 {
    decoded_as(server, stream, stream)
}

/// The same of any stream.
pub fn decoded_as(server: &Server, stream: &str, codec: &str) -> u32 {
    let source = format!("{}/live/{stream}/index.m3u8", server.http_url);
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-read_intervals", "%+4", "-select_streams", "v", "-count_frames", "-of", "csv=p=0"])
        .args(["-show_entries", "stream=codec_name,width,height,nb_read_frames", &source])
        .output()
        .expect("ffmpeg's package brings ffprobe");
    assert!(probe.stderr.is_empty(), "{}", String::from_utf8_lossy(&probe.stderr));
    let found = String::from_utf8_lossy(&probe.stdout);
    let frames = found.lines().find_map(|line| line.strip_prefix(&format!("{codec},320,180,"))?.parse().ok());
    frames.unwrap_or_else(|| panic!("{stream}: {found}"))
}

/// Plays in Chromium; one line of JSON for each of `players` (name and address).
pub fn play(seconds: u32, players: &[(&str, &str)]) -> Vec<serde_json::Value> {
    play_with(seconds, players, &[])
}

/// The same, with an environment.
pub fn play_with(seconds: u32, players: &[(&str, &str)], environment: &[(&str, &str)]) -> Vec<serde_json::Value> {
    let mut command = Command::new("node");
    command.arg(tool("tools/play.mjs")).envs(environment.iter().copied());
    for (i, (player, url)) in players.iter().enumerate() {
        command.args([*player, *url]);
        if i == 0 {
            command.arg(seconds.to_string());
        }
    }
    let output = command.output().expect("node is there");
    let lines = String::from_utf8_lossy(&output.stdout);
    let found: Vec<_> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(found.len(), players.len(), "{}", told(&output));
    found
}

/// How long the long runs of `make e2e` last, and the short ones of `make test`.
pub fn seconds(short: u32, long: u32) -> u32 {
    if std::env::var_os("CODECAST_E2E").is_some_and(|on| on == "1") { long } else { short }
}

/// For a program that needs a moment of its own, such as a publisher that is away: the pause is what is tested.
pub fn away(pause: Duration) {
    std::thread::sleep(pause);
}
