//! Makes of a stream what some viewers need and its publisher does not send: pictures without B-frames for WebRTC, rungs of
//! a ladder, Opus of AAC, AAC of Opus, thumbnails.
//!
//! `receive` lets the same program hold the listening end of SRT, since that comes with GStreamer too.
//!
//! This library starts one `codecast-transcode` per stream while something is in demand (`stream::Demand`), feeds it from
//! the stream's window and pushes what comes back into the stream's made windows. It survives that process whatever
//! happens to it, and links no GStreamer. `wire` is the protocol between the two, `lane` the rules of one way through it, `budget`
//! who gets the machine, `prices` what it costs there, `sound`,
//! `pacing`, `motion`, `cadence` and `rate` the arithmetic that the child uses; `pipeline` and `conn` are the shells.

pub mod cadence;
pub mod lane;
pub mod motion;
pub mod pacing;
pub mod prices;
pub mod rate;
pub mod receive;
pub mod sound;
pub mod wire;

mod budget;
mod conn;
mod metrics;
mod pipeline;
mod reading;
mod usage;

pub use pipeline::{Config, Transcoder, cores, find_program};
