//! The process's own metrics, and all metrics as Prometheus reads them.
//!
//! Every label has a fixed set of values: no address, name or key of anybody is one.

use prometheus::{
    Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, process_collector::ProcessCollector,
};

/// Metrics of the HTTP listener.
#[derive(Clone)]
pub struct Http {
    pub connections: IntGauge,
    pub ended: IntCounterVec,
    pub accept_errors: prometheus::IntCounter,
}

impl Http {
    pub fn new(registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Self {
            connections: IntGauge::new("codecast_http_connections", "HTTP connections that are open now.")?,
            ended: IntCounterVec::new(
                Opts::new("codecast_http_connections_total", "HTTP connections that have ended, by how."),
                &["outcome"],
            )?,
            accept_errors: prometheus::IntCounter::new(
                "codecast_http_accept_errors_total",
                "Times that a connection could not be accepted, as for lack of file descriptors.",
            )?,
        };
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        registry.register(Box::new(metrics.accept_errors.clone()))?;
        Ok(metrics)
    }
}

/// A registry with what every process tells: build, memory, descriptors, CPU, start time.
pub fn registry() -> anyhow::Result<Registry> {
    let registry = Registry::new();
    let build = IntGaugeVec::new(Opts::new("codecast_build_info", "Always 1; the label tells the version."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// Everything, in the text format.
pub fn render(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
