//! The datagrams of SRT, as far as a front has to read them (draft-sharabayko-srt-01, 3): the header, and the handshake
//! with its extensions.
//!
//! Pure. What is read here came from anybody; what is written is a copy of what was read, with some fields replaced, so
//! an answer is never longer than its question.

use std::time::Duration;

/// 3: four words, of which the last is the socket that the datagram is for.
pub const HEADER_BYTES: usize = 16;
/// 3.2.1: the header and twelve words, without extensions.
pub const HANDSHAKE_BYTES: usize = HEADER_BYTES + 48;
/// Longest datagram: an MTU of 1,500 without IP's and UDP's headers, and a rest for larger frames.
pub const DATAGRAM_BYTES_MAX: usize = 2048;
/// 3.2.1.3: longest Stream ID.
pub const STREAM_ID_BYTES_MAX: usize = 512;
/// Extensions of one handshake; libsrt sends five kinds.
const EXTENSIONS_MAX: usize = 16;

const CONTROL: u8 = 0x80;
const TYPE_HANDSHAKE: u16 = 0;
const TYPE_SHUTDOWN: u16 = 5;

/// 3.2.1, Handshake Type. Numbers from `REJECTION` on are refusals (and 4.3.3).
const INDUCTION: u32 = 1;
const CONCLUSION: u32 = 0xffff_ffff;
/// What a refusal's code is added to (4.3.3, Table 7).
pub const REJECTION: u32 = 1000;
/// HSv5.
const VERSION: u32 = 5;
/// 4.3.1.1: says in an induction's answer that the listener speaks HSv5.
const MAGIC: u16 = 0x4a17;
/// What an induction has in that place: UDT's datagram socket.
const UDT_DATAGRAM: u32 = 2;

const EXTENSION_REQUEST: u16 = 1;
const EXTENSION_KEYS: u16 = 3;
const EXTENSION_STREAM_ID: u16 = 5;

// Where fields stand, from the start of the datagram.
const AT_TIME: usize = 8;
const AT_DESTINATION: usize = 12;
const AT_VERSION: usize = 16;
const AT_ENCRYPTION: usize = 20;
const AT_EXTENSION: usize = 22;
const AT_TYPE: usize = 36;
const AT_SOCKET: usize = 40;
const AT_COOKIE: usize = 44;

/// One datagram, looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Handshake(Handshake<'a>),
    /// The peer ends the connection.
    Shutdown,
    /// Anything else of a connection: data, acknowledgements, keepalives.
    Other,
    Malformed,
}

/// A handshake that is long enough to have all of its fixed fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handshake<'a>(&'a [u8]);

impl std::fmt::Debug for Handshake<'_> {
    /// Its extensions may hold a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("kind", &self.kind()).field("bytes", &self.0.len()).finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Induction,
    Conclusion,
    /// A refusal, with its code.
    Rejection(u32),
    /// Rendezvous, or nothing known.
    Other,
}

/// What a caller says of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// The caller's socket: what it hears is addressed to this.
    pub socket: u32,
    pub cookie: u32,
    /// It may hold a key: not for a log.
    pub stream_id: String,
    /// It brings keys: what it sends will be encrypted.
    pub encrypted: bool,
    /// Of libsrt, as 0xMMmmpp.
    pub version: u32,
    /// How late it lets its media be played, so that losses can be repaired.
    pub latency: Duration,
}

impl std::fmt::Debug for Conclusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conclusion").field("socket", &self.socket).field("encrypted", &self.encrypted).finish_non_exhaustive()
    }
}

/// Why a conclusion cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it speaks version {0} of the handshake: version 5 (SRT 1.3 and later) is taken")]
    Version(u32),
    #[error("its extensions contradict their lengths")]
    Extensions,
    #[error("its stream id is longer than {STREAM_ID_BYTES_MAX} bytes, or no text")]
    StreamId,
}

impl<'a> Packet<'a> {
    pub fn read(datagram: &'a [u8]) -> Self {
        if datagram.len() < HEADER_BYTES || datagram.len() > DATAGRAM_BYTES_MAX {
            return Self::Malformed;
        }
        if datagram[0] & CONTROL == 0 {
            return Self::Other;
        }
        match short(datagram, 0) & 0x7fff {
            TYPE_HANDSHAKE if datagram.len() < HANDSHAKE_BYTES => Self::Malformed,
            TYPE_HANDSHAKE => Self::Handshake(Handshake(datagram)),
            TYPE_SHUTDOWN => Self::Shutdown,
            _ => Self::Other,
        }
    }
}

impl Handshake<'_> {
    pub fn kind(self) -> Kind {
        match word(self.0, AT_TYPE) {
            INDUCTION => Kind::Induction,
            CONCLUSION => Kind::Conclusion,
            code @ REJECTION..0x8000_0000 => Kind::Rejection(code - REJECTION),
            _ => Kind::Other,
        }
    }

    pub fn socket(self) -> u32 {
        word(self.0, AT_SOCKET)
    }

    pub fn cookie(self) -> u32 {
        word(self.0, AT_COOKIE)
    }

    /// 4.3.1.1: the answer to an induction, with the cookie that a conclusion has to show.
    pub fn induction_answer(self, cookie: u32) -> Vec<u8> {
        let mut answer = self.answer();
        put(&mut answer, AT_VERSION, VERSION);
        put(&mut answer, AT_ENCRYPTION, u32::from(MAGIC));
        put(&mut answer, AT_COOKIE, cookie);
        answer
    }

    /// 4.3.3: the answer that refuses.
    pub fn rejection(self, code: u32) -> Vec<u8> {
        let mut answer = self.answer();
        put(&mut answer, AT_ENCRYPTION, 0);
        put(&mut answer, AT_TYPE, REJECTION + code);
        answer
    }

    /// The same caller's induction, for another listener than the one that it has talked to.
    pub fn as_induction(self) -> Vec<u8> {
        let mut induction = self.0[..HANDSHAKE_BYTES].to_vec();
        put(&mut induction, AT_DESTINATION, 0);
        put(&mut induction, AT_VERSION, 4);
        put(&mut induction, AT_ENCRYPTION, UDT_DATAGRAM);
        put(&mut induction, AT_TYPE, INDUCTION);
        put(&mut induction, AT_COOKIE, 0);
        induction
    }

    /// For that listener's cookie, and as if it were sent `later_us` after it was: the listener takes the moment of its
    /// arrival for that of sending.
    pub fn with_cookie(self, cookie: u32, later_us: u32) -> Vec<u8> {
        let mut conclusion = self.0.to_vec();
        put(&mut conclusion, AT_COOKIE, cookie);
        put(&mut conclusion, AT_TIME, word(self.0, AT_TIME).wrapping_add(later_us));
        conclusion
    }

    /// Its fixed fields, addressed to the caller.
    fn answer(self) -> Vec<u8> {
        let mut answer = self.0[..HANDSHAKE_BYTES].to_vec();
        put(&mut answer, AT_DESTINATION, self.socket());
        answer
    }

    pub fn conclusion(self) -> Result<Conclusion, Unreadable> {
        let version = word(self.0, AT_VERSION);
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let mut conclusion = Conclusion {
            socket: self.socket(),
            cookie: self.cookie(),
            stream_id: String::new(),
            encrypted: short(self.0, AT_ENCRYPTION) != 0,
            version: 0,
            latency: Duration::ZERO,
        };
        // Without flags nothing follows, whatever lies there (3.2.1).
        let mut rest = if short(self.0, AT_EXTENSION) == 0 { &[][..] } else { &self.0[HANDSHAKE_BYTES..] };
        for _ in 0..EXTENSIONS_MAX {
            let Some((head, tail)) = rest.split_first_chunk::<4>() else { break };
            let (kind, words) = (short(head, 0), usize::from(short(head, 2)));
            let (content, tail) = tail.split_at_checked(words * 4).ok_or(Unreadable::Extensions)?;
            match kind {
                EXTENSION_REQUEST if words >= 3 => {
                    conclusion.version = word(content, 0);
                    // 3.2.1.1: the receiver's, and the sender's.
                    conclusion.latency = Duration::from_millis(short(content, 8).max(short(content, 10)).into());
                }
                EXTENSION_KEYS => conclusion.encrypted = true,
                EXTENSION_STREAM_ID => conclusion.stream_id = stream_id(content)?,
                _ => (),
            }
            rest = tail;
        }
        Ok(conclusion)
    }
}

/// 3.2.1.3: each word stands with its last byte first, and zeros fill the last one.
fn stream_id(content: &[u8]) -> Result<String, Unreadable> {
    if content.len() > STREAM_ID_BYTES_MAX {
        return Err(Unreadable::StreamId);
    }
    let mut text: Vec<u8> = content.chunks_exact(4).flat_map(|word| [word[3], word[2], word[1], word[0]]).collect();
    text.truncate(text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    String::from_utf8(text).map_err(|_| Unreadable::StreamId)
}

/// 3.2.7: ends a connection. `socket` is the one that hears it.
pub fn shutdown(socket: u32) -> [u8; HEADER_BYTES + 4] {
    let mut datagram = [0; HEADER_BYTES + 4];
    datagram[0] = CONTROL;
    datagram[1] = TYPE_SHUTDOWN as u8;
    datagram[AT_DESTINATION..][..4].copy_from_slice(&socket.to_be_bytes());
    datagram
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word))
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |short| u16::from_be_bytes(*short))
}

fn put(datagram: &mut [u8], at: usize, value: u32) {
    datagram[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(super) mod tests;
