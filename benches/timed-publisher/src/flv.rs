//! FLV as far as a publisher needs it: a tag's body is an RTMP message's payload, so tags are
//! only cut apart and a few of their first bytes are looked at. Sans-IO.

use bytes::{Buf, Bytes, BytesMut};

/// Largest tag accepted from ffmpeg or a clip: a keyframe of 4K at its worst is below 2 MiB.
const TAG_BYTES_MAX: usize = 8 << 20;
const FILE_HEADER_BYTES: usize = 9;
const TAG_HEADER_BYTES: usize = 11;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not FLV: no signature")]
    Signature,
    #[error("FLV tag of {0} bytes")]
    TooLarge(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
    Script,
}

impl Kind {
    /// The RTMP message type, which is the FLV tag type.
    pub fn message_type(self) -> u8 {
        match self {
            Self::Audio => 8,
            Self::Video => 9,
            Self::Script => 18,
        }
    }

    fn of(tag_type: u8) -> Option<Self> {
        [Self::Audio, Self::Video, Self::Script].into_iter().find(|kind| kind.message_type() == tag_type & 0x1f)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    pub kind: Kind,
    pub dts_ms: u32,
    pub body: Bytes,
}

impl Tag {
    /// Decoder parameters rather than media: AVC or AAC sequence header.
    pub fn is_sequence_header(&self) -> bool {
        self.kind != Kind::Script && self.body.get(1) == Some(&0)
    }

    /// Coded media: not a header, not AVC's end of sequence.
    pub fn is_media(&self) -> bool {
        self.kind != Kind::Script && self.body.get(1) == Some(&1)
    }

    pub fn is_keyframe(&self) -> bool {
        self.kind == Kind::Video && self.body.first().is_some_and(|b| b >> 4 == 1)
    }

    /// How long after its decoding time an AVC picture is shown.
    pub fn composition_ms(&self) -> i32 {
        match (self.kind, self.body.get(2..5)) {
            (Kind::Video, Some(&[a, b, c])) => i32::from_be_bytes([a, b, c, 0]) >> 8,
            _ => 0,
        }
    }
}

/// Bytes in, tags out, each as soon as its last body byte is there.
#[derive(Default)]
pub struct Reader {
    pending: BytesMut,
    opened: bool,
    /// Bytes of the field that repeats the last tag's size, still to be skipped.
    trailer: usize,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// `Ok(None)` where bytes are missing. Tags of unknown types are skipped.
    pub fn next_tag(&mut self) -> Result<Option<Tag>, Error> {
        loop {
            if !self.opened && !self.open()? {
                return Ok(None);
            }
            let skipped = self.trailer.min(self.pending.len());
            self.pending.advance(skipped);
            self.trailer -= skipped;
            let Some(header) = self.pending.get(..TAG_HEADER_BYTES).filter(|_| self.trailer == 0) else { return Ok(None) };
            let size = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
            let dts_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
            let kind = Kind::of(header[0]);
            if size > TAG_BYTES_MAX {
                return Err(Error::TooLarge(size));
            }
            if self.pending.len() < TAG_HEADER_BYTES + size {
                return Ok(None);
            }
            self.pending.advance(TAG_HEADER_BYTES);
            let body = self.pending.split_to(size).freeze();
            self.trailer = 4;
            if let Some(kind) = kind {
                return Ok(Some(Tag { kind, dts_ms, body }));
            }
        }
    }

    fn open(&mut self) -> Result<bool, Error> {
        if self.pending.len() < FILE_HEADER_BYTES {
            return Ok(false);
        }
        if !self.pending.starts_with(b"FLV") {
            return Err(Error::Signature);
        }
        self.pending.advance(FILE_HEADER_BYTES);
        (self.opened, self.trailer) = (true, 4);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (tag_type, time, body) in
            [(18, 0u32, &b"meta"[..]), (9, 0, b"\x17\0\0\0\0head"), (9, 0x0123_4567, b"\x27\x01\0\0\x42nal")]
        {
            out.extend([tag_type, 0, 0, body.len() as u8, (time >> 16) as u8, (time >> 8) as u8, time as u8, (time >> 24) as u8]);
            out.extend([0, 0, 0]);
            out.extend(body);
            out.extend((11 + body.len() as u32).to_be_bytes());
        }
        out
    }

    fn tags(pieces: &[&[u8]]) -> Vec<Tag> {
        let (mut reader, mut out) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.push(piece);
            while let Some(tag) = reader.next_tag().unwrap() {
                out.push(tag);
            }
        }
        out
    }

    #[test]
    fn cut_at_every_offset_it_says_the_same() {
        let file = file();
        let whole = tags(&[&file]);
        assert_eq!(whole.len(), 3);
        assert_eq!((whole[2].dts_ms, whole[2].composition_ms(), whole[2].is_media()), (0x0123_4567, 0x42, true));
        assert!(whole[1].is_sequence_header() && whole[1].is_keyframe());
        for at in 0..file.len() {
            assert_eq!(tags(&[&file[..at], &file[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn a_tag_is_out_with_its_last_byte() {
        let file = file();
        assert_eq!(tags(&[&file[..file.len() - 4]]).len(), 3);
    }

    #[test]
    fn negative_composition_times_keep_their_sign() {
        let tag = Tag { kind: Kind::Video, dts_ms: 0, body: Bytes::from_static(b"\x27\x01\xff\xff\xfe") };
        assert_eq!(tag.composition_ms(), -2);
    }
}
