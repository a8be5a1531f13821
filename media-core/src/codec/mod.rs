//! One file a codec: all that is known of it.

pub mod aac;
pub mod av1;
pub mod fuzz;
pub mod h264;
pub mod hevc;
pub mod opus;

/// Widest and highest picture taken: 8K is 7680 wide, and what is larger would make decoders look for gigabytes.
pub const PICTURE_SIDE_MAX: u32 = 8192;

/// A size that a picture may have.
pub(crate) fn is_picture_size(width: u32, height: u32) -> bool {
    let sides = 1..=PICTURE_SIDE_MAX;
    sides.contains(&width) && sides.contains(&height)
}

/// Frames a second, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate {
    pub frames: u32,
    pub seconds: u32,
}

impl FrameRate {
    /// So many `ticks_per_second`, of which a frame lasts `ticks`. `None` for what no camera does: what a bitstream says
    /// of its rate is a promise, and sometimes nonsense.
    pub(crate) fn of_ticks(ticks_per_second: u64, ticks: u64) -> Option<Self> {
        let divisor = gcd(ticks_per_second, ticks);
        let (frames, seconds) = (ticks_per_second.checked_div(divisor)?, ticks.checked_div(divisor)?);
        let rate = Self { frames: u32::try_from(frames).ok()?, seconds: u32::try_from(seconds).ok()? };
        (0.1..=480.0).contains(&rate.as_f64()).then_some(rate)
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest distance between keyframes, in frames, out of the settings that x264 and x265 write into an SEI message
/// ("... keyint=60 keyint_min=6 ..." and "... min-keyint=25 keyint=60 ...").
fn written_keyframe_interval(settings: &[u8]) -> Option<u32> {
    let at = settings.windows(8).position(|window| window == b" keyint=")? + 8;
    let digits: String = settings[at..].iter().take(6).take_while(|b| b.is_ascii_digit()).map(|&b| char::from(b)).collect();
    digits.parse().ok().filter(|&frames| frames > 0)
}
