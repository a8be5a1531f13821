//! A lane whose decoder or encoder fails.

use std::{sync::mpsc, time::Duration};

use gst::prelude::*;
use media_core::{Parameters, TrackId, codec::h264};
use transcode::wire::Picture;

use super::*;
use crate::{chain, decoders::Decoder, encoders::FIRST_FAILS};

const PICTURES: LaneId = PICTURE_LANES.start;

const WORKS: Decoder = Decoder { element: "avdec_h264", options: "max-threads=1" };
/// Decodes as many pictures and fails then. `identity` has the name by which a failing decoder is known.
static FAILS_AFTER_20: [Decoder; 2] =
    [Decoder { element: "identity", options: "error-after=20 ! avdec_h264 max-threads=1" }, WORKS];
/// Is installed, and cannot be started so.
static NEVER_STARTS: [Decoder; 2] = [Decoder { element: "filesrc", options: "location=/nowhere/at/all" }, WORKS];

/// Six seconds, a keyframe each.
fn clip() -> (Arc<Track>, Vec<Coded>) {
    clip_of("videotestsrc ! video/x-raw,format=I420,width=160,height=90,framerate=30/1", 180)
}

/// So many pictures.
fn clip_of(source: &str, pictures: usize) -> (Arc<Track>, Vec<Coded>) {
    gst::init().unwrap();
    let made = gst::parse::launch(&format!(
        "{source} ! identity eos-after={eos} ! x264enc tune=zerolatency key-int-max=30 speed-preset=superfast \
         ! video/x-h264,profile=high,stream-format=avc,alignment=au ! appsink name=sink sync=false",
        eos = pictures + 1
    ));
    let pipeline = made.unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut track, mut all) = (None, Vec::new());
    while let Ok((buffer, caps, _)) = chain::pull(&sink) {
        let parameters = || h264::Parameters::parse(chain::codec_data(&caps).unwrap()).unwrap();
        let timescale = transcode::lane::timescale(Made::Video, 0).unwrap();
        track.get_or_insert_with(|| Track { id: TrackId::VIDEO, timescale, parameters: Parameters::H264(parameters()) });
        let at = Timestamp::from_micros(10_000_000 + all.len() as i64 * 100_000 / 3);
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        all.push(Coded {
            pts: at,
            dts: at,
            duration: 0,
            keyframe,
            cut: keyframe,
            live: true,
            payload: chain::payload(buffer).unwrap(),
        });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(all.len(), pictures);
    (Arc::new(track.unwrap()), all)
}

/// Times of what is made of a clip, in milliseconds, the decoder that would be next, and what is to be logged.
fn made_by(listed: fn(&Parameters) -> &'static [Decoder]) -> (Vec<i64>, &'static str, Vec<String>) {
    let (track, clip) = clip();
    let (reports, told) = mpsc::sync_channel(4096);
    let mut lane = Lane::new(PICTURES, Arc::default(), reports);
    lane.decoders.listed = listed;
    lane.handle(Order::Make(PICTURES, Made::Video, Wish::default())).unwrap();
    lane.handle(Order::Track(PICTURES, Arc::clone(&track))).unwrap();
    let (mut made, mut notes) = (Vec::new(), Vec::new());
    for coded in clip {
        lane.handle(Order::Sample(PICTURES, coded)).unwrap();
        // One after the other, as a live source has them. What a failed run holds is not consumed.
        while let Ok(report) = told.recv_timeout(Duration::from_millis(100)) {
            match report {
                Report::Sample(_, _, coded) => made.push(coded.pts.as_micros() / 1000 - 10_000),
                Report::Note(note) => notes.push(note),
                Report::Consumed(..) => break,
                _ => {}
            }
        }
    }
    lane.handle(Order::End(PICTURES)).unwrap();
    drop(lane.run.take());
    made.extend(told.try_iter().filter_map(|report| match report {
        Report::Sample(_, _, coded) => Some(coded.pts.as_micros() / 1000 - 10_000),
        _ => None,
    }));
    (made, lane.decoders.of(&track.parameters)[0].element, notes)
}

#[test]
fn a_decoder_that_fails_gives_way_to_the_next() {
    let (made, next, notes) = made_by(|_| &FAILS_AFTER_20);
    assert_eq!(next, "avdec_h264");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("a pipeline is built anew, because decoder has failed: "), "{notes:?}");
    assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
    let (before, after): (Vec<i64>, Vec<i64>) = made.iter().partition(|ms| **ms < 1000);
    assert!((15..=20).contains(&before.len()), "{before:?}");
    // It rests for a second and begins at a keyframe: from there on nothing is missing.
    assert_eq!(after.len(), 180 - 60, "{after:?}");
    assert_eq!(after[0], 2000);
}

#[test]
fn a_decoder_that_does_not_start_costs_nothing() {
    let (made, next, notes) = made_by(|_| &NEVER_STARTS);
    assert_eq!((made.len(), next, notes.len()), (180, "avdec_h264", 0));
}

#[test]
fn one_that_failed_is_taken_again_where_the_others_failed_as_often() {
    gst::init().unwrap();
    let (track, _) = clip();
    let mut decoders = Decoders::default();
    let best = |decoders: &Decoders| decoders.of(&track.parameters)[0];
    let first = best(&decoders);
    decoders.demote(first, "a test");
    let second = best(&decoders);
    assert_ne!(first, second, "OpenH264's decoder comes with the plugins that `make test` installs");
    decoders.demote(second, "a test");
    assert_eq!(best(&decoders), first);
}

#[test]
fn an_encoder_that_does_not_start_gives_way_to_the_next() {
    let (track, clip) = clip();
    let encoders = Arc::new(Encoders::among(&FIRST_FAILS));
    assert_eq!(encoders.all()[0].element, "identity");
    let (reports, told) = mpsc::sync_channel(4096);
    let mut lane = Lane::new(PICTURES, Arc::clone(&encoders), reports);
    lane.handle(Order::Make(PICTURES, Made::Video, Wish::default())).unwrap();
    lane.handle(Order::Track(PICTURES, track)).unwrap();
    clip.into_iter().take(60).for_each(|coded| lane.handle(Order::Sample(PICTURES, coded)).unwrap());
    lane.handle(Order::End(PICTURES)).unwrap();
    let made = told.try_iter().filter(|report| matches!(report, Report::Sample(..))).count();
    assert_eq!((made, encoders.all()[0].element), (60, "x264enc"), "and the next run begins with that one");
}

/// A source of which pictures 10 to 59 do not come, and 3 and 4: all slots of the rate are filled, cuts are of its clock.
#[test]
fn pictures_that_do_not_come_are_repeated() {
    let (track, clip) = clip();
    let (reports, told) = mpsc::sync_channel(4096);
    let mut lane = Lane::new(PICTURES, Arc::default(), reports);
    let constant = |divisor| Wish {
        bitrate: 500_000,
        frame_rate: 30.0,
        picture: Picture { divisor, slow_divisor: divisor, in_part: 6, gop_ms: 4000, cut_every_ms: 4000, ..Picture::default() },
        ..Wish::default()
    };
    for (made, divisor) in [(Made::Video, 1), (Made::Rung(1), 3)] {
        lane.handle(Order::Make(PICTURES, made, constant(divisor))).unwrap();
    }
    lane.handle(Order::Track(PICTURES, Arc::clone(&track))).unwrap();
    // As it would be that sends all of this in no time: nothing is repeated by the clock, which `cadence` tests.
    let comes = |n: &usize| !(3..5).contains(n) && !(10..60).contains(n) && *n < 170;
    for (_, coded) in clip.into_iter().enumerate().filter(|(n, _)| comes(n)) {
        lane.handle(Order::Sample(PICTURES, Coded { live: false, ..coded })).unwrap();
    }
    lane.handle(Order::End(PICTURES)).unwrap();
    drop(lane.run.take());
    let (mut all, mut keyframes) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for report in told.try_iter() {
        let Report::Sample(_, made, coded) = report else { continue };
        let (of, slot) = (usize::from(made != Made::Video), coded.pts.ticks_in(media_core::Timescale::new(30).unwrap()));
        all[of].push(slot);
        if coded.keyframe {
            keyframes[of].push(slot);
        }
    }
    // The clip begins at 10 s, so with slot 300; 12 s is a multiple of 4 s.
    assert_eq!(all[0], (300..470).collect::<Vec<_>>());
    assert_eq!(all[1], (300..470).step_by(3).collect::<Vec<_>>());
    assert_eq!(keyframes, [[300, 360], [300, 360]]);
}

/// A film of 50 s and a picture at rest of 24 s, cut every 2 s: the pace goes up at 8 s, and down when it has rested for 13 s.
#[test]
fn a_rung_of_auto_goes_by_what_moves_and_costs_the_same() {
    const KBIT: f64 = 150.0;
    let source =
        |pattern: &str| format!("videotestsrc pattern={pattern} ! video/x-raw,format=I420,width=320,height=180,framerate=30/1");
    let (track, film) = clip_of(&source("zone-plate kx2=20 ky2=20 kt=3"), 50 * 30);
    let (_, rest) = clip_of(&source("smpte"), 24 * 30);
    let (reports, told) = mpsc::sync_channel(4096);
    let mut lane = Lane::new(PICTURES, Arc::default(), reports);
    let picture = Picture { lines: 180, slow_divisor: 3, in_part: 6, buffer_ms: 1000, gop_ms: 2000, ..Picture::default() };
    let wish = Wish { bitrate: KBIT as u32 * 1000, frame_rate: 30.0, picture, ..Wish::default() };
    lane.handle(Order::Make(PICTURES, Made::Rung(1), wish)).unwrap();
    lane.handle(Order::Track(PICTURES, track)).unwrap();
    let (mut made, mut tracks) = (Vec::new(), 0);
    let mut hear = |report| match report {
        Report::Sample(_, _, coded) => made.push(coded),
        Report::Track(..) => tracks += 1,
        _ => {}
    };
    for (n, coded) in film.into_iter().chain(rest).enumerate() {
        let at = Timestamp::from_micros(10_000_000 + n as i64 * 100_000 / 3);
        lane.handle(Order::Sample(PICTURES, Coded { pts: at, dts: at, cut: n % 60 == 0, live: false, ..coded })).unwrap();
        // One after the other, as a live source has them.
        loop {
            match told.recv_timeout(Duration::from_secs(10)).unwrap() {
                Report::Consumed(..) => break,
                report => hear(report),
            }
        }
    }
    lane.handle(Order::End(PICTURES)).unwrap();
    told.try_iter().for_each(hear);
    assert_eq!(tracks, 1, "the parameters stay the same");
    let number = |coded: &Coded| ((coded.pts.as_micros() - 10_000_000) * 3 + 50_000) / 100_000;
    let numbers: Vec<_> = made.iter().map(number).collect();
    let slow = |numbers: std::ops::Range<i64>| numbers.step_by(3);
    let expected: Vec<_> = slow(0..240).chain(240..64 * 30).chain(slow(64 * 30..74 * 30)).collect();
    let off = numbers.iter().zip(&expected).find(|(made, expected)| made != expected);
    assert!(off.is_none() && numbers.len() == expected.len(), "{off:?}, and {} of {}", numbers.len(), expected.len());
    for (coded, number) in made.iter().zip(&numbers) {
        let fast = (240..64 * 30).contains(number);
        assert_eq!(coded.duration, if fast { 3000 } else { 9000 }, "picture {number}");
    }
    let kbit = |seconds: std::ops::Range<i64>| {
        let inside = made.iter().zip(&numbers).filter(|(_, number)| (seconds.start * 30..seconds.end * 30).contains(*number));
        inside.map(|(coded, _)| coded.payload.len() * 8).sum::<usize>() as f64 / 1000.0 / (seconds.end - seconds.start) as f64
    };
    let (slow, fast) = (kbit(2..8), kbit(10..50));
    println!("{slow:.2} kbit/s at 10 pictures a second, {fast:.2} at 30, of {KBIT}");
    // More by what the buffer of a second lends to 40 s, at most.
    for rate in [slow, fast] {
        assert!((KBIT * 0.85..=KBIT * 1.025).contains(&rate), "{slow} and {fast}");
    }
}
