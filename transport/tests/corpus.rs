//! Replays `fuzz/corpus`: every input that a fuzz target once found worth keeping goes through the same body again.
//!
//! A body that panics or does not come back names its input. `scripts/fuzz.sh` finds new ones.

use std::{
    fs,
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use transport::{bandwidth_fuzz, rtp, sdp, session_fuzz, stun};

/// An input takes milliseconds: one that takes so long never ends.
const WAIT: Duration = Duration::from_secs(20);
/// What keeps a replay short: a corpus is merged (`-merge=1`) before it is committed.
const FILES_MAX: usize = 40;
const BYTES_MAX: usize = 4 << 10;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let inputs: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    assert!((1..FILES_MAX).contains(&inputs.len()), "{target}: {} inputs", inputs.len());
    for input in inputs {
        let data = fs::read(&input).expect("it can be read");
        assert!(data.len() < BYTES_MAX, "{}: {} bytes", input.display(), data.len());
        let (done, wait) = channel();
        let running = thread::spawn(move || {
            body(&data);
            _ = done.send(());
        });
        match wait.recv_timeout(WAIT) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("{target} does not end with {}", input.display()),
            Err(RecvTimeoutError::Disconnected) => {
                _ = running.join();
                panic!("{target} fails with {}", input.display());
            }
        }
    }
}

#[test]
fn stun_holds() {
    replay("stun", stun::fuzz);
}

#[test]
fn sdp_holds() {
    replay("sdp", sdp::fuzz::fuzz);
}

#[test]
fn rtcp_holds() {
    replay("rtcp", rtp::fuzz::rtcp);
}

#[test]
fn depacketize_holds() {
    replay("depacketize", |data| rtp::fuzz::depacketize(Instant::now(), data));
}

#[test]
fn depacketize_hevc_holds() {
    replay("depacketize_hevc", |data| rtp::fuzz::depacketize_hevc(Instant::now(), data));
}

#[test]
fn depacketize_av1_holds() {
    replay("depacketize_av1", |data| rtp::fuzz::depacketize_av1(Instant::now(), data));
}

#[test]
fn receiver_holds() {
    replay("receiver", |data| rtp::fuzz::receiver(Instant::now(), data));
}

#[test]
fn bandwidth_holds() {
    replay("bandwidth", |data| bandwidth_fuzz::fuzz(Instant::now(), data));
}

#[test]
fn session_holds() {
    replay("session", |data| session_fuzz::fuzz(Instant::now(), data));
}
