//! Playlists, Parts and segments over HTTP: what is asked for is looked up, waited for where the
//! draft says so, and answered with shared bytes.
//!
//! ```text
//! /live.json                                   what is live
//! /live/<stream>/index.m3u8                    multivariant playlist; index-N.m3u8: of a picture that is apart
//! /live/<stream>/status.json                   live, away or offline
//! /live/<stream>/advice.json                   what its streamer could set better
//! /live/<stream>/thumbnail.jpg                 what it looks like
//! /live/<stream>/<rendition>.m3u8              media playlist (_HLS_msn, _HLS_part, _HLS_skip)
//! /live/<stream>/<rendition>/<epoch>/<file>    part-N.m4s, segment-N.m4s, init-N.mp4
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use media_core::{StreamName, TrackId, stream::Thumbnail};
use prometheus::IntGauge;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{
    body::Buffers,
    directives::{Directives, parse_file},
    front::{Front, Live, Shown, State as LiveState, THUMBNAIL},
    metrics::Asked,
    multivariant::{Audio, INDEX, Offer},
    pipeline::Inner,
    playlist::{Lookup, Position, Rendered},
    rendition,
};

/// Share of a target duration that a request may be held for while nothing is published: hls.js
/// aborts after 0.8, and takes an error worse than an unchanged playlist.
const HOLD_SHARE: f64 = 0.75;
/// How long the multivariant playlist of a stream that has just begun is waited for: longer than
/// any stream takes to become playable.
const START_WAIT: Duration = Duration::from_secs(4);
/// A rung so far behind its source is being started: it is waited for.
const BEHIND_MAX: Duration = Duration::from_secs(2);
/// Until so few Parts are missing: what players keep as their distance to the edge anyway.
const NEAR_PARTS: u32 = 3;
/// How long the first thumbnail of a stream is waited for: a program starts, and decodes a keyframe.
const THUMBNAIL_WAIT: Duration = Duration::from_secs(4);
/// And a newer one than that of some time ago.
const NEWER_THUMBNAIL_WAIT: Duration = Duration::from_secs(2);
/// Media never changes under its address.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// A playlist that was waited for holds what its address names; a shared cache may give it to all. A browser may not: video.js
/// asks for the last Part of a segment again until the next segment is listed, and would be told the same for as long.
const AWAITED: &str = "public, max-age=0, s-maxage=1";
/// The next thumbnail is some seconds away.
const BRIEFLY: &str = "public, max-age=2";
const REVALIDATE: &str = "no-cache";
const NO_STORE: &str = "no-store";
const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
/// How long a browser may remember what other origins may do.
const PREFLIGHT_SECONDS: &str = "86400";

type Shared = State<Arc<Inner>>;

pub fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/live.json", get(list))
        .route("/live/{stream}/status.json", get(status))
        .route("/live/{stream}/advice.json", get(advice))
        .route("/live/{stream}/thumbnail.jpg", get(thumbnail))
        .route("/live/{stream}/{playlist}", get(playlist))
        .route("/live/{stream}/{rendition}/{epoch}/{file}", get(media))
        .layer(middleware::from_fn(cross_origin))
        .with_state(inner)
}

/// Any page may play any stream: everything here is public and carries no credentials.
async fn cross_origin(request: Request, next: Next) -> Response<Body> {
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("range, if-none-match, if-modified-since, cache-control"),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("content-length, content-range, date, etag, last-modified, retry-after"),
    );
    response
}

async fn list(State(inner): Shared) -> Response<Body> {
    let mut streams: Vec<_> = inner
        .streams
        .iter()
        .filter_map(|live| {
            let front = live.front.borrow().clone();
            (front.state != LiveState::Offline && front.multivariant.is_some()).then(|| describe(&inner, &live.name, &front))
        })
        .collect();
    streams.sort_by(|a, b| a["stream"].as_str().cmp(&b["stream"].as_str()));
    finish(&inner, Asked::Status, document(json!({ "streams": streams, "now": millis(SystemTime::now()) })))
}

async fn status(State(inner): Shared, Path(stream): Path<String>) -> Response<Body> {
    let Ok(name) = StreamName::parse(&stream) else { return finish(&inner, Asked::Status, bad_name()) };
    let mut body = match find(&inner, &name) {
        Some(live) => describe(&inner, &live.name, &live.front.borrow()),
        // An unknown name is not repeated: it may be a key in the wrong place.
        None => json!({ "state": "offline" }),
    };
    body["now"] = millis(SystemTime::now()).into();
    finish(&inner, Asked::Status, document(body))
}

/// For the streamer. It tells of the encoder, and of no person or key.
async fn advice(State(inner): Shared, Path(stream): Path<String>) -> Response<Body> {
    let response = match live(&inner, &stream) {
        Err(problem) => *problem,
        Ok(live) => {
            let advice = Arc::clone(&live.advice.borrow());
            document(json!({ "stream": live.name.as_str(), "advice": &*advice, "now": millis(SystemTime::now()) }))
        }
    };
    finish(&inner, Asked::Advice, response)
}

async fn thumbnail(State(inner): Shared, Path(stream): Path<String>, headers: HeaderMap) -> Response<Body> {
    let response = match live(&inner, &stream) {
        Err(problem) => *problem,
        Ok(live) if !has_thumbnails(&inner, &live.front.borrow()) => {
            problem(StatusCode::NOT_FOUND, "there are no thumbnails of this stream")
        }
        Ok(live) => match newest_thumbnail(&inner, &live).await {
            Some(thumbnail) => jpeg(&thumbnail, &headers),
            None => not_yet("no thumbnail of this stream can be made now", "5"),
        },
    };
    finish(&inner, Asked::Thumbnail, response)
}

/// As far as is known.
fn has_thumbnails(inner: &Inner, front: &Front) -> bool {
    inner.config.thumbnails && front.offer.as_ref().is_none_or(|offer| !offer.videos.is_empty())
}

/// The last one where none comes.
async fn newest_thumbnail(inner: &Inner, live: &Live) -> Option<Thumbnail> {
    let mut shown = live.thumbnail.subscribe();
    live.asked.ask(THUMBNAIL, Instant::now().into_std());
    let known = shown.borrow_and_update().clone();
    if known.current || live.front.borrow().state != LiveState::Live {
        return known.newest;
    }
    let wait = if known.newest.is_some() { NEWER_THUMBNAIL_WAIT } else { THUMBNAIL_WAIT };
    let _held = Held::new(&inner.metrics.held_requests);
    match timeout_at(Instant::now() + wait, shown.wait_for(|shown| shown.current)).await {
        Ok(Ok(shown)) => shown.newest.clone(),
        _ => known.newest,
    }
}

fn jpeg(thumbnail: &Thumbnail, headers: &HeaderMap) -> Response<Body> {
    let etag = format!("\"{:x}\"", millis(thumbnail.wall));
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| DateTime::parse_from_rfc2822(value.to_str().ok()?).ok());
    let modified = DateTime::<Utc>::from(thumbnail.wall).trunc_subsecs(0);
    let builder = Response::builder()
        .header(header::CACHE_CONTROL, BRIEFLY)
        .header(header::ETAG, &etag)
        .header(header::LAST_MODIFIED, modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .header(header::CONTENT_TYPE, "image/jpeg");
    // RFC 9110 13.2.2: who tells a tag is not asked for a date.
    let known = match headers.contains_key(header::IF_NONE_MATCH) {
        true => has_etag(headers, &etag),
        false => since.is_some_and(|since| modified <= since),
    };
    if known {
        return respond(builder.status(StatusCode::NOT_MODIFIED).body(Body::empty()));
    }
    respond(builder.header(header::CONTENT_LENGTH, thumbnail.jpeg.len()).body(Body::from(thumbnail.jpeg.clone())))
}

fn describe(inner: &Inner, name: &StreamName, front: &Front) -> serde_json::Value {
    let state = match front.state {
        LiveState::Live => "live",
        LiveState::Away => "away",
        LiveState::Offline => "offline",
    };
    let since: DateTime<Utc> = front.since.into();
    let offer = front.offer.as_ref();
    let video = offer.and_then(|offer| offer.videos.first());
    // Those of before a restart of the server, until they are back: for a player nothing has changed.
    let before = front.resumed.filter(|_| offer.is_none()).unwrap_or_default();
    let has_video = before.video || video.is_some();
    let has_audio = before.audio || offer.is_some_and(|offer| offer.audio.is_some());
    json!({
        "stream": name.as_str(),
        "state": state,
        "since": since.to_rfc3339_opts(SecondsFormat::Millis, true),
        "presentation": front.presentation.to_string(),
        "playable": front.multivariant.is_some(),
        "video": has_video,
        "audio": has_audio,
        "thumbnail": has_video && has_thumbnails(inner, front),
        "tracks": format!("{}{}", if has_video { "v" } else { "" }, if has_audio { "a" } else { "" }),
        "width": video.map(|video| video.width),
        "height": video.map(|video| video.height),
        "pictures": offer.map(pictures).unwrap_or_default(),
        "sounds": offer.map(sounds).unwrap_or_default(),
    })
}

/// The picture, and those beside it that show something else: nothing else tells of them.
fn pictures(offer: &Offer) -> Vec<serde_json::Value> {
    let all = offer.videos.first().into_iter().chain(&offer.apart);
    all.map(|video| json!({ "playlist": video.index(), "width": video.width, "height": video.height })).collect()
}

fn sounds(offer: &Offer) -> Vec<serde_json::Value> {
    let told = |audio: &Audio| json!({ "name": audio.name, "playlist": audio.uri, "codec": audio.codec });
    offer.audios().map(told).collect()
}

async fn playlist(
    State(inner): Shared,
    Path((stream, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let is_index = file == INDEX || (file.starts_with("index-") && file.ends_with(".m3u8"));
    let asked = if is_index { Asked::Multivariant } else { Asked::Playlist };
    let response = match (live(&inner, &stream), file.as_str()) {
        (Err(problem), _) => *problem,
        (Ok(live), file) if is_index => multivariant(&inner, &live, file, &headers).await,
        (Ok(live), file) => match rendition::by_name(file).filter(|_| file.ends_with(".m3u8")) {
            Some(id) => media_playlist(&inner, &live, id, query.as_deref(), &headers).await,
            None => no_such_playlist(),
        },
    };
    finish(&inner, asked, response)
}

fn no_such_playlist() -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "there is no such playlist: begin with index.m3u8")
}

async fn multivariant(inner: &Inner, live: &Live, name: &str, headers: &HeaderMap) -> Response<Body> {
    let mut front = live.front.subscribe();
    let _held = Held::new(&inner.metrics.held_requests);
    let ready = timeout_at(
        Instant::now() + START_WAIT,
        front.wait_for(|front| front.multivariant.is_some() || (front.state != LiveState::Live && !front.is_coming_back())),
    );
    let found = ready.await.ok().and_then(Result::ok).and_then(|front| front.multivariant.clone());
    let Some(multivariant) = found else { return not_playable(live) };
    let Some(found) = multivariant.find(name) else { return no_such_playlist() };
    let gzip = accepts_gzip(headers);
    let body = if gzip { found.gzip() } else { found.plain() };
    text(body, gzip, REVALIDATE, None, headers)
}

async fn media_playlist(inner: &Inner, live: &Live, id: TrackId, query: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    let directives = match Directives::parse(query.unwrap_or_default()) {
        Ok(directives) => directives,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, detail),
    };
    // Who follows the source's live edge finds the rescue at once when the line gives out.
    let follows = id == TrackId::VIDEO && directives.position.is_some();
    if let Some(rung) = id.rung_number().or_else(|| live.front.borrow().rescue.filter(|_| follows)) {
        live.asked.ask(rung, Instant::now().into_std());
    }
    let until = Instant::now() + hold_max(live.front.borrow().target_duration);
    let Some(shown) = await_shown(inner, live, id, until).await else { return not_playable(live) };
    if id.is_rung() {
        let patience = if directives.position.is_some() { until } else { Instant::now() + START_WAIT };
        await_warm(inner, live, &shown, patience).await;
    }
    let (rendered, awaited) = match directives.position {
        None => (shown.rendered.borrow().clone(), false),
        Some(position) => match hold(inner, &shown, position, until).await {
            Some(found) => found,
            None => return problem(StatusCode::BAD_REQUEST, "that part is too far in the future to wait for"),
        },
    };
    let gzip = accepts_gzip(headers);
    let body = match (directives.skip, gzip) {
        (false, false) => rendered.plain(),
        (false, true) => rendered.gzip(),
        (true, false) => rendered.delta(),
        (true, true) => rendered.delta_gzip(),
    };
    let etag = if directives.skip { None } else { Some(rendered.etag.as_str()) };
    text(body, gzip, if awaited { AWAITED } else { REVALIDATE }, etag, headers)
}

/// What comes back after a restart of the server is waited for, as a silent publisher is, until it can be played.
async fn await_shown(inner: &Inner, live: &Live, id: TrackId, until: Instant) -> Option<Arc<Shown>> {
    let mut front = live.front.subscribe();
    let _held = Held::new(&inner.metrics.held_requests);
    let ready = timeout_at(until, front.wait_for(|front| !front.is_coming_back()));
    ready.await.ok()?.ok()?.shown(id).cloned()
}

/// A rung that is cold has been asked for just now. Players take a playlist that comes a moment later better than one
/// of gaps, or one whose edge runs away from them while what was missed is made.
async fn await_warm(inner: &Inner, live: &Live, shown: &Shown, until: Instant) {
    let (lead, part_target) = {
        let front = live.front.borrow();
        let Some(lead) = front.shown(TrackId::VIDEO).cloned().filter(|_| front.state == LiveState::Live) else { return };
        (lead, front.part_target)
    };
    let mut rendered = shown.rendered.subscribe();
    let behind = |rung: &Rendered| {
        let made = rung.edge.newest().is_some_and(|newest| newest.part.is_some());
        if made { (lead.rendered.borrow().end - rung.end).to_duration() } else { Duration::MAX }
    };
    if behind(&rendered.borrow_and_update()) <= BEHIND_MAX {
        return;
    }
    let _held = Held::new(&inner.metrics.held_requests);
    let near = part_target * NEAR_PARTS;
    // In vain: the playlist of gaps is an answer, too.
    let _ = timeout_at(until, rendered.wait_for(|rung| behind(rung) <= near)).await;
}

/// Waits until the playlist holds `position`, but not for a silent publisher. `None`: too far
/// ahead. The flag tells whether the answer holds what was asked for.
async fn hold(inner: &Inner, shown: &Shown, position: Position, until: Instant) -> Option<(Arc<Rendered>, bool)> {
    let mut rendered = shown.rendered.subscribe();
    let now = rendered.borrow_and_update().clone();
    match now.edge.lookup(position) {
        Lookup::TooFar => return None,
        Lookup::Ready => return Some((now, !shown.rendered.borrow().edge.ended)),
        Lookup::Pending => {}
    }
    let _held = Held::new(&inner.metrics.held_requests);
    let ready = timeout_at(until, rendered.wait_for(|r| r.edge.lookup(position) == Lookup::Ready)).await;
    match ready {
        Ok(Ok(found)) => Some((Arc::clone(&found), true)),
        _ => Some((shown.rendered.borrow().clone(), false)),
    }
}

fn hold_max(target_duration: u32) -> Duration {
    Duration::from_secs_f64(f64::from(target_duration) * HOLD_SHARE)
}

async fn media(
    State(inner): Shared,
    Path((stream, rendition, epoch, file)): Path<(String, String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let Some((asked, number)) = parse_file(&file) else {
        return finish(&inner, Asked::Part, problem(StatusCode::NOT_FOUND, "there is no such file"));
    };
    let Some(id) = rendition::by_name(&rendition).filter(|_| !rendition.ends_with(".m3u8")) else {
        return finish(&inner, asked, problem(StatusCode::NOT_FOUND, "there is no such rendition"));
    };
    let response = match (live(&inner, &stream), epoch.parse()) {
        (Err(problem), _) => *problem,
        (Ok(_), Err(_)) => problem(StatusCode::NOT_FOUND, "there is no such file"),
        (Ok(live), Ok(epoch)) => match fetch(&inner, &live, id, asked, epoch, number).await {
            Some(buffers) => send(buffers, id, &format!("\"{epoch:x}-{file}\""), &method, &headers),
            None => problem(StatusCode::NOT_FOUND, "it is not published, or no longer kept"),
        },
    };
    finish(&inner, asked, response)
}

async fn fetch(inner: &Inner, live: &Live, id: TrackId, asked: Asked, epoch: u64, number: u64) -> Option<Buffers> {
    let (shown, target_duration) = {
        let front = live.front.borrow();
        (front.shown(id).cloned()?, front.target_duration)
    };
    match asked {
        Asked::Init => shown.shelf.read().init(epoch, number).map(|bytes| Buffers::new(vec![bytes])),
        Asked::Segment => shown.shelf.read().segment(epoch, number).map(Buffers::new),
        _ => {
            let part = match find_part(&shown, epoch, number) {
                Some(part) => Some(part),
                None => await_hinted(inner, &shown, epoch, number, target_duration).await,
            };
            part.map(|bytes| Buffers::new(vec![bytes]))
        }
    }
}

fn find_part(shown: &Shown, epoch: u64, number: u64) -> Option<Bytes> {
    shown.shelf.read().part(epoch, number)
}

/// The Part that the preload hint names is answered when it is complete.
async fn await_hinted(inner: &Inner, shown: &Shown, epoch: u64, number: u64, target_duration: u32) -> Option<Bytes> {
    let mut rendered = shown.rendered.subscribe();
    {
        let now = rendered.borrow_and_update();
        if now.hint != (epoch, number) || now.edge.ended {
            drop(now);
            // It may have been published since the first look.
            return find_part(shown, epoch, number);
        }
    }
    let _held = Held::new(&inner.metrics.held_requests);
    let until = Instant::now() + hold_max(target_duration);
    timeout_at(until, rendered.wait_for(|r| r.hint != (epoch, number) || r.edge.ended)).await.ok()?.ok()?;
    find_part(shown, epoch, number)
}

/// Media, whole or in one range, or word that the viewer has it.
fn send(buffers: Buffers, id: TrackId, etag: &str, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let total = buffers.len();
    let builder = Response::builder()
        .header(header::CACHE_CONTROL, IMMUTABLE)
        .header(header::ETAG, etag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, if id.is_picture() { "video/mp4" } else { "audio/mp4" });
    if has_etag(headers, etag) {
        return respond(builder.status(StatusCode::NOT_MODIFIED).body(Body::empty()));
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).filter(|_| method == Method::GET);
    match range.map(|range| parse_range(range, total)) {
        Some(Range::Unsatisfiable) => respond(
            builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{total}"))
                .body(Body::empty()),
        ),
        Some(Range::Bytes(start, end)) => respond(
            builder
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", end - 1))
                .header(header::CONTENT_LENGTH, end - start)
                .body(buffers.slice(start, end).into_body()),
        ),
        Some(Range::Whole) | None => respond(builder.header(header::CONTENT_LENGTH, total).body(buffers.into_body())),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From here to before there.
    Bytes(u64, u64),
    /// Several ranges, or another unit: the whole is a right answer (RFC 9110 14.2).
    Whole,
    Unsatisfiable,
}

fn parse_range(value: &str, total: u64) -> Range {
    let Some(range) = value.strip_prefix("bytes=").filter(|range| !range.contains(',')) else { return Range::Whole };
    let Some((start, end)) = range.split_once('-') else { return Range::Whole };
    let (start, end) = match (start.trim().parse::<u64>(), end.trim().parse::<u64>()) {
        (Ok(start), Ok(end)) if start > end => return Range::Whole,
        (Ok(start), Ok(end)) => (start, end.saturating_add(1).min(total)),
        (Ok(start), Err(_)) if end.trim().is_empty() => (start, total),
        (Err(_), Ok(last)) if start.trim().is_empty() => (total.saturating_sub(last), total),
        _ => return Range::Whole,
    };
    if start >= end { Range::Unsatisfiable } else { Range::Bytes(start, end) }
}

fn text(body: Bytes, gzip: bool, cache_control: &'static str, etag: Option<&str>, headers: &HeaderMap) -> Response<Body> {
    let mut builder = Response::builder()
        .header(header::CONTENT_TYPE, PLAYLIST_TYPE)
        .header(header::CACHE_CONTROL, cache_control)
        .header(header::VARY, "accept-encoding");
    // One tag a representation: the compressed bytes are not the plain ones.
    let etag = etag.map(|etag| if gzip { format!("{}z\"", &etag[..etag.len() - 1]) } else { etag.to_owned() });
    if let Some(etag) = &etag {
        builder = builder.header(header::ETAG, etag);
        if has_etag(headers, etag) {
            return respond(builder.status(StatusCode::NOT_MODIFIED).body(Body::empty()));
        }
    }
    if gzip {
        builder = builder.header(header::CONTENT_ENCODING, "gzip");
    }
    respond(builder.header(header::CONTENT_LENGTH, body.len()).body(Body::from(body)))
}

fn has_etag(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse::<f32>() == Ok(0.0));
        matches!(name.trim(), "gzip" | "*") && !refused
    })
}

fn document(body: serde_json::Value) -> Response<Body> {
    ([(header::CACHE_CONTROL, NO_STORE)], Json(body)).into_response()
}

fn find(inner: &Inner, name: &StreamName) -> Option<Arc<Live>> {
    inner.streams.get(name).map(|live| Arc::clone(live.value()))
}

fn live(inner: &Inner, stream: &str) -> Result<Arc<Live>, Box<Response<Body>>> {
    let name = StreamName::parse(stream).map_err(|_| Box::new(bad_name()))?;
    find(inner, &name).ok_or_else(|| Box::new(not_live()))
}

/// Neither repeats what was asked for: it may be a stream key in the wrong place, and answers are logged and shared.
fn bad_name() -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "that is no stream name: 1 to 64 letters, digits, '-' or '_'")
}

fn not_live() -> Response<Body> {
    let mut response = problem(StatusCode::NOT_FOUND, "there is no live stream of this name");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// Not at all, or not yet again: players try again after a 503, and give up after a 404.
fn not_playable(live: &Live) -> Response<Body> {
    if !live.front.borrow().is_coming_back() {
        return not_live();
    }
    not_yet("the server has restarted, and the publisher of this stream is not back yet", "1")
}

fn not_yet(detail: &str, retry_after: &'static str) -> Response<Body> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after));
    response
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
    respond(
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/problem+json")
            .header(header::CACHE_CONTROL, NO_STORE)
            .body(Body::from(body.to_string())),
    )
}

fn respond(built: Result<Response<Body>, axum::http::Error>) -> Response<Body> {
    built.expect("headers made of our own text are valid")
}

fn finish(inner: &Inner, asked: Asked, response: Response<Body>) -> Response<Body> {
    inner.metrics.answered(asked, response.status().as_u16());
    response
}

fn millis(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Counts a request while it waits, however it ends.
struct Held<'a>(&'a IntGauge);

impl<'a> Held<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let check = |value, expected| assert_eq!(parse_range(value, 100), expected, "{value}");
        check("bytes=0-9", Range::Bytes(0, 10));
        check("bytes=90-", Range::Bytes(90, 100));
        check("bytes=-10", Range::Bytes(90, 100));
        check("bytes=0-999", Range::Bytes(0, 100));
        check("bytes=-999", Range::Bytes(0, 100));
        check("bytes=100-", Range::Unsatisfiable);
        check("bytes=-0", Range::Unsatisfiable);
        check("bytes=0-1,5-6", Range::Whole);
        check("lines=0-1", Range::Whole);
        check("bytes=9-1", Range::Whole);
        check("bytes=x-y", Range::Whole);
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let check = |value: &'static str, expected| {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1.0, gzip;q=0.8", true);
        check("gzip;q=0", false);
        check("identity", false);
        check("*", true);
    }
}
