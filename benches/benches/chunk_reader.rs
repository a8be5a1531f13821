//! Our RTMP chunk reader on what a publisher sends: messages of 20 KB in chunks of 4 KiB, read off
//! the socket 64 KiB at a time. In the same run, on the same bytes, the reader of the `rtmp` crate.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::rtmp::chunk::Reader;
use rtmp::chunk::unpacketizer::{ChunkUnpacketizer, UnpackResult};
use timed_publisher::rtmp::chunk::{Header, write_message};

const MESSAGES: usize = 200;
const MESSAGE_BYTES: usize = 20_000;
const CHUNK_BYTES: usize = 4096;
const READ_BYTES: usize = 64 << 10;

/// A chunk size, then video messages.
fn wire() -> Vec<u8> {
    let mut out = Vec::new();
    let header =
        |message_type, n: usize| Header { chunk_stream: 6, message_type, message_stream: 1, timestamp_ms: n as u32 * 33 };
    let control = Header { chunk_stream: 2, message_type: 1, message_stream: 0, timestamp_ms: 0 };
    write_message(&mut out, control, &(CHUNK_BYTES as u32).to_be_bytes(), 128);
    let body: Vec<u8> = (0..MESSAGE_BYTES).map(|i| (i * 31) as u8).collect();
    (0..MESSAGES).for_each(|n| write_message(&mut out, header(9, n), &body, CHUNK_BYTES));
    out
}

fn ours(wire: &[u8]) -> usize {
    let mut reader = Reader::default();
    reader.open_media();
    let mut messages = 0;
    for mut input in wire.chunks(READ_BYTES) {
        while let Some(message) = reader.read(&mut input).expect("well formed") {
            messages += 1;
            black_box(message);
        }
    }
    messages
}

fn reference(wire: &[u8]) -> usize {
    let mut reader = ChunkUnpacketizer::new();
    reader.update_max_chunk_size(CHUNK_BYTES);
    let mut messages = 0;
    for input in wire.chunks(READ_BYTES) {
        reader.extend_data(input);
        while let Ok(UnpackResult::Chunks(chunks)) = reader.read_chunks() {
            messages += chunks.len();
            black_box(chunks);
        }
    }
    messages
}

fn bench(c: &mut Criterion) {
    let wire = wire();
    assert_eq!(ours(&wire), MESSAGES);
    assert_eq!(reference(&wire), MESSAGES + 1, "it hands out the chunk size too");
    let mut group = c.benchmark_group("chunk_reader");
    group.throughput(Throughput::Bytes(wire.len() as u64)).sample_size(30).measurement_time(Duration::from_secs(3));
    group.bench_function("ours", |b| b.iter(|| ours(black_box(&wire))));
    group.bench_function("rtmp_crate", |b| b.iter(|| reference(black_box(&wire))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
