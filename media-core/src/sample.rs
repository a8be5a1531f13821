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
/// one sound; some send further layers of the picture, other pictures or other sounds as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(u8);

impl TrackId {
    /// The picture; of several layers, the largest.
    pub const VIDEO: Self = Self(0);
    pub const AUDIO: Self = Self(1);
    /// Layers beside the main one: as many as an SDP offer's simulcast may name, and a rest.
    pub const LAYERS_MAX: u8 = 7;

    /// A further layer of the picture, or a picture of its own (`Layer::apart`), counted from 0.
    pub fn layer(number: u8) -> Option<Self> {
        (number < Self::LAYERS_MAX).then_some(Self(2 + number))
    }

    /// Rungs that are made of the main picture: a ladder's six, and one at its size where viewers cannot take the source.
    pub const RUNGS_MAX: u8 = 7;

    /// A picture that is made of the main one, counted from 0: only a packager's Samples are of these.
    pub const fn rung(number: u8) -> Option<Self> {
        if number < Self::RUNGS_MAX { Some(Self(Self::FIRST_RUNG + number)) } else { None }
    }

    /// Sounds beside the main one: a microphone, music and a commentary are three. More would cost every viewer's list.
    pub const SOUNDS_MAX: u8 = 3;

    /// A further sound, counted from 0.
    pub const fn sound(number: u8) -> Option<Self> {
        if number < Self::SOUNDS_MAX { Some(Self(Self::FIRST_SOUND + number)) } else { None }
    }

    const FIRST_RUNG: u8 = 2 + Self::LAYERS_MAX;
    const FIRST_SOUND: u8 = Self::FIRST_RUNG + Self::RUNGS_MAX;

    pub fn is_layer(self) -> bool {
        (2..Self::FIRST_RUNG).contains(&self.0)
    }

    pub fn is_rung(self) -> bool {
        (Self::FIRST_RUNG..Self::FIRST_SOUND).contains(&self.0)
    }

    /// Counted as by `rung`.
    pub fn rung_number(self) -> Option<usize> {
        self.is_rung().then(|| usize::from(self.0 - Self::FIRST_RUNG))
    }

    pub fn is_further_sound(self) -> bool {
        self.0 >= Self::FIRST_SOUND
    }

    /// The picture or the sound itself, not a further one: what every rendition is made from.
    pub fn is_main(self) -> bool {
        self.0 < 2
    }

    /// The picture, a further one or a rung.
    pub fn is_picture(self) -> bool {
        self != Self::AUDIO && !self.is_further_sound()
    }

    /// For tables of one entry a track.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// How many there can be.
    pub const COUNT: usize = (Self::FIRST_SOUND + Self::SOUNDS_MAX) as usize;

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

    /// Whether viewers of `main` may be given this picture instead of it: of the same codec and shape, and no larger. Of a
    /// multitrack publisher nothing else tells a ladder from a screen and a camera.
    pub fn is_layer_of(&self, main: &Self) -> bool {
        let (Some((width, height)), Some((main_width, main_height))) = (self.size(), main.size()) else { return false };
        let [width, height, main_width, main_height] = [width, height, main_width, main_height].map(f64::from);
        let shape = width * main_height / (height * main_width);
        let pixels = width * height / (main_width * main_height);
        let same_codec = std::mem::discriminant(self) == std::mem::discriminant(main);
        same_codec && (shape - 1.0).abs() <= SHAPE_TOLERANCE && pixels <= 1.0 + SHAPE_TOLERANCE
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
    /// The sounds, where there are several.
    pub sounds: Vec<TrackId>,
}

/// One of several pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub track: TrackId,
    /// RFC 8851: letters, digits, `-` and `_`.
    pub rid: Arc<str>,
    /// It shows something else than the picture (a camera beside a screen): nobody is given it who did not choose it.
    pub apart: bool,
}

/// Encoders round the sides of a ladder's pictures: so much may their shapes differ.
const SHAPE_TOLERANCE: f64 = 0.02;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_track_is_of_one_kind() {
        for id in TrackId::ALL {
            let kinds = [id.is_main(), id.is_layer(), id.is_rung(), id.is_further_sound()];
            assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{id:?}");
            assert_eq!(id.is_picture(), id == TrackId::VIDEO || id.is_layer() || id.is_rung(), "{id:?}");
        }
        assert_eq!(TrackId::sound(TrackId::SOUNDS_MAX - 1).map(TrackId::index), Some(TrackId::COUNT - 1));
        assert_eq!(TrackId::sound(TrackId::SOUNDS_MAX), None);
    }

    #[test]
    fn a_layer_has_the_shape_of_the_picture_and_is_no_larger() {
        /// ffmpeg 9.0.2, libx264.
        const AVCC: &[u8] = b"\x01\x42\xc0\x0d\xff\xe1\x00\x17\x67\x42\xc0\x0d\xda\x05\x06\x7e\x7c\x04\x40\x00\x00\x03\x00\x40\
            \x00\x00\x0f\x03\xc5\x0a\xa8\x01\x00\x04\x68\xce\x0f\xc8";
        let known = h264::Parameters::parse(Bytes::from_static(AVCC)).unwrap();
        let of = |(width, height)| Parameters::H264(h264::Parameters { width, height, ..known.clone() });
        let check = |size, main, layer| assert_eq!(of(size).is_layer_of(&of(main)), layer, "{size:?} of {main:?}");
        check((640, 360), (1920, 1080), true);
        check((426, 240), (1920, 1080), true); // Rounded to even sides.
        check((1920, 1088), (1920, 1080), true);
        check((1920, 1080), (1920, 1080), true);
        check((2560, 1440), (1920, 1080), false);
        check((640, 480), (1920, 1080), false);
        check((1080, 1920), (1920, 1080), false);
        check((1280, 800), (1280, 720), false);
        let opus = Parameters::Opus(opus::Parameters { channels: 2 });
        assert!(!opus.is_layer_of(&of((16, 16))) && !of((16, 16)).is_layer_of(&opus));
    }
}
