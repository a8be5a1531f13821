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

use super::{Bandwidth, Burst, History, PlayoutDelay, Progress, Sender, SenderConfig, Way};
use crate::{
    directory::Told,
    rtp::{TransportFeedback, rtcp::Reception},
    sdp::{Accepted, Media, Negotiated},
    srtp::{SealError, Sealer},
};

/// Least and most that a picture waits, in steps of 10 ms, where there is sound: browsers bring both together only within
/// this. A least of 0 would have them show each picture at once, and believe it in time (decision 6).
const WITH_SOUND: (u8, u8) = (1, 50);
/// Nothing has to be waited for.
const WITHOUT_SOUND: (u8, u8) = (0, 0);
/// How long a picture rests at most until the next one is there: a rung that is made anew comes sooner.
const REST_MAX: Duration = Duration::from_secs(3);
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
    pub(crate) bandwidth: Bandwidth,
}

struct Feed {
    track: Option<TrackKey>,
    sender: Sender,
    /// The viewer asked to go over to this one: once a keyframe of it is there.
    next: Option<TrackKey>,
    /// Until then nothing of the picture is sent.
    hold_until: Option<Instant>,
    /// It has, and nobody was told yet.
    switched: Option<TrackKey>,
}

impl Feeds {
    pub(crate) fn new(negotiated: &Negotiated, [video, audio]: [Option<TrackKey>; 2], random: [u8; 32], now: Instant) -> Self {
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
                transport_cc: accepted.extensions.transport_cc,
                playout_delay: accepted.extensions.playout_delay.map(|id| PlayoutDelay { id, min, max }),
                marks_frames,
                first_sequence: u16::from_be_bytes([random[at], random[at + 1]]),
                first_timestamp: u32::from_be_bytes([random[at + 2], random[at + 3], random[at + 4], random[at + 5]]),
            };
            Some(Feed { track, sender: Sender::new(config), next: None, hold_until: None, switched: None })
        };
        let video = feed(negotiated.video(), video, 90_000, true, 4);
        let audio = feed(negotiated.audio(), audio, 48_000, false, 10);
        // Of the picture: sound alone has no better one to go up to.
        let is_numbered = video.as_ref().is_some_and(|feed| feed.sender.config().transport_cc.is_some());
        Self { video, audio, cname, zero_us: None, bandwidth: Bandwidth::new(now, is_numbered) }
    }

    /// Goes over to another track of the picture when its newest frame is a keyframe, so that nothing has to be caught up
    /// with. Until then the picture goes on as it is, or rests, for a while: what cannot arrive whole only keeps the new one
    /// waiting.
    pub(crate) fn select(&mut self, now: Instant, track: TrackKey, rests: bool, tracks: &Histories) {
        if let Some(feed) = &mut self.video {
            feed.next = (feed.track != Some(track)).then_some(track);
            feed.resume(tracks);
            feed.hold_until = (rests && feed.next.is_some()).then(|| now + REST_MAX);
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
        let feeds = [&self.video, &self.audio].into_iter().flatten().filter_map(Feed::poll_timeout);
        feeds.chain(self.bandwidth.poll_timeout()).min()
    }

    /// Sends what is due; `out`, empty, takes it.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        tracks: &mut Histories,
        sealer: &mut Sealer,
        out: &mut Vec<Burst>,
    ) -> Result<(), SealError> {
        let Self { video, audio, bandwidth, .. } = self;
        let (numbers, pacer) = bandwidth.way(now);
        let mut way = Way { now, sealer, numbers, pacer, out };
        for feed in [&mut *video, audio].into_iter().flatten() {
            feed.advance(tracks, &mut way)?;
        }
        bandwidth.sent(now, out.iter().map(|burst| burst.bytes.len()).sum());
        let due = bandwidth.poll_bytes(now);
        if due > 0
            && let Some(feed) = video
            && let Some(shared) = feed.track.and_then(|track| tracks.get(&track))
        {
            let (numbers, pacer) = bandwidth.way(now);
            let mut way = Way { now, sealer, numbers, pacer, out };
            let padded = feed.sender.pad(due, &shared.history, &mut way)?;
            bandwidth.sent(now, usize::try_from(padded).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    /// The track of the picture that was gone over to since the last call.
    pub(crate) fn take_switched(&mut self) -> Option<TrackKey> {
        self.video.as_mut()?.switched.take()
    }

    pub(crate) fn handle_feedback(&mut self, now: Instant, feedback: &TransportFeedback) {
        self.bandwidth.handle_feedback(now, feedback);
    }

    pub(crate) fn handle_reception(&mut self, now: Instant, reception: &Reception) {
        if self.video.as_ref().is_some_and(|feed| feed.sender.config().ssrc == reception.ssrc) {
            self.bandwidth.handle_reception(now, reception);
        }
    }

    pub(crate) fn handle_nack(
        &mut self,
        now: Instant,
        ssrc: u32,
        lost: &[u16],
        tracks: &Histories,
        sealer: &mut Sealer,
        out: &mut Vec<Burst>,
    ) -> Result<u64, SealError> {
        let Self { video, audio, bandwidth, .. } = self;
        let feed = [video, audio].into_iter().flatten().find(|feed| feed.sender.config().ssrc == ssrc);
        // What rests is not wanted back: it would only keep the next picture waiting.
        let Some(feed) = feed.filter(|feed| feed.hold_until.is_none()) else { return Ok(0) };
        let Some(shared) = feed.track.and_then(|track| tracks.get(&track)) else { return Ok(0) };
        let (numbers, pacer) = bandwidth.way(now);
        feed.sender.handle_nack(lost, &shared.history, &mut Way { now, sealer, numbers, pacer, out })
    }

    pub(crate) fn handle_picture_loss(&mut self, now: Instant, tracks: &mut Histories) {
        let Some(feed) = self.video.as_mut().filter(|feed| feed.hold_until.is_none()) else { return };
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
    fn poll_timeout(&self) -> Option<Instant> {
        self.hold_until.or_else(|| self.sender.poll_timeout())
    }

    /// What was held back is not made up for: it goes on at the next keyframe.
    fn resume(&mut self, tracks: &Histories) {
        if self.hold_until.take().is_some()
            && let Some(shared) = self.track.and_then(|track| tracks.get(&track))
        {
            self.sender.fall_behind(&shared.history);
        }
    }

    fn advance(&mut self, tracks: &mut Histories, way: &mut Way<'_>) -> Result<(), SealError> {
        if let Some(next) = self.next
            && let Some(shared) = tracks.get_mut(&next)
            && let Some((newest, _)) = shared.history.newest()
            && self.sender.is_followed_by(newest, self.hold_until.is_some())
        {
            if newest.keyframe {
                self.hold_until = None;
                (self.track, self.next, self.switched) = (Some(next), None, Some(next));
                self.sender.switch();
            } else {
                // The one that was wished for came while this track was being caught up with.
                shared.keyframe_wanted = true;
            }
        }
        if let Some(until) = self.hold_until {
            if way.now < until {
                return Ok(());
            }
            self.resume(tracks);
        }
        let Some(shared) = self.track.and_then(|track| tracks.get_mut(&track)) else {
            // The track is gone: nothing is due.
            self.sender.switch();
            return Ok(());
        };
        let progress = self.sender.advance(&shared.history, way)?;
        shared.keyframe_wanted |= progress == Progress::NeedsKeyframe;
        Ok(())
    }
}

/// 32.32 fixed point since 1900.
fn ntp(unix_us: i64) -> u64 {
    let us = u64::try_from(unix_us).unwrap_or(0);
    let fraction = ((us % 1_000_000) << 32) / 1_000_000;
    ((us / 1_000_000 + NTP_UNIX_SECONDS) << 32) | fraction
}
