//! Bodies of the fuzz targets for SRT: nothing may panic, time grows, and no peer may make us keep or send much.

use std::time::Instant;

use media_core::TrackKind;

use super::{
    bridge::Bridge,
    door::{Door, Verdict},
    feed::Feed,
    packet::{Handshake, Packet},
    stream_id::Asked,
};
use crate::rtmp::feed::Fed;

/// One datagram of anybody.
pub fn srt(now: Instant, data: &[u8]) {
    let door = Door::new(now);
    let peer = ([192, 0, 2, 1], 9000).into();
    match door.handle(now, peer, data) {
        Verdict::Answer(answer) => assert!(answer.len() <= data.len(), "nobody is sent more than it sent"),
        // As if the cookie were good.
        Verdict::Drop(_) => {
            if let Packet::Handshake(handshake) = Packet::read(data) {
                conclusion(now, handshake, data);
            }
        }
        Verdict::Ask(_) | Verdict::Unreadable(_) => (),
    }
}

fn conclusion(now: Instant, handshake: Handshake<'_>, data: &[u8]) {
    if let Ok(conclusion) = handshake.conclusion()
        && let Ok(asked) = Asked::parse(&conclusion.stream_id)
    {
        assert!(!asked.key.expose().is_empty());
    }
    assert!(handshake.rejection(1401).len() <= data.len());
    let Some(mut bridge) = Bridge::new(now, data.to_vec()) else { return };
    bridge.handle_timeout(now);
    bridge.handle_caller(now, data.to_vec());
    bridge.handle_receiver(now, &handshake.induction_answer(1));
    bridge.handle_receiver(now, data);
}

/// A transport stream as the bytes cut it: whole, and in two.
pub fn transport_stream(now: Instant, data: &[u8]) {
    let cut = data.first().map_or(0, |byte| usize::from(*byte).min(data.len()));
    let whole = samples(now, &[data]);
    let (first, second) = data.split_at(cut);
    assert_eq!(whole, samples(now, &[first, second]), "cut at {cut}");
}

fn samples(now: Instant, pieces: &[&[u8]]) -> Vec<String> {
    let mut feed = Feed::default();
    let mut told = Vec::new();
    let mut last = [None; 2];
    for piece in pieces {
        let refused = feed.push(now, piece);
        while let Some(output) = feed.poll_output() {
            match output {
                Fed::Announced(announcement) => told.push(format!("{announcement:?}")),
                Fed::Sample(sample) => {
                    let last = &mut last[usize::from(sample.track.kind() == TrackKind::Audio)];
                    let grows = last.is_none_or(|(id, dts)| id != sample.track.timescale || sample.dts > dts);
                    assert!(grows && sample.pts >= sample.dts, "{:?} {:?} after {last:?}", sample.pts, sample.dts);
                    *last = Some((sample.track.timescale, sample.dts));
                    told.push(format!("{:?} {:?} {}", sample.pts, sample.dts, sample.payload.len()));
                }
            }
        }
        if let Err(refused) = refused {
            told.push(refused.to_string());
            break;
        }
    }
    told
}
