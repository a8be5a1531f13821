//! One m-line of an offer, read into values. What cannot be used is left out; what would be echoed is checked.

use rtc_sdp::description::common::Attribute;
use rtc_sdp::description::media::MediaDescription;

use super::codec::{Codec, Feedback, OfferedCodec};
use super::refusal::{Refusal, excerpt};
use super::transport::{Fingerprint, Setup, Transport};

/// Simulcast layers of one m-line: browsers send three, OBS four at most; eight leaves room.
pub const RIDS_MAX: usize = 8;
/// A rid travels in a one-byte header extension, which holds 16 bytes (RFC 8285 4.2).
const RID_BYTES_MAX: usize = 16;
/// Mids are `0`, `video0` or a UUID of 36 characters.
const MID_BYTES_MAX: usize = 64;
/// A source and its retransmissions and its FEC, for every layer.
const SSRCS_MAX: usize = 3 * RIDS_MAX;
/// One FID and one FEC-FR group for every layer, and one SIM group.
const SSRC_GROUPS_MAX: usize = 2 * RIDS_MAX + 1;
/// What one-byte header extensions can carry (RFC 8285 4.2). Higher ids are not taken: the answer
/// never echoes `extmap-allow-mixed`, so nobody uses two-byte headers.
const EXTENSION_ID_MAX: u8 = 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
    /// A data channel, for one: rejected, never an error.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive].into_iter().find(|it| it.name() == name)
    }

    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// Header extension ids, 1 to 14 (RFC 8285).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions {
    pub mid: Option<u8>,
    pub rid: Option<u8>,
    pub repaired_rid: Option<u8>,
    pub transport_cc: Option<u8>,
    pub playout_delay: Option<u8>,
    pub abs_send_time: Option<u8>,
}

const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const PLAYOUT_DELAY_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
const ABS_SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

impl Extensions {
    fn slot(&mut self, uri: &str) -> Option<&mut Option<u8>> {
        match uri {
            MID_URI => Some(&mut self.mid),
            RID_URI => Some(&mut self.rid),
            REPAIRED_RID_URI => Some(&mut self.repaired_rid),
            TRANSPORT_CC_URI => Some(&mut self.transport_cc),
            PLAYOUT_DELAY_URI => Some(&mut self.playout_delay),
            ABS_SEND_TIME_URI => Some(&mut self.abs_send_time),
            _ => None,
        }
    }

    /// The ids and URIs of our `a=extmap` lines.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u8, &'static str)> {
        [
            (self.mid, MID_URI),
            (self.rid, RID_URI),
            (self.repaired_rid, REPAIRED_RID_URI),
            (self.transport_cc, TRANSPORT_CC_URI),
            (self.playout_delay, PLAYOUT_DELAY_URI),
            (self.abs_send_time, ABS_SEND_TIME_URI),
        ]
        .into_iter()
        .filter_map(|(id, uri)| id.map(|id| (id, uri)))
    }
}

/// A source that the offer announces, and the one that carries its retransmissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedSsrc {
    pub ssrc: u32,
    pub rtx: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedMedia {
    pub kind: Kind,
    /// `video`, `audio`, `application`.
    pub name: String,
    /// `UDP/TLS/RTP/SAVPF` as a rule.
    pub protocol: String,
    /// The first of the formats: a rejected m-line must list one (RFC 3264 6).
    pub format: String,
    /// Not offered at all: port 0 without `a=bundle-only`.
    pub disabled: bool,
    pub mid: Option<String>,
    pub direction: Direction,
    pub rtcp_mux: bool,
    pub rtcp_rsize: bool,
    /// In the offer's order of preference.
    pub codecs: Vec<OfferedCodec>,
    pub extensions: Extensions,
    /// The layers that the offer sends, in its order; one more than `RIDS_MAX` when there are too many.
    pub rids: Vec<String>,
    /// Whether the layers are offered as simulcast (RFC 8853), not only named.
    pub simulcast: bool,
    /// Without retransmissions and FEC; an old-style simulcast group (`SIM`) comes first, in its order.
    pub ssrcs: Vec<OfferedSsrc>,
    pub(super) transport: Transport,
}

impl OfferedMedia {
    /// `session` is what the session level says for all m-lines.
    pub(super) fn parse(
        description: &MediaDescription,
        session: &Transport,
        direction: Option<Direction>,
    ) -> Result<Self, Refusal> {
        let name = &description.media_name;
        let attributes = Attributes { all: &description.attributes };
        let (rids, simulcast) = parse_rids(&attributes)?;
        Ok(Self {
            kind: match name.media.as_str() {
                "video" => Kind::Video,
                "audio" => Kind::Audio,
                _ => Kind::Other,
            },
            name: name.media.clone(),
            protocol: name.protos.join("/"),
            format: name.formats.first().cloned().unwrap_or_else(|| "0".to_owned()),
            disabled: name.port.value == 0 && !attributes.has("bundle-only"),
            mid: attributes.first("mid").map(parse_mid).transpose()?,
            direction: attributes.direction().or(direction).unwrap_or(Direction::SendRecv),
            rtcp_mux: attributes.has("rtcp-mux"),
            rtcp_rsize: attributes.has("rtcp-rsize"),
            codecs: parse_codecs(&name.formats, &attributes),
            extensions: parse_extensions(&attributes),
            rids,
            simulcast,
            ssrcs: parse_ssrcs(&attributes),
            transport: attributes.transport()?.or(session),
        })
    }
}

/// The `a=` lines of one level.
pub(super) struct Attributes<'a> {
    pub all: &'a [Attribute],
}

impl<'a> Attributes<'a> {
    pub fn has(&self, key: &str) -> bool {
        self.all.iter().any(|attribute| attribute.key == key)
    }

    pub fn values(&self, key: &'static str) -> impl Iterator<Item = &'a str> {
        self.all.iter().filter(move |attribute| attribute.key == key).filter_map(|attribute| attribute.value.as_deref())
    }

    pub fn first(&self, key: &'static str) -> Option<&'a str> {
        self.values(key).next()
    }

    pub fn direction(&self) -> Option<Direction> {
        self.all.iter().find_map(|attribute| Direction::parse(&attribute.key))
    }

    pub fn transport(&self) -> Result<Transport, Refusal> {
        Ok(Transport {
            ufrag: self.first("ice-ufrag").map(str::to_owned),
            pwd: self.first("ice-pwd").map(str::to_owned),
            fingerprint: Fingerprint::choose(self.values("fingerprint"))?,
            setup: self.first("setup").map(Setup::parse).transpose()?,
        })
    }

    /// Values that begin with a payload type, as that and the rest.
    fn by_payload_type(&self, key: &'static str) -> impl Iterator<Item = (u8, &'a str)> {
        self.values(key).filter_map(|value| {
            let (payload_type, rest) = value.split_once(' ')?;
            Some((parse_payload_type(payload_type)?, rest.trim()))
        })
    }
}

fn parse_mid(mid: &str) -> Result<String, Refusal> {
    let valid = (1..=MID_BYTES_MAX).contains(&mid.len()) && mid.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then(|| mid.to_owned()).ok_or_else(|| Refusal::BadAttribute(excerpt(&format!("mid:{mid}"))))
}

/// RTP has seven bits for it; with rtcp-mux 64 to 95 would read as RTCP (RFC 5761 4).
fn parse_payload_type(text: &str) -> Option<u8> {
    text.parse().ok().filter(|payload_type| matches!(payload_type, 0..=63 | 96..=127))
}

/// What is said of a payload type twice counts the first time; what is said of one that the m-line
/// does not list counts for nothing.
fn parse_codecs(formats: &[String], attributes: &Attributes) -> Vec<OfferedCodec> {
    let mut encodings: [Option<&str>; 128] = [None; 128];
    let mut fmtps: [Option<&str>; 128] = [None; 128];
    let mut feedbacks = [Feedback::default(); 128];
    for (payload_type, encoding) in attributes.by_payload_type("rtpmap") {
        encodings[usize::from(payload_type)].get_or_insert(encoding);
    }
    for (payload_type, fmtp) in attributes.by_payload_type("fmtp") {
        fmtps[usize::from(payload_type)].get_or_insert(fmtp);
    }
    for (payload_type, feedback) in attributes.by_payload_type("rtcp-fb") {
        feedbacks[usize::from(payload_type)].note(feedback);
    }
    let mut for_all = Feedback::default();
    attributes.values("rtcp-fb").filter_map(|value| value.strip_prefix("* ")).for_each(|feedback| for_all.note(feedback));

    let mut codecs = Vec::new();
    for payload_type in formats.iter().filter_map(|format| parse_payload_type(format)) {
        let index = usize::from(payload_type);
        // Taken, so that a payload type listed twice is one codec.
        let Some(encoding) = encodings[index].take() else { continue };
        codecs.push(OfferedCodec {
            payload_type,
            encoding: encoding.to_owned(),
            codec: Codec::parse(encoding, fmtps[index]),
            feedback: feedbacks[index].or(for_all),
        });
    }
    codecs
}

/// `a=extmap:3 uri` or `a=extmap:3/sendonly uri`. An id or a URI that comes twice counts the first time.
fn parse_extensions(attributes: &Attributes) -> Extensions {
    let mut extensions = Extensions::default();
    let mut taken = [false; EXTENSION_ID_MAX as usize + 1];
    for value in attributes.values("extmap") {
        let mut words = value.split_ascii_whitespace();
        let (Some(head), Some(uri)) = (words.next(), words.next()) else { continue };
        let id = head.split('/').next().and_then(|id| id.parse::<u8>().ok());
        let Some(id) = id.filter(|id| (1..=EXTENSION_ID_MAX).contains(id)) else { continue };
        if std::mem::replace(&mut taken[usize::from(id)], true) {
            continue;
        }
        if let Some(slot) = extensions.slot(uri) {
            slot.get_or_insert(id);
        }
    }
    extensions
}

/// The layers of `a=simulcast:send l;m,n;~h`, alternatives and paused ones as well, then those that
/// only `a=rid:x send` names. OBS stops when the answer names fewer than it offered.
fn parse_rids(attributes: &Attributes) -> Result<(Vec<String>, bool), Refusal> {
    let mut rids: Vec<String> = Vec::new();
    let mut add = |rid: &str| {
        let valid = (1..=RID_BYTES_MAX).contains(&rid.len())
            && rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !valid {
            return Err(Refusal::BadAttribute(excerpt(&format!("rid:{rid}"))));
        }
        if rids.len() <= RIDS_MAX && !rids.iter().any(|known| known == rid) {
            rids.push(rid.to_owned());
        }
        Ok(())
    };
    let sent = attributes.first("simulcast").and_then(sent_layers);
    if let Some(layers) = sent {
        for rid in layers.split([';', ',']) {
            add(rid.strip_prefix('~').unwrap_or(rid))?;
        }
    }
    for value in attributes.values("rid") {
        let mut words = value.split_ascii_whitespace();
        if let (Some(rid), Some("send")) = (words.next(), words.next()) {
            add(rid)?;
        }
    }
    Ok((rids, sent.is_some()))
}

/// What follows `send` in `a=simulcast`; drafts before RFC 8853 wrote `send rid=l;m;h`.
fn sent_layers(value: &str) -> Option<&str> {
    let mut words = value.split_ascii_whitespace();
    words.find(|word| *word == "send")?;
    words.next().map(|layers| layers.strip_prefix("rid=").unwrap_or(layers))
}

fn parse_ssrcs(attributes: &Attributes) -> Vec<OfferedSsrc> {
    let groups: Vec<(&str, Vec<u32>)> =
        attributes.values("ssrc-group").take(SSRC_GROUPS_MAX).filter_map(parse_ssrc_group).collect();
    let of =
        |semantics: &'static str| groups.iter().filter(move |(name, _)| *name == semantics).map(|(_, ssrcs)| ssrcs.as_slice());

    let simulcast = of("SIM").flatten().copied();
    let paired = of("FID").filter_map(|ssrcs| ssrcs.first().copied());
    let named = attributes.values("ssrc").filter_map(|value| value.split_ascii_whitespace().next()?.parse().ok());
    let helps = |ssrc: u32| of("FID").chain(of("FEC-FR")).any(|ssrcs| ssrcs.iter().skip(1).any(|helper| *helper == ssrc));
    let rtx_of = |ssrc: u32| of("FID").find(|ssrcs| ssrcs.first() == Some(&ssrc)).and_then(|ssrcs| ssrcs.get(1).copied());

    let mut sources: Vec<OfferedSsrc> = Vec::new();
    for ssrc in simulcast.chain(paired).chain(named) {
        if sources.len() == SSRCS_MAX {
            break;
        }
        if !helps(ssrc) && !sources.iter().any(|known| known.ssrc == ssrc) {
            sources.push(OfferedSsrc { ssrc, rtx: rtx_of(ssrc) });
        }
    }
    sources
}

fn parse_ssrc_group(value: &str) -> Option<(&str, Vec<u32>)> {
    let (semantics, ssrcs) = value.split_once(' ')?;
    Some((semantics, ssrcs.split_ascii_whitespace().take(SSRCS_MAX).map_while(|ssrc| ssrc.parse().ok()).collect()))
}
