//! Which track each simulcast layer is: the largest picture is the main one.
//!
//! Pure. Offers do not tell sizes, so the layers' first keyframes are waited for, a moment only. What is
//! decided then stays for the session, though a layer may fall silent or its size change; but one that had not come yet
//! takes the main one's place if it is larger: an encoder that has to find out what its line carries begins with the smallest.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use media_core::TrackId;

/// Encoders start all layers within some frames of each other, where bandwidth allows them at all; the
/// first viewer waits as long.
const WAIT: Duration = Duration::from_secs(1);

pub(super) struct Layers {
    /// By layer: pixels of its first keyframe.
    pixels: Vec<Option<u64>>,
    waiting_since: Option<Instant>,
    /// By layer, once decided.
    tracks: Vec<TrackId>,
}

impl Layers {
    /// A single layer needs no decision.
    pub fn new(count: usize) -> Self {
        let tracks = if count == 1 { vec![TrackId::VIDEO] } else { Vec::new() };
        Self { pixels: vec![None; count], waiting_since: None, tracks }
    }

    pub fn is_decided(&self) -> bool {
        !self.tracks.is_empty()
    }

    pub fn track(&self, layer: usize) -> Option<TrackId> {
        self.tracks.get(layer).copied()
    }

    /// By `TrackId::index`.
    pub fn layer_of(&self, track: usize) -> Option<usize> {
        self.tracks.iter().position(|known| known.index() == track)
    }

    /// Gives the layer that was the main one, where this one took its place: they have changed tracks.
    pub fn handle_keyframe(&mut self, now: Instant, layer: usize, width: u32, height: u32) -> Option<usize> {
        self.waiting_since.get_or_insert(now);
        let known = self.pixels.get_mut(layer)?;
        if known.is_some() {
            return None;
        }
        *known = Some(u64::from(width) * u64::from(height));
        let main = self.layer_of(TrackId::VIDEO.index())?;
        if self.pixels[layer] <= self.pixels[main] {
            return None;
        }
        self.tracks.swap(layer, main);
        Some(main)
    }

    /// Whether enough is known now, or was waited for long enough.
    pub fn is_due(&self, now: Instant) -> bool {
        let waited = self.waiting_since.is_some_and(|since| now.saturating_duration_since(since) >= WAIT);
        !self.is_decided() && (waited || (!self.pixels.is_empty() && self.pixels.iter().all(Option::is_some)))
    }

    /// Those that have not come yet follow, in the offer's order.
    pub fn decide(&mut self) {
        let mut order: Vec<usize> = (0..self.pixels.len()).collect();
        order.sort_by_key(|layer| Reverse(self.pixels[*layer]));
        self.tracks = vec![TrackId::VIDEO; order.len()];
        for (rank, layer) in order.into_iter().enumerate().skip(1) {
            let number = u8::try_from(rank - 1).ok().and_then(TrackId::layer);
            self.tracks[layer] = number.expect("an offer has no more layers than a stream");
        }
    }
}

const _: () = assert!(transport::sdp::RIDS_MAX <= TrackId::LAYERS_MAX as usize + 1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers by height, in the order of the offer; 0: never seen. What track index each becomes.
    fn check(heights: &[u32], expected: &[usize]) {
        let mut layers = Layers::new(heights.len());
        let now = Instant::now();
        for (layer, height) in heights.iter().enumerate().filter(|(_, height)| **height > 0) {
            layers.handle_keyframe(now, layer, height * 16 / 9, *height);
        }
        assert_eq!(layers.is_due(now), heights.len() > 1 && !heights.contains(&0));
        assert_eq!(layers.is_due(now + WAIT), heights.len() > 1);
        layers.decide();
        let tracks: Vec<_> = (0..heights.len()).map(|layer| layers.track(layer).unwrap().index()).collect();
        assert_eq!(tracks, expected, "{heights:?}");
        for (layer, track) in tracks.iter().enumerate() {
            assert_eq!(layers.layer_of(*track), Some(layer));
        }
        assert_eq!((layers.layer_of(1), layers.track(heights.len())), (None, None));
    }

    #[test]
    fn a_larger_one_that_comes_late_takes_the_place_of_the_main_one() {
        let mut layers = Layers::new(4);
        let now = Instant::now();
        assert_eq!(layers.handle_keyframe(now, 0, 240, 135), None);
        layers.decide();
        let tracks = |layers: &Layers| [0, 1, 2, 3].map(|layer| layers.track(layer).unwrap().index());
        assert_eq!(tracks(&layers), [0, 2, 3, 4]);
        assert_eq!(layers.handle_keyframe(now, 1, 480, 270), Some(0));
        assert_eq!(tracks(&layers), [2, 0, 3, 4]);
        assert_eq!(layers.handle_keyframe(now, 2, 960, 540), Some(1));
        assert_eq!(tracks(&layers), [2, 3, 0, 4]);
        assert_eq!(layers.handle_keyframe(now, 3, 120, 68), None, "it is small");
        assert_eq!(layers.handle_keyframe(now, 1, 1920, 1080), None, "it is known, and grew");
        assert_eq!(layers.handle_keyframe(now, 4, 1920, 1080), None, "it was not offered");
        assert_eq!(tracks(&layers), [2, 3, 0, 4]);
    }

    #[test]
    fn the_largest_is_the_main_one() {
        check(&[720], &[0]);
        check(&[180, 360, 720], &[3, 2, 0]);
        check(&[720, 360, 180], &[0, 2, 3]);
        check(&[360, 360], &[0, 2]);
        check(&[180, 0, 360, 0], &[2, 3, 0, 4]);
        check(&[8, 7, 6, 5, 4, 3, 2, 1], &[0, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn nothing_is_decided_before_anything_came() {
        let layers = Layers::new(3);
        assert!(!layers.is_due(Instant::now() + 10 * WAIT));
        assert!(!Layers::new(0).is_due(Instant::now()));
        assert_eq!(layers.track(0), None);
    }
}
