//! One incoming layer: packets of one SSRC (and its retransmissions) to frames.
//!
//! Video with a hole is not given to decoders: after one, frames are withheld until a keyframe has
//! come whole, and the sender is asked for it. Sound goes on behind the hole. No sender report is
//! needed for a frame to come out; with one, frames know the sender's wall clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtp::Header;

use super::{
    depacketize::{AccessUnit, Depacketizer, Output, Piece},
    opus,
    reception::{Reception, SenderReport},
    unwrap::Timestamps,
    window::{Packet, Window},
};

/// More than the window can release at once. The owner takes frames after every input; if it does not, the oldest go.
const FRAMES_MAX: usize = 4096;
/// Until a keyframe has come: an encoder answers within a few frames and a round trip.
const REQUEST_REPEAT: Duration = Duration::from_millis(400);
/// Between two requests, when the first was answered: keyframes are ten times as large as others.
const REQUEST_SPACING: Duration = Duration::from_millis(150);
/// A sender that is silent so long is not asked: it has paused this layer, or is gone.
const SILENCE: Duration = Duration::from_secs(1);
/// What frame and sender report may differ: more says that one of them is of an older clock.
const REPORT_SLACK: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Opus,
}

impl Codec {
    fn is_video(self) -> bool {
        self != Self::Opus
    }

    fn clock_rate(self) -> u32 {
        match self {
            Self::H264 | Self::Hevc | Self::Av1 => 90_000,
            Self::Opus => 48_000,
        }
    }

    /// How long a hole may last before recovery was measured. A hole in the picture costs a keyframe, so it is given a round
    /// trip of 50 ms; sound is often sent without retransmission.
    fn first_wait(self) -> Duration {
        match self {
            Self::H264 | Self::Hevc | Self::Av1 => Duration::from_millis(130),
            Self::Opus => Duration::from_millis(40),
        }
    }
}

/// One access unit, or one Opus packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// In ticks of the RTP clock, unwrapped; it goes on through changes of SSRC and clock.
    pub timestamp: u64,
    /// H.264, HEVC: NAL units behind 4-byte lengths. AV1: OBUs with their sizes.
    pub payload: Bytes,
    pub vps: Option<Bytes>,
    pub sps: Option<Bytes>,
    pub pps: Option<Bytes>,
    pub keyframe: bool,
    /// Something was lost before it.
    pub damaged_before: bool,
    /// When its first packet arrived.
    pub first_received: Instant,
    /// When its last one did.
    pub received: Instant,
    /// The sender's wall clock at this timestamp, in NTP's 32.32 seconds, where it has told.
    pub ntp: Option<u64>,
}

/// What to ask of the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// These packets again, in order.
    Nack(Vec<u16>),
    KeyframeRequest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// With retransmissions and their repetitions.
    pub packets: u64,
    /// Of payload.
    pub bytes: u64,
    /// Never came, or too late.
    pub lost: u64,
    /// Came after they had been asked for.
    pub recovered: u64,
    pub duplicate: u64,
    pub late: u64,
    /// Packets asked for, repetitions included.
    pub nacks: u64,
    pub plis: u64,
    /// Holes, access units with errors, Opus packets that are none.
    pub damaged: u64,
    /// Payloads of kinds that were not negotiated.
    pub refused: u64,
}

pub struct Receiver {
    codec: Codec,
    ssrc: Option<u32>,
    heard: Option<Instant>,
    window: Window,
    /// `None` for sound.
    depacketizer: Option<Depacketizer>,
    timestamps: Timestamps,
    reception: Reception,
    requests: Requests,
    /// Video: nothing is delivered before a keyframe.
    waiting: bool,
    damaged_before: bool,
    frames: VecDeque<Frame>,
    stats: Stats,
}

impl Receiver {
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            ssrc: None,
            heard: None,
            window: Window::new(codec.first_wait()),
            depacketizer: Depacketizer::new(codec),
            timestamps: Timestamps::new(codec.clock_rate()),
            reception: Reception::default(),
            requests: Requests::default(),
            waiting: codec.is_video(),
            damaged_before: false,
            frames: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// A packet of the medium itself. `payload` is what lies between header and padding: nothing, where it only probes.
    pub fn handle_packet(&mut self, now: Instant, header: &Header, payload: Bytes) {
        if self.ssrc != Some(header.ssrc) {
            self.change_ssrc(now, header.ssrc);
        }
        self.heard = Some(now);
        self.reception.handle_packet(now, header.sequence_number, header.timestamp, self.codec.clock_rate());
        self.insert(now, header, header.sequence_number, false, payload);
    }

    /// A packet of the retransmission stream (RFC 4588 4): the original's number, then its payload.
    pub fn handle_rtx(&mut self, now: Instant, header: &Header, mut payload: Bytes) {
        // With nothing behind the number it only probes for bandwidth.
        if payload.len() > 2 {
            let number = payload.get_u16();
            self.insert(now, header, number, true, payload);
        }
    }

    pub fn handle_sender_report(&mut self, now: Instant, ntp: u64, rtp: u32) {
        self.reception.handle_sender_report(SenderReport { ntp, rtp, received: now });
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.window.handle_timeout(now);
        self.release(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.window.poll_timeout().into_iter().chain(self.requests.due(self.heard)).min()
    }

    pub fn poll_frame(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    pub fn poll_feedback(&mut self, now: Instant) -> Option<Feedback> {
        if let Some(numbers) = self.window.poll_nack(now) {
            return Some(Feedback::Nack(numbers));
        }
        if self.requests.due(self.heard).is_none_or(|due| now < due) {
            return None;
        }
        self.requests.send(now);
        self.stats.plis += 1;
        Some(Feedback::KeyframeRequest)
    }

    /// Somebody else needs a keyframe. Requests that come together are one.
    pub fn request_keyframe(&mut self, now: Instant) {
        if self.codec.is_video() {
            self.requests.want(now);
        }
    }

    /// A block for the next RTCP report (RFC 3550 6.4.1). The fraction is since the last call.
    pub fn report(&mut self, now: Instant, ssrc: u32) -> ReceptionReport {
        self.reception.report(now, ssrc)
    }

    pub fn stats(&self) -> Stats {
        let window = self.window.counters();
        Stats {
            lost: window.lost,
            recovered: window.recovered,
            duplicate: window.duplicate,
            late: window.late,
            nacks: window.nacks,
            refused: self.depacketizer.as_ref().map_or(0, Depacketizer::refused),
            ..self.stats
        }
    }

    pub(super) fn is_within_bounds(&self) -> bool {
        self.window.is_within_bounds() && self.frames.len() <= FRAMES_MAX
    }

    fn change_ssrc(&mut self, now: Instant, ssrc: u32) {
        if self.ssrc.replace(ssrc).is_none() {
            return;
        }
        self.window.restart();
        self.release(now);
        if let Some(depacketizer) = &mut self.depacketizer {
            depacketizer.restart();
        }
        self.timestamps.reset();
        self.reception = Reception::default();
        self.waiting = self.codec.is_video();
        self.damaged_before = true;
    }

    fn insert(&mut self, now: Instant, header: &Header, number: u16, retransmitted: bool, payload: Bytes) {
        self.stats.packets += 1;
        self.stats.bytes += payload.len() as u64;
        let packet = Packet { timestamp: header.timestamp, marker: header.marker, payload, received: now, gap: false };
        self.window.handle_packet(number, retransmitted, packet);
        self.release(now);
    }

    /// Takes what the window lets go.
    fn release(&mut self, now: Instant) {
        while let Some(packet) = self.window.poll_packet() {
            match &mut self.depacketizer {
                Some(depacketizer) => {
                    depacketizer.handle_piece(&Piece::from(packet));
                    self.take_outputs(now);
                }
                None => self.handle_opus(packet),
            }
        }
    }

    fn take_outputs(&mut self, now: Instant) {
        while let Some(output) = self.depacketizer.as_mut().and_then(Depacketizer::poll) {
            match output {
                Output::Whole(unit) => self.handle_access_unit(now, unit),
                Output::Damaged => {
                    self.stats.damaged += 1;
                    self.waiting = true;
                    self.damaged_before = true;
                    self.requests.want(now);
                }
            }
        }
    }

    fn handle_access_unit(&mut self, now: Instant, unit: AccessUnit) {
        if unit.keyframe {
            self.waiting = false;
            self.requests.satisfy();
        }
        if self.waiting {
            self.requests.want(now);
            return;
        }
        self.push(unit.timestamp, Frame::of(unit));
    }

    fn handle_opus(&mut self, packet: Packet) {
        let Packet { timestamp, payload, received, gap, .. } = packet;
        let padding = payload.is_empty();
        let sound = opus::duration(&payload).is_some();
        if gap || !(padding || sound) {
            self.stats.damaged += 1;
            self.damaged_before = true;
        }
        if sound {
            self.push(timestamp, Frame::opus(payload, received));
        }
    }

    /// Gives the frame its place in time and queues it.
    fn push(&mut self, raw: u32, frame: Frame) {
        let timestamp = self.timestamps.unwrap(frame.first_received, raw);
        let ntp = self.reception.sender_report().and_then(|report| self.ntp(report, raw, frame.first_received));
        let damaged_before = std::mem::take(&mut self.damaged_before);
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back(Frame { timestamp, ntp, damaged_before, ..frame });
    }

    fn ntp(&self, report: SenderReport, raw: u32, received: Instant) -> Option<u64> {
        let clock_rate = i64::from(self.codec.clock_rate());
        let ticks = i64::from(raw.wrapping_sub(report.rtp) as i32);
        let passed = match received.checked_duration_since(report.received) {
            Some(after) => after.as_millis() as i64,
            None => -(report.received.duration_since(received).as_millis() as i64),
        };
        let off = (ticks * 1000 / clock_rate - passed).unsigned_abs();
        if u128::from(off) > REPORT_SLACK.as_millis() {
            return None;
        }
        // 32.32 fixed point: 31 bits of ticks times 2^32 fit.
        let distance = ticks * (1 << 32) / clock_rate;
        Some(report.ntp.wrapping_add_signed(distance))
    }
}

impl From<Packet> for Piece {
    fn from(packet: Packet) -> Self {
        let Packet { timestamp, marker, payload, received, gap } = packet;
        Self { timestamp, marker, gap, payload, received }
    }
}

impl Frame {
    fn opus(payload: Bytes, received: Instant) -> Self {
        let (vps, sps, pps, first_received) = (None, None, None, received);
        let (keyframe, damaged_before) = (true, false);
        Self { timestamp: 0, payload, vps, sps, pps, keyframe, damaged_before, first_received, received, ntp: None }
    }

    fn of(unit: AccessUnit) -> Self {
        let AccessUnit { payload, vps, sps, pps, keyframe, first_received, received, .. } = unit;
        Self { timestamp: 0, payload, vps, sps, pps, keyframe, damaged_before: false, first_received, received, ntp: None }
    }
}

/// Asking for keyframes: at once, again until one has come, never too often.
#[derive(Default)]
struct Requests {
    wanted: Option<Instant>,
    sent: Option<Instant>,
    /// A keyframe has come since `sent`.
    answered: bool,
}

impl Requests {
    fn want(&mut self, now: Instant) {
        self.wanted.get_or_insert(now);
    }

    fn satisfy(&mut self) {
        self.wanted = None;
        self.answered = true;
    }

    fn send(&mut self, now: Instant) {
        self.sent = Some(now);
        self.answered = false;
    }

    /// `None`: nothing is wanted, or nobody is there to ask.
    fn due(&self, heard: Option<Instant>) -> Option<Instant> {
        let wanted = self.wanted?;
        let interval = if self.answered { REQUEST_SPACING } else { REQUEST_REPEAT };
        let due = self.sent.map_or(wanted, |sent| wanted.max(sent + interval));
        (due <= heard? + SILENCE).then_some(due)
    }
}

#[cfg(test)]
mod tests;
