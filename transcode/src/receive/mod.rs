//! SRT: one `codecast-transcode receive` a publisher, which holds GStreamer's `srtsrc` and hands on what it hears.
//!
//! `conn` is the shell; what is said is in `wire::receive`.

mod conn;

pub use conn::{Receiver, StartError, start};
