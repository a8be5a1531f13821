//! A tone as AAC-LC, coded once by ffmpeg and repeated for ever. Its period divides an AAC frame,
//! so any frame may follow any other without a click.

use std::process::{Command, Stdio};

use bytes::Bytes;

use crate::flv::{self, Kind, Tag};

pub const SAMPLE_RATE: u32 = 48_000;
/// Samples a channel in one AAC-LC frame.
pub const FRAME_SAMPLES: u32 = 1024;
/// Ten periods in one frame.
const TONE_HZ: &str = "468.75";
/// The first frames hold the encoder's priming.
const FRAMES_SKIPPED: usize = 8;
/// The last hold its end.
const FRAMES_KEPT: usize = 32;

pub struct Tone {
    /// The AudioSpecificConfig as a message's body.
    pub header: Bytes,
    frames: Vec<Bytes>,
}

impl Tone {
    /// Runs ffmpeg for about 50 ms.
    pub fn encode() -> Result<Self, String> {
        let source = format!("sine=f={TONE_HZ}:r={SAMPLE_RATE}");
        let output = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-f", "lavfi", "-i", &source, "-t", "1"])
            .args(["-c:a", "aac", "-profile:a", "aac_low", "-b:a", "128k", "-ac", "2", "-f", "flv", "pipe:1"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("ffmpeg does not start: {error}"))?;
        let mut reader = flv::Reader::default();
        reader.push(&output.stdout);
        let tags = std::iter::from_fn(|| reader.next_tag().ok().flatten()).filter(|tag| tag.kind == Kind::Audio);
        let (headers, frames): (Vec<Tag>, Vec<Tag>) = tags.partition(Tag::is_sequence_header);
        let frames: Vec<Bytes> = frames.into_iter().skip(FRAMES_SKIPPED).take(FRAMES_KEPT).map(|tag| tag.body).collect();
        match headers.into_iter().next() {
            Some(header) if frames.len() == FRAMES_KEPT => Ok(Self { header: header.body, frames }),
            _ => Err("ffmpeg coded no tone".into()),
        }
    }

    /// The body of frame `number`, counted from the start of the stream.
    pub fn frame(&self, number: u64) -> &[u8] {
        &self.frames[(number % self.frames.len() as u64) as usize]
    }
}
