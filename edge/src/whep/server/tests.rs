//! The rules of the endpoint, over an engine on loopback. The viewers here never connect: what they are sent is tested
//! in `transport`, and when, in `broadcast`.

use std::time::{Instant, SystemTime};

use axum::{body::to_bytes, http::request::Builder};
use futures_util::StreamExt;
use media_core::{Announcement, Publication, Registry, Rung, Sample, StreamKey, TrackId, registry::Acquire, stream::Making};
use tower::ServiceExt;
use transport::{Engine, resource::IceServer};

use super::*;
use crate::whep::{
    Config,
    tests::{B, I, P, Script},
};

const OFFER: &str = include_str!("../../../../transport/testdata/sdp/chromium156-whep.sdp");
const WAIT: Duration = Duration::from_secs(5);

/// A server, its streams, and a publisher's script.
struct Desk {
    registry: Arc<Registry>,
    whep: Whep,
    router: Router,
    script: Script,
}

impl Desk {
    async fn new() -> Self {
        Self::for_viewers(10).await
    }

    async fn for_viewers(viewers_max: usize) -> Self {
        let metrics = prometheus::Registry::new();
        let listen = "127.0.0.1:0".parse().unwrap();
        let engine = transport::Config { listen, public: Vec::new(), tcp: false, sessions_max: 10, shards: 1 };
        let engine = Engine::start(engine, &metrics).await.unwrap();
        let registry = Arc::new(Registry::new(SystemTime::now(), 10, |_| {}));
        let ice_servers = vec![IceServer { url: "stun:stun.example.org".into(), login: None }];
        let config = Config { viewers_max, ice_servers, reach: Default::default(), rescue: true };
        let whep = Whep::new(engine, Arc::downgrade(&registry), config, &metrics).unwrap();
        Self { registry, router: router(whep.clone()), whep, script: Script::new() }
    }

    fn publish(&self) -> Publication {
        match self.registry.acquire(&name(), &StreamKey::new("key"), None, Instant::now()) {
            Acquire::Granted(publication) => publication,
            other => panic!("{other:?}"),
        }
    }

    fn stream(&self) -> Arc<Stream> {
        self.registry.stream(&name()).unwrap()
    }

    async fn send(&self, request: Builder, body: &str) -> Response<Body> {
        let request = request.header("host", "watch.example.org").body(Body::from(body.to_owned())).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn offer(&self) -> Response<Body> {
        self.send(post("/whep/demo").header("content-type", "application/sdp"), OFFER).await
    }

    /// The path of a session that was answered.
    async fn watch(&self) -> String {
        let response = self.offer().await;
        assert_eq!(response.status(), 201);
        header(&response, "location").strip_prefix("http://watch.example.org").unwrap().to_owned()
    }

    async fn sessions_are(&self, count: i64) {
        eventually(|| self.whep.0.metrics.viewers.get() == count).await;
    }
}

fn name() -> StreamName {
    StreamName::parse("demo").unwrap()
}

fn post(path: &str) -> Builder {
    Request::post(path)
}

fn header(response: &Response<Body>, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn text_of(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

/// Other tasks and the engine's thread have work to do first.
async fn eventually(holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(WAIT, async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("it comes true");
}

fn send_all(publication: &Publication, samples: impl IntoIterator<Item = Sample>) {
    for sample in samples {
        publication.publish(sample).unwrap();
    }
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_told_why() {
    let desk = Desk::new().await;
    let check = async |path: &str, content_type: &str, body: &str, status: u16, retry: &str| {
        let response = desk.send(post(path).header("content-type", content_type), body).await;
        assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (status, retry), "{path} {body:.20}");
        assert_eq!(header(&response, "content-type"), "application/problem+json");
        assert_eq!(header(&response, "access-control-allow-origin"), "*");
        let problem: serde_json::Value = serde_json::from_str(&text_of(response).await).unwrap();
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().contains("demo"), "{problem}");
    };
    let sdp = "application/sdp";
    check("/whep/demo", sdp, OFFER, 404, "2").await;
    check("/whep/a.b", sdp, OFFER, 404, "").await;
    let _publication = desk.publish();
    check("/whep/demo", "text/plain", OFFER, 415, "").await;
    check("/whep/demo", sdp, "hello", 400, "").await;
    check("/whep/demo", sdp, "", 400, "").await;
    check("/whep/demo", sdp, &"x".repeat(BODY_BYTES_MAX + 1), 413, "").await;
    check("/whep/demo", sdp, &OFFER.replace("a=recvonly", "a=sendonly"), 422, "").await;
    check("/whep/demo", sdp, &OFFER.replace("H264/90000", "H263/90000"), 422, "").await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let desk = Desk::new().await;
    let publication = desk.publish();
    tokio::time::pause();
    let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let request = post("/whep/demo").header("content-type", "application/sdp").body(endless).unwrap();
    assert_eq!(desk.router.clone().oneshot(request).await.unwrap().status(), 408);
    drop(publication);
}

#[tokio::test]
async fn an_offer_is_answered_before_anything_is_published_and_while_the_publisher_is_away() {
    let desk = Desk::new().await;
    let publication = desk.publish();
    let response = desk.offer().await;
    assert_eq!(response.status(), 201);
    assert_eq!(header(&response, "content-type"), "application/sdp");
    let location = header(&response, "location");
    assert!(location.starts_with("http://watch.example.org/whep/demo/"), "{location}");
    let links: Vec<_> = response.headers().get_all("link").iter().map(|link| link.to_str().unwrap().to_owned()).collect();
    assert_eq!(
        links,
        [
            format!(
                "<{location}/events>; rel=\"urn:ietf:params:whep:ext:core:server-sent-events\"; \
                 events=\"active,inactive,layers,ended\""
            ),
            format!("<{location}/layer>; rel=\"urn:ietf:params:whep:ext:core:layer\""),
            "<stun:stun.example.org>; rel=\"ice-server\"".to_owned(),
        ]
    );
    let (length, etag) = (header(&response, "content-length"), header(&response, "etag"));
    let answer = text_of(response).await;
    assert_eq!(length, answer.len().to_string());
    let ufrag = answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
    assert_eq!(etag, format!("\"{ufrag}\""));
    assert_eq!(answer.matches("a=sendonly").count(), 2, "{answer}");
    drop(publication);
    assert_eq!(desk.offer().await.status(), 201);
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_or_left_out() {
    let desk = Desk::new().await;
    let missing = || Making::Unavailable("no transcoder is installed".into());
    let publication = desk.publish();
    publication.announce(Announcement { video: true, audio: true, ..Announcement::default() }).unwrap();
    desk.stream().set_making(Made::Opus, missing());
    desk.stream().set_making(Made::Video, missing());
    let script = &desk.script;
    send_all(&publication, [script.aac(0, 0), script.slice(I, 0, 0), script.slice(P, 99, 20)]);
    let silent = desk.offer().await;
    assert_eq!(silent.status(), 201);
    let answer = text_of(silent).await;
    assert_eq!((answer.matches("a=sendonly").count(), answer.matches("a=inactive").count()), (1, 1), "{answer}");
    send_all(&publication, [script.slice(B, 33, 40)]);
    let refused = desk.offer().await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after").as_str()), (503, "30"));
    assert!(text_of(refused).await.contains("no transcoder is installed"));
}

#[tokio::test]
async fn a_session_is_restarted_and_closed() {
    let desk = Desk::new().await;
    let _publication = desk.publish();
    let response = desk.offer().await;
    let etag = header(&response, "etag");
    let session = header(&response, "location").strip_prefix("http://watch.example.org").unwrap().to_owned();
    let change = async |if_match: &str, body: &str| {
        let request = Request::patch(&session).header("content-type", resource::FRAGMENT).header("if-match", if_match);
        let response = desk.send(request, body).await;
        (response.status().as_u16(), header(&response, "etag"))
    };
    let restart = "a=ice-ufrag:anew\r\na=ice-pwd:0123456789012345678901\r\n";
    assert_eq!(change(&etag, "a=end-of-candidates\r\n").await, (204, String::new()));
    assert_eq!(change("\"old\"", restart).await.0, 412);
    let (status, fresh) = change("\"*\"", restart).await;
    assert_eq!(status, 200);
    assert_ne!(fresh, etag);
    assert_eq!(change(&fresh, restart).await, (204, String::new()), "the credentials are known now");
    assert_eq!(change(&etag, restart).await.0, 412);
    assert_eq!(desk.send(Request::delete("/whep/other/x"), "").await.status(), 404);
    assert_eq!(desk.send(Request::delete(session.replace("demo", "other")), "").await.status(), 404);
    desk.sessions_are(1).await;
    assert_eq!(desk.send(Request::delete(&session), "").await.status(), 200);
    desk.sessions_are(0).await;
    assert_eq!(change("*", restart).await.0, 404);
}

#[tokio::test]
async fn viewers_are_limited() {
    let desk = Desk::for_viewers(1).await;
    let _publication = desk.publish();
    let session = desk.watch().await;
    let refused = desk.offer().await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after").as_str()), (503, "2"));
    desk.send(Request::delete(&session), "").await;
    eventually(|| desk.whep.0.places.available_permits() == 1).await;
    desk.watch().await;
}

#[tokio::test]
async fn what_must_be_made_is_in_demand_while_somebody_watches() {
    let desk = Desk::new().await;
    let publication = desk.publish();
    let script = &desk.script;
    send_all(&publication, [script.slice(I, 0, 0), script.slice(P, 99, 20), script.slice(B, 33, 40), script.aac(0, 40)]);
    let stream = desk.stream();
    assert!(!stream.is_demanded(Made::Opus) && !stream.is_demanded(Made::Video));
    let session = desk.watch().await;
    eventually(|| stream.is_demanded(Made::Opus) && stream.is_demanded(Made::Video)).await;
    assert!(!stream.is_demanded(Made::Aac));
    desk.send(Request::delete(&session), "").await;
    eventually(|| !stream.is_demanded(Made::Opus) && !stream.is_demanded(Made::Video)).await;
    assert_eq!(desk.whep.0.metrics.broadcasts.get(), 1, "the next viewer may come at once");
}

/// One whose line gives out finds it there.
#[tokio::test]
async fn the_cheapest_rung_is_made_while_somebody_watches() {
    let desk = Desk::new().await;
    let publication = desk.publish();
    let stream = desk.stream();
    let rungs = [1, 2].map(|number| Rung { id: TrackId::rung(number).unwrap(), made: Made::Rung(number), ..Rung::ALIKE });
    stream.set_rungs(rungs.into());
    let session = desk.watch().await;
    let script = &desk.script;
    // Long enough to know that no B-frames follow.
    send_all(
        &publication,
        (0_u32..40).map(|at| script.slice(if at == 0 { I } else { P }, i64::from(at * 33), u64::from(at * 33))),
    );
    eventually(|| stream.is_demanded(Made::Rung(2))).await;
    assert!(!stream.is_demanded(Made::Rung(1)));
    // It cannot be made any more: the next one has to do.
    stream.set_making(Made::Rung(2), Making::Unavailable("no room".into()));
    eventually(|| stream.is_demanded(Made::Rung(1)) && !stream.is_demanded(Made::Rung(2))).await;
    desk.send(Request::delete(&session), "").await;
    eventually(|| !stream.is_demanded(Made::Rung(1))).await;
}

#[tokio::test]
async fn a_viewer_hears_of_its_stream_to_its_end() {
    let desk = Desk::new().await;
    let publication = desk.publish();
    let session = desk.watch().await;
    let listening = desk.send(Request::get(format!("{session}/events")), "").await;
    assert_eq!(header(&listening, "content-type"), "text/event-stream");
    let mut told = listening.into_body().into_data_stream();
    let mut next = async || {
        let event = tokio::time::timeout(WAIT, told.next()).await.expect("something is told");
        event.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
    };
    assert_eq!(next().await.as_deref(), Some(HEARTBEAT));
    send_all(&publication, [desk.script.opus(0, 0)]);
    assert_eq!(next().await.as_deref(), Some("event: active\ndata: {}\n\n"));
    drop(publication);
    assert_eq!(next().await.as_deref(), Some("event: inactive\ndata: {}\n\n"));
    assert!(desk.registry.retire(&name()));
    assert_eq!(next().await.as_deref(), Some("event: ended\ndata: {\"reason\":\"stream-ended\"}\n\n"));
    assert_eq!(next().await, None);
    desk.sessions_are(0).await;
    assert_eq!(desk.whep.0.metrics.broadcasts.get(), 0);
}

#[tokio::test]
async fn event_streams_are_chosen_and_few() {
    let desk = Desk::new().await;
    let _publication = desk.publish();
    let session = desk.watch().await;
    let events = format!("{session}/events");
    let chosen = desk.send(post(&events), r#"["layers","active","viewercount"]"#).await;
    assert_eq!(chosen.status(), 201);
    assert_eq!(header(&chosen, "location"), format!("http://watch.example.org{events}?types=active,layers"));
    assert_eq!(desk.send(post(&events), "{}").await.status(), 400);
    let first = desk.send(Request::get(&events), "").await;
    let _second = desk.send(Request::get(&events), "").await;
    assert_eq!(desk.send(Request::get(&events), "").await.status(), 429);
    drop(first);
    assert_eq!(desk.send(Request::get(&events), "").await.status(), 200);
}

#[tokio::test]
async fn layers_are_chosen() {
    let desk = Desk::new().await;
    let publication = desk.publish();
    let layers = crate::whep::tests::simulcast(&desk.script).announcement;
    publication.announce(layers).unwrap();
    let session = desk.watch().await;
    let pictures = (0..30).flat_map(|n| {
        let (ms, key) = (n * 33, n == 0 || n == 25);
        [desk.script.picture(ms, key, ms as u64), desk.script.layer(0, key, ms, ms as u64)]
    });
    send_all(&publication, pictures);
    let layer = format!("{session}/layer");
    let choose = async |body: &str| desk.send(post(&layer), body).await.status().as_u16();
    assert_eq!(choose("{").await, 400);
    assert_eq!(choose(r#"{"encodingId":"l"}"#).await, 409);
    assert_eq!(choose("{}").await, 200);
    let entry = find(&desk.whep.0, "demo", session.rsplit('/').next().unwrap()).unwrap();
    let medium = TrackId::layer(0).unwrap();
    eventually(|| entry.live.front.borrow().pictures.has(medium)).await;
    assert_eq!(choose(r#"{"mediaId":"0","encodingId":"m"}"#).await, 200);
    assert_eq!(*entry.wanted.borrow(), Some(medium));
    // Of the layer a keyframe is needed now: its history starts empty.
    assert_eq!(desk.send(Request::delete(&layer), "").await.status(), 200);
    assert_eq!(*entry.wanted.borrow(), None);
    assert!(entry.live.front.borrow().layers.contains(r#""encodingId":"m""#));
}

#[tokio::test]
async fn a_stopping_server_tells_its_viewers() {
    let desk = Desk::new().await;
    let _publication = desk.publish();
    let session = desk.watch().await;
    let listening = desk.send(Request::get(format!("{session}/events?types=ended")), "").await;
    let ((), told) = tokio::join!(desk.whep.drain(), text_of(listening));
    assert_eq!(told, format!("{HEARTBEAT}event: ended\ndata: {{\"reason\":\"server-stopping\"}}\n\n"));
    assert_eq!(desk.offer().await.status(), 503);
    assert_eq!(desk.whep.0.metrics.viewers.get(), 0);
}

#[tokio::test]
async fn other_origins_may_ask() {
    let desk = Desk::new().await;
    for path in ["/whep/demo", "/whep/demo/1", "/whep/demo/1/layer"] {
        let response = desk.send(Request::options(path), "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "accept-post"), "application/sdp");
        assert!(header(&response, "access-control-allow-methods").contains("PATCH"));
        assert_eq!(desk.send(Request::get(path), "").await.status(), 204);
    }
}
