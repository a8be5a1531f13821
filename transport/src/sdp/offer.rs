//! The text of an offer, read into an [`Offer`].
//!
//! Limits come first, then `rtc-sdp` reads the lines, then each m-line is read by `media`.

use std::io::Cursor;

use rtc_sdp::description::session::SessionDescription;

use super::media::{Attributes, OfferedMedia};
use super::refusal::{Refusal, excerpt};

/// Chromium's longest offer, with every codec both ways, has about 12 KiB.
pub const BYTES_MAX: usize = 64 << 10;
/// Chromium's offers have about 300 lines.
pub(super) const LINES_MAX: usize = 4096;
/// An endpoint takes one audio and one video; screen, camera and data channels beside them are few.
pub(super) const MEDIA_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub media: Vec<OfferedMedia>,
    /// The offerer makes no ICE checks.
    pub ice_lite: bool,
    /// The mids of each `a=group:BUNDLE`, the tagged one first (RFC 9143 7.2).
    pub bundles: Vec<Vec<String>>,
}

impl Offer {
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let text = check_text(body)?;
        let description =
            SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes())).map_err(|error| malformed(&error.to_string()))?;
        let session = Attributes { all: &description.attributes };
        let (transport, direction) = (session.transport()?, session.direction());
        let sections = description.media_descriptions.iter();
        let media: Vec<_> =
            sections.map(|section| OfferedMedia::parse(section, &transport, direction)).collect::<Result<_, _>>()?;
        if media.is_empty() {
            return Err(Refusal::NoMediaLine);
        }
        check_mids(&media)?;
        Ok(Self { media, ice_lite: session.has("ice-lite"), bundles: session.values("group").filter_map(parse_bundle).collect() })
    }

    /// The BUNDLE group that `mid` belongs to.
    pub(super) fn bundle_of(&self, mid: Option<&str>) -> Option<&[String]> {
        let mid = mid?;
        self.bundles.iter().find(|mids| mids.iter().any(|it| it == mid)).map(Vec::as_slice)
    }
}

/// Bounds the work of all that follows. A lone carriage return or another control character would
/// be a line's end to some readers of our answer, so none may be echoed.
pub(super) fn check_text(body: &[u8]) -> Result<&str, Refusal> {
    if body.len() > BYTES_MAX {
        return Err(Refusal::TooLong(body.len()));
    }
    let text = std::str::from_utf8(body).map_err(|_| Refusal::NotText)?;
    let mut media_lines = 0;
    for (index, line) in text.split('\n').enumerate() {
        if index == LINES_MAX {
            return Err(Refusal::TooManyLines);
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.chars().any(|char| char.is_control() && char != '\t') {
            return Err(Refusal::ControlCharacter(index + 1));
        }
        media_lines += usize::from(line.starts_with("m="));
        if media_lines > MEDIA_MAX {
            return Err(Refusal::TooManyMedia);
        }
    }
    Ok(text)
}

/// The reader's words without the name of its error, which tells an encoder's user nothing.
fn malformed(error: &str) -> Refusal {
    match error.strip_prefix("SdpInvalidSyntax: ").unwrap_or(error).trim() {
        "" => Refusal::Malformed("it is empty or ends early".to_owned()),
        text => Refusal::Malformed(excerpt(text)),
    }
}

fn check_mids(media: &[OfferedMedia]) -> Result<(), Refusal> {
    for (index, section) in media.iter().enumerate() {
        if let Some(mid) = &section.mid
            && media[..index].iter().any(|other| other.mid.as_ref() == Some(mid))
        {
            return Err(Refusal::DuplicateMid(excerpt(mid)));
        }
    }
    Ok(())
}

/// More mids than there can be m-lines name nothing.
fn parse_bundle(group: &str) -> Option<Vec<String>> {
    let mids = group.strip_prefix("BUNDLE")?;
    Some(mids.split_ascii_whitespace().take(MEDIA_MAX).map(str::to_owned).collect())
}
