//! When to ask which layer for a keyframe: browsers send none by themselves, and HLS viewers start at one.
//!
//! Pure.

use std::time::{Duration, Instant};

pub(super) struct Keyframes {
    interval: Duration,
    /// Of each layer, when the next one should come.
    due: Vec<Instant>,
}

impl Keyframes {
    pub fn new(now: Instant, interval: Duration, layers: usize) -> Self {
        Self { interval, due: vec![now + interval; layers] }
    }

    /// One came, whoever asked for it.
    pub fn handle_keyframe(&mut self, now: Instant, layer: usize) {
        if let Some(due) = self.due.get_mut(layer) {
            *due = now + self.interval;
        }
    }

    /// A layer to be asked now.
    pub fn poll_due(&mut self, now: Instant) -> Option<usize> {
        let layer = self.due.iter().position(|due| *due <= now)?;
        self.due[layer] = now + self.interval;
        Some(layer)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.iter().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_asked_when_none_came_by_itself() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = Instant::now();
        let mut keyframes = Keyframes::new(start, 2 * SECOND, 2);
        assert_eq!(keyframes.poll_timeout(), Some(start + 2 * SECOND));
        assert_eq!(keyframes.poll_due(start + SECOND), None);
        keyframes.handle_keyframe(start + SECOND, 1);
        keyframes.handle_keyframe(start + SECOND, 7);
        assert_eq!(keyframes.poll_due(start + 2 * SECOND), Some(0));
        assert_eq!(keyframes.poll_due(start + 2 * SECOND), None);
        assert_eq!(keyframes.poll_timeout(), Some(start + 3 * SECOND));
        assert_eq!(keyframes.poll_due(start + 3 * SECOND), Some(1));
        assert_eq!(Keyframes::new(start, SECOND, 0).poll_timeout(), None);
    }
}
