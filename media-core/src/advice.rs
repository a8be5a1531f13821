//! What a streamer could set better, in sentences: what is wrong, with the number that was measured, and which setting
//! changes it, by the names that OBS Studio has for them.
//!
//! ```text
//! Items --Observer--> Measured ┐
//! the packager ------> Packaged ┼─ advise ─> Advice, the worst first
//! the publisher -----> Present  ┘
//! ```

mod measure;

use serde::Serialize;

use crate::{
    codec::h264::Order,
    sample::{Parameters, TrackId, TrackKind},
    stream::Present,
    timeline::Grid,
};

pub use measure::{Measured, Observer};

/// Longest keyframe interval that a segment of TARGETDURATION 2 holds.
const INTERVAL_US_MAX: i64 = 2_400_000;
/// Keyframes count as irregular where one comes after less than this share of the usual time.
const INTERVAL_SHARE_MIN: f64 = 0.6;
/// Share of frames that may come at another distance than the usual one.
const UNEVEN_SHARE_MAX: f64 = 0.15;
/// Bits a pixel under which letters blur as soon as something moves: 1.9 Mbit/s at 1080p30.
const BITS_A_PIXEL_MIN: f64 = 0.03;
/// A second may have so many times the announced rate: with a keyframe and a full buffer encoders reach about two.
const PEAK_MAX: f64 = 2.5;
/// How long a track that does not come is waited for before that is said.
const MISSING_US: i64 = 10_000_000;
/// How far the media's clock may have run away from the wall clock.
const DRIFT_US_MAX: i64 = 400_000;

/// What is advised. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    NoVideo,
    NoAudio,
    MediaLost,
    ClockDrift,
    TimestampsRepaired,
    CutWithoutKeyframe,
    KeyframeInterval,
    FrameRateIrregular,
    BFrames,
    BitratePeaks,
    BitrateLow,
    ChannelsSurround,
    ChannelsMono,
    SampleRate,
    KeyframesIrregular,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Viewers see or hear it.
    Problem,
    /// It costs delay or quality.
    Warning,
    /// It could be better.
    Hint,
}

impl Code {
    /// The strongest first.
    pub const ALL: [Self; 15] = [
        Self::NoVideo,
        Self::NoAudio,
        Self::MediaLost,
        Self::ClockDrift,
        Self::TimestampsRepaired,
        Self::CutWithoutKeyframe,
        Self::KeyframeInterval,
        Self::FrameRateIrregular,
        Self::BFrames,
        Self::BitratePeaks,
        Self::BitrateLow,
        Self::ChannelsSurround,
        Self::ChannelsMono,
        Self::SampleRate,
        Self::KeyframesIrregular,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoVideo => "no_video",
            Self::NoAudio => "no_audio",
            Self::MediaLost => "media_lost",
            Self::ClockDrift => "clock_drift",
            Self::TimestampsRepaired => "timestamps_repaired",
            Self::CutWithoutKeyframe => "cut_without_keyframe",
            Self::KeyframeInterval => "keyframe_interval",
            Self::FrameRateIrregular => "frame_rate_irregular",
            Self::BFrames => "b_frames",
            Self::BitratePeaks => "bitrate_peaks",
            Self::BitrateLow => "bitrate_low",
            Self::ChannelsSurround => "channels_surround",
            Self::ChannelsMono => "channels_mono",
            Self::SampleRate => "sample_rate",
            Self::KeyframesIrregular => "keyframes_irregular",
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Self::NoVideo | Self::NoAudio | Self::MediaLost | Self::ClockDrift => Severity::Problem,
            Self::TimestampsRepaired
            | Self::CutWithoutKeyframe
            | Self::KeyframeInterval
            | Self::FrameRateIrregular
            | Self::BFrames
            | Self::BitratePeaks
            | Self::BitrateLow
            | Self::ChannelsSurround => Severity::Warning,
            Self::ChannelsMono | Self::SampleRate | Self::KeyframesIrregular => Severity::Hint,
        }
    }

    /// What to change in OBS Studio, by the names of its settings.
    fn change(self) -> &'static str {
        match self {
            Self::NoVideo => "Add a source to the scene, and check that the scene is shown in the programme.",
            Self::NoAudio => {
                "Settings, Audio: choose a device for Desktop Audio or Mic/Auxiliary Audio; Settings, Output, Audio Track: tick \
                 the track that is streamed."
            }
            Self::MediaLost => {
                "Settings, Output: lower Video Bitrate to two thirds of what the line uploads; use a cable instead of Wi-Fi. View, \
                 Stats shows Dropped Frames (Network)."
            }
            Self::ClockDrift => {
                "If View, Stats shows Dropped Frames (Network): Settings, Output, lower Video Bitrate. Otherwise: Settings, Audio, \
                 set every device to the same Sample Rate, and in Advanced Audio Properties no Sync Offset."
            }
            Self::TimestampsRepaired => {
                "Stop streaming and start it anew. If it comes again: in the media source's properties switch off Use hardware \
                 decoding when available, and set every audio device to the same Sample Rate."
            }
            Self::CutWithoutKeyframe | Self::KeyframeInterval => {
                "Settings, Output, Output Mode Advanced, Streaming: Keyframe Interval 2 s (0 means automatic, which is far longer)."
            }
            Self::FrameRateIrregular => {
                "Settings, Video: Common FPS Values 30 or 60, and a Base (Canvas) Resolution the machine keeps up with. View, Stats \
                 shows Frames missed due to rendering lag."
            }
            Self::BFrames => {
                "Settings, Output, Output Mode Advanced, Streaming: with x264 Tune zerolatency (or x264 Options: bframes=0), with other \
                 encoders B-Frames 0."
            }
            Self::BitratePeaks => "Settings, Output, Output Mode Advanced, Streaming: Rate Control CBR.",
            Self::BitrateLow => {
                "Settings, Output: a higher Video Bitrate; or Settings, Video: a smaller Output (Scaled) Resolution or fewer FPS."
            }
            Self::ChannelsSurround | Self::ChannelsMono => "Settings, Audio, General: Channels Stereo.",
            Self::SampleRate => "Settings, Audio, General: Sample Rate 48 kHz.",
            Self::KeyframesIrregular => "Settings, Output, Output Mode Advanced, Streaming, x264 Options: scenecut=0.",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    pub code: Code,
    pub severity: Severity,
    /// What is wrong.
    pub text: String,
    /// What to change.
    pub change: &'static str,
}

/// What became of the stream in packaging, since its publisher joined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Packaged {
    pub grid: Option<Grid>,
    pub cuts_without_keyframe: u64,
    /// Pictures and sounds that no viewer by HLS was given.
    pub lost: u64,
}

/// All that there is to say, the strongest first.
pub fn advise(present: &Present, measured: &Measured, packaged: &Packaged) -> Vec<Advice> {
    Code::ALL
        .into_iter()
        .filter_map(|code| {
            let text = text(code, present, measured, packaged)?;
            Some(Advice { code, severity: code.severity(), text, change: code.change() })
        })
        .collect()
}

fn text(code: Code, present: &Present, measured: &Measured, packaged: &Packaged) -> Option<String> {
    match code {
        Code::NoVideo => missing(present, measured, TrackId::VIDEO, "No picture", "sound"),
        Code::NoAudio => missing(present, measured, TrackId::AUDIO, "No sound", "the picture"),
        Code::MediaLost => (packaged.lost > 0)
            .then(|| format!("{} pictures or sounds came too late or could not be decoded, and were left out.", packaged.lost)),
        Code::ClockDrift => drift(measured),
        Code::TimestampsRepaired => (present.repairs > 0).then(|| {
            format!("{} timestamps were wrong and had to be repaired: picture or sound may jump there.", present.repairs)
        }),
        Code::CutWithoutKeyframe => (packaged.cuts_without_keyframe > 0).then(|| {
            let cuts = packaged.cuts_without_keyframe;
            format!("{cuts} segments had to begin without a keyframe: viewers who join there see nothing until the next one.")
        }),
        Code::KeyframeInterval => longest_interval(present, measured),
        Code::FrameRateIrregular => irregular(present, measured, packaged),
        Code::BFrames => (present.order == Order::Reordered).then(|| b_frames(present)),
        Code::BitratePeaks => peaks(present, measured),
        Code::BitrateLow => low(present, measured),
        Code::ChannelsSurround => channels(present).filter(|&n| n > 2).map(|n| {
            format!(
                "The sound has {n} channels: by WebRTC viewers hear two of them mixed, and many browsers play no more by HLS."
            )
        }),
        Code::ChannelsMono => channels(present).filter(|&n| n == 1).map(|_| "The sound has 1 channel: it is mono.".to_owned()),
        Code::SampleRate => sample_rate(present).filter(|&rate| rate != 48_000).map(|rate| {
            format!("The sound is sampled at {} kHz: WebRTC needs 48 kHz, so it is converted.", f64::from(rate) / 1000.0)
        }),
        Code::KeyframesIrregular => uneven_keyframes(present, measured),
    }
}

fn missing(present: &Present, measured: &Measured, id: TrackId, what: &str, other: &str) -> Option<String> {
    let waited = measured.since_join_us;
    (present.epoch.is_some() && present.track(id).is_none() && waited >= MISSING_US)
        .then(|| format!("{what} has come in the first {} s, though {other} has.", waited / 1_000_000))
}

fn drift(measured: &Measured) -> Option<String> {
    let us = measured.drift_us.filter(|us| us.abs() > DRIFT_US_MAX)?;
    let (ms, minutes) = (us.abs() / 1000, measured.since_join_us as f64 / 60e6);
    let which = if us > 0 {
        "behind the clock: the line is too slow, or the source is"
    } else {
        "ahead of the clock: the source runs fast"
    };
    Some(format!("After {minutes:.1} minutes the stream is {ms} ms {which}."))
}

/// A publisher that is asked for keyframes has no setting for them.
fn intervals<'a>(present: &Present, measured: &'a Measured) -> Option<&'a measure::Intervals> {
    measured.keyframes.as_ref().filter(|_| present.announcement.keyframes_asked.is_none())
}

fn longest_interval(present: &Present, measured: &Measured) -> Option<String> {
    let longest = intervals(present, measured)?.longest_us;
    (longest > INTERVAL_US_MAX).then(|| {
        let seconds = longest as f64 / 1e6;
        format!("Keyframes come up to {seconds:.1} s apart: viewers wait that long for a picture, and segments get longer.")
    })
}

fn uneven_keyframes(present: &Present, measured: &Measured) -> Option<String> {
    let seen = intervals(present, measured)?;
    let (shortest, longest) = (seen.shortest_us as f64 / 1e6, seen.longest_us as f64 / 1e6);
    (shortest < longest * INTERVAL_SHARE_MIN && seen.longest_us <= INTERVAL_US_MAX)
        .then(|| format!("Keyframes come {shortest:.1} to {longest:.1} s apart: those between cost bits that the picture lacks."))
}

fn irregular(present: &Present, measured: &Measured, packaged: &Packaged) -> Option<String> {
    // Cameras and screens in browsers come as they come.
    let frames = measured.frames.as_ref().filter(|_| present.announcement.keyframes_asked.is_none())?;
    let grid = packaged.grid.is_some_and(|grid| grid.irregular);
    if frames.uneven_share <= UNEVEN_SHARE_MAX && !grid {
        return None;
    }
    let (share, longest) = (frames.uneven_share * 100.0, frames.longest_us / 1000);
    let cost = if grid { ", so it is published in parts of 1 s, with that much more delay" } else { "" };
    Some(format!("The frame rate varies: {share:.0} % of the frames come at another distance, up to {longest} ms{cost}."))
}

fn b_frames(present: &Present) -> String {
    let parameters = present.track(TrackId::VIDEO).map(|track| &track.parameters);
    let held = parameters.and_then(Parameters::reorder_frames).filter(|&n| n > 0);
    let held = held.map_or(String::new(), |n| format!(" ({n} at a time are held back)"));
    format!("The picture has B-frames{held}: WebRTC cannot carry them, so it is coded anew, which costs delay and quality.")
}

fn peaks(present: &Present, measured: &Measured) -> Option<String> {
    let (announced, peak) = (present.announcement.bitrate?, measured.bitrate?.peak);
    (announced > 0 && peak as f64 > announced as f64 * PEAK_MAX).then(|| {
        let (announced, peak) = (announced / 1000, peak / 1000);
        format!("Single seconds have {peak} kbit/s, though {announced} kbit/s are announced: viewers with slower lines stall.")
    })
}

/// By what is announced, where it is: a picture that stands still needs little.
fn low(present: &Present, measured: &Measured) -> Option<String> {
    let (width, height) = present.track(TrackId::VIDEO)?.parameters.size()?;
    let (rate, seen) = (measured.frames.as_ref()?.rate, measured.bitrate?);
    let bits = present.announcement.bitrate.filter(|&bits| bits > 0).unwrap_or(seen.peak).max(seen.average);
    let needed = f64::from(width) * f64::from(height) * rate * BITS_A_PIXEL_MIN;
    (rate > 0.0 && (bits as f64) < needed).then(|| {
        let (bits, needed) = (bits / 1000, needed / 1000.0);
        format!(
            "{bits} kbit/s are little for {width}x{height} at {rate:.0} frames a second: below {needed:.0} kbit/s text blurs."
        )
    })
}

fn channels(present: &Present) -> Option<u8> {
    match &present.track(TrackId::AUDIO)?.parameters {
        Parameters::Aac(p) => Some(p.channels()),
        // Browsers send two channels for everything.
        _ => None,
    }
}

/// Of AAC-LC: the others tell the half of what is heard.
fn sample_rate(present: &Present) -> Option<u32> {
    let track = present.track(TrackId::AUDIO).filter(|track| track.kind() == TrackKind::Audio)?;
    match &track.parameters {
        Parameters::Aac(p) if p.object_type == 2 => Some(p.sample_rate),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
