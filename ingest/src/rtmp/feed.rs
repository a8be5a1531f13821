//! From tags to Samples: what one publisher has declared, its clocks, and what it lost.
//!
//! Pure. The bitstream is trusted, metadata only hints. A broken access unit is dropped and
//! counted; a codec that is not taken ends the session, in words for the streamer.

use std::{fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use media_core::{
    Announcement, Parameters, Sample, Timescale, Track, TrackId,
    codec::{aac, h264},
};

use super::{command, message::Message, tag};
use crate::repair::{Clocks, Repairs, VIDEO_TIMESCALE};

/// Why a message made no Sample. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its own lengths contradict it, or it is empty.
    Malformed,
    /// It came before its sequence header.
    NoConfiguration,
    /// It belongs to a second track of its kind.
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
    Nothing,
    Sample(Sample),
    /// A track was announced, or metadata said more.
    Announced(Announcement),
}

/// Why a publisher cannot go on, and what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error(
        "This server takes H.264 video, but {0} was sent. In OBS: Settings, Output, Streaming, Video Encoder: choose an H.264 encoder (x264, or a hardware one named H.264)."
    )]
    VideoCodec(&'static str),
    #[error(
        "This server takes AAC audio, but {0} was sent. In OBS: Settings, Output, Streaming, Audio Encoder: choose one named AAC."
    )]
    AudioCodec(&'static str),
    #[error("The encoder's video header cannot be used. {0}. Restart the encoder or choose another H.264 encoder.")]
    VideoHeader(h264::Error),
    #[error("The encoder's audio header cannot be used. {0}. Restart the encoder or choose another AAC encoder.")]
    AudioHeader(aac::Error),
}

#[derive(Default)]
pub struct Feed {
    clocks: Clocks,
    video: Option<Arc<Track>>,
    audio: Option<AudioTrack>,
    announcement: Announcement,
    drops: Drops,
}

struct AudioTrack {
    track: Arc<Track>,
    frame_length: u32,
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

    /// Takes what metadata says as hints. It never takes a track back that a header announced.
    pub fn metadata(&mut self, payload: &[u8]) -> Fed {
        match command::read_metadata(payload) {
            Ok(Some(said)) => {
                let video = said.video || self.video.is_some();
                let audio = said.audio || self.audio.is_some();
                self.announce(Announcement { video, audio, ..said })
            }
            Ok(None) => Fed::Nothing,
            Err(_) => self.dropped(Dropped::Metadata),
        }
    }

    pub fn video(&mut self, now: Instant, message: &Message) -> Result<Fed, Refused> {
        Ok(match tag::video(&message.payload) {
            tag::Video::Configuration(record) => self.video_header(record)?,
            tag::Video::AccessUnit { offset_ms, payload } => self.access_unit(now, message.timestamp, offset_ms, payload),
            tag::Video::Nothing => Fed::Nothing,
            tag::Video::ExtraTrack => self.dropped(Dropped::ExtraTrack),
            tag::Video::Malformed => self.dropped(Dropped::Malformed),
            tag::Video::Foreign(name) => return Err(Refused::VideoCodec(name)),
        })
    }

    pub fn audio(&mut self, now: Instant, message: &Message) -> Result<Fed, Refused> {
        Ok(match tag::audio(&message.payload) {
            tag::Audio::Configuration(config) => self.audio_header(config)?,
            tag::Audio::Frame(payload) => self.frame(now, message.timestamp, payload),
            tag::Audio::Nothing => Fed::Nothing,
            tag::Audio::ExtraTrack => self.dropped(Dropped::ExtraTrack),
            tag::Audio::Malformed => self.dropped(Dropped::Malformed),
            tag::Audio::Foreign(name) => return Err(Refused::AudioCodec(name)),
        })
    }

    fn video_header(&mut self, record: Bytes) -> Result<Fed, Refused> {
        let held = self.video.as_ref().map(|track| &track.parameters);
        if matches!(held, Some(Parameters::H264(p)) if p.record == record) {
            return Ok(Fed::Nothing); // Encoders repeat it.
        }
        let parameters = Parameters::H264(h264::Parameters::parse(record).map_err(Refused::VideoHeader)?);
        self.video = Some(Arc::new(Track { id: TrackId::VIDEO, timescale: VIDEO_TIMESCALE, parameters }));
        Ok(self.announce(Announcement { video: true, ..self.announcement.clone() }))
    }

    fn audio_header(&mut self, config: Bytes) -> Result<Fed, Refused> {
        let held = self.audio.as_ref().map(|audio| &audio.track.parameters);
        if matches!(held, Some(Parameters::Aac(p)) if p.config == config) {
            return Ok(Fed::Nothing);
        }
        let parameters = aac::Parameters::parse(config).map_err(Refused::AudioHeader)?;
        let timescale = Timescale::new(parameters.sample_rate).ok_or(Refused::AudioHeader(aac::Error::SampleRate(0)))?;
        let frame_length = parameters.frame_length;
        let track = Arc::new(Track { id: TrackId::AUDIO, timescale, parameters: Parameters::Aac(parameters) });
        self.audio = Some(AudioTrack { track, frame_length });
        Ok(self.announce(Announcement { audio: true, ..self.announcement.clone() }))
    }

    /// An announcement that says nothing new is none.
    fn announce(&mut self, announcement: Announcement) -> Fed {
        if announcement == self.announcement {
            return Fed::Nothing;
        }
        self.announcement = announcement;
        Fed::Announced(self.announcement.clone())
    }

    fn access_unit(&mut self, now: Instant, timestamp: u32, offset_ms: i32, payload: Bytes) -> Fed {
        let Some(track) = self.video.clone() else { return self.dropped(Dropped::NoConfiguration) };
        if !h264::is_well_formed(&payload) {
            return self.dropped(Dropped::Malformed);
        }
        let stamp = self.clocks.video(timestamp, offset_ms);
        let keyframe = h264::is_idr(&payload);
        Fed::Sample(Sample { track, pts: stamp.pts, dts: stamp.dts, duration: None, keyframe, payload, received: now })
    }

    fn frame(&mut self, now: Instant, timestamp: u32, payload: Bytes) -> Fed {
        let Some(audio) = &self.audio else { return self.dropped(Dropped::NoConfiguration) };
        if payload.is_empty() {
            return self.dropped(Dropped::Malformed);
        }
        let (track, frame_length) = (Arc::clone(&audio.track), audio.frame_length);
        let Some(begins) = self.clocks.audio(timestamp, track.timescale, frame_length) else { return Fed::Nothing };
        let duration = Some(frame_length);
        Fed::Sample(Sample { track, pts: begins, dts: begins, duration, keyframe: true, payload, received: now })
    }

    fn dropped(&mut self, dropped: Dropped) -> Fed {
        self.drops.count(dropped);
        Fed::Nothing
    }
}
