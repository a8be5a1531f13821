//! Media in: which layer a publisher's packet belongs to, and what is reported back.
//!
//! Packets are told apart by SSRC once it is known. A new SSRC finds its m-line by `mid` or payload
//! type and its layer by `rid` (RFC 8852, RFC 8843 9.2); a layer whose SSRC changes goes on.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rtc_rtp::Header;

use crate::{
    event::Event,
    rtp::{self, Arrivals, Feedback, Receiver, Remb},
    sdp::{Accepted, Codec, Negotiated},
};

/// SSRCs of one publisher: eight layers with their retransmissions, sound, and some changes.
const ROUTES_MAX: usize = 64;
/// A layer's SSRC is given up for another one after it was silent so long.
const SSRC_SILENCE: Duration = Duration::from_millis(500);
/// What a publisher may send in all; told to senders that have no better estimate.
const BITRATE_MAX: u64 = 12_000_000;

pub(crate) struct Receive {
    lines: Vec<Line>,
    routes: HashMap<u32, Route>,
    arrivals: Option<(u8, Arrivals)>,
    remb: Option<Remb>,
}

struct Line {
    media: usize,
    mid: Option<String>,
    accepted: Accepted,
    layers: Vec<Layer>,
}

struct Layer {
    receiver: Receiver,
    ssrc: Option<u32>,
    rtx_ssrc: Option<u32>,
    heard: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Route {
    line: usize,
    layer: usize,
    rtx: bool,
}

/// RTCP that is due, before it is sealed.
#[derive(Debug)]
pub(crate) enum Report {
    Nack { ssrc: u32, lost: Vec<u16> },
    PictureLoss { ssrc: u32, fir: bool },
}

impl Receive {
    pub(crate) fn new(negotiated: &Negotiated, now: Instant) -> Self {
        let lines: Vec<Line> = negotiated
            .media
            .iter()
            .enumerate()
            .filter_map(|(media, line)| {
                let accepted = line.accepted.clone()?;
                let codec = codec_of(&accepted.codec)?;
                let layers = (0..accepted.rids.len().max(1))
                    .map(|_| Layer { receiver: Receiver::new(codec), ssrc: None, rtx_ssrc: None, heard: None })
                    .collect();
                Some(Line { media, mid: line.mid.clone(), accepted, layers })
            })
            .collect();
        let transport_cc = lines.iter().find_map(|line| line.accepted.extensions.transport_cc);
        let remb = transport_cc.is_none() && lines.iter().any(|line| line.accepted.feedback.remb);
        let mut receive = Self {
            arrivals: transport_cc.map(|id| (id, Arrivals::new(now))),
            remb: remb.then(|| Remb::new(BITRATE_MAX)),
            routes: HashMap::new(),
            lines,
        };
        receive.route_offered();
        receive
    }

    /// SSRCs that the offer names. With rids only packets tell.
    fn route_offered(&mut self) {
        for (line, offered) in self.lines.iter_mut().enumerate() {
            let (true, Some(first)) = (offered.accepted.rids.is_empty(), offered.accepted.ssrcs.first().copied()) else {
                continue;
            };
            let layer = &mut offered.layers[0];
            (layer.ssrc, layer.rtx_ssrc) = (Some(first.ssrc), first.rtx);
            self.routes.insert(first.ssrc, Route { line, layer: 0, rtx: false });
            if let Some(rtx) = first.rtx {
                self.routes.insert(rtx, Route { line, layer: 0, rtx: true });
            }
        }
    }

    /// Whether a packet with this SSRC may be opened: it bounds what one peer can make us keep.
    pub(crate) fn admits(&self, ssrc: u32) -> bool {
        self.routes.contains_key(&ssrc) || self.routes.len() < ROUTES_MAX
    }

    /// False for a packet that belongs to nothing that was negotiated.
    pub(crate) fn handle_packet(&mut self, now: Instant, header: &Header, payload: Bytes) -> bool {
        if let Some((id, arrivals)) = &mut self.arrivals
            && let Some(number) = header.get_extension(*id).and_then(|value| Some(u16::from_be_bytes(*value.first_chunk()?)))
        {
            arrivals.record(now, number, header.ssrc);
        }
        let Some(route) = self.route(now, header) else { return false };
        let layer = &mut self.lines[route.line].layers[route.layer];
        layer.heard = Some(now);
        if route.rtx {
            layer.receiver.handle_rtx(now, header, payload);
        } else {
            layer.receiver.handle_packet(now, header, payload);
        }
        true
    }

    pub(crate) fn handle_sender_report(&mut self, now: Instant, ssrc: u32, ntp: u64, rtp: u32) {
        if let Some(route) = self.routes.get(&ssrc).filter(|route| !route.rtx).copied() {
            self.lines[route.line].layers[route.layer].receiver.handle_sender_report(now, ntp, rtp);
        }
    }

    /// A keyframe is wanted of this layer of the picture.
    pub(crate) fn request_keyframe(&mut self, now: Instant, layer: usize) {
        let video = self.lines.iter_mut().find(|line| !matches!(line.accepted.codec, Codec::Opus { .. }));
        if let Some(layer) = video.and_then(|line| line.layers.get_mut(layer)) {
            layer.receiver.request_keyframe(now);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.lines.iter_mut().find_map(|line| {
            let media = line.media;
            line.layers.iter_mut().enumerate().find_map(|(layer, held)| {
                let frame = held.receiver.poll_frame()?;
                Some(Event::Frame { media, layer, frame })
            })
        })
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.layers_mut().for_each(|(_, layer)| layer.receiver.handle_timeout(now));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let arrivals = self.arrivals.as_ref().and_then(|(_, arrivals)| arrivals.poll_timeout());
        self.lines.iter().flat_map(|line| &line.layers).filter_map(|layer| layer.receiver.poll_timeout()).chain(arrivals).min()
    }

    /// What must be asked for now.
    pub(crate) fn poll_report(&mut self, now: Instant) -> Option<Report> {
        self.layers_mut().find_map(|(accepted, layer)| {
            let ssrc = layer.ssrc?;
            loop {
                match layer.receiver.poll_feedback(now)? {
                    Feedback::Nack(lost) if accepted.feedback.nack => return Some(Report::Nack { ssrc, lost }),
                    Feedback::KeyframeRequest => return Some(Report::PictureLoss { ssrc, fir: !accepted.feedback.pli }),
                    Feedback::Nack(_) => {}
                }
            }
        })
    }

    pub(crate) fn poll_transport_cc(&mut self, now: Instant) -> Option<Bytes> {
        self.arrivals.as_mut()?.1.poll_feedback(now)
    }

    /// For the periodic report: of each layer that sends, its SSRC and reception so far.
    pub(crate) fn receptions(&mut self, now: Instant) -> Vec<rtc_rtcp::reception_report::ReceptionReport> {
        self.layers_mut()
            .filter_map(|(_, layer)| {
                let ssrc = layer.ssrc.filter(|_| layer.heard.is_some())?;
                Some(layer.receiver.report(now, ssrc))
            })
            .collect()
    }

    /// Bitrate that the sender may use, and the SSRCs that share it.
    pub(crate) fn estimate(&mut self, now: Instant) -> Option<(u64, Vec<u32>)> {
        let ssrcs: Vec<u32> = self.lines.iter().flat_map(|line| &line.layers).filter_map(|layer| layer.ssrc).collect();
        // What retransmission recovered was lost on the way: it tells of congestion as well.
        let stats = self.lines.iter().flat_map(|line| &line.layers).map(|layer| layer.receiver.stats());
        let (packets, lost) =
            stats.fold((0, 0), |(packets, lost), stats| (packets + stats.packets, lost + stats.lost + stats.recovered));
        Some((self.remb.as_mut()?.update(now, packets, lost), ssrcs))
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = (&Accepted, &mut Layer)> {
        self.lines.iter_mut().flat_map(|line| {
            let accepted = &line.accepted;
            line.layers.iter_mut().map(move |layer| (accepted, layer))
        })
    }

    fn route(&mut self, now: Instant, header: &Header) -> Option<Route> {
        let payload_type = header.payload_type;
        if let Some(route) = self.routes.get(&header.ssrc) {
            let accepted = &self.lines[route.line].accepted;
            let expected = if route.rtx { accepted.rtx == Some(payload_type) } else { accepted.payload_type == payload_type };
            return expected.then_some(*route);
        }
        let line = self.lines.iter().position(|line| line.takes(header))?;
        let accepted = &self.lines[line].accepted;
        let rtx = accepted.rtx == Some(payload_type);
        let layer = layer_of(accepted, header, rtx)?;
        let held = &mut self.lines[line].layers[layer];
        let known = if rtx { &mut held.rtx_ssrc } else { &mut held.ssrc };
        if let Some(former) = *known {
            // Another SSRC for a layer that has one: a restarted encoder, not a second one beside it.
            let silent = held.heard.is_none_or(|heard| now >= heard + SSRC_SILENCE);
            if !silent && !rtx {
                return None;
            }
            self.routes.remove(&former);
        }
        *known = Some(header.ssrc);
        let route = Route { line, layer, rtx };
        self.routes.insert(header.ssrc, route);
        Some(route)
    }
}

/// `None` of what carries no medium, which no m-line is accepted with.
fn codec_of(accepted: &Codec) -> Option<rtp::Codec> {
    match accepted {
        Codec::H264 { .. } => Some(rtp::Codec::H264),
        Codec::H265 { .. } => Some(rtp::Codec::Hevc),
        Codec::Av1 { .. } => Some(rtp::Codec::Av1),
        Codec::Opus { .. } => Some(rtp::Codec::Opus),
        Codec::Rtx { .. } | Codec::Other => None,
    }
}

impl Line {
    fn takes(&self, header: &Header) -> bool {
        let of_type = self.accepted.payload_type == header.payload_type || self.accepted.rtx == Some(header.payload_type);
        let named = self.accepted.extensions.mid.and_then(|id| header.get_extension(id));
        of_type && named.is_none_or(|named| self.mid.as_ref().is_none_or(|mid| mid.as_bytes() == named))
    }
}

fn layer_of(accepted: &Accepted, header: &Header, rtx: bool) -> Option<usize> {
    if accepted.rids.is_empty() {
        return Some(0);
    }
    let id = if rtx { accepted.extensions.repaired_rid } else { accepted.extensions.rid };
    let rid = header.get_extension(id?)?;
    accepted.rids.iter().position(|known| known.as_bytes() == rid)
}
