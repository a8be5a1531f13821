//! Frames of AAC out of ADTS (ISO/IEC 14496-3, 1.A.2), and packets of Opus out of their control headers.
//!
//! Pure. A frame may go over the end of a PES packet, as some encoders do it; what is left waits for the next.

use bytes::{Buf, Bytes, BytesMut};
use media_core::{
    Parameters,
    codec::{aac, opus},
};

/// Longest ADTS frame: its length has 13 bits.
const ADTS_BYTES_MAX: usize = 1 << 13;
const ADTS_HEAD: usize = 7;
/// What stands before each Opus packet: eleven bits, then flags.
const OPUS_PREFIX: u16 = 0x7fe0;
const OPUS_PREFIX_MASK: u16 = 0xffe0;
const OPUS_START_TRIM: u16 = 0x10;
const OPUS_END_TRIM: u16 = 0x08;
const OPUS_EXTENSION: u16 = 0x04;

/// Frames in a row, and what they are of.
#[derive(Default)]
pub struct Adts {
    rest: BytesMut,
    header: Option<[u8; 2]>,
    parameters: Option<aac::Parameters>,
}

/// What a PES packet of sound held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Frames {
    pub frames: Vec<Frame>,
    /// Bytes that are no frame were skipped.
    pub damaged: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub payload: Bytes,
    /// It began in an earlier PES packet, so it is before that one's time.
    pub earlier: bool,
}

impl Adts {
    pub fn parameters(&self) -> Option<&aac::Parameters> {
        self.parameters.as_ref()
    }

    /// Something in between was lost.
    pub fn forget(&mut self) {
        self.rest.clear();
    }

    pub fn take(&mut self, bytes: &Bytes) -> Result<Frames, aac::Error> {
        let mut earlier = self.rest.len();
        self.rest.extend_from_slice(bytes);
        let mut found = Frames::default();
        while self.rest.len() >= ADTS_HEAD {
            let Some(header) = Header::read(&self.rest) else {
                let skipped = self.rest[1..].iter().position(|byte| *byte == 0xff).map_or(self.rest.len(), |at| at + 1);
                self.rest.advance(skipped);
                earlier = earlier.saturating_sub(skipped);
                found.damaged = true;
                continue;
            };
            if self.rest.len() < header.frame_bytes {
                break;
            }
            self.describe(header.config)?;
            let frame = self.rest.split_to(header.frame_bytes).freeze();
            if header.frame_bytes > header.head_bytes {
                found.frames.push(Frame { payload: frame.slice(header.head_bytes..), earlier: earlier > 0 });
            }
            earlier = earlier.saturating_sub(header.frame_bytes);
        }
        Ok(found)
    }

    fn describe(&mut self, config: [u8; 2]) -> Result<(), aac::Error> {
        if self.header != Some(config) {
            self.parameters = Some(aac::Parameters::parse(Bytes::copy_from_slice(&config))?);
            self.header = Some(config);
        }
        Ok(())
    }
}

struct Header {
    /// The AudioSpecificConfig that says the same.
    config: [u8; 2],
    head_bytes: usize,
    frame_bytes: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g] = bytes.first_chunk()?;
        // Sync word, and layer 0.
        if a != 0xff || b & 0xf6 != 0xf0 {
            return None;
        }
        let frame_bytes = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
        let head_bytes = if b & 1 == 1 { ADTS_HEAD } else { ADTS_HEAD + 2 };
        // More raw blocks in one frame are split by nobody; encoders write one.
        let single = g & 3 == 0;
        let (object_type, rate, channels) = ((c >> 6) + 1, c >> 2 & 0xf, (c & 1) << 2 | d >> 6);
        let config = [object_type << 3 | rate >> 1, rate << 7 | channels << 3];
        let fits = (head_bytes..ADTS_BYTES_MAX).contains(&frame_bytes);
        (single && rate < 13 && fits).then_some(Self { config, head_bytes, frame_bytes })
    }
}

/// The Opus packets of one PES packet; `damaged` where one's header cannot be read.
pub fn opus_packets(mut rest: Bytes) -> Frames {
    let mut found = Frames::default();
    while !rest.is_empty() {
        match opus_packet(&mut rest) {
            Some(payload) => found.frames.push(Frame { payload, earlier: false }),
            None => {
                found.damaged = true;
                break;
            }
        }
    }
    found
}

fn opus_packet(rest: &mut Bytes) -> Option<Bytes> {
    let head = rest.try_get_u16().ok()?;
    if head & OPUS_PREFIX_MASK != OPUS_PREFIX {
        return None;
    }
    let mut length = 0;
    loop {
        let byte = rest.try_get_u8().ok()?;
        length += usize::from(byte);
        if byte != u8::MAX {
            break;
        }
    }
    for flag in [OPUS_START_TRIM, OPUS_END_TRIM] {
        if head & flag != 0 {
            rest.try_get_u16().ok()?;
        }
    }
    if head & OPUS_EXTENSION != 0 {
        let extension = usize::from(rest.try_get_u8().ok()?);
        (extension <= rest.len()).then(|| rest.advance(extension))?;
    }
    (length <= rest.len()).then(|| rest.split_to(length))
}

/// In samples; `None` of what is no frame.
pub fn length(parameters: &Parameters, payload: &[u8]) -> Option<u32> {
    match parameters {
        Parameters::Aac(p) => Some(p.frame_length),
        _ => opus::packet_samples(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AAC-LC, 48 kHz, stereo, without a checksum; as ffmpeg writes it.
    fn adts(payload: &[u8]) -> Vec<u8> {
        let length = payload.len() + ADTS_HEAD;
        let head = [0xff, 0xf1, 0x4c, 0x80 | (length >> 11) as u8, (length >> 3) as u8, (length << 5) as u8 | 0x1f, 0xfc];
        [&head[..], payload].concat()
    }

    fn payloads(frames: &Frames) -> Vec<(&[u8], bool)> {
        frames.frames.iter().map(|frame| (&frame.payload[..], frame.earlier)).collect()
    }

    #[test]
    fn adts_frames_go_over_the_borders_of_packets() {
        let all = [adts(b"one"), adts(b"two"), adts(b"three")].concat();
        for cut in 0..all.len() {
            let mut reader = Adts::default();
            let first = reader.take(&Bytes::copy_from_slice(&all[..cut])).unwrap();
            let second = reader.take(&Bytes::copy_from_slice(&all[cut..])).unwrap();
            let together: Vec<_> = payloads(&first).into_iter().chain(payloads(&second)).map(|(bytes, _)| bytes).collect();
            assert_eq!(together, [&b"one"[..], b"two", b"three"], "cut at {cut}");
            let whole = [10, 20, all.len()].iter().filter(|end| **end <= cut).count();
            assert_eq!(first.frames.len(), whole, "cut at {cut}");
            let began = [0, 10, 20].iter().filter(|begin| **begin < cut).count() - whole;
            assert_eq!(second.frames.iter().filter(|frame| frame.earlier).count(), began, "cut at {cut}");
            assert!(!first.damaged && !second.damaged);
        }
        let mut reader = Adts::default();
        reader.take(&all.into()).unwrap();
        let parameters = reader.parameters().unwrap();
        assert_eq!((&parameters.config[..], parameters.sample_rate, parameters.channels()), (&[0x11, 0x90][..], 48_000, 2));
    }

    #[test]
    fn noise_between_adts_frames_is_skipped() {
        let mut reader = Adts::default();
        let bytes = [&b"\xff\x00noise\xff"[..], &adts(b"one"), b"\xff\xf1", &adts(b"two")].concat();
        let found = reader.take(&bytes.into()).unwrap();
        assert!(found.damaged);
        assert!(payloads(&found).contains(&(b"one", false)), "{found:?}");
        reader.forget();
        assert_eq!(payloads(&reader.take(&adts(b"x").into()).unwrap()), [(&b"x"[..], false)]);
    }

    #[test]
    fn opus_packets_stand_behind_control_headers() {
        let check = |bytes: &'static [u8], expected: &[&[u8]], damaged: bool| {
            let found = opus_packets(Bytes::from_static(bytes));
            assert_eq!(found.frames.iter().map(|frame| &frame.payload[..]).collect::<Vec<_>>(), expected, "{bytes:?}");
            assert_eq!(found.damaged, damaged, "{bytes:?}");
        };
        check(b"\x7f\xe0\x02ab\x7f\xe0\x01c", &[b"ab", b"c"], false);
        check(b"\x7f\xf0\x02\x01\x38ab", &[b"ab"], false);
        check(b"\x7f\xfc\x01\0\0\0\0\x03xyza", &[b"a"], false);
        check(b"\x7f\xe0\x03ab", &[], true);
        check(b"\x7f\xe0\x01a\x12\x34", &[b"a"], true);
        check(b"\x7f", &[], true);
        check(b"", &[], false);
        let long = opus_packets([&b"\x7f\xe0\xff\x01"[..], &[7; 256]].concat().into());
        assert_eq!((long.frames[0].payload.len(), long.damaged), (256, false));
    }
}
