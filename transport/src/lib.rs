//! WebRTC's shared engine for WHIP and WHEP: one UDP port, and the same TCP port, for every peer.
//!
//! ```text
//! offer -> sdp -> Engine::{receive, send} -> answer          (HTTP is the caller's)
//! datagram -> udp.rs -> shard.rs -> session.rs -> receive.rs -> rtp/ -> Event::Frame -> the owner
//! OutFrame -> Outgoing::push -> shard.rs -> session.rs -> send/ -> srtp.rs -> udp.rs -> datagrams
//! ```
//!
//! It answers as ICE-lite agent and, wherever the offer allows, as DTLS server. It knows nothing of
//! streams, rungs or playlists. Its threads, the shards, know of each other by `directory.rs` alone.
//! `engine`, `inbox`, `listener`, `udp` and `tcp` are its shells; all else is sans-IO.

pub mod bandwidth_fuzz;
mod directory;
mod dtls;
mod engine;
mod event;
mod ice;
mod inbox;
mod listener;
mod lobby;
mod metrics;
#[cfg(test)]
mod pair_tests;
mod path;
mod receive;
pub mod resource;
pub mod rtp;
pub mod sdp;
mod send;
mod session;
pub mod session_fuzz;
mod shard;
mod srtp;
pub mod stun;
mod tcp;
mod udp;

pub use engine::{AcceptError, Accepted, Config, Control, Engine, Outgoing, Restarted, Session, StartError};
pub use event::{Closed, Event};
pub use send::{Bandwidth, Numbers, OutFrame};
pub use udp::SOCKET_BUFFER_BYTES;
