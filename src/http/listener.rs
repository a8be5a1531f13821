//! The accept loop: seats, refusals, back-off and drain.
//!
//! It never ends by an error: what cannot be accepted is counted, and accepting goes on.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tracing::{debug, warn};

use super::{
    conn,
    crowd::{Crowd, Full},
    patience,
};
use crate::{config, metrics};

/// After a failure such as EMFILE, which lasts until a descriptor is free: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many refused connections get their answer at once; beyond it they are just closed.
const REFUSALS_MAX: usize = 64;
/// How long a refused connection may take to read its answer.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// What a refused connection may send in that time, so that closing does not reset the answer away.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/problem+json\r\n\
cache-control: no-store\r\n\
access-control-allow-origin: *\r\n\
retry-after: 5\r\n\
connection: close\r\n\
content-length: 119\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"this server has all the connections it may\"}";

pub struct Listener {
    socket: TcpListener,
    crowd: Crowd,
    limits: patience::Limits,
    metrics: metrics::Http,
}

impl Listener {
    pub async fn bind(config: &config::Http, metrics: metrics::Http) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(config.address).await?,
            crowd: Crowd::new(config.connections_max, config.connections_per_address_max),
            limits: patience::Limits { head: config.header_timeout, rest: config.idle_timeout, untaken: config.write_timeout },
            metrics,
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `shutdown`; then accepts no more, lets what is being answered finish, and
    /// returns. The caller bounds how long that may take.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let drain = watch::Sender::new(false);
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let mut last_warning = None;
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, peer)) => self.seat(stream, peer, &router, &drain, &refusals),
                Err(e) => self.pause(&e, &mut last_warning).await,
            }
        }
        drop(self.socket);
        drain.send_replace(true);
        // Each connection holds a receiver until its end.
        drain.closed().await;
    }

    fn seat(&self, stream: TcpStream, peer: SocketAddr, router: &Router, drain: &watch::Sender<bool>, refusals: &Arc<Semaphore>) {
        let seat = match self.crowd.enter(peer.ip()) {
            Ok(seat) => seat,
            Err(full) => return self.refuse(stream, full, refusals),
        };
        // A part goes out at once, not when the last one is acknowledged.
        if let Err(e) = stream.set_nodelay(true) {
            debug!("no TCP_NODELAY: {e}");
        }
        let (router, limits, metrics, drain) = (router.clone(), self.limits, self.metrics.clone(), drain.subscribe());
        metrics.connections.inc();
        tokio::spawn(async move {
            // Counted down however it ends, a panic of a handler included.
            let _open = Open(metrics.connections);
            let outcome = conn::serve(stream, peer, router, limits, drain).await;
            drop(seat);
            metrics.ended.with_label_values(&[outcome]).inc();
        });
    }

    fn refuse(&self, stream: TcpStream, full: Full, refusals: &Arc<Semaphore>) {
        let outcome = match full {
            Full::All => "refused_full",
            Full::Address => "refused_address",
        };
        self.metrics.ended.with_label_values(&[outcome]).inc();
        if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
            tokio::spawn(async move {
                // Whether it was read is the peer's affair.
                let _ = tokio::time::timeout(REFUSAL_TIME, say_refused(stream)).await;
                drop(permit);
            });
        }
    }

    async fn pause(&self, error: &io::Error, last_warning: &mut Option<Instant>) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        self.metrics.accept_errors.inc();
        // Only this connection is lost: its peer went away before it was accepted.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        let now = Instant::now();
        if last_warning.is_none_or(|last| now - last >= Duration::from_secs(1)) {
            *last_warning = Some(now);
            warn!("cannot accept an HTTP connection: {error}");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn say_refused(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSAL_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

struct Open(prometheus::IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_whole() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
