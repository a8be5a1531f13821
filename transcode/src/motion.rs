//! How fast a rung of `auto` goes: by the share of a picture's blocks that change.
//!
//! ```text
//! luma --Blocks--> share of 16x16 blocks that changed --Motion--> all pictures, or a few
//! ```
//!
//! Who types changes few blocks, and whoever scrolls or goes to another file many for a moment; a film or an animation
//! changes many all the time.

/// Pixels on the side of a block, as encoders have them.
const BLOCK: usize = 16;
/// Of its rows one in so many is looked at: what moves does not move between them.
const ROW_STEP: usize = 4;
/// A block has changed by so much a pixel on average: a camera's noise and a coder's are below it.
const DIFFERENCE_MIN: u32 = 4;
/// A picture moves where such a share of it changed: a camera in a corner does not make it.
const MOVING_SHARE: f64 = 0.125;
/// How long is looked back, by and large, in seconds.
const SPAN_S: f64 = 8.0;
/// Shares of the time in which pictures move: from the one on all of them are taken, from the other on few.
const BUSY: f64 = 0.6;
const CALM: f64 = 0.2;
/// From one change of pace to the next, in nanoseconds.
const HOLD_NS: u64 = 30_000_000_000;

/// The decision. Times are in nanoseconds.
#[derive(Debug)]
pub struct Motion {
    /// The share of the latest time in which pictures moved.
    busy: f64,
    last: Option<u64>,
    is_fast: bool,
    changed: Option<u64>,
}

impl Motion {
    pub fn new(is_fast: bool) -> Self {
        Self { busy: if is_fast { 1.0 } else { 0.0 }, last: None, is_fast, changed: None }
    }

    /// Of a picture: the share of its blocks that differ from the one before.
    pub fn observe(&mut self, at: u64, share: f64) {
        let since = at.saturating_sub(self.last.replace(at).unwrap_or(at)) as f64 / 1e9;
        let moving = if share >= MOVING_SHARE { 1.0 } else { 0.0 };
        self.busy += (moving - self.busy) * (1.0 - (-since / SPAN_S).exp());
    }

    /// Whether all pictures are to be taken, should a segment begin now.
    pub fn wants_fast(&self, at: u64) -> bool {
        let wants = if self.is_fast { self.busy > CALM } else { self.busy >= BUSY };
        let held = self.changed.is_some_and(|changed| at.saturating_sub(changed) < HOLD_NS);
        if held { self.is_fast } else { wants }
    }

    /// It was done so from this time on.
    pub fn changed(&mut self, at: u64, is_fast: bool) {
        (self.is_fast, self.changed) = (is_fast, Some(at));
    }
}

/// What was seen of the picture before. A second of 1080p30 takes 3 ms.
#[derive(Debug, Default)]
pub struct Blocks {
    width: usize,
    rows: Vec<u8>,
    sums: Vec<u32>,
}

impl Blocks {
    /// The share of blocks that differ from the picture before; `None` where that was of another size. What does not fill a
    /// block at the edges is not looked at.
    pub fn compare(&mut self, luma: &[u8], stride: usize, width: usize, height: usize) -> Option<f64> {
        let (columns, blocks_high) = (width / BLOCK, height / BLOCK);
        let (width, rows) = (columns * BLOCK, blocks_high * (BLOCK / ROW_STEP));
        if width == 0 || rows == 0 || luma.len() < (blocks_high * BLOCK - 1) * stride + width || stride < width {
            return None;
        }
        let known = self.width == width && self.rows.len() == width * rows;
        if !known {
            *self = Self { width, rows: vec![0; width * rows], sums: vec![0; columns] };
        }
        let mut changed = 0;
        let now = luma.chunks(stride).step_by(ROW_STEP);
        for (number, (now, before)) in now.zip(self.rows.chunks_exact_mut(width)).enumerate() {
            if number % (BLOCK / ROW_STEP) == 0 {
                changed += count_changed(&self.sums);
                self.sums.fill(0);
            }
            let now = &now[..width];
            let blocks = now.chunks_exact(BLOCK).zip(before.chunks_exact(BLOCK));
            for (sum, (now, before)) in self.sums.iter_mut().zip(blocks) {
                *sum += now.iter().zip(before).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
            }
            before.copy_from_slice(now);
        }
        changed += count_changed(&self.sums);
        self.sums.fill(0);
        known.then(|| changed as f64 / (columns * blocks_high) as f64)
    }
}

fn count_changed(sums: &[u32]) -> usize {
    let pixels = (BLOCK * BLOCK / ROW_STEP) as u32;
    sums.iter().filter(|sum| **sum >= pixels * DIFFERENCE_MIN).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Seconds after which a stream that moves by turns has another pace, looked at every two seconds.
    fn changes(parts: &[(u64, f64)]) -> Vec<u64> {
        let (mut motion, mut at, mut is_fast, mut changes) = (Motion::new(false), 0, false, Vec::new());
        for (seconds, share) in parts {
            for _ in 0..seconds * 10 {
                motion.observe(at, *share);
                if at.is_multiple_of(2 * SECOND) && motion.wants_fast(at) != is_fast {
                    is_fast = !is_fast;
                    motion.changed(at, is_fast);
                    changes.push(at / SECOND);
                }
                at += SECOND / 10;
            }
        }
        changes
    }

    #[test]
    fn a_film_goes_fast_and_code_goes_slow() {
        assert_eq!(changes(&[(120, 0.01)]), [], "typing");
        assert_eq!(changes(&[(120, 0.06)]), [], "a camera in a corner");
        assert_eq!(changes(&[(60, 0.9)]), [8], "a film");
        assert_eq!(changes(&[(60, 0.9), (60, 0.01)]), [8, 74], "and code after it");
        let scrolls: Vec<_> = std::iter::repeat_n([(2, 0.5), (8, 0.01)], 12).flatten().collect();
        assert_eq!(changes(&scrolls), [], "who scrolls reads in between");
    }

    #[test]
    fn a_pace_holds_for_thirty_seconds() {
        let turns: Vec<_> = std::iter::repeat_n([(15, 0.9), (15, 0.0)], 10).flatten().collect();
        let changes = changes(&turns);
        assert!(changes.len() > 3 && changes.windows(2).all(|pair| pair[1] - pair[0] >= 30), "{changes:?}");
    }

    #[test]
    fn the_pace_that_was_goes_on() {
        let motion = Motion::new(true);
        assert!(motion.wants_fast(0));
    }

    /// 64x32 pixels in rows of 80, of which this block is bright.
    fn picture(bright: Option<(usize, usize)>) -> Vec<u8> {
        let inside = |x: usize, y: usize| bright.is_some_and(|(bx, by)| x / 16 == bx && y / 16 == by);
        (0..32 * 80).map(|at| if inside(at % 80, at / 80) { 200 } else { 100 + (at % 3) as u8 }).collect()
    }

    #[test]
    fn changed_blocks_are_counted() {
        let mut blocks = Blocks::default();
        let mut compare = |picture: &[u8]| blocks.compare(picture, 80, 64, 32);
        assert_eq!(compare(&picture(None)), None, "the first one");
        assert_eq!(compare(&picture(None)), Some(0.0));
        assert_eq!(compare(&picture(Some((3, 1)))), Some(0.125), "the last of 8");
        assert_eq!(compare(&picture(Some((0, 0)))), Some(0.25), "one goes and one comes");
        let noisy: Vec<u8> = picture(Some((0, 0))).iter().enumerate().map(|(n, y)| y + (n % 4) as u8).collect();
        assert_eq!(compare(&noisy), Some(0.0), "noise is no change");
        assert_eq!(blocks.compare(&picture(None), 80, 48, 32), None, "another size");
        assert_eq!(blocks.compare(&[0; 100], 80, 48, 32), None, "not all of a picture");
        assert_eq!(blocks.compare(&[], 0, 0, 0), None);
    }
}
