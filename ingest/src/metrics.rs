//! What an operator sees of the ingest. Every label has a fixed set of values, and every child is
//! made once: counting is one atomic addition.

use media_core::TrackKind;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::{
    repair::{Repair, Repairs},
    rtmp::{
        close::CloseReason,
        feed::{Dropped, Drops},
    },
};

/// Turned away at the door: not a reason of a session's, since none began.
const OVER_LIMIT: &str = "over_limit";
/// The TLS handshake failed or took too long.
const TLS_REFUSED: &str = "tls_refused";

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) publishers: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) bytes: IntCounter,
    pub(crate) over_limit: IntCounter,
    pub(crate) tls_refused: IntCounter,
    video_samples: IntCounter,
    audio_samples: IntCounter,
    repairs: [IntCounter; Repair::ALL.len()],
    drops: [IntCounter; Dropped::ALL.len()],
    outcomes: [IntCounter; CloseReason::OUTCOMES.len()],
}

impl Metrics {
    /// Fails when `registry` has metrics of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let publishers = IntGauge::new("codecast_publishers", "Publishers that hold a stream now.")?;
        let connections = IntGauge::new("codecast_rtmp_connections", "RTMP connections open now.")?;
        let bytes = IntCounter::new("codecast_ingest_bytes_total", "Bytes read from publishers' connections.")?;
        let samples = counter("codecast_ingest_samples_total", "Samples taken from publishers.", "kind")?;
        let repairs = counter("codecast_timestamp_repairs_total", "Timestamps of publishers that were repaired.", "kind")?;
        let drops = counter("codecast_ingest_dropped_total", "Messages of publishers that made no sample.", "reason")?;
        let outcomes = counter("codecast_rtmp_connections_total", "RTMP connections that have ended, by the reason.", "outcome")?;
        registry.register(Box::new(publishers.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        for vec in [&samples, &repairs, &drops, &outcomes] {
            registry.register(Box::new(vec.clone()))?;
        }
        Ok(Self {
            publishers,
            connections,
            bytes,
            over_limit: outcomes.with_label_values(&[OVER_LIMIT]),
            tls_refused: outcomes.with_label_values(&[TLS_REFUSED]),
            video_samples: samples.with_label_values(&[TrackKind::Video.as_str()]),
            audio_samples: samples.with_label_values(&[TrackKind::Audio.as_str()]),
            repairs: Repair::ALL.map(|repair| repairs.with_label_values(&[repair.as_str()])),
            drops: Dropped::ALL.map(|dropped| drops.with_label_values(&[dropped.as_str()])),
            outcomes: CloseReason::OUTCOMES.map(|outcome| outcomes.with_label_values(&[outcome])),
        })
    }

    pub(crate) fn sample(&self, kind: TrackKind) {
        match kind {
            TrackKind::Video => self.video_samples.inc(),
            TrackKind::Audio => self.audio_samples.inc(),
        }
    }

    pub(crate) fn ended(&self, reason: &CloseReason) {
        let at = CloseReason::OUTCOMES.iter().position(|outcome| *outcome == reason.outcome());
        if let Some(counter) = at.and_then(|at| self.outcomes.get(at)) {
            counter.inc();
        }
    }

    /// Counts what came since `seen`.
    pub(crate) fn repaired(&self, seen: Repairs, now: Repairs) {
        for (repair, counter) in Repair::ALL.into_iter().zip(&self.repairs) {
            counter.inc_by(now.of(repair) - seen.of(repair));
        }
    }

    pub(crate) fn dropped(&self, seen: Drops, now: Drops) {
        for (dropped, counter) in Dropped::ALL.into_iter().zip(&self.drops) {
            counter.inc_by(now.of(dropped) - seen.of(dropped));
        }
    }
}

fn counter(name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), &[label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.ended(&CloseReason::Drain);
        let families = registry.gather();
        let series: usize = families.iter().map(|family| family.get_metric().len()).sum();
        assert_eq!(series, 3 + 2 + Repair::ALL.len() + Dropped::ALL.len() + CloseReason::OUTCOMES.len() + 2);
        assert!(Metrics::new(&registry).is_err(), "a second set would count twice");
    }
}
