//! Whole streams in virtual time: a scripted publisher, and rules that hold after every Item.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use media_core::{Announcement, Item, Sample, Timescale, Timestamp, Track, TrackId, codec::h264::FrameRate};
use packager::hls::presentation::{Presentation, Settings, Verdict};

use crate::{
    reader::{Fragment, Media, Part, Segment},
    script::{self, Audio, Keys, Publisher, Video},
};

/// 2027-01-15T08:00:00Z.
const WALL_S: u64 = 1_800_000_000;
/// Equal numbers start within this: a picture or a frame of sound each.
const APART_US: i64 = 50_000;

/// A presentation under test, its clock, and what was seen of it.
pub struct Run {
    pub presentation: Presentation,
    base: Instant,
    pub now_us: i64,
    epoch: u64,
    /// Only every so many renders are read: for long runs.
    every: u64,
    /// Every Part but a segment's last is full.
    pub regular: bool,
    /// Anything may be lost: a segment may be dated before the one before it has ended.
    pub wild: bool,
    /// How far the clock of the pictures is behind that of the sound.
    pub skewed_us: i64,
    /// The longest frame of the sound: it is never cut.
    sound_frame_us: i64,
    constants: Option<(i64, i64)>,
    pub seen: HashMap<TrackId, Seen>,
    /// Discontinuities up to a segment, on whichever rendition.
    discontinuities: HashMap<u64, u64>,
    /// Where the presentation ended before this publisher, and what of it comes to lie there.
    joined_us: i64,
    first_us: Option<i64>,
    /// Of the pictures.
    newest_us: Option<i64>,
    live: bool,
}

/// Of one rendition.
#[derive(Default)]
pub struct Seen {
    renders: u64,
    etag: String,
    media: Media,
    first_msn: u64,
    /// Decode time at which the newest Part ends, in ticks.
    end: i64,
    /// Presentation time of the first picture or sound of each segment.
    pub begins_us: HashMap<u64, i64>,
    /// Segments whose first Part holds a keyframe.
    pub independent: HashSet<u64>,
    independent_parts: u64,
    /// By initialization segment.
    scales: HashMap<String, Timescale>,
}

impl Run {
    fn new() -> Self {
        Self::with(Settings { keyframe_interval: Some(Duration::from_secs(2)), ..Settings::default() })
    }

    pub fn with(settings: Settings) -> Self {
        Self {
            presentation: Presentation::new(settings),
            base: Instant::now(),
            now_us: 0,
            epoch: 0,
            every: 1,
            regular: true,
            wild: false,
            skewed_us: 0,
            sound_frame_us: 0,
            constants: None,
            seen: HashMap::new(),
            discontinuities: HashMap::new(),
            joined_us: 0,
            first_us: None,
            newest_us: None,
            live: false,
        }
    }

    pub fn now(&self) -> Instant {
        self.base + Timestamp::from_micros(self.now_us).to_duration()
    }

    pub fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(WALL_S) + Timestamp::from_micros(self.now_us).to_duration()
    }

    pub fn join(&mut self, publisher: &Publisher) {
        self.epoch += 1;
        self.joined_us = self.presentation.timeline().map_or(0, |state| state.end_us);
        (self.first_us, self.newest_us) = (None, None);
        self.live = true;
        self.give(&Item::Join { epoch: self.epoch, received: self.now() });
        let (video, audio) = (publisher.video.is_some(), publisher.audio.is_some());
        self.give(&Item::Announce(Announcement { video, audio, ..Announcement::default() }));
    }

    pub fn leave(&mut self) {
        self.live = false;
        self.give(&Item::Leave);
    }

    pub fn give(&mut self, item: &Item) -> Verdict {
        if let Item::Sample(sample) = item {
            self.observe(sample);
        }
        let verdict = self.presentation.handle(item, self.wall());
        if self.presentation.poll_timeout().is_some_and(|at| at <= self.now()) {
            self.presentation.handle_timeout(self.now());
        }
        self.check_invariants();
        verdict
    }

    /// Where the newest picture lies in the presentation: its first keyframe, or the first sound where that leads.
    fn observe(&mut self, sample: &Sample) {
        let is_video = sample.track.id.is_picture();
        let leads = is_video || (self.has(TrackId::AUDIO) && !self.has(TrackId::VIDEO));
        if leads && sample.keyframe {
            self.first_us.get_or_insert(if is_video { sample.dts.as_micros() } else { 0 });
        }
        if let Some(first_us) = self.first_us.filter(|_| is_video) {
            let shown_us = self.joined_us + sample.pts.as_micros() - first_us;
            self.newest_us = self.newest_us.max(Some(shown_us));
        }
    }

    fn play(&mut self, publisher: &Publisher, seconds: f64) {
        self.play_with(publisher, seconds, |_, sample| Some(sample));
    }

    /// With what `change` makes of each Sample, given milliseconds of this publisher's life.
    fn play_with(&mut self, publisher: &Publisher, seconds: f64, mut change: impl FnMut(i64, Sample) -> Option<Sample>) {
        if let Some(replaced_ms) = self.try_with(publisher, seconds, &mut change) {
            panic!("replaced after {replaced_ms} ms");
        }
    }

    /// Until the presentation asks to be replaced; answers when.
    fn try_with(
        &mut self,
        publisher: &Publisher,
        seconds: f64,
        change: &mut dyn FnMut(i64, Sample) -> Option<Sample>,
    ) -> Option<i64> {
        self.join(publisher);
        let (from_us, length_us) = (self.now_us, (seconds * 1e6) as i64);
        for (at_us, sample) in publisher.samples(self.base, from_us, from_us + length_us) {
            self.now_us = at_us;
            let at_ms = (at_us - from_us) / 1000;
            let Some(sample) = change(at_ms, sample) else { continue };
            if self.give(&Item::Sample(Arc::new(sample))) == Verdict::Replace {
                return Some(at_ms);
            }
        }
        self.now_us = from_us + length_us;
        None
    }

    /// What the publisher sends from now on, without leaving: `publisher`'s clock is set to its own.
    pub fn go_on(&mut self, publisher: &Publisher, seconds: f64) {
        let (from_us, length_us) = (self.now_us, (seconds * 1e6) as i64);
        let publisher = Publisher { clock_us: from_us, ..publisher.clone() };
        for (at_us, sample) in publisher.samples(self.base, from_us, from_us + length_us) {
            self.now_us = at_us;
            assert_eq!(self.give(&Item::Sample(Arc::new(sample))), Verdict::Fine, "nobody is torn down");
        }
        self.now_us = from_us + length_us;
    }

    pub fn pause(&mut self, seconds: f64) {
        self.now_us += (seconds * 1e6) as i64;
    }

    pub fn has(&self, id: TrackId) -> bool {
        self.seen.contains_key(&id)
    }

    pub fn media(&self, id: TrackId) -> &Media {
        &self.seen[&id].media
    }

    pub fn closed(&self, id: TrackId) -> Vec<&Segment> {
        self.media(id).segments.iter().filter(|segment| segment.uri.is_some() && !segment.gap).collect()
    }

    /// What must hold at every moment, on every rendition.
    fn check_invariants(&mut self) {
        for at in 0..self.presentation.renditions().len() {
            let rendition = &mut self.presentation.renditions()[at];
            let (id, scale) = (rendition.id, rendition.track().timescale);
            if !rendition.is_playable() {
                continue;
            }
            let seen = self.seen.entry(id).or_default();
            let rendered = Arc::clone(rendition.rendered());
            if seen.etag == rendered.etag {
                continue;
            }
            seen.etag.clone_from(&rendered.etag);
            seen.renders += 1;
            if !seen.renders.is_multiple_of(self.every) && !rendered.edge.ended {
                continue;
            }
            let text = rendered.plain();
            let text = std::str::from_utf8(&text).unwrap();
            let media = Media::read(text);
            media.check();
            if !self.wild {
                media.check_dates();
            }
            if seen.renders % 16 == 1 {
                media.check_against_m3u8_rs(text);
            }
            let shelf = rendition.shelf.clone();
            let fetch = |part: &Part| {
                let (epoch, number) = address(&part.uri);
                Fragment::read(&shelf.read().part(epoch, number).unwrap_or_else(|| panic!("{} is kept", part.uri)))
            };
            self.check_constants(&media);
            self.check_history(id, &media);
            // A sound's scale may change with its parameters.
            let scales = &mut self.seen.get_mut(&id).unwrap().scales;
            for segment in &media.segments {
                scales.entry(segment.map.clone()).or_insert(scale);
            }
            let scales = scales.clone();
            self.check_parts(id, &media, &fetch, |map, ticks| Timestamp::new(ticks, scales[map]).as_micros());
            self.seen.get_mut(&id).unwrap().media = media;
        }
    }

    fn check_constants(&mut self, media: &Media) {
        let constants = (media.target_duration, media.part_target_us);
        assert_eq!(*self.constants.get_or_insert(constants), constants, "TARGETDURATION and PART-TARGET never change");
    }

    /// What was published stays as it was; numbers have no gap and mean the same everywhere.
    fn check_history(&mut self, id: TrackId, media: &Media) {
        let seen = self.seen.get_mut(&id).unwrap();
        let before = &seen.media;
        if before.segments.is_empty() {
            seen.first_msn = media.media_sequence;
        } else {
            assert!(media.media_sequence >= before.media_sequence, "the window never goes back");
            assert!(media.segments.last().unwrap().msn >= before.segments.last().unwrap().msn);
        }
        for old in before.segments.iter().filter(|old| old.msn >= media.media_sequence) {
            let new = media.segment(old.msn);
            if old.uri.is_some() {
                let same = Segment { parts: old.parts.clone(), ..new.clone() };
                assert_eq!(&same, old, "a closed segment never changes");
            }
            assert!(new.parts.is_empty() || new.parts.starts_with(&old.parts), "Parts never change");
        }
        let keep_us = (4 * media.target_duration * 1_000_000).max(16_000_000);
        if media.media_sequence > seen.first_msn {
            // The window counts in whole microseconds.
            assert!(media.listed_us() + 100 >= keep_us, "{id:?}: only {} us are listed", media.listed_us());
        }
        assert!(media.listed_us() < keep_us + (media.target_duration + 1) * 1_000_000, "and not much more");
        let mut discontinuity = media.discontinuity_sequence;
        for segment in &media.segments {
            discontinuity += u64::from(segment.discontinuity);
            let same = *self.discontinuities.entry(segment.msn).or_insert(discontinuity);
            assert_eq!(same, discontinuity, "{id:?} {}: discontinuity sequence", segment.msn);
        }
    }

    /// New Parts: hinted, truly described, seamless, aligned, and not ahead of the lead.
    fn check_parts(&mut self, id: TrackId, media: &Media, fetch: &dyn Fn(&Part) -> Fragment, micros: impl Fn(&str, i64) -> i64) {
        let seen = &self.seen[&id];
        let known = seen.media.segments.last().map(|last| (last.msn, last.parts.len()));
        let mut hint = seen.media.hint.clone();
        let mut end = seen.end;
        let (mut begins, mut opened) = (Vec::new(), Vec::new());
        let mut after_gap = false;
        let mut independent = 0;
        for segment in &media.segments {
            let new_from = match known {
                Some((msn, parts)) if segment.msn == msn => parts,
                Some((msn, _)) if segment.msn < msn => usize::MAX,
                _ => 0,
            };
            for (n, part) in segment.parts.iter().enumerate().skip(new_from) {
                let at = format!("{id:?} {} Part {n}", segment.msn);
                if let Some(hint) = hint.take().filter(|hint| *hint != part.uri) {
                    assert!(!self.regular, "{at}: the hinted address {hint} comes true");
                    // So much came at once that its line is gone already; it is there all the same.
                    fetch(&Part { uri: hint, ..part.clone() });
                }
                if part.gap {
                    continue;
                }
                let fragment = fetch(part);
                let opens = n == 0 && (segment.discontinuity || after_gap || end == 0);
                assert!(
                    opens || fragment.begin == end || (!self.regular && fragment.begin > end),
                    "{at}: decode time has no gap"
                );
                let overlaps = id.is_picture() && fragment.begin < end;
                assert!(!overlaps, "{at}: it begins at {}, before {end}", fragment.begin);
                end = fragment.end();
                assert!(
                    (micros(&segment.map, end - fragment.begin) - part.duration_us).abs() <= 20,
                    "{at}: its duration is true"
                );
                assert_eq!(part.independent, fragment.samples.iter().any(|sample| sample.sync), "{at}");
                independent += u64::from(part.independent);
                if segment.parts.get(n + 1).is_some_and(|next| !next.gap) {
                    assert!(part.duration_us * 100 >= media.part_target_us * 85, "{at}: {} us", part.duration_us);
                }
                if n == 0 && part.independent {
                    opened.push(segment.msn);
                }
                if n == 0 {
                    begins.push((segment.msn, micros(&segment.map, fragment.first_pts())));
                }
                if !id.is_picture() {
                    self.sound_frame_us = self.sound_frame_us.max(micros(&segment.map, fragment.samples[0].duration));
                }
                if let Some(newest_us) = self.newest_us.filter(|_| self.live && !id.is_picture()) {
                    let frame_us = micros(&segment.map, fragment.samples[0].duration);
                    let ahead_us = micros(&segment.map, end) - newest_us - frame_us;
                    // Where the P-frame of a pyramid was lost, its B-frames tell how far decoding is.
                    let most_us = self.skewed_us + if self.regular { 1_000 } else { 100_000 };
                    assert!(ahead_us <= most_us, "{at}: {ahead_us} us beyond the newest picture");
                }
            }
            after_gap = segment.gap;
        }
        let other = if id == TrackId::VIDEO { TrackId::AUDIO } else { TrackId::VIDEO };
        if let Some(other) = self.seen.get(&other) {
            for (msn, us) in begins.iter().filter(|_| self.regular) {
                let apart_us = other.begins_us.get(msn).map_or(0, |other_us| us - other_us);
                assert!(apart_us.abs() <= APART_US.max(self.sound_frame_us), "{msn}: {apart_us} us apart");
            }
        }
        let seen = self.seen.get_mut(&id).unwrap();
        seen.end = end;
        seen.independent_parts += independent;
        seen.begins_us.extend(begins);
        seen.independent.extend(opened);
    }
}

/// Epoch and number of a Part's address.
fn address(uri: &str) -> (u64, u64) {
    let mut steps = uri.split('/').skip(1);
    let epoch = steps.next().unwrap().parse().unwrap();
    let number = steps.next().unwrap().strip_prefix("part-").unwrap().strip_suffix(".m4s").unwrap();
    (epoch, number.parse().unwrap())
}

fn video() -> Video {
    Video::new(30, 1, Keys::Every(60))
}

fn both() -> Publisher {
    Publisher { video: Some(video()), audio: Some(Audio::new(48_000, 2)), clock_us: 0 }
}

fn of(video: Video) -> Publisher {
    Publisher { video: Some(video), ..both() }
}

#[test]
fn every_regular_source_keeps_the_rules() {
    let scene_cuts = Keys::At(&[0, 9, 57, 87, 147, 207, 267, 327, 387, 447, 507, 567]);
    let mono = Publisher { audio: Some(Audio::new(44_100, 1)), ..both() };
    let check = |case: &str, publisher: &Publisher, gop: f64, target: i64, part_ms: i64| {
        for known in [false, true] {
            let keyframe_interval = known.then(|| Duration::from_secs_f64(gop));
            let mut run = Run::with(Settings { keyframe_interval, ..Settings::default() });
            run.play(publisher, 60.0);
            assert_eq!(run.constants, Some((target, part_ms * 1000)), "{case}");
            for kind in [TrackId::VIDEO, TrackId::AUDIO] {
                let there = if kind == TrackId::VIDEO { publisher.video.is_some() } else { publisher.audio.is_some() };
                assert_eq!(run.has(kind), there, "{case}: {kind:?}");
                assert!(!there || run.closed(kind).len() >= 3, "{case}");
                assert!(!there || run.media(kind).segments.iter().all(|segment| !segment.discontinuity), "{case}");
            }
        }
    };
    check("30 fps", &both(), 2.0, 2, 200);
    check("25 fps", &of(Video::new(25, 1, Keys::Every(50))), 2.0, 2, 240);
    check("29.97 fps, 250 frames", &of(Video::new(30_000, 1001, Keys::Every(250))), 8.342, 10, 201);
    check("60 fps, B-frames", &of(Video { pyramid: true, ..Video::new(60, 1, Keys::Every(120)) }), 2.0, 2, 200);
    check("scene cuts at 0.3, 1.9 and 2.9 s", &of(Video { keys: scene_cuts, ..video() }), 2.0, 2, 200);
    check("audio only", &Publisher { video: None, ..both() }, 2.0, 2, 200);
    check("audio only, 44.1 kHz", &Publisher { video: None, ..mono.clone() }, 2.0, 2, 200);
    check("video only", &Publisher { audio: None, ..both() }, 2.0, 2, 200);
    check("44.1 kHz, mono", &mono, 2.0, 2, 200);
    // A frame of sound lasts 128, 64 and 93 ms: PART-TARGET is one that whole frames fill.
    let sound = |rate, video| Publisher { audio: Some(Audio::new(rate, 1)), video, ..both() };
    let fps25 = || Some(Video::new(25, 1, Keys::Every(50)));
    check("8 kHz", &sound(8_000, both().video), 2.0, 2, 267);
    check("8 kHz, sound only", &sound(8_000, None), 2.0, 2, 256);
    check("25 fps, 16 kHz", &sound(16_000, fps25()), 2.0, 2, 280);
    check("25 fps, 11.025 kHz", &sound(11_025, fps25()), 2.0, 2, 280);
    check("an own clock", &Publisher { clock_us: 16_777_216_000 - 5_000_000, ..both() }, 2.0, 2, 200); // 24 bits of ms
}

#[test]
fn a_gop_that_is_too_long_is_cut_on_part_borders() {
    let mut run = Run::new();
    run.play(&of(Video { keys: Keys::At(&[0]), ..video() }), 30.0);
    assert!(run.closed(TrackId::VIDEO).len() >= 6);
    assert!(run.presentation.losses().cuts_without_keyframe >= 10);
}

#[test]
fn a_player_can_start_one_part_after_the_grid_is_known() {
    let check = |keyframe_interval_ms: Option<u64>, keys: Keys, until_ms: i64| {
        let keyframe_interval = keyframe_interval_ms.map(Duration::from_millis);
        let mut run = Run::with(Settings { keyframe_interval, ..Settings::default() });
        run.join(&both());
        let mut playable_ms = None;
        for (at_us, sample) in of(Video { keys, ..video() }).samples(run.base, 0, 5_000_000) {
            run.now_us = at_us;
            run.give(&Item::Sample(Arc::new(sample)));
            if playable_ms.is_none() && run.presentation.multivariant().is_some() {
                playable_ms = Some(at_us / 1000);
            }
        }
        assert!(playable_ms.is_some_and(|ms| ms <= until_ms), "{keyframe_interval_ms:?}: {playable_ms:?}");
    };
    check(Some(2000), Keys::Every(60), 234);
    check(None, Keys::Every(60), 2_000);
    check(None, Keys::Every(30), 1_000);
    check(None, Keys::At(&[0]), 2_500);
}

#[test]
fn a_publisher_that_returns_continues_its_numbers() {
    for pause in [0.5, 5.0, 30.0] {
        for clock_us in [0, 77_000_000] {
            let mut run = Run::new();
            run.play(&both(), 9.3);
            run.leave();
            let before = run.media(TrackId::VIDEO).clone();
            assert!(before.segments.last().unwrap().uri.is_some(), "the open segment is closed at once");
            assert_eq!(run.media(TrackId::AUDIO).segments.last().unwrap().msn, before.segments.last().unwrap().msn);
            run.pause(pause);
            run.play(&Publisher { clock_us, ..both() }, 9.0);
            for kind in [TrackId::VIDEO, TrackId::AUDIO] {
                let broken: Vec<_> = run.media(kind).segments.iter().filter(|segment| segment.discontinuity).collect();
                assert_eq!(broken.len(), 1, "{kind:?}");
                assert_eq!(broken[0].msn, before.segments.last().unwrap().msn + 1, "{kind:?}: numbers go on");
            }
            run.presentation.end();
            run.live = false;
            run.check_invariants();
            for kind in [TrackId::VIDEO, TrackId::AUDIO] {
                assert!(run.media(kind).ended && run.media(kind).hint.is_none());
            }
        }
    }
}

#[test]
fn nothing_follows_the_end() {
    let mut run = Run::new();
    run.play(&both(), 5.0);
    run.live = false;
    run.presentation.end();
    run.check_invariants();
    let ended = run.media(TrackId::VIDEO).clone();
    run.play(&both(), 5.0);
    assert_eq!(run.media(TrackId::VIDEO), &ended);
}

#[test]
fn a_publisher_that_returns_without_video_asks_for_another_presentation() {
    let mut run = Run::new();
    run.play(&both(), 5.0);
    run.leave();
    run.pause(3.0);
    let sound = Publisher { video: None, ..both() };
    let replaced_ms = run.try_with(&sound, 2.0, &mut |_, sample| Some(sample)).expect("it is asked for");
    assert!((480..=540).contains(&replaced_ms), "{replaced_ms}");
    let held = run.presentation.take_held();
    let samples = held.iter().filter(|item| matches!(item, Item::Sample(_))).count();
    assert!(samples as i64 >= replaced_ms * 48 / 1024, "none is lost: {samples}");
}

#[test]
fn audio_that_comes_late_is_added() {
    let mut run = Run::new();
    run.regular = false;
    run.play_with(&both(), 20.0, |ms, sample| (sample.track.id == TrackId::VIDEO || ms >= 3_000).then_some(sample));
    assert!(run.presentation.offer().unwrap().audio.is_some());
    let (video, audio) = (run.media(TrackId::VIDEO), run.media(TrackId::AUDIO));
    assert_eq!(video.segments.last().unwrap().msn, audio.segments.last().unwrap().msn);
    for segment in run.closed(TrackId::AUDIO) {
        let us = run.seen[&TrackId::VIDEO].begins_us[&segment.msn] - run.seen[&TrackId::AUDIO].begins_us[&segment.msn];
        assert!(us.abs() <= APART_US, "{}: {us} us apart", segment.msn);
    }
}

#[test]
fn dates_go_with_the_media_from_the_first_segment_on() {
    let mut run = Run::new();
    // What an encoder sends first is late: its connection is new, and so is the decoder behind it.
    run.play_with(&both(), 20.0, |ms, sample| {
        let late = Duration::from_millis(if ms < 100 { 40 } else { 0 });
        Some(Sample { received: sample.received + late, ..sample })
    });
    let zeros = |id: TrackId| {
        let zero = |segment: &&Segment| {
            let date = chrono::DateTime::parse_from_rfc3339(&segment.date).unwrap().timestamp_micros();
            date - WALL_S as i64 * 1_000_000 - run.seen[&id].begins_us[&segment.msn]
        };
        run.closed(id).iter().map(zero).collect::<Vec<_>>()
    };
    let (pictures, sound) = (zeros(TrackId::VIDEO), zeros(TrackId::AUDIO));
    assert!(pictures.len() > 5 && sound.len() > 5);
    // As far as milliseconds tell; and sound never looks later than it is.
    assert!(pictures.iter().all(|zero| (-1_000..=0).contains(zero)), "{pictures:?}");
    assert!(sound.iter().all(|zero| (-3_000..=-1_000).contains(zero)), "{sound:?}");
    assert!(pictures.iter().min() >= sound.iter().max(), "{pictures:?} {sound:?}");
}

#[test]
fn video_that_comes_late_leads() {
    let mut run = Run::new();
    run.regular = false;
    run.play_with(&both(), 20.0, |ms, mut sample| {
        if sample.track.id == TrackId::VIDEO {
            sample.keyframe = ms % 2_000 == 1_000;
        }
        (sample.track.id == TrackId::AUDIO || ms >= 3_000).then_some(sample)
    });
    let offer = run.presentation.offer().unwrap();
    assert!(!offer.videos.is_empty() && offer.audio.is_some());
    for segment in run.closed(TrackId::VIDEO) {
        let us = run.seen[&TrackId::VIDEO].begins_us[&segment.msn] - run.seen[&TrackId::AUDIO].begins_us[&segment.msn];
        assert!(us.abs() <= APART_US, "{}: {us} us apart", segment.msn);
    }
    assert!(run.media(TrackId::AUDIO).segments.iter().all(|segment| !segment.discontinuity));
}

/// The picture's first keyframe is older than sound that was published already: what was cut stays as it was.
#[test]
fn a_picture_that_is_late_does_not_cut_published_sound() {
    for late_ms in [0, 80, 500, 900] {
        let mut run = Run::new();
        (run.regular, run.skewed_us) = (false, late_ms * 1000);
        run.play_with(&both(), 14.0, |ms, mut sample| {
            let is_picture = sample.track.id == TrackId::VIDEO;
            if is_picture {
                // Of a clock that is behind.
                let late = Timestamp::from_millis(late_ms).to(sample.track.timescale);
                (sample.dts, sample.pts) = (sample.dts - late, sample.pts - late);
            }
            (!is_picture || ms >= 4_000).then_some(sample)
        });
        assert!(!run.presentation.offer().unwrap().videos.is_empty(), "{late_ms}");
    }
}

#[test]
fn audio_that_stops_leaves_gaps_and_returns() {
    let mut run = Run::new();
    run.regular = false;
    let silent = 5_000..10_000;
    run.play_with(&both(), 16.0, |ms, sample| (sample.track.id == TrackId::VIDEO || !silent.contains(&ms)).then_some(sample));
    let audio = run.media(TrackId::AUDIO);
    let gaps: Vec<_> = audio.segments.iter().filter(|segment| segment.gap).map(|segment| segment.msn).collect();
    assert!(gaps.iter().any(|msn| *msn > run.seen[&TrackId::AUDIO].first_msn), "{gaps:?}");
    let (video, audio) = (run.closed(TrackId::VIDEO), run.closed(TrackId::AUDIO));
    assert_eq!(video.last().unwrap().msn, audio.last().unwrap().msn, "at the edge again");
    let us = |kind, msn| run.seen[&kind].begins_us[&msn];
    let msn = audio.last().unwrap().msn;
    assert!((us(TrackId::VIDEO, msn) - us(TrackId::AUDIO, msn)).abs() <= APART_US, "and in step");
}

#[test]
fn new_parameters_wait_for_a_keyframe_and_break_every_rendition() {
    let mut run = Run::new();
    let wider: Arc<Track> = script::video_track(FrameRate { frames: 30, seconds: 1 }, 1280);
    run.play_with(&both(), 12.0, |ms, mut sample| {
        if sample.track.id == TrackId::VIDEO && ms >= 5_000 {
            sample.track = Arc::clone(&wider);
        }
        Some(sample)
    });
    let broken = |kind| {
        let broken: Vec<_> = run.media(kind).segments.iter().filter(|s| s.discontinuity).map(|s| s.msn).collect();
        assert_eq!(broken.len(), 1, "{kind:?}");
        broken[0]
    };
    assert_eq!(broken(TrackId::VIDEO), broken(TrackId::AUDIO));
    assert_eq!(run.presentation.offer().unwrap().videos[0].width, 1280);
    assert_eq!(run.presentation.losses().undecodable, 30, "pictures of the new kind before its first keyframe");
}

#[test]
fn an_announced_track_is_waited_for_half_a_second() {
    let first_offer = |sound_from_ms: i64| {
        let mut run = Run::new();
        run.regular = false;
        run.join(&both());
        for (at_us, sample) in both().samples(run.base, 0, 3_000_000) {
            run.now_us = at_us;
            if sample.track.id == TrackId::VIDEO || at_us >= sound_from_ms * 1000 {
                run.give(&Item::Sample(Arc::new(sample)));
            }
            if let Some(offer) = run.presentation.offer() {
                return (at_us / 1000, offer.audio.is_some());
            }
        }
        panic!("never offered");
    };
    assert_eq!(first_offer(0), (first_offer(0).0, true));
    assert!(first_offer(0).0 <= 240);
    let (ms, sound) = first_offer(2_500);
    assert!(!sound && (600..=740).contains(&ms), "{ms}");
}

#[test]
fn a_publisher_without_keyframes_costs_a_bounded_queue() {
    let mut run = Run::new();
    let blind = Publisher { audio: None, ..of(Video { keys: Keys::Never, ..video() }) };
    run.play(&blind, 120.0);
    let lost = run.presentation.losses().queue_full;
    assert_eq!(lost, 120 * 30 - 2048);
    assert!(run.presentation.timeline().is_none());
    // The next one is as good as the first.
    run.leave();
    run.play(&both(), 5.0);
    assert!(run.presentation.multivariant().is_some());
}

#[test]
fn four_hours_stay_bounded_and_on_time() {
    let mut run = Run::new();
    run.every = 20;
    run.play(&Publisher { audio: Some(Audio::new(44_100, 2)), ..both() }, 4.0 * 3600.0);
    run.live = false;
    run.presentation.end();
    run.check_invariants();
    let newest = run.closed(TrackId::VIDEO).last().unwrap().date.clone();
    let date = chrono::DateTime::parse_from_rfc3339(&newest).unwrap().timestamp_micros();
    let behind_us = WALL_S as i64 * 1_000_000 + run.now_us - date;
    assert!((0..2_100_000).contains(&behind_us), "PROGRAM-DATE-TIME is {behind_us} us old");
    for rendition in run.presentation.renditions() {
        assert!(rendition.rendered().plain().len() < 12_000);
        assert!(rendition.shelf.read().bytes() < 45 * 100 * (script::PAYLOAD_BYTES + 40), "{}", rendition.shelf.read().bytes());
    }
}

#[test]
fn pictures_that_pause_break_no_rule() {
    for gap_ms in [100, 300, 700, 1_500, 3_000, 10_000] {
        for at_ms in [4_000, 4_500, 5_000, 5_900] {
            for lost in [true, false] {
                let case = format!("{gap_ms} ms at {at_ms}, lost: {lost}");
                let mut run = Run::new();
                run.regular = false;
                let pause = at_ms..at_ms + gap_ms;
                let shift = Timestamp::from_millis(gap_ms);
                // Lost: pictures are missing while sound goes on. Else: both stop, and go on later.
                run.play_with(&both(), 24.0, |ms, mut sample| {
                    if lost {
                        return (sample.track.id == TrackId::AUDIO || !pause.contains(&ms)).then_some(sample);
                    }
                    if ms >= at_ms {
                        (sample.pts, sample.dts) = (sample.pts + shift, sample.dts + shift);
                    }
                    Some(sample)
                });
                let (video, audio) = (run.closed(TrackId::VIDEO), run.closed(TrackId::AUDIO));
                assert_eq!(video.last().map(|s| s.msn), audio.last().map(|s| s.msn), "{case}: both are at the edge");
                let us = |kind, msn: u64| run.seen[&kind].begins_us[&msn];
                let msn = audio.last().unwrap().msn;
                assert!((us(TrackId::VIDEO, msn) - us(TrackId::AUDIO, msn)).abs() <= APART_US, "{case}: and in step");
            }
        }
    }
}

#[test]
fn sound_alone_that_pauses_breaks_no_rule() {
    for gap_ms in [100, 300, 1_500, 5_000, 30_000] {
        let mut run = Run::new();
        run.regular = false;
        let pause = 6_700..6_700 + gap_ms;
        run.play_with(&Publisher { video: None, ..both() }, 60.0, |ms, sample| (!pause.contains(&ms)).then_some(sample));
        assert!(run.closed(TrackId::AUDIO).len() >= 8);
    }
}

#[test]
fn whatever_comes_the_rules_hold() {
    for seed in 1..=48_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // xorshift64: the same in every run.
        let mut chance = move |one_in: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.is_multiple_of(one_in)
        };
        let (frames, pyramid) = ([24, 25, 30, 60][seed as usize % 4], seed % 3 == 0);
        let settings = Settings { keyframe_interval: (seed % 2 == 0).then(|| Duration::from_secs(2)), ..Settings::default() };
        let mut run = Run::with(settings);
        (run.regular, run.wild) = (false, true);
        run.every = 1 + seed % 4;
        println!("seed {seed}");
        let regular = Video { pyramid, ..Video::new(frames, 1, Keys::Every(u64::from(frames) * 2)) };
        for _ in 0..3 {
            let (mut video_until, mut audio_until) = (0, 0);
            run.play_with(&of(regular.clone()), 30.0, |ms, mut sample| {
                if ms < 600 {
                    return Some(sample);
                }
                let is_video = sample.track.id == TrackId::VIDEO;
                let until = if is_video { &mut video_until } else { &mut audio_until };
                if chance(400) {
                    *until = ms + if chance(4) { 4_000 } else { 400 };
                }
                // Scene cuts, and keyframes that the encoder left out.
                sample.keyframe ^= is_video && chance(if sample.keyframe { 5 } else { 150 });
                (ms >= *until).then_some(sample)
            });
            run.leave();
            run.pause(2.0);
        }
    }
}
