//! What a player asks for: the query of a playlist and the name of a file.

use super::{
    metrics::Asked,
    playlist::{Edge, Lookup, Position},
};

/// The delivery directives (rfc8216bis 6.2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub position: Option<Position>,
    pub skip: bool,
}

impl Directives {
    pub fn parse(query: &str) -> Result<Self, &'static str> {
        let (mut msn, mut part, mut skip) = (None, None, false);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => msn = Some(value.parse().map_err(|_| "_HLS_msn is no media sequence number")?),
                "_HLS_part" => part = Some(value.parse().map_err(|_| "_HLS_part is no part index")?),
                "_HLS_skip" => skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        match (msn, part) {
            (None, Some(_)) => Err("_HLS_part needs _HLS_msn"),
            (msn, part) => Ok(Self { position: msn.map(|msn| Position { msn, part }), skip }),
        }
    }
}

/// `part-7.m4s` and its like: what it is, and its number.
pub fn parse_file(file: &str) -> Option<(Asked, u64)> {
    let (kind, rest) = file.split_once('-')?;
    let (number, extension) = rest.split_once('.')?;
    let asked = match (kind, extension) {
        ("part", "m4s") => Asked::Part,
        ("segment", "m4s") => Asked::Segment,
        ("init", "mp4") => Asked::Init,
        _ => return None,
    };
    Some((asked, number.parse().ok()?))
}

/// The body of the fuzz target: five bytes are a playlist's edge, small so that a query is often near it, the rest is a query.
/// Whatever is asked, it is answered, waited for or refused, and an answer stays one.
pub fn fuzz(data: &[u8]) {
    let Some((&[open_msn, open_parts, closed_parts, advance, ended], query)) = data.split_first_chunk() else { return };
    let few = |number: u8| u32::from(number % 16);
    let edge = Edge {
        open_msn: open_msn.into(),
        open_parts: few(open_parts),
        closed_parts: few(closed_parts),
        advance_parts_max: few(advance).max(1),
        ended: ended == 1,
    };
    let query = String::from_utf8_lossy(query);
    _ = parse_file(&query);
    let Ok(Directives { position: Some(asked), .. }) = Directives::parse(&query) else { return };
    let later = Edge { open_msn: edge.open_msn + 1, closed_parts: edge.open_parts, open_parts: 0, ..edge };
    match edge.lookup(asked) {
        Lookup::Ready => assert_eq!(later.lookup(asked), Lookup::Ready, "{edge:?} has it, and the next has not"),
        Lookup::Pending => assert_ne!(later.lookup(asked), Lookup::TooFar, "{edge:?} lets wait for it, and the next does not"),
        Lookup::TooFar => assert!(!edge.ended, "nothing is waited for at an end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_or_refused() {
        let at = |msn, part| Some(Position { msn, part });
        let check = |query, position, skip| assert_eq!(Directives::parse(query), Ok(Directives { position, skip }), "{query}");
        check("", None, false);
        check("_HLS_msn=7", at(7, None), false);
        check("a=b&_HLS_msn=7&_HLS_part=0&_HLS_skip=YES", at(7, Some(0)), true);
        check("_HLS_skip=v2", None, true);
        for bad in
            ["_HLS_msn=x", "_HLS_msn=-1", "_HLS_msn=", "_HLS_part=0", "_HLS_msn=1&_HLS_part=x", "_HLS_msn=99999999999999999999"]
        {
            assert!(Directives::parse(bad).is_err(), "{bad}");
        }
    }
}
