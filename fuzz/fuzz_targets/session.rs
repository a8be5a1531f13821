//! Scripts for a shard with a publisher and a viewer: checks, handshakes, media, restarts, time.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::session_fuzz::fuzz(std::time::Instant::now(), data));
