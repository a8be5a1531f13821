//! Why an offer is not answered: a sentence for the person at the encoder, and the HTTP status it deserves.

use super::media::RIDS_MAX;
use super::offer::{BYTES_MAX, LINES_MAX, MEDIA_MAX};

/// Longest piece of the peer's own text that a refusal repeats: enough to find the line.
const EXCERPT_CHARS_MAX: usize = 60;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the SDP has {0} bytes: at most {BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("the SDP has more than {LINES_MAX} lines")]
    TooManyLines,
    #[error("the SDP has more than {MEDIA_MAX} m-lines")]
    TooManyMedia,
    #[error("the SDP is not UTF-8 text")]
    NotText,
    #[error("the SDP holds a control character in line {0}")]
    ControlCharacter(usize),
    #[error("the body is not an SDP: {0}")]
    Malformed(String),
    #[error("the line a={0} cannot be read")]
    BadAttribute(String),
    #[error("two m-lines have the same a=mid:{0}")]
    DuplicateMid(String),
    #[error("a=ice-ufrag must have 4 to 256 characters out of letters, digits, + and /")]
    BadIceUfrag,
    #[error("a=ice-pwd must have 22 to 256 characters out of letters, digits, + and /")]
    BadIcePwd,
    #[error("a=fingerprint:{0} is not a hash in hexadecimal bytes with colons")]
    BadFingerprint(String),
    #[error("the offer has no m-line")]
    NoMediaLine,

    #[error("the offer has neither audio nor video")]
    NoMedia,
    #[error("the offer sends nothing: a publisher offers its audio and video as sendonly")]
    SendonlyExpected,
    #[error("the offer receives nothing that this stream has: a viewer offers audio and video as recvonly")]
    RecvonlyExpected,
    #[error("the video offers no H.264 in RTP over DTLS (it offers {0}): set the encoder's codec to H.264")]
    NoH264(String),
    #[error("the video offers no H.264, H.265 or AV1 in RTP over DTLS (it offers {0}): set the encoder's codec to H.264")]
    NoVideoCodec(String),
    #[error("the audio offers no Opus in RTP over DTLS (it offers {0}): set the encoder's audio codec to Opus")]
    NoOpus(String),
    #[error("audio and video must share one transport: the offer needs a=group:BUNDLE with the a=mid of both")]
    NoBundle,
    #[error("RTP and RTCP must share one port: the offer needs a=rtcp-mux in every m-line")]
    NoRtcpMux,
    #[error("the offer has no a=ice-ufrag and a=ice-pwd")]
    NoIce,
    #[error("the offer comes from an ICE-lite agent; this server is one too, and one side must make the checks")]
    BothLite,
    #[error("the offer has no a=fingerprint: media must be encrypted with DTLS-SRTP")]
    NoFingerprint,
    #[error("the offer's only certificate hash is {0}: sha-256, sha-384 or sha-512 is needed")]
    WeakFingerprint(String),
    #[error("a=setup:{0} cannot be answered: offer actpass, active or passive")]
    BadSetup(String),
    #[error("the offer has more than {RIDS_MAX} simulcast layers")]
    TooManyLayers,
    #[error("simulcast layers need the header extension urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id with an id of 1 to 14")]
    NoRidExtension,
}

impl Refusal {
    /// 400 for what is no SDP, 422 for an SDP that this server cannot accept.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLong(_)
            | Self::TooManyLines
            | Self::TooManyMedia
            | Self::NotText
            | Self::ControlCharacter(_)
            | Self::Malformed(_)
            | Self::BadAttribute(_)
            | Self::DuplicateMid(_)
            | Self::BadIceUfrag
            | Self::BadIcePwd
            | Self::BadFingerprint(_)
            | Self::NoMediaLine => 400,
            Self::NoMedia
            | Self::SendonlyExpected
            | Self::RecvonlyExpected
            | Self::NoH264(_)
            | Self::NoVideoCodec(_)
            | Self::NoOpus(_)
            | Self::NoBundle
            | Self::NoRtcpMux
            | Self::NoIce
            | Self::BothLite
            | Self::NoFingerprint
            | Self::WeakFingerprint(_)
            | Self::BadSetup(_)
            | Self::TooManyLayers
            | Self::NoRidExtension => 422,
        }
    }
}

/// The start of the peer's text, so that a refusal stays one line in a log.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
