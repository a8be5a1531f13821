//! Viewers that were accepted and have not shown up yet. Anybody may ask for a session, and keep its place for
//! twenty seconds without ever sending a packet; a real viewer is connected within one.
//!
//! So there are few such places, and where they are all taken, the one that has waited longest gives way: who floods
//! us with offers has to be faster than the viewers join, and takes no place of those who watch. Pure.

use std::{collections::VecDeque, sync::Weak};

/// Who waits, oldest first. Those that have connected or ended meanwhile are taken out when room is needed.
pub(crate) struct Lobby<T> {
    waiting: VecDeque<(u64, Weak<T>)>,
    most: usize,
}

impl<T> Lobby<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), most: most.max(1) }
    }

    /// One more waits. Answers the one that gives way; `still` tells who waits yet.
    pub(crate) fn enter(&mut self, id: u64, session: Weak<T>, still: impl Fn(&T) -> bool) -> Option<u64> {
        let waits = |session: &Weak<T>| session.upgrade().is_some_and(|session| still(&session));
        if self.waiting.len() >= self.most {
            self.waiting.retain(|(_, session)| waits(session));
        }
        let crowded = if self.waiting.len() >= self.most { self.waiting.pop_front() } else { None };
        self.waiting.push_back((id, session));
        crowded.map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn who_waits_longest_gives_way_to_the_next() {
        let mut lobby = Lobby::new(3);
        let sessions: Vec<_> = (0..8).map(|_| Arc::new(AtomicBool::new(true))).collect();
        let mut enter = |id: usize| lobby.enter(id as u64, Arc::downgrade(&sessions[id]), |waits| waits.load(Ordering::Relaxed));
        assert_eq!([enter(0), enter(1), enter(2)], [None; 3]);
        assert_eq!([enter(3), enter(4)], [Some(0), Some(1)]);
        // 3 has connected: there is room for one.
        sessions[3].store(false, Ordering::Relaxed);
        assert_eq!([enter(5), enter(6)], [None, Some(2)]);
    }

    #[test]
    fn who_is_gone_waits_no_longer() {
        let mut lobby = Lobby::new(1);
        let session = Arc::new(());
        assert_eq!(lobby.enter(1, Arc::downgrade(&session), |()| true), None);
        drop(session);
        assert_eq!(lobby.enter(2, Weak::new(), |()| true), None);
    }
}
