//! MPEG-2 transport streams, to Samples.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ingest::srt::fuzz::transport_stream(std::time::Instant::now(), data));
