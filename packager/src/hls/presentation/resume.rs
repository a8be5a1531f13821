//! A presentation over the end of its process: what of it is kept, and how it goes on in the next.

use super::*;
use crate::hls::kept::{Kept, Lead};

/// How far a presentation has come, to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// A publisher sends.
    pub live: bool,
    pub lead: Lead,
    pub tracks: Tracks,
    pub grid: &'a Grid,
    pub state: &'a State,
}

impl Presentation {
    /// Goes on where another process was killed: its numbers, its two targets and its discontinuities, behind one more.
    /// Its media is gone, so the playlists begin with what comes.
    pub fn resume(settings: Settings, kept: &Kept, now: Instant, wall: SystemTime) -> Self {
        let lead = match kept.lead {
            Lead::Video => TrackId::VIDEO,
            Lead::Audio => TrackId::AUDIO,
        };
        let running = Running::new(Timeline::new(kept.resumed(wall)), kept.grid, &settings.ladder, lead, now);
        Self { running: Some(running), resumed: Some(kept.tracks), ..Self::new(settings) }
    }

    /// `None` until there is something to go on with.
    pub fn progress(&self) -> Option<Progress<'_>> {
        let running = self.running.as_ref()?;
        let lead = if running.lead.is_picture() { Lead::Video } else { Lead::Audio };
        let tracks = self.tracks();
        (tracks.video || tracks.audio).then_some(Progress {
            live: self.live,
            lead,
            tracks,
            grid: &running.grid,
            state: running.timeline.state(),
        })
    }

    /// What viewers are offered, or were before the process was killed.
    pub fn tracks(&self) -> Tracks {
        let offered = |offer: &Offer| Tracks { video: !offer.videos.is_empty(), audio: offer.audio.is_some() };
        self.offer.as_ref().map(offered).or(self.resumed).unwrap_or_default()
    }
}
