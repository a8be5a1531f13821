//! 1,000 viewers wait for the next part; its last picture is published; all are answered. From the
//! stream's window through segmenter, playlist and router, without sockets, on one thread. In the
//! same run the floor: 1,000 tasks woken by one `watch` channel.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use media_core::{
    Parameters, Publication, Registry, Sample, StreamKey, StreamName, Timescale, Timestamp, Track, TrackId, codec::h264,
    registry::Acquire,
};
use packager::hls::{Config, Packager};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::{JoinSet, yield_now},
};
use tower::ServiceExt;

const VIEWERS: usize = 1000;
const PART_PICTURES: u64 = 6;
const GOP_PICTURES: u64 = 60;
const BODY_BYTES_MAX: usize = 1 << 20;
/// libx264, High, 1280x720, 30 a second: ffmpeg -f lavfi -i testsrc2=s=1280x720:r=30 -c:v libx264 -preset veryfast -bf 0
const RECORD: &[u8] =
    b"\x01\x64\x00\x1f\xff\xe1\x00\x18\x67\x64\x00\x1f\xac\xb4\x02\x80\x2d\xd8\x08\x80\x00\x00\x03\x00\x80\x00\x00\x1e\
    \x07\x8c\x19\x50\x01\x00\x04\x68\xef\x0c\xbc\xfd\xf8\xf8\x00";

/// A stream with its publisher and its router.
struct Bed {
    publication: Publication,
    router: Router,
    track: Arc<Track>,
    published: u64,
    _registry: Arc<Registry>,
}

impl Bed {
    /// Runs within the runtime that will carry it.
    fn new() -> Self {
        let config = Config { keyframe_interval: Some(Duration::from_secs(2)), ..Config::default() };
        let packager = Packager::new(config, &prometheus::Registry::new()).expect("names are registered once");
        let router = packager.router();
        let registry = Arc::new_cyclic(|own: &std::sync::Weak<Registry>| {
            let own = own.clone();
            Registry::new(SystemTime::now(), 1, move |stream| packager.adopt(&stream, own.clone()))
        });
        let name = StreamName::parse("demo").expect("a name");
        let key = StreamKey::new("bench-key-0123456789");
        let Acquire::Granted(publication) = registry.acquire(&name, &key, None, Instant::now()) else {
            panic!("the name is free")
        };
        let parameters = h264::Parameters::parse(Bytes::from_static(RECORD)).expect("a record of x264's");
        let track =
            Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters: Parameters::H264(parameters) });
        Self { publication, router, track, published: 0, _registry: registry }
    }

    /// One picture of about 4 Mbit/s.
    fn publish(&mut self) {
        let keyframe = self.published.is_multiple_of(GOP_PICTURES);
        let bytes: u32 = if keyframe { 50_000 } else { 15_000 };
        let mut payload = bytes.to_be_bytes().to_vec();
        payload.push(if keyframe { 0x65 } else { 0x41 });
        payload.resize(4 + bytes as usize, 0x55);
        let at = Timestamp::from_millis(((self.published * 1000 + 15) / 30) as i64);
        self.published += 1;
        let track = Arc::clone(&self.track);
        let sample =
            Sample { track, pts: at, dts: at, duration: None, keyframe, payload: payload.into(), received: Instant::now() };
        self.publication.publish(sample).expect("nobody else publishes");
    }

    /// Publishes whole parts until the playlist is there and full.
    async fn fill(&mut self) {
        for _ in 0..GOP_PICTURES * 10 {
            self.publish();
            yield_now().await;
        }
    }

    async fn next_part(&self) -> (u64, u64) {
        let text = get(self.router.clone(), "/live/demo/video.m3u8".into()).await;
        benches::playlist::media(&String::from_utf8_lossy(&text)).next
    }

    /// From the last picture of a part to the last of all answers.
    async fn release(&mut self) -> Duration {
        let (msn, part) = self.next_part().await;
        for _ in 1..PART_PICTURES {
            self.publish();
            yield_now().await;
        }
        let mut viewers = JoinSet::new();
        for _ in 0..VIEWERS {
            viewers.spawn(get(self.router.clone(), format!("/live/demo/video.m3u8?_HLS_msn={msn}&_HLS_part={part}")));
        }
        settle().await;
        assert_eq!(viewers.len(), VIEWERS);
        assert!(viewers.try_join_next().is_none(), "a playlist before its part");
        let start = Instant::now();
        self.publish();
        while let Some(answer) = viewers.join_next().await {
            let answer = answer.expect("no panic");
            debug_assert!(!answer.is_empty());
        }
        start.elapsed()
    }
}

async fn get(router: Router, path: String) -> Bytes {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = router.oneshot(request).await.expect("infallible");
    assert!(response.status().is_success(), "{}", response.status());
    to_bytes(response.into_body(), BODY_BYTES_MAX).await.expect("a body")
}

/// On one thread every task that can run has run, several times over.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

async fn bare_wake(sender: &watch::Sender<u64>) -> Duration {
    let mut tasks = JoinSet::new();
    for _ in 0..VIEWERS {
        let mut receiver = sender.subscribe();
        tasks.spawn(async move { receiver.changed().await });
    }
    settle().await;
    let start = Instant::now();
    sender.send_modify(|n| *n += 1);
    while tasks.join_next().await.is_some() {}
    start.elapsed()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn bench(c: &mut Criterion) {
    let runtime = runtime();
    let mut bed = runtime.block_on(async {
        let mut bed = Bed::new();
        bed.fill().await;
        bed
    });
    let sender = watch::channel(0).0;
    let mut group = c.benchmark_group("wake");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.bench_function("answer_1000", |b| {
        b.iter_custom(|rounds| {
            runtime.block_on(async {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    total += bed.release().await;
                }
                total
            })
        });
    });
    group.bench_function("watch_1000", |b| {
        b.iter_custom(|rounds| {
            runtime.block_on(async {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    total += bare_wake(&sender).await;
                }
                total
            })
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
