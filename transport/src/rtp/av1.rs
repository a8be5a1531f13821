//! AV1 in RTP (AOM's "RTP Payload Format For AV1" 1.0): OBU elements behind an aggregation header, cut where a packet ends.
//! In only: viewers are sent H.264.
//!
//! Out comes the low-overhead format of the bitstream (AV1 5.2): each OBU with its size, without temporal delimiters. A
//! packet may cut an OBU anywhere, within its header too, so an OBU is looked at when all of it is there.

use bytes::Bytes;

use super::draft::{Damage, Draft, Seen};

/// The aggregation header (4.4): the first element goes on with one of the packet before, the last one goes on in the next;
/// how many elements there are, where their number is told.
const CONTINUES: u8 = 0x80;
const WILL_CONTINUE: u8 = 0x40;
const COUNT_SHIFT: u8 = 4;

/// OBU header (AV1 5.3.2).
const FORBIDDEN: u8 = 0x80;
const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;
/// 4.10.5.
const LEB128_BYTES_MAX: usize = 8;

/// obu_type (AV1 6.2.2).
mod kind {
    pub const SEQUENCE_HEADER: u8 = 1;
    pub const TEMPORAL_DELIMITER: u8 = 2;
    pub const FRAME_HEADER: u8 = 3;
    pub const TILE_GROUP: u8 = 4;
    pub const FRAME: u8 = 6;
    pub const REDUNDANT_FRAME_HEADER: u8 = 7;
    pub const TILE_LIST: u8 = 8;
    pub const PADDING: u8 = 15;
}

pub fn append(draft: &mut Draft, payload: &Bytes) -> Result<(), Damage> {
    let (header, mut rest) = (payload[0], &payload[1..]);
    if (header & CONTINUES != 0) != draft.is_open() {
        return Err(Damage);
    }
    // 0: each has its length. Else the last one has none.
    let count = usize::from(header >> COUNT_SHIFT & 3);
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let (element, behind) = if number == count { (rest, &rest[rest.len()..]) } else { split_element(rest)? };
        let start = draft.fragment.take().unwrap_or(draft.buffer.len());
        draft.extend(element)?;
        if behind.is_empty() && header & WILL_CONTINUE != 0 {
            draft.fragment = Some(start);
        } else {
            close(draft, start)?;
        }
        rest = behind;
    }
    if number == 0 || number < count { Err(Damage) } else { Ok(()) }
}

/// An element behind its length, and what follows.
fn split_element(bytes: &[u8]) -> Result<(&[u8], &[u8]), Damage> {
    let (length, behind) = leb128(bytes).ok_or(Damage)?;
    behind.split_at_checked(length).ok_or(Damage)
}

fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(LEB128_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

/// The OBU from `start` on is complete: it gets its size, or is left out.
fn close(draft: &mut Draft, start: usize) -> Result<(), Damage> {
    draft.count()?;
    let obu = &draft.buffer[start..];
    let Some(&header) = obu.first() else { return Ok(()) };
    if header & FORBIDDEN != 0 {
        return Err(Damage);
    }
    let front = if header & HAS_EXTENSION != 0 { 2 } else { 1 };
    let behind = obu.get(front..).ok_or(Damage)?;
    let has_size = header & HAS_SIZE != 0;
    let body = match has_size {
        true => leb128(behind).filter(|(size, body)| *size == body.len()).ok_or(Damage)?.1,
        false => behind,
    };
    if !is_kept(&mut draft.seen, header >> 3 & 0x0f, body)? {
        draft.buffer.truncate(start);
    } else if !has_size {
        insert_size(draft, start, start + front)?;
    }
    Ok(())
}

/// Of the OBU at `start`, whose body begins at `body` and goes to the end.
fn insert_size(draft: &mut Draft, start: usize, body: usize) -> Result<(), Damage> {
    let end = draft.buffer.len();
    let mut place = [0; LEB128_BYTES_MAX];
    let size = write_leb128(&mut place, end - body);
    draft.extend(size)?;
    draft.buffer.copy_within(body..end, body + size.len());
    draft.buffer[body..body + size.len()].copy_from_slice(size);
    draft.buffer[start] |= HAS_SIZE;
    Ok(())
}

/// Notes what the OBU is. False for one that a temporal unit on its own has no use for (4.4; AV1 in ISO-BMFF 2.4).
fn is_kept(seen: &mut Seen, kind: u8, body: &[u8]) -> Result<bool, Damage> {
    match kind {
        kind::TEMPORAL_DELIMITER | kind::REDUNDANT_FRAME_HEADER | kind::TILE_LIST | kind::PADDING => return Ok(false),
        kind::SEQUENCE_HEADER => seen.sequence_header = true,
        kind::FRAME_HEADER | kind::FRAME => {
            let first = *body.first().ok_or(Damage)?;
            // show_existing_frame, frame_type, show_frame (AV1 5.9.2): a keyframe that is shown.
            seen.keyframe |= seen.slices == 0 && first & 0xf0 == 0x10;
            seen.slices += 1;
        }
        // It was cut off at its beginning.
        kind::TILE_GROUP if seen.slices == 0 => return Err(Damage),
        _ => {}
    }
    Ok(true)
}

fn write_leb128(place: &mut [u8; LEB128_BYTES_MAX], mut value: usize) -> &[u8] {
    let mut length = 0;
    loop {
        place[length] = value as u8 & 0x7f | if value > 0x7f { 0x80 } else { 0 };
        length += 1;
        value >>= 7;
        if value == 0 || length == LEB128_BYTES_MAX {
            return &place[..length];
        }
    }
}

#[cfg(test)]
mod tests;
