//! Tags of legacy and enhanced RTMP, to Samples.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::rtmp::fuzz::flv_tag(std::time::Instant::now(), data));
