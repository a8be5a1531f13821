//! Decoding times of one picture track: RTP carries none.
//!
//! Pure. Pictures are sent in the order in which they are decoded, with the time at which they are
//! shown. Where some are shown before others that were sent earlier (B-frames), the decoding times are
//! the same times in growing order, as many pictures later as the encoder reorders.

use std::collections::VecDeque;

/// Most pictures that H.264 reorders (max_dec_frame_buffering, A.3.1).
const DEPTH_MAX: usize = 16;

#[derive(Default)]
pub(super) struct DecodeTimes {
    /// As many as are reordered; sorted. They become decoding times.
    waiting: VecDeque<i64>,
    /// When pictures were to be shown, the newest last: they tell how many a late one was sent after.
    recent: VecDeque<i64>,
    last: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub pts: i64,
    pub dts: i64,
    /// It came too late for its own time, which was moved.
    pub moved: bool,
}

impl DecodeTimes {
    /// The encoder says that it reorders so many pictures. The first is to be shown at `at`.
    pub fn expect(&mut self, depth: usize, at: i64, frame: i64) {
        let depth = depth.min(DEPTH_MAX);
        if let Some(last) = self.last {
            return self.deepen(depth, last);
        }
        self.waiting = (1..=depth as i64).rev().map(|before| at - before * frame).collect();
    }

    pub fn stamp(&mut self, shown: i64) -> Stamp {
        let depth = self.recent.iter().filter(|other| **other > shown).count();
        if self.recent.len() == DEPTH_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(shown);
        let Some(last) = self.last else { return self.grant(shown, i64::MIN) };
        if shown > last {
            return self.grant(shown, last + 1);
        }
        // Deeper than was known: this picture is shown a moment later, those that follow fit.
        let dts = last + 1;
        self.deepen(depth, dts);
        self.last = Some(dts);
        Stamp { pts: dts, dts, moved: true }
    }

    fn grant(&mut self, shown: i64, earliest: i64) -> Stamp {
        let place = self.waiting.partition_point(|other| *other <= shown);
        self.waiting.insert(place, shown);
        let first = self.waiting.pop_front().expect("one was just inserted");
        let dts = first.max(earliest);
        self.last = Some(dts);
        Stamp { pts: shown, dts, moved: false }
    }

    fn deepen(&mut self, depth: usize, at: i64) {
        while self.waiting.len() < depth.min(DEPTH_MAX) {
            self.waiting.push_front(at);
        }
        self.waiting.make_contiguous().sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of 10 ticks, `depth` promised.
    fn run(depth: usize, shown: &[i64]) -> Vec<Stamp> {
        let mut times = DecodeTimes::default();
        times.expect(depth, shown[0], 10);
        let stamps: Vec<_> = shown.iter().map(|at| times.stamp(*at)).collect();
        assert!(stamps.windows(2).all(|pair| pair[0].dts < pair[1].dts), "{stamps:?}");
        assert!(stamps.iter().all(|stamp| stamp.dts <= stamp.pts), "{stamps:?}");
        stamps
    }

    fn dts(stamps: &[Stamp]) -> Vec<i64> {
        stamps.iter().map(|stamp| stamp.dts).collect()
    }

    #[test]
    fn in_order_both_are_one() {
        let stamps = run(0, &[0, 10, 20, 30]);
        assert!(stamps.iter().all(|stamp| stamp.pts == stamp.dts && !stamp.moved));
        assert_eq!(dts(&run(0, &[0, 10, 10, 30])), [0, 10, 11, 30], "twice the same");
    }

    #[test]
    fn a_promised_depth_moves_no_picture() {
        // I P B B P B B
        let stamps = run(1, &[0, 30, 10, 20, 60, 40, 50]);
        assert!(stamps.iter().all(|stamp| !stamp.moved));
        assert_eq!(dts(&stamps), [-10, 0, 10, 20, 30, 40, 50]);
        // x264's pyramid: I P B b b
        let stamps = run(2, &[0, 40, 20, 10, 30, 80, 60, 50, 70]);
        assert!(stamps.iter().all(|stamp| !stamp.moved));
        assert_eq!(dts(&stamps), [-20, -10, 0, 10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn a_depth_that_nobody_promised_is_learnt_once() {
        let mut shown = vec![0];
        for group in 0..10 {
            shown.extend([40, 20, 10, 30].map(|at| at + group * 40));
        }
        let stamps = run(0, &shown);
        let moved: Vec<_> = stamps.iter().map(|stamp| stamp.moved).collect();
        assert!(moved[..5].contains(&true), "{stamps:?}");
        assert!(!moved[5..].contains(&true), "{stamps:?}");
        let fitting: Vec<_> = stamps[5..].iter().map(|stamp| stamp.pts).collect();
        assert_eq!(fitting, shown[5..]);
    }

    #[test]
    fn a_later_promise_is_kept_from_there() {
        let mut times = DecodeTimes::default();
        times.expect(0, 0, 10);
        let mut stamps: Vec<_> = [0, 10, 20].map(|at| times.stamp(at)).into();
        times.expect(2, 30, 10);
        stamps.extend([30, 70, 50, 40, 60, 110, 90, 80, 100].map(|at| times.stamp(at)));
        assert!(stamps.windows(2).all(|pair| pair[0].dts < pair[1].dts), "{stamps:?}");
        assert!(stamps.iter().all(|stamp| stamp.dts <= stamp.pts && !stamp.moved), "{stamps:?}");
    }

    #[test]
    fn nonsense_stays_valid_and_bounded() {
        let mut seed = 1_u64;
        let shown: Vec<_> = (0..2000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 50) as i64
            })
            .collect();
        run(0, &shown);
        run(99, &shown);
    }
}
