//! SRT as publishers speak it: one UDP port for all of them.
//!
//! ```text
//! datagram -> listener -> door (induction, cookie) -> conn: stream_id, admission, lease, a receiver is started
//! datagrams <-> conn, bridge <-> the receiver's srtsrc, a process of its own, which repairs, orders, decrypts
//! bytes of the receiver -> ts -> feed (picture, sound, clocks) -> Samples of the stream
//! ```
//!
//! `packet`, `door`, `stream_id`, `bridge`, `ts`, `picture`, `sound` and `feed` are pure; `conn` and `listener` own sockets,
//! time and tasks. Who the receiver is, is told by whoever has this crate started (`Receivers`).

mod bridge;
mod close;
mod conn;
mod door;
mod feed;
pub mod fuzz;
mod listener;
mod metrics;
mod packet;
mod picture;
mod receiver;
mod sound;
mod stream_id;
mod ts;

pub use listener::{Config, Listener};
pub use metrics::Metrics;
pub use receiver::{Heard, Receiver, Receivers, Starting, Wanted};
