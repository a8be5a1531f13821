//! When a viewer's packets arrived, as it tells us (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! One message is read whole or not at all: a delta that is missing would move all arrivals behind it.

/// Packets that the messages of one datagram may tell of: those of a quarter of a second at a hundred megabits, as a viewer gets
/// them that joins. A run of two bytes may name eight thousand.
pub(super) const STATUSES_MAX: usize = 4096;

/// Of units of 250 us in which arrivals are told, one of reference time holds so many: 64 ms.
const TICKS_A_REFERENCE: u32 = 256;
/// Base number, how many packets, reference time and the message's own number: behind the two SSRCs.
const FIXED_BYTES: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportFeedback {
    /// Transport-wide number of the first packet that it tells of.
    pub base: u16,
    /// Of each packet from there on, when it arrived; `None`: it did not, so far. In units of 250 us of a clock of the
    /// viewer's own, which wraps.
    pub arrivals: Vec<Option<u32>>,
}

#[derive(Clone, Copy)]
enum Status {
    Missing,
    /// One byte.
    Small,
    /// Two bytes, with a sign.
    Large,
}

impl Status {
    /// The fourth symbol is reserved.
    fn of(symbol: u16) -> Option<Self> {
        match symbol {
            0 => Some(Self::Missing),
            1 => Some(Self::Small),
            2 => Some(Self::Large),
            _ => None,
        }
    }
}

/// `body` begins with the SSRCs. `room`: so many packets it may tell of.
pub(super) fn parse(body: &[u8], room: usize) -> Option<TransportFeedback> {
    let (fixed, rest) = body.get(8..)?.split_first_chunk::<FIXED_BYTES>()?;
    let [base_high, base_low, count_high, count_low, time_high, time_middle, time_low, _] = *fixed;
    let count = usize::from(u16::from_be_bytes([count_high, count_low]));
    if count == 0 || count > room {
        return None;
    }
    let (statuses, mut deltas) = parse_statuses(rest, count)?;
    let mut at = u32::from_be_bytes([0, time_high, time_middle, time_low]).wrapping_mul(TICKS_A_REFERENCE);
    let mut arrivals = Vec::with_capacity(count);
    for status in statuses {
        let delta = match status {
            Status::Missing => {
                arrivals.push(None);
                continue;
            }
            Status::Small => {
                let (delta, behind) = deltas.split_first()?;
                deltas = behind;
                u32::from(*delta)
            }
            Status::Large => {
                let (delta, behind) = deltas.split_first_chunk()?;
                deltas = behind;
                i32::from(i16::from_be_bytes(*delta)) as u32
            }
        };
        at = at.wrapping_add(delta);
        arrivals.push(Some(at));
    }
    Some(TransportFeedback { base: u16::from_be_bytes([base_high, base_low]), arrivals })
}

/// Chunks of two bytes until all packets have a status (3.1.2 to 3.1.4); and what follows them.
fn parse_statuses(mut rest: &[u8], count: usize) -> Option<(Vec<Status>, &[u8])> {
    let mut statuses = Vec::with_capacity(count);
    while statuses.len() < count {
        let (chunk, behind) = rest.split_first_chunk()?;
        rest = behind;
        let chunk = u16::from_be_bytes(*chunk);
        let left = count - statuses.len();
        match chunk >> 14 {
            0b00 | 0b01 => {
                let status = Status::of(chunk >> 13 & 3)?;
                let run = usize::from(chunk & 0x1fff);
                // A run of nothing tells of nothing: its sender counts in another way.
                if run == 0 {
                    return None;
                }
                statuses.extend(std::iter::repeat_n(status, run.min(left)));
            }
            0b10 => {
                for bit in (0..14).rev().take(left) {
                    statuses.push(Status::of(chunk >> bit & 1)?);
                }
            }
            _ => {
                for place in (0..7).rev().take(left) {
                    statuses.push(Status::of(chunk >> (2 * place) & 3)?);
                }
            }
        }
    }
    Some((statuses, rest))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::rtp::{
        Arrivals,
        rtcp::{self, Packet},
    };

    fn read(message: &[u8]) -> Option<TransportFeedback> {
        rtcp::parse(message).into_iter().find_map(|packet| match packet {
            Packet::TransportFeedback(feedback) => Some(feedback),
            _ => None,
        })
    }

    /// What this server tells publishers is read by the same rules.
    #[test]
    fn what_arrived_and_what_did_not_is_read() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let told = [(65_533_u16, 1000_u64), (65_534, 1001), (1, 1100), (2, 1101), (3, 1090), (40, 1200)];
        for (number, ms) in told {
            arrivals.record(start + Duration::from_millis(ms), number, 7);
        }
        let message = arrivals.poll_feedback(start + Duration::from_secs(2)).unwrap();
        let feedback = read(&message).unwrap();
        assert_eq!(feedback.base, 65_533);
        let known = feedback.arrivals.iter().enumerate().filter_map(|(at, arrival)| Some((at, (*arrival)?)));
        let known: Vec<_> = known.map(|(at, ticks)| (65_533_u16.wrapping_add(at as u16), u64::from(ticks) / 4)).collect();
        assert_eq!(known, told);
        assert_eq!(feedback.arrivals.len(), 44);
    }

    #[test]
    fn chunks_of_each_kind_are_read_and_the_rest_is_refused() {
        let message = |count: u16, rest: &[u8]| {
            let words = (16 + rest.len()).div_ceil(4);
            let mut bytes = vec![0x8f, 205, 0, words as u8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 10];
            bytes.extend(count.to_be_bytes());
            bytes.extend([0, 0, 1, 9]);
            bytes.extend(rest);
            bytes.resize(4 + words * 4, 0);
            read(&bytes).map(|feedback| feedback.arrivals)
        };
        let check = |count, rest: &[u8], arrivals| assert_eq!(message(count, rest), arrivals, "{count} {rest:02x?}");
        check(2, &[0x20, 2, 4, 8], Some(vec![Some(260), Some(268)]));
        check(2, &[0x20, 9, 4, 8], Some(vec![Some(260), Some(268)]));
        check(2, &[0x40, 2, 0xff, 0xff, 0, 1], Some(vec![Some(255), Some(256)]));
        check(3, &[0x80 | 0x20, 0, 7], Some(vec![Some(263), None, None]));
        check(3, &[0xc0 | 0x06, 0, 1, 0, 7], Some(vec![None, Some(257), Some(264)]));
        check(3, &[0xc0 | 0x12, 0, 5, 0, 7], Some(vec![Some(261), None, Some(268)]));
        check(0, &[0x20, 2, 4, 8], None);
        check(2, &[0, 0, 0, 0], None);
        check(2, &[0x60, 2, 4, 8], None);
        check(20, &[0x20, 20, 4, 8], None);
        check(5000, &[0x1f, 0xff], None);
        check(4000, &[0x1f, 0xff], Some(vec![None; 4000]));
    }
}
