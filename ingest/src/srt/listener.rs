//! The port of SRT: one UDP socket for all publishers. A datagram goes to the session of its address, or to the door.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use media_core::{Passphrase, Registry};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{Instrument, debug};

use super::{
    close::CloseReason,
    conn::{self, Caller, Shared},
    door::{Door, Stray, Verdict},
    metrics::Metrics,
    packet::{Conclusion, DATAGRAM_BYTES_MAX, Kind, Packet},
    receiver::Receivers,
};
use crate::{
    admission::Admission,
    metrics::Metrics as Publishing,
    rejections::Rejections,
    rtmp::gate::{Caps, Gate},
};

/// A caller's datagrams that wait for its session: a third of a second of 10 Mbit/s. SRT asks again for what is dropped.
const INBOX_MAX: usize = 256;
/// How long sessions may take to end after a shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Config {
    pub passphrase: Option<Passphrase>,
    /// How long lost packets may take to be repaired; a caller may ask for more.
    pub latency: Duration,
    pub caps: Caps,
    /// For one answer of the admission; then the publisher is refused.
    pub admission_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            passphrase: None,
            latency: Duration::from_millis(120),
            caps: Caps { connections_max: 100, pending_max: 16, pending_per_address_max: 4 },
            admission_timeout: Duration::from_secs(3),
        }
    }
}

pub struct Listener {
    local_addr: SocketAddr,
    door: Door,
    gate: Arc<Gate>,
    sessions: HashMap<SocketAddr, Session>,
    shared: Arc<Shared>,
}

/// A caller that is served: the way to it, and the socket that it calls from.
struct Session {
    socket: u32,
    inbox: mpsc::Sender<(Instant, Vec<u8>)>,
}

/// A session that has ended.
struct Ended {
    peer: SocketAddr,
    socket: u32,
}

impl Listener {
    pub async fn bind(
        address: SocketAddr,
        config: Config,
        registry: Arc<Registry>,
        admission: Arc<dyn Admission>,
        receivers: Arc<dyn Receivers>,
        publishing: Publishing,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let Config { passphrase, latency, caps, admission_timeout } = config;
        Ok(Self {
            local_addr: socket.local_addr()?,
            door: Door::new(Instant::now().into_std()),
            gate: Gate::new(caps),
            sessions: HashMap::new(),
            shared: Arc::new(Shared {
                socket,
                registry,
                admission,
                receivers,
                publishing,
                metrics,
                rejections: Rejections::default(),
                passphrase,
                latency,
                admission_timeout,
            }),
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is ready; publishers end with the registry's drain, which comes before.
    pub async fn serve(mut self, shutdown: impl Future<Output = ()>) {
        let shared = Arc::clone(&self.shared);
        let mut tasks = JoinSet::new();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                received = shared.socket.recv_from(&mut buffer) => match received {
                    Ok((length, peer)) => self.handle(peer, &buffer[..length], &mut tasks).await,
                    // An ICMP answer to something that was sent.
                    Err(error) => debug!(%error, "receiving failed"),
                },
                Some(ended) = tasks.join_next() => {
                    if let Ok(ended) = ended {
                        self.forget(ended);
                    }
                }
            }
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            tasks.shutdown().await;
        }
    }

    async fn handle(&mut self, peer: SocketAddr, datagram: &[u8], tasks: &mut JoinSet<Ended>) {
        let now = Instant::now();
        if let Some(session) = self.sessions.get(&peer)
            && !is_induction(datagram)
        {
            if session.is_of_another(&self.door.handle(now.into_std(), peer, datagram)) {
                // Its program has started anew on the same port, and asks again in a moment.
                self.sessions.remove(&peer);
            } else if session.inbox.try_send((now, datagram.to_vec())).is_err() {
                self.shared.metrics.stray(Stray::Overflow);
            }
            return;
        }
        match self.door.handle(now.into_std(), peer, datagram) {
            Verdict::Answer(answer) => self.tell(peer, &answer).await,
            Verdict::Ask(asked) => self.enter(peer, asked, datagram, tasks).await,
            Verdict::Unreadable(unreadable) => self.refuse(peer, datagram, &unreadable.into()).await,
            Verdict::Drop(stray) => self.shared.metrics.stray(stray),
        }
    }

    async fn enter(&mut self, peer: SocketAddr, asked: Conclusion, datagram: &[u8], tasks: &mut JoinSet<Ended>) {
        let Some(permit) = self.gate.enter(peer.ip()) else { return self.refuse(peer, datagram, &CloseReason::OverLimit).await };
        let (way, inbox) = mpsc::channel(INBOX_MAX);
        let socket = asked.socket;
        self.sessions.insert(peer, Session { socket, inbox: way });
        let caller = Caller { peer, asked, datagram: (Instant::now(), datagram.to_vec()), inbox, permit };
        let shared = Arc::clone(&self.shared);
        let life = async move {
            conn::serve(caller, shared).await;
            Ended { peer, socket }
        };
        tasks.spawn(life.instrument(conn::span(peer)));
    }

    /// Unless a successor has its address.
    fn forget(&mut self, ended: Ended) {
        if self.sessions.get(&ended.peer).is_some_and(|session| session.socket == ended.socket) {
            self.sessions.remove(&ended.peer);
        }
    }

    /// Of a caller that is served by nobody.
    async fn refuse(&self, peer: SocketAddr, datagram: &[u8], reason: &CloseReason) {
        let Packet::Handshake(handshake) = Packet::read(datagram) else { return };
        self.shared.metrics.ended(reason);
        conn::span(peer).in_scope(|| self.shared.rejections.tell(reason, Instant::now().into_std()));
        self.tell(peer, &handshake.rejection(reason.code())).await;
    }

    async fn tell(&self, peer: SocketAddr, datagram: &[u8]) {
        if let Err(error) = self.shared.socket.send_to(datagram, peer).await {
            debug!(%error, "a datagram could not be sent");
        }
    }
}

impl Session {
    /// Only with a cookie of ours: anybody may write the peer's address on a datagram.
    fn is_of_another(&self, verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Ask(asked) if asked.socket != self.socket)
    }
}

fn is_induction(datagram: &[u8]) -> bool {
    matches!(Packet::read(datagram), Packet::Handshake(handshake) if handshake.kind() == Kind::Induction)
}
