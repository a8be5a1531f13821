//! What a WHIP endpoint answers: why an offer or a request about a session is refused, in words and as
//! an HTTP status, and the headers that go with it.

use std::{borrow::Cow, time::Duration};

use media_core::registry;
use transport::{
    AcceptError,
    resource::{FRAGMENT, IceServer, PatchError, Reach, SDP},
    sdp,
};

#[derive(Clone, Debug)]
pub struct Config {
    /// STUN and TURN servers that publishers are told of.
    pub ice_servers: Vec<IceServer>,
    pub reach: Reach,
    /// A keyframe is asked for where none came by itself.
    pub keyframe_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { ice_servers: Vec::new(), reach: Reach::default(), keyframe_interval: Duration::from_secs(2) }
    }
}

/// Why a request is not granted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    #[error("there is no such WHIP endpoint: its address is /whip/ and a stream's name")]
    NoEndpoint,
    #[error("there is no such session: it has ended, or its address is wrong")]
    NoSession,
    #[error("this address takes {0} alone")]
    Method(&'static str),
    #[error("the body must be {SDP}")]
    Type,
    #[error("the body has more than {} bytes", sdp::BYTES_MAX)]
    TooLong,
    #[error("the body did not come in time")]
    SlowBody,
    #[error("a stream key is needed: send it as \"Authorization: Bearer KEY\" (in OBS: the Bearer Token)")]
    NoKey,
    #[error("{0}")]
    Offer(sdp::Refusal),
    #[error("{0}")]
    Denied(Cow<'static, str>),
    #[error("this stream key belongs to another stream: check the address, it ends in the stream's name")]
    OtherStream,
    #[error("this key is not the session's")]
    OtherKey,
    #[error("whoever knows the stream keys did not answer in time: try again")]
    AdmissionTimeout,
    #[error("{0}")]
    Registry(registry::Refusal),
    #[error("{0}")]
    Engine(AcceptError),
    #[error("{0}")]
    Patch(PatchError),
}

impl Rejection {
    pub fn status(&self) -> u16 {
        match self {
            Self::NoEndpoint | Self::NoSession => 404,
            Self::Method(_) => 405,
            Self::Type => 415,
            Self::TooLong => 413,
            Self::SlowBody => 408,
            Self::NoKey => 401,
            Self::Offer(refusal) => refusal.status(),
            Self::Denied(_) | Self::OtherStream | Self::OtherKey => 403,
            Self::AdmissionTimeout => 504,
            Self::Registry(refusal) => match refusal {
                registry::Refusal::LiveEncoder | registry::Refusal::OtherKey => 409,
                registry::Refusal::TooManyStreams | registry::Refusal::Draining => 503,
            },
            Self::Engine(AcceptError::Full | AcceptError::Stopped) => 503,
            Self::Engine(AcceptError::Dtls(_)) => 500,
            Self::Patch(error) => error.status(),
        }
    }

    /// Seconds, where trying again helps.
    pub fn retry_after(&self) -> Option<&'static str> {
        matches!(self.status(), 503 | 504).then_some("2")
    }

    /// What goes with the status.
    pub fn header(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Method(allowed) => Some(("allow", allowed)),
            Self::NoKey => Some(("www-authenticate", "Bearer")),
            Self::Type => Some(("accept-post", SDP)),
            Self::Patch(PatchError::Type) => Some(("accept-patch", FRAGMENT)),
            _ => None,
        }
    }

    /// Whether an operator or a streamer can do something about it.
    pub fn is_told(&self) -> bool {
        let of_the_request =
            matches!(self, Self::NoEndpoint | Self::NoSession | Self::Method(_) | Self::Type | Self::TooLong | Self::SlowBody);
        !of_the_request && !matches!(self, Self::Patch(_))
    }

    pub fn label(&self) -> &'static str {
        match self {
            Self::NoEndpoint | Self::NoSession | Self::Method(_) | Self::Type | Self::TooLong | Self::SlowBody => "bad_request",
            Self::Patch(_) => "bad_patch",
            Self::Offer(refusal) if refusal.status() == 400 => "bad_offer",
            Self::Offer(_) => "media_refused",
            Self::NoKey | Self::Denied(_) | Self::OtherStream | Self::OtherKey => "denied",
            Self::AdmissionTimeout => "admission_timeout",
            Self::Registry(registry::Refusal::Draining) | Self::Engine(AcceptError::Stopped) => "draining",
            Self::Registry(_) => "refused",
            Self::Engine(AcceptError::Full) => "full",
            Self::Engine(AcceptError::Dtls(_)) => "dtls",
        }
    }

    pub const LABELS: [&'static str; 10] = [
        "bad_request",
        "bad_patch",
        "bad_offer",
        "media_refused",
        "denied",
        "admission_timeout",
        "draining",
        "refused",
        "full",
        "dtls",
    ];
}

/// Longest name of a program that is kept: browsers need most of it.
const ENCODER_CHARS_MAX: usize = 160;

/// The publisher's program, as its User-Agent names it.
pub(super) fn encoder(user_agent: Option<&str>) -> Option<String> {
    let name: String = user_agent?.chars().filter(|char| !char.is_control()).take(ENCODER_CHARS_MAX).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_has_its_status_and_a_known_label() {
        let check = |rejection: Rejection, status: u16, header: Option<&str>| {
            assert_eq!((rejection.status(), rejection.header().map(|(name, _)| name)), (status, header), "{rejection}");
            assert!(Rejection::LABELS.contains(&rejection.label()), "{rejection}");
            assert_eq!(rejection.retry_after().is_some(), matches!(status, 503 | 504), "{rejection}");
        };
        check(Rejection::NoEndpoint, 404, None);
        check(Rejection::NoSession, 404, None);
        check(Rejection::Method("POST"), 405, Some("allow"));
        check(Rejection::Type, 415, Some("accept-post"));
        check(Rejection::TooLong, 413, None);
        check(Rejection::SlowBody, 408, None);
        check(Rejection::NoKey, 401, Some("www-authenticate"));
        check(Rejection::Offer(sdp::Refusal::NotText), 400, None);
        check(Rejection::Offer(sdp::Refusal::NoMedia), 422, None);
        check(Rejection::Denied("no".into()), 403, None);
        check(Rejection::OtherStream, 403, None);
        check(Rejection::OtherKey, 403, None);
        check(Rejection::AdmissionTimeout, 504, None);
        check(Rejection::Registry(registry::Refusal::LiveEncoder), 409, None);
        check(Rejection::Registry(registry::Refusal::OtherKey), 409, None);
        check(Rejection::Registry(registry::Refusal::TooManyStreams), 503, None);
        check(Rejection::Registry(registry::Refusal::Draining), 503, None);
        check(Rejection::Engine(AcceptError::Full), 503, None);
        check(Rejection::Engine(AcceptError::Stopped), 503, None);
        check(Rejection::Engine(AcceptError::Dtls("x".into())), 500, None);
        check(Rejection::Patch(PatchError::Type), 415, Some("accept-patch"));
        check(Rejection::Patch(PatchError::NoPrecondition), 428, None);
    }

    #[test]
    fn a_program_names_itself_within_bounds() {
        assert_eq!(encoder(Some(" Mozilla/5.0 (OBS-Studio/31.0)\t")), Some("Mozilla/5.0 (OBS-Studio/31.0)".into()));
        assert_eq!(encoder(Some(&"x".repeat(9999))).map(|name| name.len()), Some(ENCODER_CHARS_MAX));
        assert_eq!((encoder(Some("  ")), encoder(None)), (None, None));
    }
}
