//! What rtc-rtp cut comes together again; what is missing is told.

use bytes::Bytes;
use rtc_rtp::{codec::h265::HevcPayloader, packetizer::Payloader};

use crate::rtp::{
    Codec,
    depacketize::{
        Depacketizer, Output, Piece,
        tests::{after_gap, feed, marked, piece},
    },
};

const TRAIL: u8 = 1;
const IDR: u8 = 19;
const CRA: u8 = 21;
const VPS: &[u8] = &[0x40, 0x01, 0x0c, 0x01, 0xff];
const SPS: &[u8] = &[0x42, 0x01, 0x01, 0x01, 0x60];
const PPS: &[u8] = &[0x44, 0x01, 0xc0, 0x71];
const AUD: &[u8] = &[0x46, 0x01, 0x10];
const SEI: &[u8] = &[0x4e, 0x01, 0x05, 0x01, 0xaa, 0x80];

/// A slice whose bytes all differ from their neighbours and hold no start code; the first of its picture.
fn slice(kind: u8, length: usize) -> Vec<u8> {
    let body = (2..length).map(|place| (place % 100 + 1) as u8 | if place == 2 { 0x80 } else { 0 });
    [kind << 1, 1].into_iter().chain(body).collect()
}

fn following(kind: u8, length: usize) -> Vec<u8> {
    let mut slice = slice(kind, length);
    slice[2] &= 0x7f;
    slice
}

fn au(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
}

/// Fragments of a NAL unit, of so many bytes each.
fn fragments(nal: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let count = nal[2..].len().div_ceil(bytes);
    let cut = nal[2..].chunks(bytes).enumerate();
    cut.map(|(place, body)| {
        let (starts, ends) = (place == 0, place + 1 == count);
        let header = u8::from(starts) << 7 | u8::from(ends) << 6 | nal[0] >> 1;
        [&[49 << 1, nal[1], header], body].concat()
    })
    .collect()
}

fn aggregate(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().fold(vec![48 << 1, 1], |all, nal| [&all[..], &(nal.len() as u16).to_be_bytes(), nal].concat())
}

fn depacketizer() -> Depacketizer {
    Depacketizer::new(Codec::Hevc).unwrap()
}

/// K: a keyframe with its sets, k: without them, P: another picture, -: damage.
fn check(pieces: &[Piece], expected: &str) {
    let outputs = feed(&mut depacketizer(), pieces);
    let letter = |output: &Output| match output {
        Output::Whole(unit) if unit.keyframe && unit.vps.is_some() && unit.sps.is_some() && unit.pps.is_some() => 'K',
        Output::Whole(unit) if unit.keyframe => 'k',
        Output::Whole(_) => 'P',
        Output::Damaged => '-',
    };
    assert_eq!(outputs.iter().map(letter).collect::<String>(), expected, "{pieces:02x?}");
}

fn keyframe(timestamp: u32) -> Vec<Piece> {
    vec![piece(timestamp, aggregate(&[VPS, SPS, PPS])), marked(piece(timestamp, slice(IDR, 250)))]
}

#[test]
fn what_another_packetiser_cuts_comes_together() {
    for length in (4..300).chain([1000, 40_000]) {
        let (first, second) = (slice(IDR, length), following(IDR, length / 2 + 3));
        let annex_b: Vec<u8> = [VPS, SPS, PPS, &first, &second].iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect();
        let payloads = HevcPayloader.payload(100, &Bytes::from(annex_b)).unwrap();
        assert!(payloads.iter().all(|payload| payload.len() <= 100));
        let mut pieces: Vec<_> = payloads.into_iter().map(|payload| piece(7, payload)).collect();
        pieces.last_mut().unwrap().marker = true;
        let outputs = feed(&mut depacketizer(), &pieces);
        let [Output::Whole(unit)] = &outputs[..] else { panic!("{length}: {outputs:?}") };
        assert_eq!(unit.payload, au(&[&first, &second]), "{length}");
        assert!(unit.keyframe);
        assert_eq!([unit.vps.as_deref(), unit.sps.as_deref(), unit.pps.as_deref()], [Some(VPS), Some(SPS), Some(PPS)]);
    }
}

#[test]
fn parameter_sets_may_come_in_any_way() {
    let idr = marked(piece(1, slice(IDR, 50)));
    let ahead = |timestamp| [VPS, SPS, PPS].map(|set| piece(timestamp, set));
    check(&[&ahead(1)[..], std::slice::from_ref(&idr)].concat(), "K");
    check(&[&[piece(1, AUD), piece(1, SEI)], &ahead(1)[..], std::slice::from_ref(&idr)].concat(), "K");
    check(&[&ahead(0)[..], std::slice::from_ref(&idr)].concat(), "K");
    check(&[marked(piece(1, aggregate(&[VPS, SPS, PPS, &slice(CRA, 50)])))], "K");
    check(std::slice::from_ref(&idr), "-");
    check(&[marked(piece(0, slice(TRAIL, 20))), idr.clone()], "Pk");
    // A second one of a kind stays where it is; delimiters and other layers go.
    let second = [0x44, 0x01, 0xc1, 0x55];
    let other_layer = [0x02, 0x09, 0x80, 0x01];
    let pieces = [piece(1, aggregate(&[AUD, VPS, SPS, PPS, &second, SPS])), piece(1, other_layer), idr];
    let outputs = feed(&mut depacketizer(), &pieces);
    let [Output::Whole(unit)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(unit.payload, au(&[&second, &slice(IDR, 50)]));
}

#[test]
fn what_misses_something_is_not_given_and_the_next_keyframe_is() {
    let cut = fragments(&slice(IDR, 250), 100);
    let part = |place: usize| piece(1, cut[place].clone());
    let sets = [piece(1, aggregate(&[VPS, SPS, PPS]))];
    let next = keyframe(2);
    check(&[&sets[..], &[part(0), part(1), marked(part(2))], &next].concat(), "KK");
    check(&[&sets[..], &[after_gap(part(1)), marked(part(2))], &next].concat(), "-K");
    check(&[&sets[..], &[part(0), part(0), part(1), marked(part(2))], &next].concat(), "-K");
    check(&[&sets[..], &[part(0), part(1)], &next].concat(), "-K");
    check(&[&sets[..], &[part(0), piece(1, SEI), part(1), marked(part(2))], &next].concat(), "-K");
    check(&[&next[..], &[after_gap(marked(piece(3, slice(IDR, 30))))]].concat(), "K--");
    check(&[&next[..], &[after_gap(marked(piece(3, following(TRAIL, 30))))], &next].concat(), "K--K");
    check(&[&next[..], &[after_gap(marked(piece(3, slice(TRAIL, 30))))]].concat(), "K-P");
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let picture = slice(TRAIL, 20);
    for (payload, refused, expected) in [
        (vec![50 << 1, 1, 0, 0, 2, 1, 0x80], 1, "-P"), // PACI
        (vec![51 << 1, 1, 0], 1, "P"),                 // not defined: ignored
        (vec![63 << 1, 1, 0], 1, "P"),
        (vec![48 << 1, 1, 0], 0, "-P"),                   // an aggregate's length is cut
        (vec![48 << 1, 1, 0, 5, 2, 1, 0x80], 0, "-P"),    // runs over the end
        (vec![48 << 1, 1, 0, 2, 2, 1], 0, "-P"),          // a NAL unit without anything
        (vec![48 << 1, 1, 0, 3, 48 << 1, 1, 0], 0, "-P"), // an aggregate in an aggregate
        (vec![49 << 1, 1], 0, "-P"),                      // a fragment without a header
        (vec![49 << 1, 1, 0x80 | 49, 0x80], 0, "-P"),     // fragments of a fragment
        (vec![49 << 1, 1, 0xc0 | TRAIL, 0x80], 0, "PP"),  // first and last at once
        (vec![49 << 1, 1, 0xc0 | TRAIL], 0, "-P"),        // of nothing
        (vec![2, 1], 0, "-P"),                            // a slice without anything
        (vec![2], 0, "-P"),
    ] {
        let mut depacketizer = depacketizer();
        let outputs = feed(&mut depacketizer, &[marked(piece(1, payload.clone())), marked(piece(2, picture.clone()))]);
        let letters: String = outputs.iter().map(|output| if matches!(output, Output::Damaged) { '-' } else { 'P' }).collect();
        assert_eq!((letters.as_str(), depacketizer.refused()), (expected, refused), "{payload:02x?}");
    }
}
