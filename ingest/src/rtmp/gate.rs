//! Who may come in: caps on connections, in total and not yet publishing per address, so that
//! half-open ones cannot use up the server.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// All connections. Each costs a socket, a task and its read buffer.
    pub connections_max: usize,
    /// Connections that do not publish yet, of all addresses.
    pub pending_max: usize,
    /// The same of one address: a studio with many encoders behind one, restarted at once.
    pub pending_per_address_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections_max: 1024, pending_max: 256, pending_per_address_max: 32 }
    }
}

pub struct Gate {
    caps: Caps,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    pending: usize,
    /// Only addresses with a pending connection are in it, so `pending_max` bounds it.
    per_address: HashMap<IpAddr, usize>,
}

impl Gate {
    pub fn new(caps: Caps) -> Arc<Self> {
        Arc::new(Self { caps, counts: Mutex::default() })
    }

    /// `None` when a cap is reached.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let address = network(address);
        let mut counts = self.lock();
        let here = counts.per_address.get(&address).copied().unwrap_or(0);
        let full = counts.connections >= self.caps.connections_max
            || counts.pending >= self.caps.pending_max
            || here >= self.caps.pending_per_address_max;
        if full {
            return None;
        }
        counts.connections += 1;
        counts.pending += 1;
        counts.per_address.insert(address, here + 1);
        Some(Permit { gate: Arc::clone(self), address, pending: true })
    }

    /// Open now: all, and those that do not publish yet.
    pub fn open(&self) -> (usize, usize) {
        let counts = self.lock();
        (counts.connections, counts.pending)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place. Dropping it gives it back.
pub struct Permit {
    gate: Arc<Gate>,
    address: IpAddr,
    pending: bool,
}

impl Permit {
    /// The connection publishes: only the cap on all of them counts it from here on.
    pub fn publishing(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.gate.lock().leave_pending(self.address);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.gate.lock();
        counts.connections -= 1;
        if self.pending {
            counts.leave_pending(self.address);
        }
    }
}

impl Counts {
    fn leave_pending(&mut self, address: IpAddr) {
        self.pending -= 1;
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }
}

/// An IPv6 host has a whole /64 to call from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_hold_in_total_and_per_address() {
        let gate = Gate::new(Caps { connections_max: 5, pending_max: 4, pending_per_address_max: 2 });
        let enter = |address: &str| gate.enter(address.parse().unwrap());
        let mut a = [enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap()];
        assert!(enter("192.0.2.1").is_none(), "the third of one address");
        a[0].publishing();
        a[0].publishing();
        let a3 = enter("192.0.2.1").unwrap();
        let v6 = [enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap()];
        assert!(enter("2001:db8::3").is_none(), "one network");
        assert!(enter("198.51.100.1").is_none(), "all pending");
        assert_eq!(gate.open(), (5, 4));
        drop(v6);
        assert!(enter("198.51.100.1").is_some());
        drop((a, a3));
        assert_eq!(gate.open(), (0, 0));
        assert!(gate.lock().per_address.is_empty());
    }
}
