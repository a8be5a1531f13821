//! A sequence parameter set that promises that no picture waits for another: a decoder without the
//! promise holds back as many as its buffer has (H.264 E.2.1, C.4.5.3), and WebRTC would show each picture late.
//!
//! The set is read, changed and written anew. One that would not come out bit for bit when nothing
//! is changed is left alone.

use bytes::Bytes;
use h264_reader::nal::{
    NalHeader, WritableNal,
    sps::{BitstreamRestrictions, SeqParameterSet},
};

use super::read_sps;

/// Longest set that is taken: a real one has up to a hundred bytes, with scaling lists and HRD a thousand.
const SPS_BYTES_MAX: usize = 4 << 10;

/// Rewrites an SPS (a NAL unit) so that its VUI says max_num_reorder_frames = 0. `None` when it says so
/// already or cannot be read: then it serves as it came.
pub fn without_reordering(sps: &[u8]) -> Option<Bytes> {
    // Zeros behind a NAL unit are not of it (B.1).
    let length = sps.iter().rposition(|&byte| byte != 0)? + 1;
    let sps = sps.get(..length).filter(|sps| sps.len() <= SPS_BYTES_MAX)?;
    let mut set = read_sps(sps).ok()?;
    let header = NalHeader::new(sps[0]).ok()?;
    if write(&set, header)? != sps {
        return None;
    }
    let vui = set.vui_parameters.get_or_insert_default();
    if vui.bitstream_restrictions.as_ref().is_some_and(|known| known.max_num_reorder_frames == 0) {
        return None;
    }
    let restrictions = vui.bitstream_restrictions.get_or_insert_with(unrestricted);
    restrictions.max_num_reorder_frames = 0;
    // At least one: a sequence of IDR pictures alone needs none, and decoders keep the one they show.
    restrictions.max_dec_frame_buffering = set.max_num_ref_frames.max(1);
    let written = write(&set, header)?;
    // What a level has no room for would be refused by others as well.
    read_sps(&written).is_ok_and(|read| read == set).then(|| written.into())
}

fn write(set: &SeqParameterSet, header: NalHeader) -> Option<Vec<u8>> {
    let mut nal = Vec::with_capacity(64);
    set.write_with_header(header, &mut nal).ok()?;
    Some(nal)
}

/// What is inferred where no restriction is written (E.2.1).
fn unrestricted() -> BitstreamRestrictions {
    BitstreamRestrictions {
        motion_vectors_over_pic_boundaries_flag: true,
        max_bytes_per_pic_denom: 2,
        max_bits_per_mb_denom: 1,
        log2_max_mv_length_horizontal: 15,
        log2_max_mv_length_vertical: 15,
        max_num_reorder_frames: 0,
        max_dec_frame_buffering: 0,
    }
}

#[cfg(test)]
mod tests {
    use h264_reader::nal::sps::{ScalingLists4x4, ScalingLists8x8, SeqScalingMatrix, VuiParameters};

    use super::*;

    /// x264 0.164, as ffmpeg 5.1.9 (a record of an RTMP publisher), OBS 29.0.2 and GStreamer 1.22.0 (`tune=zerolatency`)
    /// use it; then ffmpeg with `-flags +ildct+ilme`, 1920x1080 (cropped), `nal-hrd=cbr`, yuv444p, `-profile:v baseline`;
    /// last OpenH264 2.3.1 in GStreamer, as browsers have it.
    const FFMPEG: &str = "6764000bacd9428df930110000030001000003003c0f142996";
    const OBS: &str = "6764001facd9405005bb016a02020280000003008000001e478c18cb";
    const ZERO_LATENCY: &str = "6764000bacb2051bf2602d418181a940000003004000000f23c50a92";
    const INTERLACED: &str = "6764001eacd940a063f3e022000003000200000300783e28532c";
    const CROPPED: &str = "67640028acd940780227e5c044000003000400000300f03c60c658";
    const HRD: &str = "6764000dacd941619ea6c044000003000400000300f181000c3500186b930c01e28532c0";
    const YUV444: &str = "67f4000d919b28283f6022000003000200000300781e28532c";
    const BASELINE: &str = "6742c00dd90141fb0110000003001000000303c0f142a480";
    const OPENH264: &str = "6742c01e8c8d40501ed00f08846a";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The same set with other VUI restrictions, or without a VUI.
    fn changed(hex: &str, change: impl FnOnce(&mut SeqParameterSet)) -> Vec<u8> {
        let nal = bytes(hex);
        let mut set = read_sps(&nal).unwrap();
        change(&mut set);
        write(&set, NalHeader::new(nal[0]).unwrap()).unwrap()
    }

    fn unrestrict(set: &mut SeqParameterSet) {
        set.vui_parameters.as_mut().unwrap().bitstream_restrictions = None;
    }

    fn scaling_lists(set: &mut SeqParameterSet) {
        let mut lists4x4 = [None; 6];
        // Falls off to the list's end with a zero; goes up and down; starts with a zero: the default list.
        lists4x4[0] = Some([6, 12, 19, 26, 31, 35, 39, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        lists4x4[3] = Some(std::array::from_fn(|at| if at % 2 == 0 { 16 } else { 255 - at as u8 }));
        lists4x4[4] = Some([0; 16]);
        let lists8x8 = ScalingLists8x8::Y([Some(std::array::from_fn(|at| 8 + at as u8)), None]);
        let matrix = SeqScalingMatrix { scaling_lists4x4: ScalingLists4x4(lists4x4), scaling_lists8x8: lists8x8 };
        set.chroma_info.scaling_matrix = Some(Box::new(matrix));
    }

    #[test]
    fn a_set_says_that_nothing_is_reordered_and_is_the_same_otherwise() {
        let check = |name: &str, nal: &[u8]| {
            let before = read_sps(nal).unwrap_or_else(|e| panic!("{name}: {e}"));
            let rewritten = without_reordering(nal).unwrap_or_else(|| panic!("{name} is left alone"));
            assert_eq!(rewritten[0], nal[0], "{name}");
            let mut after = read_sps(&rewritten).unwrap();
            let vui = after.vui_parameters.as_mut().unwrap();
            let restrictions = vui.bitstream_restrictions.clone().unwrap();
            let says = (restrictions.max_num_reorder_frames, restrictions.max_dec_frame_buffering);
            assert_eq!(says, (0, before.max_num_ref_frames.max(1)), "{name}");
            vui.bitstream_restrictions = before.vui_parameters.as_ref().and_then(|vui| vui.bitstream_restrictions.clone());
            if before.vui_parameters.is_none() {
                assert_eq!(after.vui_parameters, Some(VuiParameters::default()), "{name}");
                after.vui_parameters = None;
            }
            assert_eq!(after, before, "{name}");
            assert_eq!(without_reordering(&rewritten), None, "{name}: once is enough");
            for window in rewritten.windows(3) {
                assert!(window[..2] != [0, 0] || window[2] > 2, "{name}: a start code in {rewritten:02x?}");
            }
        };
        check("ffmpeg", &bytes(FFMPEG));
        check("OBS", &bytes(OBS));
        check("interlaced", &bytes(INTERLACED));
        check("cropped", &bytes(CROPPED));
        check("with HRD", &bytes(HRD));
        check("4:4:4", &bytes(YUV444));
        check("zeros behind", &[bytes(OBS), vec![0, 0]].concat());
        check("unrestricted", &changed(BASELINE, unrestrict));
        check("without VUI, baseline", &changed(OPENH264, |set| set.vui_parameters = None));
        check("without VUI, cropped", &changed(CROPPED, |set| set.vui_parameters = None));
        check("scaling lists", &changed(OBS, scaling_lists));
        let no_references = |set: &mut SeqParameterSet| {
            unrestrict(set);
            set.max_num_ref_frames = 0;
        };
        check("intra only", &changed(OBS, no_references));
    }

    #[test]
    fn what_promises_it_already_or_cannot_be_read_is_left_alone() {
        let check = |name: &str, nal: &[u8]| assert_eq!(without_reordering(nal), None, "{name}");
        check("zero latency", &bytes(ZERO_LATENCY));
        check("baseline", &bytes(BASELINE));
        check("OpenH264", &bytes(OPENH264));
        check("nothing", &[]);
        check("zeros", &[0; 8]);
        check("a picture parameter set", &[0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xc0]);
        check("too long", &[&bytes(OBS)[..], &[1; SPS_BYTES_MAX]].concat());
        let mut escaped = bytes(OPENH264);
        escaped.splice(2..2, [0, 0, 3]);
        check("another set behind a shift", &escaped);
        for name in [FFMPEG, OBS, HRD] {
            let nal = bytes(name);
            for end in 0..nal.len() {
                let _ = without_reordering(&nal[..end]);
            }
            for bit in 0..nal.len() * 8 {
                let mut broken = nal.clone();
                broken[bit / 8] ^= 0x80 >> (bit % 8);
                let _ = without_reordering(&broken);
            }
        }
    }
}
