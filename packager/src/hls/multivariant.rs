//! The Multivariant Playlist: which renditions there are, and what each costs.

use std::sync::OnceLock;

use bytes::Bytes;
use m3u8_rs::{AlternativeMedia, AlternativeMediaType, MasterPlaylist, Resolution, VariantStream};
use media_core::{Parameters, Track};

use super::playlist::gzip;

const AUDIO_GROUP: &str = "audio";
/// Bits a pixel that screen encoders use at most, where the publisher announces no rate.
const BITS_A_PIXEL: f64 = 0.1;
/// Bits a second of an audio track whose publisher announces none.
const AUDIO_BITRATE: u64 = 192_000;

/// What a presentation's bits cost, from what was announced and what was seen. BANDWIDTH may only
/// rise: a player that chose a variant by it must not be told afterwards that it was too dear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    announced: Option<u64>,
    peak: u64,
    bits: u64,
    micros: u64,
}

impl Bandwidth {
    pub fn announce(&mut self, bits_per_second: Option<u64>) {
        self.announced = bits_per_second.or(self.announced);
    }

    /// A closed segment of all the renditions that are played together.
    pub fn observe(&mut self, bytes: usize, duration_us: i64) {
        let micros = u64::try_from(duration_us).unwrap_or(0);
        if micros == 0 {
            return;
        }
        let bits = bytes as u64 * 8;
        self.peak = self.peak.max(bits.saturating_mul(1_000_000) / micros);
        self.bits += bits;
        self.micros += micros;
    }

    /// BANDWIDTH and AVERAGE-BANDWIDTH. `guess` serves where nothing was announced or seen.
    fn rates(&self, guess: u64) -> (u64, u64) {
        let announced = self.announced.unwrap_or(if self.micros == 0 { guess } else { 0 });
        let average = self.bits.saturating_mul(1_000_000).checked_div(self.micros).unwrap_or(announced);
        let peak = (announced * 13 / 10).max(self.peak).max(average).max(1);
        (peak, average.clamp(1, peak))
    }
}

/// What the playlist says; rendered anew when it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub video: Option<Video>,
    pub audio: Option<Audio>,
    pub bandwidth: (u64, u64),
    /// Every segment opens with a keyframe.
    pub independent_segments: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    pub uri: &'static str,
    pub codec: String,
    pub width: u32,
    pub height: u32,
    pub frame_rate: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    pub uri: &'static str,
    pub codec: String,
    pub channels: u8,
}

impl Offer {
    pub fn new(
        video: Option<(&'static str, &Track, f64)>,
        audio: Option<(&'static str, &Track)>,
        bandwidth: &Bandwidth,
        independent_segments: bool,
    ) -> Self {
        let video = video.and_then(|(uri, track, frame_rate)| match &track.parameters {
            Parameters::H264(p) => Some(Video { uri, codec: track.codec_string(), width: p.width, height: p.height, frame_rate }),
            Parameters::Aac(_) | Parameters::Opus(_) => None,
        });
        let audio = audio.and_then(|(uri, track)| match &track.parameters {
            Parameters::Aac(p) => Some(Audio { uri, codec: track.codec_string(), channels: p.channels() }),
            Parameters::Opus(p) => Some(Audio { uri, codec: track.codec_string(), channels: p.channels }),
            Parameters::H264(_) => None,
        });
        let pixels = |v: &Video| (f64::from(v.width) * f64::from(v.height) * v.frame_rate * BITS_A_PIXEL) as u64;
        let guess = video.as_ref().map_or(0, pixels) + audio.as_ref().map_or(0, |_| AUDIO_BITRATE);
        Self { video, audio, bandwidth: bandwidth.rates(guess), independent_segments }
    }

    pub fn render(&self) -> Multivariant {
        let mut codecs: Vec<&str> = Vec::new();
        codecs.extend(self.video.as_ref().map(|v| v.codec.as_str()));
        codecs.extend(self.audio.as_ref().map(|a| a.codec.as_str()));
        let variant = VariantStream {
            uri: self.video.as_ref().map(|v| v.uri).or(self.audio.as_ref().map(|a| a.uri)).unwrap_or_default().to_owned(),
            bandwidth: self.bandwidth.0,
            average_bandwidth: Some(self.bandwidth.1),
            codecs: Some(codecs.join(",")),
            resolution: self.video.as_ref().map(|v| Resolution { width: v.width.into(), height: v.height.into() }),
            frame_rate: self.video.as_ref().map(|v| (v.frame_rate * 1000.0).round() / 1000.0),
            audio: self.audio.as_ref().map(|_| AUDIO_GROUP.to_owned()),
            ..VariantStream::default()
        };
        let alternatives = self.audio.iter().map(|audio| AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            // Without an address where the variant itself is the audio.
            uri: self.video.as_ref().map(|_| audio.uri.to_owned()),
            group_id: AUDIO_GROUP.to_owned(),
            name: "Sound".to_owned(),
            default: true,
            autoselect: true,
            channels: Some(audio.channels.to_string()),
            ..AlternativeMedia::default()
        });
        let playlist = MasterPlaylist {
            version: Some(9),
            independent_segments: self.independent_segments,
            alternatives: alternatives.collect(),
            variants: vec![variant],
            ..MasterPlaylist::default()
        };
        let mut text = Vec::with_capacity(512);
        playlist.write_to(&mut text).expect("writing into memory does not fail");
        Multivariant { plain: text.into(), gzip: OnceLock::new() }
    }
}

/// Rendered once, shared by all.
#[derive(Debug)]
pub struct Multivariant {
    plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Multivariant {
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.plain)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(video: bool, audio: bool) -> Offer {
        Offer {
            video: video.then(|| Video {
                uri: "video.m3u8",
                codec: "avc1.64001f".into(),
                width: 1280,
                height: 720,
                frame_rate: 30_000.0 / 1001.0,
            }),
            audio: audio.then(|| Audio { uri: "audio.m3u8", codec: "mp4a.40.2".into(), channels: 2 }),
            bandwidth: (3_380_000, 2_600_000),
            independent_segments: true,
        }
    }

    fn text(offer: &Offer) -> String {
        String::from_utf8(offer.render().plain().to_vec()).unwrap()
    }

    #[test]
    fn video_and_audio_are_one_variant_and_one_rendition() {
        assert_eq!(
            text(&offer(true, true)),
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MEDIA:TYPE=AUDIO,URI=\"audio.m3u8\",GROUP-ID=\"audio\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
             #EXT-X-STREAM-INF:BANDWIDTH=3380000,AVERAGE-BANDWIDTH=2600000,CODECS=\"avc1.64001f,mp4a.40.2\",\
             RESOLUTION=1280x720,FRAME-RATE=29.97,AUDIO=\"audio\"\nvideo.m3u8\n"
        );
    }

    #[test]
    fn one_track_alone_is_the_variant_itself() {
        assert!(text(&offer(true, false)).ends_with("CODECS=\"avc1.64001f\",RESOLUTION=1280x720,FRAME-RATE=29.97\nvideo.m3u8\n"));
        let audio = text(&offer(false, true));
        assert!(audio.contains("CODECS=\"mp4a.40.2\",AUDIO=\"audio\"\naudio.m3u8\n"), "{audio}");
        assert!(!audio.contains("FRAME-RATE") && !audio.contains("RESOLUTION"));
    }

    #[test]
    fn bandwidth_only_rises() {
        let mut b = Bandwidth::default();
        assert_eq!(b.rates(1000), (1300, 1000));
        b.announce(Some(2_000_000));
        assert_eq!(b.rates(0), (2_600_000, 2_000_000));
        b.observe(250_000, 1_000_000);
        assert_eq!(b.rates(0), (2_600_000, 2_000_000));
        b.observe(500_000, 1_000_000);
        assert_eq!(b.rates(0), (4_000_000, 3_000_000));
        b.observe(100_000, 1_000_000);
        assert_eq!(b.rates(0).0, 4_000_000);
    }
}
