//! One way through: its orders in, its reports out. A run is one set of parameters of one publisher, and has a pipeline of
//! its own; the next one begins when all of it has come out.

use std::sync::{Arc, mpsc::SyncSender};

use anyhow::{Context, Result, anyhow};
use media_core::{Timestamp, Track, stream::Made};
use transcode::wire::{Coded, LaneId, Order, PICTURE_LANES, Report, THUMBNAIL_LANE, Wish};

use crate::{chain::Failure, decoders::Decoders, encoders::Encoders, sound, steady::NextSlot, thumbnail, video};

pub struct Lane {
    id: LaneId,
    reports: SyncSender<Report>,
    makes: Vec<(Made, Wish)>,
    track: Option<Arc<Track>>,
    run: Option<Run>,
    decoders: Decoders,
    encoders: Arc<Encoders>,
    /// Where pictures are given at a constant rate.
    next_slot: NextSlot,
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
    pub fn new(id: LaneId, encoders: Arc<Encoders>, reports: SyncSender<Report>) -> Self {
        Self {
            id,
            reports,
            makes: Vec::new(),
            track: None,
            run: None,
            decoders: Decoders::default(),
            encoders,
            next_slot: NextSlot::default(),
            resting_until: None,
            refused: false,
        }
    }

    pub fn handle(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Make(_, made, wish) => self.make(made, wish)?,
            Order::Leave(_, made) => {
                self.makes.retain(|(known, _)| *known != made);
                if let Some(Run::Video(run)) = &mut self.run {
                    run.leave(made);
                }
            }
            Order::Track(_, track) => {
                self.finish_run();
                self.refuse_unless_decodable(&track)?;
                self.track = Some(track);
            }
            Order::Sample(_, coded) => self.handle_sample(coded)?,
            Order::End(_) => {
                self.finish_run();
                self.track = None;
                self.makes.iter_mut().for_each(|(_, wish)| wish.after = None);
                self.resting_until = None;
                self.next_slot = NextSlot::default();
                self.reports.send(Report::Ended(self.id)).context("nobody reads reports")?;
            }
            Order::Keyframe(_, made) => {
                if let Some(Run::Video(run)) = &self.run {
                    run.request_keyframe(made);
                }
            }
        }
        Ok(())
    }

    fn make(&mut self, made: Made, wish: Wish) -> Result<()> {
        if let Some(Run::Video(run)) = &mut self.run {
            run.make(made, &wish, &self.encoders)?;
        }
        self.makes.push((made, wish));
        Ok(())
    }

    /// Decoders are a matter of what is installed here; the encoders' side was told at the start.
    fn refuse_unless_decodable(&mut self, track: &Track) -> Result<()> {
        let decodes = PICTURE_LANES.contains(&self.id) || self.id == THUMBNAIL_LANE;
        let lacking = if decodes { video::lacks(&track.parameters) } else { None };
        self.refused = lacking.is_some();
        let Some(elements) = lacking else { return Ok(()) };
        let sentence =
            format!("GStreamer lacks {elements}, to decode {}: install the plugins that hold it", track.codec_string());
        self.reports.send(Report::Refused(self.id, sentence)).context("nobody reads reports")
    }

    fn handle_sample(&mut self, coded: Coded) -> Result<()> {
        if let Some(failure) = self.run.as_ref().and_then(Run::failure) {
            let Failure { element, why } = failure;
            let note = format!("a pipeline is built anew, because {element} has failed: {why}");
            self.reports.send(Report::Note(note)).context("nobody reads reports")?;
            if let Some(Run::Video(run)) = &self.run
                && let Some((decoder, why)) = run.failed_decoder()
            {
                self.decoders.demote(decoder, &why);
            }
            if let Some(Run::Video(run)) = &self.run
                && let Some((encoder, why)) = run.failed_encoder()
            {
                self.encoders.demote(encoder, &why);
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
            return self.reports.send(Report::Consumed(self.id, 1)).context("nobody reads reports");
        }
        self.resting_until = None;
        if self.id == THUMBNAIL_LANE {
            return self.make_thumbnail(&coded);
        }
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

    /// One that fails is missed by nobody: the next keyframe has another decoder.
    fn make_thumbnail(&mut self, coded: &Coded) -> Result<()> {
        let track = Arc::clone(self.track.as_ref().context("a Sample before its track")?);
        let (_, wish) = self.makes.first().context("a Sample though nothing is to be made")?;
        if let Some(decoder) = self.decoders.of(&track.parameters).first() {
            match thumbnail::make(&track.parameters, decoder, wish.picture.lines, coded) {
                Ok(jpeg) => self.reports.send(Report::Thumbnail(self.id, jpeg)).context("nobody reads reports")?,
                Err(error) => self.decoders.demote(decoder, &format!("{error:#}")),
            }
        }
        self.reports.send(Report::Consumed(self.id, 1)).context("nobody reads reports")
    }

    fn begin(&mut self, first: &Coded) -> Result<Run> {
        let track = Arc::clone(self.track.as_ref().context("a Sample before its track")?);
        if PICTURE_LANES.contains(&self.id) {
            return self.begin_video(&track, first);
        }
        let (made, wish) = self.makes.first_mut().context("a Sample though nothing is to be made")?;
        let after = wish.after.take();
        let run = sound::Run::start(self.id, *made, &track, wish.bitrate, after, first, self.reports.clone())?;
        Ok(Run::Sound(run))
    }

    /// With the first decoder that starts.
    fn begin_video(&mut self, track: &Track, first: &Coded) -> Result<Run> {
        let (_, wish) = self.makes.first().context("a Sample though nothing is to be made")?;
        let mut failed = anyhow!("nothing decodes {}", track.codec_string());
        for decoder in self.decoders.of(&track.parameters) {
            let run = video::Run::start(self.id, &track.parameters, decoder, wish, first, &self.next_slot, self.reports.clone());
            let played = run.and_then(|mut run| {
                self.makes.iter().try_for_each(|(made, wish)| run.make(*made, wish, &self.encoders))?;
                run.play().map(|()| run)
            });
            match played {
                Ok(run) => {
                    self.makes.iter_mut().for_each(|(_, wish)| wish.after = None);
                    return Ok(Run::Video(run));
                }
                Err(error) => {
                    self.decoders.demote(decoder, &format!("{error:#}"));
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// The next run of a sound, if it is of the same publisher, goes on where this one stops. Pictures are told apart by their
    /// times, so nothing has to be joined.
    fn finish_run(&mut self) {
        match self.run.take() {
            Some(Run::Video(run)) => run.finish(),
            Some(Run::Sound(run)) => {
                let end = run.finish();
                self.makes.iter_mut().for_each(|(_, wish)| wish.after = end);
            }
            None => (),
        }
    }
}

impl Run {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Video(run) => run.failure(),
            Self::Sound(run) => run.failure(),
        }
    }
}

#[cfg(test)]
mod tests;
