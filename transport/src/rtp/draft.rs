//! An access unit that is under way: what has come of it, in the form in which it is to leave.
//!
//! Units (NAL units, OBUs) are opened, extended and closed at the end of one buffer, so that each byte is copied once. What
//! a peer can make us keep is bounded here.

use bytes::{Bytes, BytesMut};

/// Forty times a keyframe of 1080p; a publisher may not make us keep more.
const BYTES_MAX: usize = 8 << 20;
/// A slice a packet in a keyframe of 2 MiB.
const UNITS_MAX: usize = 2048;
const LENGTH_BYTES: usize = 4;

/// The payload is no part of a whole access unit.
pub struct Damage;

#[derive(Default)]
pub struct ParameterSets {
    pub vps: Option<Bytes>,
    pub sps: Option<Bytes>,
    pub pps: Option<Bytes>,
}

impl ParameterSets {
    pub fn or(self, other: Self) -> Self {
        Self { vps: self.vps.or(other.vps), sps: self.sps.or(other.sps), pps: self.pps.or(other.pps) }
    }
}

pub struct Draft {
    pub buffer: BytesMut,
    /// Where the unit that arrives in fragments begins in the buffer.
    pub fragment: Option<usize>,
    /// Those closed so far.
    units: usize,
    pub seen: Seen,
    /// Payloads of kinds that were not negotiated.
    pub refused: u64,
}

/// What its units turned out to be.
#[derive(Default)]
pub struct Seen {
    /// Slices, or pictures of AV1's layers.
    pub slices: usize,
    pub keyframe: bool,
    pub parameter_sets: ParameterSets,
    /// AV1: a sequence header is in it.
    pub sequence_header: bool,
}

/// What becomes of a NAL unit that is complete.
pub enum Place {
    Stays,
    /// It is left out, or kept beside the access unit.
    Aside,
}

impl Draft {
    pub fn new(buffer: BytesMut) -> Self {
        Self { buffer, fragment: None, units: 0, seen: Seen::default(), refused: 0 }
    }

    /// A unit lacks its end.
    pub fn is_open(&self) -> bool {
        self.fragment.is_some()
    }

    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        if self.buffer.len() + bytes.len() > BYTES_MAX {
            return Err(Damage);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Counts a unit that is complete.
    pub fn count(&mut self) -> Result<(), Damage> {
        self.units += 1;
        if self.units > UNITS_MAX { Err(Damage) } else { Ok(()) }
    }

    /// Begins a NAL unit; its length is written when it is known.
    pub fn open_nal(&mut self, bytes: &[u8]) -> Result<usize, Damage> {
        let start = self.buffer.len();
        self.extend(&[0; LENGTH_BYTES])?;
        self.extend(bytes)?;
        Ok(start)
    }

    /// The NAL unit from `start` on is complete. `place` looks at it.
    pub fn close_nal(&mut self, start: usize, place: fn(&mut Seen, &[u8]) -> Result<Place, Damage>) -> Result<(), Damage> {
        self.count()?;
        let nal = &self.buffer[start + LENGTH_BYTES..];
        let length = u32::try_from(nal.len()).map_err(|_| Damage)?;
        match place(&mut self.seen, nal)? {
            Place::Stays => self.buffer[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes()),
            Place::Aside => self.buffer.truncate(start),
        }
        Ok(())
    }
}

impl Seen {
    /// What a decoder must know of a keyframe came with it.
    pub fn is_described(&self) -> bool {
        self.parameter_sets.sps.is_some() || self.sequence_header
    }
}

/// The first of its kind is set aside, and repetitions of it; another one stays.
pub fn keep(place: &mut Option<Bytes>, nal: &[u8]) -> Place {
    if place.get_or_insert_with(|| Bytes::copy_from_slice(nal)) == nal { Place::Aside } else { Place::Stays }
}
