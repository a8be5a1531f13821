//! What a session tells its owner.

use std::net::SocketAddr;

use crate::rtp::Frame;

#[derive(Debug)]
pub enum Event {
    /// The handshake is done: media may flow.
    Connected { peer: SocketAddr },
    /// One access unit or Opus packet of a publisher.
    Frame {
        /// Indexes `Negotiated::media`.
        media: usize,
        /// Indexes the offered rids; 0 without simulcast.
        layer: usize,
        frame: Frame,
    },
    /// WHEP: the picture comes from this track from now on (`Outgoing::key`).
    Switched { track: u64 },
    /// WHEP: what the way to the viewer carries, in bits a second, once there was too much for it. A fall is told at once.
    Bandwidth { bitrate: u64 },
    /// The last event.
    Closed(Closed),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("closed by this server")]
    ByUs,
    #[error("the peer closed the connection")]
    ByPeer,
    #[error("no check arrived in time: UDP is blocked on the way, or the advertised address is wrong")]
    Unreachable,
    #[error("the DTLS handshake did not finish in time")]
    HandshakeTimeout,
    #[error("the DTLS handshake failed: {0}")]
    Handshake(String),
    #[error("nothing was heard of the peer for 30 s")]
    ConsentLost,
    #[error("a packet could not be sealed: {0}")]
    Seal(String),
    #[error("too many viewers were waited for, and this one for the longest time")]
    CrowdedOut,
}

impl Closed {
    /// As metric labels say it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ByUs => "by_us",
            Self::ByPeer => "by_peer",
            Self::Unreachable => "unreachable",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Handshake(_) => "handshake",
            Self::ConsentLost => "consent_lost",
            Self::Seal(_) => "seal",
            Self::CrowdedOut => "crowded_out",
        }
    }

    pub const LABELS: [&'static str; 8] =
        ["by_us", "by_peer", "unreachable", "handshake_timeout", "handshake", "consent_lost", "seal", "crowded_out"];
}

impl Event {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Frame { frame, .. } => frame.payload.len(),
            Self::Connected { .. } | Self::Switched { .. } | Self::Bandwidth { .. } | Self::Closed(_) => 0,
        }
    }
}
