//! Whether pictures come in the order in which they are shown: WebRTC has no decode times, so
//! B-frames cannot be sent over it. Told by the slices themselves; settings and metadata lie.

use h264_reader::{
    nal::{Nal, RefNal},
    rbsp::BitRead,
};

use super::{Parameters, is_idr, nal_units};
use crate::sample::{Parameters as AnyParameters, Sample};

/// Pictures without a B slice after which a source whose parameters allow reordering is taken to
/// be in order: longer than any encoder's first run of P pictures, under a second at 30 a second.
const TRUSTED_AFTER: u32 = 24;
/// Slices of one access unit that are looked at: encoders mix no B slices into P pictures.
const SLICES_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// So many pictures were seen, and no B slice.
    Unknown(u32),
    /// As shown. A B slice may still come.
    Shown,
    /// There are B slices; or keyframes that are no IDR pictures, which browsers do not begin at and encoders write where
    /// pictures before them follow.
    Reordered,
}

impl Default for Order {
    fn default() -> Self {
        Self::Unknown(0)
    }
}

impl Order {
    /// Takes one picture. Once B slices were seen that stays so until the publisher joins anew.
    pub fn observe(&mut self, sample: &Sample) {
        let parameters = match &sample.track.parameters {
            AnyParameters::H264(parameters) => parameters,
            other => return self.promise(other),
        };
        *self = match *self {
            Self::Reordered => return,
            _ if has_b_slice(&sample.payload) || (sample.keyframe && !is_idr(&sample.payload)) => Self::Reordered,
            Self::Shown => return,
            Self::Unknown(_) if cannot_reorder(parameters) => Self::Shown,
            Self::Unknown(seen) if seen + 1 >= TRUSTED_AFTER => Self::Shown,
            Self::Unknown(seen) => Self::Unknown(seen + 1),
        };
    }

    /// What the parameters of other codecs say is so: decoders rely on it.
    fn promise(&mut self, parameters: &AnyParameters) {
        let shown = match parameters {
            AnyParameters::Hevc(parameters) => parameters.reorder_frames == 0,
            // A temporal unit shows one picture (AV1 7.5).
            AnyParameters::Av1(_) => true,
            AnyParameters::H264(_) | AnyParameters::Aac(_) | AnyParameters::Opus(_) => return,
        };
        if *self != Self::Reordered {
            *self = if shown { Self::Shown } else { Self::Reordered };
        }
    }
}

/// Baseline has no B slices (H.264 A.2.1), and a sequence may promise that nothing is reordered.
fn cannot_reorder(parameters: &Parameters) -> bool {
    parameters.profile_level[0] == 66 || parameters.reorder_frames == Some(0)
}

fn has_b_slice(payload: &[u8]) -> bool {
    nal_units(payload)
        .filter(|nal| nal.first().is_some_and(|header| matches!(header & 0x1f, 1 | 2)))
        .take(SLICES_MAX)
        .any(is_b_slice)
}

/// slice_header(): first_mb_in_slice, slice_type (H.264 7.3.3, table 7-6).
fn is_b_slice(nal: &[u8]) -> bool {
    // Both numbers fit into these bytes, with emulation prevention.
    let front = &nal[..nal.len().min(16)];
    let nal = RefNal::new(front, &[], true);
    let mut bits = nal.rbsp_bits();
    let slice_type = bits.read_ue("first_mb_in_slice").and_then(|_| bits.read_ue("slice_type"));
    matches!(slice_type, Ok(1 | 6))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use bytes::Bytes;

    use super::*;
    use crate::{
        Timescale, Timestamp, Track, TrackId,
        codec::h264::tests::{RECORD_360P30, access_unit},
    };

    /// first_mb_in_slice 0 (`1`), slice_type: 0 P `1`, 1 B `010`, 5 P `00110`, 6 B `00111`, 7 I `0001000`.
    const P: &[u8] = &[0x41, 0b1100_0000];
    const B: &[u8] = &[0x01, 0b1010_0000];
    const B_ALL: &[u8] = &[0x01, 0b1001_1100];
    const I: &[u8] = &[0x65, 0b1000_1000];

    fn sample(nal: &[u8], reorder_frames: Option<u8>) -> Sample {
        let parameters = Parameters { reorder_frames, ..Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap() };
        let track = Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters: AnyParameters::H264(parameters) };
        let at = Timestamp::from_millis(0);
        let payload = access_unit(&[nal]).into();
        Sample { track: Arc::new(track), pts: at, dts: at, duration: None, keyframe: false, payload, received: Instant::now() }
    }

    #[test]
    fn slices_tell() {
        assert!(!is_b_slice(P) && !is_b_slice(I) && is_b_slice(B) && is_b_slice(B_ALL));
        let mut order = Order::default();
        for nal in [I, P, P] {
            order.observe(&sample(nal, Some(2)));
        }
        assert_eq!(order, Order::Unknown(3));
        order.observe(&sample(B, Some(2)));
        assert_eq!(order, Order::Reordered);
        order.observe(&sample(P, Some(0)));
        assert_eq!(order, Order::Reordered);
    }

    #[test]
    fn a_promise_or_a_second_of_p_pictures_is_trusted_until_a_b_slice_comes() {
        let mut order = Order::default();
        order.observe(&sample(I, Some(0)));
        assert_eq!(order, Order::Shown);
        order.observe(&sample(B_ALL, Some(0)));
        assert_eq!(order, Order::Reordered, "settings lie");
        let mut order = Order::default();
        (0..TRUSTED_AFTER).for_each(|_| order.observe(&sample(P, None)));
        assert_eq!(order, Order::Shown);
    }
}
