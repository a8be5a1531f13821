//! What was cut comes together again; what is missing is told.

use bytes::Bytes;

use super::*;
use crate::rtp::{
    Codec,
    depacketize::{
        Depacketizer, Output, Piece,
        tests::{after_gap, feed, marked, piece},
    },
};

const P: u8 = 0x41;
const IDR: u8 = 0x65;
const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8c];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const AUD: &[u8] = &[0x09, 0xf0];
const SEI: &[u8] = &[0x06, 0x05, 0x01, 0xaa, 0x80];

/// A NAL unit whose bytes all differ from their neighbours; a slice begins at macroblock 0.
fn nal(header: u8, length: usize) -> Vec<u8> {
    std::iter::once(header).chain((1..length).map(|place| (place % 251) as u8 | if place == 1 { 0x80 } else { 0 })).collect()
}

/// A slice that is not a picture's first.
fn following(header: u8, length: usize) -> Vec<u8> {
    let mut nal = nal(header, length);
    nal[1] &= 0x7f;
    nal
}

fn au(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| (nal.len() as u32).to_be_bytes().into_iter().chain(nal.iter().copied())).collect()
}

/// The payloads of one access unit as its sender sends them.
fn pieces(timestamp: u32, payloads: &[Bytes]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = payloads.iter().map(|payload| piece(timestamp, payload.to_vec())).collect();
    if let Some(last) = pieces.last_mut() {
        last.marker = true;
    }
    pieces
}

fn depacketizer() -> Depacketizer {
    Depacketizer::new(Codec::H264).unwrap()
}

#[test]
fn an_access_unit_survives_the_journey_whatever_its_sizes() {
    const MAX: usize = 100;
    let mut depacketizer = depacketizer();
    for first in (2..=2 * MAX + 5).chain([997, 998, 999, 40_000]) {
        for second in [2, 3, 20, MAX - first.min(MAX) + 2, MAX - 5, MAX - 1, MAX, MAX + 1, 3 * MAX] {
            let second = second.max(2);
            let sent = au(&[&nal(P, first), &following(P, second)]);
            let payloads = packetize(&sent, None, MAX);
            assert!(payloads.iter().all(|payload| payload.len() <= MAX), "{first}, {second}");
            let outputs = feed(&mut depacketizer, &pieces(first as u32 * 1000 + second as u32, &payloads));
            let [Output::Whole(unit)] = &outputs[..] else { panic!("{first}, {second}: {outputs:?}") };
            assert_eq!(unit.payload, sent, "{first}, {second}");
            assert!(!unit.keyframe && unit.sps.is_none() && unit.pps.is_none());
        }
    }
}

#[test]
fn fragments_are_of_equal_size_and_all_payloads_of_one_buffer() {
    for (length, max, expected) in [
        (101, 100, vec![52, 52]),
        (197, 100, vec![100, 100]),
        (198, 100, vec![68, 68, 67]),
        (3001, 1200, vec![1002, 1002, 1002]),
        (100, 100, vec![100]),
    ] {
        let payloads = packetize(&au(&[&nal(IDR, length)]), None, max);
        assert_eq!(payloads.iter().map(Bytes::len).collect::<Vec<_>>(), expected, "{length} in {max}");
    }
    let payloads = packetize(&au(&[SEI, &nal(IDR, 5000), &nal(IDR, 10)]), Some((&[SPS], &[PPS])), 1200);
    for pair in payloads.windows(2) {
        assert_eq!(pair[0].as_ptr_range().end, pair[1].as_ptr(), "each payload begins where the one before ends");
    }
}

/// NAL units in, types of payloads out: an aggregate is written as what is in it.
fn check_packetized(nals: &[&[u8]], parameter_sets: Option<ParameterSets>, expected: &[&[u8]]) {
    let payloads = packetize(&au(nals), parameter_sets, 100);
    let kinds: Vec<Vec<u8>> = payloads
        .iter()
        .map(|payload| match kind::of(payload[0]) {
            kind::STAP_A => {
                let mut rest = &payload[1..];
                let mut kinds = vec![kind::STAP_A];
                while let Some((length, behind)) = rest.split_first_chunk::<2>() {
                    kinds.push(kind::of(behind[0]));
                    rest = &behind[usize::from(u16::from_be_bytes(*length))..];
                }
                kinds
            }
            other => vec![other],
        })
        .collect();
    assert_eq!(kinds, expected, "{nals:02x?}");
}

#[test]
fn parameter_sets_come_in_front_and_once() {
    let large = nal(IDR, 150);
    let sets: Option<ParameterSets> = Some((&[SPS], &[PPS]));
    check_packetized(&[&large], sets, &[&[24, 7, 8], &[28], &[28]]);
    check_packetized(&[AUD, SPS, PPS, SEI, &large], sets, &[&[24, 7, 8, 6], &[28], &[28]]);
    check_packetized(&[AUD, SPS, PPS, SEI, &large], None, &[&[24, 7, 8, 6], &[28], &[28]]);
    check_packetized(&[&nal(P, 60)], None, &[&[1]]);
    check_packetized(&[&nal(P, 60), &[0x0c, 0xff]], None, &[&[1]]); // filler
    check_packetized(&[SEI, &nal(P, 60)], None, &[&[24, 6, 1]]);
    check_packetized(&[SEI, &nal(P, 99)], None, &[&[6], &[1]]);
    check_packetized(&[AUD], None, &[]);
    check_packetized(&[], None, &[]);
    check_packetized(&[&[0x78, 0, 1, 7], &[0x7c, 0x85, 1], &[0x00], &[]], None, &[]); // would be read as RTP's own
    let two: Option<ParameterSets> = Some((&[SPS], &[PPS, PPS]));
    check_packetized(&[&nal(IDR, 20)], two, &[&[24, 7, 8, 8, 5]]);
    let importance = packetize(&au(&[SEI, &nal(P, 9)]), None, 100)[0][0];
    assert_eq!(importance & NRI, P & NRI, "an aggregate is as important as its best");
}

#[test]
fn an_access_unit_that_is_cut_off_is_sent_as_far_as_it_goes() {
    let mut cut = au(&[&nal(P, 20), &nal(P, 30)]);
    cut.pop();
    assert_eq!(packetize(&cut, None, 100).len(), 1);
    assert!(packetize(&[0xff; 7], None, 100).is_empty());
    assert!(packetize(&[0, 0], None, 100).is_empty());
}

/// Fragments of a NAL unit.
fn fragments(nal: &[u8]) -> Vec<Vec<u8>> {
    packetize(&au(&[nal]), None, 100).iter().map(|payload| payload.to_vec()).collect()
}

/// Pieces in, and of each output a letter: K a keyframe with its SPS, k one without, P another picture, - damage.
fn check(pieces: &[Piece], expected: &str) {
    let mut depacketizer = depacketizer();
    let outputs = feed(&mut depacketizer, pieces);
    let letters: String = outputs
        .iter()
        .map(|output| match output {
            Output::Whole(unit) if unit.keyframe => {
                if unit.sps.as_deref() == Some(SPS) && unit.pps.as_deref() == Some(PPS) {
                    'K'
                } else {
                    'k'
                }
            }
            Output::Whole(_) => 'P',
            Output::Damaged => '-',
        })
        .collect();
    assert_eq!(letters, expected, "{pieces:02x?}");
}

fn flat(pieces: &[&[Piece]]) -> Vec<Piece> {
    pieces.concat()
}

fn keyframe(timestamp: u32) -> Vec<Piece> {
    pieces(timestamp, &packetize(&au(&[&nal(IDR, 250)]), Some((&[SPS], &[PPS])), 100))
}

#[test]
fn parameter_sets_may_come_in_any_way() {
    let [idr, second, third] = [nal(IDR, 50), following(IDR, 60), following(IDR, 150)];
    let slices = |timestamp: u32| {
        let mut slices = vec![piece(timestamp, idr.clone()), piece(timestamp, second.clone())];
        slices.extend(pieces(timestamp, &fragments(&third).into_iter().map(Bytes::from).collect::<Vec<_>>()));
        slices
    };
    // In packets of their own, several slices.
    check(&flat(&[&[piece(1, SPS), piece(1, PPS)], &slices(1)]), "K");
    // With delimiter and SEI, in any order that the standard allows.
    check(&flat(&[&[piece(1, AUD), piece(1, SEI), piece(1, SPS), piece(1, PPS)], &slices(1)]), "K");
    // With a timestamp of their own, with and without marker, together and apart.
    check(&flat(&[&[piece(0, SPS), piece(0, PPS)], &slices(1)]), "K");
    let warm = [piece(0, AUD), marked(piece(0, nal(P, 20)))];
    check(&flat(&[&warm, &[piece(1, SPS), piece(1, PPS)], &slices(2)]), "PK");
    check(&flat(&[&warm, &[marked(piece(1, SPS)), marked(piece(2, PPS))], &slices(3)]), "PK");
    // Aggregated.
    check(&keyframe(1), "K");
    // Never.
    check(&slices(1), "-");
    check(&flat(&[&warm, &slices(1)]), "Pk");
    // The newest ones count.
    let mut older = SPS.to_vec();
    older[3] = 0x0d;
    check(&flat(&[&warm, &[marked(piece(1, older)), marked(piece(2, SPS)), piece(3, PPS)], &slices(3)]), "PK");
}

#[test]
fn a_second_parameter_set_stays_in_the_access_unit() {
    let second_pps = [0x68, 0x5b, 0x80];
    let idr = nal(IDR, 9);
    let sent = au(&[SPS, PPS, &second_pps, SPS, PPS, &idr]);
    let outputs = feed(&mut depacketizer(), &pieces(1, &packetize(&sent, None, 100)));
    let [Output::Whole(unit)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(unit.payload, au(&[&second_pps, &idr]));
    assert_eq!((unit.sps.as_deref(), unit.pps.as_deref()), (Some(SPS), Some(PPS)));
}

#[test]
fn an_access_unit_ends_at_the_marker_or_at_another_timestamp() {
    let picture = nal(P, 20);
    check(&[piece(1, picture.clone())], "");
    check(&[marked(piece(1, picture.clone()))], "P");
    check(&[piece(1, picture.clone()), piece(2, picture.clone()), marked(piece(3, picture.clone()))], "PPP");
    check(&[piece(1, picture.clone()), piece(1, []), piece(1, following(P, 5)), marked(piece(2, []))], "");
    check(&[piece(u32::MAX, picture.clone()), marked(piece(0, picture))], "PP");
}

#[test]
fn what_misses_something_is_not_given_and_the_next_keyframe_is() {
    let cut = fragments(&nal(IDR, 250));
    let part = |place: usize| piece(1, cut[place].clone());
    let sets = [piece(1, SPS), piece(1, PPS)];
    let next = keyframe(2);
    // The first fragment is lost, late, or sent twice under two numbers.
    check(&flat(&[&sets, &[after_gap(part(1)), marked(part(2))], &next]), "-K");
    check(&flat(&[&sets, &[part(1), part(0), marked(part(2))], &next]), "-K");
    check(&flat(&[&sets, &[part(0), part(0), part(1), marked(part(2))], &next]), "-K");
    // The middle one, the last one, with it the marker, and all of the rest.
    check(&flat(&[&sets, &[part(0), after_gap(marked(part(2)))], &next]), "-K");
    check(&flat(&[&sets, &[part(0), part(1)], &next]), "-K");
    check(&flat(&[&sets, &[part(0), after_gap(next[0].clone())], &next[1..]]), "-K");
    // A fragment that is open when something else begins.
    check(&flat(&[&sets, &[part(0), piece(1, SEI), part(1), marked(part(2))], &next]), "-K");
    // A hole before a keyframe whose parameter sets may have been in it.
    let bare = marked(piece(1, nal(IDR, 30)));
    check(&flat(&[&next, &[after_gap(bare.clone())]]), "K--");
    check(&flat(&[&next, &[after_gap(piece(1, PPS)), bare.clone()]]), "K--");
    check(&flat(&[&next, &[after_gap(piece(1, SPS)), piece(1, PPS), bare.clone()]]), "K-K");
    check(&flat(&[&next, &[piece(3, SPS), piece(3, PPS), after_gap(bare.clone())]]), "K--");
    check(&flat(&[&next, &[after_gap(piece(1, [])), bare]]), "K--");
    // The first slice of several.
    check(&flat(&[&next, &[after_gap(marked(piece(1, following(P, 20))))], &next]), "K--K");
    check(&flat(&[&next, &[after_gap(marked(piece(1, nal(P, 20))))]]), "K-P");
}

#[test]
fn what_mode_one_does_not_have_is_refused() {
    let picture = nal(P, 20);
    for (payload, refused, expected) in [
        (vec![0x79, 0, 0, 0, 2, 0x41, 0x80], 1, "-P"), // STAP-B
        (vec![0x7a, 0, 0, 0, 2, 0x41, 0x80], 1, "-P"), // MTAP16
        (vec![0x7b, 0, 0, 0, 2, 0x41, 0x80], 1, "-P"), // MTAP24
        (vec![0x7d, 0x81, 0, 0, 0x80], 1, "-P"),       // FU-B
        (vec![0x7e, 1], 1, "P"),                       // not defined: ignored
        (vec![0x60, 1], 1, "P"),
        (vec![0x78], 0, "P"), // an empty STAP-A
        (vec![0x78, 0], 0, "-P"),
        (vec![0x78, 0, 0], 0, "-P"),
        (vec![0x78, 0, 5, 0x41, 0x80], 0, "-P"),       // runs over the end
        (vec![0x78, 0, 4, 0x78, 0, 1, 0x41], 0, "-P"), // an aggregate in an aggregate
        (vec![0x7c], 0, "-P"),                         // FU-A without a header
        (vec![0x7c, 0x9c, 0x80], 0, "-P"),             // fragments of a fragment
        (vec![0x7c, 0xc1, 0x80], 0, "PP"),             // first and last at once
        (vec![0x41], 0, "-P"),                         // a slice without anything
    ] {
        let mut depacketizer = depacketizer();
        let outputs = feed(&mut depacketizer, &[marked(piece(1, payload.clone())), marked(piece(2, picture.clone()))]);
        let letters: String = outputs.iter().map(|output| if matches!(output, Output::Damaged) { '-' } else { 'P' }).collect();
        assert_eq!((letters.as_str(), depacketizer.refused()), (expected, refused), "{payload:02x?}");
    }
}

#[test]
fn an_access_unit_is_bounded() {
    let mut depacketizer = depacketizer();
    let mut start = vec![0x7c, 0x85, 0x80];
    start.resize(60_000, 1);
    let mut middle = start.clone();
    middle[1] = 0x05;
    let endless: Vec<Piece> = std::iter::once(piece(1, start)).chain((0..200).map(|_| piece(1, middle.clone()))).collect();
    assert_eq!(feed(&mut depacketizer, &endless), [Output::Damaged], "too many bytes");
    let many: Vec<Piece> = (0..3000).map(|place| piece(2, if place == 0 { nal(P, 2) } else { following(P, 2) })).collect();
    assert_eq!(feed(&mut depacketizer, &many), [Output::Damaged], "too many NAL units");
    assert_eq!(feed(&mut depacketizer, &keyframe(3)).len(), 1, "and it goes on");
}
