//! The watch page in Chromium, in words and in frames: offline, live, away, back, a second tab, and a server that crashed.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use common::{
    Folder, Launch, Server, kill_hard,
    real::{Clips, away, publish, seconds, tool},
};
use serde_json::Value;

/// A page that has not shown what is waited for after this never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// The page, watched.
struct Page {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Page {
    fn open(url: &str) -> Self {
        let mut process = Command::new("node")
            .arg(tool("tools/watch.mjs"))
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is there");
        let (input, output) = (process.stdin.take(), process.stdout.take().expect("it is piped"));
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if tell.send(value).is_err() {
                    break;
                }
            }
        });
        Self { process, input, lines }
    }

    fn open_tab(&mut self) {
        self.input.as_mut().expect("it is open until the end").write_all(b"tab\n").expect("the page's driver reads");
    }

    /// The next thing told of `tab` that `wanted` takes.
    fn wait(&self, tab: u64, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (start, mut last) = (Instant::now(), Value::Null);
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            let Ok(told) = self.lines.recv_timeout(left) else { break };
            if told["tab"] == tab {
                if wanted(&told) {
                    return told;
                }
                last = told;
            }
        }
        panic!("waited for {what}; last: {last}");
    }

    fn wait_state(&self, state: &str) -> Value {
        self.wait(0, state, |told| told["state"] == state)
    }

    /// So many more frames than `since`.
    fn wait_frames(&self, since: &Value, more: u64) -> Value {
        let before = since["frames"].as_u64().unwrap_or(0);
        self.wait(0, "frames", |told| told["state"] == "live" && told["frames"].as_u64().unwrap_or(0) >= before + more)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

fn says(told: &Value, words: &str) {
    let text = told["text"].as_str().unwrap_or_default();
    assert!(text.contains(words), "{words:?} is not in:\n{text}");
}

#[test]
fn a_viewer_is_told_and_carried_through_everything() {
    let clips = Clips::new();
    let clip = clips.encode(
        "clip",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -tune zerolatency \
         -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac",
    );
    let server = Server::start("");
    let url = server.rtmp_with_key();
    let mut page = Page::open(&format!("{}/watch/{}?transport=hls", server.http_url, server.stream));
    says(&page.wait_state("offline"), "not live");

    // It starts by itself.
    let mut publisher = publish(&clip, &url);
    let mut seen = page.wait_frames(&Value::Null, 30);
    says(&seen, "behind the streamer");
    assert_eq!(seen["mode"], "low-latency");

    // Gone and back: the same player goes on.
    for gap_ms in [500, 5000, u64::from(seconds(0, 30)) * 1000] {
        if gap_ms == 0 {
            continue;
        }
        publisher.kill();
        if gap_ms > 1000 {
            let away = page.wait_state("away");
            says(&away, "away");
        }
        away(Duration::from_millis(gap_ms));
        publisher = publish(&clip, &url);
        let back = page.wait_frames(&seen, 90);
        assert_eq!(back["players"], seen["players"], "the player was not replaced after {gap_ms} ms");
        seen = back;
    }

    // Over HTTP/1.1 a second tab plays whole segments, and says so.
    page.open_tab();
    let second = page.wait(1, "the second tab plays", |told| told["mode"] == "segments" && told["frames"].as_u64() > Some(10));
    says(&second, "tab");
}

#[test]
fn a_viewer_is_carried_over_a_crash_of_the_server() {
    let (clips, folder) = (Clips::new(), Folder::new());
    let clip = clips.encode(
        "clip",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -tune zerolatency \
         -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac",
    );
    let data = folder.join("data");
    let mut server = Launch::new("").data_dir(&data).start();
    let mut publisher = publish(&clip, &server.rtmp_with_key());
    let page = Page::open(&format!("{}/watch/{}?transport=hls", server.http_url, server.stream));
    let mut seen = page.wait_frames(&Value::Null, 60);
    // Its publisher returns at once, or keeps the viewer waiting.
    for wait_s in [0, 6] {
        kill_hard(server.pid());
        server.wait();
        publisher.kill();
        page.wait(0, "the picture stands", |told| told["state"] != "live");
        let rtmp = server.rtmp.trim_start_matches("rtmp://").trim_end_matches("/live").to_owned();
        server = Launch::new("").data_dir(&data).arg("--http").arg(&server.http.to_string()).arg("--rtmp").arg(&rtmp).start();
        if wait_s > 0 {
            says(&page.wait_state("away"), "away for a moment");
            away(Duration::from_secs(wait_s));
        }
        publisher = publish(&clip, &server.rtmp_with_key());
        let back = page.wait(0, "it plays again", |told| {
            let same = told["players"] == seen["players"];
            let before = if same { seen["frames"].as_u64().unwrap_or(0) } else { 0 };
            told["state"] == "live" && told["frames"].as_u64().unwrap_or(0) >= before + 60
        });
        assert_eq!(back["loaded"], seen["loaded"], "the page was not loaded anew");
        seen = back;
    }
}
