//! AV1 (AOM's bitstream specification; its ISO-BMFF binding for the codec configuration record).
//!
//! A payload is one temporal unit in the low-overhead format (5.2): OBUs that tell their sizes, without a temporal
//! delimiter. Headers are read, nothing behind them, and all is bounded.

use std::{fmt, io::Cursor};

use bytes::Bytes;
use scuffle_av1::{
    ObuHeader, ObuType,
    seq::{ColorConfig, OperatingPoint, SequenceHeaderObu, TimingInfo},
};

use super::{FrameRate, PICTURE_SIDE_MAX, is_picture_size};

/// Longest AV1CodecConfigurationRecord taken: a sequence header has some 20 bytes, metadata about light some more.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// Before the OBUs: marker and version, profile and level, the format of samples, the delay (AV1 in ISO-BMFF 2.3.3).
const RECORD_HEAD: usize = 4;
const MARKER_AND_VERSION: u8 = 0x81;
/// OBUs at the front of a temporal unit that are looked at for a sequence header and a picture: metadata may stand before.
const FRONT_OBUS_MAX: usize = 64;

const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;
/// A leb128 number has at most 8 bytes (4.10.5), and a size of ours fits into 5 of them.
const LEB128_BYTES_MAX: usize = 8;

/// colour_primaries, transfer_characteristics and matrix_coefficients of BT.709 (6.4.2): what a codec string means that
/// does not say; and "unspecified", which is shown as if it were that.
const BT709: u8 = 1;
const UNSPECIFIED: u8 = 2;

/// obu_type (6.2.2).
mod kind {
    pub const SEQUENCE_HEADER: u8 = 1;
    pub const TEMPORAL_DELIMITER: u8 = 2;
    pub const FRAME_HEADER: u8 = 3;
    pub const FRAME: u8 = 6;
}

/// Whole bytes of zeros in a run of 255 bits; a uvlc() has at most 32 (4.10.3), and between two fields that are never zero
/// no encoder writes so many.
const ZEROS_MAX: usize = 31;

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("AV1: the codec configuration is {0} bytes long, at most {RECORD_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("AV1: the codec configuration is cut short or of another version")]
    Record,
    #[error("AV1: the codec configuration holds no sequence header")]
    NoSequenceHeader,
    #[error("AV1: pictures of {0}x{1}: 1 to {PICTURE_SIDE_MAX} each way are taken")]
    Size(u32, u32),
    #[error("AV1: the sequence header cannot be read: {0}")]
    SequenceHeader(String),
}

/// What a decoder must know before the first keyframe.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The AV1CodecConfigurationRecord as it came.
    pub record: Bytes,
    /// The largest picture of the sequence.
    pub width: u32,
    pub height: u32,
    /// The sequence header's timing, where it promises equal intervals: a promise, not a measurement.
    pub frame_rate: Option<FrameRate>,
    profile: u8,
    level: u8,
    high_tier: bool,
    colour: ColorConfig,
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Av1({} {}x{})", self.codec_string(), self.width, self.height)
    }
}

impl Parameters {
    /// The sequence header in the record counts; the fields before it only repeat it.
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLong(record.len()));
        }
        if record.len() < RECORD_HEAD || record[0] != MARKER_AND_VERSION {
            return Err(Error::Record);
        }
        let (header, first) = read(sequence_header(&record[RECORD_HEAD..]).ok_or(Error::NoSequenceHeader)?)?;
        // At most 16 bits each (5.5.1).
        let (width, height) = (header.max_frame_width as u32, header.max_frame_height as u32);
        if !is_picture_size(width, height) {
            return Err(Error::Size(width, height));
        }
        Ok(Self {
            width,
            height,
            frame_rate: header.timing_info.as_ref().and_then(frame_rate),
            profile: header.seq_profile,
            level: first.seq_level_idx,
            high_tier: first.seq_tier,
            colour: header.color_config,
            record,
        })
    }

    /// Writes the record of the sequence header in a temporal unit.
    pub fn from_unit(payload: &[u8]) -> Result<Self, Error> {
        let obu = sequence_header(payload).ok_or(Error::NoSequenceHeader)?;
        if obu.body.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLong(obu.body.len()));
        }
        let (header, first) = read(obu)?;
        let mut record = vec![MARKER_AND_VERSION, header.seq_profile << 5 | first.seq_level_idx];
        record.extend([sample_format(first.seq_tier, &header.color_config), 0]);
        obu.write(&mut record);
        Self::parse(record.into())
    }

    /// What holds from this temporal unit on, where its sequence header promises another picture than this.
    pub fn renewed(&self, payload: &[u8]) -> Option<Self> {
        let came = Self::from_unit(payload).ok()?;
        let differs = (came.width, came.height) != (self.width, self.height) || came.codec_string() != self.codec_string();
        differs.then_some(came)
    }

    /// AV1 in ISO-BMFF 5: profile, level and tier, bits; and all about colour where anything is other than usual.
    pub fn codec_string(&self) -> String {
        let Self { profile, level, colour, .. } = self;
        let tier = if self.high_tier { 'H' } else { 'M' };
        let text = format!("av01.{profile}.{level:02}{tier}.{:02}", colour.bit_depth);
        let [primaries, transfer, matrix] =
            [colour.color_primaries, colour.transfer_characteristics, colour.matrix_coefficients].map(usual);
        let (mono, x, y) = (u8::from(colour.mono_chrome), u8::from(colour.subsampling_x), u8::from(colour.subsampling_y));
        let (position, full) = (colour.chroma_sample_position, u8::from(colour.full_color_range));
        let long = format!("{text}.{mono}.{x}{y}{position}.{primaries:02}.{transfer:02}.{matrix:02}.{full}");
        let ordinary = [primaries, transfer, matrix] == [BT709; 3] && (mono, x, y, full) == (0, 1, 1, 0);
        if ordinary { text } else { long }
    }
}

fn usual(code: u8) -> u8 {
    if code == UNSPECIFIED { BT709 } else { code }
}

/// A sequence header, and its first operating point: the one that decodes all of it.
fn read(obu: Obu) -> Result<(SequenceHeaderObu, OperatingPoint), Error> {
    let header = ObuHeader { obu_type: ObuType::SequenceHeader, size: None, extension_header: None };
    let failed = |error: std::io::Error| Error::SequenceHeader(error.to_string());
    // scuffle-av1 counts the zeros before a uvlc() in a byte, and panics on overflow where that is checked.
    if obu.body.windows(ZEROS_MAX).any(|run| run.iter().all(|&byte| byte == 0)) {
        return Err(Error::SequenceHeader("a run of zeros that no field has".into()));
    }
    let header = SequenceHeaderObu::parse(header, &mut Cursor::new(obu.body)).map_err(failed)?;
    let first = *header.operating_points.first().ok_or_else(|| Error::SequenceHeader("no operating point".into()))?;
    Ok((header, first))
}

/// The record's third byte.
fn sample_format(high_tier: bool, colour: &ColorConfig) -> u8 {
    let depth = [colour.bit_depth > 8, colour.bit_depth > 10];
    let flags = [high_tier, depth[0], depth[1], colour.mono_chrome, colour.subsampling_x, colour.subsampling_y];
    flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag)) << 2 | colour.chroma_sample_position & 3
}

fn frame_rate(timing: &TimingInfo) -> Option<FrameRate> {
    let ticks = timing.num_ticks_per_picture?.checked_mul(timing.num_units_in_display_tick.into())?;
    FrameRate::of_ticks(timing.time_scale.into(), ticks)
}

/// One open bitstream unit (5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Obu<'a> {
    kind: u8,
    /// Its first byte.
    header: u8,
    extension: Option<u8>,
    body: &'a [u8],
}

impl<'a> Obu<'a> {
    /// The first one of `bytes`, and what is behind it. One without a size is the last.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&header, mut rest) = bytes.split_first()?;
        if header & 0x80 != 0 {
            return None;
        }
        let mut extension = None;
        if header & HAS_EXTENSION != 0 {
            let (&byte, behind) = rest.split_first()?;
            (extension, rest) = (Some(byte), behind);
        }
        let (body, rest) = if header & HAS_SIZE == 0 {
            (rest, &rest[rest.len()..])
        } else {
            let (size, behind) = leb128(rest)?;
            behind.split_at_checked(size)?
        };
        Some((Self { kind: header >> 3 & 0x0f, header, extension, body }, rest))
    }

    /// Appends it with its size.
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.header | HAS_SIZE);
        out.extend(self.extension);
        let mut size = self.body.len();
        while size > 0x7f {
            out.push(size as u8 | 0x80);
            size >>= 7;
        }
        out.push(size as u8);
        out.extend(self.body);
    }

    /// Whether it begins a picture, and then whether that is a keyframe which is shown (5.9.2).
    fn picture(&self) -> Option<bool> {
        let first = *self.body.first().filter(|_| matches!(self.kind, kind::FRAME_HEADER | kind::FRAME))?;
        let (existing, frame_type, shown) = (first & 0x80 != 0, first >> 5 & 3, first & 0x10 != 0);
        Some(!existing && frame_type == 0 && shown)
    }
}

/// 4.10.5: the number, and what is behind it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(LEB128_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

/// The OBUs of a temporal unit; it ends early where a size lies.
fn obus(payload: &[u8]) -> impl Iterator<Item = Obu<'_>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (obu, behind) = Obu::split(rest)?;
        rest = behind;
        Some(obu)
    })
}

/// A temporal unit without the delimiter with which it opens in FLV tags (7.5 tells it by its place already).
pub fn without_delimiter(payload: Bytes) -> Bytes {
    match Obu::split(&payload) {
        Some((obu, rest)) if obu.kind == kind::TEMPORAL_DELIMITER => payload.slice_ref(rest),
        _ => payload,
    }
}

/// Whether the sizes cover the payload exactly and a picture is in it.
pub fn is_well_formed(payload: &[u8]) -> bool {
    let (mut rest, mut pictures) = (payload, 0);
    while let Some((obu, behind)) = Obu::split(rest) {
        pictures += usize::from(obu.picture().is_some());
        rest = behind;
    }
    rest.is_empty() && pictures > 0
}

/// The sequence header among the first OBUs of a temporal unit, or of a record's.
fn sequence_header(payload: &[u8]) -> Option<Obu<'_>> {
    obus(payload).take(FRONT_OBUS_MAX).find(|obu| obu.kind == kind::SEQUENCE_HEADER)
}

/// Whether decoding can begin at the temporal unit: its first picture is a keyframe that is shown.
pub fn is_keyframe(payload: &[u8]) -> bool {
    obus(payload).take(FRONT_OBUS_MAX).find_map(|obu| obu.picture()).unwrap_or(false)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::codec::hevc::tests::bytes;

    /// ffmpeg 5.1.9 with libaom 3.6.0, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libaom-av1 -usage realtime -cpu-used 8 -g 15
    /// -pix_fmt yuv420p`: the av1C box.
    pub(crate) const RECORD_360P30: &str = "81010c000a0b0000000cc4ff6736be4010";

    pub(crate) fn temporal_unit(obus: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, body) in obus {
            Obu { kind: *kind, header: kind << 3, extension: None, body }.write(&mut out);
        }
        out
    }

    #[test]
    fn a_record_tells_size_and_codec() {
        let p = Parameters::parse(bytes(RECORD_360P30)).unwrap();
        assert_eq!((p.width, p.height, p.frame_rate), (640, 360, None));
        assert_eq!(p.codec_string(), "av01.0.01M.08");
    }

    #[test]
    fn a_codec_string_is_long_where_something_is_unusual() {
        let p = Parameters::parse(bytes(RECORD_360P30)).unwrap();
        let check = |change: fn(&mut Parameters), expected: &str| {
            let mut p = p.clone();
            change(&mut p);
            assert_eq!(p.codec_string(), expected);
        };
        check(|p| (p.level, p.high_tier, p.colour.bit_depth) = (13, true, 10), "av01.0.13H.10");
        check(|p| (p.colour.subsampling_x, p.colour.subsampling_y) = (false, false), "av01.0.01M.08.0.000.01.01.01.0");
        // The example of AV1 in ISO-BMFF 5.
        check(
            |p| {
                (p.level, p.colour.bit_depth, p.colour.chroma_sample_position) = (4, 10, 2);
                (p.colour.color_primaries, p.colour.transfer_characteristics, p.colour.matrix_coefficients) = (9, 16, 9);
            },
            "av01.0.04M.10.0.112.09.16.09.0",
        );
    }

    #[test]
    fn a_sequence_header_gives_the_record() {
        let record = bytes(RECORD_360P30);
        let p = Parameters::parse(record.clone()).unwrap();
        assert_eq!(Parameters::from_unit(&record[4..]), Ok(p.clone()), "byte for byte");
        let without_size = [&[0x08], &record[6..]].concat();
        assert_eq!(Parameters::from_unit(&without_size), Ok(p.clone()));
        let unit = temporal_unit(&[(5, &[1]), (kind::SEQUENCE_HEADER, &record[6..]), (kind::FRAME, &[0x10])]);
        assert_eq!(Parameters::from_unit(&unit), Ok(p));
    }

    #[test]
    fn a_frame_rate_is_told_where_pictures_come_at_equal_intervals() {
        let timing = |ticks| TimingInfo { num_units_in_display_tick: 1001, time_scale: 60_000, num_ticks_per_picture: ticks };
        assert_eq!(frame_rate(&timing(Some(2))), Some(FrameRate { frames: 30_000, seconds: 1001 }));
        assert_eq!(frame_rate(&timing(None)), None);
        assert_eq!(frame_rate(&timing(Some(0))), None);
        assert_eq!(frame_rate(&timing(Some(u64::MAX))), None);
    }

    #[test]
    fn strange_records_are_refused() {
        let check = |record: Vec<u8>, error| assert_eq!(Parameters::parse(record.into()), Err(error));
        check(vec![0x81, 0, 0], Error::Record);
        check(vec![0x82, 1, 12, 0], Error::Record);
        check(vec![0x81, 1, 12, 0], Error::NoSequenceHeader);
        check(vec![0x81, 1, 12, 0, 0x12, 0], Error::NoSequenceHeader);
        check(vec![0x81; RECORD_BYTES_MAX + 1], Error::TooLong(RECORD_BYTES_MAX + 1));
        assert!(matches!(Parameters::parse(Bytes::from_static(&[0x81, 1, 12, 0, 0x0a, 0])), Err(Error::SequenceHeader(_))));
        let long = vec![0x08; RECORD_BYTES_MAX + 2];
        assert_eq!(Parameters::from_unit(&long), Err(Error::TooLong(RECORD_BYTES_MAX + 1)));
        assert_eq!(Parameters::from_unit(&[0x12, 0]), Err(Error::NoSequenceHeader));
    }

    #[test]
    fn keyframes_are_told_by_their_first_picture() {
        // Frame headers: a keyframe shown, one not shown, an inter frame, an intra-only one, one that exists already.
        let (key, hidden, inter, intra, existing) = (&[0x10][..], &[0x00][..], &[0x30][..], &[0x50][..], &[0x88][..]);
        let check = |obus: &[(u8, &[u8])], expected| {
            let unit = temporal_unit(obus);
            assert_eq!(is_keyframe(&unit), expected, "{unit:02x?}");
            assert!(is_well_formed(&unit));
        };
        let header = &bytes(RECORD_360P30)[6..];
        check(&[(kind::SEQUENCE_HEADER, header), (kind::FRAME, key)], true);
        check(&[(5, &[1]), (kind::FRAME_HEADER, key), (4, &[0])], true);
        check(&[(kind::FRAME, inter)], false);
        check(&[(kind::FRAME, intra)], false);
        check(&[(kind::FRAME, hidden), (kind::FRAME, inter)], false);
        check(&[(kind::FRAME_HEADER, existing)], false);
        check(&[(kind::FRAME, inter), (kind::FRAME, key)], false);
        let unit = temporal_unit(&[(kind::SEQUENCE_HEADER, header), (kind::FRAME, key)]);
        let opened = Bytes::from([&[0x12, 0][..], &unit].concat());
        assert_eq!([without_delimiter(opened), without_delimiter(unit.clone().into())], [&unit[..]; 2]);
        let found = sequence_header(&unit).unwrap();
        assert_eq!((found.kind, found.body), (kind::SEQUENCE_HEADER, header));
        assert!(!is_well_formed(&unit[..unit.len() - 1]), "a size past the end");
        assert!(!is_well_formed(&temporal_unit(&[(kind::SEQUENCE_HEADER, header)])), "no picture");
        assert!(!is_well_formed(&[]));
    }

    #[test]
    fn sizes_and_extensions_are_kept() {
        let long = vec![7; 300];
        let mut bytes = Vec::new();
        Obu { kind: kind::FRAME, header: kind::FRAME << 3 | HAS_EXTENSION, extension: Some(0x28), body: &long }.write(&mut bytes);
        assert_eq!(bytes[..4], [0x36, 0x28, 0xac, 0x02]);
        let found: Vec<_> = obus(&bytes).collect();
        assert_eq!((found.len(), found[0].body, found[0].extension), (1, &long[..], Some(0x28)));
        // A size of more than 8 bytes, and the bit that must be 0.
        assert_eq!(obus(&[0x32, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]).count(), 0);
        assert_eq!(obus(&[0xb2, 0]).count(), 0);
    }

    /// Bytes changed at random, and random bytes: errors, never a panic.
    #[test]
    fn nonsense_is_an_error() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        let record = bytes(RECORD_360P30);
        for _ in 0..40_000 {
            let mut changed = record.to_vec();
            for _ in 0..1 + random() % 4 {
                let at = random() % changed.len();
                changed[at] = random() as u8;
            }
            changed.extend((0..random() % 32).map(|_| if random() % 2 == 0 { 0 } else { random() as u8 }));
            changed.truncate(random() % 64);
            _ = (is_keyframe(&changed), is_well_formed(&changed), obus(&changed).count());
            _ = Parameters::from_unit(&changed);
            if let Ok(p) = Parameters::parse(changed.into()) {
                assert!((1..=65_536).contains(&p.width) && (1..=65_536).contains(&p.height));
                _ = p.codec_string();
            }
        }
    }
}
