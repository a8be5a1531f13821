//! A track that follows the lead: what of it waits, and which cuts it has not reached.

use std::{collections::VecDeque, sync::Arc};

use media_core::{Sample, Timestamp, TrackId, timeline::Cut};

/// Samples that wait for the lead: 20 s of AAC, 17 s of 60 pictures a second.
const SAMPLES_MAX: usize = 1024;
/// And their bytes: 8 s at 8 Mbit/s.
const BYTES_MAX: usize = 8 << 20;
/// Cuts that were not reached: more than a pause can bring at once.
pub(super) const CUTS_MAX: usize = 64;
/// A layer's keyframe may come so much later than the lead's: its segment begins there.
const KEYFRAME_LATE_US: i64 = 250_000;
/// And so much of a frame earlier: each layer has a clock of its own.
const FRAME_SHARE: f64 = 0.5;
/// A segment may be so much longer than TARGETDURATION: its EXTINF still rounds down to it.
const SLACK_US: i64 = 400_000;

pub(super) struct Follower {
    pub id: TrackId,
    samples: VecDeque<Arc<Sample>>,
    bytes: usize,
    cuts: VecDeque<Cut>,
    /// Of pictures some are missing: decoding goes on at a keyframe that opens a segment.
    pub broken: bool,
    /// Of a rung: how far the lead was when something of it came last, or was asked for.
    pub heard: Option<Timestamp>,
}

/// What a Sample means for the next cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It belongs to the segment that is open.
    Before,
    /// It opens the segment of the cut.
    Opens,
    /// Nothing of the track begins here: the segment has none of it.
    Crosses,
}

impl Follower {
    /// `cut`: where the open segment of the lead began. A track that comes soon enough begins there, too.
    pub fn new(id: TrackId, cut: Option<Cut>) -> Self {
        Self { id, samples: VecDeque::new(), bytes: 0, cuts: cut.into_iter().collect(), broken: id.is_picture(), heard: None }
    }

    /// How many Samples were dropped for it.
    pub fn push(&mut self, sample: &Arc<Sample>) -> u64 {
        let mut dropped = 0;
        while self.samples.len() >= SAMPLES_MAX || (self.bytes + sample.payload.len() > BYTES_MAX && !self.samples.is_empty()) {
            self.pop();
            self.broken = self.id.is_picture();
            dropped += 1;
        }
        self.bytes += sample.payload.len();
        self.samples.push_back(Arc::clone(sample));
        dropped
    }

    pub fn front(&self) -> Option<&Arc<Sample>> {
        self.samples.front()
    }

    pub fn pop(&mut self) -> Option<Arc<Sample>> {
        let sample = self.samples.pop_front()?;
        self.bytes -= sample.payload.len();
        Some(sample)
    }

    pub fn take_samples(&mut self) -> VecDeque<Arc<Sample>> {
        self.bytes = 0;
        std::mem::take(&mut self.samples)
    }

    pub fn take_cuts(&mut self) -> VecDeque<Cut> {
        std::mem::take(&mut self.cuts)
    }

    /// The lead was cut. Answers the cut that is to be crossed for it: numbers have no gap. `begun`: there is a rendition.
    pub fn owe(&mut self, cut: Cut, begun: bool) -> Option<Cut> {
        if !begun {
            // Only the newest matters: one that comes later starts there.
            self.cuts.clear();
        }
        let overdue = if self.cuts.len() >= CUTS_MAX { self.cuts.pop_front() } else { None };
        self.cuts.push_back(cut);
        overdue
    }

    pub fn front_cut(&self) -> Option<&Cut> {
        self.cuts.front()
    }

    /// The discontinuity that new parameters wait for is known: it is not to be asked for twice.
    pub fn awaits_break(&self) -> bool {
        self.cuts.iter().any(|cut| cut.discontinuity)
    }

    pub fn cuts(&self) -> usize {
        self.cuts.len()
    }

    /// The lead is so far ahead of a cut and of the last sign of life, in microseconds, that what belongs there is not coming.
    pub fn is_overdue(&self, cut: &Cut, horizon: Timestamp, wait_us: i64) -> bool {
        (horizon - self.heard.map_or(cut.at, |heard| heard.max(cut.at))).as_micros() > wait_us
    }

    pub fn pop_cut(&mut self) -> Option<Cut> {
        self.cuts.pop_front()
    }

    /// `pts` is the Sample's, in the presentation; `wait_us` how long after a cut a track may begin at it.
    pub fn reach(&self, sample: &Sample, pts: Timestamp, begun: bool, grid: Lengths, wait_us: i64) -> Option<(Cut, Reach)> {
        let cut = *self.cuts.front()?;
        let after_us = (pts - cut.at).as_micros();
        let overtaken = |from: i64| self.cuts.get(1).is_some_and(|next| (pts - next.at).as_micros() >= from);
        let reach = if !self.id.is_picture() {
            match after_us {
                us if us < 0 => Reach::Before,
                // A track that comes in the middle of a segment starts with the next.
                us if !begun && (overtaken(0) || us > wait_us) => Reach::Crosses,
                _ => Reach::Opens,
            }
        } else {
            let early_us = -grid.early_us;
            match after_us {
                us if us < early_us => Reach::Before,
                _ if overtaken(early_us) => Reach::Crosses,
                us if sample.keyframe && (begun || us <= wait_us) => Reach::Opens,
                us if us <= grid.late_us(&cut) => Reach::Before,
                _ if self.broken => Reach::Crosses,
                _ => Reach::Opens,
            }
        };
        Some((cut, reach))
    }
}

/// What a presentation's grid allows a follower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    early_us: i64,
    target_us: i64,
}

impl Lengths {
    pub fn new(target_duration: u32, frame_rate: f64) -> Self {
        let early_us = if frame_rate > 0.0 { (1e6 / frame_rate * FRAME_SHARE) as i64 } else { 0 };
        Self { early_us, target_us: i64::from(target_duration) * 1_000_000 }
    }

    /// How long after a cut the segment before it may go on.
    fn late_us(self, cut: &Cut) -> i64 {
        (self.target_us + SLACK_US - cut.closes_us).clamp(0, KEYFRAME_LATE_US)
    }
}
