//! Publishers in: RTMP connections become Samples of a stream that a lease guards.
//!
//! `rtmp::session` is the protocol without a socket, `repair` the clocks of one publisher,
//! `admission` the question who may publish. `rtmp::listener` and `rtmp::conn` are the shells
//! that own sockets, time and tasks.
//!
//! What lives downstream of the `registry` (packaging, transcoding) is none of this crate's
//! business, and no stream key leaves it.

pub mod admission;
pub mod metrics;
pub mod repair;
pub mod rtmp;
