//! One viewer's copy of one track: its sequence numbers, timestamps, and what it may have again.
//!
//! ```text
//! Waiting --keyframe in the history--> Catching up --at the newest frame--> Live
//!    ^------------------ the history has moved past it, or the way was full ----|
//! ```
//!
//! A viewer that joins in the middle of a GOP gets the GOP from its keyframe, quickly and with
//! timestamps a millisecond apart, so that the pictures are shown as fast as they can be decoded
//! and no delay stays. Where the way is narrow a frame leaves in parts, as the `Pacer` lets them.
//! Pure: `now` and the history come in, sealed packets go out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BufMut;

use super::{
    Numbers,
    history::{History, OutFrame},
    pace::Pacer,
};
use crate::srtp::{SealError, Sealer};

/// Packets sent at once while catching up; with the pause below about 100 Mbit/s, which home links
/// and receive buffers of 256 KiB survive.
const PACE_PACKETS: usize = 32;
pub(crate) const PACE: Duration = Duration::from_millis(3);
/// Distance of timestamps while catching up, in seconds: a millisecond.
const CATCH_UP_STEPS_A_SECOND: u32 = 1000;
/// What may lie between the newest frame and the repeated ones after a PLI: less than any frame interval.
const REPEAT_GAP_SECONDS: f64 = 0.006;
/// A viewer that asks for a keyframe gets the GOP again, and has the publisher asked, at most so often each.
const REPEAT_MIN: Duration = Duration::from_secs(2);
/// A live viewer that was not served so long starts anew at a keyframe: the rest in one burst would be lost on the way.
const LAG_FRAMES_MAX: u64 = 60;
/// Frames, or parts of them, whose sequence numbers are remembered: as many as the history holds frames.
const SENT_MAX: usize = 1024;
/// Retransmissions saved up: a burst of loss of a keyframe.
const REPEATS_BURST: f64 = 400.0;
/// Retransmissions earned by each packet sent: beyond half the stream the link cannot carry it anyway.
const REPEATS_A_PACKET: f64 = 0.5;
/// UDP segmentation offload: larger bursts are lost on rate-limited mobile links.
const SEGMENTS_MAX: usize = 10;
/// Frames among which one is looked for to pad with, and packets of one portion.
const PADDING_FRAMES: usize = 32;
const PADDING_PACKETS_MAX: usize = 64;
/// A picture that is made comes behind the source's by less than this. What is further behind is being caught up with.
const BEHIND_MAX_MS: u64 = 1000;
/// On a full way nothing is caught up with: a burst would be lost. What rests stands still meanwhile, so this is reached.
const BEHIND_FULL_MS: u64 = 200;
const HEADER_BYTES: usize = 12;
/// The playout delay's 4 and the transport-wide number's 3, padded, behind 4 of their own.
const EXTENSIONS_BYTES_MAX: usize = 12;
/// RFC 8285 4.2.
const ONE_BYTE_EXTENSIONS: u16 = 0xbede;

#[derive(Clone, Debug)]
pub(crate) struct SenderConfig {
    pub ssrc: u32,
    pub payload_type: u8,
    /// Payload type and SSRC (RFC 4588), where the viewer takes it.
    pub rtx: Option<(u8, u32)>,
    /// Ticks a second.
    pub clock: u32,
    /// What the viewer is asked for with each packet.
    pub playout_delay: Option<PlayoutDelay>,
    /// The header extension of transport-wide numbers, where the viewer tells what became of them.
    pub transport_cc: Option<u8>,
    /// The last packet of a frame carries the marker (video).
    pub marks_frames: bool,
    /// Random (RFC 3550 5.1).
    pub first_sequence: u16,
    pub first_timestamp: u32,
}

/// How long a picture waits at the viewer's at least and at most, in steps of 10 ms (webrtc.org, playout-delay).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlayoutDelay {
    /// Of the header extension.
    pub id: u8,
    pub min: u8,
    pub max: u8,
}

/// Sealed packets of equal size, but for the last: one system call.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    pub bytes: Vec<u8>,
    pub segment: usize,
    /// Holds pictures: a viewer who misses it goes on at the next keyframe.
    pub pictures: bool,
}

/// Where packets go: what seals and numbers them, and what takes them.
pub(crate) struct Way<'a> {
    pub now: Instant,
    pub sealer: &'a mut Sealer,
    pub numbers: Option<&'a mut Numbers>,
    pub pacer: &'a mut Pacer,
    pub out: &'a mut Vec<Burst>,
}

pub(crate) struct Sender {
    config: SenderConfig,
    /// Next packet's, unwrapped.
    sequence: u64,
    rtx_sequence: u64,
    state: State,
    /// What is added to a frame's timestamp.
    offset: u64,
    /// Of the last packet.
    timestamp: Option<u64>,
    /// Packets of the next frame that have left already.
    begun: usize,
    /// The way is narrow: no sooner does more leave.
    paced: Option<Instant>,
    sent: VecDeque<Sent>,
    repeats: f64,
    repeated: Option<Instant>,
    /// When repeating had not helped, and the publisher was asked.
    asked: Option<Instant>,
    /// After falling behind: only a keyframe from this number on will do.
    not_before: u64,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// For a keyframe.
    Waiting,
    /// `next` is sent next; frames up to `until` have timestamps of their own.
    CatchingUp {
        next: u64,
        until: u64,
        /// Of `until`.
        end: u64,
        step: u64,
        at: Instant,
    },
    Live {
        next: u64,
    },
}

/// Where packets of a frame went.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u64,
    packets: u16,
    frame: u64,
    /// The first one's place in it.
    from: usize,
    timestamp: u64,
    /// Transport-wide, of the first packet.
    number: u64,
}

/// Why nothing more went out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Fine,
    /// A keyframe is needed that the history does not hold.
    NeedsKeyframe,
}

impl Sender {
    pub(crate) fn new(config: SenderConfig) -> Self {
        Self {
            sequence: u64::from(config.first_sequence),
            rtx_sequence: u64::from(config.first_sequence ^ 0x5555),
            state: State::Waiting,
            offset: 0,
            timestamp: None,
            begun: 0,
            paced: None,
            sent: VecDeque::new(),
            repeats: REPEATS_BURST,
            repeated: None,
            asked: None,
            not_before: 0,
            packets: 0,
            octets: 0,
            config,
        }
    }

    pub(crate) fn config(&self) -> &SenderConfig {
        &self.config
    }

    /// Sends what is due: the newest frame, the rest of it, or the next packets of the catching up.
    pub(crate) fn advance(&mut self, history: &History, way: &mut Way<'_>) -> Result<Progress, SealError> {
        let now = way.now;
        if self.paced.is_some_and(|at| now < at) {
            return Ok(Progress::Fine);
        }
        self.paced = None;
        if self.state == State::Waiting && !self.start(now, history, false) {
            // One that cannot keep up asks the publisher for nothing: the next keyframe comes by itself.
            let wants = history.newest().is_some() && self.not_before == 0;
            return Ok(if wants { Progress::NeedsKeyframe } else { Progress::Fine });
        }
        let mut budget = PACE_PACKETS;
        loop {
            let (number, timestamp) = match self.state {
                State::Waiting => return Ok(Progress::NeedsKeyframe),
                State::CatchingUp { next, until, end, step, at } => {
                    if now < at {
                        return Ok(Progress::Fine);
                    }
                    if budget == 0 {
                        self.state = State::CatchingUp { next, until, end, step, at: now + PACE };
                        return Ok(Progress::Fine);
                    }
                    (next, (next <= until).then(|| end - (until - next) * step))
                }
                State::Live { next } => (next, None),
            };
            if number >= history.next() {
                self.state = State::Live { next: number };
                return Ok(Progress::Fine);
            }
            let lags = matches!(self.state, State::Live { .. }) && number + LAG_FRAMES_MAX < history.next();
            let Some(frame) = history.frame(number).filter(|_| !lags) else {
                self.wait(); // Too slow: the history has moved on.
                return Ok(Progress::NeedsKeyframe);
            };
            let live = frame.timestamp.wrapping_add(self.offset);
            let timestamp = match self.timestamp {
                Some(last) if self.begun > 0 => last,
                last => timestamp.unwrap_or(live).max(last.map_or(0, |last| last + 1)),
            };
            budget = budget.saturating_sub(self.write(number, frame, timestamp, way)?);
            if self.begun < frame.payloads.len() {
                self.paced = Some(way.pacer.opens_at(now));
                return Ok(Progress::Fine);
            }
            self.begun = 0;
            match &mut self.state {
                State::CatchingUp { next, .. } | State::Live { next } => *next += 1,
                State::Waiting => {}
            }
        }
    }

    /// The way was full: what was not sent is not made up for. Goes on at the next keyframe.
    pub(crate) fn fall_behind(&mut self, history: &History) {
        self.wait();
        self.not_before = history.next();
    }

    /// The viewer lost the picture. False when the publisher is to be asked for a keyframe: where there is none here, or
    /// where the same ones again did not help. One viewer's wishes cost all others bits, so they are counted.
    pub(crate) fn handle_picture_loss(&mut self, now: Instant, history: &History) -> bool {
        match self.state {
            State::CatchingUp { .. } => true,
            State::Waiting => false,
            State::Live { .. } if self.repeated.is_some_and(|at| now < at + REPEAT_MIN) => {
                let asked = self.asked.is_some_and(|at| now < at + REPEAT_MIN);
                if !asked {
                    self.asked = Some(now);
                }
                asked
            }
            State::Live { .. } => {
                self.repeated = Some(now);
                self.start(now, history, true)
            }
        }
    }

    /// Goes over to another track of the same picture, at the newest keyframe there.
    pub(crate) fn switch(&mut self) {
        self.wait();
        self.not_before = 0;
        self.sent.clear();
    }

    /// What is left of a frame that has begun is not sent: a keyframe comes next.
    fn wait(&mut self) {
        self.state = State::Waiting;
        self.begun = 0;
    }

    /// When `advance` has more to send.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::CatchingUp { at, .. } => Some(self.paced.map_or(at, |paced| paced.max(at))),
            _ => self.paced,
        }
    }

    /// Packets that the viewer misses (RFC 4585 6.2.1), sent again. Returns how many were.
    pub(crate) fn handle_nack(&mut self, lost: &[u16], history: &History, way: &mut Way<'_>) -> Result<u64, SealError> {
        let mut repeated = 0;
        for &sequence in lost {
            if self.repeats < 1.0 || !way.pacer.is_open_again() {
                break;
            }
            let Some((sent, index)) = self.find(sequence) else { continue };
            let Some(frame) = history.frame(sent.frame) else { continue };
            let Some(payload) = frame.payloads.get(sent.from + index) else { continue };
            self.repeats -= 1.0;
            repeated += 1;
            let marker = self.config.marks_frames && sent.from + index + 1 == frame.payloads.len();
            let size = if self.config.rtx.is_some() {
                self.repeat(sent, index, payload, marker, way)?
            } else {
                // Bit for bit: no nonce serves twice.
                let header = self.header(marker, sent.sequence + index as u64, sent.timestamp);
                self.seal(header, Some(sent.number + index as u64), &[payload], false, way)?
            };
            way.pacer.take(size);
        }
        Ok(repeated)
    }

    /// Sends so many bytes more: the largest of the newest packets again and again, as retransmissions that the viewer drops.
    /// Returns how many there were; none where it takes no retransmissions.
    pub(crate) fn pad(&mut self, bytes: u64, history: &History, way: &mut Way<'_>) -> Result<u64, SealError> {
        if self.config.rtx.is_none() {
            return Ok(0);
        }
        let newest = self.sent.iter().rev().take(PADDING_FRAMES);
        let frames = newest.filter_map(|sent| Some((*sent, history.frame(sent.frame)?)));
        let packets = frames.flat_map(|(sent, frame)| {
            let payloads = frame.payloads.iter().skip(sent.from).take(sent.packets.into());
            payloads.enumerate().map(move |(index, payload)| (sent, index, payload))
        });
        let Some((sent, index, payload)) = packets.max_by_key(|(.., payload)| payload.len()) else { return Ok(0) };
        let mut padded = 0;
        for _ in 0..PADDING_PACKETS_MAX {
            if padded >= bytes {
                break;
            }
            self.repeat(sent, index, payload, false, way)?;
            padded += payload.len() as u64;
        }
        Ok(padded)
    }

    /// Whether a frame of another track comes soon enough behind what was sent: much older ones would show again what was
    /// seen.
    pub(crate) fn is_followed_by(&self, frame: &OutFrame, is_full: bool) -> bool {
        let behind = u64::from(self.config.clock) * if is_full { BEHIND_FULL_MS } else { BEHIND_MAX_MS } / 1000;
        self.timestamp.is_none_or(|sent| frame.timestamp.wrapping_add(self.offset).saturating_add(behind) >= sent)
    }

    /// RTP time of this moment, and where that is on the media timeline: for a sender report.
    pub(crate) fn clock_at(&self, now: Instant, history: &History) -> Option<(u32, i64)> {
        self.timestamp?;
        let (frame, pushed) = history.newest()?;
        let since = now.saturating_duration_since(pushed);
        let ticks = (since.as_secs_f64() * f64::from(self.config.clock)) as u64;
        let rtp = frame.timestamp.wrapping_add(self.offset).wrapping_add(ticks);
        Some((rtp as u32, frame.at_us + i64::try_from(since.as_micros()).unwrap_or(0)))
    }

    /// Starts at the newest keyframe, if it is there.
    fn start(&mut self, now: Instant, history: &History, again: bool) -> bool {
        let Some(keyframe) = history.newest_keyframe().filter(|keyframe| *keyframe >= self.not_before) else { return false };
        self.not_before = 0;
        let newest = history.next() - 1;
        let (Some(first), Some(last)) = (history.frame(keyframe), history.frame(newest)) else { return false };
        let Some(sent) = self.timestamp else {
            // The first packet's timestamp is random; unwrapped, so that nothing is below zero.
            let random = u64::from(self.config.first_timestamp) + (1 << 40);
            self.offset = random.wrapping_sub(first.timestamp);
            return self.catch_up(now, keyframe, newest, last.timestamp.wrapping_add(self.offset), 0);
        };
        let live = last.timestamp.wrapping_add(self.offset);
        let gap = (REPEAT_GAP_SECONDS * f64::from(self.config.clock)) as u64;
        let end = if again || live <= sent { sent.max(live) + gap } else { live };
        self.catch_up(now, keyframe, newest, end, sent)
    }

    fn catch_up(&mut self, now: Instant, keyframe: u64, newest: u64, end: u64, after: u64) -> bool {
        let frames = newest - keyframe + 1;
        let step = (end.saturating_sub(after) / (frames + 1)).clamp(1, u64::from(self.config.clock / CATCH_UP_STEPS_A_SECOND));
        self.state = State::CatchingUp { next: keyframe, until: newest, end, step, at: now };
        self.begun = 0;
        true
    }

    /// As many packets of the frame as may leave, behind those that have. Returns how many.
    fn write(&mut self, number: u64, frame: &OutFrame, timestamp: u64, way: &mut Way<'_>) -> Result<usize, SealError> {
        let (from, sequence) = (self.begun, self.sequence);
        let first = way.numbers.as_ref().map_or(0, |numbers| numbers.next());
        for (index, payload) in frame.payloads.iter().enumerate().skip(from) {
            if self.config.marks_frames && !way.pacer.is_open() {
                break;
            }
            let marker = self.config.marks_frames && index + 1 == frame.payloads.len();
            let header = self.header(marker, self.sequence, timestamp);
            let size = self.seal(header, None, &[payload], self.config.marks_frames, way)?;
            way.pacer.take(size);
            self.sequence += 1;
            self.begun += 1;
            self.octets = self.octets.wrapping_add(payload.len() as u32);
        }
        let written = self.begun - from;
        if written == 0 {
            return Ok(0);
        }
        let packets = u16::try_from(written).unwrap_or(u16::MAX);
        self.sent.push_back(Sent { sequence, packets, frame: number, from, timestamp, number: first });
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
        self.packets = self.packets.wrapping_add(u32::from(packets));
        self.repeats = (self.repeats + REPEATS_A_PACKET * f64::from(packets)).min(REPEATS_BURST);
        self.timestamp = Some(timestamp);
        Ok(written)
    }

    fn find(&self, sequence: u16) -> Option<(Sent, usize)> {
        let behind = (self.sequence as u16).wrapping_sub(sequence);
        let unwrapped = self.sequence.checked_sub(u64::from(behind))?;
        let at = self.sent.partition_point(|sent| sent.sequence + u64::from(sent.packets) <= unwrapped);
        let sent = *self.sent.get(at)?;
        let index = usize::try_from(unwrapped.checked_sub(sent.sequence)?).ok()?;
        (index < usize::from(sent.packets)).then_some((sent, index))
    }

    fn header(&self, marker: bool, sequence: u64, timestamp: u64) -> Header {
        Header { payload_type: self.config.payload_type, marker, sequence, timestamp, ssrc: self.config.ssrc }
    }

    /// A packet once more, behind its own number (RFC 4588 4).
    fn repeat(&mut self, sent: Sent, index: usize, payload: &[u8], marker: bool, way: &mut Way<'_>) -> Result<usize, SealError> {
        let Some((payload_type, ssrc)) = self.config.rtx else { return Ok(0) };
        let header = Header { payload_type, marker, sequence: self.rtx_sequence, timestamp: sent.timestamp, ssrc };
        self.rtx_sequence += 1;
        let original = ((sent.sequence + index as u64) as u16).to_be_bytes();
        self.seal(header, None, &[&original, payload], false, way)
    }

    /// `number` is that of the packet where it was sealed before. Returns its size.
    fn seal(
        &self,
        header: Header,
        number: Option<u64>,
        payload: &[&[u8]],
        pictures: bool,
        way: &mut Way<'_>,
    ) -> Result<usize, SealError> {
        let Way { now, sealer, numbers, out, .. } = way;
        let transport_cc = self.config.transport_cc;
        let extensions = extensions_bytes(self.config.playout_delay, transport_cc);
        let body = payload.iter().map(|piece| piece.len()).sum::<usize>();
        let size = HEADER_BYTES + extensions + body + sealer.overhead();
        let number = number.or_else(|| Some(numbers.as_mut()?.take(*now, size)));
        let mut plain = [0_u8; HEADER_BYTES + EXTENSIONS_BYTES_MAX];
        let length = header.write(self.config.playout_delay, transport_cc.zip(number), &mut plain);
        debug_assert_eq!(length, HEADER_BYTES + extensions);
        let burst = match out.last_mut() {
            Some(burst) if burst.pictures == pictures && burst.takes(size) => burst,
            _ => {
                out.push(Burst { bytes: Vec::with_capacity(size * 4), segment: size, pictures });
                out.last_mut().expect("one was just pushed")
            }
        };
        sealer.seal_rtp(&plain[..length], (header.sequence >> 16) as u32, payload, &mut burst.bytes)?;
        Ok(size)
    }
}

impl Burst {
    /// A datagram of its own.
    pub(crate) fn single(bytes: Vec<u8>) -> Self {
        Self { segment: bytes.len(), bytes, pictures: false }
    }

    /// All but the last must have the first one's size.
    fn takes(&self, size: usize) -> bool {
        size <= self.segment && self.bytes.len().is_multiple_of(self.segment) && self.bytes.len() / self.segment < SEGMENTS_MAX
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.segment.max(1))
    }
}

/// The RTP header (RFC 3550 5.1) as we write it.
struct Header {
    payload_type: u8,
    marker: bool,
    /// Unwrapped: its upper half is the rollover counter of SRTP.
    sequence: u64,
    timestamp: u64,
    ssrc: u32,
}

/// Bytes of the extensions, their own header with them (RFC 8285 4.2).
fn extensions_bytes(playout_delay: Option<PlayoutDelay>, transport_cc: Option<u8>) -> usize {
    match 4 * usize::from(playout_delay.is_some()) + 3 * usize::from(transport_cc.is_some()) {
        0 => 0,
        bytes => 4 + bytes.next_multiple_of(4),
    }
}

impl Header {
    /// How many bytes it took.
    fn write(&self, playout_delay: Option<PlayoutDelay>, transport_cc: Option<(u8, u64)>, out: &mut [u8]) -> usize {
        let extensions = extensions_bytes(playout_delay, transport_cc.map(|(id, _)| id));
        let mut at = &mut out[..HEADER_BYTES + extensions];
        at.put_u8(if extensions > 0 { 0x90 } else { 0x80 });
        at.put_u8(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        at.put_u16(self.sequence as u16);
        at.put_u32(self.timestamp as u32);
        at.put_u32(self.ssrc);
        if extensions > 0 {
            at.put_u16(ONE_BYTE_EXTENSIONS);
            at.put_u16(((extensions - 4) / 4) as u16);
        }
        if let Some(PlayoutDelay { id, min, max }) = playout_delay {
            // Twelve bits each.
            at.put_u32(u32::from(id << 4 | 2) << 24 | u32::from(min) << 12 | u32::from(max));
        }
        if let Some((id, number)) = transport_cc {
            at.put_u8(id << 4 | 1);
            at.put_u16(number as u16);
        }
        HEADER_BYTES + extensions
    }
}
