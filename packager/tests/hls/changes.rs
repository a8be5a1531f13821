//! A publisher that changes what it sends without leaving: nothing ends, and every rendition tells it at the same number.

use std::sync::Arc;

use bytes::Bytes;
use media_core::{
    Parameters, Rung, Track, TrackId,
    codec::{h264, h264::FrameRate, hevc},
};
use packager::hls::presentation::{Settings, Supply};

use crate::{
    codecs::HVCC,
    presentation::Run,
    script::{self, Audio, Keys, Publisher, Video},
};

fn picture(frames: u32, width: u32, profile: u8) -> Video {
    let rate = FrameRate { frames, seconds: 1 };
    let video = Video::new(frames, 1, Keys::Every(u64::from(frames) * 2));
    let track = script::video_track(rate, width);
    let Parameters::H264(known) = &track.parameters else { unreachable!("the script's picture is H.264") };
    let [_, constraints, level] = known.profile_level;
    let parameters = h264::Parameters { profile_level: [profile, constraints, level], ..known.clone() };
    Video { track: Arc::new(Track { parameters: Parameters::H264(parameters), ..*track }), ..video }
}

fn hevc() -> Video {
    let video = picture(30, 640, 0x64);
    let parameters = Parameters::Hevc(hevc::Parameters::parse(Bytes::from_static(HVCC)).unwrap());
    Video { track: Arc::new(Track { parameters, ..*video.track }), ..video }
}

fn of(video: Option<Video>, audio: Option<Audio>) -> Publisher {
    Publisher { video, audio, clock_us: 0 }
}

/// Numbers at which a rendition is broken.
fn broken(run: &Run, id: TrackId) -> Vec<u64> {
    run.media(id).segments.iter().filter(|segment| segment.discontinuity).map(|segment| segment.msn).collect()
}

#[test]
fn a_change_is_a_discontinuity_at_one_number() {
    let (high, sound) = (|| Some(picture(30, 640, 0x64)), || Some(Audio::new(48_000, 2)));
    let before = of(high(), sound());
    // The change; how often every rendition is broken by it; the variants at its end, and whether there is a sound.
    let check = |case: &str, runs: &[Publisher], breaks: usize, codecs: &[&str], audio: bool| {
        let mut run = Run::with(Settings::default());
        // What waits for its keyframe is left out, and a track that is gone has gaps.
        (run.regular, run.wild) = (false, true);
        run.presentation.set_supplies([Supply::Cold; 7]);
        run.join(&runs[0]);
        for publisher in runs {
            run.go_on(publisher, 6.1);
        }
        let there: Vec<_> = [TrackId::VIDEO, TrackId::AUDIO].into_iter().filter(|id| run.has(*id)).collect();
        for id in &there {
            assert_eq!(broken(&run, *id), broken(&run, there[0]), "{case}: {id:?}");
            assert_eq!(broken(&run, *id).len(), breaks, "{case}: {id:?}");
        }
        let newest = |id: &TrackId| run.media(*id).segments.last().map(|segment| segment.msn);
        let last = runs.last().unwrap();
        if last.video.is_some() && last.audio.is_some() {
            assert!(there.iter().map(newest).all(|msn| msn == newest(&there[0])), "{case}: all are at the edge");
        }
        let offer = run.presentation.offer().unwrap();
        assert_eq!(offer.videos.iter().map(|video| &video.codec[..6]).collect::<Vec<_>>(), codecs, "{case}");
        assert_eq!(offer.audio.is_some(), audio, "{case}");
    };
    let h264: &[&str] = &["avc1.6"];
    check("none", &[before.clone(), before.clone()], 0, h264, true);
    check("resolution", &[before.clone(), of(Some(picture(30, 1280, 0x64)), sound())], 1, h264, true);
    check("frame rate", &[before.clone(), of(Some(picture(15, 640, 0x64)), sound())], 1, h264, true);
    check("profile", &[before.clone(), of(Some(picture(30, 640, 0x4d)), sound())], 1, &["avc1.4"], true);
    check("codec", &[before.clone(), of(Some(hevc()), sound())], 1, &["hvc1.1", "avc1.6"], true);
    check("codec and back", &[before.clone(), of(Some(hevc()), sound()), before.clone()], 2, &["avc1.6", "avc1.6"], true);
    check("sample rate", &[before.clone(), of(high(), Some(Audio::new(44_100, 2)))], 1, h264, true);
    check("channels", &[before.clone(), of(high(), Some(Audio::new(48_000, 1)))], 1, h264, true);
    check("sound comes", &[of(high(), None), before.clone()], 0, h264, true);
    check("sound goes", &[before.clone(), of(high(), None)], 0, h264, true);
    check("the picture goes", &[before.clone(), of(None, sound())], 0, h264, true);
    check("the picture goes and returns", &[before.clone(), of(None, sound()), before.clone()], 0, h264, true);
    let rung = |run: &mut Run| run.presentation.renditions().iter().any(|rendition| rendition.id == Rung::ALIKE.id);
    let mut run = Run::with(Settings::default());
    run.presentation.set_supplies([Supply::Cold; 7]);
    run.join(&before);
    run.go_on(&before, 4.0);
    assert!(!rung(&mut run), "H.264 needs none");
    run.go_on(&of(Some(hevc()), sound()), 4.0);
    assert!(rung(&mut run));
}
