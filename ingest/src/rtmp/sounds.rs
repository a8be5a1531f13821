//! The sound of one publisher, and the further ones of a multitrack publisher.
//!
//! Pure. Track 0 is the sound (veovera v2: the one of highest priority); further ones are tracks of their own, in the order
//! in which they are described, each of any codec that is taken.

use std::sync::Arc;

use bytes::Bytes;
use media_core::{
    Parameters, Timescale, Track, TrackId,
    codec::{aac, opus},
};

use super::{feed::Dropped, pictures::Described, tag::SoundCoding};

impl SoundCoding {
    fn parse(self, config: Bytes) -> Result<Parameters, String> {
        match self {
            Self::Aac => aac::Parameters::parse(config).map(Parameters::Aac).map_err(|error| error.to_string()),
            Self::Opus => opus::Parameters::parse(&config).map(Parameters::Opus).map_err(|error| error.to_string()),
        }
    }

    fn is_of(self, parameters: &Parameters) -> bool {
        matches!((self, parameters), (Self::Aac, Parameters::Aac(_)) | (Self::Opus, Parameters::Opus(_)))
    }
}

#[derive(Default)]
pub struct Sounds {
    /// Those that were described, in that order, with the publisher's numbers.
    known: Vec<(u8, Arc<Track>)>,
}

impl Sounds {
    /// Whether the sound itself was described.
    pub fn has_main(&self) -> bool {
        self.find(0).is_some()
    }

    pub fn describe(&mut self, number: u8, coding: SoundCoding, config: Bytes) -> Result<Described, String> {
        let parameters = coding.parse(config)?;
        let held = self.find(number);
        if held.is_some_and(|at| self.known[at].1.parameters == parameters) {
            return Ok(Described::Known);
        }
        let Some(id) = held.map_or_else(|| self.free_id(number), |at| Some(self.known[at].1.id)) else {
            return Ok(Described::TooMany);
        };
        let timescale = timescale(&parameters).ok_or("It tells no sample rate")?;
        let track = Arc::new(Track { id, timescale, parameters });
        match held {
            Some(at) => self.known[at].1 = track,
            None => self.known.push((number, track)),
        }
        Ok(Described::Anew)
    }

    /// The track that a frame of this coding belongs to, once it was described.
    pub fn track(&self, number: u8, coding: SoundCoding) -> Option<&Arc<Track>> {
        self.find(number).map(|at| &self.known[at].1).filter(|track| coding.is_of(&track.parameters))
    }

    /// Why a frame of this track belongs to none.
    pub fn reason_without_track(&self, number: u8) -> Dropped {
        let has_room = self.find(number).is_some() || self.free_id(number).is_some();
        if has_room { Dropped::NoConfiguration } else { Dropped::ExtraTrack }
    }

    /// As the stream's readers are told of them: none where there is only one.
    pub fn tracks(&self) -> Vec<TrackId> {
        let mut tracks: Vec<_> = self.known.iter().map(|(_, track)| track.id).collect();
        tracks.sort();
        if tracks.len() < 2 { Vec::new() } else { tracks }
    }

    fn find(&self, number: u8) -> Option<usize> {
        self.known.iter().position(|(known, _)| *known == number)
    }

    fn free_id(&self, number: u8) -> Option<TrackId> {
        if number == 0 {
            return Some(TrackId::AUDIO);
        }
        let further = self.known.iter().filter(|(known, _)| *known != 0).count();
        u8::try_from(further).ok().and_then(TrackId::sound)
    }
}

fn timescale(parameters: &Parameters) -> Option<Timescale> {
    match parameters {
        Parameters::Aac(p) => Timescale::new(p.sample_rate),
        _ => Timescale::new(opus::SAMPLE_RATE),
    }
}

/// In samples; `None` of what is no frame. An Opus packet tells its own.
pub fn frame_length(parameters: &Parameters, payload: &[u8]) -> Option<u32> {
    match parameters {
        Parameters::Aac(p) => (!payload.is_empty()).then_some(p.frame_length),
        _ => opus::packet_samples(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AAC-LC, 48 kHz, stereo and mono; Opus' identification header, stereo.
    const STEREO: &[u8] = &[0x11, 0x90];
    const MONO: &[u8] = &[0x11, 0x88];
    const OPUS: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";

    #[test]
    fn each_track_is_a_sound_of_its_own() {
        let mut sounds = Sounds::default();
        let mut describe = |number, coding, config: &'static [u8]| {
            let described = sounds.describe(number, coding, Bytes::from_static(config)).unwrap();
            (described, sounds.tracks().iter().map(|id| id.index()).collect::<Vec<_>>())
        };
        let (aac, opus) = (SoundCoding::Aac, SoundCoding::Opus);
        let [first, second, third] = [0, 1, 2].map(|number| TrackId::sound(number).unwrap().index());
        assert_eq!(describe(7, aac, STEREO), (Described::Anew, vec![]), "one is no choice");
        assert_eq!(describe(0, aac, STEREO), (Described::Anew, vec![1, first]));
        assert_eq!(describe(0, aac, STEREO).0, Described::Known);
        assert_eq!(describe(1, opus, OPUS), (Described::Anew, vec![1, first, second]));
        assert_eq!(describe(7, aac, MONO), (Described::Anew, vec![1, first, second]));
        assert_eq!(describe(2, aac, MONO), (Described::Anew, vec![1, first, second, third]));
        assert_eq!(describe(3, aac, MONO).0, Described::TooMany);
        let index = |number, coding| sounds.track(number, coding).map(|track| track.id.index());
        let found = [(0, aac), (7, aac), (1, opus), (1, aac), (3, aac)].map(|(number, coding)| index(number, coding));
        assert_eq!(found, [Some(1), Some(first), Some(second), None, None]);
        let reasons = [1, 3].map(|number| sounds.reason_without_track(number));
        assert_eq!(reasons, [Dropped::NoConfiguration, Dropped::ExtraTrack]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let mut sounds = Sounds::default();
        assert!(sounds.describe(0, SoundCoding::Opus, Bytes::from_static(b"Opus")).is_err());
        assert!(!sounds.has_main());
    }
}
