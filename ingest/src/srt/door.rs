//! Who may come in: the first two messages of SRT's handshake (draft-sharabayko-srt-01, 4.3.1), before there is a session.
//!
//! Pure. An induction is answered without remembering it: what it has to show next is a keyed hash of its address and of
//! the minute, as TCP's SYN cookies do. So an address that was forged costs nothing and is sent no more than it sent.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::packet::{Conclusion, Handshake, Kind, Packet, Unreadable};

/// How long a cookie is good at least, and half of how long at most: callers answer within a round trip, and repeat
/// their conclusion for some seconds.
const COOKIE_LIFE: Duration = Duration::from_secs(30);

pub struct Door {
    /// SipHash under a key of this process.
    secret: RandomState,
    opened: Instant,
}

/// What a datagram of an address without a session comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Answer(Vec<u8>),
    /// The address is proved: who is it?
    Ask(Conclusion),
    /// The address is proved, and what it says cannot be taken.
    Unreadable(Unreadable),
    Drop(Stray),
}

/// A datagram that belongs to nothing. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// No SRT.
    Malformed,
    /// Of a connection that is not, or no longer, there.
    Unknown,
    /// A conclusion whose cookie is none of ours, or too old.
    Cookie,
    /// More than the session takes.
    Overflow,
}

impl Stray {
    pub const ALL: [Self; 4] = [Self::Malformed, Self::Unknown, Self::Cookie, Self::Overflow];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Cookie => "cookie",
            Self::Overflow => "overflow",
        }
    }
}

impl Door {
    pub fn new(now: Instant) -> Self {
        Self { secret: RandomState::new(), opened: now }
    }

    pub fn handle(&self, now: Instant, peer: SocketAddr, datagram: &[u8]) -> Verdict {
        match Packet::read(datagram) {
            Packet::Malformed => Verdict::Drop(Stray::Malformed),
            Packet::Shutdown | Packet::Other => Verdict::Drop(Stray::Unknown),
            Packet::Handshake(handshake) => self.handshake(now, peer, handshake),
        }
    }

    fn handshake(&self, now: Instant, peer: SocketAddr, handshake: Handshake<'_>) -> Verdict {
        match handshake.kind() {
            Kind::Induction => Verdict::Answer(handshake.induction_answer(self.cookie(peer, self.period(now)))),
            Kind::Conclusion if !self.is_ours(now, peer, handshake.cookie()) => Verdict::Drop(Stray::Cookie),
            Kind::Conclusion => handshake.conclusion().map_or_else(Verdict::Unreadable, Verdict::Ask),
            Kind::Rejection(_) | Kind::Other => Verdict::Drop(Stray::Unknown),
        }
    }

    fn is_ours(&self, now: Instant, peer: SocketAddr, cookie: u32) -> bool {
        let period = self.period(now);
        [Some(period), period.checked_sub(1)].into_iter().flatten().any(|period| self.cookie(peer, period) == cookie)
    }

    fn cookie(&self, peer: SocketAddr, period: u64) -> u32 {
        self.secret.hash_one((peer, period)) as u32
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.opened).as_secs() / COOKIE_LIFE.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::packet::{
            HANDSHAKE_BYTES,
            tests::{CONCLUSION, INDUCTION, with_cookie},
        },
        *,
    };

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn cookie_of(answer: &Verdict) -> u32 {
        let Verdict::Answer(answer) = answer else { panic!("{answer:?}") };
        let Packet::Handshake(answer) = Packet::read(answer) else { panic!("no handshake") };
        answer.cookie()
    }

    #[test]
    fn a_cookie_belongs_to_an_address_and_a_time() {
        let now = Instant::now();
        let (door, here, there) = (Door::new(now), peer("192.0.2.1:9000"), peer("192.0.2.1:9001"));
        let cookie = cookie_of(&door.handle(now, here, INDUCTION));
        let conclusion = with_cookie(CONCLUSION, cookie);
        let check = |at: u64, from: SocketAddr, expected: bool| {
            let verdict = door.handle(now + Duration::from_secs(at), from, &conclusion);
            let taken = matches!(&verdict, Verdict::Ask(asked) if asked.stream_id == "publish:demo:0123456789abcdef");
            assert_eq!(taken, expected, "{verdict:?} after {at} s from {from}");
            assert!(taken || verdict == Verdict::Drop(Stray::Cookie));
        };
        check(0, here, true);
        check(0, there, false);
        check(59, here, true);
        check(60, here, false);
        let other = Door::new(now);
        assert_eq!(other.handle(now, here, &conclusion), Verdict::Drop(Stray::Cookie), "keyed");
    }

    #[test]
    fn nobody_is_sent_more_than_it_sent() {
        let (now, here) = (Instant::now(), peer("192.0.2.1:9000"));
        let door = Door::new(now);
        for end in 0..INDUCTION.len() {
            let verdict = door.handle(now, here, &INDUCTION[..end]);
            assert!(matches!(verdict, Verdict::Drop(Stray::Malformed)), "{end}: {verdict:?}");
        }
        let Verdict::Answer(answer) = door.handle(now, here, INDUCTION) else { panic!("an induction is answered") };
        assert!(answer.len() == HANDSHAKE_BYTES && answer.len() <= INDUCTION.len());
    }

    #[test]
    fn datagrams_of_nobody_are_dropped() {
        let (now, here) = (Instant::now(), peer("[2001:db8::1]:9000"));
        let check = |datagram: &[u8], stray| assert_eq!(Door::new(now).handle(now, here, datagram), Verdict::Drop(stray));
        check(b"", Stray::Malformed);
        check(&[0; 15], Stray::Malformed);
        check(&[0; 1332], Stray::Unknown);
        check(&[0; 4000], Stray::Malformed);
        check(b"\x80\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Stray::Unknown);
        check(CONCLUSION, Stray::Cookie);
    }
}
