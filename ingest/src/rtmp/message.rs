//! RTMP messages (RTMP 1.0, 5.4 and 7.1): their types, the control messages that we send, and
//! what an aggregate is made of.

use bytes::Bytes;

pub const SET_CHUNK_SIZE: u8 = 1;
pub const ABORT: u8 = 2;
pub const ACKNOWLEDGEMENT: u8 = 3;
pub const USER_CONTROL: u8 = 4;
pub const WINDOW_ACK_SIZE: u8 = 5;
pub const SET_PEER_BANDWIDTH: u8 = 6;
pub const AUDIO: u8 = 8;
pub const VIDEO: u8 = 9;
pub const DATA_AMF3: u8 = 15;
pub const COMMAND_AMF3: u8 = 17;
pub const DATA_AMF0: u8 = 18;
pub const COMMAND_AMF0: u8 = 20;
pub const AGGREGATE: u8 = 22;

/// User control events (7.1.7).
pub const STREAM_BEGIN: u16 = 0;
pub const PING_REQUEST: u16 = 6;
pub const PING_RESPONSE: u16 = 7;

/// Chunk streams we write on: protocol control must use 2.
pub const CSID_CONTROL: u32 = 2;
pub const CSID_COMMAND: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub csid: u32,
    pub kind: u8,
    pub stream_id: u32,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    pub payload: Bytes,
}

impl Message {
    fn control(kind: u8, payload: Vec<u8>) -> Self {
        Self { csid: CSID_CONTROL, kind, stream_id: 0, timestamp: 0, payload: payload.into() }
    }

    pub fn command(stream_id: u32, payload: Vec<u8>) -> Self {
        Self { csid: CSID_COMMAND, kind: COMMAND_AMF0, stream_id, timestamp: 0, payload: payload.into() }
    }
}

/// Aggregates carry video too.
pub fn may_hold_video(kind: u8) -> bool {
    kind == VIDEO || kind == AGGREGATE
}

/// The 32 bits of a protocol control message.
pub fn control_value(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub fn set_chunk_size(size: u32) -> Message {
    Message::control(SET_CHUNK_SIZE, size.to_be_bytes().to_vec())
}

pub fn acknowledgement(received: u32) -> Message {
    Message::control(ACKNOWLEDGEMENT, received.to_be_bytes().to_vec())
}

pub fn window_ack_size(bytes: u32) -> Message {
    Message::control(WINDOW_ACK_SIZE, bytes.to_be_bytes().to_vec())
}

/// With the limit type "dynamic".
pub fn set_peer_bandwidth(bytes: u32) -> Message {
    let mut payload = bytes.to_be_bytes().to_vec();
    payload.push(2);
    Message::control(SET_PEER_BANDWIDTH, payload)
}

pub fn user_control(event: u16, value: u32) -> Message {
    let mut payload = event.to_be_bytes().to_vec();
    payload.extend_from_slice(&value.to_be_bytes());
    Message::control(USER_CONTROL, payload)
}

/// The messages in an aggregate (7.1.6): FLV tags, whose times count from the first one's; it
/// stands for the aggregate's own. It ends early where a length lies.
pub fn split_aggregate(aggregate: &Message) -> impl Iterator<Item = Message> + '_ {
    let mut rest = aggregate.payload.clone();
    let mut first = None;
    std::iter::from_fn(move || {
        let header: [u8; 11] = *rest.first_chunk()?;
        let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        let timestamp = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        if rest.len() < 11 + length {
            return None;
        }
        // A copy: a slice would keep the whole aggregate in memory, however little of it becomes a Sample.
        let payload = Bytes::copy_from_slice(&rest[11..11 + length]);
        // A back pointer of four bytes follows; the last may lack it.
        rest = rest.slice((11 + length + 4).min(rest.len())..);
        let since_first = timestamp.wrapping_sub(*first.get_or_insert(timestamp));
        Some(Message {
            csid: aggregate.csid,
            kind: header[0] & 0x1f,
            stream_id: aggregate.stream_id,
            timestamp: aggregate.timestamp.wrapping_add(since_first),
            payload,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flv_tag(kind: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let [high, t @ ..] = timestamp.to_be_bytes();
        let length = (payload.len() as u32).to_be_bytes();
        let back = (payload.len() as u32 + 11).to_be_bytes();
        [&[kind][..], &length[1..], &t, &[high, 0, 0, 0], payload, &back].concat()
    }

    #[test]
    fn an_aggregate_counts_from_its_first_tag() {
        let payload = [flv_tag(8, 0x0100_0000, b"aa"), flv_tag(9, 0x0100_0021, b"vvv")].concat();
        let aggregate =
            |payload: Vec<u8>| Message { csid: 4, kind: AGGREGATE, stream_id: 1, timestamp: 5000, payload: payload.into() };
        let of = |payload| {
            let aggregate = aggregate(payload);
            split_aggregate(&aggregate).map(|m| (m.kind, m.timestamp, m.payload.to_vec())).collect::<Vec<_>>()
        };
        let both = vec![(8, 5000, b"aa".to_vec()), (9, 5033, b"vvv".to_vec())];
        assert_eq!(of(payload.clone()), both);
        assert_eq!(of(payload[..payload.len() - 4].to_vec()), both, "without the last back pointer");
        assert_eq!(of(payload[..payload.len() - 5].to_vec()), both[..1], "a length past the end");
        assert_eq!(of(vec![]), vec![]);
    }
}
