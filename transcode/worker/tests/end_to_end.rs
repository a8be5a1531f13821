//! The real program under the real supervisor: pictures and sound in, and what comes out measured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod media;

use std::{
    io::{Read, Write},
    sync::{Arc, mpsc},
    task::{Context, Waker},
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use media::{BEGIN_S, LEFT_HZ, RIGHT_HZ, Rig, heard, read, read_until, samples, scale, tone};
use media_core::{Item, Parameters, Rung, Sample, Timestamp, TrackId, codec::h264, stream::Made};
use transcode::wire::{Coded, LaneId, Message, Order, PICTURE_LANES, Reader, Report, Wish};

const PICTURES: LaneId = PICTURE_LANES.start;

/// Sends each Sample when its decode time has come.
fn send_live(rig: &Rig, media: &[Sample]) {
    let (begin, first) = (Instant::now(), media[0].dts);
    for sample in media {
        sleep((begin + (sample.dts - first).to_duration()).saturating_duration_since(Instant::now()));
        rig.publish(sample);
    }
}

fn assert_in_order_and_without_b_slices(made: &[Arc<Sample>]) {
    let mut order = h264::Order::default();
    for pair in made.windows(2) {
        assert!(pair[0].pts < pair[1].pts);
    }
    for sample in made {
        assert_eq!(sample.pts, sample.dts);
        order.observe(sample);
    }
    assert_eq!(order, h264::Order::Shown);
}

/// What is made of it is H.264 with every picture at its time and its keyframes; how many bytes that is of the source's.
fn made_as_shown(source: &[Sample]) -> f64 {
    let mut rig = Rig::new();
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    send_live(&rig, source);
    let mut items = Vec::new();
    rig.publication = None;
    read_until(&mut cursor, &mut items, |items| matches!(items.last(), Some(Item::Leave)));
    assert!(matches!(items[0], Item::Join { .. }));
    let made = samples(&items);
    assert_in_order_and_without_b_slices(&made);
    let mut shown: Vec<_> = source.iter().map(|s| s.pts).collect();
    shown.sort();
    assert_eq!(made.iter().map(|s| s.pts).collect::<Vec<_>>(), shown, "every picture at its time");
    let keys = |samples: &mut dyn Iterator<Item = (Timestamp, bool)>| samples.filter(|s| s.1).map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(keys(&mut made.iter().map(|s| (s.pts, s.keyframe))), keys(&mut source.iter().map(|s| (s.pts, s.keyframe))));
    assert_eq!(made[0].pts.scale, scale(90_000));
    assert!(made.iter().all(|sample| width(sample) == 640));
    let bits = |samples: &mut dyn Iterator<Item = usize>| samples.sum::<usize>() as f64;
    bits(&mut made.iter().map(|s| s.payload.len())) / bits(&mut source.iter().map(|s| s.payload.len()))
}

#[test]
fn pictures_keep_their_times_and_keyframes_and_lose_their_b_frames() {
    let ratio = made_as_shown(&media::video(640, 360, 5, 2));
    println!("{ratio:.2} of the source's bits");
    assert!((0.5..1.5).contains(&ratio), "{ratio} of the source's bits");
}

#[test]
fn hevc_with_b_frames_becomes_h264_as_it_is_shown() {
    let source = media::hevc(3);
    assert_eq!(source[0].track.parameters.reorder_frames(), Some(2));
    made_as_shown(&source);
}

#[test]
fn av1_becomes_h264() {
    made_as_shown(&media::av1(3));
}

/// How long pictures take from being sent to being offered again, by their own time; printed, for it depends on the machine.
#[test]
fn latency() {
    for bframes in [2, 0] {
        let rig = Rig::new();
        let source = media::video(1280, 720, 7, bframes);
        let demand = rig.stream.demand(Made::Video);
        let mut cursor = demand.subscribe();
        let mut cpu = 0.0;
        let sender = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send_live(&rig, &source));
            let (mut late, begun) = (Vec::new(), Instant::now());
            while !sending.is_finished() {
                cpu = rig.cpu_seconds();
                for sample in samples(&read(&mut cursor)) {
                    if late.is_empty() {
                        println!("the first picture comes {:?} after the first one is sent", begun.elapsed());
                    }
                    late.push((sample.received.elapsed().as_secs_f64() * 1000.0, sample.pts));
                }
                sleep(Duration::from_millis(1));
            }
            late
        });
        // The start of the program is not the matter here.
        let mut late: Vec<_> =
            sender.into_iter().filter(|(_, pts)| *pts > Timestamp::from_millis((BEGIN_S + 2) * 1000)).map(|l| l.0).collect();
        late.sort_by(f64::total_cmp);
        assert!(!late.is_empty(), "no picture came while they were sent");
        println!(
            "720p30 with {bframes} B-frames: p50 {:.1} ms, p99 {:.1} ms, largest {:.1} ms; {:.2} cores",
            late[late.len() / 2],
            late[late.len() * 99 / 100],
            late[late.len() - 1],
            cpu / 7.0
        );
    }
}

/// As fast as it goes, but never so fast that Samples are dropped.
fn transcode_sound(rig: &Rig, made: Made, source: &[Sample]) -> Vec<Arc<Sample>> {
    let demand = rig.stream.demand(made);
    let mut cursor = demand.subscribe();
    // The program reads what comes after it has started.
    let mut items = Vec::new();
    let (first, rest) = source.split_at(1);
    rig.publish(&first[0]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while gauge(rig, "codecast_transcode_outputs") < 1.0 {
        assert!(Instant::now() < deadline, "the program does not start");
        sleep(Duration::from_millis(5));
    }
    for sample in rest {
        rig.publish(sample);
        read_until(&mut cursor, &mut items, |items| match samples(&items[items.len().saturating_sub(1)..]).last() {
            Some(last) => sample.pts < last.pts + Timestamp::from_millis(500),
            None => sample.pts < source[0].pts + Timestamp::from_millis(500),
        });
    }
    let end = source[source.len() - 1].pts - Timestamp::from_millis(60);
    read_until(&mut cursor, &mut items, |items| samples(items).last().is_some_and(|last| last.pts > end));
    assert_eq!(gauge(rig, "codecast_transcode_dropped_samples_total"), 0.0);
    samples(&items)
}

fn gauge(rig: &Rig, name: &str) -> f64 {
    let families = rig.metrics.gather();
    let family = families.iter().find(|family| family.name() == name);
    family.map_or(0.0, |f| f.get_metric().iter().map(|m| m.get_gauge().get_value() + m.get_counter().get_value()).sum())
}

/// Every second of it holds the two tones, each on its side, at their level and time, and little else.
fn assert_clean(made: &[Arc<Sample>], rest_db_max: f64) {
    let frame = i64::from(made[0].duration.unwrap());
    for pair in made.windows(2) {
        assert_eq!((pair[1].pts - pair[0].pts).ticks, frame, "a gap or an overlap after {:?}", pair[0].pts);
    }
    let rate = made[0].pts.scale.ticks_per_second();
    assert_eq!(rate, 48_000);
    let begin = made[0].pts.ticks - BEGIN_S * i64::from(rate);
    let [left, right] = heard(made);
    let (mut worst_rest, mut worst_late) = (f64::MIN, 0f64);
    // The first and the last moments hold the codecs' own beginnings and ends.
    for at in (9_600..left.len() - 14_400).step_by(4_800) {
        for (side, hz, other) in [(&left, LEFT_HZ, RIGHT_HZ), (&right, RIGHT_HZ, LEFT_HZ)] {
            let piece = &side[at..at + 4_800];
            let found = tone(piece, begin + at as i64, hz);
            assert!((0.35..0.45).contains(&found.level), "level {} at sample {at}", found.level);
            assert!(tone(piece, begin + at as i64, other).level < 0.01, "the other side's tone at sample {at}");
            worst_rest = worst_rest.max(found.rest_db);
            worst_late = worst_late.max(found.late_ms.abs());
        }
    }
    println!("{} frames: worst 100 ms {worst_rest:.1} dB beside the tone, {worst_late:.3} ms off", made.len());
    assert!(worst_rest < rest_db_max, "{worst_rest} dB");
    assert!(worst_late < 0.1, "{worst_late} ms");
}

#[test]
fn aac_becomes_clean_opus() {
    for rate in [48_000, 44_100] {
        let rig = Rig::new();
        let source = media::aac(rate, 60);
        let made = transcode_sound(&rig, Made::Opus, &source);
        assert!(matches!(made[0].track.parameters, Parameters::Opus(_)));
        assert!(made.len() > 2900, "{} frames of a minute", made.len());
        assert_clean(&made, -20.0);
    }
}

#[test]
fn opus_becomes_clean_aac() {
    let rig = Rig::new();
    let made = transcode_sound(&rig, Made::Aac, &media::opus(60));
    assert!(matches!(made[0].track.parameters, Parameters::Aac(_)));
    assert!(made.len() > 2700, "{} frames of a minute", made.len());
    assert_clean(&made, -20.0);
}

#[test]
fn a_hole_is_filled_and_what_follows_is_in_its_place() {
    let rig = Rig::new();
    let mut source = media::aac(44_100, 12);
    source.drain(200..210);
    let made = transcode_sound(&rig, Made::Opus, &source);
    let frame = i64::from(made[0].duration.unwrap());
    assert!(made.windows(2).all(|pair| (pair[1].pts - pair[0].pts).ticks == frame));
    let begin = made[0].pts.ticks - BEGIN_S * 48_000;
    let [left, _] = heard(&made);
    // The hole is from 4.62 s to 4.85 s.
    for (from_s, to_s, level) in [(2.0, 4.5, 0.4), (4.66, 4.82, 0.0), (4.9, 10.0, 0.4)] {
        let index = |seconds: f64| ((seconds * 48_000.0) as i64 - begin) as usize;
        let piece = &left[index(from_s)..index(to_s)];
        let found = tone(piece, begin + index(from_s) as i64, LEFT_HZ);
        assert!((found.level - level).abs() < 0.02, "{from_s} s: {}", found.level);
        assert!(level == 0.0 || found.late_ms.abs() < 0.1, "{from_s} s: {} ms late", found.late_ms);
    }
}

#[test]
fn surround_is_mixed_down() {
    let rig = Rig::new();
    let made = transcode_sound(&rig, Made::Opus, &media::aac_of(48_000, 5, 6));
    let begin = made[0].pts.ticks - BEGIN_S * 48_000;
    let [left, right] = heard(&made);
    let (l, r) = (tone(&left[48_000..96_000], begin + 48_000, LEFT_HZ), tone(&right[48_000..96_000], begin + 48_000, RIGHT_HZ));
    assert!(l.level > 0.1 && r.level > 0.1 && l.rest_db < -20.0 && r.rest_db < -20.0, "{} {}", l.level, r.level);
    assert!(l.late_ms.abs() < 0.1 && r.late_ms.abs() < 0.1, "{} {}", l.late_ms, r.late_ms);
}

#[test]
fn a_killed_program_costs_no_picture() {
    let mut rig = Rig::new();
    let source = media::video(640, 360, 6, 2);
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_live(&rig, &source));
        sleep(Duration::from_millis(2500));
        let pid = rig.pid().expect("the program runs").to_string();
        assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        sending.join().unwrap();
    });
    let mut items = Vec::new();
    rig.publication = None;
    read_until(&mut cursor, &mut items, |items| matches!(items.last(), Some(Item::Leave)));
    assert_eq!(gauge(&rig, "codecast_transcode_restarts_total"), 1.0);
    let made = samples(&items);
    assert_in_order_and_without_b_slices(&made);
    assert_eq!(made.len(), source.len(), "what the first one had not made, the second one has");
    let keys = |samples: &mut dyn Iterator<Item = bool>| samples.filter(|key| *key).count();
    assert_eq!(keys(&mut made.iter().map(|s| s.keyframe)), keys(&mut source.iter().map(|s| s.keyframe)) + 1);
    assert!(Arc::ptr_eq(&made[0].track, &made[made.len() - 1].track));
}

/// The last pictures before a silence do not stay in a decoder that waits for others.
#[test]
fn a_publisher_that_falls_silent_leaves_no_picture_behind() {
    let rig = Rig::new();
    let source = media::video(640, 360, 4, 2);
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    send_live(&rig, &source);
    let mut items = Vec::new();
    read_until(&mut cursor, &mut items, |items| samples(items).len() >= source.len());
    let made = samples(&items);
    assert_in_order_and_without_b_slices(&made);
    assert_eq!((made.len(), gauge(&rig, "codecast_transcode_restarts_total")), (source.len(), 0.0));
    assert!(!items.iter().any(|item| matches!(item, Item::Leave)), "it is still there");
}

/// Two that are asked for at different times: the second catches up by itself, and goes on in the lane of the first.
#[test]
fn what_is_asked_for_later_joins_without_a_hole() {
    let mut rig = Rig::new();
    let source = media::video(640, 360, 9, 0);
    let setting =
        |lines, kbit: u32| media_core::ladder::Setting { lines, bitrate: kbit * 1000, gop_ms: 4000, ..Rung::ALIKE.setting };
    let rung = |number, divisor, lines, kbit| Rung {
        id: TrackId::rung(number).unwrap(),
        made: Made::Rung(number),
        setting: setting(lines, kbit),
        divisor,
        source_rate: 30.0,
        in_part: 6,
        ..Rung::ALIKE
    };
    rig.stream.set_rungs(Arc::from([rung(1, 1, 270, 600), rung(2, 3, 180, 300)]));
    let first = rig.stream.demand(Made::Rung(1));
    let mut cursors = [first.subscribe(), rig.stream.subscribe_made(Made::Rung(2))];
    let (stream, mut second) = (Arc::clone(&rig.stream), None);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_live(&rig, &source));
        sleep(Duration::from_millis(3500));
        second = Some(stream.demand(Made::Rung(2)));
        sending.join().unwrap();
    });
    rig.publication = None;
    let made = cursors.each_mut().map(|cursor| {
        let mut items = Vec::new();
        read_until(cursor, &mut items, |items| matches!(items.last(), Some(Item::Leave)));
        assert_eq!(items.iter().filter(|item| matches!(item, Item::Join { .. })).count(), 1);
        samples(&items)
    });
    assert_eq!(made[0].iter().map(|s| s.pts).collect::<Vec<_>>(), source.iter().map(|s| s.pts).collect::<Vec<_>>());
    for pair in made[1].windows(2) {
        assert_eq!((pair[1].pts - pair[0].pts).as_micros() / 1000, 100, "every third picture, also where it changed lanes");
    }
    assert_in_order_and_without_b_slices(&made[1]);
    // From the keyframe before on: nobody had said where a segment began.
    assert!((55..=60).contains(&made[1].len()), "{}", made[1].len());
    assert!(Arc::ptr_eq(&made[1][0].track, &made[1][made[1].len() - 1].track), "the second encoder made the same track");
    assert_eq!(gauge(&rig, "codecast_transcode_restarts_total"), 0.0);
}

/// Somebody types. What was made as the source has it is made at a constant rate as soon as the presentation wants that, and what is
/// asked for later goes on in the same lane from a cut on.
#[test]
fn pictures_of_a_constant_rate_have_no_hole_where_lanes_meet() {
    let mut rig = Rig::new();
    let all = media::video(640, 360, 14, 0);
    let source: Vec<_> = all.into_iter().enumerate().filter(|(n, _)| !(4..26).contains(&(n % 30))).map(|(_, s)| s).collect();
    let constant = |rung: Rung| Rung {
        setting: media_core::ladder::Setting { gop_ms: 2000, ..rung.setting },
        cut_every_ms: 2000,
        source_rate: 30.0,
        in_part: 6,
        ..rung
    };
    let slow = Rung { id: TrackId::rung(1).unwrap(), made: Made::Rung(1), divisor: 3, ..Rung::ALIKE };
    let slow = Rung { setting: media_core::ladder::Setting { lines: 180, bitrate: 300_000, ..slow.setting }, ..slow };
    rig.stream.set_rungs(Arc::from([Rung::ALIKE, slow]));
    let first = rig.stream.demand(Made::Video);
    let mut cursors = [first.subscribe(), rig.stream.subscribe_made(Made::Rung(1))];
    let (stream, mut second) = (Arc::clone(&rig.stream), None);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_live(&rig, &source));
        sleep(Duration::from_millis(2500));
        stream.set_rungs(Arc::from([constant(Rung::ALIKE), constant(slow)]));
        sleep(Duration::from_millis(2500));
        second = Some(stream.demand(Made::Rung(1)));
        sending.join().unwrap();
    });
    rig.publication = None;
    for (cursor, distance, from_ms) in cursors.iter_mut().zip([1, 3]).zip([4000, 7000]).map(|((c, d), f)| (c, d, f)) {
        let mut items = Vec::new();
        read_until(cursor, &mut items, |items| matches!(items.last(), Some(Item::Leave)));
        let later: Vec<_> =
            samples(&items).into_iter().filter(|s| s.pts.as_micros() / 1000 >= BEGIN_S * 1000 + from_ms).collect();
        let slots: Vec<_> = later.iter().map(|s| s.pts.ticks_in(scale(30))).collect();
        assert!(slots.windows(2).all(|pair| pair[1] == pair[0] + distance), "{slots:?}");
        // Up to its last picture, or as long behind it as none is late.
        assert!(*slots.last().unwrap() >= (BEGIN_S + 13) * 30 + 26 - distance, "{slots:?}");
        let keyframes: Vec<_> = later.iter().zip(&slots).filter(|(s, _)| s.keyframe).map(|(_, slot)| slot % 60).collect();
        assert!(keyframes.len() >= 3 && keyframes.iter().all(|into| *into == 0), "{keyframes:?}");
    }
    assert_eq!(gauge(&rig, "codecast_transcode_restarts_total"), 0.0);
}

/// Latency does not stay where a stall has brought it.
#[test]
fn a_stall_is_made_up_for() {
    let rig = Rig::new();
    let source = media::video(640, 360, 6, 2);
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    let late = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_live(&rig, &source));
        let stalling = scope.spawn(|| {
            sleep(Duration::from_millis(2500));
            let pid = rig.pid().expect("the program runs").to_string();
            for (signal, then_ms) in [("-STOP", 700), ("-CONT", 0)] {
                assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
                sleep(Duration::from_millis(then_ms));
            }
        });
        let mut late = Vec::new();
        while !sending.is_finished() {
            late.extend(samples(&read(&mut cursor)).iter().map(|s| (s.pts, s.received.elapsed())));
            sleep(Duration::from_millis(1));
        }
        stalling.join().unwrap();
        late
    });
    let span = |from_ms: i64, to_ms: i64| {
        let span = Timestamp::from_millis(BEGIN_S * 1000 + from_ms)..Timestamp::from_millis(BEGIN_S * 1000 + to_ms);
        let mut late: Vec<_> = late.iter().filter(|(pts, _)| span.contains(pts)).map(|(_, late)| *late).collect();
        late.sort();
        late[late.len() / 2]
    };
    let (before, during, after) = (span(1500, 2400), span(2500, 3000), span(4500, 5500));
    println!("before {before:?}, during {during:?}, after {after:?}");
    assert!(during > Duration::from_millis(300) && after < before + Duration::from_millis(100));
    assert_eq!(gauge(&rig, "codecast_transcode_dropped_samples_total"), 0.0, "so much lag is made up for, not cut out");
}

/// What decoders make of bytes that are no media is lost, and nothing else is.
#[test]
fn garbage_costs_what_it_replaces() {
    let rig = Rig::new();
    let mut source = media::video(640, 360, 4, 2);
    for sample in &mut source[40..45] {
        sample.payload = Bytes::from_static(b"\0\0\0\x05\x41no media, and a length that lies: \xff\xff\xff\xff");
    }
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    send_live(&rig, &source);
    let mut items = Vec::new();
    let end = Timestamp::from_millis((BEGIN_S + 3) * 1000 + 700);
    read_until(&mut cursor, &mut items, |items| samples(items).last().is_some_and(|last| last.pts > end));
    let made = samples(&items);
    assert_in_order_and_without_b_slices(&made);
    let whole = made.iter().filter(|s| s.pts >= Timestamp::from_millis((BEGIN_S + 2) * 1000)).count();
    assert!(whole > 50, "from the next keyframe on all is there, {whole}");
    assert_eq!(gauge(&rig, "codecast_transcode_restarts_total"), 0.0);
}

#[test]
fn garbage_in_sound_is_silence_in_its_place() {
    let rig = Rig::new();
    let mut source = media::aac(44_100, 10);
    for sample in &mut source[200..206] {
        sample.payload = Bytes::from_static(b"\xff\xf1no media\xff\xff\xff");
    }
    let made = transcode_sound(&rig, Made::Opus, &source);
    assert!(made.windows(2).all(|pair| (pair[1].pts - pair[0].pts).ticks == 960));
    let begin = made[0].pts.ticks - BEGIN_S * 48_000;
    let [left, _] = heard(&made);
    for from in [48_000, left.len() - 96_000] {
        let found = tone(&left[from..from + 48_000], begin + from as i64, LEFT_HZ);
        assert!((found.level - 0.4).abs() < 0.02 && found.late_ms.abs() < 0.1, "{} {} ms late", found.level, found.late_ms);
    }
    assert_eq!(gauge(&rig, "codecast_transcode_restarts_total"), 0.0);
}

#[test]
fn another_size_and_another_publisher() {
    let small = media::video(640, 360, 2, 2);
    let large: Vec<_> = media::video(1280, 720, 2, 2)
        .into_iter()
        .map(|s| Sample { pts: s.pts + Timestamp::from_millis(2000), dts: s.dts + Timestamp::from_millis(2000), ..s })
        .collect();
    let mut rig = Rig::new();
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    let mut items = Vec::new();
    send_live(&rig, &small);
    send_live(&rig, &large);
    rig.rejoin();
    send_live(&rig, &small);
    rig.publication = None;
    read_until(&mut cursor, &mut items, |items| items.iter().filter(|item| matches!(item, Item::Leave)).count() == 2);
    let widths: Vec<_> =
        samples(&items).chunk_by(|a, b| Arc::ptr_eq(&a.track, &b.track)).map(|run| (width(&run[0]), run.len())).collect();
    assert_eq!(widths, [(640, 60), (1280, 60), (640, 60)]);
    let words: Vec<_> = items.iter().filter(|item| !matches!(item, Item::Sample(_))).collect();
    assert!(matches!(words[..], [Item::Join { .. }, Item::Leave, Item::Join { .. }, Item::Leave]), "{words:?}");
}

fn width(sample: &Sample) -> u32 {
    let Parameters::H264(parameters) = &sample.track.parameters else { panic!("a picture is H.264") };
    parameters.width
}

#[test]
fn a_killed_program_leaves_sound_on_its_grid() {
    let rig = Rig::new();
    let source = media::opus(6);
    let demand = rig.stream.demand(Made::Aac);
    let mut cursor = demand.subscribe();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_live(&rig, &source));
        sleep(Duration::from_millis(2500));
        let pid = rig.pid().expect("the program runs").to_string();
        assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        sending.join().unwrap();
    });
    let mut items = Vec::new();
    let end = source[source.len() - 1].pts - Timestamp::from_millis(100);
    read_until(&mut cursor, &mut items, |items| samples(items).last().is_some_and(|last| last.pts > end));
    assert_eq!(gauge(&rig, "codecast_transcode_restarts_total"), 1.0);
    let made = samples(&items);
    assert!(made.windows(2).all(|pair| (pair[1].pts - pair[0].pts).ticks == 1024), "what was lost is silence");
    let begin = made[0].pts.ticks - BEGIN_S * 48_000;
    let [left, _] = heard(&made);
    let from = left.len() - 96_000;
    let found = tone(&left[from..from + 48_000], begin + from as i64, LEFT_HZ);
    assert!((found.level - 0.4).abs() < 0.02 && found.late_ms.abs() < 0.1, "{} {} ms late", found.level, found.late_ms);
}

#[test]
fn another_rate_in_the_middle_leaves_sound_on_its_grid() {
    let rig = Rig::new();
    let (first, second) = (media::aac(44_100, 4), media::aac(48_000, 8));
    // From the second that the first one reaches last.
    let end = first[first.len() - 1].pts;
    let source: Vec<_> = first.into_iter().chain(second.into_iter().filter(|s| s.pts > end)).collect();
    let made = transcode_sound(&rig, Made::Opus, &source);
    assert!(made.windows(2).all(|pair| (pair[1].pts - pair[0].pts).ticks == 960));
    let begin = made[0].pts.ticks - BEGIN_S * 48_000;
    let [left, _] = heard(&made);
    for from in [48_000, left.len() - 96_000] {
        let found = tone(&left[from..from + 48_000], begin + from as i64, LEFT_HZ);
        assert!((found.level - 0.4).abs() < 0.02 && found.late_ms.abs() < 0.1, "{} {} ms late", found.level, found.late_ms);
    }
}

/// So a child never outlives codecast, however that ended.
#[test]
fn the_program_ends_with_its_input() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_codecast-transcode"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it lives on");
        sleep(Duration::from_millis(5));
    }
}

/// The program by itself, where GStreamer has no plugins.
#[test]
fn a_track_that_cannot_be_decoded_is_refused_and_read_on() {
    let source = media::av1(1);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_codecast-transcode"))
        .envs(["GST_PLUGIN_SYSTEM_PATH_1_0", "GST_PLUGIN_SYSTEM_PATH"].map(|name| (name, "/nowhere")))
        .env("GST_REGISTRY", std::env::temp_dir().join(format!("codecast-registry-{}", std::process::id())))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let s = &source[0];
    let coded = Coded { pts: s.pts, dts: s.dts, duration: 0, keyframe: true, cut: true, live: true, payload: s.payload.clone() };
    for order in [
        Order::Make(PICTURES, Made::Video, Wish::default()),
        Order::Track(PICTURES, Arc::clone(&s.track)),
        Order::Sample(PICTURES, coded),
        Order::End(PICTURES),
    ] {
        let frame = order.encode();
        input.write_all(&[frame.head, frame.payload].concat()).unwrap();
    }
    let (mut reader, mut bytes, mut reports) = (Reader::<Report>::default(), vec![0; 65_536], Vec::new());
    while !matches!(reports.last(), Some(Report::Ended(_))) {
        let length = output.read(&mut bytes).unwrap();
        assert!(length > 0, "it ended: {reports:?}");
        reader.buffer().extend_from_slice(&bytes[..length]);
        while let Some(report) = reader.next_message().unwrap() {
            reports.push(report);
        }
    }
    let [Report::Hello { .. }, Report::Refused(PICTURES, sentence), Report::Consumed(PICTURES, 1), Report::Ended(_)] =
        &reports[..]
    else {
        panic!("{reports:?}")
    };
    assert!(sentence.contains("av1parse") && sentence.contains("av01."), "{sentence}");
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// All that the program says, as it comes.
fn reports_of(mut output: std::process::ChildStdout) -> mpsc::Receiver<Report> {
    let (told, reports) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut reader, mut bytes) = (Reader::<Report>::default(), vec![0; 65_536]);
        while let Ok(length @ 1..) = output.read(&mut bytes) {
            reader.buffer().extend_from_slice(&bytes[..length]);
            while let Some(report) = reader.next_message().unwrap() {
                // Who has heard enough has gone.
                let _ = told.send(report);
            }
        }
    });
    reports
}

fn picture(report: Report) -> Option<Coded> {
    match report {
        Report::Sample(_, _, coded) => Some(coded),
        _ => None,
    }
}

/// The program by itself, spoken to as codecast does.
#[test]
fn a_keyframe_comes_when_it_is_asked_for() {
    let source = media::video(640, 360, 3, 0);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_codecast-transcode"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let reports = reports_of(output);
    let mut say = |order: Order| {
        let frame = order.encode();
        input.write_all(&[frame.head, frame.payload].concat()).unwrap();
    };
    say(Order::Make(PICTURES, Made::Video, Wish::default()));
    say(Order::Track(PICTURES, Arc::clone(&source[0].track)));
    let mut made = Vec::new();
    for (n, s) in source.iter().enumerate() {
        if n == 45 {
            // What was sent before is made, as far as it goes without more: the wish meets a picture between two keyframes.
            while made.len() < 36 {
                made.extend(picture(reports.recv_timeout(Duration::from_secs(60)).expect("pictures are made")));
            }
            while let Ok(report) = reports.recv_timeout(Duration::from_millis(500)) {
                made.extend(picture(report));
            }
            say(Order::Keyframe(PICTURES, Made::Video));
        }
        let coded = Coded {
            pts: s.pts,
            dts: s.dts,
            duration: 0,
            keyframe: s.keyframe,
            cut: s.keyframe,
            live: true,
            payload: s.payload.clone(),
        };
        say(Order::Sample(PICTURES, coded));
    }
    say(Order::End(PICTURES));
    made.extend(reports.iter().take_while(|report| !matches!(report, Report::Ended(_))).filter_map(picture));
    let keys: Vec<_> = made.iter().filter(|coded| coded.keyframe).map(|coded| coded.pts.ticks_in(scale(30))).collect();
    drop(input);
    assert!(child.wait().unwrap().success());
    let first = keys[0];
    let keys: Vec<_> = keys.iter().map(|key| key - first).collect();
    assert!(keys.len() == 4 && keys[..2] == [0, 30] && (43..48).contains(&keys[2]) && keys[3] == 60, "{keys:?}");
}

/// Of the colours that the publisher sent, by BT.709 and, where it is small, by BT.601.
#[test]
fn a_thumbnail_is_a_small_jpeg_of_the_newest_keyframe() {
    let check = |source: &[Sample], size: (u16, u16), colour: Option<[u8; 3]>| {
        let rig = Rig::new();
        source.iter().for_each(|sample| rig.publish(sample));
        let asked = Instant::now();
        let _demand = rig.stream.demand(Made::Thumbnail);
        let mut thumbnails = Vec::new();
        while thumbnails.is_empty() {
            assert!(asked.elapsed() < Duration::from_secs(20), "no thumbnail comes");
            sleep(Duration::from_millis(2));
            let mut cursor = rig.stream.subscribe_thumbnails();
            let _ = cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut thumbnails, 1);
        }
        let (bytes, after) = (thumbnails[0].jpeg.len(), asked.elapsed());
        println!("{}: {bytes} bytes after {after:?}, {} s of a core", source[0].track.codec_string(), rig.cpu_seconds());
        let (width, height, pixels) = media::shown(&thumbnails[0].jpeg);
        assert_eq!((width, height), size);
        let middle = (usize::from(height) / 2 * usize::from(width) + usize::from(width) / 2) * 3;
        let off = |colour: [u8; 3]| pixels[middle..middle + 3].iter().zip(colour).map(|(a, b)| a.abs_diff(b)).max();
        assert!(colour.is_none_or(|colour| off(colour) < Some(8)), "{:?}", &pixels[middle..middle + 3]);
    };
    let red = "solid-color foreground-color=0xffc81428";
    check(&media::video_of(red, 1920, 1080, 1, 2), (640, 360), Some([0xc8, 0x14, 0x28]));
    check(&media::video_of(red, 360, 640, 1, 0), (360, 640), Some([0xc8, 0x14, 0x28]));
    check(&media::video_of("white", 1280, 720, 1, 0), (640, 360), Some([0xff; 3]));
    check(&media::hevc(1), (640, 360), None);
    check(&media::av1(1), (640, 360), None);
}

/// Of another machine they may be a tenth or ten times of what is assumed.
#[test]
fn the_program_says_what_its_work_costs_here() {
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_codecast-transcode")).arg("--measure").output().unwrap();
    let (said, complaint) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{complaint}");
    let measured: transcode::prices::Measured = said.parse().unwrap();
    println!("{measured}");
    assert!((0.4..40.0).contains(&measured.encode) && (0.2..24.0).contains(&measured.decode), "{measured}");
}
