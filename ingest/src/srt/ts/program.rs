//! Tables of a transport stream (ISO/IEC 13818-1, 2.4.4): the association table leads to the map of the first program,
//! and the map says what each stream is.
//!
//! Pure. Codecs that are not taken are named, so that a refusal can say what to change.

use bytes::{Bytes, BytesMut};

const TABLE_ASSOCIATION: u8 = 0;
const TABLE_MAP: u8 = 2;
/// 2.4.4.3: length of a section behind its first three bytes.
const SECTION_BYTES_MAX: usize = 1021 + 3;
/// The eight bytes that all have, and the checksum.
const SECTION_BYTES_MIN: usize = 8 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 4;
const DESCRIPTOR_REGISTRATION: u8 = 0x05;
const DESCRIPTOR_AC3: u8 = 0x6a;
const DESCRIPTOR_EAC3: u8 = 0x7a;
/// DVB's extension descriptor; with this tag it describes Opus (ETSI TS 101 154's scheme, as muxers write it).
const DESCRIPTOR_EXTENSION: u8 = 0x7f;
const EXTENSION_OPUS: u8 = 0x80;

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    H264,
    Hevc,
    /// In ADTS.
    Aac,
    Opus {
        channels: u8,
    },
}

/// The first picture and the first sound that can be taken, and what can not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    picture: Option<(u16, Coding)>,
    sound: Option<(u16, Coding)>,
    foreign_picture: Option<&'static str>,
    foreign_sound: Option<&'static str>,
    /// Further pictures and sounds, which are left out.
    pub extra: usize,
}

impl Program {
    pub fn picture(&self) -> Option<Coding> {
        self.picture.map(|(_, coding)| coding)
    }

    pub fn sound(&self) -> Option<Coding> {
        self.sound.map(|(_, coding)| coding)
    }

    pub(super) fn picture_pid(&self) -> Option<u16> {
        self.picture.map(|(pid, _)| pid)
    }

    pub(super) fn sound_pid(&self) -> Option<u16> {
        self.sound.map(|(pid, _)| pid)
    }

    /// The codec of its picture, where that cannot be taken.
    pub fn foreign_picture(&self) -> Option<&'static str> {
        self.foreign_picture.filter(|_| self.picture.is_none())
    }

    /// The same of its sound.
    pub fn foreign_sound(&self) -> Option<&'static str> {
        self.foreign_sound.filter(|_| self.sound.is_none())
    }

    fn add(&mut self, pid: u16, stream: Stream) {
        match stream {
            Stream::Taken(coding @ (Coding::H264 | Coding::Hevc)) if self.picture.is_none() => self.picture = Some((pid, coding)),
            Stream::Taken(coding @ (Coding::Aac | Coding::Opus { .. })) if self.sound.is_none() => {
                self.sound = Some((pid, coding));
            }
            Stream::Taken(_) => self.extra += 1,
            Stream::ForeignPicture(name) => _ = self.foreign_picture.get_or_insert(name),
            Stream::ForeignSound(name) => _ = self.foreign_sound.get_or_insert(name),
            Stream::Other => (),
        }
    }
}

enum Stream {
    Taken(Coding),
    ForeignPicture(&'static str),
    ForeignSound(&'static str),
    /// Subtitles, cues, data.
    Other,
}

/// Whole sections out of packets' payloads.
#[derive(Default)]
pub(super) struct Sections {
    bytes: BytesMut,
    open: bool,
}

impl Sections {
    pub fn push(&mut self, start: bool, payload: &[u8]) -> Option<Bytes> {
        let payload = if start {
            self.bytes.clear();
            self.open = true;
            // The pointer tells how much of an earlier section stands first.
            let (&pointer, rest) = payload.split_first()?;
            rest.get(usize::from(pointer)..)?
        } else {
            payload
        };
        if !self.open {
            return None;
        }
        self.bytes.extend_from_slice(&payload[..payload.len().min(SECTION_BYTES_MAX - self.bytes.len())]);
        let length = 3 + (usize::from(*self.bytes.get(1)? & 0xf) << 8 | usize::from(*self.bytes.get(2)?));
        if !(SECTION_BYTES_MIN..=SECTION_BYTES_MAX).contains(&length) {
            self.open = false;
            return None;
        }
        if self.bytes.len() < length {
            return None;
        }
        self.open = false;
        Some(self.bytes.split_to(length).freeze()).filter(|section| checksum(section) == 0)
    }
}

/// Annex A: over a section with its own checksum it is 0.
pub(super) fn checksum(section: &[u8]) -> u32 {
    section.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| if sum >> 31 == 1 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 })
    })
}

/// A section's own fields, behind the eight bytes that all have.
fn body(section: &[u8], table: u8) -> Option<&[u8]> {
    let current = section.get(5)? & 1 == 1;
    let body = section.get(8..section.len() - CHECKSUM_BYTES)?;
    (section[0] == table && current).then_some(body)
}

/// Where the map of the first program is.
pub(super) fn read_association(section: &[u8]) -> Option<u16> {
    let entries = body(section, TABLE_ASSOCIATION)?.chunks_exact(4);
    entries.map(|entry| (u16::from_be_bytes([entry[0], entry[1]]), pid(entry[2], entry[3]))).find_map(
        // Number 0 is the network's own table.
        |(number, pid)| (number != 0).then_some(pid),
    )
}

pub(super) fn read_map(section: &[u8]) -> Option<Program> {
    let body = body(section, TABLE_MAP)?;
    let about_program = length(*body.get(2)?, *body.get(3)?);
    let mut rest = body.get(4 + about_program..)?;
    let mut program = Program::default();
    while let Some((entry, tail)) = rest.split_first_chunk::<5>() {
        let (descriptors, tail) = tail.split_at_checked(length(entry[3], entry[4]))?;
        program.add(pid(entry[1], entry[2]), stream(entry[0], descriptors));
        rest = tail;
    }
    Some(program)
}

fn pid(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high & 0x1f, low])
}

fn length(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high & 0x3, low]))
}

/// Table 2-34, and what others have settled on.
fn stream(kind: u8, descriptors: &[u8]) -> Stream {
    match kind {
        0x1b => Stream::Taken(Coding::H264),
        0x24 => Stream::Taken(Coding::Hevc),
        0x0f => Stream::Taken(Coding::Aac),
        0x01 => Stream::ForeignPicture("MPEG-1 video"),
        0x02 => Stream::ForeignPicture("MPEG-2 video"),
        0x10 => Stream::ForeignPicture("MPEG-4 Part 2 video"),
        0x21 => Stream::ForeignPicture("JPEG 2000"),
        0x33 => Stream::ForeignPicture("VVC"),
        0xd1 => Stream::ForeignPicture("Dirac"),
        0xea => Stream::ForeignPicture("VC-1"),
        0x03 | 0x04 => Stream::ForeignSound("MP2 or MP3"),
        0x11 => Stream::ForeignSound("AAC in LATM"),
        0x81 => Stream::ForeignSound("AC-3"),
        0x84 | 0x87 => Stream::ForeignSound("E-AC-3"),
        0x82 | 0x85 | 0x86 | 0x8a if registration(descriptors) == Some(b"CUEI") => Stream::Other,
        0x82 | 0x85 | 0x8a => Stream::ForeignSound("DTS"),
        0x06 => private(descriptors),
        _ => Stream::Other,
    }
}

/// A private stream says by its descriptors what it is.
fn private(about: &[u8]) -> Stream {
    match registration(about) {
        Some(b"Opus") => match opus_channels(about) {
            Some(channels @ 1..=2) => Stream::Taken(Coding::Opus { channels }),
            // Two sounds in one, or surround.
            Some(_) => Stream::ForeignSound("Opus of more than two channels"),
            None => Stream::Taken(Coding::Opus { channels: 2 }),
        },
        Some(b"HEVC") => Stream::Taken(Coding::Hevc),
        Some(b"AV01") => Stream::ForeignPicture("AV1"),
        Some(b"VP09") => Stream::ForeignPicture("VP9"),
        Some(b"AC-3") => Stream::ForeignSound("AC-3"),
        Some(b"EAC3") => Stream::ForeignSound("E-AC-3"),
        Some(b"BSSD") => Stream::ForeignSound("SMPTE 302M"),
        _ if descriptors(about).any(|(tag, _)| tag == DESCRIPTOR_AC3) => Stream::ForeignSound("AC-3"),
        _ if descriptors(about).any(|(tag, _)| tag == DESCRIPTOR_EAC3) => Stream::ForeignSound("E-AC-3"),
        _ => Stream::Other,
    }
}

fn registration(about: &[u8]) -> Option<&[u8; 4]> {
    descriptors(about).find(|(tag, _)| *tag == DESCRIPTOR_REGISTRATION).and_then(|(_, content)| content.first_chunk())
}

fn opus_channels(about: &[u8]) -> Option<u8> {
    let content = descriptors(about).find(|(tag, _)| *tag == DESCRIPTOR_EXTENSION).map(|(_, content)| content)?;
    content.strip_prefix(&[EXTENSION_OPUS]).and_then(|content| content.first().copied())
}

fn descriptors(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[tag, length], tail) = rest.split_first_chunk::<2>()?;
        let (content, tail) = tail.split_at_checked(length.into())?;
        rest = tail;
        Some((tag, content))
    })
}
