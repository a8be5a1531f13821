//! RTMP as publishers speak it: bytes to chunks to messages to commands and Samples.
//!
//! `handshake`, `chunk`, `amf0`, `message`, `command`, `enhanced`, `tag`, `pictures`, `feed` and `session` are pure;
//! `conn` and `listener` own the socket; `gate` counts who may come in.

pub mod amf0;
pub mod chunk;
pub mod close;
pub mod command;
pub mod conn;
pub mod enhanced;
pub mod feed;
pub mod fuzz;
pub mod gate;
pub mod handshake;
pub mod listener;
pub mod message;
pub mod pictures;
pub mod session;
pub mod sounds;
pub mod tag;

pub use listener::{Config, Listener};
