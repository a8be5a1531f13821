//! What pictures cost on this machine: as assumed at first, as the program measured it from then on (`--measure`).
//!
//! A price is of a million pixels, in thousandths of a core where there is one such million a second: milliseconds of one core.

use std::{fmt, ops::RangeInclusive, str::FromStr};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    pub encode: f64,
    pub scale: f64,
    pub decode: f64,
}

/// How far from what is assumed a price is believed: a clip of a second is no stream, and an encoder in hardware has threads, too.
pub const BELIEVED: RangeInclusive<f64> = 0.3..=4.0;

impl Prices {
    /// As x264 at `veryfast` and a decoder of H.264 were measured on a machine of 2020.
    pub const ASSUMED: Self = Self { encode: 4.0, scale: 0.6, decode: 2.4 };
}

/// What the program says, in one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub encoder: String,
    pub encode: f64,
    pub decoder: String,
    pub decode: f64,
}

impl From<&Measured> for Prices {
    fn from(measured: &Measured) -> Self {
        let assumed = Self::ASSUMED;
        let times = |measured: f64, assumed: f64| {
            let times = measured / assumed;
            if times.is_finite() { times.clamp(*BELIEVED.start(), *BELIEVED.end()) } else { 1.0 }
        };
        let (encode, decode) = (times(measured.encode, assumed.encode), times(measured.decode, assumed.decode));
        // Scaling is not measured. It is done by the processor, as decoding is.
        Self { encode: assumed.encode * encode, scale: assumed.scale * decode, decode: assumed.decode * decode }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { encoder, encode, decoder, decode } = self;
        write!(f, "encode {encoder} {encode:.2} decode {decoder} {decode:.2}")
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not say what was measured")]
pub struct Unreadable;

impl FromStr for Measured {
    type Err = Unreadable;

    fn from_str(line: &str) -> Result<Self, Unreadable> {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["encode", encoder, encode, "decode", decoder, decode] = words[..] else { return Err(Unreadable) };
        let price = |text: &str| text.parse().map_err(|_| Unreadable);
        Ok(Self { encoder: encoder.into(), encode: price(encode)?, decoder: decoder.into(), decode: price(decode)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let measured = Measured { encoder: "x264enc".into(), encode: 5.25, decoder: "avdec_h264".into(), decode: 1.5 };
        assert_eq!(measured.to_string(), "encode x264enc 5.25 decode avdec_h264 1.50");
        assert_eq!(format!("{measured}\n").parse(), Ok(measured));
        for line in
            ["", "encode x264enc", "encode x264enc fast decode avdec_h264 1", "decode a 1 encode b 2", "encode a 1 decode b 2 c"]
        {
            assert_eq!(line.parse::<Measured>(), Err(Unreadable), "{line}");
        }
    }

    #[test]
    fn what_was_measured_is_believed_within_bounds() {
        let check = |encode, decode, expected: [f64; 3]| {
            let prices = Prices::from(&Measured { encoder: String::new(), encode, decoder: String::new(), decode });
            for (price, expected) in [prices.encode, prices.scale, prices.decode].into_iter().zip(expected) {
                assert!((price - expected).abs() < 1e-9, "{encode} and {decode}: {prices:?}");
            }
        };
        check(4.0, 2.4, [4.0, 0.6, 2.4]);
        check(6.0, 4.8, [6.0, 1.2, 4.8]);
        check(0.0, -1.0, [1.2, 0.18, 0.72]);
        check(1e9, 1e9, [16.0, 2.4, 9.6]);
        check(f64::NAN, f64::INFINITY, [4.0, 0.6, 2.4]);
    }
}
