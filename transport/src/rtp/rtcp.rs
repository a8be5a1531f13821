//! Incoming RTCP (RFC 3550 6, RFC 4585 6, RFC 5104 4.3.1, draft-alvestrand-rmcat-remb-03,
//! draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Each packet of a compound is read for itself: one that is unknown or malformed is passed over, so
//! that a peer's extension does not cost its reports. (`rtc-rtcp`, which writes ours, gives up a whole
//! datagram at its first fault.) What a datagram can yield is bounded.

use super::feedback::{self, STATUSES_MAX, TransportFeedback};

/// More packets than any sender puts into a datagram.
const PACKETS_MAX: usize = 64;
/// Numbers that the NACKs of one datagram may name: more than a frame's packets.
const LOST_MAX: usize = 1024;
/// Of REMB and BYE: as many as their count fields of the usual senders name.
const SSRCS_MAX: usize = 31;

const HEADER_BYTES: usize = 4;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_CC: u8 = 15;
const FORMAT_PICTURE_LOSS: u8 = 1;
const FORMAT_FULL_INTRA: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    SenderReport {
        ssrc: u32,
        /// 32.32 seconds.
        ntp: u64,
        rtp: u32,
    },
    /// One block of a sender's or receiver's report.
    Reception(Reception),
    /// The numbers that `ssrc` shall send again.
    Nack {
        ssrc: u32,
        lost: Vec<u16>,
    },
    /// When packets arrived, by their transport-wide numbers.
    TransportFeedback(TransportFeedback),
    /// `ssrc` shall send a keyframe.
    PictureLoss {
        ssrc: u32,
    },
    /// The same, asked with a command whose repetition has the same number.
    FullIntra {
        ssrc: u32,
        number: u8,
    },
    /// What these SSRCs together should not exceed, in bits a second.
    Remb {
        bitrate: u64,
        ssrcs: Vec<u32>,
    },
    Goodbye {
        ssrcs: Vec<u32>,
    },
}

/// How `ssrc` of ours is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    pub ssrc: u32,
    /// In 1/256.
    pub fraction_lost: u8,
    /// Negative where duplicates outnumber losses.
    pub total_lost: i32,
    pub highest_sequence: u32,
    /// In ticks.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0: there was none.
    pub last_sender_report: u32,
    /// Since it came, in 1/65536 s.
    pub delay: u32,
}

/// What a datagram says. Nothing, where it is no RTCP.
pub fn parse(datagram: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let (mut lost_left, mut statuses_left) = (LOST_MAX, STATUSES_MAX);
    let mut rest = datagram;
    while let Some(((count, kind, body), behind)) = split(rest) {
        match kind {
            SENDER_REPORT => parse_sender_report(count, body, &mut packets),
            RECEIVER_REPORT => parse_receptions(count, body.get(4..), &mut packets),
            GOODBYE => packets.push(Packet::Goodbye { ssrcs: words(body).take(usize::from(count)).collect() }),
            TRANSPORT_FEEDBACK if count == FORMAT_NACK => packets.extend(parse_nack(body, &mut lost_left)),
            TRANSPORT_FEEDBACK if count == FORMAT_TRANSPORT_CC => {
                if let Some(feedback) = feedback::parse(body, statuses_left) {
                    statuses_left -= feedback.arrivals.len();
                    packets.push(Packet::TransportFeedback(feedback));
                }
            }
            PAYLOAD_FEEDBACK => parse_payload_feedback(count, body, &mut packets),
            _ => {}
        }
        if packets.len() >= PACKETS_MAX {
            packets.truncate(PACKETS_MAX);
            break;
        }
        rest = behind;
    }
    packets
}

type Split<'a> = ((u8, u8, &'a [u8]), &'a [u8]);

/// Count or format, type and body without padding of the first packet; and what follows it.
fn split(datagram: &[u8]) -> Option<Split<'_>> {
    let [first, kind, length @ ..] = *datagram.first_chunk::<HEADER_BYTES>()?;
    if first >> 6 != 2 {
        return None;
    }
    let bytes = usize::from(u16::from_be_bytes(length)) * 4;
    let (mut body, behind) = datagram[HEADER_BYTES..].split_at_checked(bytes)?;
    if first & 0x20 != 0 {
        let padding = usize::from(*body.last()?);
        body = &body[..body.len().checked_sub(padding)?];
    }
    Some(((first & 0x1f, kind, body), behind))
}

fn parse_sender_report(count: u8, body: &[u8], packets: &mut Vec<Packet>) {
    let Some(&[ssrc, seconds, fraction, rtp]) = words(body).take(4).collect::<Vec<_>>().first_chunk() else { return };
    packets.push(Packet::SenderReport { ssrc, ntp: u64::from(seconds) << 32 | u64::from(fraction), rtp });
    parse_receptions(count, body.get(24..), packets);
}

fn parse_receptions(count: u8, blocks: Option<&[u8]>, packets: &mut Vec<Packet>) {
    let blocks = blocks.unwrap_or_default().chunks_exact(24).take(usize::from(count));
    packets.extend(blocks.filter_map(|block| {
        let &[ssrc, loss, highest_sequence, jitter, last_sender_report, delay] =
            words(block).collect::<Vec<_>>().first_chunk()?;
        let fraction_lost = (loss >> 24) as u8;
        let total_lost = (loss << 8) as i32 >> 8; // 24 bits with their sign.
        let reception = Reception { ssrc, fraction_lost, total_lost, highest_sequence, jitter, last_sender_report, delay };
        Some(Packet::Reception(reception))
    }));
}

fn parse_nack(body: &[u8], lost_left: &mut usize) -> Option<Packet> {
    let ssrc = words(body).nth(1)?;
    let mut lost: Vec<u16> = words(body)
        .skip(2)
        .flat_map(|pair| {
            let (first, following) = ((pair >> 16) as u16, pair as u16);
            let following = (0..16).filter(move |bit| following >> bit & 1 == 1).map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(following)
        })
        .take(*lost_left)
        .collect();
    lost.shrink_to_fit();
    *lost_left -= lost.len();
    (!lost.is_empty()).then_some(Packet::Nack { ssrc, lost })
}

fn parse_payload_feedback(format: u8, body: &[u8], packets: &mut Vec<Packet>) {
    let Some(ssrc) = words(body).nth(1) else { return };
    match format {
        FORMAT_PICTURE_LOSS => packets.push(Packet::PictureLoss { ssrc }),
        FORMAT_FULL_INTRA => {
            let entries = body[8..].chunks_exact(8).take(SSRCS_MAX);
            packets.extend(entries.filter_map(|entry| Some(Packet::FullIntra { ssrc: words(entry).next()?, number: entry[4] })));
        }
        FORMAT_APPLICATION => packets.extend(parse_remb(&body[8..])),
        _ => {}
    }
}

fn parse_remb(body: &[u8]) -> Option<Packet> {
    let rest = body.strip_prefix(b"REMB")?;
    let rate = words(rest).next()?;
    let (count, exponent, mantissa) = (rate >> 24, rate >> 18 & 0x3f, u64::from(rate & 0x3_ffff));
    // An exponent up to 63 is allowed; what does not fit is no limit.
    let bitrate = if mantissa == 0 || exponent <= mantissa.leading_zeros() { mantissa << exponent.min(63) } else { u64::MAX };
    let ssrcs = words(rest).skip(1).take((count as usize).min(SSRCS_MAX)).collect();
    Some(Packet::Remb { bitrate, ssrcs })
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests;
