//! One part of 4 Mbit/s video (6 pictures, 100 KB) written as fMP4. In the same run the floor: its
//! payloads copied once into a buffer of the right size.

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use media_core::container::fmp4::{Unit, write_part};

const PICTURES: usize = 6;
/// A keyframe and five others, 4 Mbit/s at 30 a second.
const KEYFRAME_BYTES: usize = 50_000;
const OTHER_BYTES: usize = 10_000;

fn units() -> Vec<Unit> {
    let unit = |n: usize| {
        let bytes = if n == 0 { KEYFRAME_BYTES } else { OTHER_BYTES };
        Unit { duration: 33, offset: 0, keyframe: n == 0, prefix: Bytes::new(), payload: Bytes::from(vec![n as u8; bytes]) }
    };
    (0..PICTURES).map(unit).collect()
}

fn bench(c: &mut Criterion) {
    let units = units();
    let bytes: usize = units.iter().map(|unit| unit.payload.len()).sum();
    let mut group = c.benchmark_group("mux");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(30).measurement_time(Duration::from_secs(2));
    group.bench_function("write_part", |b| {
        b.iter(|| {
            let mut out = BytesMut::new();
            write_part(&mut out, 7, 123_456_789, black_box(&units));
            out.freeze()
        });
    });
    group.bench_function("copy_once", |b| {
        b.iter(|| {
            let mut out = BytesMut::with_capacity(bytes);
            black_box(&units).iter().for_each(|unit| out.extend_from_slice(&unit.payload));
            out.freeze()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
