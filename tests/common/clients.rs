//! What `real` lacks: a program whose output is read while it runs, the timed publisher, and one test at a time.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use timed_publisher::{encoder, live, report::Report, rtmp::Target};
use tokio::{runtime::Builder, sync::oneshot};

use super::{Capture, within};

/// Held while a test uses real clients: two at once would measure each other. nextest sees to it by a test group,
/// `cargo test` by this.
pub struct Turn(#[allow(dead_code, reason = "the lock ends with it")] File);

impl Turn {
    pub fn take() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-clients.lock");
        let file = File::create(path).expect("cargo has made the folder");
        file.lock().expect("a local file can be locked");
        Self(file)
    }
}

/// A running program, killed by its id when the value is dropped.
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
        let mut process = child.unwrap_or_else(|error| panic!("{name}: {error} (`make test` installs it)"));
        let stdout = Capture::start(process.stdout.take().expect("it is piped"));
        let stderr = Capture::start(process.stderr.take().expect("it is piped"));
        Self { name, process, stdout, stderr }
    }

    /// All that it has said so far, on both outputs.
    pub fn said(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    pub fn ended(&mut self) -> bool {
        self.process.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for its end, at most so long.
    pub fn finish(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        let status = within(patience, &what, || self.process.try_wait().expect("a child can be asked"));
        self.stdout.finish();
        self.stderr.finish();
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.said());
        }
    }
}

/// The timed publisher, on a thread of its own: 360p, 30 frames, a keyframe every 2 s, a tone.
pub struct Timed {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Report>,
}

impl Timed {
    /// Publishes to `rtmp` until it is stopped, at most so long.
    pub fn start(rtmp: &str, key: &str, at_most: Duration) -> Self {
        let target = Target::new(rtmp, key).expect("a server's address is one");
        let encoder = encoder::Settings {
            size: "640x360".parse().expect("it is a size"),
            rate: encoder::Rate { numerator: 30, denominator: 1 },
            gop_seconds: 2.0,
            kbps: 800,
            preset: "ultrafast".into(),
            bframes: false,
        };
        let settings = live::Settings { encoder, video: true, audio: true, duration: at_most };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(live::publish(&settings, &target, async { drop(stopped.await) }))
        });
        Self { stop, thread }
    }

    /// Ends it, and how that went.
    pub fn stop(self) -> Report {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.thread.join().expect("the timed publisher does not panic")
    }
}
