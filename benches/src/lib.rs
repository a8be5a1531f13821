//! The load generator: publishers in number (by `timed-publisher`), viewers at the live edge, and
//! the time from a part's last byte in to its playlist out. Every run is bounded in time and count
//! and prints one line of JSON.
//!
//! `playlist` is pure; `http` is the least client that LL-HLS needs, so that a viewer costs little
//! beside what it asks of the server.

pub mod clip;
pub mod follow;
pub mod http;
pub mod playlist;
pub mod release;
pub mod usage;
