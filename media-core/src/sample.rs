//! What travels from a publisher to everything downstream.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    codec::{FrameRate, aac, av1, h264, hevc, opus},
    timestamp::{Timescale, Timestamp},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    Video,
    Audio,
}

impl TrackKind {
    /// As metric labels and logs say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// Which of a stream's tracks: it stays over changes of parameters. A publisher has one picture and
/// one sound; a simulcast publisher sends the picture in further layers as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(u8);

impl TrackId {
    /// The picture; of several layers, the largest.
    pub const VIDEO: Self = Self(0);
    pub const AUDIO: Self = Self(1);
    /// Layers beside the main one: as many as an SDP offer's simulcast may name, and a rest.
    pub const LAYERS_MAX: u8 = 7;

    /// A further layer of the picture, counted from 0.
    pub fn layer(number: u8) -> Option<Self> {
        (number < Self::LAYERS_MAX).then_some(Self(2 + number))
    }

    /// Rungs that are made of the main picture: a ladder's three, and its top where viewers cannot take the source.
    pub const RUNGS_MAX: u8 = 4;

    /// A picture that is made of the main one, counted from 0: only a packager's Samples are of these.
    pub const fn rung(number: u8) -> Option<Self> {
        if number < Self::RUNGS_MAX { Some(Self(2 + Self::LAYERS_MAX + number)) } else { None }
    }

    pub fn is_layer(self) -> bool {
        !self.is_main() && !self.is_rung()
    }

    pub fn is_rung(self) -> bool {
        self.0 >= 2 + Self::LAYERS_MAX
    }

    /// The picture or the sound itself, not a further layer: what every rendition is made from.
    pub fn is_main(self) -> bool {
        self.0 < 2
    }

    /// Of the picture, one of its further layers or a rung.
    pub fn is_picture(self) -> bool {
        self != Self::AUDIO
    }

    /// For tables of one entry a track.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// How many there can be.
    pub const COUNT: usize = (2 + Self::LAYERS_MAX + Self::RUNGS_MAX) as usize;

    /// In the order of `index`.
    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self(0); Self::COUNT];
        let mut n = 0;
        while n < Self::COUNT as u8 {
            all[n as usize] = Self(n);
            n += 1;
        }
        all
    };
}

/// One elementary stream under one set of decoder parameters. New parameters make a new `Track`;
/// a Sample carries the one it was coded under, so a change needs no message of its own.
#[derive(Debug, PartialEq)]
pub struct Track {
    pub id: TrackId,
    pub timescale: Timescale,
    pub parameters: Parameters,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Parameters {
    H264(h264::Parameters),
    Hevc(hevc::Parameters),
    Av1(av1::Parameters),
    Aac(aac::Parameters),
    Opus(opus::Parameters),
}

impl Parameters {
    /// Pixels shown of a picture; `None` of sound.
    pub fn size(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264(p) => Some((p.width, p.height)),
            Self::Hevc(p) => Some((p.width, p.height)),
            Self::Av1(p) => Some((p.width, p.height)),
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// How many pictures are decoded before one that is shown before them; `None` where nothing tells.
    pub fn reorder_frames(&self) -> Option<u8> {
        match self {
            Self::H264(p) => p.reorder_frames,
            Self::Hevc(p) => Some(p.reorder_frames),
            Self::Av1(_) | Self::Aac(_) | Self::Opus(_) => Some(0),
        }
    }

    /// Frames a second, where the parameters promise it.
    pub fn frame_rate(&self) -> Option<FrameRate> {
        match self {
            Self::H264(p) => p.frame_rate,
            Self::Hevc(p) => p.frame_rate,
            Self::Av1(p) => p.frame_rate,
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }
}

impl Track {
    pub fn kind(&self) -> TrackKind {
        match self.parameters {
            Parameters::H264(_) | Parameters::Hevc(_) | Parameters::Av1(_) => TrackKind::Video,
            Parameters::Aac(_) | Parameters::Opus(_) => TrackKind::Audio,
        }
    }

    /// The `CODECS` element (RFC 6381).
    pub fn codec_string(&self) -> String {
        match &self.parameters {
            Parameters::H264(p) => p.codec_string(),
            Parameters::Hevc(p) => p.codec_string(),
            Parameters::Av1(p) => p.codec_string(),
            Parameters::Aac(p) => p.codec_string(),
            Parameters::Opus(p) => p.codec_string(),
        }
    }
}

/// One coded unit. Video: one access unit. Audio: one frame.
#[derive(Clone, Debug)]
pub struct Sample {
    pub track: Arc<Track>,
    /// In the track's timescale. `dts` grows strictly within one epoch and track.
    pub pts: Timestamp,
    pub dts: Timestamp,
    /// Ticks of the track's timescale; `None` where only the next Sample tells (video).
    pub duration: Option<u32>,
    /// Decodable alone. Every audio Sample is.
    pub keyframe: bool,
    /// H.264, HEVC: NAL units, each behind its length in 4 bytes. AV1: OBUs with their sizes, without a temporal delimiter.
    /// AAC: one raw access unit. Opus: one packet.
    pub payload: Bytes,
    /// When its last byte had arrived.
    pub received: Instant,
}

/// What a publisher said of itself. It may be wrong or missing: trust the bitstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Announcement {
    pub video: bool,
    pub audio: bool,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    /// Bits a second, of video and audio together.
    pub bitrate: Option<u64>,
    /// The sending program, as it names itself.
    pub encoder: Option<String>,
    /// How often at least it is asked for a keyframe, where it can be asked. Whether it obeys is seen.
    pub keyframes_asked: Option<Duration>,
    /// The picture's layers as the publisher names them (simulcast's `rid`), where there are several.
    pub layers: Vec<Layer>,
}

/// One of several codings of the same picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub track: TrackId,
    /// RFC 8851: letters, digits, `-` and `_`.
    pub rid: Arc<str>,
}

/// What a stream's window holds, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Item {
    /// A publisher holds the lease: Samples that follow belong to this epoch.
    Join {
        epoch: u64,
        received: Instant,
    },
    /// The publisher described its tracks, or a sequence header announced one.
    Announce(Announcement),
    Sample(Arc<Sample>),
    /// The publisher is gone. Its next Sample, if any, comes after a `Join`.
    Leave,
}

impl Item {
    /// What it weighs in a window.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Sample(sample) => sample.payload.len(),
            _ => 0,
        }
    }
}
