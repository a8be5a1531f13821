//! The session against scripted and recorded peers, in virtual time.

use super::*;
use crate::rtmp::{amf0, chunk::Writer, command as words};

const FFMPEG: &[u8] = include_bytes!("../../testdata/ffmpeg-5.1.9.bin");
const GSTREAMER: &[u8] = include_bytes!("../../testdata/gstreamer-1.22.0-rtmp2sink.bin");
const OBS: &[u8] = include_bytes!("../../testdata/obs-29.0.2.bin");
const ENHANCED: &[u8] = include_bytes!("../../testdata/ffmpeg-9.0.2-enhanced.bin");
/// The same AVCDecoderConfigurationRecord as media-core's tests: 640x360.
const AVC_HEADER: &[u8] = &[
    0x17, 0, 0, 0, 0, 0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2,
    0xe0, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb,
    0xc3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];
const AVC_FRAME: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88];

/// A peer that writes what it is told, and reads what it is answered.
struct Peer {
    session: Session,
    now: Instant,
    writer: Writer,
    reader: chunk::Reader,
    sent: Vec<u8>,
    events: Vec<Event>,
}

impl Peer {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(now, 1, Deadlines::default()),
            now,
            writer: Writer::default(),
            reader: chunk::Reader::default(),
            sent: Vec::new(),
            events: Vec::new(),
        }
    }

    /// With the handshake behind it.
    fn shaken() -> Self {
        let mut peer = Self::new();
        peer.feed(&[&[3][..], &[0; 2 * 1536]].concat());
        peer.sent.drain(..1 + 2 * 1536);
        peer
    }

    fn connected() -> Self {
        let mut peer = Self::shaken();
        peer.command(0, "connect", 1.0, &[Value::object([("app", Value::text("live"))])]);
        peer
    }

    fn asking(key: &str) -> Self {
        let mut peer = Self::connected();
        peer.command(1, "publish", 5.0, &[Value::Null, Value::text(key), Value::text("live")]);
        peer
    }

    fn live() -> Self {
        let mut peer = Self::asking("a-key");
        peer.session.accept(peer.now);
        peer.drain();
        peer
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.session.handle_input(self.now, bytes);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit(bytes) => self.sent.extend_from_slice(&bytes),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn message(&mut self, kind: u8, stream_id: u32, timestamp: u32, payload: &[u8]) {
        let mut out = Vec::new();
        self.writer.write(&mut out, &Message { csid: 4, kind, stream_id, timestamp, payload: Bytes::copy_from_slice(payload) });
        self.feed(&out);
    }

    fn command(&mut self, stream_id: u32, name: &str, transaction: f64, arguments: &[Value<'_>]) {
        let mut payload = Vec::new();
        amf0::write_all(&mut payload, &[Value::text(name), Value::Number(transaction)]);
        amf0::write_all(&mut payload, arguments);
        self.message(message::COMMAND_AMF0, stream_id, 0, &payload);
    }

    /// What was sent since the last call, as messages.
    fn answers(&mut self) -> Vec<Message> {
        let sent = std::mem::take(&mut self.sent);
        let (mut input, mut messages) = (&sent[..], Vec::new());
        while !input.is_empty() {
            messages.extend(self.reader.read(&mut input).unwrap());
        }
        messages
    }

    /// Name, transaction and status code of each command answered.
    fn commands(&mut self) -> Vec<String> {
        self.answers()
            .iter()
            .filter(|m| m.kind == message::COMMAND_AMF0)
            .map(|m| {
                let values = amf0::read_all(&m.payload).unwrap();
                let code = values.iter().find_map(|v| v.property("code")?.as_str().map(str::to_owned)).unwrap_or_default();
                format!("{} {} {code}", values[0].as_str().unwrap(), values[1].as_f64().unwrap()).trim_end().to_owned()
            })
            .collect()
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn samples(&self) -> Vec<&Sample> {
        self.events.iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None }).collect()
    }
}

#[test]
fn every_command_is_answered_in_every_state() {
    type Made = fn() -> Peer;
    let states: [(&str, Made); 4] =
        [("fresh", Peer::shaken), ("connected", Peer::connected), ("asked", || Peer::asking("k")), ("live", Peer::live)];
    let names = [
        "connect",
        "releaseStream",
        "FCPublish",
        "createStream",
        "_checkbw",
        "publish",
        "FCUnpublish",
        "deleteStream",
        "play",
        "dance",
    ];
    let mut table = String::new();
    for (state, peer) in states {
        for name in names {
            let mut peer = peer();
            peer.answers();
            let arguments = [Value::Null, Value::text("a-key")];
            let object = [Value::object([("app", Value::text("live"))])];
            peer.command(1, name, 7.0, if name == "connect" { &object } else { &arguments });
            let closed = peer.closed().map_or("", |reason| reason.outcome());
            table += format!("{state} {name}: {} {closed}", peer.commands().join(", ")).trim_end();
            table.push('\n');
        }
    }
    assert_eq!(table, include_str!("../../testdata/transitions.txt"), "the table is now:\n{table}");
}

#[test]
fn a_transaction_is_answered_by_its_number() {
    for number in [1.0, 2.0, 4711.0, 0.5, -3.0, 1e9] {
        let mut peer = Peer::connected();
        peer.answers();
        peer.command(0, "createStream", number, &[Value::Null]);
        assert_eq!(peer.commands(), [format!("_result {number}")]);
    }
}

#[test]
fn connect_takes_every_amf0_type() {
    let mut payload = Vec::new();
    amf0::write_all(&mut payload, &[Value::text("connect"), Value::Number(1.0)]);
    let name = |out: &mut Vec<u8>, name: &str| {
        out.extend_from_slice(&(name.len() as u16).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    };
    payload.push(3);
    name(&mut payload, "app");
    amf0::write(&mut payload, &Value::text("live"));
    name(&mut payload, "fourCcList"); // a strict array, as enhanced RTMP sends it
    payload.extend_from_slice(&[0x0a, 0, 0, 0, 2, 2, 0, 4, b'a', b'v', b'0', b'1', 2, 0, 4, b'h', b'v', b'c', b'1']);
    for (at, value) in [
        &[0_u8, 0x40, 0, 0, 0, 0, 0, 0, 0][..], // number
        &[1, 1],                                // boolean
        &[5],                                   // null
        &[6],                                   // undefined
        &[7, 0, 1],                             // reference
        &[8, 0, 0, 0, 0, 0, 0, 9],              // empty ECMA array
        &[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],    // date
        &[12, 0, 0, 0, 1, b'x'],                // long string
        &[13],                                  // unsupported
        &[15, 0, 0, 0, 1, b'x'],                // XML
        &[16, 0, 1, b'T', 0, 0, 9],             // typed object
    ]
    .iter()
    .enumerate()
    {
        name(&mut payload, &format!("k{at}"));
        payload.extend_from_slice(value);
    }
    payload.extend_from_slice(&[0, 0, 9]);
    let mut peer = Peer::shaken();
    peer.message(message::COMMAND_AMF0, 0, 0, &payload);
    assert_eq!(peer.commands(), ["_result 1 NetConnection.Connect.Success"], "{:?}", peer.closed());
}

#[test]
fn a_wrong_key_is_told_in_words_and_never_repeated() {
    let mut peer = Peer::asking("secret-key");
    assert!(matches!(peer.events[0], Event::PublishRequested { .. }));
    peer.answers();
    peer.session.close(peer.now, CloseReason::Denied("this stream key is not known here".into()));
    peer.drain();
    let sent = String::from_utf8_lossy(&peer.sent).into_owned();
    assert!(sent.contains("NetStream.Publish.BadName") && sent.contains("not known here") && !sent.contains("secret-key"));
    assert!(!peer.session.is_finished(), "the peer may read it first");
    peer.session.handle_timeout(peer.now + LINGER);
    assert!(peer.session.is_finished());
}

#[test]
fn other_codecs_are_refused_by_name() {
    let check = |kind: u8, tag: &[u8], name: &str| {
        let mut peer = Peer::live();
        peer.answers();
        peer.message(kind, 1, 0, tag);
        let sent = String::from_utf8_lossy(&peer.sent).into_owned();
        assert!(sent.contains("NetStream.Publish.Rejected") && sent.contains(name) && sent.contains("OBS"), "{name}: {sent}");
        assert_eq!(peer.closed().map(CloseReason::outcome), Some("media_refused"));
    };
    check(message::VIDEO, b"\x90vp09\x01", "VP9");
    check(message::VIDEO, b"\x91vvc1\0\0\0", "VVC");
    check(message::VIDEO, b"\x96\x10vp08\0\0\0\0", "VP8");
    check(message::VIDEO, b"\x95av01\x80", "MPEG-2 TS");
    check(message::VIDEO, &[0x1d, 0], "AV1");
    check(message::VIDEO, &[0x12, 0, 0], "Sorenson");
    check(message::AUDIO, &[0x2f, 0xff], "MP3");
    check(message::AUDIO, &[0xb6, 0], "Speex");
    check(message::AUDIO, b"\xdf\0", "Opus");
    check(message::AUDIO, b"\x91fLaC", "FLAC");
    check(message::AUDIO, b"\x90ac-3", "AC-3");
    check(message::AUDIO, b"\x90ec-3", "E-AC-3");
    check(message::AUDIO, b"\x91.mp3", "MP3");
    check(message::AUDIO, &[0x76, 0], "G.711");
}

#[test]
fn headers_that_cannot_be_used_are_refused_in_words() {
    let check = |kind: u8, tag: &[u8], words: &str| {
        let mut peer = Peer::live();
        peer.message(kind, 1, 0, tag);
        let sent = String::from_utf8_lossy(&peer.sent).into_owned();
        assert!(sent.contains("NetStream.Publish.Rejected") && sent.contains(words), "{words}: {sent}");
    };
    check(message::VIDEO, &[0x1c, 0, 0, 0, 0, 1], "HEVC: the decoder configuration is cut short");
    check(message::VIDEO, b"\x90hvc1\x01", "HEVC: ");
    check(message::VIDEO, b"\x90av01\x81", "AV1: ");
    check(message::AUDIO, b"\x90OpusOpusHead\x01\x06\0\0\0\0\0\0\0\0\x01", "Opus: 6 channels");
}

#[test]
fn who_can_reconnect_is_asked_to_before_the_farewell() {
    let check = |caps: f64, expected: &[&str]| {
        let mut peer = Peer::shaken();
        let object = Value::object([("app", Value::text("live")), ("capsEx", Value::Number(caps))]);
        peer.command(0, "connect", 1.0, &[object]);
        peer.command(1, "publish", 5.0, &[Value::Null, Value::text("k"), Value::text("live")]);
        peer.session.accept(peer.now);
        peer.drain();
        peer.answers();
        peer.session.close(peer.now, CloseReason::Drain);
        peer.drain();
        assert_eq!(peer.commands(), expected);
    };
    let farewell = "onStatus 0 NetConnection.Connect.Closed";
    check(1.0, &["onStatus 0 NetConnection.Connect.ReconnectRequest", farewell]);
    check(14.0, &[farewell]);
}

#[test]
fn a_layer_that_is_not_taken_is_dropped_and_the_picture_goes_on() {
    let mut peer = Peer::live();
    peer.message(message::VIDEO, 1, 0, AVC_HEADER);
    peer.message(message::VIDEO, 1, 0, b"\x96\x00vp09\x01R"); // another codec
    peer.message(message::VIDEO, 1, 0, b"\x96\x00avc1\x02R"); // a header that cannot be read
    peer.message(message::VIDEO, 1, 0, AVC_FRAME);
    peer.message(message::VIDEO, 1, 0, b"\x96\x03avc1\x02\0\0\0\x02\x65\x88");
    peer.message(message::AUDIO, 1, 0, b"\x95\x00fLaC\x01R");
    assert_eq!((peer.closed(), peer.samples().len()), (None, 1));
    let drops = peer.session.drops();
    let counted = [Dropped::ExtraTrack, Dropped::Malformed, Dropped::NoConfiguration].map(|dropped| drops.of(dropped));
    assert_eq!((counted, drops.total()), ([2, 1, 1], 4));
}

#[test]
fn a_layer_described_first_takes_no_announcement_back() {
    let mut peer = Peer::live();
    let mut payload = Vec::new();
    amf0::write_all(&mut payload, &[Value::text("onMetaData"), Value::object([("videocodecid", Value::Number(7.0))])]);
    peer.message(message::DATA_AMF0, 1, 0, &payload);
    let layer = [&b"\x96\x00avc1\x01"[..], &AVC_HEADER[5..]].concat();
    peer.message(message::VIDEO, 1, 0, &layer);
    peer.message(message::VIDEO, 1, 0, AVC_HEADER);
    let announced: Vec<_> = peer.events.iter().filter_map(|e| if let Event::Announced(a) = e { Some(a) } else { None }).collect();
    assert!(announced.iter().all(|announcement| announcement.video));
    assert_eq!(announced.last().map(|announcement| announcement.layers.len()), Some(2));
}

#[test]
fn lying_metadata_changes_nothing() {
    let mut peer = Peer::live();
    let mut payload = Vec::new();
    let lies =
        Value::object([("width", Value::Number(1.0)), ("videocodecid", Value::Number(12.0)), ("framerate", Value::Number(-1.0))]);
    amf0::write_all(&mut payload, &[Value::text("@setDataFrame"), Value::text("onMetaData"), lies]);
    peer.message(message::DATA_AMF0, 1, 0, &payload);
    peer.message(message::DATA_AMF0, 1, 0, b"\x02\xff\xff garbage");
    peer.message(message::VIDEO, 1, 0, AVC_HEADER);
    peer.message(message::VIDEO, 1, 0, AVC_FRAME);
    peer.message(message::VIDEO, 1, 33, &[0x27, 1, 0, 0, 0, 0, 0, 0, 9, 0x41]); // lengths that lie
    peer.message(message::VIDEO, 1, 66, &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x41]); // a tag that says keyframe
    assert_eq!(peer.closed(), None);
    let keys: Vec<bool> = peer.samples().iter().map(|sample| sample.keyframe).collect();
    assert_eq!(keys, [true, false], "the bitstream is trusted");
    assert_eq!(peer.session.drops().of(Dropped::Malformed), 1);
}

#[test]
fn deadlines_end_who_dawdles() {
    let check = |mut peer: Peer, seconds: u64, outcome: &str| {
        peer.session.handle_timeout(peer.now + Duration::from_secs(seconds) - Duration::from_millis(1));
        peer.drain();
        assert_eq!(peer.closed(), None);
        peer.session.handle_timeout(peer.now + Duration::from_secs(seconds));
        peer.drain();
        assert_eq!(peer.closed().map(CloseReason::outcome), Some(outcome));
    };
    check(Peer::new(), 5, "handshake_timeout");
    check(Peer::connected(), 5, "publish_timeout");
    check(Peer::live(), 30, "idle");
}

#[test]
fn bytes_are_acknowledged_by_the_window() {
    let mut peer = Peer::live();
    let mut out = Vec::new();
    peer.writer.set_chunk_size(&mut out, 60_000);
    peer.feed(&out);
    peer.message(message::WINDOW_ACK_SIZE, 0, 0, &1_u32.to_be_bytes()); // a storm is not made
    peer.answers();
    for _ in 0..20 {
        peer.message(message::AUDIO, 1, 0, &[&[0xaf, 1][..], &[0; 20_000]].concat());
    }
    let acknowledged = peer.answers().iter().filter(|m| m.kind == message::ACKNOWLEDGEMENT).count();
    assert!((4..=7).contains(&acknowledged), "{acknowledged} for 400 KB in windows of 64 KiB");
}

#[test]
fn an_aggregate_is_its_messages() {
    let mut peer = Peer::live();
    peer.message(message::VIDEO, 1, 0, AVC_HEADER);
    let mut aggregate = Vec::new();
    for timestamp in [1000_u32, 1033] {
        aggregate.push(message::VIDEO);
        aggregate.extend_from_slice(&(AVC_FRAME.len() as u32).to_be_bytes()[1..]);
        aggregate.extend_from_slice(&timestamp.to_be_bytes()[1..]);
        aggregate.extend_from_slice(&[0, 0, 0, 1]);
        aggregate.extend_from_slice(AVC_FRAME);
        aggregate.extend_from_slice(&(AVC_FRAME.len() as u32 + 11).to_be_bytes());
    }
    peer.message(message::AGGREGATE, 1, 500, &aggregate);
    let times: Vec<i64> = peer.samples().iter().map(|sample| sample.dts.as_micros() / 1000).collect();
    assert_eq!(times, [500, 533], "counted from the aggregate's own time");
}

#[test]
fn an_aggregate_of_crumbs_is_cut_short() {
    let mut peer = Peer::live();
    peer.message(message::VIDEO, 1, 0, AVC_HEADER);
    let crumb = [&[message::VIDEO, 0, 0, 11, 0, 0, 0, 0, 0, 0, 1][..], AVC_FRAME, &[0; 4]].concat();
    let mut out = Vec::new();
    peer.writer.set_chunk_size(&mut out, 0xff_ffff);
    peer.feed(&out);
    peer.message(message::AGGREGATE, 1, 0, &crumb.repeat(50_000));
    assert_eq!((peer.samples().len(), peer.session.drops().of(Dropped::Malformed)), (AGGREGATE_MESSAGES_MAX, 1));
}

/// What a recorded publisher comes to, when its bytes come in these pieces.
fn replay(recorded: &[u8], pieces: impl Iterator<Item = usize>) -> (usize, usize, u64, Option<String>) {
    let mut peer = Peer::new();
    let mut rest = recorded;
    for size in pieces {
        if rest.is_empty() {
            break;
        }
        let (piece, left) = rest.split_at(size.clamp(1, rest.len()));
        peer.feed(piece);
        rest = left;
        if matches!(peer.session.state, State::Asked) {
            peer.session.accept(peer.now);
            peer.drain();
        }
    }
    let video = peer.samples().iter().filter(|s| s.track.kind() == media_core::TrackKind::Video).count();
    let audio = peer.samples().len() - video;
    (video, audio, peer.session.repairs().total(), peer.closed().map(ToString::to_string))
}

#[test]
fn recorded_publishers_are_understood_however_their_bytes_are_cut() {
    for (recorded, video_min, audio_min) in [(FFMPEG, 45, 60), (GSTREAMER, 45, 60), (OBS, 150, 250), (ENHANCED, 45, 75)] {
        let whole = replay(recorded, std::iter::repeat(4096));
        assert!(whole.0 >= video_min && whole.1 >= audio_min, "{whole:?}");
        assert_eq!(whole.2, 0, "no clock was repaired");
        assert_eq!(replay(recorded, std::iter::repeat(1)), whole, "one byte at a time");
        assert_eq!(replay(recorded, std::iter::repeat(7)), whole);
    }
    // Cut once at every offset of the first messages, and at many of the rest.
    let whole = replay(FFMPEG, std::iter::repeat(FFMPEG.len()));
    for at in (1..6000).chain((6000..FFMPEG.len()).step_by(97)) {
        assert_eq!(replay(FFMPEG, [at].into_iter().chain(std::iter::repeat(FFMPEG.len()))), whole, "cut at {at}");
    }
}

#[test]
fn only_who_announces_enhanced_rtmp_is_answered_in_it() {
    for (recorded, expected) in [(OBS, false), (FFMPEG, false), (ENHANCED, true)] {
        let mut peer = Peer::new();
        peer.feed(&recorded[..recorded.len().min(6000)]);
        let sent = String::from_utf8_lossy(&peer.sent).into_owned();
        assert!(sent.contains("NetConnection.Connect.Success"));
        for property in ["fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap", "capsEx"] {
            assert_eq!(sent.contains(property), expected, "{property}");
        }
    }
}

#[test]
fn hostile_bytes_end_one_session_and_cost_little() {
    // 80 KB of nested objects: over the limit of a command.
    let nested = [&b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0"[..], &b"\x03\0\x01a".repeat(20_000)].concat();
    let mut peer = Peer::shaken();
    peer.message(message::COMMAND_AMF0, 0, 0, &nested);
    assert_eq!(peer.closed().map(CloseReason::outcome), Some("violation"));
    let mut peer = Peer::shaken();
    peer.message(message::COMMAND_AMF0, 0, 0, &nested[..60_000]);
    assert_eq!(peer.closed().map(CloseReason::outcome), Some("violation"), "nested too deep");
    // 40,000 keys in one object, and as many as fit.
    let keys: Vec<u8> = (0..40_000).flat_map(|n| [&[0, 5][..], format!("{n:05}").as_bytes(), &[5]].concat()).collect();
    let mut peer = Peer::shaken();
    peer.message(message::COMMAND_AMF0, 0, 0, &[&b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0\x03"[..], &keys[..60_000]].concat());
    assert_eq!(peer.closed().map(CloseReason::outcome), Some("violation"));
    // A chunk size of 0.
    let mut peer = Peer::connected();
    peer.message(message::SET_CHUNK_SIZE, 0, 0, &[0; 4]);
    assert_eq!(peer.closed().map(CloseReason::outcome), Some("violation"));
    // 16 MiB announced on every chunk stream, nothing sent.
    let mut peer = Peer::live();
    for csid in 3..60_u8 {
        peer.feed(&[csid, 0, 0, 0, 0x7f, 0xff, 0xff, message::VIDEO, 1, 0, 0, 0]);
        peer.feed(&[0; 128]);
    }
    assert!(peer.session.partial_capacity() < 2 << 20, "{} bytes held", peer.session.partial_capacity());
    // A million chunks of one byte.
    let mut peer = Peer::live();
    let mut out = Vec::new();
    peer.writer.set_chunk_size(&mut out, 1);
    peer.feed(&out);
    peer.message(message::VIDEO, 1, 0, AVC_HEADER);
    let mut big = vec![0; 1_000_000];
    big[..5].copy_from_slice(&AVC_FRAME[..5]);
    big[5..9].copy_from_slice(&(1_000_000_u32 - 9).to_be_bytes());
    big[9] = 0x65;
    peer.message(message::VIDEO, 1, 0, &big);
    assert_eq!(peer.samples().len(), 1);
}

#[test]
fn an_unknown_data_name_is_no_metadata() {
    let mut payload = Vec::new();
    amf0::write_all(&mut payload, &[Value::text("onCuePoint"), Value::Null]);
    assert_eq!(words::read_metadata(&payload), Ok(None));
}
