//! What WHEP counts. Labels are bounded: results and reasons, never a stream or a viewer.

use media_core::TrackId;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{
    broadcast::Drops,
    rungs::{Reason, name},
};

/// From a viewer's offer to media on its way, in seconds.
const FIRST_FRAME_BUCKETS: [f64; 11] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0];

#[derive(Clone)]
pub struct Metrics {
    pub viewers: IntGauge,
    pub broadcasts: IntGauge,
    pub first_frame: Histogram,
    sessions: IntCounterVec,
    dropped: [IntCounter; 4],
    pub unsendable: IntCounter,
    pictures: IntGaugeVec,
    switches: IntCounterVec,
}

/// What became of a viewer's request; each is counted once, when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It connected; the session is over.
    Watched,
    /// It was answered, and never connected.
    NeverConnected,
    /// Its request or offer cannot be served.
    Refused,
    /// There is no such stream.
    NotLive,
    /// As many viewers watch as are allowed, or the server is shutting down.
    Full,
    /// What it would have to be sent cannot be made here.
    Unavailable,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::NeverConnected => "never_connected",
            Self::Refused => "refused",
            Self::NotLive => "not_live",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Metrics {
    /// Errors only when a name is registered twice, which is ours to avoid.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let first_frame = Histogram::with_opts(
            HistogramOpts::new("codecast_whep_first_frame_seconds", "From a viewer's offer to media on its way to it.")
                .buckets(FIRST_FRAME_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(first_frame.clone()))?;
        let pictures = Opts::new("codecast_whep_picture_viewers", "WHEP sessions by the picture that they are sent.");
        let pictures = IntGaugeVec::new(pictures, &["rung"])?;
        registry.register(Box::new(pictures.clone()))?;
        let switches = Opts::new("codecast_whep_switches_total", "Viewers that went over to another picture, and why.");
        let switches = IntCounterVec::new(switches, &["direction", "reason"])?;
        registry.register(Box::new(switches.clone()))?;
        let dropped = counters("codecast_whep_frames_dropped_total", "Frames not sent to WHEP viewers, by reason.", "reason")?;
        Ok(Self {
            viewers: gauge("codecast_whep_viewers", "WHEP sessions open now.")?,
            broadcasts: gauge("codecast_whep_broadcasts", "Streams that are packetised for WHEP viewers now.")?,
            first_frame,
            sessions: counters("codecast_whep_sessions_total", "Requests of WHEP viewers, by what became of them.", "result")?,
            dropped: ["undecodable", "reordered", "late", "lagged"].map(|reason| dropped.with_label_values(&[reason])),
            pictures,
            switches,
            unsendable: dropped.with_label_values(&["unsendable"]),
        })
    }

    pub fn session(&self, outcome: Outcome) {
        self.sessions.with_label_values(&[outcome.as_str()]).inc();
    }

    /// So many viewers more, or less, of a picture.
    pub fn picture(&self, track: TrackId, viewers: i64) {
        self.pictures.with_label_values(&[name(track)]).add(viewers);
    }

    pub fn switched(&self, from: TrackId, to: TrackId, reason: Reason) {
        // Ids are in the order of quality: the picture, its layers, rungs from the best on.
        let direction = if to > from { "down" } else { "up" };
        self.switches.with_label_values(&[direction, reason.as_str()]).inc();
    }

    pub fn dropped(&self, drops: Drops) {
        let counts = [drops.undecodable, drops.reordered, drops.late, drops.lagged];
        for (counter, count) in self.dropped.iter().zip(counts) {
            counter.inc_by(count);
        }
    }
}
