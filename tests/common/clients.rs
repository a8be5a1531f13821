//! The programs of others that publish and play in the tests: ffmpeg, GStreamer, OBS, Chromium; and our timed publisher.
//!
//! A program runs as one child, its output collected, and is killed by its process id when the value is dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use timed_publisher::{encoder, live, report::Report, rtmp::Target};
use tokio::sync::oneshot;

use super::{Capture, Folder, until, within};

/// Held while a test uses real clients: two such tests at once would measure each other. nextest sees to it by a test
/// group, `cargo test` by this.
pub struct Turn(#[allow(dead_code, reason = "the lock ends with it")] File);

impl Turn {
    pub fn take() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-clients.lock");
        let file = File::create(path).expect("cargo has made the folder");
        file.lock().expect("a local file can be locked");
        Self(file)
    }
}

/// A path under tests/tools.
pub fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name)
}

/// A running program.
pub struct Program {
    name: String,
    process: Child,
    stdout: Capture,
    stderr: Capture,
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = child.unwrap_or_else(|error| panic!("{name}: {error}; scripts/install-packages.sh test installs it"));
        let stdout = Capture::start(process.stdout.take().expect("it is piped"));
        let stderr = Capture::start(process.stderr.take().expect("it is piped"));
        Self { name, process, stdout, stderr }
    }

    /// A program and its arguments, separated by blanks: none of ours has one inside.
    pub fn run(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a line begins with a program"));
        command.args(words);
        Self::start(command)
    }

    /// Standard output so far.
    pub fn output(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn errors(&self) -> String {
        self.stderr.text()
    }

    /// Its end, where it has come.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child can be asked")
    }

    /// Waits for its end, at most so long.
    pub fn finish(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        let status = within(patience, &what, || self.process.try_wait().expect("a child can be asked"));
        self.stdout.finish();
        self.stderr.finish();
        status
    }

    /// Waits for its end, which must be a success: its standard output.
    pub fn succeed(mut self, patience: Duration) -> String {
        let status = self.finish(patience);
        assert!(status.success(), "{}, {status}\n{}\n{}", self.name, self.output(), self.errors());
        self.output()
    }

    /// Ends it in order, as Ctrl-C does.
    pub fn stop(mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        if self.ended().is_none() {
            kill_process(pid, Signal::INT).expect("a child that was not waited for can be signalled");
        }
        until("the program has stopped", || self.ended());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let tail = |text: String| text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            eprintln!("{}:\n{}\n{}", self.name, tail(self.output()), tail(self.errors()));
        }
    }
}

/// A clip with picture and tone, 30 frames and a keyframe every 2 s, as most tests want it.
pub const ORDINARY: &str = "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -g 60 -sc_threshold 0";

/// Encodes an FLV: the inputs and what is special about the coding stand in `how`.
pub fn encode(folder: &Folder, name: &str, seconds: u32, how: &str) -> PathBuf {
    let path = folder.join(&format!("{name}.flv"));
    Program::run(&format!(
        "ffmpeg -v error -nostdin {how} -pix_fmt yuv420p -c:v libx264 -preset ultrafast -b:v 300k -c:a aac -b:a 64k -t {seconds} -y {}",
        path.display()
    ))
    .succeed(Duration::from_secs(120));
    path
}

/// ffmpeg publishes a clip, round and round, at the speed of the clock.
pub fn publish(clip: &Path, address: &str) -> Program {
    Program::run(&format!("ffmpeg -v error -nostdin -re -stream_loop -1 -i {} -c copy -f flv {address}", clip.display()))
}

/// GStreamer encodes and publishes.
pub fn publish_by_gstreamer(address: &str) -> Program {
    Program::run(&format!(
        "gst-launch-1.0 -e flvmux name=mux streamable=true ! rtmp2sink location={address} \
         videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=30/1 ! \
         x264enc tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=300 ! h264parse ! queue ! mux. \
         audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! queue ! mux."
    ))
}

/// The timed publisher, on a thread of its own: 360p, 30 frames, a keyframe every 2 s.
pub struct Timed {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Report>,
}

impl Timed {
    /// Publishes to `rtmp`, at most so long.
    pub fn start(rtmp: &str, key: &str, duration: Duration) -> Self {
        let target = Target::new(rtmp, key).expect("a server's address is one");
        let rate = encoder::Rate { numerator: 30, denominator: 1 };
        let encoder = encoder::Settings {
            size: "640x360".parse().expect("it is a size"),
            rate,
            gop_seconds: 2.0,
            kbps: 800,
            preset: "ultrafast".into(),
            bframes: false,
        };
        let settings = live::Settings { encoder, video: true, audio: true, duration };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(live::publish(&settings, &target, async { drop(stopped.await) }))
        });
        Self { stop, thread }
    }

    pub fn is_publishing(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it, and how that went.
    pub fn stop(self) -> Report {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.thread.join().expect("the timed publisher does not panic")
    }
}

/// Plays addresses at once for some seconds: what the viewers saw, in that order.
pub fn play(seconds: u32, watched: &[(&str, &str)]) -> Vec<Value> {
    let mut command = Command::new("node");
    command.arg(tool("play.mjs"));
    for (n, (player, address)) in watched.iter().enumerate() {
        command.args([player, address]);
        if n == 0 {
            command.arg(seconds.to_string());
        }
    }
    let mut player = Program::start(command);
    player.finish(Duration::from_secs(u64::from(seconds) + 120));
    let results = json_lines(&player.output());
    assert_eq!(results.len(), watched.len(), "{}{}", player.output(), player.errors());
    results
}

/// Asserts that a viewer saw and heard the stream and nothing went wrong for good.
pub fn assert_played(result: &Value, seconds: u32) {
    let frames = result["shownFrames"].as_f64().unwrap_or(0.0);
    // Half of 30 a second, less 3 s to join: two busy cores draw no more for five players.
    assert!(frames > 15.0 * f64::from(seconds.saturating_sub(3)) * 0.5, "too few frames: {result}");
    assert!(result["currentTimeAdvancedS"].as_f64().unwrap_or(0.0) > f64::from(seconds) / 2.0, "time stands still: {result}");
    assert!(result["audioBytes"].as_f64().unwrap_or(0.0) > 1000.0, "no audio: {result}");
    let errors = result["errors"].as_object().expect("a report lists its errors");
    assert!(!errors.keys().any(|name| name.contains("fatal") || name.contains("page:") || name.contains("shaka")), "{result}");
}

/// Pages that stay open while the test does things to the stream (tests/tools/visit.mjs).
pub struct Visit {
    program: Program,
    /// Holds the file whose removal ends it.
    _folder: Folder,
}

impl Visit {
    /// `tab` as player means another tab of the browser of the first page.
    pub fn start(watched: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let open = folder.join("open");
        fs::write(&open, "").expect("a test's folder is writable");
        let mut command = Command::new("node");
        command.arg(tool("visit.mjs")).arg(open);
        for (player, address) in watched {
            command.args([player, address]);
        }
        Self { program: Program::start(command), _folder: folder }
    }

    /// What a page says now.
    pub fn look(&self, page: usize) -> Option<Value> {
        json_lines(&self.program.output()).into_iter().rev().find(|line| line["page"] == page)
    }

    /// Waits until a page is so: what it said then.
    pub fn until(&self, page: usize, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.look(page)?;
                is_so(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("page {page} was not so: {what}; it said {last}\n{}", self.program.errors()))
    }

    /// Waits until a page has shown so many more frames.
    pub fn advances(&self, page: usize, frames: u64) -> Value {
        let count = |look: &Value| look["shownFrames"].as_u64().unwrap_or(0);
        let before = self.look(page).as_ref().map_or(0, count);
        self.until(page, "more frames are shown", |look| count(look) >= before + frames)
    }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
