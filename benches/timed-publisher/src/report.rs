//! What is said at the end: counts, delays and the reason, as one JSON object.

use std::time::Duration;

use serde_json::{Value, json};

/// Values kept of one measurement: ten hours at 30 fps. Later ones are counted, not kept.
const VALUES_MAX: usize = 1_100_000;

/// Durations gathered for their quantiles.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    micros: Vec<u32>,
    beyond: u64,
}

impl Durations {
    pub fn push(&mut self, value: Duration) {
        match self.micros.len() < VALUES_MAX {
            true => self.micros.push(u32::try_from(value.as_micros()).unwrap_or(u32::MAX)),
            false => self.beyond += 1,
        }
    }

    pub fn extend(&mut self, other: &Self) {
        let room = VALUES_MAX - self.micros.len();
        self.micros.extend(other.micros.iter().take(room));
        self.beyond += other.beyond + other.micros.len().saturating_sub(room) as u64;
    }

    /// Count, least, quantiles and largest, in milliseconds.
    pub fn summary(&self) -> Value {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else { return json!({"n": 0}) };
        let at = |share: f64| f64::from(sorted[((last + 1) as f64 * share).min(last as f64) as usize]) / 1000.0;
        let n = sorted.len() as u64 + self.beyond;
        json!({"n": n, "min": at(0.0), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)})
    }
}

/// Why a publisher ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// It sent all it was to send.
    #[error("complete")]
    Complete,
    /// A signal, or its parent process is gone.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Server(#[from] crate::rtmp::Error),
    #[error("encoder: {0}")]
    Encoder(String),
    #[error("clip: {0}")]
    Clip(String),
}

impl End {
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Complete | Self::Stopped)
    }
}

#[derive(Debug)]
pub struct Report {
    pub end: End,
    /// Wall clock in milliseconds of the first grid instant, RTMP time zero.
    pub started_wall_ms: u64,
    pub seconds: f64,
    pub video_frames: u64,
    pub audio_frames: u64,
    /// Painted or sent more than half a frame interval after their grid instant.
    pub late_frames: u64,
    /// Grid instants without a picture, since the encoder or the server did not keep up.
    pub skipped_frames: u64,
    /// Media and headers, without RTMP's chunk headers.
    pub bytes: u64,
    /// From the start of painting to the coded access unit in hand.
    pub encoder_delay: Durations,
    /// From the grid instant (the time that is painted) to the last byte given to the socket.
    pub source_delay: Durations,
}

impl Report {
    pub fn new(end: End) -> Self {
        Self {
            end,
            started_wall_ms: 0,
            seconds: 0.0,
            video_frames: 0,
            audio_frames: 0,
            late_frames: 0,
            skipped_frames: 0,
            bytes: 0,
            encoder_delay: Durations::default(),
            source_delay: Durations::default(),
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "reason": self.end.to_string(),
            "ok": self.end.is_orderly(),
            "started_wall_ms": self.started_wall_ms,
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
            "video_frames": self.video_frames,
            "audio_frames": self.audio_frames,
            "late_frames": self.late_frames,
            "skipped_frames": self.skipped_frames,
            "bytes": self.bytes,
            "encoder_delay_ms": self.encoder_delay.summary(),
            "source_delay_ms": self.source_delay.summary(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_one_and_of_many() {
        let mut one = Durations::default();
        assert_eq!(one.summary(), json!({"n": 0}));
        one.push(Duration::from_millis(3));
        assert_eq!(one.summary()["p99"], json!(3.0));
        let mut many = Durations::default();
        (1..=100).for_each(|ms| many.push(Duration::from_millis(ms)));
        assert_eq!((&many.summary()["p50"], &many.summary()["max"]), (&json!(51.0), &json!(100.0)));
    }
}
