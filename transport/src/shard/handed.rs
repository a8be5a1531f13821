//! What shards give each other: datagrams that arrived at another one than their session's, and the
//! session that waited for its first check.
//!
//! The directory finds the owner. Whatever is handed goes by one queue for each shard, in order, so
//! that a session is there before all that follows it; of datagrams some may be lost, as on the way.

use std::time::Instant;

use super::Shard;
use crate::{metrics::Fate, path::Path, session::Session, stun::Request};

/// What one shard gives to another.
pub(crate) enum Handed {
    Datagram(Parcel),
    /// A session that waited: the check is its peer's first, and proved.
    Session {
        id: u64,
        session: Box<Session>,
        check: Parcel,
    },
    /// A TCP connection ended.
    Ended(Path),
}

/// A datagram on its way between shards.
pub(crate) struct Parcel {
    /// The shard where it arrived.
    pub(crate) via: usize,
    pub(crate) path: Path,
    pub(crate) bytes: Vec<u8>,
}

impl Shard {
    /// Which other shard has a session that is not here.
    pub(crate) fn elsewhere(&self, id: u64) -> Option<usize> {
        if self.sessions.contains_key(&id) { None } else { self.seat.elsewhere(id) }
    }

    /// What another shard has given to this one.
    pub(crate) fn handle_handed(&mut self, now: Instant, handed: Handed) -> Fate {
        match handed {
            Handed::Datagram(parcel) => self.handle_parcel(now, parcel),
            Handed::Session { id, session, check } => {
                self.adopt(now, id, session);
                self.handle(now, check.path, &check.bytes)
            }
            Handed::Ended(path) => {
                self.forget_path(path);
                Fate::Handed
            }
        }
    }

    /// The other shard may have given a session away meanwhile, or this one has: the directory knows.
    fn handle_parcel(&mut self, now: Instant, parcel: Parcel) -> Fate {
        if let Some(id) = self.waiting_for(&parcel) {
            let session = self.take_out(id).expect("a session that waits is here");
            self.handed.push_back((parcel.via, Handed::Session { id, session, check: parcel }));
            return Fate::Handed;
        }
        let fate = self.handle(now, parcel.path, &parcel.bytes);
        let whose = self.seat.whose(fate, parcel.path, &parcel.bytes);
        let Some(shard) = whose.filter(|shard| *shard != self.seat.own()) else { return fate };
        self.handed.push_back((shard, Handed::Datagram(parcel)));
        Fate::Handed
    }

    /// The session that waits here for the first check, and this is it.
    fn waiting_for(&self, parcel: &Parcel) -> Option<u64> {
        let id = *self.ufrags.get(Request::parse(&parcel.bytes)?.local_ufrag())?;
        (parcel.via != self.seat.own() && self.sessions.get(&id)?.session.is_waiting()).then_some(id)
    }

    /// What another shard is to have. A session that was taken along counts as here until it is `given`.
    pub(crate) fn poll_handed(&mut self) -> Option<(usize, Handed)> {
        self.handed.pop_front()
    }

    /// The other shard will find the session before all that is handed to it later.
    pub(crate) fn given(&mut self, id: u64, shard: usize) {
        self.seat.give(id, shard);
    }
}
