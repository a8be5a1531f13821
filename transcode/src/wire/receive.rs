//! What `codecast` and `codecast-transcode receive` say to each other: one order, then what is heard, until either ends.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use media_core::Passphrase;

use super::{Error, Message, put_text, take_text};

/// To the child, first and alone: wait for one caller of SRT on a port of this machine's loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The port that the caller's datagrams come from; who calls from another is turned away.
    pub from_port: u16,
    /// Milliseconds that lost packets may take to be repaired. The caller may ask for more.
    pub latency_ms: u32,
    /// It comes this way so that no list of processes shows it.
    pub passphrase: Option<Passphrase>,
}

/// From the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It waits here.
    Listening { port: u16 },
    /// What the caller sent, in order.
    Bytes(Bytes),
    /// So many packets were missed and asked for again, since the start.
    Lost(u64),
    /// Nothing more comes: the caller has gone.
    Gone,
    /// It cannot be done here. Why, as a sentence.
    Failed(String),
}

const LISTEN: u8 = 32;
const LISTENING: u8 = 48;
const BYTES: u8 = 49;
const LOST: u8 = 50;
const GONE: u8 = 51;
const FAILED: u8 = 52;

impl Message for Listen {
    fn write(&self, fields: &mut BytesMut) -> Bytes {
        fields.put_u8(LISTEN);
        fields.put_u16(self.from_port);
        fields.put_u32(self.latency_ms);
        put_text(fields, self.passphrase.as_ref().map_or("", Passphrase::expose));
        Bytes::new()
    }

    fn read(tag: u8, mut fields: Bytes) -> Result<Self, Error> {
        if tag != LISTEN {
            return Err(Error::Tag(tag));
        }
        let from_port = fields.try_get_u16().map_err(|_| Error::Short)?;
        let latency_ms = fields.try_get_u32().map_err(|_| Error::Short)?;
        let text = take_text(&mut fields)?;
        let passphrase = (!text.is_empty()).then(|| Passphrase::parse(&text)).transpose();
        Ok(Self { from_port, latency_ms, passphrase: passphrase.map_err(|_| Error::Field("passphrase"))? })
    }
}

impl Message for Heard {
    fn write(&self, fields: &mut BytesMut) -> Bytes {
        match self {
            Self::Listening { port } => {
                fields.put_u8(LISTENING);
                fields.put_u16(*port);
            }
            Self::Bytes(bytes) => {
                fields.put_u8(BYTES);
                return bytes.clone();
            }
            Self::Lost(packets) => {
                fields.put_u8(LOST);
                fields.put_u64(*packets);
            }
            Self::Gone => fields.put_u8(GONE),
            Self::Failed(sentence) => {
                fields.put_u8(FAILED);
                put_text(fields, sentence);
            }
        }
        Bytes::new()
    }

    fn read(tag: u8, mut fields: Bytes) -> Result<Self, Error> {
        Ok(match tag {
            LOST => Self::Lost(fields.try_get_u64().map_err(|_| Error::Short)?),
            LISTENING => Self::Listening { port: fields.try_get_u16().map_err(|_| Error::Short)? },
            BYTES => Self::Bytes(fields),
            GONE => Self::Gone,
            FAILED => Self::Failed(take_text(&mut fields)?),
            _ => return Err(Error::Tag(tag)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Reader, *};

    fn check<M: Message + std::fmt::Debug + PartialEq>(message: M) {
        let frame = message.encode();
        let mut reader = Reader::<M>::default();
        reader.buffer().extend_from_slice(&[&frame.head[..], &frame.payload].concat());
        assert_eq!(reader.next_message(), Ok(Some(message)));
        assert_eq!(reader.next_message(), Ok(None));
    }

    #[test]
    fn what_is_written_is_read_again() {
        check(Listen { from_port: 1, latency_ms: 120, passphrase: None });
        let listen = Listen { from_port: 65535, latency_ms: 0, passphrase: Passphrase::parse("correct horse").ok() };
        assert!(!format!("{listen:?}").contains("horse"));
        check(listen);
        check(Heard::Listening { port: 8890 });
        check(Heard::Bytes(Bytes::from_static(b"G...")));
        check(Heard::Bytes(Bytes::new()));
        check(Heard::Lost(u64::MAX));
        check(Heard::Gone);
        check(Heard::Failed("no".into()));
    }
}
