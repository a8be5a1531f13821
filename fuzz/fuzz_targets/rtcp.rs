//! Compound RTCP packets, as opened by SRTP.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::rtp::fuzz::rtcp(data));
