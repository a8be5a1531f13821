//! Reads what the packager wrote, as a player does: media playlists, line by line, and fMP4.
//!
//! It panics at anything that rfc8216bis does not allow, or that a packager of ours never says.

use std::collections::HashMap;

use mp4_atom::{Any, DecodeMaybe};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Media {
    pub target_duration: i64,
    pub part_target_us: i64,
    pub hold_back_us: i64,
    pub skip_until_us: i64,
    pub media_sequence: u64,
    pub discontinuity_sequence: u64,
    pub skipped: u64,
    /// The open segment, if any, is last and has no address.
    pub segments: Vec<Segment>,
    pub hint: Option<String>,
    pub reports: Vec<(String, u64, Option<u64>)>,
    pub ended: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    pub msn: u64,
    pub discontinuity: bool,
    /// In force.
    pub map: String,
    pub date: String,
    pub gap: bool,
    pub duration_us: i64,
    pub uri: Option<String>,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub uri: String,
    pub duration_us: i64,
    pub independent: bool,
    pub gap: bool,
}

impl Media {
    pub fn read(text: &str) -> Self {
        let mut media = Self::default();
        let (mut segment, mut map) = (Segment::default(), String::new());
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#EXTM3U"));
        for line in lines {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-VERSION" => assert_eq!(value, "9"),
                "#EXT-X-TARGETDURATION" => media.target_duration = value.parse().unwrap(),
                "#EXT-X-SERVER-CONTROL" => {
                    let a = attributes(value);
                    assert_eq!(a["CAN-BLOCK-RELOAD"], "YES");
                    media.hold_back_us = micros(&a["PART-HOLD-BACK"]);
                    media.skip_until_us = micros(&a["CAN-SKIP-UNTIL"]);
                }
                "#EXT-X-PART-INF" => media.part_target_us = micros(&attributes(value)["PART-TARGET"]),
                "#EXT-X-MEDIA-SEQUENCE" => media.media_sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => media.discontinuity_sequence = value.parse().unwrap(),
                "#EXT-X-SKIP" => {
                    assert!(media.segments.is_empty());
                    media.skipped = attributes(value)["SKIPPED-SEGMENTS"].parse().unwrap();
                }
                "#EXT-X-DISCONTINUITY" => segment.discontinuity = true,
                "#EXT-X-MAP" => map = attributes(value)["URI"].clone(),
                "#EXT-X-PROGRAM-DATE-TIME" => segment.date = value.to_owned(),
                "#EXT-X-GAP" => segment.gap = true,
                "#EXT-X-PART" => segment.parts.push(Part::read(value)),
                "#EXTINF" => segment.duration_us = micros(value.strip_suffix(',').unwrap()),
                "#EXT-X-ENDLIST" => media.ended = true,
                "#EXT-X-PRELOAD-HINT" => {
                    let a = attributes(value);
                    assert_eq!((a["TYPE"].as_str(), a.len()), ("PART", 2));
                    assert!(media.hint.replace(a["URI"].clone()).is_none(), "one hint");
                }
                "#EXT-X-RENDITION-REPORT" => {
                    let a = attributes(value);
                    let part = a.get("LAST-PART").map(|part| part.parse().unwrap());
                    media.reports.push((a["URI"].clone(), a["LAST-MSN"].parse().unwrap(), part));
                }
                uri => {
                    assert!(!uri.starts_with('#') && !uri.is_empty(), "an unknown line: {line}");
                    segment.uri = Some(uri.to_owned());
                    media.push(std::mem::take(&mut segment), &map);
                }
            }
        }
        if !segment.parts.is_empty() {
            media.push(segment, &map);
        }
        media
    }

    fn push(&mut self, segment: Segment, map: &str) {
        let msn = self.media_sequence + self.skipped + self.segments.len() as u64;
        self.segments.push(Segment { msn, map: map.to_owned(), ..segment });
    }

    /// What is closed.
    pub fn listed_us(&self) -> i64 {
        self.segments.iter().map(|segment| segment.duration_us).sum()
    }

    pub fn segment(&self, msn: u64) -> &Segment {
        self.segments.iter().find(|segment| segment.msn == msn).unwrap_or_else(|| panic!("{msn} is not listed"))
    }

    /// The rules a single playlist must keep.
    pub fn check(&self) {
        assert_eq!(self.hold_back_us, 3 * self.part_target_us);
        assert_eq!(self.skip_until_us, 6 * self.target_duration * 1_000_000);
        assert_eq!(self.hint.is_none(), self.ended);
        let mut from_end_us = self.listed_us() + self.segments.last().map_or(0, Segment::open_us);
        for segment in &self.segments {
            let msn = segment.msn;
            from_end_us -= segment.duration_us + segment.open_us();
            assert!((segment.gap || !segment.map.is_empty()) && !segment.date.is_empty(), "{msn}");
            let rounded = (segment.duration_us + 500_000) / 1_000_000;
            assert!(rounded <= self.target_duration, "{msn}: EXTINF {} over {} s", segment.duration_us, self.target_duration);
            for part in &segment.parts {
                assert!(part.duration_us <= self.part_target_us, "{msn}: {part:?} over {}", self.part_target_us);
            }
            assert!(segment.gap || segment.parts.iter().all(|part| !part.gap), "{msn}: it lacks a Part");
            if segment.gap && segment.parts.is_empty() {
                continue;
            }
            assert!(!segment.gap || segment.parts.last().is_some_and(|part| part.gap), "{msn}: of a gap something is missing");
            let beyond_us = from_end_us - 3 * self.target_duration * 1_000_000;
            // Written durations are rounded.
            let listed = if beyond_us.abs() < 100 { !segment.parts.is_empty() } else { beyond_us < 0 };
            assert_eq!(!segment.parts.is_empty(), listed, "{msn}: Parts of the last three target durations");
            if listed && segment.uri.is_some() {
                let parts_us: i64 = segment.parts.iter().map(|part| part.duration_us).sum();
                let rounding_us = 10 * (segment.parts.len() as i64 + 1);
                assert!((parts_us - segment.duration_us).abs() <= rounding_us, "{msn}: {parts_us} of {}", segment.duration_us);
            }
        }
    }

    /// PROGRAM-DATE-TIME goes on as EXTINF says; where the source paused, it may be later.
    pub fn check_dates(&self) {
        for pair in self.segments.windows(2).filter(|pair| !pair[1].discontinuity) {
            let [date_us, next_us] = [&pair[0], &pair[1]]
                .map(|segment| chrono::DateTime::parse_from_rfc3339(&segment.date).expect("a date").timestamp_micros());
            let early_us = date_us + pair[0].duration_us - next_us;
            assert!(early_us <= 100_000, "{}: dated {early_us} us too early", pair[1].msn);
        }
    }

    /// m3u8-rs agrees on all that it models.
    pub fn check_against_m3u8_rs(&self, text: &str) {
        let other = m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap();
        assert_eq!(other.target_duration, self.target_duration as u64);
        assert_eq!((other.version, other.media_sequence), (Some(9), self.media_sequence));
        assert_eq!((other.discontinuity_sequence, other.end_list), (self.discontinuity_sequence, self.ended));
        let closed: Vec<_> = self.segments.iter().filter(|segment| segment.uri.is_some()).collect();
        assert_eq!(other.segments.iter().filter(|segment| !segment.uri.is_empty()).count(), closed.len());
        for (ours, theirs) in closed.into_iter().zip(&other.segments) {
            assert_eq!(ours.uri.as_ref(), Some(&theirs.uri));
            assert_eq!(ours.discontinuity, theirs.discontinuity);
            assert!((f64::from(theirs.duration) - ours.duration_us as f64 / 1e6).abs() < 1e-4);
            assert!(theirs.program_date_time.is_some());
            assert!(theirs.map.as_ref().is_none_or(|map| map.uri == ours.map));
            assert_eq!(theirs.unknown_tags.iter().any(|tag| tag.tag == "X-GAP"), ours.gap);
        }
    }
}

impl Segment {
    fn open_us(&self) -> i64 {
        if self.uri.is_some() { 0 } else { self.parts.iter().map(|part| part.duration_us).sum() }
    }
}

impl Part {
    fn read(value: &str) -> Self {
        let a = attributes(value);
        Self {
            uri: a["URI"].clone(),
            duration_us: micros(&a["DURATION"]),
            independent: a.get("INDEPENDENT").is_some_and(|v| v == "YES"),
            gap: a.get("GAP").is_some_and(|v| v == "YES"),
        }
    }
}

/// None of ours holds a comma in quotes.
fn attributes(list: &str) -> HashMap<String, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    };
    list.split(',').map(pair).collect()
}

fn micros(seconds: &str) -> i64 {
    (seconds.parse::<f64>().unwrap() * 1e6).round() as i64
}

/// One `moof`: decode time of the first sample in ticks, and all samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Fragment {
    pub begin: i64,
    pub samples: Vec<Placed>,
}

/// A sample as fMP4 places it, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub dts: i64,
    pub pts: i64,
    pub duration: i64,
    pub sync: bool,
}

impl Fragment {
    pub fn read(mut bytes: &[u8]) -> Self {
        let Ok(Some(Any::Moof(moof))) = Any::decode_maybe(&mut bytes) else { panic!("a Part begins with moof") };
        let traf = &moof.traf[0];
        let begin = traf.tfdt.as_ref().unwrap().base_media_decode_time as i64;
        let mut dts = begin;
        let placed = traf.trun[0].samples.iter().map(|entry| {
            let duration = i64::from(entry.duration.unwrap());
            dts += duration;
            let at = dts - duration;
            Placed { dts: at, pts: at + entry.cts.unwrap(), duration, sync: entry.flags.unwrap() & 0x0001_0000 == 0 }
        });
        Self { begin, samples: placed.collect() }
    }

    pub fn end(&self) -> i64 {
        self.samples.last().map_or(self.begin, |last| last.dts + last.duration)
    }

    /// The first picture or sound shown.
    pub fn first_pts(&self) -> i64 {
        self.samples.iter().map(|sample| sample.pts).min().unwrap_or(self.begin)
    }
}
