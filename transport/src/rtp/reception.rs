//! What a receiver reports of one source: loss (RFC 3550 A.3) and jitter (A.8).

use std::time::Instant;

use rtc_rtcp::reception_report::ReceptionReport;

use super::unwrap;

/// RFC 3550 A.1, MAX_DROPOUT: past it the sender began anew, and so does the count.
const JUMP_MIN: i64 = 3000;
/// 24 bits, signed; duplicates can make it negative, which is told as none lost.
const LOST_MAX: i64 = 0x7f_ffff;

#[derive(Default)]
pub(super) struct Reception {
    source: Option<Source>,
    sender_report: Option<SenderReport>,
}

/// RTP and NTP time of one moment, as its sender tells.
#[derive(Clone, Copy)]
pub(super) struct SenderReport {
    pub ntp: u64,
    pub rtp: u32,
    pub received: Instant,
}

struct Source {
    base: u64,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Of the last packet, to compare the next with.
    timestamp: u32,
    at: Instant,
    /// In ticks, scaled by 16 as in A.8.
    jitter: u32,
}

impl Reception {
    pub(super) fn handle_packet(&mut self, now: Instant, number: u16, timestamp: u32, clock_rate: u32) {
        let Some(source) = &mut self.source else {
            self.source = Some(Source::new(now, number, timestamp));
            return;
        };
        let sequence = unwrap::sequence(source.highest, number);
        if (sequence as i64 - source.highest as i64).abs() > JUMP_MIN {
            *source = Source::new(now, number, timestamp);
            return;
        }
        source.received += 1;
        source.highest = source.highest.max(sequence);
        source.measure_jitter(now, timestamp, clock_rate);
    }

    pub(super) fn handle_sender_report(&mut self, report: SenderReport) {
        self.sender_report = Some(report);
    }

    pub(super) fn sender_report(&self) -> Option<SenderReport> {
        self.sender_report
    }

    pub(super) fn report(&mut self, now: Instant, ssrc: u32) -> ReceptionReport {
        let (last_sender_report, delay) = self.sender_report.map_or((0, 0), |report| {
            let since = now.saturating_duration_since(report.received).as_micros() * 65_536 / 1_000_000;
            ((report.ntp >> 16) as u32, u32::try_from(since).unwrap_or(u32::MAX))
        });
        let report = ReceptionReport { ssrc, last_sender_report, delay, ..ReceptionReport::default() };
        let Some(source) = &mut self.source else { return report };
        ReceptionReport {
            fraction_lost: source.fraction_lost(),
            total_lost: (source.expected() as i64 - source.received as i64).clamp(0, LOST_MAX) as u32,
            // Cycles above, number below; one cycle is how far above zero counting began.
            last_sequence_number: (source.highest - (1 << 16)) as u32,
            jitter: source.jitter >> 4,
            ..report
        }
    }
}

impl Source {
    fn new(now: Instant, number: u16, timestamp: u32) -> Self {
        let base = unwrap::first_sequence(number);
        Self { base, highest: base, received: 1, expected_before: 0, received_before: 0, timestamp, at: now, jitter: 0 }
    }

    fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    /// Since the last report, in 1/256.
    fn fraction_lost(&mut self) -> u8 {
        let expected = self.expected() - self.expected_before;
        let received = self.received - self.received_before;
        (self.expected_before, self.received_before) = (self.expected(), self.received);
        let lost = expected.saturating_sub(received);
        (lost * 256).checked_div(expected).unwrap_or(0).min(255) as u8
    }

    fn measure_jitter(&mut self, now: Instant, timestamp: u32, clock_rate: u32) {
        let passed = now.saturating_duration_since(self.at).as_micros() * u128::from(clock_rate) / 1_000_000;
        let step = timestamp.wrapping_sub(self.timestamp);
        let off = (passed as u32).wrapping_sub(step) as i32;
        (self.timestamp, self.at) = (timestamp, now);
        // A clock that was set anew is no jitter.
        if off.unsigned_abs() < clock_rate {
            self.jitter = self.jitter + off.unsigned_abs() - ((self.jitter + 8) >> 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn loss_is_counted_as_the_rfc_does() {
        let start = Instant::now();
        let mut reception = Reception::default();
        let empty = reception.report(start, 7);
        assert_eq!((empty.ssrc, empty.fraction_lost, empty.total_lost, empty.last_sequence_number), (7, 0, 0, 0));
        // Three of four arrive, over the wrap.
        for step in (0..400_u32).filter(|step| step % 4 != 1) {
            reception.handle_packet(start, 65_400_u16.wrapping_add(step as u16), 0, 90_000);
        }
        let report = reception.report(start, 7);
        assert_eq!((report.fraction_lost, report.total_lost, report.last_sequence_number), (64, 100, (1 << 16) + 263));
        let next = reception.report(start, 7);
        assert_eq!((next.fraction_lost, next.total_lost), (0, 100), "nothing was expected since");
        for _ in 0..300 {
            reception.handle_packet(start, 263, 0, 90_000);
        }
        assert_eq!(reception.report(start, 7).total_lost, 0, "duplicates do not make it negative");
        reception.handle_packet(start, 30_000, 0, 90_000);
        let restarted = reception.report(start, 7);
        assert_eq!((restarted.fraction_lost, restarted.total_lost, restarted.last_sequence_number), (0, 0, 30_000));
    }

    #[test]
    fn jitter_is_the_mean_deviation_of_arrivals() {
        let start = Instant::now();
        let mut reception = Reception::default();
        for step in 0..500_u32 {
            let late = Duration::from_millis(u64::from(step % 2) * 10);
            let at = start + Duration::from_millis(20 * u64::from(step)) + late;
            reception.handle_packet(at, step as u16, (u32::MAX - 5000).wrapping_add(960 * step), 48_000);
        }
        let jitter = reception.report(start, 1).jitter;
        assert!((470..=490).contains(&jitter), "10 ms either way are 480 ticks: {jitter}");
        reception.handle_packet(start + Duration::from_secs(11), 500, 1 << 31, 48_000);
        assert!(reception.report(start, 1).jitter <= jitter, "a jump is no jitter");
    }

    #[test]
    fn the_last_sender_report_is_named_with_its_age() {
        let start = Instant::now();
        let mut reception = Reception::default();
        reception.handle_sender_report(SenderReport { ntp: 0x1111_2222_3333_4444, rtp: 5, received: start });
        let report = reception.report(start + Duration::from_millis(1500), 1);
        assert_eq!((report.last_sender_report, report.delay), (0x2222_3333, 98_304));
        assert_eq!(reception.report(start + Duration::from_secs(1 << 20), 1).delay, u32::MAX);
    }
}
