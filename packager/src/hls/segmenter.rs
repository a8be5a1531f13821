//! Samples of one rendition to Parts.
//!
//! A Part is finished the moment its last Sample arrives: waiting for the next one to learn the
//! last duration would cost a frame of latency. So decode times are laid end to end: a Part's last
//! Sample gets the source's nominal duration, and the error is taken out of the next Sample's own.
//! The error never adds up, decode time has no gap, no Part exceeds PART-TARGET, and presentation
//! times stay those of the source.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use media_core::{
    Parameters, Sample, Timestamp, Track, TrackKind,
    container::fmp4::{self, Unit},
    timeline::PART_SHARE_MIN,
};

/// Weight of history against the newest frame distance, as a power of two.
const NOMINAL_SHIFT: u32 = 4;
/// So many odd distances in a row are a new frame rate.
const ODD_MAX: u32 = 8;
/// And so many much shorter ones: until it is known, each Part runs ahead of its pictures.
const SHORT_MAX: u32 = 3;
/// What is assumed before two frames were seen and where the bitstream says nothing.
const NOMINAL_US_DEFAULT: i64 = 33_333;

/// A finished Partial Segment, without its place in the playlist.
#[derive(Clone, Debug)]
pub struct Part {
    pub bytes: Bytes,
    pub duration: Timestamp,
    /// It holds a keyframe; players may start at it.
    pub independent: bool,
    /// Media bytes without boxes, for bandwidth.
    pub media_bytes: usize,
}

#[derive(Debug)]
pub struct Segmenter {
    track: Arc<Track>,
    part_target_ticks: i64,
    nominal: Nominal,
    /// Units of the open Part; the last one's duration is still nominal.
    units: Vec<Unit>,
    /// Decode time at which the open Part begins and at which the last Unit ends, in ticks of the presentation.
    begin: i64,
    end: i64,
    /// Decode time of the last Unit.
    last: i64,
    sequence: u32,
    /// The parameters have changed once: from then on keyframes bring theirs.
    changed: bool,
}

impl Segmenter {
    /// `start` is where the presentation's media goes on.
    pub fn new(track: Arc<Track>, part_target: Timestamp) -> Self {
        let part_target_ticks = part_target.ticks_in(track.timescale);
        let nominal = Nominal::new(&track);
        Self { track, part_target_ticks, nominal, units: Vec::new(), begin: 0, end: 0, last: 0, sequence: 0, changed: false }
    }

    pub fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Where the rendition's media ends.
    pub fn end(&self) -> Timestamp {
        Timestamp::new(self.end, self.track.timescale)
    }

    /// The open Part is empty: a cut here costs no short Part.
    pub fn at_border(&self) -> bool {
        self.units.is_empty()
    }

    /// Goes on at a new place, with the same or new parameters: behind a discontinuity or a gap.
    /// The open Part must be closed.
    pub fn restart(&mut self, track: &Arc<Track>, at: Timestamp, part_target: Timestamp) {
        debug_assert!(self.units.is_empty());
        if self.track != *track {
            self.changed = true;
            self.part_target_ticks = part_target.ticks_in(track.timescale);
        }
        // The last Part's end may be a nominal duration ahead of a picture that came early.
        let end = at.max(self.end());
        self.nominal = Nominal::new(track);
        self.track = Arc::clone(track);
        self.end = end.ticks_in(track.timescale).max(0);
    }

    /// The time of the next Sample is known: it ends the last Unit, and sometimes the open Part.
    pub fn settle(&mut self, sample: &Sample, offset: Timestamp) -> Option<Part> {
        let actual = self.actual(sample, offset);
        self.nominal.observe(actual);
        let unit = self.units.last_mut()?;
        let room = self.begin + self.part_target_ticks - self.last;
        let duration = (actual - self.last).clamp(1, room.max(1));
        unit.duration = ticks(duration);
        self.end = self.last + duration;
        if actual - self.last > room || self.is_full() { self.complete() } else { None }
    }

    /// Appends a Sample, after `settle`. Answers the Part that it completes.
    pub fn push(&mut self, sample: &Sample, offset: Timestamp) -> Option<Part> {
        let actual = self.actual(sample, offset);
        self.nominal.tell(sample.duration);
        if self.units.is_empty() {
            if self.track.kind() == TrackKind::Audio && actual - self.end > self.part_target_ticks {
                // Sound that paused: nothing to stretch, the hole is the truth.
                self.end = actual;
            }
            self.begin = self.end;
        }
        let dts = self.end;
        let room = self.begin + self.part_target_ticks - dts;
        // To where the next picture is expected: what this one is ahead or behind does not add up.
        let expected = || actual + self.nominal.ticks - dts;
        let duration = sample.duration.map_or_else(expected, i64::from).min(room).max(1);
        let composition = (sample.pts - sample.dts).ticks_in(self.track.timescale);
        // A frame late or more: the picture still shows at its own time.
        let late = actual - dts;
        let offset = if late > self.nominal.ticks / 2 { composition + late } else { composition };
        let (prefix, payload) = match &self.track.parameters {
            Parameters::H264(parameters) if self.changed && sample.keyframe => parameters.in_band(&sample.payload),
            _ => (Bytes::new(), sample.payload.clone()),
        };
        self.units.push(Unit {
            duration: ticks(duration),
            offset: i32::try_from(offset).unwrap_or(0),
            keyframe: sample.keyframe,
            prefix,
            payload,
        });
        self.last = dts;
        self.end = dts + duration;
        if self.is_full() { self.complete() } else { None }
    }

    /// Ends a full Part that another follows in its segment: such a Part is no shorter than the draft allows, though
    /// pictures were left out. What is added is taken out of the next Part. Sound is never stretched: a frame lasts what it
    /// lasts, and where whole frames do not fill PART-TARGET, which was settled before they were heard, its Parts are short.
    fn complete(&mut self) -> Option<Part> {
        let missing = self.begin + (self.part_target_ticks * PART_SHARE_MIN + 99) / 100 - self.end;
        if let Some(unit) = self.units.last_mut().filter(|_| missing > 0 && !self.nominal.exact) {
            unit.duration += ticks(missing);
            self.end += missing;
        }
        self.close_part()
    }

    /// Ends the open Part, if it holds anything.
    pub fn close_part(&mut self) -> Option<Part> {
        if self.units.is_empty() {
            return None;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = BytesMut::new();
        let begin = u64::try_from(self.begin).expect("a presentation starts at 0 and its decode time only grows");
        fmp4::write_part(&mut bytes, self.sequence, begin, &self.units);
        let part = Part {
            bytes: bytes.freeze(),
            duration: Timestamp::new(self.end - self.begin, self.track.timescale),
            independent: self.track.kind() == TrackKind::Audio || self.units.iter().any(|unit| unit.keyframe),
            media_bytes: self.units.iter().map(|unit| unit.payload.len()).sum(),
        };
        self.units.clear();
        Some(part)
    }

    fn actual(&self, sample: &Sample, offset: Timestamp) -> i64 {
        sample.dts.ticks_in(self.track.timescale) + offset.ticks_in(self.track.timescale)
    }

    /// No further whole frame fits. A quarter frame of video's jitter is not counted: it is taken out of the last duration.
    fn is_full(&self) -> bool {
        let jitter = if self.nominal.exact { 0 } else { self.nominal.ticks / 4 };
        self.end - self.begin + self.nominal.ticks > self.part_target_ticks + jitter
    }
}

fn ticks(duration: i64) -> u32 {
    u32::try_from(duration).unwrap_or(u32::MAX)
}

/// How far apart the source's Samples usually are.
#[derive(Debug)]
struct Nominal {
    ticks: i64,
    /// `ticks`, with `NOMINAL_SHIFT` more bits.
    fine: i64,
    last: Option<i64>,
    odd: u32,
    exact: bool,
}

impl Nominal {
    fn new(track: &Track) -> Self {
        let scale = track.timescale;
        let (ticks, exact) = match &track.parameters {
            Parameters::Aac(p) => (i64::from(p.frame_length), true),
            // What libopus and browsers send; a packet tells its own.
            Parameters::Opus(_) => (960, true),
            Parameters::H264(_) | Parameters::Hevc(_) | Parameters::Av1(_) => {
                let us = track.parameters.frame_rate().map_or(NOMINAL_US_DEFAULT, |rate| (1e6 / rate.as_f64()) as i64);
                (Timestamp::from_micros(us).ticks_in(scale).max(1), false)
            }
        };
        Self { ticks, fine: ticks << NOMINAL_SHIFT, last: None, odd: 0, exact }
    }

    /// A Sample says how long it lasts: the next is as long, until one says otherwise. A picture that does is of a rung whose
    /// pace may change.
    fn tell(&mut self, duration: Option<u32>) {
        let Some(duration) = duration.map(|duration| i64::from(duration).max(1)) else { return };
        if self.exact || !self.is_usual(duration) {
            (self.ticks, self.fine, self.odd) = (duration, duration << NOMINAL_SHIFT, 0);
        }
    }

    fn is_usual(&self, distance: i64) -> bool {
        distance * 2 > self.ticks && distance * 2 < self.ticks * 3
    }

    fn observe(&mut self, actual: i64) {
        let Some(last) = self.last.replace(actual) else { return };
        if self.exact {
            return;
        }
        let distance = actual - last;
        let usual = self.is_usual(distance);
        self.odd = if usual { 0 } else { self.odd + 1 };
        if usual {
            self.fine += distance - (self.fine >> NOMINAL_SHIFT);
        } else if self.odd >= if distance < self.ticks { SHORT_MAX } else { ODD_MAX } && distance > 0 {
            self.fine = distance << NOMINAL_SHIFT;
        }
        self.ticks = (self.fine >> NOMINAL_SHIFT).max(1);
    }
}
