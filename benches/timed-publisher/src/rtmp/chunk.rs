//! RTMP chunks of a client: whole messages out, the server's few messages in. Sans-IO. Written
//! apart from the server's reader on purpose: a shared mistake would hide itself.

use bytes::{Buf, BufMut, BytesMut};

use super::Error;

/// Bytes a chunk of ours carries: what OBS sends.
pub const CHUNK_BYTES: usize = 4096;
/// Largest message accepted from a server: its statuses are far smaller.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Chunk streams a server may use.
const STREAMS_MAX: usize = 16;
/// Timestamps from here on stand in a field of their own.
const EXTENDED: u32 = 0x00ff_ffff;

#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub chunk_stream: u8,
    pub message_type: u8,
    pub message_stream: u32,
    pub timestamp_ms: u32,
}

/// Appends one message: a full header, then continuation chunks.
pub fn write_message(out: &mut Vec<u8>, header: Header, body: &[u8], chunk_bytes: usize) {
    let short = header.timestamp_ms.min(EXTENDED);
    let mut chunks = body.chunks(chunk_bytes);
    out.put_u8(header.chunk_stream & 0x3f);
    out.put_uint(u64::from(short), 3);
    out.put_uint(body.len() as u64, 3);
    out.put_u8(header.message_type);
    out.put_u32_le(header.message_stream);
    let extended = |out: &mut Vec<u8>| {
        if short == EXTENDED {
            out.put_u32(header.timestamp_ms);
        }
    };
    extended(out);
    out.extend_from_slice(chunks.next().unwrap_or_default());
    for chunk in chunks {
        out.put_u8(0xc0 | (header.chunk_stream & 0x3f));
        extended(out);
        out.extend_from_slice(chunk);
    }
}

#[derive(Debug, PartialEq)]
pub struct Message {
    pub message_type: u8,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Incoming {
    id: u32,
    length: usize,
    message_type: u8,
    extended: bool,
    body: Vec<u8>,
}

/// Bytes in, whole messages out.
pub struct Reader {
    pending: BytesMut,
    chunk_bytes: usize,
    streams: Vec<Incoming>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { pending: BytesMut::new(), chunk_bytes: 128, streams: Vec::new() }
    }
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    pub fn next_message(&mut self) -> Result<Option<Message>, Error> {
        while let Some(message) = self.next_chunk()? {
            if let Some(message) = message {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Outer `None`: bytes are missing, nothing was taken. Inner `None`: the message goes on.
    fn next_chunk(&mut self) -> Result<Option<Option<Message>>, Error> {
        let mut at = &self.pending[..];
        let whole = at.len();
        let Some((format, id)) = basic_header(&mut at) else { return Ok(None) };
        let index = self.streams.iter().position(|s| s.id == id);
        let mut header =
            index.map_or((0, 0, false), |i| (self.streams[i].length, self.streams[i].message_type, self.streams[i].extended));
        if index.is_none() && (format != 0 && format != 1 || self.streams.len() == STREAMS_MAX) {
            return Err(Error::Protocol("a chunk stream that never began, or too many"));
        }
        let sizes = [11, 7, 3, 0];
        let Some(fields) = at.split_off(..sizes[usize::from(format)]) else { return Ok(None) };
        if format < 3 {
            header.2 = fields[..3] == [0xff; 3];
        }
        if format < 2 {
            header.0 = usize::from(fields[3]) << 16 | usize::from(fields[4]) << 8 | usize::from(fields[5]);
            header.1 = fields[6];
        }
        if header.0 > MESSAGE_BYTES_MAX {
            return Err(Error::Protocol("a message of more than 64 KiB from the server"));
        }
        if header.2 && at.split_off(..4).is_none() {
            return Ok(None);
        }
        let have = index.map_or(0, |i| self.streams[i].body.len());
        let wanted = self.chunk_bytes.min(header.0.saturating_sub(have));
        let Some(payload) = at.split_off(..wanted) else { return Ok(None) };

        let index = index.unwrap_or(self.streams.len());
        if index == self.streams.len() {
            self.streams.push(Incoming { id, ..Incoming::default() });
        }
        let stream = &mut self.streams[index];
        (stream.length, stream.message_type, stream.extended) = header;
        stream.body.extend_from_slice(payload);
        let taken = whole - at.len();
        self.pending.advance(taken);
        if stream.body.len() < stream.length {
            return Ok(Some(None));
        }
        let message = Message { message_type: stream.message_type, body: std::mem::take(&mut stream.body) };
        if let (1, Some(size)) = (message.message_type, message.body.first_chunk::<4>()) {
            self.chunk_bytes = (u32::from_be_bytes(*size) as usize).clamp(1, MESSAGE_BYTES_MAX);
        }
        Ok(Some(Some(message)))
    }
}

fn basic_header(at: &mut &[u8]) -> Option<(u8, u32)> {
    let first = *at.split_off_first()?;
    let id = match first & 0x3f {
        0 => 64 + u32::from(*at.split_off_first()?),
        1 => 64 + u32::from(*at.split_off_first()?) + 256 * u32::from(*at.split_off_first()?),
        id => u32::from(id),
    };
    Some((first >> 6, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(timestamp_ms: u32, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let body: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        let mut out = Vec::new();
        write_message(&mut out, Header { chunk_stream: 5, message_type: 20, message_stream: 1, timestamp_ms }, &body, 128);
        (out, body)
    }

    #[test]
    fn what_is_written_is_read_back_whatever_the_cut() {
        for (timestamp, bytes) in [(0, 0), (5, 128), (EXTENDED - 1, 129), (EXTENDED, 300), (u32::MAX, 1000)] {
            let (out, body) = written(timestamp, bytes);
            for at in 0..=out.len() {
                let (mut reader, mut messages) = (Reader::default(), Vec::new());
                for piece in [&out[..at], &out[at..]] {
                    reader.push(piece);
                    messages.extend(std::iter::from_fn(|| reader.next_message().unwrap()));
                }
                assert_eq!(messages, [Message { message_type: 20, body: body.clone() }], "{timestamp} cut at {at}");
            }
        }
    }

    #[test]
    fn a_server_that_announces_too_much_is_left() {
        let mut reader = Reader::default();
        reader.push(&[3, 0, 0, 0, 0xff, 0xff, 0xff, 20, 0, 0, 0, 0]);
        assert!(reader.next_message().is_err());
    }
}
