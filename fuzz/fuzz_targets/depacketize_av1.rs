//! RTP payloads of AV1, to access units.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::rtp::fuzz::depacketize_av1(std::time::Instant::now(), data));
