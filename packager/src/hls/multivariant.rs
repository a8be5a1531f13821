//! The Multivariant Playlist: which renditions there are, and what each costs.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ClosedCaptionGroupId, MasterPlaylist, QuotedOrUnquoted, Resolution, VariantStream,
};
use media_core::{Parameters, Rung, Track, TrackId, TrackKind};

use super::playlist::gzip;

const AUDIO_GROUP: &str = "audio";
/// Bits a pixel that screen encoders use at most, where the publisher announces no rate.
const BITS_A_PIXEL: f64 = 0.1;
/// Bits a second of an audio track whose publisher announces none.
const AUDIO_BITRATE: u64 = 192_000;

/// What a rendition's bits cost, as seen. BANDWIDTH may only rise: a player that chose a variant by it must not be told
/// afterwards that it was too dear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    peak: u64,
    bits: u64,
    micros: u64,
}

impl Bandwidth {
    /// A closed segment.
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

    /// Of the dearest segment.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    fn average(&self) -> Option<u64> {
        self.bits.saturating_mul(1_000_000).checked_div(self.micros)
    }
}

/// BANDWIDTH and AVERAGE-BANDWIDTH of what is played together: what was announced, what was seen, or `guess` where
/// neither is known.
fn rates(played: &[&Bandwidth], announced: Option<u64>, guess: u64) -> (u64, u64) {
    let seen = played.iter().any(|one| one.micros > 0);
    let announced = announced.unwrap_or(if seen { 0 } else { guess });
    let average = if seen { played.iter().filter_map(|one| one.average()).sum() } else { announced };
    let peak = played.iter().map(|one| one.peak).sum::<u64>().max(announced * 13 / 10).max(average).max(1);
    (peak, average.clamp(1, peak))
}

/// What a rung's cost follows from.
pub struct Source<'a> {
    pub main: &'a Bandwidth,
    pub sound: &'a Bandwidth,
    /// Bits a second, as its publisher says.
    pub announced: Option<u64>,
}

impl Source<'_> {
    /// BANDWIDTH and AVERAGE-BANDWIDTH: what the encoder is given, of which a segment may hold its buffer more, or what was
    /// `seen` of it; with the sound. `target_duration`: seconds of a segment.
    pub fn cost_of_rung(&self, rung: &Rung, seen: &Bandwidth, configured: Option<u32>, target_duration: u32) -> (u64, u64) {
        let source = self.main.peak.max(self.announced.unwrap_or(0));
        let rate = configured.map_or_else(|| rung.bitrate(source), u64::from);
        let segment_ms = u64::from(target_duration.max(1)) * 1000;
        let sound = if self.sound.micros > 0 { self.sound.peak } else { AUDIO_BITRATE };
        let peak = (rate + rate * u64::from(rung.setting.buffer_ms) / segment_ms).max(seen.peak) + sound;
        (peak, (seen.average().unwrap_or(rate) + sound).min(peak))
    }
}

/// A rendition that can be played.
#[derive(Clone, Debug)]
pub struct Shown {
    pub uri: &'static str,
    pub track: Arc<Track>,
    pub bandwidth: Bandwidth,
    /// A picture that nobody is to be given instead of the main one.
    pub apart: bool,
}

/// What the playlist says; rendered anew when it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The picture, what is made of it, then its further layers. Each is a variant, with the sound.
    pub videos: Vec<Video>,
    /// Pictures that show something else: each has a playlist of its own that lists it alone, with the sound.
    pub apart: Vec<Video>,
    pub audio: Option<Audio>,
    pub further_audios: Vec<Audio>,
    /// Of the sound alone, where there is no picture.
    pub bandwidth: (u64, u64),
    /// Every segment opens with a keyframe.
    pub independent_segments: bool,
    /// Some of `videos` are made of the first: a player that can play that one as well is to prefer it.
    pub rungs: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    pub uri: &'static str,
    pub codec: String,
    pub width: u32,
    pub height: u32,
    /// 0 where nobody tells.
    pub frame_rate: f64,
    /// With the sound; of several, with the dearest.
    pub bandwidth: (u64, u64),
}

impl Video {
    /// The playlist to begin with for who wants this picture, where it is one of its own.
    pub fn index(&self) -> String {
        self.uri.replacen("video", "index", 1)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    pub uri: &'static str,
    pub name: String,
    pub codec: String,
    pub channels: u8,
    /// Of the first one's codec. CODECS of a variant holds for all of its group, and a player that lacks one of them would
    /// drop the picture: one of another codec is left to those who ask for it.
    pub grouped: bool,
}

impl Offer {
    /// `announced`: bits a second of the main picture and the sound, as their publisher says.
    pub fn new(shown: &[Shown], announced: Option<u64>, frame_rate: f64, independent_segments: bool) -> Self {
        let sounds: Vec<_> = shown.iter().filter(|one| one.track.kind() == TrackKind::Audio).collect();
        let first = sounds.first().map(|one| std::mem::discriminant(&one.track.parameters));
        let grouped = |one: &Shown| Some(std::mem::discriminant(&one.track.parameters)) == first;
        let sound = sounds.iter().copied().filter(|one| grouped(one)).max_by_key(|one| one.bandwidth.peak);
        let sound_guess = sound.map_or(0, |_| AUDIO_BITRATE);
        let video = |one: &Shown| {
            let (width, height) = one.track.parameters.size()?;
            let own_rate = one.track.parameters.frame_rate().map_or(0.0, |rate| rate.as_f64());
            let guess = (f64::from(width) * f64::from(height) * frame_rate * BITS_A_PIXEL) as u64 + sound_guess;
            let played: Vec<_> = [Some(&one.bandwidth), sound.map(|sound| &sound.bandwidth)].into_iter().flatten().collect();
            let announced = announced.filter(|_| one.track.id.is_main());
            let (uri, codec, bandwidth) = (one.uri, one.track.codec_string(), rates(&played, announced, guess));
            let frame_rate = if one.apart { own_rate } else { frame_rate };
            Some(Video { uri, codec, width, height, frame_rate, bandwidth })
        };
        let audio = |one: &Shown| {
            let channels = match &one.track.parameters {
                Parameters::Aac(p) => p.channels(),
                Parameters::Opus(p) => p.channels,
                Parameters::H264(_) | Parameters::Hevc(_) | Parameters::Av1(_) => return None,
            };
            let (name, grouped) = (sound_name(one.track.id), grouped(one));
            Some(Audio { uri: one.uri, name, codec: one.track.codec_string(), channels, grouped })
        };
        let mut audios = sounds.iter().filter_map(|one| audio(one));
        Self {
            videos: shown.iter().filter(|one| !one.apart).filter_map(video).collect(),
            apart: shown.iter().filter(|one| one.apart).filter_map(video).collect(),
            audio: audios.next(),
            further_audios: audios.collect(),
            bandwidth: rates(&sound.map(|sound| &sound.bandwidth).into_iter().collect::<Vec<_>>(), announced, sound_guess),
            independent_segments,
            rungs: 0,
        }
    }

    /// Something made of the main picture, which is the first one; nothing where there is none.
    pub fn add_rung(&mut self, uri: &'static str, rung: &Rung, bandwidth: (u64, u64)) {
        let Some(main) = self.videos.first() else { return };
        let (width, height) = rung.setting.size((main.width, main.height));
        let (codec, frame_rate) = (Rung::codec_string(width, height), main.frame_rate / f64::from(rung.divisor));
        let rung = Video { uri, codec, width, height, frame_rate, bandwidth };
        self.rungs += 1;
        self.videos.insert(self.rungs, rung);
    }

    /// An average that moves is no reason to tell players anything.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let still = |offer: &Self| {
            let mut still = offer.clone();
            still.bandwidth.1 = 0;
            still.videos.iter_mut().chain(&mut still.apart).for_each(|video| video.bandwidth.1 = 0);
            still
        };
        still(self) == still(other)
    }

    /// The sounds, the main one first.
    pub fn audios(&self) -> impl Iterator<Item = &Audio> {
        self.audio.iter().chain(&self.further_audios)
    }

    fn variant(&self, video: Option<&Video>) -> VariantStream {
        let audio = self.audio.as_ref();
        let mut codecs: Vec<_> = video.map(|v| v.codec.as_str()).into_iter().collect();
        for one in self.audios().filter(|one| one.grouped) {
            if !codecs.contains(&one.codec.as_str()) {
                codecs.push(&one.codec);
            }
        }
        let bandwidth = video.map_or(self.bandwidth, |v| v.bandwidth);
        VariantStream {
            uri: video.map(|v| v.uri).or(audio.map(|a| a.uri)).unwrap_or_default().to_owned(),
            bandwidth: bandwidth.0,
            average_bandwidth: Some(bandwidth.1),
            codecs: Some(codecs.join(",")),
            resolution: video.map(|v| Resolution { width: v.width.into(), height: v.height.into() }),
            frame_rate: video.filter(|v| v.frame_rate > 0.0).map(|v| (v.frame_rate * 1000.0).round() / 1000.0),
            audio: audio.map(|_| AUDIO_GROUP.to_owned()),
            // What is made has none, so there are none in any (rfc8216bis 4.4.6.2). Shaka 5.2.12, not told, looks for them in
            // the open segment of a rung that was cold, by an address that it does not have, and gives up.
            closed_captions: (self.rungs > 0).then_some(ClosedCaptionGroupId::None),
            other_attributes: video.map(|v| self.attributes(v)),
            ..VariantStream::default()
        }
    }

    /// SCORE stands on every variant or on none (rfc8216bis 4.4.6.2). Without it a player would take a made picture for
    /// the better one, since that costs more. STABLE-VARIANT-ID is what its playlist is called: that never means another.
    fn attributes(&self, video: &Video) -> HashMap<String, QuotedOrUnquoted> {
        let id = stem(video.uri);
        let place = self.videos.iter().position(|known| known.uri == video.uri).filter(|_| self.rungs > 0);
        let (name, value) = match place {
            // A map has no order, and the same offer is to be the same text: both are one entry of it.
            Some(place) => {
                ("SCORE", QuotedOrUnquoted::Unquoted(format!("{},STABLE-VARIANT-ID=\"{id}\"", self.videos.len() - place)))
            }
            None => ("STABLE-VARIANT-ID", QuotedOrUnquoted::Quoted(id.to_owned())),
        };
        HashMap::from([(name.to_owned(), value)])
    }

    pub fn render(&self) -> Multivariant {
        let mut variants: Vec<_> = self.videos.iter().map(|video| self.variant(Some(video))).collect();
        if variants.is_empty() {
            variants.push(self.variant(None));
        }
        // The cuts are the main picture's: another one's keyframes are where they are.
        let apart = |video: &Video| (video.index(), self.text(vec![self.variant(Some(video))], false));
        let apart: Vec<_> = self.apart.iter().map(apart).collect();
        let main = (INDEX.to_owned(), self.text(variants, self.independent_segments));
        Multivariant([vec![main], apart].concat())
    }

    fn text(&self, variants: Vec<VariantStream>, independent_segments: bool) -> Text {
        let has_picture = variants.iter().any(|variant| variant.resolution.is_some());
        let grouped = self.audios().filter(|one| one.grouped).enumerate();
        let alternatives = grouped.map(|(at, audio)| AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            // Without an address where the variant itself is the audio.
            uri: (has_picture || at > 0).then(|| audio.uri.to_owned()),
            group_id: AUDIO_GROUP.to_owned(),
            name: audio.name.clone(),
            default: at == 0,
            // A player that chooses by the viewer's system has nothing to choose a further one by: it has no language.
            autoselect: at == 0,
            channels: Some(audio.channels.to_string()),
            ..AlternativeMedia::default()
        });
        let playlist = MasterPlaylist {
            version: Some(9),
            independent_segments,
            alternatives: alternatives.collect(),
            variants,
            ..MasterPlaylist::default()
        };
        let mut text = Vec::with_capacity(512);
        playlist.write_to(&mut text).expect("writing into memory does not fail");
        Text { plain: text.into(), gzip: OnceLock::new() }
    }
}

fn stem(uri: &str) -> &str {
    uri.strip_suffix(".m3u8").unwrap_or(uri)
}

fn sound_name(id: TrackId) -> String {
    let further = (0..TrackId::SOUNDS_MAX).find(|number| TrackId::sound(*number) == Some(id));
    further.map_or_else(|| "Sound".to_owned(), |number| format!("Sound {}", number + 2))
}

/// Where players begin.
pub const INDEX: &str = "index.m3u8";

/// What players begin with, by name: `INDEX`, and a playlist for each picture apart.
#[derive(Debug)]
pub struct Multivariant(Vec<(String, Text)>);

impl Multivariant {
    pub fn find(&self, name: &str) -> Option<&Text> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text)
    }
}

/// Rendered once, shared by all.
#[derive(Clone, Debug)]
pub struct Text {
    plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Text {
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.plain)).clone()
    }
}

#[cfg(test)]
mod tests;
