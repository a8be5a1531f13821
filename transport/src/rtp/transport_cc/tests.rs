//! What is written is read by a reader of its own, written from the draft.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Of a message: its base, and of each number the arrival in units of 250 us.
fn read(packet: &[u8]) -> (u16, Vec<Option<i64>>) {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    assert_eq!((packet[0] & 0xdf, packet[1]), (0x8f, 205), "version, format, type");
    assert_eq!(usize::from(word(2)) * 4 + 4, packet.len(), "length");
    let padding = if packet[0] & 0x20 != 0 { usize::from(packet[packet.len() - 1]) } else { 0 };
    assert!(padding < 4);
    let (base, count) = (word(12), usize::from(word(14)));
    let reference = i64::from(u32::from_be_bytes([0, packet[16], packet[17], packet[18]]));
    let mut at = 20;
    let mut symbols = Vec::new();
    while symbols.len() < count {
        let chunk = word(at);
        at += 2;
        match (chunk >> 15, chunk >> 14 & 1) {
            (0, _) => symbols.extend((0..chunk & 0x1fff).map(|_| chunk >> 13 & 3)),
            (_, 0) => symbols.extend((0..14).rev().map(|bit| chunk >> bit & 1)),
            _ => symbols.extend((0..7).rev().map(|pair| chunk >> (2 * pair) & 3)),
        }
    }
    assert!(symbols[count..].iter().all(|symbol| *symbol == 0), "what is over is not received");
    symbols.truncate(count);
    let mut time = reference * 256;
    let arrivals = symbols
        .iter()
        .map(|symbol| {
            let (delta, bytes) = match symbol {
                0 => return None,
                1 => (i64::from(packet[at]), 1),
                2 => (i64::from(word(at) as i16), 2),
                _ => panic!("a reserved symbol"),
            };
            at += bytes;
            time += delta;
            Some(time)
        })
        .collect();
    assert_eq!(at + padding, packet.len(), "nothing else is in it");
    (base, arrivals)
}

/// Packets (number, millisecond), and of all messages at the end: base, and arrivals in milliseconds.
fn check(packets: &[(u16, u64)], expected: &[(u16, &[Option<u64>])]) {
    let start = Instant::now();
    let mut arrivals = Arrivals::new(start);
    for (number, ms) in packets {
        arrivals.record(start + *ms as u32 * MS, *number, 7);
    }
    let end = start + Duration::from_secs(3600);
    let messages: Vec<_> = std::iter::from_fn(|| arrivals.poll_feedback(end)).map(|bytes| read(&bytes)).collect();
    let expected: Vec<(u16, Vec<Option<i64>>)> =
        expected.iter().map(|(base, arrivals)| (*base, arrivals.iter().map(|ms| ms.map(|ms| ms as i64 * 4)).collect())).collect();
    assert_eq!(messages, expected, "{packets:?}");
}

#[test]
fn messages_say_what_arrived_and_when() {
    check(&[], &[]);
    check(&[(5, 1000)], &[(5, &[Some(1000)])]);
    check(&[(5, 1000), (6, 1001), (9, 1005)], &[(5, &[Some(1000), Some(1001), None, None, Some(1005)])]);
    check(&[(65_535, 1), (0, 2), (1, 300)], &[(65_535, &[Some(1), Some(2), Some(300)])]);
    check(&[(5, 100), (7, 101), (6, 102)], &[(5, &[Some(100), Some(102), Some(101)])]); // a negative delta
    check(&[(5, 100), (6, 100), (5, 200)], &[(5, &[Some(100), Some(100)])]); // sent twice
    check(&[(5, 0), (6, 9000)], &[(5, &[Some(0)]), (6, &[Some(9000)])]); // too far apart for one
    check(&[(5, 0), (1000, 1)], &[(5, &[Some(0)]), (1000, &[Some(1)])]); // another beginning
}

#[test]
fn every_pattern_of_loss_can_be_read() {
    let mut seed = 1_u32;
    for round in 0..600 {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let mut sent = Vec::new();
        let mut ms = 0;
        for number in 0..150_u16 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let chance = seed >> 24;
            ms += if chance % 16 < round % 4 { 80 } else { 1 };
            if chance >= round % 200 || number == 0 {
                arrivals.record(start + ms * MS, number.wrapping_add(65_500), 7);
                sent.push((number.wrapping_add(65_500), i64::from(ms) * 4));
            }
        }
        let bytes = arrivals.poll_feedback(start + ms * MS + INTERVAL).unwrap();
        assert!(bytes.len() < 1000);
        let (base, read) = read(&bytes);
        let told: Vec<_> = read.iter().zip(0_u16..).filter_map(|(at, place)| Some((base.wrapping_add(place), (*at)?))).collect();
        assert_eq!(told, sent, "round {round}");
    }
}

#[test]
fn a_late_packet_is_told_without_its_neighbours() {
    let start = Instant::now();
    let mut arrivals = Arrivals::new(start);
    for number in [5, 6, 9] {
        arrivals.record(start, number, 7);
    }
    let bytes = arrivals.poll_feedback(start + INTERVAL).unwrap();
    assert_eq!(bytes[19], 0);
    arrivals.record(start + 60 * MS, 10, 7);
    arrivals.record(start + 70 * MS, 8, 7);
    let messages: Vec<_> = std::iter::from_fn(|| arrivals.poll_feedback(start + 200 * MS)).collect();
    assert_eq!(messages.iter().map(|bytes| read(bytes)).collect::<Vec<_>>(), [(8, vec![Some(280)]), (10, vec![Some(240)])]);
    assert_eq!(messages.iter().map(|bytes| bytes[19]).collect::<Vec<_>>(), [1, 2], "messages are numbered");
}

#[test]
fn feedback_comes_in_time_and_keeps_little() {
    let start = Instant::now();
    let mut arrivals = Arrivals::new(start);
    assert_eq!(arrivals.poll_timeout(), None);
    arrivals.record(start + MS, 1, 7);
    arrivals.record(start + 20 * MS, 2, 7);
    assert_eq!(arrivals.poll_timeout(), Some(start + MS + INTERVAL));
    assert_eq!(arrivals.poll_feedback(start + 20 * MS), None);
    assert!(arrivals.poll_feedback(start + MS + INTERVAL).is_some());
    assert_eq!(arrivals.poll_timeout(), None);
    for number in 3..3 + PENDING_DUE as u16 {
        arrivals.record(start + 100 * MS, number, 7);
    }
    assert_eq!(arrivals.poll_timeout(), Some(start + 100 * MS), "many are due at once");
    for number in 0..5000 {
        arrivals.record(start + 100 * MS, 1000 + number, 7);
    }
    assert_eq!(arrivals.pending.len(), PENDING_MAX);
    let messages = std::iter::from_fn(|| arrivals.poll_feedback(start + 100 * MS)).count();
    assert_eq!(messages, 3);
    // Longer than 24 bits of 64 ms.
    let late = start + Duration::from_secs(20 * 86_400);
    arrivals.record(late, 6001, 7);
    let (_, at) = read(&arrivals.poll_feedback(late + INTERVAL).unwrap());
    assert_eq!(at.last().copied().flatten(), Some((20 * 86_400 * 4000) % (1 << 32)));
}
