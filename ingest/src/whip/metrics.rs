//! What an operator sees of WHIP beside what all publishers have in common (`crate::metrics`).

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use transport::Closed;

use super::{close::CloseReason, endpoint::Rejection};

#[derive(Clone)]
pub(super) struct Metrics {
    pub sessions: IntGauge,
    pub keyframe_requests: IntCounter,
    results: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let sessions = IntGauge::new("codecast_whip_sessions", "WHIP sessions open now.")?;
        let keyframe_requests =
            IntCounter::new("codecast_whip_keyframe_requests_total", "Keyframes that WHIP publishers were asked for.")?;
        let results = Opts::new("codecast_whip_sessions_total", "WHIP sessions that were refused or have ended, by the reason.");
        let results = IntCounterVec::new(results, &["result"])?;
        registry.register(Box::new(sessions.clone()))?;
        registry.register(Box::new(keyframe_requests.clone()))?;
        registry.register(Box::new(results.clone()))?;
        let metrics = Self { sessions, keyframe_requests, results };
        for label in Rejection::LABELS.iter().chain(&CloseReason::LABELS).chain(&Closed::LABELS) {
            metrics.results.with_label_values(&[*label]);
        }
        Ok(metrics)
    }

    pub fn rejected(&self, rejection: &Rejection) {
        self.results.with_label_values(&[rejection.label()]).inc();
    }

    pub fn ended(&self, reason: &CloseReason) {
        self.results.with_label_values(&[reason.label()]).inc();
    }
}
