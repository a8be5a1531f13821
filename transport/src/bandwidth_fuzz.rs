//! The body of the fuzz target for what a viewer tells of its way: bytes script what is sent, what is told and what time does.
//!
//! ```text
//! script: (what, which, wait in ms, length, bytes) over and over
//! ```
//!
//! Nothing may panic or spin, what is told at random is taken no more than once, and what is sent to try the way is bounded.

use std::time::{Duration, Instant};

use crate::{
    rtp::{
        TransportFeedback,
        rtcp::{self, Packet},
    },
    send::Bandwidth,
};

/// Nothing is probed beyond that: bytes in a second, and what one portion may be too much.
const PADDING_MAX: u64 = 25_000_000 / 8 + 50_000;

pub fn fuzz(now: Instant, data: &[u8]) {
    let Some((variant, script)) = data.split_first() else { return };
    run(now, Bandwidth::new(now, variant & 1 == 0), script);
}

fn run(mut now: Instant, mut bandwidth: Bandwidth, mut script: &[u8]) {
    let (mut padded, mut since) = (0, now);
    while let [what, which, wait, length, rest @ ..] = script {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        script = rest;
        now += Duration::from_millis(u64::from(*wait) << (what >> 6));
        act(&mut bandwidth, now, what & 7, *which, bytes);
        let due = bandwidth.poll_bytes(now);
        padded += due;
        if due > 0 {
            send(&mut bandwidth, now, 1200, due.div_ceil(1200));
        }
        assert!(bandwidth.poll_timeout().is_none_or(|at| at > now), "what is due was done");
        assert!(bandwidth.poll_bitrate(now).is_none_or(|bitrate| bitrate >= 50_000), "a way carries something");
        assert_eq!(bandwidth.poll_bitrate(now), None, "it is told once");
        if now >= since + Duration::from_secs(1) {
            (padded, since) = (0, now);
        }
        assert!(padded <= PADDING_MAX, "{padded} bytes to try the way in a second");
    }
}

fn act(bandwidth: &mut Bandwidth, now: Instant, what: u8, which: u8, bytes: &[u8]) {
    match what {
        0 | 1 => send(bandwidth, now, bytes.first().map_or(1200, |size| usize::from(*size) * 5), u64::from(which)),
        2 => bandwidth.aim((which > 0).then(|| u64::from(which) * 100_000)),
        // As a viewer tells it: how long after the one before each of the last packets came, or that it did not.
        3 | 4 => {
            let next = bandwidth.numbers().map_or(0, |numbers| numbers.next());
            let mut at = u32::from(which) << 24;
            let arrivals = bytes.iter().map(|step| {
                at = at.wrapping_add(u32::from(*step) * u32::from(what));
                (*step < 0xf0).then_some(at)
            });
            let (base, arrivals) = ((next as u16).wrapping_sub(bytes.len() as u16), arrivals.collect());
            bandwidth.handle_feedback(now, &TransportFeedback { base, arrivals });
        }
        _ => hear(bandwidth, now, bytes),
    }
}

fn send(bandwidth: &mut Bandwidth, now: Instant, bytes: usize, packets: u64) {
    for _ in 0..packets {
        if let Some(numbers) = bandwidth.numbers() {
            numbers.take(now, bytes);
        }
        bandwidth.sent(now, bytes);
    }
}

/// Anything that is RTCP.
fn hear(bandwidth: &mut Bandwidth, now: Instant, bytes: &[u8]) {
    for packet in rtcp::parse(bytes) {
        match packet {
            Packet::TransportFeedback(feedback) => bandwidth.handle_feedback(now, &feedback),
            Packet::Reception(reception) => bandwidth.handle_reception(now, &reception),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short run of what the fuzzer does for hours: scripts of likely steps.
    #[test]
    fn random_scripts_hold() {
        let now = Instant::now();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..1500 {
            let mut data = vec![round as u8];
            for _ in 0..random() % 60 {
                let length = random() as u8 % 40;
                data.extend([random() as u8 % 8, random() as u8, random() as u8 % 120, length]);
                data.extend((0..length).map(|_| if round % 3 == 0 { random() as u8 } else { random() as u8 % 32 }));
            }
            fuzz(now, &data);
        }
    }
}
