//! Records of ffmpeg's `hvcC` boxes, what they tell, and what becomes of nonsense.

use super::*;
use crate::codec::h264::tests::access_unit;

/// ffmpeg 5.1.9 with x265 3.5, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx265 -preset ultrafast -tune zerolatency
/// -x265-params info=0:keyint=60 -tag:v hvc1 -pix_fmt yuv420p`: the hvcC box.
pub(crate) const RECORD_360P30: &str = "0101600000009000000000003ff000fcfdf8f800000f03a00001001840010c01ffff0160\
    0000030090000003000003003fba0240a10001002b42010101600000030090000003000003003fa005020171f2e5ba4a4c2f0168080000030008\
    00000300f040a2000100064401c0718312";
/// The same with `-f lavfi -i testsrc=s=854x482:r=25 -x265-params info=0:bframes=3 -pix_fmt yuv420p10le`: cropped,
/// 10 bits, with B-frames in a pyramid.
const RECORD_MAIN10: &str = "0102200000009000000000005af000fcfdfafa00000f03a00001001840010c01ffff02200000030090000003\
    000003005a959409a10001002b42010102200000030090000003000003005aa006b201e9d48d96565924caf01680\
    80000003008000000c84a2000100074401c172b46240";

pub(crate) fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn a_record_tells_size_codec_order_and_rate() {
    let p = Parameters::parse(bytes(RECORD_360P30)).unwrap();
    assert_eq!((p.width, p.height, p.reorder_frames), (640, 360, 0));
    assert_eq!(p.codec_string(), "hvc1.1.6.L63.90");
    assert_eq!(p.frame_rate, Some(FrameRate { frames: 30, seconds: 1 }));
    let p = Parameters::parse(bytes(RECORD_MAIN10)).unwrap();
    assert_eq!((p.width, p.height, p.reorder_frames), (854, 482, 2));
    assert_eq!(p.codec_string(), "hvc1.2.4.L90.90");
    assert_eq!(p.frame_rate, Some(FrameRate { frames: 25, seconds: 1 }));
}

#[test]
fn codec_strings_are_those_of_the_standards_examples() {
    let check = |general: &str, expected: &str| {
        let general = bytes(general)[..].try_into().unwrap();
        let p = Parameters { general, ..Parameters::parse(bytes(RECORD_360P30)).unwrap() };
        assert_eq!(p.codec_string(), expected);
    };
    // ISO/IEC 14496-15 E.3; and Apple's authoring specification.
    check("0160000000b00000000000 5d", "hvc1.1.6.L93.B0");
    check("4180000000b0230000000000", "hvc1.A1.1.L0.B0.23");
    check("2220000000b00000000000 96", "hvc1.2.4.H150.B0");
    check("016000000000000000000 07b", "hvc1.1.6.L123");
}

#[test]
fn a_record_gives_its_sets_and_they_give_a_record() {
    for record in [RECORD_360P30, RECORD_MAIN10].map(bytes) {
        let p = Parameters::parse(record.clone()).unwrap();
        let (vps, sps, pps) = (p.vps(), p.sps(), p.pps());
        assert_eq!((vps.len(), sps.len(), pps.len()), (1, 1, 1));
        assert!(record.as_ptr_range().contains(&sps[0].as_ptr()), "a slice, not a copy");
        let ours = Parameters::from_sets(&vps, &sps, &pps).unwrap();
        assert_eq!((ours.vps(), ours.sps(), ours.pps()), (vps, sps, pps));
        assert_eq!(ours.record, record, "as ffmpeg writes it");
        assert_eq!(ours, p);
    }
}

#[test]
fn sets_that_make_no_record_are_an_error() {
    let p = Parameters::parse(bytes(RECORD_360P30)).unwrap();
    let (vps, sps, pps) = (p.vps(), p.sps(), p.pps());
    let check = |vps: &[Bytes], sps: &[Bytes], pps: &[Bytes], error| assert_eq!(Parameters::from_sets(vps, sps, pps), Err(error));
    check(&[], &sps, &pps, Error::Sets(0, 1, 1));
    check(&vps, &[], &pps, Error::Sets(1, 0, 1));
    check(&vps, &sps, &vec![pps[0].clone(); 65], Error::Sets(1, 1, 65));
    check(&vps, &pps, &pps, Error::NoSps);
    check(&vps, &[Bytes::new()], &pps, Error::NoSps);
    let long = vps[0].len() + sps[0].len() + RECORD_BYTES_MAX;
    check(&vps, &sps, &[vec![0x44; RECORD_BYTES_MAX].into()], Error::TooLong(long));
}

#[test]
fn records_of_another_kind_are_refused() {
    let changed = |at: usize, value: u8| {
        let mut record = bytes(RECORD_360P30).to_vec();
        record[at] = value;
        Parameters::parse(record.into())
    };
    assert_eq!(changed(0, 2), Err(Error::Record));
    assert!(changed(0, 0).is_ok(), "written before the standard");
    assert_eq!(changed(21, 0x0d), Err(Error::LengthSize(2)));
    assert_eq!(changed(22, 1), Err(Error::NoSps));
    assert_eq!(Parameters::parse(vec![1; RECORD_BYTES_MAX + 1].into()), Err(Error::TooLong(RECORD_BYTES_MAX + 1)));
}

/// Cuts, and bytes changed at random: errors, never a panic, and no size that a level does not have.
#[test]
fn nonsense_is_an_error() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for record in [RECORD_360P30, RECORD_MAIN10].map(bytes) {
        for end in 0..record.len() {
            _ = Parameters::parse(record.slice(..end));
        }
        for _ in 0..20_000 {
            let mut changed = record.to_vec();
            for _ in 0..1 + random() % 8 {
                let at = random() % changed.len();
                changed[at] = random() as u8;
            }
            changed.extend((0..random() % 64).map(|_| random() as u8));
            if let Ok(p) = Parameters::parse(changed.into()) {
                assert!((1..=16_888).contains(&p.width) && (1..=16_888).contains(&p.height) && p.reorder_frames <= 16);
                _ = (p.codec_string(), p.vps(), p.pps());
            }
        }
    }
}

#[test]
fn keyframes_are_told_by_their_slices() {
    let check = |nals: &[&[u8]], expected| assert_eq!(is_keyframe(&access_unit(nals)), expected, "{nals:?}");
    check(&[b"\x46\x01\x10", b"\x4e\x01\x05", b"\x26\x01\xaf"], true); // A delimiter, SEI, IDR_W_RADL.
    check(&[b"\x28\x01\xaf"], true); // IDR_N_LP
    check(&[b"\x2a\x01\xaf"], true); // CRA
    check(&[b"\x20\x01\xaf"], true); // BLA_W_LP
    check(&[b"\x02\x01\xd0"], false); // TRAIL_R
    check(&[b"\x10\x01\xd0"], false); // RASL_N
    check(&[b"\x2c\x01\xd0"], false); // Reserved.
    check(&[b"\x02\x01\xd0", b"\x26\x01\xaf"], false); // The first slice tells.
    check(&[b"\x26\x01"], false); // A header and nothing.
    check(&[], false);
    assert!(!is_keyframe(&[0, 0, 0, 9, 0x26, 1, 1]), "a length past the end");
    assert!(is_well_formed(&access_unit(&[b"\x26\x01\xaf"])));
}

#[test]
fn x265_settings_tell_the_keyframe_interval() {
    let sei = b"\x4e\x01\x05\xffx265 (build 199) - options: open-gop min-keyint=6 keyint=60 gop-lookahead=0";
    assert_eq!(keyframe_interval(&access_unit(&[sei, b"\x26\x01\xaf"])), Some(60));
    assert_eq!(keyframe_interval(&access_unit(&[b"\x26\x01\xaf"])), None);
}
