//! What a caller's Stream ID asks for: the access-control form (draft-sharabayko-srt-01, Appendix B), and the short
//! forms that encoders with one field for it can type.
//!
//! ```text
//! #!::r=NAME,m=publish,s=KEY      r, m and s in any order; r and m may be left out
//! publish:NAME:KEY
//! publish:KEY
//! KEY
//! ```
//!
//! Pure. No error repeats what was read: any of it may be a key.

use media_core::{StreamKey, StreamName};

const STANDARD: &str = "#!::";
/// The same as addresses write it: some programs decode it, ffmpeg and OBS hand it on.
const STANDARD_ESCAPED: &str = "%23!::";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where the publisher says it: it must be the one that the key opens.
    pub name: Option<StreamName>,
    pub key: StreamKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("the stream id is empty: it must be the stream key, publish:NAME:KEY, or #!::r=NAME,m=publish,s=KEY")]
    Empty,
    #[error("the stream id has no stream key: add s=KEY, as in #!::r=NAME,m=publish,s=KEY")]
    NoKey,
    #[error("the stream id cannot be read: write it as publish:NAME:KEY, or #!::r=NAME,m=publish,s=KEY")]
    Form,
    #[error("the stream id names no stream: a name has letters, digits, '-' or '_'")]
    Name,
    #[error("the stream id asks to watch, and SRT is for publishers here: viewers use the watch page")]
    Mode,
}

impl Asked {
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Wrong::Empty);
        }
        match text.strip_prefix(STANDARD).or_else(|| text.strip_prefix(STANDARD_ESCAPED)) {
            Some(pairs) => Self::standard(pairs),
            None => Self::short(text),
        }
    }

    /// Comma-separated `key=value`. `u` takes the name's place where `r` is missing: some encoders offer no other field.
    fn standard(pairs: &str) -> Result<Self, Wrong> {
        let (mut resource, mut user, mut key, mut mode) = (None, None, None, None);
        for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(Wrong::Form)?;
            match name.trim() {
                "r" => resource = Some(value.trim()),
                "u" => user = Some(value.trim()),
                "s" => key = Some(value.trim()),
                "m" => mode = Some(value.trim()),
                // Host, type and what is not standard.
                _ => (),
            }
        }
        match mode {
            None | Some("publish") => (),
            Some("request" | "bidirectional") => return Err(Wrong::Mode),
            Some(_) => return Err(Wrong::Form),
        }
        let name = resource.or(user).filter(|name| !name.is_empty());
        Self::new(name, key.unwrap_or_default())
    }

    fn short(text: &str) -> Result<Self, Wrong> {
        let parts: Vec<_> = text.splitn(4, ':').collect();
        match parts[..] {
            ["publish", name, key] => Self::new(Some(name), key),
            ["publish", key] | [key] => Self::new(None, key),
            ["read" | "request" | "play", ..] => Err(Wrong::Mode),
            _ => Err(Wrong::Form),
        }
    }

    fn new(name: Option<&str>, key: &str) -> Result<Self, Wrong> {
        if key.is_empty() {
            return Err(Wrong::NoKey);
        }
        // Some write the application before the name, as RTMP has it.
        let name = name.map(|name| name.strip_prefix("live/").unwrap_or(name));
        let name = name.map(StreamName::parse).transpose().map_err(|_| Wrong::Name)?;
        Ok(Self { name, key: StreamKey::new(key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_tells_name_and_key() {
        let check = |text: &str, name: Option<&str>, key: &str| {
            let asked = Asked::parse(text).unwrap();
            assert_eq!((asked.name.as_ref().map(StreamName::as_str), asked.key.expose()), (name, key), "{text}");
        };
        check("#!::r=demo,m=publish,s=secret-key", Some("demo"), "secret-key");
        check("%23!::r=demo,m=publish,s=secret-key", Some("demo"), "secret-key");
        check("#!::s=secret-key,r=live/demo", Some("demo"), "secret-key");
        check("#!::u=demo,s=secret-key", Some("demo"), "secret-key");
        check("#!::u=anna,r=demo,s=secret-key,h=a.example,t=stream,bmd_x=1", Some("demo"), "secret-key");
        check("#!::s=secret-key", None, "secret-key");
        check("publish:demo:secret-key", Some("demo"), "secret-key");
        check("publish:live/demo:secret-key", Some("demo"), "secret-key");
        check("publish:secret-key", None, "secret-key");
        check(" secret-key\n", None, "secret-key");
    }

    #[test]
    fn what_cannot_be_taken_is_told_without_repeating_it() {
        let check = |text: &str, expected: Wrong| {
            let wrong = Asked::parse(text).unwrap_err();
            assert_eq!(wrong, expected, "{text}");
            assert!(!wrong.to_string().contains("secret"), "{wrong}");
        };
        check("", Wrong::Empty);
        check("  ", Wrong::Empty);
        check("#!::r=demo,m=publish", Wrong::NoKey);
        check("#!::", Wrong::NoKey);
        check("publish:demo:", Wrong::NoKey);
        check("#!::r=demo,m=request,s=secret", Wrong::Mode);
        check("#!::r=demo,m=bidirectional,s=secret", Wrong::Mode);
        check("read:demo", Wrong::Mode);
        check("#!::r=demo,m=steal,s=secret", Wrong::Form);
        check("#!::secret", Wrong::Form);
        check("a:b", Wrong::Form);
        check("publish:demo:secret:more", Wrong::Form);
        check("publish:de mo:secret", Wrong::Name);
        check("#!::r=../demo,s=secret", Wrong::Name);
    }
}
