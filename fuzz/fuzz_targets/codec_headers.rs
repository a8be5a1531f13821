//! What H.264, HEVC, AV1, AAC and Opus write ahead of pictures and sounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_core::codec::fuzz::fuzz(std::time::Instant::now(), data));
