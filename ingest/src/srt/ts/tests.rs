//! Streams made by hand: tables, PES packets, and what goes wrong with them.

use super::{program::checksum, *};

const PICTURE: u16 = 0x100;
const SOUND: u16 = 0x101;
const MAP: u16 = 0x1000;

/// Writes transport packets, each with its stream's next counter.
#[derive(Default)]
struct Muxer {
    bytes: Vec<u8>,
    counters: std::collections::HashMap<u16, u8>,
}

impl Muxer {
    fn packet(&mut self, pid: u16, start: bool, payload: &[u8]) {
        let counter = self.counters.entry(pid).or_default();
        let stuffing = PACKET_BYTES - 4 - payload.len();
        let begin = self.bytes.len();
        self.bytes.extend([SYNC, u8::from(start) << 6 | (pid >> 8) as u8, pid as u8, *counter & 0xf | 0x10]);
        *counter = counter.wrapping_add(1);
        if stuffing > 0 {
            self.bytes[begin + 3] |= 0x20;
            self.bytes.push(stuffing as u8 - 1);
            self.bytes.extend([&[0][..], &[0xff; PACKET_BYTES]].concat()[..stuffing - 1].iter());
        }
        self.bytes.extend(payload);
    }

    fn section(&mut self, pid: u16, table: u8, body: &[u8]) {
        let length = body.len() + 5 + 4;
        let mut section = vec![table, 0xb0 | (length >> 8) as u8, length as u8, 0, 1, 0xc1, 0, 0];
        section.extend(body);
        let sum = checksum(&section);
        section.extend(sum.to_be_bytes());
        let mut payload = vec![0];
        payload.extend(section);
        for (at, piece) in payload.chunks(PACKET_BYTES - 4).enumerate() {
            self.packet(pid, at == 0, piece);
        }
    }

    fn tables(&mut self, streams: &[(u8, u16, &[u8])]) {
        self.section(PID_ASSOCIATION, 0, &[0, 0, 0xe0, 0x10, 0, 1, 0xe0 | (MAP >> 8) as u8, MAP as u8]);
        let mut body = vec![0xe1, 0, 0xf0, 0];
        for (kind, pid, descriptors) in streams {
            body.extend([*kind, 0xe0 | (pid >> 8) as u8, *pid as u8, 0xf0, descriptors.len() as u8]);
            body.extend(*descriptors);
        }
        self.section(MAP, 2, &body);
    }

    fn pes(&mut self, pid: u16, pts: i64, dts: i64, sized: bool, payload: &[u8]) {
        let mut pes = vec![0, 0, 1, 0xe0];
        let length = if sized { payload.len() + 13 } else { 0 };
        pes.extend((length as u16).to_be_bytes());
        pes.extend([0x80, 0xc0, 10]);
        for (mark, time) in [(0x31, pts), (0x11, dts)] {
            let time = time & ((1 << 33) - 1);
            pes.push(mark | (time >> 29) as u8 & 0xe);
            pes.extend(((time >> 14) as u16 | 1).to_be_bytes());
            pes.extend(((time << 1) as u16 | 1).to_be_bytes());
        }
        pes.extend(payload);
        for (at, piece) in pes.chunks(PACKET_BYTES - 4).enumerate() {
            self.packet(pid, at == 0, piece);
        }
    }
}

fn read(bytes: &[u8]) -> Vec<Unit> {
    let (mut demuxer, mut units) = (Demuxer::default(), Vec::new());
    demuxer.push(bytes, &mut units);
    demuxer.finish(&mut units);
    units
}

fn program(streams: &[(u8, u16, &[u8])]) -> Program {
    let mut muxer = Muxer::default();
    muxer.tables(streams);
    match read(&muxer.bytes).pop() {
        Some(Unit::Program(program)) => program,
        other => panic!("{other:?}"),
    }
}

const H264: (u8, u16, &[u8]) = (0x1b, PICTURE, &[]);
const AAC: (u8, u16, &[u8]) = (0x0f, SOUND, &[]);

#[test]
fn the_map_says_what_each_stream_is() {
    let check = |streams: &[(u8, u16, &[u8])], picture, sound, foreign: [Option<&str>; 2]| {
        let program = program(streams);
        assert_eq!((program.picture(), program.sound()), (picture, sound), "{streams:?}");
        assert_eq!([program.foreign_picture(), program.foreign_sound()], foreign, "{streams:?}");
    };
    let opus = Some(Coding::Opus { channels: 1 });
    check(&[H264, AAC], Some(Coding::H264), Some(Coding::Aac), [None, None]);
    check(&[AAC, (0x24, PICTURE, &[])], Some(Coding::Hevc), Some(Coding::Aac), [None, None]);
    check(&[(0x06, SOUND, b"\x05\x04Opus\x7f\x02\x80\x01")], None, opus, [None, None]);
    check(&[(0x06, SOUND, b"\x05\x04Opus\x7f\x02\x80\x06")], None, None, [None, Some("Opus of more than two channels")]);
    check(&[(0x02, PICTURE, &[]), (0x03, SOUND, &[])], None, None, [Some("MPEG-2 video"), Some("MP2 or MP3")]);
    check(&[H264, (0x81, 0x102, &[]), AAC], Some(Coding::H264), Some(Coding::Aac), [None, None]);
    check(&[H264, (0x06, SOUND, b"\x6a\x01\x00")], Some(Coding::H264), None, [None, Some("AC-3")]);
    check(&[H264, (0x06, SOUND, b"\x59\x08deutsch\x00")], Some(Coding::H264), None, [None, None]);
    check(&[(0x06, PICTURE, b"\x05\x04AV01")], None, None, [Some("AV1"), None]);
    check(&[(0x86, 0x102, b"\x05\x04CUEI"), AAC], None, Some(Coding::Aac), [None, None]);
    assert_eq!(program(&[H264, AAC, (0x0f, 0x102, &[]), (0x1b, 0x103, &[])]).extra, 2);
}

#[test]
fn a_map_may_need_several_packets_and_is_checked() {
    let language = [10, 4, b'e', b'n', b'g', 0].repeat(30);
    let mut muxer = Muxer::default();
    muxer.tables(&[(0x0f, SOUND, &language[..180]), H264]);
    assert!(matches!(read(&muxer.bytes)[..], [Unit::Program(_)]));
    let at = muxer.bytes.len() - 10;
    muxer.bytes[at] ^= 1;
    assert_eq!(read(&muxer.bytes), []);
}

#[test]
fn times_go_on_over_the_wrap() {
    let wrap = 1_i64 << 33;
    let mut muxer = Muxer::default();
    muxer.tables(&[H264, AAC]);
    let begin = wrap - 9000;
    for n in 0..6 {
        muxer.pes(PICTURE, begin + n * 3000 + 6000, begin + n * 3000, n % 2 == 0, &[n as u8; 300]);
        muxer.pes(SOUND, begin + n * 3000 - 1500, begin + n * 3000 - 1500, true, &[n as u8; 10]);
    }
    let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
    for unit in read(&muxer.bytes) {
        match unit {
            Unit::Picture(pes) => pictures.push((pes.pts, pes.dts, pes.payload.len())),
            Unit::Sound(pes) => sounds.push(pes.pts),
            Unit::Program(_) => (),
            Unit::Damaged => panic!("nothing is"),
        }
    }
    assert_eq!(pictures, (0..6).map(|n| (begin + n * 3000 + 6000, begin + n * 3000, 300)).collect::<Vec<_>>());
    assert_eq!(sounds, (0..6).map(|n| begin + n * 3000 - 1500).collect::<Vec<_>>());
}

#[test]
fn what_lacks_a_packet_is_damaged_and_nothing_else() {
    let mut muxer = Muxer::default();
    muxer.tables(&[H264]);
    for n in 0..3 {
        muxer.pes(PICTURE, n * 3000, n * 3000, false, &[n as u8; 1000]);
    }
    let packets = muxer.bytes.len() / PACKET_BYTES;
    let each = (packets - 2) / 3;
    let payloads = |bytes: &[u8]| {
        let units = read(bytes);
        let pictures = units.iter().filter(|unit| matches!(unit, Unit::Picture(pes) if pes.payload.len() == 1000)).count();
        (pictures, units.len() - 1 - pictures)
    };
    assert_eq!(payloads(&muxer.bytes), (3, 0));
    for lost in 2..packets {
        let mut bytes = muxer.bytes.clone();
        bytes.drain(lost * PACKET_BYTES..(lost + 1) * PACKET_BYTES);
        let (pictures, damaged) = payloads(&bytes);
        let expected = match ((lost - 2) / each, (lost - 2) % each) {
            (0, 0) => (2, 0),
            // Whether it was the end of one or the beginning of the next, nothing tells.
            (_, 0) => (1, 1),
            // Of the very last packet nothing tells that it was there.
            (2, last) if last + 1 == each => (2, 1),
            _ => (2, 1),
        };
        assert_eq!((pictures, damaged), expected, "{lost} of {packets}");
    }
    // A packet that is sent twice counts once.
    let mut bytes = muxer.bytes.clone();
    let twice = bytes[3 * PACKET_BYTES..4 * PACKET_BYTES].to_vec();
    bytes.splice(4 * PACKET_BYTES..4 * PACKET_BYTES, twice);
    assert_eq!(payloads(&bytes), (3, 0));
}

#[test]
fn noise_is_skipped_and_nothing_grows() {
    let mut muxer = Muxer::default();
    muxer.tables(&[H264]);
    let mut noisy = b"noise".to_vec();
    noisy.extend(&muxer.bytes);
    assert_eq!(read(&noisy).len(), 1);

    let (mut demuxer, mut units) = (Demuxer::default(), Vec::new());
    demuxer.push(&muxer.bytes, &mut units);
    let mut endless = Muxer::default();
    endless.pes(PICTURE, 0, 0, false, &[1; 100]);
    (0..1000).for_each(|_| endless.packet(PICTURE, false, &[1; 184]));
    for _ in 0..60 {
        let start = endless.bytes.len() - 992 * PACKET_BYTES;
        demuxer.push(&endless.bytes[start..], &mut units);
        assert!(demuxer.picture.bytes.len() <= PICTURE_BYTES_MAX);
    }
}
