//! When to ask for keyframes: browsers send none by themselves, and HLS viewers start at one.
//!
//! Pure. All layers are asked together, so that their keyframes are of the same picture: there every rendition is cut.

use std::time::{Duration, Instant};

pub(super) struct Keyframes {
    interval: Duration,
    layers: Vec<Layer>,
}

#[derive(Clone)]
struct Layer {
    /// When the next keyframe should come.
    due: Instant,
    /// One was asked for: that it takes a moment to come makes the next no later.
    asked: bool,
}

impl Keyframes {
    pub fn new(now: Instant, interval: Duration, layers: usize) -> Self {
        Self { interval, layers: vec![Layer { due: now + interval, asked: false }; layers] }
    }

    /// One came, whoever asked for it.
    pub fn handle_keyframe(&mut self, now: Instant, layer: usize) {
        let Some(layer) = self.layers.get_mut(layer) else { return };
        if !std::mem::take(&mut layer.asked) {
            layer.due = now + self.interval;
        }
    }

    /// They are to be asked now.
    pub fn want(&mut self, now: Instant) {
        self.layers.iter_mut().for_each(|layer| layer.due = now);
    }

    /// Whether the layers are to be asked now: one of them had none for as long as one may take.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let due = self.layers.iter().any(|layer| layer.due <= now);
        if due {
            self.layers.fill(Layer { due: now + self.interval, asked: true });
        }
        due
    }

    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.layers.iter().map(|layer| layer.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_asked_when_one_sent_none_by_itself() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = Instant::now();
        let mut keyframes = Keyframes::new(start, 2 * SECOND, 2);
        assert_eq!(keyframes.poll_timeout(), Some(start + 2 * SECOND));
        assert!(!keyframes.take_due(start + SECOND));
        keyframes.handle_keyframe(start + SECOND, 1);
        keyframes.handle_keyframe(start + SECOND, 7);
        assert!(keyframes.take_due(start + 2 * SECOND));
        assert!(!keyframes.take_due(start + 3 * SECOND), "both were asked");
        keyframes.handle_keyframe(start + 3 * SECOND, 0);
        keyframes.handle_keyframe(start + 3 * SECOND, 1);
        assert_eq!(keyframes.poll_timeout(), Some(start + 4 * SECOND), "as if they had come at once");
        keyframes.handle_keyframe(start + 3 * SECOND, 0);
        keyframes.handle_keyframe(start + 3 * SECOND, 1);
        assert_eq!(keyframes.poll_timeout(), Some(start + 5 * SECOND), "came by themselves");
        assert_eq!(Keyframes::new(start, SECOND, 0).poll_timeout(), None);
    }
}
