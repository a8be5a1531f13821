//! Opus packets (RFC 6716), which RTP carries as they are (RFC 7587).

/// Frame durations in samples at 48 kHz, by the configuration number of the TOC byte (RFC 6716 table 2): SILK, hybrid, CELT.
const FRAME_SAMPLES: [u16; 32] = [
    480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960,
    120, 240, 480, 960, 120, 240, 480, 960,
];
/// 120 ms (RFC 6716 3.2.5, R5).
const SAMPLES_MAX: u32 = 5760;

/// How long a packet sounds, in samples at 48 kHz. `None`: it is no Opus packet.
pub fn duration(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    let samples = frames * u32::from(FRAME_SAMPLES[usize::from(toc >> 3)]);
    (1..=SAMPLES_MAX).contains(&samples).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_by_the_first_bytes() {
        for (packet, expected) in [
            (&[][..], None),
            (&[0xf8], Some(960)),        // CELT 20 ms, one frame
            (&[0x78, 1, 2], Some(960)),  // hybrid 20 ms
            (&[0x60], Some(480)),        // hybrid 10 ms
            (&[0x18], Some(2880)),       // SILK 60 ms
            (&[0xf9, 0], Some(1920)),    // two equal frames
            (&[0xfa, 0], Some(1920)),    // two frames
            (&[0xfb], None),             // frame count is missing
            (&[0xfb, 0], None),          // no frame
            (&[0xfb, 6], Some(5760)),    // 120 ms
            (&[0xfb, 0xc6], Some(5760)), // the same, VBR and padded
            (&[0xfb, 7], None),          // 140 ms
            (&[0x1b, 2], Some(5760)),    // 2 x 60 ms
            (&[0x1b, 3], None),          // 180 ms
            (&[0x83, 48], Some(5760)),   // 48 x 2.5 ms
            (&[0x83, 49], None),
        ] {
            assert_eq!(duration(packet), expected, "{packet:02x?}");
        }
    }
}
