//! Who decides where a segment is cut: one `Timeline` a presentation, fed by its lead track.
//!
//! A `Probe` watches the lead's first Samples until TARGETDURATION and PART-TARGET are known; both
//! never change afterwards (rfc8216bis 6.2.1). From then on `Timeline::push` places each lead
//! Sample and says where a `Cut` is. Other tracks obey: they are placed by the same offset, and
//! change segment at the same cuts. Equal media sequence number means equal content.
//!
//! It does not hold Samples, and knows nothing of playlists.

mod probe;
mod reserve;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{sample::Sample, timestamp::Timestamp};

pub use probe::{Grid, Hints, PART_SHARE_MIN, Probe};
pub use reserve::RESERVED;

/// A segment may be this much longer than TARGETDURATION: its EXTINF still rounds down to it.
const SLACK_US: i64 = 400_000;
/// And this much longer at the very most, where the lead pauses: with what its media may lag behind, more would round up.
const PAUSE_SLACK_US: i64 = 460_000;
/// The first segment of a presentation is cut at the first keyframe that lies so far in it.
const FIRST_SEGMENT_US: i64 = 1_800_000;
/// Timestamps in milliseconds, summed over a segment, are off by less than this.
const ROUNDING_US: i64 = 10_000;
/// PROGRAM-DATE-TIME goes with the media while arrivals are no further off than this. hls.js lays sound beside picture by the dates
/// of segments that are not the same ones (discontinuities.ts, `alignMediaPlaylistByPDT`): what the dates wander in between, it
/// misplaces the sound by, and with some milliseconds it waits for what it has.
const PDT_STILL_US: i64 = 10_000;
/// Beyond that a cut takes back this share: a clock that is 200 ppm off is followed at 10 ms more.
const PDT_SHARE: i64 = 25;
/// And this at most.
const PDT_STEP_MAX_US: i64 = 5_000;
/// The cut behind a new anchor takes it back at once up to here: players and checkers take a date for another's from 100 ms on.
const PDT_SETTLE_MAX_US: i64 = 80_000;
/// Media seconds a number in the sequence stands for when no state was saved: shorter than any
/// segment we make on average, so that a successor starts beyond its predecessor.
const SECONDS_A_NUMBER: u64 = 1;

/// All of a presentation's timeline that must survive: what resume, takeover, a restart and a
/// second origin save and load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of the publisher whose Samples came last.
    pub epoch: u64,
    /// Media Sequence Number of the next segment.
    pub next_msn: u64,
    /// Cuts with a discontinuity so far.
    pub discontinuities: u64,
    /// Whole seconds.
    pub target_duration: u32,
    pub part_target_ms: u32,
    /// Largest distance between keyframes that the source is known to have, in microseconds.
    pub keyframe_interval_us: Option<i64>,
    /// Where the presentation's media ends, in microseconds: the next publisher goes on there.
    pub end_us: i64,
    pub anchor: Option<Anchor>,
}

/// A moment of the presentation and its wall clock, both in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    pub media_us: i64,
    pub wall_us: i64,
}

impl State {
    /// The start of a presentation. `after` is the last number a viewer of this name can have
    /// seen: numbers of one name never go back.
    pub fn new(grid: &Grid, wall: SystemTime, after: Option<u64>) -> Self {
        let by_clock = wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()) / SECONDS_A_NUMBER;
        Self {
            epoch: 0,
            // One number is left out: a playlist opens with a gap of its own.
            next_msn: by_clock.max(after.map_or(0, |msn| msn + 2)),
            discontinuities: 0,
            target_duration: grid.target_duration,
            part_target_ms: grid.part_target_ms,
            keyframe_interval_us: grid.keyframe_interval_us,
            end_us: 0,
            anchor: None,
        }
    }
}

/// The start of a segment, on every rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub msn: u64,
    /// Presentation time of the first picture: an audio frame from here on belongs to the segment.
    pub at: Timestamp,
    pub discontinuity: bool,
    /// It opens with a keyframe. False where a GOP was longer than a segment may be.
    pub independent: bool,
    /// PROGRAM-DATE-TIME, in microseconds since 1970.
    pub wall_us: i64,
    /// How long the segment was that it closes, in microseconds; 0 for the first cut.
    pub closes_us: i64,
}

/// What becomes of a lead Sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits for no one: before the first keyframe there is nothing to decode it with.
    Drop,
    /// It continues the segment. A keyframe here is an inner key.
    Continue,
    /// It opens a segment.
    Open(Cut),
}

#[derive(Debug)]
pub struct Timeline {
    state: State,
    /// From the publisher's time to the presentation's, of this epoch; `None` before its first cut.
    offset: Option<Timestamp>,
    /// Presentation time of the last cut, by decode time, in microseconds.
    last_cut_us: i64,
    last_keyframe_us: Option<i64>,
    /// pts - dts of the last keyframe: how far decode times run ahead of the pictures.
    lead_us: i64,
    /// Decode time of the newest lead Sample, in microseconds.
    newest_us: i64,
    /// The next cut is a discontinuity.
    broken: bool,
    /// The next keyframe opens a segment.
    cut_next: bool,
    /// Smallest lateness of an arrival since the last cut, against the anchor.
    drift_us: Option<i64>,
    /// The anchor is of one arrival, which may have been late by itself: the next cut takes `drift_us` itself. Players lay renditions
    /// beside each other by the discontinuity before it.
    unsettled: bool,
}

impl Timeline {
    pub fn new(state: State) -> Self {
        let last_cut_us = state.end_us;
        Self {
            broken: false,
            cut_next: false,
            offset: None,
            last_cut_us,
            last_keyframe_us: None,
            lead_us: 0,
            newest_us: last_cut_us,
            drift_us: None,
            unsettled: false,
            state,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// A publisher joined: its first keyframe opens a segment, where the presentation ended. A
    /// discontinuity, unless nothing was published before.
    pub fn join(&mut self, epoch: u64) {
        self.broken |= self.state.anchor.is_some();
        self.state.epoch = epoch;
        self.offset = None;
        self.last_keyframe_us = None;
        self.drift_us = None;
    }

    /// The publisher left; the presentation's media ends at `end`, on the longest track.
    pub fn leave(&mut self, end: Timestamp) {
        self.state.end_us = self.state.end_us.max(end.as_micros());
        self.offset = None;
    }

    /// Decoder parameters changed: the next keyframe opens a segment behind a discontinuity.
    pub fn change(&mut self) {
        self.broken |= self.state.anchor.is_some();
    }

    /// Another track leads from its next keyframe on, which opens a segment. Nothing breaks: both
    /// tracks come from one publisher.
    pub fn change_lead(&mut self) {
        self.state.keyframe_interval_us = None;
        self.last_keyframe_us = None;
        self.cut_next = true;
    }

    /// What to add to a publisher's timestamps. `None` before this epoch's first cut.
    pub fn offset(&self) -> Option<Timestamp> {
        self.offset
    }

    /// Up to here no cut can come any more: followers before it belong to segments that are known.
    pub fn horizon(&self) -> Timestamp {
        Timestamp::from_micros(self.newest_us + self.lead_us)
    }

    /// Where the open segment ends at the latest, on every rendition.
    pub fn open_until(&self) -> Timestamp {
        Timestamp::from_micros(self.last_cut_us + self.lead_us + self.limit_us())
    }

    /// Places the next Sample of the lead track. `border`: the lead's Parts end before it, so that
    /// a cut without a keyframe costs no short Part.
    pub fn push(&mut self, sample: &Sample, border: bool, wall: SystemTime) -> Place {
        if self.offset.is_none() {
            if !sample.keyframe {
                return Place::Drop;
            }
            self.offset = Some(Timestamp::from_micros(self.state.end_us - sample.dts.as_micros()));
            return self.open(sample, true, wall);
        }
        let dts_us = self.presentation_us(sample);
        self.newest_us = dts_us;
        self.observe_arrival(dts_us, wall);
        let since_us = dts_us - self.last_cut_us;
        if sample.keyframe {
            self.observe_interval(dts_us);
            if self.broken || self.cut_next || self.is_due(since_us, border) {
                return self.open(sample, true, wall);
            }
            self.lead_us = lead_us(sample);
            return Place::Continue;
        }
        // On a Part border one more Part must fit; elsewhere (an uneven source) the limit itself is late enough.
        let part_us = if border { i64::from(self.state.part_target_ms) * 1000 } else { 0 };
        let full = since_us + part_us > self.limit_us() + ROUNDING_US;
        if full { self.open(sample, false, wall) } else { Place::Continue }
    }

    /// How long the lead has paused before `sample`; zero where it opens an epoch.
    pub fn pause_before(&self, sample: &Sample) -> Duration {
        let us = self.offset.map_or(0, |_| self.presentation_us(sample) - self.newest_us);
        Duration::from_micros(u64::try_from(us).unwrap_or(0))
    }

    /// A cut in a pause of the lead that ends with `sample`, if waiting for it made the segment too long: asked before
    /// `push`, until there is none. Followers go on meanwhile, and their segments have the same limit.
    pub fn cut_in_pause(&mut self, sample: &Sample, wall: SystemTime) -> Option<Cut> {
        self.offset?;
        let target_us = i64::from(self.state.target_duration) * 1_000_000;
        if self.presentation_us(sample) - self.last_cut_us <= target_us + PAUSE_SLACK_US {
            return None;
        }
        let at_us = (self.last_cut_us + target_us).max(self.newest_us + 1_000);
        // What is broken is mended by a keyframe, and here is none.
        let broken = std::mem::take(&mut self.broken);
        let newest_us = self.newest_us;
        let cut = self.cut(at_us, false, wall);
        (self.broken, self.newest_us) = (broken, newest_us);
        Some(cut)
    }

    /// Whether a keyframe opens a segment: waiting for the next one could pass the limit. A source
    /// that can be cut at every Part (audio, intra-only video) is cut on the last border that fits.
    fn is_due(&self, since_us: i64, border: bool) -> bool {
        let part_us = i64::from(self.state.part_target_ms) * 1000;
        let interval_us = self.expected_interval_us();
        let target_us = self.limit_us() - SLACK_US;
        let on_border = interval_us <= part_us && border && since_us + part_us > target_us + ROUNDING_US;
        // The first segment is short: hls.js shows nothing of a stream before it has a whole one.
        let first = self.last_cut_us == 0 && interval_us > part_us && since_us >= FIRST_SEGMENT_US;
        first || on_border || since_us.saturating_add(interval_us) > self.limit_us()
    }

    fn open(&mut self, sample: &Sample, independent: bool, wall: SystemTime) -> Place {
        let dts_us = self.presentation_us(sample);
        if independent {
            self.lead_us = lead_us(sample);
            self.last_keyframe_us = Some(dts_us);
        }
        Place::Open(self.cut(dts_us, independent, wall))
    }

    fn cut(&mut self, dts_us: i64, independent: bool, wall: SystemTime) -> Cut {
        self.newest_us = dts_us;
        let closes_us = dts_us - self.last_cut_us;
        self.last_cut_us = dts_us;
        self.re_anchor(dts_us, wall);
        self.cut_next = false;
        let discontinuity = std::mem::take(&mut self.broken);
        self.state.discontinuities += u64::from(discontinuity);
        let msn = self.state.next_msn;
        self.state.next_msn += 1;
        let at_us = dts_us + self.lead_us;
        let anchor = self.state.anchor.expect("re_anchor has set it");
        Cut {
            msn,
            at: Timestamp::from_micros(at_us),
            discontinuity,
            independent,
            wall_us: anchor.wall_us + dts_us - anchor.media_us,
            closes_us,
        }
    }

    fn presentation_us(&self, sample: &Sample) -> i64 {
        sample.dts.as_micros() + self.offset.map_or(0, Timestamp::as_micros)
    }

    /// Longest a segment may get, in microseconds.
    fn limit_us(&self) -> i64 {
        i64::from(self.state.target_duration) * 1_000_000 + SLACK_US
    }

    /// How long to the next keyframe, at worst. Unknown: too long to wait for.
    fn expected_interval_us(&self) -> i64 {
        self.state.keyframe_interval_us.unwrap_or(i64::MAX / 2)
    }

    fn observe_interval(&mut self, dts_us: i64) {
        if let Some(last) = self.last_keyframe_us.replace(dts_us) {
            let seen = dts_us - last;
            // A rounding tick is no new interval.
            if self.state.keyframe_interval_us.is_some_and(|known| seen > known + 2_000) {
                self.state.keyframe_interval_us = Some(seen);
            }
        }
    }

    fn observe_arrival(&mut self, dts_us: i64, wall: SystemTime) {
        let Some(anchor) = self.state.anchor else { return };
        let late = micros(wall) - anchor.wall_us - (dts_us - anchor.media_us);
        self.drift_us = Some(self.drift_us.map_or(late, |least| least.min(late)));
    }

    /// The least late arrival since the last cut is the truest: follow it, slowly.
    fn re_anchor(&mut self, dts_us: i64, wall: SystemTime) {
        let drift_us = self.drift_us.take().unwrap_or(0);
        let beyond_us = drift_us - drift_us.clamp(-PDT_STILL_US, PDT_STILL_US);
        let (wall_us, unsettled) = match self.state.anchor {
            Some(anchor) if !self.broken => {
                let step_us = match self.unsettled {
                    true if beyond_us != 0 => drift_us.clamp(-PDT_SETTLE_MAX_US, PDT_SETTLE_MAX_US),
                    _ => (beyond_us / PDT_SHARE).clamp(-PDT_STEP_MAX_US, PDT_STEP_MAX_US),
                };
                (anchor.wall_us + (dts_us - anchor.media_us) + step_us, false)
            }
            // A new publisher, or a new presentation: the wall clock as it is.
            _ => (micros(wall), true),
        };
        self.unsettled = unsettled;
        self.state.anchor = Some(Anchor { media_us: dts_us, wall_us });
    }
}

/// Longest a segment may get, in milliseconds: its EXTINF still rounds to TARGETDURATION, in seconds.
pub fn segment_ms_max(target_duration: u32) -> u32 {
    target_duration * 1000 + (SLACK_US / 1000) as u32
}

fn lead_us(sample: &Sample) -> i64 {
    (sample.pts - sample.dts).as_micros()
}

fn micros(wall: SystemTime) -> i64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
