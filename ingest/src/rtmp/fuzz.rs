//! Bodies of the fuzz targets for RTMP: nothing may panic, time grows, and no peer may make us keep much.

use std::time::Instant;

use bytes::Bytes;
use media_core::{
    Parameters, Sample, TrackId, TrackKind,
    codec::{av1, h264, opus},
};

use super::{
    amf0, chunk,
    feed::{Fed, Feed},
    message::{AUDIO, DATA_AMF0, Message, VIDEO},
    session::{Deadlines, Event, Output, Session},
};

/// A message's header in a script: what it is, milliseconds since the one before, two bytes of length.
const SCRIPT_HEAD: usize = 4;
/// Unfinished messages of a few KiB of input; a chunk stream reserves ahead of what has come.
const PARTIAL_BYTES_MAX: usize = 2 << 20;
/// For a byte of input: a short command may be answered by an object of some hundred bytes.
const ANSWER_FACTOR: usize = 64;

/// Chunks, without a session: a message is the same however the bytes are cut, and few bytes hold little memory. The first byte
/// says how they are cut.
pub fn chunk(_now: Instant, data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let whole = chunk::read_all(data);
    let (mut reader, mut messages, mut violation, mut left) = (chunk::Reader::default(), Vec::new(), None, Vec::new());
    reader.open_media();
    'pieces: for piece in data.chunks(usize::from(cut).max(1)) {
        left.extend_from_slice(piece);
        let mut input = &left[..];
        loop {
            match reader.read(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(found) => {
                    violation = Some(found);
                    break 'pieces;
                }
            }
        }
        left = input.to_vec();
        assert!(reader.partial_capacity() <= PARTIAL_BYTES_MAX, "{} bytes are held", reader.partial_capacity());
    }
    assert_eq!((messages, violation), whole, "cut every {cut} bytes");
}

/// One AMF0 message: read in whole, and what was read is bounded.
pub fn amf0(_now: Instant, data: &[u8]) {
    let Ok(values) = amf0::read_all(data) else { return };
    assert!(values.iter().map(count).sum::<usize>() <= amf0::PROPERTIES_MAX, "all values of a message count");
}

fn count(value: &amf0::Value<'_>) -> usize {
    1 + match value {
        amf0::Value::Object(properties) => properties.iter().map(|(_, value)| count(value)).sum(),
        amf0::Value::Array(values) => values.iter().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Messages as the bytes cut them.
pub fn flv_tag(now: Instant, mut data: &[u8]) {
    let (mut feed, mut order, mut timestamp) = (Feed::default(), Order::default(), 0_u32);
    while let Some((&[kind, step, high, low], rest)) = data.split_first_chunk::<SCRIPT_HEAD>() {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes([high, low]))));
        data = rest;
        timestamp = timestamp.wrapping_add(if step == u8::MAX { 1 << 31 } else { step.into() });
        let kind = [VIDEO, AUDIO, DATA_AMF0][usize::from(kind) % 3];
        let message = Message { csid: 4, kind, stream_id: 1, timestamp, payload: Bytes::copy_from_slice(payload) };
        let refused = match kind {
            VIDEO => feed.video(now, &message).is_err(),
            AUDIO => feed.audio(now, &message).is_err(),
            _ => {
                feed.metadata(payload);
                false
            }
        };
        while let Some(fed) = feed.poll_output() {
            match fed {
                Fed::Sample(sample) => order.check(&sample),
                Fed::Announced(announcement) => {
                    let (layers, sounds) = (announcement.layers.len(), announcement.sounds.len());
                    assert!(layers <= usize::from(TrackId::LAYERS_MAX) + 1 && sounds <= usize::from(TrackId::SOUNDS_MAX) + 1);
                }
            }
        }
        if refused {
            return;
        }
    }
}

/// A connection behind its handshake. The first byte says how the rest is cut.
pub fn rtmp_session(now: Instant, data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let mut session = Session::new(now, 1, Deadlines::default());
    session.handle_input(now, &[&[3][..], &[0; 2 * 1536]].concat());
    let mut order = Order::default();
    let (mut sent, mut closed) = (0, 0);
    for piece in data.chunks(usize::from(cut).max(1)) {
        session.handle_input(now, piece);
        while let Some(output) = session.poll_output() {
            match output {
                Output::Transmit(bytes) => sent += bytes.len(),
                Output::Event(Event::PublishRequested { .. }) => session.accept(now),
                Output::Event(Event::Sample(sample)) => order.check(&sample),
                Output::Event(Event::Announced(_)) => {}
                Output::Event(Event::Closed(_)) => closed += 1,
            }
        }
        assert!(session.partial_capacity() <= PARTIAL_BYTES_MAX, "{} bytes are held", session.partial_capacity());
    }
    assert!(closed <= 1, "a session ends once");
    assert!(sent <= (16 << 10) + data.len() * ANSWER_FACTOR, "{sent} bytes are answered to {}", data.len());
}

/// What holds of the Samples of one publisher.
struct Order([i64; TrackId::COUNT]);

impl Default for Order {
    fn default() -> Self {
        Self([i64::MIN; TrackId::COUNT])
    }
}

impl Order {
    fn check(&mut self, sample: &Sample) {
        let last = &mut self.0[sample.track.id.index()];
        if sample.track.kind() == TrackKind::Video {
            assert!(*last < sample.dts.ticks && sample.dts.ticks <= sample.pts.ticks, "decoding times grow");
            *last = sample.dts.ticks;
        }
        let whole = match sample.track.parameters {
            Parameters::H264(_) | Parameters::Hevc(_) => h264::is_well_formed(&sample.payload),
            Parameters::Av1(_) => av1::is_well_formed(&sample.payload),
            Parameters::Opus(_) => opus::packet_samples(&sample.payload) == sample.duration,
            Parameters::Aac(_) => !sample.payload.is_empty(),
        };
        assert!(whole, "what is broken makes no Sample");
    }
}
