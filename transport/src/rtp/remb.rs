//! What a sender without transport-wide feedback may send, judged by loss (draft-ietf-rmcat-gcc-02 6).

use std::time::{Duration, Instant};

/// A judgement needs a second of packets, or loss is an accident.
const INTERVAL: Duration = Duration::from_secs(1);
const PACKETS_MIN: u64 = 20;
const LOSS_HIGH: f64 = 0.10;
const LOSS_LOW: f64 = 0.02;
const RISE_A_SECOND: f64 = 1.08;
/// Less is no picture.
const BITRATE_MIN: f64 = 150_000.0;

pub struct Remb {
    bitrate: f64,
    bitrate_max: f64,
    last: Option<Last>,
}

#[derive(Clone, Copy)]
struct Last {
    at: Instant,
    packets: u64,
    lost: u64,
}

impl Remb {
    /// Starts at the most that is allowed: a publisher's first picture shall not be a bad one.
    pub fn new(bitrate_max: u64) -> Self {
        let bitrate_max = (bitrate_max as f64).max(BITRATE_MIN);
        Self { bitrate: bitrate_max, bitrate_max, last: None }
    }

    /// `packets` that came and those `lost`, since the beginning; retransmitted ones were lost as well. Bits a second.
    pub fn update(&mut self, now: Instant, packets: u64, lost: u64) -> u64 {
        let last = *self.last.get_or_insert(Last { at: now, packets, lost });
        let passed = now.saturating_duration_since(last.at);
        if passed >= INTERVAL {
            let (packets_since, lost_since) = (packets.saturating_sub(last.packets), lost.saturating_sub(last.lost));
            self.judge(passed, packets_since + lost_since, lost_since);
            self.last = Some(Last { at: now, packets, lost });
        }
        self.bitrate as u64
    }

    fn judge(&mut self, passed: Duration, sent: u64, lost: u64) {
        if sent < PACKETS_MIN {
            return;
        }
        let loss = lost as f64 / sent as f64;
        if loss > LOSS_HIGH {
            self.bitrate *= 1.0 - 0.5 * loss;
        } else if loss < LOSS_LOW {
            self.bitrate *= RISE_A_SECOND.powf(passed.as_secs_f64());
        }
        self.bitrate = self.bitrate.clamp(BITRATE_MIN, self.bitrate_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_loss() {
        let mut now = Instant::now();
        let mut remb = Remb::new(8_000_000);
        let (mut packets, mut lost) = (0, 0);
        assert_eq!(remb.update(now, packets, lost), 8_000_000);
        let mut second = |received: u64, missing: u64| {
            now += Duration::from_secs(1);
            packets += received;
            lost += missing;
            remb.update(now, packets, lost)
        };
        assert_eq!(second(100, 0), 8_000_000, "it is capped");
        assert_eq!(second(70, 30), 6_800_000, "30 % lost: less by 15 %");
        assert_eq!(second(95, 5), 6_800_000, "5 %: as before");
        assert_eq!(second(5, 5), 6_800_000, "too few to judge");
        assert_eq!(second(100, 0), 7_344_000, "none: 8 % a second");
        assert_eq!(second(100, 0), 7_931_520);
        assert_eq!(second(100, 0), 8_000_000);
        for _ in 0..20 {
            second(0, 1000);
        }
        assert_eq!(second(0, 1000), 150_000, "never less");
        let before = remb.update(now, packets, lost);
        assert_eq!(remb.update(now + Duration::from_millis(300), packets, lost + 1000), before, "no judgement within a second");
    }
}
