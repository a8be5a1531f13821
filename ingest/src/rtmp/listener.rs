//! The ports of RTMP and RTMPS: connections are accepted within the caps, and ended at shutdown.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use media_core::Registry;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::{Instrument, debug, warn};

use super::{
    conn::{self, Shared},
    gate::{Caps, Gate},
    session::{Deadlines, LINGER},
};
use crate::{admission::Admission, metrics::Metrics, rejections::Rejections};

/// After a failed accept (out of file descriptors, mostly) trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end after a shutdown: the farewell, and as much again.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = assert!(SHUTDOWN_TIMEOUT.as_millis() > LINGER.as_millis());

#[derive(Clone, Debug)]
pub struct Config {
    pub caps: Caps,
    pub deadlines: Deadlines,
    /// For one answer of the admission; then the publisher is refused.
    pub admission_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { caps: Caps::default(), deadlines: Deadlines::default(), admission_timeout: Duration::from_secs(3) }
    }
}

pub struct Listener {
    listener: TcpListener,
    local_addr: SocketAddr,
    secure: Option<SecurePort>,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
}

/// The port of RTMPS.
struct SecurePort {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener {
    pub async fn bind(
        addr: impl ToSocketAddrs,
        config: Config,
        registry: Arc<Registry>,
        admission: Arc<dyn Admission>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let Config { caps, deadlines, admission_timeout } = config;
        Ok(Self {
            local_addr: listener.local_addr()?,
            listener,
            secure: None,
            gate: Gate::new(caps),
            shared: Arc::new(Shared {
                registry,
                admission,
                metrics,
                rejections: Rejections::default(),
                deadlines,
                admission_timeout,
            }),
        })
    }

    /// Takes RTMPS as well. Both ports share the caps, and a TLS handshake has the time of an RTMP one.
    pub async fn secure(mut self, addr: impl ToSocketAddrs, tls: Arc<ServerConfig>) -> io::Result<Self> {
        self.secure = Some(SecurePort { listener: TcpListener::bind(addr).await?, acceptor: tls.into() });
        Ok(self)
    }

    pub fn secure_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref()?.listener.local_addr().ok()
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is ready, then waits for connections to end, a moment at most.
    /// Publishers end with the registry's drain or with this, whichever comes first.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let (raise, raised) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => self.accepted(&mut connections, accepted, None, &raised).await,
                (accepted, acceptor) = accept_secure(self.secure.as_ref()) => {
                    self.accepted(&mut connections, accepted, Some(acceptor), &raised).await;
                }
                // Ended ones leave the set at once: it holds only what lives.
                Some(_) = connections.join_next() => {}
            }
        }
        drop((self.listener, self.secure));
        raise.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn accepted(
        &self,
        connections: &mut JoinSet<()>,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        acceptor: Option<TlsAcceptor>,
        raised: &watch::Receiver<bool>,
    ) {
        match accepted {
            Ok((socket, peer)) => self.enter(connections, socket, peer, acceptor, raised),
            Err(error) => {
                warn!(%error, "accepting a connection failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn enter(
        &self,
        connections: &mut JoinSet<()>,
        socket: TcpStream,
        peer: SocketAddr,
        acceptor: Option<TlsAcceptor>,
        raised: &watch::Receiver<bool>,
    ) {
        let peer = peer.ip().to_canonical();
        let Some(permit) = self.gate.enter(peer) else {
            self.shared.metrics.over_limit.inc();
            return debug!(%peer, "turned away: too many connections");
        };
        // Replies are short and wait for nothing.
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%peer, %error, "TCP_NODELAY");
        }
        let (shared, raised) = (Arc::clone(&self.shared), raised.clone());
        let life = async move {
            let Some(acceptor) = acceptor else {
                return drop(conn::serve(socket, peer, Some(permit), shared, raised).await);
            };
            match timeout(shared.deadlines.handshake, acceptor.accept(socket)).await {
                Ok(Ok(socket)) => drop(conn::serve(socket, peer, Some(permit), shared, raised).await),
                Ok(Err(error)) => {
                    shared.metrics.tls_refused.inc();
                    debug!(%error, "the TLS handshake failed: is this encoder set to rtmps://?");
                }
                Err(_) => shared.metrics.tls_refused.inc(),
            }
        };
        connections.spawn(life.instrument(conn::span(peer)));
    }
}

async fn accept_secure(port: Option<&SecurePort>) -> (io::Result<(TcpStream, SocketAddr)>, TlsAcceptor) {
    let Some(SecurePort { listener, acceptor }) = port else { return std::future::pending().await };
    (listener.accept().await, acceptor.clone())
}
