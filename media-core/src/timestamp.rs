//! Media time: ticks that never travel without their scale.

use std::{cmp::Ordering, fmt, num::NonZeroU32, time::Duration};

/// Ticks a second. RTMP counts milliseconds, an audio track its sample rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timescale(NonZeroU32);

impl Timescale {
    pub const MILLIS: Self = Self(NonZeroU32::new(1000).expect("1000 is not 0"));
    pub const MICROS: Self = Self(NonZeroU32::new(1_000_000).expect("1000000 is not 0"));

    /// `None` for 0 ticks a second, which counts nothing.
    pub const fn new(ticks_per_second: u32) -> Option<Self> {
        match NonZeroU32::new(ticks_per_second) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    pub const fn ticks_per_second(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for Timescale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A point on a media timeline, or a distance between two. Signed: a presentation is re-based,
/// and an encoder may start before zero.
#[derive(Clone, Copy)]
pub struct Timestamp {
    pub ticks: i64,
    pub scale: Timescale,
}

impl Timestamp {
    pub const ZERO: Self = Self::new(0, Timescale::MILLIS);

    pub const fn new(ticks: i64, scale: Timescale) -> Self {
        Self { ticks, scale }
    }

    pub const fn from_millis(ms: i64) -> Self {
        Self::new(ms, Timescale::MILLIS)
    }

    pub const fn from_micros(us: i64) -> Self {
        Self::new(us, Timescale::MICROS)
    }

    /// The same moment in another scale, rounded to the nearest tick (halves upward).
    pub fn to(self, scale: Timescale) -> Self {
        if self.scale == scale {
            return self;
        }
        let (from, into) = (i128::from(self.scale.ticks_per_second()), i128::from(scale.ticks_per_second()));
        let ticks = (i128::from(self.ticks) * into * 2 + from).div_euclid(from * 2);
        Self::new(i64::try_from(ticks).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX }), scale)
    }

    pub fn ticks_in(self, scale: Timescale) -> i64 {
        self.to(scale).ticks
    }

    pub fn as_micros(self) -> i64 {
        self.ticks_in(Timescale::MICROS)
    }

    pub fn as_secs_f64(self) -> f64 {
        self.ticks as f64 / f64::from(self.scale.ticks_per_second())
    }

    /// As a `Duration`; times before zero are zero.
    pub fn to_duration(self) -> Duration {
        Duration::from_micros(u64::try_from(self.as_micros()).unwrap_or(0))
    }
}

impl std::ops::Add for Timestamp {
    type Output = Self;
    /// In the scale of the left side.
    fn add(self, rhs: Self) -> Self {
        Self::new(self.ticks.saturating_add(rhs.ticks_in(self.scale)), self.scale)
    }
}

impl std::ops::Sub for Timestamp {
    type Output = Self;
    /// In the scale of the left side.
    fn sub(self, rhs: Self) -> Self {
        Self::new(self.ticks.saturating_sub(rhs.ticks_in(self.scale)), self.scale)
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    /// Exact across scales: no rounding decides an order.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (i128::from(self.ticks), i128::from(other.ticks));
        let (sa, sb) = (i128::from(self.scale.ticks_per_second()), i128::from(other.scale.ticks_per_second()));
        (a * sb).cmp(&(b * sa))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ticks, self.scale.ticks_per_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(n: u32) -> Timescale {
        Timescale::new(n).unwrap()
    }

    #[test]
    fn rescaling_rounds_to_the_nearest_tick() {
        let check = |ticks, from, into, expected| {
            assert_eq!(Timestamp::new(ticks, scale(from)).ticks_in(scale(into)), expected, "{ticks}/{from} in 1/{into}");
        };
        check(1000, 1000, 44_100, 44_100);
        check(1, 1000, 44_100, 44);
        check(-1, 1000, 44_100, -44);
        check(1024, 44_100, 1000, 23);
        check(1024, 48_000, 1_000_000, 21_333);
        check(5, 10, 1, 1);
        check(-5, 10, 1, 0);
        check(i64::MAX, 1, 1000, i64::MAX);
    }

    #[test]
    fn order_is_exact_across_scales() {
        assert!(Timestamp::new(1, scale(3)) > Timestamp::new(333, scale(1000)));
        assert!(Timestamp::new(1, scale(3)) < Timestamp::new(334, scale(1000)));
        assert_eq!(Timestamp::new(48_000, scale(48_000)), Timestamp::from_millis(1000));
    }
}
