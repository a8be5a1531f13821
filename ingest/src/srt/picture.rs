//! One access unit of H.264 or HEVC out of a byte stream (Annex B of either) to what a Sample holds: NAL units behind
//! their lengths, and the sets of parameters apart.
//!
//! Pure. Sets are in force from the keyframe on that they stand before. Set that are not known yet and stand elsewhere stay
//! in the payload, where decoders look for them too.

use bytes::{BufMut, Bytes, BytesMut};
use media_core::{
    Parameters,
    codec::{h264, hevc},
};

use super::ts::Coding;

/// Sets of one access unit that are looked at; encoders write one to four.
const SETS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nal {
    /// VPS, SPS, PPS: the place in `Sets`.
    Set(usize),
    /// Delimiters, ends, filler: a container has no use for them.
    Void,
    Kept,
}

/// Of video, sequence and picture parameters.
type Sets = [Vec<Bytes>; 3];

pub struct Picture {
    coding: Coding,
    sets: Sets,
    parameters: Option<Parameters>,
}

/// What an access unit came to.
#[derive(Debug, PartialEq)]
pub struct AccessUnit {
    pub payload: Bytes,
    pub keyframe: bool,
    /// The parameters changed with it.
    pub anew: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No NAL unit is in it.
    Malformed,
    /// Nothing can be decoded before the first keyframe with its parameters.
    NoConfiguration,
    /// The parameters cannot be read: why.
    Parameters(String),
}

impl Picture {
    pub fn new(coding: Coding) -> Self {
        Self { coding, sets: Sets::default(), parameters: None }
    }

    pub fn parameters(&self) -> Option<&Parameters> {
        self.parameters.as_ref()
    }

    pub fn take(&mut self, bytes: &Bytes) -> Result<AccessUnit, Wrong> {
        let mut sets = Sets::default();
        let mut payload = BytesMut::with_capacity(bytes.len() + 16);
        for nal in nal_units(bytes) {
            match self.look(nal) {
                Nal::Void => (),
                Nal::Set(kind) if sets[kind].len() < SETS_MAX => sets[kind].push(Bytes::copy_from_slice(nal)),
                Nal::Set(_) => return Err(Wrong::Malformed),
                Nal::Kept => put(&mut payload, nal),
            }
        }
        let keyframe = match self.coding {
            Coding::Hevc => hevc::is_keyframe(&payload),
            _ => h264::is_keyframe(&payload),
        };
        let anew = keyframe && self.describe(&sets)?;
        if self.parameters.is_none() {
            return Err(Wrong::NoConfiguration);
        }
        if !keyframe {
            payload = self.with_unknown(&sets, payload);
        }
        if payload.is_empty() {
            return Err(Wrong::Malformed);
        }
        Ok(AccessUnit { payload: payload.freeze(), keyframe, anew })
    }

    fn look(&self, nal: &[u8]) -> Nal {
        match (self.coding, nal[0]) {
            (Coding::Hevc, head) => match head >> 1 & 0x3f {
                kind @ 32..=34 => Nal::Set(usize::from(kind) - 32),
                35..=38 => Nal::Void,
                _ => Nal::Kept,
            },
            (_, head) => match head & 0x1f {
                7 => Nal::Set(1),
                8 => Nal::Set(2),
                9..=12 => Nal::Void,
                _ => Nal::Kept,
            },
        }
    }

    /// Encoders repeat their sets: only others count. True where they changed.
    fn describe(&mut self, sets: &Sets) -> Result<bool, Wrong> {
        let [vps, sps, pps] = sets;
        if sps.is_empty() || pps.is_empty() || *sets == self.sets {
            return Ok(false);
        }
        let read = match self.coding {
            Coding::Hevc => hevc::Parameters::from_sets(vps, sps, pps).map(Parameters::Hevc).map_err(|error| error.to_string()),
            _ => h264::Parameters::from_sets(sps, pps).map(Parameters::H264).map_err(|error| error.to_string()),
        };
        let parameters = read.map_err(Wrong::Parameters)?;
        self.sets.clone_from(sets);
        Ok(self.parameters.replace(parameters.clone()) != Some(parameters))
    }

    fn with_unknown(&self, sets: &Sets, payload: BytesMut) -> BytesMut {
        let mut unknown = sets.iter().zip(&self.sets).flat_map(|(came, known)| came.iter().filter(|set| !known.contains(set)));
        let Some(first) = unknown.next() else { return payload };
        let mut all = BytesMut::with_capacity(payload.len() + first.len());
        put(&mut all, first);
        unknown.for_each(|set| put(&mut all, set));
        all.unsplit(payload);
        all
    }
}

fn put(payload: &mut BytesMut, nal: &[u8]) {
    payload.put_u32(u32::try_from(nal.len()).expect("a PES packet is shorter than 4 GiB"));
    payload.put_slice(nal);
}

/// What stands between start codes, without the zeros around them (H.264 B.1, H.265 B.2). None is empty.
fn nal_units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = start_code(bytes).map(|at| &bytes[at + 3..]);
    std::iter::from_fn(move || {
        loop {
            let current = rest?;
            let next = start_code(current);
            let nal = &current[..next.unwrap_or(current.len())];
            rest = next.map(|at| &current[at + 3..]);
            let length = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if length > 0 {
                return Some(&nal[..length]);
            }
        }
    })
}

/// Where the next 00 00 01 is. Two of three bytes are skipped unread where the third cannot be of one.
fn start_code(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    while let Some(&third) = bytes.get(at) {
        match third {
            1 if bytes[at - 1] == 0 && bytes[at - 2] == 0 => return Some(at - 2),
            0 => at += 1,
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenH264, 640x480, and a picture's parameters.
    const SPS: &[u8] = b"\x67\x42\xc0\x1e\x8c\x8d\x40\x50\x1e\xd0\x0f\x08\x84\x6a";
    const PPS: &[u8] = b"\x68\xce\x3c\x80";

    fn stream(nals: &[&[u8]]) -> Bytes {
        nals.iter().flat_map(|nal| [&b"\0\0\0\x01"[..], nal].concat()).collect::<Vec<_>>().into()
    }

    fn prefixed(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
    }

    #[test]
    fn nal_units_lie_between_start_codes() {
        let check = |bytes: &[u8], expected: &[&[u8]]| assert_eq!(nal_units(bytes).collect::<Vec<_>>(), expected, "{bytes:?}");
        check(b"", &[]);
        check(b"\0\0\x01", &[]);
        check(b"ab\0\0\x01cd", &[b"cd"]);
        check(b"\0\0\0\x01a\0\0\x01b\0\0\0\x01\x01\0", &[b"a", b"b", b"\x01"]);
        check(b"\0\0\x01\0\0\x01a\x01\0\x01", &[b"a\x01\0\x01"]);
        check(b"\0\0\x01ab\0\0", &[b"ab"]);
    }

    #[test]
    fn sets_are_taken_out_and_delimiters_left_out() {
        let mut picture = Picture::new(Coding::H264);
        let slice: &[u8] = b"\x41\x9a";
        assert_eq!(picture.take(&stream(&[slice])), Err(Wrong::NoConfiguration));
        let key = picture.take(&stream(&[b"\x09\xf0", SPS, PPS, b"\x06\x05\x80", b"\x65\x88"])).unwrap();
        assert_eq!(key.payload, prefixed(&[b"\x06\x05\x80", b"\x65\x88"]));
        assert_eq!((key.keyframe, key.anew), (true, true));
        assert_eq!(picture.parameters().and_then(Parameters::size), Some((640, 480)));

        let again = picture.take(&stream(&[SPS, PPS, b"\x65\x88"])).unwrap();
        assert_eq!((again.keyframe, again.anew), (true, false));
        let next = picture.take(&stream(&[b"\x09\xf0", PPS, slice])).unwrap();
        assert_eq!((&next.payload[..], next.keyframe), (&prefixed(&[slice])[..], false));
        let unknown: &[u8] = b"\x68\x01\x02";
        assert_eq!(picture.take(&stream(&[unknown, slice])).unwrap().payload, prefixed(&[unknown, slice]));
        assert_eq!(picture.take(&stream(&[b"\x09\xf0"])), Err(Wrong::Malformed));
        assert_eq!(picture.take(&Bytes::new()), Err(Wrong::Malformed));
        assert!(matches!(picture.take(&stream(&[&SPS[..3], PPS, b"\x65\x88"])), Err(Wrong::Parameters(_))));
    }
}
