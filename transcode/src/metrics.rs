//! What the supervisor counts. The labels are what is made, and which work a price is of.

use media_core::stream::Made;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::prices::Prices;

/// From the arrival of a source Sample to what was made of it being offered, in seconds. B-frames alone cost 0.1.
const LATENCY_BUCKETS: [f64; 11] = [0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0];

#[derive(Clone)]
pub struct Metrics {
    pub workers: IntGauge,
    pub restarts: IntCounter,
    pub dropped_samples: IntCounter,
    /// Cores that pictures are thought to cost.
    pub load: Gauge,
    prices: GaugeVec,
    pub thumbnails: IntCounter,
    /// JPEGs that were too large to be kept.
    pub large_thumbnails: IntCounter,
    shed: IntCounterVec,
    refused: IntCounterVec,
    outputs: IntGaugeVec,
    latency: HistogramVec,
}

impl Metrics {
    /// Errors only when a name is registered twice, which is ours to avoid.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let thumbnails = IntCounterVec::new(
            Opts::new("codecast_transcode_thumbnails_total", "Thumbnails that were made, and whether they were of use."),
            &["outcome"],
        )?;
        registry.register(Box::new(thumbnails.clone()))?;
        let metrics = Self {
            thumbnails: thumbnails.with_label_values(&["kept"]),
            large_thumbnails: thumbnails.with_label_values(&["too_large"]),
            workers: IntGauge::new("codecast_transcode_workers", "Transcoding processes that run now.")?,
            restarts: IntCounter::new(
                "codecast_transcode_restarts_total",
                "Transcoding processes that died, hung or broke the protocol and had to be replaced.",
            )?,
            dropped_samples: IntCounter::new(
                "codecast_transcode_dropped_samples_total",
                "Samples of a source that were not transcoded because the transcoding process was too slow.",
            )?,
            load: Gauge::new("codecast_transcode_cores", "Cores that the pictures which are made now cost, as far as is known.")?,
            prices: GaugeVec::new(
                Opts::new(
                    "codecast_transcode_seconds_per_megapixel",
                    "Seconds of one core that a million pixels cost, as measured once here, or assumed until then.",
                ),
                &["work"],
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "codecast_transcode_refused_total",
                    "Times that a picture was not made, or not any longer, because the machine had too much to do, by what.",
                ),
                &["made"],
            )?,
            shed: IntCounterVec::new(
                Opts::new(
                    "codecast_transcode_shed_pictures_total",
                    "Pictures left out because an encoder was too slow, by what.",
                ),
                &["made"],
            )?,
            outputs: IntGaugeVec::new(Opts::new("codecast_transcode_outputs", "Outputs that are made now, by what."), &["made"])?,
            latency: HistogramVec::new(
                HistogramOpts::new(
                    "codecast_transcode_latency_seconds",
                    "From the arrival of a source Sample to what was made of it being offered.",
                )
                .buckets(LATENCY_BUCKETS.into()),
                &["made"],
            )?,
        };
        registry.register(Box::new(metrics.workers.clone()))?;
        registry.register(Box::new(metrics.restarts.clone()))?;
        registry.register(Box::new(metrics.dropped_samples.clone()))?;
        registry.register(Box::new(metrics.load.clone()))?;
        registry.register(Box::new(metrics.prices.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.shed.clone()))?;
        registry.register(Box::new(metrics.outputs.clone()))?;
        registry.register(Box::new(metrics.latency.clone()))?;
        Ok(metrics)
    }

    pub fn set_prices(&self, prices: Prices) {
        self.prices.with_label_values(&["encode"]).set(prices.encode / 1000.0);
        self.prices.with_label_values(&["decode"]).set(prices.decode / 1000.0);
    }

    pub fn shed(&self, made: Made) -> IntCounter {
        self.shed.with_label_values(&[made.as_str()])
    }

    pub fn refused(&self, made: Made) -> IntCounter {
        self.refused.with_label_values(&[made.as_str()])
    }

    pub fn outputs(&self, made: Made) -> IntGauge {
        self.outputs.with_label_values(&[made.as_str()])
    }

    pub fn latency(&self, made: Made) -> prometheus::Histogram {
        self.latency.with_label_values(&[made.as_str()])
    }
}
