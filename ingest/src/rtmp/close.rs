//! Why an RTMP connection ended: the words for the log, the label for the metric, and whose
//! fault it was, in one place.

use std::borrow::Cow;

use media_core::registry::Refusal;

use super::{amf0, chunk, handshake};

/// Each variant ends one connection.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// deleteStream or closeStream: the orderly end.
    #[error("the publisher stopped")]
    Unpublished,
    #[error("the peer closed the connection")]
    PeerClosed,
    #[error("the connection failed: {0}")]
    Io(String),
    #[error("the peer took nothing of what was sent to it for {0} s")]
    WriteStalled(u64),
    #[error("no handshake within {0} s")]
    HandshakeTimeout(u64),
    #[error("nothing was published within {0} s of the handshake")]
    PublishTimeout(u64),
    #[error("no audio or video for {0} s")]
    Idle(u64),
    #[error("not RTMP: {0}")]
    Handshake(#[from] handshake::Error),
    #[error("broken RTMP: {0}")]
    Chunk(#[from] chunk::Violation),
    #[error("broken RTMP command: {0}")]
    Amf(#[from] amf0::Error),
    /// The codec, or its headers, in words that the publisher was sent.
    #[error("{0}")]
    Media(String),
    #[error("a player, not a publisher: viewers are served over HTTP")]
    Player,
    /// What admission said.
    #[error("not admitted: {0}")]
    Denied(Cow<'static, str>),
    #[error("{0}")]
    Refused(Refusal),
    #[error("a publisher with the same key took the stream over")]
    TakenOver,
    #[error("the server is shutting down")]
    Drain,
}

impl CloseReason {
    /// The metric's label: a fixed set.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unpublished => "unpublished",
            Self::PeerClosed => "peer_closed",
            Self::Io(_) | Self::WriteStalled(_) => "io",
            Self::HandshakeTimeout(_) => "handshake_timeout",
            Self::PublishTimeout(_) => "publish_timeout",
            Self::Idle(_) => "idle",
            Self::Handshake(_) => "not_rtmp",
            Self::Chunk(_) | Self::Amf(_) => "violation",
            Self::Media(_) => "media_refused",
            Self::Player => "player",
            Self::Denied(_) => "denied",
            Self::Refused(_) => "refused",
            Self::TakenOver => "taken_over",
            Self::Drain => "drain",
        }
    }

    /// Whether an operator or a streamer can do something about it.
    pub fn is_rejection(&self) -> bool {
        matches!(self, Self::Media(_) | Self::Player | Self::Denied(_) | Self::Refused(_))
    }

    /// Every label, for a metric that shows its zeros.
    pub const OUTCOMES: [&'static str; 14] = [
        "unpublished",
        "peer_closed",
        "io",
        "handshake_timeout",
        "publish_timeout",
        "idle",
        "not_rtmp",
        "violation",
        "media_refused",
        "player",
        "denied",
        "refused",
        "taken_over",
        "drain",
    ];
}
