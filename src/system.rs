//! What the operating system is asked: descriptors, signals, this machine's address.

use std::{
    io,
    net::{IpAddr, UdpSocket},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};

use crate::config::Config;

/// Exit status after a second signal: what a shell shows for Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

/// Descriptors beside connections: listeners, the log, the runtime, files being written.
const OTHER_DESCRIPTORS: usize = 64;

/// What all that is configured would have open at once: each connection is a descriptor, and so is each peer by TCP.
pub fn descriptors_needed(config: &Config) -> usize {
    let peers = if config.webrtc.tcp { config.webrtc.sessions_max } else { 0 };
    config.http.connections_max + config.rtmp.connections_max + peers + OTHER_DESCRIPTORS
}

/// Raises the limit on open files as far as this user may, and says so where it stays below what
/// the configuration lets in.
pub fn raise_descriptor_limit(needed: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        debug!("the limit on open files stays: {e}");
    }
    match getrlimit(Resource::Nofile).current {
        Some(limit) if usize::try_from(limit).is_ok_and(|limit| limit < needed) => {
            warn!(
                "this process may open {limit} files; all the connections that are configured would need {needed} (see ulimit -n)"
            );
        }
        limit => debug!(?limit, "open files"),
    }
}

/// Ctrl-C and SIGTERM, from the moment it is made.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// From now on, one more ends the process at once.
    pub fn next_ends_process(mut self) {
        tokio::spawn(async move {
            let name = self.next().await;
            info!("{name} again: stopping at once");
            std::process::exit(EXIT_INTERRUPTED);
        });
    }
}

/// The address by which this machine's network knows it: the one it would send from. Nothing is
/// sent: connecting a UDP socket only chooses a route.
pub fn lan_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address of the documentation range (RFC 5737): it stands for "somewhere else".
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
