//! What a playlist says, and when a request for a place in it is answered.

use media_core::Timestamp;

use super::*;

const CONSTANTS: Constants = Constants { target_duration: 2, part_target_ms: 200 };
/// 2026-01-01T00:00:00Z.
const WALL_US: i64 = 1_767_225_600_000_000;

fn cut(msn: u64, discontinuity: bool) -> Cut {
    let us = i64::try_from(msn).unwrap() * 2_000_000;
    Cut { msn, at: Timestamp::from_micros(us), discontinuity, independent: true, wall_us: WALL_US + us, closes_us: 0 }
}

/// A playlist from a picture: `I` an independent Part, `p` another, `|` a cut, `!` a cut with a discontinuity.
fn playlist(picture: &str) -> Playlist {
    let mut playlist = Playlist::new("video", CONSTANTS, 1, 0, 7);
    let mut msn = 1;
    playlist.open(&cut(msn, false), Some("video/7/init-1.mp4".into()));
    for c in picture.chars() {
        match c {
            'I' | 'p' => drop(playlist.push_part(Timestamp::from_micros(200_000), c == 'I', 7)),
            _ => {
                playlist.close(7, 2_000_000);
                msn += 1;
                playlist.open(&cut(msn, c == '!'), Some("video/7/init-1.mp4".into()));
            }
        }
    }
    playlist
}

fn text(playlist: &mut Playlist) -> String {
    String::from_utf8(playlist.render(&[]).plain().to_vec()).unwrap()
}

fn segment() -> String {
    format!("I{}|", "p".repeat(9))
}

#[test]
fn a_place_is_there_or_waited_for_or_too_far() {
    let check = |picture: &str, msn, part: Option<u32>, expected| {
        assert_eq!(playlist(picture).edge().lookup(Position { msn, part }), expected, "{picture} {msn} {part:?}");
    };
    check("Ip", 1, Some(0), Lookup::Ready);
    check("Ip", 1, Some(1), Lookup::Ready);
    check("Ip", 1, Some(2), Lookup::Pending);
    check("Ip", 1, None, Lookup::Pending);
    check("Ip|", 1, None, Lookup::Ready);
    check("Ip|", 2, None, Lookup::Pending);
    check("Ip|", 2, Some(0), Lookup::Pending);
    check("Ip|I", 2, Some(0), Lookup::Ready);
    check("Ip|", 0, None, Lookup::Ready); // long gone: answer, and let the player see
    // A Part past its segment's end is the first of the next.
    check("Ip|", 1, Some(2), Lookup::Pending);
    check("Ip|I", 1, Some(2), Lookup::Ready);
    check("Ip|I", 1, Some(50), Lookup::Ready);
    // Not beyond the last number and two, nor three seconds of Parts.
    check("Ip", 3, None, Lookup::Pending);
    check("Ip", 4, None, Lookup::TooFar);
    check("Ip|", 4, Some(0), Lookup::TooFar);
    check("Ip", 1, Some(16), Lookup::Pending);
    check("Ip", 1, Some(17), Lookup::TooFar);
}

#[test]
fn nothing_is_waited_for_behind_the_end() {
    let mut ended = playlist("Ip|Ip");
    ended.close(7, 0);
    ended.end();
    for position in [Position { msn: 9, part: None }, Position { msn: 2, part: Some(99) }] {
        assert_eq!(ended.edge().lookup(position), Lookup::Ready);
    }
    let text = text(&mut ended);
    assert!(text.ends_with("#EXT-X-ENDLIST\n") && !text.contains("PRELOAD-HINT"));
}

#[test]
fn a_young_playlist_reads_so() {
    let mut playlist = playlist("Ip|I");
    let report = Report { uri: "audio.m3u8", newest: Position { msn: 2, part: Some(0) } };
    let text = String::from_utf8(playlist.render(&[report]).plain().to_vec()).unwrap();
    assert_eq!(
        text,
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.60000003,CAN-SKIP-UNTIL=12.00000000\n\
         #EXT-X-PART-INF:PART-TARGET=0.20000001\n#EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-MAP:URI=\"video/7/init-1.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z\n\
         #EXT-X-GAP\n#EXTINF:2.00000000,\nvideo/7/segment-0.m4s\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:02.000Z\n\
         #EXT-X-PART:DURATION=0.20000001,URI=\"video/7/part-0.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PART:DURATION=0.20000001,URI=\"video/7/part-1.m4s\"\n\
         #EXTINF:0.40000002,\nvideo/7/segment-1.m4s\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:04.000Z\n\
         #EXT-X-PART:DURATION=0.20000001,URI=\"video/7/part-2.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"video/7/part-3.m4s\"\n\
         #EXT-X-RENDITION-REPORT:URI=\"audio.m3u8\",LAST-MSN=2,LAST-PART=0\n"
    );
}

#[test]
fn the_window_holds_sixteen_seconds_and_parts_six() {
    let mut playlist = playlist(&segment().repeat(20));
    let text = text(&mut playlist);
    assert_eq!(text.matches("#EXTINF").count(), 8, "16 s of 2 s segments");
    assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:13\n"), "{text}");
    assert_eq!(text.matches("#EXT-X-PART:").count(), 30, "three target durations");
    let Ok((_, m3u8_rs::Playlist::MediaPlaylist(read))) = m3u8_rs::parse_playlist(text.as_bytes()) else {
        panic!("a media playlist")
    };
    assert_eq!((read.media_sequence, read.segments.len(), read.target_duration), (13, 8, 2));
    for segment in &read.segments {
        assert!((segment.duration - 2.0).abs() < 1e-4);
    }
}

#[test]
fn longer_segments_get_four_target_durations() {
    let constants = Constants { target_duration: 10, part_target_ms: 1000 };
    let mut playlist = Playlist::new("video", constants, 1, 0, 7);
    for msn in 1..12 {
        playlist.open(&cut(msn, false), Some("init".into()));
        for n in 0..10 {
            playlist.push_part(Timestamp::from_micros(1_000_000), n == 0, 7);
        }
        playlist.close(7, 0);
    }
    assert_eq!(playlist.window_us(), 40_000_000);
    assert_eq!(playlist.edge().advance_parts_max, 3);
}

#[test]
fn a_delta_update_is_the_rest() {
    let mut playlist = playlist(&format!("{}Ip", segment().repeat(20)));
    let rendered = playlist.render(&[]);
    let (full, delta) = (rendered.plain(), rendered.delta());
    let (full, delta) = (std::str::from_utf8(&full).unwrap(), std::str::from_utf8(&delta).unwrap());
    let (head, rest) = delta.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n").expect("two lie beyond the Skip Boundary");
    assert!(full.starts_with(head) && full.ends_with(rest));
    assert_eq!(rest.matches("#EXTINF").count() + 2, full.matches("#EXTINF").count());
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&rendered.delta_gzip()[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, delta);
    assert_eq!(self::playlist("Ip").render(&[]).delta(), self::playlist("Ip").render(&[]).plain(), "nothing to skip");
}

#[test]
fn a_discontinuity_is_counted_when_it_has_left() {
    let mut playlist = playlist(&format!("{}Ip!{}", segment(), segment().repeat(3)));
    let young = text(&mut playlist);
    assert_eq!((young.matches("#EXT-X-DISCONTINUITY\n").count(), young.contains("DISCONTINUITY-SEQUENCE")), (1, false));
    assert_eq!(young.matches("#EXT-X-MAP").count(), 2, "named anew behind it");
    for msn in 10..30 {
        playlist.close(7, 0);
        playlist.open(&cut(msn, false), Some("video/7/init-1.mp4".into()));
        for n in 0..10 {
            playlist.push_part(Timestamp::from_micros(200_000), n == 0, 7);
        }
    }
    let old = text(&mut playlist);
    assert!(!old.contains("#EXT-X-DISCONTINUITY\n") && old.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "{old}");
}

#[test]
fn a_hint_comes_true_across_epochs() {
    let mut playlist = playlist("Ip");
    playlist.close(7, 0);
    let hinted = playlist.render(&[]).hint;
    assert_eq!(hinted, (7, 2), "nobody knows yet that epoch 8 comes");
    playlist.open(&cut(2, true), Some("video/8/init-1.mp4".into()));
    let (number, epoch) = playlist.push_part(Timestamp::from_micros(200_000), true, 8);
    assert_eq!((epoch, number), hinted);
    assert_eq!(playlist.render(&[]).hint, (8, 3), "from here on under its own");
}

#[test]
fn a_torn_segment_is_a_gap_and_keeps_its_parts() {
    let mut playlist = playlist(&format!("{}Ip", segment()));
    playlist.tear();
    assert_eq!(playlist.close(7, 2_000_000), Some(Closed { msn: 2, duration_us: 2_000_000, gap: true }));
    playlist.open(&cut(3, false), Some("video/7/init-1.mp4".into()));
    let text = text(&mut playlist);
    assert!(
        text.contains("URI=\"video/7/part-11.m4s\"\n#EXT-X-PART:DURATION=0.20000001,URI=\"video/7/gap-2-2.m4s\",GAP=YES\n"),
        "{text}"
    );
    let end = "URI=\"video/7/gap-2-9.m4s\",GAP=YES\n#EXT-X-GAP\n#EXTINF:2.00000010,\nvideo/7/segment-2.m4s\n";
    assert!(text.contains(end), "{text}");
    assert_eq!(playlist.render(&[]).hint, (7, 12), "what was hinted comes");
}

#[test]
fn a_segment_without_parts_is_a_gap() {
    let mut playlist = playlist("Ip||I");
    let text = text(&mut playlist);
    assert!(text.contains("#EXT-X-GAP\n#EXTINF:2.00000000,\nvideo/7/segment-2.m4s\n"), "{text}");
    assert_eq!(playlist.edge().newest(), Some(Position { msn: 3, part: Some(0) }));
}
