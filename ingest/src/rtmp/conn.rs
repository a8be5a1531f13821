//! One RTMP connection: the shell that gives a `Session` its bytes and its time, asks admission
//! and the registry, and hands Samples to the stream.
//!
//! Generic over the byte stream, so that TLS may stand in front of it.

use std::{
    borrow::Cow, collections::hash_map::RandomState, future::poll_fn, hash::BuildHasher, net::IpAddr, sync::Arc, time::Duration,
};

use media_core::{Announcement, Publication, Registry, Sample, StreamKey, StreamName, registry::Stop};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{Span, debug, field::Empty, info, info_span};

use super::{
    close::CloseReason,
    feed::{Dropped, Drops},
    gate::Permit,
    session::{Deadlines, Event, Output, Session},
};
use crate::{
    admission::{Admission, Protocol, PublishRequest, Verdict},
    lease,
    metrics::Metrics,
    rejections::Rejections,
    repair::Repairs,
};

/// Read at most this at a time: several frames of a usual stream, and a connection's largest
/// fixed cost.
const READ_BYTES: usize = 32 << 10;
/// How long a peer may refuse to take our few bytes before it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all connections share.
pub struct Shared {
    pub registry: Arc<Registry>,
    pub admission: Arc<dyn Admission>,
    pub metrics: Metrics,
    pub rejections: Rejections,
    pub deadlines: Deadlines,
    /// For one answer of the admission.
    pub admission_timeout: Duration,
}

/// A span for the life of a connection.
pub fn span(peer: IpAddr) -> Span {
    info_span!("rtmp", %peer, stream = Empty, publisher = Empty)
}

/// Serves one connection to its end, and tells the reason. `shutdown` turns true once.
pub async fn serve<S>(
    io: S,
    peer: IpAddr,
    permit: Option<Permit>,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
) -> CloseReason
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    shared.metrics.connections.inc();
    let session = Session::new(Instant::now().into_std(), RandomState::new().hash_one(peer), shared.deadlines);
    let mut conn = Conn { io, peer, permit, session, publisher: None, closed: None, totals: Totals::default(), shared };
    let reason = conn.run(shutdown).await;
    conn.leave(&reason);
    let Conn { shared, totals, .. } = conn;
    shared.metrics.connections.dec();
    shared.metrics.ended(&reason);
    match (totals.published, reason.is_rejection()) {
        (true, _) => info!(
            reason = %reason, video = totals.video, audio = totals.audio, bytes = totals.bytes,
            repairs = ?totals.repairs, dropped = ?totals.drops, "publisher ended"
        ),
        (false, true) => shared.rejections.tell(&reason, Instant::now().into_std()),
        (false, false) => debug!(reason = %reason, "connection ended"),
    }
    reason
}

struct Conn<S> {
    io: S,
    peer: IpAddr,
    permit: Option<Permit>,
    session: Session,
    publisher: Option<Publisher>,
    /// Set once the session is over: what is left is to let the peer read the farewell.
    closed: Option<CloseReason>,
    totals: Totals,
    shared: Arc<Shared>,
}

/// Holds the lease; dropping it gives the name free.
struct Publisher {
    publication: Publication,
    encoder: Option<String>,
}

#[derive(Default)]
struct Totals {
    published: bool,
    bytes: u64,
    video: u64,
    audio: u64,
    /// As far as the metrics have them.
    repairs: Repairs,
    drops: Drops,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    async fn run(&mut self, mut shutdown: watch::Receiver<bool>) -> CloseReason {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Err(reason) = self.drain_outputs().await {
                return self.closed.take().unwrap_or(reason);
            }
            if self.session.is_finished() {
                return self.closed.take().unwrap_or(CloseReason::PeerClosed);
            }
            let deadline = self.session.poll_timeout().map(Instant::from_std);
            tokio::select! {
                read = self.io.read(&mut buffer) => match read {
                    Ok(0) => return self.closed.take().unwrap_or(CloseReason::PeerClosed),
                    Ok(count) => self.handle_input(&buffer[..count]),
                    Err(error) => return self.closed.take().unwrap_or_else(|| CloseReason::Io(error.to_string())),
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.session.handle_timeout(Instant::now().into_std());
                }
                stop = stopped(self.publisher.as_ref()) => self.close(match stop {
                    Stop::TakenOver => CloseReason::TakenOver,
                    Stop::Drain => CloseReason::Drain,
                }),
                () = raised(&mut shutdown), if self.closed.is_none() => self.close(CloseReason::Drain),
            }
        }
    }

    fn handle_input(&mut self, bytes: &[u8]) {
        self.totals.bytes += bytes.len() as u64;
        self.shared.metrics.bytes.inc_by(bytes.len() as u64);
        self.session.handle_input(Instant::now().into_std(), bytes);
        self.count();
    }

    fn close(&mut self, reason: CloseReason) {
        self.session.close(Instant::now().into_std(), reason);
    }

    /// Does all that the session asks for.
    async fn drain_outputs(&mut self) -> Result<(), CloseReason> {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit(bytes) => self.write(&bytes).await?,
                Output::Event(Event::PublishRequested { app, key }) => self.decide(app, key).await,
                Output::Event(Event::Announced(announcement)) => self.announce(announcement),
                Output::Event(Event::Sample(sample)) => self.publish(sample),
                Output::Event(Event::Closed(reason)) => {
                    let reason = self.closed.take().unwrap_or(reason);
                    self.leave(&reason);
                    self.closed = Some(reason);
                }
            }
        }
        Ok(())
    }

    /// Our replies are a few hundred bytes: who does not take them for so long is gone.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let write = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        match timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(CloseReason::Io(error.to_string())),
            Err(_) => Err(CloseReason::WriteStalled(WRITE_TIMEOUT.as_secs())),
        }
    }

    /// Asks admission, then for the lease. Nothing is read meanwhile: the peer waits in TCP.
    async fn decide(&mut self, app: String, key: StreamKey) {
        let decision = match self.admit(app, key.clone()).await {
            Ok(stream) => lease::acquire(&self.shared.registry, &stream, &key, None).await.map_err(CloseReason::Refused),
            Err(reason) => Err(reason),
        };
        match decision {
            Ok(publication) => self.accept(publication),
            Err(reason) => self.refuse(reason),
        }
    }

    /// A peer that said goodbye before the answer counts as refused all the same: else whoever
    /// tries keys in that way would be in no count and no log.
    fn refuse(&mut self, reason: CloseReason) {
        if self.session.is_over() {
            self.closed = Some(reason);
        } else {
            self.close(reason);
        }
    }

    async fn admit(&self, app: String, key: StreamKey) -> Result<StreamName, CloseReason> {
        let request = PublishRequest { protocol: Protocol::Rtmp, peer: self.peer, app, key };
        match timeout(self.shared.admission_timeout, self.shared.admission.admit(request)).await {
            Ok(Verdict::Allow { stream }) => Ok(stream),
            Ok(Verdict::Deny { reason }) => Err(CloseReason::Denied(reason)),
            Err(_) => Err(CloseReason::Denied(Cow::Borrowed("whoever knows the stream keys did not answer in time: try again"))),
        }
    }

    fn accept(&mut self, publication: Publication) {
        Span::current().record("publisher", publication.epoch());
        self.publisher = Some(Publisher { publication, encoder: None });
        self.shared.metrics.publishers.inc();
        if let Some(permit) = &mut self.permit {
            permit.publishing();
        }
        self.session.accept(Instant::now().into_std());
    }

    fn announce(&mut self, announcement: Announcement) {
        let Some(publisher) = &mut self.publisher else { return };
        publisher.encoder.clone_from(&announcement.encoder);
        if publisher.publication.announce(announcement).is_err() {
            self.close(CloseReason::TakenOver);
        }
    }

    fn publish(&mut self, sample: Sample) {
        let Some(publisher) = &self.publisher else { return };
        let kind = sample.track.kind();
        if !self.totals.published {
            self.totals.published = true;
            let encoder = publisher.encoder.as_deref().unwrap_or("unnamed");
            info!(?encoder, "publisher started");
        }
        match kind {
            media_core::TrackKind::Video if self.totals.video == 0 => debug!(track = ?sample.track.parameters, "video"),
            media_core::TrackKind::Audio if self.totals.audio == 0 => debug!(track = ?sample.track.parameters, "audio"),
            _ => {}
        }
        if publisher.publication.publish(sample).is_err() {
            return self.close(CloseReason::TakenOver);
        }
        self.shared.metrics.sample(kind);
        match kind {
            media_core::TrackKind::Video => self.totals.video += 1,
            media_core::TrackKind::Audio => self.totals.audio += 1,
        }
    }

    /// Brings the metrics up to what the session has counted.
    fn count(&mut self) {
        let (repairs, drops) = (self.session.repairs(), self.session.drops());
        self.shared.metrics.repaired(self.totals.repairs, repairs);
        self.shared.metrics.dropped(self.totals.drops, drops);
        let first = |of: Dropped| self.totals.drops.of(of) == 0 && drops.of(of) > 0;
        if first(Dropped::ExtraTrack) {
            info!("the publisher sends a track that is left out: a stream has one sound, and layers of its picture's codec");
        }
        if let Some(publisher) = self.publisher.as_ref().filter(|_| repairs != self.totals.repairs) {
            // One that was superseded learns of it at its next Sample.
            let _ = publisher.publication.tell_repairs(repairs.faults());
        }
        (self.totals.repairs, self.totals.drops) = (repairs, drops);
    }
}

impl<S> Conn<S> {
    /// Gives the name free at once, whatever still has to be said to the peer.
    fn leave(&mut self, reason: &CloseReason) {
        if self.publisher.take().is_some() {
            self.shared.metrics.publishers.dec();
            debug!(%reason, "lease given back");
        }
    }
}

async fn stopped(publisher: Option<&Publisher>) -> Stop {
    match publisher {
        Some(publisher) => poll_fn(|cx| publisher.publication.poll_stop(cx)).await,
        None => std::future::pending().await,
    }
}

/// Until the value is true. A sender that is gone raises nothing.
async fn raised(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|raised| *raised).await.is_err() {
        std::future::pending().await
    }
}
