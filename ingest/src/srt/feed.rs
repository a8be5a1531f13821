//! From a transport stream to Samples: what one publisher sends, its clocks, and what it lost.
//!
//! Pure. The bitstream is trusted. What is damaged is dropped and counted; a codec that is not taken ends the session, in
//! words for the streamer.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use media_core::{Announcement, Parameters, Sample, Timescale, Track, TrackId, codec::opus};

use super::{
    picture::{Picture, Wrong},
    sound::{self, Adts, Frames, opus_packets},
    ts::{Coding, Demuxer, Pes, Program, Unit},
};
use crate::{
    repair::{Clocks, Repairs, Told, VIDEO_TIMESCALE},
    rtmp::feed::{Dropped, Drops, Fed},
};

/// Ticks of a transport stream's clock in a millisecond.
const TICKS_PER_MS: i64 = 90;

/// Why a publisher cannot go on, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this server takes H.264 and HEVC video by SRT, but {0} was sent: choose an H.264 encoder")]
    Picture(&'static str),
    #[error("this server takes AAC and Opus audio by SRT, but {0} was sent: choose AAC")]
    Sound(&'static str),
    #[error("the video's parameters cannot be used. {0}. Restart the encoder or choose another")]
    PictureParameters(String),
    #[error("the audio's parameters cannot be used. {0}. Restart the encoder or choose another")]
    SoundParameters(String),
    #[error("its transport stream holds no audio and no video")]
    Nothing,
}

/// Calling order: `push`, then `poll_output` until it is `None`.
#[derive(Default)]
pub struct Feed {
    demuxer: Demuxer,
    units: Vec<Unit>,
    picture: Option<(Picture, Option<Arc<Track>>)>,
    sound: Option<Sound>,
    clocks: Clocks,
    announcement: Announcement,
    drops: Drops,
    outputs: VecDeque<Fed>,
}

/// The sound of a program.
struct Sound {
    coding: SoundCoding,
    track: Option<Arc<Track>>,
    /// Where the next frame begins, for those that have no time of their own.
    next: Option<i64>,
}

enum SoundCoding {
    Aac(Adts),
    Opus { channels: u8 },
}

impl Feed {
    pub fn repairs(&self) -> Repairs {
        self.clocks.repairs()
    }

    pub fn drops(&self) -> Drops {
        self.drops
    }

    pub fn poll_output(&mut self) -> Option<Fed> {
        self.outputs.pop_front()
    }

    pub fn push(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Refused> {
        let mut units = std::mem::take(&mut self.units);
        self.demuxer.push(bytes, &mut units);
        let fed = units.drain(..).try_for_each(|unit| self.unit(now, unit));
        self.units = units;
        fed
    }

    /// Nothing more comes: gives out the last picture.
    pub fn finish(&mut self, now: Instant) {
        let mut units = Vec::new();
        self.demuxer.finish(&mut units);
        // The session is over: there is nobody to be refused.
        let _ = units.into_iter().try_for_each(|unit| self.unit(now, unit));
    }

    fn unit(&mut self, now: Instant, unit: Unit) -> Result<(), Refused> {
        match unit {
            Unit::Program(program) => self.program(&program),
            Unit::Picture(pes) => self.picture(now, &pes),
            Unit::Sound(pes) => self.sound(now, &pes),
            Unit::Damaged => {
                self.drops.count(Dropped::Malformed);
                if let Some(Sound { coding: SoundCoding::Aac(adts), .. }) = &mut self.sound {
                    adts.forget();
                }
                Ok(())
            }
        }
    }

    fn program(&mut self, program: &Program) -> Result<(), Refused> {
        if let Some(name) = program.foreign_picture() {
            return Err(Refused::Picture(name));
        }
        if let Some(name) = program.foreign_sound() {
            return Err(Refused::Sound(name));
        }
        if program.picture().is_none() && program.sound().is_none() {
            return Err(Refused::Nothing);
        }
        (0..program.extra).for_each(|_| self.drops.count(Dropped::ExtraTrack));
        self.picture = program.picture().map(|coding| (Picture::new(coding), None));
        self.sound = program.sound().map(|coding| Sound { coding: coding.into(), track: None, next: None });
        // The map tells at once what the first header of each would tell later.
        self.announcement =
            Announcement { video: self.picture.is_some(), audio: self.sound.is_some(), ..Announcement::default() };
        self.outputs.push_back(Fed::Announced(self.announcement.clone()));
        Ok(())
    }

    fn picture(&mut self, received: Instant, pes: &Pes) -> Result<(), Refused> {
        let Some((picture, track)) = &mut self.picture else { return Ok(()) };
        let unit = match picture.take(&pes.payload) {
            Ok(unit) => unit,
            Err(Wrong::Parameters(words)) => return Err(Refused::PictureParameters(words)),
            Err(wrong) => {
                self.drops.count(if wrong == Wrong::Malformed { Dropped::Malformed } else { Dropped::NoConfiguration });
                return Ok(());
            }
        };
        if unit.anew || track.is_none() {
            let parameters = picture.parameters().cloned();
            *track = parameters.map(|parameters| Track { id: TrackId::VIDEO, timescale: VIDEO_TIMESCALE, parameters }.into());
        }
        let Some(track) = track.clone() else { return Ok(()) };
        let stamp = self.clocks.picture_after(track.id, told(pes.dts), pes.pts - pes.dts);
        let (payload, keyframe) = (unit.payload, unit.keyframe);
        let sample = Sample { track, pts: stamp.pts, dts: stamp.dts, duration: None, keyframe, payload, received };
        self.outputs.push_back(Fed::Sample(sample));
        Ok(())
    }

    fn sound(&mut self, received: Instant, pes: &Pes) -> Result<(), Refused> {
        let Some(sound) = &mut self.sound else { return Ok(()) };
        let Frames { frames, damaged } = sound.take(pes)?;
        if damaged {
            self.drops.count(Dropped::Malformed);
        }
        let Some(track) = sound.track.clone() else { return Ok(()) };
        let mut at = sound.next.filter(|_| frames.first().is_some_and(|frame| frame.earlier)).unwrap_or(pes.pts);
        let mut began_earlier = true;
        for frame in frames {
            // The packet's time is that of the first frame that begins in it.
            if began_earlier && !frame.earlier {
                (began_earlier, at) = (false, pes.pts);
            }
            let Some(length) = sound::length(&track.parameters, &frame.payload) else {
                self.drops.count(Dropped::Malformed);
                continue;
            };
            let begins = self.clocks.audio(TrackId::AUDIO, told(at), track.timescale, length);
            at += i64::from(length) * 90_000 / i64::from(track.timescale.ticks_per_second());
            let Some(begins) = begins else { continue };
            let (track, duration, payload) = (Arc::clone(&track), Some(length), frame.payload);
            let sample = Sample { track, pts: begins, dts: begins, duration, keyframe: true, payload, received };
            self.outputs.push_back(Fed::Sample(sample));
        }
        sound.next = Some(at);
        Ok(())
    }
}

impl From<Coding> for SoundCoding {
    fn from(coding: Coding) -> Self {
        match coding {
            Coding::Opus { channels } => Self::Opus { channels },
            _ => Self::Aac(Adts::default()),
        }
    }
}

impl Sound {
    fn take(&mut self, pes: &Pes) -> Result<Frames, Refused> {
        let (frames, parameters) = match &mut self.coding {
            SoundCoding::Opus { channels } => {
                (opus_packets(pes.payload.clone()), Some(Parameters::Opus(opus::Parameters { channels: *channels })))
            }
            SoundCoding::Aac(adts) => {
                let frames = adts.take(&pes.payload).map_err(|error| Refused::SoundParameters(error.to_string()))?;
                (frames, adts.parameters().cloned().map(Parameters::Aac))
            }
        };
        if let Some(parameters) = parameters
            && self.track.as_ref().is_none_or(|track| track.parameters != parameters)
        {
            let rate = if let Parameters::Aac(aac) = &parameters { aac.sample_rate } else { opus::SAMPLE_RATE };
            let timescale = Timescale::new(rate).ok_or_else(|| Refused::SoundParameters("It tells no sample rate".into()))?;
            self.track = Some(Arc::new(Track { id: TrackId::AUDIO, timescale, parameters }));
        }
        Ok(frames)
    }
}

/// Ticks of 90 kHz as the clocks take them: milliseconds modulo 2^32, and what is left as nanoseconds, rounded up so that it
/// becomes the same tick again.
fn told(ticks: i64) -> Told {
    let (ms, rest) = (ticks.div_euclid(TICKS_PER_MS), ticks.rem_euclid(TICKS_PER_MS));
    Told { ms: ms as u32, nanos: ((rest * 1_000_000 + TICKS_PER_MS - 1) / TICKS_PER_MS) as u32 }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
