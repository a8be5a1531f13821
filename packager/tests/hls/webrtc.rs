//! WebRTC publishers in virtual time: pictures as a camera and a network give them, keyframes when they are asked for.

use std::sync::Arc;

use bytes::Bytes;
use media_core::{Item, Parameters, Sample, Timescale, Timestamp, Track, TrackId, TrackKind, codec::h264, codec::opus};
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
    /// A layer beside the picture.
    layer: bool,
}

fn uneven(chance: &mut Chance, _at: i64) -> i64 {
    match chance.below(40) {
        0 => 100_000,
        1 | 2 => 66_667,
        _ => 33_333 - 15_000 + chance.below(30_000),
    }
}

const CAMERA: Camera = Camera { distance: uneven, resized_us: None, layer: false };

/// All that arrives until `until_us`, with the moment: pictures, and sound in frames of `audio`.
fn arrivals(camera: Camera, audio: &Arc<Track>, chance: &mut Chance, until_us: i64) -> Vec<(i64, Sample)> {
    let mut all = Vec::new();
    let (mut captured_us, mut key_due_us, mut arrived_us) = (0, 0, 0);
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
        all.push((arrived_us, sample(&picture, at, None, key)));
        if camera.layer {
            let id = TrackId::layer(0).unwrap();
            let layer = Arc::new(Track { id, timescale: CLOCK, parameters: picture.parameters.clone() });
            all.push((arrived_us, sample(&layer, at, None, key)));
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
            let video = run.closed(TrackKind::Video);
            assert!(video.iter().all(|segment| (1_900_000..2_200_000).contains(&segment.duration_us)), "{seed}: {video:?}");
            // Parts are not cut short by jitter: at most a picture is missing.
            let parts: Vec<_> = video.iter().flat_map(|s| s.parts.split_last().map_or(&[][..], |(_, rest)| rest)).collect();
            let mean_us = parts.iter().map(|part| part.duration_us).sum::<i64>() / parts.len() as i64;
            assert!(mean_us > i64::from(grid.part_target_ms) * 800, "{seed}: {mean_us}");
            assert_eq!(run.closed(TrackKind::Audio).len(), video.len(), "{seed}");
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
            assert!(run.has(TrackKind::Video) && run.has(TrackKind::Audio), "{seed}");
            assert!(run.closed(TrackKind::Video).len() >= 4, "{seed}");
        }
    }
}

#[test]
fn another_size_comes_behind_a_discontinuity() {
    for seed in 1..=64 {
        let mut run = run();
        watch(&mut run, Camera { resized_us: Some(9_300_000), ..CAMERA }, &opus_track(), seed, 14);
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert_eq!(run.media(kind).segments.iter().filter(|segment| segment.discontinuity).count(), 1, "{seed} {kind:?}");
        }
        let maps: std::collections::HashSet<_> = run.closed(TrackKind::Video).into_iter().map(|segment| &segment.map).collect();
        assert_eq!(maps.len(), 2, "{seed}");
    }
}

#[test]
fn further_layers_are_not_packaged() {
    let mut run = run();
    watch(&mut run, Camera { layer: true, ..CAMERA }, &opus_track(), 7, 20);
    assert_eq!(run.presentation.renditions().len(), 2);
    assert!(run.presentation.losses().undecodable == 0);
    let bits = run.presentation.offer().unwrap().bandwidth.1;
    let once = (31 + 50) * script::PAYLOAD_BYTES as u64 * 8;
    assert!(bits < once, "{bits} of {once}");
}
