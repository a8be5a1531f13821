//! Replays `fuzz/corpus` of the targets of RTMP and SRT: every input that was worth keeping goes through the same body again.
//!
//! `scripts/fuzz.sh` finds new ones.

use std::{fs, path::Path, time::Instant};

use ingest::{rtmp::fuzz, srt};

/// What keeps a replay short: a corpus is merged (`-merge=1`) before it is committed.
const FILES_MAX: usize = 40;
const BYTES_MAX: usize = 4 << 10;

fn replay(target: &str, body: fn(Instant, &[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let inputs: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    assert!((1..FILES_MAX).contains(&inputs.len()), "{target}: {} inputs", inputs.len());
    for input in inputs {
        let data = fs::read(&input).expect("it can be read");
        assert!(data.len() < BYTES_MAX, "{}: {} bytes", input.display(), data.len());
        println!("{}", input.display());
        body(Instant::now(), &data);
    }
}

#[test]
fn flv_tag_holds() {
    replay("flv_tag", fuzz::flv_tag);
}

#[test]
fn rtmp_session_holds() {
    replay("rtmp_session", fuzz::rtmp_session);
}

#[test]
fn chunk_holds() {
    replay("chunk", fuzz::chunk);
}

#[test]
fn amf0_holds() {
    replay("amf0", fuzz::amf0);
}

#[test]
fn srt_holds() {
    replay("srt", srt::fuzz::srt);
}

#[test]
fn transport_stream_holds() {
    replay("transport_stream", srt::fuzz::transport_stream);
}
