//! Samples as RTP payloads, made once for all viewers.
//!
//! Parameter sets go in front of every keyframe, since a viewer may start at any, and say that no picture is held back:
//! without that a decoder waits for pictures that might be shown earlier, and never come.

use std::sync::Arc;

use bytes::Bytes;
use media_core::{Parameters, Sample, Track, TrackId, codec::h264};
use transport::rtp::h264::packetize;

/// Longest payload: with the RTP header, extensions, the RTX number and the SRTP tag a datagram stays under 1,250
/// bytes, which every path carries.
const PAYLOAD_BYTES_MAX: usize = 1170;

#[derive(Default)]
pub struct Packets {
    /// Of each lane, those of the parameters its newest keyframe was coded under.
    parameter_sets: [Option<ParameterSets>; TrackId::COUNT],
}

struct ParameterSets {
    track: Arc<Track>,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
}

impl Packets {
    /// `lane` is the track that viewers see it on. None where nothing of the Sample can be sent.
    pub fn payloads(&mut self, lane: TrackId, sample: &Sample) -> Vec<Bytes> {
        match &sample.track.parameters {
            Parameters::H264(parameters) if sample.keyframe => {
                let sets = self.parameter_sets(lane, &sample.track, parameters);
                let (sps, pps): (Vec<&[u8]>, Vec<&[u8]>) =
                    (sets.sps.iter().map(|nal| &nal[..]).collect(), sets.pps.iter().map(|nal| &nal[..]).collect());
                packetize(&sample.payload, Some((&sps, &pps)), PAYLOAD_BYTES_MAX)
            }
            Parameters::H264(_) => packetize(&sample.payload, None, PAYLOAD_BYTES_MAX),
            Parameters::Opus(_) if (1..=PAYLOAD_BYTES_MAX).contains(&sample.payload.len()) => vec![sample.payload.clone()],
            Parameters::Opus(_) | Parameters::Aac(_) | Parameters::Hevc(_) | Parameters::Av1(_) => Vec::new(),
        }
    }

    fn parameter_sets(&mut self, lane: TrackId, track: &Arc<Track>, parameters: &h264::Parameters) -> &ParameterSets {
        let slot = &mut self.parameter_sets[lane.index()];
        if slot.as_ref().is_some_and(|known| !Arc::ptr_eq(&known.track, track)) {
            *slot = None;
        }
        slot.get_or_insert_with(|| ParameterSets::new(track, parameters))
    }
}

impl ParameterSets {
    fn new(track: &Arc<Track>, parameters: &h264::Parameters) -> Self {
        let in_order = |sps: Bytes| h264::without_reordering(&sps).unwrap_or(sps);
        Self { track: Arc::clone(track), sps: parameters.sps().into_iter().map(in_order).collect(), pps: parameters.pps() }
    }
}

#[cfg(test)]
mod tests {
    use media_core::Timestamp;

    use super::*;
    use crate::whep::tests::{I, P, RECORD_360P30, Script, access_unit, video_track};

    #[test]
    fn a_keyframe_carries_its_parameter_sets() {
        let script = Script::new();
        let mut packets = Packets::default();
        let payloads = packets.payloads(TrackId::VIDEO, &script.slice(I, 0, 0));
        assert_eq!(payloads.len(), 1, "one aggregate");
        assert_eq!(payloads[0][0] & 0x1f, 24, "STAP-A");
        let pps = &RECORD_360P30[36..43];
        assert!(payloads[0].windows(pps.len()).any(|window| window == pps));
        assert_eq!(payloads[0][payloads[0].len() - I.len()..], *I);
        assert_eq!(packets.payloads(TrackId::VIDEO, &script.slice(P, 33, 33)), [Bytes::from_static(P)]);
    }

    #[test]
    fn large_pictures_are_cut_and_other_parameters_noticed() {
        let script = Script::new();
        let mut packets = Packets::default();
        packets.payloads(TrackId::VIDEO, &script.slice(I, 0, 0));
        let first = Arc::clone(&packets.parameter_sets[0].as_ref().unwrap().track);
        let large = [&[0x65, 0x88][..], &[0xaa; 5000]].concat();
        let track = video_track(TrackId::VIDEO, 720);
        let payloads = packets.payloads(TrackId::VIDEO, &script.sample(&track, Timestamp::ZERO, true, access_unit(&[&large]), 0));
        assert!(payloads.len() > 4 && payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
        assert!(!Arc::ptr_eq(&first, &packets.parameter_sets[0].as_ref().unwrap().track));
    }

    /// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -pix_fmt yuv420p -bf 2 -g 60`: SPS and PPS.
    const SPS_WITH_B_FRAMES: &[u8] = &[
        0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03,
        0x00, 0x3c, 0x0f, 0x16, 0x2d, 0x96,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

    #[test]
    fn viewers_are_told_not_to_wait_for_reordered_pictures() {
        let of = |sps: &Bytes| h264::Parameters::from_sets(std::slice::from_ref(sps), &[Bytes::from_static(PPS)]).unwrap();
        let sps = Bytes::from_static(SPS_WITH_B_FRAMES);
        let parameters = of(&sps);
        assert!(parameters.reorder_frames.is_none_or(|frames| frames > 0));
        let sets = ParameterSets::new(&video_track(TrackId::VIDEO, 360), &parameters);
        assert_eq!(of(&sets.sps[0]).reorder_frames, Some(0));
        assert_eq!(sets.pps, [Bytes::from_static(PPS)]);
    }

    #[test]
    fn sound_goes_as_it_is() {
        let script = Script::new();
        let sample = script.opus(0, 0);
        assert_eq!(Packets::default().payloads(TrackId::AUDIO, &sample), std::slice::from_ref(&sample.payload));
        assert!(Packets::default().payloads(TrackId::AUDIO, &script.aac(0, 0)).is_empty());
    }
}
