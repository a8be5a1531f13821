//! One output: its orders in, its reports out. A run is one set of parameters of one publisher, and has a pipeline of its
//! own; the next one begins when all of it has come out.

use std::sync::{Arc, mpsc::SyncSender};

use anyhow::{Context, Result, anyhow};
use media_core::{Timestamp, Track, stream::Made};
use transcode::wire::{Coded, Order, Report, Wish};

use crate::{decoders::Decoders, sound, video};

pub struct Lane {
    made: Made,
    reports: SyncSender<Report>,
    wish: Wish,
    track: Option<Arc<Track>>,
    run: Option<Run>,
    decoders: Decoders,
    /// A run has failed: the next one begins at a keyframe from here on.
    resting_until: Option<Timestamp>,
    /// Nothing can be made of the track.
    refused: bool,
}

/// How long a lane rests after a failure, in media time: what made it fail may still be coming.
const REST: Timestamp = Timestamp::from_millis(1000);

enum Run {
    Video(video::Run),
    Sound(sound::Run),
}

impl Lane {
    pub fn new(made: Made, reports: SyncSender<Report>) -> Self {
        Self {
            made,
            reports,
            wish: Wish::default(),
            track: None,
            run: None,
            decoders: Decoders::default(),
            resting_until: None,
            refused: false,
        }
    }

    pub fn handle(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Open(_, wish) => self.wish = wish,
            Order::Track(_, track) => {
                self.finish_run();
                self.refuse_unless_decodable(&track)?;
                self.track = Some(track);
            }
            Order::Sample(_, coded) => self.handle_sample(coded)?,
            Order::End(_) => {
                self.finish_run();
                self.track = None;
                self.wish.after = None;
                self.resting_until = None;
                self.reports.send(Report::Ended(self.made)).context("nobody reads reports")?;
            }
            Order::Keyframe(_) => {
                if let Some(Run::Video(run)) = &self.run {
                    run.request_keyframe();
                }
            }
        }
        Ok(())
    }

    /// Decoders are a matter of what is installed here; the encoders' side was told at the start.
    fn refuse_unless_decodable(&mut self, track: &Track) -> Result<()> {
        let lacking = if self.made == Made::Video { video::lacks(&track.parameters) } else { None };
        self.refused = lacking.is_some();
        let Some(elements) = lacking else { return Ok(()) };
        let sentence =
            format!("GStreamer lacks {elements}, to decode {}: install the plugins that hold it", track.codec_string());
        self.reports.send(Report::Refused(self.made, sentence)).context("nobody reads reports")
    }

    fn handle_sample(&mut self, coded: Coded) -> Result<()> {
        if self.run.as_ref().is_some_and(Run::has_failed) {
            if let Some(Run::Video(run)) = &self.run
                && let Some((decoder, why)) = run.failed_decoder()
            {
                self.decoders.demote(decoder, &why);
            }
            self.finish_run();
            self.resting_until = Some(coded.dts + REST);
        }
        if let Some(Run::Sound(run)) = &self.run
            && run.is_apart(&coded)
        {
            self.finish_run();
        }
        if self.refused || self.resting_until.is_some_and(|until| coded.dts < until || !coded.keyframe) {
            return self.reports.send(Report::Consumed(self.made, 1)).context("nobody reads reports");
        }
        self.resting_until = None;
        let run = match &mut self.run {
            Some(run) => run,
            None => {
                let run = self.begin(&coded)?;
                self.run.insert(run)
            }
        };
        match run {
            Run::Video(run) => run.push(&coded),
            Run::Sound(run) => run.push(&coded),
        }
        Ok(())
    }

    fn begin(&mut self, first: &Coded) -> Result<Run> {
        let track = self.track.as_ref().context("a Sample before its track")?;
        let after = self.wish.after.take();
        match self.made {
            Made::Video => self.begin_video(&Arc::clone(track), after, first),
            Made::Opus | Made::Aac => {
                Ok(Run::Sound(sound::Run::start(self.made, track, self.wish.bitrate, after, first, self.reports.clone())?))
            }
        }
    }

    /// With the first decoder that starts.
    fn begin_video(&mut self, track: &Track, after: Option<Timestamp>, first: &Coded) -> Result<Run> {
        let mut failed = anyhow!("nothing decodes {}", track.codec_string());
        for decoder in self.decoders.of(&track.parameters) {
            match video::Run::start(&track.parameters, decoder, &self.wish, after, first, self.reports.clone()) {
                Ok(run) => return Ok(Run::Video(run)),
                Err(error) => {
                    self.decoders.demote(decoder, &format!("{error:#}"));
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// The next run, if it is of the same publisher, goes on where this one stops.
    fn finish_run(&mut self) {
        self.wish.after = match self.run.take() {
            Some(Run::Video(run)) => run.finish(),
            Some(Run::Sound(run)) => run.finish(),
            None => return,
        };
    }
}

impl Run {
    fn has_failed(&self) -> bool {
        match self {
            Self::Video(run) => run.has_failed(),
            Self::Sound(run) => run.has_failed(),
        }
    }
}

#[cfg(test)]
mod tests;
