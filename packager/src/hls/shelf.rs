//! The bytes of one rendition, by address, for as long as a viewer may ask for them.
//!
//! A Part's buffer is held once; a segment is its Parts' buffers. A segment that has left the
//! playlist stays for its own duration and the longest playlist that listed it (rfc8216bis 6.2.2),
//! and its Parts with it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// Initialization segments kept: as many as a window could list if every segment had its own.
const INITS_MAX: usize = 64;
/// Parts of the open segment: more than any segment has, so that one that never closes is bounded.
const OPEN_PARTS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct Shelf {
    inits: VecDeque<Init>,
    segments: VecDeque<Stored>,
    /// Of the open segment.
    open: Vec<StoredPart>,
}

#[derive(Debug)]
struct Init {
    epoch: u64,
    number: u64,
    bytes: Bytes,
}

#[derive(Debug)]
struct Stored {
    epoch: u64,
    msn: u64,
    duration: Duration,
    parts: Vec<StoredPart>,
    /// Set when it leaves the playlist.
    expires: Option<Instant>,
}

#[derive(Clone, Debug)]
struct StoredPart {
    epoch: u64,
    number: u64,
    bytes: Bytes,
}

impl Shelf {
    pub fn put_init(&mut self, epoch: u64, number: u64, bytes: Bytes) {
        if self.inits.len() >= INITS_MAX {
            self.inits.pop_front();
        }
        self.inits.push_back(Init { epoch, number, bytes });
    }

    pub fn put_part(&mut self, epoch: u64, number: u64, bytes: Bytes) {
        if self.open.len() < OPEN_PARTS_MAX {
            self.open.push(StoredPart { epoch, number, bytes });
        }
    }

    /// The open Parts become a segment; a gap has none and is not stored.
    pub fn close_segment(&mut self, epoch: u64, msn: u64, duration: Duration) {
        let parts = std::mem::take(&mut self.open);
        if !parts.is_empty() {
            self.segments.push_back(Stored { epoch, msn, duration, parts, expires: None });
        }
    }

    /// Segments before `first_msn` are not listed any more; `window` is how long the playlist is.
    pub fn depart(&mut self, first_msn: u64, window: Duration, now: Instant) {
        for stored in self.segments.iter_mut().take_while(|stored| stored.msn < first_msn) {
            stored.expires.get_or_insert(now + stored.duration + window);
        }
        while self.segments.front().is_some_and(|stored| stored.expires.is_some_and(|at| at <= now)) {
            self.segments.pop_front();
        }
    }

    pub fn init(&self, epoch: u64, number: u64) -> Option<Bytes> {
        self.inits.iter().find(|init| (init.epoch, init.number) == (epoch, number)).map(|init| init.bytes.clone())
    }

    pub fn part(&self, epoch: u64, number: u64) -> Option<Bytes> {
        let find = |parts: &[StoredPart]| {
            let at = parts.binary_search_by_key(&number, |part| part.number).ok()?;
            (parts[at].epoch == epoch).then(|| parts[at].bytes.clone())
        };
        let after = self.segments.partition_point(|stored| stored.parts[0].number <= number);
        match after.checked_sub(1).and_then(|at| find(&self.segments[at].parts)) {
            Some(bytes) => Some(bytes),
            None => find(&self.open),
        }
    }

    /// A segment's Parts, in order.
    pub fn segment(&self, epoch: u64, msn: u64) -> Option<Vec<Bytes>> {
        let at = self.segments.binary_search_by_key(&msn, |stored| stored.msn).ok()?;
        let stored = &self.segments[at];
        (stored.epoch == epoch).then(|| stored.parts.iter().map(|part| part.bytes.clone()).collect())
    }

    /// Media bytes held.
    pub fn bytes(&self) -> usize {
        self.segments.iter().flat_map(|stored| &stored.parts).chain(&self.open).map(|part| part.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_outlives_its_line_by_its_duration_and_the_window() {
        let mut shelf = Shelf::default();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        for msn in 0..3 {
            shelf.put_part(7, msn * 2, Bytes::from(vec![msn as u8]));
            shelf.put_part(7, msn * 2 + 1, Bytes::from_static(b"x"));
            shelf.close_segment(7, 100 + msn, 2 * second);
        }
        shelf.put_part(8, 6, Bytes::from_static(b"open"));
        assert_eq!(shelf.segment(7, 100).unwrap().concat(), b"\0x");
        assert_eq!(shelf.segment(8, 100), None, "another epoch's address");
        assert_eq!(shelf.part(8, 6).unwrap(), "open");
        assert_eq!(shelf.part(7, 3).unwrap(), "x");
        assert_eq!((shelf.part(7, 6), shelf.part(7, 7)), (None, None));
        shelf.depart(101, 16 * second, now);
        shelf.depart(102, 16 * second, now + second);
        assert!(shelf.segment(7, 100).is_some());
        shelf.depart(102, 16 * second, now + 18 * second);
        assert_eq!((shelf.segment(7, 100), shelf.part(7, 0)), (None, None));
        assert!(shelf.segment(7, 101).is_some());
        assert_eq!(shelf.bytes(), 8);
    }
}
