//! What the engine counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::event::Closed;

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) sessions: IntGauge,
    closed: IntCounterVec,
    datagrams: Vec<IntCounter>,
    pub(crate) sent_bytes: IntCounter,
    pub(crate) sent_datagrams: IntCounter,
    /// One system call each.
    pub(crate) sent_bursts: IntCounter,
    pub(crate) send_blocked: IntCounter,
    pub(crate) send_errors: IntCounter,
    unopened: IntCounter,
    strays: IntCounter,
    nacked: IntCounter,
    repeated: IntCounter,
    picture_losses: IntCounter,
    fell_behind: IntCounter,
    probes: IntCounter,
    probes_refused: IntCounter,
    /// Frames that an overloaded shard or a slow owner lost.
    pub(crate) frames_dropped: IntCounter,
    pub(crate) tcp_connections: IntGauge,
    pub(crate) tcp_refused: IntCounter,
    /// Bytes that wait for the socket.
    pub(crate) backlog: IntGauge,
    /// Between shards.
    pub(crate) handed: IntCounter,
    pub(crate) handed_lost: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(format!("codecast_webrtc_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(format!("codecast_webrtc_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let labelled = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(format!("codecast_webrtc_{name}"), help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let datagrams = labelled("received_datagrams_total", "Datagrams received, by where they ended", "fate")?;
        let closed = labelled("sessions_closed_total", "Sessions that ended, by reason", "reason")?;
        for label in Closed::LABELS {
            closed.with_label_values(&[label]);
        }
        Ok(Self {
            sessions: gauge("sessions", "Peers, publishers and viewers")?,
            closed,
            datagrams: Fate::ENDS.iter().map(|fate| datagrams.with_label_values(&[fate.as_str()])).collect(),
            sent_bytes: counter("sent_bytes_total", "Bytes of datagrams sent")?,
            sent_datagrams: counter("sent_datagrams_total", "Datagrams sent")?,
            sent_bursts: counter("sent_bursts_total", "Calls that sent datagrams")?,
            send_blocked: counter("send_blocked_total", "Datagrams not sent since the way was full")?,
            send_errors: counter("send_errors_total", "Datagrams that the system refused to send")?,
            unopened: counter("unopened_total", "Packets that could not be opened: not sealed by the peer")?,
            strays: counter("stray_packets_total", "Packets of publishers that belong to nothing negotiated")?,
            nacked: counter("nacked_packets_total", "Packets that viewers reported missing")?,
            repeated: counter("repeated_packets_total", "Packets sent again")?,
            picture_losses: counter("picture_losses_total", "Keyframe requests of viewers")?,
            fell_behind: counter("fell_behind_total", "Viewers that skipped to the next keyframe")?,
            probes: counter("probes_total", "Short bursts that tried whether a better picture fits a viewer's link")?,
            probes_refused: counter("probes_refused_total", "Those that showed that it does not")?,
            frames_dropped: counter("frames_dropped_total", "Frames lost to an overloaded engine or a slow owner")?,
            backlog: gauge("send_backlog_bytes", "Bytes that wait until the socket takes more")?,
            handed: counter("handed_datagrams_total", "Datagrams that came to another thread than their session's")?,
            handed_lost: counter("handed_lost_total", "Those lost since that thread could not keep up")?,
            tcp_connections: gauge("tcp_connections", "ICE-TCP connections")?,
            tcp_refused: counter("tcp_refused_total", "ICE-TCP connections refused or ended for what they sent")?,
        })
    }

    pub(crate) fn received(&self, fate: Fate) {
        if let Some(counter) = self.datagrams.get(fate as usize) {
            counter.inc();
        }
    }

    pub(crate) fn closed(&self, reason: &Closed) {
        self.closed.with_label_values(&[reason.label()]).inc();
    }

    pub(crate) fn count(&self, counts: Counts) {
        self.unopened.inc_by(counts.unopened);
        self.strays.inc_by(counts.strays);
        self.nacked.inc_by(counts.nacked);
        self.repeated.inc_by(counts.repeated);
        self.picture_losses.inc_by(counts.picture_losses);
        self.fell_behind.inc_by(counts.fell_behind);
        self.probes.inc_by(counts.probes);
        self.probes_refused.inc_by(counts.probes_refused);
    }
}

/// Where a datagram ended. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Check,
    Media,
    /// A check for no session here, or one whose sender does not know the password.
    Forged,
    /// No check, and from an address that has not passed one.
    Unproved,
    /// No protocol of ours.
    Malformed,
    /// The session is another shard's, where it is counted.
    Handed,
}

impl Fate {
    /// Those that are an end.
    pub(crate) const ENDS: [Self; 5] = [Self::Check, Self::Media, Self::Forged, Self::Unproved, Self::Malformed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Media => "media",
            Self::Forged => "forged",
            Self::Unproved => "unproved",
            Self::Malformed => "malformed",
            Self::Handed => "handed",
        }
    }
}

/// Counted by the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) unopened: u64,
    /// Packets that belong to nothing that was negotiated.
    pub(crate) strays: u64,
    pub(crate) repeated: u64,
    pub(crate) nacked: u64,
    pub(crate) picture_losses: u64,
    pub(crate) fell_behind: u64,
    pub(crate) probes: u64,
    pub(crate) probes_refused: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.unopened += more.unopened;
        self.strays += more.strays;
        self.repeated += more.repeated;
        self.nacked += more.nacked;
        self.picture_losses += more.picture_losses;
        self.fell_behind += more.fell_behind;
        self.probes += more.probes;
        self.probes_refused += more.probes_refused;
    }
}
