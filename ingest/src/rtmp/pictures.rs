//! The picture of one publisher, and the further tracks of a multitrack publisher: layers of it, or pictures apart.
//!
//! Pure. Track 0 is the picture (veovera v2: the one of highest priority); further ones are numbered in the order in
//! which they are described. One that can stand for the picture is a layer of it; any other, such as a camera beside a
//! screen, is apart.

use std::{fmt::Display, sync::Arc};

use bytes::Bytes;
use media_core::{
    Layer, Parameters, Track, TrackId,
    codec::{av1, h264, hevc},
};

use super::{feed::Dropped, tag::Coding};
use crate::repair::VIDEO_TIMESCALE;

impl Coding {
    fn parse(self, record: Bytes) -> Result<Parameters, String> {
        match self {
            Self::H264 => h264::Parameters::parse(record).map(Parameters::H264).map_err(words),
            Self::Hevc => hevc::Parameters::parse(record).map(Parameters::Hevc).map_err(words),
            Self::Av1 => av1::Parameters::parse(record).map(Parameters::Av1).map_err(words),
        }
    }

    fn of(parameters: &Parameters) -> Option<Self> {
        match parameters {
            Parameters::H264(_) => Some(Self::H264),
            Parameters::Hevc(_) => Some(Self::Hevc),
            Parameters::Av1(_) => Some(Self::Av1),
            Parameters::Aac(_) | Parameters::Opus(_) => None,
        }
    }

    /// A tag's access unit as a Sample holds it; `None` where its lengths contradict it.
    pub fn access_unit(self, payload: Bytes) -> Option<Bytes> {
        match self {
            Self::H264 | Self::Hevc => h264::is_well_formed(&payload).then_some(payload),
            Self::Av1 => Some(av1::without_delimiter(payload)).filter(|payload| av1::is_well_formed(payload)),
        }
    }

    /// Tags lie about it; the bitstream does not.
    pub fn is_keyframe(self, payload: &[u8]) -> bool {
        match self {
            Self::H264 => h264::is_keyframe(payload),
            Self::Hevc => hevc::is_keyframe(payload),
            Self::Av1 => av1::is_keyframe(payload),
        }
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// What a track's description came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Described {
    /// Encoders repeat it.
    Known,
    Anew,
    /// A stream has no room for one more.
    TooMany,
}

#[derive(Default)]
pub struct Pictures {
    /// Those that were described, in that order.
    known: Vec<Picture>,
}

struct Picture {
    /// The publisher's.
    number: u8,
    /// The record that described it last: repeated, it takes back nothing that a keyframe has brought since.
    told: Bytes,
    track: Arc<Track>,
}

impl Pictures {
    /// Whether the picture itself was described.
    pub fn has_main(&self) -> bool {
        self.main().is_some()
    }

    pub fn describe(&mut self, number: u8, coding: Coding, record: Bytes) -> Result<Described, String> {
        let held = self.known.iter().position(|picture| picture.number == number);
        if held.is_some_and(|at| self.known[at].coding() == Some(coding) && self.known[at].told == record) {
            return Ok(Described::Known);
        }
        let Some(id) = held.map_or_else(|| self.free_id(number), |at| Some(self.known[at].track.id)) else {
            return Ok(Described::TooMany);
        };
        let track = Arc::new(Track { id, timescale: VIDEO_TIMESCALE, parameters: coding.parse(record.clone())? });
        let picture = Picture { number, told: record, track };
        match held {
            Some(at) => self.known[at] = picture,
            None => self.known.push(picture),
        }
        Ok(Described::Anew)
    }

    /// A keyframe may bring what describes it, without a word in the container: then that holds.
    pub fn renew(&mut self, id: TrackId, keyframe: &[u8]) -> Option<Arc<Track>> {
        let picture = self.known.iter_mut().find(|picture| picture.track.id == id)?;
        let renewed = match &picture.track.parameters {
            Parameters::H264(known) => known.renewed(keyframe).map(Parameters::H264),
            Parameters::Hevc(known) => known.renewed(keyframe).map(Parameters::Hevc),
            Parameters::Av1(known) => known.renewed(keyframe).map(Parameters::Av1),
            Parameters::Aac(_) | Parameters::Opus(_) => None,
        };
        let track = Track { id, timescale: VIDEO_TIMESCALE, parameters: renewed? };
        picture.track = Arc::new(track);
        Some(Arc::clone(&picture.track))
    }

    fn free_id(&self, number: u8) -> Option<TrackId> {
        if number == 0 {
            return Some(TrackId::VIDEO);
        }
        let layers = self.known.iter().filter(|picture| picture.number != 0).count();
        u8::try_from(layers).ok().and_then(TrackId::layer)
    }

    /// The track that an access unit of this coding belongs to, once it was described.
    pub fn track(&self, number: u8, coding: Coding) -> Option<&Arc<Track>> {
        let picture = self.known.iter().find(|picture| picture.number == number)?;
        (picture.coding() == Some(coding) && self.has_main()).then_some(&picture.track)
    }

    /// Why an access unit of this track belongs to none.
    pub fn reason_without_track(&self, number: u8) -> Dropped {
        let is_known = self.known.iter().any(|picture| picture.number == number);
        if is_known || self.free_id(number).is_some() { Dropped::NoConfiguration } else { Dropped::ExtraTrack }
    }

    /// As the stream's readers are told of them: none where there is only one.
    pub fn layers(&self) -> Vec<Layer> {
        let Some(main) = self.main().filter(|_| self.known.len() > 1) else { return Vec::new() };
        let layer = |picture: &Picture| Layer {
            track: picture.track.id,
            rid: format!("track-{}", picture.number).into(),
            apart: !picture.track.parameters.is_layer_of(&main.track.parameters),
        };
        let mut layers: Vec<_> = self.known.iter().map(layer).collect();
        layers.sort_by_key(|layer| layer.track);
        layers
    }

    fn main(&self) -> Option<&Picture> {
        self.known.iter().find(|picture| picture.number == 0)
    }
}

impl Picture {
    fn coding(&self) -> Option<Coding> {
        Coding::of(&self.track.parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ffmpeg 9.0.2, libx264 and libsvtav1, 320x180.
    const AVCC: &[u8] =
        b"\x01\x42\xc0\x0d\xff\xe1\x00\x17\x67\x42\xc0\x0d\xda\x05\x06\x7e\x7c\x04\x40\x00\x00\x03\x00\x40\x00\x00\x0f\
        \x03\xc5\x0a\xa8\x01\x00\x04\x68\xce\x0f\xc8";
    const AV1C: &[u8] = b"\x81\x00\x0c\x00\x0a\x0b\x02\x00\x00\x05\x21\xe7\xf6\x60\x17\xc0\x02";

    fn described(pictures: &mut Pictures, number: u8, coding: Coding) -> Described {
        let record = if coding == Coding::Av1 { AV1C } else { AVCC };
        pictures.describe(number, coding, Bytes::from_static(record)).unwrap()
    }

    fn told(pictures: &Pictures) -> Vec<(usize, String)> {
        pictures.layers().iter().map(|layer| (layer.track.index(), layer.rid.to_string())).collect()
    }

    #[test]
    fn further_tracks_are_layers() {
        let mut pictures = Pictures::default();
        let index = |pictures: &Pictures, number| pictures.track(number, Coding::H264).map(|track| track.id.index());
        assert_eq!(described(&mut pictures, 3, Coding::H264), Described::Anew);
        assert_eq!((index(&pictures, 3), pictures.has_main()), (None, false), "a layer of nothing");
        assert_eq!(described(&mut pictures, 0, Coding::H264), Described::Anew);
        assert_eq!(described(&mut pictures, 0, Coding::H264), Described::Known);
        assert_eq!(described(&mut pictures, 200, Coding::H264), Described::Anew);
        assert_eq!([0, 3, 200, 1].map(|number| index(&pictures, number)), [Some(0), Some(2), Some(3), None]);
        assert_eq!(told(&pictures), [(0, "track-0".into()), (2, "track-3".into()), (3, "track-200".into())]);
        (10..15).for_each(|number| assert_eq!(described(&mut pictures, number, Coding::H264), Described::Anew));
        assert_eq!(described(&mut pictures, 15, Coding::H264), Described::TooMany);
    }

    #[test]
    fn what_cannot_stand_for_the_picture_is_apart() {
        let mut pictures = Pictures::default();
        let apart = |pictures: &Pictures| pictures.layers().iter().map(|layer| layer.apart).collect::<Vec<_>>();
        described(&mut pictures, 0, Coding::H264);
        described(&mut pictures, 1, Coding::Av1);
        assert!(pictures.track(1, Coding::Av1).is_some() && pictures.track(0, Coding::Av1).is_none());
        assert_eq!(apart(&pictures), [false, true]);
        assert_eq!(pictures.reason_without_track(1), Dropped::NoConfiguration, "of a codec that it was not described with");
        assert_eq!(described(&mut pictures, 0, Coding::Av1), Described::Anew);
        assert!(pictures.track(1, Coding::Av1).is_some() && pictures.track(0, Coding::H264).is_none());
        assert_eq!(apart(&pictures), [false, false]);
    }

    /// The same set twice, once of another level; the record is repeated, as encoders do.
    #[test]
    fn a_keyframe_describes_the_picture_better_than_its_record() {
        let mut pictures = Pictures::default();
        described(&mut pictures, 0, Coding::H264);
        let unit = |sps: &[u8]| [&[0, 0, 0, sps.len() as u8][..], sps, b"\0\0\0\x02\x65\x88"].concat();
        let known = &AVCC[8..31];
        assert_eq!(pictures.renew(TrackId::VIDEO, &unit(known)), None, "what is known");
        let mut level_20 = known.to_vec();
        level_20[3] = 0x14;
        let renewed = pictures.renew(TrackId::VIDEO, &unit(&level_20)).expect("another level");
        let Parameters::H264(parameters) = &renewed.parameters else { panic!("{renewed:?}") };
        assert_eq!((parameters.codec_string(), parameters.pps().len()), ("avc1.42c014".into(), 1));
        assert_eq!(pictures.renew(TrackId::VIDEO, &unit(&level_20)), None, "known by now");
        assert_eq!(described(&mut pictures, 0, Coding::H264), Described::Known);
        assert_eq!(pictures.track(0, Coding::H264), Some(&renewed));
        assert_eq!(pictures.renew(TrackId::VIDEO, &unit(b"\x67\x42")), None, "what cannot be read changes nothing");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let mut pictures = Pictures::default();
        let error = pictures.describe(0, Coding::Hevc, Bytes::from_static(b"\x01")).unwrap_err();
        assert!(error.starts_with("HEVC: "), "{error}");
        assert!(!pictures.has_main());
    }
}
