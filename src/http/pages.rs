//! The web pages that are built into the program, and the router over everything.
//!
//! Pages are asked for anew each time and confirmed by their tag; what they load has its hash in
//! its name and is kept for ever.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use media_core::StreamName;

use super::{
    health::{self, Health},
    problem,
};
use crate::metrics;

/// One file under `web/dist`.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// Of its content.
    tag: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

/// Sorted by path. Written by build.rs.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/web.rs"));

/// Files with a hash in their name.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Kept, but confirmed at each use.
const CONFIRM: &str = "no-cache";

#[derive(Clone)]
struct Shared {
    health: Health,
    registry: prometheus::Registry,
}

/// Pages, health and metrics around the packager's playlists and media.
pub fn router(health: Health, registry: prometheus::Registry, media: Router) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/watch/{stream}", get(watch))
        .route("/studio", get(studio))
        .route("/assets/{*path}", get(asset))
        .route("/healthz", get(async || health::alive()))
        .route("/readyz", get(async |State(shared): State<Shared>| shared.health.ready()))
        .route("/metrics", get(scrape))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(Shared { health, registry })
        // After that line: media has its own answers to other methods, for the sake of other origins.
        .merge(media)
        .fallback(problem::not_found)
}

async fn index(headers: HeaderMap) -> Response {
    page("index.html", StatusCode::OK, &headers)
}

async fn watch(Path(stream): Path<String>, headers: HeaderMap) -> Response {
    match StreamName::parse(&stream) {
        Ok(_) => page("watch.html", StatusCode::OK, &headers),
        Err(_) => no_such_stream(),
    }
}

async fn studio(headers: HeaderMap) -> Response {
    page("studio.html", StatusCode::OK, &headers)
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match find(&format!("assets/{path}")) {
        Some(asset) => serve(asset, StatusCode::OK, FOREVER, &headers),
        None => problem::not_found().await,
    }
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match metrics::render(&shared.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")], text).into_response(),
        Err(e) => {
            tracing::error!("metrics cannot be rendered: {e}");
            problem::response(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be rendered")
        }
    }
}

fn find(path: &str) -> Option<&'static Asset> {
    let at = ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok()?;
    ASSETS.get(at)
}

fn page(path: &str, status: StatusCode, headers: &HeaderMap) -> Response {
    match find(path) {
        Some(asset) => serve(asset, status, CONFIRM, headers),
        None => text_page(StatusCode::OK, NOT_BUILT),
    }
}

fn no_such_stream() -> Response {
    text_page(StatusCode::NOT_FOUND, NO_SUCH_STREAM)
}

fn text_page(status: StatusCode, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    guarded((status, headers, text).into_response())
}

fn serve(asset: &'static Asset, status: StatusCode, cache: &'static str, asked: &HeaderMap) -> Response {
    let gzip = asset.gzip.filter(|_| takes_gzip(asked));
    let tag = if gzip.is_some() { format!("\"{}-gzip\"", asset.tag) } else { format!("\"{}\"", asset.tag) };
    let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|value| names_tag(value, &tag));
    let mut response = if known && status == StatusCode::OK {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = (status, Body::from(Bytes::from_static(gzip.unwrap_or(asset.plain)))).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        if gzip.is_some() {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    guarded(response)
}

/// A browser takes our word for the type, and tells other sites nothing of a stream's address.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Whether gzip is among the codings taken, and not with a weight of 0 (RFC 9110 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|q| q > 0.0)
    })
}

/// Whether an If-None-Match list names the tag; weakly, as RFC 9110 13.1.2 has it.
fn names_tag(value: &HeaderValue, tag: &str) -> bool {
    let Ok(list) = value.to_str() else { return false };
    list.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>
<title>CodeCast</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em}</style>
<h1>The pages are not in this build</h1>
<p>CodeCast runs, and streams play at <code>/live/NAME/index.m3u8</code>, but this program was built without its web pages.
<p>To build them, run this where its source is, then build the program again:
<pre>npm --prefix web ci
npm --prefix web run build
cargo build</pre>
<p><code>make run</code> does all of it.
";

const NO_SUCH_STREAM: &str = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>
<title>No such stream - CodeCast</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em}</style>
<h1>No stream can have this name</h1>
<p>A name has 1 to 64 letters, digits, '-' or '_'. Is the address complete?
<p><a href='/'>See what is live</a>
";

#[cfg(test)]
mod tests {
    use super::*;

    static ASSET: Asset = Asset { path: "x.html", content_type: "text/html", tag: "0123", plain: b"plain", gzip: Some(b"small") };

    fn asked(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn assets_are_found_by_their_path() {
        assert!(ASSETS.is_sorted_by_key(|asset| asset.path));
        for asset in ASSETS {
            assert_eq!(find(asset.path).map(|found| found.tag), Some(asset.tag));
        }
        assert!(find("assets/../../etc/passwd").is_none());
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        let check = |value: &'static str, taken: bool| {
            assert_eq!(takes_gzip(&asked(&[(header::ACCEPT_ENCODING, value)])), taken, "{value}");
        };
        check("gzip", true);
        check("gzip, deflate, br, zstd", true);
        check("br;q=1.0, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("gzip; q=0.0", false);
        check("br", false);
        check("", false);
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_known_page_is_confirmed_without_its_body() {
        let check = |headers: &[(header::HeaderName, &'static str)], status: u16, tag: &str| {
            let response = serve(&ASSET, StatusCode::OK, CONFIRM, &asked(headers));
            assert_eq!(response.status().as_u16(), status, "{headers:?}");
            assert_eq!(response.headers()[header::ETAG], tag);
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
        };
        check(&[], 200, "\"0123\"");
        check(&[(header::IF_NONE_MATCH, "\"0123\"")], 304, "\"0123\"");
        check(&[(header::IF_NONE_MATCH, "\"9\", W/\"0123\"")], 304, "\"0123\"");
        check(&[(header::IF_NONE_MATCH, "\"0123\""), (header::ACCEPT_ENCODING, "gzip")], 200, "\"0123-gzip\"");
        check(&[(header::IF_NONE_MATCH, "\"0123-gzip\""), (header::ACCEPT_ENCODING, "gzip")], 304, "\"0123-gzip\"");
    }
}
