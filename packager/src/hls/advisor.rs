//! Advice to the streamer of one stream: what is known of it is looked at again every other second.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use media_core::{
    Item,
    advice::{Advice, Code, Observer, Packaged, advise},
    stream::Present,
    timeline::Grid,
};

use super::presentation::Losses;

/// How often it is looked at: nobody reads faster.
const EVERY: Duration = Duration::from_secs(2);
/// What is lost so soon after a publisher joined is its start, or the end of the one before.
const START: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Advisor {
    observer: Observer,
    joined: Option<Instant>,
    packaged: Packaged,
    looked: Option<Instant>,
    /// Said in the log already, to any publisher of this stream.
    said: BTreeSet<Code>,
}

/// What there is to say now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advised {
    pub all: Vec<Advice>,
    /// Said for the first time.
    pub fresh: Vec<Advice>,
}

impl Advisor {
    /// Everything that publishers send.
    pub fn push(&mut self, item: &Item) {
        if let Item::Join { received, .. } = item {
            (self.joined, self.packaged) = (Some(*received), Packaged::default());
        }
        self.observer.push(item);
    }

    /// Items that were never seen.
    pub fn missed(&mut self, items: u64) {
        self.packaged.lost += items;
    }

    pub fn count(&mut self, losses: Losses, now: Instant) {
        if self.joined.is_some_and(|joined| now.saturating_duration_since(joined) >= START) {
            self.packaged.lost += losses.late + losses.queue_full + losses.undecodable;
            self.packaged.cuts_without_keyframe += losses.cuts_without_keyframe;
        }
    }

    /// Whether it is time to look again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.joined.is_some() && self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= EVERY)
    }

    pub fn look(&mut self, present: &Present, grid: Option<Grid>, now: Instant) -> Advised {
        self.looked = Some(now);
        let all = advise(present, &self.observer.measured(), &Packaged { grid, ..self.packaged });
        let fresh = all.iter().filter(|advice| self.said.insert(advice.code)).cloned().collect();
        Advised { all, fresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advice_is_fresh_once_and_losses_at_a_start_are_none() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut advisor = Advisor::default();
        assert!(!advisor.is_due(start), "nobody publishes");
        advisor.push(&Item::Join { epoch: 1, received: start });
        assert!(advisor.is_due(start));
        let losses = Losses { undecodable: 3, cuts_without_keyframe: 1, ..Losses::default() };
        advisor.count(losses, start + second);
        let present = Present { epoch: Some(1), ..Present::default() };
        assert_eq!(advisor.look(&present, None, start + second), Advised::default());
        assert!(!advisor.is_due(start + 2 * second) && advisor.is_due(start + 3 * second));
        advisor.count(losses, start + 6 * second);
        let advised = advisor.look(&present, None, start + 6 * second);
        assert_eq!(advised.all.iter().map(|a| a.code).collect::<Vec<_>>(), [Code::MediaLost, Code::CutWithoutKeyframe]);
        assert_eq!(advised.all, advised.fresh);
        let again = advisor.look(&present, None, start + 8 * second);
        assert_eq!((again.all.len(), again.fresh.len()), (2, 0));
        // Another publisher begins without them.
        advisor.push(&Item::Join { epoch: 2, received: start + 9 * second });
        assert_eq!(advisor.look(&present, None, start + 10 * second).all, []);
    }
}
