//! What playlists say, at every TARGETDURATION, read back line by line and by m3u8-rs.

use std::sync::Arc;

use media_core::{Timestamp, timeline::Cut};
use packager::hls::playlist::{Constants, Edge, Lookup, Playlist, Position, Rendered, Report};

use crate::reader::Media;

/// 2026-01-01T00:00:00Z.
const WALL_US: i64 = 1_767_225_600_000_000;
const EPOCH: u64 = 7;

/// A playlist that is written segment by segment.
struct Writer {
    playlist: Playlist,
    constants: Constants,
    at_us: i64,
    msn: u64,
}

impl Writer {
    fn new(target_duration: u32, part_target_ms: u32) -> Self {
        let constants = Constants { target_duration, part_target_ms };
        Self { playlist: Playlist::new("video", constants, 100, 0, EPOCH), constants, at_us: 0, msn: 100 }
    }

    fn open(&mut self, discontinuity: bool, map: u32) {
        let (at, wall_us) = (Timestamp::from_micros(self.at_us), WALL_US + self.at_us);
        let cut = Cut { msn: self.msn, at, discontinuity, independent: true, wall_us, closes_us: 0 };
        self.playlist.open(&cut, Some(Arc::from(format!("video/{EPOCH}/init-{map}.mp4"))));
        self.msn += 1;
    }

    fn parts(&mut self, parts: u32) {
        let duration_us = i64::from(self.constants.part_target_ms) * 1000;
        for n in 0..parts {
            self.playlist.push_part(Timestamp::from_micros(duration_us), n == 0, EPOCH);
            self.at_us += duration_us;
        }
    }

    /// A whole segment, as long as TARGETDURATION.
    fn segment(&mut self, discontinuity: bool, map: u32) {
        self.open(discontinuity, map);
        self.parts(self.constants.target_duration * 1000 / self.constants.part_target_ms);
        self.playlist.close(EPOCH, 0);
    }

    fn gap(&mut self) {
        self.open(false, 1);
        let us = i64::from(self.constants.target_duration) * 1_000_000;
        self.at_us += us;
        self.playlist.close(EPOCH, us);
    }

    fn render(&mut self) -> (Arc<Rendered>, Media) {
        let rendered = self.playlist.render(&[]);
        let text = text(&rendered);
        let media = Media::read(&text);
        media.check();
        media.check_against_m3u8_rs(&text);
        (Arc::new(rendered), media)
    }
}

fn text(rendered: &Rendered) -> String {
    String::from_utf8(rendered.plain().to_vec()).unwrap()
}

#[test]
fn a_small_playlist_reads_like_this() {
    let mut writer = Writer::new(2, 1000);
    writer.segment(false, 1);
    writer.segment(true, 2);
    writer.gap();
    writer.segment(false, 2);
    writer.open(false, 2);
    writer.parts(1);
    let report = Report { uri: "audio.m3u8", newest: Position { msn: 103, part: None } };
    let live = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=3.00000003,CAN-SKIP-UNTIL=12.00000000
#EXT-X-PART-INF:PART-TARGET=1.00000001
#EXT-X-MEDIA-SEQUENCE:99
#EXT-X-MAP:URI=\"video/7/init-1.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2025-12-31T23:59:58.000Z
#EXT-X-GAP
#EXTINF:2.00000000,
video/7/segment-99.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z
#EXTINF:2.00000002,
video/7/segment-100.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"video/7/init-2.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:02.000Z
#EXT-X-PART:DURATION=1.00000001,URI=\"video/7/part-2.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=1.00000001,URI=\"video/7/part-3.m4s\"
#EXTINF:2.00000002,
video/7/segment-101.m4s
#EXT-X-MAP:URI=\"video/7/init-1.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:04.000Z
#EXT-X-GAP
#EXTINF:2.00000000,
video/7/segment-102.m4s
#EXT-X-MAP:URI=\"video/7/init-2.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:06.000Z
#EXT-X-PART:DURATION=1.00000001,URI=\"video/7/part-4.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=1.00000001,URI=\"video/7/part-5.m4s\"
#EXTINF:2.00000002,
video/7/segment-103.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:08.000Z
#EXT-X-PART:DURATION=1.00000001,URI=\"video/7/part-6.m4s\",INDEPENDENT=YES
";
    let rendered = writer.playlist.render(std::slice::from_ref(&report));
    let open = "\
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"video/7/part-7.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"audio.m3u8\",LAST-MSN=103
";
    assert_eq!(text(&rendered), format!("{live}{open}"));
    writer.playlist.close(EPOCH, 0);
    writer.playlist.end();
    let ended = text(&writer.playlist.render(&[report]));
    assert!(ended.ends_with("#EXTINF:1.00000001,\nvideo/7/segment-104.m4s\n#EXT-X-ENDLIST\n"), "{ended}");
    assert!(!ended.contains("PRELOAD-HINT") && !ended.contains("RENDITION-REPORT"));
}

#[test]
fn a_report_names_the_newest_part() {
    let check = |edge: (u64, u32, u32), msn, part| {
        let (open_msn, open_parts, closed_parts) = edge;
        let edge = Edge { open_msn, open_parts, closed_parts, advance_parts_max: 15, ended: false };
        assert_eq!(edge.newest(), Some(Position { msn, part }), "{edge:?}");
    };
    check((5, 3, 10), 5, Some(2));
    check((5, 0, 10), 4, Some(9));
    check((5, 1, 0), 5, Some(0));
    check((5, 0, 0), 4, None); // a gap
}

#[test]
fn a_place_is_ready_pending_or_too_far() {
    // Segment 50 is open: closed ones have 10 Parts, it has `open_parts`.
    let check = |open_parts, position: (u64, Option<u32>), expected| {
        let edge = Edge { open_msn: 50, open_parts, closed_parts: 10, advance_parts_max: 15, ended: false };
        let (msn, part) = position;
        assert_eq!(edge.lookup(Position { msn, part }), expected, "{open_parts} {position:?}");
        let ended = Edge { ended: true, ..edge };
        assert_eq!(ended.lookup(Position { msn, part }), Lookup::Ready, "ended: {position:?}");
    };
    use Lookup::{Pending, Ready, TooFar};
    check(3, (0, None), Ready);
    check(3, (49, None), Ready);
    check(3, (49, Some(9)), Ready);
    check(3, (49, Some(10)), Ready); // past its end: 50.0
    check(0, (49, Some(10)), Pending);
    check(0, (49, Some(99)), Pending);
    check(3, (50, Some(2)), Ready);
    check(3, (50, Some(3)), Pending);
    check(3, (50, Some(17)), Pending);
    check(3, (50, Some(18)), TooFar);
    check(3, (50, Some(u32::MAX)), TooFar);
    check(3, (50, None), Pending);
    check(3, (51, Some(0)), Pending);
    check(3, (51, Some(14)), Pending);
    check(3, (51, Some(15)), TooFar);
    check(3, (52, None), Pending);
    check(3, (53, None), TooFar);
    check(0, (51, None), Pending);
    check(0, (52, None), TooFar); // the newest is 49
    check(3, (u64::MAX, Some(0)), TooFar);
}

#[test]
fn three_seconds_of_parts_may_be_asked_for() {
    for (part_target_ms, advance) in [(200, 15), (201, 15), (240, 13), (250, 12), (500, 6), (1000, 3)] {
        assert_eq!(Writer::new(2, part_target_ms).playlist.edge().advance_parts_max, advance, "{part_target_ms}");
    }
}

#[test]
fn the_window_is_sixteen_seconds_and_four_targets() {
    for (target, segments) in [(2, 8), (6, 4), (10, 4)] {
        let mut writer = Writer::new(target, 200);
        for n in 0..40 {
            writer.segment(false, 1);
            let (_, media) = writer.render();
            let expected = (n + 2).min(segments);
            assert_eq!(media.segments.len(), expected, "TARGETDURATION {target}, after {} segments", n + 1);
            assert_eq!(media.media_sequence, writer.msn - expected as u64);
            assert_eq!(writer.playlist.first_msn(), media.media_sequence);
            let parts: usize = media.segments.iter().map(|segment| segment.parts.len()).sum();
            assert!(parts <= 3 * target as usize * 5, "of the last three target durations only");
        }
    }
}

#[test]
fn a_delta_update_is_the_rest_of_the_full_playlist() {
    for (target, part_ms) in [(2, 200), (6, 250), (10, 1000)] {
        let mut writer = Writer::new(target, part_ms);
        for n in 0..12 {
            writer.segment(n == 5, if n < 5 { 1 } else { 2 });
            writer.open(false, 2);
            writer.parts(1);
            let (rendered, full) = writer.render();
            let delta = Media::read(std::str::from_utf8(&rendered.delta()).unwrap());
            let skipped = delta.skipped as usize;
            assert_eq!(Media { skipped: 0, ..delta.clone() }.segments.len() + skipped, full.segments.len());
            for (new, old) in delta.segments.iter().zip(&full.segments[skipped..]) {
                assert_eq!(
                    (new.msn, &new.uri, &new.parts, new.discontinuity),
                    (old.msn, &old.uri, &old.parts, old.discontinuity)
                );
            }
            let rest_us: i64 = full.segments[skipped..].iter().map(|segment| segment.duration_us).sum();
            assert!(
                rest_us >= 6 * i64::from(target) * 1_000_000 || skipped == 0,
                "nothing newer than the Skip Boundary is skipped"
            );
            writer.playlist.close(EPOCH, 0);
        }
    }
}

#[test]
fn a_discontinuity_is_counted_once_its_segment_has_left() {
    let mut writer = Writer::new(2, 200);
    let mut left = 0;
    for n in 0..60 {
        writer.segment(n % 7 == 6, 1);
        let (_, media) = writer.render();
        let listed = media.segments.iter().filter(|segment| segment.discontinuity).count() as u64;
        assert_eq!(media.discontinuity_sequence + listed, (n + 1) / 7, "after {n}");
        assert!(media.discontinuity_sequence >= left);
        left = media.discontinuity_sequence;
    }
    assert!(left > 5);
}

#[test]
fn an_etag_names_one_rendering() {
    let mut writer = Writer::new(2, 200);
    writer.segment(false, 1);
    let (first, _) = writer.render();
    writer.open(false, 1);
    writer.parts(1);
    let (second, _) = writer.render();
    assert_ne!(first.etag, second.etag);
    let mut other = Playlist::new("video", writer.constants, 100, 0, EPOCH + 1);
    assert_ne!(other.render(&[]).etag, first.etag, "another epoch, another tag");
}
