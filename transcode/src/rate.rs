//! The bit rate that a picture is encoded with when nobody has configured one: what the source has.

use std::{collections::VecDeque, time::Duration};

use media_core::{
    Timestamp,
    rung::{BITRATE_MAX, BITRATE_MIN},
};

/// Where nothing is known: what encoders are told for 720p.
const BITRATE_UNKNOWN: u32 = 2_500_000;
/// The peak is of whole spans, so that one keyframe does not make it.
const SPAN: Duration = Duration::from_secs(2);
/// Spans that are remembered: a quiet minute does not starve the next busy one.
const SPANS: usize = 30;

/// Watches a source's Samples.
#[derive(Debug)]
pub struct SourceRate {
    announced: u32,
    began: Option<Timestamp>,
    bytes: usize,
    /// Bits a second of past spans.
    spans: VecDeque<u32>,
    told: u32,
}

impl SourceRate {
    /// `announced` is 0 where the publisher said nothing.
    pub fn new(announced: u32) -> Self {
        let told = if announced == 0 { BITRATE_UNKNOWN } else { announced.clamp(BITRATE_MIN, BITRATE_MAX) };
        Self { announced, began: None, bytes: 0, spans: VecDeque::new(), told }
    }

    /// What to encode with now.
    pub fn bitrate(&self) -> u32 {
        self.told
    }

    /// Takes one Sample; tells a new rate when it differs by a fifth or more.
    pub fn observe(&mut self, dts: Timestamp, bytes: usize) -> Option<u32> {
        let began = *self.began.get_or_insert(dts);
        let lasted = (dts - began).to_duration();
        if lasted < SPAN && dts >= began {
            self.bytes += bytes;
            return None;
        }
        self.finish_span(lasted);
        self.began = Some(dts);
        self.bytes = bytes;
        let measured = self.spans.iter().copied().max()?;
        let wanted = measured.max(self.announced).clamp(BITRATE_MIN, BITRATE_MAX);
        (wanted.abs_diff(self.told) >= self.told / 5).then(|| {
            self.told = wanted;
            wanted
        })
    }

    fn finish_span(&mut self, lasted: Duration) {
        // A hole would look like a low rate, a jump back like none at all.
        if lasted < SPAN || lasted > 2 * SPAN {
            return;
        }
        if self.spans.len() == SPANS {
            self.spans.pop_front();
        }
        self.spans.push_back((self.bytes as f64 * 8.0 / lasted.as_secs_f64()) as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(rate: &mut SourceRate, from_s: i64, seconds: i64, bits: usize) -> Vec<u32> {
        let times = (from_s * 30..(from_s + seconds) * 30).map(|n| Timestamp::from_millis(n * 1000 / 30));
        times.filter_map(|dts| rate.observe(dts, bits / 8 / 30)).collect()
    }

    #[test]
    fn the_source_tells_the_rate() {
        let mut rate = SourceRate::new(0);
        assert_eq!(rate.bitrate(), BITRATE_UNKNOWN);
        let told = feed(&mut rate, 0, 5, 4_000_000);
        assert_eq!(told.len(), 1);
        assert!(told[0].abs_diff(4_000_000) < 100_000, "{told:?}");
        assert_eq!(feed(&mut rate, 5, 50, 1_000_000), [], "the peak of a minute");
        let quiet = feed(&mut rate, 55, 70, 100_000);
        assert!((BITRATE_MIN..BITRATE_MIN * 5 / 4).contains(quiet.last().unwrap()), "{quiet:?}");
    }

    #[test]
    fn an_announcement_is_a_floor_and_limits_hold() {
        let mut rate = SourceRate::new(3_000_000);
        assert_eq!(feed(&mut rate, 0, 10, 1_000_000), []);
        assert_eq!(feed(&mut rate, 10, 10, 50_000_000), [BITRATE_MAX]);
    }
}
