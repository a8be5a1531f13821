//! What ffmpeg 9 writes as enhanced RTMP, tag by tag, whole and damaged.

use std::time::Instant;

use bytes::Bytes;
use ingest::rtmp::{
    feed::{Fed, Feed},
    message::{AUDIO, Message, VIDEO},
};
use media_core::{Announcement, Sample, TrackId, TrackKind, codec::hevc};

const HEVC: &[u8] = include_bytes!("../testdata/ffmpeg-9.0.2-hevc-opus.flv");
const AV1: &[u8] = include_bytes!("../testdata/ffmpeg-9.0.2-av1-opus.flv");
const MULTITRACK: &[u8] = include_bytes!("../testdata/ffmpeg-9.0.2-multitrack.flv");

/// The tags of an FLV file, as the messages that RTMP would carry.
fn messages(flv: &[u8]) -> Vec<Message> {
    let (mut rest, mut messages) = (&flv[13..], Vec::new());
    while let Some((header, behind)) = rest.split_first_chunk::<11>() {
        let size = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        let timestamp = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let payload = Bytes::copy_from_slice(&behind[..size]);
        messages.push(Message { csid: 4, kind: header[0], stream_id: 1, timestamp, payload });
        rest = &behind[size + 4..];
    }
    messages
}

#[derive(Default)]
struct Seen {
    feed: Feed,
    samples: Vec<Sample>,
    announcement: Announcement,
    refused: Option<String>,
}

impl Seen {
    fn of(flv: &[u8]) -> Self {
        let mut seen = Self::default();
        messages(flv).iter().for_each(|message| seen.take(message));
        assert_eq!(seen.refused, None);
        assert_eq!(seen.feed.repairs().total(), 0, "{:?}", seen.feed.repairs());
        seen
    }

    fn take(&mut self, message: &Message) {
        let result = match message.kind {
            VIDEO => self.feed.video(Instant::now(), message),
            AUDIO => self.feed.audio(Instant::now(), message),
            _ => {
                self.feed.metadata(&message.payload);
                Ok(())
            }
        };
        self.refused = result.err().map(|refused| refused.to_string()).or(self.refused.take());
        while let Some(fed) = self.feed.poll_output() {
            match fed {
                Fed::Sample(sample) => self.samples.push(sample),
                Fed::Announced(announcement) => self.announcement = announcement,
            }
        }
    }

    fn track(&self, id: TrackId) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.track.id == id)
    }

    /// Codec, size, number of samples, places of keyframes.
    fn pictures(&self, id: TrackId) -> (String, Option<(u32, u32)>, usize, Vec<usize>) {
        let first = self.track(id).next().expect("a picture");
        let keys = self.track(id).enumerate().filter(|(_, sample)| sample.keyframe).map(|(at, _)| at).collect();
        (first.track.codec_string(), first.track.parameters.size(), self.track(id).count(), keys)
    }
}

fn millis(samples: impl Iterator<Item = i64>) -> Vec<i64> {
    samples.map(|micros| micros / 1000).collect()
}

#[test]
fn hevc_and_opus() {
    let seen = Seen::of(HEVC);
    assert_eq!(seen.pictures(TrackId::VIDEO), ("hvc1.1.6.L30.90".into(), Some((160, 90)), 24, vec![0, 13]));
    let pictures: Vec<_> = seen.track(TrackId::VIDEO).collect();
    let mut shown = millis(pictures.iter().map(|sample| sample.pts.as_micros()));
    assert!(!shown.is_sorted(), "it has B-frames");
    shown.sort_unstable();
    assert!(shown.windows(2).all(|pair| (33..=34).contains(&(pair[1] - pair[0]))), "{shown:?}");
    assert!(millis(pictures.iter().map(|sample| sample.dts.as_micros())).is_sorted());
    assert!(pictures.iter().all(|sample| hevc::is_well_formed(&sample.payload)));

    let sound: Vec<_> = seen.track(TrackId::AUDIO).collect();
    assert_eq!(sound[0].track.codec_string(), "opus");
    assert!(sound.len() >= 40 && sound.iter().all(|packet| packet.duration == Some(960)));
    assert!(sound.windows(2).all(|pair| pair[1].pts.ticks - pair[0].pts.ticks == 960), "counted in samples");
    assert_eq!((seen.announcement.video, seen.announcement.audio, seen.feed.drops().total()), (true, true, 0));
}

#[test]
fn av1_and_opus() {
    let seen = Seen::of(AV1);
    let (codec, size, count, keys) = seen.pictures(TrackId::VIDEO);
    assert!(codec.starts_with("av01.0.00M.08"), "{codec}");
    assert_eq!((size, count, keys), (Some((160, 90)), 24, vec![0, 15]));
    // In FLV each begins with a temporal delimiter, which fMP4 and RTP have not.
    assert!(seen.track(TrackId::VIDEO).all(|sample| sample.payload[..2] != [0x12, 0] && sample.pts == sample.dts));
    assert_eq!(seen.feed.drops().total(), 0);
}

#[test]
fn a_further_picture_is_a_layer_and_a_further_sound_is_a_track() {
    let seen = Seen::of(MULTITRACK);
    let layer = TrackId::layer(0).expect("there is one");
    assert_eq!((seen.pictures(TrackId::VIDEO).1, seen.pictures(layer).1), (Some((160, 90)), Some((64, 36))));
    assert_eq!((seen.pictures(TrackId::VIDEO).3, seen.pictures(layer).3), (vec![0, 15], vec![0, 15]));
    let times = |id| millis(seen.track(id).map(|sample| sample.dts.as_micros()));
    assert_eq!(times(TrackId::VIDEO), times(layer), "side by side");
    let layers: Vec<_> = seen.announcement.layers.iter().map(|layer| (layer.track, &*layer.rid)).collect();
    assert_eq!(layers, [(TrackId::VIDEO, "track-0"), (layer, "track-1")]);
    assert!(seen.announcement.layers.iter().all(|layer| !layer.apart), "of one shape");

    let sounds = [TrackId::AUDIO, TrackId::sound(0).expect("there is one")];
    assert_eq!(seen.announcement.sounds, sounds);
    for id in sounds {
        let frames: Vec<_> = seen.track(id).collect();
        assert!(frames.len() > 35 && frames[0].track.codec_string() == "mp4a.40.2", "{}", frames.len());
        assert!(frames.windows(2).all(|pair| pair[1].pts.ticks - pair[0].pts.ticks == 1024), "counted in samples");
    }
    let [main, further] = sounds.map(|id| seen.track(id).map(|frame| &frame.payload).collect::<Vec<_>>());
    assert_ne!(main, further);
    assert_eq!(seen.feed.drops().total(), 0);
}

/// The same publisher, whose clock is set ahead in the middle: the sounds go on side by side.
#[test]
fn sounds_stay_together_over_a_jump() {
    let mut seen = Seen::default();
    for message in messages(MULTITRACK) {
        let jump = if message.timestamp > 500 { 100_000 } else { 0 };
        seen.take(&Message { timestamp: message.timestamp + jump, ..message });
    }
    let times = |id| seen.track(id).map(|sample| sample.pts.as_micros()).collect::<Vec<_>>();
    let (main, further) = (times(TrackId::AUDIO), times(TrackId::sound(0).expect("there is one")));
    assert!(main.iter().zip(&further).all(|(main, further)| (main - further).abs() < 50_000), "{main:?} {further:?}");
    assert!(main.last().is_some_and(|last| *last < 2_000_000), "no jump is left: {main:?}");
}

/// Both pictures in one message, as `ManyTracks` and as `ManyTracksManyCodecs`.
#[test]
fn many_tracks_in_one_message_are_what_they_are_apart() {
    let apart = Seen::of(MULTITRACK);
    let video: Vec<_> = messages(MULTITRACK).into_iter().filter(|message| message.kind == VIDEO).collect();
    for many_codecs in [false, true] {
        let mut together = Seen::default();
        for pair in video.chunks_exact(2) {
            together.take(&Message { payload: joined(&pair[0].payload, &pair[1].payload, many_codecs), ..pair[0].clone() });
        }
        for id in [Some(TrackId::VIDEO), TrackId::layer(0)].into_iter().flatten() {
            assert_eq!(together.pictures(id), apart.pictures(id));
            assert!(
                together.track(id).zip(apart.track(id)).all(|(a, b)| (a.pts, a.dts, &a.payload) == (b.pts, b.dts, &b.payload))
            );
        }
        assert_eq!(together.announcement.layers, apart.announcement.layers);
    }
}

/// A legacy AVC tag and a `OneTrack` of the same packet type, as one message.
fn joined(main: &[u8], further: &[u8], many_codecs: bool) -> Bytes {
    let frame = main[0] & 0xf0;
    let packet = main[1];
    let (first, second) = match packet {
        0 => (main[5..].to_vec(), further[7..].to_vec()),
        // ffmpeg writes the further track's as CodedFramesX where the offset is 0.
        1 if further[1] & 0x0f == 3 => (main[2..].to_vec(), [&[0; 3], &further[7..]].concat()),
        1 => (main[2..].to_vec(), further[7..].to_vec()),
        _ => (Vec::new(), Vec::new()),
    };
    let form = if many_codecs { 0x20 } else { 0x10 };
    let mut out = vec![0x80 | frame | 6, form | packet];
    for (track, body) in [(0, first), (1, second)] {
        if many_codecs || track == 0 {
            out.extend(b"avc1");
        }
        out.push(track);
        out.extend(&(body.len() as u32).to_be_bytes()[1..]);
        out.extend(body);
    }
    out.into()
}

/// HEVC in the form that encoders sent before there was a FourCC.
#[test]
fn hevc_under_the_legacy_number_is_the_same() {
    let apart = Seen::of(HEVC);
    let mut legacy = Seen::default();
    for message in messages(HEVC).iter().filter(|message| message.kind == VIDEO) {
        let (packet, offset) = match message.payload[0] & 0x0f {
            3 => (1, &[0; 3][..]),
            0 => (0, &[0; 3][..]),
            1 => (1, &[][..]),
            _ => continue,
        };
        let head = [(message.payload[0] >> 4 & 7) << 4 | 12, packet];
        let payload = [&head[..], offset, &message.payload[5..]].concat().into();
        legacy.take(&Message { payload, ..message.clone() });
    }
    assert_eq!(legacy.pictures(TrackId::VIDEO), apart.pictures(TrackId::VIDEO));
    assert!(legacy.track(TrackId::VIDEO).zip(apart.track(TrackId::VIDEO)).all(|(a, b)| a.payload == b.payload && a.pts == b.pts));
}

#[test]
fn a_nanosecond_offset_is_added() {
    let (mut plain, mut offset) = (Seen::default(), Seen::default());
    for message in messages(AV1) {
        plain.take(&message);
        let payload = match message.payload[0] {
            // CodedFrames of either medium, half a millisecond later.
            first @ (0x91 | 0xa1) => [&[first | 7, 2, 0x07, 0xa1, 0x20, 1], &message.payload[1..]].concat().into(),
            _ => message.payload.clone(),
        };
        offset.take(&Message { payload, ..message });
    }
    assert_eq!((offset.refused.as_deref(), offset.samples.len()), (None, plain.samples.len()));
    for (plain, offset) in plain.samples.iter().zip(&offset.samples) {
        assert_eq!(offset.pts.as_micros() - plain.pts.as_micros(), 500, "{:?}", plain.track);
        assert_eq!(offset.dts.as_micros() - plain.dts.as_micros(), 500, "{:?}", plain.track);
    }
}

/// A publisher that hides megabytes beside its pictures must not make a window hold them.
#[test]
fn what_is_beside_a_picture_is_not_kept() {
    let mut seen = Seen::default();
    messages(MULTITRACK).iter().take(2).for_each(|message| seen.take(message));
    let unit = b"\0\0\0\x02\x65\x88";
    let beside = vec![0; 1 << 20];
    let head = [&b"\x96\x13avc1\x00\x00\x00\x06"[..], unit, b"\xc8\x10\x00\x00"].concat();
    let payload = Bytes::from([&head[..], &beside].concat());
    seen.take(&Message { csid: 4, kind: VIDEO, stream_id: 1, timestamp: 40, payload: payload.clone() });
    let sample = seen.samples.last().expect("the picture is taken");
    assert_eq!(sample.payload[..], unit[..]);
    assert!(!payload.as_ptr_range().contains(&sample.payload.as_ptr()), "it was copied out");
    assert_eq!(seen.feed.drops().total(), 1);
}

#[test]
fn damaged_tags_end_no_process() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for flv in [HEVC, AV1, MULTITRACK] {
        let whole = messages(flv);
        for round in 0..300 {
            let mut seen = Seen::default();
            for message in &whole {
                let mut payload = message.payload.to_vec();
                for _ in 0..random() % 3 {
                    // Half of them in the headers.
                    let reach = if round % 2 == 0 { payload.len().min(16) } else { payload.len() };
                    let at = random() % reach.max(1);
                    payload[at] = random() as u8;
                }
                if random() % 8 == 0 {
                    payload.truncate(random() % payload.len().max(1));
                }
                seen.take(&Message { payload: payload.into(), ..message.clone() });
            }
            let mut last = [i64::MIN; TrackId::COUNT];
            for sample in seen.samples {
                let (last, dts) = (&mut last[sample.track.id.index()], sample.dts.as_micros());
                assert!(*last < dts || sample.track.kind() == TrackKind::Audio, "time grows");
                *last = dts;
            }
        }
    }
}
