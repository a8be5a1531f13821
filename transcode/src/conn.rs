//! One child process: orders go to its standard input, reports come from its standard output, and what it writes to
//! standard error goes to the log.
//!
//! The child ends when its standard input does, so it never outlives the server, however that died. One that is only asked what
//! its work costs (`measure`) ends by itself.

use std::{
    collections::VecDeque,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use media_core::StreamName;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tracing::{debug, info, warn};

use crate::{
    prices::{Measured, Unreadable},
    wire::{self, Message, Order, Reader, Report},
};

/// Orders on their way: all Samples that the lanes' credit allows, and a rest for the others.
const ORDERS_MAX: usize = 2048;
/// Reports that wait for the stream's task. Behind that the pipe fills and the child waits.
const REPORTS_MAX: usize = 256;
/// How long a child may take to end by itself.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Lines of its standard error that are logged a second, and how long they may be: a broken stream can make a decoder
/// complain of every picture.
const LINES_PER_SECOND: u32 = 10;
const LINE_BYTES_MAX: u64 = 512;
/// How many of them a death is explained by.
const LAST_LINES: usize = 3;
/// How long a child whose end is to be explained may take to end, and its last lines to arrive.
const EXPLAIN_WAIT: Duration = Duration::from_millis(200);
/// How long measuring may take, which is at work for a quarter of a second when nobody else is: it comes after all others.
const MEASURE_WAIT: Duration = Duration::from_secs(30);
/// What is read of what it says.
const MEASURE_BYTES_MAX: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("it closed its output")]
    Closed,
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Protocol(#[from] wire::Error),
}

pub struct Worker<O = Order, R = Report> {
    name: StreamName,
    child: Child,
    orders: mpsc::Sender<O>,
    pub reports: mpsc::Receiver<Result<R, Ended>>,
    /// Until its standard error has ended.
    logging: JoinHandle<()>,
    wrote: Arc<Mutex<LastLines>>,
}

/// What a child wrote last, whether it was logged or not.
type LastLines = VecDeque<String>;

/// The child does not take what it is sent.
#[derive(Debug, thiserror::Error)]
#[error("it does not take its input")]
pub struct Stuck;

impl<O: Message + Send + 'static, R: Message + Send + 'static> Worker<O, R> {
    pub fn spawn(program: &Path, task: Option<&str>, name: &StreamName) -> std::io::Result<Self> {
        let mut child = Command::new(program)
            .args(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal is for codecast, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { unreachable!("all three were asked to be pipes") };
        let (orders, to_write) = mpsc::channel(ORDERS_MAX);
        let (read, reports) = mpsc::channel(REPORTS_MAX);
        tokio::spawn(write(stdin, to_write));
        tokio::spawn(self::read(stdout, read));
        let wrote = Arc::<Mutex<LastLines>>::default();
        let logging = tokio::spawn(log(stderr, name.clone(), Arc::clone(&wrote)));
        Ok(Self { name: name.clone(), child, orders, reports, logging, wrote })
    }

    /// Of the process, while it lives.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub fn send(&self, order: O) -> Result<(), Stuck> {
        self.orders.try_send(order).map_err(|_| Stuck)
    }

    /// Lets it end; without its input it does so by itself.
    pub fn close(self) {
        let Self { name, mut child, orders, reports, logging, wrote } = self;
        drop((orders, reports));
        tokio::spawn(async move {
            match timeout(STOP_WAIT, child.wait()).await {
                Ok(Ok(status)) if !status.success() => {
                    info!(stream = %name, "codecast-transcode has ended: {status}{}", last_words(logging, &wrote).await);
                }
                Ok(status) => debug!(stream = %name, "codecast-transcode has ended: {}", told(status)),
                Err(_) => kill(child, &name).await,
            }
        });
    }

    /// Ends it now, and says why: `sentence`, how it ended if it did so by itself, and what it wrote last.
    pub fn abort(self, sentence: String) {
        let Self { name, mut child, orders, reports, logging, wrote } = self;
        tokio::spawn(async move {
            let ended = match timeout(EXPLAIN_WAIT, child.wait()).await {
                Ok(status) => told(status),
                Err(_) => {
                    kill(child, &name).await;
                    "it did not end by itself".into()
                }
            };
            // Until now, for it would have ended of that.
            drop((orders, reports));
            warn!(stream = %name, "{sentence} ({ended}{})", last_words(logging, &wrote).await);
        });
    }
}

/// Of a child that has ended. Another process may hold the other end of its standard error.
async fn last_words(logging: JoinHandle<()>, wrote: &Mutex<LastLines>) -> String {
    let _ = timeout(EXPLAIN_WAIT, logging).await;
    let mut wrote = wrote.lock().unwrap_or_else(PoisonError::into_inner);
    if wrote.is_empty() {
        "; it wrote nothing".into()
    } else {
        format!("; it wrote last: {}", wrote.make_contiguous().join(" | "))
    }
}

/// Has a program say what its work costs on this machine.
pub async fn measure(program: &Path) -> Result<Measured, String> {
    let mut command = Command::new(program);
    command.arg("--measure").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(|e| e.to_string())?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked to be pipes")
    };
    let (mut said, mut complaint) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (stdout.take(MEASURE_BYTES_MAX), stderr.take(MEASURE_BYTES_MAX));
    let told = async {
        tokio::try_join!(stdout.read_to_string(&mut said), stderr.read_to_string(&mut complaint))?;
        child.wait().await
    };
    let status = match timeout(MEASURE_WAIT, told).await {
        Ok(status) => status.map_err(|e| e.to_string())?,
        // It is killed when its handle is dropped.
        Err(_) => return Err(format!("it takes more than {} s", MEASURE_WAIT.as_secs())),
    };
    if status.success() {
        said.parse().map_err(|e: Unreadable| e.to_string())
    } else {
        Err(format!("{status}: {}", complaint.trim()))
    }
}

async fn kill(mut child: Child, name: &StreamName) {
    // An error means that it is gone already.
    let _ = child.start_kill();
    debug!(stream = %name, "codecast-transcode was ended: {}", told(child.wait().await));
}

fn told(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Ends, and so closes the child's input, when nobody can send orders any more or the child takes none.
async fn write<O: Message>(mut stdin: ChildStdin, mut orders: mpsc::Receiver<O>) {
    while let Some(order) = orders.recv().await {
        if stdin.write_all_buf(&mut order.encode().into_buf()).await.is_err() {
            return;
        }
    }
}

async fn read<R: Message>(mut stdout: ChildStdout, reports: mpsc::Sender<Result<R, Ended>>) {
    let mut reader = Reader::<R>::default();
    let ended = loop {
        match stdout.read_buf(reader.buffer()).await {
            Ok(0) => break Ended::Closed,
            Ok(_) => (),
            Err(error) => break error.into(),
        }
        loop {
            match reader.next_message() {
                Ok(Some(report)) => {
                    if reports.send(Ok(report)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let _ = reports.send(Err(error.into())).await;
                    return;
                }
            }
        }
    };
    let _ = reports.send(Err(ended)).await;
}

/// Goes on reading whatever comes: a child must never wait for its log.
async fn log(stderr: ChildStderr, name: StreamName, wrote: Arc<Mutex<LastLines>>) {
    let mut lines = BufReader::new(stderr);
    let (mut second, mut logged, mut hidden) = (Instant::now(), 0, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => (),
        }
        if second.elapsed() >= Duration::from_secs(1) {
            if hidden > 0 {
                info!(stream = %name, "codecast-transcode wrote {hidden} more lines");
            }
            (second, logged, hidden) = (Instant::now(), 0, 0);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        keep(&wrote, text);
        if logged >= LINES_PER_SECOND {
            hidden += 1;
        } else {
            logged += 1;
            warn!(stream = %name, "codecast-transcode: {text}");
        }
    }
    if hidden > 0 {
        info!(stream = %name, "codecast-transcode wrote {hidden} more lines");
    }
}

fn keep(wrote: &Mutex<LastLines>, line: &str) {
    let mut wrote = wrote.lock().unwrap_or_else(PoisonError::into_inner);
    if wrote.len() == LAST_LINES {
        wrote.pop_front();
    }
    wrote.push_back(line.to_owned());
}
