//! Scripts of packets to one receiver: order, loss, retransmission, clocks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::rtp::fuzz::receiver(std::time::Instant::now(), data));
