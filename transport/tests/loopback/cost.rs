//! What a viewer costs the threads of the port, with one shard and with two, in turns: CPU time, so that other work on the
//! machine counts little. `cargo test --release -p transport --test loopback -- --ignored --nocapture cost`

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use transport::OutFrame;

use crate::viewer::{Port, Viewer, Way, udp, wait};

const VIEWERS: usize = 200;
/// A port keeps places for publishers: not all viewers may be on their way at once.
const COMING: usize = 50;
const ROUNDS: usize = 3;
/// Ten seconds of 2.5 Mbit/s: nine packets thirty times a second. Consent lasts longer than that.
const FRAMES: u32 = 300;
const PACKETS: usize = 9;
const PACKET_BYTES: usize = 1150;
const PAUSE: Duration = Duration::from_millis(33);

#[tokio::test]
#[ignore = "it measures, and takes a minute and a half"]
async fn cost_of_a_viewer() {
    for _ in 0..ROUNDS {
        for shards in [1, 2] {
            let (each, packet, balance) = measure(shards).await;
            println!("{shards} shards: {each:.2} ms of CPU a viewer and second, {packet:.2} us a packet, by thread {balance:?}");
        }
    }
}

async fn measure(shards: usize) -> (f64, f64, Vec<u128>) {
    let mut port = Port::start(shards).await;
    port.push(true);
    let mut viewers: Vec<Viewer> = Vec::new();
    while viewers.len() < VIEWERS {
        for _ in 0..COMING {
            viewers.push(port.watch(Way::Udp(udp())).await);
        }
        wait(async || {
            viewers.iter_mut().for_each(Viewer::turn);
            viewers.iter().all(|viewer| viewer.has_all_of(0..1))
        })
        .await;
    }
    let (before, sent, began) = (busy(), port.metric("sent_datagrams_total"), Instant::now());
    let mut timestamp = 3000;
    for number in 0..FRAMES {
        let payloads = (0..PACKETS).map(|_| vec![7; PACKET_BYTES].into()).collect();
        timestamp += 3000;
        port.track.push(OutFrame { timestamp, at_us: timestamp as i64 * 100 / 9, keyframe: number == 0, payloads });
        let until = Instant::now() + PAUSE;
        for viewer in &mut viewers {
            while viewer.way.receive().is_some() {}
        }
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
    let (seconds, sent) = (began.elapsed().as_secs_f64(), port.metric("sent_datagrams_total") - sent);
    let by_thread: Vec<u128> =
        busy().iter().map(|(id, ns)| ns - before.iter().find(|it| it.0 == *id).map_or(0, |it| it.1)).collect();
    let busy_ms = by_thread.iter().sum::<u128>() as f64 / 1e6;
    let by_thread = by_thread.iter().map(|ns| ns / 1_000_000).filter(|ms| *ms > 0).collect();
    (busy_ms / seconds / VIEWERS as f64, busy_ms * 1000.0 / sent as f64, by_thread)
}

/// CPU time of each thread of a port, in nanoseconds.
fn busy() -> Vec<(String, u128)> {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let of_a_port = threads.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "webrtc"));
    let busy = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        Some((path.display().to_string(), text.split(' ').next()?.parse().ok()?))
    };
    of_a_port.filter_map(busy).collect()
}
