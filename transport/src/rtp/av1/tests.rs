//! What rtc-rtp cut comes together again; what is missing is told.

use bytes::Bytes;
use rtc_rtp::{codec::av1::Av1Payloader, packetizer::Payloader};

use super::kind;
use crate::rtp::{
    Codec,
    depacketize::{
        Depacketizer, Output, Piece,
        tests::{after_gap, feed, marked, piece},
    },
};

const SEQUENCE_HEADER: &[u8] = &[kind::SEQUENCE_HEADER << 3, 0, 0, 0, 0x0c, 0xc4];
/// Aggregation headers: one element, which begins or goes on, ends or will go on.
const ONE: u8 = 0x10;
const BEGINS: u8 = 0x50;
const GOES_ON: u8 = 0xd0;
const ENDS: u8 = 0x90;

/// An OBU without its size: a frame that is a keyframe or not, of so many bytes.
fn frame(key: bool, length: usize) -> Vec<u8> {
    let first = if key { 0x10 } else { 0x30 };
    [kind::FRAME << 3, first].into_iter().chain((2..length).map(|place| place as u8)).collect()
}

/// With its size, as it leaves.
fn sized(obu: &[u8]) -> Vec<u8> {
    let mut size = Vec::new();
    let mut rest = obu.len() - 1;
    while rest > 0x7f {
        size.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    size.push(rest as u8);
    [&[obu[0] | 2], &size[..], &obu[1..]].concat()
}

fn unit(obus: &[&[u8]]) -> Vec<u8> {
    obus.iter().flat_map(|obu| sized(obu)).collect()
}

/// A payload of whole OBUs, each behind its length.
fn listed(obus: &[&[u8]]) -> Vec<u8> {
    obus.iter().fold(vec![0], |all, obu| [&all[..], &[obu.len() as u8], obu].concat())
}

fn depacketizer() -> Depacketizer {
    Depacketizer::new(Codec::Av1).unwrap()
}

/// K: a keyframe, P: another picture, -: damage.
fn check(pieces: &[Piece], expected: &str) {
    let outputs = feed(&mut depacketizer(), pieces);
    let letter = |output: &Output| match output {
        Output::Whole(unit) => {
            if unit.keyframe {
                'K'
            } else {
                'P'
            }
        }
        Output::Damaged => '-',
    };
    assert_eq!(outputs.iter().map(letter).collect::<String>(), expected, "{pieces:02x?}");
}

fn keyframe(timestamp: u32) -> Piece {
    marked(piece(timestamp, listed(&[SEQUENCE_HEADER, &frame(true, 90)])))
}

fn whole(pieces: &[Piece]) -> Bytes {
    let outputs = feed(&mut depacketizer(), pieces);
    let [Output::Whole(unit)] = &outputs[..] else { panic!("{outputs:?}") };
    unit.payload.clone()
}

#[test]
fn what_another_packetiser_cuts_comes_together() {
    for length in (3..300).chain([1000, 20_000, 40_000]) {
        let sent =
            unit(&[&[kind::TEMPORAL_DELIMITER << 3], SEQUENCE_HEADER, &frame(true, length), &frame(false, length / 2 + 2)]);
        let payloads = Av1Payloader::default().payload(100, &Bytes::from(sent.clone())).unwrap();
        assert!(payloads.iter().all(|payload| payload.len() <= 100));
        let mut pieces: Vec<_> = payloads.into_iter().map(|payload| piece(7, payload)).collect();
        pieces.last_mut().unwrap().marker = true;
        assert_eq!(whole(&pieces), sent[2..], "{length}: all but the delimiter");
    }
}

#[test]
fn elements_may_be_told_in_any_way() {
    let (header, key) = (SEQUENCE_HEADER, frame(true, 40));
    let expected = unit(&[header, &key]);
    let with_lengths = listed(&[header, &key]);
    // Two elements, the last without its length.
    let counted = [&[0x20, header.len() as u8], header, &key].concat();
    // OBUs that tell their size as well, which a sender should leave out.
    let sizes = listed(&[&sized(header), &sized(&key)]);
    // With what is to be ignored: delimiters, padding, an element of nothing.
    let more =
        listed(&[&[kind::TEMPORAL_DELIMITER << 3], header, &[kind::PADDING << 3, 0], &[], &key, &[kind::TILE_LIST << 3, 1]]);
    for payload in [with_lengths, counted, sizes, more] {
        assert_eq!(whole(&[marked(piece(1, payload.clone()))]), expected, "{payload:02x?}");
    }
    // An extension (temporal layer 1) is kept.
    let layered = [kind::FRAME << 3 | 4, 0x20, 0x10, 1, 2];
    let payload = listed(&[header, &layered]);
    assert_eq!(whole(&[marked(piece(1, payload))])[sized(header).len()..], [kind::FRAME << 3 | 6, 0x20, 3, 0x10, 1, 2]);
}

#[test]
fn an_obu_may_be_cut_anywhere() {
    let mut layered = frame(true, 300);
    layered.splice(..1, [kind::FRAME << 3 | 4, 0x20]);
    let sent = [&sized(SEQUENCE_HEADER)[..], &[layered[0] | 2, 0x20, 0xab, 0x02], &layered[2..]].concat();
    for (first, second) in [(1, 2), (1, 300), (2, 150), (150, 151)] {
        let part = |aggregation: u8, part: &[u8]| piece(1, [&[aggregation], part].concat());
        let pieces = [
            part(ONE, SEQUENCE_HEADER),
            part(BEGINS, &layered[..first]),
            part(GOES_ON, &layered[first..second]),
            marked(part(ENDS, &layered[second..])),
        ];
        assert_eq!(whole(&pieces), sent, "{first}, {second}");
    }
}

#[test]
fn what_misses_something_is_not_given_and_the_next_keyframe_is() {
    let key = frame(true, 300);
    let header = piece(1, [&[ONE], SEQUENCE_HEADER].concat());
    let part = |aggregation: u8, part: &[u8]| piece(1, [&[aggregation], part].concat());
    let (first, middle, last) = (part(BEGINS, &key[..100]), part(GOES_ON, &key[100..200]), marked(part(ENDS, &key[200..])));
    let next = keyframe(2);
    check(&[header.clone(), first.clone(), middle.clone(), last.clone(), next.clone()], "KK");
    check(&[header.clone(), after_gap(middle.clone()), last.clone(), next.clone()], "-K");
    check(&[header.clone(), first.clone(), after_gap(last.clone()), next.clone()], "-K");
    check(&[header.clone(), first.clone(), middle, next.clone()], "-K");
    check(&[header.clone(), first.clone(), first.clone(), last.clone(), next.clone()], "-K");
    check(&[header, first, last.clone(), next.clone()], "KK");
    check(&[next.clone(), after_gap(last), next.clone()], "K--K");
    // A hole before a keyframe, with the sequence header in it.
    check(&[next.clone(), after_gap(marked(piece(3, listed(&[&frame(true, 30)])))), next.clone()], "K--K");
    check(&[next.clone(), marked(piece(3, listed(&[&frame(true, 30)])))], "KK");
    // The frame's header.
    check(&[next.clone(), after_gap(marked(piece(3, listed(&[&[kind::TILE_GROUP << 3, 0]]))))], "K--");
    check(&[next, after_gap(marked(piece(3, listed(&[&frame(false, 30)]))))], "K-P");
}

#[test]
fn keyframes_are_those_that_are_shown() {
    let of = |first: u8| marked(piece(1, listed(&[SEQUENCE_HEADER, &[kind::FRAME_HEADER << 3, first]])));
    check(&[of(0x10)], "K");
    check(&[of(0x00)], "P");
    check(&[of(0x30)], "P");
    check(&[of(0x50)], "P");
    check(&[of(0x90)], "P");
    // The first picture of several layers tells.
    check(&[marked(piece(1, listed(&[SEQUENCE_HEADER, &frame(true, 9), &frame(false, 9)])))], "K");
    check(&[marked(piece(1, listed(&[&frame(false, 9), &frame(true, 9)])))], "P");
}

#[test]
fn nonsense_is_damage() {
    let picture = frame(false, 20);
    for (payload, expected) in [
        (vec![0], "-P"),             // no element
        (vec![0x20, 1, 0x0a], "-P"), // one of two
        (vec![0, 9, 0x30], "-P"),    // a length over the end
        (vec![0, 0x80], "-P"),       // a length that does not end
        (vec![0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0], "-P"),
        (vec![0x10, 0xb0, 0x30], "-P"),       // the bit that must be 0
        (vec![0x10, 0x34], "-P"),             // an extension that is not there
        (vec![0x10, 0x32, 5, 0x30], "-P"),    // a size over the end
        (vec![0x10, 0x32, 1, 0x30, 0], "-P"), // and before it
        (vec![0x10, 0x30], "-P"),             // a frame of nothing
        (vec![0x90, 0x30, 0x30], "-P"),       // goes on with nothing
    ] {
        let outputs = feed(&mut depacketizer(), &[marked(piece(1, payload.clone())), marked(piece(2, listed(&[&picture])))]);
        let letters: String = outputs.iter().map(|output| if matches!(output, Output::Damaged) { '-' } else { 'P' }).collect();
        assert_eq!(letters, expected, "{payload:02x?}");
    }
}

#[test]
fn a_temporal_unit_is_bounded() {
    let mut depacketizer = depacketizer();
    let body = vec![1; 60_000];
    let long = |aggregation: u8| piece(1, [&[aggregation], &body[..]].concat());
    let endless: Vec<Piece> = std::iter::once(long(BEGINS)).chain((0..200).map(|_| long(GOES_ON))).collect();
    assert_eq!(feed(&mut depacketizer, &endless), [Output::Damaged], "too many bytes");
    let many: Vec<Piece> = (0..3000).map(|_| piece(2, listed(&[&frame(false, 3)]))).collect();
    assert_eq!(feed(&mut depacketizer, &many), [Output::Damaged], "too many OBUs");
    assert_eq!(feed(&mut depacketizer, &[keyframe(3)]).len(), 1, "and it goes on");
}
