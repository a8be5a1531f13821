//! From tags to Samples: what one publisher has declared, its clocks, and what it lost.
//!
//! Pure. The bitstream is trusted, metadata only hints. A broken access unit is dropped and
//! counted; a codec that is not taken ends the session, in words for the streamer.

use std::{collections::VecDeque, fmt, time::Instant};

use bytes::Bytes;
use media_core::{Announcement, Sample};

use super::{
    command,
    message::Message,
    pictures::{Described, Pictures},
    sounds::{Sounds, frame_length},
    tag::{self, Audio, Coding, SoundCoding, Tag, Video},
};
use crate::repair::{Clocks, Repairs, Told};

/// Why a message made no Sample. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its own lengths contradict it, or it is empty.
    Malformed,
    /// It came before its sequence header.
    NoConfiguration,
    /// It belongs to a further picture or sound than a stream may have, or of a codec that is not taken.
    ExtraTrack,
    /// It came before `publish`.
    NotPublishing,
    /// onMetaData that cannot be read: hints are missing, nothing else.
    Metadata,
}

impl Dropped {
    pub const ALL: [Self; 5] = [Self::Malformed, Self::NoConfiguration, Self::ExtraTrack, Self::NotPublishing, Self::Metadata];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoConfiguration => "no_configuration",
            Self::ExtraTrack => "extra_track",
            Self::NotPublishing => "not_publishing",
            Self::Metadata => "metadata",
        }
    }
}

/// How often each happened.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops([u64; Dropped::ALL.len()]);

impl Drops {
    pub fn count(&mut self, dropped: Dropped) {
        self.0[dropped as usize] += 1;
    }

    pub fn of(&self, dropped: Dropped) -> u64 {
        self.0[dropped as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = Dropped::ALL.into_iter().map(|d| (d.as_str(), self.of(d))).filter(|(_, count)| *count > 0);
        f.debug_map().entries(entries).finish()
    }
}

/// What a message came to.
#[derive(Debug)]
pub enum Fed {
    Sample(Sample),
    /// A track was announced, or metadata said more.
    Announced(Announcement),
}

/// Why a publisher cannot go on, and what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error(
        "This server takes H.264, HEVC and AV1 video, but {0} was sent. In OBS: Settings, Output, Streaming, Video Encoder: choose an H.264 encoder (x264, or a hardware one named H.264)."
    )]
    VideoCodec(&'static str),
    #[error(
        "This server takes AAC and Opus audio, but {0} was sent. In OBS: Settings, Output, Streaming, Audio Encoder: choose one named AAC."
    )]
    AudioCodec(&'static str),
    #[error("The encoder's video header cannot be used. {0}. Restart the encoder or choose another video encoder.")]
    VideoHeader(String),
    #[error("The encoder's audio header cannot be used. {0}. Restart the encoder or choose another audio encoder.")]
    AudioHeader(String),
}

/// Calling order: one of `video`, `audio` and `metadata`, then `poll_output` until it is `None`.
#[derive(Default)]
pub struct Feed {
    clocks: Clocks,
    pictures: Pictures,
    sounds: Sounds,
    announcement: Announcement,
    drops: Drops,
    outputs: VecDeque<Fed>,
}

impl Feed {
    pub fn repairs(&self) -> Repairs {
        self.clocks.repairs()
    }

    pub fn drops(&self) -> Drops {
        self.drops
    }

    pub fn count_drop(&mut self, dropped: Dropped) {
        self.drops.count(dropped);
    }

    /// What the message came to.
    pub fn poll_output(&mut self) -> Option<Fed> {
        self.outputs.pop_front()
    }

    /// Takes what metadata says as hints. It never takes a track back that a header announced.
    pub fn metadata(&mut self, payload: &[u8]) {
        match command::read_metadata(payload) {
            Ok(Some(said)) => {
                let video = said.video || self.pictures.has_main();
                let audio = said.audio || self.sounds.has_main();
                let (layers, sounds) = (self.pictures.layers(), self.sounds.tracks());
                self.announce(Announcement { video, audio, layers, sounds, ..said });
            }
            Ok(None) => {}
            Err(_) => self.drops.count(Dropped::Metadata),
        }
    }

    pub fn video(&mut self, now: Instant, message: &Message) -> Result<(), Refused> {
        let Tag { nanos, tracks } = tag::video(&message.payload);
        let arrival = Arrival::new(now, message, nanos);
        for (track, content) in tracks {
            match content {
                Video::Configuration { coding, record } => self.video_header(track, coding, record)?,
                Video::AccessUnit { coding, offset_ms, payload } => self.access_unit(arrival, track, coding, offset_ms, payload),
                Video::Nothing => {}
                Video::Malformed => self.drops.count(Dropped::Malformed),
                Video::Foreign(name) if track == 0 => return Err(Refused::VideoCodec(name)),
                Video::Foreign(_) => self.drops.count(Dropped::ExtraTrack),
            }
        }
        Ok(())
    }

    pub fn audio(&mut self, now: Instant, message: &Message) -> Result<(), Refused> {
        let Tag { nanos, tracks } = tag::audio(&message.payload);
        let arrival = Arrival::new(now, message, nanos);
        for (track, content) in tracks {
            match content {
                Audio::Configuration { coding, config } => self.audio_header(track, coding, config)?,
                Audio::Frame { coding, payload } => self.frame(arrival, track, coding, payload),
                Audio::Nothing => {}
                Audio::Malformed => self.drops.count(Dropped::Malformed),
                Audio::Foreign(name) if track == 0 => return Err(Refused::AudioCodec(name)),
                Audio::Foreign(_) => self.drops.count(Dropped::ExtraTrack),
            }
        }
        Ok(())
    }

    /// A further one that cannot be described is no reason to refuse the picture.
    fn video_header(&mut self, track: u8, coding: Coding, record: Bytes) -> Result<(), Refused> {
        match self.pictures.describe(track, coding, record) {
            Ok(Described::Known) => {}
            Ok(Described::Anew) => {
                let video = self.announcement.video || self.pictures.has_main();
                let layers = self.pictures.layers();
                self.announce(Announcement { video, layers, ..self.announcement.clone() });
            }
            Ok(Described::TooMany) => self.drops.count(Dropped::ExtraTrack),
            Err(words) if track == 0 => return Err(Refused::VideoHeader(words)),
            Err(_) => self.drops.count(Dropped::Malformed),
        }
        Ok(())
    }

    fn audio_header(&mut self, track: u8, coding: SoundCoding, config: Bytes) -> Result<(), Refused> {
        match self.sounds.describe(track, coding, config) {
            Ok(Described::Known) => {}
            Ok(Described::Anew) => {
                let audio = self.announcement.audio || self.sounds.has_main();
                let sounds = self.sounds.tracks();
                self.announce(Announcement { audio, sounds, ..self.announcement.clone() });
            }
            Ok(Described::TooMany) => self.drops.count(Dropped::ExtraTrack),
            Err(words) if track == 0 => return Err(Refused::AudioHeader(words)),
            Err(_) => self.drops.count(Dropped::Malformed),
        }
        Ok(())
    }

    /// An announcement that says nothing new is none.
    fn announce(&mut self, announcement: Announcement) {
        if announcement != self.announcement {
            self.announcement = announcement;
            self.outputs.push_back(Fed::Announced(self.announcement.clone()));
        }
    }

    fn access_unit(&mut self, arrival: Arrival, number: u8, coding: Coding, offset_ms: i32, payload: Bytes) {
        let Some(track) = self.pictures.track(number, coding).cloned() else {
            return self.drops.count(self.pictures.reason_without_track(number));
        };
        let Some(payload) = coding.access_unit(payload) else { return self.drops.count(Dropped::Malformed) };
        let (payload, received) = (arrival.own(payload), arrival.now);
        let stamp = self.clocks.picture(track.id, arrival.told, offset_ms);
        let keyframe = coding.is_keyframe(&payload);
        let renewed = if keyframe { self.pictures.renew(track.id, &payload) } else { None };
        if renewed.is_some() {
            // Its size may be another: whether a further picture is a layer follows from it.
            self.announce(Announcement { layers: self.pictures.layers(), ..self.announcement.clone() });
        }
        let track = renewed.unwrap_or(track);
        let sample = Sample { track, pts: stamp.pts, dts: stamp.dts, duration: None, keyframe, payload, received };
        self.outputs.push_back(Fed::Sample(sample));
    }

    fn frame(&mut self, arrival: Arrival, number: u8, coding: SoundCoding, payload: Bytes) {
        let Some(track) = self.sounds.track(number, coding).cloned() else {
            return self.drops.count(self.sounds.reason_without_track(number));
        };
        let Some(length) = frame_length(&track.parameters, &payload) else { return self.drops.count(Dropped::Malformed) };
        let Some(begins) = self.clocks.audio(track.id, arrival.told, track.timescale, length) else { return };
        let (payload, received, duration) = (arrival.own(payload), arrival.now, Some(length));
        let sample = Sample { track, pts: begins, dts: begins, duration, keyframe: true, payload, received };
        self.outputs.push_back(Fed::Sample(sample));
    }
}

/// What is the same for all that one message holds.
#[derive(Clone, Copy)]
struct Arrival {
    now: Instant,
    told: Told,
    bytes: usize,
}

impl Arrival {
    fn new(now: Instant, message: &Message, nanos: u32) -> Self {
        Self { now, told: Told { ms: message.timestamp, nanos }, bytes: message.payload.len() }
    }

    /// A slice keeps its whole message in memory. What is less than half of it is copied, so that a window weighs little
    /// more than the Samples that it counts, whatever a peer puts beside them.
    fn own(self, payload: Bytes) -> Bytes {
        if payload.len() < self.bytes / 2 { Bytes::copy_from_slice(&payload) } else { payload }
    }
}
