//! What the shards of one port know of each other: whose session a check names, and which of them an
//! address belongs to.
//!
//! The kernel gives a datagram to one of them by its addresses, and knows nothing of sessions. A
//! session waits in the shard that accepted it until its first proved check, and then belongs to the
//! shard where that check arrived. What arrives elsewhere later (the peer's address has changed, or
//! it goes on by TCP) is handed to the owner:
//!
//! ```text
//! arrives --its own session's--> handled          (no lock: one load of what another may have changed)
//!     \---proved, of another---> Handed::Datagram --> owner
//!      \--check of one that waits -> the waiter --Handed::Session--> where the check arrived
//! ```
//!
//! The tables are written when sessions and addresses come and go. Only datagrams that are not the
//! shard's own read them, floods among them, and what is read is never held. Pure.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use ring::hmac;

use crate::{ice::PATH_SILENCE, metrics::Fate, path::Path, stun::Request};

/// Bounded by the sessions: two names each, one owner, and as many ways as an agent remembers.
pub(crate) struct Directory {
    began: Instant,
    names: DashMap<String, Name>,
    /// Which shard has a session.
    owners: DashMap<u64, usize>,
    ways: DashMap<Path, Arc<Way>>,
}

#[derive(Clone)]
struct Name {
    id: u64,
    key: Arc<hmac::Key>,
}

/// Whose an address is, which a check has proved.
pub(crate) struct Way {
    shard: AtomicUsize,
    /// When something came by it last that only the peer can have sent: milliseconds since the directory began.
    heard_ms: AtomicU64,
}

/// The address is another shard's, whose session uses it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InUse;

/// A shard's place among others; by default it is alone, and has nobody to ask.
#[derive(Clone, Default)]
pub(crate) struct Seat(Option<Among>);

#[derive(Clone)]
struct Among {
    own: usize,
    directory: Arc<Directory>,
}

impl Seat {
    /// As many as there are shards.
    pub(crate) fn all(shards: usize, now: Instant) -> Vec<Self> {
        if shards <= 1 {
            return vec![Self::default()];
        }
        let directory = Directory { began: now, names: DashMap::new(), owners: DashMap::new(), ways: DashMap::new() };
        let directory = Arc::new(directory);
        (0..shards).map(|own| Self(Some(Among { own, directory: Arc::clone(&directory) }))).collect()
    }

    pub(crate) fn own(&self) -> usize {
        self.0.as_ref().map_or(0, |among| among.own)
    }

    /// A session is here.
    pub(crate) fn hold(&self, id: u64) {
        if let Some(Among { own, directory }) = &self.0 {
            directory.owners.insert(id, *own);
        }
    }

    /// A session that was here is on its way to another shard, which may hold it already, or have seen its end.
    pub(crate) fn give(&self, id: u64, shard: usize) {
        let Some(Among { own, directory }) = &self.0 else { return };
        if let Some(mut owner) = directory.owners.get_mut(&id).filter(|owner| **owner == *own) {
            *owner = shard;
        }
    }

    /// A session is over.
    pub(crate) fn drop_session(&self, id: u64) {
        if let Some(Among { directory, .. }) = &self.0 {
            directory.owners.remove(&id);
        }
    }

    /// The other shard that has this session.
    pub(crate) fn elsewhere(&self, id: u64) -> Option<usize> {
        let Among { own, directory } = self.0.as_ref()?;
        directory.owners.get(&id).map(|shard| *shard).filter(|shard| shard != own)
    }

    /// A check may name this session so, with that key.
    pub(crate) fn add_name(&self, ufrag: &str, id: u64, key: &hmac::Key) {
        if let Some(Among { directory, .. }) = &self.0 {
            directory.names.insert(ufrag.to_owned(), Name { id, key: Arc::new(key.clone()) });
        }
    }

    pub(crate) fn drop_name(&self, ufrag: &str) {
        if let Some(Among { directory, .. }) = &self.0 {
            directory.names.remove(ufrag);
        }
    }

    /// The shard for which a datagram is that meant nothing to this one. Checks are proved here: who does not know the
    /// password costs the owner nothing.
    pub(crate) fn whose(&self, fate: Fate, path: Path, datagram: &[u8]) -> Option<usize> {
        let Among { directory, .. } = self.0.as_ref()?;
        match fate {
            Fate::Forged => directory.whose_check(&Request::parse(datagram)?),
            Fate::Unproved => self.whose_path(path),
            Fate::Check | Fate::Media | Fate::Malformed | Fate::Handed => None,
        }
    }

    /// The shard to which this address belongs.
    pub(crate) fn whose_path(&self, path: Path) -> Option<usize> {
        let Among { directory, .. } = self.0.as_ref()?;
        directory.ways.get(&path).map(|way| way.shard.load(Ordering::Relaxed))
    }

    /// An address was proved for a session of this shard. It is taken from no other shard whose session uses it.
    pub(crate) fn claim(&self, path: Path, now: Instant) -> Result<Option<Arc<Way>>, InUse> {
        let Some(Among { own, directory }) = &self.0 else { return Ok(None) };
        let now_ms = directory.ms(now);
        let entry = directory.ways.entry(path).or_insert_with(|| Arc::new(Way { shard: (*own).into(), heard_ms: now_ms.into() }));
        let in_use = Duration::from_millis(now_ms.saturating_sub(entry.heard_ms.load(Ordering::Relaxed))) < PATH_SILENCE;
        if entry.shard.load(Ordering::Relaxed) != *own && in_use {
            return Err(InUse);
        }
        entry.shard.store(*own, Ordering::Relaxed);
        Ok(Some(Arc::clone(&entry)))
    }

    /// Whether an address that was this shard's still is.
    pub(crate) fn holds(&self, way: Option<&Way>) -> bool {
        way.is_none_or(|way| way.shard.load(Ordering::Relaxed) == self.own())
    }

    pub(crate) fn heard(&self, way: Option<&Way>, at: Instant) {
        if let (Some(Among { directory, .. }), Some(way)) = (&self.0, way) {
            way.heard_ms.store(directory.ms(at), Ordering::Relaxed);
        }
    }

    /// No session of this shard has the address any more.
    pub(crate) fn release(&self, path: Path) {
        if let Some(Among { own, directory }) = &self.0 {
            directory.ways.remove_if(&path, |_, way| way.shard.load(Ordering::Relaxed) == *own);
        }
    }

    /// Names, owners and ways: nothing is left when all sessions are over.
    pub(crate) fn entries(&self) -> usize {
        let sum = |directory: &Directory| directory.names.len() + directory.owners.len() + directory.ways.len();
        self.0.as_ref().map_or(0, |among| sum(&among.directory))
    }
}

impl Directory {
    fn whose_check(&self, check: &Request<'_>) -> Option<usize> {
        let Name { id, key } = self.names.get(check.local_ufrag())?.clone();
        if !check.verify(&key) {
            return None;
        }
        self.owners.get(&id).map(|shard| *shard)
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

/// When the publisher of a track was told last that a keyframe is wanted, whichever shard told it.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Option<Instant>>>);

impl Told {
    /// Tells it now, unless it was told within `interval`: then since when.
    pub(crate) fn tell(&self, now: Instant, interval: Duration) -> Result<(), Instant> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *told {
            Some(at) if now < at + interval => Err(at),
            _ => {
                *told = Some(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path::Udp { remote: ([192, 0, 2, 1], port).into(), local: None }
    }

    #[test]
    fn an_address_is_taken_only_from_one_that_has_fallen_silent() {
        let now = Instant::now();
        let seats = Seat::all(2, now);
        let way = seats[0].claim(path(1), now).unwrap();
        assert_eq!((seats[1].whose_path(path(1)), seats[1].whose_path(path(2))), (Some(0), None));
        seats[0].heard(way.as_deref(), now + PATH_SILENCE);
        let later = now + 2 * PATH_SILENCE;
        assert_eq!(seats[1].claim(path(1), later - Duration::from_millis(1)).err(), Some(InUse));
        assert!(seats[0].holds(way.as_deref()));
        assert!(seats[1].claim(path(1), later).is_ok());
        assert!(!seats[0].holds(way.as_deref()), "the former owner sees it");
        seats[0].release(path(1));
        assert_eq!(seats[0].whose_path(path(1)), Some(1), "and gives nothing away that is not its own");
        seats[1].release(path(1));
        assert_eq!(seats[0].entries(), 0);
    }

    #[test]
    fn a_wish_of_two_shards_is_told_once() {
        let (now, interval) = (Instant::now(), Duration::from_millis(500));
        let told = Told::default();
        let other = told.clone();
        assert_eq!(told.tell(now, interval), Ok(()));
        assert_eq!(other.tell(now + interval / 2, interval), Err(now));
        assert_eq!(other.tell(now + interval, interval), Ok(()));
        assert_eq!(told.tell(now + interval, interval), Err(now + interval));
    }
}
