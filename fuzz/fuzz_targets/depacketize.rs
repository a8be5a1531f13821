//! RTP payloads of H.264, to access units and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::rtp::fuzz::depacketize(std::time::Instant::now(), data));
