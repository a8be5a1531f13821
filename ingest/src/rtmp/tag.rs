//! FLV video and audio tags as RTMP messages carry them: the legacy forms (Adobe FLV 10.1, E.4.2
//! and E.4.3) and those of enhanced RTMP (veovera v2), whose headers `enhanced` reads.
//!
//! Codecs that are not taken are named, so that a refusal can say what to change.

use bytes::Bytes;

use super::enhanced::{self, Body, FourCc, Malformed};

/// What one message holds of each track that is in it. Publishers of one track send track 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Tag<T> {
    /// To be added to the message's time.
    pub nanos: u32,
    pub tracks: Vec<(u8, T)>,
}

impl<T> Tag<T> {
    fn single(content: T) -> Self {
        Self { nanos: 0, tracks: vec![(0, content)] }
    }
}

/// The codecs taken of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    H264,
    Hevc,
    Av1,
}

/// Of video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Video {
    /// An AVC-, HEVC- or AV1-DecoderConfigurationRecord.
    Configuration {
        coding: Coding,
        record: Bytes,
    },
    /// One access unit; presented `offset_ms` after it is decoded.
    AccessUnit {
        coding: Coding,
        offset_ms: i32,
        payload: Bytes,
    },
    /// An end of sequence, a seek command, metadata: nothing to do.
    Nothing,
    /// A codec that this server does not take, by name.
    Foreign(&'static str),
    Malformed,
}

/// The codecs taken of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundCoding {
    Aac,
    Opus,
}

/// Of audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audio {
    /// An AudioSpecificConfig, or Opus' identification header.
    Configuration {
        coding: SoundCoding,
        config: Bytes,
    },
    /// One raw AAC frame, or one Opus packet.
    Frame {
        coding: SoundCoding,
        payload: Bytes,
    },
    /// An end of sequence, an order of channels: the configuration tells what counts.
    Nothing,
    Foreign(&'static str),
    Malformed,
}

const COMMAND_FRAME: u8 = 5;
/// Packet types of both media.
const EX_SEQUENCE_START: u8 = 0;
const EX_CODED_FRAMES: u8 = 1;
/// Of video alone.
const EX_CODED_FRAMES_X: u8 = 3;
const EX_METADATA: u8 = 4;
const EX_MPEG2TS_SEQUENCE_START: u8 = 5;
const EX_MULTITRACK_VIDEO: u8 = 6;
/// Of audio alone.
const EX_MULTITRACK_AUDIO: u8 = 5;

/// Reads a message of type 9.
pub fn video(payload: &Bytes) -> Tag<Video> {
    let Some(&first) = payload.first() else { return Tag::single(Video::Nothing) };
    if first & 0x80 != 0 {
        return enhanced_video(payload, first);
    }
    if first >> 4 == COMMAND_FRAME {
        return Tag::single(Video::Nothing);
    }
    Tag::single(match first & 0x0f {
        7 => legacy_nal_units(payload, Coding::H264),
        // No standard's, but what encoders sent before there was a FourCC.
        12 => legacy_nal_units(payload, Coding::Hevc),
        2 => Video::Foreign("Sorenson H.263"),
        3 | 6 => Video::Foreign("Screen Video"),
        4 | 5 => Video::Foreign("VP6"),
        8 => Video::Foreign("H.263"),
        9 => Video::Foreign("MPEG-4 Part 2"),
        13 => Video::Foreign("AV1 in a form from before enhanced RTMP"),
        14 => Video::Foreign("VVC (H.266)"),
        _ => Video::Foreign("an unknown video codec"),
    })
}

fn legacy_nal_units(payload: &Bytes, coding: Coding) -> Video {
    let Some(&[_, packet, a, b, c]) = payload.first_chunk::<5>() else {
        // An end of sequence may come without the offset.
        return if payload.get(1) == Some(&2) { Video::Nothing } else { Video::Malformed };
    };
    match packet {
        0 => Video::Configuration { coding, record: payload.slice(5..) },
        1 => Video::AccessUnit { coding, offset_ms: signed_24(a, b, c), payload: payload.slice(5..) },
        2 => Video::Nothing,
        _ => Video::Malformed,
    }
}

fn signed_24(a: u8, b: u8, c: u8) -> i32 {
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn enhanced_video(payload: &Bytes, first: u8) -> Tag<Video> {
    let packet = first & 0x0f;
    // A command has no FourCC. Metadata is told by its packet type, whatever the frame's is.
    if (first >> 4) & 7 == COMMAND_FRAME && packet != EX_METADATA {
        return Tag::single(Video::Nothing);
    }
    tag(enhanced::read(payload, packet, EX_MULTITRACK_VIDEO), Video::Malformed, video_body)
}

/// The message of a header; what cannot be read counts for the main track.
fn tag<T>(header: Result<enhanced::Header, Malformed>, malformed: T, read: fn(u8, FourCc, Bytes) -> T) -> Tag<T>
where
    T: Clone,
{
    let Ok(enhanced::Header { nanos, packet, bodies }) = header else { return Tag::single(malformed) };
    let content = |body| match body {
        Ok(Body { track, fourcc, payload }) => (track, read(packet, fourcc, payload)),
        Err(Malformed) => (0, malformed.clone()),
    };
    Tag { nanos, tracks: bodies.map(content).collect() }
}

fn video_body(packet: u8, fourcc: FourCc, body: Bytes) -> Video {
    let coding = match &fourcc {
        b"avc1" => Coding::H264,
        b"hvc1" => Coding::Hevc,
        b"av01" if packet == EX_MPEG2TS_SEQUENCE_START => return Video::Foreign("AV1 with the header of MPEG-2 TS"),
        b"av01" => Coding::Av1,
        b"vp08" => return Video::Foreign("VP8"),
        b"vp09" => return Video::Foreign("VP9"),
        b"vvc1" => return Video::Foreign("VVC (H.266)"),
        _ => return Video::Foreign("an unknown video codec"),
    };
    match (packet, coding) {
        (EX_SEQUENCE_START, _) => Video::Configuration { coding, record: body },
        // AV1 shows its pictures in the order in which they are decoded, so it has no offset here.
        (EX_CODED_FRAMES, Coding::Av1) | (EX_CODED_FRAMES_X, _) => Video::AccessUnit { coding, offset_ms: 0, payload: body },
        (EX_CODED_FRAMES, Coding::H264 | Coding::Hevc) => match body.first_chunk() {
            Some(&[a, b, c]) => Video::AccessUnit { coding, offset_ms: signed_24(a, b, c), payload: body.slice(3..) },
            None => Video::Malformed,
        },
        _ => Video::Nothing,
    }
}

/// Reads a message of type 8.
pub fn audio(payload: &Bytes) -> Tag<Audio> {
    let Some(&first) = payload.first() else { return Tag::single(Audio::Nothing) };
    Tag::single(match first >> 4 {
        10 => legacy_aac(payload),
        9 => return tag(enhanced::read(payload, first & 0x0f, EX_MULTITRACK_AUDIO), Audio::Malformed, audio_body),
        0 | 3 => Audio::Foreign("PCM"),
        1 => Audio::Foreign("ADPCM"),
        2 | 14 => Audio::Foreign("MP3"),
        4..=6 => Audio::Foreign("Nellymoser"),
        7 | 8 => Audio::Foreign("G.711"),
        11 => Audio::Foreign("Speex"),
        13 => Audio::Foreign("Opus in a form from before enhanced RTMP"),
        _ => Audio::Foreign("an unknown audio codec"),
    })
}

fn legacy_aac(payload: &Bytes) -> Audio {
    let coding = SoundCoding::Aac;
    match payload.get(1) {
        Some(0) => Audio::Configuration { coding, config: payload.slice(2..) },
        Some(1) => Audio::Frame { coding, payload: payload.slice(2..) },
        _ => Audio::Malformed,
    }
}

fn audio_body(packet: u8, fourcc: FourCc, body: Bytes) -> Audio {
    let coding = match &fourcc {
        b"mp4a" => SoundCoding::Aac,
        b"Opus" => SoundCoding::Opus,
        b"fLaC" => return Audio::Foreign("FLAC"),
        b".mp3" => return Audio::Foreign("MP3"),
        b"ac-3" => return Audio::Foreign("AC-3"),
        b"ec-3" => return Audio::Foreign("E-AC-3"),
        _ => return Audio::Foreign("an unknown audio codec"),
    };
    match packet {
        EX_SEQUENCE_START => Audio::Configuration { coding, config: body },
        EX_CODED_FRAMES => Audio::Frame { coding, payload: body },
        _ => Audio::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static [u8]) -> Bytes {
        Bytes::from_static(text)
    }

    #[test]
    fn video_tags() {
        use Coding::{Av1, H264, Hevc};
        let check = |text, expected| assert_eq!(video(&bytes(text)), Tag::single(expected), "{text:02x?}");
        let unit = |coding, offset_ms, payload| Video::AccessUnit { coding, offset_ms, payload: bytes(payload) };
        let record = |coding| Video::Configuration { coding, record: bytes(b"R") };
        check(b"", Video::Nothing);
        check(b"\x17\x00\x00\x00\x00R", record(H264));
        check(b"\x27\x01\x00\x00\x42N", unit(H264, 66, b"N"));
        check(b"\x27\x01\xff\xff\xffN", unit(H264, -1, b"N"));
        check(b"\x27\x01\x80\x00\x00N", unit(H264, -8_388_608, b"N"));
        check(b"\x17\x02\x00\x00\x00", Video::Nothing);
        check(b"\x17\x02", Video::Nothing);
        check(b"\x57\x00", Video::Nothing);
        check(b"\x17\x01\x00", Video::Malformed);
        check(b"\x17\x09\x00\x00\x00", Video::Malformed);
        check(b"\x1c\x00\x00\x00\x00R", record(Hevc));
        check(b"\x2c\x01\x00\x00\x42N", unit(Hevc, 66, b"N"));
        check(b"\x12", Video::Foreign("Sorenson H.263"));
        check(b"\x1d", Video::Foreign("AV1 in a form from before enhanced RTMP"));
        check(b"\x90avc1R", record(H264));
        check(b"\x91avc1\xff\xff\xfeN", unit(H264, -2, b"N"));
        check(b"\x93avc1N", unit(H264, 0, b"N"));
        check(b"\x92avc1", Video::Nothing);
        check(b"\x90hvc1R", record(Hevc));
        check(b"\x91hvc1\x00\x00\x21N", unit(Hevc, 33, b"N"));
        check(b"\x91hvc1\x00\x00", Video::Malformed);
        check(b"\xa3hvc1N", unit(Hevc, 0, b"N"));
        check(b"\x90av01R", record(Av1));
        check(b"\x91av01N", unit(Av1, 0, b"N"));
        check(b"\x93av01N", unit(Av1, 0, b"N"));
        check(b"\x95av01D", Video::Foreign("AV1 with the header of MPEG-2 TS"));
        check(b"\xd4hvc1\x02\x00\x09colorInfo", Video::Nothing);
        check(b"\xd1\x00", Video::Nothing);
        check(b"\x91vp09", Video::Foreign("VP9"));
        check(b"\x91VP90", Video::Foreign("an unknown video codec"));
        check(b"\x91av", Video::Malformed);
        check(b"\x97\x02\x01", Video::Malformed);
        check(b"\x96\x03avc1\x00N", unit(H264, 0, b"N"));
        let both = vec![(0, unit(H264, 0, b"N")), (1, Video::Foreign("VP9")), (0, Video::Malformed)];
        let tag = video(&bytes(b"\x97\x02\x00\x00\x05\x06\x23avc1\x00\x00\x00\x01Nvp09\x01\x00\x00\x00h"));
        assert_eq!(tag, Tag { nanos: 5, tracks: both });
    }

    #[test]
    fn audio_tags() {
        use SoundCoding::{Aac, Opus};
        let check = |text, expected| assert_eq!(audio(&bytes(text)), Tag::single(expected), "{text:02x?}");
        let config = |coding, config| Audio::Configuration { coding, config: bytes(config) };
        let frame = |coding| Audio::Frame { coding, payload: bytes(b"F") };
        check(b"", Audio::Nothing);
        check(b"\xaf\x00\x11\x90", config(Aac, b"\x11\x90"));
        check(b"\xaf\x01F", frame(Aac));
        check(b"\xaf", Audio::Malformed);
        check(b"\x2f", Audio::Foreign("MP3"));
        check(b"\xb2", Audio::Foreign("Speex"));
        check(b"\x72", Audio::Foreign("G.711"));
        check(b"\xdf", Audio::Foreign("Opus in a form from before enhanced RTMP"));
        check(b"\x90OpusOpusHead", config(Opus, b"OpusHead"));
        check(b"\x91OpusF", frame(Opus));
        check(b"\x94Opus\x01\x02\x00\x00\x00\x03", Audio::Nothing);
        check(b"\x92Opus", Audio::Nothing);
        check(b"\x90mp4a\x11\x90", config(Aac, b"\x11\x90"));
        check(b"\x91mp4aF", frame(Aac));
        check(b"\x90.mp3", Audio::Foreign("MP3"));
        check(b"\x91ac-3", Audio::Foreign("AC-3"));
        check(b"\x91ec-3", Audio::Foreign("E-AC-3"));
        check(b"\x90fLaC", Audio::Foreign("FLAC"));
        check(b"\x95\x01mp4a\x00F", frame(Aac));
        let further = vec![(1, frame(Aac))];
        assert_eq!(audio(&bytes(b"\x95\x01mp4a\x01F")), Tag { nanos: 0, tracks: further });
    }
}
