//! What a new part costs before any viewer is answered: the media playlist of a full window (16 s,
//! 2 s segments, 200 ms parts) rendered, and compressed. The reference of the same run is gzip at
//! level 1 of the same text by `flate2`, which no server that compresses can save.

use std::{hint::black_box, io::Write, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::GzEncoder};
use media_core::{Timestamp, timeline::Cut};
use packager::hls::playlist::{Constants, Playlist, Position, Report};

const EPOCH: u64 = 1_795_000_000_000;
const SEGMENTS: u64 = 12;
const PARTS: u64 = 10;
const PART_US: i64 = 200_000;

fn playlist() -> Playlist {
    let constants = Constants { target_duration: 2, part_target_ms: 201 };
    let mut playlist = Playlist::new("video", constants, 1000, 0, EPOCH);
    for n in 0..SEGMENTS {
        let seconds = n as i64 * 2;
        let cut = Cut {
            msn: 1000 + n,
            at: Timestamp::from_millis(seconds * 1000),
            discontinuity: false,
            independent: true,
            wall_us: 1_795_000_000_000_000 + seconds * 1_000_000,
            closes_us: 0,
        };
        playlist.open(&cut, Some(Arc::from("video/1795000000000/init-1.mp4")));
        let open = n + 1 == SEGMENTS;
        (0..if open { PARTS / 2 } else { PARTS }).for_each(|part| {
            playlist.push_part(Timestamp::from_micros(PART_US), part == 0, EPOCH);
        });
        if !open {
            playlist.close(EPOCH, 0);
        }
    }
    playlist
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).expect("memory does not fail")
}

fn bench(c: &mut Criterion) {
    let mut playlist = playlist();
    let reports = [Report { uri: "audio.m3u8", newest: Position { msn: 1011, part: Some(4) } }];
    let text = playlist.render(&reports).plain();
    let mut group = c.benchmark_group("playlist_render");
    group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(50).measurement_time(Duration::from_secs(2));
    group.bench_function("render", |b| b.iter(|| playlist.render(black_box(&reports)).plain()));
    group.bench_function("gzip_of_a_fresh_render", |b| {
        b.iter_batched(|| playlist.render(&reports), |rendered| rendered.gzip(), BatchSize::SmallInput);
    });
    group.bench_function("delta_of_a_fresh_render", |b| {
        b.iter_batched(|| playlist.render(&reports), |rendered| rendered.delta(), BatchSize::SmallInput);
    });
    group.bench_function("reference_gzip", |b| b.iter(|| gzip(black_box(&text))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
