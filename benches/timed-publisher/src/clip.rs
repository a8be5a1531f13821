//! Publishes a pre-encoded FLV in real time, again and again, its timestamps going on. Costs
//! almost nothing, so that many copies show what the server costs.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::{
    encoder::wall_ms,
    flv::{self, Kind, Tag},
    report::{End, Report},
    rtmp::{Connection, Target},
};

/// Largest clip held in memory, once for all copies: a minute at 30 Mbit/s.
const CLIP_BYTES_MAX: u64 = 256 << 20;
/// Sent later than this after its time, a frame counts as late: half an interval at 30 fps.
const LATE: Duration = Duration::from_millis(17);

/// The tags of a clip, cut so that one round follows the other.
#[derive(Debug)]
pub struct Clip {
    /// Metadata and sequence headers: sent once.
    pub headers: Vec<Tag>,
    /// Media in the order of the file.
    pub media: Vec<Tag>,
    /// From the first tag of one round to that of the next.
    pub round_ms: u32,
}

impl Clip {
    pub fn load(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
        if size > CLIP_BYTES_MAX {
            return Err(format!("{}: more than 256 MiB", path.display()));
        }
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = flv::Reader::default();
        reader.push(bytes);
        let (mut headers, mut media) = (Vec::new(), Vec::new());
        while let Some(tag) = reader.next_tag().map_err(|error| error.to_string())? {
            match tag.is_media() {
                true => media.push(tag),
                false if tag.kind == Kind::Script || tag.is_sequence_header() => headers.push(tag),
                false => {}
            }
        }
        let round_ms = round_ms(&media).ok_or("fewer than two frames of video or of audio")?;
        let first = media.iter().map(|tag| tag.dts_ms).min().unwrap_or(0);
        media.iter_mut().for_each(|tag| tag.dts_ms -= first);
        // Audio that outlasts the video would be sent after the next round's first picture.
        media.retain(|tag| tag.dts_ms < round_ms);
        media.sort_by_key(|tag| tag.dts_ms);
        Ok(Self { headers, media, round_ms })
    }
}

/// The video's duration, its last frame included; the audio's where there is no video.
fn round_ms(media: &[Tag]) -> Option<u32> {
    let span = |kind| {
        let times: Vec<u64> = media.iter().filter(|tag| tag.kind == kind).map(|tag| u64::from(tag.dts_ms)).collect();
        let (first, last, gaps) = (*times.first()?, *times.last()?, times.len() as u64 - 1);
        let span = last.checked_sub(first).filter(|span| *span > 0 && gaps > 0)?;
        u32::try_from((span * (gaps + 1) + gaps / 2) / gaps).ok()
    };
    span(Kind::Video).or_else(|| span(Kind::Audio))
}

/// Publishes for `duration`, or until the server ends it or `stop` resolves.
pub async fn publish(clip: Arc<Clip>, target: &Target, duration: Duration, stop: impl Future<Output = ()>) -> Report {
    let mut report = Report::new(End::Complete);
    if let Err(end) = run(&clip, target, duration, stop, &mut report, &mut |_, _| {}).await {
        report.end = end;
    }
    report
}

/// As `publish`, and tells `sending` of each frame just before it goes to the socket.
pub async fn publish_watched(
    clip: Arc<Clip>,
    target: &Target,
    duration: Duration,
    stop: impl Future<Output = ()>,
    mut sending: impl FnMut(&Tag, Instant),
) -> Report {
    let mut report = Report::new(End::Complete);
    if let Err(end) = run(&clip, target, duration, stop, &mut report, &mut sending).await {
        report.end = end;
    }
    report
}

async fn run(
    clip: &Clip,
    target: &Target,
    duration: Duration,
    stop: impl Future<Output = ()>,
    report: &mut Report,
    sending: &mut impl FnMut(&Tag, Instant),
) -> Result<(), End> {
    let mut stop = std::pin::pin!(stop);
    let mut connection = Connection::publish(target).await?;
    for header in &clip.headers {
        connection.send(header.kind, 0, &header.body).await?;
    }
    let started = Instant::now();
    report.started_wall_ms = wall_ms(started);
    let ended = 'sent: {
        for round in 0u64.. {
            for tag in &clip.media {
                let at = round * u64::from(clip.round_ms) + u64::from(tag.dts_ms);
                let due = started + Duration::from_millis(at);
                if due.duration_since(started) >= duration {
                    break 'sent Ok(());
                }
                tokio::select! {
                    biased;
                    () = &mut stop => break 'sent Err(End::Stopped),
                    error = connection.ended(), if due > Instant::now() => break 'sent Err(error.into()),
                    () = sleep_until(TokioInstant::from_std(due)) => {}
                }
                sending(tag, Instant::now());
                if let Err(error) = connection.send(tag.kind, at as u32, &tag.body).await {
                    break 'sent Err(error.into());
                }
                count(report, tag, due.elapsed());
            }
        }
        Ok(())
    };
    report.seconds = started.elapsed().as_secs_f64();
    if ended.as_ref().map_or_else(End::is_orderly, |()| true) {
        connection.close(target).await;
    }
    ended
}

fn count(report: &mut Report, tag: &Tag, delay: Duration) {
    match tag.kind {
        Kind::Video => report.video_frames += 1,
        _ => report.audio_frames += 1,
    }
    report.bytes += tag.body.len() as u64;
    report.late_frames += u64::from(delay > LATE);
    report.source_delay.push(delay);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: Kind, dts_ms: u32) -> Tag {
        Tag { kind, dts_ms, body: bytes::Bytes::from_static(&[0x17, 1, 0, 0, 0]) }
    }

    #[test]
    fn a_round_lasts_as_long_as_its_video() {
        let video: Vec<Tag> = (0..60).map(|n| tag(Kind::Video, (n * 1000 + 15) / 30)).collect();
        assert_eq!(round_ms(&video), Some(2000));
        let audio: Vec<Tag> = (0..44).map(|n| tag(Kind::Audio, (n * 1024 + 22) / 44)).collect();
        assert_eq!(round_ms(&audio), Some(1024));
        assert_eq!(round_ms(&video[..1]), None);
    }
}
