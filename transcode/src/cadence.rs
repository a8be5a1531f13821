//! Pictures at a constant rate of a source that sends one when something has changed, as browsers do of a screen.
//!
//! ```text
//! source   A . . B C . . . . . . D
//! given    A A A B C C C C C C C D      at the multiples of the rate on the source's clock
//! ```
//!
//! Pure. A picture is given in the slot of its time as soon as it comes; what fills the slots before it is repeated as soon as
//! none can come for them any more, by how late the source's pictures have come. One that comes later still is given in the
//! next slot. Slots and cuts follow from the clock alone: whoever makes something of the same source has the same.

use std::{ops::Range, time::Duration};

use media_core::codec::FrameRate;

/// A picture may come so much later than the least late ones before its slot is filled: the jitter of a network and of a browser's
/// encoder. More costs everybody that delay; what comes later is shown a slot later.
const MARGIN_NS: i64 = 50_000_000;
/// And while pictures of the past are made up for, which come as fast as they can be decoded.
const PAST_MARGIN_NS: i64 = 400_000_000;
/// A source that is silent for so long is gone.
const SILENCE_NS: i64 = 60_000_000_000;
/// What the least delay grows by with time, in parts of it: clocks that drift apart are followed.
const DRIFT: i64 = 1_000;

#[derive(Debug)]
pub struct Cadence {
    rate: FrameRate,
    /// The slot that is filled next.
    next: Option<i64>,
    /// The newest picture's time.
    newest_ns: i64,
    /// The least delay of a picture of late.
    delay_ns: i64,
    seen_ns: i64,
}

/// What a picture fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// These the one before it.
    pub before: Range<i64>,
    /// This the picture itself; `None` where it comes too late, and is the one that is repeated.
    pub own: Option<i64>,
}

impl Cadence {
    /// `next`: the slots before it are filled.
    pub fn new(rate: FrameRate, next: Option<i64>) -> Self {
        Self { rate, next, newest_ns: 0, delay_ns: i64::MAX / 2, seen_ns: 0 }
    }

    /// A picture of this time on the source's clock comes at `now_ns`, of any clock.
    pub fn push(&mut self, at_ns: i64, now_ns: i64) -> Filled {
        let grown = self.delay_ns.saturating_add((now_ns - self.seen_ns) / DRIFT);
        self.delay_ns = grown.min(now_ns - at_ns);
        self.seen_ns = now_ns;
        self.newest_ns = self.newest_ns.max(at_ns);
        let slot = slot(self.rate, at_ns);
        let next = *self.next.get_or_insert(slot);
        if slot < next {
            return Filled { before: next..next, own: None };
        }
        self.next = Some(slot + 1);
        let silent = time_ns(self.rate, slot) - time_ns(self.rate, next) > SILENCE_NS;
        Filled { before: if silent { slot } else { next }..slot, own: Some(slot) }
    }

    /// When the next slot is to be filled with the newest picture, if none comes. `live`: pictures come as they are shown.
    pub fn due_ns(&self, live: bool) -> Option<i64> {
        let at_ns = time_ns(self.rate, self.next?);
        let margin_ns = if live { MARGIN_NS } else { PAST_MARGIN_NS };
        (at_ns - self.newest_ns <= SILENCE_NS).then(|| at_ns.saturating_add(self.delay_ns).saturating_add(margin_ns))
    }

    /// How late a slot is filled at `now_ns`, against the pictures that come.
    pub fn late_ns(&self, slot: i64, now_ns: i64) -> i64 {
        now_ns - time_ns(self.rate, slot) - self.delay_ns
    }

    /// Fills it.
    pub fn repeat(&mut self) -> Option<i64> {
        let next = self.next.as_mut()?;
        *next += 1;
        Some(*next - 1)
    }
}

/// The slot that a time is nearest to.
pub fn slot(rate: FrameRate, at_ns: i64) -> i64 {
    let (frames, unit) = (i128::from(rate.frames), i128::from(rate.seconds.max(1)) * 1_000_000_000);
    i64::try_from((i128::from(at_ns) * frames + unit / 2).div_euclid(unit)).unwrap_or(0)
}

pub fn time_ns(rate: FrameRate, slot: i64) -> i64 {
    let (frames, unit) = (i128::from(rate.frames.max(1)), i128::from(rate.seconds.max(1)) * 1_000_000_000);
    i64::try_from((i128::from(slot) * unit).div_euclid(frames)).unwrap_or(i64::MAX)
}

/// The newest slot up to this one with which a segment begins: the first one from a multiple of `every` on.
pub fn cut_before(rate: FrameRate, of: i64, every: Duration) -> i64 {
    let every_ns = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX).max(1);
    let begins_ns = time_ns(rate, of).div_euclid(every_ns) * every_ns;
    let near = slot(rate, begins_ns);
    if time_ns(rate, near) < begins_ns { near + 1 } else { near }
}

/// The first slot from this one on with which a Part of so many pictures begins.
pub fn border_after(rate: FrameRate, of: i64, every: Duration, in_part: u32) -> i64 {
    let in_part = i64::from(in_part.max(1));
    let since_cut = of - cut_before(rate, of, every);
    let border = of + (in_part - since_cut % in_part) % in_part;
    // The last Part of a segment may be short.
    Some(cut_before(rate, border, every)).filter(|cut| *cut > of).unwrap_or(border)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: FrameRate = FrameRate { frames: 10, seconds: 1 };
    const MS: i64 = 1_000_000;

    /// Pictures as `at:now` in milliseconds, or `now` alone where nothing comes; which picture each slot got from the first on.
    fn given(steps: &str) -> String {
        let (mut cadence, mut shown, mut names) = (Cadence::new(RATE, None), Vec::new(), 'A'..);
        let mut current = '?';
        for step in steps.split_whitespace() {
            let (at, now) = step.split_once(':').unwrap_or(("", step));
            let now_ns = now.parse::<i64>().unwrap() * MS;
            while let Some(slot) = cadence.due_ns(true).filter(|due| *due < now_ns).and_then(|_| cadence.repeat()) {
                shown.push((slot, current));
            }
            let Ok(at) = at.parse::<i64>() else { continue };
            let filled = cadence.push(at * MS, now_ns);
            shown.extend(filled.before.map(|slot| (slot, current)));
            current = names.next().unwrap();
            shown.extend(filled.own.map(|slot| (slot, current)));
        }
        let first = shown[0].0;
        assert!(shown.iter().zip(first..).all(|((slot, _), n)| *slot == n), "{shown:?}");
        shown.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn a_picture_is_repeated_until_the_next() {
        assert_eq!(given("0:1000 300:1300 400:1400 1100:2100"), "AAABCCCCCCCD");
        assert_eq!(given("0:1000 100:1100 200:1200"), "ABC", "of a regular source nothing is repeated");
        assert_eq!(given("0:1000 110:1110 190:1190 320:1320"), "ABCD", "jitter of less than half a slot is none");
        assert_eq!(given("0:1000 40:1040 100:1100"), "AC", "of two in one slot the first is given, unless nothing follows");
    }

    #[test]
    fn a_slot_is_filled_when_nothing_can_come_for_it() {
        assert_eq!(given("0:1000 1149"), "A");
        assert_eq!(given("0:1000 1151"), "AA");
        assert_eq!(given("0:1000 1451"), "AAAAA");
        assert_eq!(given("0:1000 1151 100:1160 1251"), "AAB", "it came too late for its own");
        assert_eq!(given("0:1500 100:1100 1240 1260"), "ABB", "the least delay counts");
    }

    #[test]
    fn pictures_of_the_past_wait_for_each_other() {
        let mut cadence = Cadence::new(RATE, None);
        cadence.push(0, 1000 * MS);
        assert_eq!([true, false].map(|live| cadence.due_ns(live).unwrap() / MS), [1150, 1500]);
    }

    #[test]
    fn what_was_filled_stays() {
        let mut cadence = Cadence::new(RATE, Some(12));
        assert_eq!(cadence.push(1100 * MS, 0), Filled { before: 12..12, own: None });
        assert_eq!(cadence.push(1400 * MS, 0), Filled { before: 12..14, own: Some(14) });
    }

    #[test]
    fn a_silent_source_is_gone_after_a_minute() {
        let mut cadence = Cadence::new(RATE, None);
        cadence.push(0, 0);
        let repeats = std::iter::from_fn(|| cadence.due_ns(true).and_then(|_| cadence.repeat())).count();
        assert_eq!(repeats, 600);
        assert_eq!(cadence.push(90_000 * MS, 90_000 * MS), Filled { before: 601..900, own: Some(900) });
        assert_eq!(cadence.push(900_000 * MS, 900_000 * MS), Filled { before: 9000..9000, own: Some(9000) });
    }

    #[test]
    fn slots_and_cuts_are_of_the_clock() {
        let ntsc = FrameRate { frames: 30_000, seconds: 1001 };
        for n in [0, 1, 2, 29, 30, 107_892, -3] {
            assert_eq!(slot(ntsc, time_ns(ntsc, n)), n);
            assert_eq!(slot(ntsc, time_ns(ntsc, n) + 16 * MS), n);
        }
        let every = Duration::from_secs(2);
        let cuts = |rate, until| (1..until).filter(|n| cut_before(rate, *n, every) == *n).collect::<Vec<_>>();
        assert_eq!(cuts(RATE, 50), [20, 40]);
        assert_eq!(cuts(ntsc, 200), [60, 120, 180]);
        assert_eq!([20, 21, 22, 23, 38, 39].map(|n| border_after(RATE, n, every, 3)), [20, 23, 23, 23, 38, 40]);
        assert_eq!([19, 20, 39, 40, -1].map(|n| cut_before(RATE, n, every)), [0, 20, 20, 40, -20]);
    }
}
