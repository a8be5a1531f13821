//! A live stream as its readers see it: the window of what its publishers send, what is true of it
//! now, and what the transcoder makes of it.
//!
//! A late reader starts at the newest keyframe in the window. Wishes go the other way: for a
//! keyframe, to the publisher; for something made, to the transcoder. Pure: whoever waits leaves a
//! `Waker`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use bytes::Bytes;

use crate::{
    codec::h264::Order,
    fanout::{Cursor, Fanout},
    ladder::SETTINGS_MAX,
    name::StreamName,
    rung::Rung,
    sample::{Announcement, Item, Sample, Track, TrackId, TrackKind},
    timestamp::Timestamp,
};

const _: () = assert!(TrackId::COUNT <= u32::BITS as usize, "a bit a track, of `Stream::keyframes`");

pub struct Stream {
    pub name: StreamName,
    window: Arc<Fanout<Item>>,
    present: Mutex<Present>,
    /// What can be made of the picture.
    rungs: Mutex<Arc<[Rung]>>,
    keyframe_places: Mutex<KeyframePlaces>,
    /// Layers whose next picture should be a keyframe, by `TrackId::index`.
    keyframes: Signal<u32>,
    made: [Output; Made::COUNT],
    /// Of which only the newest is kept.
    thumbnails: Arc<Fanout<Thumbnail>>,
    /// For the transcoder.
    asked: Signal<Asked>,
}

/// What is true of a stream now.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Of the publisher that sends; `None` while there is none.
    pub epoch: Option<u64>,
    /// All that this publisher has announced.
    pub announcement: Announcement,
    /// Of each track, the one its newest Sample was coded under.
    pub tracks: [Option<Arc<Track>>; TrackId::COUNT],
    /// Of the picture (its largest layer).
    pub order: Order,
    /// Timestamps of this publisher that the ingest had to repair.
    pub repairs: u64,
}

/// What the transcoder makes of a source for viewers who cannot take it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Made {
    /// H.264 at the source's size in which pictures come in the order they are shown: for WebRTC.
    Video,
    /// For WebRTC.
    Opus,
    /// For HLS.
    Aac,
    /// A picture of the ladder, by the number of its `TrackId::rung`: from 1 to `RUNGS_MAX - 1`.
    Rung(u8),
    /// A small JPEG of a keyframe now and then; it has no Items (`Stream::push_thumbnail`).
    Thumbnail,
}

/// What a stream looks like.
#[derive(Clone, Debug)]
pub struct Thumbnail {
    pub jpeg: Bytes,
    pub wall: SystemTime,
}

const _: () = assert!(Made::COUNT <= u16::BITS as usize, "a bit each, of `Asked::keyframes`");

impl Made {
    pub const COUNT: usize = 4 + SETTINGS_MAX;

    /// In the order of `index`.
    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self::Video; Self::COUNT];
        (all[1], all[2]) = (Self::Opus, Self::Aac);
        all[3 + SETTINGS_MAX] = Self::Thumbnail;
        let mut number = 1;
        while number <= SETTINGS_MAX {
            all[2 + number] = Self::Rung(number as u8);
            number += 1;
        }
        all
    };

    /// What is made for a track of the ladder; `None` of the picture alike, which stands for the picture itself.
    pub fn of_rung(track: TrackId) -> Option<Self> {
        let number = u8::try_from(track.rung_number()?).ok()?;
        (1..=SETTINGS_MAX as u8).contains(&number).then_some(Self::Rung(number))
    }

    /// For tables of one entry each, and on the wire.
    pub const fn index(self) -> usize {
        match self {
            Self::Video => 0,
            Self::Opus => 1,
            Self::Aac => 2,
            Self::Rung(number) => 2 + number as usize,
            Self::Thumbnail => 3 + SETTINGS_MAX,
        }
    }

    /// What is kept for readers that come late or lag. They begin at the newest keyframe: 4 s of the dearest rung are 750 kB.
    const fn window_bytes(self) -> usize {
        match self {
            Self::Video | Self::Opus | Self::Aac => 4 << 20,
            Self::Rung(_) => 2 << 20,
            Self::Thumbnail => 0,
        }
    }

    /// It is coded as video.
    pub const fn is_picture(self) -> bool {
        matches!(self, Self::Video | Self::Rung(_))
    }

    /// As metric labels and logs say it; rungs as their addresses do.
    pub fn as_str(self) -> &'static str {
        const RUNGS: [&str; SETTINGS_MAX] = ["rung-2", "rung-3", "rung-4", "rung-5", "rung-6", "rung-7"];
        match self {
            Self::Video => "video",
            Self::Opus => "opus",
            Self::Aac => "aac",
            Self::Thumbnail => "thumbnail",
            Self::Rung(number) => RUNGS.get(usize::from(number).wrapping_sub(1)).copied().unwrap_or("rung"),
        }
    }
}

impl Asked {
    pub fn wants_keyframe(self, made: Made) -> bool {
        self.keyframes & 1 << made.index() != 0
    }
}

/// What the transcoder is to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Which things are in demand may have changed.
    pub demands: bool,
    /// Viewers of these pictures need a keyframe; by `Made::index`.
    pub keyframes: u16,
    /// It was decided of a keyframe whether a segment begins there.
    pub cut: bool,
    /// The stream is retired.
    pub over: bool,
}

/// Whether something made is to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Making {
    /// Nobody asked for it, or it is about to start.
    #[default]
    Idle,
    Running,
    /// It cannot be made here; the sentence says what is missing.
    Unavailable(Arc<str>),
}

struct Output {
    window: Arc<Fanout<Item>>,
    state: Mutex<OutputState>,
}

#[derive(Default)]
struct OutputState {
    demands: usize,
    /// Where it is to begin, and of which epoch that is.
    begin: Option<(u64, Timestamp)>,
    /// The last demand was the last for a while.
    done: bool,
    making: Making,
}

/// Of the source's newest keyframes, which of them open a segment.
#[derive(Default)]
struct KeyframePlaces {
    /// Somebody decides.
    decided: bool,
    epoch: u64,
    newest: VecDeque<(Timestamp, bool)>,
}

/// Decisions that are remembered: of a publisher that sends nothing but keyframes, those of some seconds.
const KEYFRAME_PLACES_MAX: usize = 512;

impl Stream {
    pub(crate) fn new(name: StreamName) -> Self {
        Self {
            name,
            window: Arc::default(),
            present: Mutex::default(),
            rungs: Mutex::new(Arc::from([])),
            keyframe_places: Mutex::default(),
            keyframes: Signal::default(),
            made: Made::ALL.map(|made| Output { window: Arc::new(Fanout::new(made.window_bytes())), state: Mutex::default() }),
            // None but the newest fits.
            thumbnails: Arc::new(Fanout::new(0)),
            asked: Signal::default(),
        }
    }

    /// Reads everything its publishers send from now on.
    pub fn subscribe(&self) -> Cursor<Item> {
        self.window.subscribe()
    }

    /// Reads from the newest keyframe of the picture that is still in the window, or from now on
    /// where there is none.
    pub fn subscribe_at_keyframe(&self) -> Cursor<Item> {
        self.window.subscribe_at(is_keyframe)
    }

    /// Reads from the newest keyframe of the picture that is shown at `pts` or before it, where it is still in the window;
    /// else as `subscribe_at_keyframe`.
    pub fn subscribe_before(&self, pts: Timestamp) -> Cursor<Item> {
        let before = |item: &Item| matches!(item, Item::Sample(sample) if is_keyframe(item) && sample.pts <= pts);
        self.window.find(before).unwrap_or_else(|| self.subscribe_at_keyframe())
    }

    /// What is made is to begin at the keyframe that is shown at this time of an epoch: there a segment begins. Otherwise it
    /// begins at the newest keyframe.
    pub fn mark_begin(&self, made: Made, begin: Option<(u64, Timestamp)>) {
        lock(&self.output(made).state).begin = begin;
    }

    /// Of the publisher with this epoch.
    pub fn begin_of(&self, made: Made, epoch: u64) -> Option<Timestamp> {
        lock(&self.output(made).state).begin.filter(|(of, _)| *of == epoch).map(|(_, pts)| pts)
    }

    /// What can be made of the picture, for those who make it.
    pub fn set_rungs(&self, rungs: Arc<[Rung]>) {
        *lock(&self.rungs) = rungs;
    }

    /// Without a packager, a picture alike can be made of it.
    pub fn rung(&self, made: Made) -> Option<Rung> {
        let known = lock(&self.rungs).iter().find(|rung| rung.made == made).copied();
        known.or_else(|| (made == Made::Video).then_some(Rung::ALIKE))
    }

    /// Somebody decides from now on, of each keyframe of the picture, whether a segment begins there.
    pub fn decide_cuts(&self) {
        lock(&self.keyframe_places).decided = true;
    }

    pub fn decide_cut(&self, epoch: u64, pts: Timestamp, cut: bool) {
        let mut places = lock(&self.keyframe_places);
        if places.epoch != epoch {
            (places.epoch, places.newest) = (epoch, VecDeque::new());
        }
        if places.newest.len() == KEYFRAME_PLACES_MAX {
            places.newest.pop_front();
        }
        places.newest.push_back((pts, cut));
        drop(places);
        self.asked.raise(|asked| asked.cut = true);
    }

    /// Whether a segment begins at a keyframe; `None` while that is to be decided.
    pub fn is_cut(&self, epoch: u64, pts: Timestamp) -> Option<bool> {
        let places = lock(&self.keyframe_places);
        if !places.decided || epoch < places.epoch {
            return Some(true);
        }
        let decided = places.newest.iter().rev().filter(|_| places.epoch == epoch).find(|(at, _)| *at == pts);
        decided.map(|(_, cut)| *cut)
    }

    pub fn present(&self) -> Present {
        lock(&self.present).clone()
    }

    /// Asks for a keyframe of a layer or a rung: the transcoder where that one is made, else the publisher. Of those only some
    /// can be asked (WHIP).
    pub fn request_keyframe(&self, track: TrackId) {
        let made = if track == TrackId::VIDEO { Some(Made::Video) } else { Made::of_rung(track) };
        match made.filter(|made| self.is_demanded(*made)) {
            Some(made) => self.asked.raise(|asked| asked.keyframes |= 1 << made.index()),
            None if track.is_rung() => {}
            None => self.keyframes.raise(|wanted| *wanted |= 1 << track.index()),
        }
    }

    /// Waits until a keyframe is asked for; the bits are numbered by `TrackId::index`. One waiter.
    pub(crate) fn poll_keyframe_request(&self, cx: &mut Context<'_>) -> Poll<u32> {
        self.keyframes.poll(cx)
    }

    /// Asks for something to be made for as long as the answer is kept.
    pub fn demand(self: &Arc<Self>, made: Made) -> Demand {
        lock(&self.output(made).state).demands += 1;
        self.asked.raise(|asked| asked.demands = true);
        Demand { stream: Arc::clone(self), made, done: false }
    }

    /// Reads what is made from now on, whoever asks for it.
    pub fn subscribe_made(&self, made: Made) -> Cursor<Item> {
        self.output(made).window.subscribe()
    }

    pub fn is_demanded(&self, made: Made) -> bool {
        lock(&self.output(made).state).demands > 0
    }

    /// Waits until something is asked of the transcoder. One waiter.
    pub fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<Asked> {
        self.asked.poll(cx)
    }

    /// Nobody demands it, and nobody is expected to.
    pub fn is_done(&self, made: Made) -> bool {
        let state = lock(&self.output(made).state);
        state.demands == 0 && state.done
    }

    pub fn making(&self, made: Made) -> Making {
        lock(&self.output(made).state).making.clone()
    }

    /// For the transcoder.
    pub fn set_making(&self, made: Made, making: Making) {
        lock(&self.output(made).state).making = making;
    }

    /// For the transcoder: appends to what readers of `made` see. Each run opens with the `Join` of
    /// the source's epoch.
    pub fn push_made(&self, made: Made, item: Item) {
        let bytes = item.bytes();
        self.output(made).window.push(item, bytes);
    }

    /// Reads the newest, if there is one, and those that follow.
    pub fn subscribe_thumbnails(&self) -> Cursor<Thumbnail> {
        self.thumbnails.subscribe_at(|_| true)
    }

    /// For the transcoder.
    pub fn push_thumbnail(&self, thumbnail: Thumbnail) {
        let bytes = thumbnail.jpeg.len();
        self.thumbnails.push(thumbnail, bytes);
    }

    fn output(&self, made: Made) -> &Output {
        &self.made[made.index()]
    }

    /// For the registry, under its lock.
    pub(crate) fn push(&self, item: Item) {
        lock(&self.present).observe(&item);
        let bytes = item.bytes();
        self.window.push(item, bytes);
    }

    /// For the registry, under its lock.
    pub(crate) fn set_repairs(&self, repairs: u64) {
        lock(&self.present).repairs = repairs;
    }

    pub(crate) fn close(&self) {
        self.window.close();
        for output in &self.made {
            output.window.close();
        }
        self.thumbnails.close();
        self.asked.raise(|asked| asked.over = true);
    }
}

impl Present {
    pub fn track(&self, id: TrackId) -> Option<&Arc<Track>> {
        self.tracks.get(id.index())?.as_ref()
    }

    fn observe(&mut self, item: &Item) {
        match item {
            Item::Join { epoch, .. } => *self = Self { epoch: Some(*epoch), ..Self::default() },
            Item::Announce(announcement) => self.announcement = announcement.clone(),
            Item::Sample(sample) => self.sample(sample),
            Item::Leave => self.epoch = None,
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if let Some(known) = self.tracks.get_mut(sample.track.id.index())
            && !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &sample.track))
        {
            *known = Some(Arc::clone(&sample.track));
        }
        if sample.track.id == TrackId::VIDEO {
            self.order.observe(sample);
        }
    }
}

fn is_keyframe(item: &Item) -> bool {
    matches!(item, Item::Sample(sample) if sample.keyframe && sample.track.id == TrackId::VIDEO)
}

/// Keeps something being made.
pub struct Demand {
    stream: Arc<Stream>,
    made: Made,
    done: bool,
}

impl Demand {
    /// Whoever demanded it has waited long enough for others: it need not be made any longer.
    pub fn finish(mut self) {
        self.done = true;
    }

    /// Reads what is made from now on.
    pub fn subscribe(&self) -> Cursor<Item> {
        self.stream.output(self.made).window.subscribe()
    }

    /// Reads from the newest keyframe (video) that is still in the window, or from now on.
    pub fn subscribe_at_keyframe(&self) -> Cursor<Item> {
        self.stream.output(self.made).window.subscribe_at(is_keyframe)
    }

    pub fn making(&self) -> Making {
        self.stream.making(self.made)
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        let mut state = lock(&self.stream.output(self.made).state);
        state.demands -= 1;
        state.done = self.done;
        drop(state);
        self.stream.asked.raise(|asked| asked.demands = true);
    }
}

/// Raised by many, waited for by one, which takes what was raised.
pub(crate) struct Signal<T>(Mutex<(Option<T>, Option<Waker>)>);

impl<T> Default for Signal<T> {
    fn default() -> Self {
        Self(Mutex::new((None, None)))
    }
}

impl<T: Default> Signal<T> {
    fn raise(&self, add: impl FnOnce(&mut T)) {
        let mut state = lock(&self.0);
        add(state.0.get_or_insert_default());
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = lock(&self.0);
        match state.0.take() {
            Some(raised) => Poll::Ready(raised),
            None => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of ours panics while it holds one of these locks; the data is whole either way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The kinds of track a stream has now: what a viewer can be offered.
impl Present {
    pub fn has(&self, kind: TrackKind) -> bool {
        let main = if kind == TrackKind::Video { TrackId::VIDEO } else { TrackId::AUDIO };
        self.track(main).is_some()
            || match kind {
                TrackKind::Video => self.announcement.video,
                TrackKind::Audio => self.announcement.audio,
            }
    }
}
