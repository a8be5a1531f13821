//! How many connections there are, in all and from each address.
//!
//! Pure but for a lock: a `Seat` is given or refused, and dropping it gives it back.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Clone)]
pub struct Crowd {
    taken: Arc<Mutex<Taken>>,
    seats: usize,
    seats_per_address: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The server has as many connections as it may.
    All,
    /// This address has as many as one may.
    Address,
}

/// A counted connection.
pub struct Seat {
    taken: Arc<Mutex<Taken>>,
    address: IpAddr,
}

impl Crowd {
    pub fn new(seats: usize, seats_per_address: usize) -> Self {
        Self { taken: Arc::default(), seats, seats_per_address }
    }

    pub fn enter(&self, peer: IpAddr) -> Result<Seat, Full> {
        let address = household(peer);
        let mut taken = lock(&self.taken);
        if taken.all >= self.seats {
            return Err(Full::All);
        }
        let here = taken.by_address.entry(address).or_default();
        if *here >= self.seats_per_address {
            return Err(Full::Address);
        }
        *here += 1;
        taken.all += 1;
        Ok(Seat { taken: Arc::clone(&self.taken), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // No code of ours panics while it holds the lock; the counts are whole either way.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one guest holds: an IPv4 address, or the IPv6 /64 in which a host picks addresses freely.
fn household(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_given_refused_and_given_back() {
        let crowd = Crowd::new(3, 2);
        let enter = |ip: &str| crowd.enter(ip.parse().unwrap());
        let first = enter("192.0.2.1").ok();
        let _second = enter("::ffff:192.0.2.1").ok();
        assert_eq!(enter("192.0.2.1").err(), Some(Full::Address), "a mapped address is the same address");
        let _third = enter("2001:db8::1").ok();
        assert_eq!(enter("192.0.2.9").err(), Some(Full::All));
        drop(first);
        assert!(enter("192.0.2.1").is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_household_and_nobody_is_remembered() {
        let crowd = Crowd::new(9, 1);
        let seat = crowd.enter("2001:db8::1".parse().unwrap()).ok();
        assert_eq!(crowd.enter("2001:db8::2".parse().unwrap()).err(), Some(Full::Address));
        assert!(crowd.enter("2001:db8:0:1::2".parse().unwrap()).is_ok());
        drop(seat);
        assert!(lock(&crowd.taken).by_address.is_empty());
    }
}
