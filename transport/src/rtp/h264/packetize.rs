//! Access units to RTP payloads.

use bytes::{BufMut, Bytes, BytesMut};

use super::{FU_END, FU_START, LENGTH_BYTES, NRI, kind};

/// FU indicator and FU header (RFC 6184 5.8).
const FU_BYTES: usize = 2;
/// Of each NAL unit in an aggregate (5.7.1), whose own header is one byte.
const AGGREGATE_LENGTH_BYTES: usize = 2;

/// NAL units: SPS, PPS.
pub type ParameterSets<'a> = (&'a [&'a [u8]], &'a [&'a [u8]]);

/// The payloads of one access unit, at most `payload_max` long.
///
/// `parameter_sets` are to be sent in front of a keyframe; those in the access unit are left out then.
/// A NAL unit that is too long is cut into pieces of equal size (but the last), so that UDP segmentation offload can send
/// them.
pub fn packetize(au: &[u8], parameter_sets: Option<ParameterSets>, payload_max: usize) -> Vec<Bytes> {
    let (sps, pps) = parameter_sets.unwrap_or_default();
    let outside = sps.iter().chain(pps).copied().filter(|nal| sendable(nal));
    let inside = Nals(au).filter(|nal| {
        let in_band = matches!(kind::of(nal[0]), kind::SPS | kind::PPS);
        sendable(nal) && !(in_band && parameter_sets.is_some())
    });
    let nals: Vec<&[u8]> = outside.chain(inside).collect();
    Writer::new(&nals, payload_max).write(&nals)
}

/// NAL units of an access unit. A length that runs over the end ends it.
struct Nals<'a>(&'a [u8]);

impl<'a> Iterator for Nals<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (length, rest) = self.0.split_first_chunk::<LENGTH_BYTES>()?;
            let (nal, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            self.0 = rest;
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    }
}

/// Delimiters and filler say nothing that RTP does not; types from 24 on would be read as RTP's own.
fn sendable(nal: &[u8]) -> bool {
    nal.first().is_some_and(|header| !matches!(kind::of(*header), 0 | kind::AUD | kind::FILLER | kind::STAP_A..))
}

struct Writer {
    buffer: BytesMut,
    /// Where each payload ends in it.
    ends: Vec<usize>,
    payload_max: usize,
}

impl Writer {
    fn new(nals: &[&[u8]], payload_max: usize) -> Self {
        debug_assert!(payload_max > 64, "payloads of a real path");
        let payload_max = payload_max.clamp(FU_BYTES + 1, usize::from(u16::MAX));
        let bytes: usize = nals.iter().map(|nal| nal.len() + AGGREGATE_LENGTH_BYTES + 1).sum();
        let payloads = bytes / (payload_max - FU_BYTES) + nals.len();
        let buffer = BytesMut::with_capacity(bytes + payloads * FU_BYTES);
        Self { buffer, ends: Vec::with_capacity(payloads), payload_max }
    }

    fn write(mut self, mut nals: &[&[u8]]) -> Vec<Bytes> {
        while let Some(first) = nals.first() {
            let together = self.fitting(nals);
            match together {
                0 => self.write_fragments(first),
                1 => self.buffer.put_slice(first),
                _ => self.write_aggregate(&nals[..together]),
            }
            if together > 0 {
                self.ends.push(self.buffer.len());
            }
            nals = &nals[together.max(1)..];
        }
        let buffer = self.buffer.freeze();
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| buffer.slice(start..*end)).collect()
    }

    /// How many of the next NAL units fit into one payload; 0: not even the first.
    fn fitting(&self, nals: &[&[u8]]) -> usize {
        if nals[0].len() > self.payload_max {
            return 0;
        }
        let mut bytes = 1;
        let fitting = nals.iter().take_while(|nal| {
            bytes += AGGREGATE_LENGTH_BYTES + nal.len();
            bytes <= self.payload_max
        });
        fitting.count().max(1)
    }

    /// STAP-A: as important as its most important NAL unit (5.7).
    fn write_aggregate(&mut self, nals: &[&[u8]]) {
        let importance = nals.iter().map(|nal| nal[0] & NRI).max().unwrap_or_default();
        self.buffer.put_u8(importance | kind::STAP_A);
        for nal in nals {
            self.buffer.put_u16(nal.len() as u16);
            self.buffer.put_slice(nal);
        }
    }

    fn write_fragments(&mut self, nal: &[u8]) {
        let (header, body) = (nal[0], &nal[1..]);
        let room = self.payload_max - FU_BYTES;
        let size = body.len().div_ceil(body.len().div_ceil(room));
        let last = body.len().div_ceil(size) - 1;
        for (place, piece) in body.chunks(size).enumerate() {
            let start = if place == 0 { FU_START } else { 0 };
            let end = if place == last { FU_END } else { 0 };
            self.buffer.put_u8(header & !0x1f | kind::FU_A);
            self.buffer.put_u8(start | end | kind::of(header));
            self.buffer.put_slice(piece);
            self.ends.push(self.buffer.len());
        }
    }
}
