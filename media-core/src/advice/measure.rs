//! What is measured of a publisher: distances of pictures and keyframes, bits a second, and its clock against ours.
//!
//! Everything is of the recent past, but for the clock, which is of the publisher's whole life.

use std::{collections::VecDeque, time::Instant};

use crate::sample::{Item, Sample, TrackId};

/// Distances of pictures that are looked at: ten seconds at 30 a second.
const FRAMES_MAX: usize = 300;
/// Fewer tell nothing.
const FRAMES_MIN: usize = 60;
/// Distances of keyframes that are looked at: a minute and a half of usual ones.
const KEYFRAMES_MAX: usize = 45;
const KEYFRAMES_MIN: usize = 3;
/// Seconds of the bit rate that are looked at.
const SECONDS_MAX: usize = 30;
const SECONDS_MIN: usize = 10;
/// A distance this far off the usual one is another.
const UNEVEN: f64 = 0.25;
/// And by more than what milliseconds make of an even one.
const ROUNDING_US: i64 = 3_000;
/// The clock is looked at in spans of so long: the least late Sample of one is the truest.
const SPAN_US: i64 = 10_000_000;
/// How many spans must pass before its drift is told: what a start brings has passed.
const SPANS_MIN: u32 = 6;

/// Numbers for `advise`; `None` where too little was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    pub since_join_us: i64,
    pub keyframes: Option<Intervals>,
    pub frames: Option<Frames>,
    pub bitrate: Option<Bitrate>,
    /// How much later Samples come than at the publisher's start; negative: earlier.
    pub drift_us: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    pub shortest_us: i64,
    pub longest_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frames {
    /// Pictures a second.
    pub rate: f64,
    /// Share of the distances that are not the usual one.
    pub uneven_share: f64,
    pub longest_us: i64,
}

/// Bits a second of picture and sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bitrate {
    pub average: u64,
    /// Of the second with the most.
    pub peak: u64,
}

/// Of one publisher; begins anew when another joins.
#[derive(Debug, Default)]
pub struct Observer {
    joined: Option<Instant>,
    newest: Option<Instant>,
    last_dts_us: Option<i64>,
    last_keyframe_us: Option<i64>,
    frames_us: VecDeque<i64>,
    keyframes_us: VecDeque<i64>,
    /// Bits of whole seconds of media time, and of the second that runs.
    seconds: VecDeque<u64>,
    second: Option<i64>,
    bits: u64,
    clock: Clock,
}

/// How late Samples of the lead come.
#[derive(Debug, Default)]
struct Clock {
    origin: Option<(Instant, i64)>,
    first_us: Option<i64>,
    newest_us: Option<i64>,
    span: i64,
    least_us: Option<i64>,
    spans: u32,
}

impl Observer {
    pub fn push(&mut self, item: &Item) {
        match item {
            Item::Join { received, .. } => *self = Self { joined: Some(*received), ..Self::default() },
            Item::Sample(sample) => self.sample(sample),
            Item::Announce(_) | Item::Leave => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.joined.get_or_insert(sample.received);
        self.newest = Some(sample.received);
        let id = sample.track.id;
        let dts_us = sample.dts.as_micros();
        if id == TrackId::VIDEO {
            self.picture(sample, dts_us);
        }
        if id.is_main() {
            self.clock.observe(sample.received, dts_us);
            self.weigh(sample.payload.len() as u64 * 8, dts_us);
        }
    }

    fn picture(&mut self, sample: &Sample, dts_us: i64) {
        if let Some(last) = self.last_dts_us.replace(dts_us) {
            keep(&mut self.frames_us, dts_us - last, FRAMES_MAX);
        }
        if sample.keyframe
            && let Some(last) = self.last_keyframe_us.replace(dts_us)
        {
            keep(&mut self.keyframes_us, dts_us - last, KEYFRAMES_MAX);
        }
    }

    /// Tracks are a little apart: what belongs to a second before is of the one that runs.
    fn weigh(&mut self, bits: u64, dts_us: i64) {
        let second = dts_us.div_euclid(1_000_000);
        match self.second {
            Some(running) if second > running => {
                keep(&mut self.seconds, std::mem::take(&mut self.bits), SECONDS_MAX);
                self.second = Some(second);
            }
            Some(_) => {}
            None => self.second = Some(second),
        }
        self.bits += bits;
    }

    pub fn measured(&self) -> Measured {
        let since = self.joined.zip(self.newest).map(|(joined, newest)| newest.saturating_duration_since(joined));
        Measured {
            since_join_us: since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            keyframes: self.intervals(),
            frames: self.frames(),
            bitrate: self.bitrate(),
            drift_us: self.clock.drift_us(),
        }
    }

    /// One that is being waited for counts from when it is too long.
    fn intervals(&self) -> Option<Intervals> {
        let open = self.last_dts_us? - self.last_keyframe_us?;
        let longest = self.keyframes_us.iter().copied().max().unwrap_or(0);
        if self.keyframes_us.len() < KEYFRAMES_MIN && open.max(longest) <= 3 * 1_000_000 {
            return None;
        }
        let longest_us = longest.max(open);
        Some(Intervals { shortest_us: self.keyframes_us.iter().copied().min().unwrap_or(longest_us), longest_us })
    }

    fn frames(&self) -> Option<Frames> {
        if self.frames_us.len() < FRAMES_MIN {
            return None;
        }
        let mut sorted: Vec<i64> = self.frames_us.iter().copied().collect();
        sorted.sort_unstable();
        let usual = sorted[sorted.len() / 2];
        let uneven = |us: &&i64| (**us - usual).abs() > ROUNDING_US.max((usual as f64 * UNEVEN) as i64);
        let total: i64 = sorted.iter().sum();
        Some(Frames {
            rate: if total > 0 { sorted.len() as f64 * 1e6 / total as f64 } else { 0.0 },
            uneven_share: sorted.iter().filter(uneven).count() as f64 / sorted.len() as f64,
            longest_us: sorted[sorted.len() - 1],
        })
    }

    fn bitrate(&self) -> Option<Bitrate> {
        // The first is not whole.
        let whole: Vec<u64> = self.seconds.iter().copied().skip(1).collect();
        if whole.len() < SECONDS_MIN {
            return None;
        }
        let peak = whole.iter().copied().max().unwrap_or(0);
        Some(Bitrate { average: whole.iter().sum::<u64>() / whole.len() as u64, peak })
    }
}

impl Clock {
    fn observe(&mut self, received: Instant, dts_us: i64) {
        let (origin, origin_us) = *self.origin.get_or_insert((received, dts_us));
        let passed_us = i64::try_from(received.saturating_duration_since(origin).as_micros()).unwrap_or(i64::MAX);
        let late_us = passed_us - (dts_us - origin_us);
        let span = passed_us / SPAN_US;
        if span != self.span {
            self.close(span);
        }
        self.least_us = Some(self.least_us.map_or(late_us, |least| least.min(late_us)));
    }

    fn close(&mut self, span: i64) {
        self.span = span;
        self.spans += 1;
        self.newest_us = self.least_us.take();
        self.first_us = self.first_us.or(self.newest_us);
    }

    fn drift_us(&self) -> Option<i64> {
        let drift = self.newest_us? - self.first_us?;
        (self.spans >= SPANS_MIN).then_some(drift)
    }
}

fn keep<T>(all: &mut VecDeque<T>, one: T, most: usize) {
    if all.len() >= most {
        all.pop_front();
    }
    all.push_back(one);
}
