//! The pictures that are made of a stream's own for viewers who cannot take that one, and what is known of them before
//! they are made: a playlist tells their codec and their cost while nobody watches.

use crate::{Parameters, TrackId, stream::Made};

/// One setting of the encoder, as a rendition of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    pub id: TrackId,
    pub made: Made,
}

/// Bits a second of a made picture. Below the least no screen is legible after a change; above the most viewers' lines
/// give out.
pub const BITRATE_MIN: u32 = 500_000;
pub const BITRATE_MAX: u32 = 8_000_000;
/// For the same picture H.264 needs so much more than the codecs that came after it, in halves.
pub const DENSER_HALVES: u64 = 3;
/// The encoder's buffer: how much of its rate may come at once.
pub const BUFFER_MS: u32 = 400;

/// `level_idc` by macroblocks in a picture and in a second (H.264 table A-1).
const LEVELS: [(u8, u64, u64); 8] = [
    (30, 1_620, 40_500),
    (31, 3_600, 108_000),
    (32, 5_120, 216_000),
    (40, 8_192, 245_760),
    (42, 8_704, 522_240),
    (50, 22_080, 589_824),
    (51, 36_864, 983_040),
    (52, 36_864, 2_073_600),
];
/// A level is of the size alone, at this rate: the encoder and the playlist need not agree on a source's frame rate.
const LEVEL_FRAME_RATE: u64 = 60;

impl Rung {
    /// The picture as H.264 at the source's size: for players that play nothing newer.
    pub const ALIKE: Self = Self { id: TrackId::rung(0).expect("there may be one"), made: Made::Video };
    /// All that there are, best first.
    pub const LADDER: [Self; 1] = [Self::ALIKE];

    pub fn of(id: TrackId) -> Option<Self> {
        Self::LADDER.into_iter().find(|rung| rung.id == id)
    }

    /// Whether viewers need it beside a source of these parameters.
    pub fn is_needed(parameters: &Parameters) -> bool {
        matches!(parameters, Parameters::Hevc(_) | Parameters::Av1(_))
    }

    /// Bits a second that its encoder is given at most, of a source of so many.
    pub fn bitrate(source: u64) -> u64 {
        (source * DENSER_HALVES / 2).clamp(BITRATE_MIN.into(), BITRATE_MAX.into())
    }

    /// The CODECS element of every picture of this size that is made: High profile, under `level`.
    pub fn codec_string(width: u32, height: u32) -> String {
        format!("avc1.6400{:02x}", level(width, height))
    }
}

/// The `level_idc` under which pictures of a size are made.
pub fn level(width: u32, height: u32) -> u8 {
    let blocks = u64::from(width.div_ceil(16)) * u64::from(height.div_ceil(16));
    let holds = |&(_, picture, second): &(u8, u64, u64)| blocks <= picture && blocks * LEVEL_FRAME_RATE <= second;
    LEVELS.iter().find(|level| holds(level)).map_or(62, |(level, ..)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_holds_sixty_pictures_a_second_of_its_size() {
        let check = |width, height, codec| assert_eq!(Rung::codec_string(width, height), codec, "{width}x{height}");
        check(320, 180, "avc1.64001e");
        check(640, 360, "avc1.64001f");
        check(1280, 720, "avc1.640020");
        check(1920, 1080, "avc1.64002a");
        check(1080, 1920, "avc1.64002a");
        check(2560, 1440, "avc1.640033");
        check(3840, 2160, "avc1.640034");
        check(7680, 4320, "avc1.64003e");
    }

    #[test]
    fn a_rung_costs_more_than_a_denser_source_within_limits() {
        assert_eq!([100_000, 2_000_000, 50_000_000].map(Rung::bitrate), [500_000, 3_000_000, 8_000_000]);
    }
}
