//! As much of a playlist as a viewer at the live edge reads. Pure, and no code of the packager's:
//! the load tool must not share the server's mistakes.

use crate::http::resolve;

/// The first variant, and the first audio rendition if there is one.
pub fn tracks(multivariant: &str, base: &str) -> Vec<String> {
    let audio = multivariant.lines().find(|line| line.starts_with("#EXT-X-MEDIA:") && line.contains("TYPE=AUDIO"));
    let variant = multivariant.lines().find(|line| !line.starts_with('#') && !line.is_empty());
    let audio = audio.and_then(|line| attribute(line, "URI"));
    variant.into_iter().chain(audio).map(|uri| resolve(base, uri)).collect()
}

#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub msn: u64,
    /// Its index in the segment.
    pub index: u64,
    pub uri: String,
    pub seconds: f64,
    pub independent: bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Media {
    /// Listed, oldest first.
    pub parts: Vec<Part>,
    /// What a blocking reload asks for next: segment, part.
    pub next: (u64, u64),
    /// Length of each segment that is listed whole, by number.
    pub segments: Vec<(u64, f64)>,
    pub ended: bool,
    pub can_skip: bool,
    /// Segments that a delta update left out.
    pub skipped: u64,
}

/// A full playlist or a delta update.
pub fn media(text: &str) -> Media {
    let mut out = Media::default();
    let (mut msn, mut index, mut seconds) = (0, 0, 0.0);
    for line in text.lines() {
        if let Some(n) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            msn = n.trim().parse().unwrap_or(0);
        } else if line.starts_with("#EXT-X-SKIP:") {
            out.skipped = number(line, "SKIPPED-SEGMENTS").unwrap_or(0);
            msn += out.skipped;
        } else if line.starts_with("#EXT-X-SERVER-CONTROL:") {
            out.can_skip = attribute(line, "CAN-SKIP-UNTIL").is_some();
        } else if line.starts_with("#EXT-X-PART:") {
            let uri = attribute(line, "URI").unwrap_or_default().to_owned();
            let independent = attribute(line, "INDEPENDENT") == Some("YES");
            out.parts.push(Part { msn, index, uri, seconds: number(line, "DURATION").unwrap_or(0.0), independent });
            index += 1;
        } else if let Some(n) = line.strip_prefix("#EXTINF:") {
            seconds = n.split(',').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
        } else if line.starts_with("#EXT-X-ENDLIST") {
            out.ended = true;
        } else if !line.starts_with('#') && !line.is_empty() {
            out.segments.push((msn, seconds));
            (msn, index) = (msn + 1, 0);
        }
    }
    out.next = (msn, index);
    out
}

fn number<T: std::str::FromStr>(line: &str, name: &str) -> Option<T> {
    attribute(line, name)?.parse().ok()
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, list) = line.split_once(':')?;
    let mut rest = list;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if key == name {
            return Some(value);
        }
        rest = next.strip_prefix(',').unwrap_or(next);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "#EXTM3U\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6,CAN-SKIP-UNTIL=12\n\
        #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-PART:DURATION=0.2,URI=\"a,b.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.1,URI=\"c.m4s\"\n\
        #EXTINF:0.3,\nseg7.m4s\n#EXT-X-PART:DURATION=0.2,URI=\"d.m4s\",INDEPENDENT=YES\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"e.m4s\"\n";

    #[test]
    fn parts_and_what_comes_next() {
        let list = media(FULL);
        let parts: Vec<_> = list.parts.iter().map(|p| (p.msn, p.index, p.uri.as_str(), p.independent)).collect();
        assert_eq!(parts, [(7, 0, "a,b.m4s", true), (7, 1, "c.m4s", false), (8, 0, "d.m4s", true)]);
        assert_eq!((list.next, list.segments, list.can_skip), ((8, 1), vec![(7, 0.3)], true));
    }

    #[test]
    fn a_delta_counts_what_it_skips() {
        let list = media("#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:2,\nseg10.m4s\n");
        assert_eq!((list.next, list.segments, list.skipped), ((11, 0), vec![(10, 2.0)], 3));
    }

    #[test]
    fn tracks_of_a_multivariant_playlist() {
        let text = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"audio.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\nvideo.m3u8\n";
        assert_eq!(tracks(text, "/live/demo/index.m3u8"), ["/live/demo/video.m3u8", "/live/demo/audio.m3u8"]);
    }
}
