//! Whole streams over an emulated network, in virtual time: an H.264 sender with retransmission and
//! keyframes on demand, a network that loses, delays and overtakes, and the receiver.

use std::collections::BTreeMap;

use super::*;
use crate::rtp::h264::packetize;

const MS: Duration = Duration::from_millis(1);
const SSRC: u32 = 7;
const RTX_SSRC: u32 = 8;
const SPS: &[u8] = &[0x67, 0x42, 0xe0, 0x1f, 0x8c];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

fn header(sequence_number: u16, timestamp: u32, marker: bool) -> Header {
    Header { version: 2, ssrc: SSRC, sequence_number, timestamp, marker, ..Header::default() }
}

fn slice(header: u8, length: usize) -> Vec<u8> {
    let length_bytes = (length as u32).to_be_bytes();
    length_bytes.into_iter().chain([header, 0x80]).chain((2..length).map(|place| place as u8)).collect()
}

/// Payloads of a picture: an IDR of 21 packets, or a P slice of 5.
fn picture(keyframe: bool) -> Vec<Bytes> {
    match keyframe {
        true => packetize(&slice(0x65, 19_900), Some((&[SPS], &[PPS])), 1000),
        false => packetize(&slice(0x41, 4900), None, 1000),
    }
}

/// What the network carries.
enum Transit {
    Media(Header, Bytes),
    Rtx(Header, Bytes),
    Feedback(Feedback),
}

struct Call {
    start: Instant,
    now: Instant,
    receiver: Receiver,
    /// One way.
    delay: Duration,
    /// Packets lost of a thousand, either way and again when repeated.
    loss: u32,
    /// Numbers lost at their first sending.
    lose: fn(u64) -> bool,
    network: BTreeMap<(Instant, u64), Transit>,
    sent: BTreeMap<u16, (Header, Bytes, Instant)>,
    sequence: u64,
    first_timestamp: u32,
    pictures: u32,
    keyframe_asked: bool,
    answers_nack: bool,
    order: u64,
    seed: u32,
    frames: Vec<(Frame, Duration)>,
    plis: Vec<Duration>,
}

const FRAME: Duration = Duration::from_micros(33_333);

impl Call {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            receiver: Receiver::new(Codec::H264),
            delay: 25 * MS,
            loss: 0,
            lose: |_| false,
            network: BTreeMap::new(),
            sent: BTreeMap::new(),
            sequence: 65_000,
            first_timestamp: u32::MAX - 90_000,
            pictures: 0,
            keyframe_asked: true,
            answers_nack: true,
            order: 0,
            seed: 3,
            frames: Vec::new(),
            plis: Vec::new(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn is_lost(&mut self) -> bool {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.seed >> 8) % 1000 < self.loss
    }

    fn carry(&mut self, transit: Transit) {
        if !self.is_lost() {
            self.order += 1;
            self.network.insert((self.now + self.delay, self.order), transit);
        }
    }

    fn send_picture(&mut self) {
        let payloads = picture(std::mem::take(&mut self.keyframe_asked));
        let timestamp = self.first_timestamp.wrapping_add(self.pictures * 3000);
        self.pictures += 1;
        let last = payloads.len() - 1;
        for (place, payload) in payloads.into_iter().enumerate() {
            let header = header(self.sequence as u16, timestamp, place == last);
            self.sent.insert(self.sequence as u16, (header.clone(), payload.clone(), self.now));
            if !(self.lose)(self.sequence) {
                self.carry(Transit::Media(header, payload));
            }
            self.sequence += 1;
        }
    }

    fn handle(&mut self, transit: Transit) {
        match transit {
            Transit::Media(header, payload) => self.receiver.handle_packet(self.now, &header, payload),
            Transit::Rtx(header, payload) => self.receiver.handle_rtx(self.now, &header, payload),
            Transit::Feedback(Feedback::KeyframeRequest) => self.keyframe_asked = true,
            Transit::Feedback(Feedback::Nack(numbers)) if self.answers_nack => numbers.into_iter().for_each(|number| {
                let Some((header, payload, _)) = self.sent.get(&number).cloned() else { return };
                let payload = [&number.to_be_bytes(), &payload[..]].concat();
                self.carry(Transit::Rtx(Header { ssrc: RTX_SSRC, ..header }, payload.into()));
            }),
            Transit::Feedback(_) => {}
        }
    }

    /// For so long, a picture each 33 ms.
    fn run(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        loop {
            let picture = self.start + FRAME * self.pictures;
            let arrival = self.network.keys().next().map(|(at, _)| *at);
            let next = arrival.into_iter().chain(self.receiver.poll_timeout()).chain([picture, end]).min().unwrap();
            self.now = self.now.max(next);
            if self.now >= end {
                return self;
            }
            if self.now >= picture {
                self.send_picture();
            }
            while let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let transit = entry.remove();
                self.handle(transit);
            }
            self.receiver.handle_timeout(self.now);
            self.poll();
        }
    }

    fn poll(&mut self) {
        while let Some(feedback) = self.receiver.poll_feedback(self.now) {
            if feedback == Feedback::KeyframeRequest {
                self.plis.push(self.elapsed());
            }
            self.carry(Transit::Feedback(feedback));
        }
        while let Some(frame) = self.receiver.poll_frame() {
            let place = (frame.timestamp as u32).wrapping_sub(self.first_timestamp) / 3000;
            self.frames.push((frame, self.elapsed().saturating_sub(FRAME * place)));
        }
    }

    /// How long each frame took, from its sending; since the last question.
    fn delays(&mut self) -> Vec<Duration> {
        self.frames.drain(..).map(|(_, delay)| delay).collect()
    }
}

#[test]
fn without_loss_nothing_waits() {
    let mut call = Call::new();
    call.run(2 * Duration::from_secs(1));
    assert_eq!(call.frames.len(), 60);
    assert!(call.frames[0].0.keyframe && call.frames[0].0.sps.as_deref() == Some(SPS) && call.plis.is_empty());
    assert!(call.frames.windows(2).all(|pair| pair[1].0.timestamp - pair[0].0.timestamp == 3000), "over the wrap");
    assert!(call.delays().iter().all(|delay| *delay <= 25 * MS));
}

#[test]
fn loss_is_recovered_and_the_delay_ends_with_it() {
    let mut call = Call::new();
    call.run(Duration::from_secs(1));
    call.delays();
    call.loss = 50;
    call.run(Duration::from_secs(60));
    let stats = call.receiver.stats();
    let frames = call.frames.len();
    assert!(frames > 1700, "{frames} of 1800 frames came whole, {stats:?}");
    assert!(stats.recovered > 400 && stats.lost < stats.recovered / 20, "{stats:?}");
    assert!(call.delays().iter().all(|delay| *delay <= 275 * MS), "no frame waits longer than the window does");
    call.loss = 0;
    call.run(Duration::from_millis(500));
    call.delays();
    call.run(Duration::from_secs(5));
    let delays = call.delays();
    assert!(delays.len() >= 149 && delays.iter().all(|delay| *delay <= 25 * MS), "{delays:?}");
}

#[test]
fn every_twentieth_packet_lost_once_costs_no_frame() {
    let mut call = Call::new();
    call.lose = |sequence| sequence % 20 == 7;
    call.run(Duration::from_secs(20));
    let stats = call.receiver.stats();
    assert_eq!((stats.lost, stats.damaged, stats.plis), (0, 0, 0), "{stats:?}");
    let frames: Vec<u64> = call.frames.iter().map(|(frame, _)| frame.timestamp).collect();
    assert!(frames.len() >= 597 && frames.windows(2).all(|pair| pair[1] - pair[0] == 3000));
    assert!(call.frames.iter().all(|(frame, _)| !frame.damaged_before));
}

#[test]
fn a_sender_that_repeats_nothing_is_asked_for_keyframes() {
    let mut call = Call::new();
    call.answers_nack = false;
    call.lose = |sequence| sequence == 65_100;
    call.run(Duration::from_secs(3));
    assert_eq!(call.plis.len(), 1);
    let damaged: Vec<&Frame> = call.frames.iter().map(|(frame, _)| frame).filter(|frame| frame.damaged_before).collect();
    let [first] = damaged[..] else { panic!("{damaged:?}") };
    assert!(first.keyframe, "decoding goes on at a keyframe");
    assert!(call.delays().last().unwrap() <= &(25 * MS));
}

/// Case: the first fragment of a keyframe is lost, overtaken or repeated.
#[test]
fn the_first_fragment_may_suffer() {
    let payloads: Vec<Bytes> = packetize(&slice(0x65, 2900), Some((&[SPS], &[PPS])), 1000);
    assert_eq!(payloads.len(), 4, "parameter sets and three fragments");
    for (order, frames_at_once) in [
        (&[0, 1, 2, 3][..], 1),
        (&[0, 2, 1, 3], 1),
        (&[1, 0, 2, 3], 0), // Nobody can know that a first packet was overtaken.
        (&[0, 1, 1, 2, 3], 1),
        (&[0, 2, 3], 0),
        (&[1, 2, 3], 0),
    ] {
        let start = Instant::now();
        let mut receiver = Receiver::new(Codec::H264);
        for place in order {
            receiver.handle_packet(start, &header(*place, 9000, *place == 3), payloads[usize::from(*place)].clone());
        }
        let later = start + 300 * MS;
        receiver.handle_timeout(later);
        assert_eq!(std::iter::from_fn(|| receiver.poll_frame()).count(), frames_at_once, "{order:?}");
        let mut asked = std::iter::from_fn(|| receiver.poll_feedback(later));
        assert_eq!(asked.any(|feedback| feedback == Feedback::KeyframeRequest), frames_at_once == 0, "{order:?}");
        for (place, payload) in payloads.iter().enumerate() {
            receiver.handle_packet(later, &header(4 + place as u16, 12_000, place == 3), payload.clone());
        }
        let frame = receiver.poll_frame().unwrap();
        assert!(frame.keyframe && frame.sps.is_some() && frame.damaged_before == (frames_at_once == 0), "{order:?}");
        assert_eq!(receiver.poll_feedback(later + Duration::from_secs(1)), None, "{order:?}");
    }
}

/// Case: parameter sets in packets of their own, an IDR in several slices, and no sender report.
#[test]
fn frames_need_no_sender_report() {
    let start = Instant::now();
    let mut receiver = Receiver::new(Codec::H264);
    let units: [&[u8]; 4] = [SPS, PPS, &[0x65, 0x88, 1, 2], &[0x65, 0x08, 3, 4]];
    for (place, unit) in units.iter().enumerate() {
        receiver.handle_packet(start, &header(place as u16, 1000, place == 3), Bytes::copy_from_slice(unit));
    }
    let frame = receiver.poll_frame().unwrap();
    assert_eq!(frame.payload, &[0, 0, 0, 4, 0x65, 0x88, 1, 2, 0, 0, 0, 4, 0x65, 0x08, 3, 4][..]);
    assert!(frame.keyframe && !frame.damaged_before && frame.ntp.is_none());
    assert_eq!((frame.sps.as_deref(), frame.pps.as_deref()), (Some(SPS), Some(PPS)));
    receiver.handle_sender_report(start + Duration::from_secs(5), (1000 << 32) + 1, 1000 + 5 * 90_000);
    for (place, (ticks, ntp)) in
        [(5 * 90_000, Some((1000 << 32) + 1)), (6 * 90_000, Some((1001 << 32) + 1)), (0, Some((995 << 32) + 1))]
            .into_iter()
            .enumerate()
    {
        let now = start + Duration::from_secs(6);
        receiver.handle_packet(now, &header(4 + place as u16, 1000 + ticks, true), Bytes::from_static(&[0x41, 0x80]));
        assert_eq!(receiver.poll_frame().unwrap().ntp, ntp);
    }
    let now = start + Duration::from_secs(20);
    receiver.handle_packet(now, &header(7, 5, true), Bytes::from_static(&[0x41, 0x80]));
    assert_eq!(receiver.poll_frame().unwrap().ntp, None, "the report is of another time");
}

#[test]
fn a_stream_that_starts_in_the_middle_waits_for_a_keyframe() {
    let mut call = Call::new();
    call.keyframe_asked = false;
    call.delay = 1000 * MS;
    call.run(Duration::from_millis(4000));
    let plis: Vec<u128> = call.plis.iter().map(Duration::as_millis).collect();
    assert_eq!(plis, [1000, 1400, 1800, 2200, 2600, 3000], "at once, and again until one has come");
    assert!(call.frames[0].0.keyframe);
    assert!(call.frames.len() > 25);
}

/// A hole costs pictures up to the next keyframe, which is asked for, whatever the codec.
#[test]
fn pictures_of_every_codec_go_on_at_a_keyframe() {
    const AV1_HEADER: &[u8] = &[0x08, 0, 0, 0, 0x0c, 0xc4];
    let av1_keyframe = [&[0x20, AV1_HEADER.len() as u8], AV1_HEADER, &[0x30, 0x10, 1]].concat();
    let hevc_keyframe = b"\x60\x01\x00\x05\x42\x01\x01\x01\x60\x00\x04\x26\x01\x80\x01".to_vec();
    let h264_keyframe = b"\x78\x00\x05\x67\x42\xe0\x1f\x8c\x00\x02\x65\x80".to_vec();
    for (codec, keyframe, other) in [
        (Codec::H264, h264_keyframe, vec![0x41, 0x80]),
        (Codec::Hevc, hevc_keyframe, vec![0x02, 0x01, 0x80, 0x01]),
        (Codec::Av1, av1_keyframe, vec![0x10, 0x30, 0x30, 1]),
    ] {
        let (start, mut receiver) = (Instant::now(), Receiver::new(codec));
        let mut asked = 0;
        // Number 4 is lost, and never comes.
        for (number, is_key) in [(1, false), (2, true), (3, false), (5, false), (6, false), (7, true), (8, false)] {
            let (now, payload) = (start + u32::from(number) * 300 * MS, if is_key { &keyframe } else { &other });
            receiver.handle_timeout(now);
            receiver.handle_packet(now, &header(number, u32::from(number) * 3000, true), Bytes::from(payload.clone()));
            while let Some(feedback) = receiver.poll_feedback(now) {
                asked += u32::from(feedback == Feedback::KeyframeRequest);
            }
        }
        receiver.handle_timeout(start + 4000 * MS);
        let frames: Vec<_> =
            std::iter::from_fn(|| receiver.poll_frame()).map(|frame| (frame.keyframe, frame.damaged_before)).collect();
        assert_eq!(frames, [(true, false), (false, false), (true, true), (false, false)], "{codec:?}");
        assert!(asked >= 2, "{codec:?}: before the first keyframe, and at the hole");
    }
}

#[test]
fn requests_from_outside_are_one_and_nobody_is_asked_in_vain() {
    let start = Instant::now();
    let mut receiver = Receiver::new(Codec::H264);
    receiver.request_keyframe(start);
    assert_eq!((receiver.poll_timeout(), receiver.poll_feedback(start)), (None, None), "nobody sends yet");
    let mut number = 0;
    let mut feed = |receiver: &mut Receiver, at: Instant, keyframe| {
        let payloads = picture(keyframe);
        let timestamp = u32::from(number);
        for (place, payload) in payloads.iter().enumerate() {
            receiver.handle_packet(at, &header(number, timestamp, place + 1 == payloads.len()), payload.clone());
            number += 1;
        }
    };
    feed(&mut receiver, start, true);
    assert_eq!(receiver.poll_feedback(start), None, "it came by itself");
    receiver.request_keyframe(start);
    receiver.request_keyframe(start);
    assert_eq!(receiver.poll_feedback(start), Some(Feedback::KeyframeRequest));
    assert_eq!((receiver.poll_feedback(start), receiver.poll_timeout()), (None, Some(start + 400 * MS)));
    feed(&mut receiver, start + 20 * MS, true);
    assert_eq!(receiver.poll_timeout(), None);
    receiver.request_keyframe(start + 30 * MS);
    assert_eq!(receiver.poll_timeout(), Some(start + 150 * MS), "another one not at once");
    assert_eq!(receiver.poll_feedback(start + 150 * MS), Some(Feedback::KeyframeRequest));
    let silent = start + Duration::from_secs(10);
    assert_eq!(receiver.poll_feedback(start + 550 * MS), Some(Feedback::KeyframeRequest));
    assert_eq!(receiver.poll_feedback(start + 950 * MS), Some(Feedback::KeyframeRequest));
    assert_eq!((receiver.poll_timeout(), receiver.poll_feedback(silent)), (None, None), "a silent layer is left alone");
    feed(&mut receiver, silent, false);
    assert_eq!(receiver.poll_feedback(silent), Some(Feedback::KeyframeRequest));
    let mut audio = Receiver::new(Codec::Opus);
    audio.handle_packet(start, &header(0, 0, false), Bytes::from_static(&[0xf8]));
    audio.request_keyframe(start);
    assert_eq!(audio.poll_feedback(start), None);
}

#[test]
fn padding_is_no_frame_and_no_hole() {
    let start = Instant::now();
    let mut receiver = Receiver::new(Codec::H264);
    let key = packetize(&slice(0x65, 100), Some((&[SPS], &[PPS])), 1000).remove(0);
    receiver.handle_packet(start, &header(0, 1, true), key);
    for number in 1..5 {
        receiver.handle_packet(start, &header(number, 1, false), Bytes::new());
    }
    for payload in [&[][..], &[0], &[0, 5]] {
        receiver.handle_rtx(start, &Header { ssrc: RTX_SSRC, ..header(9, 1, false) }, Bytes::from_static(payload));
    }
    receiver.handle_packet(start, &header(5, 3001, true), Bytes::from_static(&[0x41, 0x80]));
    assert!(receiver.poll_frame().unwrap().keyframe);
    assert_eq!(receiver.poll_frame().unwrap().payload, &[0, 0, 0, 2, 0x41, 0x80][..]);
    assert_eq!((receiver.poll_frame(), receiver.poll_feedback(start)), (None, None));
    assert_eq!(receiver.stats().packets, 6);
}

/// Opus packets (milliseconds, SSRC, number, timestamp), and how far the frames' time goes each step; `x` marks damage before.
fn check_time(packets: &[(u64, u32, u16, u32)], expected: &str) {
    let start = Instant::now();
    let mut receiver = Receiver::new(Codec::Opus);
    let mut before = None;
    let mut steps = Vec::new();
    for (ms, ssrc, number, timestamp) in packets {
        let now = start + Duration::from_millis(*ms);
        receiver.handle_timeout(now);
        receiver.handle_packet(now, &Header { ssrc: *ssrc, ..header(*number, *timestamp, false) }, Bytes::from_static(&[0xf8]));
        while let Some(frame) = receiver.poll_frame() {
            let step = before.map_or(0, |before| frame.timestamp as i64 - before as i64);
            before = Some(frame.timestamp);
            steps.push(format!("{step}{}", if frame.damaged_before { "x" } else { "" }));
        }
    }
    assert_eq!(steps.join(" "), expected, "{packets:?}");
}

/// Case: wraps and jumps of the RTP clock, a pause of 8 h, another SSRC.
#[test]
fn time_goes_on_whatever_the_sender_s_clock_does() {
    const HOURS: u64 = 8 * 3_600_000;
    check_time(&[(0, 1, 0, u32::MAX - 959), (20, 1, 1, 0), (40, 1, 2, 960)], "0 960 960");
    check_time(&[(0, 1, 0, (1 << 31) - 960), (20, 1, 1, 1 << 31)], "0 960");
    check_time(&[(0, 1, 0, 5), (20, 1, 1, 5 + (1 << 31)), (40, 1, 2, 965 + (1 << 31))], "0 960 960");
    check_time(
        &[(0, 1, 0, 5), (HOURS, 1, 1, (5 + HOURS * 48) as u32), (HOURS + 20, 1, 2, (965 + HOURS * 48) as u32)],
        "0 1382400000 960",
    );
    check_time(&[(0, 1, 0, 5), (HOURS, 1, 1, 965)], "0 960");
    check_time(&[(0, 1, 0, 5), (20, 2, 40_000, 77), (40, 2, 40_001, 1037)], "0 960x 960");
    check_time(&[(0, 1, 0, 5), (20, 1, 40_000, 965), (40, 1, 40_001, 1925)], "0 960x 960");
    check_time(&[(0, 1, 0, 5), (40, 1, 2, 1925), (60, 1, 3, 2885), (90, 1, 4, 3845)], "0 1920x 960 960");
    check_time(&[(0, 1, 0, 5), (40, 1, 2, 1925), (41, 2, 9, 3845)], "0 1920x 48x");
}

#[test]
fn another_ssrc_starts_with_a_keyframe() {
    let start = Instant::now();
    let mut receiver = Receiver::new(Codec::H264);
    let key = packetize(&slice(0x65, 100), Some((&[SPS], &[PPS])), 1000).remove(0);
    let other = |number, ssrc| Header { ssrc, ..header(number, u32::from(number), true) };
    receiver.handle_packet(start, &other(1, 1), key.clone());
    assert!(receiver.poll_frame().is_some());
    receiver.handle_packet(start, &other(500, 2), Bytes::from_static(&[0x41, 0x80]));
    assert_eq!((receiver.poll_frame(), receiver.poll_feedback(start)), (None, Some(Feedback::KeyframeRequest)));
    receiver.handle_packet(start, &other(501, 2), key);
    let frame = receiver.poll_frame().unwrap();
    assert!(frame.keyframe && frame.damaged_before);
    assert_eq!(receiver.report(start, 2).last_sequence_number, 501, "the report is of the new one");
}

#[test]
fn rubbish_is_no_sound() {
    let start = Instant::now();
    let mut receiver = Receiver::new(Codec::Opus);
    for (number, payload) in [(0, &[0xf8][..]), (1, &[0xfb]), (2, &[0xf8])] {
        receiver.handle_packet(start, &header(number, u32::from(number) * 960, false), Bytes::from_static(payload));
    }
    let frames: Vec<bool> = std::iter::from_fn(|| receiver.poll_frame()).map(|frame| frame.damaged_before).collect();
    assert_eq!((frames, receiver.stats().damaged), (vec![false, true], 1));
}
