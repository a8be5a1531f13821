//! The rules of WHIP's URLs (RFC 9725) over the real router and a real engine on loopback. No media flows.

use std::{
    future::ready,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use ingest::{
    admission::{Admission, Answer, Protocol, PublishRequest, Verdict},
    metrics::Metrics,
    whip::{Config, Whip, router},
};
use media_core::{Registry, StreamName};
use tower::ServiceExt;
use transport::{
    Engine,
    resource::{FRAGMENT, IceServer, SDP},
};

const KEY: &str = "secret-of-demo";
const OTHER_KEY: &str = "secret-of-other";
const FINGERPRINT: &str =
    "sha-256 00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f";

fn offer() -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:a\r\na=sendonly\r\na=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=sendonly\r\na=rtcp-mux\r\n\
         a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-fb:96 nack pli\r\n"
    )
}

/// Knows two keys; or, for `None`, never answers.
struct Keys(Option<()>);

impl Admission for Keys {
    fn admit(&self, request: PublishRequest) -> Answer<'_> {
        if self.0.is_none() {
            return Box::pin(std::future::pending());
        }
        assert_eq!(request.protocol, Protocol::Whip);
        let name = |name: &str| Verdict::Allow { stream: StreamName::parse(name).expect("a name") };
        Box::pin(ready(match request.key.expose() {
            KEY => name("demo"),
            OTHER_KEY => name("other"),
            _ => Verdict::Deny { reason: "this stream key is not known here".into() },
        }))
    }
}

struct Server {
    router: Router,
    whip: Whip,
    registry: Arc<Registry>,
    metrics: prometheus::Registry,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Server {
    async fn start(keys: Keys, sessions_max: usize) -> Self {
        let metrics = prometheus::Registry::new();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let engine = transport::Config { listen, public: Vec::new(), tcp: false, sessions_max, shards: 2 };
        let engine = Engine::start(engine, &metrics).await.expect("a free port");
        let registry = Arc::new(Registry::new(SystemTime::now(), 10, |_| ()));
        let publishing = Metrics::new(&metrics).expect("once");
        let ice_servers = vec![IceServer { url: "stun:stun.example.org".into(), login: None }];
        let config = Config { ice_servers, ..Config::default() };
        let whip = Whip::new(engine, Arc::clone(&registry), Arc::new(keys), config, publishing, &metrics).expect("once");
        Self { router: router(whip.clone()), whip, registry, metrics }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let request = headers.iter().fold(Request::builder().method(method).uri(path), |request, (n, v)| request.header(*n, *v));
        let response = self.router.clone().oneshot(request.body(body.into()).expect("a request")).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.expect("whole").to_vec()).expect("text");
        assert_eq!(head.headers["access-control-allow-origin"], "*", "{method} {path}");
        assert!(!body.contains("secret-of"), "{body}");
        assert!(!format!("{:?}", head.headers).contains("secret-of"));
        Reply { status: head.status, headers: head.headers, body }
    }

    async fn publish(&self, key: &str, body: String) -> Reply {
        let bearer = format!("Bearer {key}");
        let headers = [("content-type", SDP), ("authorization", bearer.as_str()), ("host", "live.example.org")];
        self.ask("POST", "/whip/demo", &headers, body).await
    }

    fn result(&self, result: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == "codecast_whip_sessions_total").expect("registered");
        let series = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == result).expect("a known label");
        series.get_counter().get_value() as u64
    }
}

/// The path of a new session, and its entity tag.
async fn begin(server: &Server) -> (String, String) {
    let reply = server.publish(KEY, offer()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    let path = reply.header("location").strip_prefix("http://live.example.org").expect("absolute").to_owned();
    (path, reply.header("etag").to_owned())
}

#[tokio::test]
async fn an_offer_is_answered_as_encoders_need_it() {
    let server = Server::start(Keys(Some(())), 10).await;
    let reply = server.publish(KEY, offer()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    assert_eq!(reply.header("content-type"), SDP);
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    assert_eq!(reply.header("link"), "<stun:stun.example.org>; rel=\"ice-server\"");
    let id = reply.header("location").strip_prefix("http://live.example.org/whip/demo/").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let ufrag = reply.header("etag").trim_matches('"');
    assert!(reply.body.contains(&format!("a=ice-ufrag:{ufrag}")) && reply.body.contains("a=ice-lite"));
    assert_eq!(server.registry.publishers(), 1);
    let stream = server.registry.stream(&StreamName::parse("demo").unwrap()).unwrap();
    assert!(stream.present().epoch.is_some());
}

#[tokio::test]
async fn what_is_no_offer_is_refused_in_words() {
    let server = Server::start(Keys(Some(())), 10).await;
    let sdp = ("content-type", SDP);
    let auth = ("authorization", "Bearer secret-of-demo");
    for (method, path, headers, body, status, header) in [
        ("GET", "/whip/demo", &[][..], String::new(), 405, ("allow", "POST, OPTIONS")),
        ("HEAD", "/whip/demo", &[], String::new(), 405, ("allow", "POST, OPTIONS")),
        ("PUT", "/whip/demo", &[], String::new(), 405, ("allow", "POST, OPTIONS")),
        ("DELETE", "/whip/demo", &[], String::new(), 405, ("allow", "POST, OPTIONS")),
        ("POST", "/whip/demo/1", &[], String::new(), 405, ("allow", "PATCH, DELETE, OPTIONS")),
        ("GET", "/whip/demo/1", &[], String::new(), 405, ("allow", "PATCH, DELETE, OPTIONS")),
        ("OPTIONS", "/whip/demo", &[], String::new(), 204, ("accept-post", SDP)),
        ("OPTIONS", "/whip/demo/1", &[], String::new(), 204, ("accept-patch", FRAGMENT)),
        ("POST", "/whip/demo", &[auth], offer(), 415, ("accept-post", SDP)),
        ("POST", "/whip/demo", &[("content-type", "text/plain"), auth], offer(), 415, ("accept-post", SDP)),
        ("POST", "/whip/demo", &[sdp], offer(), 401, ("www-authenticate", "Bearer")),
        ("POST", "/whip/demo", &[sdp, ("authorization", "Basic eDp5")], offer(), 401, ("www-authenticate", "Bearer")),
        ("POST", "/whip/demo", &[sdp, auth], "x".repeat((64 << 10) + 1), 413, ("cache-control", "no-store")),
        ("POST", "/whip/demo", &[sdp, auth], "{}".into(), 400, ("cache-control", "no-store")),
        ("POST", "/whip/demo", &[sdp, auth], offer().replace("H264", "VP8"), 422, ("cache-control", "no-store")),
        ("POST", "/whip/d.mo", &[sdp, auth], offer(), 404, ("cache-control", "no-store")),
        ("POST", "/whip/other", &[sdp, auth], offer(), 403, ("cache-control", "no-store")),
        ("POST", "/whip/demo", &[sdp, ("authorization", "Bearer x")], offer(), 403, ("cache-control", "no-store")),
        ("POST", "/whip/nobody", &[sdp, ("authorization", "Bearer x")], offer(), 403, ("cache-control", "no-store")),
        ("PATCH", "/whip/demo/1", &[], String::new(), 404, ("cache-control", "no-store")),
        ("DELETE", "/whip/demo/1", &[], String::new(), 404, ("cache-control", "no-store")),
    ] {
        let reply = server.ask(method, path, headers, body).await;
        let case = format!("{method} {path} {headers:?}: {}", reply.body);
        assert_eq!((reply.status.as_u16(), reply.header(header.0)), (status, header.1), "{case}");
        assert_eq!(reply.header("content-type"), if status == 204 { "" } else { "application/problem+json" }, "{case}");
    }
    let preflight = server.ask("OPTIONS", "/whip/demo/1", &[("origin", "https://a.example")], String::new()).await;
    assert!(preflight.header("access-control-allow-methods").contains("PATCH, DELETE"));
    assert!(preflight.header("access-control-allow-headers").contains("if-match"));
    assert!(preflight.header("access-control-expose-headers").contains("Location, ETag, Link"));
    assert_eq!(server.registry.publishers(), 0);
    assert_eq!((server.result("denied"), server.result("bad_offer"), server.result("media_refused")), (5, 1, 1));
}

#[tokio::test]
async fn a_session_is_trickled_restarted_and_ended_at_its_url() {
    let server = Server::start(Keys(Some(())), 10).await;
    let (path, etag) = begin(&server).await;
    let old = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n";
    let new = old.replace("abcd\r\n", "efgh\r\n");
    let of = |etag: &str| [("content-type", FRAGMENT), ("if-match", etag)].map(|(n, v)| (n, v.to_owned()));
    let patch = async |etag: &str, body: &str| {
        let headers = of(etag);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        server.ask("PATCH", &path, &headers, body.to_owned()).await
    };
    let trickled = patch(&etag, old).await;
    assert_eq!((trickled.status.as_u16(), trickled.body.as_str()), (204, ""));
    assert_eq!(patch("\"x\"", old).await.status.as_u16(), 412);
    assert_eq!(server.ask("PATCH", &path, &[("content-type", FRAGMENT)], old).await.status.as_u16(), 428);
    assert_eq!(server.ask("PATCH", &path, &[("if-match", "*")], old).await.status.as_u16(), 415);
    assert_eq!(patch("*", "a=ice-ufrag:efgh\r\n").await.status.as_u16(), 400);

    let restarted = patch("\"*\"", &new).await;
    assert_eq!((restarted.status.as_u16(), restarted.header("content-type")), (200, FRAGMENT));
    let ufrag = restarted.header("etag").trim_matches('"');
    assert!(restarted.header("etag") != etag && restarted.body.contains(&format!("a=ice-ufrag:{ufrag}\r\n")));
    assert_eq!(patch(&etag, old).await.status.as_u16(), 412, "the old ICE session is over");
    assert_eq!(patch(restarted.header("etag"), &new).await.status.as_u16(), 204);

    let with = async |method, key: &'static str| server.ask(method, &path, &[("authorization", key)], String::new()).await;
    assert_eq!(with("DELETE", "Bearer secret-of-other").await.status.as_u16(), 403);
    assert_eq!(with("DELETE", "Basic eDp5").await.status.as_u16(), 401);
    let wrong = path.replace("demo", "other");
    assert_eq!(server.ask("DELETE", &wrong, &[], String::new()).await.status.as_u16(), 404);
    let deleted = with("DELETE", "Bearer secret-of-demo").await;
    assert_eq!((deleted.status.as_u16(), deleted.header("content-length")), (200, "0"));
    assert_eq!(server.registry.publishers(), 0, "the name is free when the answer comes");
    assert_eq!(with("DELETE", "Bearer secret-of-demo").await.status.as_u16(), 404);
    assert_eq!(server.result("deleted"), 1);
    begin(&server).await;
}

#[tokio::test]
async fn a_held_name_a_full_engine_and_a_drain_are_told_apart() {
    let server = Server::start(Keys(Some(())), 1).await;
    let (path, _) = begin(&server).await;
    let other = [("content-type", SDP), ("authorization", "Bearer secret-of-other")];
    let full = server.ask("POST", "/whip/other", &other, offer()).await;
    assert_eq!((full.status.as_u16(), full.header("retry-after")), (503, "2"));
    assert_eq!(server.registry.publishers(), 1, "whoever found no room holds no name");

    server.registry.drain();
    server.whip.ended().await;
    assert_eq!(server.ask("DELETE", &path, &[], String::new()).await.status.as_u16(), 404);
    let late = server.publish(KEY, offer()).await;
    assert_eq!((late.status.as_u16(), late.header("retry-after")), (503, "2"));
    assert_eq!((server.result("full"), server.result("drain"), server.result("draining")), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_admission_that_is_silent_is_not_waited_for_longer_than_obs_does() {
    let server = Server::start(Keys(None), 1).await;
    let start = tokio::time::Instant::now();
    let reply = server.publish(KEY, offer()).await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(start.elapsed() < Duration::from_secs(8));
    assert_eq!(server.registry.publishers(), 0);
}
