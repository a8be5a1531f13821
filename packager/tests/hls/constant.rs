//! A source that sends pictures when something has changed: what is made of it at a constant rate leads.

use std::sync::Arc;

use media_core::{Item, Rung, Sample, Timestamp, Track, TrackId};
use packager::hls::presentation::{Settings, Supply, Verdict};

use crate::{
    presentation::Run,
    script::{Audio, Keys, Publisher, Video},
};

/// From a slot to its picture's arrival here.
const MADE_LATE_US: i64 = 90_000;
/// From the moment at which it is asked for to the first picture.
const START_US: i64 = 800_000;
const SECOND_US: i64 = 1_000_000;

fn publisher() -> Publisher {
    Publisher { video: Some(Video::new(30, 1, Keys::Every(60))), audio: Some(Audio::new(48_000, 2)), clock_us: 7_000_000 }
}

/// Somebody types: pictures of a regular camera, but many are left out, for up to a second.
fn is_sent(frame: i64) -> bool {
    frame % 60 == 0 || [3, 4, 11, 40, 41, 47].contains(&(frame % 75))
}

/// Plays the publisher for so many seconds, with what is made of it from when it is asked for. What the verdict was in the end.
fn play(run: &mut Run, publisher: &Publisher, seconds: i64, supply: Supply) -> Verdict {
    let script = publisher.video.as_ref().unwrap();
    let Track { timescale, parameters, .. } = &*script.track;
    let track = Arc::new(Track { id: Rung::ALIKE.id, timescale: *timescale, parameters: parameters.clone() });
    let (from_us, mut asked_us, mut next_slot) = (run.now_us, None, 0);
    run.join(publisher);
    for (at_us, sample) in publisher.samples(run.now(), 0, seconds * SECOND_US) {
        run.now_us = from_us + at_us;
        let now_us = publisher.clock_us + at_us;
        if run.presentation.needs_picture_made() && asked_us.is_none() {
            run.presentation.set_supplies([supply; 7]);
            asked_us = Some(now_us);
            // A Part begins there.
            next_slot = now_us * 3 / 100_000 / 6 * 6;
        }
        let runs = supply == Supply::Awaited && asked_us.is_some_and(|asked_us| now_us >= asked_us + START_US);
        let slot_us = |slot: i64| slot * 100_000 / 3;
        while runs && slot_us(next_slot) <= now_us - MADE_LATE_US {
            let keyframe = next_slot % 60 == 0 || run.presentation.source_cuts().is_none();
            let at = Timestamp::from_micros(slot_us(next_slot)).to(*timescale);
            let made = Sample { track: Arc::clone(&track), pts: at, dts: at, keyframe, received: run.now(), ..sample.clone() };
            run.give(&Item::Sample(Arc::new(made)));
            next_slot += 1;
        }
        let frame = (at_us * 3 + 50_000) / 100_000;
        if sample.track.id == TrackId::VIDEO && !is_sent(frame) {
            continue;
        }
        let item = Item::Sample(Arc::new(sample));
        let verdict = match &item {
            // The picture of the source is not in the presentation.
            Item::Sample(sample) if asked_us.is_some() && sample.track.id == TrackId::VIDEO => {
                run.presentation.handle(&item, run.wall())
            }
            _ => run.give(&item),
        };
        if verdict == Verdict::Replace {
            return verdict;
        }
    }
    Verdict::Fine
}

fn run() -> Run {
    Run::with(Settings { constant: true, ..Settings::default() })
}

#[test]
fn what_is_made_leads_with_regular_parts() {
    let mut run = run();
    assert_eq!(play(&mut run, &publisher(), 20, Supply::Awaited), Verdict::Fine);
    let grid = *run.presentation.grid().unwrap();
    assert_eq!((grid.constant, grid.irregular, grid.part_target_ms, grid.target_duration), (true, false, 200, 2));
    let lengths: Vec<i64> = run.closed(TrackId::VIDEO).iter().map(|segment| segment.duration_us / 1000).collect();
    assert!(lengths.len() >= 6 && lengths[1..].iter().all(|ms| *ms == 2000), "{lengths:?}");
    assert!(run.closed(TrackId::AUDIO).iter().all(|segment| !segment.gap));
    let offer = run.presentation.offer().unwrap();
    assert_eq!(offer.videos.len(), 1, "what leads is not offered twice");
    // A second publisher is made of, too, which takes a moment.
    run.leave();
    assert!(!run.presentation.needs_picture_made(), "nothing is made while nobody publishes");
    run.pause(5.0);
    let next = Publisher { clock_us: 900_000_000, ..publisher() };
    assert_eq!(play(&mut run, &next, 12, Supply::Awaited), Verdict::Fine);
    let discontinuities = run.closed(TrackId::VIDEO).iter().filter(|segment| segment.discontinuity).count();
    assert_eq!(discontinuities, 1);
}

#[test]
fn where_nothing_can_be_made_the_source_is_packaged_soon() {
    let mut run = run();
    assert_eq!(play(&mut run, &publisher(), 20, Supply::Unavailable), Verdict::Replace);
    assert!(run.now_us < 8 * SECOND_US, "{}", run.now_us);
    assert!(!run.has(TrackId::VIDEO));
}

#[test]
fn a_regular_source_is_packaged_as_it_is() {
    let mut run = run();
    run.join(&publisher());
    run.go_on(&publisher(), 8.0);
    assert!(!run.presentation.grid().unwrap().constant);
}
