//! The pictures that are made of a stream's own for viewers who cannot take that one, and what is known of them before
//! they are made: a playlist tells their codec, their size and their cost while nobody watches.

use crate::{
    Parameters, TrackId,
    ladder::{self, Ladder, Pace, SETTINGS_MAX, Setting, When},
    stream::Made,
    timeline::{self, Grid},
};

/// One rendition that is made of a stream's picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    pub id: TrackId,
    pub made: Made,
    pub setting: Setting,
    /// Every how many-th picture of the source it has, counted from each cut.
    pub divisor: u32,
    /// The source's pictures a second; 0 where nobody knows.
    pub source_rate: f64,
    /// Of the source's pictures, how many a Part holds.
    pub in_part: u32,
    /// The longest that a segment may be, where one is cut without a keyframe of the source; 0 where nobody packages.
    pub segment_ms_max: u32,
    /// The source cannot be cut at keyframes alone.
    pub long_gop: bool,
    /// Pictures are given at `source_rate` whether the source sends any or not, and a segment begins at each multiple of this on
    /// the publisher's clock; 0: where the presentation cuts the source.
    pub cut_every_ms: u32,
}

/// Bits a second of a picture made at the source's size. Below the least no screen is legible after a change; above the most
/// viewers' lines give out.
pub const BITRATE_MIN: u32 = 500_000;
pub const BITRATE_MAX: u32 = 8_000_000;
/// For the same picture H.264 needs so much more than the codecs that came after it, in halves.
pub const DENSER_HALVES: u64 = 3;
/// The buffer of the encoder of a picture at the source's size: how much of its rate may come at once.
const ALIKE_BUFFER_MS: u32 = 400;
/// A rung is worth making where it costs this share of the source at most, in percent.
const SHARE_MAX: u64 = 80;

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
    /// The picture as H.264 at the source's size, rate and keyframes: for players that play nothing newer, and for WebRTC.
    pub const ALIKE: Self = Self {
        id: TrackId::rung(0).expect("there may be one"),
        made: Made::Video,
        setting: Setting {
            lines: u32::MAX,
            pace: Pace::Full,
            bitrate: 0,
            buffer_ms: ALIKE_BUFFER_MS,
            gop_ms: 0,
            when: When::Asked,
        },
        divisor: 1,
        source_rate: 0.0,
        in_part: 1,
        segment_ms_max: 0,
        long_gop: false,
        cut_every_ms: 0,
    };

    /// All that can be made of a stream on this grid, best first.
    pub fn all(ladder: &Ladder, grid: &Grid) -> Vec<Self> {
        let (segment_ms_max, long_gop) = (timeline::segment_ms_max(grid.target_duration), !grid.independent_segments);
        let cut_every_ms = if grid.constant { grid.target_duration * 1000 } else { 0 };
        let in_part = (f64::from(grid.part_target_ms) * grid.frame_rate / 1000.0).round().max(1.0) as u32;
        let made = ladder.settings().iter().zip(1..).filter(|(setting, _)| setting.when != When::Never);
        let of_ladder = made.map(|(setting, number)| {
            let (id, made) = (TrackId::rung(number).expect("as many as a ladder has"), Made::Rung(number));
            let divisor = setting.divisor(grid.frame_rate, in_part);
            let source_rate = grid.frame_rate;
            Self { id, made, setting: *setting, divisor, source_rate, in_part, segment_ms_max, long_gop, cut_every_ms }
        });
        // It has the source's keyframes where those are enough to begin at.
        let gop_ms = if long_gop { ladder::GOP_MS } else { cut_every_ms };
        let setting = Setting { gop_ms, ..Self::ALIKE.setting };
        let source_rate = grid.frame_rate;
        let alike = Self { setting, source_rate, in_part, segment_ms_max, long_gop, cut_every_ms, ..Self::ALIKE };
        std::iter::once(alike).chain(of_ladder).collect()
    }

    pub fn is_alike(&self) -> bool {
        self.made == Made::Video
    }

    /// Whether viewers need it beside a source of these parameters, which costs so many bits a second, as far as is known.
    pub fn is_needed(&self, parameters: &Parameters, source: Option<u64>) -> bool {
        if self.is_alike() {
            return self.long_gop || matches!(parameters, Parameters::Hevc(_) | Parameters::Av1(_));
        }
        source.is_none_or(|source| u64::from(self.setting.bitrate) * 100 <= source * SHARE_MAX)
    }

    /// Pictures a second; 0 where nobody knows.
    pub fn frame_rate(&self) -> f64 {
        self.source_rate / f64::from(self.divisor.max(1))
    }

    /// Bits a second that its encoder is given at most, of a source of so many.
    pub fn bitrate(&self, source: u64) -> u64 {
        match self.setting.bitrate {
            0 => (source * DENSER_HALVES / 2).clamp(BITRATE_MIN.into(), BITRATE_MAX.into()),
            bits => bits.into(),
        }
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

const _: () = assert!(SETTINGS_MAX + 1 == TrackId::RUNGS_MAX as usize, "a rung a setting, and one at the source's size");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::h264;

    fn grid(frame_rate: f64, part_target_ms: u32) -> Grid {
        Grid { target_duration: 4, part_target_ms, independent_segments: true, frame_rate, ..Grid::default() }
    }

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
    fn a_picture_alike_costs_more_than_a_denser_source_within_limits() {
        assert_eq!([100_000, 2_000_000, 50_000_000].map(|bits| Rung::ALIKE.bitrate(bits)), [500_000, 3_000_000, 8_000_000]);
    }

    #[test]
    fn rungs_follow_the_grid() {
        let paces =
            |rate, part| Rung::all(&Ladder::legible(), &grid(rate, part)).iter().map(Rung::frame_rate).collect::<Vec<_>>();
        assert_eq!(paces(30.0, 200), [30.0, 30.0, 10.0, 10.0, 5.0]);
        assert_eq!(paces(60.0, 200), [60.0, 60.0, 10.0, 10.0, 5.0]);
        assert_eq!(paces(15.0, 200), [15.0, 15.0, 15.0, 15.0, 5.0]);
        let odd = paces(30_000.0 / 1001.0, 201);
        assert!((odd[2] * 3.0 - odd[0]).abs() < 1e-9 && (odd[4] * 6.0 - odd[0]).abs() < 1e-9, "{odd:?}");
    }

    #[test]
    fn one_that_is_switched_off_leaves_the_others_their_names() {
        let ladder = Ladder::parse("1080p 1500k, 900p10 800k never, 720p5 200k always").unwrap();
        let made: Vec<_> = Rung::all(&ladder, &grid(30.0, 200)).iter().map(|rung| rung.made).collect();
        assert_eq!(made, [Made::Video, Made::Rung(1), Made::Rung(3)]);
    }

    #[test]
    fn a_rung_near_the_sources_own_cost_is_of_no_use() {
        let all = Rung::all(&Ladder::legible(), &grid(30.0, 200));
        let record = bytes::Bytes::from_static(h264::tests::RECORD_360P30);
        let h264 = Parameters::H264(h264::Parameters::parse(record).unwrap());
        let needed = |source| all.iter().filter(|rung| rung.is_needed(&h264, source)).count();
        assert_eq!([None, Some(4_000_000), Some(1_800_000), Some(1_000_000), Some(450_000)].map(needed), [4, 4, 3, 3, 1]);
    }
}
