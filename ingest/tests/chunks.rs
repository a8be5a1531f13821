//! The chunk reader against what encoders really do, and against the `rtmp` crate's own writer.

use bytes::{Bytes, BytesMut};
use ingest::rtmp::{
    chunk::{Violation, Writer, read_all, write_basic},
    message::{self, Message},
};

fn message(csid: u32, kind: u8, timestamp: u32, payload: Vec<u8>) -> Message {
    Message { csid, kind, stream_id: 1, timestamp, payload: payload.into() }
}

/// fmt 0: everything stated.
fn full(csid: u8, timestamp: u32, length: u32, kind: u8) -> Vec<u8> {
    let mut out = vec![csid];
    out.extend_from_slice(&timestamp.min(0xff_ffff).to_be_bytes()[1..]);
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.push(kind);
    out.extend_from_slice(&1_u32.to_le_bytes());
    if timestamp >= 0xff_ffff {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    out
}

fn read(bytes: &[u8]) -> Vec<(u32, u8, u32, usize)> {
    let (messages, violation) = read_all(bytes);
    assert_eq!(violation, None);
    messages.iter().map(|m| (m.csid, m.kind, m.timestamp, m.payload.len())).collect()
}

#[test]
fn messages_of_two_chunk_streams_may_alternate() {
    let mut bytes = full(6, 40, 300, message::VIDEO);
    bytes.extend_from_slice(&[1; 128]);
    bytes.extend(full(4, 41, 10, message::AUDIO));
    bytes.extend_from_slice(&[2; 10]);
    bytes.push(0xc6);
    bytes.extend_from_slice(&[1; 128]);
    bytes.push(0xc6);
    bytes.extend_from_slice(&[1; 44]);
    assert_eq!(read(&bytes), [(4, message::AUDIO, 41, 10), (6, message::VIDEO, 40, 300)]);
}

#[test]
fn the_chunk_size_may_change_in_the_middle_of_a_message() {
    let mut bytes = full(6, 0, 300, message::VIDEO);
    bytes.extend_from_slice(&[1; 128]);
    bytes.extend(full(2, 0, 4, message::SET_CHUNK_SIZE));
    bytes.extend_from_slice(&4096_u32.to_be_bytes());
    bytes.push(0xc6);
    bytes.extend_from_slice(&[1; 172]);
    assert!(read(&bytes).contains(&(6, message::VIDEO, 0, 300)));
}

#[test]
fn extended_timestamps_come_with_fmt_3_or_without() {
    let at = 0x0123_4567;
    for repeats in [true, false] {
        let mut bytes = full(6, at, 200, message::VIDEO);
        bytes.extend_from_slice(&[7; 128]);
        bytes.push(0xc6);
        if repeats {
            bytes.extend_from_slice(&at.to_be_bytes());
        }
        bytes.extend_from_slice(&[7; 72]);
        bytes.extend(full(4, at + 1, 3, message::AUDIO));
        bytes.extend_from_slice(&[8; 3]);
        assert_eq!(read(&bytes), [(6, message::VIDEO, at, 200), (4, message::AUDIO, at + 1, 3)], "repeats: {repeats}");
    }
}

#[test]
fn an_abort_forgets_half_a_message() {
    let mut bytes = full(6, 0, 300, message::VIDEO);
    bytes.extend_from_slice(&[1; 128]);
    bytes.extend(full(2, 0, 4, message::ABORT));
    bytes.extend_from_slice(&6_u32.to_be_bytes());
    bytes.extend(full(6, 40, 5, message::VIDEO));
    bytes.extend_from_slice(&[2; 5]);
    assert_eq!(read(&bytes).last(), Some(&(6, message::VIDEO, 40, 5)));
}

#[test]
fn violations_have_names() {
    let check = |bytes: Vec<u8>, expected: fn(&Violation) -> bool| {
        let (_, violation) = read_all(&bytes);
        assert!(violation.as_ref().is_some_and(expected), "{violation:?}");
    };
    check(full(6, 0, 0xff_ffff, message::VIDEO), |v| matches!(v, Violation::TooLong { .. }));
    check(full(6, 0, 70_000, message::COMMAND_AMF0), |v| matches!(v, Violation::TooLong { .. }));
    let mut restarted = full(6, 0, 300, message::AUDIO);
    restarted.extend_from_slice(&[1; 128]);
    restarted.extend(full(6, 0, 10, message::AUDIO));
    check(restarted, |v| matches!(v, Violation::RestartedMidMessage(6)));
    check(vec![0xc6], |v| matches!(v, Violation::NoHeaderBefore(6)));
    let many = (3..=66_u32).flat_map(|csid| {
        let mut chunk = Vec::new();
        write_basic(&mut chunk, 0, csid);
        chunk.extend_from_slice(&full(0, 0, 300, message::AUDIO)[1..]);
        chunk.extend_from_slice(&[0; 128]);
        chunk
    });
    let mut many: Vec<u8> = many.collect();
    write_basic(&mut many, 0, 400);
    many.extend_from_slice(&full(0, 0, 300, message::AUDIO)[1..]);
    check(many, |v| matches!(v, Violation::TooManyChunkStreams));
}

#[test]
fn our_writer_is_read_back() {
    let sent: Vec<Message> = (0..40_u32)
        .map(|n| message(if n % 2 == 0 { 4 } else { 700 }, message::VIDEO, n * 0x0100_0000, vec![n as u8; (n * 97) as usize]))
        .collect();
    let mut bytes = Vec::new();
    let mut writer = Writer::default();
    for (n, message) in sent.iter().enumerate() {
        if n == 20 {
            writer.set_chunk_size(&mut bytes, 1000);
        }
        writer.write(&mut bytes, message);
    }
    let (read, violation) = read_all(&bytes);
    assert_eq!(violation, None);
    let read: Vec<_> = read.into_iter().filter(|m| m.kind == message::VIDEO).collect();
    assert_eq!(read, sent);
}

/// An independent writer: the `rtmp` crate's AMF0, whose bytes our command reader must understand.
#[test]
fn the_rtmp_crates_commands_are_understood() {
    use xflv::amf0::{Amf0ValueType, amf0_writer::Amf0Writer};
    let mut writer = Amf0Writer::new();
    for value in [
        Amf0ValueType::UTF8String("connect".into()),
        Amf0ValueType::Number(1.0),
        Amf0ValueType::Object([("app".to_owned(), Amf0ValueType::UTF8String("live".into()))].into_iter().collect()),
    ] {
        writer.write_any(&value).unwrap();
    }
    let bytes: BytesMut = writer.extract_current_bytes();
    let call = ingest::rtmp::command::read(&Bytes::from(bytes)).unwrap();
    assert_eq!(call.transaction, 1.0);
    assert!(matches!(call.command, ingest::rtmp::command::Command::Connect { app, .. } if app == "live"));
}
