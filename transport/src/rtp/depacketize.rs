//! RTP payloads of a picture track to access units (AV1: temporal units), whatever the codec.
//!
//! ```text
//! Between --a payload--> Within --marker, or another timestamp--> Between: one access unit
//!                           |
//!                           '--a hole, a piece out of place, too large--> Skipping(timestamp)
//! ```
//!
//! What a payload adds to the access unit is its codec's matter (`h264`, `hevc`, `av1`): each has one function for it.

use std::{collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{
    Codec, av1,
    draft::{Damage, Draft, ParameterSets},
    h264, hevc,
};

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
    /// H.264, HEVC: NAL units behind 4-byte lengths, without delimiters and without the sets beside it; a second one of a
    /// kind stays in it. AV1: OBUs with their sizes, without temporal delimiters.
    pub payload: Bytes,
    /// HEVC alone has it.
    pub vps: Option<Bytes>,
    /// The first SPS in it, or else the last one that came before it with a timestamp of its own.
    pub sps: Option<Bytes>,
    pub pps: Option<Bytes>,
    /// Decoding can begin at it.
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

/// Appends what a payload brings.
type Append = fn(&mut Draft, &Bytes) -> Result<(), Damage>;

pub struct Depacketizer {
    append: Append,
    state: State,
    /// Parameter sets without a picture, for the next one.
    ahead: ParameterSets,
    /// What came before the next access unit is not known: something was lost, or nothing came yet.
    gap: bool,
    outputs: VecDeque<Output>,
    /// Payloads of kinds that were not negotiated.
    refused: u64,
    buffer: BytesMut,
}

enum State {
    Between,
    Within(Box<Picture>),
    /// What is left of a damaged access unit.
    Skipping(u32),
}

struct Picture {
    timestamp: u32,
    first_received: Instant,
    received: Instant,
    draft: Draft,
    /// `Depacketizer::gap` when it began: its parameter sets may be lost.
    after_gap: bool,
}

impl Depacketizer {
    /// `None` of sound, which has a packet a frame.
    pub fn new(codec: Codec) -> Option<Self> {
        match codec {
            Codec::H264 => Some(Self::with(h264::append)),
            Codec::Hevc => Some(Self::with(hevc::append)),
            Codec::Av1 => Some(Self::with(av1::append)),
            Codec::Opus => None,
        }
    }

    fn with(append: Append) -> Self {
        Self {
            append,
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
                let appended = (self.append)(&mut picture.draft, &piece.payload);
                self.refused += std::mem::take(&mut picture.draft.refused);
                match appended {
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
        let outputs = std::mem::take(&mut self.outputs);
        *self = Self { refused: self.refused, outputs, ..Self::with(self.append) };
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
            self.state = State::Within(Box::new(Picture {
                timestamp: piece.timestamp,
                first_received: piece.received,
                received: piece.received,
                draft: Draft::new(std::mem::take(&mut self.buffer)),
                after_gap: std::mem::take(&mut self.gap),
            }));
        }
    }

    fn damage(&mut self, timestamp: u32) {
        self.outputs.push_back(Output::Damaged);
        // The buffer goes with what was in it: it may have grown large.
        self.state = State::Skipping(timestamp);
    }

    fn finish(&mut self) {
        let State::Within(picture) = std::mem::replace(&mut self.state, State::Between) else { return };
        let Picture { timestamp, first_received, received, mut draft, after_gap } = *picture;
        if draft.is_open() || (after_gap && draft.seen.keyframe && !draft.seen.is_described()) {
            self.outputs.push_back(Output::Damaged);
            return;
        }
        // Parameter sets with a timestamp of their own are the next picture's.
        let ParameterSets { vps, sps, pps } = draft.seen.parameter_sets.or(std::mem::take(&mut self.ahead));
        let payload = draft.buffer.split();
        self.buffer = draft.buffer;
        if draft.seen.slices == 0 {
            self.gap = after_gap && sps.is_none();
            self.ahead = ParameterSets { vps, sps, pps };
            return;
        }
        self.outputs.push_back(Output::Whole(AccessUnit {
            timestamp,
            payload: payload.freeze(),
            vps,
            sps,
            pps,
            keyframe: draft.seen.keyframe,
            first_received,
            received,
        }));
    }
}

#[cfg(test)]
pub(super) mod tests;
