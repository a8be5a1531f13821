//! What the packager counts. Labels are bounded: kinds and classes, never a stream or a viewer.

use media_core::{TrackKind, advice::Code};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::presentation::Losses;

/// From the arrival of a Part's last byte to its playlist being offered, in seconds.
const PUBLISH_BUCKETS: [f64; 12] = [0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];

#[derive(Clone)]
pub struct Metrics {
    pub streams: IntGauge,
    pub held_requests: IntGauge,
    pub part_publish: Histogram,
    parts: [IntCounter; 2],
    segments: [IntCounter; 2],
    losses: [IntCounter; 5],
    presentations: [IntCounter; 3],
    requests: IntCounterVec,
    advice: IntCounterVec,
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Multivariant,
    Playlist,
    Part,
    Segment,
    Init,
    Status,
    Advice,
    Thumbnail,
}

impl Asked {
    fn as_str(self) -> &'static str {
        match self {
            Self::Multivariant => "multivariant",
            Self::Playlist => "playlist",
            Self::Part => "part",
            Self::Segment => "segment",
            Self::Init => "init",
            Self::Status => "status",
            Self::Advice => "advice",
            Self::Thumbnail => "thumbnail",
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
        let kinds =
            |vec: &IntCounterVec| [TrackKind::Video, TrackKind::Audio].map(|kind| vec.with_label_values(&[kind.as_str()]));
        let parts = counters("codecast_hls_parts_total", "Partial segments published, by kind of track.", "kind")?;
        let segments = counters("codecast_hls_segments_total", "Segments closed, by kind of track.", "kind")?;
        let losses = counters("codecast_hls_losses_total", "What could not be packaged as it came, by reason.", "reason")?;
        let presentations = counters("codecast_hls_presentations_total", "Presentations, by event.", "event")?;
        let advice =
            counters("codecast_advice_total", "Advice that streams' publishers were given for the first time, by code.", "code")?;
        for code in Code::ALL {
            advice.with_label_values(&[code.as_str()]);
        }
        let requests = IntCounterVec::new(
            Opts::new("codecast_hls_requests_total", "Requests answered, by what was asked for and status class."),
            &["asked", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let part_publish = Histogram::with_opts(
            HistogramOpts::new(
                "codecast_hls_part_publish_seconds",
                "From the arrival of a partial segment's last byte to its playlist being offered.",
            )
            .buckets(PUBLISH_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(part_publish.clone()))?;
        Ok(Self {
            streams: gauge("codecast_hls_streams", "Streams that are packaged, live or away.")?,
            held_requests: gauge("codecast_hls_held_requests", "Requests that wait for something not yet published.")?,
            part_publish,
            parts: kinds(&parts),
            segments: kinds(&segments),
            losses: ["undecodable", "late", "queue_full", "cut_without_keyframe", "init_unwritable"]
                .map(|reason| losses.with_label_values(&[reason])),
            presentations: ["started", "ended", "resumed"].map(|event| presentations.with_label_values(&[event])),
            requests,
            advice,
        })
    }

    pub fn parts(&self, kind: TrackKind) -> &IntCounter {
        &self.parts[kind as usize]
    }

    pub fn segments(&self, kind: TrackKind) -> &IntCounter {
        &self.segments[kind as usize]
    }

    pub fn presentation_started(&self) {
        self.presentations[0].inc();
    }

    pub fn presentation_ended(&self) {
        self.presentations[1].inc();
    }

    /// One that began in an earlier process.
    pub fn presentation_resumed(&self) {
        self.presentations[2].inc();
    }

    pub fn count(&self, losses: Losses) {
        let counts = [losses.undecodable, losses.late, losses.queue_full, losses.cuts_without_keyframe, losses.unwritable];
        for (counter, count) in self.losses.iter().zip(counts) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    pub fn advised(&self, code: Code) {
        self.advice.with_label_values(&[code.as_str()]).inc();
    }

    pub fn answered(&self, asked: Asked, status: u16) {
        let class = match status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[asked.as_str(), class]).inc();
    }
}
