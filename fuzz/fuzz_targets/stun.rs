//! Datagrams that claim to be binding checks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::stun::fuzz(data));
