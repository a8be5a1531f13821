//! What an operator sees of SRT beside what all publishers have in common (`crate::metrics`).

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{close::CloseReason, door::Stray};

/// From a caller's conclusion to its receiver's answer, in seconds. libsrt gives up after three.
const START_BUCKETS: [f64; 8] = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 10.0];

#[derive(Clone)]
pub struct Metrics {
    pub sessions: IntGauge,
    pub start: Histogram,
    pub lost: IntCounter,
    strays: [IntCounter; Stray::ALL.len()],
    outcomes: [IntCounter; CloseReason::OUTCOMES.len()],
}

impl Metrics {
    /// Fails when `registry` has metrics of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let sessions =
            IntGauge::new("codecast_srt_sessions", "SRT publishers here now, those that are not connected yet included.")?;
        let start = HistogramOpts::new(
            "codecast_srt_connect_seconds",
            "From an admitted SRT caller's request to its connection: mostly the start of its receiving program.",
        );
        let start = Histogram::with_opts(start.buckets(START_BUCKETS.into()))?;
        let lost = IntCounter::new(
            "codecast_srt_packets_lost_total",
            "SRT packets that were missed and asked for again. What did not come in time all the same is a dropped message of reason malformed.",
        )?;
        let strays = IntCounterVec::new(
            Opts::new("codecast_srt_stray_datagrams_total", "Datagrams on SRT's port that belong to nothing, by why."),
            &["reason"],
        )?;
        let outcomes = IntCounterVec::new(
            Opts::new("codecast_srt_sessions_total", "SRT publishers that were refused or have ended, by the reason."),
            &["outcome"],
        )?;
        registry.register(Box::new(sessions.clone()))?;
        registry.register(Box::new(start.clone()))?;
        registry.register(Box::new(lost.clone()))?;
        for vec in [&strays, &outcomes] {
            registry.register(Box::new(vec.clone()))?;
        }
        Ok(Self {
            sessions,
            start,
            lost,
            strays: Stray::ALL.map(|stray| strays.with_label_values(&[stray.as_str()])),
            outcomes: CloseReason::OUTCOMES.map(|outcome| outcomes.with_label_values(&[outcome])),
        })
    }

    pub fn stray(&self, stray: Stray) {
        self.strays[stray as usize].inc();
    }

    pub fn ended(&self, reason: &CloseReason) {
        let at = CloseReason::OUTCOMES.iter().position(|outcome| *outcome == reason.outcome());
        if let Some(counter) = at.and_then(|at| self.outcomes.get(at)) {
            counter.inc();
        }
    }
}
