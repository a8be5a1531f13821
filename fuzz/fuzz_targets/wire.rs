//! What the server and its transcoding child read from each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transcode::wire::fuzz(data));
