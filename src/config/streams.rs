//! The `[[stream]]` entries: which key may publish which stream.
//!
//! No error here repeats a key, not even a wrong one.

use media_core::{Ladder, StreamKey, StreamName};

use super::{error::Error, layers::RawStream};

/// Shortest key: 16 of 64 characters are 96 bits, beyond guessing over a network.
const KEY_BYTES_MIN: usize = 16;
/// Longest key: encoders have a text field for it.
const KEY_BYTES_MAX: usize = 128;

/// A key, and the stream that its bearer may publish.
#[derive(Clone, Debug)]
pub struct Credential {
    pub stream: StreamName,
    pub key: StreamKey,
    /// In place of the one for all.
    pub ladder: Option<Ladder>,
}

pub fn credentials(raw: &[RawStream]) -> Result<Vec<Credential>, Error> {
    let mut accepted: Vec<Credential> = Vec::with_capacity(raw.len());
    for entry in raw {
        let wrong = |key: &str, problem: String| Error::Value { key: key.to_owned(), place: entry.place.clone(), problem };
        let stream = StreamName::parse(&entry.name).map_err(|e| wrong("stream.name", format!("is wrong: {e}")))?;
        check_key(&entry.key).map_err(|problem| wrong("stream.key", format!("of `{stream}` {problem}")))?;
        let key = StreamKey::new(&entry.key);
        if let Some(other) = accepted.iter().find(|other| other.key == key) {
            return Err(wrong(
                "stream.key",
                format!("of `{stream}` is the key of `{}` too: a key opens one stream", other.stream),
            ));
        }
        if accepted.iter().any(|other| other.stream == stream) {
            return Err(wrong("stream.name", format!("`{stream}` is there twice: a stream has one key")));
        }
        let ladder = entry.ladder.as_deref().map(Ladder::parse).transpose();
        let ladder = ladder.map_err(|problem| wrong("stream.ladder", format!("of `{stream}` {problem}")))?;
        accepted.push(Credential { stream, key, ladder });
    }
    let named = |key: &StreamKey| accepted.iter().any(|other| other.stream.as_str() == key.expose());
    match accepted.iter().zip(raw).find(|(credential, _)| named(&credential.key)) {
        None => Ok(accepted),
        Some((credential, entry)) => Err(Error::Value {
            key: "stream.key".to_owned(),
            place: entry.place.clone(),
            problem: format!("of `{}` is the name of a stream: names are public, so everybody could publish", credential.stream),
        }),
    }
}

/// What is wrong with a key, if anything.
pub fn check_key(key: &str) -> Result<(), String> {
    if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
        return Err(format!("has {} characters, and must have {KEY_BYTES_MIN} to {KEY_BYTES_MAX}", key.len()));
    }
    // Encoders append the key to an address, some with and some without escaping.
    if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        Ok(())
    } else {
        Err("may only have letters, digits, '-' and '_': they need no escaping in any encoder".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::Place;

    fn outcome(entries: &[(&str, &str)]) -> Result<usize, String> {
        let raw: Vec<_> = entries
            .iter()
            .map(|(name, key)| RawStream {
                name: (*name).to_owned(),
                key: (*key).to_owned(),
                ladder: None,
                place: Place::Flag("a test"),
            })
            .collect();
        credentials(&raw).map(|c| c.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn names_are_public_and_keys_are_secrets() {
        let (one, two) = ("first-secret-0123", "second-secret-012");
        let refused = |entries: &[(&str, &str)], part: &str| {
            let error = outcome(entries).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("secret"), "a key was told: {error}");
        };
        assert_eq!(outcome(&[]), Ok(0));
        assert_eq!(outcome(&[("a", one), ("b", two)]), Ok(2));
        refused(&[("a", one), ("a", two)], "`a` is there twice");
        refused(&[("a", one), ("b", one)], "is the key of `a` too");
        refused(&[("a b", one)], "a stream name has 1 to 64");
        refused(&[("a", "short-secret")], "has 12 characters, and must have 16 to 128");
        refused(&[("a", "secret with spaces")], "may only have letters");
    }

    #[test]
    fn a_key_that_is_a_name_is_no_secret() {
        let error = outcome(&[("a", "the-public-name-of-b"), ("the-public-name-of-b", "something-else-0123")]).unwrap_err();
        assert!(error.contains("of `a` is the name of a stream"), "{error}");
    }
}
