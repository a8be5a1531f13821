//! Offers, and fragments of trickle ICE.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::sdp::fuzz::fuzz(data));
