//! One caller from its proved request to its end: the shell that asks admission and the registry, has a receiver started,
//! hands datagrams on both ways, and publishes what the receiver hears.

use std::{
    borrow::Cow,
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use media_core::{Announcement, Passphrase, Publication, Registry, Sample, TrackKind};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tracing::{Span, debug, field::Empty, info, info_span};

use super::{
    bridge::{Bridge, Sent, State},
    close::CloseReason,
    feed::Feed,
    metrics::Metrics,
    packet::{Conclusion, DATAGRAM_BYTES_MAX, Packet, shutdown},
    receiver::{Heard, Receiver, Receivers, Wanted},
    stream_id::Asked,
};
use crate::{
    admission::{Admission, Protocol, PublishRequest, Verdict},
    lease,
    metrics::Metrics as Publishing,
    rejections::Rejections,
    repair::Repairs,
    rtmp::{
        feed::{Dropped, Drops, Fed},
        gate::Permit,
    },
};

/// What a publisher that is gone has sent comes later by its latency, and a bit: until then its silence says nothing. At most
/// so long, since a caller waits for three seconds in all.
const GRACE: Duration = Duration::from_millis(150);
const GRACE_MAX: Duration = Duration::from_millis(750);
/// From the receiver's start to its answer. The receiver is on this machine; a caller that asks for a wrong version is
/// refused, and so answered, too.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the connection to the first Sample: an encoder's keyframe interval is longer at times, and then its sound is first.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller says something every second. The receiver gives it up after 5 s, and so this only when the receiver does not.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all sessions share.
pub struct Shared {
    pub socket: UdpSocket,
    pub registry: Arc<Registry>,
    pub admission: Arc<dyn Admission>,
    pub receivers: Arc<dyn Receivers>,
    pub publishing: Publishing,
    pub metrics: Metrics,
    pub rejections: Rejections,
    pub passphrase: Option<Passphrase>,
    pub latency: Duration,
    /// For one answer of the admission.
    pub admission_timeout: Duration,
}

/// A caller's datagram, and when it came.
pub type Inbox = mpsc::Receiver<(Instant, Vec<u8>)>;

/// A span for the life of a session.
pub fn span(peer: SocketAddr) -> Span {
    info_span!("srt", peer = %peer.ip().to_canonical(), stream = Empty, publisher = Empty)
}

pub struct Caller {
    pub peer: SocketAddr,
    pub asked: Conclusion,
    /// The datagram that asked.
    pub datagram: (Instant, Vec<u8>),
    pub inbox: Inbox,
    pub permit: Permit,
}

/// Serves one caller to its end.
pub async fn serve(caller: Caller, shared: Arc<Shared>) {
    shared.metrics.sessions.inc();
    let Caller { peer, asked, datagram, inbox, permit } = caller;
    let mut conn = Conn { peer, socket: asked.socket, inbox, permit, totals: Totals::default(), shared };
    let reason = match conn.admit(&asked).await {
        Ok(admitted) => conn.publish_all(admitted, &asked, datagram).await,
        Err(reason) => {
            conn.refuse(&datagram.1, &reason).await;
            reason
        }
    };
    let Conn { shared, totals, .. } = conn;
    shared.metrics.sessions.dec();
    shared.metrics.ended(&reason);
    if totals.connected {
        info!(
            %reason, video = totals.video, audio = totals.audio, bytes = totals.bytes, lost = totals.lost, repairs = ?totals.repairs, dropped = ?totals.drops, "publisher ended"
        );
    } else {
        shared.rejections.tell(&reason, Instant::now().into_std());
    }
}

struct Conn {
    peer: SocketAddr,
    /// The caller's, in its own numbers.
    socket: u32,
    inbox: Inbox,
    permit: Permit,
    totals: Totals,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Totals {
    connected: bool,
    bytes: u64,
    video: u64,
    audio: u64,
    lost: u64,
    /// As far as the metrics have them.
    repairs: Repairs,
    drops: Drops,
}

/// Holds the lease; dropping it gives the name free.
struct Admitted {
    publication: Publication,
}

impl Conn {
    // ---- who is it ----

    async fn admit(&self, asked: &Conclusion) -> Result<Admitted, CloseReason> {
        match (asked.encrypted, &self.shared.passphrase) {
            (false, Some(_)) => return Err(CloseReason::Unencrypted),
            (true, None) => return Err(CloseReason::NoPassphrase),
            _ => (),
        }
        let Asked { name, key } = Asked::parse(&asked.stream_id)?;
        let request =
            PublishRequest { protocol: Protocol::Srt, peer: self.peer.ip().to_canonical(), app: String::new(), key: key.clone() };
        let stream = match timeout(self.shared.admission_timeout, self.shared.admission.admit(request)).await {
            Ok(Verdict::Allow { stream }) if name.as_ref().is_none_or(|name| *name == stream) => stream,
            Ok(Verdict::Allow { .. }) => return Err(CloseReason::OtherName),
            Ok(Verdict::Deny { reason }) => return Err(CloseReason::Denied(reason)),
            Err(_) => {
                return Err(CloseReason::Denied(Cow::Borrowed(
                    "whoever knows the stream keys did not answer in time: try again",
                )));
            }
        };
        // The caller repeats itself meanwhile. It is set alike mostly: to the one that was there before.
        let grace = (asked.latency.max(self.shared.latency) + GRACE).min(GRACE_MAX);
        let publication =
            lease::acquire(&self.shared.registry, &stream, &key, Some(grace)).await.map_err(CloseReason::Refused)?;
        Span::current().record("publisher", publication.epoch());
        Ok(Admitted { publication })
    }

    async fn refuse(&self, conclusion: &[u8], reason: &CloseReason) {
        if let Packet::Handshake(handshake) = Packet::read(conclusion) {
            self.tell(&handshake.rejection(reason.code())).await;
        }
    }

    /// What the network does not take is lost, as anything may be.
    async fn tell(&self, datagram: &[u8]) {
        if let Err(error) = self.shared.socket.send_to(datagram, self.peer).await {
            debug!(%error, "a datagram could not be sent");
        }
    }

    // ---- a publisher ----

    async fn publish_all(&mut self, admitted: Admitted, asked: &Conclusion, first: (Instant, Vec<u8>)) -> CloseReason {
        let conclusion = first.1.clone();
        let started = match self.start(&admitted).await {
            Ok(started) => started,
            Err(reason) => {
                self.refuse(&conclusion, &reason).await;
                return reason;
            }
        };
        let Some(bridge) = Bridge::new(first.0.into_std(), first.1) else { return CloseReason::NeverConnected };
        let (back, receiver) = started;
        let mut live = Live {
            conn: self,
            publication: admitted.publication,
            back,
            receiver,
            bridge,
            feed: Feed::default(),
            asked_at: first.0,
            heard_at: Instant::now(),
            deadline: Some(Instant::now() + CONNECT_TIMEOUT),
            left: false,
            version: asked.version,
        };
        let reason = live.run().await;
        live.leave(&reason, &conclusion).await;
        reason
    }

    /// The receiver, and the socket that the caller's datagrams leave from towards it.
    async fn start(&mut self, admitted: &Admitted) -> Result<(UdpSocket, Box<dyn Receiver>), CloseReason> {
        let unavailable = |error: std::io::Error| CloseReason::Unavailable(error.to_string());
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(unavailable)?;
        let wanted = Wanted {
            stream: admitted.publication.name().clone(),
            from: back.local_addr().map_err(unavailable)?,
            latency: self.shared.latency,
            passphrase: self.shared.passphrase.clone(),
        };
        let receivers = Arc::clone(&self.shared.receivers);
        let receiver = tokio::select! {
            started = receivers.start(wanted) => started.map_err(CloseReason::Unavailable)?,
            stop = poll_fn(|cx| admitted.publication.poll_stop(cx)) => return Err(stop.into()),
        };
        back.connect(receiver.address()).await.map_err(unavailable)?;
        Ok((back, receiver))
    }
}

/// A caller with its receiver.
struct Live<'a> {
    conn: &'a mut Conn,
    publication: Publication,
    /// Towards the receiver.
    back: UdpSocket,
    receiver: Box<dyn Receiver>,
    bridge: Bridge,
    feed: Feed,
    asked_at: Instant,
    /// When the caller said something last.
    heard_at: Instant,
    /// Of the connection, then of the first Sample.
    deadline: Option<Instant>,
    /// The caller said goodbye.
    left: bool,
    version: u32,
}

impl Live<'_> {
    async fn run(&mut self) -> CloseReason {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let asked = self.bridge.handle_timeout(Instant::now().into_std());
        self.send(asked, &[]).await;
        loop {
            let again = self.bridge.poll_timeout().map(Instant::from_std);
            let idle = self.heard_at + IDLE_TIMEOUT;
            let due = [self.deadline, again].into_iter().flatten().fold(idle, Instant::min);
            let outcome = tokio::select! {
                datagram = self.conn.inbox.recv() => match datagram {
                    Some((at, datagram)) => self.handle_caller(at, datagram).await,
                    None => Err(CloseReason::Restarted),
                },
                received = self.back.recv(&mut buffer) => match received {
                    Ok(length) => self.handle_receiver(&buffer[..length]).await,
                    // Its port is not open (ICMP): it has died, which its pipe tells, or begins.
                    Err(_) => Ok(()),
                },
                heard = poll_fn(|cx| self.receiver.poll_heard(cx)) => self.handle_heard(heard),
                stop = poll_fn(|cx| self.publication.poll_stop(cx)) => Err(stop.into()),
                () = sleep_until(due) => self.handle_timeout().await,
            };
            if let Err(reason) = outcome {
                return reason;
            }
        }
    }

    async fn handle_caller(&mut self, at: Instant, datagram: Vec<u8>) -> Result<(), CloseReason> {
        self.heard_at = at;
        self.left |= matches!(Packet::read(&datagram), Packet::Shutdown);
        let sent = self.bridge.handle_caller(at.into_std(), datagram);
        self.send(sent, &[]).await;
        Ok(())
    }

    async fn handle_receiver(&mut self, datagram: &[u8]) -> Result<(), CloseReason> {
        let sent = self.bridge.handle_receiver(Instant::now().into_std(), datagram);
        self.send(sent, datagram).await;
        match self.bridge.state() {
            State::Refused(code) => Err(CloseReason::of_receiver(code)),
            State::Open if !self.conn.totals.connected => {
                self.connected();
                Ok(())
            }
            State::Open | State::Opening => Ok(()),
        }
    }

    fn connected(&mut self) {
        self.conn.totals.connected = true;
        self.conn.permit.publishing();
        self.conn.shared.publishing.publishers.inc();
        let took = self.asked_at.elapsed();
        self.conn.shared.metrics.start.observe(took.as_secs_f64());
        self.deadline = Some(Instant::now() + MEDIA_TIMEOUT);
        let [_, major, minor, patch] = self.version.to_be_bytes();
        info!(encoder = format!("libsrt {major}.{minor}.{patch}"), connected_ms = took.as_millis(), "publisher started");
    }

    async fn send(&self, sent: Sent, received: &[u8]) {
        match sent {
            Sent::Nothing => (),
            Sent::ToCaller => self.conn.tell(received).await,
            Sent::ToReceiver(datagram) => {
                if let Err(error) = self.back.send(&datagram).await {
                    debug!(%error, "the receiver's port is not open");
                }
            }
        }
    }

    async fn handle_timeout(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if now >= self.heard_at + IDLE_TIMEOUT {
            return Err(CloseReason::Silent);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            let connected = self.conn.totals.connected;
            return Err(if connected { CloseReason::NoMedia(MEDIA_TIMEOUT.as_secs()) } else { CloseReason::NeverConnected });
        }
        let sent = self.bridge.handle_timeout(now.into_std());
        self.send(sent, &[]).await;
        Ok(())
    }

    // ---- what the receiver hears ----

    fn handle_heard(&mut self, heard: Result<Heard, String>) -> Result<(), CloseReason> {
        match heard {
            Ok(Heard::Bytes(bytes)) => self.feed(&bytes),
            Ok(Heard::Lost(packets)) => {
                let known = &mut self.conn.totals.lost;
                self.conn.shared.metrics.lost.inc_by(packets.saturating_sub(*known));
                *known = packets.max(*known);
                Ok(())
            }
            Ok(Heard::Gone) => {
                self.feed.finish(Instant::now().into_std());
                self.drain_outputs()?;
                Err(if self.left { CloseReason::Stopped } else { CloseReason::Silent })
            }
            Err(words) => Err(CloseReason::Died(words)),
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        self.conn.totals.bytes += bytes.len() as u64;
        self.conn.shared.publishing.bytes.inc_by(bytes.len() as u64);
        let refused = self.feed.push(Instant::now().into_std(), bytes);
        self.count();
        self.drain_outputs()?;
        refused.map_err(|refused| CloseReason::Media(refused.to_string()))
    }

    fn drain_outputs(&mut self) -> Result<(), CloseReason> {
        while let Some(output) = self.feed.poll_output() {
            match output {
                Fed::Announced(announcement) => self.announce(announcement)?,
                Fed::Sample(sample) => self.publish(sample)?,
            }
        }
        Ok(())
    }

    fn announce(&self, announcement: Announcement) -> Result<(), CloseReason> {
        debug!(?announcement, "announced");
        self.publication.announce(announcement).map_err(|_| CloseReason::TakenOver)
    }

    fn publish(&mut self, sample: Sample) -> Result<(), CloseReason> {
        let kind = sample.track.kind();
        let totals = &mut self.conn.totals;
        let total = if kind == TrackKind::Video { &mut totals.video } else { &mut totals.audio };
        if *total == 0 {
            debug!(track = ?sample.track.parameters, "first {}", kind.as_str());
        }
        *total += 1;
        self.deadline = None;
        self.publication.publish(sample).map_err(|_| CloseReason::TakenOver)?;
        self.conn.shared.publishing.sample(kind);
        Ok(())
    }

    /// Brings the metrics up to what the feed has counted.
    fn count(&mut self) {
        let (repairs, drops) = (self.feed.repairs(), self.feed.drops());
        let (totals, publishing) = (&mut self.conn.totals, &self.conn.shared.publishing);
        publishing.repaired(totals.repairs, repairs);
        publishing.dropped(totals.drops, drops);
        if totals.drops.of(Dropped::ExtraTrack) == 0 && drops.of(Dropped::ExtraTrack) > 0 {
            info!("the publisher sends a track that is left out: a stream has one picture and one sound by SRT");
        }
        if repairs != totals.repairs {
            // One that was superseded learns of it at its next Sample.
            let _ = self.publication.tell_repairs(repairs.faults());
        }
        (totals.repairs, totals.drops) = (repairs, drops);
    }

    /// Tells the caller, unless it said so itself.
    async fn leave(self, reason: &CloseReason, conclusion: &[u8]) {
        if self.conn.totals.connected {
            self.conn.shared.publishing.publishers.dec();
            if !self.left {
                self.conn.tell(&shutdown(self.conn.socket)).await;
            }
        } else if !matches!(self.bridge.state(), State::Refused(_)) {
            self.conn.refuse(conclusion, reason).await;
        }
    }
}
