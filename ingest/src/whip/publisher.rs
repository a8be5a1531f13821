//! Frames of one session become Samples of a stream.
//!
//! ```text
//! Frame -> clock (place on the timeline) -> sync (lips) -> layers (which track) -> decode (dts) -> Sample
//! ```
//!
//! Pure. Sound is continuous: a packet begins where the last one ended unless the sender's clock says that
//! there is a gap. So the picture follows the sound where the sender's reports say that they are apart:
//! its times are stretched too little to be seen. Nothing ever waits for a report.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use media_core::{Announcement, Layer, Parameters, Sample, Timescale, Timestamp, Track, TrackId, codec::opus};
use transport::{rtp::Frame, sdp::Negotiated};

use super::{
    clock::{Clock, Jump},
    decode::DecodeTimes,
    description::{Coding, Description},
    keyframes::Keyframes,
    layers::Layers,
};
use crate::{
    repair::{Repair, Repairs, VIDEO_TIMESCALE},
    rtmp::feed::{Dropped, Drops},
};

const AUDIO_TIMESCALE: Timescale = Timescale::new(opus::SAMPLE_RATE).expect("48000 is not 0");
/// A frame's length until parameter sets tell it: only decoding times before the first picture need it.
const FRAME_TICKS: i64 = 3000;
/// What the sender's clock and the count of sound may differ: encoders round their times.
const AUDIO_JITTER: i64 = 240;
/// More sound than time: then a packet is dropped.
const AUDIO_SURPLUS: i64 = 1920;
/// Below it nobody sees that lips and sound are apart.
const SYNC_TOLERATED: Duration = Duration::from_millis(20);
/// Near enough to stop.
const SYNC_REACHED: Duration = Duration::from_millis(1);
/// Stretched by one in so many: 1 ms in 20.
const SYNC_SHARE: i64 = 20;
/// More would take longer than 10 s to stretch away: it is stepped over.
const SYNC_STEP: Duration = Duration::from_millis(500);
/// More is no encoder's delay: the reports are wrong.
const SYNC_BELIEVED: Duration = Duration::from_secs(10);
/// What is held while the layers are waited for: two seconds of 8 layers of 60 pictures, and 100 Mbit/s of them.
const HELD_FRAMES_MAX: usize = 1024;
const HELD_BYTES_MAX: usize = 16 << 20;

pub(super) enum Output {
    Announce(Announcement),
    Sample(Sample),
}

pub(super) struct Publisher {
    /// When the first frame began to arrive: the timeline's zero.
    origin: Option<Instant>,
    video_media: Option<usize>,
    audio_media: Option<usize>,
    rids: Vec<Arc<str>>,
    pictures: Vec<Picture>,
    layers: Layers,
    keyframes: Keyframes,
    held: VecDeque<Held>,
    held_bytes: usize,
    sound: Sound,
    announcement: Announcement,
    outputs: VecDeque<Output>,
    repairs: Repairs,
    drops: Drops,
}

/// One layer.
struct Picture {
    clock: Clock,
    /// On its way to be beside the sound.
    syncing: bool,
    description: Description,
    times: DecodeTimes,
    track: Option<Arc<Track>>,
    /// On another track than before, with its next keyframe.
    resumes: bool,
}

struct Sound {
    clock: Clock,
    /// Where the next packet begins.
    next: Option<i64>,
    track: Arc<Track>,
}

/// A picture with its place, before its layer has a track.
struct Held {
    layer: usize,
    pts: i64,
    parameters: Parameters,
    frame: Frame,
}

impl Publisher {
    /// `encoder`: the sending program, as it names itself. `keyframes_asked`: how often at least.
    pub fn new(now: Instant, negotiated: &Negotiated, encoder: Option<String>, keyframes_asked: Duration) -> Self {
        let media_of = |mid: Option<(&transport::sdp::Media, &transport::sdp::Accepted)>| {
            let (found, _) = mid?;
            negotiated.media.iter().position(|media| std::ptr::eq(media, found))
        };
        let (video, audio) = (negotiated.video(), negotiated.audio());
        let rids = video.map_or(&[][..], |(_, accepted)| &accepted.rids);
        let coding = video.and_then(|(_, accepted)| Coding::of(&accepted.codec));
        let announcement = Announcement { video: video.is_some(), audio: audio.is_some(), encoder, ..Announcement::default() };
        Self::with(now, media_of(video).zip(coding), media_of(audio), rids, announcement, keyframes_asked)
    }

    pub(super) fn with(
        now: Instant,
        video: Option<(usize, Coding)>,
        audio_media: Option<usize>,
        rids: &[String],
        announcement: Announcement,
        keyframes_asked: Duration,
    ) -> Self {
        let announcement = Announcement { keyframes_asked: Some(keyframes_asked), ..announcement };
        let count = if video.is_some() { rids.len().max(1) } else { 0 };
        let parameters = Parameters::Opus(opus::Parameters { channels: 2 });
        let track = Arc::new(Track { id: TrackId::AUDIO, timescale: AUDIO_TIMESCALE, parameters });
        Self {
            origin: None,
            video_media: video.map(|(media, _)| media),
            audio_media,
            rids: rids.iter().map(|rid| rid.as_str().into()).collect(),
            pictures: video.iter().flat_map(|(_, coding)| (0..count).map(|_| Picture::new(*coding))).collect(),
            layers: Layers::new(count),
            keyframes: Keyframes::new(now, keyframes_asked, count),
            held: VecDeque::new(),
            held_bytes: 0,
            sound: Sound { clock: Clock::new(opus::SAMPLE_RATE), next: None, track },
            outputs: VecDeque::from([Output::Announce(announcement.clone())]),
            announcement,
            repairs: Repairs::default(),
            drops: Drops::default(),
        }
    }

    pub fn handle_frame(&mut self, media: usize, layer: usize, frame: Frame) {
        let now = frame.received;
        let origin = *self.origin.get_or_insert(frame.first_received);
        let arrived = frame.first_received.saturating_duration_since(origin);
        if self.video_media == Some(media) && layer < self.pictures.len() {
            if frame.keyframe {
                self.keyframes.handle_keyframe(now, layer);
            }
            self.picture(arrived, layer, frame);
        } else if self.audio_media == Some(media) {
            self.sound(arrived, frame);
        }
        if self.layers.is_due(now) {
            self.decide();
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The layers to be asked for a keyframe now, if any.
    pub fn take_keyframes_due(&mut self, now: Instant) -> Range<usize> {
        0..if self.keyframes.take_due(now) { self.keyframes.layers() } else { 0 }
    }

    /// When to call `take_keyframes_due`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.keyframes.poll_timeout()
    }

    /// The layer of a track, by `TrackId::index`.
    pub fn layer_of(&self, track: usize) -> Option<usize> {
        self.layers.layer_of(track)
    }

    pub fn repairs(&self) -> Repairs {
        self.repairs
    }

    pub fn drops(&self) -> Drops {
        self.drops
    }

    fn sound(&mut self, arrived: Duration, frame: Frame) {
        let Some(samples) = opus::packet_samples(&frame.payload) else { return self.drops.count(Dropped::Malformed) };
        let placed = self.sound.clock.place(arrived, frame.timestamp, frame.ntp);
        self.count(placed.jump);
        let begins = match self.sound.next {
            Some(next) if placed.at - next > AUDIO_JITTER => {
                self.repairs.count(Repair::AudioGap);
                placed.at
            }
            Some(next) if next - placed.at > AUDIO_SURPLUS => return self.repairs.count(Repair::AudioSurplus),
            Some(next) => next,
            None => placed.at,
        };
        self.sound.next = Some(begins + i64::from(samples));
        let at = Timestamp::new(begins, AUDIO_TIMESCALE);
        self.outputs.push_back(Output::Sample(Sample {
            track: Arc::clone(&self.sound.track),
            pts: at,
            dts: at,
            duration: Some(samples),
            keyframe: true,
            payload: frame.payload,
            received: frame.received,
        }));
    }

    fn picture(&mut self, arrived: Duration, layer: usize, frame: Frame) {
        let placed = self.pictures[layer].clock.place(arrived, frame.timestamp, frame.ntp);
        self.count(placed.jump);
        let pts = placed.at + self.sync(layer, placed.advance);
        let picture = &mut self.pictures[layer];
        if picture.description.take(&frame).is_err() {
            self.drops.count(Dropped::Malformed);
        }
        // Parameters begin with a keyframe, so nothing before one passes.
        let Some(parameters) = picture.description.parameters().cloned() else {
            return self.drops.count(Dropped::NoConfiguration);
        };
        if frame.payload.is_empty() {
            return self.drops.count(Dropped::Malformed);
        }
        if frame.keyframe
            && let Some((width, height)) = parameters.size()
            && let Some(former) = self.layers.handle_keyframe(frame.received, layer, width, height)
        {
            self.change_places(layer, former, frame.received);
        }
        let held = Held { layer, pts, parameters, frame };
        if self.layers.is_decided() { self.emit(held) } else { self.hold(held) }
    }

    fn hold(&mut self, held: Held) {
        self.held_bytes += held.frame.payload.len();
        self.held.push_back(held);
        if self.held.len() >= HELD_FRAMES_MAX || self.held_bytes >= HELD_BYTES_MAX {
            self.decide();
        }
    }

    /// A layer that comes late is the main one from its first keyframe on. The former goes on in its place, from a keyframe
    /// that all are asked for.
    fn change_places(&mut self, layer: usize, former: usize, now: Instant) {
        let [new, old] = self.pictures.get_disjoint_mut([layer, former]).expect("two layers of the offer");
        // They belong to the track: its times only go forward.
        std::mem::swap(&mut new.times, &mut old.times);
        (new.track, old.track, old.resumes) = (None, None, true);
        self.keyframes.want(now);
        self.announce_layers();
    }

    /// Fixes which layer is which track, and lets go what was held.
    fn decide(&mut self) {
        self.layers.decide();
        self.announce_layers();
        self.held_bytes = 0;
        for held in std::mem::take(&mut self.held) {
            self.emit(held);
        }
    }

    fn announce_layers(&mut self) {
        let named = self.rids.iter().enumerate();
        let mut layers: Vec<Layer> = named
            .filter_map(|(layer, rid)| Some(Layer { track: self.layers.track(layer)?, rid: Arc::clone(rid), apart: false }))
            .collect();
        layers.sort_by_key(|layer| layer.track);
        self.announcement.layers = layers;
        self.outputs.push_back(Output::Announce(self.announcement.clone()));
    }

    fn emit(&mut self, held: Held) {
        let Held { layer, pts, parameters, frame } = held;
        let Some(id) = self.layers.track(layer) else { return };
        let picture = &mut self.pictures[layer];
        if std::mem::take(&mut picture.resumes) && !frame.keyframe {
            picture.resumes = true;
            return self.drops.count(Dropped::NoConfiguration);
        }
        let track = picture.track(id, parameters, pts);
        let stamp = picture.times.stamp(pts);
        if stamp.moved {
            self.repairs.count(Repair::PtsClamped);
        }
        self.outputs.push_back(Output::Sample(Sample {
            track,
            pts: Timestamp::new(stamp.pts, VIDEO_TIMESCALE),
            dts: Timestamp::new(stamp.dts, VIDEO_TIMESCALE),
            duration: None,
            keyframe: frame.keyframe,
            payload: frame.payload,
            received: frame.received,
        }));
    }

    /// Brings a layer toward the sound, or toward the main layer where there is none. How far this
    /// picture moves; `advance` is how far the track went forward with it.
    fn sync(&mut self, layer: usize, advance: i64) -> i64 {
        let Some(behind) = self.behind(layer) else { return 0 };
        let clock = &self.pictures[layer].clock;
        let [tolerated, reached, step, believed] =
            [SYNC_TOLERATED, SYNC_REACHED, SYNC_STEP, SYNC_BELIEVED].map(|time| clock.ticks(time));
        if behind.abs() > believed {
            return 0;
        }
        if behind >= step {
            self.repairs.count(Repair::SyncStep);
            self.pictures[layer].clock.shift(behind);
            return behind;
        }
        if -behind >= step && self.layers.track(layer) == Some(TrackId::VIDEO) {
            // Time never goes back: it is the sound that goes ahead.
            let ticks = Timestamp::new(-behind, VIDEO_TIMESCALE).ticks_in(AUDIO_TIMESCALE);
            self.repairs.count(Repair::SyncStep);
            self.sound.clock.shift(ticks);
            return 0;
        }
        let picture = &mut self.pictures[layer];
        if !picture.syncing && behind.abs() <= tolerated {
            return 0;
        }
        let most = advance / SYNC_SHARE;
        let moved = behind.clamp(-most, most);
        picture.clock.shift(moved);
        picture.syncing = (behind - moved).abs() > reached;
        moved
    }

    fn behind(&self, layer: usize) -> Option<i64> {
        let clock = &self.pictures[layer].clock;
        if let Some(behind) = clock.behind(&self.sound.clock) {
            return Some(behind);
        }
        let main = self.layers.layer_of(TrackId::VIDEO.index()).filter(|main| *main != layer)?;
        clock.behind(&self.pictures[main].clock)
    }

    fn count(&mut self, jump: Option<Jump>) {
        match jump {
            Some(Jump::Forward) => self.repairs.count(Repair::JumpForward),
            Some(Jump::Backward) => self.repairs.count(Repair::JumpBackward),
            None => {}
        }
    }
}

impl Picture {
    fn new(coding: Coding) -> Self {
        Self {
            clock: Clock::new(VIDEO_TIMESCALE.ticks_per_second()),
            syncing: false,
            description: Description::new(coding),
            times: DecodeTimes::default(),
            track: None,
            resumes: false,
        }
    }

    /// A new one where the parameters are others.
    fn track(&mut self, id: TrackId, parameters: Parameters, pts: i64) -> Arc<Track> {
        if let Some(track) = self.track.as_ref().filter(|track| track.parameters == parameters) {
            return Arc::clone(track);
        }
        let frame = parameters.frame_rate().map_or(FRAME_TICKS, |rate| (90_000.0 / rate.as_f64()) as i64);
        self.times.expect(usize::from(parameters.reorder_frames().unwrap_or(0)), pts, frame.clamp(1, 90_000));
        let track = Arc::new(Track { id, timescale: VIDEO_TIMESCALE, parameters });
        self.track = Some(Arc::clone(&track));
        track
    }
}
