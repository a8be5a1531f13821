//! Viewers over WebRTC: WHEP (draft-ietf-wish-whep-03, and the events and layers of its core extensions).
//!
//! ```text
//! POST -> Viewer (what it takes) --> its place in the Broadcast of the stream, one for all viewers
//! Item -> Broadcast (which, when) -> Packets -> transport's Outgoing -> every viewer
//!                \-> Front ---------> Events (server-sent), layers, the end
//! ```
//!
//! `broadcast`, `clock`, `packets`, `layers`, `rungs`, `rate`, `viewer` and `events` decide; `pipeline` (a task a watched stream),
//! `conn` (a task a viewer) and `server` (HTTP) wait and send.

mod broadcast;
mod clock;
mod conn;
mod events;
mod layers;
mod metrics;
mod packets;
mod pipeline;
mod program;
mod rate;
mod rungs;
mod server;
#[cfg(test)]
mod tests;
mod viewer;

pub use pipeline::{Config, Whep};
pub use server::router;
