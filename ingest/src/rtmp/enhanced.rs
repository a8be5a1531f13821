//! The headers of enhanced RTMP (veovera v2), which are the same for video and audio: extensions, tracks, FourCC.
//!
//! ```text
//! [ModEx]* [multitrack form and packet type] [FourCC] ([FourCC] [track] [size] body)*
//! ```
//!
//! Pure and bounded. Where a length lies, what was whole before it still counts.

use bytes::{Buf, Bytes};

/// Bodies taken out of one message: more than a stream has tracks. More of them are a peer's way to turn few bytes into
/// much work.
const BODIES_MAX: usize = 16;
/// Extensions of one message: one is defined.
const MOD_EX_MAX: usize = 8;
const MOD_EX_NANOS: u8 = 0;
/// A millisecond begins anew (veovera v2, TimestampOffsetNano).
const NANOS_MAX: u32 = 999_999;

/// AudioPacketType.ModEx and VideoPacketType.ModEx.
const MOD_EX: u8 = 7;

pub type FourCc = [u8; 4];

/// What stands before the bodies.
#[derive(Debug)]
pub struct Header {
    /// To be added to the message's time.
    pub nanos: u32,
    /// The medium's packet type, the same for all tracks.
    pub packet: u8,
    pub bodies: Bodies,
}

/// What the message holds of one track.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    pub track: u8,
    pub fourcc: FourCc,
    pub payload: Bytes,
}

/// A length or a form that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads on behind the first byte, whose packet type is `packet`; `multitrack` is the medium's for "several tracks".
pub fn read(payload: &Bytes, packet: u8, multitrack: u8) -> Result<Header, Malformed> {
    let mut rest = payload.slice(payload.len().min(1)..);
    let (nanos, packet) = extensions(&mut rest, packet).ok_or(Malformed)?;
    if packet != multitrack {
        let form = Form::Single(fourcc(&mut rest).ok_or(Malformed)?);
        return Ok(Header { nanos, packet, bodies: Bodies::new(form, rest) });
    }
    let (form, packet) = form(&mut rest).ok_or(Malformed)?;
    // Neither nests.
    if packet == multitrack || packet == MOD_EX {
        return Err(Malformed);
    }
    Ok(Header { nanos, packet, bodies: Bodies::new(form, rest) })
}

/// The extensions and the packet type behind them. Unknown ones are skipped, as they are made for.
fn extensions(rest: &mut Bytes, first: u8) -> Option<(u32, u8)> {
    let (mut nanos, mut packet) = (0, first);
    for _ in 0..MOD_EX_MAX {
        if packet != MOD_EX {
            return Some((nanos, packet));
        }
        let mut size = usize::from(rest.try_get_u8().ok()?) + 1;
        if size == 256 {
            size = usize::from(rest.try_get_u16().ok()?) + 1;
        }
        let data = split(rest, size)?;
        let kinds = rest.try_get_u8().ok()?;
        packet = kinds & 0x0f;
        if let (MOD_EX_NANOS, Some(&[a, b, c])) = (kinds >> 4, data.first_chunk()) {
            nanos = u32::from_be_bytes([0, a, b, c]).min(NANOS_MAX);
        }
    }
    None
}

fn form(rest: &mut Bytes) -> Option<(Form, u8)> {
    let byte = rest.try_get_u8().ok()?;
    let form = match byte >> 4 {
        0 => Form::OneTrack(fourcc(rest)?),
        1 => Form::ManyTracks(fourcc(rest)?),
        2 => Form::ManyTracksManyCodecs,
        _ => return None,
    };
    Some((form, byte & 0x0f))
}

fn fourcc(rest: &mut Bytes) -> Option<FourCc> {
    rest.try_get_u32().ok().map(u32::to_be_bytes)
}

fn split(rest: &mut Bytes, size: usize) -> Option<Bytes> {
    (size <= rest.len()).then(|| rest.split_to(size))
}

/// AvMultitrackType, and the form without it.
#[derive(Clone, Copy, Debug)]
enum Form {
    Single(FourCc),
    OneTrack(FourCc),
    ManyTracks(FourCc),
    ManyTracksManyCodecs,
}

/// The bodies of one message, in its order. It ends with the first that is malformed.
#[derive(Debug)]
pub struct Bodies {
    form: Form,
    rest: Bytes,
    /// How many may follow.
    left: usize,
}

impl Bodies {
    fn new(form: Form, rest: Bytes) -> Self {
        Self { form, rest, left: BODIES_MAX }
    }

    fn take(&mut self) -> Option<Body> {
        let rest = &mut self.rest;
        Some(match self.form {
            Form::Single(fourcc) => Body { track: 0, fourcc, payload: std::mem::take(rest) },
            Form::OneTrack(fourcc) => Body { track: rest.try_get_u8().ok()?, fourcc, payload: std::mem::take(rest) },
            Form::ManyTracks(fourcc) => sized(rest, fourcc)?,
            Form::ManyTracksManyCodecs => {
                let fourcc = fourcc(rest)?;
                sized(rest, fourcc)?
            }
        })
    }

    fn is_at_end(&self) -> bool {
        match self.form {
            Form::Single(_) | Form::OneTrack(_) => self.left < BODIES_MAX,
            Form::ManyTracks(_) | Form::ManyTracksManyCodecs => self.rest.is_empty() && self.left < BODIES_MAX,
        }
    }
}

fn sized(rest: &mut Bytes, fourcc: FourCc) -> Option<Body> {
    let track = rest.try_get_u8().ok()?;
    let size = rest.try_get_uint(3).ok()?;
    Some(Body { track, fourcc, payload: split(rest, usize::try_from(size).ok()?)? })
}

impl Iterator for Bodies {
    type Item = Result<Body, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_at_end() {
            return None;
        }
        let body = if self.left == 0 { None } else { self.take() };
        self.left = self.left.saturating_sub(1);
        if body.is_none() {
            (self.rest, self.left) = (Bytes::new(), 0);
        }
        Some(body.ok_or(Malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds, packet type, and each body as "track FourCC payload"; "!" for one that is malformed.
    fn told(bytes: &[u8]) -> Option<(u32, u8, Vec<String>)> {
        let payload = Bytes::copy_from_slice(bytes);
        let header = read(&payload, bytes.first()? & 0x0f, 6).ok()?;
        let text = |body: Result<Body, Malformed>| match body {
            Ok(Body { track, fourcc, payload }) => {
                format!("{track} {} {}", String::from_utf8_lossy(&fourcc), String::from_utf8_lossy(&payload))
            }
            Err(Malformed) => "!".into(),
        };
        Some((header.nanos, header.packet, header.bodies.map(text).collect()))
    }

    fn check(bytes: &[u8], nanos: u32, packet: u8, bodies: &[&str]) {
        let expected = (nanos, packet, bodies.iter().map(|body| (*body).to_owned()).collect());
        assert_eq!(told(bytes), Some(expected), "{bytes:02x?}");
    }

    #[test]
    fn every_form_gives_its_tracks() {
        check(b"\x91avc1N", 0, 1, &["0 avc1 N"]);
        check(b"\x92avc1", 0, 2, &["0 avc1 "]);
        check(b"\x96\x01avc1\x00N", 0, 1, &["0 avc1 N"]);
        check(b"\x96\x03avc1\x07", 0, 3, &["7 avc1 "]);
        check(b"\x96\x11avc1\x00\x00\x00\x01N\x02\x00\x00\x02MM", 0, 1, &["0 avc1 N", "2 avc1 MM"]);
        check(b"\x96\x21avc1\x00\x00\x00\x01Nhvc1\x01\x00\x00\x00", 0, 1, &["0 avc1 N", "1 hvc1 "]);
    }

    #[test]
    fn extensions_are_read_or_skipped() {
        check(b"\x97\x02\x01\x02\x03\x03avc1N", 0x0001_0203, 3, &["0 avc1 N"]);
        check(b"\x97\x02\xff\xff\xff\x01avc1N", NANOS_MAX, 1, &["0 avc1 N"]);
        check(b"\x97\x01\x01\x02\x01avc1N", 0, 1, &["0 avc1 N"]); // too short to be a time
        check(b"\x97\x02\x01\x02\x03\xf1avc1N", 0, 1, &["0 avc1 N"]); // of a kind to come
        check(b"\x97\x02\x00\x00\x07\x07\x00\x00\x11avc1N", 7, 1, &["0 avc1 N"]);
        check(b"\x97\x02\x00\x00\x07\x06\x01avc1\x05N", 7, 1, &["5 avc1 N"]);
        let long = [&b"\x97\xff\x01\x2b"[..], &[0; 300], b"\x01avc1N"].concat();
        check(&long, 0, 1, &["0 avc1 N"]);
    }

    #[test]
    fn lengths_that_lie_end_it() {
        check(b"\x96\x01avc1", 0, 1, &["!"]);
        check(b"\x96\x11avc1", 0, 1, &["!"]);
        check(b"\x96\x11avc1\x00\x00\x00\x01N\x01\x00\x00\x02M", 0, 1, &["0 avc1 N", "!"]);
        check(b"\x96\x11avc1\x00\x00\x00\x01N\x01\x00", 0, 1, &["0 avc1 N", "!"]);
        check(b"\x96\x21avc1\x00\x00\x00\x01Nhv", 0, 1, &["0 avc1 N", "!"]);
        for bytes in [
            &b"\x91av"[..],
            b"\x96",
            b"\x96\x01av",
            b"\x96\x31avc1\x00N",
            b"\x96\x06avc1\x00N",
            b"\x96\x07avc1\x00N",
            b"\x97",
            b"\x97\x02\x01",
            b"\x97\x02\x01\x02\x03",
            b"\x97\xff\x01",
            b"\x97\xff\xff\xff\x00",
            b"\x97\x00\x00\x07\x00\x00\x07\x00\x00\x07\x00\x00\x07\x00\x00\x07\x00\x00\x07\x00\x00\x07\x00\x00\x01avc1",
        ] {
            assert_eq!(told(bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn many_crumbs_are_cut_short() {
        let crumbs = [&b"\x96\x11avc1"[..], &b"\x01\x00\x00\x00".repeat(100_000)].concat();
        let (_, _, bodies) = told(&crumbs).unwrap();
        assert_eq!((bodies.len(), bodies.last().map(String::as_str)), (BODIES_MAX + 1, Some("!")));
    }
}
