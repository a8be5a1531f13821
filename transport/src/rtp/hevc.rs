//! HEVC in RTP (RFC 7798): single NAL units, aggregates, fragments. Without decoding order numbers, which `sprop-max-don-diff`
//! would bring and WebRTC does not use. In only: viewers are sent H.264.

use bytes::Bytes;

use super::draft::{Damage, Draft, Place, Seen, keep};

/// nal_unit_type, and the layer and temporal identifiers (H.265 7.3.1.2).
const HEADER_BYTES: usize = 2;
/// Of a fragment's header: it is the first, it is the last (RFC 7798 4.4.3).
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
const FU_TYPE: u8 = 0x3f;
/// first_slice_segment_in_pic_flag is the first bit behind the NAL unit's header.
const FIRST_SLICE: u8 = 0x80;

/// NAL unit types (H.265 table 7-1) and those of RFC 7798 4.4.
mod kind {
    use std::ops::RangeInclusive;

    pub const SLICES: RangeInclusive<u8> = 0..=31;
    /// Decoding can begin at these (H.265 3.62).
    pub const IRAP: RangeInclusive<u8> = 16..=21;
    pub const VPS: u8 = 32;
    pub const SPS: u8 = 33;
    pub const PPS: u8 = 34;
    pub const DELIMITER: u8 = 35;
    pub const FILLER: u8 = 38;
    /// The first that is no NAL unit but a way to carry some.
    pub const AGGREGATE: u8 = 48;
    pub const FRAGMENT: u8 = 49;
    pub const PACI: u8 = 50;
}

pub fn append(draft: &mut Draft, payload: &Bytes) -> Result<(), Damage> {
    let Some(kind) = kind_of(payload) else { return Err(Damage) };
    if draft.is_open() && kind != kind::FRAGMENT {
        return Err(Damage);
    }
    match kind {
        ..kind::AGGREGATE => append_nal(draft, payload),
        kind::AGGREGATE => append_aggregate(draft, &payload[HEADER_BYTES..]),
        kind::FRAGMENT => append_fragment(draft, payload),
        // It carries a payload under a header of its own, which is not negotiated.
        kind::PACI => {
            draft.refused += 1;
            Err(Damage)
        }
        // Unspecified, to be ignored.
        _ => {
            draft.refused += 1;
            Ok(())
        }
    }
}

/// `None` where there is nothing behind the header.
fn kind_of(nal: &[u8]) -> Option<u8> {
    (nal.len() > HEADER_BYTES).then(|| nal[0] >> 1 & FU_TYPE)
}

fn append_nal(draft: &mut Draft, nal: &[u8]) -> Result<(), Damage> {
    let start = draft.open_nal(nal)?;
    draft.close_nal(start, place)
}

fn append_aggregate(draft: &mut Draft, mut rest: &[u8]) -> Result<(), Damage> {
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (nal, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Damage)?;
        // An aggregate in an aggregate is none (4.4.2).
        if kind_of(nal).is_none_or(|kind| kind >= kind::AGGREGATE) {
            return Err(Damage);
        }
        append_nal(draft, nal)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err(Damage) }
}

fn append_fragment(draft: &mut Draft, payload: &[u8]) -> Result<(), Damage> {
    let [first, second, header, body @ ..] = payload else { return Err(Damage) };
    let (starts, ends) = (header & FU_START != 0, header & FU_END != 0);
    let start = match draft.fragment.take() {
        None if starts && header & FU_TYPE < kind::AGGREGATE => {
            draft.open_nal(&[first & 0x81 | (header & FU_TYPE) << 1, *second])?
        }
        Some(start) if !starts => start,
        _ => return Err(Damage),
    };
    draft.extend(body)?;
    if ends {
        return draft.close_nal(start, place);
    }
    draft.fragment = Some(start);
    Ok(())
}

fn place(seen: &mut Seen, nal: &[u8]) -> Result<Place, Damage> {
    let kind = kind_of(nal).ok_or(Damage)?;
    let layer = (nal[0] & 1) << 5 | nal[1] >> 3;
    Ok(match kind {
        // Of another layer, which decoders of the first one ignore (H.265 7.4.2.2).
        _ if layer > 0 => Place::Aside,
        kind::VPS => keep(&mut seen.parameter_sets.vps, nal),
        kind::SPS => keep(&mut seen.parameter_sets.sps, nal),
        kind::PPS => keep(&mut seen.parameter_sets.pps, nal),
        kind::DELIMITER | kind::FILLER => Place::Aside,
        kind if kind::SLICES.contains(&kind) => {
            if seen.slices == 0 && nal[HEADER_BYTES] & FIRST_SLICE == 0 {
                return Err(Damage); // It was cut off at its beginning.
            }
            seen.slices += 1;
            seen.keyframe |= kind::IRAP.contains(&kind);
            Place::Stays
        }
        _ => Place::Stays,
    })
}

#[cfg(test)]
mod tests;
