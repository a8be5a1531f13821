//! What viewers are answered over HTTP, on a clock that the test moves.

use std::{
    io::Read,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use media_core::{
    Announcement, Publication, Registry, Stream, StreamKey, StreamName,
    registry::Acquire,
    stream::{Made, Thumbnail},
};
use packager::hls::{Config, Packager};
use tokio::{task::JoinHandle, time::Instant};
use tower::ServiceExt;

use crate::{
    reader::{Fragment, Media},
    script::{Audio, Keys, Publisher, Video},
};

/// A packager, the registry that feeds it, and when the test began.
pub struct Site {
    pub packager: Packager,
    pub registry: Arc<Registry>,
    pub start: Instant,
    router: Router,
}

pub struct Answer {
    pub status: StatusCode,
    headers: HeaderMap,
    pub body: Bytes,
    /// Since the test began.
    pub at: Duration,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn media(&self) -> Media {
        assert_eq!(self.status, 200);
        Media::read(self.text())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// RFC 9457, and in no cache.
    pub fn is_problem(&self, status: u16) -> bool {
        self.status == status
            && self.header("content-type") == "application/problem+json"
            && self.header("cache-control") == "no-store"
            && self.json()["status"] == status
    }
}

impl Site {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let config = Config { keyframe_interval: Some(Duration::from_secs(2)), ..config };
        let packager = Packager::new(config, &prometheus::Registry::new()).unwrap();
        let adopter = packager.clone();
        let registry = Arc::new_cyclic(|registry: &Weak<Registry>| {
            let registry = registry.clone();
            let adopt = move |stream: Arc<Stream>| adopter.adopt(&stream, registry.clone());
            Registry::new(SystemTime::now(), 8, adopt)
        });
        Self { router: packager.router(), packager, registry, start: Instant::now() }
    }

    pub fn now_us(&self) -> i64 {
        self.start.elapsed().as_micros() as i64
    }

    pub fn publish(&self, stream: &str) -> Publication {
        let name = StreamName::parse(stream).unwrap();
        match self.registry.acquire(&name, &StreamKey::new("key"), None, Instant::now().into_std()) {
            Acquire::Granted(publication) => publication,
            other => panic!("{other:?}"),
        }
    }

    /// Sends, at the publisher's pace, what the script says up to `until_ms` of its life.
    pub async fn play(&self, publication: &Publication, publisher: &Publisher, until_ms: i64) {
        let announcement =
            Announcement { video: publisher.video.is_some(), audio: publisher.audio.is_some(), ..Announcement::default() };
        publication.announce(announcement).unwrap();
        let from_us = self.now_us();
        for (at_us, mut sample) in publisher.samples(self.start.into_std(), from_us, from_us + until_ms * 1000) {
            tokio::time::sleep_until(self.start + Duration::from_micros(at_us as u64)).await;
            sample.received = Instant::now().into_std();
            publication.publish(sample).unwrap();
        }
        settle().await;
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.asking(method, path, headers).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }

    /// A request that may be held.
    fn asking(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> JoinHandle<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (router, start) = (self.router.clone(), self.start);
        tokio::spawn(async move {
            let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Answer { status, headers, body, at: start.elapsed() }
        })
    }

    pub fn holding(&self, path: &str) -> JoinHandle<Answer> {
        self.asking(Method::GET, path, &[])
    }
}

/// Lets every task do what is left to do, without moving the clock.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

pub fn both() -> Publisher {
    Publisher { video: Some(Video::new(30, 1, Keys::Every(60))), audio: Some(Audio::new(48_000, 2)), clock_us: 0 }
}

/// The site with a stream that has run for so long, and its publication.
async fn running(ms: i64) -> (Site, Publication) {
    let site = Site::new();
    let publication = site.publish("demo");
    site.play(&publication, &both(), ms).await;
    (site, publication)
}

/// What comes behind the first 5,010 ms of `both`: pictures, without a keyframe.
fn more() -> Publisher {
    Publisher { video: Some(Video::new(30, 1, Keys::Never)), audio: None, clock_us: 5_033_334 }
}

fn place(msn: u64, part: usize) -> String {
    format!("/live/demo/video.m3u8?_HLS_msn={msn}&_HLS_part={part}")
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_how_long_it_keeps() {
    let (site, _publication) = running(5_100).await;
    let media = site.get("/live/demo/video.m3u8").await.media();
    let newest = media.segments.last().unwrap();
    let check = async |path: &str, keeps: &str, kind: &str| {
        let answer = site.get(&format!("/live/demo/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, keeps), "{path}");
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        answer
    };
    let (playlist, forever) = ("application/vnd.apple.mpegurl", "public, max-age=31536000, immutable");
    check("index.m3u8", "no-cache", playlist).await;
    check("video.m3u8", "no-cache", playlist).await;
    check("audio.m3u8", "no-cache", playlist).await;
    check(&format!("video.m3u8?_HLS_msn={}", newest.msn - 1), "public, max-age=0, s-maxage=1", playlist).await;
    check(&newest.map, forever, "video/mp4").await;
    check(&newest.parts[0].uri, forever, "video/mp4").await;
    let status = check("status.json", "no-store", "application/json").await.json();
    assert_eq!(status["pictures"], serde_json::json!([{ "playlist": "index.m3u8", "width": 360, "height": 360 }]));
    assert_eq!(status["sounds"], serde_json::json!([{ "name": "Sound", "playlist": "audio.m3u8", "codec": "mp4a.40.2" }]));
    assert_eq!(site.get("/live/demo/index-2.m3u8").await.status, 404);
    // A segment is its Parts.
    let whole = media.segments.iter().rev().find(|segment| segment.uri.is_some()).unwrap();
    let bytes = check(whole.uri.as_ref().unwrap(), forever, "video/mp4").await.body;
    let mut parts = Vec::new();
    for part in &whole.parts {
        parts.extend(check(&part.uri, forever, "video/mp4").await.body);
    }
    assert_eq!(bytes, parts);
    let audio = site.get("/live/demo/audio.m3u8").await.media();
    check(&audio.segments.last().unwrap().parts[0].uri, forever, "audio/mp4").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_viewer_has_is_not_sent_again() {
    let (site, publication) = running(5_100).await;
    let part = site.get("/live/demo/video.m3u8").await.media().segments.last().unwrap().parts[0].uri.clone();
    for path in ["/live/demo/video.m3u8".to_owned(), format!("/live/demo/{part}")] {
        let first = site.get(&path).await;
        let tag = first.header("etag");
        assert!(tag.starts_with('"') && tag.len() > 3, "{path}: {tag}");
        for known in [tag, &format!("\"other\", W/{tag}"), "*"] {
            let again = site.ask(Method::GET, &path, &[("if-none-match", known)]).await;
            assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path} {known}");
            assert_eq!((again.header("etag"), again.header("cache-control")), (tag, first.header("cache-control")));
        }
        let other = site.ask(Method::GET, &path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!((other.status.as_u16(), other.body), (200, first.body.clone()), "{path}");
        let head = site.ask(Method::HEAD, &path, &[]).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), first.body.len().to_string(), "{path}");
    }
    let before = site.get("/live/demo/video.m3u8").await;
    site.play(&publication, &Publisher { clock_us: 5_100_000, ..both() }, 300).await;
    let known = [("if-none-match", before.header("etag"))];
    assert_eq!(site.ask(Method::GET, "/live/demo/video.m3u8", &known).await.status, 200, "there is a new Part");
}

#[tokio::test(start_paused = true)]
async fn playlists_are_compressed_for_those_who_take_it() {
    let (site, _publication) = running(30_100).await;
    for path in ["index.m3u8", "video.m3u8", "video.m3u8?_HLS_skip=YES"] {
        let path = format!("/live/demo/{path}");
        let plain = site.get(&path).await;
        let packed = site.ask(Method::GET, &path, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!((plain.header("vary"), packed.header("vary")), ("accept-encoding", "accept-encoding"), "{path}");
        assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"), "{path}");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).unwrap();
        assert_eq!(plain.body, text, "{path}");
        assert!(packed.body.len() < plain.body.len() || plain.body.len() < 400, "{path}");
        if !plain.header("etag").is_empty() {
            assert_ne!(plain.header("etag"), packed.header("etag"), "{path}: other bytes, another tag");
        }
    }
    let delta = site.get("/live/demo/video.m3u8?_HLS_skip=YES").await.media();
    let full = site.get("/live/demo/video.m3u8").await.media();
    assert!(delta.skipped > 0);
    assert_eq!(delta.segments.first().unwrap().msn, full.segments[delta.skipped as usize].msn);
}

#[tokio::test(start_paused = true)]
async fn media_is_sent_in_ranges() {
    let (site, _publication) = running(5_100).await;
    let media = site.get("/live/demo/video.m3u8").await.media();
    let whole = media.segments.iter().rev().find(|segment| segment.uri.is_some()).unwrap();
    let path = format!("/live/demo/{}", whole.uri.as_ref().unwrap());
    let all = site.get(&path).await.body;
    let total = all.len();
    let check = async |range: &str, status: u16, start: usize, end: usize| {
        let answer = site.ask(Method::GET, &path, &[("range", range)]).await;
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.body, all[start..end], "{range}");
        let expected = match status {
            206 => format!("bytes {start}-{}/{total}", end - 1),
            416 => format!("bytes */{total}"),
            _ => String::new(),
        };
        assert_eq!(answer.header("content-range"), expected, "{range}");
        assert_eq!(answer.header("accept-ranges"), "bytes");
    };
    check("bytes=0-0", 206, 0, 1).await;
    check("bytes=100-1999", 206, 100, 2000.min(total)).await; // over the border of Parts
    check("bytes=100-", 206, 100, total).await;
    check("bytes=-7", 206, total - 7, total).await;
    check(&format!("bytes={total}-"), 416, 0, 0).await;
    check("bytes=0-1,3-4", 200, 0, total).await;
    check("pages=1-2", 200, 0, total).await;
}

#[tokio::test(start_paused = true)]
async fn any_page_may_play() {
    let (site, _publication) = running(1_000).await;
    let answer = site.ask(Method::OPTIONS, "/live/demo/video.m3u8", &[("origin", "https://example.org")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, "*"));
    assert!(answer.header("access-control-allow-methods").contains("GET"));
    assert!(answer.header("access-control-allow-headers").contains("range"));
    assert!(!answer.header("access-control-max-age").is_empty());
    let missing = site.get("/live/nobody/video.m3u8").await;
    assert_eq!(missing.header("access-control-allow-origin"), "*", "an error is readable as well");
    assert_eq!(site.ask(Method::POST, "/live/demo/video.m3u8", &[]).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_is_refused_at_once() {
    let (site, _publication) = running(5_100).await;
    let media = site.get("/live/demo/video.m3u8").await.media();
    let (msn, parts) = (media.segments.last().unwrap().msn, media.segments.last().unwrap().parts.len());
    let before = site.start.elapsed();
    for query in [
        "_HLS_part=0".to_owned(),
        "_HLS_msn=".to_owned(),
        "_HLS_msn=x".to_owned(),
        "_HLS_msn=-1".to_owned(),
        "_HLS_msn=18446744073709551616".to_owned(),
        "_HLS_msn=18446744073709551615".to_owned(),
        format!("_HLS_msn={msn}&_HLS_part=y"),
        format!("_HLS_msn={msn}&_HLS_part={}", parts + 15),
        format!("_HLS_msn={msn}&_HLS_part=4294967295"),
        format!("_HLS_msn={}", msn + 3),
        format!("_HLS_msn={}&_HLS_part=0", msn + 3),
    ] {
        assert!(site.get(&format!("/live/demo/video.m3u8?{query}")).await.is_problem(400), "{query}");
    }
    for path in [
        "/live/nobody/index.m3u8",
        "/live/nobody/video.m3u8",
        "/live/nobody/video/1/part-0.m4s",
        "/live/demo/other.m3u8",
        "/live/demo/video/1/part-0.m4s",
        "/live/demo/video/x/part-0.m4s",
        "/live/demo/video/1/part-x.m4s",
        "/live/demo/video/1/part-0.mp4",
        "/live/demo/text/1/part-0.m4s",
        "/live/a%20b/index.m3u8",
    ] {
        assert!(site.get(path).await.is_problem(404), "{path}");
    }
    assert!(!site.get("/live/nobody/index.m3u8").await.header("retry-after").is_empty());
    assert_eq!(site.start.elapsed(), before, "nobody waited");
}

#[tokio::test(start_paused = true)]
async fn a_blocking_reload_is_answered_by_its_part() {
    let (site, publication) = running(5_010).await;
    let media = site.get("/live/demo/video.m3u8").await.media();
    let open = media.segments.last().unwrap();
    assert_eq!(open.parts.len(), 5, "five whole Parts of the third segment");
    let held: Vec<_> = (0..3).map(|n| site.holding(&place(open.msn, 5 + n))).collect();
    let hinted = site.holding(&format!("/live/demo/{}", media.hint.unwrap()));
    settle().await;
    assert!(held.iter().all(|request| !request.is_finished()) && !hinted.is_finished());
    let mut last = site.start.elapsed();
    site.play(&publication, &more(), 1_000).await;
    for (n, request) in held.into_iter().enumerate() {
        let answer = request.await.unwrap();
        assert_eq!(answer.media().segments.last().unwrap().parts.len(), 6 + n, "the playlist of that very Part");
        assert_eq!(answer.header("cache-control"), "public, max-age=0, s-maxage=1");
        let waited = answer.at - last;
        assert!(waited <= Duration::from_millis(202), "{waited:?}");
        last = answer.at;
    }
    let hinted = hinted.await.unwrap();
    assert_eq!(hinted.status, 200);
    assert!(!Fragment::read(&hinted.body).samples.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_waited_for_whole() {
    let (site, publication) = running(5_010).await;
    let msn = site.get("/live/demo/video.m3u8").await.media().segments.last().unwrap().msn;
    let held = site.holding(&format!("/live/demo/video.m3u8?_HLS_msn={msn}"));
    site.play(&publication, &more(), 500).await;
    assert!(!held.is_finished());
    let cut = site.start.elapsed();
    site.play(&publication, &Publisher { clock_us: 5_533_334, ..both() }, 500).await;
    let answer = held.await.unwrap();
    assert!(answer.media().segment(msn).uri.is_some());
    assert_eq!(answer.header("cache-control"), "public, max-age=0, s-maxage=1");
    assert!(answer.at - cut < Duration::from_millis(2), "with the keyframe that closes it, not with a Part after it");
}

#[tokio::test(start_paused = true)]
async fn silence_is_answered_before_players_give_up() {
    let (site, _publication) = running(5_010).await;
    let before = site.get("/live/demo/video.m3u8").await;
    let media = before.media();
    let open = media.segments.last().unwrap();
    let asked = site.start.elapsed();
    let held = site.holding(&place(open.msn, open.parts.len()));
    let hinted = site.holding(&format!("/live/demo/{}", media.hint.unwrap()));
    let (held, hinted) = (held.await.unwrap(), hinted.await.unwrap());
    let waited = held.at - asked;
    assert!((1_500..1_510).contains(&waited.as_millis()), "0.75 of a target duration: {waited:?}");
    assert_eq!((held.header("cache-control"), held.header("etag")), ("no-cache", before.header("etag")));
    assert_eq!(held.body, before.body, "the unchanged playlist");
    assert!(hinted.is_problem(404));
    assert!(hinted.at - asked <= Duration::from_millis(1_510));
}

#[tokio::test(start_paused = true)]
async fn a_player_that_is_early_waits_for_the_start() {
    let site = Site::new();
    let publication = site.publish("demo");
    let early = site.holding("/live/demo/index.m3u8");
    settle().await;
    assert!(!early.is_finished());
    assert_eq!(site.get("/live/demo/status.json").await.json()["playable"], false);
    site.play(&publication, &both(), 1_000).await;
    let early = early.await.unwrap();
    assert_eq!(early.status, 200);
    assert!(early.at < Duration::from_millis(500), "{:?}", early.at);
    assert!(early.text().contains("video.m3u8") && early.text().contains("audio.m3u8"));
    // Nothing ever comes.
    let silent = site.publish("silent");
    let asked = site.start.elapsed();
    let answer = site.get("/live/silent/index.m3u8").await;
    assert!(answer.is_problem(404));
    assert_eq!((answer.at - asked).as_secs(), 4);
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_live_then_away_then_offline() {
    let (site, publication) = running(5_010).await;
    let state = async || site.get("/live/demo/status.json").await.json()["state"].as_str().unwrap().to_owned();
    let listed = async || site.get("/live.json").await.json()["streams"].as_array().unwrap().len();
    let status = site.get("/live/demo/status.json").await.json();
    assert_eq!((status["stream"].as_str(), status["tracks"].as_str()), (Some("demo"), Some("va")));
    assert_eq!((status["width"].as_u64(), status["height"].as_u64(), &status["playable"]), (Some(360), Some(360), &true.into()));
    assert_eq!((state().await, listed().await), ("live".to_owned(), 1));
    let presentation = status["presentation"].clone();
    drop(publication);
    settle().await;
    assert_eq!((state().await, listed().await), ("away".to_owned(), 1));
    // It comes back to the same presentation.
    tokio::time::sleep(Duration::from_secs(59)).await;
    let publication = site.publish("demo");
    site.play(&publication, &both(), 3_000).await;
    let status = site.get("/live/demo/status.json").await.json();
    assert_eq!((status["state"].as_str(), &status["presentation"]), (Some("live"), &presentation));
    let media = site.get("/live/demo/video.m3u8").await.media();
    assert_eq!(media.segments.iter().filter(|segment| segment.discontinuity).count(), 1);
    drop(publication);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(state().await, "away");
    assert!(!site.get("/live/demo/video.m3u8").await.media().ended);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!((state().await, listed().await), ("offline".to_owned(), 0));
    assert!(site.get("/live/demo/video.m3u8").await.media().ended, "viewers behind still read to the end");
    // And is forgotten; a later publish is another presentation, beyond the old one's numbers.
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(site.get("/live/demo/video.m3u8").await.is_problem(404));
    assert_eq!(state().await, "offline");
    let publication = site.publish("demo");
    site.play(&publication, &both(), 3_000).await;
    assert_ne!(site.get("/live/demo/status.json").await.json()["presentation"], presentation);
    let again = site.get("/live/demo/video.m3u8").await.media();
    assert!(again.media_sequence > media.segments.last().unwrap().msn);
}

#[tokio::test(start_paused = true)]
async fn a_return_while_the_end_lingers_is_another_presentation() {
    let (site, publication) = running(5_010).await;
    drop(publication);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(site.get("/live/demo/video.m3u8").await.media().ended);
    let publication = site.publish("demo");
    site.play(&publication, &both(), 3_000).await;
    assert!(!site.get("/live/demo/video.m3u8").await.media().ended);
    // The old one's end does not take the new one away.
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(site.get("/live/demo/status.json").await.json()["state"], "live");
    drop(publication);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_every_presentation_and_lets_nobody_wait() {
    let (site, publication) = running(5_010).await;
    let media = site.get("/live/demo/video.m3u8").await.media();
    let open = media.segments.last().unwrap();
    let held = site.holding(&place(open.msn, open.parts.len()));
    let hinted = site.holding(&format!("/live/demo/{}", media.hint.clone().unwrap()));
    settle().await;
    let before = site.start.elapsed();
    site.packager.drain().await;
    let (held, hinted) = (held.await.unwrap(), hinted.await.unwrap());
    assert!(held.media().ended);
    assert!(hinted.status == 200 || hinted.is_problem(404));
    assert_eq!(site.start.elapsed(), before, "nobody waited");
    for query in [place(open.msn + 50, 0), place(open.msn, 900), "/live/demo/video.m3u8?_HLS_msn=1".to_owned()] {
        let answer = site.get(&query).await;
        assert!(answer.media().ended, "{query}: directives mean nothing behind the end");
        assert_eq!(answer.header("cache-control"), "no-cache");
    }
    assert!(site.get("/live/demo/audio.m3u8").await.media().ended);
    assert_eq!(site.get("/live/demo/status.json").await.json()["state"], "offline");
    drop(publication);
}

#[tokio::test(start_paused = true)]
async fn a_streamer_is_advised() {
    let site = Site::new();
    assert!(site.get("/live/demo/advice.json").await.is_problem(404));
    let publication = site.publish("demo");
    let sparse = Publisher { video: Some(Video::new(30, 1, Keys::Every(150))), audio: Some(Audio::new(44_100, 1)), clock_us: 0 };
    site.play(&publication, &sparse, 30_000).await;
    publication.tell_repairs(4).unwrap();
    site.play(&publication, &Publisher { clock_us: 30_000_000, ..sparse }, 3_000).await;
    let answer = site.get("/live/demo/advice.json").await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
    let body = answer.json();
    let advice = body["advice"].as_array().unwrap();
    let find = |code: &str| advice.iter().find(|one| one["code"] == code).unwrap_or_else(|| panic!("no {code}: {body}"));
    assert_eq!(find("keyframe_interval")["severity"], "warning");
    assert!(find("keyframe_interval")["text"].as_str().unwrap().contains("5.0 s apart"), "{body}");
    assert!(find("keyframe_interval")["change"].as_str().unwrap().contains("Keyframe Interval 2 s"));
    assert!(find("sample_rate")["text"].as_str().unwrap().contains("44.1 kHz"));
    assert!(find("timestamps_repaired")["text"].as_str().unwrap().contains("4 timestamps"));
    find("channels_mono");
}

fn thumbnail(stream: &Stream, jpeg: &'static [u8], seconds: u64) {
    stream.push_thumbnail(Thumbnail {
        jpeg: Bytes::from_static(jpeg),
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250),
    });
}

#[tokio::test(start_paused = true)]
async fn a_thumbnail_is_waited_for_and_made_while_somebody_asks() {
    let site = Site::with(Config { thumbnails: true, ..Config::default() });
    let path = "/live/demo/thumbnail.jpg";
    assert!(site.get(path).await.is_problem(404), "there is no such stream");
    let publication = site.publish("demo");
    let stream = site.registry.stream(&StreamName::parse("demo").unwrap()).unwrap();
    site.play(&publication, &both(), 2_100).await;
    assert_eq!(site.get("/live/demo/status.json").await.json()["thumbnail"], true);
    assert!(!stream.is_demanded(Made::Thumbnail), "nobody has asked");

    let now = site.start.elapsed();
    let in_vain = site.get(path).await;
    assert!(in_vain.is_problem(503) && in_vain.header("retry-after") == "5");
    assert_eq!(in_vain.at - now, Duration::from_secs(4), "it is waited for");
    let held = site.holding(path);
    settle().await;
    assert!(stream.is_demanded(Made::Thumbnail) && !held.is_finished());
    thumbnail(&stream, b"first", 1_000_000_000);
    let first = held.await.unwrap();
    assert_eq!((first.status.as_u16(), &first.body[..]), (200, &b"first"[..]));
    assert_eq!((first.header("content-type"), first.header("cache-control")), ("image/jpeg", "public, max-age=2"));
    assert_eq!((first.header("content-length"), first.header("access-control-allow-origin")), ("5", "*"));
    assert_eq!(first.header("last-modified"), "Sun, 09 Sep 2001 01:46:40 GMT");

    thumbnail(&stream, b"second", 1_000_000_005);
    settle().await;
    let now = site.start.elapsed();
    let second = site.get(path).await;
    assert_eq!((&second.body[..], second.at), (&b"second"[..], now), "the newest, at once");
    let head = site.ask(Method::HEAD, path, &[]).await;
    assert_eq!((head.status.as_u16(), head.body.len(), head.header("content-length")), (200, 0, "6"));
    let check = async |name, value: &str, status: u16| {
        let answer = site.ask(Method::GET, path, &[(name, value)]).await;
        assert_eq!((answer.status.as_u16(), answer.body.is_empty()), (status, status == 304), "{name}: {value}");
        assert_eq!(answer.header("etag"), second.header("etag"));
    };
    check("if-none-match", second.header("etag"), 304).await;
    check("if-none-match", first.header("etag"), 200).await;
    check("if-modified-since", second.header("last-modified"), 304).await;
    check("if-modified-since", first.header("last-modified"), 200).await;

    // Nobody asks any more; then somebody does, and gets a newer one.
    tokio::time::sleep(Duration::from_secs(11)).await;
    settle().await;
    assert!(!stream.is_demanded(Made::Thumbnail) && stream.is_done(Made::Thumbnail));
    let held = site.holding(path);
    settle().await;
    assert!(!held.is_finished(), "the one that is there is of some time ago");
    thumbnail(&stream, b"third", 1_000_000_020);
    assert_eq!(&held.await.unwrap().body[..], b"third");

    // What comes of nobody's asking is not taken for what is made now.
    tokio::time::sleep(Duration::from_secs(11)).await;
    thumbnail(&stream, b"fourth", 1_000_000_040);
    settle().await;
    let now = site.start.elapsed();
    let waited = site.get(path).await;
    assert_eq!((&waited.body[..], waited.at - now), (&b"fourth"[..], Duration::from_secs(2)), "better than nothing");

    // The publisher is away: nothing newer can come.
    drop(publication);
    settle().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let now = site.start.elapsed();
    let last = site.get(path).await;
    assert_eq!((&last.body[..], last.at), (&b"fourth"[..], now));
}

#[tokio::test(start_paused = true)]
async fn without_thumbnails_there_are_none() {
    let (site, _publication) = running(2_100).await;
    assert!(site.get("/live/demo/thumbnail.jpg").await.is_problem(404));
    assert_eq!(site.get("/live/demo/status.json").await.json()["thumbnail"], false);
    let site = Site::with(Config { thumbnails: true, ..Config::default() });
    let publication = site.publish("demo");
    site.play(&publication, &Publisher { video: None, ..both() }, 6_100).await;
    assert!(site.get("/live/demo/thumbnail.jpg").await.is_problem(404), "sound looks like nothing");
}
