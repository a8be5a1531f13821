//! All sessions of one thread behind one port: which datagram belongs to whom, and whose time has come.
//!
//! A check names its session by user name. Once proved, its path is in the address table, and only
//! what comes by a path in that table reaches DTLS or SRTP; the rest costs one lookup and a counter.
//! Where there are other shards, the directory tells what is theirs (`handed.rs`). Sans-IO.

mod handed;
pub(crate) mod together;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use ring::hmac;
use rtc_shared::error::Error as RtcError;

use crate::{
    directory::{Seat, Told, Way},
    event::{Closed, Event},
    metrics::{Counts, Fate},
    path::Path,
    resource::PatchError,
    sdp::IceCredentials,
    send::{Burst, Histories, OutFrame, Shared, TrackKey},
    session::{Session, Setup},
    stun::{self, Request},
};

pub(crate) use handed::{Handed, Parcel};

/// No session has this number.
const PROBE: u64 = 0;

/// What fits the usual path, and a rest: a larger one costs more than any peer needs.
const DATAGRAM_BYTES_MAX: usize = 2048;

#[derive(Default)]
pub(crate) struct Shard {
    sessions: HashMap<u64, Slot>,
    ufrags: HashMap<String, u64>,
    paths: HashMap<Path, Held>,
    tracks: Histories,
    timers: BTreeSet<(Instant, u64)>,
    transmits: VecDeque<(u64, Path, Burst)>,
    events: VecDeque<(u64, Event)>,
    counts: Counts,
    /// Tracks of which a keyframe is wished for.
    wanted: BTreeSet<TrackKey>,
    /// Whose checks are answered though there is no session: the self-test's.
    probe: Option<(String, hmac::Key)>,
    seat: Seat,
    /// What other shards are to have.
    handed: VecDeque<(usize, Handed)>,
}

/// Whose a path is.
struct Held {
    id: u64,
    way: Option<Arc<Way>>,
}

struct Slot {
    session: Box<Session>,
    timer: Option<Instant>,
    tracks: Vec<TrackKey>,
}

impl Shard {
    pub(crate) fn new(seat: Seat) -> Self {
        Self { seat, ..Self::default() }
    }

    pub(crate) fn accept(&mut self, now: Instant, id: u64, setup: Setup) -> Result<(), RtcError> {
        let session = Box::new(Session::new(setup, now)?);
        session.agent.names().for_each(|(ufrag, key)| self.seat.add_name(ufrag, id, key));
        self.adopt(now, id, session);
        Ok(())
    }

    /// A session is here from now on.
    fn adopt(&mut self, now: Instant, id: u64, session: Box<Session>) {
        self.ufrags.extend(session.agent.names().map(|(ufrag, _)| (ufrag.to_owned(), id)));
        self.sessions.insert(id, Slot { session, timer: None, tracks: Vec::new() });
        self.seat.hold(id);
        self.settle(now, id);
    }

    pub(crate) fn expect_probe(&mut self, credentials: &IceCredentials) {
        self.probe = Some((credentials.ufrag().to_owned(), stun::key(credentials.pwd())));
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// A datagram that arrived here.
    pub(crate) fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Fate {
        let fate = self.handle(now, path, datagram);
        let Some(shard) = self.seat.whose(fate, path, datagram) else { return fate };
        let parcel = Parcel { via: self.seat.own(), path, bytes: datagram.to_vec() };
        self.handed.push_back((shard, Handed::Datagram(parcel)));
        Fate::Handed
    }

    fn handle(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Fate {
        match datagram.first() {
            _ if datagram.len() > DATAGRAM_BYTES_MAX => Fate::Malformed,
            Some(0..=3) => self.handle_check(now, path, datagram),
            Some(20..=63 | 128..=191) => {
                let Some(id) = self.session_at(path) else { return Fate::Unproved };
                if let Some(slot) = self.sessions.get_mut(&id) {
                    slot.session.handle_datagram(now, path, datagram, &mut self.tracks);
                }
                self.note_heard(path);
                self.settle(now, id);
                Fate::Media
            }
            _ => Fate::Malformed,
        }
    }

    fn session_at(&mut self, path: Path) -> Option<u64> {
        let held = self.paths.get(&path)?;
        if self.seat.holds(held.way.as_deref()) {
            return Some(held.id);
        }
        self.paths.remove(&path);
        None
    }

    /// Other shards' sessions take no address that is in use.
    fn note_heard(&self, path: Path) {
        let Some(Held { id, way: Some(way) }) = self.paths.get(&path) else { return };
        if let Some(at) = self.sessions.get(id).and_then(|slot| slot.session.agent.last_heard(path)) {
            self.seat.heard(Some(way), at);
        }
    }

    fn handle_check(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Fate {
        let Some(request) = Request::parse(datagram) else { return Fate::Malformed };
        if let Some((ufrag, key)) = &self.probe
            && ufrag == request.local_ufrag()
            && request.verify(key)
        {
            self.transmits.push_back((PROBE, path, Burst::single(request.success(key, path.remote()))));
            return Fate::Check;
        }
        let Some(&id) = self.ufrags.get(request.local_ufrag()) else { return Fate::Forged };
        let Some(slot) = self.sessions.get_mut(&id) else { return Fate::Forged };
        if !slot.session.handle_check(now, path, &request) {
            return Fate::Forged;
        }
        for evicted in slot.session.agent.take_evicted() {
            self.drop_path(evicted, id);
        }
        self.take_path(now, path, id);
        self.note_heard(path);
        self.settle(now, id);
        Fate::Check
    }

    /// An address may come to another session, as ports are used again, but is not taken from one that uses it.
    fn take_path(&mut self, now: Instant, path: Path, id: u64) {
        let own = self.session_at(path);
        let used = own.filter(|owner| *owner != id).and_then(|owner| self.sessions.get(&owner));
        if own == Some(id) || used.is_some_and(|owner| owner.session.agent.is_using(path, now)) {
            return;
        }
        if let Ok(way) = self.seat.claim(path, now) {
            self.paths.insert(path, Held { id, way });
        }
    }

    fn drop_path(&mut self, path: Path, id: u64) {
        if self.paths.get(&path).is_some_and(|held| held.id == id) {
            self.paths.remove(&path);
            self.seat.release(path);
        }
    }

    /// Other ICE credentials in place of those named `replaces`. The agent takes these too, until the next restart.
    pub(crate) fn restart(&mut self, now: Instant, id: u64, replaces: &str, local: &IceCredentials) -> Result<(), PatchError> {
        let slot = self.sessions.get_mut(&id).ok_or(PatchError::Gone)?;
        if slot.session.agent.ufrag() != replaces {
            return Err(PatchError::OtherSession);
        }
        if let Some(former) = slot.session.agent.former_ufrag() {
            self.ufrags.remove(former);
            self.seat.drop_name(former);
        }
        slot.session.restart(local);
        self.ufrags.insert(local.ufrag().to_owned(), id);
        slot.session.agent.names().for_each(|(ufrag, key)| self.seat.add_name(ufrag, id, key));
        self.settle(now, id);
        Ok(())
    }

    pub(crate) fn request_keyframe(&mut self, now: Instant, id: u64, layer: usize) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.request_keyframe(now, layer);
            self.settle(now, id);
        }
    }

    pub(crate) fn select(&mut self, now: Instant, id: u64, track: TrackKey, rests: bool) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.select(now, track, rests, &self.tracks);
            self.wanted.insert(track);
            self.settle(now, id);
        }
    }

    /// It acts on that when it sends the next time.
    pub(crate) fn aim(&mut self, id: u64, bitrate: Option<u64>) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.aim(bitrate);
        }
    }

    pub(crate) fn close(&mut self, now: Instant, id: u64, reason: Closed) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.close(now, reason);
            self.settle(now, id);
        }
    }

    /// `told` is the track's for all shards.
    pub(crate) fn add_track(&mut self, track: TrackKey, told: Told) {
        // A session that was given to this shard may be here before its tracks are.
        let viewers = self.sessions.iter().filter(|(_, slot)| slot.tracks.contains(&track)).map(|(id, _)| *id).collect();
        self.tracks.entry(track).or_insert_with(|| Shared { viewers, told, ..Shared::default() });
    }

    pub(crate) fn remove_track(&mut self, track: TrackKey) {
        self.wanted.remove(&track);
        self.tracks.remove(&track);
    }

    /// One frame for everybody who watches the track: the sessions that have something to send now. Each is
    /// `advance`d by the caller, which sends in between, so that what is sealed does not pile up.
    pub(crate) fn push(&mut self, now: Instant, track: TrackKey, frame: impl Into<Arc<OutFrame>>) -> Vec<u64> {
        let Some(shared) = self.tracks.get_mut(&track) else { return Vec::new() };
        let frame = frame.into();
        if frame.keyframe {
            // What was wished for is here.
            self.wanted.remove(&track);
        }
        shared.history.push(now, frame);
        shared.viewers.clone()
    }

    pub(crate) fn advance(&mut self, now: Instant, id: u64) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.advance(now, &mut self.tracks);
            self.settle(now, id);
        }
    }

    pub(crate) fn paths(&self) -> usize {
        self.paths.len()
    }

    /// Who is fed from it, or is about to go over to it.
    pub(crate) fn viewers(&self, track: TrackKey) -> usize {
        self.tracks.get(&track).map_or(0, |shared| shared.viewers.len())
    }

    /// A track of which a viewer needs a keyframe. Told at most twice a second; a wish in between waits.
    pub(crate) fn poll_wanted(&mut self, now: Instant) -> Option<TrackKey> {
        let tracks = &mut self.tracks;
        let due = self.wanted.iter().copied().find(|track| tracks.get_mut(track).is_none_or(|shared| shared.tell(now)))?;
        self.wanted.remove(&due);
        Some(due)
    }

    /// Something of this session did not fit into the way.
    pub(crate) fn fall_behind(&mut self, id: u64) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.fall_behind(&self.tracks);
        }
    }

    /// A TCP connection ended.
    pub(crate) fn forget_path(&mut self, path: Path) {
        let Some(id) = self.session_at(path) else {
            let owner = self.seat.whose_path(path).filter(|shard| *shard != self.seat.own());
            return self.handed.extend(owner.map(|shard| (shard, Handed::Ended(path))));
        };
        self.drop_path(path, id);
        if let Some(slot) = self.sessions.get_mut(&id) {
            slot.session.forget_path(path);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        // What is renewed meanwhile waits for the next turn, whatever a session does.
        let later = self.timers.split_off(&(now, u64::MAX));
        for (_, id) in std::mem::replace(&mut self.timers, later) {
            if let Some(slot) = self.sessions.get_mut(&id) {
                slot.timer = None;
                slot.session.handle_timeout(now, &mut self.tracks);
                self.settle(now, id);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(u64, Path, Burst)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<(u64, Event)> {
        self.events.pop_front()
    }

    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// After a session was touched: takes what it has to say, renews its timer, forgets it when it is over.
    fn settle(&mut self, now: Instant, id: u64) {
        let Some(slot) = self.sessions.get_mut(&id) else { return };
        while let Some((path, burst)) = slot.session.poll_transmit() {
            self.transmits.push_back((id, path, burst));
        }
        while let Some(event) = slot.session.poll_event() {
            self.events.push_back((id, event));
        }
        self.counts += std::mem::take(&mut slot.session.counts);
        let closed = slot.session.is_closed();
        // A timer in the past would spin: the soonest is now, handled in the next turn.
        let timer = slot.session.poll_timeout().map(|at| at.max(now));
        if timer != slot.timer {
            if let Some(former) = slot.timer {
                self.timers.remove(&(former, id));
            }
            slot.timer = timer;
            if let Some(at) = timer {
                self.timers.insert((at, id));
            }
        }
        self.settle_tracks(id);
        self.collect_wishes(id);
        if closed {
            self.forget(id);
        }
    }

    /// Keeps the tracks' lists of viewers.
    fn settle_tracks(&mut self, id: u64) {
        let Some(slot) = self.sessions.get_mut(&id) else { return };
        if slot.session.tracks().eq(slot.tracks.iter().copied()) {
            return;
        }
        let former = std::mem::replace(&mut slot.tracks, slot.session.tracks().collect());
        let tracks = &slot.tracks;
        for key in tracks.iter().filter(|key| !former.contains(key)) {
            // The same one may be named twice, as picture and sound.
            if let Some(shared) = self.tracks.get_mut(key).filter(|shared| !shared.viewers.contains(&id)) {
                shared.viewers.push(id);
            }
        }
        for key in former.iter().filter(|key| !tracks.contains(key)) {
            if let Some(shared) = self.tracks.get_mut(key) {
                shared.viewers.retain(|viewer| *viewer != id);
            }
        }
    }

    fn collect_wishes(&mut self, id: u64) {
        let Some(slot) = self.sessions.get(&id) else { return };
        for key in &slot.tracks {
            if self.tracks.get_mut(key).is_some_and(|shared| std::mem::take(&mut shared.keyframe_wanted)) {
                self.wanted.insert(*key);
            }
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(session) = self.take_out(id) else { return };
        session.agent.names().for_each(|(ufrag, _)| self.seat.drop_name(ufrag));
        session.agent.paths().for_each(|path| self.drop_path(*path, id));
        self.seat.drop_session(id);
    }

    /// A session is here no more; others may still know of it.
    fn take_out(&mut self, id: u64) -> Option<Box<Session>> {
        let slot = self.sessions.remove(&id)?;
        for (ufrag, _) in slot.session.agent.names() {
            self.ufrags.remove(ufrag);
        }
        if let Some(at) = slot.timer {
            self.timers.remove(&(at, id));
        }
        for key in &slot.tracks {
            if let Some(shared) = self.tracks.get_mut(key) {
                shared.viewers.retain(|viewer| *viewer != id);
            }
        }
        Some(slot.session)
    }
}
