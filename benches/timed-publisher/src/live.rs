//! Publishes painted pictures, coded as they come, and a tone on its own clock.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::{
    encoder::{self, Encoder, Rate, Unit},
    flv::Kind,
    report::{End, Report},
    rtmp::{Connection, Target, amf0},
    tone::{FRAME_SAMPLES, SAMPLE_RATE, Tone},
};

#[derive(Clone, Debug)]
pub struct Settings {
    pub encoder: encoder::Settings,
    pub video: bool,
    pub audio: bool,
    pub duration: Duration,
}

const AUDIO_RATE: Rate = Rate { numerator: SAMPLE_RATE, denominator: FRAME_SAMPLES };

/// Publishes until it is complete, the server ends it, or `stop` resolves.
pub async fn publish(settings: &Settings, target: &Target, stop: impl Future<Output = ()>) -> Report {
    let mut report = Report::new(End::Complete);
    report.end = match run(settings, target, stop, &mut report).await {
        Ok(()) => End::Complete,
        Err(end) => end,
    };
    report
}

async fn run(settings: &Settings, target: &Target, stop: impl Future<Output = ()>, report: &mut Report) -> Result<(), End> {
    let tone = match settings.audio {
        true => Some(blocking(Tone::encode).await?),
        false => None,
    };
    let mut connection = Connection::publish(target).await?;
    let encoder = match settings.video {
        true => Some(start_encoder(settings).await?),
        false => None,
    };
    let mut sender = Sender::new(&mut connection, tone, encoder.as_ref(), report);
    sender.describe(settings).await?;
    let ended = sender.run(settings.duration, encoder, stop).await;
    if ended.as_ref().map_or_else(End::is_orderly, |()| true) {
        connection.close(target).await;
    }
    ended
}

async fn start_encoder(settings: &Settings) -> Result<Encoder, End> {
    let (encoder, frames) = (settings.encoder.clone(), settings.duration.as_secs_f64() * settings.encoder.rate.per_second());
    blocking(move || Encoder::start(&encoder, frames.round() as u64)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, End> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string())).map_err(End::Encoder)
}

struct Sender<'a> {
    connection: &'a mut Connection,
    tone: Option<Tone>,
    report: &'a mut Report,
    started: Instant,
    audio_sent: u64,
    /// By how much audio waits for video that B-frames delay, as a live encoder interleaves them.
    /// `None` until the first picture is out.
    audio_hold: Option<Duration>,
    /// Added to every timestamp, so that decoding times begin at 0 with B-frames too.
    offset_ms: u32,
    last_dts_ms: u32,
}

impl<'a> Sender<'a> {
    fn new(connection: &'a mut Connection, tone: Option<Tone>, encoder: Option<&Encoder>, report: &'a mut Report) -> Self {
        let started = encoder.map_or_else(Instant::now, |e| e.started);
        report.started_wall_ms = encoder.map_or_else(|| encoder::wall_ms(started), |e| e.started_wall_ms);
        let audio_hold = encoder.is_none().then_some(Duration::ZERO);
        Self { connection, tone, report, started, audio_sent: 0, audio_hold, offset_ms: 0, last_dts_ms: 0 }
    }

    async fn describe(&mut self, settings: &Settings) -> Result<(), End> {
        let mut fields = Vec::new();
        if settings.video {
            let size = settings.encoder.size;
            fields.extend([("width", size.width as f64), ("height", size.height as f64), ("videocodecid", 7.0)]);
            fields
                .extend([("framerate", settings.encoder.rate.per_second()), ("videodatarate", f64::from(settings.encoder.kbps))]);
        }
        if settings.audio {
            fields.extend([("audiocodecid", 10.0), ("audiosamplerate", f64::from(SAMPLE_RATE)), ("audiodatarate", 128.0)]);
        }
        let metadata = amf0::Writer::default().string("@setDataFrame").string("onMetaData").numbers(&fields);
        self.connection.send(Kind::Script, 0, &metadata.0).await?;
        if let Some(tone) = &self.tone {
            self.connection.send(Kind::Audio, 0, &tone.header).await?;
        }
        Ok(())
    }

    async fn run(&mut self, duration: Duration, mut encoder: Option<Encoder>, stop: impl Future<Output = ()>) -> Result<(), End> {
        let mut stop = std::pin::pin!(stop);
        if let Some(encoder) = &encoder {
            self.connection.send(Kind::Video, 0, &encoder.header.body).await?;
        }
        let ended = loop {
            let audio_due = self.audio_due(duration);
            tokio::select! {
                biased;
                () = &mut stop => break Err(End::Stopped),
                error = self.connection.ended() => break Err(error.into()),
                unit = next_unit(&mut encoder) => match unit {
                    Some(unit) => if let Err(end) = self.send_video(unit).await { break Err(end) },
                    None if self.is_short(&encoder, duration) => break Err(End::Encoder("ffmpeg ended early".into())),
                    None => break Ok(()),
                },
                () = sleep_until(TokioInstant::from_std(audio_due.unwrap_or(self.started))), if audio_due.is_some() => {
                    if let Err(end) = self.send_audio().await { break Err(end) }
                }
                // Without pictures the tone alone says when it is over.
                () = sleep_until(TokioInstant::from_std(self.started + duration)), if encoder.is_none() => break Ok(()),
            }
        };
        self.report.seconds = self.started.elapsed().as_secs_f64();
        if let Some(encoder) = &encoder {
            self.report.late_frames += encoder.late();
            self.report.skipped_frames += encoder.skipped();
        }
        ended
    }

    fn is_short(&self, encoder: &Option<Encoder>, duration: Duration) -> bool {
        encoder.is_some() && self.started.elapsed() + Duration::from_millis(500) < duration
    }

    /// When the next audio frame has been captured whole; `None` while it must wait, or at the end.
    fn audio_due(&self, duration: Duration) -> Option<Instant> {
        let (hold, end) = (self.audio_hold?, AUDIO_RATE.at(self.audio_sent + 1));
        (self.tone.is_some() && end <= duration).then(|| self.started + end + hold)
    }

    async fn send_audio(&mut self) -> Result<(), End> {
        let Some(tone) = &self.tone else { return Ok(()) };
        let (body, at) = (tone.frame(self.audio_sent), AUDIO_RATE.at(self.audio_sent));
        self.connection.send(Kind::Audio, self.offset_ms.wrapping_add(millis(at)), body).await?;
        self.report.bytes += body.len() as u64;
        self.report.audio_frames += 1;
        self.audio_sent += 1;
        Ok(())
    }

    async fn send_video(&mut self, unit: Unit) -> Result<(), End> {
        let composition = unit.tag.composition_ms();
        if self.audio_hold.is_none() {
            self.offset_ms = u32::try_from(composition).unwrap_or(0);
            let lag = unit.coded.saturating_duration_since(unit.captured);
            self.audio_hold = Some(if composition == 0 { Duration::ZERO } else { lag });
        }
        let dts = self.offset_ms.wrapping_add(millis(unit.pts)).wrapping_add_signed(-composition);
        // Skipped grid instants may put a B-frame's decoding time before the last one.
        self.last_dts_ms = self.last_dts_ms.max(dts);
        self.connection.send(Kind::Video, self.last_dts_ms, &unit.tag.body).await?;
        self.report.video_frames += 1;
        self.report.bytes += unit.tag.body.len() as u64;
        self.report.encoder_delay.push(unit.coded.saturating_duration_since(unit.painted));
        self.report.source_delay.push(unit.captured.elapsed());
        Ok(())
    }
}

async fn next_unit(encoder: &mut Option<Encoder>) -> Option<Unit> {
    match encoder {
        Some(encoder) => encoder.units.recv().await,
        None => pending().await,
    }
}

/// RTMP's clock: rounded, so that 29.97 a second does not drift.
fn millis(time: Duration) -> u32 {
    ((time.as_micros() + 500) / 1000) as u32
}
