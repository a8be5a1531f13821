//! What one viewer is sent: a feed each for picture and sound, from tracks that many viewers share.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rtc_rtcp::{
    sender_report::SenderReport,
    source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem},
};
use rtc_shared::{error::Error, marshal::Marshal};

use super::{Burst, History, PlayoutDelay, Progress, Sender, SenderConfig};
use crate::{
    directory::Told,
    sdp::{Accepted, Media, Negotiated},
    srtp::{SealError, Sealer},
};

/// Least and most that a picture waits, in steps of 10 ms, where there is sound: browsers bring both together only within
/// this. A least of 0 would have them show each picture at once, and believe it in time (decision 6).
const WITH_SOUND: (u8, u8) = (1, 50);
/// Nothing has to be waited for.
const WITHOUT_SOUND: (u8, u8) = (0, 0);
/// Between two wishes for a keyframe of one track: an encoder has answered the first by then.
const WISH_INTERVAL: Duration = Duration::from_millis(500);
/// Seconds from 1900 to 1970 (RFC 3550 4).
const NTP_UNIX_SECONDS: u64 = 2_208_988_800;

/// Names a shared outgoing track.
pub(crate) type TrackKey = u64;

/// The shared tracks as a session needs them.
pub(crate) type Histories = HashMap<TrackKey, Shared>;

/// One outgoing track and who watches it.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) history: History,
    pub(crate) viewers: Vec<u64>,
    /// A viewer needs a keyframe that is not in the history.
    pub(crate) keyframe_wanted: bool,
    /// Shared with the other shards.
    pub(crate) told: Told,
    /// No sooner is it worth asking again whether the publisher may be told.
    pub(crate) tell_at: Option<Instant>,
}

impl Shared {
    /// Whether the publisher is to be told now that a keyframe is wanted.
    pub(crate) fn tell(&mut self, now: Instant) -> bool {
        if self.tell_at.is_some_and(|at| now < at) {
            return false;
        }
        let told = self.told.tell(now, WISH_INTERVAL);
        self.tell_at = Some(told.err().unwrap_or(now) + WISH_INTERVAL);
        told.is_ok()
    }
}

/// Of one viewer.
pub(crate) struct Feeds {
    video: Option<Feed>,
    audio: Option<Feed>,
    cname: String,
    /// Wall clock, in microseconds, at zero of the media timeline.
    zero_us: Option<i64>,
}

struct Feed {
    track: Option<TrackKey>,
    sender: Sender,
    /// The viewer asked to go over to this one: once a keyframe of it is there.
    next: Option<TrackKey>,
}

impl Feeds {
    pub(crate) fn new(negotiated: &Negotiated, [video, audio]: [Option<TrackKey>; 2], random: [u8; 32]) -> Self {
        let mut cname = String::new();
        let (min, max) = if negotiated.audio().is_some() { WITH_SOUND } else { WITHOUT_SOUND };
        let mut feed = |line: Option<(&Media, &Accepted)>, track, clock, marks_frames, at: usize| {
            let (_, accepted) = line?;
            let source = accepted.source.as_ref()?;
            cname.clone_from(&source.cname);
            let config = SenderConfig {
                ssrc: source.ssrc,
                payload_type: accepted.payload_type,
                rtx: accepted.rtx.zip(source.rtx_ssrc),
                clock,
                playout_delay: accepted.extensions.playout_delay.map(|id| PlayoutDelay { id, min, max }),
                marks_frames,
                first_sequence: u16::from_be_bytes([random[at], random[at + 1]]),
                first_timestamp: u32::from_be_bytes([random[at + 2], random[at + 3], random[at + 4], random[at + 5]]),
            };
            Some(Feed { track, sender: Sender::new(config), next: None })
        };
        let video = feed(negotiated.video(), video, 90_000, true, 4);
        let audio = feed(negotiated.audio(), audio, 48_000, false, 10);
        Self { video, audio, cname, zero_us: None }
    }

    /// Goes over to another track of the picture at its next keyframe.
    pub(crate) fn select(&mut self, track: TrackKey) {
        if let Some(feed) = &mut self.video {
            feed.next = (feed.track != Some(track)).then_some(track);
        }
    }

    /// The tracks that are sent, and those that are gone over to.
    pub(crate) fn tracks(&self) -> impl Iterator<Item = TrackKey> {
        [&self.video, &self.audio].into_iter().flatten().flat_map(|feed| [feed.track, feed.next]).flatten()
    }

    /// What was to go out did not fit into the way: the picture goes on at the next keyframe.
    pub(crate) fn fall_behind(&mut self, tracks: &Histories) {
        if let Some(feed) = &mut self.video
            && let Some(shared) = feed.track.and_then(|track| tracks.get(&track))
        {
            feed.sender.fall_behind(&shared.history);
        }
    }

    /// When `advance` has more to send.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [&self.video, &self.audio].into_iter().flatten().filter_map(|feed| feed.sender.poll_timeout()).min()
    }

    /// Sends what is due; `out` takes it.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        tracks: &mut Histories,
        sealer: &mut Sealer,
        out: &mut Vec<Burst>,
    ) -> Result<(), SealError> {
        for feed in [&mut self.video, &mut self.audio].into_iter().flatten() {
            feed.advance(now, tracks, sealer, out)?;
        }
        Ok(())
    }

    pub(crate) fn handle_nack(
        &mut self,
        ssrc: u32,
        lost: &[u16],
        tracks: &Histories,
        sealer: &mut Sealer,
        out: &mut Vec<Burst>,
    ) -> Result<u64, SealError> {
        let feed = [&mut self.video, &mut self.audio].into_iter().flatten().find(|feed| feed.sender.config().ssrc == ssrc);
        let Some(feed) = feed else { return Ok(0) };
        let Some(shared) = feed.track.and_then(|track| tracks.get(&track)) else { return Ok(0) };
        feed.sender.handle_nack(lost, &shared.history, sealer, out)
    }

    pub(crate) fn handle_picture_loss(&mut self, now: Instant, tracks: &mut Histories) {
        let Some(feed) = &mut self.video else { return };
        let Some(shared) = feed.track.and_then(|track| tracks.get_mut(&track)) else { return };
        if !feed.sender.handle_picture_loss(now, &shared.history) {
            shared.keyframe_wanted = true;
        }
    }

    /// A sender report and description of each track (RFC 3550 6.4.1): both on one media timeline, for lip sync.
    pub(crate) fn reports(&mut self, now: Instant, wall_us: i64, tracks: &Histories) -> Vec<Result<BytesMut, Error>> {
        let mut packets = Vec::new();
        for feed in [&self.video, &self.audio].into_iter().flatten() {
            let Some(shared) = feed.track.and_then(|track| tracks.get(&track)) else { continue };
            let Some((rtp_time, at_us)) = feed.sender.clock_at(now, &shared.history) else { continue };
            let zero_us = *self.zero_us.get_or_insert(wall_us - at_us);
            let report = SenderReport {
                ssrc: feed.sender.config().ssrc,
                ntp_time: ntp(zero_us + at_us),
                rtp_time,
                packet_count: feed.sender.packets,
                octet_count: feed.sender.octets,
                ..Default::default()
            };
            let items = vec![SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: self.cname.clone().into() }];
            let description = SourceDescription { chunks: vec![SourceDescriptionChunk { source: report.ssrc, items }] };
            packets.extend([report.marshal(), description.marshal()]);
        }
        packets
    }
}

impl Feed {
    fn advance(
        &mut self,
        now: Instant,
        tracks: &mut Histories,
        sealer: &mut Sealer,
        out: &mut Vec<Burst>,
    ) -> Result<(), SealError> {
        if let Some(next) = self.next
            && tracks.get(&next).is_some_and(|shared| is_at_keyframe(&shared.history))
        {
            (self.track, self.next) = (Some(next), None);
            self.sender.switch();
        }
        let Some(shared) = self.track.and_then(|track| tracks.get_mut(&track)) else {
            // The track is gone: nothing is due.
            self.sender.switch();
            return Ok(());
        };
        let progress = self.sender.advance(now, &shared.history, sealer, out)?;
        shared.keyframe_wanted |= progress == Progress::NeedsKeyframe;
        Ok(())
    }
}

/// A switch waits until the newest frame is a keyframe: nothing has to be caught up with.
fn is_at_keyframe(history: &History) -> bool {
    history.newest_keyframe().is_some_and(|keyframe| keyframe + 1 == history.next())
}

/// 32.32 fixed point since 1900.
fn ntp(unix_us: i64) -> u64 {
    let us = u64::try_from(unix_us).unwrap_or(0);
    let fraction = ((us % 1_000_000) << 32) / 1_000_000;
    ((us / 1_000_000 + NTP_UNIX_SECONDS) << 32) | fraction
}
