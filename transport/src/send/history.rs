//! The last frames of one outgoing track, kept once for all its viewers: what a joining viewer
//! starts from, and what lost packets are sent again from.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;

/// A GOP of 8 s at 6 Mbit/s. A longer one cannot be joined before its next keyframe.
const BYTES_MAX: usize = 6 << 20;
/// And frames: 8 s at 120 a second, and a rest; 20 s of Opus.
const FRAMES_MAX: usize = 1024;

/// One frame, packetised.
#[derive(Clone, Debug)]
pub struct OutFrame {
    /// Ticks of the track's RTP clock, unwrapped.
    pub timestamp: u64,
    /// Its place on the stream's media timeline, in microseconds, the same for picture and sound.
    /// Sender reports are made of it.
    pub at_us: i64,
    /// Decoding can start here. Audio: every frame.
    pub keyframe: bool,
    /// RTP payloads in order; best of equal size, all but the last.
    pub payloads: Vec<Bytes>,
}

#[derive(Default)]
pub(crate) struct History {
    frames: VecDeque<Arc<OutFrame>>,
    /// Number of `frames[0]`, counted from the first frame ever.
    first: u64,
    bytes: usize,
    newest_keyframe: Option<u64>,
    /// When the newest frame was pushed.
    pushed: Option<Instant>,
}

impl History {
    /// The number that the frame got.
    pub(crate) fn push(&mut self, now: Instant, frame: Arc<OutFrame>) -> u64 {
        let number = self.next();
        if frame.keyframe {
            self.newest_keyframe = Some(number);
        }
        self.pushed = Some(now);
        self.bytes += size(&frame);
        self.frames.push_back(frame);
        while self.frames.len() > 1 && (self.bytes > BYTES_MAX || self.frames.len() > FRAMES_MAX) {
            let dropped = self.frames.pop_front().expect("more than one frame is there");
            self.bytes -= size(&dropped);
            self.first += 1;
        }
        number
    }

    /// The number of the frame that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    pub(crate) fn frame(&self, number: u64) -> Option<&Arc<OutFrame>> {
        self.frames.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn newest(&self) -> Option<(&Arc<OutFrame>, Instant)> {
        Some((self.frames.back()?, self.pushed?))
    }

    /// Where a viewer can start, if that is still here.
    pub(crate) fn newest_keyframe(&self) -> Option<u64> {
        self.newest_keyframe.filter(|number| *number >= self.first)
    }
}

fn size(frame: &OutFrame) -> usize {
    frame.payloads.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(keyframe: bool, bytes: usize) -> Arc<OutFrame> {
        Arc::new(OutFrame { timestamp: 0, at_us: 0, keyframe, payloads: vec![Bytes::from(vec![0; bytes])] })
    }

    #[test]
    fn it_forgets_the_oldest_and_knows_where_one_can_start() {
        let mut history = History::default();
        let now = Instant::now();
        assert_eq!((history.newest_keyframe(), history.next()), (None, 0));
        assert_eq!(history.push(now, frame(true, 10)), 0);
        assert_eq!(history.push(now, frame(false, 10)), 1);
        assert_eq!(history.newest_keyframe(), Some(0));
        history.push(now, frame(false, BYTES_MAX - 15));
        assert_eq!(history.newest_keyframe(), None, "the keyframe has left");
        assert!(history.frame(0).is_none() && history.frame(2).is_some() && history.frame(3).is_none());
        for _ in 0..FRAMES_MAX * 2 {
            history.push(now, frame(true, 1));
        }
        assert!(history.frames.len() <= FRAMES_MAX);
        assert_eq!(history.newest_keyframe(), Some(history.next() - 1));
    }
}
