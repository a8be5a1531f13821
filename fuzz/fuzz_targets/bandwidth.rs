//! What a viewer tells of the way to it, over time.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::bandwidth_fuzz::fuzz(std::time::Instant::now(), data));
