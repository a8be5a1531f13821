//! The codecs of one m-line: `a=rtpmap`, `a=fmtp` and `a=rtcp-fb` gathered by payload type.
//!
//! H.264 (RFC 6184), HEVC (RFC 7798), AV1 (AOM's RTP payload format 7) and Opus (RFC 7587) are understood, and RTX (RFC 4588)
//! as their helper.

/// What a browser means by an H.264 without `profile-level-id`: Constrained Baseline 3.1.
const PROFILE_LEVEL_ID_DEFAULT: [u8; 3] = [0x42, 0xe0, 0x1f];

/// Parameters of HEVC (RFC 7798 7.1) and AV1 (AOM's RTP payload format 7.2) that say what is sent at most.
const H265_LIMITS: [&str; 6] = ["level-id", "profile-id", "profile-space", "tier-flag", "interop-constraints", "tx-mode"];
const AV1_LIMITS: [&str; 3] = ["level-idx", "profile", "tier"];
/// Longest value of one: 48 bits of constraints, in hexadecimal.
const LIMIT_CHARS_MAX: usize = 12;

/// One payload type of an m-line, in the offer's order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCodec {
    pub payload_type: u8,
    /// `name/clock` or `name/clock/channels` as offered: echoed to the letter.
    pub encoding: String,
    pub codec: Codec,
    pub feedback: Feedback,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    H264 {
        profile_level_id: [u8; 3],
        packetization_mode: u8,
        /// As offered; `Codec::parameter` finds `sprop-parameter-sets` in it.
        fmtp: String,
    },
    /// Each unit in its place: without transmission on several streams or decoding order numbers.
    H265 {
        /// As offered.
        fmtp: String,
    },
    Av1 {
        /// As offered.
        fmtp: String,
    },
    Opus {
        /// The offerer wants to receive two channels.
        stereo: bool,
        /// As offered.
        fmtp: String,
    },
    /// Retransmissions of the payload type `apt`.
    Rtx { apt: u8 },
    /// Not understood, or never used here.
    Other,
}

impl Codec {
    /// `encoding` is the tail of `a=rtpmap`, `fmtp` that of `a=fmtp`.
    pub(super) fn parse(encoding: &str, fmtp: Option<&str>) -> Self {
        let mut parts = encoding.split('/');
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let clock = parts.next().and_then(|clock| clock.parse::<u32>().ok());
        match (name.as_str(), clock) {
            ("h264", Some(90_000)) => Self::h264(fmtp),
            ("h265", Some(90_000)) => Self::h265(fmtp),
            ("av1", Some(90_000)) => Self::Av1 { fmtp: fmtp.unwrap_or_default().to_owned() },
            ("opus", Some(48_000)) => Self::opus(fmtp),
            ("rtx", _) => match fmtp.and_then(|fmtp| parameter(fmtp, "apt")).and_then(|apt| apt.parse().ok()) {
                Some(apt) => Self::Rtx { apt },
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// Without any `a=fmtp` RFC 6184 would mean single NAL units only; GStreamer leaves it out and
    /// means "anything", and no sender could fit a picture into single packets.
    fn h264(fmtp: Option<&str>) -> Self {
        let Some(fmtp) = fmtp else {
            return Self::H264 { profile_level_id: PROFILE_LEVEL_ID_DEFAULT, packetization_mode: 1, fmtp: String::new() };
        };
        let profile_level_id = match parameter(fmtp, "profile-level-id").map(parse_profile_level_id) {
            None => PROFILE_LEVEL_ID_DEFAULT,
            Some(Some(id)) => id,
            Some(None) => return Self::Other,
        };
        match parameter(fmtp, "packetization-mode").unwrap_or("0") {
            "0" => Self::H264 { profile_level_id, packetization_mode: 0, fmtp: fmtp.to_owned() },
            "1" => Self::H264 { profile_level_id, packetization_mode: 1, fmtp: fmtp.to_owned() },
            // Mode 2 interleaves; WebRTC does not know it.
            _ => Self::Other,
        }
    }

    /// RFC 7798 7.1: units that are sent out of order, or on several streams, are not put together here.
    fn h265(fmtp: Option<&str>) -> Self {
        let fmtp = fmtp.unwrap_or_default();
        let in_order = parameter(fmtp, "sprop-max-don-diff").is_none_or(|units| units == "0");
        let on_one_stream = parameter(fmtp, "tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"));
        if in_order && on_one_stream { Self::H265 { fmtp: fmtp.to_owned() } } else { Self::Other }
    }

    /// Of those of HEVC and AV1 that limit what is sent, each as it was offered: they must be the same in an answer, and
    /// we take any. What the offerer says of its own stream is not repeated.
    pub(super) fn limits(&self) -> String {
        let (fmtp, names) = match self {
            Self::H265 { fmtp } => (fmtp, &H265_LIMITS[..]),
            Self::Av1 { fmtp } => (fmtp, &AV1_LIMITS[..]),
            Self::H264 { .. } | Self::Opus { .. } | Self::Rtx { .. } | Self::Other => return String::new(),
        };
        let plain = |value: &&str| {
            !value.is_empty() && value.len() <= LIMIT_CHARS_MAX && value.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let limits = names.iter().filter_map(|name| Some(format!("{name}={}", parameter(fmtp, name).filter(plain)?)));
        limits.collect::<Vec<_>>().join(";")
    }

    fn opus(fmtp: Option<&str>) -> Self {
        let fmtp = fmtp.unwrap_or_default();
        Self::Opus { stereo: parameter(fmtp, "stereo") == Some("1"), fmtp: fmtp.to_owned() }
    }

    /// A parameter of the offered `a=fmtp`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        match self {
            Self::H264 { fmtp, .. } | Self::H265 { fmtp } | Self::Av1 { fmtp } | Self::Opus { fmtp, .. } => parameter(fmtp, name),
            Self::Rtx { .. } | Self::Other => None,
        }
    }
}

/// Names are case-insensitive and blanks around them are common.
fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = fmtp.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn parse_profile_level_id(text: &str) -> Option<[u8; 3]> {
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let value = u32::from_str_radix(text, 16).ok()?;
    let [_, profile, constraints, level] = value.to_be_bytes();
    Some([profile, constraints, level])
}

/// H.264 profiles in the order in which a decoder that lists them is likely to take anything else:
/// decoders of browsers take High, whichever profile their SDP lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    High,
    Main,
    ConstrainedBaseline,
    Baseline,
    High444,
    Other,
}

impl Profile {
    /// RFC 6184 8.1, table 5: `constraint_set1` makes Baseline the constrained one.
    pub fn of(profile_level_id: [u8; 3]) -> Self {
        match profile_level_id {
            [0x64, _, _] => Self::High,
            [0x4d, _, _] => Self::Main,
            [0x42, constraints, _] if constraints & 0x40 != 0 => Self::ConstrainedBaseline,
            [0x42, _, _] => Self::Baseline,
            [0xf4, _, _] => Self::High444,
            _ => Self::Other,
        }
    }
}

/// The kinds of RTCP feedback of a payload type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub remb: bool,
    pub transport_cc: bool,
}

impl Feedback {
    /// `value` is what follows the payload type in `a=rtcp-fb`.
    pub(super) fn note(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("nack"), None) => self.nack = true,
            (Some("nack"), Some("pli")) => self.pli = true,
            (Some("ccm"), Some("fir")) => self.fir = true,
            (Some("goog-remb"), None) => self.remb = true,
            (Some("transport-cc"), None) => self.transport_cc = true,
            _ => {}
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            nack: self.nack || other.nack,
            pli: self.pli || other.pli,
            fir: self.fir || other.fir,
            remb: self.remb || other.remb,
            transport_cc: self.transport_cc || other.transport_cc,
        }
    }

    /// The values of our `a=rtcp-fb` lines.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.remb, "goog-remb"),
            (self.transport_cc, "transport-cc"),
            (self.fir, "ccm fir"),
            (self.nack, "nack"),
            (self.pli, "nack pli"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs() {
        let check = |encoding: &str, fmtp: Option<&str>, want: &str| {
            let got = match Codec::parse(encoding, fmtp) {
                Codec::H264 { profile_level_id, packetization_mode, .. } => {
                    format!("h264 {:?} mode {packetization_mode}", Profile::of(profile_level_id))
                }
                Codec::H265 { .. } => "h265".to_owned(),
                Codec::Av1 { .. } => "av1".to_owned(),
                Codec::Opus { stereo, .. } => format!("opus stereo {stereo}"),
                Codec::Rtx { apt } => format!("rtx {apt}"),
                Codec::Other => "other".to_owned(),
            };
            assert_eq!(got, want, "{encoding} {fmtp:?}");
        };
        check("H264/90000", Some("packetization-mode=1;profile-level-id=640c34"), "h264 High mode 1");
        check("h264/90000", Some("packetization-mode=1; Profile-Level-Id=42E01F"), "h264 ConstrainedBaseline mode 1");
        check("H264/90000", Some("profile-level-id=42001f"), "h264 Baseline mode 0");
        check("H264/90000", Some("profile-level-id=4d001f;packetization-mode=0"), "h264 Main mode 0");
        check("H264/90000", Some("profile-level-id=f4001f;packetization-mode=1"), "h264 High444 mode 1");
        check("H264/90000", Some("profile-level-id=58001f;packetization-mode=1"), "h264 Other mode 1");
        check("H264/90000", None, "h264 ConstrainedBaseline mode 1");
        check("H264/90000", Some("packetization-mode=2"), "other");
        check("H264/90000", Some("profile-level-id=42e0"), "other");
        check("H264/90000", Some("profile-level-id=+2e01f"), "other");
        check("H264/48000", None, "other");
        check("OPUS/48000", None, "opus stereo false");
        check("opus/48000/2", Some("minptime=10;stereo=1"), "opus stereo true");
        check("rtx/90000", Some("apt=96"), "rtx 96");
        check("rtx/90000", Some("apt=960"), "other");
        check("rtx/90000", None, "other");
        check("", None, "other");
        check("H265/90000", None, "h265");
        check("H265/90000", Some("level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST;sprop-max-don-diff=0"), "h265");
        check("H265/90000", Some("sprop-max-don-diff=4"), "other");
        check("H265/90000", Some("tx-mode=MRST"), "other");
        check("AV1/90000", Some("profile=0"), "av1");
        check("av1/90000", None, "av1");
        check("AV1/48000", None, "other");
        check("VP9/90000", Some("profile-id=0"), "other");
    }

    #[test]
    fn limits_are_repeated_and_nothing_else() {
        let check = |encoding: &str, fmtp, want: &str| assert_eq!(Codec::parse(encoding, Some(fmtp)).limits(), want, "{fmtp}");
        check("H265/90000", "profile-id=1; tier-flag=0;level-id=93", "level-id=93;profile-id=1;tier-flag=0");
        check(
            "H265/90000",
            "interop-constraints=B00000000000;tx-mode=SRST;sprop-vps=QAEM",
            "interop-constraints=B00000000000;tx-mode=SRST",
        );
        check("AV1/90000", "level-idx=5;profile=0;tier=0;more=1", "level-idx=5;profile=0;tier=0");
        check("AV1/90000", "level-idx=5 b;profile=;tier=0000000000000", "");
        check("H264/90000", "profile-level-id=42e01f", "");
    }
}
