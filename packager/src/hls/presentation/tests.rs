//! Whole streams in virtual time: a scripted publisher, and rules that hold after every Item.

use std::collections::HashMap;

use bytes::Bytes;
use media_core::{
    Parameters, Track, TrackKind,
    codec::{aac, h264},
    timestamp::Timescale,
};

use super::*;
use crate::hls::playlist::{Lookup, Position};

/// ffmpeg 5.1.9, `testsrc=s=640x360:r=30`, libx264 zerolatency: the avcC box.
const RECORD: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];

fn video_track() -> Arc<Track> {
    let parameters = h264::Parameters { frame_rate: None, ..h264::Parameters::parse(Bytes::from_static(RECORD)).unwrap() };
    Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::new(90_000).unwrap(), parameters: Parameters::H264(parameters) })
}

fn audio_track(rate: u32) -> Arc<Track> {
    let parameters = aac::Parameters { sample_rate: rate, ..aac::Parameters::parse(Bytes::from_static(&[0x11, 0x90])).unwrap() };
    Arc::new(Track { id: TrackId::AUDIO, timescale: Timescale::new(rate).unwrap(), parameters: Parameters::Aac(parameters) })
}

fn sample(track: &Arc<Track>, dts: Timestamp, pts: Timestamp, keyframe: bool) -> Sample {
    Sample {
        track: Arc::clone(track),
        pts: pts.to(track.timescale),
        dts: dts.to(track.timescale),
        duration: None,
        keyframe,
        payload: Bytes::from_static(b"0123"),
        received: Instant::now(),
    }
}

/// A publisher as RTMP shows it, its timestamps in whole milliseconds.
#[derive(Clone)]
struct Publisher {
    fps: f64,
    /// Seconds at which keyframes come.
    keys: fn(f64) -> bool,
    /// Milliseconds that pictures are shown after they are decoded: B-frames.
    lead_ms: i64,
    video: Option<Arc<Track>>,
    audio: Option<Arc<Track>>,
    /// Seconds without audio frames.
    silent: std::ops::Range<f64>,
    /// When audio begins, in seconds.
    audio_from: f64,
}

fn every(seconds: f64, at: f64) -> bool {
    let n = (at / seconds).round();
    (at - n * seconds).abs() < 0.008
}

fn publisher() -> Publisher {
    Publisher {
        fps: 30.0,
        keys: |at| every(2.0, at),
        lead_ms: 0,
        video: Some(video_track()),
        audio: Some(audio_track(48_000)),
        silent: 0.0..0.0,
        audio_from: 0.0,
    }
}

impl Publisher {
    /// What it sends from `from` to `to` seconds of its life, in the order of decode times.
    fn items(&self, from: f64, to: f64) -> Vec<(i64, Item)> {
        let mut items = Vec::new();
        let within = |at: f64| at >= from && at < to;
        if let Some(track) = &self.video {
            for n in 0..(to * self.fps) as i64 + 1 {
                let at = n as f64 / self.fps;
                if within(at) {
                    let ms = (at * 1000.0).round() as i64;
                    let (dts, pts) = (Timestamp::from_millis(ms), Timestamp::from_millis(ms + self.lead_ms));
                    items.push((ms * 1000, Item::Sample(Arc::new(sample(track, dts, pts, (self.keys)(at))))));
                }
            }
        }
        if let Some(track) = &self.audio {
            let rate = f64::from(track.timescale.ticks_per_second());
            for n in 0..(to * rate / 1024.0) as i64 + 1 {
                let at = n as f64 * 1024.0 / rate;
                if within(at) && at >= self.audio_from && !self.silent.contains(&at) {
                    let pts = Timestamp::new(n * 1024, track.timescale) + Timestamp::from_millis(self.lead_ms);
                    let sample = Sample { duration: Some(1024), ..sample(track, pts, pts, true) };
                    items.push(((at * 1e6) as i64, Item::Sample(Arc::new(sample))));
                }
            }
        }
        items.sort_by_key(|item| item.0);
        items
    }
}

/// A presentation under test, its clock, and what was seen of it.
struct Run {
    presentation: Presentation,
    start: Instant,
    now_us: i64,
    /// Address and duration of every Part and segment ever listed.
    listed: HashMap<String, String>,
    hints: HashMap<&'static str, String>,
    last_msn: HashMap<&'static str, u64>,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            presentation: Presentation::new(Settings::default()),
            start: Instant::now(),
            now_us: 0,
            listed: HashMap::new(),
            hints: HashMap::new(),
            last_msn: HashMap::new(),
        };
        run.give(Item::Join { epoch: 1, received: run.start });
        run
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us as u64)
    }

    fn give(&mut self, item: Item) -> Verdict {
        let item = match item {
            Item::Sample(sample) => Item::Sample(Arc::new(Sample { received: self.now(), ..(*sample).clone() })),
            other => other,
        };
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_micros(self.now_us as u64);
        let verdict = self.presentation.handle(&item, wall);
        if self.presentation.poll_timeout().is_some_and(|at| at <= self.now()) {
            self.presentation.handle_timeout(self.now());
        }
        self.check();
        verdict
    }

    /// A publisher's life from `from` to `to` seconds, in real time.
    fn publish(&mut self, publisher: &Publisher, from: f64, to: f64) {
        let begin_us = self.now_us - (from * 1e6) as i64;
        for (us, item) in publisher.items(from, to) {
            self.now_us = self.now_us.max(begin_us + us);
            assert_eq!(self.give(item), Verdict::Fine);
        }
    }

    fn pause(&mut self, seconds: f64) {
        self.now_us += (seconds * 1e6) as i64;
    }

    fn text(&mut self, kind: TrackKind) -> String {
        let rendition = self.presentation.renditions().iter().find(|r| r.kind == kind).expect("the rendition exists");
        String::from_utf8(rendition.rendered().plain().to_vec()).unwrap()
    }

    fn has(&mut self, kind: TrackKind) -> bool {
        self.presentation.renditions().iter().any(|r| r.kind == kind && r.is_playable())
    }

    /// What must hold at every moment, on every rendition.
    fn check(&mut self) {
        let Some(state) = self.presentation.timeline().cloned() else { return };
        let mut dates: HashMap<u64, f64> = HashMap::new();
        let texts: Vec<_> = self
            .presentation
            .renditions()
            .iter_mut()
            .filter_map(|r| r.take_news().1.then(|| (r.kind.as_str(), r.rendered().plain(), r.rendered().edge, r.shelf.clone())))
            .collect();
        for (kind, text, edge, shelf) in texts {
            let text = std::str::from_utf8(&text).unwrap();
            let (mut msn, mut parts_us, mut date, mut gap) = (0, 0.0, 0.0, false);
            assert!(text.contains(&format!("#EXT-X-TARGETDURATION:{}\n", state.target_duration)));
            for line in text.lines() {
                let (tag, value) = line.split_once(':').unwrap_or((line, ""));
                match tag {
                    "#EXT-X-MEDIA-SEQUENCE" => {
                        msn = value.parse().unwrap();
                        assert!(*self.last_msn.get(kind).unwrap_or(&0) <= msn, "numbers never go back");
                        self.last_msn.insert(kind, msn);
                    }
                    "#EXT-X-PROGRAM-DATE-TIME" => {
                        date = chrono::DateTime::parse_from_rfc3339(value).unwrap().timestamp_millis() as f64 / 1000.0;
                        let other = *dates.entry(msn).or_insert(date);
                        assert!((other - date).abs() < 0.55, "{kind} {msn} starts {:.3} s apart", date - other);
                    }
                    "#EXT-X-GAP" => gap = true,
                    "#EXT-X-PART" => {
                        let duration: f64 = value.strip_prefix("DURATION=").unwrap().split(',').next().unwrap().parse().unwrap();
                        assert!(duration <= f64::from(state.part_target_ms) / 1000.0 + 1e-4, "{line}");
                        parts_us += duration;
                        let uri = line.split('"').nth(1).unwrap().to_owned();
                        let known = self.listed.entry(uri).or_insert_with(|| line.to_owned());
                        assert_eq!(known, line, "what is published never changes");
                    }
                    "#EXTINF" => {
                        let duration: f64 = value.trim_end_matches(',').parse().unwrap();
                        assert!(duration.round() <= f64::from(state.target_duration), "{kind} {msn}: {line}");
                        assert!(
                            parts_us == 0.0 || (parts_us - duration).abs() < 0.001,
                            "{kind} {msn}: parts make {parts_us}, {line}"
                        );
                        let known = self.listed.entry(format!("{kind} {msn}")).or_insert_with(|| line.to_owned());
                        assert_eq!(known, line, "what is published never changes");
                        assert!(
                            gap || parts_us > 0.0 || text.contains("#EXT-X-SKIP") || msn + 2 < edge.open_msn,
                            "a gap says so"
                        );
                        (parts_us, gap) = (0.0, false);
                        msn += 1;
                    }
                    "#EXT-X-PRELOAD-HINT" => {
                        let hint = line.split('"').nth(1).unwrap().to_owned();
                        if let Some(before) = self.hints.insert(kind, hint.clone())
                            && before != hint
                        {
                            // After a burst its line may have left at once; it can be fetched all the same.
                            let mut steps = before.rsplit(['/', '-', '.']);
                            let (_, number, _, epoch) = (steps.next(), steps.next(), steps.next(), steps.next());
                            let part = (epoch.unwrap().parse().unwrap(), number.unwrap().parse().unwrap());
                            let there = self.listed.contains_key(&before) || shelf.read().part(part.0, part.1).is_some();
                            assert!(there, "{before} was hinted and never came");
                        }
                    }
                    _ => {}
                }
            }
            assert_eq!(msn, edge.open_msn, "{kind}: numbers have no gap");
            assert_eq!(
                edge.lookup(Position { msn, part: Some(edge.open_parts) }),
                if edge.ended { Lookup::Ready } else { Lookup::Pending }
            );
            let _ = date;
        }
    }
}

fn discontinuities(text: &str) -> usize {
    text.matches("#EXT-X-DISCONTINUITY\n").count()
}

#[test]
fn every_regular_source_keeps_the_rules() {
    let ntsc = 30_000.0 / 1001.0;
    let cases = [
        publisher(),
        Publisher { fps: 25.0, ..publisher() },
        Publisher { fps: ntsc, keys: |at| every(250.0 * 1001.0 / 30_000.0, at), ..publisher() },
        Publisher { fps: 60.0, lead_ms: 33, ..publisher() },
        Publisher { keys: |at| every(2.0, at) || [0.3, 1.9, 2.9].iter().any(|k| (at - k).abs() < 0.01), ..publisher() },
        Publisher { keys: |at| every(1.0 / 30.0, at), ..publisher() },
        Publisher { audio: None, ..publisher() },
        Publisher { audio: Some(audio_track(44_100)), ..publisher() },
        Publisher { keys: |at| at == 0.0, ..publisher() },
    ];
    for (n, source) in cases.iter().enumerate() {
        let mut run = Run::new();
        run.publish(source, 0.0, 60.0);
        let text = run.text(TrackKind::Video);
        assert!(text.matches("#EXTINF").count() >= 3, "case {n}: {text}");
        assert_eq!(discontinuities(&text), 0);
        assert_eq!(run.has(TrackKind::Audio), source.audio.is_some());
    }
}

#[test]
fn audio_alone_is_a_presentation() {
    let mut run = Run::new();
    run.publish(&Publisher { video: None, ..publisher() }, 0.0, 30.0);
    assert!(!run.has(TrackKind::Video));
    assert!(run.text(TrackKind::Audio).contains("#EXTINF:1.920000"), "whole Parts: {}", run.text(TrackKind::Audio));
    assert!(run.presentation.offer().unwrap().videos.is_empty());
}

#[test]
fn a_known_interval_plays_within_a_second() {
    let mut run = Run::new();
    run.presentation = Presentation::new(Settings { keyframe_interval: Some(Duration::from_secs(2)), ..Settings::default() });
    run.give(Item::Join { epoch: 1, received: run.start });
    run.publish(&publisher(), 0.0, 0.4);
    assert!(run.presentation.multivariant().is_some(), "after 0.4 s");
}

#[test]
fn an_unknown_interval_plays_when_it_is_known() {
    let mut run = Run::new();
    run.publish(&publisher(), 0.0, 1.99);
    assert!(run.presentation.multivariant().is_none());
    run.publish(&publisher(), 1.99, 2.3);
    assert!(run.presentation.multivariant().is_some(), "a Part after the second keyframe");
    let mut run = Run::new();
    run.publish(&Publisher { keys: |at| at == 0.0, ..publisher() }, 0.0, 2.6);
    assert!(run.presentation.multivariant().is_some(), "after 2.5 s at the latest");
    assert_eq!(run.presentation.timeline().unwrap().target_duration, 10);
}

#[test]
fn a_publisher_that_returns_continues() {
    for gap in [0.5, 5.0, 30.0] {
        let mut run = Run::new();
        run.publish(&publisher(), 0.0, 9.3);
        run.give(Item::Leave);
        let before = run.presentation.timeline().unwrap().clone();
        run.pause(gap);
        run.give(Item::Join { epoch: 2, received: run.now() });
        run.publish(&publisher(), 0.0, 9.0);
        let after = run.presentation.timeline().unwrap();
        assert_eq!((after.target_duration, after.part_target_ms), (before.target_duration, before.part_target_ms));
        assert_eq!(after.discontinuities, 1);
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert_eq!(discontinuities(&run.text(kind)), 1, "{}", run.text(kind));
        }
        run.presentation.end();
        run.check();
        assert!(run.text(TrackKind::Video).ends_with("#EXT-X-ENDLIST\n"));
        assert!(run.text(TrackKind::Audio).ends_with("#EXT-X-ENDLIST\n"));
    }
}

#[test]
fn a_publisher_that_returns_without_video_begins_anew() {
    let mut run = Run::new();
    run.publish(&publisher(), 0.0, 5.0);
    run.give(Item::Leave);
    run.give(Item::Join { epoch: 2, received: run.now() });
    let begin_us = run.now_us;
    let verdict = Publisher { video: None, ..publisher() }.items(0.0, 1.0).into_iter().find_map(|(us, item)| {
        run.now_us = begin_us + us;
        (run.give(item) == Verdict::Replace).then_some(us)
    });
    assert!((450_000..600_000).contains(&verdict.unwrap()), "{verdict:?}");
    assert!(run.presentation.take_held().len() > 10, "what was held goes on there");
}

#[test]
fn audio_that_comes_late_is_added() {
    let mut run = Run::new();
    let late = Publisher { audio_from: 5.0, ..publisher() };
    run.publish(&late, 0.0, 4.9);
    assert!(run.presentation.offer().unwrap().audio.is_none());
    run.publish(&late, 4.9, 12.0);
    assert!(run.presentation.offer().unwrap().audio.is_some());
    assert!(run.text(TrackKind::Audio).matches("#EXTINF").count() >= 3);
}

#[test]
fn video_that_comes_late_leads() {
    let mut run = Run::new();
    run.publish(&Publisher { video: None, ..publisher() }, 0.0, 5.0);
    run.publish(&publisher(), 5.0, 15.0);
    let offer = run.presentation.offer().unwrap();
    assert!(!offer.videos.is_empty() && offer.audio.is_some());
    assert!(run.text(TrackKind::Video).matches("#EXTINF").count() >= 4);
}

#[test]
fn audio_that_pauses_leaves_gaps_and_returns() {
    let mut run = Run::new();
    run.publish(&Publisher { silent: 6.0..13.0, ..publisher() }, 0.0, 20.0);
    let audio = run.text(TrackKind::Audio);
    assert!(audio.contains("#EXT-X-GAP"), "{audio}");
    let last = run.presentation.renditions().iter().map(|r| r.rendered().edge.open_msn).collect::<Vec<_>>();
    assert_eq!(last[0], last[1], "both are at the edge again");
}

#[test]
fn a_pause_of_the_picture_costs_a_bounded_number_of_gaps() {
    for (pause, breaks) in [(30.0, 0), (59.0, 0), (200.0, 1), (7200.0, 1)] {
        let mut run = Run::new();
        run.publish(&publisher(), 0.0, 6.0);
        let before = run.presentation.timeline().unwrap().next_msn;
        run.publish(&Publisher { video: None, ..publisher() }, 6.0, 6.0 + pause);
        run.publish(&publisher(), 6.0 + pause, 18.0 + pause);
        let cuts = run.presentation.timeline().unwrap().next_msn - before;
        assert!(cuts < 64, "{cuts} segments after {pause} s");
        assert_eq!(run.presentation.timeline().unwrap().discontinuities, breaks, "{pause}");
        assert_eq!(discontinuities(&run.text(TrackKind::Audio)), breaks as usize, "{pause}");
    }
}

#[test]
fn a_publisher_that_returns_in_the_middle_of_a_gop_is_waited_for() {
    let mut run = Run::new();
    run.publish(&publisher(), 0.0, 5.0);
    run.give(Item::Leave);
    run.give(Item::Join { epoch: 2, received: run.now() });
    // The next keyframe is 1.5 s away.
    run.publish(&publisher(), 0.5, 8.0);
    assert_eq!(run.presentation.timeline().unwrap().discontinuities, 1);
}

#[test]
fn new_parameters_come_behind_a_discontinuity() {
    let mut run = Run::new();
    run.publish(&publisher(), 0.0, 5.0);
    let media_core::Parameters::H264(p) = video_track().parameters.clone() else { unreachable!() };
    let mut record = p.record.to_vec();
    record[3] = 0x28; // another level
    let parameters = media_core::Parameters::H264(media_core::codec::h264::Parameters { record: record.into(), ..p });
    let other = Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::new(90_000).unwrap(), parameters });
    run.publish(&Publisher { video: Some(other), ..publisher() }, 5.0, 12.0);
    let video = run.text(TrackKind::Video);
    assert_eq!(discontinuities(&video), 1, "{video}");
    assert!(video.contains("init-2.mp4"));
    assert_eq!(discontinuities(&run.text(TrackKind::Audio)), 1);
}

#[test]
fn a_publisher_without_keyframes_costs_a_bounded_queue() {
    let mut run = Run::new();
    run.publish(&Publisher { keys: |_| false, audio: None, ..publisher() }, 0.0, 120.0);
    assert!(run.presentation.queue.len() <= QUEUE_SAMPLES_MAX);
    assert!(run.presentation.losses().queue_full > 1000);
}

#[test]
fn hours_change_nothing() {
    let mut run = Run::new();
    let source = Publisher { audio: Some(audio_track(44_100)), ..publisher() };
    // Four hours of media time in jumps: a publisher every ten minutes.
    for hour_part in 0..24_u64 {
        run.give(Item::Join { epoch: hour_part + 2, received: run.now() });
        run.publish(&source, 0.0, 8.0);
        run.give(Item::Leave);
        run.pause(592.0);
    }
    assert_eq!(run.presentation.timeline().unwrap().discontinuities, 23);
    assert!(run.text(TrackKind::Video).len() < 8000);
}
