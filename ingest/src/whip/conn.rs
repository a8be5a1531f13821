//! One WHIP session from its answer to its end: the shell that gives a `Publisher` its frames and its
//! time, and the stream its Samples.

use std::{future::poll_fn, time::Duration};

use media_core::{Announcement, Publication, Sample, TrackId, TrackKind};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};
use transport::{Event, Session};

use super::{
    close::CloseReason,
    metrics::Metrics,
    publisher::{Output, Publisher},
};
use crate::{metrics::Metrics as Publishing, repair::Repairs, rtmp::feed::Drops};

/// From the answer until media may flow: checks over UDP, over TCP where it is blocked, and the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct Conn {
    session: Session,
    /// Holds the lease; dropping it gives the name free.
    publication: Publication,
    publisher: Publisher,
    connect_deadline: Option<Instant>,
    encoder: Option<String>,
    totals: Totals,
    metrics: Metrics,
    publishing: Publishing,
}

#[derive(Default)]
struct Totals {
    video: u64,
    audio: u64,
    /// As far as the metrics have them.
    repairs: Repairs,
    drops: Drops,
}

impl Conn {
    pub fn new(
        session: Session,
        publication: Publication,
        encoder: Option<String>,
        keyframe_interval: Duration,
        metrics: Metrics,
        publishing: Publishing,
    ) -> Self {
        let negotiated = session.negotiated();
        let now = Instant::now();
        Self {
            publisher: Publisher::new(now.into_std(), negotiated, encoder.clone(), keyframe_interval),
            connect_deadline: Some(now + CONNECT_TIMEOUT),
            session,
            publication,
            encoder,
            totals: Totals::default(),
            metrics,
            publishing,
        }
    }

    /// Serves the session to its end, which this returns with when the name is free again.
    pub async fn run(mut self) {
        self.metrics.sessions.inc();
        self.publishing.publishers.inc();
        let reason = self.serve().await;
        self.metrics.sessions.dec();
        self.publishing.publishers.dec();
        self.metrics.ended(&reason);
        let totals = &self.totals;
        info!(
            %reason, video = totals.video, audio = totals.audio, repairs = ?totals.repairs, dropped = ?totals.drops,
            "publisher ended"
        );
    }

    async fn serve(&mut self) -> CloseReason {
        if let Err(reason) = self.drain_outputs() {
            return reason;
        }
        loop {
            let due = if self.connect_deadline.is_some() { None } else { self.publisher.poll_timeout().map(Instant::from_std) };
            let deadline = self.connect_deadline.or(due);
            tokio::select! {
                event = self.session.event() => match event {
                    Some(event) => if let Err(reason) = self.handle_event(event) { return reason },
                    None => return CloseReason::Deleted,
                },
                stop = poll_fn(|cx| self.publication.poll_stop(cx)) => return stop.into(),
                wanted = poll_fn(|cx| self.publication.poll_keyframe_request(cx)) => self.ask_for(wanted),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if self.connect_deadline.is_some() {
                        return CloseReason::NeverConnected(CONNECT_TIMEOUT.as_secs());
                    }
                    self.ask_in_turn();
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), CloseReason> {
        match event {
            Event::Connected { peer } => self.connected(peer.ip().to_canonical().to_string()),
            Event::Frame { media, layer, frame } => {
                self.publisher.handle_frame(media, layer, frame);
                self.count();
                return self.drain_outputs();
            }
            // These are told of viewers.
            Event::Switched { .. } | Event::Bandwidth { .. } => {}
            Event::Closed(closed) => return Err(closed.into()),
        }
        Ok(())
    }

    fn connected(&mut self, media_peer: String) {
        // ICE may move a session later; it begins once.
        if self.connect_deadline.take().is_some() {
            let encoder = self.encoder.as_deref().unwrap_or("unnamed");
            info!(?encoder, media_peer, "publisher started");
        }
    }

    fn drain_outputs(&mut self) -> Result<(), CloseReason> {
        while let Some(output) = self.publisher.poll_output() {
            match output {
                Output::Announce(announcement) => self.announce(announcement)?,
                Output::Sample(sample) => self.publish(sample)?,
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
        let total = if kind == TrackKind::Video { &mut self.totals.video } else { &mut self.totals.audio };
        if *total == 0 {
            debug!(track = ?sample.track.parameters, "first {}", kind.as_str());
        }
        *total += 1;
        self.publication.publish(sample).map_err(|_| CloseReason::TakenOver)?;
        self.publishing.sample(kind);
        Ok(())
    }

    /// Of the tracks whose bits are set.
    fn ask_for(&self, wanted: u32) {
        for track in (0..TrackId::COUNT).filter(|track| wanted >> track & 1 == 1) {
            if let Some(layer) = self.publisher.layer_of(track) {
                self.ask(layer);
            }
        }
    }

    fn ask_in_turn(&mut self) {
        for layer in self.publisher.take_keyframes_due(Instant::now().into_std()) {
            self.ask(layer);
        }
    }

    fn ask(&self, layer: usize) {
        self.session.request_keyframe(layer);
        self.metrics.keyframe_requests.inc();
    }

    /// Brings the metrics up to what the publisher has counted.
    fn count(&mut self) {
        let (repairs, drops) = (self.publisher.repairs(), self.publisher.drops());
        self.publishing.repaired(self.totals.repairs, repairs);
        self.publishing.dropped(self.totals.drops, drops);
        if repairs != self.totals.repairs {
            // One that was superseded learns of it at its next Sample.
            let _ = self.publication.tell_repairs(repairs.faults());
        }
        (self.totals.repairs, self.totals.drops) = (repairs, drops);
    }
}
