//! All shards of one port in one thread and in virtual time: what the kernel and their queues do, for
//! tests and fuzz targets. It is used as one shard is.

use std::time::Instant;

use rtc_shared::error::Error as RtcError;

use super::{Handed, Shard};
use crate::{
    directory::{Seat, Told},
    event::{Closed, Event},
    metrics::{Counts, Fate},
    path::Path,
    resource::PatchError,
    sdp::IceCredentials,
    send::{Burst, OutFrame, TrackKey},
    session::Setup,
};

/// Hand-overs that one datagram may cause: to who had the session, to who has it, and one to spare.
const HOPS_MAX: usize = 3;

pub(crate) struct Shards {
    all: Vec<Shard>,
    seats: Vec<Seat>,
    /// What is handed over arrives at the next `handle_timeout`.
    pub(crate) slow: bool,
    /// No queue has room for a session: each stays where it is.
    pub(crate) full: bool,
    /// Datagrams handed over so far.
    pub(crate) handed: usize,
}

impl Shards {
    pub(crate) fn new(shards: usize, now: Instant) -> Self {
        let seats = Seat::all(shards, now);
        Self { all: seats.iter().cloned().map(Shard::new).collect(), seats, slow: false, full: false, handed: 0 }
    }

    /// To its home, as handles do.
    pub(crate) fn accept(&mut self, now: Instant, id: u64, setup: Setup) -> Result<(), RtcError> {
        let home = (id % self.all.len() as u64) as usize;
        self.all[home].accept(now, id, setup)
    }

    /// To the shard that the addresses give, and on from there.
    pub(crate) fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Fate {
        let via = self.arrival(path);
        let fate = self.all[via].handle_datagram(now, path, datagram);
        if self.slow { fate } else { self.deliver(now).unwrap_or(fate) }
    }

    fn arrival(&self, path: Path) -> usize {
        let spread = match path {
            Path::Udp { remote, .. } => {
                usize::from(remote.port() / 1000) + remote.to_string().split(':').next().map_or(0, last_octet)
            }
            Path::Tcp { connection, .. } => connection as usize,
        };
        (spread + 1) % self.all.len()
    }

    /// Where the last datagram ended.
    fn deliver(&mut self, now: Instant) -> Option<Fate> {
        let mut fates = None;
        let waiting = self.all.iter_mut().enumerate().flat_map(|(from, shard)| {
            std::iter::from_fn(move || shard.poll_handed()).map(move |(to, handed)| (from, to, handed))
        });
        let mut waiting: Vec<(usize, usize, Handed)> = waiting.collect();
        for hop in 0.. {
            if waiting.is_empty() {
                return fates;
            }
            assert!(hop < HOPS_MAX, "what is handed over comes to rest");
            for (from, to, handed) in std::mem::take(&mut waiting) {
                self.handed += 1;
                let session = if let Handed::Session { id, .. } = &handed { Some(*id) } else { None };
                let to = if session.is_some() && self.full { from } else { to };
                let fate = self.all[to].handle_handed(now, handed);
                if let Some(id) = session.filter(|_| to != from) {
                    self.all[from].given(id, to);
                }
                fates = Some(fate).filter(|fate| *fate != Fate::Handed).or(fates);
                let more = std::iter::from_fn(|| self.all[to].poll_handed());
                waiting.extend(more.map(|(next, handed)| (to, next, handed)));
            }
        }
        fates
    }

    /// The shard that has the session, or would be asked.
    fn of(&mut self, id: u64) -> &mut Shard {
        let home = (id % self.all.len() as u64) as usize;
        let shard = self.all[home].elsewhere(id).unwrap_or(home);
        &mut self.all[shard]
    }

    pub(crate) fn restart(&mut self, now: Instant, id: u64, replaces: &str, local: &IceCredentials) -> Result<(), PatchError> {
        self.of(id).restart(now, id, replaces, local)
    }

    pub(crate) fn request_keyframe(&mut self, now: Instant, id: u64, layer: usize) {
        self.of(id).request_keyframe(now, id, layer);
    }

    pub(crate) fn select(&mut self, now: Instant, id: u64, track: TrackKey, rests: bool) {
        self.of(id).select(now, id, track, rests);
    }

    pub(crate) fn aim(&mut self, id: u64, bitrate: Option<u64>) {
        self.of(id).aim(id, bitrate);
    }

    pub(crate) fn close(&mut self, now: Instant, id: u64, reason: Closed) {
        self.of(id).close(now, id, reason);
    }

    pub(crate) fn fall_behind(&mut self, id: u64) {
        self.of(id).fall_behind(id);
    }

    pub(crate) fn advance(&mut self, now: Instant, id: u64) {
        self.of(id).advance(now, id);
    }

    /// A TCP connection ended, where it was taken.
    pub(crate) fn forget_path(&mut self, now: Instant, path: Path) {
        let via = self.arrival(path);
        self.all[via].forget_path(path);
        self.deliver(now);
    }

    pub(crate) fn add_track(&mut self, track: TrackKey) {
        let told = Told::default();
        self.all.iter_mut().for_each(|shard| shard.add_track(track, told.clone()));
    }

    pub(crate) fn remove_track(&mut self, track: TrackKey) {
        self.all.iter_mut().for_each(|shard| shard.remove_track(track));
    }

    pub(crate) fn push(&mut self, now: Instant, track: TrackKey, frame: OutFrame) -> Vec<u64> {
        let frame = std::sync::Arc::new(frame);
        self.all.iter_mut().flat_map(|shard| shard.push(now, track, frame.clone())).collect()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.deliver(now);
        self.all.iter_mut().for_each(|shard| shard.handle_timeout(now));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.all.iter().filter_map(Shard::poll_timeout).min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(u64, Path, Burst)> {
        self.all.iter_mut().find_map(Shard::poll_transmit)
    }

    pub(crate) fn poll_event(&mut self) -> Option<(u64, Event)> {
        self.all.iter_mut().find_map(Shard::poll_event)
    }

    pub(crate) fn poll_wanted(&mut self, now: Instant) -> Option<TrackKey> {
        self.all.iter_mut().find_map(|shard| shard.poll_wanted(now))
    }

    pub(crate) fn take_counts(&mut self) -> Counts {
        self.all.iter_mut().fold(Counts::default(), |mut all, shard| {
            all += shard.take_counts();
            all
        })
    }

    pub(crate) fn sessions(&self) -> usize {
        self.all.iter().map(Shard::sessions).sum()
    }

    pub(crate) fn viewers(&self, track: TrackKey) -> usize {
        self.all.iter().map(|shard| shard.viewers(track)).sum()
    }

    /// Addresses of all sessions.
    pub(crate) fn paths(&self) -> usize {
        self.all.iter().map(Shard::paths).sum()
    }

    /// What the directory holds.
    pub(crate) fn entries(&self) -> usize {
        self.seats[0].entries()
    }
}

fn last_octet(address: &str) -> usize {
    address.rsplit('.').next().and_then(|octet| octet.parse().ok()).unwrap_or(0)
}
