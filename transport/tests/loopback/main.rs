//! Real sockets on this machine: a port of one shard or several, and peers that are not ours.

#![expect(clippy::unwrap_used, reason = "in a test a failed step is the failure")]

mod connections;
mod cost;
mod shards;
mod viewer;
