//! What the playlists that players begin with say, by what there is.

use super::*;

fn video(uri: &'static str, width: u32, height: u32, bandwidth: (u64, u64)) -> Video {
    Video { uri, codec: "avc1.64001f".into(), width, height, frame_rate: 30_000.0 / 1001.0, bandwidth }
}

fn offer(video: bool, audio: bool) -> Offer {
    Offer {
        videos: video.then(|| self::video("video.m3u8", 1280, 720, (3_380_000, 2_600_000))).into_iter().collect(),
        apart: Vec::new(),
        audio: audio.then(|| sound("audio.m3u8", "Sound", "mp4a.40.2")),
        further_audios: Vec::new(),
        bandwidth: (3_380_000, 2_600_000),
        independent_segments: true,
        rungs: 0,
    }
}

fn sound(uri: &'static str, name: &str, codec: &str) -> Audio {
    Audio { uri, name: name.into(), codec: codec.into(), channels: 2, grouped: true }
}

fn text(offer: &Offer) -> String {
    text_of(offer, INDEX)
}

fn text_of(offer: &Offer, index: &str) -> String {
    String::from_utf8(offer.render().find(index).unwrap().plain().to_vec()).unwrap()
}

#[test]
fn video_and_audio_are_one_variant_and_one_rendition() {
    assert_eq!(
        text(&offer(true, true)),
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-MEDIA:TYPE=AUDIO,URI=\"audio.m3u8\",GROUP-ID=\"audio\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
         #EXT-X-STREAM-INF:BANDWIDTH=3380000,AVERAGE-BANDWIDTH=2600000,CODECS=\"avc1.64001f,mp4a.40.2\",\
         RESOLUTION=1280x720,FRAME-RATE=29.97,STABLE-VARIANT-ID=\"video\",AUDIO=\"audio\"\nvideo.m3u8\n"
    );
}

#[test]
fn one_track_alone_is_the_variant_itself() {
    let alone = "CODECS=\"avc1.64001f\",RESOLUTION=1280x720,FRAME-RATE=29.97,STABLE-VARIANT-ID=\"video\"\nvideo.m3u8\n";
    assert!(text(&offer(true, false)).ends_with(alone));
    let audio = text(&offer(false, true));
    assert!(audio.contains("CODECS=\"mp4a.40.2\",AUDIO=\"audio\"\naudio.m3u8\n"), "{audio}");
    assert!(!audio.contains("FRAME-RATE") && !audio.contains("RESOLUTION"));
}

#[test]
fn each_layer_of_the_picture_is_a_variant_with_the_same_sound() {
    let mut layers = offer(true, true);
    layers.videos.push(video("video-2.m3u8", 640, 360, (900_000, 700_000)));
    let text = text(&layers);
    let (first, second) = text.split_once("video.m3u8\n").unwrap();
    assert!(first.contains("BANDWIDTH=3380000") && first.matches("#EXT-X-MEDIA:").count() == 1, "{text}");
    assert_eq!(
        second,
        "#EXT-X-STREAM-INF:BANDWIDTH=900000,AVERAGE-BANDWIDTH=700000,CODECS=\"avc1.64001f,mp4a.40.2\",\
         RESOLUTION=640x360,FRAME-RATE=29.97,STABLE-VARIANT-ID=\"video-2\",AUDIO=\"audio\"\nvideo-2.m3u8\n"
    );
}

#[test]
fn further_sounds_are_renditions_of_one_group() {
    let mut sounds = offer(true, true);
    sounds.further_audios = vec![
        Audio { channels: 1, ..sound("audio-2.m3u8", "Sound 2", "mp4a.40.5") },
        Audio { grouped: false, ..sound("audio-3.m3u8", "Sound 3", "opus") },
    ];
    let written = text(&sounds);
    let media: Vec<_> = written.lines().filter(|line| line.starts_with("#EXT-X-MEDIA:")).collect();
    let group = "#EXT-X-MEDIA:TYPE=AUDIO,URI=\"audio";
    assert_eq!(
        media,
        [
            format!("{group}.m3u8\",GROUP-ID=\"audio\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\""),
            format!("{group}-2.m3u8\",GROUP-ID=\"audio\",NAME=\"Sound 2\",CHANNELS=\"1\""),
        ]
    );
    assert!(written.contains("CODECS=\"avc1.64001f,mp4a.40.2,mp4a.40.5\""), "{written}");
    sounds.videos.clear();
    let alone = text(&sounds);
    assert!(alone.contains("TYPE=AUDIO,GROUP-ID") && alone.contains("URI=\"audio-2.m3u8\""), "{alone}");
}

#[test]
fn a_picture_apart_is_no_variant_and_has_a_playlist_of_its_own() {
    let mut screen = offer(true, true);
    screen.apart.push(Video { frame_rate: 0.0, ..video("video-2.m3u8", 640, 480, (900_000, 700_000)) });
    assert!(!text(&screen).contains("video-2.m3u8"), "{}", text(&screen));
    let camera = text_of(&screen, "index-2.m3u8");
    assert!(camera.contains("URI=\"audio.m3u8\"") && !camera.contains("INDEPENDENT-SEGMENTS"), "{camera}");
    let variant = "#EXT-X-STREAM-INF:BANDWIDTH=900000,AVERAGE-BANDWIDTH=700000,CODECS=\"avc1.64001f,mp4a.40.2\",\
                   RESOLUTION=640x480,STABLE-VARIANT-ID=\"video-2\",AUDIO=\"audio\"\nvideo-2.m3u8\n";
    assert!(camera.ends_with(variant), "{camera}");
    assert!(screen.render().find("index-3.m3u8").is_none());
}

#[test]
fn what_is_made_is_a_variant_behind_its_source() {
    let mut offer = offer(true, true);
    offer.videos.push(video("video-2.m3u8", 640, 360, (900_000, 700_000)));
    offer.videos[0].codec = "hvc1.1.6.L93.b0".into();
    offer.add_rung("rung-1.m3u8", &Rung::ALIKE, (4_000_000, 3_000_000));
    let text = text(&offer);
    let variants: Vec<_> = text.lines().skip_while(|line| !line.starts_with("#EXT-X-STREAM-INF")).collect();
    let expected = [
        ("3380000", "2600000", "hvc1.1.6.L93.b0", "1280x720", "3", "video.m3u8"),
        ("4000000", "3000000", "avc1.640020", "1280x720", "2", "rung-1.m3u8"),
        ("900000", "700000", "avc1.64001f", "640x360", "1", "video-2.m3u8"),
    ];
    let line = |(peak, average, codec, size, score, uri): (&str, &str, &str, &str, &str, &str)| {
        [
            format!(
                "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codec},mp4a.40.2\",\
                 RESOLUTION={size},FRAME-RATE=29.97,SCORE={score},STABLE-VARIANT-ID=\"{}\",AUDIO=\"audio\",CLOSED-CAPTIONS=NONE",
                stem(uri)
            ),
            uri.to_owned(),
        ]
    };
    assert_eq!(variants, expected.map(line).concat());
}

#[test]
fn a_rung_costs_what_its_encoder_is_given_and_only_more() {
    let (mut main, mut sound, mut seen) = (Bandwidth::default(), Bandwidth::default(), Bandwidth::default());
    sound.observe(20_000, 1_000_000);
    let cost = |main: &Bandwidth, seen: &Bandwidth, configured| {
        Source { main, sound: &sound, announced: Some(1_000_000) }.cost_of_rung(&Rung::ALIKE, seen, configured, 2)
    };
    assert_eq!(cost(&main, &seen, None), (1_960_000, 1_660_000));
    assert_eq!(cost(&main, &seen, Some(4_000_000)), (4_960_000, 4_160_000));
    main.observe(250_000, 1_000_000);
    assert_eq!(cost(&main, &seen, None), (3_760_000, 3_160_000));
    seen.observe(500_000, 1_000_000);
    seen.observe(100_000, 1_000_000);
    assert_eq!(cost(&main, &seen, None), (4_160_000, 2_560_000));
}

#[test]
fn an_average_that_moves_is_no_news() {
    let (before, mut after) = (offer(true, true), offer(true, true));
    after.videos[0].bandwidth.1 += 1;
    assert!(before.says_the_same(&after));
    after.videos[0].bandwidth.0 += 1;
    assert!(!before.says_the_same(&after));
}

#[test]
fn bandwidth_only_rises() {
    let (mut picture, mut sound) = (Bandwidth::default(), Bandwidth::default());
    assert_eq!(rates(&[&picture, &sound], None, 1000), (1300, 1000));
    let announced = Some(2_000_000);
    assert_eq!(rates(&[&picture], announced, 0), (2_600_000, 2_000_000));
    picture.observe(250_000, 1_000_000);
    assert_eq!(rates(&[&picture], announced, 0), (2_600_000, 2_000_000));
    picture.observe(500_000, 1_000_000);
    assert_eq!(rates(&[&picture], announced, 0), (4_000_000, 3_000_000));
    picture.observe(100_000, 1_000_000);
    assert_eq!(rates(&[&picture], announced, 0).0, 4_000_000);
    sound.observe(12_500, 1_000_000);
    assert_eq!(rates(&[&picture, &sound], announced, 0).0, 4_100_000);
    assert_eq!(rates(&[&sound], None, 9_000_000), (100_000, 100_000), "seen before guessed");
}
