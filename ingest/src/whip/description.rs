//! What a decoder must know of one layer, gathered from its frames: parameter sets that came beside them, or a sequence
//! header within.
//!
//! Pure. It changes with a keyframe alone, so what a frame was coded under is in force when the frame is asked for.

use std::slice::from_ref;

use bytes::Bytes;
use media_core::{
    Parameters,
    codec::{av1, h264, hevc},
};
use transport::{rtp::Frame, sdp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    H264,
    Hevc,
    Av1,
}

pub(super) struct Description {
    coding: Coding,
    vps: Option<Bytes>,
    sps: Option<Bytes>,
    pps: Option<Bytes>,
    /// The sets differ from those in `parameters`.
    changed: bool,
    /// In force since the newest keyframe.
    parameters: Option<Parameters>,
}

/// The keyframe describes itself in a way that cannot be read; nothing is in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Coding {
    /// `None` of sound, and of what carries no medium.
    pub fn of(codec: &sdp::Codec) -> Option<Self> {
        match codec {
            sdp::Codec::H264 { .. } => Some(Self::H264),
            sdp::Codec::H265 { .. } => Some(Self::Hevc),
            sdp::Codec::Av1 { .. } => Some(Self::Av1),
            sdp::Codec::Opus { .. } | sdp::Codec::Rtx { .. } | sdp::Codec::Other => None,
        }
    }
}

impl Description {
    pub fn new(coding: Coding) -> Self {
        Self { coding, vps: None, sps: None, pps: None, changed: false, parameters: None }
    }

    /// `None` before the first keyframe with all that is needed.
    pub fn parameters(&self) -> Option<&Parameters> {
        self.parameters.as_ref()
    }

    pub fn take(&mut self, frame: &Frame) -> Result<(), Unreadable> {
        self.take_sets(frame);
        if !frame.keyframe {
            return Ok(());
        }
        match self.coding {
            Coding::H264 | Coding::Hevc if !self.changed => Ok(()),
            Coding::H264 => self.read_h264(),
            Coding::Hevc => self.read_hevc(),
            Coding::Av1 => self.read_av1(&frame.payload),
        }
    }

    /// Encoders repeat them, in packets of their own or beside the picture: only others count.
    fn take_sets(&mut self, frame: &Frame) {
        for (known, came) in [(&mut self.vps, &frame.vps), (&mut self.sps, &frame.sps), (&mut self.pps, &frame.pps)] {
            if came.is_some() && known != came {
                known.clone_from(came);
                self.changed = true;
            }
        }
    }

    fn read_h264(&mut self) -> Result<(), Unreadable> {
        let (Some(sps), Some(pps)) = (&self.sps, &self.pps) else { return Ok(()) };
        let read = h264::Parameters::from_sets(from_ref(sps), from_ref(pps)).map(Parameters::H264);
        self.put(read.ok())
    }

    fn read_hevc(&mut self) -> Result<(), Unreadable> {
        let (Some(vps), Some(sps), Some(pps)) = (&self.vps, &self.sps, &self.pps) else { return Ok(()) };
        let read = hevc::Parameters::from_sets(from_ref(vps), from_ref(sps), from_ref(pps)).map(Parameters::Hevc);
        self.put(read.ok())
    }

    /// A keyframe without a sequence header is of the sequence that was going on (AV1 7.5).
    fn read_av1(&mut self, payload: &[u8]) -> Result<(), Unreadable> {
        match av1::Parameters::from_unit(payload) {
            Err(av1::Error::NoSequenceHeader) => Ok(()),
            read => self.put(read.ok().map(Parameters::Av1)),
        }
    }

    fn put(&mut self, read: Option<Parameters>) -> Result<(), Unreadable> {
        self.changed = false;
        self.parameters = read;
        if self.parameters.is_some() { Ok(()) } else { Err(Unreadable) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// ffmpeg 5.1.9 with x265 3.5, 640x360: VPS, SPS and PPS.
    const VPS: &[u8] = b"\x40\x01\x0c\x01\xff\xff\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xba\x02\x40";
    const SPS: &[u8] =
        b"\x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xa0\x05\x02\x01\x71\xf2\xe5\xba\
        \x4a\x4c\x2f\x01\x68\x08\x00\x00\x03\x00\x08\x00\x00\x03\x00\xf0\x40";
    const PPS: &[u8] = b"\x44\x01\xc0\x71\x83\x12";
    /// libaom 3.6.0, 640x360: a sequence header, and the first byte of a frame that is a keyframe.
    const AV1_KEYFRAME: &[u8] = b"\x0a\x0b\x00\x00\x00\x0c\xc4\xff\x67\x36\xbe\x40\x10\x32\x02\x10\x00";

    fn frame(keyframe: bool, sets: [Option<&'static [u8]>; 3], payload: &'static [u8]) -> Frame {
        let received = Instant::now();
        let [vps, sps, pps] = sets.map(|set| set.map(Bytes::from_static));
        let (timestamp, damaged_before, ntp, first_received) = (0, false, None, received);
        let payload = Bytes::from_static(payload);
        Frame { timestamp, payload, vps, sps, pps, keyframe, damaged_before, first_received, received, ntp }
    }

    #[test]
    fn hevc_is_described_by_three_sets() {
        let mut description = Description::new(Coding::Hevc);
        let slice = b"\0\0\0\x03\x26\x01\xaf";
        assert_eq!(description.take(&frame(true, [Some(VPS), Some(SPS), None], slice)), Ok(()));
        assert_eq!(description.parameters(), None, "one is missing");
        assert_eq!(description.take(&frame(false, [None, None, Some(PPS)], slice)), Ok(()));
        assert_eq!(description.parameters(), None, "it begins with a keyframe");
        assert_eq!(description.take(&frame(true, [None; 3], slice)), Ok(()));
        assert_eq!(description.parameters().and_then(Parameters::size), Some((640, 360)));
        assert_eq!(description.take(&frame(true, [None, Some(&SPS[..9]), None], slice)), Err(Unreadable));
        assert_eq!(description.parameters(), None);
    }

    #[test]
    fn av1_is_described_by_its_keyframes() {
        let mut description = Description::new(Coding::Av1);
        let bare = &AV1_KEYFRAME[13..];
        assert_eq!(description.take(&frame(true, [None; 3], bare)), Ok(()));
        assert_eq!(description.parameters(), None);
        assert_eq!(description.take(&frame(true, [None; 3], AV1_KEYFRAME)), Ok(()));
        let size = |description: &Description| description.parameters().and_then(Parameters::size);
        assert_eq!(size(&description), Some((640, 360)));
        assert_eq!(description.take(&frame(true, [None; 3], bare)), Ok(()));
        assert_eq!(size(&description), Some((640, 360)), "it goes on");
        assert_eq!(description.take(&frame(true, [None; 3], b"\x0a\x01\x00\x32\x01\x10")), Err(Unreadable));
        assert_eq!(size(&description), None);
    }
}
