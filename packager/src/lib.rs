//! Live streams made into what players fetch: Low-Latency HLS.
//!
//! It reads a stream's window, never a publisher's connection, and serves bytes it has made;
//! what it does not do: take input from a network's publishers, transcode, or decide who may
//! publish.

pub mod hls;
