//! What a peer sends behind the handshake: chunks, commands, media.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::rtmp::fuzz::rtmp_session(std::time::Instant::now(), data));
