//! H.265 / HEVC (ITU-T H.265; ISO/IEC 14496-15 for the decoder configuration record).
//!
//! Payloads are NAL units behind 4-byte lengths, as those of H.264; the sets of parameters stand in the record alone
//! (sample entry `hvc1`). Parsing is of headers only, and bounded.

mod sps;

use std::{fmt, ops::RangeInclusive};

use bytes::{Buf, Bytes};

pub use super::h264::{is_well_formed, nal_units};
use super::{FrameRate, PICTURE_SIDE_MAX, is_picture_size, written_keyframe_interval};
use sps::{GENERAL_BYTES, Sps};

/// Longest HEVCDecoderConfigurationRecord taken: some parameter sets, of hundreds of bytes each, and the encoder's settings.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// Before the arrays: version, profile to level, seven fields of two bytes or one, and the number of arrays.
const RECORD_HEAD: usize = 23;
/// Sets of one kind: the identifiers of picture parameter sets end at 63 (7.4.3.3.1).
const SETS_MAX: usize = 64;
/// How much of an SEI message is searched for encoder settings; x265 writes 2.5 KiB.
const SEI_BYTES_MAX: usize = 4 << 10;
/// How many NAL units at the front of an access unit are looked at for SEI.
const SEI_NALS_MAX: usize = 8;
/// NAL units that are looked at for a slice: parameter sets, a delimiter and SEI stand before it.
const FRONT_NALS_MAX: usize = 64;

const NAL_HEADER_BYTES: usize = 2;
/// Table 7-1. Pictures at which decoding can begin, those in reserve aside.
const NAL_IRAP: RangeInclusive<u8> = 16..=21;
/// Types up to here are slices.
const NAL_VCL_MAX: u8 = 31;
const NAL_VPS: u8 = 32;
const NAL_SPS: u8 = 33;
const NAL_PPS: u8 = 34;
const NAL_PREFIX_SEI: u8 = 39;

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("HEVC: the decoder configuration is {0} bytes long, at most {RECORD_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("HEVC: the decoder configuration is cut short or of another version")]
    Record,
    #[error("HEVC: NAL unit lengths of {0} bytes: only 4 are taken")]
    LengthSize(u8),
    #[error("HEVC: the decoder configuration holds no sequence parameter set")]
    NoSps,
    #[error("HEVC: the sequence parameter set cannot be read: {0}")]
    Sps(String),
    #[error("HEVC: pictures of {0}x{1}: 1 to {PICTURE_SIDE_MAX} each way are taken")]
    Size(u32, u32),
    #[error("HEVC: {0} video, {1} sequence and {2} picture parameter sets: one to {SETS_MAX} of each are needed")]
    Sets(usize, usize, usize),
}

/// What a decoder must know before the first keyframe.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The HEVCDecoderConfigurationRecord as it came (ISO/IEC 14496-15 8.3.3.1).
    pub record: Bytes,
    /// Pixels shown, after cropping.
    pub width: u32,
    pub height: u32,
    /// The VUI's timing, where present: a promise, not a measurement.
    pub frame_rate: Option<FrameRate>,
    /// sps_max_num_reorder_pics: how many pictures a decoder must hold back. Every sequence says it, and a decoder relies
    /// on it, so 0 means that pictures come in the order in which they are shown (7.4.3.2.1).
    pub reorder_frames: u8,
    /// profile_tier_level() of the SPS.
    general: [u8; GENERAL_BYTES],
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hevc({} {}x{})", self.codec_string(), self.width, self.height)
    }
}

impl Parameters {
    pub fn parse(record: Bytes) -> Result<Self, Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLong(record.len()));
        }
        // Some encoders wrote version 0 before the standard was out, and nothing else differs.
        if record.len() < RECORD_HEAD || record[0] > 1 {
            return Err(Error::Record);
        }
        let length_size = (record[21] & 3) + 1;
        if length_size != 4 {
            return Err(Error::LengthSize(length_size));
        }
        let sps = Sps::parse(sets(&record, NAL_SPS).first().ok_or(Error::NoSps)?)?;
        if !is_picture_size(sps.width, sps.height) {
            return Err(Error::Size(sps.width, sps.height));
        }
        Ok(Self {
            width: sps.width,
            height: sps.height,
            frame_rate: sps.frame_rate,
            reorder_frames: sps.reorder_frames,
            general: sps.general,
            record,
        })
    }

    /// Writes the record of these parameter sets, NAL units without start codes (ISO/IEC 14496-15 8.3.3.1.2).
    pub fn from_sets(vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) -> Result<Self, Error> {
        let kinds = [(NAL_VPS, vps), (NAL_SPS, sps), (NAL_PPS, pps)];
        if kinds.iter().any(|(_, sets)| !(1..=SETS_MAX).contains(&sets.len())) {
            return Err(Error::Sets(vps.len(), sps.len(), pps.len()));
        }
        // Before anything is copied: the record is not going to be taken.
        let bytes = kinds.iter().flat_map(|(_, sets)| *sets).map(Bytes::len).sum::<usize>();
        if bytes > RECORD_BYTES_MAX {
            return Err(Error::TooLong(bytes));
        }
        let mut record = record_head(&Sps::parse(&sps[0])?);
        record.push(kinds.len() as u8);
        kinds.iter().for_each(|(kind, sets)| write_sets(&mut record, *kind, sets));
        Self::parse(record.into())
    }

    /// The video parameter sets, as slices of the record.
    pub fn vps(&self) -> Vec<Bytes> {
        sets(&self.record, NAL_VPS)
    }

    /// The sequence parameter sets, as slices of the record.
    pub fn sps(&self) -> Vec<Bytes> {
        sets(&self.record, NAL_SPS)
    }

    /// The picture parameter sets, as slices of the record.
    pub fn pps(&self) -> Vec<Bytes> {
        sets(&self.record, NAL_PPS)
    }

    /// What holds from this access unit on, where it brings other parameter sets than these: all three, as encoders repeat them.
    pub fn renewed(&self, payload: &[u8]) -> Option<Self> {
        let found =
            |wanted| nal_units(payload).take(SEI_NALS_MAX).find(|nal| kind(nal) == Some(wanted)).map(Bytes::copy_from_slice);
        let (vps, sps, pps) = (found(NAL_VPS)?, found(NAL_SPS)?, found(NAL_PPS)?);
        let known = [(&vps, self.vps()), (&sps, self.sps()), (&pps, self.pps())];
        if known.iter().all(|(came, known)| known.contains(came)) {
            return None;
        }
        Self::from_sets(&[vps], &[sps], &[pps]).ok()
    }

    /// ISO/IEC 14496-15 E.3: profile, compatibility flags with their bits turned round, tier and level, and the
    /// constraint flags as far as any is set.
    pub fn codec_string(&self) -> String {
        let [profile, a, b, c, d, constraints @ .., level] = self.general;
        let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
        let compatibility = u32::from_be_bytes([a, b, c, d]).reverse_bits();
        let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
        let mut text = format!("hvc1.{space}{}.{compatibility:X}.{tier}{level}", profile & 0x1f);
        let set = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        constraints[..set].iter().for_each(|byte| text.push_str(&format!(".{byte:X}")));
        text
    }
}

/// All before the number of arrays. What only a scan of the pictures could tell is left unspecified, as 0.
fn record_head(sps: &Sps) -> Vec<u8> {
    let mut head = vec![1];
    head.extend(sps.general);
    // min_spatial_segmentation_idc, parallelismType.
    head.extend([0xf0, 0, 0xfc]);
    head.extend([0xfc | sps.chroma_format, 0xf8 | sps.bit_depth_luma_minus8, 0xf8 | sps.bit_depth_chroma_minus8]);
    // avgFrameRate; then constantFrameRate, numTemporalLayers, temporalIdNested and lengthSizeMinusOne.
    head.extend([0, 0, sps.sub_layers << 3 | u8::from(sps.temporal_id_nested) << 2 | 3]);
    head
}

/// One array, which is complete: pictures bring no further sets.
fn write_sets(record: &mut Vec<u8>, kind: u8, sets: &[Bytes]) {
    record.push(0x80 | kind);
    record.extend((sets.len() as u16).to_be_bytes());
    for set in sets {
        let length = u16::try_from(set.len()).expect("all sets together are shorter than RECORD_BYTES_MAX");
        record.extend(length.to_be_bytes());
        record.extend(set);
    }
}

/// The NAL units of one kind in a record; it ends early where the record does, and leaves out what is something else.
fn sets(record: &Bytes, wanted: u8) -> Vec<Bytes> {
    let mut rest = record.slice(record.len().min(RECORD_HEAD)..);
    let arrays = record.get(RECORD_HEAD - 1).copied().unwrap_or(0);
    (0..arrays).map_while(|_| take_array(&mut rest)).flatten().filter(|nal| kind(nal) == Some(wanted)).take(SETS_MAX).collect()
}

fn take_array(rest: &mut Bytes) -> Option<Vec<Bytes>> {
    rest.try_get_u8().ok()?;
    let number = rest.try_get_u16().ok()?;
    Some((0..number).map_while(|_| take_nal(rest)).collect())
}

fn take_nal(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(rest.try_get_u16().ok()?);
    (length <= rest.len()).then(|| rest.split_to(length))
}

/// nal_unit_type (7.3.1.2); `None` for what has no whole header.
fn kind(nal: &[u8]) -> Option<u8> {
    (nal.len() > NAL_HEADER_BYTES).then(|| nal[0] >> 1 & 0x3f)
}

/// Whether decoding can begin at the access unit: an IRAP picture, which is an IDR, or one whose followers in decoding
/// order may be shown before it and are then left out (CRA, BLA; 8.1.3). x265 sends those unless it is told otherwise.
pub fn is_keyframe(payload: &[u8]) -> bool {
    let first_slice = nal_units(payload).take(FRONT_NALS_MAX).filter_map(kind).find(|kind| *kind <= NAL_VCL_MAX);
    first_slice.is_some_and(|kind| NAL_IRAP.contains(&kind))
}

/// The largest distance between keyframes, in frames, as x265 writes it into its first SEI message.
pub fn keyframe_interval(payload: &[u8]) -> Option<u32> {
    let sei = |nal: &&[u8]| kind(nal) == Some(NAL_PREFIX_SEI);
    let written = |nal: &[u8]| written_keyframe_interval(&nal[..nal.len().min(SEI_BYTES_MAX)]);
    nal_units(payload).take(SEI_NALS_MAX).filter(sei).find_map(written)
}

#[cfg(test)]
pub(crate) mod tests;
