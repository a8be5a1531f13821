//! RTMP chunks (RTMP 1.0, 5.3): a bounded reader that makes messages of them, and a writer.
//!
//! Sans-IO: bytes go in as they come, `read` takes one message at a time off them. A payload is
//! copied once, from the socket's buffer into its message. Set Chunk Size and Abort act here and
//! go no further, since the next byte depends on them.

use bytes::Bytes;

use super::message::{self, Message};

/// Longest video message: a keyframe of 4K at 100 Mbit/s has about 2 MiB.
pub const VIDEO_BYTES_MAX: u32 = 8 << 20;
/// Longest of any other kind: an AAC frame of 8 channels has at most 6 KiB, metadata 2 KiB.
/// Before a peer has asked to publish, its video is held to this as well.
pub const OTHER_BYTES_MAX: u32 = 64 << 10;
/// Chunk streams a peer may use; encoders use three to six. Each costs about 60 bytes.
pub const CHUNK_STREAMS_MAX: usize = 64;
/// Bytes of unfinished messages over all chunk streams: the longest video message, and others.
pub const PARTIAL_BYTES_MAX: usize = (9 << 20) as usize;
/// No message is longer than 24 bits can say, so larger chunk sizes mean the same (5.4.1).
const CHUNK_SIZE_MAX: u32 = 0xff_ffff;
/// Chunk size before anybody sets one.
const CHUNK_SIZE_FIRST: u32 = 128;
/// What a message's buffer starts with at most; it grows as bytes really arrive.
const FIRST_BUFFER_BYTES: usize = 16 << 10;
/// A header of three basic bytes, eleven of the message, four of time.
const HEAD_BYTES_MAX: usize = 18;
/// This in the 24-bit field says that the time follows in 32 bits.
const EXTENDED: u32 = 0xff_ffff;
/// A fmt 3 chunk that opens a message repeats the last delta; after fmt 0 the specification makes
/// its time the delta (5.3.1.2.4), others mean 0. Only a small one can have been meant.
const ABSOLUTE_AS_DELTA_MAX_MS: u32 = 1000;

const _: () = assert!(PARTIAL_BYTES_MAX > VIDEO_BYTES_MAX as usize + OTHER_BYTES_MAX as usize);

/// What ends a session, in words for the log and for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a message of type {kind} with {bytes} bytes: at most {most} are taken")]
    TooLong { kind: u8, bytes: u32, most: u32 },
    #[error("more than {CHUNK_STREAMS_MAX} chunk streams")]
    TooManyChunkStreams,
    #[error("more than {PARTIAL_BYTES_MAX} bytes of unfinished messages")]
    TooMuchUnfinished,
    #[error("a message on chunk stream {0} began before the last one ended")]
    RestartedMidMessage(u32),
    #[error("chunk stream {0} opens with a header that refers to one before it")]
    NoHeaderBefore(u32),
    #[error("a chunk size of {0}: 1 to 2147483647 are allowed")]
    ChunkSize(u32),
    #[error("a protocol control message that is too short")]
    ShortControl,
}

/// Chunks in, messages out.
pub struct Reader {
    streams: Vec<ChunkStream>,
    chunk_size: u32,
    /// Bytes in `partial` of all chunk streams.
    partial_bytes: usize,
    video_bytes_max: u32,
    /// Bytes of a header that is not whole yet, or read ahead behind one.
    head: Head,
    /// The chunk whose payload is being read.
    body: Option<Body>,
    habits: Habits,
}

/// Whether the peer repeats an extended timestamp in fmt 3 chunks. The specification asks for it,
/// some encoders do not. Seen once, it holds for the connection.
#[derive(Default)]
struct Habits {
    repeats_inside: Option<bool>,
    repeats_at_start: Option<bool>,
}

#[derive(Clone, Copy)]
struct Body {
    /// In `streams`.
    index: usize,
    left: usize,
}

struct ChunkStream {
    csid: u32,
    timestamp: u32,
    delta: u32,
    /// The 32 bits that the last full header carried, if it did.
    extended: Option<u32>,
    length: u32,
    kind: u8,
    stream_id: u32,
    /// The message under way. Its capacity follows what has arrived, not what was announced.
    partial: Option<Vec<u8>>,
}

#[derive(Default)]
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    at: usize,
    len: usize,
}

impl Head {
    fn pending(&self) -> &[u8] {
        &self.bytes[self.at..self.len]
    }

    /// Tops up from `input` until `need` bytes are pending. False when there are not so many.
    fn fill(&mut self, need: usize, input: &mut &[u8]) -> bool {
        self.bytes.copy_within(self.at..self.len, 0);
        (self.at, self.len) = (0, self.len - self.at);
        let (taken, rest) = input.split_at(input.len().min(need.saturating_sub(self.len)));
        self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        *input = rest;
        self.len >= need
    }
}

/// A chunk header, whole.
struct Header {
    fmt: u8,
    csid: u32,
    bytes: usize,
    timestamp: u32,
    extended: Option<u32>,
    length: u32,
    kind: u8,
    stream_id: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            chunk_size: CHUNK_SIZE_FIRST,
            partial_bytes: 0,
            video_bytes_max: OTHER_BYTES_MAX,
            head: Head::default(),
            body: None,
            habits: Habits::default(),
        }
    }
}

impl Reader {
    /// Takes video messages at full length from now on.
    pub fn open_media(&mut self) {
        self.video_bytes_max = VIDEO_BYTES_MAX;
    }

    /// Memory that unfinished messages hold, for tests of the bounds.
    pub fn partial_capacity(&self) -> usize {
        self.streams.iter().filter_map(|s| s.partial.as_ref()).map(Vec::capacity).sum()
    }

    /// Takes bytes off `input` up to the end of one message. `None` when they do not reach it.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Violation> {
        loop {
            let body = match self.body {
                Some(body) => body,
                None => match self.read_header(input)? {
                    Some(header) => self.begin(header)?,
                    None => return Ok(None),
                },
            };
            let Some(message) = self.read_body(body, input)? else {
                if self.body.is_some() {
                    return Ok(None);
                }
                continue;
            };
            match message.kind {
                message::SET_CHUNK_SIZE => self.set_chunk_size(&message)?,
                message::ABORT => self.abort(&message)?,
                _ => return Ok(Some(message)),
            }
        }
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Violation> {
        let mut need = 1;
        loop {
            if !self.head.fill(need, input) {
                return Ok(None);
            }
            let head = self.head.pending();
            let (fmt, low) = (head[0] >> 6, head[0] & 0x3f);
            let basic = match low {
                0 => 2,
                1 => 3,
                _ => 1,
            };
            need = basic + [11, 7, 3, 0][usize::from(fmt)];
            if head.len() < need {
                continue;
            }
            let csid = match low {
                0 => 64 + u32::from(head[1]),
                1 => 64 + u32::from(head[1]) + (u32::from(head[2]) << 8),
                low => u32::from(low),
            };
            let fields = &head[basic..need];
            let mut header = Header { fmt, csid, bytes: need, timestamp: 0, extended: None, length: 0, kind: 0, stream_id: 0 };
            if fmt == 3 {
                match self.repeated(&header) {
                    Repeated::No => {}
                    Repeated::ReadFour if head.len() < need + 4 => {
                        need += 4;
                        continue;
                    }
                    Repeated::ReadFour => header.bytes += self.learn(&header),
                }
            } else {
                header.timestamp = u24(&fields[..3]);
                if header.timestamp == EXTENDED {
                    let Some(extended) = head.get(need..need + 4) else {
                        need += 4;
                        continue;
                    };
                    header.bytes += 4;
                    header.timestamp = u32::from_be_bytes([extended[0], extended[1], extended[2], extended[3]]);
                    header.extended = Some(header.timestamp);
                }
                if fmt < 2 {
                    (header.length, header.kind) = (u24(&fields[3..6]), fields[6]);
                }
                if fmt == 0 {
                    header.stream_id = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
                }
            }
            self.head.at += header.bytes;
            return Ok(Some(header));
        }
    }

    /// Whether four bytes behind this fmt 3 header must be looked at.
    fn repeated(&self, header: &Header) -> Repeated {
        let Some(stream) = self.streams.iter().find(|s| s.csid == header.csid) else { return Repeated::No };
        let habit = if stream.partial.is_some() { self.habits.repeats_inside } else { self.habits.repeats_at_start };
        if stream.extended.is_none() || habit == Some(false) { Repeated::No } else { Repeated::ReadFour }
    }

    /// The length of the repeated timestamp behind the pending header: 4 or 0.
    fn learn(&mut self, header: &Header) -> usize {
        let Some(stream) = self.streams.iter().find(|s| s.csid == header.csid) else { return 0 };
        let same = stream.extended.is_some_and(|t| self.head.pending()[header.bytes..].starts_with(&t.to_be_bytes()));
        let habit = if stream.partial.is_some() { &mut self.habits.repeats_inside } else { &mut self.habits.repeats_at_start };
        if *habit.get_or_insert(same) { 4 } else { 0 }
    }

    /// Opens the chunk, and its message when none is under way.
    fn begin(&mut self, header: Header) -> Result<Body, Violation> {
        let index = self.stream(&header)?;
        let stream = &mut self.streams[index];
        if stream.partial.is_some() {
            if header.fmt != 3 {
                return Err(Violation::RestartedMidMessage(header.csid));
            }
        } else {
            stream.apply(&header);
            let most = if message::may_hold_video(stream.kind) { self.video_bytes_max } else { OTHER_BYTES_MAX };
            if stream.length > most {
                return Err(Violation::TooLong { kind: stream.kind, bytes: stream.length, most });
            }
            stream.partial = Some(Vec::new());
        }
        let body = Body { index, left: stream.left().min(self.chunk_size as usize) };
        self.body = Some(body);
        Ok(body)
    }

    fn stream(&mut self, header: &Header) -> Result<usize, Violation> {
        if let Some(index) = self.streams.iter().position(|s| s.csid == header.csid) {
            return Ok(index);
        }
        // fmt 1 is taken: librtmp opens chunk stream 2 with it.
        if header.fmt > 1 {
            return Err(Violation::NoHeaderBefore(header.csid));
        }
        if self.streams.len() == CHUNK_STREAMS_MAX {
            return Err(Violation::TooManyChunkStreams);
        }
        self.streams.push(ChunkStream::new(header.csid));
        Ok(self.streams.len() - 1)
    }

    /// Moves payload into its message. `Some` when the message is whole.
    fn read_body(&mut self, body: Body, input: &mut &[u8]) -> Result<Option<Message>, Violation> {
        let stream = &mut self.streams[body.index];
        let mut left = body.left;
        let ahead = self.head.pending();
        let ahead = &ahead[..ahead.len().min(left)];
        stream.append(ahead);
        let ahead = ahead.len();
        self.head.at += ahead;
        left -= ahead;
        let (taken, rest) = input.split_at(input.len().min(left));
        stream.append(taken);
        *input = rest;
        left -= taken.len();
        self.partial_bytes += ahead + taken.len();
        if self.partial_bytes > PARTIAL_BYTES_MAX {
            return Err(Violation::TooMuchUnfinished);
        }
        self.body = (left > 0).then_some(Body { left, ..body });
        if left > 0 || stream.left() > 0 {
            return Ok(None);
        }
        let payload = stream.partial.take().unwrap_or_default();
        self.partial_bytes -= payload.len();
        Ok(Some(Message {
            csid: stream.csid,
            kind: stream.kind,
            stream_id: stream.stream_id,
            timestamp: stream.timestamp,
            payload: Bytes::from(payload),
        }))
    }

    fn set_chunk_size(&mut self, message: &Message) -> Result<(), Violation> {
        let size = message::control_value(&message.payload).ok_or(Violation::ShortControl)?;
        if size == 0 || size > 0x7fff_ffff {
            return Err(Violation::ChunkSize(size));
        }
        self.chunk_size = size.min(CHUNK_SIZE_MAX);
        Ok(())
    }

    fn abort(&mut self, message: &Message) -> Result<(), Violation> {
        let csid = message::control_value(&message.payload).ok_or(Violation::ShortControl)?;
        if let Some(partial) = self.streams.iter_mut().find(|s| s.csid == csid).and_then(|s| s.partial.take()) {
            self.partial_bytes -= partial.len();
        }
        Ok(())
    }
}

enum Repeated {
    No,
    ReadFour,
}

impl ChunkStream {
    fn new(csid: u32) -> Self {
        Self { csid, timestamp: 0, delta: 0, extended: None, length: 0, kind: 0, stream_id: 0, partial: None }
    }

    /// The header of a new message.
    fn apply(&mut self, header: &Header) {
        match header.fmt {
            0 => {
                self.timestamp = header.timestamp;
                self.delta = if header.timestamp <= ABSOLUTE_AS_DELTA_MAX_MS { header.timestamp } else { 0 };
                self.stream_id = header.stream_id;
            }
            1 | 2 => {
                self.delta = header.timestamp;
                self.timestamp = self.timestamp.wrapping_add(self.delta);
            }
            _ => self.timestamp = self.timestamp.wrapping_add(self.delta),
        }
        if header.fmt < 2 {
            (self.length, self.kind) = (header.length, header.kind);
        }
        if header.fmt < 3 {
            self.extended = header.extended;
        }
    }

    /// Bytes of the message that have not come.
    fn left(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| (self.length as usize).saturating_sub(partial.len()))
    }

    /// Grows to at most twice what has come, and to the announced length at the end, so that the
    /// finished buffer is exactly as large as the message.
    fn append(&mut self, bytes: &[u8]) {
        let Some(partial) = &mut self.partial else { return };
        let (have, whole) = (partial.len() + bytes.len(), self.length as usize);
        if partial.capacity() < have {
            let target = (have * 2).max(FIRST_BUFFER_BYTES).min(whole);
            partial.reserve_exact(target - partial.len());
        }
        partial.extend_from_slice(bytes);
    }
}

fn u24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Messages in, chunks out. Each message opens with a full header (fmt 0): replies are few, and a
/// publisher of ours pays eight bytes a message for needing no state.
pub struct Writer {
    chunk_size: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { chunk_size: CHUNK_SIZE_FIRST as usize }
    }
}

impl Writer {
    /// Tells the peer the size (1 to 0xffffff) and uses it from here on.
    pub fn set_chunk_size(&mut self, out: &mut Vec<u8>, size: u32) {
        let size = size.clamp(1, CHUNK_SIZE_MAX);
        self.write(out, &message::set_chunk_size(size));
        self.chunk_size = size as usize;
    }

    pub fn write(&self, out: &mut Vec<u8>, message: &Message) {
        let extended = message.timestamp >= EXTENDED;
        let length = u32::try_from(message.payload.len()).unwrap_or(CHUNK_SIZE_MAX).min(CHUNK_SIZE_MAX);
        write_basic(out, 0, message.csid);
        out.extend_from_slice(&message.timestamp.min(EXTENDED).to_be_bytes()[1..]);
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.push(message.kind);
        out.extend_from_slice(&message.stream_id.to_le_bytes());
        if extended {
            out.extend_from_slice(&message.timestamp.to_be_bytes());
        }
        for (n, chunk) in message.payload[..length as usize].chunks(self.chunk_size).enumerate() {
            if n > 0 {
                write_basic(out, 3, message.csid);
                if extended {
                    out.extend_from_slice(&message.timestamp.to_be_bytes());
                }
            }
            out.extend_from_slice(chunk);
        }
    }
}

/// The basic header, in the shortest form that holds `csid` (2 to 65599).
pub fn write_basic(out: &mut Vec<u8>, fmt: u8, csid: u32) {
    let fmt = fmt << 6;
    match csid {
        0..64 => out.push(fmt | csid.max(2) as u8),
        64..320 => out.extend_from_slice(&[fmt, (csid - 64) as u8]),
        _ => {
            let [low, high, ..] = (csid - 64).to_le_bytes();
            out.extend_from_slice(&[fmt | 1, low, high]);
        }
    }
}

/// Reads all of `bytes`. The body of the fuzz target.
pub fn read_all(bytes: &[u8]) -> (Vec<Message>, Option<Violation>) {
    let (mut reader, mut messages, mut input) = (Reader::default(), Vec::new(), bytes);
    reader.open_media();
    loop {
        match reader.read(&mut input) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(violation) => return (messages, Some(violation)),
        }
    }
}
