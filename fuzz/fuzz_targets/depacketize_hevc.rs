//! RTP payloads of HEVC, to access units.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::rtp::fuzz::depacketize_hevc(std::time::Instant::now(), data));
