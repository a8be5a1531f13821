//! Publishers of every kind, in virtual time: what their viewers are sent, and when.

use bytes::Bytes;
use media_core::{Timestamp, Track};

use super::*;
use crate::whep::tests::{B, I, P, Script, av1_track};

/// A broadcast and the stream it reads: each Item is known to the stream first, as in the window.
struct Stage {
    script: Script,
    broadcast: Broadcast,
    present: Present,
    order: Order,
    sent: Vec<(TrackId, i64)>,
}

impl Stage {
    fn new() -> Self {
        let present = Present { epoch: Some(1), ..Present::default() };
        let broadcast = Broadcast::new(&present);
        Self { script: Script::new(), broadcast, present, order: Order::default(), sent: Vec::new() }
    }

    fn push(&mut self, item: Item) -> &mut Self {
        match &item {
            Item::Join { epoch, .. } => {
                self.present = Present { epoch: Some(*epoch), ..Present::default() };
                self.order = Order::default();
            }
            Item::Sample(sample) if sample.track.id == TrackId::VIDEO => {
                self.present.tracks[TrackId::VIDEO.index()] = Some(Arc::clone(&sample.track));
                self.order.observe(sample);
            }
            _ => {}
        }
        self.present.order = self.order;
        self.broadcast.observe(&self.present);
        self.broadcast.handle(&item);
        self.broadcast.observe(&self.present);
        self.drain();
        self
    }

    fn sample(&mut self, sample: Sample) -> &mut Self {
        self.push(Item::Sample(Arc::new(sample)))
    }

    /// A picture that arrives when it is shown.
    fn picture(&mut self, nal: &[u8], ms: i64) -> &mut Self {
        let sample = self.script.slice(nal, ms, ms as u64);
        self.sample(sample)
    }

    /// What the transcoder makes of the picture shown at `ms`, 200 ms later.
    fn made(&mut self, nal: &[u8], ms: i64) -> &mut Self {
        let sample = self.script.slice(nal, ms, ms as u64 + 200);
        self.broadcast.handle_made(Made::Video, &Item::Sample(Arc::new(sample)));
        self.drain();
        self
    }

    fn drain(&mut self) {
        while let Some(out) = self.broadcast.poll_outgoing() {
            self.sent.push((out.track, out.at_us - 3_600_000_000));
        }
    }

    /// Times of what was sent of a track since the last call, in milliseconds.
    fn sent(&mut self, track: TrackId) -> Vec<i64> {
        let (of_track, rest) = self.sent.drain(..).partition::<Vec<_>, _>(|(id, _)| *id == track);
        self.sent = rest;
        of_track.into_iter().map(|(_, at_us)| (at_us + 500).div_euclid(1000)).collect()
    }

    fn video(&mut self) -> Vec<i64> {
        self.sent(TrackId::VIDEO)
    }
}

/// A source that is known to be in order from its 24th picture on.
fn trusted(stage: &mut Stage) {
    stage.picture(I, 0);
    (1..24).for_each(|n| _ = stage.picture(P, n * 33));
    assert_eq!(stage.video().len(), 24);
}

#[test]
fn pictures_are_held_back_until_their_order_is_known() {
    let mut stage = Stage::new();
    stage.picture(I, 0);
    (1..23).for_each(|n| _ = stage.picture(P, n * 33));
    assert_eq!(stage.video(), [0; 0]);
    assert!(stage.broadcast.flowing().is_empty());
    stage.picture(P, 23 * 33);
    assert_eq!(stage.video(), (0..24).map(|n| n * 33).collect::<Vec<_>>());
    assert!(stage.broadcast.flowing().has(TrackId::VIDEO));
    stage.picture(P, 24 * 33);
    assert_eq!(stage.video(), [24 * 33], "nothing waits any more");
}

#[test]
fn a_slow_source_is_not_held_back_for_more_than_a_second() {
    let mut stage = Stage::new();
    stage.picture(I, 0).picture(P, 500);
    assert_eq!(stage.video(), [0; 0]);
    stage.picture(P, 1000);
    assert_eq!(stage.video(), [0, 500, 1000]);
}

#[test]
fn a_viewer_starts_at_a_keyframe() {
    let mut stage = Stage::new();
    stage.present.order = Order::Shown;
    stage.order = Order::Shown;
    stage.picture(P, 0).picture(P, 33).picture(I, 66).picture(P, 100);
    assert_eq!(stage.video(), [66, 100]);
    assert_eq!(stage.broadcast.take_drops(), Drops { undecodable: 2, ..Drops::default() });
}

#[test]
fn a_source_with_b_frames_is_made() {
    let mut stage = Stage::new();
    stage.picture(I, 0).picture(P, 99).picture(B, 33);
    assert!(stage.broadcast.wants(Made::Video));
    stage.broadcast.subscribed(Made::Video);
    stage.made(P, 0).made(I, 33).made(P, 66);
    stage.picture(B, 66).picture(P, 132);
    stage.made(P, 99);
    assert_eq!(stage.video(), [33, 66, 99]);
    assert_eq!(stage.broadcast.take_drops().reordered, 0, "none of the source was ever sent");
}

#[test]
fn a_source_of_another_codec_is_made_and_nothing_of_it_is_sent_as_it_is() {
    let mut stage = Stage::new();
    let track = av1_track();
    let temporal_unit = |stage: &mut Stage, ms: i64| {
        let payload = Bytes::from_static(&[0x32, 0x02, 0x10, 0x00]);
        let sample = stage.script.sample(&track, Timestamp::from_millis(ms), ms == 0, payload, ms as u64);
        stage.sample(sample);
    };
    (0..40).for_each(|n| temporal_unit(&mut stage, n * 33));
    assert!(stage.broadcast.wants(Made::Video));
    assert!(stage.broadcast.flowing().is_empty() && stage.broadcast.pictures().is_empty());
    stage.broadcast.subscribed(Made::Video);
    stage.made(I, 33).made(P, 66);
    temporal_unit(&mut stage, 40 * 33);
    stage.made(P, 99);
    assert_eq!(stage.video(), [33, 66, 99]);
    assert!(stage.broadcast.pictures().has(TrackId::VIDEO));
    assert_eq!(stage.broadcast.take_drops(), Drops::default());
    // The next publisher sends H.264.
    let join = stage.script.join(2, 3000);
    stage.push(join).picture(I, 3033);
    (1..24).for_each(|n| _ = stage.picture(P, 3033 + n * 33));
    assert!(!stage.broadcast.wants(Made::Video));
    assert_eq!(stage.video().len(), 24);
}

#[test]
fn b_frames_in_mid_stream_are_left_out_until_the_transcoder_has_a_keyframe() {
    let mut stage = Stage::new();
    trusted(&mut stage);
    stage.picture(P, 1000).picture(B, 933).picture(B, 966).picture(P, 1100);
    assert!(stage.broadcast.wants(Made::Video));
    assert_eq!(stage.video(), [1000, 1100]);
    assert_eq!(stage.broadcast.take_drops().reordered, 2);
    // The transcoder is behind: its pictures come after their time, close together, until they have caught up.
    stage.made(P, 1000).made(I, 1033).made(P, 1066).made(P, 1099);
    stage.picture(P, 1200);
    stage.made(P, 1133).made(P, 1166);
    assert_eq!(stage.video(), [1101, 1102, 1103, 1133, 1166]);
    // What is lost of it waits for its own keyframe: the source's pictures do not fit behind it.
    stage.broadcast.lagged(Some(Made::Video), 1);
    stage.picture(P, 1300).made(P, 1200).made(I, 1233);
    assert_eq!(stage.video(), [1233]);
}

#[test]
fn what_was_made_in_another_run_is_not_sent() {
    let mut stage = Stage::new();
    let script = Script { start: stage.script.start + Duration::from_secs(60), ..Script::new() };
    let old = stage.script.slice(I, 60_000, 100);
    stage.script = script;
    stage.picture(I, 0).picture(P, 99).picture(B, 33);
    stage.broadcast.subscribed(Made::Video);
    stage.broadcast.handle_made(Made::Video, &Item::Sample(Arc::new(old)));
    stage.drain();
    assert_eq!(stage.video(), [0; 0]);
    // A run names the epoch that it is made of.
    let (join, other) = (stage.script.join(1, 300), stage.script.join(7, 300));
    stage.broadcast.handle_made(Made::Video, &other);
    stage.made(I, 33);
    assert_eq!(stage.video(), [0; 0]);
    stage.broadcast.handle_made(Made::Video, &join);
    stage.made(P, 66).made(I, 99);
    assert_eq!(stage.video(), [99]);
}

#[test]
fn a_picture_that_cannot_be_made_is_refused_until_another_publisher_comes() {
    let mut stage = Stage::new();
    stage.broadcast.unavailable(Made::Video);
    assert!(!stage.broadcast.is_refused(), "nobody needs it");
    stage.picture(I, 0).picture(P, 99).picture(B, 33);
    stage.broadcast.unavailable(Made::Video);
    assert!(stage.broadcast.is_refused());
    stage.broadcast.unsubscribed(Made::Video);
    assert!(!stage.broadcast.is_refused() && stage.broadcast.wants(Made::Video), "the next viewer finds out anew");
    stage.broadcast.unavailable(Made::Video);
    let join = stage.script.join(2, 1000);
    stage.push(Item::Leave).push(join);
    assert!(!stage.broadcast.is_refused());
}

#[test]
fn a_returning_publisher_continues_after_the_gap() {
    let mut stage = Stage::new();
    trusted(&mut stage);
    let sound = stage.script.opus(760, 760);
    stage.sample(sound);
    assert_eq!(stage.sent(TrackId::AUDIO), [760]);
    stage.push(Item::Leave);
    assert!(stage.broadcast.flowing().is_empty());
    let join = stage.script.join(2, 9_000);
    stage.push(join);
    let (picture, sound) = (stage.script.slice(I, 40, 10_000), stage.script.opus(0, 10_000));
    stage.sample(sound).sample(picture);
    assert_eq!(stage.sent(TrackId::AUDIO), [10_000]);
    assert_eq!(stage.video(), [0; 0], "of another publisher nothing is known");
    for n in 1..24 {
        let picture = stage.script.slice(P, 40 + n * 33, 10_000 + n as u64 * 33);
        stage.sample(picture);
    }
    assert_eq!(stage.video()[..2], [10_040, 10_073]);
    assert!(stage.broadcast.flowing().has(TrackId::VIDEO));
}

#[test]
fn a_returning_publisher_of_b_frames_is_made_from_the_start() {
    let mut stage = Stage::new();
    stage.picture(I, 0).picture(P, 99).picture(B, 33);
    let join = stage.script.join(2, 1000);
    stage.push(Item::Leave).push(join);
    assert!(stage.broadcast.wants(Made::Video), "the transcoder goes on");
    (0..25).for_each(|n| _ = stage.picture(if n == 0 { I } else { P }, 2000 + n * 33));
    assert!(!stage.broadcast.wants(Made::Video), "this one sends none");
}

#[test]
fn aac_is_made_and_opus_is_sent() {
    let mut stage = Stage::new();
    let script = Script { start: stage.script.start, ..Script::new() };
    stage.sample(script.aac(0, 0)).sample(script.aac(1, 23));
    assert!(stage.broadcast.wants(Made::Opus));
    assert_eq!(stage.sent(TrackId::AUDIO), [0; 0]);
    stage.broadcast.handle_made(Made::Opus, &script.join(1, 30));
    for n in 0..3 {
        stage.broadcast.handle_made(Made::Opus, &Item::Sample(Arc::new(script.opus(n * 20, 50))));
    }
    stage.drain();
    assert_eq!(stage.sent(TrackId::AUDIO), [0, 20, 40]);
    stage.push(Item::Leave).push(script.join(2, 1000)).sample(script.opus(0, 2000));
    assert!(!stage.broadcast.wants(Made::Opus));
    assert_eq!(stage.sent(TrackId::AUDIO), [2000], "the gap is counted from the newest Sample");
}

#[test]
fn sound_never_goes_back() {
    let mut stage = Stage::new();
    let script = Script { start: stage.script.start, ..Script::new() };
    stage.sample(script.opus(0, 0)).sample(script.opus(20, 20)).sample(script.opus(20, 40)).sample(script.opus(40, 60));
    assert_eq!(stage.sent(TrackId::AUDIO), [0, 20, 40]);
    assert_eq!(stage.broadcast.take_drops().late, 1);
}

#[test]
fn loss_waits_for_a_keyframe() {
    let mut stage = Stage::new();
    trusted(&mut stage);
    stage.broadcast.lagged(None, 5);
    stage.picture(P, 900).picture(P, 933).picture(I, 966).picture(P, 1000);
    assert_eq!(stage.video(), [966, 1000]);
    assert_eq!(stage.broadcast.take_drops(), Drops { undecodable: 2, lagged: 5, ..Drops::default() });
}

#[test]
fn layers_flow_beside_the_picture() {
    let mut stage = Stage::new();
    let script = Script { start: stage.script.start, ..Script::new() };
    let low = TrackId::layer(0).unwrap();
    stage.sample(script.layer(0, true, 0, 0));
    assert_eq!(stage.sent(low), [0; 0], "the picture's order is not known yet");
    trusted(&mut stage);
    stage.sample(script.layer(0, false, 800, 800)).sample(script.layer(0, true, 833, 833));
    stage.sample(script.layer(0, false, 866, 866));
    assert_eq!(stage.sent(low), [833, 866]);
    assert_eq!(stage.broadcast.pictures(), Tracks::default().with(low).with(TrackId::VIDEO));
    stage.picture(P, 4000);
    assert_eq!(stage.broadcast.pictures(), Tracks::default().with(TrackId::VIDEO), "the layer has paused");
    stage.sample(script.layer(0, true, 7500, 7500));
    assert_eq!(stage.broadcast.pictures(), Tracks::default().with(low), "now the picture has");
    stage.picture(P, 7600);
    assert_eq!(stage.broadcast.pictures(), Tracks::default().with(low).with(TrackId::VIDEO));
    stage.push(Item::Leave);
    assert!(stage.broadcast.pictures().is_empty());
}

#[test]
fn a_picture_apart_takes_no_ones_place() {
    let mut stage = Stage::new();
    let script = Script { start: stage.script.start, ..Script::new() };
    let camera = TrackId::layer(0).unwrap();
    let layer = |track, rid: &str, apart| media_core::Layer { track, rid: rid.into(), apart };
    let layers = vec![layer(TrackId::VIDEO, "track-0", false), layer(camera, "track-1", true)];
    stage.present.announcement = media_core::Announcement { video: true, layers, ..Default::default() };
    trusted(&mut stage);
    stage.sample(script.layer(0, true, 833, 833)).sample(script.layer(0, true, 7500, 7500));
    let both = Tracks::default().with(camera).with(TrackId::VIDEO);
    assert_eq!(
        (stage.broadcast.pictures(), stage.broadcast.apart()),
        (both, Tracks::default().with(camera)),
        "the screen is still"
    );
}

#[test]
fn further_tracks_that_cannot_be_sent_are_not() {
    let mut stage = Stage::new();
    trusted(&mut stage);
    let of = |sample: Sample, id| {
        let track = Track { id, timescale: sample.track.timescale, parameters: sample.track.parameters.clone() };
        Sample { track: Arc::new(track), ..sample }
    };
    let sound = of(stage.script.opus(900, 900), TrackId::sound(0).unwrap());
    let further = TrackId::layer(0).unwrap();
    let picture = Sample { track: av1_track(), ..stage.script.picture(900, true, 900) };
    stage.sample(sound).sample(of(picture, further));
    assert!(stage.sent(TrackId::AUDIO).is_empty() && !stage.broadcast.pictures().has(further));
}
