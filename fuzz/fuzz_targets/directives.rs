//! What a player asks of a playlist.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| packager::hls::directives::fuzz(data));
