//! Ladders: which pictures are made of a source's for viewers on slower lines, by configuration.
//!
//! Code is read, not watched: `legible` keeps the pixels and lets go of frames, because text that is scaled down cannot be
//! read however smoothly it moves. `motion` does what films and games need.

/// Entries of a ladder at most: the 100 kbit/s one is the sixth.
pub const SETTINGS_MAX: usize = 6;
/// Distance between keyframes of a rung that fits two GOPs into a segment of 4 s.
pub const GOP_MS: u32 = 2000;
/// And of one that cannot afford two: a keyframe is most of what a slow rung costs.
const LONG_GOP_MS: u32 = 4000;
const BUFFER_MS: u32 = 1000;
/// Which rungs of a list those are.
const LONG_GOP_PACE_MAX: u32 = 15;
const LONG_GOP_KILOBITS_MAX: u32 = 400;
/// Pictures a second of a rung of `auto` while little changes, as `legible` has them: by its kilobits a second.
const SLOW_PACES: [(u32, u32); 2] = [(300, 10), (0, 5)];
/// What a list may ask for.
const LINES: std::ops::RangeInclusive<u32> = 90..=4320;
const PACES: std::ops::RangeInclusive<u32> = 1..=240;
const KILOBITS: std::ops::RangeInclusive<u32> = 30..=50_000;

/// One entry of a ladder: what the encoder is held to, whatever the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The picture's shorter side in pixels, at most.
    pub lines: u32,
    pub pace: Pace,
    /// Bits a second.
    pub bitrate: u32,
    /// The encoder's buffer: how much of its rate may come at once, in milliseconds.
    pub buffer_ms: u32,
    /// Keyframes come at every cut of the presentation, and this far apart between cuts.
    pub gop_ms: u32,
    pub when: When,
}

/// When a rung is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While somebody asks for it.
    Asked,
    /// While the stream is live.
    Always,
    /// Nor is it listed: the others keep their names.
    Never,
}

/// Pictures a second of a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All that the source has.
    Full,
    /// A whole fraction of the source's that comes nearest, so that Parts hold whole pictures.
    About(u32),
    /// All while much of the picture moves for long, as in a film; else a few, as code needs them.
    Auto,
}

/// What is made of every stream's picture, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ladder(Vec<Setting>);

const fn setting(lines: u32, pace: Pace, kbit: u32, buffer_ms: u32, gop_ms: u32) -> Setting {
    Setting { lines, pace, bitrate: kbit * 1000, buffer_ms, gop_ms, when: When::Asked }
}

impl Ladder {
    pub const NAMES: [&str; 3] = ["legible", "motion", "none"];

    /// By name, or as a list: `1080p 1500k, 900p10 400k always` is 1080 lines at the source's rate, and 900 lines at about 10
    /// pictures a second whether anybody asks for them or not; `never` would switch one off. `900p auto 400k` goes by what
    /// moves. The error is a sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "legible" => Ok(Self::legible()),
            "motion" => Ok(Self::motion()),
            "none" => Ok(Self::default()),
            list => {
                let settings: Vec<_> = list.split(',').map(Setting::parse).collect::<Result<_, _>>()?;
                match settings.len() {
                    0..=SETTINGS_MAX => Ok(Self(settings)),
                    more => Err(format!("has {more} rungs, at most {SETTINGS_MAX} are made")),
                }
            }
        }
    }

    /// Measured on code, terminals and light themes (`docs/legibility.md`).
    pub fn legible() -> Self {
        Self(vec![
            setting(1080, Pace::Full, 1500, 1000, GOP_MS),
            setting(900, Pace::About(10), 800, 1000, GOP_MS),
            setting(900, Pace::About(10), 400, 2000, LONG_GOP_MS),
            setting(720, Pace::About(5), 200, 2000, LONG_GOP_MS),
        ])
    }

    /// As films are streamed: fewer pixels at every step, and all pictures.
    pub fn motion() -> Self {
        Self(vec![
            setting(720, Pace::Full, 1500, 1000, GOP_MS),
            setting(480, Pace::Full, 800, 1000, GOP_MS),
            setting(360, Pace::Full, 400, 1000, GOP_MS),
            setting(240, Pace::Full, 200, 1000, GOP_MS),
        ])
    }

    pub fn settings(&self) -> &[Setting] {
        &self.0
    }

    /// Segments must hold the longest GOP: seconds, 0 where any will do.
    pub fn target_duration_min(&self) -> u32 {
        let made = self.0.iter().filter(|setting| setting.when != When::Never);
        let longest = made.map(|setting| setting.gop_ms).max().unwrap_or(0);
        if longest > GOP_MS { longest.div_ceil(1000) } else { 0 }
    }
}

impl Setting {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "has {:?}, where a rung is its lines and kilobits a second, as in \"1080p 1500k\" or, at about 10 pictures a second, \
                 \"900p10 400k\"; or it is one of {}",
                text.trim(),
                Ladder::NAMES.join(", ")
            )
        };
        let words: Vec<_> = text.split_whitespace().collect();
        let (words, when) = match &words[..] {
            [words @ .., "always"] => (words, When::Always),
            [words @ .., "never"] => (words, When::Never),
            words => (words, When::Asked),
        };
        let (picture, auto, rate) = match *words {
            [picture, rate] => (picture, false, rate),
            [picture, "auto", rate] => (picture, true, rate),
            _ => return Err(wrong()),
        };
        let (lines, pace) = picture.split_once('p').ok_or_else(wrong)?;
        let lines = lines.parse().ok().filter(|lines| LINES.contains(lines)).ok_or_else(wrong)?;
        let pace = match pace {
            "" if auto => Pace::Auto,
            "" => Pace::Full,
            _ if auto => return Err(wrong()),
            fps => Pace::About(fps.parse().ok().filter(|fps| PACES.contains(fps)).ok_or_else(wrong)?),
        };
        let kbit = rate.strip_suffix('k').and_then(|kbit| kbit.parse().ok()).filter(|kbit| KILOBITS.contains(kbit));
        let kbit = kbit.ok_or_else(wrong)?;
        // What is slow in both has no bits for a second keyframe.
        let slow = matches!(pace, Pace::About(fps) if fps <= LONG_GOP_PACE_MAX) || auto;
        let long = slow && kbit <= LONG_GOP_KILOBITS_MAX;
        let (buffer_ms, gop_ms) = if long { (2 * BUFFER_MS, LONG_GOP_MS) } else { (BUFFER_MS, GOP_MS) };
        Ok(Self { when, ..setting(lines, pace, kbit, buffer_ms, gop_ms) })
    }

    /// Width and height of what is made of a source.
    pub fn size(&self, source: (u32, u32)) -> (u32, u32) {
        scaled(self.lines, source)
    }

    /// Every how many-th picture is taken of a source with so many a second, `in_part` of them in a Part: a divisor of that
    /// number, so that every Part of the rung holds whole pictures, and as many as its length needs.
    pub fn divisor(&self, frame_rate: f64, in_part: u32) -> u32 {
        let Pace::About(wanted) = self.pace else { return 1 };
        nearest_divisor(wanted, frame_rate, in_part)
    }

    /// The same while little changes; only `auto` has another one then.
    pub fn slow_divisor(&self, frame_rate: f64, in_part: u32) -> u32 {
        let fits = |(kbit, _): &&(u32, u32)| self.bitrate >= kbit * 1000;
        match SLOW_PACES.iter().find(fits) {
            Some((_, wanted)) if self.pace == Pace::Auto => nearest_divisor(*wanted, frame_rate, in_part),
            _ => self.divisor(frame_rate, in_part),
        }
    }
}

fn nearest_divisor(wanted: u32, frame_rate: f64, in_part: u32) -> u32 {
    let off = |divisor: &u32| (frame_rate / f64::from(*divisor) - f64::from(wanted)).abs();
    let fits = (1..=in_part).filter(|divisor| in_part.is_multiple_of(*divisor));
    fits.min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(1)
}

/// A picture of this width and height with `lines` on its shorter side at most: in proportion, even, never larger.
pub fn scaled(lines: u32, (width, height): (u32, u32)) -> (u32, u32) {
    let shorter = width.min(height).max(1);
    if shorter <= lines {
        return (width, height);
    }
    let side = |side: u32| {
        let exact = u64::from(side) * u64::from(lines);
        // To the nearest even number: 4:2:0 halves both sides.
        let half = (exact + u64::from(shorter)) / (2 * u64::from(shorter));
        u32::try_from(2 * half).unwrap_or(u32::MAX).max(2)
    };
    (side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_shape_and_never_grows() {
        let nine_hundred = setting(900, Pace::Full, 800, 1000, GOP_MS);
        let check = |source, made| assert_eq!(nine_hundred.size(source), made, "of {source:?}");
        check((1920, 1080), (1600, 900));
        check((1080, 1920), (900, 1600));
        check((1280, 720), (1280, 720));
        check((3840, 2160), (1600, 900));
        check((1366, 1024), (1200, 900));
        check((1921, 1081), (1600, 900));
        check((853, 901), (853, 901));
        check((2560, 1080), (2134, 900));
    }

    #[test]
    fn a_slow_rung_takes_whole_parts_apart() {
        let ten = setting(900, Pace::About(10), 800, 1000, GOP_MS);
        let five = setting(720, Pace::About(5), 200, 2000, LONG_GOP_MS);
        let check = |rate, in_part, tenth, fifth| {
            assert_eq!((ten.divisor(rate, in_part), five.divisor(rate, in_part)), (tenth, fifth), "at {rate}");
        };
        check(30.0, 6, 3, 6);
        check(29.97, 6, 3, 6);
        check(25.0, 6, 3, 6);
        check(60.0, 12, 6, 12);
        check(50.0, 12, 6, 12);
        check(15.0, 3, 1, 3);
        check(20.0, 4, 2, 4);
        check(120.0, 24, 12, 24);
        check(5.0, 1, 1, 1);
        assert_eq!((ten.slow_divisor(30.0, 6), five.slow_divisor(30.0, 6)), (3, 6), "they have one pace");
    }

    #[test]
    fn what_moves_decides_the_pace_of_auto() {
        let list = Ladder::parse("900p auto 400k, 720p auto 200k always, 720p auto 800k").unwrap();
        let paces = list.settings().iter().map(|auto| (auto.divisor(30.0, 6), auto.slow_divisor(30.0, 6)));
        assert_eq!(paces.collect::<Vec<_>>(), [(1, 3), (1, 6), (1, 3)]);
        assert_eq!(list.settings().iter().map(|auto| auto.gop_ms).collect::<Vec<_>>(), [4000, 4000, 2000]);
        assert_eq!(list.settings()[1].when, When::Always);
        assert!(Ladder::parse("900p10 auto 400k").is_err() && Ladder::parse("900p auto").is_err());
    }

    #[test]
    fn a_segment_holds_the_longest_gop() {
        let of = |name| Ladder::parse(name).unwrap().target_duration_min();
        assert_eq!(Ladder::NAMES.map(of), [4, 0, 0]);
        assert_eq!(of("1080p 1500k, 720p5 200k never"), 0);
        assert_eq!(Ladder::parse("none"), Ok(Ladder::default()));
    }

    #[test]
    fn a_list_says_what_a_name_says() {
        let list = Ladder::parse("1080p 1500k, 900p10 800k, 900p10 400k, 720p5 200k");
        assert_eq!(list, Ok(Ladder::legible()));
        let when = |text: &str| Ladder::parse(text).unwrap().settings()[0].when;
        assert_eq!(["720p5 100k", "720p5 100k always", "720p5 100k never"].map(when), [When::Asked, When::Always, When::Never]);
        let refused = |text: &str, part: &str| {
            let error = Ladder::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused("legibel", "\"legibel\", where a rung is");
        refused("1080p 1500k,", "has \"\",");
        refused("1080p 1500", "kilobits");
        refused("10p 1500k", "lines");
        refused("900p 400k sometimes", "sometimes");
        refused("900p0 400k", "900p0");
        refused(&["720p 800k"; 7].join(","), "has 7 rungs, at most 6");
    }
}
