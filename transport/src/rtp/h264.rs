//! H.264 in RTP (RFC 6184), packetization-mode 1.
//!
//! An access unit is NAL units behind lengths of 4 bytes, as in MP4. Out: `packetize` copies it once
//! into one buffer and slices the payloads out of it. In: `append` takes what a payload brings to the
//! access unit that `depacketize` puts together.

mod packetize;
mod payload;

pub use packetize::{ParameterSets, packetize};
pub(super) use payload::append;

/// NAL unit types (ITU-T H.264 table 7-1) and those of RFC 6184 table 1.
mod kind {
    pub const SLICE: u8 = 1;
    pub const IDR: u8 = 5;
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const AUD: u8 = 9;
    pub const FILLER: u8 = 12;
    pub const STAP_A: u8 = 24;
    pub const STAP_B: u8 = 25;
    pub const MTAP24: u8 = 27;
    pub const FU_A: u8 = 28;
    pub const FU_B: u8 = 29;

    pub fn of(header: u8) -> u8 {
        header & 0x1f
    }
}

/// The two bits that say how much a NAL unit matters.
const NRI: u8 = 0x60;
const LENGTH_BYTES: usize = 4;
/// Of a fragment's header: it is the first, it is the last (RFC 6184 5.8).
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;

#[cfg(test)]
mod tests;
