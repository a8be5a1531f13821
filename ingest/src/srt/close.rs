//! Why a publisher by SRT was refused or ended: the words for the log, the label for the metric, and the code for the
//! caller, in one place.

use std::borrow::Cow;

use media_core::registry::{Refusal, Stop};

use super::{packet::Unreadable, stream_id::Wrong};

/// Each variant ends one session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The orderly end.
    #[error("the publisher stopped")]
    Stopped,
    #[error("nothing came from the publisher any more")]
    Silent,
    #[error("the publisher began anew from the same address")]
    Restarted,
    #[error("it was admitted and did not connect")]
    NeverConnected,
    #[error("no audio or video within {0} s: it must send MPEG-TS with H.264 or HEVC, AAC or Opus")]
    NoMedia(u64),
    /// The codec, or its parameters, in words for the streamer.
    #[error("{0}")]
    Media(String),
    #[error("its handshake cannot be taken: {0}")]
    Handshake(#[from] Unreadable),
    #[error("{0}")]
    StreamId(#[from] Wrong),
    /// What admission said.
    #[error("not admitted: {0}")]
    Denied(Cow<'static, str>),
    #[error("not admitted: this stream key is of another stream than the stream id names")]
    OtherName,
    #[error("{0}")]
    Refused(Refusal),
    #[error("too many publishers at once (srt.connections_max, srt.pending_max, srt.pending_per_address_max)")]
    OverLimit,
    #[error("it does not encrypt, and this server takes encrypted SRT alone: set the passphrase")]
    Unencrypted,
    #[error("it encrypts, and this server has no passphrase (srt.passphrase)")]
    NoPassphrase,
    #[error("it has another passphrase than this server")]
    WrongPassphrase,
    /// The receiver refused it, with this code of SRT's.
    #[error("SRT refused it with code {0}")]
    Rejected(u32),
    #[error("SRT cannot be received: {0}")]
    Unavailable(String),
    #[error("the receiving program has died: {0}")]
    Died(String),
    #[error("a publisher with the same key took the stream over")]
    TakenOver,
    #[error("the server is shutting down")]
    Drain,
}

// Table 7 of draft-sharabayko-srt-01, and SRT's access-control guidelines, which take HTTP's numbers.
const SRT_UNKNOWN: u32 = 0;
const SRT_VERSION: u32 = 8;
const SRT_ROGUE: u32 = 4;
pub const SRT_BAD_SECRET: u32 = 10;
const SRT_UNSECURE: u32 = 11;
const BAD_REQUEST: u32 = 1400;
const UNAUTHORIZED: u32 = 1401;
const OVERLOAD: u32 = 1402;
const FORBIDDEN: u32 = 1403;
const BAD_MODE: u32 = 1405;
const CONFLICT: u32 = 1409;
const UNAVAILABLE: u32 = 1503;

impl CloseReason {
    /// The receiver's refusal in words.
    pub fn of_receiver(code: u32) -> Self {
        match code {
            SRT_BAD_SECRET => Self::WrongPassphrase,
            SRT_UNSECURE => Self::Unencrypted,
            code => Self::Rejected(code),
        }
    }

    /// What a caller that is not connected yet is refused with.
    pub fn code(&self) -> u32 {
        match self {
            Self::Handshake(Unreadable::Version(_)) => SRT_VERSION,
            Self::Handshake(Unreadable::Extensions) => SRT_ROGUE,
            Self::Handshake(Unreadable::StreamId) => BAD_REQUEST,
            Self::StreamId(Wrong::Mode) => BAD_MODE,
            Self::StreamId(_) => BAD_REQUEST,
            Self::Denied(_) => UNAUTHORIZED,
            Self::OtherName => FORBIDDEN,
            Self::Refused(Refusal::LiveEncoder | Refusal::OtherKey) => CONFLICT,
            Self::Refused(Refusal::TooManyStreams) | Self::OverLimit => OVERLOAD,
            Self::Refused(Refusal::Draining) | Self::Drain | Self::Unavailable(_) | Self::Died(_) => UNAVAILABLE,
            Self::WrongPassphrase => SRT_BAD_SECRET,
            Self::Unencrypted | Self::NoPassphrase => SRT_UNSECURE,
            Self::Rejected(code) => *code,
            Self::TakenOver => CONFLICT,
            Self::Stopped | Self::Silent | Self::Restarted | Self::NeverConnected | Self::NoMedia(_) | Self::Media(_) => {
                SRT_UNKNOWN
            }
        }
    }

    /// The metric's label: a fixed set.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Silent => "silent",
            Self::Restarted => "restarted",
            Self::NeverConnected => "never_connected",
            Self::NoMedia(_) => "no_media",
            Self::Media(_) => "media_refused",
            Self::Handshake(_) => "handshake",
            Self::StreamId(_) => "stream_id",
            Self::Denied(_) | Self::OtherName => "denied",
            Self::Refused(_) => "refused",
            Self::OverLimit => "over_limit",
            Self::Unencrypted | Self::NoPassphrase | Self::WrongPassphrase => "passphrase",
            Self::Rejected(_) => "rejected",
            Self::Unavailable(_) => "unavailable",
            Self::Died(_) => "receiver_died",
            Self::TakenOver => "taken_over",
            Self::Drain => "drain",
        }
    }

    /// Every label, for a metric that shows its zeros.
    pub const OUTCOMES: [&'static str; 17] = [
        "stopped",
        "silent",
        "restarted",
        "never_connected",
        "no_media",
        "media_refused",
        "handshake",
        "stream_id",
        "denied",
        "refused",
        "over_limit",
        "passphrase",
        "rejected",
        "unavailable",
        "receiver_died",
        "taken_over",
        "drain",
    ];
}

impl From<Stop> for CloseReason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TakenOver => Self::TakenOver,
            Stop::Drain => Self::Drain,
        }
    }
}
