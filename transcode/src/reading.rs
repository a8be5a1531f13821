//! Where a lane stands in the source's window: what it has read and not handled, and where it begins.

use std::{
    collections::VecDeque,
    ops::Range,
    task::{Context, Poll, Waker},
    time::Instant,
};

use media_core::{
    Cursor, Item, Stream, Timestamp, TrackId,
    fanout::Next,
    stream::{Made, Present},
};

use crate::{
    lane::{self, Histories, Lane},
    wire::{AAC_LANE, LaneId, OPUS_LANE, PICTURE_LANES, THUMBNAIL_LANE},
};

/// Items read from the window at once.
const BATCH: usize = 64;

/// A lane and its place in the source's window.
pub struct Reading {
    pub lane: Lane,
    pub cursor: Cursor<Item>,
    pub unhandled: VecDeque<Item>,
    pub opened: Instant,
    /// Since when the next Item, a keyframe, waits to be decided.
    pub undecided: Option<Instant>,
    /// When something came last.
    pub heard: Instant,
    /// How the pictures are made that are made here (`Rung::cut_every_ms`).
    pub cut_every_ms: u32,
    /// Of a constant rate: the cut from which on another lane makes its outputs, and when it is given up.
    pub ends: Option<(Timestamp, Instant)>,
}

impl Reading {
    /// Reads on where nothing read before is left.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.unhandled.is_empty() || self.lane.is_full() {
            return Poll::Pending;
        }
        let mut items = Vec::new();
        let next = self.cursor.poll_next(cx, &mut items, BATCH);
        self.unhandled.extend(items);
        next
    }

    /// Of the next Item, in the stream's window.
    pub fn position(&self) -> u64 {
        self.cursor.position() - self.unhandled.len() as u64
    }

    /// When it is shown, if the next Item is a keyframe of what pictures are made of.
    pub fn next_keyframe(&self) -> Option<Timestamp> {
        match self.unhandled.front() {
            Some(Item::Sample(sample)) if self.lane.kind().is_picture() && sample.track.id == TrackId::VIDEO => {
                sample.keyframe.then_some(sample.pts)
            }
            _ => None,
        }
    }
}

/// The lanes in which it can be made.
pub fn lanes_of(made: Made) -> Range<LaneId> {
    match made {
        Made::Opus => OPUS_LANE..OPUS_LANE + 1,
        Made::Aac => AAC_LANE..AAC_LANE + 1,
        Made::Video | Made::Rung(_) => PICTURE_LANES,
        Made::Thumbnail => THUMBNAIL_LANE..THUMBNAIL_LANE + 1,
    }
}

/// Whether the publisher sends what it is made of.
pub fn is_fed(made: Made, present: &Present) -> bool {
    present.epoch.is_some() && present.tracks.iter().flatten().any(|track| lane::feeds(made, track))
}

/// Where a lane of these outputs begins to read, with all that is there already, and the epoch of the first of it.
pub fn begin(stream: &Stream, group: &[Made], histories: &Histories) -> (Option<u64>, Cursor<Item>, VecDeque<Item>) {
    loop {
        let epoch = stream.present().epoch;
        let mut cursor = match group[0] {
            // WebRTC has no use for sound of the past.
            Made::Opus => stream.subscribe(),
            Made::Aac | Made::Thumbnail => stream.subscribe_at_keyframe(),
            // The open segment of those who package is to be whole.
            Made::Video | Made::Rung(_) => match epoch.and_then(|epoch| stream.begin_of(group[0], epoch)) {
                Some(cut) => {
                    let resumed = group.iter().map(|made| histories[made.index()].resumable(epoch, cut).unwrap_or(cut));
                    stream.subscribe_before(resumed.fold(cut, Timestamp::min))
                }
                None => stream.subscribe_at_keyframe(),
            },
        };
        let mut items = Vec::new();
        let _ = cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut items, usize::MAX);
        // The newest keyframe may be an old publisher's: what lies before a `Join` is another epoch's.
        let join = items.iter().rposition(|item| matches!(item, Item::Join { .. }));
        if let Some(join) = join {
            return (None, cursor, items.split_off(join).into());
        }
        // Somebody came or went between the two looks: look again.
        if stream.present().epoch == epoch {
            return (epoch, cursor, items.into());
        }
    }
}
