//! WHIP over HTTP: an offer is judged, its publisher admitted, the stream leased, the answer given.
//!
//! ```text
//! /whip/<stream>            POST an offer, OPTIONS
//! /whip/<stream>/<session>  PATCH candidates or an ICE restart, DELETE, OPTIONS
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Extension, Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    middleware::{self, Next},
    routing::post,
};
use bytes::Bytes;
use dashmap::DashMap;
use media_core::{Registry, StreamKey, StreamName, registry::TAKEOVER_SILENCE};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{Instrument, Span, debug, field::Empty, info_span};
use transport::{
    Accepted, Control, Engine,
    resource::{self, CORS, CORS_MAX_AGE, ENDPOINT_METHODS, FRAGMENT, SDP, SESSION_METHODS},
    sdp::{self, Offer, Wants},
};

use super::{
    conn::Conn,
    endpoint::{self, Config, Rejection},
    metrics::Metrics,
};
use crate::{
    admission::{Admission, Protocol, PublishRequest, Verdict},
    lease,
    metrics::Metrics as Publishing,
    rejections::Rejections,
};

/// OBS gives its POST 8 s in all.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8);
/// For one answer of the admission.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(6);
/// For a body of some kilobytes.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// A DELETE is answered when the name is free, so that the next publisher is not held.
const END_TIMEOUT: Duration = Duration::from_secs(1);

const _: () = assert!(ADMISSION_TIMEOUT.as_millis() + TAKEOVER_SILENCE.as_millis() < ANSWER_TIME_MAX.as_millis());

/// All WHIP sessions of a process. Clones share them.
#[derive(Clone)]
pub struct Whip(Arc<Inner>);

struct Inner {
    engine: Engine,
    registry: Arc<Registry>,
    admission: Arc<dyn Admission>,
    config: Config,
    metrics: Metrics,
    rejections: Rejections,
    publishing: Publishing,
    /// By the last part of their URLs. Each holds a session of the engine, which bounds their number.
    sessions: DashMap<String, Entry>,
    live: watch::Sender<usize>,
}

/// What requests about a session need of it.
#[derive(Clone)]
struct Entry {
    stream: StreamName,
    key: StreamKey,
    control: Control,
    /// Closed when the session has ended.
    ended: watch::Receiver<()>,
}

impl Whip {
    /// Fails when `metrics` has metrics of these names already.
    pub fn new(
        engine: Engine,
        registry: Arc<Registry>,
        admission: Arc<dyn Admission>,
        config: Config,
        publishing: Publishing,
        metrics: &prometheus::Registry,
    ) -> prometheus::Result<Self> {
        let metrics = Metrics::new(metrics)?;
        let (live, _) = watch::channel(0);
        Ok(Self(Arc::new(Inner {
            engine,
            registry,
            admission,
            config,
            metrics,
            rejections: Rejections::default(),
            publishing,
            sessions: DashMap::new(),
            live,
        })))
    }

    /// Waits until no session is left. They end with the registry's drain.
    pub async fn ended(&self) {
        let mut live = self.0.live.subscribe();
        // The sender lives as long as `self`.
        let _ = live.wait_for(|live| *live == 0).await;
    }
}

pub fn router(whip: Whip) -> Router {
    Router::new()
        .route("/whip/{stream}", post(handle_post).options(describe_endpoint).fallback(refuse_endpoint_method))
        .route(
            "/whip/{stream}/{session}",
            axum::routing::patch(handle_patch).delete(handle_delete).options(describe_session).fallback(refuse_session_method),
        )
        .layer(middleware::from_fn(cross_origin))
        .with_state(whip)
}

/// Any page may publish: the key is what counts.
async fn cross_origin(request: Request, next: Next) -> Response<Body> {
    let preflight = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if preflight {
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(CORS_MAX_AGE));
    }
    response
}

async fn describe_endpoint() -> Response<Body> {
    describe(&[("allow", ENDPOINT_METHODS), ("accept-post", SDP)])
}

async fn describe_session() -> Response<Body> {
    describe(&[("allow", SESSION_METHODS), ("accept-patch", FRAGMENT)])
}

fn describe(headers: &[(&str, &str)]) -> Response<Body> {
    let mut response = Response::builder().status(StatusCode::NO_CONTENT);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    respond(response.body(Body::empty()))
}

async fn refuse_endpoint_method(State(whip): State<Whip>) -> Response<Body> {
    whip.0.reject(&Rejection::Method(ENDPOINT_METHODS))
}

async fn refuse_session_method(State(whip): State<Whip>) -> Response<Body> {
    whip.0.reject(&Rejection::Method(SESSION_METHODS))
}

type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

async fn handle_post(State(whip): State<Whip>, Path(stream): Path<String>, peer: Peer, request: Request) -> Response<Body> {
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |Extension(ConnectInfo(peer))| peer.ip().to_canonical());
    let span = info_span!("whip", %peer, stream = Empty, publisher = Empty);
    let inner = Arc::clone(&whip.0);
    let answer = async move {
        match inner.publish(&stream, peer, request).await {
            Ok(response) => response,
            Err(rejection) => inner.reject(&rejection),
        }
    };
    answer.instrument(span).await
}

async fn handle_patch(State(whip): State<Whip>, Path(path): Path<(String, String)>, request: Request) -> Response<Body> {
    match whip.0.patch(&path, request).await {
        Ok(response) => response,
        Err(rejection) => whip.0.reject(&rejection),
    }
}

async fn handle_delete(State(whip): State<Whip>, Path(path): Path<(String, String)>, headers: HeaderMap) -> Response<Body> {
    match whip.0.delete(&path, &headers).await {
        Ok(()) => empty(StatusCode::OK),
        Err(rejection) => whip.0.reject(&rejection),
    }
}

impl Inner {
    /// The offer first: nobody is asked about one that cannot be answered.
    async fn publish(self: &Arc<Self>, stream: &str, peer: IpAddr, request: Request) -> Result<Response<Body>, Rejection> {
        let name = StreamName::parse(stream).map_err(|_| Rejection::NoEndpoint)?;
        let (head, body) = request.into_parts();
        if !resource::is_type(text(&head.headers, "content-type"), SDP) {
            return Err(Rejection::Type);
        }
        let key = resource::bearer(text(&head.headers, "authorization")).map(StreamKey::new).ok_or(Rejection::NoKey)?;
        let offer = Offer::parse(&read(body).await?).map_err(Rejection::Offer)?;
        let negotiated = sdp::negotiate(&offer, &Wants::Receive).map_err(Rejection::Offer)?;
        let request = PublishRequest { protocol: Protocol::Whip, peer, app: String::new(), key: key.clone() };
        self.admit(&name, request).await?;
        let publication = lease::acquire(&self.registry, &name, &key, None).await.map_err(Rejection::Registry)?;
        Span::current().record("publisher", publication.epoch());
        let Accepted { session, answer } = self.engine.receive(negotiated).await.map_err(Rejection::Engine)?;

        let id = resource::session_id(self.engine.random());
        let control = session.control();
        let etag = resource::etag(&control.ufrag());
        let encoder = endpoint::encoder(text(&head.headers, "user-agent"));
        let interval = self.config.keyframe_interval;
        let conn = Conn::new(session, publication, encoder, interval, self.metrics.clone(), self.publishing.clone());
        self.begin(id.clone(), Entry::new(name, key, control), conn);

        let path = format!("{}/{id}", head.uri.path().trim_end_matches('/'));
        let location = self.config.reach.location(&path, |name| text(&head.headers, name));
        let mut response = Response::builder()
            .status(StatusCode::CREATED)
            .header(header::CONTENT_TYPE, SDP)
            .header(header::LOCATION, location)
            .header(header::ETAG, etag)
            .header("accept-patch", FRAGMENT);
        // One that a header cannot carry was refused with the configuration.
        for link in self.config.ice_servers.iter().filter_map(|server| HeaderValue::try_from(server.link()).ok()) {
            response = response.header(header::LINK, link);
        }
        Ok(respond(response.body(Body::from(answer))))
    }

    async fn admit(&self, name: &StreamName, request: PublishRequest) -> Result<(), Rejection> {
        match timeout(ADMISSION_TIMEOUT, self.admission.admit(request)).await {
            Ok(Verdict::Allow { stream }) if stream == *name => Ok(()),
            Ok(Verdict::Allow { .. }) => Err(Rejection::OtherStream),
            Ok(Verdict::Deny { reason }) => Err(Rejection::Denied(reason)),
            Err(_) => Err(Rejection::AdmissionTimeout),
        }
    }

    /// The session lives on its own from here.
    fn begin(self: &Arc<Self>, id: String, (entry, ended): (Entry, watch::Sender<()>), conn: Conn) {
        self.sessions.insert(id.clone(), entry);
        self.live.send_modify(|live| *live += 1);
        let place = Place { inner: Arc::clone(self), id, _ended: ended };
        let life = async move {
            conn.run().await;
            drop(place);
        };
        tokio::spawn(life.instrument(Span::current()));
    }

    async fn patch(&self, path: &(String, String), request: Request) -> Result<Response<Body>, Rejection> {
        let (head, body) = request.into_parts();
        let entry = self.find(path, &head.headers)?;
        let body = read(body).await?;
        let header = |name| text(&head.headers, name);
        let patched = entry.control.patch(header("content-type"), header("if-match"), &body).await;
        let Some(restarted) = patched.map_err(Rejection::Patch)? else { return Ok(empty(StatusCode::NO_CONTENT)) };
        debug!("ICE restart");
        let response =
            Response::builder().header(header::CONTENT_TYPE, FRAGMENT).header(header::ETAG, resource::etag(&restarted.ufrag));
        Ok(respond(response.body(Body::from(restarted.fragment))))
    }

    async fn delete(&self, path: &(String, String), headers: &HeaderMap) -> Result<(), Rejection> {
        let mut entry = self.find(path, headers)?;
        self.sessions.remove(&path.1);
        entry.control.close();
        // An error is what is waited for: the session has let go of its end.
        let _ = timeout(END_TIMEOUT, entry.ended.changed()).await;
        Ok(())
    }

    /// Whoever knows a session's URL may use it; a key that is sent all the same must fit.
    fn find(&self, (stream, id): &(String, String), headers: &HeaderMap) -> Result<Entry, Rejection> {
        let entry = self.sessions.get(id).map(|entry| entry.clone()).filter(|entry| entry.stream.as_str() == stream);
        let entry = entry.ok_or(Rejection::NoSession)?;
        if headers.contains_key(header::AUTHORIZATION) {
            let key = resource::bearer(text(headers, "authorization")).ok_or(Rejection::NoKey)?;
            if StreamKey::new(key) != entry.key {
                return Err(Rejection::OtherKey);
            }
        }
        Ok(entry)
    }

    fn reject(&self, rejection: &Rejection) -> Response<Body> {
        self.metrics.rejected(rejection);
        if rejection.is_told() {
            self.rejections.tell(rejection, Instant::now().into_std());
        }
        problem(rejection)
    }
}

impl Entry {
    fn new(stream: StreamName, key: StreamKey, control: Control) -> (Self, watch::Sender<()>) {
        let (sender, ended) = watch::channel(());
        (Self { stream, key, control, ended }, sender)
    }
}

/// A session's place in the map; gone with its life, however that ends.
struct Place {
    inner: Arc<Inner>,
    id: String,
    _ended: watch::Sender<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.sessions.remove(&self.id);
        self.inner.live.send_modify(|live| *live -= 1);
    }
}

async fn read(body: Body) -> Result<Bytes, Rejection> {
    match timeout(BODY_TIMEOUT, to_bytes(body, sdp::BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // Or a peer that left, which hears nothing of it.
        Ok(Err(_)) => Err(Rejection::TooLong),
        Err(_) => Err(Rejection::SlowBody),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Bodies are whole, so each answer has its Content-Length: ffmpeg reads no chunks, and waits after DELETE without one.
fn empty(status: StatusCode) -> Response<Body> {
    respond(Response::builder().status(status).body(Body::empty()))
}

/// RFC 9457.
fn problem(rejection: &Rejection) -> Response<Body> {
    let status = StatusCode::from_u16(rejection.status()).expect("our own status codes are valid");
    let body = serde_json::json!({
        "title": status.canonical_reason(), "status": status.as_u16(), "detail": rejection.to_string(),
    });
    let body = body.to_string();
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/problem+json")
        .header(header::CACHE_CONTROL, "no-store");
    if let Some((name, value)) = rejection.header() {
        response = response.header(name, value);
    }
    if let Some(seconds) = rejection.retry_after() {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    respond(response.body(Body::from(body)))
}

fn respond(built: Result<Response<Body>, axum::http::Error>) -> Response<Body> {
    built.expect("headers made of our own text, or of text that was checked, are valid")
}
