//! WHIP (RFC 9725): an SDP offer over HTTP becomes a publisher of a stream.
//!
//! ```text
//! POST offer -> server -> admission, lease, engine -> 201 with the answer
//! frames -> conn -> publisher (layers, clock, description, decode) -> Samples of the stream
//! ```
//!
//! `server` and `conn` are the shells; sockets of media are the transport's.

mod clock;
mod close;
mod conn;
mod decode;
mod description;
mod endpoint;
mod keyframes;
mod layers;
mod metrics;
mod publisher;
#[cfg(test)]
mod publisher_tests;
mod server;

pub use endpoint::Config;
pub use server::{Whip, router};
