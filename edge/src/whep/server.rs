//! WHEP over HTTP: offers are answered, sessions restarted and closed, events told, layers chosen.
//!
//! ```text
//! POST    /whep/<stream>                      offer in, answer out
//! PATCH   /whep/<stream>/<session>            trickled candidates (not needed), ICE restart
//! DELETE  /whep/<stream>/<session>
//! GET     /whep/<stream>/<session>/events     server-sent events; POST chooses which
//! POST    /whep/<stream>/<session>/layer      chooses a layer; DELETE leaves it to us
//! ```
//!
//! A stream that nobody has published is 404 with `Retry-After`, not the draft's 409: here a name without a stream and a
//! name that never was cannot be told apart. While a publisher is away its stream goes on, and so do its viewers.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use futures_util::stream;
use media_core::{Stream, StreamName, TrackId, stream::Made};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};
use transport::{
    AcceptError, Accepted,
    resource::{self, PatchError},
    sdp::{self, Kind, Negotiated, Offer, Refusal, SendVideo, Sending, Wants},
};

use super::{
    conn::{self, Attendance, Entry},
    events::{self, Events, HEARTBEAT, Wanted},
    layers,
    metrics::Outcome,
    pipeline::{Inner, Lane, Whep, now},
    program::{Program, Unavailable},
    viewer::{Front, Taken, Viewer},
};

/// Largest body: an offer. Browsers send 5 to 12 KiB.
const BODY_BYTES_MAX: usize = sdp::BYTES_MAX;
/// For a body of some kilobytes.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Proxies close a silent connection after 30 to 60 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// When to ask again for a stream that is not there, or a place that is not free.
const RETRY_SOON: &str = "2";
/// When to ask again for what this server lacks.
const RETRY_LATE: &str = "30";
const EXTENSION: &str = "urn:ietf:params:whep:ext:core";

type Shared = State<Arc<Inner>>;
type Answer = Result<Response<Body>, Problem>;

pub fn router(whep: Whep) -> Router {
    Router::new()
        .route("/whep/{stream}", get(nothing).post(offer))
        .route("/whep/{stream}/{session}", get(nothing).patch(change).delete(close))
        .route("/whep/{stream}/{session}/events", get(listen).post(choose_events))
        .route("/whep/{stream}/{session}/layer", get(nothing).post(choose_layer).delete(leave_layer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(cross_origin))
        .with_state(whep.0)
}

async fn offer(
    State(inner): Shared,
    Path(stream): Path<String>,
    headers: HeaderMap,
    body: Result<Whole, Problem>,
) -> Response<Body> {
    match answer(&inner, &stream, &headers, body).await {
        Ok(created) => created,
        Err(problem) => {
            inner.metrics.session(problem.outcome);
            problem.into_response()
        }
    }
}

async fn answer(inner: &Arc<Inner>, stream: &str, headers: &HeaderMap, body: Result<Whole, Problem>) -> Answer {
    let asked = now();
    if *inner.draining.borrow() {
        return Err(Problem::full("this server is shutting down: connect again in a moment"));
    }
    require_type(headers)?;
    let stream = find_stream(inner, stream)?;
    let offer = Offer::parse(&body?.0)?;
    let program = Program::of(&stream.present(), &stream.making(Made::Video), &stream.making(Made::Opus))
        .map_err(|missing| Problem::unavailable(&missing))?;
    let negotiated = sdp::negotiate(&offer, &Wants::Send(sending(inner, &stream, &program)))?;
    let place = Arc::clone(&inner.places).try_acquire_owned();
    let place = place.map_err(|_| Problem::full("as many viewers watch over WebRTC as this server allows"))?;
    let viewer = viewer(&offer, &negotiated);
    let seat = inner.attend(&stream);
    let [video, audio] = [(viewer.video, TrackId::VIDEO), (viewer.audio, TrackId::AUDIO)]
        .map(|(taken, track)| (taken == Taken::Yes).then(|| seat.0.lane(track, &inner.engine)));
    let outgoing = |lane: &Option<Arc<Lane>>| lane.as_ref().map(|lane| Arc::clone(&lane.outgoing));
    let (video, audio) = (outgoing(&video), outgoing(&audio));
    let accepted = inner.engine.send(negotiated, video.as_deref(), audio.as_deref()).await?;
    let id = resource::session_id(inner.engine.random());
    let response = created(inner, headers, &stream.name, &id, &accepted);
    let number = inner.viewers.fetch_add(1, Ordering::Relaxed) + 1;
    let attendance = Attendance { id, number, session: accepted.session, viewer, seat, place, asked };
    conn::attend(Arc::clone(inner), attendance);
    Ok(response)
}

fn find_stream(inner: &Inner, name: &str) -> Result<Arc<Stream>, Problem> {
    // Neither repeats what was asked for: it may be a stream key in the wrong place, and answers are logged and shared.
    let Ok(name) = StreamName::parse(name) else {
        return Err(Problem::not_found("that is no stream name: 1 to 64 letters, digits, '-' or '_'", None));
    };
    let stream = inner.registry.upgrade().and_then(|registry| registry.stream(&name));
    stream.ok_or_else(|| Problem::not_found("there is no live stream of this name", Some(RETRY_SOON)))
}

fn sending(inner: &Inner, stream: &Stream, program: &Program) -> Sending {
    let number = || u32::from_be_bytes(inner.engine.random());
    let video = SendVideo { profile_level_id: program.profile_level_id, ssrc: number(), rtx_ssrc: number() };
    Sending {
        video: program.video.then_some(video),
        audio: program.audio.then(number),
        // RFC 7022 4.2: random, and new for each session.
        cname: resource::session_id(inner.engine.random()),
        stream_id: stream.name.to_string(),
    }
}

fn viewer(offer: &Offer, negotiated: &Negotiated) -> Viewer {
    let offered = |kind| offer.media.iter().any(|media| media.kind == kind && !media.disabled && media.direction.receives());
    Viewer {
        video: Taken::of(offered(Kind::Video), negotiated.video().is_some()),
        audio: Taken::of(offered(Kind::Audio), negotiated.audio().is_some()),
    }
}

fn created(inner: &Inner, headers: &HeaderMap, stream: &StreamName, id: &str, accepted: &Accepted) -> Response<Body> {
    let location = location(inner, headers, &format!("/whep/{stream}/{id}"));
    let mut response = Response::builder()
        .status(StatusCode::CREATED)
        .header(header::CONTENT_TYPE, resource::SDP)
        .header(header::CONTENT_LENGTH, accepted.answer.len())
        .header(header::ETAG, resource::etag(&accepted.session.control().ufrag()))
        .header(
            header::LINK,
            format!("<{location}/events>; rel=\"{EXTENSION}:server-sent-events\"; events=\"{}\"", events::NAMES),
        )
        .header(header::LINK, format!("<{location}/layer>; rel=\"{EXTENSION}:layer\""));
    for server in &inner.config.ice_servers {
        response = response.header(header::LINK, server.link());
    }
    respond(response.header(header::LOCATION, location).body(Body::from(accepted.answer.clone())))
}

async fn change(
    State(inner): Shared,
    Path((stream, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Whole, Problem>,
) -> Answer {
    let entry = find(&inner, &stream, &session)?;
    let (content_type, if_match) = (text(&headers, "content-type"), text(&headers, "if-match"));
    let patched = entry.control.patch(content_type, if_match, &body?.0).await?;
    let Some(restarted) = patched else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    Ok(respond(
        Response::builder()
            .header(header::CONTENT_TYPE, resource::FRAGMENT)
            .header(header::CONTENT_LENGTH, restarted.fragment.len())
            .header(header::ETAG, resource::etag(&restarted.ufrag))
            .body(Body::from(restarted.fragment)),
    ))
}

async fn close(State(inner): Shared, Path((stream, session)): Path<(String, String)>) -> Answer {
    find(&inner, &stream, &session)?.control.close();
    Ok(StatusCode::OK.into_response())
}

/// A GET of what has no representation is answered without content, as the draft asks.
async fn nothing() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// What a viewer is told of while it watches.
#[derive(Deserialize)]
struct Listening {
    /// Comma-separated; all where it is missing.
    types: Option<String>,
}

async fn listen(State(inner): Shared, Path((stream, session)): Path<(String, String)>, Query(query): Query<Listening>) -> Answer {
    let entry = find(&inner, &stream, &session)?;
    let place = Arc::clone(&entry.event_streams).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("this session's events are being read already"))?;
    let wanted = query.types.map_or(Wanted::ALL, |types| Wanted::of(types.split(',')));
    let telling = Telling {
        events: Events::new(entry.viewer, wanted),
        front: entry.live.front.subscribe(),
        over: entry.over.subscribe(),
        opened: false,
        _place: place,
        _entry: entry,
    };
    let body = Body::from_stream(stream::unfold(telling, |telling| async {
        let (text, telling) = telling.next().await?;
        Some((Ok::<_, Infallible>(text), telling))
    }));
    Ok(respond(
        Response::builder()
            .header(header::CONTENT_TYPE, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-store")
            // nginx would collect events before it passes them on.
            .header("x-accel-buffering", "no")
            .body(body),
    ))
}

/// The draft's way: a POST names the events, and is told where they are read.
async fn choose_events(
    State(inner): Shared,
    Path((stream, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Whole, Problem>,
) -> Answer {
    find(&inner, &stream, &session)?;
    let Whole(body) = body?;
    let wanted = if body.is_empty() { Some(Wanted::ALL) } else { Wanted::parse(&body) };
    let wanted = wanted.ok_or_else(|| Problem::malformed("the events asked for are a JSON array of their names"))?;
    let types: Vec<_> = wanted.names().collect();
    let path = format!("/whep/{stream}/{session}/events?types={}", types.join(","));
    let location = location(&inner, &headers, &path);
    Ok(respond(Response::builder().status(StatusCode::CREATED).header(header::LOCATION, location).body(Body::empty())))
}

/// An event stream that is being read.
struct Telling {
    events: Events,
    front: watch::Receiver<Front>,
    over: watch::Receiver<bool>,
    opened: bool,
    /// Keeps what the receivers listen to.
    _entry: Arc<Entry>,
    _place: OwnedSemaphorePermit,
}

impl Telling {
    /// Waits until there is something to say. `None`: the session is over.
    async fn next(mut self) -> Option<(String, Self)> {
        loop {
            let front = self.front.borrow_and_update().clone();
            let mut text = self.events.tell(&front);
            if !std::mem::replace(&mut self.opened, true) {
                // A first byte, so that the viewer's side knows the stream is open.
                text.insert_str(0, HEARTBEAT);
            }
            if !text.is_empty() {
                return Some((text, self));
            }
            if self.events.is_over() || *self.over.borrow_and_update() {
                return None;
            }
            tokio::select! {
                _ = self.front.changed() => {}
                _ = self.over.changed() => {}
                () = sleep(HEARTBEAT_INTERVAL) => return Some((HEARTBEAT.to_owned(), self)),
            }
        }
    }
}

async fn choose_layer(
    State(inner): Shared,
    Path((stream, session)): Path<(String, String)>,
    body: Result<Whole, Problem>,
) -> Answer {
    let entry = find(&inner, &stream, &session)?;
    if entry.viewer.video != Taken::Yes {
        return Err(Problem::conflict("this session has no picture"));
    }
    let pictures = entry.live.front.borrow().pictures;
    let wanted =
        layers::choose(&body?.0, &entry.live.stream.present(), pictures, &entry.live.rungs()).map_err(|error| match error {
            layers::Error::NotAChoice => Problem::malformed(&error.to_string()),
            layers::Error::NoSuchLayer => Problem::conflict(&error.to_string()),
        })?;
    entry.wanted.send_replace(wanted);
    Ok(StatusCode::OK.into_response())
}

async fn leave_layer(State(inner): Shared, Path((stream, session)): Path<(String, String)>) -> Answer {
    find(&inner, &stream, &session)?.wanted.send_replace(None);
    Ok(StatusCode::OK.into_response())
}

/// A body that has come whole, and in time.
struct Whole(Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
        let read = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
        Ok(Self(read?))
    }
}

fn find(inner: &Inner, stream: &str, session: &str) -> Result<Arc<Entry>, Problem> {
    inner.sessions.find(stream, session).ok_or_else(no_session)
}

fn no_session() -> Problem {
    Problem::not_found("this session is over", None)
}

fn require_type(headers: &HeaderMap) -> Result<(), Problem> {
    let is_sdp = resource::is_type(text(headers, "content-type"), resource::SDP);
    is_sdp.then_some(()).ok_or_else(|| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/sdp"))
}

/// The absolute address of a path, as this viewer reaches it.
fn location(inner: &Inner, headers: &HeaderMap, path: &str) -> String {
    inner.config.reach.location(path, |name| text(headers, name))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Any page may watch any stream: a session's address is the right to change it, and no credentials go with a request.
async fn cross_origin(request: Request, next: Next) -> Response<Body> {
    let mut response = if request.method() == Method::OPTIONS {
        [("accept-post", resource::SDP), ("access-control-max-age", resource::CORS_MAX_AGE)].into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in resource::CORS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is not granted (RFC 9457).
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<&'static str>,
    /// Of an offer.
    outcome: Outcome,
}

impl Problem {
    fn new(status: StatusCode, detail: &str) -> Self {
        Self { status, detail: detail.to_owned(), retry_after: None, outcome: Outcome::Refused }
    }

    fn malformed(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    fn conflict(detail: &str) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    fn not_found(detail: &str, retry_after: Option<&'static str>) -> Self {
        Self { retry_after, outcome: Outcome::NotLive, ..Self::new(StatusCode::NOT_FOUND, detail) }
    }

    fn full(detail: &str) -> Self {
        let retry_after = Some(RETRY_SOON);
        Self { retry_after, outcome: Outcome::Full, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    fn busy(detail: &str) -> Self {
        Self { retry_after: Some(RETRY_SOON), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    fn unavailable(missing: &Unavailable) -> Self {
        let retry_after = Some(RETRY_LATE);
        Self { retry_after, outcome: Outcome::Unavailable, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, &missing.to_string()) }
    }
}

impl From<PatchError> for Problem {
    fn from(error: PatchError) -> Self {
        Self::new(status(error.status()), &error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(status(refusal.status()), &refusal.to_string())
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("the statuses of refusals are HTTP's")
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {BODY_BYTES_MAX} bytes are taken"))
            }
            _ => Self::malformed("the body did not arrive whole"),
        }
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Full | AcceptError::Stopped => Self::full(&error.to_string()),
            AcceptError::Dtls(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let body = json!({ "title": self.status.canonical_reason(), "status": self.status.as_u16(), "detail": self.detail });
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, "application/problem+json")
            .header(header::CACHE_CONTROL, "no-store");
        if let Some(seconds) = self.retry_after {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        respond(response.body(Body::from(body.to_string())))
    }
}

fn respond(built: Result<Response<Body>, axum::http::Error>) -> Response<Body> {
    built.expect("headers are made of our own text and of configuration that was checked")
}

#[cfg(test)]
mod tests;
