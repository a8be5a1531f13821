//! Low-Latency HLS (draft-pantos-hls-rfc8216bis).
//!
//! ```text
//! Item -> Sound -> Presentation -> Segmenter -> Part -> Playlist -> Rendered -> every waiting viewer
//!                      |  Timeline (cuts)                  Shelf -> bytes by address
//! ```
//!
//! `rungs` and `thumbnail`: pictures that are made on demand. `kept` and `inbox`: what the next process goes on with. `advisor`: what the
//! streamer could set better. `presentation`, `sound`, `segmenter`, `playlist`, `directives`, `shelf` and `multivariant`
//! decide; `pipeline` (one task a stream) and `server` (HTTP) wait and send.

mod advisor;
mod body;
pub mod directives;
mod front;
mod inbox;
pub mod kept;
mod metrics;
mod multivariant;
mod pipeline;
pub mod playlist;
pub mod presentation;
mod rendition;
mod rungs;
pub mod segmenter;
mod server;
mod shelf;
pub mod sound;
mod thumbnail;

pub use inbox::{Inbox, Keep};
pub use metrics::Metrics;
pub use pipeline::{Config, Packager};
