//! Order and recovery of one SSRC's packets.
//!
//! Packets go in as they come and out as they were sent: at once while none is missing. Behind a
//! hole they wait while the missing ones are asked for, and go on without them when the hole has
//! lasted too long; nothing stays behind it, so delay ends with the loss that made it.
//!
//! ```text
//!        delivered | next: missing | held | held | missing | highest: held
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::unwrap;

/// Half a second of 40 Mbit/s: several times of what arrives during `WAIT_MAX`.
const PACKETS_MAX: usize = 2048;
const BYTES_MAX: usize = 4 << 20;
/// A larger loss is an outage: asking for so much would make it worse, a keyframe is smaller.
const MISSING_MAX: usize = 200;
/// A step that no loss explains (RFC 3550 A.1, MAX_DROPOUT): the sender began anew.
const JUMP_MIN: i64 = 3000;
/// How long a packet may be overtaken before it is asked for.
const REORDER_TIME: Duration = Duration::from_millis(5);
/// And by how many, the one that showed the gap included.
const REORDER_PACKETS: u64 = 2;
/// A request is not repeated sooner, nor within a round trip.
const REPEAT_MIN: Duration = Duration::from_millis(25);
const REQUESTS_MAX: u8 = 10;
const WAIT_MIN: Duration = Duration::from_millis(20);
/// Longer is a frozen picture: a keyframe comes sooner.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Beside two round trips: reordering before the first request and the sender's own time.
const WAIT_MARGIN: Duration = Duration::from_millis(30);
/// Holes given up that are remembered, to tell late packets from repeated ones.
const GIVEN_UP_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub timestamp: u32,
    pub marker: bool,
    /// Empty: padding only.
    pub payload: Bytes,
    pub received: Instant,
    /// Something before it was lost, or the sender began anew with it.
    pub gap: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Given up.
    pub lost: u64,
    /// Arrived after they had been asked for.
    pub recovered: u64,
    pub duplicate: u64,
    /// Arrived when they had been given up.
    pub late: u64,
    /// Packets asked for, repetitions included.
    pub nacks: u64,
}

pub(super) struct Window {
    /// The next to be delivered, and the highest seen; `None` before the first packet.
    edges: Option<Edges>,
    /// Between the edges a packet is in one of these two.
    held: BTreeMap<u64, Packet>,
    missing: BTreeMap<u64, Missing>,
    held_bytes: usize,
    /// In order; the owner takes them after every input.
    ready: VecDeque<Packet>,
    given_up: VecDeque<(u64, Missing)>,
    /// The packet delivered next has a hole before it.
    gap: bool,
    rtt: Option<Duration>,
    /// Before anything was measured.
    first_wait: Duration,
    counters: Counters,
}

#[derive(Clone, Copy)]
struct Edges {
    next: u64,
    highest: u64,
}

#[derive(Clone, Copy)]
struct Missing {
    since: Instant,
    /// The packet that showed that it is missing.
    shown_by: u64,
    requests: u8,
    requested: Option<Instant>,
    due: Instant,
}

impl Window {
    /// `first_wait`: how long a hole may last before a round trip was measured.
    pub(super) fn new(first_wait: Duration) -> Self {
        Self {
            edges: None,
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
            held_bytes: 0,
            ready: VecDeque::new(),
            given_up: VecDeque::new(),
            gap: false,
            rtt: None,
            first_wait,
            counters: Counters::default(),
        }
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Another SSRC, or none of the sender's numbers can be trusted: what is held goes out, and the next packet starts anew.
    pub(super) fn restart(&mut self) {
        self.give_up_until(None);
        self.edges = None;
        self.given_up.clear();
        self.gap = true;
    }

    /// A retransmission (RFC 4588) comes with its original number and never starts anything.
    pub(super) fn handle_packet(&mut self, number: u16, retransmitted: bool, packet: Packet) {
        let Some(edges) = self.edges else {
            if !retransmitted {
                self.start(number, packet);
            }
            return;
        };
        let sequence = unwrap::sequence(edges.highest, number);
        let step = sequence as i64 - edges.highest as i64;
        if step.abs() > JUMP_MIN {
            if retransmitted {
                self.counters.late += 1;
                return;
            }
            self.restart();
            return self.start(number, packet);
        }
        if step > 0 {
            self.extend(edges, sequence, packet);
        } else if sequence < edges.next {
            self.handle_old(sequence, packet.received);
        } else if let Some(missing) = self.missing.remove(&sequence) {
            self.handle_recovered(missing, packet.received);
            self.hold(sequence, packet);
        } else {
            self.counters.duplicate += 1;
        }
        self.deliver();
        self.shrink();
    }

    pub(super) fn poll_packet(&mut self) -> Option<Packet> {
        self.ready.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let request = self.missing.values().filter(|missing| missing.requests < REQUESTS_MAX).map(|missing| missing.due).min();
        let give_up = self.missing.first_key_value().map(|(_, missing)| missing.since + self.wait());
        request.into_iter().chain(give_up).min()
    }

    /// Gives up holes that have lasted too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let wait = self.wait();
        while let Some((&sequence, missing)) = self.missing.first_key_value()
            && missing.since + wait <= now
        {
            self.give_up_until(Some(sequence));
        }
    }

    /// The numbers to ask for now, in order.
    pub(super) fn poll_nack(&mut self, now: Instant) -> Option<Vec<u16>> {
        let interval = self.rtt.unwrap_or_default().max(REPEAT_MIN);
        let mut numbers = Vec::new();
        for (sequence, missing) in &mut self.missing {
            if missing.due <= now && missing.requests < REQUESTS_MAX {
                missing.requests += 1;
                missing.requested = Some(now);
                missing.due = now + interval;
                numbers.push(*sequence as u16);
            }
        }
        self.counters.nacks += numbers.len() as u64;
        (!numbers.is_empty()).then_some(numbers)
    }

    pub(super) fn is_within_bounds(&self) -> bool {
        self.held.len() <= PACKETS_MAX && self.held_bytes <= BYTES_MAX && self.missing.len() <= MISSING_MAX
    }

    fn start(&mut self, number: u16, packet: Packet) {
        let sequence = unwrap::first_sequence(number);
        self.edges = Some(Edges { next: sequence, highest: sequence });
        self.hold(sequence, packet);
        self.deliver();
    }

    /// A packet newer than all before it.
    fn extend(&mut self, edges: Edges, sequence: u64, packet: Packet) {
        let now = packet.received;
        let hole = edges.highest + 1..sequence;
        self.edges = Some(Edges { highest: sequence, ..edges });
        if self.missing.len() + hole.clone().count() > MISSING_MAX {
            self.give_up_until(None);
            self.counters.lost += hole.count() as u64;
            self.gap = true;
            self.edges = Some(Edges { next: sequence, highest: sequence });
        } else {
            for missing in hole {
                let due = now + REORDER_TIME;
                self.missing.insert(missing, Missing { since: now, shown_by: sequence, requests: 0, requested: None, due });
            }
        }
        for missing in self.missing.values_mut().rev() {
            if missing.requests > 0 {
                break; // So have all before it.
            }
            if sequence - missing.shown_by + 1 >= REORDER_PACKETS {
                missing.due = missing.due.min(now);
            }
        }
        self.hold(sequence, packet);
    }

    fn hold(&mut self, sequence: u64, packet: Packet) {
        self.held_bytes += packet.payload.len();
        self.held.insert(sequence, packet);
    }

    fn handle_recovered(&mut self, missing: Missing, now: Instant) {
        if missing.requests > 0 {
            self.counters.recovered += 1;
            self.measure(missing, now);
        }
    }

    fn handle_old(&mut self, sequence: u64, now: Instant) {
        let Some(place) = self.given_up.iter().position(|(number, _)| *number == sequence) else {
            self.counters.duplicate += 1;
            return;
        };
        self.counters.late += 1;
        if let Some((_, missing)) = self.given_up.remove(place) {
            self.measure(missing, now);
        }
    }

    /// A round trip, where one request and one answer belong together. Late answers count as well: they say that the wait is
    /// too short.
    fn measure(&mut self, missing: Missing, now: Instant) {
        let (1, Some(requested)) = (missing.requests, missing.requested) else { return };
        let sample = now.saturating_duration_since(requested).min(WAIT_MAX);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    fn wait(&self) -> Duration {
        self.rtt.map_or(self.first_wait, |rtt| rtt * 2 + WAIT_MARGIN).clamp(WAIT_MIN, WAIT_MAX)
    }

    /// Hands out what is in order.
    fn deliver(&mut self) {
        let Some(edges) = &mut self.edges else { return };
        while let Some(packet) = self.held.remove(&edges.next) {
            edges.next += 1;
            self.held_bytes -= packet.payload.len();
            let gap = std::mem::take(&mut self.gap);
            self.ready.push_back(Packet { gap, ..packet });
        }
    }

    /// Gives up the holes up to this number, or all, and delivers what they held back.
    fn give_up_until(&mut self, last: Option<u64>) {
        while let Some((&sequence, &missing)) = self.missing.first_key_value()
            && last.is_none_or(|last| sequence <= last)
        {
            self.missing.remove(&sequence);
            self.counters.lost += 1;
            self.gap = true;
            if self.given_up.len() == GIVEN_UP_MAX {
                self.given_up.pop_front();
            }
            self.given_up.push_back((sequence, missing));
            if let Some(edges) = &mut self.edges {
                edges.next = sequence + 1;
            }
            self.deliver();
        }
    }

    fn shrink(&mut self) {
        while self.held.len() > PACKETS_MAX || self.held_bytes > BYTES_MAX {
            let Some((&sequence, _)) = self.missing.first_key_value() else { return };
            self.give_up_until(Some(sequence));
        }
    }
}

#[cfg(test)]
mod tests;
