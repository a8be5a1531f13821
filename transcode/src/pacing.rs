//! Which of a source's pictures a rung takes, and which of those become keyframes.
//!
//! ```text
//! source    0 1 2 3 4 5 6 7 8 ...      cut at 0, a Part every 6 pictures
//! divisor 3 K . . P . . P . . ...      K again at the next cut, and gop_ms apart on a border of Parts
//! ```
//!
//! Counted anew from each cut, so that every rendition has the same cuts and every Part whole pictures, whatever the
//! source left out.

use crate::wire::Picture;

/// What the source says of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// It is, or follows at once, a keyframe of the source.
    pub keyframe: bool,
    /// And a segment begins at this time, in nanoseconds.
    pub cut: Option<u64>,
}

#[derive(Debug)]
pub struct Pacing {
    picture: Picture,
    /// `picture.divisor` from the next cut on.
    next_divisor: u32,
    /// Between two pictures of the source, in nanoseconds; 0 where nobody knows.
    interval: u64,
    base: Option<u64>,
    last_slot: Option<u64>,
    last_key: u64,
}

impl Pacing {
    /// `source_rate`: pictures a second, 0 where nobody knows. `base`: the cut before the first picture.
    pub fn new(picture: Picture, source_rate: f64, base: Option<u64>) -> Self {
        let interval = if source_rate > 0.0 { (1e9 / source_rate) as u64 } else { 0 };
        Self { picture, next_divisor: picture.divisor, interval, base, last_slot: None, last_key: 0 }
    }

    /// Every how many-th picture is taken now.
    pub fn divisor(&self) -> u32 {
        self.picture.divisor
    }

    /// From the next cut on it is every so many-th.
    pub fn change_at_cut(&mut self, divisor: u32) {
        self.next_divisor = divisor;
    }

    /// Whether the picture at this time is taken, and then whether as a keyframe. The encoder makes the first one a keyframe
    /// by itself.
    pub fn take(&mut self, at: u64, mark: Mark) -> Option<bool> {
        let cut = mark.cut.or_else(|| self.is_overdue(at).then_some(at));
        if let Some(cut) = cut {
            (self.base, self.last_slot) = (Some(cut.min(at)), None);
            self.picture.divisor = self.next_divisor;
        }
        let Picture { divisor, in_part, gop_ms, .. } = self.picture;
        let base = *self.base.get_or_insert(at);
        // Half a picture earlier or later is jitter.
        let number = (at.saturating_sub(base) + self.interval / 2).checked_div(self.interval);
        let slot = number.map(|number| number / u64::from(divisor));
        let own_key = gop_ms == 0 && mark.keyframe;
        let first = self.last_slot.is_none();
        if divisor > 1 && slot.is_some() && slot == self.last_slot && cut.is_none() {
            return None;
        }
        self.last_slot = slot.or(Some(0));
        let since_key = at.saturating_sub(self.last_key) + self.interval / 2;
        let due = gop_ms > 0 && since_key >= u64::from(gop_ms) * 1_000_000;
        let on_border = number.is_none_or(|number| number % u64::from(in_part) < u64::from(divisor));
        let key = cut.is_some() || own_key || (due && on_border && !first);
        if key || first {
            self.last_key = at;
        }
        Some(key)
    }

    /// The presentation cuts here, though the source has no keyframe: another Part would make the segment too long
    /// (`Timeline::push`).
    fn is_overdue(&self, at: u64) -> bool {
        let limit = u64::from(self.picture.segment_ms_max) * 1_000_000;
        let Some(since) = self.base.filter(|_| limit > 0 && self.interval > 0).map(|base| at.saturating_sub(base)) else {
            return false;
        };
        let number = (since + self.interval / 2) / self.interval;
        let in_part = u64::from(self.picture.in_part);
        number.is_multiple_of(in_part) && (number + in_part) * self.interval > limit + self.interval / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 33_333_333;

    /// The numbers of the pictures that are taken, a keyframe's with a star; `cuts` are where segments begin.
    fn taken(picture: Picture, pictures: impl IntoIterator<Item = u64>, cuts: &[u64], keyframes: &[u64]) -> String {
        let mut pacing = Pacing::new(picture, 30.0, None);
        let mut words = Vec::new();
        for n in pictures {
            let at = n * FRAME;
            let mark = Mark { keyframe: keyframes.contains(&n), cut: cuts.contains(&n).then_some(at) };
            match pacing.take(at, mark) {
                Some(true) => words.push(format!("{n}*")),
                Some(false) => words.push(n.to_string()),
                None => {}
            }
        }
        words.join(" ")
    }

    fn picture(divisor: u32, gop_ms: u32) -> Picture {
        let (lines, in_part, buffer_ms, segment_ms_max, cut_every_ms) = (720, 6, 1000, 4400, 0);
        Picture { lines, divisor, slow_divisor: divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms }
    }

    #[test]
    fn every_third_is_counted_from_the_cut() {
        assert_eq!(taken(picture(3, 2000), 0..13, &[0, 10], &[0, 10]), "0* 3 6 9 10*");
        assert_eq!(
            taken(picture(6, 4000), 0..20, &[0], &[0, 7, 15]),
            "0* 6 12 18",
            "an inner keyframe of the source is none here"
        );
    }

    #[test]
    fn keyframes_between_cuts_open_a_part() {
        let keys = |gop_ms| {
            let all = taken(picture(3, gop_ms), 0..240, &[0, 120], &[0, 120]);
            all.split(' ').filter_map(|word| word.strip_suffix('*')).map(|n| n.parse().unwrap()).collect::<Vec<u64>>()
        };
        assert_eq!(keys(2000), [0, 60, 120, 180]);
        assert_eq!(keys(4000), [0, 120]);
        assert_eq!(keys(1500), [0, 48, 96, 120, 168, 216]);
    }

    #[test]
    fn a_long_gop_is_cut_where_the_presentation_cuts_it() {
        let taken = taken(picture(6, 4000), 0..300, &[0], &[0]);
        let keys = taken.split(' ').filter_map(|word| word.strip_suffix('*')).collect::<Vec<_>>();
        assert_eq!(keys, ["0", "120", "132", "252", "264"], "4.4 s after each other, and in between by itself");
    }

    #[test]
    fn the_picture_alike_has_the_sources_keyframes() {
        let alike = Picture::default();
        assert_eq!(taken(alike, 0..8, &[0], &[0, 3, 6]), "0* 1 2 3* 4 5 6* 7");
    }

    #[test]
    fn a_hole_moves_no_grid() {
        assert_eq!(taken(picture(3, 2000), [0, 1, 4, 5, 6, 7, 11, 12, 13], &[0], &[0]), "0* 4 6 11 12");
        assert_eq!(taken(picture(3, 2000), [0, 3, 5, 13, 15], &[0, 12], &[0, 12]), "0* 3 13 15", "the cut itself was lost");
    }

    #[test]
    fn another_pace_begins_at_a_cut() {
        let mut pacing = Pacing::new(picture(3, 4000), 30.0, None);
        let mut take = |numbers: std::ops::Range<u64>, next: u32, cut: u64| {
            pacing.change_at_cut(next);
            let mark = |n| Mark { keyframe: n == cut, cut: (n == cut).then_some(n * FRAME) };
            numbers.filter(|n| pacing.take(n * FRAME, mark(*n)).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(take(0..8, 3, 0), [0, 3, 6]);
        assert_eq!(take(8..15, 1, 12), [9, 12, 13, 14]);
        assert_eq!(take(15..32, 6, 24), [15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 30]);
    }

    #[test]
    fn without_a_rate_all_are_taken() {
        let mut pacing = Pacing::new(picture(3, 2000), 0.0, None);
        let keys = (0..130).filter(|n| pacing.take(n * (FRAME + 1), Mark::default()).unwrap()).collect::<Vec<_>>();
        assert_eq!(keys, [60, 120]);
    }
}
