//! WebRTC publishers in virtual time: pictures as a camera and a network give them, keyframes when they are asked for.

use std::sync::Arc;

use bytes::Bytes;
use media_core::{Item, Parameters, Sample, Timescale, Timestamp, Track, TrackId, codec::h264, codec::opus};
use packager::hls::presentation::{Settings, Verdict};

use crate::{
    presentation::Run,
    script::{self, Audio, Keys, Publisher, Video},
};

const CLOCK: Timescale = Timescale::new(90_000).expect("90000 is not 0");

/// xorshift64: the same in every run.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most.unsigned_abs()) as i64
    }
}

/// An SPS that tells no rate, as browsers write it; `width` tells one from another.
fn track(width: u32) -> Arc<Track> {
    let any = script::video_track(h264::FrameRate { frames: 30, seconds: 1 }, width);
    let Parameters::H264(parameters) = &any.parameters else { unreachable!() };
    let record = [&parameters.record[..3], &[width as u8], &parameters.record[4..]].concat();
    let parameters = h264::Parameters { frame_rate: None, record: Bytes::from(record), ..parameters.clone() };
    Arc::new(Track { id: TrackId::VIDEO, timescale: CLOCK, parameters: Parameters::H264(parameters) })
}

pub fn opus_track() -> Arc<Track> {
    let parameters = Parameters::Opus(opus::Parameters { channels: 2 });
    Arc::new(Track { id: TrackId::AUDIO, timescale: Timescale::new(opus::SAMPLE_RATE).unwrap(), parameters })
}

/// How a source gives its pictures.
#[derive(Clone, Copy)]
struct Camera {
    /// Microseconds to the next picture, given when the last was.
    distance: fn(&mut Chance, i64) -> i64,
    /// A new size from so many microseconds on.
    resized_us: Option<i64>,
    /// Whether the picture itself is sent.
    sends: fn(Shot) -> bool,
    /// Of each further layer: whether it has this picture, and as a keyframe.
    layers: &'static [fn(Shot) -> Option<bool>],
}

/// A picture that is taken.
#[derive(Clone, Copy)]
struct Shot {
    at_us: i64,
    key: bool,
    /// Pictures since the last keyframe.
    since_key: u32,
}

fn uneven(chance: &mut Chance, _at: i64) -> i64 {
    match chance.below(40) {
        0 => 100_000,
        1 | 2 => 66_667,
        _ => 33_333 - 15_000 + chance.below(30_000),
    }
}

const CAMERA: Camera = Camera { distance: uneven, resized_us: None, sends: |_| true, layers: &[] };

/// All that arrives until `until_us`, with the moment: pictures, and sound in frames of `audio`.
fn arrivals(camera: Camera, audio: &Arc<Track>, chance: &mut Chance, until_us: i64) -> Vec<(i64, Sample)> {
    let mut all = Vec::new();
    let (mut captured_us, mut key_due_us, mut arrived_us, mut since_key) = (0, 0, 0, 0);
    let mut layers_us = [0; TrackId::COUNT];
    let (mut picture, mut resized_us) = (track(360), camera.resized_us);
    while captured_us < until_us {
        let resized = resized_us.take_if(|us| captured_us >= *us).is_some();
        if resized {
            picture = track(640);
        }
        let key = resized || captured_us >= key_due_us;
        if key {
            key_due_us = captured_us + 2_000_000 + chance.below(100_000);
        }
        let at = Timestamp::from_micros(captured_us).to(CLOCK);
        // The network delivers in order, up to 60 ms late.
        arrived_us = (captured_us + chance.below(60_000)).max(arrived_us);
        since_key = if key { 0 } else { since_key + 1 };
        let shot = Shot { at_us: captured_us, key, since_key };
        if (camera.sends)(shot) {
            all.push((arrived_us, sample(&picture, at, None, key)));
        }
        let picture_us = arrived_us;
        for (number, layer) in (0..).zip(camera.layers) {
            let Some(key) = layer(shot) else { continue };
            let id = TrackId::layer(number).unwrap();
            let layer = Arc::new(Track { id, timescale: CLOCK, parameters: picture.parameters.clone() });
            // Each has a clock of its own, and its packets their own way.
            let at = Timestamp::from_micros(captured_us + 3_000 - i64::from(number) * 6_000).to(CLOCK);
            let arrived_us = &mut layers_us[usize::from(number)];
            *arrived_us = (picture_us + chance.below(4_000)).max(*arrived_us);
            all.push((*arrived_us, sample(&layer, at, None, key)));
        }
        captured_us += (camera.distance)(chance, captured_us);
    }
    let frame = if matches!(audio.parameters, Parameters::Opus(_)) { 960 } else { 1024 };
    let mut arrived_us = 0;
    for n in 0.. {
        let at = Timestamp::new(n * frame, audio.timescale);
        if at.as_micros() >= until_us {
            break;
        }
        arrived_us = (at.as_micros() + chance.below(60_000)).max(arrived_us);
        all.push((arrived_us, sample(audio, at, Some(frame as u32), true)));
    }
    all.sort_by_key(|(us, _)| *us);
    all
}

fn sample(track: &Arc<Track>, at: Timestamp, duration: Option<u32>, keyframe: bool) -> Sample {
    let payload = Bytes::from_static(&[0; script::PAYLOAD_BYTES]);
    let received = std::time::Instant::now();
    Sample { track: Arc::clone(track), pts: at, dts: at, duration, keyframe, payload, received }
}

fn watch(run: &mut Run, camera: Camera, audio: &Arc<Track>, seed: u64, seconds: i64) {
    let announced = Publisher { video: Some(Video::new(30, 1, Keys::Never)), audio: Some(Audio::new(48_000, 2)), clock_us: 0 };
    run.join(&announced);
    let from_us = run.now_us;
    for (at_us, sample) in arrivals(camera, audio, &mut Chance::new(seed), seconds * 1_000_000) {
        run.now_us = from_us + at_us;
        let sample = Sample { received: run.now(), ..sample };
        assert_eq!(run.give(&Item::Sample(Arc::new(sample))), Verdict::Fine);
    }
}

fn run() -> Run {
    let mut run = Run::with(Settings::default());
    run.regular = false;
    run
}

#[test]
fn uneven_pictures_make_regular_parts() {
    for seed in 1..=12 {
        for audio in [script::audio_track(48_000, 2), opus_track()] {
            let mut run = run();
            watch(&mut run, CAMERA, &audio, seed, 40);
            let grid = *run.presentation.grid().unwrap();
            assert!(!grid.irregular && (190..230).contains(&grid.part_target_ms), "{seed}: {grid:?}");
            assert_eq!(grid.target_duration, 2, "{seed}");
            let video = run.closed(TrackId::VIDEO);
            assert!(video.iter().all(|segment| (1_900_000..2_200_000).contains(&segment.duration_us)), "{seed}: {video:?}");
            // Parts are not cut short by jitter: at most a picture is missing.
            let parts: Vec<_> = video.iter().flat_map(|s| s.parts.split_last().map_or(&[][..], |(_, rest)| rest)).collect();
            let mean_us = parts.iter().map(|part| part.duration_us).sum::<i64>() / parts.len() as i64;
            assert!(mean_us > i64::from(grid.part_target_ms) * 800, "{seed}: {mean_us}");
            assert_eq!(run.closed(TrackId::AUDIO).len(), video.len(), "{seed}");
            assert_eq!(run.presentation.losses().cuts_without_keyframe, 0, "{seed}");
        }
    }
}

#[test]
fn other_rates_and_a_return_keep_the_rules() {
    let cameras: [fn(&mut Chance, i64) -> i64; 5] = [
        |chance, _| 66_667 - 15_000 + chance.below(30_000),
        |chance, _| 16_667 - 6_000 + chance.below(12_000),
        |chance, _| 200_000 - 15_000 + chance.below(30_000),
        // Starts slowly.
        |chance, at| if at == 0 { 400_000 } else { uneven(chance, at) },
        // A dark room: 30, then 15 a second.
        |chance, at| if at < 12_000_000 { uneven(chance, at) } else { 66_667 - 10_000 + chance.below(20_000) },
    ];
    for (n, distance) in cameras.into_iter().enumerate() {
        for seed in 1..=4 {
            let mut run = run();
            for _ in 0..2 {
                watch(&mut run, Camera { distance, ..CAMERA }, &opus_track(), seed, 25);
                run.leave();
                run.pause(3.0);
            }
            let grid = run.presentation.grid().unwrap();
            assert!(!grid.irregular, "{n} {seed}: {grid:?}");
        }
    }
}

#[test]
fn a_screen_that_stands_still_keeps_the_rules() {
    let cameras: [fn(&mut Chance, i64) -> i64; 3] = [
        // Still, then a film, then still.
        |chance, at| if (10_000_000..20_000_000).contains(&at) { uneven(chance, at) } else { 1_000_000 + chance.below(20_000) },
        |chance, at| if at < 10_000_000 { uneven(chance, at) } else { 1_000_000 + chance.below(20_000) },
        // Somebody types.
        |chance, _| [33_333, 33_333, 66_667, 1_000_000][chance.below(4) as usize],
    ];
    for (n, distance) in cameras.into_iter().enumerate() {
        for seed in 1..=8 {
            println!("camera {n}, seed {seed}");
            let mut run = run();
            watch(&mut run, Camera { distance, ..CAMERA }, &opus_track(), seed, 40);
            assert!(run.has(TrackId::VIDEO) && run.has(TrackId::AUDIO), "{seed}");
            assert!(run.closed(TrackId::VIDEO).len() >= 4, "{seed}");
        }
    }
}

#[test]
fn another_size_comes_behind_a_discontinuity() {
    for seed in 1..=64 {
        let mut run = run();
        watch(&mut run, Camera { resized_us: Some(9_300_000), ..CAMERA }, &opus_track(), seed, 14);
        for kind in [TrackId::VIDEO, TrackId::AUDIO] {
            assert_eq!(run.media(kind).segments.iter().filter(|segment| segment.discontinuity).count(), 1, "{seed} {kind:?}");
        }
        let maps: std::collections::HashSet<_> = run.closed(TrackId::VIDEO).into_iter().map(|segment| &segment.map).collect();
        assert_eq!(maps.len(), 2, "{seed}");
    }
}

// ---- further layers of the picture ---------------------------------------------------------------------------------

fn layer(number: u8) -> TrackId {
    TrackId::layer(number).unwrap()
}

fn all_of(shot: Shot) -> Option<bool> {
    Some(shot.key)
}

fn gaps(run: &Run, id: TrackId) -> Vec<u64> {
    run.media(id).segments.iter().skip(1).filter(|segment| segment.gap).map(|segment| segment.msn).collect()
}

/// Numbers of the closed segments that open with a keyframe.
fn independent(run: &Run, id: TrackId) -> Vec<u64> {
    run.closed(id).iter().map(|segment| segment.msn).filter(|msn| run.seen[&id].independent.contains(msn)).collect()
}

/// How far from the main picture's each segment of a layer begins, at most.
fn apart_us(run: &Run, id: TrackId) -> i64 {
    let begins_us = &run.seen[&TrackId::VIDEO].begins_us;
    let apart = run.seen[&id].begins_us.iter().filter_map(|(msn, us)| Some((us - begins_us.get(msn)?).abs()));
    apart.max().unwrap_or(0)
}

#[test]
fn further_layers_are_renditions_of_the_same_segments() {
    for seed in 1..=24 {
        let mut run = run();
        watch(&mut run, Camera { layers: &[all_of, all_of], ..CAMERA }, &opus_track(), seed, 20);
        let offer = run.presentation.offer().unwrap();
        let uris: Vec<_> = offer.videos.iter().map(|video| video.uri).collect();
        assert_eq!(uris, ["video.m3u8", "video-2.m3u8", "video-3.m3u8"], "{seed}");
        let bits = offer.videos[1].bandwidth.1;
        let once = (31 + 50) * script::PAYLOAD_BYTES as u64 * 8;
        assert!(bits < once, "{seed}: a variant is one layer and the sound: {bits} of {once}");
        let main: Vec<_> = run.closed(TrackId::VIDEO).iter().map(|segment| segment.msn).collect();
        for id in [layer(0), layer(1)] {
            assert!(independent(&run, id).len() + 1 >= main.len(), "{seed}: {:?} of {main:?}", independent(&run, id));
            assert_eq!(gaps(&run, id), [0; 0], "{seed}");
            // Jitter is taken out of each by itself.
            assert!(apart_us(&run, id) <= 20_000, "{seed}: {} us", apart_us(&run, id));
        }
        assert_eq!(run.presentation.losses().undecodable, 0, "{seed}");
    }
}

/// Which layer is the picture is known only after a second, when all of them have come or one has not.
#[test]
fn layers_that_are_held_back_at_the_start_are_all_in_the_first_offer() {
    for seed in 1..=12 {
        let mut run = run();
        let announced =
            Publisher { video: Some(Video::new(30, 1, Keys::Never)), audio: Some(Audio::new(48_000, 2)), clock_us: 0 };
        run.join(&announced);
        let camera = Camera { layers: &[all_of, all_of], ..CAMERA };
        let mut all = arrivals(camera, &opus_track(), &mut Chance::new(seed), 12_000_000);
        for (at_us, _) in all.iter_mut().filter(|(_, sample)| sample.track.id.is_picture()) {
            *at_us = (*at_us).max(1_100_000);
        }
        all.sort_by_key(|(us, _)| *us);
        let mut variants = 0;
        for (at_us, sample) in all {
            run.now_us = at_us;
            run.give(&Item::Sample(Arc::new(Sample { received: run.now(), ..sample })));
            let now = run.presentation.offer().map_or(0, |offer| offer.videos.len());
            assert!(variants == 0 || now == variants, "{seed}: {now} after {variants}");
            variants = now;
        }
        assert_eq!(variants, 3, "{seed}");
    }
}

#[test]
fn a_keyframe_that_comes_some_pictures_later_opens_the_segment_all_the_same() {
    fn later(shot: Shot) -> Option<bool> {
        Some(shot.at_us == 0 || shot.since_key == 3)
    }
    for seed in 1..=24 {
        let mut run = run();
        watch(&mut run, Camera { layers: &[later], ..CAMERA }, &opus_track(), seed, 20);
        let closed = run.closed(layer(0)).len();
        assert!(closed >= 6 && independent(&run, layer(0)).len() == closed, "{seed}: {closed}");
        assert!(apart_us(&run, layer(0)) <= 250_000, "{seed}");
    }
}

#[test]
fn a_layer_that_was_not_cut_goes_on_in_the_next_segment() {
    fn odd(shot: Shot) -> Option<bool> {
        Some(shot.key && !(5_000_000..7_500_000).contains(&shot.at_us))
    }
    for seed in 1..=12 {
        let mut run = run();
        watch(&mut run, Camera { layers: &[odd], ..CAMERA }, &opus_track(), seed, 20);
        let (closed, opened) = (run.closed(layer(0)).len(), independent(&run, layer(0)).len());
        assert!(
            gaps(&run, layer(0)).is_empty() && (opened + 1 == closed || opened + 2 == closed),
            "{seed}: {opened} of {closed}"
        );
    }
}

#[test]
fn a_layer_that_pauses_leaves_gaps_and_begins_again_at_a_keyframe() {
    fn pausing(shot: Shot) -> Option<bool> {
        (!(6_000_000..12_000_000).contains(&shot.at_us)).then_some(shot.key)
    }
    for seed in 1..=24 {
        let mut run = run();
        watch(&mut run, Camera { layers: &[pausing, all_of], ..CAMERA }, &opus_track(), seed, 24);
        let gaps = gaps(&run, layer(0));
        assert!((2..=4).contains(&gaps.len()), "{seed}: {gaps:?}");
        let (closed, opened) = (run.closed(layer(0)).len(), independent(&run, layer(0)).len());
        assert!(closed == opened && closed >= 5, "{seed}: {opened} of {closed}");
        assert_eq!(independent(&run, layer(1)).len(), run.closed(layer(1)).len(), "{seed}: the other is not harmed");
    }
}

/// Encoders leave out the largest layer first where the network is slow.
#[test]
fn another_layer_leads_where_the_main_one_falls_silent() {
    let camera = Camera { sends: |shot| !(6_000_000..16_000_000).contains(&shot.at_us), layers: &[all_of, all_of], ..CAMERA };
    for seed in 1..=24 {
        let mut run = run();
        watch(&mut run, camera, &opus_track(), seed, 24);
        let numbers: Vec<_> = run.media(layer(0)).segments.iter().map(|segment| segment.msn).collect();
        assert!(*numbers.last().unwrap() >= 1_800_000_000 + 11, "{seed}: {numbers:?}");
        // The one that takes the lead misses nothing; the main one is there again in the end.
        assert!(gaps(&run, layer(0)).len() <= 1, "{seed}: {:?}", gaps(&run, layer(0)));
        assert!(gaps(&run, TrackId::VIDEO).len() >= 3, "{seed}");
        let last = run.closed(TrackId::VIDEO).last().unwrap().msn;
        assert!(last + 2 >= *numbers.last().unwrap(), "{seed}: {last} of {numbers:?}");
        assert!(gaps(&run, TrackId::AUDIO).is_empty(), "{seed}");
    }
}

#[test]
fn a_publisher_without_layers_may_return() {
    let mut run = run();
    watch(&mut run, Camera { layers: &[all_of], ..CAMERA }, &opus_track(), 3, 12);
    run.leave();
    run.pause(3.0);
    watch(&mut run, CAMERA, &opus_track(), 4, 12);
    let numbers = |run: &Run, id| run.media(id).segments.last().unwrap().msn;
    assert!(numbers(&run, layer(0)) + 1 >= numbers(&run, TrackId::VIDEO), "its numbers go on without a hole");
}

#[test]
fn whatever_layers_do_the_rules_are_kept() {
    fn wild(shot: Shot) -> Option<bool> {
        (shot.at_us / 777_777 % 5 != 1).then_some(shot.at_us / 33_333 % 47 == 3)
    }
    fn rare(shot: Shot) -> Option<bool> {
        (shot.at_us / 1_000_000 % 9 < 3).then_some(shot.key)
    }
    for seed in 1..=24 {
        let mut run = run();
        run.wild = true;
        let camera = Camera { layers: &[wild, rare], sends: |shot| shot.at_us / 1_900_000 % 7 != 3, ..CAMERA };
        watch(&mut run, camera, &opus_track(), seed, 40);
        run.leave();
    }
}
