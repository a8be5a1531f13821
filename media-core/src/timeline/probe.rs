//! Finds TARGETDURATION and PART-TARGET from a lead track's first Samples.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{FrameRate, h264, hevc},
    sample::{Parameters, Sample, TrackKind},
};

/// TARGETDURATIONs to choose from, in seconds, behind the configured smallest.
const TARGET_DURATIONS: [u32; 3] = [2, 6, 10];
/// A keyframe this far behind the first tells the interval; a nearer one may be a scene cut.
const INTERVAL_US_MIN: i64 = 1_000_000;
/// When to stop waiting for a second keyframe: a viewer waits as long. A near one, as WebRTC publishers send
/// at their start when they are asked for it, starts the wait anew, for it starts the encoder's interval anew.
const WAIT_US_MAX: i64 = 2_500_000;
/// Frame distances needed before a rate is believed: as many as a Part has at 30 fps.
const DISTANCES_MIN: usize = 6;
/// And where they are uneven and nothing was promised: their jitter, 15 ms in WebRTC, must be little of the whole.
const DISTANCES_UNEVEN_MIN: usize = 30;
/// And as many as are kept: a second of 60 fps.
const DISTANCES_MAX: usize = 60;
/// Percent of PART-TARGET that a Part lasts at least (rfc8216bis 4.4.4.9).
pub const PART_SHARE_MIN: i64 = 85;
/// Longest PART-TARGET that is taken so that whole frames of the sound fill their Parts, as a multiple of the shortest.
const SOUND_FACTOR_MAX: f64 = 2.0;
/// What milliseconds make of an even distance.
const EVEN_US: i64 = 2_000;
/// Shortest Part: what players and CDNs bear (see ARCHITECTURE.md).
const PART_US: i64 = 200_000;
/// PART-TARGET of a source whose pictures come so irregularly that a Part may stay empty.
const IRREGULAR_PART_MS: u32 = 1_000;
/// Pictures a second that are made of a source that sends them when something has changed: as many as browsers capture of a screen.
const CONSTANT_RATE: f64 = 30.0;
/// How far a promised rate may be off what timestamps show, and a picture may come late though its source is regular.
const RATE_TOLERANCE: f64 = 0.15;
/// A source that paused once and no longer is regular: an encoder's start, one hiccup of a camera. Players hold
/// back three Parts, which is more.
const HICCUP_US: i64 = 500_000;
/// Rates that sources really have, frames a second. Timestamps in milliseconds cannot tell the
/// near ones apart at once: the slower is taken, since its Part holds the faster as well.
const RATES: [f64; 24] = [
    1.0,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    7.5,
    8.0,
    10.0,
    12.0,
    12.5,
    15.0,
    20.0,
    24_000.0 / 1001.0,
    24.0,
    25.0,
    30_000.0 / 1001.0,
    30.0,
    48.0,
    50.0,
    60_000.0 / 1001.0,
    60.0,
    120_000.0 / 1001.0,
    120.0,
];

/// What is known of a source before its first Sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints {
    /// Configured: taken before anything else.
    pub keyframe_interval: Option<Duration>,
    /// How often the publisher is asked for one: then what the bitstream says of a longer interval is not believed
    /// before it is seen.
    pub asked_interval: Option<Duration>,
    /// What this stream had before: taken where the bitstream says nothing.
    pub remembered_interval: Option<Duration>,
    /// Announced in metadata: taken only where timestamps agree.
    pub frame_rate: Option<f64>,
    /// Smallest TARGETDURATION, in seconds; 0 leaves it to us.
    pub target_duration_min: u32,
}

/// What never changes in a presentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    pub target_duration: u32,
    pub part_target_ms: u32,
    pub keyframe_interval_us: Option<i64>,
    /// Every segment can open with a keyframe, as far as is known now.
    pub independent_segments: bool,
    /// Pictures come with gaps longer than a Part should be.
    pub irregular: bool,
    /// The picture is made of the publisher's, at a constant rate.
    #[serde(default)]
    pub constant: bool,
    /// Pictures a second; 0 without video.
    pub frame_rate: f64,
}

#[derive(Debug)]
pub struct Probe {
    hints: Hints,
    first_keyframe_us: Option<i64>,
    last_keyframe_us: i64,
    /// From when on a second keyframe is waited for.
    wait_from_us: i64,
    /// Largest distance between two neighbours among the keyframes.
    widest_interval_us: i64,
    last_us: Option<i64>,
    distances_us: Vec<i64>,
    interval_us: Option<i64>,
    /// What is taken where no second keyframe came in time.
    unseen_interval_us: Option<i64>,
    /// Waiting for a second keyframe is over: there was none in time.
    given_up: bool,
    /// How long a frame of the sound lasts, once it was heard.
    sound_frame_us: Option<i64>,
}

impl Probe {
    pub fn new(hints: Hints) -> Self {
        let interval_us = hints.keyframe_interval.map(micros);
        Self {
            hints,
            first_keyframe_us: None,
            last_keyframe_us: 0,
            wait_from_us: 0,
            widest_interval_us: 0,
            last_us: None,
            distances_us: Vec::new(),
            interval_us,
            unseen_interval_us: None,
            given_up: false,
            sound_frame_us: None,
        }
    }

    /// Takes a Sample of the sound beside a lead track: its frames cannot be cut, and must fill Parts too.
    pub fn hear(&mut self, sample: &Sample) {
        if let Parameters::Aac(aac) = &sample.track.parameters {
            self.sound_frame_us = Some(i64::from(aac.frame_length) * 1_000_000 / i64::from(aac.sample_rate));
        }
    }

    /// Takes the next Sample of the lead track; answers once all is known.
    pub fn push(&mut self, sample: &Sample) -> Option<Grid> {
        if sample.track.kind() == TrackKind::Audio {
            self.hear(sample);
            return Some(self.audio_grid());
        }
        let dts_us = sample.dts.as_micros();
        let Some(first_us) = self.first_keyframe_us else {
            if sample.keyframe {
                self.first_keyframe_us = Some(dts_us);
                (self.last_keyframe_us, self.wait_from_us) = (dts_us, dts_us);
                self.last_us = Some(dts_us);
                self.observe_first(sample);
            }
            return None;
        };
        if let Some(last) = self.last_us.replace(dts_us)
            && self.distances_us.len() < DISTANCES_MAX
        {
            self.distances_us.push(dts_us - last);
        }
        if sample.keyframe {
            self.observe_keyframe(dts_us, dts_us - first_us);
        }
        if dts_us - self.wait_from_us >= WAIT_US_MAX {
            self.given_up = true;
            self.interval_us = self.interval_us.or(self.unseen_interval_us);
        }
        let settled = self.interval_us.is_some() && self.knows_rate(sample);
        (settled || self.given_up).then(|| self.video_grid(sample))
    }

    fn observe_first(&mut self, keyframe: &Sample) {
        let [asked_us, remembered_us] =
            [self.hints.asked_interval, self.hints.remembered_interval].map(|known| known.map(micros));
        let written_us = written_interval_us(keyframe);
        let (believed_us, doubted_us) = match (written_us, asked_us) {
            (Some(written), Some(asked)) if written > asked => (None, written_us),
            _ => (written_us.or(remembered_us), None),
        };
        self.interval_us = self.interval_us.or(believed_us);
        // Who is asked less often than this waits may still obey.
        self.unseen_interval_us = doubted_us.or(asked_us.filter(|&us| us >= WAIT_US_MAX));
    }

    fn observe_keyframe(&mut self, dts_us: i64, age_us: i64) {
        let seen_us = dts_us - std::mem::replace(&mut self.last_keyframe_us, dts_us);
        self.widest_interval_us = self.widest_interval_us.max(seen_us);
        if age_us < INTERVAL_US_MIN {
            self.wait_from_us = dts_us;
        } else if self.interval_us.is_none() {
            // Of near ones alone, the first tells: the interval is not shorter.
            let wide = Some(self.widest_interval_us).filter(|&us| us >= INTERVAL_US_MIN);
            self.interval_us = wide.or(Some(age_us));
        }
    }

    fn knows_rate(&self, sample: &Sample) -> bool {
        let usual = self.usual_distances_us();
        let spread_us = usual.iter().max().zip(usual.iter().min()).map_or(0, |(most, least)| most - least);
        let enough =
            if spread_us <= EVEN_US || self.promised_rate(sample).is_some() { DISTANCES_MIN } else { DISTANCES_UNEVEN_MIN };
        self.distances_us.len() >= enough
    }

    fn video_grid(&self, sample: &Sample) -> Grid {
        let frame_rate = self.frame_rate(sample);
        let (part_target_ms, irregular) = self.part_target(frame_rate);
        let longest = i64::from(TARGET_DURATIONS[2]) * 1_000_000 + super::SLACK_US;
        Grid {
            target_duration: target_duration(self.interval_us, self.hints.target_duration_min),
            part_target_ms,
            keyframe_interval_us: self.interval_us,
            independent_segments: self.interval_us.is_none_or(|us| us <= longest),
            irregular,
            constant: false,
            frame_rate,
        }
    }

    /// Of what can be made of a source whose pictures are too far apart for Parts: pictures at a constant rate, and a keyframe
    /// wherever a segment begins. `known`: what `push` answered. `None` where they are near enough, or come so seldom by a rate of
    /// their own. Who has to be asked for keyframes is a browser, which sends what changes: one long gap tells before all is known.
    pub fn constant_grid(&self, known: Option<&Grid>) -> Option<Grid> {
        let paused = self.hints.asked_interval.is_some() && self.distances_us.iter().any(|us| *us > HICCUP_US);
        if !paused && !known.is_some_and(|grid| grid.irregular) {
            return None;
        }
        let target_duration = TARGET_DURATIONS[0].max(self.hints.target_duration_min);
        Some(Grid {
            target_duration,
            part_target_ms: self.regular_part_target(CONSTANT_RATE),
            keyframe_interval_us: Some(i64::from(target_duration) * 1_000_000),
            independent_segments: true,
            irregular: false,
            constant: true,
            frame_rate: CONSTANT_RATE,
        })
    }

    /// Audio can be cut anywhere, so the shortest durations serve.
    fn audio_grid(&self) -> Grid {
        Grid {
            target_duration: target_duration(Some(0), self.hints.target_duration_min),
            part_target_ms: self.sound_part_target(),
            keyframe_interval_us: Some(0),
            independent_segments: true,
            irregular: false,
            constant: false,
            frame_rate: 0.0,
        }
    }

    /// Milliseconds: the shortest, or whole frames where those do not fill it.
    fn sound_part_target(&self) -> u32 {
        let us = match self.sound_frame_us {
            Some(frame_us) if !self.sound_fills(PART_US) => (PART_US + frame_us - 1) / frame_us * frame_us,
            _ => PART_US,
        };
        u32::try_from((us + 999) / 1000).unwrap_or(u32::MAX)
    }

    /// Whether whole frames of the sound fill Parts of such a PART-TARGET: those of 8 kHz last 128 ms.
    fn sound_fills(&self, part_us: i64) -> bool {
        self.sound_frame_us.is_none_or(|frame_us| part_us / frame_us * frame_us * 100 >= part_us * PART_SHARE_MIN)
    }

    /// Frames a second: what is promised if timestamps agree, else what timestamps show.
    fn frame_rate(&self, sample: &Sample) -> f64 {
        self.promised_rate(sample).or_else(|| self.measured_rate().map(nearest_rate)).unwrap_or(30.0)
    }

    /// The bitstream's promise or the metadata's, if timestamps agree.
    fn promised_rate(&self, sample: &Sample) -> Option<f64> {
        let measured = self.measured_rate();
        let promised = sample.track.parameters.frame_rate().map(FrameRate::as_f64);
        let agrees = |rate: &f64| measured.is_none_or(|m| (rate / m - 1.0).abs() <= RATE_TOLERANCE);
        let metadata = self.hints.frame_rate.filter(|rate| (0.1..=480.0).contains(rate));
        promised.filter(agrees).or_else(|| metadata.filter(agrees))
    }

    fn measured_rate(&self) -> Option<f64> {
        let usual = self.usual_distances_us();
        let span_us: i64 = usual.iter().sum();
        (span_us > 0).then(|| usual.len() as f64 * 1e6 / span_us as f64)
    }

    /// Without those in which pictures were left out: more than half as long again as most are.
    fn usual_distances_us(&self) -> Vec<i64> {
        let mut sorted = self.distances_us.clone();
        sorted.sort_unstable();
        let median_us = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        sorted.retain(|us| us * 2 <= median_us * 3);
        sorted
    }

    /// Milliseconds, and whether the source is irregular.
    fn part_target(&self, rate: f64) -> (u32, bool) {
        let ms = self.regular_part_target(rate);
        let irregular = self.is_irregular(ms) && ms < IRREGULAR_PART_MS;
        (if irregular { IRREGULAR_PART_MS } else { ms }, irregular)
    }

    /// Milliseconds.
    fn regular_part_target(&self, rate: f64) -> u32 {
        let frame_us = 1e6 / rate;
        let frames = match rate {
            r if (23.9..=30.01).contains(&r) => 6.0,
            r if (47.9..=60.01).contains(&r) => 12.0,
            _ => (PART_US as f64 / frame_us - 1e-6).ceil().max(1.0),
        };
        // Rounded up, but not for the noise of the division.
        let ms_of = |frames: f64| (frames * frame_us / 1000.0 - 1e-6).ceil();
        let longest = (frames * SOUND_FACTOR_MAX) as u32;
        let fitting =
            (frames as u32..=longest).map(|frames| ms_of(frames.into())).find(|ms| self.sound_fills((ms * 1000.0) as i64));
        fitting.unwrap_or_else(|| ms_of(frames)) as u32
    }

    /// Whether Parts would stay empty, more than once or for long.
    fn is_irregular(&self, part_ms: u32) -> bool {
        let longest_us = (f64::from(part_ms) * 1000.0 * (1.0 + RATE_TOLERANCE)) as i64;
        let gaps: Vec<i64> = self.distances_us.iter().copied().filter(|&us| us > longest_us).collect();
        gaps.len() > 1 || gaps.iter().any(|&us| us > HICCUP_US)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn target_duration(interval_us: Option<i64>, smallest: u32) -> u32 {
    let holds = |seconds: &u32| interval_us.is_some_and(|us| us <= i64::from(*seconds) * 1_000_000 + super::SLACK_US);
    let longest = TARGET_DURATIONS[2].max(smallest);
    TARGET_DURATIONS.into_iter().map(|seconds| seconds.max(smallest)).find(holds).unwrap_or(longest)
}

/// x264 and x265 write their settings into the stream; with the rate they tell the interval.
fn written_interval_us(keyframe: &Sample) -> Option<i64> {
    let frames = match &keyframe.track.parameters {
        Parameters::H264(_) => h264::keyframe_interval(&keyframe.payload)?,
        Parameters::Hevc(_) => hevc::keyframe_interval(&keyframe.payload)?,
        Parameters::Av1(_) | Parameters::Aac(_) | Parameters::Opus(_) => return None,
    };
    let rate = keyframe.track.parameters.frame_rate()?.as_f64();
    Some((f64::from(frames) * 1e6 / rate) as i64)
}

/// The slower of the known rates that the measurement may mean, or the measurement.
fn nearest_rate(measured: f64) -> f64 {
    RATES.into_iter().find(|rate| (rate / measured - 1.0).abs() < 0.02).unwrap_or(measured)
}

#[cfg(test)]
impl Probe {
    pub(super) fn audio_grid_for_tests(&self) -> Grid {
        self.audio_grid()
    }
}
