//! AAC (ISO/IEC 14496-3), as RTMP and fMP4 carry it: raw access units and an AudioSpecificConfig.

use std::fmt;

use bytes::Bytes;
use scuffle_aac::PartialAudioSpecificConfig;

/// Longest AudioSpecificConfig taken; real ones have 2 to 20 bytes.
const CONFIG_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("AAC: the AudioSpecificConfig is {0} bytes long, at most {CONFIG_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("AAC: the AudioSpecificConfig cannot be read: {0}")]
    Config(String),
    #[error("AAC: {0} samples a second are outside 7,350 to 96,000")]
    SampleRate(u32),
}

/// What a decoder must know before the first frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The AudioSpecificConfig as it came (ISO/IEC 14496-3 1.6.2.1).
    pub config: Bytes,
    /// 2 is AAC-LC.
    pub object_type: u16,
    /// PCM samples a second and channel of the AAC core.
    pub sample_rate: u32,
    /// channelConfiguration: 0 means that the bitstream says it; 7 means 8 channels.
    pub channel_configuration: u8,
    /// PCM samples a frame: 1024, or 960 where the configuration asks for it.
    pub frame_length: u32,
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aac({} {} Hz, {} channels)", self.codec_string(), self.sample_rate, self.channels())
    }
}

impl Parameters {
    pub fn parse(config: Bytes) -> Result<Self, Error> {
        if config.len() > CONFIG_BYTES_MAX {
            return Err(Error::TooLong(config.len()));
        }
        let parsed = PartialAudioSpecificConfig::parse(&config).map_err(|e| Error::Config(e.to_string()))?;
        if !(7350..=96_000).contains(&parsed.sampling_frequency) {
            return Err(Error::SampleRate(parsed.sampling_frequency));
        }
        let object_type = u16::from(parsed.audio_object_type);
        Ok(Self {
            object_type,
            sample_rate: parsed.sampling_frequency,
            channel_configuration: parsed.channel_configuration,
            frame_length: if has_short_frames(&config, object_type) { 960 } else { 1024 },
            config,
        })
    }

    /// RFC 6381: `mp4a.40.` and the audio object type.
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }

    /// Channels heard, with 2 for a configuration that leaves it to the bitstream.
    pub fn channels(&self) -> u8 {
        match self.channel_configuration {
            0 => 2,
            7 => 8,
            n => n,
        }
    }
}

/// frameLengthFlag, the first bit of GASpecificConfig: behind 5 + 4 + 4 bits for AAC-LC at a
/// rate from the table, the only place where encoders set it.
fn has_short_frames(config: &[u8], object_type: u16) -> bool {
    object_type == 2
        && config.len() >= 2
        && config[0] >> 3 == 2
        && (config[0] & 7) << 1 | config[1] >> 7 != 15
        && config[1] & 0b100 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &'static [u8]) -> Result<Parameters, Error> {
        Parameters::parse(Bytes::from_static(config))
    }

    #[test]
    fn a_config_tells_rate_channels_and_frame_length() {
        let check = |config, codec, rate, channels, frame| {
            let p = parse(config).unwrap();
            assert_eq!((p.codec_string().as_str(), p.sample_rate, p.channels(), p.frame_length), (codec, rate, channels, frame));
        };
        check(&[0x11, 0x90], "mp4a.40.2", 48_000, 2, 1024); // OBS, ffmpeg
        check(&[0x12, 0x08, 0x56, 0xe5, 0x00], "mp4a.40.2", 44_100, 1, 1024); // ffmpeg, mono
        check(&[0x11, 0x94], "mp4a.40.2", 48_000, 2, 960);
        check(&[0x2b, 0x11, 0x88, 0x00], "mp4a.40.5", 24_000, 2, 1024); // HE-AAC, explicit
    }

    #[test]
    fn a_broken_config_is_an_error() {
        assert!(matches!(parse(&[]), Err(Error::Config(_))));
        assert!(matches!(parse(&[0x11]), Err(Error::Config(_))));
        assert!(matches!(parse(&[0x17, 0x80, 0, 0, 0x10, 0]), Err(Error::SampleRate(_))));
        assert_eq!(Parameters::parse(Bytes::from(vec![0; 300])), Err(Error::TooLong(300)));
    }
}
