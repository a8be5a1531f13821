//! Which streams live, and who may publish to each: one `Publication` a name, by lease.
//!
//! A stream outlives its publisher: while it is away the name stays, and the same or another
//! publisher with the right key continues it under a new epoch. Whoever packages the stream
//! decides when it is over (`retire`).
//!
//! Sans-IO: `acquire` answers at once; waiting for a held claim is the caller's work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    name::{StreamKey, StreamName},
    sample::{Announcement, Item, Sample},
    stream::Stream,
};

/// How long a publisher must be silent before a second one with the same key takes its place:
/// longer than any encoder's pause between Samples, shorter than a streamer's patience.
pub const TAKEOVER_SILENCE: Duration = Duration::from_millis(1500);

/// Live streams and their leases, of one process.
pub struct Registry {
    shared: Arc<Mutex<Shared>>,
    on_stream: Box<dyn Fn(Arc<Stream>) + Send + Sync>,
    streams_max: usize,
}

#[derive(Default)]
struct Shared {
    streams: HashMap<StreamName, Entry>,
    last_epoch: u64,
    draining: bool,
}

struct Entry {
    stream: Arc<Stream>,
    holder: Option<Holder>,
}

struct Holder {
    epoch: u64,
    key: StreamKey,
    /// When the last Sample came, or the lease was granted.
    last_sample: Instant,
    stop: Arc<StopSignal>,
}

/// The answer to a request to publish.
#[derive(Debug)]
pub enum Acquire {
    Granted(Publication),
    /// A publisher with the same key holds the name. Ask again with the claim at `until`.
    Held {
        until: Instant,
        claim: Claim,
    },
    Refused(Refusal),
}

/// What was seen of the holder when a second publisher was held.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    epoch: u64,
    last_sample: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a live encoder is already publishing to this name: stop it first, or wait until it has gone")]
    LiveEncoder,
    #[error("this name is held by a publisher with another stream key")]
    OtherKey,
    #[error("this server already carries as many streams as it is configured for")]
    TooManyStreams,
    #[error("this server is shutting down: connect again in a moment")]
    Draining,
}

/// Why a publisher must stop though it did nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A publisher with the same key has taken the name over.
    TakenOver,
    /// The server is shutting down.
    Drain,
}

impl Registry {
    /// `on_stream` is called once for each stream that comes to life, before its first Item.
    pub fn new(wall: SystemTime, streams_max: usize, on_stream: impl Fn(Arc<Stream>) + Send + Sync + 'static) -> Self {
        // Epochs grow over restarts without saved state: they start at the wall clock.
        let last_epoch = wall.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        Self {
            shared: Arc::new(Mutex::new(Shared { last_epoch, ..Shared::default() })),
            on_stream: Box::new(on_stream),
            streams_max,
        }
    }

    /// Asks for the lease of `name`. `claim` is what an earlier `Held` answer gave.
    pub fn acquire(&self, name: &StreamName, key: &StreamKey, claim: Option<Claim>, now: Instant) -> Acquire {
        let mut guard = lock(&self.shared);
        let shared = &mut *guard;
        if shared.draining {
            return Acquire::Refused(Refusal::Draining);
        }
        if !shared.streams.contains_key(name) && shared.streams.len() >= self.streams_max {
            return Acquire::Refused(Refusal::TooManyStreams);
        }
        if let Some(holder) = shared.streams.get(name).and_then(|entry| entry.holder.as_ref()) {
            if holder.key != *key {
                return Acquire::Refused(Refusal::OtherKey);
            }
            let silent_from = holder.last_sample + TAKEOVER_SILENCE;
            let moved = claim.is_some_and(|c| c.epoch != holder.epoch || c.last_sample != holder.last_sample);
            if now < silent_from {
                return if moved {
                    Acquire::Refused(Refusal::LiveEncoder)
                } else {
                    let claim = Claim { epoch: holder.epoch, last_sample: holder.last_sample };
                    Acquire::Held { until: silent_from, claim }
                };
            }
        }
        shared.last_epoch += 1;
        let epoch = shared.last_epoch;
        let mut born = None;
        let entry = shared.streams.entry(name.clone()).or_insert_with(|| {
            let stream = Arc::new(Stream::new(name.clone()));
            born = Some(Arc::clone(&stream));
            Entry { stream, holder: None }
        });
        let stop = Arc::new(StopSignal::default());
        let holder = Holder { epoch, key: key.clone(), last_sample: now, stop: Arc::clone(&stop) };
        let ousted = entry.holder.replace(holder);
        let stream = Arc::clone(&entry.stream);
        if ousted.is_some() {
            stream.push(Item::Leave);
        }
        drop(guard);
        if let Some(ousted) = ousted {
            ousted.stop.raise(Stop::TakenOver);
        }
        if let Some(stream) = born {
            (self.on_stream)(stream);
        }
        stream.push(Item::Join { epoch, received: now });
        Acquire::Granted(Publication { epoch, stream, shared: Arc::downgrade(&self.shared), stop })
    }

    /// Forgets a stream that nobody publishes to. False when somebody does: it lives on.
    pub fn retire(&self, name: &StreamName) -> bool {
        let mut shared = lock(&self.shared);
        match shared.streams.get(name) {
            Some(entry) if entry.holder.is_some() => false,
            Some(_) => {
                if let Some(entry) = shared.streams.remove(name) {
                    entry.stream.close();
                }
                true
            }
            None => true,
        }
    }

    /// Refuses publishers from now on and tells those that are here to stop.
    pub fn drain(&self) {
        let mut shared = lock(&self.shared);
        shared.draining = true;
        let stops: Vec<_> = shared.streams.values().filter_map(|e| Some(Arc::clone(&e.holder.as_ref()?.stop))).collect();
        drop(shared);
        for stop in stops {
            stop.raise(Stop::Drain);
        }
    }

    /// The stream of this name, whether or not somebody publishes to it now.
    pub fn stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        lock(&self.shared).streams.get(name).map(|entry| Arc::clone(&entry.stream))
    }

    pub fn publishers(&self) -> usize {
        lock(&self.shared).streams.values().filter(|entry| entry.holder.is_some()).count()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // No code of ours panics while it holds the lock; the data is whole either way.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The exclusive right to publish to one name, while it lasts. Dropping it gives it back.
pub struct Publication {
    epoch: u64,
    stream: Arc<Stream>,
    shared: Weak<Mutex<Shared>>,
    stop: Arc<StopSignal>,
}

/// Another publisher holds the name now: nothing was published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("another publisher has taken this name over")]
pub struct Superseded;

impl Publication {
    pub fn name(&self) -> &StreamName {
        &self.stream.name
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn announce(&self, announcement: Announcement) -> Result<(), Superseded> {
        self.push(Item::Announce(announcement), None)
    }

    pub fn publish(&self, sample: Sample) -> Result<(), Superseded> {
        let now = sample.received;
        self.push(Item::Sample(Arc::new(sample)), Some(now))
    }

    /// How many timestamps of this publisher were repaired so far: it is advised of it.
    pub fn tell_repairs(&self, repairs: u64) -> Result<(), Superseded> {
        let shared = self.shared.upgrade().ok_or(Superseded)?;
        let guard = lock(&shared);
        let holder = guard.streams.get(&self.stream.name).and_then(|entry| entry.holder.as_ref());
        holder.filter(|holder| holder.epoch == self.epoch).ok_or(Superseded)?;
        self.stream.set_repairs(repairs);
        Ok(())
    }

    /// Waits until viewers need a keyframe; the bits are numbered by `TrackId::index`. One waiter.
    pub fn poll_keyframe_request(&self, cx: &mut Context<'_>) -> Poll<u32> {
        self.stream.poll_keyframe_request(cx)
    }

    /// Waits until the publisher has to stop. One waiter.
    pub fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        self.stop.poll(cx)
    }

    fn push(&self, item: Item, sampled: Option<Instant>) -> Result<(), Superseded> {
        let shared = self.shared.upgrade().ok_or(Superseded)?;
        // Held over the push: after a takeover no Item of the old epoch may follow.
        let mut guard = lock(&shared);
        let holder = guard.streams.get_mut(&self.stream.name).and_then(|entry| entry.holder.as_mut());
        let holder = holder.filter(|holder| holder.epoch == self.epoch).ok_or(Superseded)?;
        if let Some(now) = sampled {
            holder.last_sample = now;
        }
        self.stream.push(item);
        Ok(())
    }
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication").field("stream", &self.stream.name).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut guard = lock(&shared);
        let Some(entry) = guard.streams.get_mut(&self.stream.name) else { return };
        if entry.holder.as_ref().is_some_and(|holder| holder.epoch == self.epoch) {
            entry.holder = None;
            self.stream.push(Item::Leave);
        }
    }
}

/// Set once, waited for by one.
#[derive(Default)]
struct StopSignal(Mutex<(Option<Stop>, Option<Waker>)>);

impl StopSignal {
    fn raise(&self, stop: Stop) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.get_or_insert(stop);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0 {
            Some(stop) => Poll::Ready(stop),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
