//! One rendition of a presentation: its Segmenter, its Playlist and its Shelf, kept in step.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use media_core::{Sample, Timestamp, Track, TrackId, TrackKind, container::fmp4, timeline::Cut};

use super::{
    playlist::{Constants, Playlist, Rendered, Report, init_uri},
    segmenter::{Part, Segmenter},
    shelf::Shelf,
};

/// Shared with those who serve it: the Shelf is read while Parts are made.
#[derive(Clone, Debug, Default)]
pub struct SharedShelf(Arc<RwLock<Shelf>>);

impl SharedShelf {
    pub fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        // No code of ours panics while it holds the lock; the data is whole either way.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a segment may still catch up on: more than any jitter, and so little that EXTINF rounds down all the same.
const LAG_MAX: Timestamp = Timestamp::from_millis(30);

/// A segment of a rung may end so much early: a picture that was lost, at five a second.
const TORN: Duration = Duration::from_millis(450);

/// Sound is dated this much before its time, so that no rounding to milliseconds dates it behind the pictures' time. hls.js lays sound
/// beside pictures by dates; sound that it takes to be later than it is, it does not load on behind the segment that it has.
const SOUND_EARLY_US: i64 = 1_000;

/// Names in addresses, by `TrackId::index`: further pictures and sounds are counted from the second, rungs from the first.
const NAMES: [(&str, &str); TrackId::COUNT] = [
    ("video", "video.m3u8"),
    ("audio", "audio.m3u8"),
    ("video-2", "video-2.m3u8"),
    ("video-3", "video-3.m3u8"),
    ("video-4", "video-4.m3u8"),
    ("video-5", "video-5.m3u8"),
    ("video-6", "video-6.m3u8"),
    ("video-7", "video-7.m3u8"),
    ("video-8", "video-8.m3u8"),
    ("rung-1", "rung-1.m3u8"),
    ("rung-2", "rung-2.m3u8"),
    ("rung-3", "rung-3.m3u8"),
    ("rung-4", "rung-4.m3u8"),
    ("rung-5", "rung-5.m3u8"),
    ("rung-6", "rung-6.m3u8"),
    ("rung-7", "rung-7.m3u8"),
    ("audio-2", "audio-2.m3u8"),
    ("audio-3", "audio-3.m3u8"),
    ("audio-4", "audio-4.m3u8"),
];

#[derive(Debug)]
pub struct Rendition {
    pub id: TrackId,
    pub kind: TrackKind,
    pub shelf: SharedShelf,
    segmenter: Segmenter,
    playlist: Playlist,
    part_target: Timestamp,
    /// The initialization segment in force: its address and bytes.
    map: Option<(Arc<str>, Bytes)>,
    inits: u64,
    /// The cut of the open segment.
    open: Option<Cut>,
    /// Media bytes of the open segment.
    bytes: usize,
    /// The last segment was a gap: what follows it goes on at its own time.
    gap: bool,
    rendered: Arc<Rendered>,
    /// Parts published and not yet reported to the shell: when the last byte of each had arrived.
    published: Vec<Instant>,
    /// Rendered anew since the shell looked.
    dirty: bool,
    segments: u64,
}

/// A segment was closed.
#[derive(Clone, Copy, Debug)]
pub struct ClosedSegment {
    pub bytes: usize,
    pub duration_us: i64,
}

fn folder(id: TrackId) -> &'static str {
    NAMES[id.index()].0
}

pub fn playlist_uri(id: TrackId) -> &'static str {
    NAMES[id.index()].1
}

/// The rendition that a folder or a playlist belongs to.
pub fn by_name(name: &str) -> Option<TrackId> {
    let index = NAMES.iter().position(|(folder, playlist)| name == *folder || name == *playlist)?;
    TrackId::ALL.into_iter().find(|id| id.index() == index)
}

impl Rendition {
    /// `track` of a rung is its source's until something was made of it.
    pub fn new(id: TrackId, track: &Arc<Track>, constants: Constants, next_msn: u64, discontinuities: u64, epoch: u64) -> Self {
        let kind = track.kind();
        let part_target = Timestamp::from_millis(constants.part_target_ms.into());
        let mut playlist = Playlist::new(folder(id), constants, next_msn, discontinuities, epoch);
        let rendered = Arc::new(playlist.render(&[]));
        Self {
            id,
            kind,
            shelf: SharedShelf::default(),
            segmenter: Segmenter::new(Arc::clone(track), part_target),
            playlist,
            part_target,
            map: None,
            inits: 0,
            open: None,
            bytes: 0,
            gap: false,
            rendered,
            published: Vec::new(),
            dirty: false,
            segments: 0,
        }
    }

    pub fn track(&self) -> &Arc<Track> {
        self.segmenter.track()
    }

    pub fn rendered(&self) -> &Arc<Rendered> {
        &self.rendered
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn is_playable(&self) -> bool {
        self.playlist.is_playable()
    }

    pub fn at_border(&self) -> bool {
        self.segmenter.at_border()
    }

    pub fn end_of_media(&self) -> Timestamp {
        self.segmenter.end()
    }

    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// The Parts published since the last call, and whether the playlist changed.
    pub fn take_news(&mut self) -> (Vec<Instant>, bool) {
        (std::mem::take(&mut self.published), std::mem::take(&mut self.dirty))
    }

    pub fn report(&self) -> Option<Report> {
        Some(Report { uri: playlist_uri(self.id), newest: self.playlist.edge().newest()? })
    }

    /// Opens the segment of `cut`; `first` is its first Sample's decode time in the presentation.
    /// The segment before must be closed.
    pub fn open(&mut self, cut: Cut, track: &Arc<Track>, first: Timestamp, epoch: u64) -> Result<(), fmp4::InitError> {
        // What paused goes on at its own time: a segment that had to catch up would be too long.
        let paused = first > self.segmenter.end() + LAG_MAX;
        // The encoder of a rung may start anew within a publisher's run; layers wait for a discontinuity.
        let recoded = self.id.is_rung() && self.segmenter.track() != track;
        let fresh = cut.discontinuity || self.gap || paused || recoded || self.map.is_none();
        if fresh {
            self.segmenter.restart(track, first, self.part_target);
            self.gap = false;
        }
        if self.map.is_none() || fresh {
            self.set_map(track, epoch)?;
        }
        let (map, _) = self.map.as_ref().expect("set above");
        // The date is of where the media begins: it goes on without a hole where the source jittered.
        let ahead_us = (first - self.segmenter.end()).as_micros();
        let early_us = if self.kind == TrackKind::Audio { SOUND_EARLY_US } else { 0 };
        self.playlist.open(&Cut { wall_us: cut.wall_us - ahead_us - early_us, ..cut }, Some(Arc::clone(map)));
        self.open = Some(cut);
        self.bytes = 0;
        Ok(())
    }

    /// Opens a segment of which there will be nothing, where there never was anything.
    pub fn open_gap(&mut self, cut: Cut) {
        self.playlist.open(&cut, None);
        self.open = Some(cut);
        self.bytes = 0;
    }

    /// Something was made of it.
    pub fn is_begun(&self) -> bool {
        self.map.is_some()
    }

    /// Parameters that did not change keep their address.
    fn set_map(&mut self, track: &Track, epoch: u64) -> Result<(), fmp4::InitError> {
        let bytes = fmp4::init_segment(track)?;
        if self.map.as_ref().is_some_and(|(_, known)| *known == bytes) {
            return Ok(());
        }
        self.inits += 1;
        let uri = init_uri(folder(self.id), epoch, self.inits);
        self.shelf.write().put_init(epoch, self.inits, bytes.clone());
        self.map = Some((uri.into(), bytes));
        Ok(())
    }

    /// The time of the next Sample is known. True when that completed a Part. `now`: when what
    /// lets it be published had arrived, on whichever track.
    pub fn settle(&mut self, sample: &Sample, offset: Timestamp, epoch: u64, now: Instant) -> bool {
        let part = self.segmenter.settle(sample, offset);
        self.publish(part, epoch, now)
    }

    /// True when the Sample completed a Part.
    pub fn push(&mut self, sample: &Sample, offset: Timestamp, epoch: u64, now: Instant) -> bool {
        let part = self.segmenter.push(sample, offset);
        self.publish(part, epoch, now)
    }

    fn publish(&mut self, part: Option<Part>, epoch: u64, now: Instant) -> bool {
        let Some(part) = part else { return false };
        let (number, part_epoch) = self.playlist.push_part(part.duration, part.independent, epoch);
        self.shelf.write().put_part(part_epoch, number, part.bytes);
        self.bytes += part.media_bytes;
        self.published.push(now);
        true
    }

    /// The open segment ends at `next`. A rung that was not made up to there is torn: players must not take what follows for the
    /// next of what there is.
    pub fn tear_before(&mut self, next: Timestamp) {
        if self.id.is_rung() && (next - self.segmenter.end()).to_duration() > TORN {
            self.playlist.tear();
        }
    }

    /// Closes the open segment, with what its open Part holds. `next` is where the next one
    /// starts: how long an empty one was.
    pub fn close(&mut self, next: Timestamp, epoch: u64, now: Instant) -> Option<ClosedSegment> {
        let cut = self.open.take()?;
        let part = self.segmenter.close_part();
        self.publish(part, epoch, now);
        let closed = self.playlist.close(epoch, (next - cut.at).as_micros())?;
        self.gap = closed.gap;
        self.segments += 1;
        let duration = Duration::from_micros(u64::try_from(closed.duration_us).unwrap_or(0));
        let window = Duration::from_micros(u64::try_from(self.playlist.window_us()).unwrap_or(0));
        let mut shelf = self.shelf.write();
        shelf.close_segment(epoch, closed.msn, duration);
        shelf.depart(self.playlist.first_msn(), window, now);
        drop(shelf);
        Some(ClosedSegment { bytes: std::mem::take(&mut self.bytes), duration_us: closed.duration_us })
    }

    pub fn end(&mut self) {
        self.playlist.end();
    }

    pub fn render(&mut self, reports: &[Report]) {
        let mut rendered = self.playlist.render(reports);
        rendered.end = self.segmenter.end();
        self.rendered = Arc::new(rendered);
        self.dirty = true;
    }
}
