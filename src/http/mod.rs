//! HTTP for viewers: our own accept loop under one router.
//!
//! `listener.rs` accepts, counts and drains; `conn.rs` serves one; `crowd.rs` decides who gets a seat; `patience.rs` when
//! a connection has waited long enough; `health.rs`, `pages.rs` and `problem.rs` answer. Playlists
//! and media are the packager's.

mod conn;
pub mod crowd;
pub mod health;
pub mod listener;
pub mod pages;
pub mod patience;
pub mod problem;

pub use health::{Health, Phase};
pub use listener::Listener;
