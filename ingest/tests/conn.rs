//! One connection over a pipe, in paused time: who is refused, who dawdles, and what is never said.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use ingest::{
    admission::{Admission, Answer, PublishRequest, Verdict},
    metrics::Metrics,
    rejections::Rejections,
    rtmp::{
        close::CloseReason,
        conn::{Shared, serve},
        session::Deadlines,
    },
};
use media_core::{Registry, StreamName, registry::Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

/// Recorded with this key: see testdata/README.md.
const RECORDED: &[u8] = include_bytes!("../testdata/ffmpeg-5.1.9.bin");
const RECORDED_KEY: &str = "recorded-key-0001";
const OTHER_KEY: &str = "recorded-key-0002";
/// Behind the publish command and some media of the recording, before its end.
const HALF: usize = 12_000;
/// Words of the answer to `publish` alone: its code stands in the answer to FCPublish as well.
const STARTED: &str = "on its way to viewers";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Lets every key publish to the same name.
struct Everyone;

impl Admission for Everyone {
    fn admit(&self, _: PublishRequest) -> Answer<'_> {
        Box::pin(std::future::ready(Verdict::Allow { stream: StreamName::parse("demo").unwrap() }))
    }
}

struct Nobody;

impl Admission for Nobody {
    fn admit(&self, _: PublishRequest) -> Answer<'_> {
        Box::pin(std::future::ready(Verdict::Deny { reason: "this key is not known".into() }))
    }
}

/// Never answers.
struct Asleep;

impl Admission for Asleep {
    fn admit(&self, _: PublishRequest) -> Answer<'_> {
        Box::pin(std::future::pending())
    }
}

fn shared(admission: impl Admission + 'static) -> Arc<Shared> {
    let streams = Mutex::new(Vec::new());
    let on_stream = move |stream| streams.lock().expect("nobody panics with it").push(stream);
    Arc::new(Shared {
        rejections: Rejections::default(),
        registry: Arc::new(Registry::new(SystemTime::UNIX_EPOCH, 10, on_stream)),
        admission: Arc::new(admission),
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        deadlines: Deadlines::default(),
        admission_timeout: Duration::from_secs(3),
    })
}

/// A peer that has sent `bytes` and is connected still.
async fn peer(shared: &Arc<Shared>, bytes: &[u8]) -> (DuplexStream, JoinHandle<CloseReason>) {
    let (mut theirs, ours) = duplex(1 << 20);
    let (raise, raised) = watch::channel(false);
    let shared = Arc::clone(shared);
    let ended = tokio::spawn(async move {
        let _not_raised = raise;
        serve(ours, PEER, None, shared, raised).await
    });
    theirs.write_all(bytes).await.unwrap();
    (theirs, ended)
}

async fn words(mut pipe: DuplexStream) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The recording as another key's owner would have sent it.
fn with_other_key() -> Vec<u8> {
    let (from, to) = (RECORDED_KEY.as_bytes(), OTHER_KEY.as_bytes());
    let mut bytes = RECORDED.to_vec();
    let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "the key stands in the recording");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn another_key_is_refused_at_once_even_while_the_holder_is_silent() {
    let shared = shared(Everyone);
    let (holder, holds) = peer(&shared, &RECORDED[..HALF]).await;
    while shared.registry.publishers() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    let (guest, ended) = peer(&shared, &with_other_key()[..HALF]).await;
    let said = words(guest).await;
    assert!(said.contains("NetStream.Publish.BadName") && said.contains("another stream key"), "{said}");
    assert_eq!(ended.await.unwrap(), CloseReason::Refused(Refusal::OtherKey));
    assert_eq!(began.elapsed(), Duration::from_secs(1), "the time for the farewell, no more");
    assert_eq!(shared.registry.publishers(), 1, "the holder stays");
    drop(holder);
    holds.await.unwrap();
    assert_eq!(shared.registry.publishers(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_admission_that_sleeps_refuses() {
    let began = Instant::now();
    let (pipe, ended) = peer(&shared(Asleep), &RECORDED[..HALF]).await;
    let said = words(pipe).await;
    assert!(said.contains("NetStream.Publish.BadName") && said.contains("did not answer in time"), "{said}");
    assert!(matches!(ended.await.unwrap(), CloseReason::Denied(_)));
    assert_eq!(began.elapsed(), Duration::from_secs(3 + 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_half_way_is_ended_on_time() {
    // Nothing, C0, half of C1, the whole handshake.
    for (bytes, expected) in [
        (0, CloseReason::HandshakeTimeout(5)),
        (1, CloseReason::HandshakeTimeout(5)),
        (800, CloseReason::HandshakeTimeout(5)),
        (1 + 2 * 1536, CloseReason::PublishTimeout(5)),
    ] {
        let began = Instant::now();
        let (pipe, ended) = peer(&shared(Everyone), &RECORDED[..bytes]).await;
        assert_eq!(ended.await.unwrap(), expected, "{bytes} bytes");
        assert!(began.elapsed() <= Duration::from_secs(6), "{bytes} bytes: {:?}", began.elapsed());
        drop(pipe);
    }
    let began = Instant::now();
    let (pipe, ended) = peer(&shared(Everyone), &RECORDED[..HALF]).await;
    assert_eq!(ended.await.unwrap(), CloseReason::Idle(30));
    assert_eq!(began.elapsed(), Duration::from_secs(31));
    drop(pipe);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_given_up() {
    let (mut theirs, ours) = duplex(64);
    let (_raise, raised) = watch::channel(false);
    let ended = tokio::spawn(serve(ours, PEER, None, shared(Everyone), raised));
    theirs.write_all(&RECORDED[..1537]).await.unwrap();
    assert_eq!(ended.await.unwrap(), CloseReason::WriteStalled(5));
}

#[tokio::test(start_paused = true)]
async fn no_answer_repeats_the_key() {
    for admitted in [true, false] {
        let shared = if admitted { shared(Everyone) } else { shared(Nobody) };
        let (pipe, ended) = peer(&shared, &RECORDED[..HALF]).await;
        let said = words(pipe).await;
        let reason = ended.await.unwrap();
        assert!(said.contains(if admitted { STARTED } else { "NetStream.Publish.BadName" }));
        assert!(!said.contains(RECORDED_KEY) && !reason.to_string().contains(RECORDED_KEY));
        assert!(!format!("{reason:?}").contains(RECORDED_KEY));
    }
}

/// Publish and goodbye in one piece, before any answer: whoever tries keys so must not go uncounted.
#[tokio::test(start_paused = true)]
async fn a_refused_peer_counts_as_refused_though_it_has_left() {
    let (_pipe, ended) = peer(&shared(Nobody), RECORDED).await;
    assert_eq!(ended.await.unwrap(), CloseReason::Denied("this key is not known".into()));
    let (_pipe, ended) = peer(&shared(Everyone), RECORDED).await;
    assert_eq!(ended.await.unwrap(), CloseReason::Unpublished);
}
