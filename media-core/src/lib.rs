//! The media model every other crate speaks: Samples on Tracks, Timestamps with a scale, the
//! Timeline of cuts, codecs and containers, the bounded window from one publisher to many
//! readers, and the registry of live streams and publishing leases.
//!
//! Pure: bytes, `Instant`s and ids come in, verdicts go out. No runtime, no socket, no HTTP, and
//! nothing here reads a clock.

pub mod advice;
pub mod codec;
pub mod container;
pub mod fanout;
pub mod ladder;
pub mod name;
pub mod registry;
pub mod rung;
pub mod sample;
pub mod stream;
pub mod timeline;
pub mod timestamp;

pub use fanout::{Cursor, Fanout};
pub use ladder::Ladder;
pub use name::{Passphrase, StreamKey, StreamName};
pub use registry::{Publication, Registry};
pub use rung::Rung;
pub use sample::{Announcement, Item, Layer, Parameters, Sample, Track, TrackId, TrackKind};
pub use stream::Stream;
pub use timestamp::{Timescale, Timestamp};
