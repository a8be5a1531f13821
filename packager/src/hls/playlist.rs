//! The window of one Low-Latency HLS Media Playlist (rfc8216bis 4.4, 6.2).
//!
//! Sans-IO: Segments and Parts go in, a `Rendered` comes out once a Part and is shared by all
//! viewers; `Edge::lookup` answers a blocking reload. Waiting for a `Pending` answer is the HTTP
//! shell's work, and the bytes lie on the `Shelf`.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use media_core::{Timescale, Timestamp, timeline::Cut};

/// The playlist lists so much media, and never less than four target durations: a viewer whose
/// network paused for ten seconds still finds where it was.
const WINDOW_US: i64 = 16_000_000;
const WINDOW_TARGETS: i64 = 4;
/// Parts are listed for the last three target durations (rfc8216bis 4.4.4.9).
const PARTS_TARGETS: i64 = 3;
/// Skip Boundary: at least six target durations (rfc8216bis 4.4.3.8).
const SKIP_TARGETS: i64 = 6;
/// Durations are written in these. What is written of Parts adds up to what is written of their segment.
const WRITTEN: Timescale = Timescale::new(100_000_000).expect("it is not 0");
/// A Part is said to be so much longer than it is, in `WRITTEN`. Shaka 5.2 adds up what is written of the Parts before one, and
/// where that comes out below the time stamp, by the last bit of a sum, it resets the browser's parser: pictures up to the next
/// keyframe are lost.
const PART_OVER: i64 = 1;

/// A place in the playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub msn: u64,
    /// `None` asks for the whole segment.
    pub part: Option<u32>,
}

/// What the playlist offers right now: all that a blocking reload must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Of the segment that is open, or will be next.
    pub open_msn: u64,
    /// Parts the open segment has.
    pub open_parts: u32,
    /// Parts the newest closed segment has; 0 where there is none, or where it is a gap.
    pub closed_parts: u32,
    /// How many Parts ahead may be asked for: 3 s of them (rfc8216bis 6.2.5.2).
    pub advance_parts_max: u32,
    pub ended: bool,
}

/// The answer to a blocking reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In the playlist, or older: answer now.
    Ready,
    /// Within the distance a player may wait for: hold the request.
    Pending,
    /// Too far ahead to wait for. Answer 400, as the draft asks.
    TooFar,
}

impl Edge {
    pub fn lookup(&self, asked: Position) -> Lookup {
        if self.ended {
            return Lookup::Ready;
        }
        let newest_msn = if self.open_parts > 0 { self.open_msn } else { self.open_msn.saturating_sub(1) };
        if asked.msn > newest_msn + 2 {
            return Lookup::TooFar;
        }
        let Some(part) = asked.part else {
            return if asked.msn < self.open_msn { Lookup::Ready } else { Lookup::Pending };
        };
        // A Part past its segment's end is the first of the next.
        let (msn, part) =
            if asked.msn + 1 == self.open_msn && part >= self.closed_parts { (self.open_msn, 0) } else { (asked.msn, part) };
        if msn < self.open_msn || (msn == self.open_msn && part < self.open_parts) {
            return Lookup::Ready;
        }
        let have = if msn == self.open_msn { self.open_parts } else { 0 };
        if part >= have + self.advance_parts_max { Lookup::TooFar } else { Lookup::Pending }
    }

    /// The newest Part, as a rendition report names it; the newest segment where that is a gap.
    pub fn newest(&self) -> Option<Position> {
        if self.open_parts > 0 {
            Some(Position { msn: self.open_msn, part: Some(self.open_parts - 1) })
        } else {
            let msn = self.open_msn.checked_sub(1)?;
            Some(Position { msn, part: self.closed_parts.checked_sub(1) })
        }
    }
}

/// The same on every playlist of a presentation (rfc8216bis 6.2.4).
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    pub target_duration: u32,
    pub part_target_ms: u32,
}

#[derive(Debug)]
pub struct Playlist {
    /// Folder of the media addresses, relative to the playlist's own.
    folder: &'static str,
    constants: Constants,
    segments: VecDeque<Listed>,
    open: Option<Listed>,
    next_msn: u64,
    /// Discontinuities that have left the window.
    departed_discontinuities: u64,
    /// Runs through the presentation.
    next_part: u64,
    /// Epoch under which the next Part is hinted, and so will be published.
    hint_epoch: u64,
    ended: bool,
    renders: u64,
}

/// A segment as the playlist shows it.
#[derive(Debug)]
struct Listed {
    msn: u64,
    discontinuity: bool,
    /// `None` of a gap before anything was made: nothing of it will be fetched.
    map: Option<Arc<str>>,
    duration_us: i64,
    /// EXTINF of what has Parts, in `WRITTEN`.
    written: i64,
    parts: u32,
    /// A rung's, of whose end nothing was made.
    torn: bool,
    /// PROGRAM-DATE-TIME; then the EXT-X-PART lines; then EXTINF and address.
    head: String,
    part_lines: String,
    tail: String,
}

/// Where another rendition of the presentation stands.
#[derive(Clone, Debug)]
pub struct Report {
    pub uri: &'static str,
    pub newest: Position,
}

/// What a closed segment is to the Shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub msn: u64,
    pub duration_us: i64,
    pub gap: bool,
}

impl Playlist {
    /// `discontinuities` of the presentation up to its first segment, which shows none itself: hls.js 1.7.4 stands still
    /// for seconds where it starts on a gap that a discontinuity follows.
    pub fn new(folder: &'static str, constants: Constants, next_msn: u64, discontinuities: u64, epoch: u64) -> Self {
        Self {
            folder,
            constants,
            segments: VecDeque::new(),
            open: None,
            next_msn,
            departed_discontinuities: discontinuities,
            next_part: 0,
            hint_epoch: epoch,
            ended: false,
            renders: 0,
        }
    }

    /// Opens a segment; the one before must be closed. `map` is its initialization segment's address.
    pub fn open(&mut self, cut: &Cut, map: Option<Arc<str>>) {
        debug_assert!(self.open.is_none());
        if self.segments.is_empty() {
            self.lead_in(cut, &map);
        }
        self.next_msn = cut.msn;
        self.open = Some(Listed {
            msn: cut.msn,
            discontinuity: cut.discontinuity && self.segments.len() > 1,
            map,
            duration_us: 0,
            written: 0,
            parts: 0,
            torn: false,
            head: dated(cut.wall_us),
            part_lines: String::new(),
            tail: String::new(),
        });
    }

    /// A gap before the first segment. hls.js and Shaka take no playlist without a whole segment, and for the
    /// first seconds of a presentation there is none: with this one they play from the first Part on.
    fn lead_in(&mut self, first: &Cut, map: &Option<Arc<str>>) {
        let target_us = i64::from(self.constants.target_duration) * 1_000_000;
        // A track that was added later: as long as the segment that the others have there.
        let duration_us = if first.closes_us > 0 { first.closes_us } else { target_us };
        let msn = first.msn.saturating_sub(1);
        let uri = segment_uri(self.folder, self.hint_epoch, msn);
        self.segments.push_back(Listed {
            msn,
            discontinuity: false,
            map: map.clone(),
            duration_us,
            written: 0,
            parts: 0,
            torn: false,
            head: dated(first.wall_us - duration_us),
            part_lines: String::new(),
            tail: format!("#EXT-X-GAP\n#EXTINF:{},\n{uri}\n", Seconds::of_micros(duration_us)),
        });
    }

    /// Appends a Part to the open segment. Answers its number and epoch, which make its address;
    /// the next one is hinted under `epoch`.
    pub fn push_part(&mut self, duration: Timestamp, independent: bool, epoch: u64) -> (u64, u64) {
        let (number, part_epoch) = (self.next_part, self.hint_epoch);
        let uri = part_uri(self.folder, part_epoch, number);
        let open = self.open.as_mut().expect("a Part comes after the cut that opens its segment");
        open.parts += 1;
        open.duration_us += duration.as_micros();
        let written = Seconds::of_part(duration);
        open.written += written.0;
        let _ = write!(open.part_lines, "#EXT-X-PART:DURATION={written},URI=\"{uri}\"");
        open.part_lines.push_str(if independent { ",INDEPENDENT=YES\n" } else { "\n" });
        self.next_part += 1;
        self.hint_epoch = epoch;
        (number, part_epoch)
    }

    /// Parts that nobody will make, to the end of the open segment (GAP=YES). The address that is hinted is the next one's that is made.
    fn push_gaps(&mut self, mut missing_us: i64) {
        let part_us = i64::from(self.constants.part_target_ms.max(1)) * 1000;
        let Some(open) = &mut self.open else { return };
        while missing_us > 0 {
            let (written, msn, part) = (Seconds::of_part(Timestamp::from_micros(missing_us.min(part_us))), open.msn, open.parts);
            let uri = format!("{}/{}/gap-{msn}-{part}.m4s", self.folder, self.hint_epoch);
            let _ = writeln!(open.part_lines, "#EXT-X-PART:DURATION={written},URI=\"{uri}\",GAP=YES");
            open.parts += 1;
            open.written += written.0;
            open.duration_us += missing_us.min(part_us);
            missing_us -= part_us;
        }
    }

    /// Nothing comes of the rest of the open segment.
    pub fn tear(&mut self) {
        if let Some(open) = &mut self.open {
            open.torn = true;
        }
    }

    /// Closes the open segment. Without a Part, or torn, it is a gap of `gap_us` (EXT-X-GAP).
    pub fn close(&mut self, epoch: u64, gap_us: i64) -> Option<Closed> {
        if let Some(open) = self.open.as_ref().filter(|open| open.torn && open.parts > 0) {
            self.push_gaps(gap_us - open.duration_us);
        }
        let mut open = self.open.take()?;
        let gap = open.torn || open.parts == 0;
        if gap {
            open.duration_us = gap_us.max(1_000);
            open.tail.push_str("#EXT-X-GAP\n");
        }
        let written = if open.parts == 0 { Seconds::of_micros(open.duration_us) } else { Seconds(open.written) };
        let _ = write!(open.tail, "#EXTINF:{written},\n{}\n", segment_uri(self.folder, epoch, open.msn));
        let closed = Closed { msn: open.msn, duration_us: open.duration_us, gap };
        self.next_msn = open.msn + 1;
        self.segments.push_back(open);
        self.trim();
        Some(closed)
    }

    /// Nothing follows: EXT-X-ENDLIST.
    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn edge(&self) -> Edge {
        let part_ms = self.constants.part_target_ms.max(1);
        Edge {
            open_msn: self.next_msn,
            open_parts: self.open.as_ref().map_or(0, |open| open.parts),
            closed_parts: self.segments.back().map_or(0, |segment| segment.parts),
            advance_parts_max: if part_ms < 1000 { 3000_u32.div_ceil(part_ms) } else { 3 },
            ended: self.ended,
        }
    }

    /// The first number that is listed: older segments left the window.
    pub fn first_msn(&self) -> u64 {
        self.segments.front().or(self.open.as_ref()).map_or(self.next_msn, |segment| segment.msn)
    }

    /// How long the window is, in microseconds.
    pub fn window_us(&self) -> i64 {
        self.segments.iter().map(|segment| segment.duration_us).sum()
    }

    pub fn is_playable(&self) -> bool {
        self.next_part > 0
    }

    fn trim(&mut self) {
        let keep_us = WINDOW_US.max(WINDOW_TARGETS * i64::from(self.constants.target_duration) * 1_000_000);
        let mut total_us = self.window_us();
        while let Some(first) = self.segments.front() {
            if total_us - first.duration_us < keep_us {
                break;
            }
            total_us -= first.duration_us;
            self.departed_discontinuities += u64::from(first.discontinuity);
            self.segments.pop_front();
        }
    }

    /// The playlist as it stands, once for all viewers.
    pub fn render(&mut self, reports: &[Report]) -> Rendered {
        self.renders += 1;
        let target_us = i64::from(self.constants.target_duration) * 1_000_000;
        let mut text = String::with_capacity(6 << 10);
        self.header(&mut text);
        let header_end = text.len();

        let open_us = self.open.as_ref().map_or(0, |open| open.duration_us);
        let mut from_end_us = self.window_us() + open_us;
        let (mut skipped, mut skip_to, mut map): (usize, usize, Option<&Arc<str>>) = (0, header_end, None);
        for segment in self.segments.iter().chain(self.open.as_ref().filter(|open| open.parts > 0)) {
            from_end_us -= segment.duration_us;
            if segment.discontinuity {
                text.push_str("#EXT-X-DISCONTINUITY\n");
            }
            // Named anew behind a discontinuity, though the same holds: not every player carries it over.
            if let Some(named) = &segment.map
                && (map != Some(named) || segment.discontinuity)
            {
                let _ = writeln!(text, "#EXT-X-MAP:URI=\"{named}\"");
                map = Some(named);
            }
            text.push_str(&segment.head);
            if from_end_us < PARTS_TARGETS * target_us {
                text.push_str(&segment.part_lines);
            }
            text.push_str(&segment.tail);
            if from_end_us >= SKIP_TARGETS * target_us {
                skipped += 1;
                skip_to = text.len();
            }
        }
        if self.ended {
            text.push_str("#EXT-X-ENDLIST\n");
        } else {
            let _ = writeln!(
                text,
                "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}\"",
                part_uri(self.folder, self.hint_epoch, self.next_part)
            );
            for Report { uri, newest } in reports {
                let _ = write!(text, "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={}", newest.msn);
                let _ = match newest.part {
                    Some(part) => writeln!(text, ",LAST-PART={part}"),
                    None => writeln!(text),
                };
            }
        }
        Rendered {
            edge: self.edge(),
            end: Timestamp::ZERO,
            hint: (self.hint_epoch, self.next_part),
            etag: format!("\"{:x}-{:x}\"", self.hint_epoch, self.renders),
            plain: text.into(),
            header_end,
            skip_to,
            skipped,
            gzip: OnceLock::new(),
            delta: OnceLock::new(),
            delta_gzip: OnceLock::new(),
        }
    }

    fn header(&self, text: &mut String) {
        let Constants { target_duration, part_target_ms } = self.constants;
        let part_target = Seconds::of_part(Timestamp::from_millis(part_target_ms.into()));
        let _ = write!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{target_duration}\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},CAN-SKIP-UNTIL={}\n\
             #EXT-X-PART-INF:PART-TARGET={}\n#EXT-X-MEDIA-SEQUENCE:{}\n",
            Seconds(3 * part_target.0),
            Seconds::of_micros(SKIP_TARGETS * i64::from(target_duration) * 1_000_000),
            part_target,
            self.first_msn(),
        );
        if self.departed_discontinuities > 0 {
            let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.departed_discontinuities);
        }
    }
}

pub fn part_uri(folder: &str, epoch: u64, number: u64) -> String {
    format!("{folder}/{epoch}/part-{number}.m4s")
}

pub fn segment_uri(folder: &str, epoch: u64, msn: u64) -> String {
    format!("{folder}/{epoch}/segment-{msn}.m4s")
}

pub fn init_uri(folder: &str, epoch: u64, number: u64) -> String {
    format!("{folder}/{epoch}/init-{number}.mp4")
}

/// What is counted in `WRITTEN`, as seconds with eight decimals.
struct Seconds(i64);

impl Seconds {
    fn of_part(duration: Timestamp) -> Self {
        Self(duration.ticks_in(WRITTEN) + PART_OVER)
    }

    fn of_micros(us: i64) -> Self {
        Self(Timestamp::from_micros(us).ticks_in(WRITTEN))
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let second = i64::from(WRITTEN.ticks_per_second());
        write!(f, "{}.{:08}", self.0 / second, self.0 % second)
    }
}

fn dated(wall_us: i64) -> String {
    format!("#EXT-X-PROGRAM-DATE-TIME:{}\n", date_time(wall_us))
}

fn date_time(wall_us: i64) -> String {
    use chrono::{DateTime, SecondsFormat, Utc};
    DateTime::<Utc>::from_timestamp_micros(wall_us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// One playlist, rendered: immutable, and shared by all who ask until the next Part.
#[derive(Debug)]
pub struct Rendered {
    pub edge: Edge,
    /// Where its media ends, in the presentation.
    pub end: Timestamp,
    /// Epoch and number of the Part that is hinted: it may be asked for, and waited for.
    pub hint: (u64, u64),
    /// Of the full playlist; a delta update has none of its own.
    pub etag: String,
    plain: Bytes,
    header_end: usize,
    skip_to: usize,
    skipped: usize,
    // The first who asks makes them, for all.
    gzip: OnceLock<Bytes>,
    delta: OnceLock<Bytes>,
    delta_gzip: OnceLock<Bytes>,
}

impl Rendered {
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.plain)).clone()
    }

    /// A Playlist Delta Update (rfc8216bis 6.2.5.1); the whole playlist where nothing can be skipped.
    pub fn delta(&self) -> Bytes {
        if self.skipped == 0 {
            return self.plain();
        }
        let make = || {
            let skip = format!("#EXT-X-SKIP:SKIPPED-SEGMENTS={}\n", self.skipped);
            [&self.plain[..self.header_end], skip.as_bytes(), &self.plain[self.skip_to..]].concat().into()
        };
        self.delta.get_or_init(make).clone()
    }

    pub fn delta_gzip(&self) -> Bytes {
        if self.skipped == 0 {
            return self.gzip();
        }
        self.delta_gzip.get_or_init(|| gzip(&self.delta())).clone()
    }
}

/// Level 1: playlists repeat themselves so much that more effort gains a few bytes.
pub(super) fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing into memory does not fail").into()
}

#[cfg(test)]
mod tests;
