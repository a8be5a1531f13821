//! Connections over loopback: admission, the lease, the drain, and guests who never finish their sentence.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use ingest::{
    admission::{Admission, Answer, PublishRequest, Verdict},
    metrics::Metrics,
    rtmp::{Config, Listener, gate::Caps},
};
use media_core::{Registry, StreamName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::{sleep, timeout},
};

/// Recorded with this key: see testdata/README.md.
const RECORDED: &[u8] = include_bytes!("../testdata/ffmpeg-5.1.9.bin");
const RECORDED_KEY: &str = "recorded-key-0001";
/// Behind the publish command and some media of the recording, before its end.
const HALF: usize = 12_000;

/// Words of the answer to `publish` alone: its code stands in the answer to FCPublish as well.
const STARTED: &str = "on its way to viewers";

struct OneKey(&'static str);

impl Admission for OneKey {
    fn admit(&self, request: PublishRequest) -> Answer<'_> {
        let known = request.key.expose() == self.0;
        let verdict = if known {
            Verdict::Allow { stream: StreamName::parse("demo").unwrap() }
        } else {
            Verdict::Deny { reason: "this key is not known".into() }
        };
        Box::pin(std::future::ready(verdict))
    }
}

struct Server {
    registry: Arc<Registry>,
    metrics: prometheus::Registry,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn server(caps: Caps) -> Server {
    server_for(caps, RECORDED_KEY).await
}

async fn server_for(caps: Caps, key: &'static str) -> Server {
    let metrics = prometheus::Registry::new();
    let streams = Mutex::new(Vec::new());
    let registry = Arc::new(Registry::new(SystemTime::now(), 10, move |stream| streams.lock().unwrap().push(stream)));
    let config = Config { caps, ..Config::default() };
    let listener =
        Listener::bind("127.0.0.1:0", config, Arc::clone(&registry), Arc::new(OneKey(key)), Metrics::new(&metrics).unwrap())
            .await
            .unwrap();
    let (stop, stopped) = oneshot::channel();
    let address = listener.local_addr();
    let ended = tokio::spawn(listener.serve(async { drop(stopped.await) }));
    Server { registry, metrics, address, stop, ended }
}

impl Server {
    fn count(&self, name: &str, label: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == name).expect("the metric exists");
        let metric = family.get_metric().iter().find(|m| label.is_empty() || m.get_label().iter().any(|l| l.value() == label));
        metric.map_or(0.0, |m| m.get_counter().get_value() + m.get_gauge().get_value())
    }

    async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }

    async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !reached(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(Duration::from_secs(20), wait).await.is_ok(), "waited for: {what}");
    }
}

/// All that the server says until it hangs up.
async fn said(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(20), socket.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the server hangs up");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_publisher_is_let_in_and_its_name_given_back() {
    let server = server(Caps::default()).await;
    let mut socket = server.connect(&RECORDED[..HALF]).await;
    server.until("it publishes", |s| s.registry.publishers() == 1).await;
    socket.write_all(&RECORDED[HALF..]).await.unwrap();
    let words = said(socket).await;
    assert!(words.contains(STARTED) && words.contains("NetStream.Unpublish.Success"), "{words}");
    server.until("the name is free", |s| s.registry.publishers() == 0).await;
    assert_eq!(server.count("codecast_rtmp_connections_total", "unpublished"), 1.0);
    assert!(server.count("codecast_ingest_samples_total", "video") >= 45.0);
}

#[tokio::test]
async fn a_wrong_key_is_told_and_counted() {
    let server = server_for(Caps::default(), "another-key-0001").await;
    let words = said(server.connect(&RECORDED[..HALF]).await).await;
    assert!(words.contains("NetStream.Publish.BadName") && words.contains("not known"), "{words}");
    assert!(!words.contains(RECORDED_KEY), "an answer repeats the key");
    assert_eq!(server.count("codecast_rtmp_connections_total", "denied"), 1.0);
}

#[tokio::test]
async fn a_silent_publisher_is_replaced_by_its_own_key() {
    let server = server(Caps::default()).await;
    let first = server.connect(&RECORDED[..HALF]).await;
    server.until("the first publishes", |s| s.registry.publishers() == 1).await;
    // A pulled cable: no byte, no end. The second has the same key.
    let second = server.connect(&RECORDED[..HALF]).await;
    let words = said(first).await;
    assert!(words.contains("NetStream.Publish.BadName") && words.contains("took the stream over"), "{words}");
    assert_eq!(server.registry.publishers(), 1);
    drop(second);
    server.until("the name is free", |s| s.registry.publishers() == 0).await;
}

#[tokio::test]
async fn a_live_encoder_keeps_its_name() {
    let server = server(Caps::default()).await;
    let mut first = server.connect(&RECORDED[..HALF]).await;
    server.until("the first publishes", |s| s.registry.publishers() == 1).await;
    let second = server.connect(&RECORDED[..HALF]).await;
    let refused = tokio::spawn(said(second));
    // The first goes on while the second is held.
    let mut rest = RECORDED[HALF..RECORDED.len() - 200].chunks(60);
    while !refused.is_finished() {
        if let Some(piece) = rest.next() {
            first.write_all(piece).await.unwrap();
        }
        sleep(Duration::from_millis(50)).await;
    }
    let words = refused.await.unwrap();
    assert!(words.contains("NetStream.Publish.BadName") && words.contains("live encoder"), "{words}");
    assert_eq!(server.registry.publishers(), 1);
}

#[tokio::test]
async fn a_drain_is_told_to_publishers() {
    let server = server(Caps::default()).await;
    let socket = server.connect(&RECORDED[..HALF]).await;
    server.until("it publishes", |s| s.registry.publishers() == 1).await;
    server.registry.drain();
    server.stop.send(()).unwrap();
    let words = said(socket).await;
    assert!(words.contains("NetConnection.Connect.Closed") && words.contains("shutting down"), "{words}");
    timeout(Duration::from_secs(20), server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn half_open_connections_are_bounded_and_counted() {
    let caps = Caps { connections_max: 1000, pending_max: 200, pending_per_address_max: 100 };
    let server = server(caps).await;
    let mut sockets = Vec::new();
    for _ in 0..500 {
        sockets.push(server.connect(&[3]).await);
    }
    server.until("all are decided", |s| s.count("codecast_rtmp_connections_total", "over_limit") >= 400.0).await;
    assert!(server.count("codecast_rtmp_connections", "") <= 100.0);
    drop(sockets);
    server.until("all are gone", |s| s.count("codecast_rtmp_connections", "") == 0.0).await;
    let mut socket = server.connect(&RECORDED[..HALF]).await;
    server.until("there is room again", |s| s.registry.publishers() == 1).await;
    socket.write_all(&RECORDED[HALF..]).await.unwrap();
    assert!(said(socket).await.contains(STARTED));
}
