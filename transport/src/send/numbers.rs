//! Transport-wide numbers of what one viewer is sent, and when each went out: what its feedback is compared with
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Picture, sound and retransmissions share one count. Eight bytes a packet are kept, and nothing is allocated once the ring
//! has grown to its size.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::rtp::TransportFeedback;

/// Packets that are remembered: a second and a half at 12 Mbit/s. What is told later is too old to act on.
const SENT_MAX: usize = 2048;
/// In which times are kept, as the feedback tells them.
const TICK_US: u32 = 250;
const TICKS_A_SECOND: u64 = 1_000_000 / TICK_US as u64;
/// IP and UDP around a datagram: the link carries them as well.
const OUTER_BYTES: u32 = 28;

pub struct Numbers {
    /// Times count from here.
    origin: Instant,
    /// The next packet's, unwrapped.
    next: u64,
    /// The newest ones.
    sent: VecDeque<Sent>,
    /// Newest arrival, in ticks of the viewer's clock, unwrapped.
    arrived: Option<i64>,
    /// They are part of a probe.
    probing: bool,
}

#[derive(Clone, Copy)]
struct Sent {
    /// Ticks since `origin`; it wraps after twelve days, when nothing so old is remembered.
    at: u32,
    bytes: u16,
    probe: bool,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Unknown,
    Lost,
    Arrived,
}

/// What became of one packet. Times are in ticks of 250 us, each of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub sent: i64,
    /// On the wire.
    pub bytes: u32,
    /// `None`: it is lost, or late.
    pub arrived: Option<i64>,
    pub probe: bool,
}

impl Numbers {
    pub fn new(now: Instant) -> Self {
        Self { origin: now, next: 0, sent: VecDeque::new(), arrived: None, probing: false }
    }

    /// What is sent from now on is part of a probe, or no longer.
    pub(crate) fn set_probing(&mut self, probing: bool) {
        self.probing = probing;
    }

    /// The number of a datagram of so many bytes that leaves now.
    pub fn take(&mut self, now: Instant, bytes: usize) -> u64 {
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.sent.push_back(Sent { at: self.ticks(now) as u32, bytes, probe: self.probing, fate: Fate::Unknown });
        self.next += 1;
        self.next - 1
    }

    /// The number that `take` gives next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A moment as `Outcome::sent` tells it.
    pub(crate) fn ticks(&self, now: Instant) -> i64 {
        ticks(now.saturating_duration_since(self.origin))
    }

    /// What a viewer tells, of each packet once: that it is missing, and that it has come.
    pub(crate) fn outcomes(&mut self, now: Instant, feedback: &TransportFeedback, out: &mut Vec<Outcome>) {
        let ticks = self.ticks(now);
        let behind = (self.next as u16).wrapping_sub(feedback.base);
        let Some(base) = self.next.checked_sub(u64::from(behind)) else { return };
        let first = self.next - self.sent.len() as u64;
        for (number, arrival) in (base..self.next).zip(&feedback.arrivals) {
            let Some(at) = number.checked_sub(first).and_then(|at| usize::try_from(at).ok()) else { continue };
            let Some(sent) = self.sent.get_mut(at) else { continue };
            let fate = if arrival.is_some() { Fate::Arrived } else { Fate::Lost };
            // Lost may still arrive; what has arrived stays so.
            if sent.fate == Fate::Arrived || sent.fate == fate {
                continue;
            }
            sent.fate = fate;
            let sent = *sent;
            let arrived = arrival.map(|raw| self.unwrap(raw));
            let age = i64::from((ticks as u32).wrapping_sub(sent.at));
            out.push(Outcome { sent: ticks - age, bytes: u32::from(sent.bytes) + OUTER_BYTES, arrived, probe: sent.probe });
        }
    }

    fn unwrap(&mut self, raw: u32) -> i64 {
        let arrived = match self.arrived {
            Some(newest) => newest.saturating_add(i64::from(raw.wrapping_sub(newest as u32) as i32)),
            None => i64::from(raw),
        };
        self.arrived = self.arrived.max(Some(arrived));
        arrived
    }
}

pub(crate) const fn ticks(duration: Duration) -> i64 {
    (duration.as_secs() * TICKS_A_SECOND + (duration.subsec_micros() / TICK_US) as u64) as i64
}

/// Of so many ticks, none for what is below 0.
pub(crate) fn duration(ticks: i64) -> Duration {
    Duration::from_micros(u64::try_from(ticks).unwrap_or(0).saturating_mul(u64::from(TICK_US)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn outcomes(numbers: &mut Numbers, now: Instant, base: u16, arrivals: &[Option<u32>]) -> Vec<(i64, Option<i64>)> {
        let mut out = Vec::new();
        numbers.outcomes(now, &TransportFeedback { base, arrivals: arrivals.to_vec() }, &mut out);
        out.iter().map(|outcome| (outcome.sent, outcome.arrived)).collect()
    }

    #[test]
    fn each_packet_is_told_of_once() {
        let start = Instant::now();
        let mut numbers = Numbers::new(start);
        for number in 0..4 {
            assert_eq!(numbers.take(start + number * 10 * MS, 1200), u64::from(number));
        }
        let now = start + 100 * MS;
        let arrivals = [Some(1000), None, Some(1080)];
        assert_eq!(outcomes(&mut numbers, now, 0, &arrivals), [(0, Some(1000)), (40, None), (80, Some(1080))]);
        assert_eq!(outcomes(&mut numbers, now, 0, &arrivals), [], "the same again is no news");
        assert_eq!(outcomes(&mut numbers, now, 1, &[Some(1090)]), [(40, Some(1090))], "the missing one has come");
        assert_eq!(outcomes(&mut numbers, now, 3, &[Some(1), Some(2)])[0].0, 120, "what was never sent is not told of");
        assert_eq!(outcomes(&mut numbers, now, 60_000, &[Some(1)]), []);
    }

    #[test]
    fn the_ring_is_bounded_and_numbers_wrap() {
        let start = Instant::now();
        let mut numbers = Numbers::new(start);
        for number in 0..70_000 {
            numbers.take(start + number * MS, 100);
        }
        assert_eq!(numbers.sent.len(), SENT_MAX);
        let now = start + 70_000 * MS;
        assert_eq!(outcomes(&mut numbers, now, (69_999 % 65_536) as u16, &[Some(5)]), [(69_999 * 4, Some(5))]);
        assert_eq!(outcomes(&mut numbers, now, 70_000_u32.wrapping_sub(4000) as u16, &[Some(5)]), [], "it is forgotten");
        let after_twelve_days = start + Duration::from_secs(13 * 86_400);
        numbers.take(after_twelve_days, 100);
        let told = outcomes(&mut numbers, after_twelve_days + MS, (70_000 % 65_536) as u16, &[Some(5)]);
        assert_eq!(told[0].0, 13 * 86_400 * 4000);
    }

    #[test]
    fn arrivals_go_on_where_the_clock_of_the_viewer_wraps() {
        let start = Instant::now();
        let mut numbers = Numbers::new(start);
        (0..3).for_each(|_| _ = numbers.take(start, 100));
        let told = outcomes(&mut numbers, start, 0, &[Some(u32::MAX), Some(3), Some(u32::MAX - 4)]);
        let at: Vec<i64> = told.iter().map(|(_, arrived)| arrived.unwrap()).collect();
        assert_eq!([at[1] - at[0], at[2] - at[0]], [4, -4]);
    }
}
