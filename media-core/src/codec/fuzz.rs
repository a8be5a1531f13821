//! The body of the fuzz target for what codecs write ahead of their pictures and sounds. Nothing may panic, and what is taken
//! is something that fMP4 can say and a player can be told.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{PICTURE_SIDE_MAX, aac, av1, h264, hevc, opus};
use crate::{Parameters, Sample, Timescale, Timestamp, Track, TrackId};

/// The first byte says what the rest is; lists are cut by lengths of two bytes.
pub fn fuzz(now: Instant, data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match kind % 9 {
        0 => h264::Parameters::parse(bytes).map(check_h264).unwrap_or_default(),
        1 => {
            let sets = cut(&bytes);
            let (sps, pps) = sets.split_at(sets.len() / 2);
            h264::Parameters::from_sets(sps, pps).map(check_h264).unwrap_or_default();
        }
        2 => hevc::Parameters::parse(bytes).map(check_hevc).unwrap_or_default(),
        3 => {
            let sets = cut(&bytes);
            let third = sets.len() / 3;
            hevc::Parameters::from_sets(&sets[..third], &sets[third..2 * third], &sets[2 * third..])
                .map(check_hevc)
                .unwrap_or_default();
        }
        4 => av1::Parameters::parse(bytes).map(check_av1).unwrap_or_default(),
        5 => {
            let inner = av1::without_delimiter(bytes);
            _ = (av1::is_well_formed(&inner), av1::is_keyframe(&inner));
            av1::Parameters::from_unit(&inner).map(check_av1).unwrap_or_default();
        }
        6 => aac::Parameters::parse(bytes).map(check_aac).unwrap_or_default(),
        7 => {
            _ = opus::Parameters::parse(&bytes);
            assert!(
                opus::packet_samples(&bytes).is_none_or(|samples| (1..=5760).contains(&samples)),
                "a packet lasts up to 120 ms"
            );
        }
        _ => units(now, bytes),
    }
}

/// A coded picture as it comes: whole or not, every question about it has an answer.
fn units(now: Instant, payload: Bytes) {
    let covered: usize = h264::nal_units(&payload).map(|nal| nal.len() + 4).sum();
    assert!(covered <= payload.len(), "no unit reaches beyond its picture");
    _ = (h264::is_well_formed(&payload), h264::is_keyframe(&payload), hevc::is_keyframe(&payload));
    _ = (h264::keyframe_interval(&payload), hevc::keyframe_interval(&payload));
    let parameters =
        h264::nal_units(&payload).find_map(|sps| h264::Parameters::from_sets(&[Bytes::copy_from_slice(sps)], &[PPS]).ok());
    let Some(parameters) = parameters else { return };
    let track = Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters: Parameters::H264(parameters) };
    let at = Timestamp::new(0, Timescale::MILLIS);
    let sample = Sample { track: Arc::new(track), pts: at, dts: at, duration: None, keyframe: true, payload, received: now };
    h264::Order::default().observe(&sample);
}

const PPS: Bytes = Bytes::from_static(&[0x68, 0xee, 0x3c, 0x80]);

fn cut(bytes: &Bytes) -> Vec<Bytes> {
    let (mut rest, mut sets) = (bytes.clone(), Vec::new());
    while rest.len() > 2 {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        _ = rest.split_to(2);
        sets.push(rest.split_to(length.min(rest.len())));
    }
    sets
}

fn check_h264(parameters: h264::Parameters) {
    check_size(parameters.width, parameters.height);
    assert_eq!(parameters.codec_string().len(), "avc1.64001f".len(), "{parameters:?}");
    for sps in parameters.sps() {
        if let Some(promised) = h264::without_reordering(&sps) {
            let again = h264::Parameters::from_sets(&[promised], &[PPS]);
            assert!(
                again.as_ref().is_ok_and(|again| again.reorder_frames == Some(0)),
                "{again:?} {:?} a rewritten set says what it was rewritten for",
                parameters
            );
        }
    }
}

fn check_hevc(parameters: hevc::Parameters) {
    check_size(parameters.width, parameters.height);
    assert!(parameters.codec_string().starts_with("hvc1."), "{parameters:?}");
    _ = (parameters.vps(), parameters.sps(), parameters.pps());
}

fn check_av1(parameters: av1::Parameters) {
    check_size(parameters.width, parameters.height);
    assert!(parameters.codec_string().starts_with("av01."), "{parameters:?}");
}

fn check_aac(parameters: aac::Parameters) {
    assert!((7350..=96_000).contains(&parameters.sample_rate) && parameters.channels() > 0, "{parameters:?}");
    assert!(parameters.codec_string().starts_with("mp4a.40."), "{parameters:?}");
}

fn check_size(width: u32, height: u32) {
    let sides = 1..=PICTURE_SIDE_MAX;
    assert!(sides.contains(&width) && sides.contains(&height), "a picture of {width}x{height}");
}
