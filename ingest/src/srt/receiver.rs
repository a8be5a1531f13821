//! The listening end of SRT as this crate sees it: started for one caller, fed with its datagrams, asked for what it hears.
//!
//! A sibling of this crate has the program for it; the two meet where the server is put together.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use media_core::{Passphrase, StreamName};

/// What has a receiver started: the helper program, behind a trait.
pub trait Receivers: Send + Sync {
    /// Safe to drop.
    fn start(&self, wanted: Wanted) -> Starting<'_>;
}

pub type Starting<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Receiver>, String>> + Send + 'a>>;

pub struct Wanted {
    pub stream: StreamName,
    /// Where its caller's datagrams will come from; it takes no other's.
    pub from: SocketAddr,
    pub latency: Duration,
    pub passphrase: Option<Passphrase>,
}

/// It ends with the value.
pub trait Receiver: Send + Sync {
    fn address(&self) -> SocketAddr;
    /// An error, in words, once it has died.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, String>>;
}

pub enum Heard {
    /// The transport stream, in order.
    Bytes(Bytes),
    /// Packets that were missed and asked for again, since the start.
    Lost(u64),
    /// The caller has gone.
    Gone,
}
