//! Read against packets that `rtc-rtcp` writes, and against rubbish.

use rtc_rtcp::{
    Packet as Written,
    goodbye::Goodbye,
    packet::marshal,
    payload_feedbacks::{
        full_intra_request::{FirEntry, FullIntraRequest},
        picture_loss_indication::PictureLossIndication,
        receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
    },
    receiver_report::ReceiverReport,
    reception_report::ReceptionReport,
    sender_report::SenderReport,
    source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem},
    transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack},
};

use super::*;

fn block(ssrc: u32, total_lost: u32) -> ReceptionReport {
    ReceptionReport {
        ssrc,
        fraction_lost: 25,
        total_lost,
        last_sequence_number: 0x1_0005,
        jitter: 480,
        last_sender_report: 0x1234_5678,
        delay: 65_536,
    }
}

fn reception(ssrc: u32, total_lost: i32) -> Packet {
    Packet::Reception(Reception {
        ssrc,
        fraction_lost: 25,
        total_lost,
        highest_sequence: 0x1_0005,
        jitter: 480,
        last_sender_report: 0x1234_5678,
        delay: 65_536,
    })
}

fn sources() -> Box<dyn Written> {
    let item = SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: "cname".into() };
    Box::new(SourceDescription { chunks: vec![SourceDescriptionChunk { source: 9, items: vec![item] }] })
}

/// One of each, and what is read of it.
fn vectors() -> Vec<(Box<dyn Written>, Vec<Packet>)> {
    let sender_report = SenderReport {
        ssrc: 1,
        ntp_time: 0x1122_3344_5566_7788,
        rtp_time: 99,
        packet_count: 3,
        octet_count: 4,
        reports: vec![block(7, 5)],
        ..SenderReport::default()
    };
    let receiver_report =
        ReceiverReport { ssrc: 1, reports: vec![block(7, 0x7f_ffff), block(8, 0xff_ffff)], ..ReceiverReport::default() };
    let nack = TransportLayerNack {
        sender_ssrc: 1,
        media_ssrc: 7,
        nacks: vec![NackPair { packet_id: 65_534, lost_packets: 0b101 }, NackPair { packet_id: 20, lost_packets: 0x8000 }],
    };
    let full_intra = FullIntraRequest {
        sender_ssrc: 1,
        media_ssrc: 0,
        fir: vec![FirEntry { ssrc: 7, sequence_number: 3 }, FirEntry { ssrc: 8, sequence_number: 4 }],
    };
    let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 2_000_000.0, ssrcs: vec![7, 8] };
    vec![
        (Box::new(sender_report), vec![Packet::SenderReport { ssrc: 1, ntp: 0x1122_3344_5566_7788, rtp: 99 }, reception(7, 5)]),
        (Box::new(receiver_report), vec![reception(7, 0x7f_ffff), reception(8, -1)]),
        (sources(), vec![]),
        (Box::new(nack), vec![Packet::Nack { ssrc: 7, lost: vec![65_534, 65_535, 1, 20, 36] }]),
        (Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: 7 }), vec![Packet::PictureLoss { ssrc: 7 }]),
        (Box::new(full_intra), vec![Packet::FullIntra { ssrc: 7, number: 3 }, Packet::FullIntra { ssrc: 8, number: 4 }]),
        (Box::new(remb), vec![Packet::Remb { bitrate: 2_000_000, ssrcs: vec![7, 8] }]),
        (Box::new(Goodbye { sources: vec![7, 8], reason: "bye".into() }), vec![Packet::Goodbye { ssrcs: vec![7, 8] }]),
    ]
}

#[test]
fn each_kind_is_read_alone_and_in_company() {
    let mut all = Vec::new();
    let mut expected = Vec::new();
    for (written, read) in vectors() {
        assert_eq!(parse(&marshal(&[written.cloned()]).unwrap()), read, "{written:?}");
        all.push(written);
        expected.extend(read);
    }
    assert_eq!(parse(&marshal(&all).unwrap()), expected);
}

#[test]
fn what_is_unknown_or_broken_costs_only_itself() {
    let loss = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7];
    let read = vec![Packet::PictureLoss { ssrc: 7 }];
    for (before, what) in [
        (&[0x80, 204, 0, 1, 1, 2, 3, 4][..], "APP"),
        (&[0x80, 250, 0, 0], "no RTCP type"),
        (&[0x8f, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4], "transport-wide feedback"),
        (&[0x81, 200, 0, 1, 0, 0, 0, 1], "SR cut short"),
        (&[0x9f, 201, 0, 1, 0, 0, 0, 1], "RR with fewer blocks than it says"),
        (&[0x81, 205, 0, 0], "NACK without anything"),
        (&[0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7], "NACK without numbers"),
        (&[0x81, 206, 0, 1, 0, 0, 0, 1], "PLI without a source"),
        (&[0x8f, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0], "REMB without its name"),
        (&[0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B'], "REMB without a rate"),
    ] {
        assert_eq!(parse(&[before, &loss].concat()), read, "{what}");
    }
    for (datagram, what) in [
        (&[][..], "nothing"),
        (&[0x81, 206, 0], "less than a header"),
        (&[0x41, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7], "another version"),
        (&[0x81, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 7], "longer than the datagram"),
        (&[0xa1, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 99], "padding longer than the packet"),
    ] {
        assert_eq!(parse(datagram), [], "{what}");
    }
    assert_eq!(parse(&[0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 4]), read, "padding is cut off");
    let endless = [0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 255, 0xff, 0xff, 0xff];
    assert_eq!(parse(&endless), [Packet::Remb { bitrate: u64::MAX, ssrcs: vec![] }]);
}

#[test]
fn a_datagram_yields_no_more_than_its_limits() {
    let nack: Vec<u8> = [0x81, 205, 0, 102, 0, 0, 0, 1, 0, 0, 0, 7].into_iter().chain([0xff; 400]).collect();
    let lost: usize =
        parse(&nack.repeat(3)).iter().map(|packet| if let Packet::Nack { lost, .. } = packet { lost.len() } else { 0 }).sum();
    assert_eq!(lost, LOST_MAX);
    let losses = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7].repeat(100);
    assert_eq!(parse(&losses).len(), PACKETS_MAX);
}

#[test]
fn mutations_of_true_packets_panic_nowhere() {
    let true_bytes = marshal(&vectors().into_iter().map(|(written, _)| written).collect::<Vec<_>>()).unwrap().to_vec();
    for place in 0..true_bytes.len() {
        for value in [0, 1, 0x1f, 0x7f, 0x80, 0xa0, 0xff] {
            let mut bytes = true_bytes.clone();
            bytes[place] = value;
            parse(&bytes);
            parse(&bytes[..place]);
            parse(&bytes[place..]);
        }
    }
}
