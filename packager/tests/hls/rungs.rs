//! A rung in virtual time: cold, asked for, made again, killed; and what a player finds in its playlist.

use std::{collections::VecDeque, sync::Arc};

use media_core::{Item, Parameters, Rung, Sample, Timescale, Timestamp, Track, TrackId, codec::hevc};
use packager::hls::presentation::{Settings, Supply};

use crate::{
    codecs::HVCC,
    presentation::Run,
    reader::Segment,
    script::{Audio, Keys, Publisher, Video},
};

/// From the request to the first picture: a program starts, a decoder fills.
const START_US: i64 = 400_000;
/// Pictures made while one arrives.
const SPEED: usize = 4;
/// Pictures in the encoder.
const HELD: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The first request.
    Ask,
    /// Nobody asks any more, and the open segment is made to its end.
    Leave,
    /// The encoder ends, and another takes its place.
    Kill,
    /// It ends, and no other comes for so many seconds.
    Lose(i64),
}

/// Makes H.264 of what a publisher has sent, from a keyframe on.
#[derive(Default)]
struct Encoder {
    source: Vec<Arc<Sample>>,
    next: usize,
    starts_us: Option<i64>,
    runs: bool,
    /// The cut behind which it ends.
    ends_behind: Option<Timestamp>,
    track: Option<Arc<Track>>,
}

impl Encoder {
    fn ask(&mut self, begin: Option<Timestamp>, now_us: i64) {
        let begin = begin.unwrap();
        self.next = self.source.iter().rposition(|s| s.keyframe && s.pts <= begin).unwrap();
        self.starts_us = Some(now_us + START_US);
    }

    fn make(&mut self, now_us: i64) -> Vec<Sample> {
        if self.starts_us.is_some_and(|at| at <= now_us) {
            (self.starts_us, self.runs) = (None, true);
        }
        let mut made = Vec::new();
        while self.runs && made.len() < SPEED && self.next + HELD < self.source.len() {
            let source = &self.source[self.next];
            let track = Arc::clone(self.track.get_or_insert_with(rung_track));
            let keyframe = source.keyframe || made.is_empty() && self.next == 0;
            made.push(Sample { track, dts: source.pts, keyframe, ..Sample::clone(source) });
            self.next += 1;
        }
        made
    }
}

fn rung_track() -> Arc<Track> {
    let script = Video::new(30, 1, Keys::Never).track;
    let Track { timescale, parameters, .. } = &*script;
    Arc::new(Track { id: Rung::ALIKE.id, timescale: *timescale, parameters: parameters.clone() })
}

fn source(gop: u64, pyramid: bool) -> Publisher {
    let parameters = Parameters::Hevc(hevc::Parameters::parse(bytes::Bytes::from_static(HVCC)).unwrap());
    let track = Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::new(90_000).unwrap(), parameters });
    let video = Video { track, pyramid, ..Video::new(30, 1, Keys::Every(gop)) };
    Publisher { video: Some(video), audio: Some(Audio::new(48_000, 2)), clock_us: 5_000_000 }
}

/// Plays a source with steps at seconds of its life; answers the rung's playlist at its end, a letter a segment: `-` a gap,
/// `W` all of it, `s` some. What is there is as long as the source's.
fn play(gop: u64, pyramid: bool, seconds: i64, steps: &[(f64, Step)]) -> (Run, String) {
    let (publisher, interval) = (&source(gop, pyramid), std::time::Duration::from_millis(gop * 1000 / 30));
    let mut run = Run::with(Settings { keyframe_interval: Some(interval), ..Settings::default() });
    // What is killed leaves a hole, and what is made of the past comes many at once.
    (run.regular, run.wild) = (false, true);
    let mut steps: VecDeque<_> = steps.iter().copied().collect();
    let mut encoder = Encoder::default();
    run.presentation.set_supplies([Supply::Cold; 7]);
    run.join(publisher);
    for (at_us, sample) in publisher.samples(run.now(), 0, seconds * 1_000_000) {
        run.now_us = at_us;
        let sample = Arc::new(sample);
        run.give(&Item::Sample(Arc::clone(&sample)));
        let cuts = run.presentation.source_cuts();
        if let Some((_, step)) = steps.pop_front_if(|(at, _)| (*at * 1e6) as i64 <= at_us) {
            match step {
                Step::Ask => {
                    run.presentation.set_supplies([Supply::Awaited; 7]);
                    encoder.ask(cuts.map(|(_, _, begin)| begin), at_us);
                }
                Step::Leave => encoder.ends_behind = cuts.map(|(_, newest, _)| newest),
                Step::Kill => (encoder.runs, encoder.starts_us) = (false, Some(at_us + 200_000 + START_US)),
                Step::Lose(seconds) => (encoder.runs, encoder.starts_us) = (false, Some(at_us + seconds * 1_000_000)),
            }
        }
        if sample.track.id != TrackId::VIDEO {
            continue;
        }
        encoder.source.push(sample);
        let newest = cuts.map(|(_, newest, _)| newest);
        let ended = encoder.ends_behind.is_some_and(|behind| newest.is_some_and(|newest| newest > behind));
        for made in encoder.make(at_us) {
            if ended && newest.is_some_and(|newest| made.pts >= newest) {
                (encoder.runs, encoder.ends_behind) = (false, None);
                run.presentation.set_supplies([Supply::Cold; 7]);
                break;
            }
            run.give(&Item::Sample(Arc::new(made)));
        }
    }
    let letters = compare(&mut run);
    (run, letters)
}

fn media(run: &mut Run, id: TrackId) -> crate::reader::Media {
    let rendition = run.presentation.renditions().iter().find(|rendition| rendition.id == id).unwrap();
    let text = rendition.rendered().plain();
    let media = crate::reader::Media::read(std::str::from_utf8(&text).unwrap());
    media.check();
    media
}

fn compare(run: &mut Run) -> String {
    let (source, rung) = (media(run, TrackId::VIDEO), media(run, Rung::ALIKE.id));
    let newest = |media: &crate::reader::Media| media.segments.last().map(|segment| segment.msn);
    assert!(newest(&source) >= newest(&rung), "never beyond the source");
    assert!(newest(&source) <= newest(&rung).map(|msn| msn + 3), "and a cold one not far behind it");
    assert_eq!(
        (source.target_duration, source.part_target_us, source.hold_back_us),
        (rung.target_duration, rung.part_target_us, rung.hold_back_us)
    );
    let closed = |segment: &&Segment| segment.uri.is_some() && segment.msn >= source.media_sequence;
    let letter = |segment: &Segment| {
        let source_us = source.segment(segment.msn).duration_us;
        // Sources without B-frames may end a picture apart from what is made of those with them.
        let apart_us = segment.duration_us - source_us;
        assert!(apart_us < 150_000, "{}: {apart_us} us longer", segment.msn);
        match (segment.gap, apart_us.abs() < 150_000) {
            (true, whole) => {
                assert!(whole, "{}: a gap is as long as what is missing: {apart_us}", segment.msn);
                '-'
            }
            (false, true) => 'W',
            (false, false) => 's',
        }
    };
    rung.segments.iter().filter(closed).map(letter).collect()
}

#[test]
fn a_rung_is_listed_cold_and_made_when_it_is_asked_for() {
    let check = |case: &str, gop: u64, pyramid: bool, seconds: i64, steps: &[(f64, Step)], expected: &str| {
        let (mut run, letters) = play(gop, pyramid, seconds, steps);
        assert_eq!(letters, expected, "{case}");
        let starts = |run: &Run, id: TrackId| run.seen.get(&id).map(|seen| seen.begins_us.clone()).unwrap_or_default();
        let of_source = starts(&run, TrackId::VIDEO);
        for (msn, us) in starts(&run, Rung::ALIKE.id) {
            let apart_us = us - of_source[&msn];
            assert!(apart_us.abs() < 1_000 || letters.contains('s'), "{case}: {msn} begins {apart_us} us apart");
        }
        let offer = run.presentation.offer().unwrap().clone();
        assert_eq!(offer.videos.iter().map(|video| &video.codec[..4]).collect::<Vec<_>>(), ["hvc1", "avc1"], "{case}");
        run.presentation.end();
        assert!(media(&mut run, Rung::ALIKE.id).ended, "{case}");
    };
    use Step::{Ask, Kill, Leave, Lose};
    check("cold", 60, false, 21, &[], "-------");
    check("asked for at a segment's beginning", 60, false, 21, &[(12.1, Ask)], "---WWWWW");
    check("and at its end", 60, false, 21, &[(13.9, Ask)], "---WWWWW");
    check("with B-frames", 60, true, 21, &[(13.0, Ask)], "---WWWWW");
    check("GOPs of 1 s", 30, false, 21, &[(13.5, Ask)], "---WWWWW");
    check("left", 60, false, 21, &[(5.0, Ask), (9.0, Leave)], "WWW----");
    check("asked for again soon", 60, false, 21, &[(3.0, Ask), (9.0, Leave), (13.0, Ask)], "WWWWWWWW");
    check("asked for again later", 60, false, 25, &[(3.0, Ask), (9.0, Leave), (19.0, Ask)], "W---WWWW");
    check("killed in a segment", 60, false, 21, &[(5.0, Ask), (13.0, Kill)], "WWWWWWWW");
    check("killed at its end", 60, false, 21, &[(5.0, Ask), (13.9, Kill)], "WWWWWWWW");
    check("lost", 60, false, 29, &[(5.0, Ask), (16.5, Lose(7))], "WW---WWW");
}
