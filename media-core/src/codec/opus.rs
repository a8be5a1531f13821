//! Opus (RFC 6716; RFC 7845 5.1 for the identification header that MP4's `dOps` repeats).
//!
//! A packet tells its own length in its first bytes; nothing of the sound itself is read.

/// Opus timestamps count 48,000 a second whatever was encoded (RFC 7587 4.1).
pub const SAMPLE_RATE: u32 = 48_000;
/// Longest packet: 120 ms (RFC 6716 3.2.5).
pub const PACKET_SAMPLES_MAX: u32 = 5_760;

/// The identification header's first bytes, and how long it is without a channel mapping table.
const HEAD_MAGIC: &[u8] = b"OpusHead";
const HEAD_BYTES: usize = 19;

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("Opus: the identification header is cut short or of another version")]
    Head,
    #[error("Opus: {channels} channels in mapping family {family}: only one or two, in family 0, are taken")]
    Channels { channels: u8, family: u8 },
}

/// What a decoder must know before the first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// 1 or 2 (channel mapping family 0).
    pub channels: u8,
}

impl Parameters {
    /// Reads an identification header (RFC 7845 5.1). Its pre-skip and gain count for files that are cut, not for a live stream.
    pub fn parse(head: &[u8]) -> Result<Self, Error> {
        if head.len() < HEAD_BYTES || !head.starts_with(HEAD_MAGIC) || head[8] & 0xf0 != 0 {
            return Err(Error::Head);
        }
        match (head[9], head[18]) {
            (channels @ 1..=2, 0) => Ok(Self { channels }),
            (channels, family) => Err(Error::Channels { channels, family }),
        }
    }

    /// RFC 6381, as the MP4 registration authority lists it.
    pub fn codec_string(&self) -> String {
        "opus".into()
    }
}

/// How many samples at 48 kHz a packet decodes to (RFC 6716 3.1 and 3.2); `None` for one that is
/// empty, cut short or longer than 120 ms.
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..=15 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    Some(frame * frames).filter(|samples| (1..=PACKET_SAMPLES_MAX).contains(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_the_channels() {
        // ffmpeg 9.0.2 with libopus, mono: pre-skip 312, 48 kHz, no gain, mapping family 0.
        let head = *b"OpusHead\x01\x01\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
        let with = |at: usize, byte| {
            let mut head = head;
            head[at] = byte;
            Parameters::parse(&head)
        };
        assert_eq!(Parameters::parse(&head), Ok(Parameters { channels: 1 }));
        assert_eq!(with(9, 2), Ok(Parameters { channels: 2 }));
        assert_eq!(with(9, 6), Err(Error::Channels { channels: 6, family: 0 }));
        assert_eq!(with(9, 0), Err(Error::Channels { channels: 0, family: 0 }));
        assert_eq!(with(18, 1), Err(Error::Channels { channels: 1, family: 1 }));
        assert_eq!(with(8, 0x10), Err(Error::Head));
        assert_eq!(with(0, b'o'), Err(Error::Head));
        assert_eq!(Parameters::parse(&head[..18]), Err(Error::Head));
    }

    #[test]
    fn a_packet_tells_how_long_it_lasts() {
        let check = |packet: &[u8], samples| assert_eq!(packet_samples(packet), samples, "{packet:?}");
        check(&[0xfc, 0xff, 0xfe], Some(960)); // CELT, 20 ms, one frame: libopus' usual.
        check(&[0x78], Some(960)); // Hybrid, 20 ms.
        check(&[0x18], Some(2880)); // SILK, 60 ms.
        check(&[0xe1], Some(240)); // Two of 2.5 ms.
        check(&[0xfb, 0x06], Some(5760)); // Six of 20 ms.
        check(&[0xfb, 0x07], None); // Longer than 120 ms.
        check(&[0xfb, 0x00], None);
        check(&[0xfb], None);
        check(&[], None);
    }
}
