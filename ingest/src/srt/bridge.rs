//! Brings a caller to its receiver: the helper's `srtsrc`, which would rather be called directly.
//!
//! Pure. We ask the receiver for its cookie as the caller would, put it into the caller's conclusion in place of ours, and
//! from then on hand every datagram on as it is: both ends number their sockets, sequences and keys without us.

use std::time::{Duration, Instant};

use super::packet::{HANDSHAKE_BYTES, Kind, Packet};

/// How often the receiver is asked for its cookie. It is on this machine: a datagram is lost while it opens its port.
const ASK_EVERY: Duration = Duration::from_millis(50);

pub struct Bridge {
    /// The caller's. Another one that has its address, or pretends to, is not let in beside it.
    socket: u32,
    /// The caller's newest conclusion, and when it came.
    conclusion: (Instant, Vec<u8>),
    induction: Vec<u8>,
    asked: Option<Instant>,
    /// The receiver's.
    cookie: Option<u32>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The receiver has not answered the conclusion.
    Opening,
    Open,
    Refused(u32),
}

/// A datagram to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    ToReceiver(Vec<u8>),
    ToCaller,
    Nothing,
}

impl Bridge {
    /// Of a conclusion that came at `now`; `None` if it is none.
    pub fn new(now: Instant, conclusion: Vec<u8>) -> Option<Self> {
        let Packet::Handshake(handshake) = Packet::read(&conclusion) else { return None };
        let (socket, induction) = (handshake.socket(), handshake.as_induction());
        Some(Self { socket, conclusion: (now, conclusion), induction, asked: None, cookie: None, state: State::Opening })
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.cookie, self.asked) {
            (None, Some(asked)) => Some(asked + ASK_EVERY),
            _ => None,
        }
    }

    /// The receiver is there, or has not answered: what to send it.
    pub fn handle_timeout(&mut self, now: Instant) -> Sent {
        if self.cookie.is_some() || self.asked.is_some_and(|asked| now < asked + ASK_EVERY) {
            return Sent::Nothing;
        }
        self.asked = Some(now);
        Sent::ToReceiver(self.induction.clone())
    }

    /// Of the caller.
    pub fn handle_caller(&mut self, now: Instant, datagram: Vec<u8>) -> Sent {
        match Packet::read(&datagram) {
            Packet::Malformed => Sent::Nothing,
            Packet::Handshake(handshake) if handshake.kind() == Kind::Conclusion && handshake.socket() == self.socket => {
                let Some(cookie) = self.cookie else {
                    self.conclusion = (now, datagram);
                    return Sent::Nothing;
                };
                Sent::ToReceiver(handshake.with_cookie(cookie, 0))
            }
            // It has not heard us, or begins anew (that is the door's), or is somebody else.
            Packet::Handshake(_) => Sent::Nothing,
            Packet::Shutdown | Packet::Other => Sent::ToReceiver(datagram),
        }
    }

    /// Of the receiver.
    pub fn handle_receiver(&mut self, now: Instant, datagram: &[u8]) -> Sent {
        let Packet::Handshake(handshake) = Packet::read(datagram) else { return Sent::ToCaller };
        match handshake.kind() {
            Kind::Induction => self.take_cookie(now, handshake.cookie()),
            Kind::Rejection(code) => {
                self.state = State::Refused(code);
                // A caller is sent no more than it sent, as at the door.
                if datagram.len() <= HANDSHAKE_BYTES { Sent::ToCaller } else { Sent::Nothing }
            }
            Kind::Conclusion | Kind::Other => {
                self.state = State::Open;
                Sent::ToCaller
            }
        }
    }

    fn take_cookie(&mut self, now: Instant, cookie: u32) -> Sent {
        if self.cookie.replace(cookie).is_some() {
            return Sent::Nothing;
        }
        let (came, conclusion) = &self.conclusion;
        let Packet::Handshake(handshake) = Packet::read(conclusion) else { return Sent::Nothing };
        // Its clock went on while the receiver was started; else all of its media would be late by that.
        let waited = now.saturating_duration_since(*came).as_micros() as u32;
        Sent::ToReceiver(handshake.with_cookie(cookie, waited))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::packet::tests::{CONCLUSION, INDUCTION, with_cookie},
        *,
    };

    fn read(datagram: &[u8]) -> super::super::packet::Handshake<'_> {
        let Packet::Handshake(handshake) = Packet::read(datagram) else { panic!("no handshake") };
        handshake
    }

    #[test]
    fn the_receivers_cookie_takes_the_place_of_ours() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut bridge = Bridge::new(begin, with_cookie(CONCLUSION, 1)).unwrap();
        assert_eq!(bridge.handle_caller(at(250), CONCLUSION.to_vec()), Sent::Nothing, "the newest is kept");
        let Sent::ToReceiver(induction) = bridge.handle_timeout(at(300)) else { panic!("it asks") };
        assert_eq!(induction[16..], INDUCTION[16..]);
        assert_eq!(bridge.handle_timeout(at(310)), Sent::Nothing);
        assert_eq!(bridge.poll_timeout(), Some(at(350)));
        assert!(matches!(bridge.handle_timeout(at(350)), Sent::ToReceiver(_)), "nothing came");

        let answer = read(INDUCTION).induction_answer(77);
        let Sent::ToReceiver(conclusion) = bridge.handle_receiver(at(400), &answer) else { panic!("it goes on") };
        assert_eq!(conclusion, read(CONCLUSION).with_cookie(77, 150_000), "as if it were sent now");
        assert_eq!(bridge.handle_receiver(at(401), &answer), Sent::Nothing, "twice asked, twice answered");
        assert_eq!((bridge.poll_timeout(), bridge.state()), (None, State::Opening));

        let again = bridge.handle_caller(at(500), CONCLUSION.to_vec());
        assert_eq!(again, Sent::ToReceiver(with_cookie(CONCLUSION, 77)), "the answer was lost");
        assert_eq!(bridge.handle_receiver(at(501), CONCLUSION), Sent::ToCaller);
        assert_eq!(bridge.state(), State::Open);
        assert_eq!(bridge.handle_receiver(at(502), &[0; 100]), Sent::ToCaller);
        assert_eq!(bridge.handle_caller(at(503), vec![0; 1332]), Sent::ToReceiver(vec![0; 1332]));
        assert_eq!(bridge.handle_caller(at(504), INDUCTION.to_vec()), Sent::Nothing);
        let mut stranger = CONCLUSION.to_vec();
        stranger[40] ^= 1;
        assert_eq!(bridge.handle_caller(at(505), stranger), Sent::Nothing, "one connection a session");
    }

    #[test]
    fn the_receivers_refusal_is_handed_on() {
        let now = Instant::now();
        let mut bridge = Bridge::new(now, CONCLUSION.to_vec()).unwrap();
        let refused = read(CONCLUSION).rejection(10);
        assert_eq!(bridge.handle_receiver(now, &refused), Sent::ToCaller);
        assert_eq!(bridge.state(), State::Refused(10));
        assert!(Bridge::new(now, vec![0; 100]).is_none());
    }
}
