//! The ICE-lite agent of one session (RFC 8445 2.5): it answers checks and asks none.
//!
//! An address counts once a check from it was proved by our password; only from such addresses do
//! DTLS and SRTP reach the session. The peer nominates; where it moves, we follow. Consent to send
//! (RFC 7675) lasts as long as checks, or packets that only the peer can have sealed, keep coming.

use std::time::{Duration, Instant};

use ring::hmac;

use crate::{
    path::Path,
    sdp::IceCredentials,
    stun::{self, Request},
};

/// RFC 7675 5.1: consent expires 30 s after the last sign of it.
pub(crate) const CONSENT: Duration = Duration::from_secs(30);
/// Addresses of one peer: interfaces, each by IPv4, IPv6 and a NAT or two.
const PATHS_MAX: usize = 16;
/// A path that is silent so long is given up for one that is not: browsers check every 2.5 s.
pub(crate) const PATH_SILENCE: Duration = Duration::from_secs(6);

pub(crate) struct Agent {
    local: Local,
    /// After a restart, until the peer uses the new one: its checks are still on their way.
    former: Option<Local>,
    /// Proved addresses, the newest last.
    paths: Vec<Proved>,
    nominated: Option<Path>,
    /// Since when there is something to wait for: the beginning, or the last sign by a connection that is gone.
    began: Instant,
    evicted: Vec<Path>,
}

struct Proved {
    path: Path,
    /// When a check, or a packet that only the peer can have sealed, came by it last.
    heard: Instant,
}

struct Local {
    ufrag: String,
    key: hmac::Key,
}

impl Local {
    fn new(credentials: &IceCredentials) -> Self {
        Self { ufrag: credentials.ufrag().to_owned(), key: stun::key(credentials.pwd()) }
    }
}

/// What a check came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Send this back on the path it came by. Where it has `nominated` that one, media goes this way from now on.
    Answer { bytes: Vec<u8>, nominated: bool },
    /// Not proved: no answer.
    Forged,
}

impl Agent {
    pub(crate) fn new(local: &IceCredentials, now: Instant) -> Self {
        Self { local: Local::new(local), former: None, paths: Vec::new(), nominated: None, began: now, evicted: Vec::new() }
    }

    /// A restart (RFC 8445 9): other credentials from now on; media goes on where it goes.
    pub(crate) fn restart(&mut self, local: &IceCredentials) {
        self.former = Some(std::mem::replace(&mut self.local, Local::new(local)));
    }

    pub(crate) fn handle_check(&mut self, now: Instant, path: Path, request: &Request<'_>) -> Checked {
        let local = if request.local_ufrag() == self.local.ufrag { Some(&self.local) } else { self.former.as_ref() };
        let Some(local) = local.filter(|local| local.ufrag == request.local_ufrag() && request.verify(&local.key)) else {
            return Checked::Forged;
        };
        let bytes = request.success(&local.key, path.remote());
        self.prove(path, now);
        // Before anything is nominated the first proved path serves: libdatachannel and ffmpeg start DTLS at once. And
        // where a NAT has given the peer another port, its checks need not nominate anew.
        let nominate = request.use_candidate || !self.nominated.is_some_and(|path| self.is_using(path, now));
        let nominated = nominate && self.nominated.replace(path) != Some(path);
        Checked::Answer { bytes, nominated }
    }

    /// Something came by this path that only the peer can have sealed.
    pub(crate) fn heard(&mut self, now: Instant, path: Path) {
        if let Some(known) = self.paths.iter_mut().find(|known| known.path == path) {
            known.heard = now;
        }
    }

    /// Whether the peer was heard on this path lately.
    pub(crate) fn is_using(&self, path: Path, now: Instant) -> bool {
        self.paths.iter().any(|known| known.path == path && now < known.heard + PATH_SILENCE)
    }

    /// When the peer was heard on this path last.
    pub(crate) fn last_heard(&self, path: Path) -> Option<Instant> {
        self.paths.iter().find(|known| known.path == path).map(|known| known.heard)
    }

    /// Where media goes.
    pub(crate) fn selected(&self) -> Option<Path> {
        self.nominated
    }

    pub(crate) fn consent_until(&self) -> Instant {
        let heard = self.paths.iter().find(|known| Some(known.path) == self.nominated).map(|known| known.heard);
        heard.unwrap_or(self.began).max(self.began) + CONSENT
    }

    pub(crate) fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    pub(crate) fn former_ufrag(&self) -> Option<&str> {
        self.former.as_ref().map(|former| former.ufrag.as_str())
    }

    /// What checks may name, and the key that proves them.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &hmac::Key)> {
        [Some(&self.local), self.former.as_ref()].into_iter().flatten().map(|local| (local.ufrag.as_str(), &local.key))
    }

    /// Only from there DTLS and SRTP are looked at.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(|known| &known.path)
    }

    /// Paths that had to make room.
    pub(crate) fn take_evicted(&mut self) -> Vec<Path> {
        std::mem::take(&mut self.evicted)
    }

    /// A connection is gone (ICE-TCP). The peer may come back by another, or where it was heard last, until consent to
    /// the one that is gone would have ended.
    pub(crate) fn forget(&mut self, path: Path) {
        let Some(at) = self.paths.iter().position(|known| known.path == path) else { return };
        let gone = self.paths.remove(at);
        if self.nominated == Some(path) {
            self.began = self.began.max(gone.heard);
            self.nominated = self.paths.iter().max_by_key(|known| known.heard).map(|known| known.path);
        }
    }

    fn prove(&mut self, path: Path, now: Instant) {
        if let Some(known) = self.paths.iter_mut().find(|known| known.path == path) {
            known.heard = now;
            return;
        }
        if self.paths.len() >= PATHS_MAX {
            let oldest = self.paths.iter().position(|known| Some(known.path) != self.nominated).unwrap_or(0);
            self.evicted.push(self.paths.remove(oldest).path);
        }
        self.paths.push(Proved { path, heard: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn path(connection: u64) -> Path {
        Path::Tcp { connection, remote: ([192, 0, 2, 1], 5000).into() }
    }

    #[test]
    fn a_peer_whose_connection_breaks_may_come_back_by_another() {
        let now = Instant::now();
        let credentials = IceCredentials::new("ours", "0123456789abcdefghijklmn").unwrap();
        let mut agent = Agent::new(&credentials, now);
        let check = |agent: &mut Agent, now, path| {
            let check = stun::check("ours:x", &stun::key(credentials.pwd()), [7; 12]);
            let answered = agent.handle_check(now, path, &Request::parse(&check).unwrap());
            matches!(answered, Checked::Answer { .. })
        };
        assert!([1, 2, 3].iter().all(|number| check(&mut agent, now, path(*number))));
        let later = now + 100 * SECOND;
        agent.heard(later - SECOND, path(2));
        agent.heard(later, path(1));
        agent.forget(path(1));
        assert_eq!(agent.selected(), Some(path(2)), "where it was heard last");
        agent.forget(path(2));
        agent.forget(path(3));
        assert_eq!((agent.selected(), agent.consent_until()), (None, later + CONSENT));
        assert!(check(&mut agent, later + SECOND, path(4)));
        assert_eq!((agent.selected(), agent.consent_until()), (Some(path(4)), later + SECOND + CONSENT));
    }
}
