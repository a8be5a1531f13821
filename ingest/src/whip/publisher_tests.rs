//! Whole publishers in virtual time: frames as an encoder and a network would deliver them, and what
//! becomes of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use media_core::{Announcement, Parameters, Sample, TrackId, TrackKind};
use transport::rtp::Frame;

use super::{
    description::Coding,
    publisher::{Output, Publisher},
};
use crate::{
    repair::{Repair, VIDEO_TIMESCALE},
    rtmp::feed::Dropped,
};

const VIDEO: usize = 0;
const AUDIO: usize = 1;
/// One Opus packet of 20 ms.
const PACKET: &[u8] = &[0xfc, 0xff, 0xfe];
const NTP_SECOND: f64 = 4_294_967_296.0;

/// Bits of a parameter set.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(mut self, value: u32, bits: u32) -> Self {
        self.0.extend((0..bits).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    /// ue(v), H.264 9.1.
    fn ue(self, value: u32) -> Self {
        let bits = (value + 1).ilog2();
        self.put(0, bits).put(value + 1, bits + 1)
    }

    fn bytes(self) -> Vec<u8> {
        let bits = self.put(1, 1).0;
        bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |all, (at, bit)| all | u8::from(*bit) << (7 - at))).collect()
    }
}

/// A High profile SPS of so many macroblocks that promises so many reordered pictures.
fn sps(width: u32, height: u32, reorder: u32) -> Bytes {
    let bits = Bits::default().put(0x67, 8).put(100, 8).put(0, 8).put(31, 8).ue(0);
    let bits = bits.ue(1).ue(0).ue(0).put(0, 2); // chroma, depths, no scaling
    let bits = bits.ue(0).ue(2).ue(4).put(0, 1).ue(width - 1).ue(height - 1).put(0b110, 3);
    let bits = bits.put(1, 1); // VUI: nothing but restrictions
    let bits = bits.put(0, 8).put(1, 1).put(1, 1).ue(0).ue(0).ue(11).ue(11).ue(reorder).ue(4);
    bits.bytes().into()
}

fn pps(number: u8) -> Bytes {
    vec![0x68, 0xeb, 0xc3, 0xcb, 0x22, number].into()
}

struct Run {
    publisher: Publisher,
    start: Instant,
    announced: Vec<Announcement>,
    samples: Vec<Sample>,
}

/// A frame: when it came, in ms, and its RTP time in ms (of a clock that began long ago).
#[derive(Clone, Default)]
struct Came {
    at_ms: f64,
    rtp_ms: f64,
    layer: usize,
    sps: Option<Bytes>,
    pps: Option<Bytes>,
    keyframe: bool,
    /// Seconds.
    ntp: Option<f64>,
}

impl Run {
    fn new(video: bool, audio: bool, rids: &[&str]) -> Self {
        let rids: Vec<String> = rids.iter().map(|rid| (*rid).to_owned()).collect();
        let announcement = Announcement { video, audio, encoder: Some("test".into()), ..Announcement::default() };
        let (start, asked) = (Instant::now(), Duration::from_secs(2));
        let publisher =
            Publisher::with(start, video.then_some((VIDEO, Coding::H264)), audio.then_some(AUDIO), &rids, announcement, asked);
        Self { publisher, start, announced: Vec::new(), samples: Vec::new() }
    }

    fn take(&mut self, media: usize, came: Came, payload: Bytes) {
        let received = self.start + Duration::from_secs_f64(came.at_ms / 1000.0);
        let per_ms = if media == VIDEO { 90.0 } else { 48.0 };
        let frame = Frame {
            timestamp: (1 << 33) + (came.rtp_ms * per_ms).round() as u64,
            payload,
            vps: None,
            sps: came.sps,
            pps: came.pps,
            keyframe: came.keyframe,
            damaged_before: false,
            first_received: received,
            received,
            ntp: came.ntp.map(|seconds| (seconds * NTP_SECOND) as u64),
        };
        self.publisher.handle_frame(media, came.layer, frame);
        while let Some(output) = self.publisher.poll_output() {
            match output {
                Output::Announce(announcement) => self.announced.push(announcement),
                Output::Sample(sample) => self.samples.push(sample),
            }
        }
    }

    fn video(&mut self, came: Came) {
        self.take(VIDEO, came, vec![0, 0, 0, 2, 0x41, 0x9a].into());
    }

    fn keyframe(&mut self, came: Came) {
        let sps = came.sps.clone().or_else(|| Some(sps(40, 22, 0)));
        let pps = came.pps.clone().or_else(|| Some(pps(0)));
        self.video(Came { keyframe: true, sps, pps, ..came });
    }

    fn audio(&mut self, came: Came) {
        // Every packet can be decoded alone.
        self.take(AUDIO, Came { keyframe: true, ..came }, Bytes::from_static(PACKET));
    }

    fn of(&self, id: TrackId) -> Vec<&Sample> {
        self.samples.iter().filter(|sample| sample.track.id == id).collect()
    }

    fn pts_ms(&self, id: TrackId) -> Vec<f64> {
        self.of(id).iter().map(|sample| sample.pts.as_secs_f64() * 1000.0).collect()
    }

    fn repaired(&self, repair: Repair) -> u64 {
        self.publisher.repairs().of(repair)
    }

    fn dropped(&self, dropped: Dropped) -> u64 {
        self.publisher.drops().of(dropped)
    }

    /// What holds of every run.
    fn check(&self) {
        for id in (0..TrackId::COUNT).filter_map(|index| self.samples.iter().map(|s| s.track.id).find(|id| id.index() == index)) {
            let samples = self.of(id);
            assert!(samples.windows(2).all(|pair| pair[0].dts < pair[1].dts), "dts grow on {id:?}");
            assert!(samples.iter().all(|sample| sample.dts <= sample.pts));
        }
        let sound = self.of(TrackId::AUDIO);
        assert!(sound.windows(2).all(|pair| pair[0].pts.ticks + i64::from(pair[0].duration.unwrap()) <= pair[1].pts.ticks));
    }
}

fn at(at_ms: f64, rtp_ms: f64) -> Came {
    Came { at_ms, rtp_ms, ..Came::default() }
}

/// So many seconds of 30 pictures and 50 packets a second. Each kind's delay on the way and its RTP
/// time at the start, and whether and since when its reports tell the capture time.
fn live(run: &mut Run, seconds: u32, video: (f64, f64), audio: (f64, f64), reports_after_ms: f64) {
    let mut events: Vec<(f64, bool, u32)> = (0..seconds * 30).map(|n| (f64::from(n) * 100.0 / 3.0 + video.0, true, n)).collect();
    events.extend((0..seconds * 50).map(|n| (f64::from(n) * 20.0 + audio.0, false, n)));
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (at_ms, is_video, number) in events {
        let captured_ms = if is_video { f64::from(number) * 100.0 / 3.0 } else { f64::from(number) * 20.0 };
        let ntp = (at_ms >= reports_after_ms).then_some(1000.0 + captured_ms / 1000.0);
        if is_video {
            let came = Came { ntp, ..at(at_ms, video.1 + captured_ms) };
            if number % 60 == 0 { run.keyframe(came) } else { run.video(came) }
        } else {
            run.audio(Came { ntp, ..at(at_ms, audio.1 + captured_ms) });
        }
    }
    run.check();
}

/// How far the picture is after the sound at the end, for frames of `live`.
fn skew_ms(run: &Run, seconds: u32) -> f64 {
    let (video, audio) = (run.pts_ms(TrackId::VIDEO), run.pts_ms(TrackId::AUDIO));
    let last_video = f64::from(seconds * 30 - 1) * 100.0 / 3.0;
    let last_audio = f64::from(seconds * 50 - 1) * 20.0;
    (video.last().unwrap() - last_video) - (audio.last().unwrap() - last_audio)
}

#[test]
fn without_reports_tracks_are_placed_by_arrival_and_go_on_by_their_clocks() {
    let mut run = Run::new(true, true, &[]);
    live(&mut run, 10, (60.0, 9e6), (20.0, 3e3), f64::INFINITY);
    let (video, audio) = (run.pts_ms(TrackId::VIDEO), run.pts_ms(TrackId::AUDIO));
    assert_eq!((audio[0], video[0]), (0.0, 40.0));
    assert!((video[299] - 40.0 - 299.0 * 100.0 / 3.0).abs() < 0.1 && (audio[499] - 499.0 * 20.0).abs() < 0.1);
    assert!(skew_ms(&run, 10).abs() <= 80.0);
    assert_eq!(run.publisher.repairs().total(), 0);
    let first = &run.announced[0];
    assert_eq!((first.video, first.audio, first.encoder.as_deref()), (true, true, Some("test")));
    assert_eq!(run.announced.len(), 1);
}

#[test]
fn reports_bring_lips_and_sound_together_without_anyone_seeing_it() {
    // Delays of picture and sound, in ms; when reports begin; whether it is stepped.
    for (video_ms, audio_ms, reports_ms, steps) in [
        (250.0, 20.0, 0.0, 0),
        (20.0, 250.0, 0.0, 0),
        (300.0, 20.0, 3000.0, 0),
        (20.0, 30.0, 0.0, 0),
        (1500.0, 20.0, 2000.0, 1),
        (20.0, 1500.0, 2000.0, 1),
    ] {
        let mut run = Run::new(true, true, &[]);
        live(&mut run, 15, (video_ms, 9e6), (audio_ms, 3e3), reports_ms);
        let skew = skew_ms(&run, 15);
        assert!(skew.abs() <= 20.0, "{video_ms} {audio_ms}: {skew}");
        assert_eq!(run.repaired(Repair::SyncStep), steps, "{video_ms} {audio_ms}");
        if steps == 0 {
            let video = run.pts_ms(TrackId::VIDEO);
            assert!(video.windows(2).all(|pair| ((pair[1] - pair[0]) / (100.0 / 3.0) - 1.0).abs() < 0.06), "stretched too much");
            assert!(run.pts_ms(TrackId::AUDIO).windows(2).all(|pair| (pair[1] - pair[0] - 20.0).abs() < 0.1), "sound is whole");
        }
    }
}

#[test]
fn reports_that_cannot_be_true_are_not_believed() {
    let mut run = Run::new(true, true, &[]);
    for n in 0..300 {
        let ms = f64::from(n) * 20.0;
        run.audio(Came { ntp: Some(5000.0 + ms / 1000.0), ..at(ms, ms) });
        let came = Came { ntp: Some(1.0 + ms / 1000.0), ..at(ms, 7.0 + ms) };
        if n == 0 { run.keyframe(came) } else { run.video(came) }
    }
    run.check();
    assert_eq!(run.pts_ms(TrackId::VIDEO).last(), run.pts_ms(TrackId::AUDIO).last());
}

/// GStreamer's whipsink, connected after three seconds: it sends all of them at once, and pairs frames with the moment of
/// sending, so that the first report of the sound is three seconds off, and that of the picture hardly.
#[test]
fn reports_of_a_sender_that_makes_up_for_lost_time_are_doubted() {
    const KEPT_MS: f64 = 3000.0;
    let mut run = Run::new(true, true, &[]);
    for n in 0..800 {
        let ms = f64::from(n) * 20.0;
        // Thirty times as fast as time.
        let at_ms = (ms - KEPT_MS).max(ms / 30.0);
        let told = |error_ms: f64| {
            let error_ms = if at_ms < 5000.0 { error_ms } else { 0.0 };
            Some(1000.0 + (ms + error_ms) / 1000.0)
        };
        run.audio(Came { ntp: told(KEPT_MS), ..at(at_ms, ms) });
        let came = Came { ntp: told(100.0).filter(|_| at_ms > 90.0), ..at(at_ms, 7.0 + ms) };
        if n % 100 == 0 { run.keyframe(came) } else { run.video(came) }
    }
    run.check();
    assert_eq!((run.repaired(Repair::SyncStep), run.repaired(Repair::AudioGap)), (0, 0));
    let apart = run.pts_ms(TrackId::VIDEO).last().unwrap() - run.pts_ms(TrackId::AUDIO).last().unwrap();
    assert!(apart.abs() <= 20.0, "{apart}");
}

#[test]
fn clocks_of_sound_and_picture_that_drift_apart_stay_together() {
    let mut run = Run::new(true, true, &[]);
    // An hour; the sound card is 300 ppm slow, which makes a second of it.
    for n in 0..3600 * 5 {
        let ms = f64::from(n) * 200.0;
        run.audio(Came { ntp: Some(1000.0 + ms / 1000.0), ..at(ms, ms * 0.9997) });
        let came = Came { ntp: Some(1000.0 + ms / 1000.0), ..at(ms, ms) };
        if n == 0 { run.keyframe(came) } else { run.video(came) }
    }
    run.check();
    let apart = run.pts_ms(TrackId::VIDEO).last().unwrap() - run.pts_ms(TrackId::AUDIO).last().unwrap();
    assert!(apart.abs() <= 40.0, "{apart}");
}

#[test]
fn layers_are_asked_where_one_has_no_keyframe_whatever_else_comes() {
    let mut run = Run::new(true, true, &["h", "l"]);
    let mut asked = Vec::new();
    for n in 0..250 {
        let at_ms = f64::from(n) * 20.0;
        run.audio(at(at_ms, at_ms));
        for layer in 0..2 {
            let came = Came { layer, ..at(at_ms, at_ms) };
            // The first sends keyframes by itself.
            if n == 0 || (layer == 0 && n % 50 == 0) { run.keyframe(came) } else { run.video(came) }
        }
        let now = run.start + Duration::from_millis(u64::try_from(n).unwrap() * 20);
        asked.extend(run.publisher.take_keyframes_due(now).map(|layer| (n * 20, layer)));
    }
    assert_eq!(asked, [(2000, 0), (2000, 1), (4000, 0), (4000, 1)]);
}

#[test]
fn parameter_sets_come_in_any_packing() {
    let mut run = Run::new(true, false, &[]);
    let bare = |ms: f64| Came { keyframe: true, ..at(ms, ms) };
    run.video(at(0.0, 0.0));
    run.video(bare(33.0));
    assert_eq!((run.samples.len(), run.dropped(Dropped::NoConfiguration)), (0, 2));
    // In pictures before the keyframe, one after the other.
    run.video(Came { sps: Some(sps(40, 22, 0)), ..at(66.0, 66.0) });
    run.video(Came { pps: Some(pps(0)), ..at(100.0, 100.0) });
    run.video(bare(133.0));
    // Only before every keyframe, with the keyframe, and repeated in between.
    run.video(Came { sps: Some(sps(40, 22, 0)), ..at(166.0, 166.0) });
    run.keyframe(at(200.0, 200.0));
    // Another size, from its keyframe on.
    run.video(Came { sps: Some(sps(80, 45, 0)), ..at(233.0, 233.0) });
    run.video(bare(266.0));
    // Nonsense, then sense again.
    run.video(Came { sps: Some(Bytes::from_static(&[0x67])), ..bare(300.0) });
    run.video(at(333.0, 333.0));
    run.keyframe(at(366.0, 366.0));
    run.check();
    let widths: Vec<u32> = run
        .of(TrackId::VIDEO)
        .iter()
        .map(|sample| match &sample.track.parameters {
            Parameters::H264(parameters) => parameters.width,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(widths, [640, 640, 640, 640, 1280, 640]);
    let tracks = run.of(TrackId::VIDEO);
    assert!(std::sync::Arc::ptr_eq(&tracks[0].track, &tracks[2].track), "repeated sets make no new track");
    assert_eq!((run.dropped(Dropped::Malformed), run.dropped(Dropped::NoConfiguration)), (1, 6));
    assert!(run.samples.iter().all(|sample| sample.track.kind() == TrackKind::Video));
}

#[test]
fn the_largest_layer_is_the_picture_and_stays_it() {
    let mut run = Run::new(true, true, &["l", "m", "h"]);
    let sizes = [sps(20, 11, 0), sps(40, 22, 0), sps(80, 45, 0)];
    let start = |layer: usize, ms: f64| Came { layer, sps: Some(sizes[layer].clone()), ..at(ms, ms) };
    run.keyframe(start(0, 0.0));
    run.audio(at(5.0, 5.0));
    run.video(at(33.0, 33.0));
    run.keyframe(start(2, 50.0));
    assert_eq!(run.of(TrackId::AUDIO).len(), 1, "sound is not held");
    assert_eq!(run.samples.len(), 1);
    run.keyframe(start(1, 60.0));
    let index = |layer: usize| run.samples.iter().filter(|s| s.track.id.index() == [3, 2, 0][layer]).count();
    assert_eq!((index(0), index(1), index(2)), (2, 1, 1), "what was held is there");
    let layers: Vec<_> = run.announced[1].layers.iter().map(|layer| (layer.track.index(), &*layer.rid)).collect();
    assert_eq!(layers, [(0, "h"), (2, "m"), (3, "l")]);
    // The main layer pauses, the largest becomes small, and all are what they were.
    for n in 2..200 {
        run.video(Came { layer: 0, ..at(f64::from(n) * 33.0, f64::from(n) * 33.0) });
    }
    run.keyframe(Came { layer: 2, sps: Some(sizes[0].clone()), ..at(7000.0, 7000.0) });
    run.check();
    assert_eq!(run.of(TrackId::VIDEO).len(), 2);
    assert_eq!((run.publisher.layer_of(0), run.publisher.layer_of(2), run.publisher.layer_of(1)), (Some(2), Some(1), None));
    assert_eq!(run.announced.len(), 2);
}

#[test]
fn layers_that_do_not_come_are_not_waited_for() {
    let mut run = Run::new(true, true, &["l", "m", "h"]);
    run.keyframe(Came { layer: 1, ..at(0.0, 0.0) });
    for n in 1..40 {
        run.audio(at(f64::from(n) * 33.0, f64::from(n) * 33.0));
    }
    assert_eq!(run.of(TrackId::VIDEO).len(), 1, "a second of sound is as good as one of pictures");
    run.keyframe(Came { layer: 2, sps: Some(sps(20, 11, 0)), ..at(1400.0, 1400.0) });
    run.check();
    let layers: Vec<_> = run.announced[1].layers.iter().map(|layer| (layer.track.index(), &*layer.rid)).collect();
    assert_eq!(layers, [(0, "m"), (2, "l"), (3, "h")]);
    assert_eq!(run.of(TrackId::layer(1).unwrap()).len(), 1);
}

/// A browser begins with what 300 kbit/s carry, and sends its largest layer when it has found out that there is more.
#[test]
fn a_larger_layer_that_comes_late_is_the_picture_from_then_on() {
    let mut run = Run::new(true, true, &["l", "h"]);
    run.keyframe(at(0.0, 0.0));
    (1..60).for_each(|n| run.video(at(f64::from(n) * 33.0, f64::from(n) * 33.0)));
    run.keyframe(Came { layer: 1, sps: Some(sps(80, 45, 0)), ..at(1980.0, 1960.0) });
    assert_eq!(run.publisher.take_keyframes_due(run.start + Duration::from_millis(1980)), 0..2, "all change at once");
    run.video(at(1990.0, 1980.0));
    run.video(Came { layer: 1, ..at(2013.0, 2013.0) });
    run.keyframe(at(2040.0, 2040.0));
    run.video(Came { layer: 1, ..at(2046.0, 2046.0) });
    run.video(at(2073.0, 2073.0));
    run.check();
    let layers: Vec<_> = run.announced.last().unwrap().layers.iter().map(|layer| (layer.track.index(), &*layer.rid)).collect();
    assert_eq!(layers, [(0, "h"), (2, "l")]);
    assert_eq!(run.of(TrackId::VIDEO).len(), 60 + 3);
    let times: Vec<i64> = run.of(TrackId::VIDEO).iter().map(|sample| sample.dts.ticks_in(VIDEO_TIMESCALE)).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "the track goes on, though both layers have clocks of their own");
    let small = run.of(TrackId::layer(0).unwrap());
    assert_eq!((small.len(), small[0].keyframe), (2, true), "its own begins with a keyframe");
    assert_eq!(run.dropped(Dropped::NoConfiguration), 1);
}

#[test]
fn what_is_held_is_bounded() {
    let mut run = Run::new(true, false, &["a", "b"]);
    run.keyframe(at(0.0, 0.0));
    for _ in 0..20 {
        run.take(VIDEO, at(1.0, 1.0), vec![0; 1 << 20].into());
    }
    assert!(run.of(TrackId::VIDEO).len() > 15);
    let mut run = Run::new(true, false, &["a", "b"]);
    run.keyframe(at(0.0, 0.0));
    (0..2000).for_each(|n| run.video(at(1.0, f64::from(n))));
    assert!(run.of(TrackId::VIDEO).len() > 1000);
}

#[test]
fn layers_with_clocks_of_their_own_are_brought_together_without_sound() {
    let mut run = Run::new(true, false, &["l", "h"]);
    for n in 0..300 {
        let ms = f64::from(n) * 33.0;
        for (layer, delay, clock, size) in [(0, 0.0, 5e5, 20), (1, 120.0, 7e6, 40)] {
            let came = Came { layer, ntp: Some(1.0 + ms / 1000.0), ..at(ms + delay, clock + ms) };
            let came = Came { sps: (n == 0).then(|| sps(size, 11, 0)), ..came };
            if n == 0 { run.keyframe(came) } else { run.video(came) }
        }
    }
    run.check();
    let apart = run.pts_ms(TrackId::VIDEO).last().unwrap() - run.pts_ms(TrackId::layer(0).unwrap()).last().unwrap();
    assert!(apart.abs() <= 20.0, "{apart}");
}

#[test]
fn reordered_pictures_are_shown_at_their_time() {
    for (promised, moved_at_most) in [(2, 0), (0, 4)] {
        let mut run = Run::new(true, false, &[]);
        let set = Some(sps(40, 22, promised));
        run.keyframe(Came { sps: set, ..at(0.0, 0.0) });
        let mut expected = vec![0.0];
        let mut sent = 0;
        for group in 0..20 {
            for picture in [4, 2, 1, 3] {
                sent += 1;
                let shown = f64::from(group * 4 + picture) * 40.0;
                run.video(at(f64::from(sent) * 40.0, shown));
                expected.push(shown);
            }
        }
        run.check();
        let moved = run.repaired(Repair::PtsClamped);
        assert!(moved <= moved_at_most, "{promised}: {moved}");
        let pts = run.pts_ms(TrackId::VIDEO);
        assert_eq!(pts[9..], expected[9..], "{promised}");
    }
}

#[test]
fn sound_is_continuous_unless_its_clock_says_otherwise() {
    // RTP times in ms, and where packets begin.
    let check = |rtp_ms: &[f64], expected: &[f64], gaps: u64, surplus: u64| {
        let mut run = Run::new(false, true, &[]);
        rtp_ms.iter().enumerate().for_each(|(n, ms)| run.audio(at(n as f64 * 20.0, *ms)));
        run.check();
        assert_eq!(run.pts_ms(TrackId::AUDIO), expected, "{rtp_ms:?}");
        assert_eq!((run.repaired(Repair::AudioGap), run.repaired(Repair::AudioSurplus)), (gaps, surplus), "{rtp_ms:?}");
    };
    check(&[0.0, 20.0, 40.0], &[0.0, 20.0, 40.0], 0, 0);
    check(&[0.0, 20.5, 39.7, 61.0], &[0.0, 20.0, 40.0, 60.0], 0, 0); // Rounded times.
    check(&[0.0, 20.0, 60.0, 80.0], &[0.0, 20.0, 60.0, 80.0], 1, 0); // Lost, or not sent (DTX).
    check(&[0.0, 20.0, 420.0, 440.0], &[0.0, 20.0, 420.0, 440.0], 1, 0);
    check(&[0.0, 10.0, 20.0, 30.0, 40.0, 50.0], &[0.0, 20.0, 40.0, 60.0, 80.0], 0, 1); // Twice as much sound as time.
    let mut run = Run::new(false, true, &[]);
    run.take(AUDIO, at(0.0, 0.0), Bytes::new());
    run.take(AUDIO, at(0.0, 0.0), Bytes::from_static(&[0xfb]));
    run.take(7, at(0.0, 0.0), Bytes::from_static(PACKET));
    assert_eq!((run.samples.len(), run.dropped(Dropped::Malformed)), (0, 2));
}

#[test]
fn pauses_of_hours_and_clocks_that_were_set_keep_the_tracks_together() {
    const HOURS: f64 = 8.0 * 3600e3;
    // After a second both kinds pause for `pause_ms`; then their clocks went on by so much.
    for (pause_ms, video_ms, audio_ms, jumps) in [
        (HOURS, HOURS, HOURS, [0, 0]),
        (HOURS, 20.0, HOURS, [0, 1]),
        (HOURS, 20.0, 20.0, [0, 2]),
        (20.0, HOURS, 20.0, [1, 0]),
        (20.0, 2.0 * HOURS, HOURS, [2, 0]),
        (20.0, -900.0 * 1000.0, 20.0, [0, 1]),
        (20.0, -900.0 * 1000.0, -800.0 * 1000.0, [0, 2]),
    ] {
        let mut run = Run::new(true, true, &[]);
        for n in 0..100 {
            let base = f64::from(n) * 20.0;
            let after = f64::from(u8::from(n >= 50));
            let came = base + after * (pause_ms - 20.0);
            let video = at(came, 1e6 + base + after * (video_ms - 20.0));
            if n == 0 {
                run.keyframe(video)
            } else {
                run.video(video)
            }
            run.audio(at(came, 1e6 + base + after * (audio_ms - 20.0)));
        }
        run.check();
        let case = format!("{pause_ms} {video_ms} {audio_ms}");
        assert_eq!([run.repaired(Repair::JumpForward), run.repaired(Repair::JumpBackward)], jumps, "{case}");
        let (video, audio) = (run.pts_ms(TrackId::VIDEO), run.pts_ms(TrackId::AUDIO));
        let expected = 99.0 * 20.0 + pause_ms - 20.0;
        assert!((video[99] - expected).abs() < 1.0 && (audio[99] - expected).abs() < 5.0, "{case}: {} {}", video[99], audio[99]);
    }
}

#[test]
fn whatever_comes_samples_stay_valid() {
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for rids in [&[][..], &["a", "b", "c"]] {
        let mut run = Run::new(true, true, rids);
        let mut received = run.start;
        let mut timestamp = 1_u64 << 32;
        for _ in 0..20_000 {
            received += Duration::from_millis([0, 1, 20, 33, 20_000][random(5) as usize]);
            timestamp = match random(8) {
                0 => random(1 << 31) << 33 | random(1 << 31),
                1 => u64::MAX - random(3),
                2 => timestamp.saturating_sub(random(100_000)),
                _ => timestamp.saturating_add(random(6000)),
            };
            let frame = Frame {
                timestamp,
                payload: [&PACKET[..random(4) as usize], &[0; 3]].concat().into(),
                vps: None,
                sps: (random(9) == 0).then(|| sps(20 + random(3) as u32, 11, random(3) as u32)),
                pps: (random(9) == 0).then(|| pps(random(2) as u8)),
                keyframe: random(5) == 0,
                damaged_before: false,
                first_received: received,
                received,
                ntp: (random(2) == 0).then(|| random(1 << 31) << 33),
            };
            run.publisher.handle_frame(random(3) as usize, random(4) as usize, frame);
            while let Some(output) = run.publisher.poll_output() {
                if let Output::Sample(sample) = output {
                    run.samples.push(sample);
                }
            }
        }
        run.check();
        assert!(run.samples.len() > 1000);
    }
}
