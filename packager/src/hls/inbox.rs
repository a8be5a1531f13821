//! What is to be kept, until the shell has written it: the newest of each stream, so that a slow disk makes nobody wait
//! and nothing grow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use media_core::StreamName;
use tokio::sync::Notify;

use super::kept::Kept;

/// Of one stream: what to keep of it, or nothing any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Keep {
    pub stream: StreamName,
    pub kept: Option<Kept>,
}

/// Filled by the streams' tasks, emptied by one writer.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Somebody writes. Nothing is collected where nobody does.
    attached: bool,
    /// One a name: as many as there are streams.
    waiting: HashMap<StreamName, Option<Kept>>,
    writing: bool,
    overtaken: u64,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; the data is whole either way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attach(&self) {
        self.lock().attached = true;
    }

    /// Never waits. What waited of the stream is overtaken by it.
    pub(super) fn put(&self, stream: &StreamName, kept: Option<Kept>) {
        let mut state = self.lock();
        if state.attached {
            state.overtaken += u64::from(state.waiting.insert(stream.clone(), kept).is_some());
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    /// The next to be written; call `written` afterwards. One caller.
    pub async fn next(&self) -> Keep {
        loop {
            let changed = self.0.changed.notified();
            if let Some(keep) = self.take() {
                return keep;
            }
            changed.await;
        }
    }

    fn take(&self) -> Option<Keep> {
        let mut state = self.lock();
        let stream = state.waiting.keys().next()?.clone();
        let kept = state.waiting.remove(&stream).flatten();
        state.writing = true;
        Some(Keep { stream, kept })
    }

    /// Answers how many were overtaken by newer ones since the last call: the disk is slow.
    pub fn written(&self) -> u64 {
        let mut state = self.lock();
        state.writing = false;
        let overtaken = std::mem::take(&mut state.overtaken);
        drop(state);
        self.0.changed.notify_waiters();
        overtaken
    }

    /// Waits until nothing is left to be written.
    pub(super) async fn settled(&self) {
        loop {
            let changed = self.0.changed.notified();
            let idle = {
                let state = self.lock();
                state.waiting.is_empty() && !state.writing
            };
            if idle {
                return;
            }
            changed.await;
        }
    }
}
