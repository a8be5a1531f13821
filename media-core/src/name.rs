//! Who a stream is to its viewers, and what proves the right to publish it.

use std::fmt;

/// The public name of a stream: in addresses, logs and metrics.
///
/// 1 to 64 of `A-Z a-z 0-9 _ -`, so that it needs no escaping anywhere.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(std::sync::Arc<str>);

/// Longest name: it is in every address and label.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a stream name has 1 to {NAME_BYTES_MAX} letters, digits, '-' or '_': {0:?} has not")]
pub struct NameError(String);

impl StreamName {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits { Ok(Self(text.into())) } else { Err(NameError(text.chars().take(80).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A publisher's secret. It is never a stream's name, and never printed.
#[derive(Clone)]
pub struct StreamKey(std::sync::Arc<str>);

impl StreamKey {
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }

    /// For comparing and for showing it to its owner; never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for StreamKey {
    /// Takes the same time wherever the first difference is.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
    }
}
impl Eq for StreamKey {}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKey(..)")
    }
}

/// What SRT encrypts with: shared by a server and its publishers, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(std::sync::Arc<str>);

/// SRT takes no other lengths (draft-sharabayko-srt-01, 6.1.4).
const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 10..=79;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("has {0} characters, and must have {min} to {max}: SRT takes no other passphrase", min = PASSPHRASE_BYTES.start(), max = PASSPHRASE_BYTES.end())]
pub struct PassphraseError(usize);

impl Passphrase {
    pub fn parse(text: &str) -> Result<Self, PassphraseError> {
        if PASSPHRASE_BYTES.contains(&text.len()) { Ok(Self(text.into())) } else { Err(PassphraseError(text.len())) }
    }

    /// For whoever encrypts; never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_escaping() {
        for good in ["demo", "A-1_b", &"x".repeat(64)] {
            assert!(StreamName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a.m3u8", &"x".repeat(65)] {
            assert!(StreamName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", StreamKey::new("hunter2")), "StreamKey(..)");
        assert_eq!(format!("{:?}", Passphrase::parse("0123456789")), "Ok(Passphrase(..))");
        assert_eq!(Passphrase::parse("012345678"), Err(PassphraseError(9)));
        assert_eq!(Passphrase::parse(&"x".repeat(80)), Err(PassphraseError(80)));
    }
}
