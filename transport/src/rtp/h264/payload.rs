//! What an RTP payload of H.264 adds to its access unit (RFC 6184 5.6 to 5.8, those of packetization-mode 1).

use bytes::Bytes;

use super::{FU_END, FU_START, kind};
use crate::rtp::draft::{Damage, Draft, Place, Seen, keep};

/// A picture's first slice begins with `first_mb_in_slice`, 0, which Exp-Golomb writes as this bit.
const FIRST_MACROBLOCK: u8 = 0x80;

pub fn append(draft: &mut Draft, payload: &Bytes) -> Result<(), Damage> {
    let kind = kind::of(payload[0]);
    if draft.is_open() && kind != kind::FU_A {
        return Err(Damage);
    }
    match kind {
        kind::SLICE..kind::STAP_A => append_nal(draft, payload),
        kind::STAP_A => append_aggregate(draft, &payload[1..]),
        kind::FU_A => append_fragment(draft, payload),
        kind::STAP_B..=kind::MTAP24 | kind::FU_B => {
            draft.refused += 1;
            Err(Damage)
        }
        // 0, 30 and 31 must be ignored (RFC 6184 5.2).
        _ => {
            draft.refused += 1;
            Ok(())
        }
    }
}

fn append_nal(draft: &mut Draft, nal: &[u8]) -> Result<(), Damage> {
    let start = draft.open_nal(nal)?;
    draft.close_nal(start, place)
}

fn append_aggregate(draft: &mut Draft, mut rest: &[u8]) -> Result<(), Damage> {
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (nal, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Damage)?;
        // An aggregate in an aggregate is none (5.7).
        if nal.is_empty() || !(kind::SLICE..kind::STAP_A).contains(&kind::of(nal[0])) {
            return Err(Damage);
        }
        append_nal(draft, nal)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err(Damage) }
}

fn append_fragment(draft: &mut Draft, payload: &[u8]) -> Result<(), Damage> {
    let [indicator, header, body @ ..] = payload else { return Err(Damage) };
    let (starts, ends) = (header & FU_START != 0, header & FU_END != 0);
    let start = match draft.fragment.take() {
        None if starts && (kind::SLICE..kind::STAP_A).contains(&kind::of(*header)) => {
            draft.open_nal(&[indicator & !0x1f | kind::of(*header)])?
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
    Ok(match kind::of(nal[0]) {
        kind::SPS => keep(&mut seen.parameter_sets.sps, nal),
        kind::PPS => keep(&mut seen.parameter_sets.pps, nal),
        kind::AUD | kind::FILLER => Place::Aside,
        kind @ kind::SLICE..=kind::IDR => {
            let is_first = nal.get(1).is_some_and(|byte| byte & FIRST_MACROBLOCK != 0);
            if seen.slices == 0 && !is_first {
                return Err(Damage); // It was cut off at its beginning.
            }
            seen.slices += 1;
            seen.keyframe |= kind == kind::IDR;
            Place::Stays
        }
        _ => Place::Stays,
    })
}
