//! RTP payloads to access units.
//!
//! ```text
//! Between --a payload--> Within --marker, or another timestamp--> Between: one access unit
//!                           |
//!                           '--a hole, a piece out of place, too large--> Skipping(timestamp)
//! ```

use std::{collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{FU_END, FU_START, LENGTH_BYTES, kind};

/// Forty times a keyframe of 1080p; a publisher may not make us keep more.
const BYTES_MAX: usize = 8 << 20;
/// A slice a packet in a keyframe of 2 MiB.
const NALS_MAX: usize = 2048;
/// A picture's first slice begins with `first_mb_in_slice`, 0, which Exp-Golomb writes as this bit.
const FIRST_MACROBLOCK: u8 = 0x80;

/// One payload, in its place in the order.
#[derive(Clone, Debug)]
pub struct Piece {
    pub timestamp: u32,
    pub marker: bool,
    /// Something before it was lost.
    pub gap: bool,
    /// Empty: padding only.
    pub payload: Bytes,
    pub received: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    pub timestamp: u32,
    /// NAL units behind 4-byte lengths, without delimiters and without `sps` and `pps`. A second SPS or PPS stays in it.
    pub payload: Bytes,
    /// The first SPS in it, or else the last one that came before it with a timestamp of its own.
    pub sps: Option<Bytes>,
    pub pps: Option<Bytes>,
    /// It has an IDR slice.
    pub keyframe: bool,
    pub first_received: Instant,
    pub received: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Whole(AccessUnit),
    /// Something of the stream is missing here: decoding can go on at a keyframe.
    Damaged,
}

pub struct Depacketizer {
    state: State,
    /// Parameter sets without a picture, for the next one.
    ahead: ParameterSets,
    /// What came before the next access unit is not known: something was lost, or nothing came yet.
    gap: bool,
    outputs: VecDeque<Output>,
    /// Payloads of kinds that mode 1 does not have.
    refused: u64,
    buffer: BytesMut,
}

enum State {
    Between,
    Within(Picture),
    /// What is left of a damaged access unit.
    Skipping(u32),
}

struct Picture {
    timestamp: u32,
    first_received: Instant,
    received: Instant,
    /// Where the NAL unit that arrives in fragments begins in the buffer.
    fragment: Option<usize>,
    nals: usize,
    slices: usize,
    keyframe: bool,
    parameter_sets: ParameterSets,
    /// `Depacketizer::gap` when it began: its parameter sets may be lost.
    after_gap: bool,
}

#[derive(Default)]
struct ParameterSets {
    sps: Option<Bytes>,
    pps: Option<Bytes>,
}

/// The payload is no part of a whole access unit.
struct Damage;

impl Default for Depacketizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Depacketizer {
    pub fn new() -> Self {
        Self {
            state: State::Between,
            ahead: ParameterSets::default(),
            gap: true,
            outputs: VecDeque::new(),
            refused: 0,
            buffer: BytesMut::new(),
        }
    }

    /// Poll for outputs after each piece: there are three at most.
    pub fn handle_piece(&mut self, piece: &Piece) {
        if piece.gap {
            self.handle_gap();
        }
        if piece.payload.is_empty() {
            return;
        }
        self.turn_to(piece);
        match std::mem::replace(&mut self.state, State::Between) {
            State::Within(mut picture) => {
                picture.received = piece.received;
                match self.append(&mut picture, &piece.payload) {
                    Ok(()) => self.state = State::Within(picture),
                    Err(Damage) => self.damage(picture.timestamp),
                }
            }
            other => self.state = other,
        }
        if piece.marker {
            self.finish();
        }
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Forgets what is unfinished: another source begins.
    pub fn restart(&mut self) {
        *self = Self { refused: self.refused, outputs: std::mem::take(&mut self.outputs), ..Self::new() };
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn handle_gap(&mut self) {
        self.gap = true;
        self.ahead = ParameterSets::default();
        match &self.state {
            State::Within(picture) => self.damage(picture.timestamp),
            _ => self.outputs.push_back(Output::Damaged),
        }
    }

    /// Goes over to the picture that the piece belongs to.
    fn turn_to(&mut self, piece: &Piece) {
        match &self.state {
            State::Within(picture) if picture.timestamp != piece.timestamp => self.finish(),
            State::Skipping(timestamp) if *timestamp != piece.timestamp => self.state = State::Between,
            _ => {}
        }
        if matches!(self.state, State::Between) {
            self.buffer.clear();
            self.state = State::Within(Picture {
                timestamp: piece.timestamp,
                first_received: piece.received,
                received: piece.received,
                fragment: None,
                nals: 0,
                slices: 0,
                keyframe: false,
                parameter_sets: ParameterSets::default(),
                after_gap: std::mem::take(&mut self.gap),
            });
        }
    }

    fn damage(&mut self, timestamp: u32) {
        self.outputs.push_back(Output::Damaged);
        self.state = State::Skipping(timestamp);
        self.buffer = BytesMut::new(); // It may have grown large.
    }

    fn finish(&mut self) {
        let State::Within(picture) = std::mem::replace(&mut self.state, State::Between) else { return };
        let ParameterSets { sps, pps } = picture.parameter_sets;
        if picture.fragment.is_some() || (picture.after_gap && picture.keyframe && sps.is_none()) {
            self.outputs.push_back(Output::Damaged);
            return;
        }
        // Parameter sets with a timestamp of their own are the next picture's.
        let sps = sps.or(self.ahead.sps.take());
        let pps = pps.or(self.ahead.pps.take());
        if picture.slices == 0 {
            self.ahead = ParameterSets { sps, pps };
            self.gap = picture.after_gap && self.ahead.sps.is_none();
            return;
        }
        self.outputs.push_back(Output::Whole(AccessUnit {
            timestamp: picture.timestamp,
            payload: self.buffer.split().freeze(),
            sps,
            pps,
            keyframe: picture.keyframe,
            first_received: picture.first_received,
            received: picture.received,
        }));
    }

    fn append(&mut self, picture: &mut Picture, payload: &Bytes) -> Result<(), Damage> {
        let kind = kind::of(payload[0]);
        if picture.fragment.is_some() && kind != kind::FU_A {
            return Err(Damage);
        }
        match kind {
            kind::SLICE..kind::STAP_A => {
                let start = self.open(payload)?;
                self.close(picture, start)
            }
            kind::STAP_A => self.append_aggregate(picture, &payload[1..]),
            kind::FU_A => self.append_fragment(picture, payload),
            kind::STAP_B..=kind::MTAP24 | kind::FU_B => {
                self.refused += 1;
                Err(Damage)
            }
            // 0, 30 and 31 must be ignored (RFC 6184 5.2).
            _ => {
                self.refused += 1;
                Ok(())
            }
        }
    }

    fn append_aggregate(&mut self, picture: &mut Picture, mut rest: &[u8]) -> Result<(), Damage> {
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let (nal, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Damage)?;
            // An aggregate in an aggregate is none (5.7).
            if nal.is_empty() || !(kind::SLICE..kind::STAP_A).contains(&kind::of(nal[0])) {
                return Err(Damage);
            }
            let start = self.open(nal)?;
            self.close(picture, start)?;
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(Damage) }
    }

    fn append_fragment(&mut self, picture: &mut Picture, payload: &[u8]) -> Result<(), Damage> {
        let [indicator, header, body @ ..] = payload else { return Err(Damage) };
        let (starts, ends) = (header & FU_START != 0, header & FU_END != 0);
        let start = match picture.fragment.take() {
            None if starts && (kind::SLICE..kind::STAP_A).contains(&kind::of(*header)) => {
                self.open(&[indicator & !0x1f | kind::of(*header)])?
            }
            Some(start) if !starts => start,
            _ => return Err(Damage),
        };
        self.extend(body)?;
        if ends {
            return self.close(picture, start);
        }
        picture.fragment = Some(start);
        Ok(())
    }

    /// Begins a NAL unit; its length is written when it is known.
    fn open(&mut self, bytes: &[u8]) -> Result<usize, Damage> {
        let start = self.buffer.len();
        self.extend(&[0; LENGTH_BYTES])?;
        self.extend(bytes)?;
        Ok(start)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        if self.buffer.len() + bytes.len() > BYTES_MAX {
            return Err(Damage);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The NAL unit from `start` on is complete: it stays, or is set aside.
    fn close(&mut self, picture: &mut Picture, start: usize) -> Result<(), Damage> {
        picture.nals += 1;
        if picture.nals > NALS_MAX {
            return Err(Damage);
        }
        let nal = &self.buffer[start + LENGTH_BYTES..];
        let length = u32::try_from(nal.len()).map_err(|_| Damage)?;
        let aside = match kind::of(nal[0]) {
            kind::SPS => keep(&mut picture.parameter_sets.sps, nal),
            kind::PPS => keep(&mut picture.parameter_sets.pps, nal),
            kind::AUD | kind::FILLER => true,
            kind @ kind::SLICE..=kind::IDR => {
                let is_first = nal.get(1).is_some_and(|byte| byte & FIRST_MACROBLOCK != 0);
                if picture.slices == 0 && !is_first {
                    return Err(Damage); // It was cut off at its beginning.
                }
                picture.slices += 1;
                picture.keyframe |= kind == kind::IDR;
                false
            }
            _ => false,
        };
        if aside {
            self.buffer.truncate(start);
        } else {
            self.buffer[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

/// The first of its kind is set aside, and repetitions of it; false for another one.
fn keep(place: &mut Option<Bytes>, nal: &[u8]) -> bool {
    place.get_or_insert_with(|| Bytes::copy_from_slice(nal)) == nal
}
