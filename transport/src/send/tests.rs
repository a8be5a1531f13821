//! One viewer of one track, in virtual time; what it is sent is opened by `rtc-srtp`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_shared::marshal::Unmarshal;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::{pace::Pacer, *};
use crate::srtp::{Opener, Sealer, tests::pair};

const MS: Duration = Duration::from_millis(1);
const FRAME_TICKS: u64 = 3000;

macro_rules! way {
    ($desk:expr, $out:expr) => {
        Way {
            now: $desk.now,
            sealer: &mut $desk.sealer,
            numbers: $desk.numbers.as_mut(),
            pacer: &mut $desk.pacer,
            out: &mut $out,
        }
    };
}

struct Desk {
    numbers: Option<Numbers>,
    pacer: Pacer,
    history: History,
    sender: Sender,
    sealer: Sealer,
    opener: Opener,
    now: Instant,
    frames: u64,
}

/// A packet as the viewer has it.
#[derive(Debug, PartialEq, Clone)]
struct Got {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

impl Desk {
    fn new(rtx: Option<(u8, u32)>) -> Self {
        let [(sealer, _), (_, opener)] = pair(ProtectionProfile::AeadAes128Gcm);
        let config = SenderConfig {
            ssrc: 0x1111,
            payload_type: 96,
            rtx,
            clock: 90_000,
            playout_delay: Some(PlayoutDelay { id: 5, min: 1, max: 50 }),
            transport_cc: None,
            marks_frames: true,
            first_sequence: 65_530,
            first_timestamp: u32::MAX - 1000,
        };
        Self {
            numbers: None,
            pacer: Pacer::default(),
            history: History::default(),
            sender: Sender::new(config),
            sealer,
            opener,
            now: Instant::now(),
            frames: 0,
        }
    }

    /// A frame of three packets, a thirtieth of a second after the last one.
    fn frame(&mut self, keyframe: bool) {
        let number = self.frames as u8;
        let payloads = vec![Bytes::from(vec![number; 100]), Bytes::from(vec![number; 100]), Bytes::from(vec![number; 40])];
        let at_us = self.frames as i64 * 33_333;
        self.history.push(self.now, OutFrame { timestamp: self.frames * FRAME_TICKS, at_us, keyframe, payloads }.into());
        self.frames += 1;
        self.now += 33 * MS;
    }

    fn advance(&mut self) -> (Progress, Vec<Got>) {
        let mut out = Vec::new();
        let progress = self.sender.advance(&self.history, &mut way!(self, out)).unwrap();
        (progress, self.open(&out))
    }

    /// Until nothing more is due.
    fn advance_all(&mut self) -> Vec<Got> {
        let mut all = self.advance().1;
        while let Some(at) = self.sender.poll_timeout() {
            self.now = self.now.max(at);
            all.extend(self.advance().1);
        }
        all
    }

    fn nack(&mut self, lost: &[u16]) -> Vec<Got> {
        let mut out = Vec::new();
        self.sender.handle_nack(lost, &self.history, &mut way!(self, out)).unwrap();
        self.open(&out)
    }

    fn open(&mut self, out: &[Burst]) -> Vec<Got> {
        out.iter()
            .flat_map(Burst::datagrams)
            .map(|datagram| {
                let header = rtc_rtp::Header::unmarshal(&mut &datagram[..]).unwrap();
                assert_eq!(header.get_extension(5).as_deref(), Some(&[0, 0x10, 50][..]), "playout delay 10 to 500 ms");
                let length = if header.get_extension(6).is_some() { 24 } else { 20 };
                let opened = self.opener.open_rtp(datagram, &header).unwrap();
                Got {
                    ssrc: header.ssrc,
                    sequence: header.sequence_number,
                    timestamp: header.timestamp,
                    marker: header.marker,
                    payload: opened[length..].to_vec(),
                }
            })
            .collect()
    }
}

#[test]
fn a_live_viewer_gets_each_frame_in_one_burst_and_in_order() {
    let mut desk = Desk::new(None);
    assert_eq!(desk.advance(), (Progress::Fine, vec![]), "nothing was sent yet");
    desk.frame(false);
    assert_eq!(desk.advance().0, Progress::NeedsKeyframe);
    desk.frame(true);
    let first = desk.advance_all();
    desk.frame(false);
    let second = desk.advance_all();
    let sequences: Vec<u16> = first.iter().chain(&second).map(|got| got.sequence).collect();
    assert_eq!(sequences, [65_530, 65_531, 65_532, 65_533, 65_534, 65_535], "no gap");
    assert_eq!(second[0].timestamp.wrapping_sub(first[0].timestamp), FRAME_TICKS as u32);
    assert_eq!(second.iter().map(|got| got.marker).collect::<Vec<_>>(), [false, false, true]);
    desk.frame(false);
    let third = desk.advance_all();
    assert_eq!(third[0].sequence, 0, "the sequence number wraps, and the packet is opened still");
    assert_eq!(third[0].timestamp.wrapping_sub(second[0].timestamp), FRAME_TICKS as u32);
}

#[test]
fn packets_of_one_frame_leave_in_one_call() {
    let mut desk = Desk::new(None);
    desk.frame(true);
    let mut out = Vec::new();
    desk.sender.advance(&desk.history, &mut way!(desk, out)).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].datagrams().map(<[u8]>::len).collect::<Vec<_>>(), [136, 136, 76]);
}

#[test]
fn who_joins_in_the_middle_catches_up_without_a_lasting_delay() {
    let mut desk = Desk::new(None);
    desk.frame(true);
    (0..90).for_each(|_| desk.frame(false));
    let began = desk.now;
    let (_, first) = desk.advance();
    assert!(first.len() >= 30 && first.len() < 40, "paced: {}", first.len());
    assert_eq!(first[0].payload[0], 0, "from the keyframe on");
    let mut all = first;
    all.extend(desk.advance_all());
    assert_eq!(all.len(), 91 * 3);
    assert!(desk.now - began < 50 * MS, "{:?}", desk.now - began);
    let span = all.last().unwrap().timestamp.wrapping_sub(all[0].timestamp);
    assert_eq!(span, 90 * 90, "a millisecond apart, not three seconds");
    desk.frame(false);
    let live = desk.advance_all();
    assert_eq!(live[0].timestamp.wrapping_sub(all.last().unwrap().timestamp), FRAME_TICKS as u32, "then as they were taken");
}

#[test]
fn a_lost_picture_is_given_again_from_the_keyframe_but_not_at_every_wish() {
    let mut desk = Desk::new(None);
    desk.frame(true);
    (0..20).for_each(|_| desk.frame(false));
    let last = desk.advance_all().pop().unwrap();
    assert!(desk.sender.handle_picture_loss(desk.now, &desk.history));
    let again = desk.advance_all();
    assert_eq!((again.len(), again[0].payload[0]), (21 * 3, 0));
    let mut stamps: Vec<u32> = again.iter().map(|got| got.timestamp.wrapping_sub(last.timestamp)).collect();
    assert!(stamps.is_sorted() && stamps[0] > 0, "timestamps go on: {stamps:?}");
    desk.frame(false);
    let live = desk.advance_all();
    stamps.push(live[0].timestamp.wrapping_sub(last.timestamp));
    assert!(stamps.is_sorted());
    assert_eq!(stamps.last(), Some(&(FRAME_TICKS as u32)), "no delay stays");
    assert!(!desk.sender.handle_picture_loss(desk.now, &desk.history), "soon after: only a new keyframe helps");
    assert_eq!(desk.advance_all(), vec![], "the same ones once are enough");
    assert!(desk.sender.handle_picture_loss(desk.now, &desk.history), "the publisher is not asked again and again");
}

#[test]
fn lost_packets_come_again_behind_their_number() {
    let mut desk = Desk::new(Some((97, 0x2222)));
    desk.frame(true);
    desk.frame(false);
    let sent = desk.advance_all();
    let again = desk.nack(&[65_531, 65_535, 7]);
    assert_eq!(again.len(), 2, "what was never sent is not there");
    for (got, original) in again.iter().zip([&sent[1], &sent[5]]) {
        let payload = [&original.sequence.to_be_bytes()[..], &original.payload].concat();
        assert_eq!((got.ssrc, &got.payload, got.timestamp), (0x2222, &payload, original.timestamp));
    }
}

/// Of the header extension 6; and the bytes on the wire.
fn numbers(out: &[Burst]) -> Vec<u16> {
    let number = |datagram: &[u8]| {
        let header = rtc_rtp::Header::unmarshal(&mut &datagram[..]).unwrap();
        u16::from_be_bytes(header.get_extension(6).unwrap()[..].try_into().unwrap())
    };
    out.iter().flat_map(Burst::datagrams).map(number).collect()
}

fn numbered(rtx: Option<(u8, u32)>) -> Desk {
    let mut desk = Desk::new(rtx);
    desk.numbers = Some(Numbers::new(desk.now));
    desk.sender = Sender::new(SenderConfig { transport_cc: Some(6), ..desk.sender.config().clone() });
    desk
}

#[test]
fn each_packet_has_a_number_of_the_whole_transport() {
    let mut desk = numbered(Some((97, 0x2222)));
    desk.numbers.as_mut().unwrap().take(desk.now, 100);
    desk.frame(true);
    let mut out = Vec::new();
    desk.sender.advance(&desk.history, &mut way!(desk, out)).unwrap();
    desk.sender.handle_nack(&[65_531], &desk.history, &mut way!(desk, out)).unwrap();
    assert_eq!(numbers(&out), [1, 2, 3, 4], "behind what others were sent, and retransmissions as well");
    assert_eq!(out[0].datagrams().map(<[u8]>::len).collect::<Vec<_>>(), [140, 140, 80], "still one call");
    assert_eq!(desk.open(&out).len(), 4);
}

#[test]
fn without_rtx_a_packet_keeps_its_number_as_well() {
    let mut desk = numbered(None);
    desk.frame(true);
    let (mut sent, mut again) = (Vec::new(), Vec::new());
    desk.sender.advance(&desk.history, &mut way!(desk, sent)).unwrap();
    desk.sender.handle_nack(&[65_531], &desk.history, &mut way!(desk, again)).unwrap();
    let originals: Vec<&[u8]> = sent.iter().flat_map(Burst::datagrams).collect();
    assert_eq!(again.iter().flat_map(Burst::datagrams).collect::<Vec<_>>(), [originals[1]]);
}

#[test]
fn a_probe_repeats_what_the_viewer_has() {
    let mut desk = numbered(Some((97, 0x2222)));
    let mut out = Vec::new();
    assert_eq!(desk.sender.pad(1000, &desk.history, &mut way!(desk, out)).unwrap(), 0, "nothing was sent yet");
    desk.frame(true);
    let sent = desk.advance_all();
    assert_eq!(desk.sender.pad(950, &desk.history, &mut way!(desk, out)).unwrap(), 1000);
    let got = desk.open(&out);
    assert_eq!((got.len(), out.len()), (10, 1), "in one call");
    assert!(got.iter().all(|got| got.ssrc == 0x2222 && got.payload[..2] == sent[1].sequence.to_be_bytes()));
    let mut out = Vec::new();
    assert!(desk.sender.pad(1 << 30, &desk.history, &mut way!(desk, out)).unwrap() <= 6400, "bounded");
    desk.frame(false);
    assert_eq!(desk.advance_all()[0].sequence, sent[2].sequence.wrapping_add(1), "the picture's own numbers have no gap");
    let mut plain = numbered(None);
    plain.frame(true);
    plain.advance_all();
    assert_eq!(plain.sender.pad(950, &plain.history, &mut way!(plain, out)).unwrap(), 0);
}

#[test]
fn a_track_that_is_far_behind_does_not_follow() {
    let mut desk = Desk::new(None);
    let frame = |timestamp| OutFrame { timestamp, at_us: 0, keyframe: true, payloads: Vec::new() };
    assert!(desk.sender.is_followed_by(&frame(0), true), "nothing was sent yet");
    (0..121).for_each(|number| desk.frame(number == 0));
    desk.advance_all();
    assert!(
        desk.sender.is_followed_by(&frame(130 * FRAME_TICKS), true)
            && desk.sender.is_followed_by(&frame(100 * FRAME_TICKS), false)
    );
    assert!(!desk.sender.is_followed_by(&frame(100 * FRAME_TICKS), true), "a burst would be lost");
    assert!(!desk.sender.is_followed_by(&frame(60 * FRAME_TICKS), false), "it would show again what was seen");
}

#[test]
fn without_rtx_the_same_packet_is_sent_once_more() {
    let mut desk = Desk::new(None);
    desk.frame(true);
    let (mut sent, mut again) = (Vec::new(), Vec::new());
    desk.sender.advance(&desk.history, &mut way!(desk, sent)).unwrap();
    desk.sender.handle_nack(&[65_531], &desk.history, &mut way!(desk, again)).unwrap();
    let originals: Vec<&[u8]> = sent.iter().flat_map(Burst::datagrams).collect();
    assert_eq!(
        again.iter().flat_map(Burst::datagrams).collect::<Vec<_>>(),
        [originals[1]],
        "sealed alike, so no nonce serves twice"
    );
}

#[test]
fn a_storm_of_wishes_is_bounded() {
    let mut desk = Desk::new(Some((97, 0x2222)));
    desk.frame(true);
    desk.advance_all();
    let repeated: usize = (0..1000).map(|_| desk.nack(&[65_530, 65_531, 65_532]).len()).sum();
    assert!(repeated <= 402, "{repeated}");
    (0..50).for_each(|_| desk.frame(false));
    desk.advance_all();
    assert!(!desk.nack(&[100]).is_empty(), "what is sent earns new ones");
}

#[test]
fn who_falls_behind_goes_on_at_the_next_keyframe() {
    let mut desk = Desk::new(None);
    desk.frame(true);
    desk.frame(false);
    let before = desk.advance_all();
    desk.frame(false);
    desk.sender.fall_behind(&desk.history);
    desk.frame(true);
    let after = desk.advance_all();
    assert_eq!((after.len(), after[0].payload[0]), (3, 3), "the keyframe, and nothing before it");
    assert_eq!(after[0].sequence, before.last().unwrap().sequence.wrapping_add(1));
    let last = before.last().unwrap().timestamp;
    assert_eq!(after[0].timestamp.wrapping_sub(last), 2 * FRAME_TICKS as u32);
}

#[test]
fn reports_tell_where_rtp_time_is_on_the_media_timeline() {
    let mut desk = Desk::new(None);
    assert_eq!(desk.sender.clock_at(desk.now, &desk.history), None);
    desk.frame(true);
    desk.now -= 33 * MS;
    let sent = desk.advance_all();
    let (rtp, at_us) = desk.sender.clock_at(desk.now + 10 * MS, &desk.history).unwrap();
    assert_eq!((rtp.wrapping_sub(sent[0].timestamp), at_us), (900, 10_000));
}

#[test]
fn on_a_narrow_way_a_keyframe_leaves_in_parts() {
    let mut desk = Desk::new(Some((97, 0x2222)));
    desk.frame(true);
    desk.advance_all();
    let payloads = (0..60).map(|number| Bytes::from(vec![number; 1000])).collect();
    desk.history.push(desk.now, OutFrame { timestamp: FRAME_TICKS, at_us: 33_333, keyframe: true, payloads }.into());
    let began = desk.now;
    let mut parts = Vec::new();
    // What comes meanwhile waits its turn.
    for turn in 0.. {
        if turn == 5 {
            desk.history.push(
                desk.now,
                OutFrame {
                    timestamp: 2 * FRAME_TICKS,
                    at_us: 66_667,
                    keyframe: false,
                    payloads: vec![Bytes::from_static(&[99; 10])],
                }
                .into(),
            );
        }
        desk.pacer.set(desk.now, Some(1_000_000));
        parts.push(desk.advance().1);
        let Some(at) = desk.sender.poll_timeout() else { break };
        desk.now = at;
    }
    assert!((7..10).contains(&parts[0].len()), "{} at once", parts[0].len());
    assert!(parts[1..].iter().all(|part| part.len() < 3), "a packet or two a turn");
    let took = desk.now - began;
    assert!((260 * MS..310 * MS).contains(&took), "60 kB at 1.5 Mbit/s take {took:?}");
    let all: Vec<Got> = parts.into_iter().flatten().collect();
    let (picture, next) = all.split_at(60);
    assert!(all.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)));
    assert!(picture.iter().all(|got| got.timestamp == picture[0].timestamp));
    assert_eq!(picture.iter().filter(|got| got.marker).count(), 1);
    assert!(picture[59].marker && next.len() == 1 && next[0].payload == [99; 10]);
    // Any of its packets may be had again.
    desk.pacer.set(desk.now + 100 * MS, Some(1_000_000));
    for index in [0, 9, 31, 59] {
        let again = desk.nack(&[picture[index].sequence]);
        assert_eq!((again.len(), &again[0].payload[2..]), (1, &picture[index].payload[..]), "packet {index}");
    }
    desk.pacer.hold(desk.now + 100 * MS, 200 * MS);
    assert_eq!(desk.nack(&[picture[0].sequence]), [], "a full way takes none");
}

#[test]
fn a_frame_that_has_begun_is_left_where_another_track_is_gone_to() {
    let mut desk = Desk::new(None);
    desk.frame(true);
    let first = desk.advance_all();
    desk.pacer.set(desk.now, Some(400_000));
    let payloads = (0..60).map(|number| Bytes::from(vec![number; 1000])).collect();
    desk.history.push(desk.now, OutFrame { timestamp: FRAME_TICKS, at_us: 33_333, keyframe: true, payloads }.into());
    let begun = desk.advance().1;
    assert!(!begun.is_empty() && begun.iter().all(|got| !got.marker));
    desk.sender.switch();
    desk.frames = 9;
    desk.frame(true);
    desk.pacer.set(desk.now, None);
    let next = desk.advance_all();
    assert_eq!(next.len(), 3);
    assert_eq!(next[0].sequence, begun[begun.len() - 1].sequence.wrapping_add(1));
    assert!(next[2].marker && next[0].timestamp.wrapping_sub(first[0].timestamp) > 0);
}
