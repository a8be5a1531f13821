//! Bodies of the fuzz targets for this module: nothing may panic, and no peer may make us keep much.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_rtp::Header;

use super::{
    Codec, Receiver,
    depacketize::{Depacketizer, Output, Piece},
    h264::packetize,
};

/// H.264: what we take from one peer we can send to another.
pub fn depacketize(received: Instant, data: &[u8]) {
    depacketize_as(Codec::H264, received, data, |unit| {
        check_nals(unit, 1);
        for payload in packetize(unit, None, 100) {
            assert!((1..=100).contains(&payload.len()), "payloads keep their limit");
        }
    });
}

pub fn depacketize_hevc(received: Instant, data: &[u8]) {
    depacketize_as(Codec::Hevc, received, data, |unit| check_nals(unit, 3));
}

pub fn depacketize_av1(received: Instant, data: &[u8]) {
    depacketize_as(Codec::Av1, received, data, check_obus);
}

/// Payloads as the bytes cut them: a byte of length, one of flags, then the payload.
fn depacketize_as(codec: Codec, received: Instant, mut data: &[u8], check: impl Fn(&[u8])) {
    let mut depacketizer = Depacketizer::new(codec).expect("it is a picture's");
    let mut timestamp = 0_u32;
    while let [length, flags, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        timestamp = timestamp.wrapping_add(u32::from(flags >> 2 & 1) * 3000);
        let (marker, gap) = (flags & 1 != 0, flags & 2 != 0);
        depacketizer.handle_piece(&Piece { timestamp, marker, gap, payload: Bytes::copy_from_slice(payload), received });
        while let Some(output) = depacketizer.poll() {
            if let Output::Whole(unit) = output {
                check(&unit.payload);
            }
        }
    }
}

/// NAL units of at least so many bytes, behind their lengths, up to the end.
fn check_nals(unit: &[u8], bytes_min: usize) {
    let mut rest = unit;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().expect("an access unit of ours ends with a whole NAL unit");
        let length = u32::from_be_bytes(*length) as usize;
        assert!(length >= bytes_min, "a NAL unit has its header");
        rest = &behind[length..];
    }
}

/// OBUs behind their sizes up to the end, without delimiters; one of them begins a picture.
fn check_obus(unit: &[u8]) {
    let (mut rest, mut pictures) = (unit, 0);
    while let [header, behind @ ..] = rest {
        assert_eq!(header & 0x82, 0x02, "an OBU of ours has its size");
        let behind = if header & 4 != 0 { &behind[1..] } else { behind };
        let end = behind.iter().position(|byte| byte & 0x80 == 0).expect("a size of ours ends");
        let size: usize = (0..=end).map(|at| usize::from(behind[at] & 0x7f) << (7 * at)).sum();
        rest = &behind[end + 1..][size..];
        let kind = header >> 3 & 0x0f;
        assert!(![2, 7, 8, 15].contains(&kind), "nothing that a temporal unit on its own has no use for");
        pictures += usize::from(kind == 3 || kind == 6);
    }
    assert!(pictures > 0, "a temporal unit shows something");
}

pub fn rtcp(data: &[u8]) {
    let packets = super::rtcp::parse(data);
    assert!(packets.len() <= data.len(), "a datagram yields no more than it holds");
    let told: usize = packets.iter().map(statuses).sum();
    assert!(told <= 4096, "what one datagram tells of packets is bounded: {told}");
}

fn statuses(packet: &super::rtcp::Packet) -> usize {
    let super::rtcp::Packet::TransportFeedback(feedback) = packet else { return 0 };
    assert!(!feedback.arrivals.is_empty(), "a message tells of something");
    feedback.arrivals.len()
}

/// A script of packets, four bytes each and a payload of a few: what, how far, when, how long.
pub fn receiver(now: Instant, data: &[u8]) {
    for codec in [Codec::H264, Codec::Hevc, Codec::Av1, Codec::Opus] {
        run(codec, now, data);
    }
    check_order(now, data);
}

/// Sound whose timestamps are its numbers: it comes out in order, once, and each hole is told.
fn check_order(mut now: Instant, data: &[u8]) {
    let mut receiver = Receiver::new(Codec::Opus);
    let mut newest = 1000_u32;
    let mut before = None;
    for &byte in data {
        now += Duration::from_millis(u64::from(byte >> 6));
        let number = newest.wrapping_add(u32::from(byte % 8)).wrapping_sub(3);
        newest = newest.max(number);
        let header = Header { version: 2, sequence_number: number as u16, timestamp: number, ..Header::default() };
        receiver.handle_packet(now, &header, Bytes::from_static(&[0xf8]));
        receiver.handle_timeout(now);
        while receiver.poll_feedback(now).is_some() {}
        while let Some(frame) = receiver.poll_frame() {
            if let Some(before) = before.replace(frame.timestamp) {
                assert!(frame.timestamp > before, "sound comes out in order and once");
                assert_eq!(frame.timestamp - before > 1, frame.damaged_before, "a hole is told");
            }
        }
    }
}

fn run(codec: Codec, mut now: Instant, mut data: &[u8]) {
    let mut receiver = Receiver::new(codec);
    let mut header = Header { version: 2, ssrc: 1, sequence_number: 65_500, timestamp: u32::MAX - 9000, ..Header::default() };
    while let [what, step, wait, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        now += Duration::from_millis(u64::from(*wait));
        let step = u16::from(*step);
        match what >> 5 {
            0 => header.sequence_number = header.sequence_number.wrapping_add(step << 8),
            1 => header.sequence_number = header.sequence_number.wrapping_sub(step),
            2 => header.timestamp = header.timestamp.wrapping_add(u32::from(step) << 24),
            3 => header.ssrc = u32::from(step),
            4 => receiver.handle_sender_report(now, u64::from(step) << 32, header.timestamp),
            5 => header.timestamp = header.timestamp.wrapping_add(3000),
            _ => header.sequence_number = header.sequence_number.wrapping_add(step % 4),
        }
        header.marker = what & 1 != 0;
        let payload = Bytes::copy_from_slice(payload);
        match what & 4 {
            0 => receiver.handle_packet(now, &header, payload),
            _ => receiver.handle_rtx(now, &header, payload),
        }
        if what & 8 != 0 {
            receiver.handle_timeout(now);
            while receiver.poll_feedback(now).is_some() {}
            assert!(receiver.poll_timeout().is_none_or(|due| due > now), "what is due was done");
            _ = receiver.report(now, 1);
        }
        assert!(receiver.is_within_bounds(), "the window keeps its limits");
        while let Some(frame) = receiver.poll_frame() {
            assert!(frame.first_received <= frame.received && frame.received <= now, "a frame comes out when it is there");
        }
        header.sequence_number = header.sequence_number.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short run of what the fuzzer does for hours: random scripts, and scripts of likely values.
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
        for round in 0..3000 {
            let length = random() as usize % 400;
            let data: Vec<u8> = (0..length)
                .map(|_| match random() % if round % 2 == 0 { 1 } else { 3 } {
                    0 => random() as u8,
                    1 => [0, 1, 2, 4, 8, 0x18, 0x1c, 0x41, 0x65, 0x67, 0x68, 0x85, 0xc5, 0xc8, 0xe9][random() as usize % 15],
                    _ => random() as u8 % 12,
                })
                .collect();
            depacketize(now, &data);
            depacketize_hevc(now, &data);
            depacketize_av1(now, &data);
            rtcp(&data);
            receiver(now, &data);
        }
    }
}
