//! Commands and metadata of RTMP.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::rtmp::fuzz::amf0(std::time::Instant::now(), data));
