//! Publishers of several sounds, and of pictures that show different things, in virtual time.

use std::sync::Arc;

use media_core::{Announcement, Item, Layer, Sample, Track, TrackId};
use packager::hls::presentation::{Settings, Verdict};

use crate::{
    http::both,
    presentation::Run,
    script::{Audio, Keys, Publisher, Video, audio_track, video_track},
    webrtc::opus_track,
};

fn sound(number: u8) -> TrackId {
    TrackId::sound(number).unwrap()
}

fn camera() -> TrackId {
    TrackId::layer(0).unwrap()
}

fn of(track: &Arc<Track>, id: TrackId) -> Arc<Track> {
    Arc::new(Track { id, timescale: track.timescale, parameters: track.parameters.clone() })
}

/// What one publisher sends for so long: a picture and a sound, and beside them what `further` make. `keep` is told the
/// track and the milliseconds.
fn play(run: &mut Run, seconds: i64, further: &[Publisher], keep: impl Fn(TrackId, i64) -> bool) {
    watch(run, seconds, further, keep, |_| {});
}

/// The same, looked at after every Sample.
fn watch(run: &mut Run, seconds: i64, further: &[Publisher], keep: impl Fn(TrackId, i64) -> bool, look: impl Fn(&Run)) {
    let (now, from_us) = (run.now(), run.now_us);
    let all = [&[both()], further].concat();
    let mut samples: Vec<_> = all.iter().flat_map(|publisher| publisher.samples(now, 0, seconds * 1_000_000)).collect();
    samples.sort_by_key(|(at_us, _)| *at_us);
    for (at_us, sample) in samples.into_iter().filter(|(at_us, sample)| keep(sample.track.id, at_us / 1000)) {
        run.now_us = from_us + at_us;
        let sample = Sample { received: run.now(), ..sample };
        assert_eq!(run.give(&Item::Sample(Arc::new(sample))), Verdict::Fine);
        look(run);
    }
    run.now_us = from_us + seconds * 1_000_000;
}

fn announce(run: &mut Run, layers: Vec<Layer>, sounds: Vec<TrackId>) {
    run.join(&both());
    run.give(&Item::Announce(Announcement { video: true, audio: true, layers, sounds, ..Announcement::default() }));
}

fn a_sound(number: u8, track: &Arc<Track>) -> Publisher {
    Publisher { audio: Some(Audio { track: of(track, sound(number)) }), ..Publisher::default() }
}

fn run() -> Run {
    Run::with(Settings::default())
}

fn text(run: &Run, index: &str) -> String {
    let multivariant = run.presentation.multivariant().unwrap();
    String::from_utf8(multivariant.find(index).unwrap().plain().to_vec()).unwrap()
}

const INDEX: &str = "index.m3u8";

#[test]
fn every_sound_is_a_rendition_that_is_cut_with_the_picture() {
    let mut run = run();
    let further = [a_sound(0, &audio_track(48_000, 1)), a_sound(1, &audio_track(44_100, 2))];
    for seconds in [20, 9] {
        announce(&mut run, Vec::new(), vec![TrackId::AUDIO, sound(0), sound(1)]);
        play(&mut run, seconds, &further, |_, _| true);
        run.leave();
        run.pause(3.0);
    }
    // How many a window lists may differ by one.
    let msns = |id| run.closed(id).iter().rev().take(7).map(|segment| segment.msn).collect::<Vec<_>>();
    for id in [TrackId::AUDIO, sound(0), sound(1)] {
        assert_eq!(msns(id), msns(TrackId::VIDEO), "{id:?}");
        assert_eq!(run.media(id).segments.iter().filter(|segment| segment.discontinuity).count(), 1, "{id:?}");
    }
    let uris: Vec<_> = run.presentation.offer().unwrap().audios().map(|audio| (audio.uri, audio.channels)).collect();
    assert_eq!(uris, [("audio.m3u8", 2), ("audio-2.m3u8", 1), ("audio-3.m3u8", 2)]);
    let text = text(&run, INDEX);
    assert_eq!(text.matches("#EXT-X-MEDIA:TYPE=AUDIO").count(), 3, "{text}");
    assert_eq!((text.matches("DEFAULT=YES").count(), text.matches("#EXT-X-STREAM-INF").count()), (1, 1), "{text}");
    let reports = &run.presentation.renditions()[0].rendered().plain();
    let reports = std::str::from_utf8(reports).unwrap();
    assert!(reports.contains("URI=\"audio-2.m3u8\"") && reports.contains("URI=\"audio-3.m3u8\""), "{reports}");
    assert_eq!(run.presentation.losses().undecodable, 0);
}

/// A player takes its list of sounds from the first offer.
#[test]
fn sounds_that_are_announced_are_waited_for() {
    for late_ms in [0, 100, 300] {
        let mut run = run();
        run.regular = late_ms == 0;
        announce(&mut run, Vec::new(), vec![TrackId::AUDIO, sound(0)]);
        let further = [a_sound(0, &audio_track(48_000, 2))];
        let all_in = |run: &Run| assert!(run.presentation.offer().is_none_or(|offer| offer.audios().count() == 2), "{late_ms}");
        watch(&mut run, 6, &further, |id, ms| id != sound(0) || ms >= late_ms, all_in);
        assert!(run.presentation.offer().is_some(), "{late_ms}");
    }
}

#[test]
fn a_sound_that_pauses_leaves_gaps() {
    let mut run = run();
    run.regular = false;
    announce(&mut run, Vec::new(), vec![TrackId::AUDIO, sound(0)]);
    let further = [a_sound(0, &audio_track(48_000, 2))];
    play(&mut run, 24, &further, |id, ms| id != sound(0) || !(8_000..15_000).contains(&ms));
    let gaps = |id| run.media(id).segments.iter().skip(1).filter(|segment| segment.gap).count();
    assert_eq!((gaps(TrackId::AUDIO), gaps(sound(0))), (0, 3), "8 to 10 s is begun; 10 to 14 s is not there");
    let newest = |id| run.media(id).segments.last().unwrap().msn;
    assert_eq!(newest(sound(0)), newest(TrackId::VIDEO), "and goes on");
}

#[test]
fn a_sound_of_another_codec_is_left_to_those_who_ask_for_it() {
    let mut run = run();
    announce(&mut run, Vec::new(), vec![TrackId::AUDIO, sound(0)]);
    play(&mut run, 12, &[a_sound(0, &opus_track())], |_, _| true);
    assert!(run.closed(sound(0)).len() >= 4);
    let text = text(&run, INDEX);
    assert!(!text.contains("audio-2.m3u8") && !text.contains("opus"), "{text}");
    let known: Vec<_> = run.presentation.offer().unwrap().audios().map(|audio| audio.codec.clone()).collect();
    assert_eq!(known, ["mp4a.40.2", "opus"]);
}

/// A camera of another shape, whose keyframes come when they come, beside a screen.
#[test]
fn a_picture_apart_is_cut_with_the_others_and_no_variant() {
    let mut run = run();
    run.regular = false;
    let layer = |track, rid: &str, apart| Layer { track, rid: rid.into(), apart };
    let layers = vec![layer(TrackId::VIDEO, "track-0", false), layer(camera(), "track-1", true)];
    announce(&mut run, layers, Vec::new());
    let video = Video { keys: Keys::Every(50), ..Video::new(25, 1, Keys::Never) };
    let track = of(&video_track(video.rate, 480), camera());
    let beside = Publisher { video: Some(Video { track, ..video }), ..Publisher::default() };
    play(&mut run, 20, &[beside], |_, _| true);
    let offer = run.presentation.offer().unwrap();
    let variants: Vec<_> = offer.videos.iter().map(|video| video.uri).collect();
    let apart: Vec<_> = offer.apart.iter().map(|video| video.uri).collect();
    assert_eq!((variants, apart), (vec!["video.m3u8"], vec!["video-2.m3u8"]));
    let newest = |id| run.media(id).segments.last().unwrap().msn;
    assert_eq!(newest(camera()), newest(TrackId::VIDEO));
    assert!(!text(&run, INDEX).contains("video-2"), "{}", text(&run, INDEX));
    let own = text(&run, "index-2.m3u8");
    assert!(own.contains("FRAME-RATE=25") && own.contains("RESOLUTION=480x360") && own.ends_with("video-2.m3u8\n"), "{own}");
}
