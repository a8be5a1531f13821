//! Which sound a presentation has: the publisher's own or, where that is Opus, the AAC that is made of it.
//!
//! ```text
//! Undecided --Opus--> Waiting --AAC in time--> Made
//!                        \--too late, or not to be had--> Own
//! ```
//!
//! Sans-IO. Items of the stream and of what is made of it go in; what the presentation takes comes out. It is
//! decided once: a sound that changes its codec costs every player a break.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use media_core::{Item, Parameters, Sample};

/// How long the AAC is waited for: a transcoder that has to start needs half of it, and a viewer waits no longer.
pub const MADE_WAIT: Duration = Duration::from_millis(1500);
/// Packets held meanwhile, the shortest there are (2.5 ms); what is beyond is lost, from the oldest on.
const HELD_MAX: usize = 600;

#[derive(Debug, Default)]
pub struct Sound {
    state: State,
    /// Of the publisher that sends; `None` while there is none.
    epoch: Option<u64>,
    /// Of the source that what is made comes from.
    made_epoch: Option<u64>,
}

#[derive(Debug, Default)]
enum State {
    /// There was no Opus.
    #[default]
    Undecided,
    /// Opus came, and AAC of it may.
    Waiting { until: Instant, held: Vec<Item> },
    /// The AAC is the sound; the Opus is not packaged.
    Made,
    /// The Opus is.
    Own,
}

/// What a decision was, for the log; told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    Made,
    Own,
}

impl Sound {
    /// Whether the AAC has to be asked for, before this Item is given to `take`.
    pub fn wants_made(&self, item: &Item) -> bool {
        matches!(self.state, State::Undecided) && opus(item).is_some()
    }

    /// Until when the AAC is waited for.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Takes an Item of the stream. What the presentation gets is appended to `out`.
    pub fn take(&mut self, item: Item, now: Instant, out: &mut Vec<Item>) {
        match &item {
            Item::Join { epoch, .. } => self.epoch = Some(*epoch),
            Item::Leave => self.leave(),
            _ => {}
        }
        if opus(&item).is_none() {
            out.push(item);
            return;
        }
        if matches!(self.state, State::Undecided) {
            // Asked for just now: what comes without a Join of its own is of this publisher.
            self.made_epoch = self.made_epoch.or(self.epoch);
            self.state = State::Waiting { until: now + MADE_WAIT, held: Vec::new() };
        }
        match &mut self.state {
            State::Waiting { held, .. } => {
                if held.len() >= HELD_MAX {
                    held.remove(0);
                }
                held.push(item);
            }
            State::Own => out.push(item),
            State::Made | State::Undecided => {}
        }
    }

    /// Takes an Item of what is made. One of another publisher's sound is dropped.
    pub fn take_made(&mut self, item: Item, out: &mut Vec<Item>) -> Option<Decided> {
        match &item {
            Item::Join { epoch, .. } => self.made_epoch = Some(*epoch),
            Item::Sample(_) if self.epoch.is_some() && self.made_epoch == self.epoch => return self.made(item, out),
            _ => {}
        }
        None
    }

    fn made(&mut self, item: Item, out: &mut Vec<Item>) -> Option<Decided> {
        let waited = matches!(self.state, State::Waiting { .. });
        if waited {
            self.state = State::Made;
        }
        if matches!(self.state, State::Made) {
            out.push(item);
        }
        waited.then_some(Decided::Made)
    }

    /// Nothing came in time, or nothing can come (`unavailable`): the Opus it is.
    pub fn handle_timeout(&mut self, now: Instant, unavailable: bool, out: &mut Vec<Item>) -> Option<Decided> {
        let State::Waiting { until, held } = &mut self.state else { return None };
        if now < *until && !unavailable {
            return None;
        }
        out.append(held);
        self.state = State::Own;
        Some(Decided::Own)
    }

    /// Another presentation begins, with the same publisher: one that lacked the AAC may have it now.
    pub fn renew(&mut self) {
        if matches!(self.state, State::Own) {
            self.state = State::Undecided;
        }
    }

    /// What a publisher is left with that goes while its AAC is waited for is lost: the next one's may be made.
    fn leave(&mut self) {
        if matches!(self.state, State::Waiting { .. }) {
            self.state = State::Undecided;
        }
        self.epoch = None;
    }
}

fn opus(item: &Item) -> Option<&Arc<Sample>> {
    match item {
        Item::Sample(sample) if sample.track.id.is_main() && matches!(sample.track.parameters, Parameters::Opus(_)) => {
            Some(sample)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use media_core::{
        Timescale, Timestamp, Track, TrackId,
        codec::{aac, opus},
    };

    use super::*;

    fn sample(parameters: Parameters) -> Item {
        let track = Arc::new(Track { id: TrackId::AUDIO, timescale: Timescale::new(48_000).unwrap(), parameters });
        let (at, payload) = (Timestamp::ZERO, Bytes::from_static(b"sound"));
        let received = Instant::now();
        Item::Sample(Arc::new(Sample { track, pts: at, dts: at, duration: Some(960), keyframe: true, payload, received }))
    }

    fn opus() -> Item {
        sample(Parameters::Opus(opus::Parameters { channels: 2 }))
    }

    fn aac() -> Item {
        sample(Parameters::Aac(aac::Parameters::parse(Bytes::from_static(&[0x11, 0x90])).unwrap()))
    }

    fn join(epoch: u64) -> Item {
        Item::Join { epoch, received: Instant::now() }
    }

    /// Steps as they come, and what the presentation takes at each. `j1`, `L`, `o`, `a`: of the stream, a publisher
    /// joins or leaves, Opus, AAC. `J1`, `m`: what is made joins, AAC. `t`: the wait is over. `u`: there is no AAC.
    fn check(steps: &str, expected: &str) {
        let (mut sound, start) = (Sound::default(), Instant::now());
        let mut now = start;
        let mut taken = Vec::new();
        for step in steps.split_whitespace() {
            let mut out = Vec::new();
            let epoch = || step[1..].parse().unwrap();
            match &step[..1] {
                "j" => sound.take(join(epoch()), now, &mut out),
                "L" => sound.take(Item::Leave, now, &mut out),
                "o" => sound.take(opus(), now, &mut out),
                "a" => sound.take(aac(), now, &mut out),
                "J" => _ = sound.take_made(join(epoch()), &mut out),
                "m" => _ = sound.take_made(aac(), &mut out),
                "t" => {
                    now += MADE_WAIT;
                    sound.handle_timeout(now, false, &mut out);
                }
                "u" => _ = sound.handle_timeout(now, true, &mut out),
                "r" => sound.renew(),
                other => panic!("{other}"),
            }
            let names = out.iter().map(|item| match item {
                Item::Join { .. } => 'j',
                Item::Leave => 'L',
                item if super::opus(item).is_some() => 'o',
                _ => 'a',
            });
            taken.push(names.collect::<String>());
        }
        let taken = taken.iter().map(|names| if names.is_empty() { "." } else { names }).collect::<Vec<_>>().join(" ");
        assert_eq!(taken, expected, "{steps}");
    }

    #[test]
    fn a_sound_is_chosen_once() {
        check("j1 a a t u", "j a a . .");
        check("j1 o o m m o m t", "j . . a a . a .");
        check("j1 o J1 m o", "j . . a .");
        check("j1 o o t o m", "j . . oo o .");
        check("j1 o u o m", "j . o o .");
        check("j1 u t o m", "j . . . a"); // nothing was asked for: nothing is decided
    }

    #[test]
    fn what_is_made_of_another_publishers_sound_is_dropped() {
        check("j2 o J1 m J2 m", "j . . . . a");
        check("j1 o m L m j2 m J2 m", "j . a L . j . . a");
        check("j1 o m L j2 o t J2 m o", "j . a L j . . . a .");
        check("j1 o L t j2 o m J2 m", "j . L . j . . . a"); // it left while it was waited for
    }

    #[test]
    fn another_presentation_decides_anew_where_there_was_no_aac() {
        check("j1 o t r o m o", "j . o . . a .");
        check("j1 o m r o m", "j . a . . a");
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut sound, now, mut out) = (Sound::default(), Instant::now(), Vec::new());
        sound.take(join(1), now, &mut out);
        (0..HELD_MAX * 2).for_each(|_| sound.take(opus(), now, &mut out));
        sound.handle_timeout(now, true, &mut out);
        assert_eq!(out.len(), 1 + HELD_MAX);
    }
}
