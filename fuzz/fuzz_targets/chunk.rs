//! Chunks of RTMP, to messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::rtmp::fuzz::chunk(std::time::Instant::now(), data));
