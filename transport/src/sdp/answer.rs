//! An answer's text: what was negotiated, and our transport.
//!
//! Transport attributes stand in every accepted m-line, since clients differ in where they look;
//! candidates stand in the tagged one alone.

use std::fmt::Write;
use std::net::SocketAddr;

use super::codec::Codec;
use super::negotiate::{Accepted, Media, Negotiated};
use super::transport::{Fingerprint, IceCredentials};

/// Chromium sends 32 kbit/s of mono, or of stereo about 64, unless it is asked for more; 128 is where Opus
/// stereo music has no audible loss left.
const OPUS_BITRATE_MAX: u32 = 128_000;
/// RFC 8839 5.1 and RFC 8445 5.1.2.2: a host candidate over UDP.
const UDP_TYPE_PREFERENCE: u32 = 126;
/// RFC 6544 4.2: below every UDP candidate, those of relays aside.
const TCP_TYPE_PREFERENCE: u32 = 90;
/// RFC 6544 4.2: the direction preference of a passive host candidate, in the upper three bits.
const TCP_PASSIVE_PREFERENCE: u32 = 4 << 13;

/// Our side of the transport.
#[derive(Debug, Clone, Copy)]
pub struct Local<'a> {
    pub ice: &'a IceCredentials,
    pub fingerprint: &'a Fingerprint,
    /// The best one first: some clients (ffmpeg) try only the first over UDP.
    pub candidates: &'a [Candidate],
    /// Of the `o=` line; 63 bits of it are used (RFC 9429 5.2.1).
    pub session_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub address: SocketAddr,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    /// ICE-TCP (RFC 6544): we listen.
    TcpPassive,
}

impl Negotiated {
    pub fn answer(&self, local: &Local) -> String {
        let mut sdp = Sdp(String::with_capacity(2048));
        sdp.line(format_args!("v=0"));
        sdp.line(format_args!("o=- {} 1 IN IP4 127.0.0.1", local.session_id & (u64::MAX >> 1)));
        sdp.line(format_args!("s=-"));
        sdp.line(format_args!("t=0 0"));
        sdp.line(format_args!("a=ice-lite"));
        if let Some(mids) = &self.bundle {
            sdp.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        }
        sdp.line(format_args!("a=msid-semantic: WMS *"));
        for (index, media) in self.media.iter().enumerate() {
            match &media.accepted {
                Some(accepted) => self.section(&mut sdp, media, accepted, local, index == self.tagged),
                None => sdp.rejected(media),
            }
        }
        sdp.0
    }

    /// The answer to an ICE restart (RFC 9725 4.3.3): a fragment of the tagged m-line with our new
    /// credentials and the candidates.
    pub fn fragment(&self, local: &Local) -> String {
        let mut sdp = Sdp(String::with_capacity(512));
        sdp.line(format_args!("a=ice-lite"));
        if let Some(mids) = &self.bundle {
            sdp.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        }
        let media = &self.media[self.tagged];
        let payload_type = media.accepted.as_ref().map_or(0, |accepted| accepted.payload_type);
        sdp.line(format_args!("m={} 9 {} {payload_type}", media.name, media.protocol));
        sdp.mid(media);
        sdp.ice(local.ice);
        sdp.candidates(local.candidates);
        sdp.0
    }

    fn section(&self, sdp: &mut Sdp, media: &Media, accepted: &Accepted, local: &Local, tagged: bool) {
        sdp.media_line(media, accepted);
        sdp.line(format_args!("c=IN IP4 0.0.0.0"));
        sdp.mid(media);
        sdp.line(format_args!("a={}", accepted.direction.name()));
        sdp.ice(local.ice);
        sdp.line(format_args!("a=fingerprint:{}", local.fingerprint));
        sdp.line(format_args!("a=setup:{}", if self.dtls_client { "active" } else { "passive" }));
        sdp.line(format_args!("a=rtcp-mux"));
        if accepted.rtcp_rsize {
            sdp.line(format_args!("a=rtcp-rsize"));
        }
        for (id, uri) in accepted.extensions.entries() {
            sdp.line(format_args!("a=extmap:{id} {uri}"));
        }
        sdp.codec(accepted);
        sdp.layers(accepted);
        sdp.source(media, accepted);
        if tagged {
            sdp.candidates(local.candidates);
        }
    }
}

/// The text under way. Every line ends in CRLF (RFC 8866 5).
struct Sdp(String);

impl Sdp {
    fn line(&mut self, line: std::fmt::Arguments) {
        self.0.write_fmt(line).expect("writing to a String cannot fail");
        self.0.push_str("\r\n");
    }

    fn media_line(&mut self, media: &Media, accepted: &Accepted) {
        let (name, protocol, payload_type) = (&media.name, &media.protocol, accepted.payload_type);
        match accepted.rtx {
            Some(rtx) => self.line(format_args!("m={name} 9 {protocol} {payload_type} {rtx}")),
            None => self.line(format_args!("m={name} 9 {protocol} {payload_type}")),
        }
    }

    /// Port 0, in its place, with its mid (RFC 9429 5.3.1).
    fn rejected(&mut self, media: &Media) {
        self.line(format_args!("m={} 0 {} {}", media.name, media.protocol, media.format));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.mid(media);
        self.line(format_args!("a=inactive"));
    }

    fn mid(&mut self, media: &Media) {
        if let Some(mid) = &media.mid {
            self.line(format_args!("a=mid:{mid}"));
        }
    }

    fn ice(&mut self, ice: &IceCredentials) {
        self.line(format_args!("a=ice-ufrag:{}", ice.ufrag()));
        self.line(format_args!("a=ice-pwd:{}", ice.pwd()));
    }

    fn codec(&mut self, accepted: &Accepted) {
        let payload_type = accepted.payload_type;
        self.line(format_args!("a=rtpmap:{payload_type} {}", accepted.encoding));
        for name in accepted.feedback.names() {
            self.line(format_args!("a=rtcp-fb:{payload_type} {name}"));
        }
        match &accepted.codec {
            Codec::H264 { profile_level_id: [profile, constraints, level], packetization_mode, .. } => self.line(format_args!(
                "a=fmtp:{payload_type} level-asymmetry-allowed=1;packetization-mode={packetization_mode};\
                 profile-level-id={profile:02x}{constraints:02x}{level:02x}"
            )),
            Codec::H265 { .. } | Codec::Av1 { .. } => {
                let limits = accepted.codec.limits();
                if !limits.is_empty() {
                    self.line(format_args!("a=fmtp:{payload_type} {limits}"));
                }
            }
            // Without `stereo=1` Chromium encodes one channel (RFC 7587 7).
            Codec::Opus { .. } if accepted.source.is_none() => self.line(format_args!(
                "a=fmtp:{payload_type} minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1;maxaveragebitrate={OPUS_BITRATE_MAX}"
            )),
            Codec::Opus { .. } => {
                self.line(format_args!("a=fmtp:{payload_type} minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"))
            }
            Codec::Rtx { .. } | Codec::Other => {}
        }
        if let Some(rtx) = accepted.rtx {
            self.line(format_args!("a=rtpmap:{rtx} rtx/90000"));
            self.line(format_args!("a=fmtp:{rtx} apt={payload_type}"));
        }
    }

    fn layers(&mut self, accepted: &Accepted) {
        for rid in &accepted.rids {
            self.line(format_args!("a=rid:{rid} recv"));
        }
        if accepted.simulcast {
            self.line(format_args!("a=simulcast:recv {}", accepted.rids.join(";")));
        }
    }

    fn source(&mut self, media: &Media, accepted: &Accepted) {
        let Some(source) = &accepted.source else { return };
        self.line(format_args!("a=msid:{} {}", source.stream_id, media.name));
        if let Some(rtx) = source.rtx_ssrc {
            self.line(format_args!("a=ssrc-group:FID {} {rtx}", source.ssrc));
        }
        for ssrc in [Some(source.ssrc), source.rtx_ssrc].into_iter().flatten() {
            self.line(format_args!("a=ssrc:{ssrc} cname:{}", source.cname));
            self.line(format_args!("a=ssrc:{ssrc} msid:{} {}", source.stream_id, media.name));
        }
    }

    /// Exactly the configured ones, in their order, which is their priority.
    fn candidates(&mut self, candidates: &[Candidate]) {
        for (index, candidate) in (0u32..).zip(candidates) {
            let (ip, port, foundation) = (candidate.address.ip(), candidate.address.port(), index + 1);
            match candidate.protocol {
                Protocol::Udp => {
                    let priority = priority(UDP_TYPE_PREFERENCE, 0xffff_u32.saturating_sub(index));
                    self.line(format_args!("a=candidate:{foundation} 1 udp {priority} {ip} {port} typ host"));
                }
                Protocol::TcpPassive => {
                    let priority = priority(TCP_TYPE_PREFERENCE, TCP_PASSIVE_PREFERENCE | 0x1fff_u32.saturating_sub(index));
                    self.line(format_args!("a=candidate:{foundation} 1 tcp {priority} {ip} {port} typ host tcptype passive"));
                }
            }
        }
        self.line(format_args!("a=end-of-candidates"));
    }
}

/// RFC 8445 5.1.2.1, for component 1.
fn priority(type_preference: u32, local_preference: u32) -> u32 {
    type_preference << 24 | local_preference << 8 | 255
}
