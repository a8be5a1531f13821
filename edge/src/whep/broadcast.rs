//! What the viewers of one stream are sent, and at which time of their RTP clocks.
//!
//! ```text
//! source ----> held back until its order is known --as shown---------> picture
//!         \                                \--B-frames--> Made::Video -^   (from a keyframe on)
//!          \--> layers (simulcast), while the picture is the source's
//!           |  rungs of the ladder: Made::Rung, each a track of its own at the source's times
//!           \-> Opus ------------------------------------------------> sound
//!            \-> AAC ------------------------------> Made::Opus -------^
//! ```
//!
//! WebRTC shows pictures in the order in which they are sent, so a source with B-frames cannot be sent as it is; nor one of
//! another codec than H.264, which viewers are promised. Once B-frames turn up in what is already being sent, those that
//! would be shown late are left out until the transcoder's first keyframe. Pure: Items come in, `Outgoing`s go out;
//! `pipeline` reads the windows and keeps the demands.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use media_core::{
    Item, Parameters, Sample, Timescale, TrackId, TrackKind,
    codec::h264::Order,
    stream::{Made, Present},
};

use super::{
    clock::{Clock, micros},
    program::is_to_be_made,
    rate::Meter,
};

/// How long pictures are held back while nobody knows whether B-frames follow: most sources say so in their first
/// keyframe, and a viewer waits.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// And bytes: a second at 32 Mbit/s.
const HOLD_BYTES_MAX: usize = 4 << 20;
/// A layer of which nothing came for so long, while others came, is not being sent: longer than a browser's pause
/// between pictures of a still screen.
const LAYER_SILENCE: Duration = Duration::from_secs(3);
pub const VIDEO_CLOCK: Timescale = Timescale::new(90_000).expect("90,000 is not 0");
pub const AUDIO_CLOCK: Timescale = Timescale::new(48_000).expect("48,000 is not 0");
/// Distance of pictures that come after their time, in ticks of the video clock: a millisecond, so that they are shown
/// as fast as they can be decoded.
const CATCH_UP_STEP: u64 = 90;

#[derive(Debug, Default)]
pub struct Broadcast {
    /// Of the publisher whose Samples are read now.
    epoch: Option<u64>,
    /// That publisher has left. What is still being made of it is sent to its end.
    away: bool,
    /// When that publisher's first Sample of interest came: what was made before it is of another run.
    started: Option<Instant>,
    clock: Clock,
    picture: Picture,
    /// The picture was made in an earlier epoch, and likely is in this one.
    was_made: bool,
    /// The source's sound is AAC.
    aac: bool,
    /// Sources of pictures that have had a keyframe since anything was lost of them.
    decodable: Tracks,
    /// The same of what is made.
    made_decodable: [bool; Made::COUNT],
    /// Of what is made, the epoch that its run named.
    joined: [Option<u64>; Made::COUNT],
    /// Of each track, the last time that went out.
    sent: [Option<u64>; TrackId::COUNT],
    /// Tracks of which something went out in this epoch.
    flowing: Tracks,
    /// Pictures that show something else than the main one.
    apart: Tracks,
    /// When the newest Sample of each track came.
    heard: [Option<Instant>; TrackId::COUNT],
    /// What each track takes that goes out.
    meters: [Meter; TrackId::COUNT],
    out: VecDeque<Outgoing>,
    drops: Drops,
}

#[derive(Debug)]
enum Picture {
    /// Nobody knows yet whether B-frames follow: held back, from a keyframe on.
    Undecided(Vec<Arc<Sample>>),
    /// As the publisher sends it.
    Source,
    /// As the transcoder makes it.
    Made {
        /// Until its first keyframe the source's pictures go on, without B-frames: viewers are in the middle of them.
        bridged: bool,
    },
    /// It would have to be made, and cannot be.
    Refused,
}

impl Default for Picture {
    fn default() -> Self {
        Self::Undecided(Vec::new())
    }
}

/// A Sample, and the time at which its track shows or plays it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The track that viewers see it on: for what is made, the one it stands for.
    pub track: TrackId,
    /// Ticks of the RTP clock, unwrapped.
    pub timestamp: u64,
    /// The same moment on the common timeline, in microseconds.
    pub at_us: i64,
    pub sample: Arc<Sample>,
}

/// A set of tracks, by `TrackId::index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracks(u32);

const _: () = assert!(TrackId::COUNT <= u32::BITS as usize);

impl Tracks {
    pub fn has(self, track: TrackId) -> bool {
        self.0 & 1 << track.index() != 0
    }

    pub fn with(self, track: TrackId) -> Self {
        Self(self.0 | 1 << track.index())
    }

    fn without(self, track: TrackId) -> Self {
        Self(self.0 & !(1 << track.index()))
    }

    pub fn except(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What was not sent, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// A picture without the keyframe it builds on.
    pub undecodable: u64,
    /// A B-frame, while the transcoder starts.
    pub reordered: u64,
    /// Its time had passed, or is none.
    pub late: u64,
    /// Items that left the window before they were read.
    pub lagged: u64,
}

impl Broadcast {
    /// `present` is the stream's, at the moment of subscribing.
    pub fn new(present: &Present) -> Self {
        Self { epoch: present.epoch, ..Self::default() }
    }

    /// Takes what is known of the stream; to be called before the Items that it was learnt from.
    pub fn observe(&mut self, present: &Present) {
        if present.epoch.is_none() || present.epoch != self.epoch {
            return;
        }
        let apart = present.announcement.layers.iter().filter(|layer| layer.apart);
        self.apart = apart.fold(Tracks::default(), |all, layer| all.with(layer.track));
        match &self.picture {
            Picture::Undecided(_) if is_to_be_made(present) => self.turn_to_made(false),
            Picture::Undecided(_) if present.order == Order::Shown => self.send_held(),
            Picture::Source if is_to_be_made(present) => self.turn_to_made(self.flowing.has(TrackId::VIDEO)),
            _ => {}
        }
    }

    /// Takes an Item of the source.
    pub fn handle(&mut self, item: &Item) {
        match item {
            Item::Join { epoch, received } => self.join(*epoch, *received),
            Item::Announce(_) => {}
            Item::Sample(sample) => self.sample(sample),
            Item::Leave => self.away = true,
        }
    }

    /// Takes an Item of what the transcoder makes.
    pub fn handle_made(&mut self, made: Made, item: &Item) {
        match item {
            Item::Join { epoch, .. } => {
                self.joined[made.index()] = Some(*epoch);
                self.made_decodable[made.index()] = false;
            }
            Item::Sample(sample) if self.is_of_this_run(made, sample) => match made {
                Made::Video => self.made_picture(sample),
                Made::Opus if self.aac => self.send(TrackId::AUDIO, sample),
                Made::Rung(number) => self.rung(made, number, sample),
                Made::Opus | Made::Aac | Made::Thumbnail => {}
            },
            _ => {}
        }
    }

    /// A window was read too slowly, and so many Items are lost: `None` for the source's.
    pub fn lagged(&mut self, made: Option<Made>, items: u64) {
        self.drops.lagged += items;
        match made {
            None => {
                self.decodable = Tracks::default();
                if let Picture::Undecided(held) = &mut self.picture {
                    held.clear();
                }
            }
            Some(made) => self.made_decodable[made.index()] = false,
        }
    }

    /// What is made is read from another place on: which run that is must show itself anew.
    pub fn subscribed(&mut self, made: Made) {
        self.joined[made.index()] = None;
        self.made_decodable[made.index()] = false;
    }

    /// Nobody watches any more: the next viewer finds out anew whether it can be made.
    pub fn unsubscribed(&mut self, made: Made) {
        match made {
            Made::Video if matches!(self.picture, Picture::Refused) => self.picture = Picture::Made { bridged: false },
            Made::Rung(number) => self.flowing = TrackId::rung(number).map_or(self.flowing, |track| self.flowing.without(track)),
            _ => {}
        }
    }

    /// The transcoder cannot make it.
    pub fn unavailable(&mut self, made: Made) {
        if made == Made::Video && matches!(self.picture, Picture::Made { .. }) {
            self.picture = Picture::Refused;
        }
    }

    /// Whether something must be made for these viewers. A returning publisher likely needs what it needed before.
    pub fn wants(&self, made: Made) -> bool {
        match made {
            Made::Video => match self.picture {
                Picture::Made { .. } | Picture::Refused => true,
                Picture::Undecided(_) => self.was_made,
                Picture::Source => false,
            },
            Made::Opus => self.aac,
            Made::Aac | Made::Rung(_) | Made::Thumbnail => false,
        }
    }

    pub fn poll_outgoing(&mut self) -> Option<Outgoing> {
        self.out.pop_front()
    }

    /// Whether there is no picture to be had, because it would have to be made.
    pub fn is_refused(&self) -> bool {
        matches!(self.picture, Picture::Refused)
    }

    /// Tracks of which this publisher's viewers have been sent something. None once it has left.
    pub fn flowing(&self) -> Tracks {
        if self.away { Tracks::default() } else { self.flowing }
    }

    /// Codings of the picture that are sent now. The largest is left out where others come without it: encoders pause it
    /// first where their network is slow.
    pub fn pictures(&self) -> Tracks {
        let newest = self.heard.iter().flatten().max();
        let heard = |track: &TrackId| is_heard(self.heard[track.index()], newest);
        let layers = (0..TrackId::LAYERS_MAX).filter_map(TrackId::layer);
        let layers = layers.filter(|_| matches!(self.picture, Picture::Source) && !self.away).filter(heard);
        let further = layers.fold(Tracks::default(), Tracks::with);
        let replaced = !further.except(self.apart).is_empty() && !heard(&TrackId::VIDEO);
        if self.flowing().has(TrackId::VIDEO) && !replaced { further.with(TrackId::VIDEO) } else { further }
    }

    /// Those among `pictures` that nobody is sent who did not choose them.
    pub fn apart(&self) -> Tracks {
        self.apart
    }

    /// Bits a second of a track, when it takes much.
    pub fn rate(&self, track: TrackId) -> Option<u64> {
        self.meters[track.index()].rate()
    }

    /// What was not sent since the last call.
    pub fn take_drops(&mut self) -> Drops {
        std::mem::take(&mut self.drops)
    }

    fn turn_to_made(&mut self, bridged: bool) {
        self.picture = Picture::Made { bridged };
        self.was_made = true;
    }

    fn join(&mut self, epoch: u64, received: Instant) {
        self.epoch = Some(epoch);
        self.started = Some(received);
        self.away = false;
        self.clock.join();
        self.picture = Picture::default();
        self.decodable = Tracks::default();
        self.made_decodable = Default::default();
        self.flowing = Tracks::default();
        self.heard = Default::default();
    }

    fn sample(&mut self, sample: &Arc<Sample>) {
        let track = sample.track.id;
        // Viewers have one sound; and of a further picture what the publisher sends, or nothing.
        let unsendable = track.is_layer() && !matches!(sample.track.parameters, Parameters::H264(_));
        if track.is_further_sound() || unsendable {
            return;
        }
        let Some(heard) = self.heard.get_mut(track.index()) else { return };
        *heard = Some(sample.received);
        self.started.get_or_insert(sample.received);
        self.clock.observe(sample);
        match &sample.track.parameters {
            Parameters::H264(_) => {
                if self.is_decodable(sample) {
                    self.source_picture(sample);
                }
            }
            // What is made of it is sent; further layers are not, since only the main one is made.
            Parameters::Hevc(_) | Parameters::Av1(_) => {}
            Parameters::Opus(_) => {
                self.aac = false;
                self.send(TrackId::AUDIO, sample);
            }
            Parameters::Aac(_) => self.aac = true,
        }
    }

    fn is_decodable(&mut self, sample: &Sample) -> bool {
        let track = sample.track.id;
        if sample.keyframe {
            self.decodable = self.decodable.with(track);
        }
        let decodable = self.decodable.has(track);
        // A layer that nobody watches starts and stops: that is no loss.
        self.drops.undecodable += u64::from(!decodable && track.is_main());
        decodable
    }

    fn source_picture(&mut self, sample: &Arc<Sample>) {
        match &mut self.picture {
            Picture::Source => self.send(sample.track.id, sample),
            // Further layers start at their next keyframe; a viewer asks for one.
            _ if sample.track.id != TrackId::VIDEO => self.decodable = self.decodable.without(sample.track.id),
            Picture::Undecided(held) => {
                held.push(Arc::clone(sample));
                if held_long_enough(held) {
                    self.send_held();
                }
            }
            Picture::Made { bridged: true } => self.bridge(sample),
            Picture::Made { bridged: false } | Picture::Refused => {}
        }
    }

    /// What can be shown in its turn is sent. That others build on the rest is rare: most B-frames are no references.
    fn bridge(&mut self, sample: &Arc<Sample>) {
        let at = self.clock.ticks(sample.pts, VIDEO_CLOCK);
        if at > self.sent[TrackId::VIDEO.index()] {
            self.send(TrackId::VIDEO, sample);
        } else {
            self.drops.reordered += 1;
        }
    }

    fn made_picture(&mut self, sample: &Arc<Sample>) {
        if !matches!(self.picture, Picture::Made { .. }) {
            return;
        }
        if self.is_made_decodable(Made::Video, sample) {
            self.picture = Picture::Made { bridged: false };
            self.send(TrackId::VIDEO, sample);
        }
    }

    fn rung(&mut self, made: Made, number: u8, sample: &Arc<Sample>) {
        if let Some(track) = TrackId::rung(number)
            && self.is_made_decodable(made, sample)
        {
            self.send(track, sample);
        }
    }

    fn is_made_decodable(&mut self, made: Made, sample: &Sample) -> bool {
        let decodable = &mut self.made_decodable[made.index()];
        *decodable |= sample.keyframe;
        self.drops.undecodable += u64::from(!*decodable);
        *decodable
    }

    /// A run that was already under way shows whose it is by its time alone.
    fn is_of_this_run(&self, made: Made, sample: &Sample) -> bool {
        match self.joined[made.index()] {
            Some(epoch) => Some(epoch) == self.epoch,
            None => self.started.is_some_and(|started| sample.received >= started),
        }
    }

    fn send_held(&mut self) {
        let Picture::Undecided(held) = std::mem::replace(&mut self.picture, Picture::Source) else { return };
        self.was_made = false;
        for sample in held {
            self.send(TrackId::VIDEO, &sample);
        }
    }

    fn send(&mut self, track: TrackId, sample: &Arc<Sample>) {
        let video = sample.track.kind() == TrackKind::Video;
        let clock = if video { VIDEO_CLOCK } else { AUDIO_CLOCK };
        let sent = &mut self.sent[track.index()];
        let timestamp = match (self.clock.ticks(sample.pts, clock), *sent) {
            (Some(at), Some(sent)) if at <= sent && video => sent + CATCH_UP_STEP,
            (Some(at), sent) if sent.is_none_or(|sent| at > sent) => at,
            _ => {
                self.drops.late += 1;
                return;
            }
        };
        *sent = Some(timestamp);
        self.meters[track.index()].observe(sample.received, sample.payload.len());
        self.flowing = self.flowing.with(track);
        self.out.push_back(Outgoing { track, timestamp, at_us: micros(timestamp, clock), sample: Arc::clone(sample) });
    }
}

fn held_long_enough(held: &[Arc<Sample>]) -> bool {
    let (Some(first), Some(last)) = (held.first(), held.last()) else { return false };
    last.received.saturating_duration_since(first.received) >= HOLD_MAX
        || held.iter().map(|sample| sample.payload.len()).sum::<usize>() >= HOLD_BYTES_MAX
}

fn is_heard(heard: Option<Instant>, newest: Option<&Instant>) -> bool {
    heard.zip(newest).is_some_and(|(heard, newest)| newest.saturating_duration_since(heard) < LAYER_SILENCE)
}

#[cfg(test)]
mod tests;
