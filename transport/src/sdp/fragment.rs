//! `application/trickle-ice-sdpfrag` (RFC 8840 9), the body of a WHIP or WHEP PATCH: trickled candidates or an ICE restart.
//!
//! The answer to a restart is rendered by `Negotiated::fragment`.

use super::offer::check_text;
use super::refusal::Refusal;
use super::transport::IceCredentials;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// Different from the session's: an ICE restart is asked for.
    pub ice: Option<IceCredentials>,
    pub mids: Vec<String>,
    /// How many there were: a lite agent has no use for them.
    pub candidates: usize,
    pub end_of_candidates: bool,
}

impl Fragment {
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fragment = Self::default();
        let (mut ufrag, mut pwd) = (None, None);
        for line in check_text(body)?.lines() {
            let Some(attribute) = line.trim_end().strip_prefix("a=") else { continue };
            match attribute.split_once(':').unwrap_or((attribute, "")) {
                // With BUNDLE all m-lines say the same; the first counts.
                ("ice-ufrag", value) => _ = ufrag.get_or_insert(value),
                ("ice-pwd", value) => _ = pwd.get_or_insert(value),
                ("mid", value) => fragment.mids.push(value.to_owned()),
                ("candidate", _) => fragment.candidates += 1,
                ("end-of-candidates", _) => fragment.end_of_candidates = true,
                _ => {}
            }
        }
        fragment.ice = match (ufrag, pwd) {
            (Some(ufrag), Some(pwd)) => Some(IceCredentials::new(ufrag, pwd)?),
            (None, None) => None,
            (Some(_), None) => return Err(Refusal::BadIcePwd),
            (None, Some(_)) => return Err(Refusal::BadIceUfrag),
        };
        Ok(fragment)
    }
}
