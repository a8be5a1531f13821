//! Which element encodes H.264: of those that are installed, the one that has failed least, in the order of the list, with
//! the settings that make each of them do the same: no B-frames, no look-ahead, a constant rate, keyframes on demand alone.
//!
//! Hardware goes first, for it costs no core. A driver that is installed without its device fails at its first picture, and
//! is passed over from then on, in every run of this process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use gst::prelude::*;

use crate::decoders::is_installed;

/// What an encoder is held to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Bits a second.
    pub bitrate: u32,
    pub buffer_ms: u32,
    /// `level_idc`, where the size is known.
    pub level: Option<u8>,
}

#[derive(Debug)]
pub struct Encoder {
    /// The factory's name.
    pub element: &'static str,
    /// What it takes.
    pub format: &'static str,
    /// Its properties, as in a description of a pipeline.
    describe: fn(Target) -> String,
    /// What makes access units of its output, their parameter sets apart.
    pub behind: &'static str,
    /// Bits in a unit of its property `bitrate`.
    bitrate_unit: u32,
}

impl Target {
    /// Of pictures that come so many times more seldom than the encoder was told: then all that it is told of time is off by that.
    pub fn slower(self, times: u32) -> Self {
        Self { bitrate: self.bitrate.saturating_mul(times), buffer_ms: self.buffer_ms / times.max(1), ..self }
    }
}

/// A distance between keyframes that nobody reaches: they are asked for.
const NO_KEYFRAMES: u32 = 100_000;

const HIGH: &str = "video/x-h264,profile=high,stream-format=avc,alignment=au";
const PARSED: &str = "h264parse ! video/x-h264,stream-format=avc,alignment=au";

const ENCODERS: [Encoder; 5] = [
    Encoder { element: "nvh264enc", format: "NV12", describe: nvenc, behind: PARSED, bitrate_unit: 1000 },
    Encoder { element: "vah264enc", format: "NV12", describe: va, behind: PARSED, bitrate_unit: 1000 },
    Encoder { element: "qsvh264enc", format: "NV12", describe: qsv, behind: PARSED, bitrate_unit: 1000 },
    Encoder { element: "x264enc", format: "I420", describe: x264, behind: HIGH, bitrate_unit: 1000 },
    Encoder { element: "openh264enc", format: "I420", describe: openh264, behind: PARSED, bitrate_unit: 1 },
];

fn nvenc(Target { bitrate, buffer_ms, .. }: Target) -> String {
    let (kbit, buffer) = (bitrate / 1000, bitrate / 1000 * buffer_ms / 1000);
    format!(
        "preset=low-latency-hq rc-mode=cbr bitrate={kbit} vbv-buffer-size={buffer} gop-size={NO_KEYFRAMES} bframes=0 rc-lookahead=0 \
         zerolatency=true strict-gop=true"
    )
}

fn va(Target { bitrate, buffer_ms, .. }: Target) -> String {
    let (kbit, buffer) = (bitrate / 1000, bitrate / 1000 * buffer_ms / 1000);
    // Its longest distance between keyframes.
    format!("rate-control=cbr bitrate={kbit} cpb-size={buffer} key-int-max=1024 b-frames=0 ref-frames=1 target-usage=4")
}

fn qsv(Target { bitrate, .. }: Target) -> String {
    format!("rate-control=cbr bitrate={} gop-size={NO_KEYFRAMES} b-frames=0 low-latency=true", bitrate / 1000)
}

/// `zerolatency` implies most of the rest; each is stated so that a preset cannot bring it back. More threads would cost a
/// picture of delay each.
fn x264(Target { bitrate, buffer_ms, level }: Target) -> String {
    let (kbit, level) = (bitrate / 1000, level.map_or_else(String::new, |level| format!(":level={level}")));
    format!(
        "tune=zerolatency speed-preset=veryfast pass=cbr bitrate={kbit} vbv-buf-capacity={buffer_ms} bframes=0 rc-lookahead=0 \
         sync-lookahead=0 mb-tree=false threads=1 sliced-threads=false aud=false key-int-max={NO_KEYFRAMES} \
         option-string=scenecut=0:open-gop=0{level}"
    )
}

fn openh264(Target { bitrate, .. }: Target) -> String {
    format!(
        "usage-type=screen complexity=low rate-control=bitrate bitrate={bitrate} max-bitrate={bitrate} gop-size={NO_KEYFRAMES} \
         enable-frame-skip=false multi-thread=1"
    )
}

impl Encoder {
    /// As an element of a description, named `encoder`.
    pub fn element(&self, target: Target) -> String {
        format!("{} name=encoder {}", self.element, (self.describe)(target))
    }

    /// Gives a running one another target: as many bits in its buffer as before.
    pub fn retarget(&self, element: &gst::Element, target: Target) {
        element.set_property("bitrate", self.bitrate(target.bitrate));
        // Others are told of their buffer in bits.
        if element.has_property("vbv-buf-capacity") {
            element.set_property("vbv-buf-capacity", target.buffer_ms);
        }
    }

    /// For its property `bitrate`.
    pub fn bitrate(&self, bits: u32) -> u32 {
        bits / self.bitrate_unit
    }
}

/// The encoders of this process, best first.
#[derive(Debug)]
pub struct Encoders {
    listed: &'static [Encoder],
    failures: Mutex<BTreeMap<&'static str, u32>>,
}

impl Default for Encoders {
    fn default() -> Self {
        Self::among(&ENCODERS)
    }
}

impl Encoders {
    pub fn among(listed: &'static [Encoder]) -> Self {
        Self { listed, failures: Mutex::default() }
    }

    /// Those that are installed, in the order in which they are to be tried.
    pub fn all(&self) -> Vec<&'static Encoder> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = self.listed.iter().filter(|encoder| is_installed(encoder.element)).collect();
        all.sort_by_key(|encoder| failures.get(encoder.element).copied().unwrap_or(0));
        all
    }

    /// The next run has another, if there is one that failed less.
    pub fn demote(&self, encoder: &Encoder, why: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = failures.entry(encoder.element).or_default();
        *failures += 1;
        eprintln!("the encoder {} has failed, {failures} in all: {why}", encoder.element);
    }
}

/// None is installed: the name of the one to install.
pub fn lacks_h264() -> Option<&'static str> {
    ENCODERS.iter().all(|encoder| !is_installed(encoder.element)).then_some("x264enc")
}

/// The first is there and cannot be set up, as an element of another version.
#[cfg(test)]
pub const FIRST_FAILS: [Encoder; 2] = [
    Encoder { element: "identity", format: "I420", describe: |_| "no-such-property=1".to_owned(), behind: HIGH, bitrate_unit: 1 },
    Encoder { element: "x264enc", format: "I420", describe: x264, behind: HIGH, bitrate_unit: 1000 },
];
