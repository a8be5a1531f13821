//! FLV video and audio tags as RTMP messages carry them: the legacy forms (Adobe FLV 10.1, E.4.2
//! and E.4.3) and those of enhanced RTMP (veovera v2), as far as H.264 and AAC go.
//!
//! Every other codec is named, so that its refusal can say what to change.

use bytes::Bytes;

/// What a video message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Video {
    /// An AVCDecoderConfigurationRecord.
    Configuration(Bytes),
    /// One access unit; presented `offset_ms` after it is decoded.
    AccessUnit {
        offset_ms: i32,
        payload: Bytes,
    },
    /// An end of sequence, a seek command, metadata: nothing to do.
    Nothing,
    /// A second track of a multitrack publisher.
    ExtraTrack,
    /// A codec that this server does not take, by name.
    Foreign(&'static str),
    Malformed,
}

/// What an audio message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audio {
    /// An AudioSpecificConfig.
    Configuration(Bytes),
    /// One raw AAC frame.
    Frame(Bytes),
    Nothing,
    ExtraTrack,
    Foreign(&'static str),
    Malformed,
}

const COMMAND_FRAME: u8 = 5;
const EX_SEQUENCE_START: u8 = 0;
const EX_CODED_FRAMES: u8 = 1;
const EX_CODED_FRAMES_X: u8 = 3;
const EX_MULTITRACK_AUDIO: u8 = 5;
const EX_MULTITRACK_VIDEO: u8 = 6;
const EX_MOD: u8 = 7;

/// Reads a message of type 9.
pub fn video(payload: &Bytes) -> Video {
    let Some(&first) = payload.first() else { return Video::Nothing };
    if first & 0x80 != 0 {
        return enhanced_video(payload, first);
    }
    if first >> 4 == COMMAND_FRAME {
        return Video::Nothing;
    }
    match first & 0x0f {
        7 => legacy_avc(payload),
        2 => Video::Foreign("Sorenson H.263"),
        3 | 6 => Video::Foreign("Screen Video"),
        4 | 5 => Video::Foreign("VP6"),
        8 => Video::Foreign("H.263"),
        9 => Video::Foreign("MPEG-4 Part 2"),
        12 => Video::Foreign("HEVC (H.265)"),
        13 => Video::Foreign("AV1"),
        14 => Video::Foreign("VVC (H.266)"),
        _ => Video::Foreign("an unknown video codec"),
    }
}

fn legacy_avc(payload: &Bytes) -> Video {
    let Some(&[_, packet, a, b, c]) = payload.first_chunk::<5>() else {
        // An end of sequence may come without the offset.
        return if payload.get(1) == Some(&2) { Video::Nothing } else { Video::Malformed };
    };
    match packet {
        0 => Video::Configuration(payload.slice(5..)),
        1 => Video::AccessUnit { offset_ms: signed_24(a, b, c), payload: payload.slice(5..) },
        2 => Video::Nothing,
        _ => Video::Malformed,
    }
}

fn signed_24(a: u8, b: u8, c: u8) -> i32 {
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn enhanced_video(payload: &Bytes, first: u8) -> Video {
    let Some((packet, track, fourcc, at)) = enhanced_header(payload, first & 0x0f, EX_MULTITRACK_VIDEO) else {
        return Video::Malformed;
    };
    if (first >> 4) & 7 == COMMAND_FRAME {
        return Video::Nothing;
    }
    if track != 0 {
        return Video::ExtraTrack;
    }
    match &fourcc {
        b"avc1" => {}
        b"hvc1" | b"hev1" => return Video::Foreign("HEVC (H.265)"),
        b"av01" => return Video::Foreign("AV1"),
        b"vp08" => return Video::Foreign("VP8"),
        b"vp09" => return Video::Foreign("VP9"),
        b"vvc1" => return Video::Foreign("VVC (H.266)"),
        _ => return Video::Foreign("an unknown video codec"),
    }
    let body = payload.slice(at..);
    match packet {
        EX_SEQUENCE_START => Video::Configuration(body),
        EX_CODED_FRAMES => match body.first_chunk() {
            Some(&[a, b, c]) => Video::AccessUnit { offset_ms: signed_24(a, b, c), payload: body.slice(3..) },
            None => Video::Malformed,
        },
        EX_CODED_FRAMES_X => Video::AccessUnit { offset_ms: 0, payload: body },
        _ => Video::Nothing,
    }
}

/// Packet type, track, FourCC and where the body starts, past any ModEx and a multitrack header.
/// A message that holds several tracks counts as an extra one.
fn enhanced_header(payload: &[u8], packet: u8, multitrack: u8) -> Option<(u8, u8, [u8; 4], usize)> {
    let (mut packet, mut at, mut track) = (packet, 1, 0);
    while packet == EX_MOD {
        let mut size = usize::from(*payload.get(at)?) + 1;
        at += 1;
        if size == 256 {
            size = usize::from(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?)) + 1;
            at += 2;
        }
        packet = payload.get(at + size)? & 0x0f;
        at += size + 1;
    }
    let is_multitrack = packet == multitrack;
    if is_multitrack {
        let form = payload.get(at)?;
        packet = form & 0x0f;
        at += 1;
        if form >> 4 != 0 {
            return Some((packet, u8::MAX, *b"many", at));
        }
    }
    let fourcc = *payload.get(at..)?.first_chunk()?;
    at += 4;
    if is_multitrack {
        track = *payload.get(at)?;
        at += 1;
    }
    Some((packet, track, fourcc, at))
}

/// Reads a message of type 8.
pub fn audio(payload: &Bytes) -> Audio {
    let Some(&first) = payload.first() else { return Audio::Nothing };
    match first >> 4 {
        10 => legacy_aac(payload),
        9 => enhanced_audio(payload, first & 0x0f),
        0 | 3 => Audio::Foreign("PCM"),
        1 => Audio::Foreign("ADPCM"),
        2 | 14 => Audio::Foreign("MP3"),
        4..=6 => Audio::Foreign("Nellymoser"),
        7 | 8 => Audio::Foreign("G.711"),
        11 => Audio::Foreign("Speex"),
        13 => Audio::Foreign("Opus"),
        _ => Audio::Foreign("an unknown audio codec"),
    }
}

fn legacy_aac(payload: &Bytes) -> Audio {
    match payload.get(1) {
        Some(0) => Audio::Configuration(payload.slice(2..)),
        Some(1) => Audio::Frame(payload.slice(2..)),
        _ => Audio::Malformed,
    }
}

fn enhanced_audio(payload: &Bytes, packet: u8) -> Audio {
    let Some((packet, track, fourcc, at)) = enhanced_header(payload, packet, EX_MULTITRACK_AUDIO) else {
        return Audio::Malformed;
    };
    if track != 0 {
        return Audio::ExtraTrack;
    }
    match &fourcc {
        b"mp4a" => {}
        b"Opus" => return Audio::Foreign("Opus"),
        b"fLaC" => return Audio::Foreign("FLAC"),
        b".mp3" => return Audio::Foreign("MP3"),
        b"ac-3" => return Audio::Foreign("AC-3"),
        b"ec-3" => return Audio::Foreign("E-AC-3"),
        _ => return Audio::Foreign("an unknown audio codec"),
    }
    match packet {
        EX_SEQUENCE_START => Audio::Configuration(payload.slice(at..)),
        EX_CODED_FRAMES => Audio::Frame(payload.slice(at..)),
        _ => Audio::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn video_tags() {
        let check = |bytes: &'static [u8], expected| assert_eq!(video(&Bytes::from_static(bytes)), expected, "{bytes:02x?}");
        let unit = |offset_ms, payload| Video::AccessUnit { offset_ms, payload: Bytes::from_static(payload) };
        check(b"", Video::Nothing);
        check(b"\x17\x00\x00\x00\x00R", Video::Configuration(Bytes::from_static(b"R")));
        check(b"\x27\x01\x00\x00\x42N", unit(66, b"N"));
        check(b"\x27\x01\xff\xff\xffN", unit(-1, b"N"));
        check(b"\x27\x01\x80\x00\x00N", unit(-8_388_608, b"N"));
        check(b"\x17\x02\x00\x00\x00", Video::Nothing);
        check(b"\x17\x02", Video::Nothing);
        check(b"\x57\x00", Video::Nothing);
        check(b"\x17\x01\x00", Video::Malformed);
        check(b"\x17\x09\x00\x00\x00", Video::Malformed);
        check(b"\x1c\x00\x00\x00\x00", Video::Foreign("HEVC (H.265)"));
        check(b"\x12", Video::Foreign("Sorenson H.263"));
        check(b"\x90avc1R", Video::Configuration(Bytes::from_static(b"R")));
        check(b"\x91avc1\xff\xff\xfeN", unit(-2, b"N"));
        check(b"\x93avc1N", unit(0, b"N"));
        check(b"\x92avc1", Video::Nothing);
        check(b"\x90hvc1R", Video::Foreign("HEVC (H.265)"));
        check(b"\x91av01", Video::Foreign("AV1"));
        check(b"\x91vp09", Video::Foreign("VP9"));
        check(b"\x91av", Video::Malformed);
        check(b"\x97\x02\x01\x02\x03\x03avc1N", unit(0, b"N"));
        check(b"\x97\x02\x01", Video::Malformed);
        check(b"\x96\x03avc1\x00N", unit(0, b"N"));
        check(b"\x96\x03avc1\x01N", Video::ExtraTrack);
        check(b"\x96\x13avc1\x00\x00\x00\x01N", Video::ExtraTrack);
    }

    #[test]
    fn audio_tags() {
        let check = |bytes: &'static [u8], expected| assert_eq!(audio(&Bytes::from_static(bytes)), expected, "{bytes:02x?}");
        check(b"", Audio::Nothing);
        check(b"\xaf\x00\x11\x90", Audio::Configuration(Bytes::from_static(b"\x11\x90")));
        check(b"\xaf\x01F", Audio::Frame(Bytes::from_static(b"F")));
        check(b"\xaf", Audio::Malformed);
        check(b"\x2f", Audio::Foreign("MP3"));
        check(b"\xb2", Audio::Foreign("Speex"));
        check(b"\x72", Audio::Foreign("G.711"));
        check(b"\xdf", Audio::Foreign("Opus"));
        check(b"\x90Opus", Audio::Foreign("Opus"));
        check(b"\x90mp4a\x11\x90", Audio::Configuration(Bytes::from_static(b"\x11\x90")));
        check(b"\x91mp4aF", Audio::Frame(Bytes::from_static(b"F")));
        check(b"\x95\x01mp4a\x01F", Audio::ExtraTrack);
        check(b"\x95\x01mp4a\x00F", Audio::Frame(Bytes::from_static(b"F")));
    }
}
