//! Sources that change all the time, and such as no decoder should be given: the real program under the real supervisor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod media;

use std::{
    collections::HashSet,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fastrand::Rng;
use media::{BEGIN_S, Rig, decoded, read, read_until, samples};
use media_core::{Cursor, Item, Parameters, Rung, Sample, Timestamp, Track, TrackId, codec::h264, ladder::Setting, stream::Made};

/// Memory that changes may leave behind, however many: what a run of the largest size takes and gives back.
const LEFT_KIB_MAX: u64 = 24 << 10;
/// From the first picture of a clean publisher to the first that is made of it.
const CLEAN_MAX: Duration = Duration::from_secs(2);

/// Two rungs of whatever comes: at its rate, and at a third of it.
fn rungs() -> Arc<[Rung]> {
    let rung = |number, divisor, lines, kbit: u32| Rung {
        id: TrackId::rung(number).unwrap(),
        made: Made::Rung(number),
        setting: Setting { lines, bitrate: kbit * 1000, gop_ms: 4000, ..Rung::ALIKE.setting },
        divisor,
        source_rate: 30.0,
        in_part: 6,
        ..Rung::ALIKE
    };
    Arc::from([rung(1, 1, 180, 600), rung(2, 3, 120, 300)])
}

fn counted(rig: &Rig, name: &str) -> f64 {
    let families = rig.metrics.gather();
    let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    metrics.map(|metric| metric.get_counter().get_value()).sum()
}

/// Later by so many milliseconds.
fn later(sample: &Sample, ms: i64) -> Sample {
    let by = Timestamp::from_millis(ms);
    Sample { pts: sample.pts + by, dts: sample.dts + by, ..sample.clone() }
}

fn is_long() -> bool {
    std::env::var_os("CODECAST_E2E").is_some_and(|on| on == "1")
}

/// A thousand with CODECAST_E2E=1.
#[test]
fn a_hundred_sizes_and_profiles_leave_nothing_behind() {
    let clip = |(width, height, profile)| media::clip(width, height, 12, "bframes=0", profile);
    let clips = [
        (640, 360, "high"),
        (320, 180, "high"),
        (1280, 720, "high"),
        (360, 640, "high"),
        (640, 360, "main"),
        (426, 240, "high"),
        (642, 362, "constrained-baseline"),
        (160, 90, "high"),
    ]
    .map(clip);
    let rig = Rig::new();
    rig.stream.set_rungs(rungs());
    let made = [Made::Rung(1), Made::Rung(2)];
    let demands = made.map(|made| rig.stream.demand(made));
    let mut cursors = demands.each_ref().map(|demand| demand.subscribe());
    let (mut items, mut sent, mut at_20) = ([Vec::new(), Vec::new()], Vec::new(), 0);
    let (mut pids, changes) = (HashSet::new(), if is_long() { 1000 } else { 100 });
    for change in 0..=changes {
        for sample in &clips[change % clips.len()] {
            let sample = later(sample, change as i64 * 400);
            sent.push(sample.pts);
            rig.publish(&sample);
        }
        // As fast as it goes: of the first picture of a change is made what can only come when the one before has ended.
        let first = sent[sent.len() - 12];
        for (cursor, items) in cursors.iter_mut().zip(&mut items) {
            read_until(cursor, items, |items| samples(&items[items.len().saturating_sub(1)..]).iter().any(|s| s.pts >= first));
        }
        pids.extend(rig.pid());
        if change == 20 {
            at_20 = rig.resident_kib().unwrap();
        }
    }
    let at_end = rig.resident_kib().unwrap();
    println!("{at_20} KiB after 20 changes, {at_end} after {changes}");
    assert_eq!((pids.len(), counted(&rig, "codecast_transcode_restarts_total")), (1, 0.0));
    assert_eq!(counted(&rig, "codecast_transcode_dropped_samples_total"), 0.0);
    assert!(at_end < at_20 + LEFT_KIB_MAX, "{at_20} KiB, then {at_end}");
    let mut missing = 0;
    for (items, divisor) in items.iter().zip([1, 3]) {
        let made = samples(items);
        let whole = sent[..sent.len() - 12].chunks(12).flat_map(|change| change.iter().step_by(divisor));
        let came: HashSet<_> = made.iter().map(|s| s.pts.ticks_in(media::scale(1000))).collect();
        missing += whole.filter(|pts| !came.contains(&pts.ticks_in(media::scale(1000)))).count();
        assert!(made.windows(2).all(|pair| pair[0].pts < pair[1].pts));
        let runs: Vec<_> = made.chunk_by(|a, b| Arc::ptr_eq(&a.track, &b.track)).collect();
        for run in &runs {
            assert!(run[0].keyframe, "a track begins with a keyframe");
            assert_eq!(decoded(run), run.len(), "all of it is decoded");
        }
        println!("{} pictures, {} tracks", made.len(), runs.len());
    }
    // They come faster than they are decoded, and to what is live.
    let shed = counted(&rig, "codecast_transcode_shed_pictures_total");
    assert!(missing as f64 <= shed, "{missing} pictures are missing, and {shed} were left out");
}

/// Less than `end`; 0 where that is 0.
fn below(end: usize, random: &mut Rng) -> usize {
    random.usize(..end.max(1))
}

/// What a broken line, encoder or attacker makes of an access unit. `None`: it is lost.
fn broken(sample: &Sample, others: &[Vec<Sample>], random: &mut Rng) -> Option<Sample> {
    let mut bytes = sample.payload.to_vec();
    match below(12, random) {
        0 => return None,
        1 => bytes.truncate(below(bytes.len(), random)),
        // The length of its first NAL unit.
        2 => bytes.iter_mut().take(4).for_each(|byte| *byte = random.u64(..) as u8),
        3 => {
            let other = &others[below(others.len(), random)];
            bytes = other[below(other.len(), random)].payload.to_vec();
        }
        // Parameter sets of another in front of it.
        4 => {
            let other = &others[below(others.len(), random)][0].track.parameters;
            let Parameters::H264(other) = other else { return None };
            let mut sets: Vec<u8> = other
                .sps()
                .into_iter()
                .chain(other.pps())
                .flat_map(|set| [&(set.len() as u32).to_be_bytes()[..], &set].concat())
                .collect();
            if below(2, random) == 0 {
                let at = below(sets.len(), random);
                sets[at] ^= 1 << below(8, random);
            }
            bytes.splice(0..0, sets);
        }
        5 => {
            let (from, to) = (below(bytes.len(), random), below(bytes.len(), random));
            let piece = bytes[from..(from + 64).min(bytes.len())].to_vec();
            bytes.splice(to..to, piece);
        }
        // Headers of slices are near the beginning.
        kind => {
            let reach = if kind < 9 { bytes.len().min(24) } else { bytes.len() };
            for _ in 0..=below(8, random) {
                let at = below(reach, random);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(8, random);
                }
            }
        }
    }
    Some(Sample { payload: Bytes::from(bytes), ..sample.clone() })
}

/// Parameters that the server would still take, and that are not those of the pictures.
fn wrong_track(clips: &[Vec<Sample>], random: &mut Rng) -> Option<Arc<Track>> {
    let Parameters::H264(parameters) = &clips[below(clips.len(), random)][0].track.parameters else { return None };
    let mut record = parameters.record.to_vec();
    for _ in 0..below(4, random) {
        let at = below(record.len(), random);
        record[at] ^= 1 << below(8, random);
    }
    let parameters = Parameters::H264(h264::Parameters::parse(Bytes::from(record)).ok()?);
    let Track { id, timescale, .. } = *clips[0][0].track;
    Some(Arc::new(Track { id, timescale, parameters }))
}

/// Ten seconds, and ten minutes with CODECAST_E2E=1; another seed by CODECAST_TEST_SEED.
#[test]
fn broken_pictures_cost_the_child_at_most() {
    // What a child is replaced for is in the log alone.
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let seed = std::env::var("CODECAST_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    let lasts = Duration::from_secs(if is_long() { 600 } else { 10 });
    let clips = [
        media::clip(640, 360, 30, "bframes=2", "high"),
        media::clip(640, 360, 30, "bframes=0 sliced-threads=true threads=4", "constrained-baseline"),
        media::clip(320, 180, 30, "bframes=1 ref=4", "main"),
        media::clip(480, 272, 30, "bframes=0 interlaced=true", "high"),
    ];
    let mut rig = Rig::new();
    rig.stream.set_rungs(rungs());
    let demands = [Made::Rung(1), Made::Rung(2)].map(|made| rig.stream.demand(made));
    let mut cursors = demands.each_ref().map(|demand| demand.subscribe());
    let (mut random, begun, mut clock_ms, mut units, mut made) = (Rng::with_seed(seed), Instant::now(), 0, 0_u64, 0);
    let mut largest = 0;
    while begun.elapsed() < lasts {
        let clip = &clips[below(clips.len(), &mut random)];
        let wrong = (below(6, &mut random) == 0).then(|| wrong_track(&clips, &mut random)).flatten();
        // Of most GOPs a tenth is broken, of some nearly all.
        let share = if below(8, &mut random) == 0 { 90 } else { 10 };
        for sample in clip {
            let sample = Sample { track: wrong.clone().unwrap_or_else(|| Arc::clone(&sample.track)), ..later(sample, clock_ms) };
            let hit = below(100, &mut random) < share;
            let Some(sent) = (if hit { broken(&sample, &clips, &mut random) } else { Some(sample) }) else { continue };
            for _ in 0..=usize::from(hit && below(8, &mut random) == 0) {
                rig.publish(&sent);
                units += 1;
            }
            // Four times as fast as it is shown.
            sleep(Duration::from_millis(8));
        }
        clock_ms += 1000;
        made += cursors.iter_mut().map(|cursor| samples(&read(cursor)).len()).sum::<usize>();
        largest = largest.max(rig.resident_kib().unwrap_or(0));
    }
    let restarts = counted(&rig, "codecast_transcode_restarts_total");
    println!("seed {seed}: {units} access units, {made} pictures made, {restarts} restarts, {largest} KiB at most");
    rig.rejoin();
    let back = back_after(&rig, &mut cursors[0], &media::clip(640, 360, 90, "bframes=0", "high"));
    println!("a clean publisher is made {back:?} after its first picture, {:?} KiB", rig.resident_kib());
    assert!(back < CLEAN_MAX, "{back:?}");
    assert!(made > 0 && largest < 1 << 20, "{made} pictures, {largest} KiB");
}

/// How long after a clean source begins the first picture of it comes.
fn back_after(rig: &Rig, cursor: &mut Cursor<Item>, clean: &[Sample]) -> Duration {
    read(cursor);
    let begun = Instant::now();
    let mut joined = false;
    for sample in clean {
        sleep((begun + (sample.dts - clean[0].dts).to_duration()).saturating_duration_since(Instant::now()));
        rig.publish(sample);
        for item in read(cursor) {
            joined |= matches!(item, Item::Join { .. });
            if joined && matches!(&item, Item::Sample(made) if made.pts < Timestamp::from_millis((BEGIN_S + 4) * 1000)) {
                return begun.elapsed();
            }
        }
    }
    panic!("nothing is made of a clean source");
}
