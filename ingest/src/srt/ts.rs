//! MPEG-2 transport stream (ISO/IEC 13818-1) to elementary units: which streams there are, and their PES packets with
//! exact times.
//!
//! Pure and bounded. GStreamer's `tsdemux` is not used: it bends times to the clock of arrival, waits longer, and says
//! nothing of what it leaves out; this keeps the publisher's 90 kHz to the tick. One program, one picture, one sound.

mod program;

use bytes::{Bytes, BytesMut};

pub use program::{Coding, Program};
use program::{Sections, read_association, read_map};

const PACKET_BYTES: usize = 188;
const SYNC: u8 = 0x47;
const PID_ASSOCIATION: u16 = 0;
const PID_NULL: u16 = 0x1fff;
/// The largest picture that is taken: an intra-only one of 4K at 500 Mbit/s has 2 MiB.
const PICTURE_BYTES_MAX: usize = 8 << 20;
/// Sound in one PES packet: muxers put some frames of a KiB into one.
const SOUND_BYTES_MAX: usize = 256 << 10;
/// 2.4.3.7: a PES packet's header before its optional fields.
const PES_HEAD: usize = 9;
/// Times have 33 bits.
const TIME_BITS: u32 = 33;

/// What a piece of the stream came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Unit {
    /// What the program consists of; told again when it changes.
    Program(Program),
    Picture(Pes),
    Sound(Pes),
    /// A PES packet of the picture or the sound was lost in part, or cannot be read.
    Damaged,
}

/// The payload of one PES packet. Times are ticks of 90 kHz that go on over the wrap.
#[derive(Debug, PartialEq, Eq)]
pub struct Pes {
    pub pts: i64,
    pub dts: i64,
    pub payload: Bytes,
}

/// Calling order: `push`, which gives each unit to `units`.
#[derive(Default)]
pub struct Demuxer {
    /// Less than a packet.
    rest: BytesMut,
    association: Sections,
    map: Option<(u16, Sections)>,
    program: Program,
    picture: Assembly,
    sound: Assembly,
    times: Times,
}

/// One PES packet in the making.
#[derive(Default)]
struct Assembly {
    pid: Option<u16>,
    bytes: BytesMut,
    /// A beginning was seen, and nothing since was lost.
    open: bool,
    counter: Option<u8>,
}

/// One transport packet without its header.
struct Packet<'a> {
    pid: u16,
    start: bool,
    counter: u8,
    /// The sender says that the counter jumps here.
    discontinuity: bool,
    payload: &'a [u8],
}

impl Demuxer {
    pub fn push(&mut self, bytes: &[u8], units: &mut Vec<Unit>) {
        if self.rest.is_empty() {
            let whole = self.packets(bytes, units);
            self.rest.extend_from_slice(&bytes[whole..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let mut gathered = std::mem::take(&mut self.rest);
            let whole = self.packets(&gathered, units);
            self.rest = gathered.split_off(whole);
        }
    }

    /// What is complete though nothing tells: the stream has ended.
    pub fn finish(&mut self, units: &mut Vec<Unit>) {
        for of in [Of::Picture, Of::Sound] {
            self.close(of, units);
        }
    }

    /// Reads whole packets; gives how much was used. What is no packet is skipped up to the next sync byte.
    fn packets(&mut self, bytes: &[u8], units: &mut Vec<Unit>) -> usize {
        let mut at = 0;
        while let Some(packet) = bytes.get(at..at + PACKET_BYTES) {
            if packet[0] != SYNC {
                at += packet.iter().position(|byte| *byte == SYNC).unwrap_or(PACKET_BYTES);
                continue;
            }
            at += PACKET_BYTES;
            if let Some(packet) = Packet::read(packet) {
                self.packet(&packet, units);
            }
        }
        at
    }

    fn packet(&mut self, packet: &Packet<'_>, units: &mut Vec<Unit>) {
        match packet.pid {
            PID_NULL => (),
            PID_ASSOCIATION => {
                let Some(section) = self.association.push(packet.start, packet.payload) else { return };
                let Some(pid) = read_association(&section) else { return };
                if self.map.as_ref().is_none_or(|(known, _)| *known != pid) {
                    self.map = Some((pid, Sections::default()));
                }
            }
            pid if self.picture.pid == Some(pid) => self.elementary(Of::Picture, packet, units),
            pid if self.sound.pid == Some(pid) => self.elementary(Of::Sound, packet, units),
            pid => {
                let Some((_, sections)) = self.map.as_mut().filter(|(known, _)| *known == pid) else { return };
                let Some(program) = sections.push(packet.start, packet.payload).and_then(|section| read_map(&section)) else {
                    return;
                };
                self.change(program, units);
            }
        }
    }

    fn change(&mut self, program: Program, units: &mut Vec<Unit>) {
        if program == self.program {
            return;
        }
        self.finish(units);
        for (assembly, pid) in [(&mut self.picture, program.picture_pid()), (&mut self.sound, program.sound_pid())] {
            *assembly = Assembly { pid, ..Assembly::default() };
        }
        self.program = program.clone();
        units.push(Unit::Program(program));
    }

    fn elementary(&mut self, of: Of, packet: &Packet<'_>, units: &mut Vec<Unit>) {
        let bytes_max = if of == Of::Picture { PICTURE_BYTES_MAX } else { SOUND_BYTES_MAX };
        let assembly = self.assembly(of);
        match assembly.follows(packet) {
            Follows::Repeated => return,
            Follows::On => (),
            // What was begun lacks a piece, or what came next its beginning.
            Follows::Lost => {
                assembly.open = false;
                units.push(Unit::Damaged);
            }
        }
        if packet.start {
            self.close(of, units);
            let assembly = self.assembly(of);
            assembly.bytes.clear();
            assembly.open = true;
        }
        let assembly = self.assembly(of);
        if !assembly.open {
            return;
        }
        if assembly.bytes.len() + packet.payload.len() > bytes_max {
            assembly.open = false;
            return units.push(Unit::Damaged);
        }
        assembly.bytes.extend_from_slice(packet.payload);
        if assembly.is_whole() {
            self.close(of, units);
        }
    }

    fn close(&mut self, of: Of, units: &mut Vec<Unit>) {
        let assembly = self.assembly(of);
        if !std::mem::take(&mut assembly.open) {
            return;
        }
        let bytes = assembly.bytes.split().freeze();
        units.push(match (self.times.read(bytes), of) {
            (Some(pes), Of::Picture) => Unit::Picture(pes),
            (Some(pes), Of::Sound) => Unit::Sound(pes),
            (None, _) => Unit::Damaged,
        });
    }

    fn assembly(&mut self, of: Of) -> &mut Assembly {
        match of {
            Of::Picture => &mut self.picture,
            Of::Sound => &mut self.sound,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Picture,
    Sound,
}

impl<'a> Packet<'a> {
    /// `None` of one without a payload, or whose lengths contradict it, or that the network has marked as broken.
    fn read(packet: &'a [u8]) -> Option<Self> {
        let (head, mut payload) = packet.split_at(4);
        let (broken, scrambled) = (head[1] & 0x80 != 0, head[3] & 0xc0 != 0);
        if broken || scrambled || head[3] & 0x10 == 0 {
            return None;
        }
        let mut discontinuity = false;
        if head[3] & 0x20 != 0 {
            let (&length, rest) = payload.split_first()?;
            discontinuity = length > 0 && rest[0] & 0x80 != 0;
            payload = rest.get(usize::from(length)..)?;
        }
        Some(Self {
            pid: u16::from_be_bytes([head[1] & 0x1f, head[2]]),
            start: head[1] & 0x40 != 0,
            counter: head[3] & 0xf,
            discontinuity,
            payload,
        })
    }
}

#[derive(PartialEq, Eq)]
enum Follows {
    On,
    /// 2.4.3.3: a packet may be sent twice.
    Repeated,
    Lost,
}

impl Assembly {
    fn follows(&mut self, packet: &Packet<'_>) -> Follows {
        match self.counter.replace(packet.counter) {
            None => Follows::On,
            Some(_) if packet.discontinuity => Follows::On,
            Some(last) if packet.counter == last => Follows::Repeated,
            Some(last) if packet.counter == (last + 1) & 0xf => Follows::On,
            Some(_) => Follows::Lost,
        }
    }

    /// Where a PES packet says its length; that of a picture mostly does not, and ends where the next one begins.
    fn is_whole(&self) -> bool {
        let Some(length) = self.bytes.get(4..6).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]]))) else {
            return false;
        };
        length > 0 && self.bytes.len() >= length + 6
    }
}

/// 33 bits of 90 kHz to 64: the next time is the one nearest to the last, of whichever stream.
#[derive(Default)]
struct Times {
    last: Option<i64>,
}

impl Times {
    fn read(&mut self, bytes: Bytes) -> Option<Pes> {
        if bytes.len() < PES_HEAD || bytes[..3] != [0, 0, 1] {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let end = if length == 0 { bytes.len() } else { bytes.len().min(length + 6) };
        let begin = PES_HEAD + usize::from(bytes[8]);
        let (pts, dts) = match bytes[7] >> 6 {
            0b10 => (stamp(bytes.get(PES_HEAD..begin.min(end))?)?, None),
            0b11 => (stamp(bytes.get(PES_HEAD..begin.min(end))?)?, Some(stamp(bytes.get(PES_HEAD + 5..begin.min(end))?)?)),
            // 2.7.4 asks for one at least every 0.7 s; live muxers write all.
            _ => return None,
        };
        let dts = self.widen(dts.unwrap_or(pts));
        let pts = nearest(pts, dts);
        (begin < end).then(|| Pes { pts, dts, payload: bytes.slice(begin..end) })
    }

    fn widen(&mut self, time: i64) -> i64 {
        let wide = self.last.map_or(time, |last| nearest(time, last));
        self.last = Some(wide);
        wide
    }
}

/// The time that ends in these 33 bits and is nearest to another.
fn nearest(time: i64, other: i64) -> i64 {
    let wrap = 1_i64 << TIME_BITS;
    let step = (time - other).rem_euclid(wrap);
    other + if step >= wrap / 2 { step - wrap } else { step }
}

/// 2.4.3.6: 33 bits between marker bits.
fn stamp(bytes: &[u8]) -> Option<i64> {
    let &[a, b, c, d, e] = bytes.first_chunk()?;
    let high = i64::from(a >> 1 & 7) << 30;
    let middle = i64::from(u16::from_be_bytes([b, c]) >> 1) << 15;
    Some(high | middle | i64::from(u16::from_be_bytes([d, e]) >> 1))
}

#[cfg(test)]
#[path = "ts/tests.rs"]
mod tests;
