//! Publishers in: RTMP connections, WHIP and SRT sessions become Samples of a stream that a lease guards.
//!
//! `rtmp::session` is RTMP without a socket, `repair` the clocks of an RTMP publisher,
//! `whip::publisher` frames of WebRTC to Samples, `srt::feed` a transport stream to Samples, `admission` the
//! question who may publish, `lease` the wait for a name.
//! Files named `listener`, `conn`, `server` and `lease` are the shells that own sockets, time and tasks.
//!
//! What lives downstream of the `registry` (packaging, transcoding) is none of this crate's
//! business, and no stream key leaves it.

pub mod admission;
mod lease;
pub mod metrics;
pub mod rejections;
pub mod repair;
pub mod rtmp;
pub mod srt;
pub mod whip;
