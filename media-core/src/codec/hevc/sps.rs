//! The sequence parameter set of HEVC (ITU-T H.265 7.3.2.2), as far as anybody here needs it: size, order, rate.
//!
//! Read by ourselves, behind h264-reader's bits: decision 7. Every count is bounded by the standard's own limit. What
//! stands behind the order of pictures serves the frame rate alone, so a set that is strange from there on is still taken.

use std::num::NonZeroUsize;

use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, ByteReader};

use super::{Error, NAL_HEADER_BYTES, NAL_SPS, kind};
use crate::codec::FrameRate;

/// profile_tier_level() of the whole sequence: what `hvcC` repeats (ISO/IEC 14496-15 8.3.3.1).
pub const GENERAL_BYTES: usize = 12;

/// The largest picture of any level is 8 times as wide as high (A.4.1, level 6.2).
const SIDE_MAX: u32 = 16_888;
/// A.4.2: pictures that any decoder can hold.
const PICTURES_MAX: u32 = 16;
/// 7.4.3.2.1.
const SHORT_TERM_SETS_MAX: u32 = 64;
const LONG_TERM_PICTURES_MAX: u32 = 32;
const POC_BITS_MAX: u32 = 12;
const BIT_DEPTH_MINUS8_MAX: u32 = 8;
/// sub_layer_flags, then the profile and the level of one sub-layer (7.3.3).
const SUB_LAYERS_MAX: u8 = 6;
const SUB_LAYER_PROFILE_BITS: u32 = 88;
const SUB_LAYER_LEVEL_BITS: u32 = 8;
/// aspect_ratio_idc: the ratio follows (table E.1).
const EXTENDED_SAR: u8 = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    pub general: [u8; GENERAL_BYTES],
    pub sub_layers: u8,
    pub temporal_id_nested: bool,
    pub chroma_format: u8,
    pub bit_depth_luma_minus8: u8,
    pub bit_depth_chroma_minus8: u8,
    /// Pixels shown, after cropping.
    pub width: u32,
    pub height: u32,
    /// sps_max_num_reorder_pics of all sub-layers together.
    pub reorder_frames: u8,
    pub frame_rate: Option<FrameRate>,
}

type Bits<'a> = BitReader<ByteReader<&'a [u8]>>;

impl Sps {
    pub fn parse(nal: &[u8]) -> Result<Self, Error> {
        if kind(nal) != Some(NAL_SPS) {
            return Err(Error::NoSps);
        }
        let header = NonZeroUsize::new(NAL_HEADER_BYTES).expect("2 is not 0");
        let mut bits = BitReader::new(ByteReader::skipping_bytes(nal, header));
        let (mut sps, poc_bits) = Self::read(&mut bits)?;
        sps.frame_rate = frame_rate(&mut bits, poc_bits).ok().flatten();
        Ok(sps)
    }

    /// Up to sub_layer_ordering_info; with the length of a picture's number.
    fn read(bits: &mut Bits) -> Result<(Self, u32), Error> {
        bits.skip(4, "sps_video_parameter_set_id")?;
        let sub_layers_minus1: u8 = bits.read::<3, u8>("sps_max_sub_layers_minus1")?;
        if sub_layers_minus1 > SUB_LAYERS_MAX {
            return Err(Error::Sps("sps_max_sub_layers_minus1".into()));
        }
        let temporal_id_nested = bits.read_bit("sps_temporal_id_nesting_flag")?;
        let general = bits.read_to("profile_tier_level")?;
        skip_sub_layers(bits, sub_layers_minus1)?;
        bits.read_ue("sps_seq_parameter_set_id")?;
        let chroma_format = read_up_to(bits, 3, "chroma_format_idc")?;
        if chroma_format == 3 {
            bits.skip(1, "separate_colour_plane_flag")?;
        }
        let (width, height) = read_size(bits, chroma_format)?;
        let bit_depth_luma_minus8 = read_up_to(bits, BIT_DEPTH_MINUS8_MAX, "bit_depth_luma_minus8")? as u8;
        let bit_depth_chroma_minus8 = read_up_to(bits, BIT_DEPTH_MINUS8_MAX, "bit_depth_chroma_minus8")? as u8;
        let poc_bits = 4 + read_up_to(bits, POC_BITS_MAX, "log2_max_pic_order_cnt_lsb_minus4")?;
        let all = bits.read_bit("sps_sub_layer_ordering_info_present_flag")?;
        let mut reorder_frames = 0;
        for _ in 0..if all { sub_layers_minus1 + 1 } else { 1 } {
            bits.read_ue("sps_max_dec_pic_buffering_minus1")?;
            // They grow with the sub-layer; the last one is of all.
            reorder_frames = read_up_to(bits, PICTURES_MAX, "sps_max_num_reorder_pics")? as u8;
            bits.read_ue("sps_max_latency_increase_plus1")?;
        }
        let sps = Self {
            general,
            sub_layers: sub_layers_minus1 + 1,
            temporal_id_nested,
            chroma_format: chroma_format as u8,
            bit_depth_luma_minus8,
            bit_depth_chroma_minus8,
            width,
            height,
            reorder_frames,
            frame_rate: None,
        };
        Ok((sps, poc_bits))
    }
}

fn read_up_to(bits: &mut Bits, max: u32, name: &'static str) -> Result<u32, Error> {
    let value = bits.read_ue(name)?;
    if value > max { Err(Error::Sps(format!("{name} is {value}"))) } else { Ok(value) }
}

fn skip_sub_layers(bits: &mut Bits, sub_layers_minus1: u8) -> Result<(), BitReaderError> {
    if sub_layers_minus1 == 0 {
        return Ok(());
    }
    // The flags of 8, whatever there are.
    let flags: u16 = bits.read_to("sub_layer_profile_present_flag")?;
    for sub_layer in 0..sub_layers_minus1 {
        let flags = flags >> (14 - 2 * sub_layer);
        let skipped = (flags >> 1 & 1) as u32 * SUB_LAYER_PROFILE_BITS + (flags & 1) as u32 * SUB_LAYER_LEVEL_BITS;
        bits.skip(skipped, "sub_layer_profile_space")?;
    }
    Ok(())
}

/// With the conformance window taken off, whose unit is a pixel of chroma (table 6-1).
fn read_size(bits: &mut Bits, chroma_format: u32) -> Result<(u32, u32), Error> {
    let width = read_up_to(bits, SIDE_MAX, "pic_width_in_luma_samples")?;
    let height = read_up_to(bits, SIDE_MAX, "pic_height_in_luma_samples")?;
    let mut cropped = [0; 4];
    if bits.read_bit("conformance_window_flag")? {
        for offset in &mut cropped {
            *offset = read_up_to(bits, SIDE_MAX, "conf_win_offset")?;
        }
    }
    let (across, down) = (if matches!(chroma_format, 1 | 2) { 2 } else { 1 }, if chroma_format == 1 { 2 } else { 1 });
    let [left, right, top, bottom] = cropped;
    let shown = |all: u32, off: u32| all.checked_sub(off).filter(|rest| *rest > 0);
    let size = shown(width, across * (left + right)).zip(shown(height, down * (top + bottom)));
    size.ok_or_else(|| Error::Sps(format!("nothing of {width}x{height} pixels is shown")))
}

/// From the coding block sizes to vui_timing_info. A picture lasts one tick.
fn frame_rate(bits: &mut Bits, poc_bits: u32) -> Result<Option<FrameRate>, Error> {
    for name in [
        "log2_min_luma_coding_block_size_minus3",
        "log2_diff_max_min_luma_coding_block_size",
        "log2_min_luma_transform_block_size_minus2",
        "log2_diff_max_min_luma_transform_block_size",
        "max_transform_hierarchy_depth_inter",
        "max_transform_hierarchy_depth_intra",
    ] {
        bits.read_ue(name)?;
    }
    if bits.read_bit("scaling_list_enabled_flag")? && bits.read_bit("sps_scaling_list_data_present_flag")? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2, "amp_enabled_flag, sample_adaptive_offset_enabled_flag")?;
    if bits.read_bit("pcm_enabled_flag")? {
        bits.skip(8, "pcm_sample_bit_depth")?;
        bits.read_ue("log2_min_pcm_luma_coding_block_size_minus3")?;
        bits.read_ue("log2_diff_max_min_pcm_luma_coding_block_size")?;
        bits.skip(1, "pcm_loop_filter_disabled_flag")?;
    }
    skip_reference_sets(bits)?;
    if bits.read_bit("long_term_ref_pics_present_flag")? {
        let pictures = read_up_to(bits, LONG_TERM_PICTURES_MAX, "num_long_term_ref_pics_sps")?;
        bits.skip(pictures * (poc_bits + 1), "lt_ref_pic_poc_lsb_sps")?;
    }
    bits.skip(2, "sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag")?;
    if !bits.read_bit("vui_parameters_present_flag")? {
        return Ok(None);
    }
    skip_vui_front(bits)?;
    if !bits.read_bit("vui_timing_info_present_flag")? {
        return Ok(None);
    }
    let tick: u32 = bits.read_to("vui_num_units_in_tick")?;
    let scale: u32 = bits.read_to("vui_time_scale")?;
    Ok(FrameRate::of_ticks(scale.into(), tick.into()))
}

/// scaling_list_data() (7.3.4).
fn skip_scaling_lists(bits: &mut Bits) -> Result<(), BitReaderError> {
    for size in 0..4 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !bits.read_bit("scaling_list_pred_mode_flag")? {
                bits.read_ue("scaling_list_pred_matrix_id_delta")?;
                continue;
            }
            if size > 1 {
                bits.read_ue("scaling_list_dc_coef_minus8")?;
            }
            for _ in 0..64.min(1 << (4 + 2 * size)) {
                bits.read_ue("scaling_list_delta_coef")?;
            }
        }
    }
    Ok(())
}

/// All st_ref_pic_set() (7.3.7): one may be told by its difference from the one before.
fn skip_reference_sets(bits: &mut Bits) -> Result<(), Error> {
    let sets = read_up_to(bits, SHORT_TERM_SETS_MAX, "num_short_term_ref_pic_sets")?;
    let mut pictures = 0;
    for set in 0..sets {
        pictures = if set > 0 && bits.read_bit("inter_ref_pic_set_prediction_flag")? {
            skip_predicted_set(bits, pictures)?
        } else {
            skip_listed_set(bits)?
        };
    }
    Ok(())
}

/// How many pictures the set has; 32 at most, as `before` grows only up to there.
fn skip_predicted_set(bits: &mut Bits, before: u32) -> Result<u32, Error> {
    bits.skip(1, "delta_rps_sign")?;
    bits.read_ue("abs_delta_rps_minus1")?;
    let mut pictures = 0;
    for _ in 0..=before {
        let used = bits.read_bit("used_by_curr_pic_flag")? || bits.read_bit("use_delta_flag")?;
        pictures += u32::from(used);
    }
    if pictures > 2 * PICTURES_MAX {
        return Err(Error::Sps(format!("a set of {pictures} reference pictures")));
    }
    Ok(pictures)
}

fn skip_listed_set(bits: &mut Bits) -> Result<u32, Error> {
    let before = read_up_to(bits, PICTURES_MAX, "num_negative_pics")?;
    let behind = read_up_to(bits, PICTURES_MAX, "num_positive_pics")?;
    for _ in 0..before + behind {
        bits.read_ue("delta_poc_minus1")?;
        bits.skip(1, "used_by_curr_pic_flag")?;
    }
    Ok(before + behind)
}

/// vui_parameters() up to its timing (E.2.1).
fn skip_vui_front(bits: &mut Bits) -> Result<(), BitReaderError> {
    if bits.read_bit("aspect_ratio_info_present_flag")? && bits.read::<8, u8>("aspect_ratio_idc")? == EXTENDED_SAR {
        bits.skip(32, "sar_width, sar_height")?;
    }
    if bits.read_bit("overscan_info_present_flag")? {
        bits.skip(1, "overscan_appropriate_flag")?;
    }
    if bits.read_bit("video_signal_type_present_flag")? {
        bits.skip(4, "video_format, video_full_range_flag")?;
        if bits.read_bit("colour_description_present_flag")? {
            bits.skip(24, "colour_primaries")?;
        }
    }
    if bits.read_bit("chroma_loc_info_present_flag")? {
        bits.read_ue("chroma_sample_loc_type_top_field")?;
        bits.read_ue("chroma_sample_loc_type_bottom_field")?;
    }
    bits.skip(3, "neutral_chroma_indication_flag, field_seq_flag, frame_field_info_present_flag")?;
    if bits.read_bit("default_display_window_flag")? {
        for _ in 0..4 {
            bits.read_ue("def_disp_win_offset")?;
        }
    }
    Ok(())
}

impl From<BitReaderError> for Error {
    fn from(error: BitReaderError) -> Self {
        Self::Sps(format!("{error:?}"))
    }
}
