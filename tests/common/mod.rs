//! A whole server for a test: started on free ports, talked to, stopped.
//!
//! ```ignore
//! let server = Server::start("[hls]\nresume_window = \"5s\"");
//! assert_eq!(server.get("/healthz").status, 200);
//! publish(&server.rtmp_with_key());
//! ```
//!
//! Each server has its own folder and its own ports, so tests run side by side. It is killed by its
//! process id when the value is dropped, and shows its log when the test has failed.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod acme;
pub mod clients;
pub mod http;
pub mod obs;
pub mod peers;
pub mod real;
pub mod relay;

use std::{
    fs,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to be ready or to stop: a debug build on a busy machine needs less.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a file, a process or a log is looked at again.
const GLANCE: Duration = Duration::from_millis(5);

/// A folder of one test's own, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("codecast-test-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the system's folder for temporary files is writable");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How to start a server.
pub struct Launch {
    folder: Folder,
    data_dir: PathBuf,
    command: Command,
}

impl Launch {
    /// With a configuration file of this text; ports are free ones unless `http` or `rtmp` say else.
    pub fn new(config: &str) -> Self {
        Self::with_program(Command::new(env!("CARGO_BIN_EXE_codecast")), config)
    }

    /// As `new`, with at most so many files open at once.
    pub fn with_open_files_max(most: u32, config: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_codecast")]);
        Self::with_program(command, config)
    }

    /// As `new`, on one processor together with its children.
    pub fn on_processor(number: u32, config: &str) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", &number.to_string(), env!("CARGO_BIN_EXE_codecast")]);
        Self::with_program(command, config)
    }

    fn with_program(mut command: Command, config: &str) -> Self {
        let folder = Folder::new();
        let file = folder.join("codecast.toml");
        fs::write(&file, config).expect("a test's folder is writable");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CODECAST_") {
                command.env_remove(name);
            }
        }
        // Tests of something else see the publisher's own picture, whatever a player thinks of its line.
        if !config.contains("ladder") {
            command.env("CODECAST_TRANSCODE_LADDER", "none");
        }
        command.arg("serve").arg("--config").arg(file);
        Self { data_dir: folder.join("data"), folder, command }
            .env("CODECAST_HTTP_ADDRESS", "127.0.0.1:0")
            .env("CODECAST_RTMP_ADDRESS", "127.0.0.1:0")
            .env("CODECAST_SRT_ADDRESS", "127.0.0.1:0")
            .env("CODECAST_TLS_HTTPS_ADDRESS", "127.0.0.1:0")
            .env("CODECAST_TLS_RTMPS_ADDRESS", "127.0.0.1:0")
            .env("CODECAST_WEBRTC_ADDRESS", "127.0.0.1:0")
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    /// State that outlives this server, to start another one on.
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = path.to_owned();
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(mut self) -> Server {
        let ready_file = self.folder.join("ready.json");
        self.command.arg("--ready-file").arg(&ready_file);
        let mut server = self.spawn();
        let text = until("the server is ready", || {
            if let Some(status) = server.process.try_wait().expect("a child can be asked") {
                panic!("the server ended at start, {status}: {}", server.log());
            }
            fs::read_to_string(&ready_file).ok()
        });
        let ready: serde_json::Value = serde_json::from_str(&text).expect("the ready file is JSON");
        let field = |name: &str| ready[name].as_str().expect("the ready file has every field").to_owned();
        server.http_url = field("http");
        server.rtmp = field("rtmp");
        (server.https_url, server.rtmps, server.srt) = (field("https"), field("rtmps"), field("srt"));
        server.webrtc = field("webrtc").parse().expect("the ready file has a real address");
        server.stream = field("stream");
        server.stream_key = field("stream_key");
        server.http = server.http_url.trim_start_matches("http://").parse().expect("the ready file has a real address");
        server
    }

    /// Starts it, expecting it to end by itself: its exit status and error output.
    pub fn fail(self) -> (Option<i32>, String) {
        let mut server = self.spawn();
        let status = server.wait();
        (status.code(), server.log())
    }

    fn spawn(mut self) -> Server {
        self.command.arg("--data-dir").arg(&self.data_dir);
        let mut process = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo has built the server");
        let stdout = Capture::start(process.stdout.take().expect("it is piped"));
        let stderr = Capture::start(process.stderr.take().expect("it is piped"));
        Server {
            process,
            stdout,
            stderr,
            folder: self.folder,
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_url: String::new(),
            https_url: String::new(),
            rtmp: String::new(),
            rtmps: String::new(),
            srt: String::new(),
            webrtc: SocketAddr::from(([127, 0, 0, 1], 0)),
            stream: String::new(),
            stream_key: String::new(),
        }
    }
}

/// A running server.
pub struct Server {
    process: Child,
    stdout: Capture,
    stderr: Capture,
    pub folder: Folder,
    pub http: SocketAddr,
    /// `http://127.0.0.1:PORT`
    pub http_url: String,
    /// `https://127.0.0.1:PORT`
    pub https_url: String,
    /// `rtmp://127.0.0.1:PORT/live`
    pub rtmp: String,
    /// `rtmps://127.0.0.1:PORT/live`
    pub rtmps: String,
    /// `srt://127.0.0.1:PORT`
    pub srt: String,
    /// UDP.
    pub webrtc: SocketAddr,
    /// The first stream, and its key.
    pub stream: String,
    pub stream_key: String,
}

impl Server {
    /// With a configuration file of this text, on free ports.
    pub fn start(config: &str) -> Self {
        Launch::new(config).start()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where an encoder that has one field for everything sends to.
    pub fn rtmp_with_key(&self) -> String {
        format!("{}/{}", self.rtmp, self.stream_key)
    }

    /// Where the publisher of a stream of `streams` sends to.
    pub fn rtmp_of(&self, name: &str) -> String {
        format!("{}/{}", self.rtmp, key_of(name))
    }

    /// The address of a stream's multivariant playlist.
    pub fn playlist(&self, name: &str) -> String {
        format!("{}/live/{name}/index.m3u8", self.http_url)
    }

    /// Waits until a stream can be played.
    pub fn playable(&self, name: &str) {
        until(&format!("{name} can be played"), || (self.get(&format!("/live/{name}/index.m3u8")).status == 200).then_some(()));
    }

    pub fn get(&self, path: &str) -> http::Response {
        http::get(self.http, path)
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> http::Response {
        http::Connection::open(self.http).post(path, headers, body)
    }

    /// Process ids of its children with this name.
    pub fn children(&self, name: &str) -> Vec<u32> {
        let list = format!("/proc/{0}/task", self.pid());
        let tasks = fs::read_dir(list).into_iter().flatten().filter_map(Result::ok);
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect::<String>();
        // One that measures what pictures cost makes none.
        let named = |line: &str| line.contains(name) && !line.contains("--measure");
        let named = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| named(&line));
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(named).collect()
    }

    /// The value of a metric by its whole name, labels included; 0 where it is not there yet.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a metric's value is a number"))
    }

    /// All that was written to the standard output so far.
    pub fn greeting(&self) -> String {
        self.stdout.text()
    }

    /// All that was logged so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).expect("a child that was not waited for can be signalled");
    }

    /// Waits for its end, which something else has brought about.
    pub fn wait(&mut self) -> ExitStatus {
        let status = until("the server has ended", || self.process.try_wait().expect("a child can be asked"));
        self.stdout.finish();
        self.stderr.finish();
        status
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// What a process writes, collected while it runs so that it never blocks.
struct Capture {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// As a crash does it.
pub fn kill_hard(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("it is a process id");
    kill_process(pid, Signal::KILL).expect("a child of ours can be killed");
}

/// What `look` finds, looked for again and again until it is there.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// The same with a longer or shorter patience.
pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} until {what}");
        thread::sleep(GLANCE);
    }
}

/// A configuration of these streams; their keys are `key_of` their names.
pub fn streams(names: &[&str]) -> String {
    names.iter().map(|name| format!("[[stream]]\nname = \"{name}\"\nkey = \"{}\"\n", key_of(name))).collect()
}

/// The key of a stream that `streams` has configured.
pub fn key_of(name: &str) -> String {
    format!("secret-of-{name}-0123456789")
}
