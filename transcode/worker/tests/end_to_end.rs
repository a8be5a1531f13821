//! The real program under the real supervisor: pictures and sound in, and what comes out measured.

mod media;

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use media::{BEGIN_S, LEFT_HZ, RIGHT_HZ, Rig, heard, read, read_until, samples, scale, tone};
use media_core::{Item, Parameters, Sample, Timestamp, codec::h264::Order, stream::Made};

/// Sends each Sample when its decode time has come.
fn send_live(rig: &Rig, media: &[Sample]) {
    let (begin, first) = (Instant::now(), media[0].dts);
    for sample in media {
        sleep((begin + (sample.dts - first).to_duration()).saturating_duration_since(Instant::now()));
        rig.publish(sample);
    }
}

fn assert_in_order_and_without_b_slices(made: &[Arc<Sample>]) {
    let mut order = Order::default();
    for pair in made.windows(2) {
        assert!(pair[0].pts < pair[1].pts);
    }
    for sample in made {
        assert_eq!(sample.pts, sample.dts);
        order.observe(sample);
    }
    assert_eq!(order, Order::Shown);
}

#[test]
fn pictures_keep_their_times_and_keyframes_and_lose_their_b_frames() {
    let source = media::video(1280, 720, 8, 2);
    let mut rig = Rig::new();
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    send_live(&rig, &source);
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
}

/// How long pictures take from being sent to being offered again, by their own time; printed, for it depends on the machine.
#[test]
fn latency() {
    for bframes in [2, 0] {
        let source = media::video(1280, 720, 8, bframes);
        let rig = Rig::new();
        let demand = rig.stream.demand(Made::Video);
        let mut cursor = demand.subscribe();
        let mut cpu = 0.0;
        let sender = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send_live(&rig, &source));
            let mut late = Vec::new();
            while !sending.is_finished() {
                cpu = rig.cpu_seconds();
                for sample in samples(&read(&mut cursor)) {
                    late.push((sample.received.elapsed().as_secs_f64() * 1000.0, sample.pts));
                }
                sleep(Duration::from_millis(1));
            }
            late
        });
        // The start of the program is not the matter here.
        let mut late: Vec<_> = sender.into_iter().filter(|(_, pts)| *pts > Timestamp::from_millis((BEGIN_S + 3) * 1000)).map(|l| l.0).collect();
        late.sort_by(f64::total_cmp);
        assert!(late.len() > 100, "{} pictures came in time", late.len());
        println!(
            "720p30 with {bframes} B-frames: p50 {:.1} ms, p99 {:.1} ms, largest {:.1} ms; {:.2} cores",
            late[late.len() / 2],
            late[late.len() * 99 / 100],
            late[late.len() - 1],
            cpu / 8.0
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
        let index = |seconds: f64| (seconds * 48_000.0) as usize - begin as usize;
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
    let source = media::video(640, 360, 8, 2);
    let mut rig = Rig::new();
    let demand = rig.stream.demand(Made::Video);
    let mut cursor = demand.subscribe();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_live(&rig, &source));
        sleep(Duration::from_millis(3500));
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
    let widths: Vec<_> = samples(&items).chunk_by(|a, b| Arc::ptr_eq(&a.track, &b.track)).map(|run| (width(&run[0]), run.len())).collect();
    assert_eq!(widths, [(640, 60), (1280, 60), (640, 60)]);
    let words: Vec<_> = items.iter().filter(|item| !matches!(item, Item::Sample(_))).collect();
    assert!(matches!(words[..], [Item::Join { .. }, Item::Leave, Item::Join { .. }, Item::Leave]), "{words:?}");
}

fn width(sample: &Sample) -> u32 {
    let Parameters::H264(parameters) = &sample.track.parameters else { panic!("a picture is H.264") };
    parameters.width
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
