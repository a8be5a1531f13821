//! Opus (RFC 6716; RFC 7845 5.1 for the identification header that MP4's `dOps` repeats).
//!
//! A packet tells its own length in its first bytes; nothing of the sound itself is read.

/// Opus timestamps count 48,000 a second whatever was encoded (RFC 7587 4.1).
pub const SAMPLE_RATE: u32 = 48_000;
/// Longest packet: 120 ms (RFC 6716 3.2.5).
pub const PACKET_SAMPLES_MAX: u32 = 5_760;

/// What a decoder must know before the first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// 1 or 2 (channel mapping family 0).
    pub channels: u8,
}

impl Parameters {
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
