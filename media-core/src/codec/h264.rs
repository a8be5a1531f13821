//! H.264 / AVC (ITU-T H.264; ISO/IEC 14496-15 for the decoder configuration record).
//!
//! Payloads keep the length-prefixed form in which RTMP and fMP4 both carry them: nothing is
//! rewritten on the way. Parsing is of headers only, and bounded.

mod order;
mod restriction;

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h264_reader::{
    avcc::AvcDecoderConfigurationRecord,
    nal::{Nal, RefNal, sps::SeqParameterSet},
};

use super::{PICTURE_SIDE_MAX, is_picture_size, written_keyframe_interval};

pub use super::FrameRate;
pub use order::Order;
pub use restriction::without_reordering;

/// Longest AVCDecoderConfigurationRecord taken: a few parameter sets, of hundreds of bytes each.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// How much of an SEI message is searched for encoder settings; x264 writes under 1 KiB.
const SEI_BYTES_MAX: usize = 4 << 10;
/// How many NAL units at the front of an access unit are looked at for SEI.
const SEI_NALS_MAX: usize = 8;

/// Where the parameter sets begin in the record: behind the version, three bytes of profile and level, and the NAL length.
const RECORD_HEAD: usize = 5;
/// The numbers of sets that fit into the record's five and eight bits.
const SPS_MAX: usize = 31;
const PPS_MAX: usize = 255;

/// How many messages of an SEI NAL unit are looked through for a recovery point.
const SEI_MESSAGES_MAX: usize = 4;
const SEI_RECOVERY_POINT: u8 = 6;

const NAL_IDR: u8 = 5;
const NAL_SEI: u8 = 6;
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const NAL_DELIMITER: u8 = 9;

#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum Error {
    #[error("H.264: the decoder configuration is {0} bytes long, at most {RECORD_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("H.264: the decoder configuration cannot be read: {0}")]
    Record(String),
    #[error("H.264: NAL unit lengths of {0} bytes: only 4 are taken")]
    LengthSize(u8),
    #[error("H.264: the decoder configuration holds no sequence parameter set")]
    NoSps,
    #[error("H.264: the sequence parameter set cannot be read: {0}")]
    Sps(String),
    #[error("H.264: pictures of {0}x{1}: 1 to {PICTURE_SIDE_MAX} each way are taken")]
    Size(u32, u32),
    #[error("H.264: {0} sequence and {1} picture parameter sets: one to {SPS_MAX} and one to {PPS_MAX} are needed")]
    Sets(usize, usize),
}

/// What a decoder must know before the first keyframe.
#[derive(Clone, PartialEq)]
pub struct Parameters {
    /// The AVCDecoderConfigurationRecord as it came (ISO/IEC 14496-15 5.3.3.1).
    pub record: Bytes,
    /// Pixels shown, after cropping.
    pub width: u32,
    pub height: u32,
    /// profile_idc, constraint flags, level_idc of the SPS.
    pub profile_level: [u8; 3],
    /// The VUI's timing, where present: a promise, not a measurement.
    pub frame_rate: Option<FrameRate>,
    /// The VUI's max_num_reorder_frames, where present: how many pictures a decoder must hold back (H.264 E.2.1).
    pub reorder_frames: Option<u8>,
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "H264({} {}x{})", self.codec_string(), self.width, self.height)
    }
}

impl Parameters {
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLong(record.len()));
        }
        let avcc = AvcDecoderConfigurationRecord::try_from(&record[..]).map_err(|e| Error::Record(format!("{e:?}")))?;
        if avcc.length_size_minus_one() != 3 {
            return Err(Error::LengthSize(avcc.length_size_minus_one() + 1));
        }
        let (sets, _) = parameter_sets(&record);
        let sps = read_sps(sets.first().ok_or(Error::NoSps)?)?;
        let (width, height) = size(&sps)?;
        // A picture may go over to another of the sets at any keyframe.
        sets[1..].iter().filter_map(|set| read_sps(set).ok()).try_for_each(|sps| size(&sps).map(drop))?;
        Ok(Self {
            width,
            height,
            profile_level: [sps.profile_idc.into(), sps.constraint_flags.into(), sps.level_idc],
            frame_rate: frame_rate(&sps),
            reorder_frames: reorder_frames(&sps),
            record,
        })
    }

    /// Writes the record of these parameter sets, NAL units without start codes (ISO/IEC 14496-15 5.3.3.1.2).
    pub fn from_sets(sps: &[Bytes], pps: &[Bytes]) -> Result<Self, Error> {
        if !(1..=SPS_MAX).contains(&sps.len()) || !(1..=PPS_MAX).contains(&pps.len()) {
            return Err(Error::Sets(sps.len(), pps.len()));
        }
        // Before anything is copied: the record is not going to be taken.
        let bytes = sps.iter().chain(pps).map(Bytes::len).sum::<usize>();
        if bytes > RECORD_BYTES_MAX {
            return Err(Error::TooLong(bytes));
        }
        let first = read_sps(&sps[0])?;
        let mut record = vec![1, first.profile_idc.into(), first.constraint_flags.into(), first.level_idc, 0xff];
        record.push(0xe0 | sps.len() as u8);
        sps.iter().for_each(|set| write_set(&mut record, set));
        record.push(pps.len() as u8);
        pps.iter().for_each(|set| write_set(&mut record, set));
        if first.profile_idc.has_chroma_info() {
            let chroma = &first.chroma_info;
            let format = chroma.chroma_format.to_u32() as u8 & 3;
            record.extend([0xfc | format, 0xf8 | chroma.bit_depth_luma_minus8, 0xf8 | chroma.bit_depth_chroma_minus8, 0]);
        }
        Self::parse(record.into())
    }

    /// The sequence parameter sets, as slices of the record.
    pub fn sps(&self) -> Vec<Bytes> {
        parameter_sets(&self.record).0
    }

    /// The picture parameter sets, as slices of the record.
    pub fn pps(&self) -> Vec<Bytes> {
        parameter_sets(&self.record).1
    }

    /// An access unit in two parts that brings these sets itself: its delimiter, if it has one, with the sets; and the rest of it. For
    /// players that go on decoding with the sets of the first initialization segment that they saw (as FFmpeg's).
    pub fn in_band(&self, payload: &Bytes) -> (Bytes, Bytes) {
        // The delimiter comes first of all (H.264 7.4.1.2.3).
        let delimiter = nal_units(payload).next().filter(|nal| nal.first().is_some_and(|header| header & 0x1f == NAL_DELIMITER));
        let rest = payload.slice(delimiter.map_or(0, |nal| 4 + nal.len())..);
        let (sps, pps) = (self.sps(), self.pps());
        let mut sets = BytesMut::new();
        for nal in delimiter.into_iter().chain(sps.iter().chain(&pps).map(|set| &set[..])) {
            sets.put_u32(u32::try_from(nal.len()).expect("a NAL unit of a Sample"));
            sets.put_slice(nal);
        }
        (sets.freeze(), rest)
    }

    /// What holds from this access unit on, where it brings parameter sets of its own that are others than these: encoders
    /// that are set anew send them beside the keyframe alone.
    pub fn renewed(&self, payload: &[u8]) -> Option<Self> {
        let (sps, pps) = (first_set(payload, NAL_SPS), first_set(payload, NAL_PPS));
        let (known_sps, known_pps) = (self.sps(), self.pps());
        let differs = |came: Option<&[u8]>, known: &[Bytes]| came.is_some_and(|came| known.iter().all(|known| known != came));
        if !differs(sps, &known_sps) && !differs(pps, &known_pps) {
            return None;
        }
        let or_known = |came: Option<&[u8]>, known: Vec<Bytes>| came.map_or(known, |came| vec![Bytes::copy_from_slice(came)]);
        Self::from_sets(&or_known(sps, known_sps), &or_known(pps, known_pps)).ok()
    }

    /// RFC 6381 3.3: `avc1.` and the three bytes in hexadecimal.
    pub fn codec_string(&self) -> String {
        let [profile, constraints, level] = self.profile_level;
        format!("avc1.{profile:02x}{constraints:02x}{level:02x}")
    }
}

/// The SPS and PPS NAL units of a record; it ends early where the record does, and leaves out what is something else.
fn parameter_sets(record: &Bytes) -> (Vec<Bytes>, Vec<Bytes>) {
    let mut rest = record.slice(record.len().min(RECORD_HEAD)..);
    let sps = take_sets(&mut rest, 0x1f, NAL_SPS);
    let pps = take_sets(&mut rest, 0xff, NAL_PPS);
    (sps, pps)
}

/// One list of the record: a number in the bits of `mask`, and so many NAL units behind their lengths in 2 bytes.
fn take_sets(rest: &mut Bytes, mask: u8, nal_type: u8) -> Vec<Bytes> {
    let mut sets = Vec::new();
    let Some(number) = rest.try_get_u8().ok().map(|byte| byte & mask) else { return sets };
    for _ in 0..number {
        let Some(length) = rest.try_get_u16().ok().map(usize::from).filter(|&length| length <= rest.len()) else { break };
        let set = rest.split_to(length);
        if set.first().is_some_and(|header| header & 0x1f == nal_type) {
            sets.push(set);
        }
    }
    sets
}

fn write_set(record: &mut Vec<u8>, set: &[u8]) {
    let length = u16::try_from(set.len()).expect("all sets together are shorter than RECORD_BYTES_MAX");
    record.extend(length.to_be_bytes());
    record.extend(set);
}

fn read_sps(nal: &[u8]) -> Result<SeqParameterSet, Error> {
    if nal.first().is_none_or(|header| header & 0x1f != NAL_SPS) {
        return Err(Error::NoSps);
    }
    SeqParameterSet::from_bits(RefNal::new(nal, &[], true).rbsp_bits()).map_err(|e| Error::Sps(format!("{e:?}")))
}

/// Pixels shown, after cropping.
fn size(sps: &SeqParameterSet) -> Result<(u32, u32), Error> {
    let (width, height) = sps.pixel_dimensions().map_err(|e| Error::Sps(format!("{e:?}")))?;
    if is_picture_size(width, height) { Ok((width, height)) } else { Err(Error::Size(width, height)) }
}

fn reorder_frames(sps: &SeqParameterSet) -> Option<u8> {
    let restrictions = sps.vui_parameters.as_ref()?.bitstream_restrictions.as_ref()?;
    u8::try_from(restrictions.max_num_reorder_frames).ok()
}

/// A frame lasts two ticks (H.264 E.2.1).
fn frame_rate(sps: &SeqParameterSet) -> Option<FrameRate> {
    let timing = sps.vui_parameters.as_ref()?.timing_info.as_ref()?;
    FrameRate::of_ticks(timing.time_scale.into(), u64::from(timing.num_units_in_tick) * 2)
}

/// A parameter set at the front of an access unit, without the zeros behind it (B.1).
fn first_set(payload: &[u8], nal_type: u8) -> Option<&[u8]> {
    let found = nal_units(payload).take(SEI_NALS_MAX).find(|nal| nal.first().is_some_and(|header| header & 0x1f == nal_type))?;
    Some(&found[..found.iter().rposition(|&byte| byte != 0)? + 1])
}

/// The NAL units of a length-prefixed access unit; it ends early where a length lies.
pub fn nal_units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (nal, tail) = tail.split_at_checked(length)?;
        rest = tail;
        Some(nal)
    })
}

/// Whether the lengths cover the payload exactly and at least one NAL unit is in it.
pub fn is_well_formed(payload: &[u8]) -> bool {
    let covered: usize = nal_units(payload).map(|nal| nal.len() + 4).sum();
    covered == payload.len() && covered > 4
}

/// Whether the access unit is an IDR picture. Containers lie about it; the bitstream does not.
pub fn is_idr(payload: &[u8]) -> bool {
    nal_units(payload).any(|nal| nal.first().is_some_and(|header| header & 0x1f == NAL_IDR))
}

/// Whether decoding can begin at the access unit: an IDR picture, or one with a recovery point that is itself (D.2.8), as
/// encoders with open GOPs send it. Pictures shown before such a one may lack what they refer to.
pub fn is_keyframe(payload: &[u8]) -> bool {
    let sei = |nal: &&[u8]| nal.first().is_some_and(|header| header & 0x1f == NAL_SEI);
    is_idr(payload) || nal_units(payload).take(SEI_NALS_MAX).filter(sei).any(recovers_at_once)
}

/// Whether an SEI NAL unit opens with a recovery point whose recovery_frame_cnt is 0, a single bit (7.3.2.3.1, D.1.8).
/// Encoders write it into a unit of its own, or behind a buffering period and picture timing.
fn recovers_at_once(nal: &[u8]) -> bool {
    let mut rest = nal.get(1..).unwrap_or_default();
    for _ in 0..SEI_MESSAGES_MAX {
        let [kind, size, body @ ..] = rest else { return false };
        if *kind == SEI_RECOVERY_POINT {
            return body.first().is_some_and(|first| first & 0x80 != 0);
        }
        let Some(behind) = body.get(usize::from(*size)..).filter(|_| *kind != 0xff && *size != 0xff) else { return false };
        rest = behind;
    }
    false
}

/// The largest distance between keyframes, in frames, as x264 writes it into its first SEI message.
pub fn keyframe_interval(payload: &[u8]) -> Option<u32> {
    let sei = |nal: &&[u8]| nal.first().is_some_and(|header| header & 0x1f == NAL_SEI);
    let written = |nal: &[u8]| written_keyframe_interval(&nal[..nal.len().min(SEI_BYTES_MAX)]);
    nal_units(payload).take(SEI_NALS_MAX).filter(sei).find_map(written)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`:
    /// the avcC box of the init segment.
    pub(crate) const RECORD_360P30: &[u8] = &[
        0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22,
        0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3,
        0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
    ];

    pub(crate) fn access_unit(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
    }

    #[test]
    fn a_record_tells_size_codec_and_rate() {
        let p = Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
        assert_eq!((p.width, p.height), (640, 360));
        assert_eq!(p.codec_string(), "avc1.64001e");
        assert_eq!(p.frame_rate, Some(FrameRate { frames: 30, seconds: 1 }));
    }

    #[test]
    fn no_cut_of_a_record_panics() {
        for end in 0..RECORD_360P30.len() {
            let _ = Parameters::parse(Bytes::copy_from_slice(&RECORD_360P30[..end]));
        }
        assert_eq!(Parameters::parse(Bytes::from(vec![1; RECORD_BYTES_MAX + 1])), Err(Error::TooLong(RECORD_BYTES_MAX + 1)));
    }

    #[test]
    fn a_record_gives_its_sets_and_they_give_the_record() {
        let p = Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
        let (sps, pps) = (p.sps(), p.pps());
        assert_eq!((sps.len(), pps.len()), (1, 1));
        assert_eq!((&sps[0][..], &pps[0][..]), (&RECORD_360P30[8..34], &RECORD_360P30[37..43]));
        assert!(RECORD_360P30.as_ptr_range().contains(&sps[0].as_ptr()), "a slice, not a copy");
        assert_eq!(Parameters::from_sets(&sps, &pps), Ok(p));
        // OpenH264: Constrained Baseline has no bytes behind the sets.
        let baseline = Bytes::from_static(b"\x67\x42\xc0\x1e\x8c\x8d\x40\x50\x1e\xd0\x0f\x08\x84\x6a");
        let two = [pps[0].clone(), Bytes::from_static(b"\x68\xce\x3c\x80")];
        let p = Parameters::from_sets(std::slice::from_ref(&baseline), &two).unwrap();
        assert_eq!((p.width, p.height, p.codec_string()), (640, 480, "avc1.42c01e".into()));
        assert_eq!((p.sps(), p.pps()), (vec![baseline.clone()], two.to_vec()));
        assert_eq!(p.record.len(), 7 + 2 + baseline.len() + 2 + two[0].len() + 2 + two[1].len());
    }

    #[test]
    fn sets_that_make_no_record_are_an_error() {
        let p = Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
        let (sps, pps) = (p.sps(), p.pps());
        let check = |sps: &[Bytes], pps: &[Bytes], error| assert_eq!(Parameters::from_sets(sps, pps), Err(error));
        check(&[], &pps, Error::Sets(0, 1));
        check(&sps, &[], Error::Sets(1, 0));
        check(&vec![sps[0].clone(); 32], &pps, Error::Sets(32, 1));
        check(&pps, &pps, Error::NoSps);
        check(&[Bytes::new()], &pps, Error::NoSps);
        check(&sps, &[vec![0x68; RECORD_BYTES_MAX].into()], Error::TooLong(RECORD_BYTES_MAX + sps[0].len()));
    }

    #[test]
    fn a_record_of_empty_or_strange_sets_is_refused_or_gives_none() {
        let check = |record: &[u8]| assert_eq!(Parameters::parse(Bytes::copy_from_slice(record)), Err(Error::NoSps));
        check(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 0, 0]);
        check(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 1, 0, 0]);
        check(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 1, 0x68, 0]);
        let mut record = RECORD_360P30[..36].to_vec();
        // Two picture parameter sets, an empty one and one that is something else.
        (record[34], record[35]) = (2, 0);
        record.extend([0, 0, 1, 0x67, 0xfd, 0xf8, 0xf8, 0]);
        assert_eq!(Parameters::parse(record.into()).unwrap().pps(), Vec::<Bytes>::new());
    }

    #[test]
    fn keyframes_are_told_by_their_slices() {
        assert!(is_idr(&access_unit(&[b"\x09\xf0", b"\x06\x05", b"\x65\x88"])));
        assert!(!is_idr(&access_unit(&[b"\x41\x9a"])));
        assert!(!is_idr(&[0, 0, 0, 9, 0x65]), "a length past the end");
        let check = |nals: &[&[u8]], keyframe| assert_eq!(is_keyframe(&access_unit(nals)), keyframe, "{nals:02x?}");
        check(&[b"\x65\x88"], true);
        check(&[b"\x41\x9a"], false);
        // x264 0.164 with open-gop=1: a recovery point of 0 frames, exact; with intra-refresh=1: of 59.
        check(&[b"\x06\x06\x01\xc4\x80", b"\x41\x9a"], true);
        check(&[b"\x06\x06\x02\x03\xc4\x80", b"\x41\x9a"], false);
        // Behind picture timing; and cut short.
        check(&[b"\x06\x01\x01\x12\x06\x01\xc4\x80", b"\x41\x9a"], true);
        check(&[b"\x06\x01\x09\x12\x06\x01\xc4\x80", b"\x41\x9a"], false);
        check(&[b"\x06", b"\x06\x06", b"\x06\x06\x01"], false);
        assert!(is_well_formed(&access_unit(&[b"\x65\x88"])));
        assert!(!is_well_formed(&[0, 0, 0, 9, 0x65]));
        assert!(!is_well_formed(&[]));
    }

    #[test]
    fn x264_settings_tell_the_keyframe_interval() {
        let sei = b"\x06\x05\xffx264 - core 164 - options: cabac=1 keyint=250 keyint_min=25 scenecut=40";
        assert_eq!(keyframe_interval(&access_unit(&[sei, b"\x65\x88"])), Some(250));
        assert_eq!(keyframe_interval(&access_unit(&[b"\x06\x05\xffx264 keyint=infinite "])), None);
        assert_eq!(keyframe_interval(&access_unit(&[b"\x65\x88"])), None);
    }
}
