//! When packets arrived, told to the sender, which estimates the bandwidth
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc, SymbolTypeTcc,
    TransportLayerCc,
};
use rtc_shared::marshal::Marshal;

use super::unwrap;

/// Senders react within two of these; each costs a packet.
const INTERVAL: Duration = Duration::from_millis(50);
/// Feedback of so many packets is due at once.
const PENDING_DUE: usize = 200;
/// While nobody takes the feedback, the oldest are forgotten.
const PENDING_MAX: usize = 1024;
/// Packets that one message tells of: at most 2 bytes each and 2 for seven make 916 bytes, below any MTU.
const STATUSES_MAX: u64 = 400;
/// A larger hole is not told as loss: the sender began anew.
const HOLE_MAX: u64 = 300;
/// Units of 250 us, in which arrivals are told, in one of reference time: 64 ms.
const TICKS_A_REFERENCE: i64 = 256;
const TICK: Duration = Duration::from_micros(250);
/// In a status vector (3.1.4).
const ONE_BIT_SYMBOLS: usize = 14;
const TWO_BIT_SYMBOLS: usize = 7;
/// A report of a receiver that sends nothing: libwebrtc names itself so as well.
const SENDER_SSRC: u32 = 1;

pub struct Arrivals {
    /// Arrival times count from here.
    origin: Instant,
    highest: Option<u64>,
    /// The first number that no message has told of.
    next: u64,
    /// In ticks since `origin`.
    pending: BTreeMap<u64, i64>,
    media_ssrc: u32,
    due: Instant,
    messages: u8,
}

impl Arrivals {
    pub fn new(now: Instant) -> Self {
        Self { origin: now, highest: None, next: 0, pending: BTreeMap::new(), media_ssrc: 0, due: now, messages: 0 }
    }

    /// A packet with this transport-wide number; `ssrc` is its own.
    pub fn record(&mut self, now: Instant, number: u16, ssrc: u32) {
        let sequence = match self.highest {
            Some(highest) => unwrap::sequence(highest, number),
            None => unwrap::first_sequence(number),
        };
        if self.highest.is_none() {
            self.next = sequence;
        }
        self.highest = self.highest.max(Some(sequence));
        self.media_ssrc = ssrc;
        if self.pending.is_empty() {
            self.due = now + INTERVAL;
        }
        let ticks = now.saturating_duration_since(self.origin).as_micros() / TICK.as_micros();
        self.pending.entry(sequence).or_insert(ticks as i64);
        if self.pending.len() >= PENDING_DUE {
            self.due = self.due.min(now);
        }
        if self.pending.len() > PENDING_MAX {
            self.pending.pop_first();
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then_some(self.due)
    }

    /// The next RTCP packet, while one is due.
    pub fn poll_feedback(&mut self, now: Instant) -> Option<Bytes> {
        if self.pending.is_empty() || now < self.due {
            return None;
        }
        let message = self.message()?;
        let bytes = message.marshal().expect("a message of ours keeps the limits of its fields");
        Some(bytes.freeze())
    }

    /// Tells of the first pending packets and takes them out.
    fn message(&mut self) -> Option<TransportLayerCc> {
        let (&first, &first_ticks) = self.pending.first_key_value()?;
        // A packet overtaken by a message is told alone; what lies between was told.
        let late = first < self.next;
        let base = if late || first - self.next > HOLE_MAX { first } else { self.next };
        let reference = first_ticks / TICKS_A_REFERENCE;
        let mut before = reference * TICKS_A_REFERENCE;
        let mut symbols = Vec::new();
        let mut recv_deltas = Vec::new();
        while let Some((&sequence, &ticks)) = self.pending.first_key_value() {
            let place = sequence - base;
            let apart = late && place != symbols.len() as u64;
            let Ok(delta) = i16::try_from(ticks - before) else { break };
            if place >= STATUSES_MAX || apart {
                break;
            }
            self.pending.pop_first();
            symbols.resize(place as usize, SymbolTypeTcc::PacketNotReceived);
            let symbol = match u8::try_from(delta) {
                Ok(_) => SymbolTypeTcc::PacketReceivedSmallDelta,
                Err(_) => SymbolTypeTcc::PacketReceivedLargeDelta,
            };
            symbols.push(symbol);
            recv_deltas.push(RecvDelta { type_tcc_packet: symbol, delta: i64::from(delta) * TICK.as_micros() as i64 });
            before = ticks;
        }
        self.next = self.next.max(base + symbols.len() as u64);
        self.messages = self.messages.wrapping_add(1);
        Some(TransportLayerCc {
            sender_ssrc: SENDER_SSRC,
            media_ssrc: self.media_ssrc,
            base_sequence_number: base as u16,
            packet_status_count: symbols.len() as u16,
            reference_time: (reference & 0xff_ffff) as u32,
            fb_pkt_count: self.messages.wrapping_sub(1),
            packet_chunks: chunks(&symbols),
            recv_deltas,
        })
    }
}

/// The shortest of the three kinds of chunk each time (3.1.3, 3.1.4).
fn chunks(mut symbols: &[SymbolTypeTcc]) -> Vec<PacketStatusChunk> {
    let mut chunks = Vec::new();
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take_while(|symbol| **symbol == first).count();
        let one_bit = symbols.iter().take(ONE_BIT_SYMBOLS).all(|symbol| *symbol != SymbolTypeTcc::PacketReceivedLargeDelta);
        let (symbol_size, length) = match one_bit {
            true => (SymbolSizeTypeTcc::OneBit, ONE_BIT_SYMBOLS),
            false => (SymbolSizeTypeTcc::TwoBit, TWO_BIT_SYMBOLS),
        };
        let reach = length.min(symbols.len());
        if run >= reach {
            chunks.push(PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                packet_status_symbol: first,
                run_length: run as u16,
            }));
            symbols = &symbols[run..];
        } else {
            let mut symbol_list = symbols[..reach].to_vec();
            symbol_list.resize(length, SymbolTypeTcc::PacketNotReceived);
            chunks.push(PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                symbol_size,
                symbol_list,
            }));
            symbols = &symbols[reach..];
        }
    }
    chunks
}

#[cfg(test)]
mod tests;
