//! One way to a peer: a pair of UDP addresses, or a TCP connection.

use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Path {
    /// `local` is the address that the datagram came to, where the system told: answers leave from it.
    Udp { remote: SocketAddr, local: Option<IpAddr> },
    /// Numbered by the listener, never twice.
    Tcp { connection: u64, remote: SocketAddr },
}

impl Path {
    pub(crate) fn remote(self) -> SocketAddr {
        match self {
            Self::Udp { remote, .. } | Self::Tcp { remote, .. } => remote,
        }
    }
}
