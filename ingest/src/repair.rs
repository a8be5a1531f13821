//! The clocks of one publisher: RTMP's 32-bit milliseconds in, timestamps out that grow strictly
//! on each track and keep audio and video together.
//!
//! Pure, and never fatal: whatever a publisher's clock does has a rule and a counter.
//!
//! - Milliseconds are widened to 64 bits over the wrap at 2^32.
//! - A track goes on as long as its next time is near its last. A jump, either way, is re-based:
//!   the timeline goes on one frame later. The other track adopts the same base when it jumps
//!   likewise, so both stay together and one jump is counted once.
//! - A hole in one track, while the other has gone on, is a hole: nothing is re-based.
//! - A clock that stands still while frames come goes on by their usual length.
//! - Further pictures and further sounds have clocks of their own beside the picture's.
//! - Each sound counts its samples. RTMP's rounded times only correct the count when it has drifted.

use std::fmt;

use media_core::{Timescale, Timestamp, TrackId};

/// Steps back up to this much are jitter, and clamped; larger ones are a clock that was set.
const BACKWARD_JITTER_MAX_MS: i64 = 100;
/// Steps ahead up to this much are a slow source or lost frames; larger ones are a clock that was
/// set. A screen share may idle at one frame a second.
const FORWARD_STEP_MAX_MS: i64 = 3000;
/// How far the tracks of one publisher may be apart and still be on the same base.
const TRACKS_APART_MAX_MS: i64 = 1500;
/// How far audio's count may be from RTMP's time: more than any rounding or burst, less than an
/// eye sees at the lips.
const DRIFT_MAX_MS: i64 = 60;
/// Frames in a row that must be ahead of time before one is dropped: encoders send bursts whose
/// frames share a time, and the last of a burst is early only in name.
const SURPLUS_FRAMES: u32 = 16;
/// Frames of one time in a row after which the clock stands still: bursts are shorter, see above.
const STILL_FRAMES: u32 = SURPLUS_FRAMES;
/// A frame's length until two frames have told it.
const FRAME_FIRST_MS: i64 = 33;
/// Ticks of a millisecond in video's timescale.
const TICKS_PER_MS: i64 = 90;

/// Video's timescale: 90,000 holds every common frame rate in whole ticks.
pub const VIDEO_TIMESCALE: Timescale = Timescale::new(90_000).expect("90000 is not 0");

/// What was repaired. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The 32-bit clock wrapped.
    Wrap,
    /// A time that did not grow was set just behind the one before it.
    DtsClamped,
    /// A clock was set back, and re-based.
    JumpBackward,
    /// A clock was set ahead, and re-based.
    JumpForward,
    /// A clock stood still while frames came: time is counted by their usual length.
    ClockStill,
    /// One track paused while the other went on.
    TrackHole,
    /// A presentation time before the decoding time.
    PtsClamped,
    /// Audio frames are missing: the count skipped ahead by whole frames.
    AudioGap,
    /// More audio frames than time: one was dropped.
    AudioSurplus,
    /// Picture and sound were so far apart that one stepped ahead.
    SyncStep,
}

impl Repair {
    pub const ALL: [Self; 10] = [
        Self::Wrap,
        Self::DtsClamped,
        Self::JumpBackward,
        Self::JumpForward,
        Self::ClockStill,
        Self::TrackHole,
        Self::PtsClamped,
        Self::AudioGap,
        Self::AudioSurplus,
        Self::SyncStep,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wrap => "wrap",
            Self::DtsClamped => "dts_clamped",
            Self::JumpBackward => "jump_backward",
            Self::JumpForward => "jump_forward",
            Self::ClockStill => "clock_still",
            Self::TrackHole => "track_hole",
            Self::PtsClamped => "pts_clamped",
            Self::AudioGap => "audio_gap",
            Self::AudioSurplus => "audio_surplus",
            Self::SyncStep => "sync_step",
        }
    }
}

/// How often each repair was made.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs([u64; Repair::ALL.len()]);

impl Repairs {
    pub fn count(&mut self, repair: Repair) {
        self.0[repair as usize] += 1;
    }

    pub fn of(&self, repair: Repair) -> u64 {
        self.0[repair as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Of what a publisher did wrong: a clock that wraps is none of it.
    pub fn faults(&self) -> u64 {
        self.total() - self.of(Repair::Wrap)
    }

    /// The kinds that were made at all.
    pub fn iter(&self) -> impl Iterator<Item = (Repair, u64)> + '_ {
        Repair::ALL.into_iter().map(|repair| (repair, self.of(repair))).filter(|(_, count)| *count > 0)
    }
}

impl fmt::Debug for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(repair, count)| (repair.as_str(), count))).finish()
    }
}

/// When a message is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// RTMP's milliseconds, modulo 2^32.
    pub ms: u32,
    /// What enhanced RTMP adds to them: less than a millisecond.
    pub nanos: u32,
}

impl From<u32> for Told {
    fn from(ms: u32) -> Self {
        Self { ms, nanos: 0 }
    }
}

impl Told {
    fn added(self, scale: Timescale) -> i64 {
        i64::from(self.nanos) * i64::from(scale.ticks_per_second()) / 1_000_000_000
    }
}

/// All clocks of one publisher.
#[derive(Default)]
pub struct Clocks {
    widener: Widener,
    /// By `TrackId::index`.
    tracks: [TrackClock; TrackId::COUNT],
    /// Added to the publisher's milliseconds since the newest jump.
    base_ms: i64,
    /// Of each sound, by `TrackId::index`.
    counts: [Option<AudioCount>; TrackId::COUNT],
    repairs: Repairs,
}

#[derive(Clone, Copy, Default)]
struct TrackClock {
    last: Option<Last>,
    base_ms: i64,
    frame_ms: Option<i64>,
    /// What frames last on average.
    mean_us: Option<i64>,
    /// Frames in a row that came with the time of the one before.
    still: u32,
    /// The latest of our times so far.
    furthest_ms: i64,
    /// Where the newest access unit was put; of pictures alone.
    last_ticks: Option<i64>,
}

/// The newest sample of a track: the publisher's time, and ours.
#[derive(Clone, Copy)]
struct Last {
    wide_ms: i64,
    out_ms: i64,
}

struct AudioCount {
    rate: Timescale,
    /// When the next frame begins, if none is missing.
    next_ticks: i64,
    /// Frames in a row that were too early.
    early: u32,
}

impl Clocks {
    /// The decoding and presentation time of an access unit, of the picture or a layer of it.
    pub fn picture(&mut self, id: TrackId, told: impl Into<Told>, offset_ms: i32) -> Stamp {
        self.picture_after(id, told, i64::from(offset_ms) * TICKS_PER_MS)
    }

    /// The same, presented so many ticks of `VIDEO_TIMESCALE` after it is decoded.
    pub fn picture_after(&mut self, id: TrackId, told: impl Into<Told>, offset: i64) -> Stamp {
        let told = told.into();
        let out_ms = self.rebase(id, told.ms, None);
        let wanted = out_ms.saturating_mul(TICKS_PER_MS).saturating_add(told.added(VIDEO_TIMESCALE));
        let track = &mut self.tracks[id.index()];
        let wanted = if track.still >= STILL_FRAMES { track.after_standstill() } else { wanted };
        let dts = match track.last_ticks {
            Some(last) if wanted <= last => {
                self.repairs.count(Repair::DtsClamped);
                last + 1
            }
            _ => wanted,
        };
        track.last_ticks = Some(dts);
        let mut pts = wanted.saturating_add(offset);
        if pts < dts {
            // A clamped decoding time takes its presentation time along; only a negative offset is the encoder's fault.
            if offset < 0 {
                self.repairs.count(Repair::PtsClamped);
            }
            pts = dts;
        }
        Stamp { dts: Timestamp::new(dts, VIDEO_TIMESCALE), pts: Timestamp::new(pts, VIDEO_TIMESCALE) }
    }

    /// When a frame of a sound begins that has `frame_length` samples; `None` when it is one too many.
    pub fn audio(&mut self, id: TrackId, told: impl Into<Told>, rate: Timescale, frame_length: u32) -> Option<Timestamp> {
        let said = told.into();
        let frame_ms = i64::from(frame_length) * 1000 / i64::from(rate.ticks_per_second());
        let out_ms = self.rebase(id, said.ms, Some(frame_ms.max(1)));
        let told = Timestamp::from_millis(out_ms).ticks_in(rate).saturating_add(said.added(rate));
        let (frame, drift_max) = (i64::from(frame_length), Timestamp::from_millis(DRIFT_MAX_MS).ticks_in(rate));
        let count = self.counts[id.index()].get_or_insert(AudioCount { rate, next_ticks: told, early: 0 });
        count.change_rate(rate);
        let drift = told.saturating_sub(count.next_ticks);
        if drift > drift_max {
            count.next_ticks += drift / frame * frame;
            self.repairs.count(Repair::AudioGap);
        }
        count.early = if drift < -drift_max { count.early + 1 } else { 0 };
        if count.early >= SURPLUS_FRAMES {
            count.early = SURPLUS_FRAMES - 1; // The next one goes too, while it is early.
            self.repairs.count(Repair::AudioSurplus);
            return None;
        }
        let begins = count.next_ticks;
        count.next_ticks += frame;
        Some(Timestamp::new(begins, rate))
    }

    pub fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// The track that tells a hole from a jump: the picture, and beside it the sound; further sounds have that one where there
    /// is no picture.
    fn beside(&self, id: TrackId) -> TrackClock {
        let [picture, sound] = [TrackId::VIDEO, TrackId::AUDIO].map(|main| self.tracks[main.index()]);
        let lacks_picture = id.is_further_sound() && picture.last.is_none();
        if id == TrackId::VIDEO || lacks_picture { sound } else { picture }
    }

    /// The publisher's time of one sample on our timeline, in milliseconds.
    fn rebase(&mut self, id: TrackId, timestamp: u32, frame_ms: Option<i64>) -> i64 {
        let wide_ms = self.widener.widen(timestamp, &mut self.repairs);
        let other = self.beside(id);
        let own = &mut self.tracks[id.index()];
        let frame_ms = frame_ms.or(own.frame_ms).unwrap_or(FRAME_FIRST_MS);
        let step = own.step(&other, wide_ms, self.base_ms);
        own.still = if own.last.is_some_and(|last| last.wide_ms == wide_ms) { own.still + 1 } else { 0 };
        match step {
            Step::On if own.still >= STILL_FRAMES => {
                let next_ms = match &self.counts[id.index()] {
                    Some(count) => Timestamp::new(count.next_ticks, count.rate).ticks_in(Timescale::MILLIS),
                    None => own.after_standstill() / TICKS_PER_MS,
                };
                self.repairs.count(Repair::ClockStill);
                own.base_ms = next_ms - wide_ms;
                self.base_ms = own.base_ms;
            }
            Step::On => {}
            Step::Hole => self.repairs.count(Repair::TrackHole),
            Step::Adopt => own.base_ms = self.base_ms,
            Step::Jump { from } => {
                let repair = if wide_ms < from.wide_ms { Repair::JumpBackward } else { Repair::JumpForward };
                self.repairs.count(repair);
                own.base_ms = from.out_ms + frame_ms - wide_ms;
                self.base_ms = own.base_ms;
            }
        }
        own.advance(wide_ms)
    }
}

/// When a video access unit is decoded and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub dts: Timestamp,
    pub pts: Timestamp,
}

/// What the next time of a track means.
enum Step {
    /// Near the last one.
    On,
    /// This track paused, the other did not.
    Hole,
    /// The other track jumped before: this is the same jump.
    Adopt,
    /// The clock was set.
    Jump { from: Last },
}

impl TrackClock {
    fn step(&self, other: &Self, wide_ms: i64, newest_base_ms: i64) -> Step {
        let Some(last) = self.last else {
            // A track that comes later joins the base that holds.
            return if self.base_ms == newest_base_ms { Step::On } else { Step::Adopt };
        };
        let step = wide_ms - last.wide_ms;
        let adopted = wide_ms + newest_base_ms - last.out_ms;
        let may_adopt = newest_base_ms != self.base_ms && (-TRACKS_APART_MAX_MS..=FORWARD_STEP_MAX_MS).contains(&adopted);
        // Frames differ in length: by the same jump one track may stay below a limit and the other pass it.
        let nearer = may_adopt && adopted.abs() < step.abs();
        if (-BACKWARD_JITTER_MAX_MS..=FORWARD_STEP_MAX_MS).contains(&step) && !nearer {
            return Step::On;
        }
        if step > 0 && other.is_beside(wide_ms + self.base_ms) {
            return Step::Hole;
        }
        if may_adopt {
            return Step::Adopt;
        }
        if (-2 * BACKWARD_JITTER_MAX_MS..0).contains(&step) && other.base_ms == self.base_ms && other.lags() {
            return Step::On; // The other was clamped for the same step.
        }
        Step::Jump { from: last }
    }

    /// Whether a moment of our timeline is about where this track is.
    fn is_beside(&self, out_ms: i64) -> bool {
        self.last.is_some_and(|last| (out_ms - last.out_ms).abs() <= TRACKS_APART_MAX_MS)
    }

    /// Where the next picture is put while the clock stands still: the first time behind all that came meanwhile.
    fn after_standstill(&self) -> i64 {
        let frames = if self.still == STILL_FRAMES { STILL_FRAMES } else { 1 };
        let frame_us = self.mean_us.unwrap_or(FRAME_FIRST_MS * 1000);
        self.last_ticks.unwrap_or(0) + frame_us * TICKS_PER_MS / 1000 * i64::from(frames)
    }

    /// Whether the track has stepped back and not caught up yet.
    fn lags(&self) -> bool {
        self.last.is_some_and(|last| last.out_ms < self.furthest_ms)
    }

    fn advance(&mut self, wide_ms: i64) -> i64 {
        let out_ms = wide_ms.saturating_add(self.base_ms);
        if let Some(last) = self.last {
            let step = wide_ms - last.wide_ms;
            if (1..=1000).contains(&step) {
                self.frame_ms = Some(step);
                let mean_us = self.mean_us.unwrap_or(step * 1000);
                self.mean_us = Some(mean_us + (step * 1000 - mean_us) / 16);
            }
        }
        self.last = Some(Last { wide_ms, out_ms });
        self.furthest_ms = self.furthest_ms.max(out_ms);
        out_ms
    }
}

impl AudioCount {
    /// Goes on where the last frame ended, in the new scale.
    fn change_rate(&mut self, rate: Timescale) {
        if rate != self.rate {
            self.next_ticks = Timestamp::new(self.next_ticks, self.rate).ticks_in(rate) + 1;
            self.rate = rate;
        }
    }
}

/// 32 bits of milliseconds to 64: the next time is the one nearest to the last.
#[derive(Default)]
struct Widener {
    last: Option<(u32, i64)>,
    /// How often the clock has wrapped. Tracks cross the border one after the other.
    wraps: i64,
}

impl Widener {
    fn widen(&mut self, timestamp: u32, repairs: &mut Repairs) -> i64 {
        let wide = match self.last {
            None => i64::from(timestamp),
            Some((last, wide)) => wide + i64::from(timestamp.wrapping_sub(last).cast_signed()),
        };
        self.last = Some((timestamp, wide));
        if wide >> 32 > self.wraps {
            self.wraps = wide >> 32;
            repairs.count(Repair::Wrap);
        }
        wide
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
