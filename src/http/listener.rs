//! The accept loop: seats, refusals, TLS, back-off and drain.
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
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    conn::{self, Kind},
    crowd::{Crowd, Full},
    patience,
};
use crate::{config, metrics, tls};

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

/// How a plain request on the port of HTTPS is answered.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
content-type: text/plain\r\n\
connection: close\r\n\
content-length: 39\r\n\r\n\
this port speaks HTTPS: begin https://\n";

pub struct Listener {
    socket: TcpListener,
    secure: Option<SecurePort>,
    crowd: Crowd,
    limits: patience::Limits,
    metrics: metrics::Http,
}

/// The port of HTTPS.
struct SecurePort {
    socket: TcpListener,
    handshake: Handshake,
}

#[derive(Clone)]
struct Handshake {
    acceptor: TlsAcceptor,
    timeout: Duration,
}

impl Listener {
    pub async fn bind(config: &config::Http, metrics: metrics::Http) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(config.address).await?,
            secure: None,
            crowd: Crowd::new(config.connections_max, config.connections_per_address_max),
            limits: patience::Limits { head: config.header_timeout, rest: config.idle_timeout, untaken: config.write_timeout },
            metrics,
        })
    }

    /// Serves HTTPS as well; both ports share their seats.
    pub async fn secure(mut self, address: SocketAddr, tls: Arc<ServerConfig>, timeout: Duration) -> io::Result<Self> {
        let handshake = Handshake { acceptor: tls.into(), timeout };
        self.secure = Some(SecurePort { socket: TcpListener::bind(address).await?, handshake });
        Ok(self)
    }

    pub fn secure_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref()?.socket.local_addr().ok()
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
                accepted = self.socket.accept() => accepted.map(|(stream, peer)| (stream, peer, None)),
                accepted = accept_secure(self.secure.as_ref()) => accepted,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, peer, handshake)) => self.seat(stream, peer, handshake, &router, &drain, &refusals),
                Err(e) => self.pause(&e, &mut last_warning).await,
            }
        }
        drop((self.socket, self.secure));
        drain.send_replace(true);
        // Each connection holds a receiver until its end.
        drain.closed().await;
    }

    fn seat(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        handshake: Option<Handshake>,
        router: &Router,
        drain: &watch::Sender<bool>,
        refusals: &Arc<Semaphore>,
    ) {
        let seat = match self.crowd.enter(peer.ip()) {
            Ok(seat) => seat,
            Err(full) => return self.refuse(stream, full, handshake.is_none(), refusals),
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
            let outcome = match handshake {
                None => conn::serve(stream, Kind::Plain, peer, router, limits, drain).await,
                Some(handshake) => serve_secure(stream, handshake, peer, router, limits, drain).await,
            };
            drop(seat);
            metrics.ended.with_label_values(&[outcome]).inc();
        });
    }

    /// `plain`: a refusal without TLS can be read.
    fn refuse(&self, stream: TcpStream, full: Full, plain: bool, refusals: &Arc<Semaphore>) {
        let outcome = match full {
            Full::All => "refused_full",
            Full::Address => "refused_address",
        };
        self.metrics.ended.with_label_values(&[outcome]).inc();
        if plain && let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
            tokio::spawn(async move {
                // Whether it was read is the peer's affair.
                let _ = tokio::time::timeout(REFUSAL_TIME, say(stream, REFUSAL)).await;
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

async fn accept_secure(port: Option<&SecurePort>) -> io::Result<(TcpStream, SocketAddr, Option<Handshake>)> {
    let Some(SecurePort { socket, handshake }) = port else { return std::future::pending().await };
    let (stream, peer) = socket.accept().await?;
    Ok((stream, peer, Some(handshake.clone())))
}

async fn serve_secure(
    stream: TcpStream,
    Handshake { acceptor, timeout }: Handshake,
    peer: SocketAddr,
    router: Router,
    limits: patience::Limits,
    drain: watch::Receiver<bool>,
) -> &'static str {
    let shaken = tokio::time::timeout(timeout, async {
        let mut first = [0];
        // A browser that was told `http://` for this port would show nothing but an empty page.
        if stream.peek(&mut first).await? == 1 && first[0] != conn::TLS_HANDSHAKE {
            say(stream, NOT_TLS).await?;
            return Ok(None);
        }
        acceptor.accept(stream).await.map(Some)
    });
    match shaken.await {
        Ok(Ok(Some(mut stream))) => {
            // A directory has seen what it came for, and goes (RFC 8737 3).
            if stream.get_ref().1.alpn_protocol() == Some(tls::ACME) {
                let _ = tokio::time::timeout(timeout, stream.shutdown()).await;
                return "acme";
            }
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            conn::serve(stream, Kind::Secure { http2 }, peer, router, limits, drain).await
        }
        Ok(Ok(None)) => "not_tls",
        Ok(Err(_)) => "tls_refused",
        Err(_) => "tls_slow",
    }
}

async fn say(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text).await?;
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
    fn refusals_are_whole() {
        for text in [REFUSAL, NOT_TLS] {
            check_whole(std::str::from_utf8(text).unwrap());
        }
        let (_, body) = std::str::from_utf8(REFUSAL).unwrap().split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }

    fn check_whole(text: &str) {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
