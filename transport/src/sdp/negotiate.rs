//! What of an offer is accepted (RFC 3264, RFC 9429 5.3): one video and one audio m-line at most, on one transport.

use super::codec::{Codec, Feedback, OfferedCodec, Profile};
use super::media::{Direction, Extensions, Kind, OfferedMedia, OfferedSsrc, RIDS_MAX};
use super::offer::Offer;
use super::refusal::{Refusal, excerpt};
use super::transport::{Fingerprint, IceCredentials, Setup, Transport};

/// A mid travels in a one-byte header extension, which holds 16 bytes (RFC 8285 4.2).
const MID_EXTENSION_BYTES_MAX: usize = 16;
/// RTP under DTLS-SRTP: RFC 5764 8 with and without feedback, over ICE-TCP (RFC 7850), and the name that browsers used once.
const PROTOCOLS: [&str; 4] = ["UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "TCP/DTLS/RTP/SAVPF", "RTP/SAVPF"];

/// What the endpoint is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// WHIP: a publisher sends to us.
    Receive,
    /// WHEP: we send to a viewer.
    Send(Sending),
}

/// What a viewer is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// None when the stream has no video.
    pub video: Option<SendVideo>,
    /// The SSRC of audio. None when the stream has none.
    pub audio: Option<u32>,
    /// `cname` and `stream_id` are visible characters without blanks.
    pub cname: String,
    pub stream_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendVideo {
    /// The stream's own, when known.
    pub profile_level_id: Option<[u8; 3]>,
    pub ssrc: u32,
    /// For retransmissions; unused when the offer has no RTX.
    pub rtx_ssrc: u32,
}

/// An offer's answer, before our own transport is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    pub remote: Remote,
    /// We open the DTLS handshake: only when the offer says `setup:passive`.
    pub dtls_client: bool,
    /// In the offer's order and count.
    pub media: Vec<Media>,
    /// Mids on the one transport, the tagged one first. None when the offer has no group.
    pub(super) bundle: Option<Vec<String>>,
    /// The m-line in `media` that carries the transport.
    pub(super) tagged: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub ice: IceCredentials,
    pub fingerprint: Fingerprint,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// An offer with a single m-line may have none.
    pub mid: Option<String>,
    pub kind: Kind,
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) format: String,
    /// None: answered with port 0.
    pub accepted: Option<Accepted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Ours: `Inactive` when the m-line is kept but this stream has nothing for it.
    pub direction: Direction,
    pub payload_type: u8,
    pub codec: Codec,
    /// The payload type of retransmissions.
    pub rtx: Option<u8>,
    pub feedback: Feedback,
    pub extensions: Extensions,
    /// Simulcast layers, in the offer's order.
    pub rids: Vec<String>,
    /// The publisher's; empty when we send.
    pub ssrcs: Vec<OfferedSsrc>,
    /// Ours; None when we receive.
    pub source: Option<Source>,
    /// The name of the codec as the offer spells it.
    pub(super) encoding: String,
    pub(super) simulcast: bool,
    pub(super) rtcp_rsize: bool,
}

/// What we send on one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub ssrc: u32,
    /// Present when RTX was negotiated.
    pub rtx_ssrc: Option<u32>,
    pub cname: String,
    pub stream_id: String,
}

impl Negotiated {
    /// The m-line on which video flows.
    pub fn video(&self) -> Option<(&Media, &Accepted)> {
        self.flowing(Kind::Video)
    }

    /// The m-line on which audio flows.
    pub fn audio(&self) -> Option<(&Media, &Accepted)> {
        self.flowing(Kind::Audio)
    }

    fn flowing(&self, kind: Kind) -> Option<(&Media, &Accepted)> {
        let of_kind = self.media.iter().filter(|media| media.kind == kind);
        of_kind.filter_map(|media| Some((media, media.accepted.as_ref()?))).find(|(_, it)| it.direction != Direction::Inactive)
    }
}

pub fn negotiate(offer: &Offer, wants: &Wants) -> Result<Negotiated, Refusal> {
    if offer.ice_lite {
        return Err(Refusal::BothLite);
    }
    let mut accepted: Vec<Option<Accepted>> = vec![None; offer.media.len()];
    for kind in [Kind::Video, Kind::Audio] {
        if let Some((index, choice)) = accept_first(offer, kind, wants)? {
            accepted[index] = Some(choice);
        }
    }
    let active: Vec<usize> = (0..accepted.len()).filter(|index| accepted[*index].is_some()).collect();
    let Some(&first) = active.first() else { return Err(nothing_accepted(offer, wants)) };

    let group = offer.bundle_of(offer.media[first].mid.as_deref());
    let shares_transport =
        |section: &OfferedMedia| group.is_some_and(|mids| section.mid.as_ref().is_some_and(|it| mids.contains(it)));
    for &index in &active {
        if index != first && !shares_transport(&offer.media[index]) {
            return Err(Refusal::NoBundle);
        }
        if !offer.media[index].rtcp_mux {
            return Err(Refusal::NoRtcpMux);
        }
    }
    if let Wants::Send(_) = wants {
        keep_inactive(offer, &mut accepted, shares_transport);
    }
    let tagged = tagged(offer, group, &accepted).unwrap_or(first);
    let transport = transport_of(offer, group, tagged);
    Ok(Negotiated {
        remote: Remote { ice: transport.ice()?, fingerprint: transport.fingerprint.ok_or(Refusal::NoFingerprint)? },
        // Without a=setup both sides' defaults leave us passive as well (RFC 4145 4.1).
        dtls_client: transport.setup == Some(Setup::Passive),
        bundle: group.map(|mids| mids_accepted(offer, mids, &accepted)),
        tagged,
        media: offer.media.iter().zip(accepted).map(|(section, accepted)| Media::new(section, accepted)).collect(),
    })
}

impl Media {
    fn new(section: &OfferedMedia, accepted: Option<Accepted>) -> Self {
        Self {
            mid: section.mid.clone(),
            kind: section.kind,
            name: section.name.clone(),
            protocol: section.protocol.clone(),
            format: section.format.clone(),
            accepted,
        }
    }
}

/// The first m-line of `kind` that flows our way and has our codec. That some flow our way and none
/// has it is a refusal: half a programme without a word would be worse.
fn accept_first(offer: &Offer, kind: Kind, wants: &Wants) -> Result<Option<(usize, Accepted)>, Refusal> {
    let flows = |section: &OfferedMedia| match wants {
        Wants::Receive => section.direction.sends(),
        Wants::Send(sending) => section.direction.receives() && sending.has(kind),
    };
    let mut sections = offer.media.iter().enumerate().filter(|(_, it)| it.kind == kind && !it.disabled && flows(it)).peekable();
    let Some(&(_, refused)) = sections.peek() else { return Ok(None) };
    for (index, section) in sections {
        if let Some(accepted) = accept(section, wants)? {
            return Ok(Some((index, accepted)));
        }
    }
    let names = offered_names(refused);
    Err(match (kind, wants) {
        (Kind::Video, Wants::Receive) => Refusal::NoVideoCodec(names),
        (Kind::Video, Wants::Send(_)) => Refusal::NoH264(names),
        (Kind::Audio | Kind::Other, _) => Refusal::NoOpus(names),
    })
}

fn nothing_accepted(offer: &Offer, wants: &Wants) -> Refusal {
    if offer.media.iter().all(|section| section.kind == Kind::Other) {
        return Refusal::NoMedia;
    }
    match wants {
        Wants::Receive => Refusal::SendonlyExpected,
        Wants::Send(_) => Refusal::RecvonlyExpected,
    }
}

/// For the sentence of a refusal: `VP8, AV1`, or the protocol when that is what does not fit.
fn offered_names(section: &OfferedMedia) -> String {
    if !PROTOCOLS.contains(&section.protocol.as_str()) {
        return excerpt(&section.protocol);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in section.codecs.iter().filter_map(|codec| codec.encoding.split('/').next()) {
        if !names.contains(&name) && !["rtx", "red", "ulpfec", "flexfec-03"].contains(&name) && names.len() < 8 {
            names.push(name);
        }
    }
    if names.is_empty() { "nothing".to_owned() } else { excerpt(&names.join(", ")) }
}

fn accept(section: &OfferedMedia, wants: &Wants) -> Result<Option<Accepted>, Refusal> {
    let Some(codec) = choose_codec(section, wants) else { return Ok(None) };
    let rtx = section.codecs.iter().find(|it| it.codec == Codec::Rtx { apt: codec.payload_type }).map(|it| it.payload_type);
    let mut accepted = Accepted {
        direction: Direction::RecvOnly,
        payload_type: codec.payload_type,
        codec: codec.codec.clone(),
        rtx,
        feedback: codec.feedback,
        extensions: section.extensions,
        rids: Vec::new(),
        ssrcs: Vec::new(),
        source: None,
        encoding: codec.encoding.clone(),
        simulcast: false,
        rtcp_rsize: section.rtcp_rsize,
    };
    accepted.pair_transport_cc();
    if section.mid.as_ref().is_none_or(|mid| mid.len() > MID_EXTENSION_BYTES_MAX) {
        accepted.extensions.mid = None;
    }
    match wants {
        Wants::Receive => accepted.receive(section)?,
        Wants::Send(sending) => accepted.send(section.kind, sending),
    }
    Ok(Some(accepted))
}

impl Accepted {
    /// Transport-wide feedback is numbered by the extension: one without the other is nothing.
    fn pair_transport_cc(&mut self) {
        self.feedback.transport_cc &= self.extensions.transport_cc.is_some();
        if !self.feedback.transport_cc {
            self.extensions.transport_cc = None;
        }
    }

    fn receive(&mut self, section: &OfferedMedia) -> Result<(), Refusal> {
        if section.rids.len() > RIDS_MAX {
            return Err(Refusal::TooManyLayers);
        }
        if section.rids.len() > 1 && section.extensions.rid.is_none() {
            return Err(Refusal::NoRidExtension);
        }
        self.rids = section.rids.clone();
        self.simulcast = section.simulcast;
        self.ssrcs = section.ssrcs.clone();
        // Ours to write, never the publisher's.
        self.extensions.playout_delay = None;
        Ok(())
    }

    fn send(&mut self, kind: Kind, sending: &Sending) {
        self.direction = Direction::SendOnly;
        self.source = sending.source(kind, self.rtx.is_some());
        // One rung at a time is sent, under one SSRC.
        self.extensions.rid = None;
        self.extensions.repaired_rid = None;
    }
}

impl Sending {
    fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Video => self.video.is_some(),
            Kind::Audio => self.audio.is_some(),
            Kind::Other => false,
        }
    }

    fn source(&self, kind: Kind, rtx: bool) -> Option<Source> {
        let (ssrc, rtx_ssrc) = match kind {
            Kind::Video => self.video.map(|video| (video.ssrc, Some(video.rtx_ssrc)))?,
            Kind::Audio => (self.audio?, None),
            Kind::Other => return None,
        };
        Some(Source { ssrc, rtx_ssrc: rtx_ssrc.filter(|_| rtx), cname: self.cname.clone(), stream_id: self.stream_id.clone() })
    }
}

fn choose_codec<'a>(section: &'a OfferedMedia, wants: &Wants) -> Option<&'a OfferedCodec> {
    if !PROTOCOLS.contains(&section.protocol.as_str()) {
        return None;
    }
    match section.kind {
        Kind::Audio => section.codecs.iter().find(|it| matches!(it.codec, Codec::Opus { .. })),
        Kind::Video => match wants {
            Wants::Receive => best(section, |codec| received_rank(codec, lists_everything(section))),
            Wants::Send(sending) => best(section, |codec| sent_rank(codec, sending)),
        },
        Kind::Other => None,
    }
}

/// The lower the better; among equals the offer's order decides, as `min_by_key` takes the first.
fn best<R: Ord + Copy>(section: &OfferedMedia, rank: impl Fn(&Codec) -> Option<R>) -> Option<&OfferedCodec> {
    let ranked = section.codecs.iter().filter_map(|it| Some((rank(&it.codec)?, it)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, it)| it)
}

/// Browsers and GStreamer list all that they have in an order of their own; VP8 is always among it (RFC 7742 5).
fn lists_everything(section: &OfferedMedia) -> bool {
    let name = |codec: &OfferedCodec| codec.encoding.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case("VP8"));
    section.codecs.iter().any(name)
}

/// What a publisher sends: its own preference counts, if it is one, and we take any profile. Of those that list everything
/// H.264 is taken first, since every viewer can be sent that as it is. Mode 0 of it may not cut a picture into fragments
/// (RFC 6184 6.3), so all else goes before.
fn received_rank(codec: &Codec, everything: bool) -> Option<(bool, u8)> {
    let (single_nal_units, place) = match codec {
        Codec::H264 { packetization_mode, .. } => (*packetization_mode == 0, 0),
        Codec::H265 { .. } => (false, 1),
        Codec::Av1 { .. } => (false, 2),
        Codec::Opus { .. } | Codec::Rtx { .. } | Codec::Other => return None,
    };
    Some((single_nal_units, if everything { place } else { 0 }))
}

/// What a viewer is sent. Mode 1 goes before any profile.
fn sent_rank(codec: &Codec, sending: &Sending) -> Option<(bool, bool, Profile)> {
    let Codec::H264 { profile_level_id, packetization_mode, .. } = codec else { return None };
    let offered = Profile::of(*profile_level_id);
    let ours = sending.video.and_then(|video| video.profile_level_id).map(Profile::of);
    Some((*packetization_mode == 0, ours.is_some_and(|ours| ours != offered), offered))
}

/// A viewer's m-lines that this stream has nothing for stay, without flowing: aiortc demands ICE and
/// DTLS of every m-line, and takes one outside the group for a second transport that never connects.
fn keep_inactive(offer: &Offer, accepted: &mut [Option<Accepted>], shares_transport: impl Fn(&OfferedMedia) -> bool) {
    // Any profile will do where nothing is sent.
    let nothing = Wants::Send(Sending { video: None, audio: None, cname: String::new(), stream_id: String::new() });
    for (section, accepted) in offer.media.iter().zip(accepted) {
        if accepted.is_none() && !section.disabled && section.rtcp_mux && shares_transport(section) {
            *accepted = accept(section, &nothing).ok().flatten().map(|it| Accepted { direction: Direction::Inactive, ..it });
        }
    }
}

/// Our tagged m-line: the first of the group that is accepted (RFC 9143 7.3.1).
fn tagged(offer: &Offer, group: Option<&[String]>, accepted: &[Option<Accepted>]) -> Option<usize> {
    let mut indices = group?.iter().filter_map(|mid| index_of(offer, mid));
    indices.find(|index| accepted[*index].is_some())
}

fn index_of(offer: &Offer, mid: &str) -> Option<usize> {
    offer.media.iter().position(|section| section.mid.as_deref() == Some(mid))
}

fn mids_accepted(offer: &Offer, group: &[String], accepted: &[Option<Accepted>]) -> Vec<String> {
    let mut mids: Vec<String> = Vec::new();
    for mid in group.iter().filter(|mid| index_of(offer, mid).is_some_and(|index| accepted[index].is_some())) {
        if !mids.contains(mid) {
            mids.push(mid.clone());
        }
    }
    mids
}

/// The offerer may write transport attributes into its tagged m-line alone, the group's first (RFC 9143 7.1.3).
fn transport_of(offer: &Offer, group: Option<&[String]>, index: usize) -> Transport {
    let own = &offer.media[index].transport;
    match group.and_then(|mids| mids.iter().find_map(|mid| index_of(offer, mid))) {
        Some(first) => own.or(&offer.media[first].transport),
        None => own.clone(),
    }
}
