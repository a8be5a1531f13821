//! Datagrams of anybody on SRT's port, up to the door and the bridge.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::srt::fuzz::srt(std::time::Instant::now(), data));
