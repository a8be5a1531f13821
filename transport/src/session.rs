//! One peer: ICE, DTLS, SRTP, and its media in one direction.
//!
//! ```text
//! Checking --first proved check--> Handshaking --keys--> Connected --> Closed(reason)
//! ```
//!
//! Sans-IO: checks and datagrams of proved paths come in, datagrams and events go out. After every
//! call drain `poll_transmit` and `poll_event`, and ask `poll_timeout` anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rtc_rtcp::{
    payload_feedbacks::{
        full_intra_request::{FirEntry, FullIntraRequest},
        picture_loss_indication::PictureLossIndication,
        receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
    },
    receiver_report::ReceiverReport,
    sender_report::SenderReport,
    source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem},
    transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers},
};
use rtc_shared::marshal::{Marshal, Unmarshal};

use crate::{
    dtls::{Handshake, Identity, Progress},
    event::{Closed, Event},
    ice::{Agent, Checked, News},
    path::Path,
    receive::{Receive, Report},
    rtp::rtcp::{self, Packet},
    sdp::{IceCredentials, Negotiated},
    send::{Burst, History, Sender, SenderConfig},
    srtp::{self, Opener, SealError, Sealer},
    stun::Request,
};

/// From the answer to the first check: a viewer on a slow link has the answer late.
const CHECK_WAIT: Duration = Duration::from_secs(20);
/// From the first check to the keys.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(15);
/// From our last flight to the first frame: a peer that has not read the one drops the other.
const FIRST_SEND_PAUSE: Duration = Duration::from_millis(10);
/// Sender and receiver reports, bitrate estimates.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a picture may wait for sound that is late, in steps of 10 ms. Browsers bring both together only within this,
/// and show each picture at once up to 500 ms; without sound nothing has to wait.
const LIP_SYNC_STEPS: u8 = 50;
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
    /// When the publisher was last told of that.
    pub(crate) told: Option<Instant>,
}

/// Counted by the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) unopened: u64,
    /// Packets that belong to nothing that was negotiated.
    pub(crate) strays: u64,
    pub(crate) repeated: u64,
    pub(crate) nacked: u64,
    pub(crate) picture_losses: u64,
    pub(crate) fell_behind: u64,
}

pub(crate) struct Session {
    pub(crate) agent: Agent,
    handshake: Handshake,
    identity: Arc<Identity>,
    /// What was wrong with the handshake last.
    trouble: Option<String>,
    srtp: Option<(Sealer, Opener)>,
    media: Media,
    state: State,
    report_at: Instant,
    /// When a viewer is sent what is there already.
    first_send: Option<Instant>,
    /// Ours in RTCP when we only receive.
    ssrc: u32,
    fir_sequence: u8,
    /// Wall clock at one moment; nothing else here knows the time of day.
    wall: (Instant, SystemTime),
    transmits: VecDeque<(Path, Burst)>,
    events: VecDeque<Event>,
    pub(crate) counts: Counts,
}

enum Media {
    Receive(Box<Receive>),
    Send(Box<Send>),
}

struct Send {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Checking { until: Instant },
    Handshaking { until: Instant },
    Connected,
    Closed,
}

/// What a new session is made of.
pub(crate) struct Setup {
    pub(crate) negotiated: Negotiated,
    pub(crate) local: IceCredentials,
    pub(crate) identity: Arc<Identity>,
    pub(crate) wall: (Instant, SystemTime),
    /// Random; for SSRC, first sequence numbers and timestamps.
    pub(crate) random: [u8; 32],
    /// `None` receives; `Some` sends these tracks.
    pub(crate) sends: Option<[Option<TrackKey>; 2]>,
}

impl Session {
    pub(crate) fn new(setup: Setup, now: Instant) -> Result<Self, rtc_shared::error::Error> {
        let Setup { negotiated, local, identity, wall, random, sends } = setup;
        let handshake = Handshake::new(&identity, negotiated.dtls_client, negotiated.remote.fingerprint.clone())?;
        let media = match sends {
            None => Media::Receive(Box::new(Receive::new(&negotiated, now))),
            Some(tracks) => Media::Send(Box::new(Send::new(&negotiated, tracks, random))),
        };
        Ok(Self {
            agent: Agent::new(&local, now),
            handshake,
            trouble: None,
            srtp: None,
            media,
            state: State::Checking { until: now + CHECK_WAIT },
            report_at: now + REPORT_INTERVAL,
            first_send: None,
            ssrc: u32::from_be_bytes([random[0], random[1], random[2], random[3]]),
            fir_sequence: 0,
            wall,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
            identity,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// False when the check was forged.
    pub(crate) fn handle_check(&mut self, now: Instant, path: Path, request: &Request<'_>) -> bool {
        let Checked::Answer { bytes, news } = self.agent.handle_check(now, path, request) else { return false };
        self.transmits.push_back((path, Burst::single(bytes)));
        if let State::Checking { .. } = self.state {
            self.state = State::Handshaking { until: now + HANDSHAKE_WAIT };
        }
        if news == News::Nominated {
            let begun = self.handshake.begin(now);
            self.after_handshake(begun.map(|()| Progress::Nothing), now);
        }
        true
    }

    /// A datagram that is no check, of a path that is proved.
    pub(crate) fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8], tracks: &mut Histories) {
        // RFC 7983 7; RTCP by its packet type (RFC 5761 4).
        match datagram {
            [20..=63, ..] => {
                let progress = self.handshake.handle(now, datagram);
                self.after_handshake(progress, now);
            }
            [128..=191, 192..=223, ..] => self.handle_rtcp(now, path, datagram, tracks),
            [128..=191, ..] => self.handle_rtp(now, path, datagram),
            _ => self.counts.unopened += 1,
        }
    }

    pub(crate) fn restart(&mut self, local: &IceCredentials) {
        self.agent.restart(local);
    }

    pub(crate) fn request_keyframe(&mut self, now: Instant, layer: usize) {
        if let Media::Receive(receive) = &mut self.media {
            receive.request_keyframe(now, layer);
            self.report(now);
        }
    }

    /// Goes over to another track of the picture at its next keyframe.
    pub(crate) fn select(&mut self, track: TrackKey) {
        if let Media::Send(send) = &mut self.media
            && let Some(feed) = &mut send.video
        {
            feed.next = (feed.track != Some(track)).then_some(track);
        }
    }

    /// The tracks this viewer is fed from, and goes over to.
    pub(crate) fn tracks(&self) -> impl Iterator<Item = TrackKey> {
        let feeds = match &self.media {
            Media::Send(send) => [send.video.as_ref(), send.audio.as_ref()],
            Media::Receive(_) => [None, None],
        };
        feeds.into_iter().flatten().flat_map(|feed| [feed.track, feed.next]).flatten()
    }

    /// A frame was pushed to one of this viewer's tracks, or time has come to send more.
    pub(crate) fn advance(&mut self, now: Instant, tracks: &mut Histories) {
        let (Media::Send(send), Some((sealer, _)), Some(path)) = (&mut self.media, &mut self.srtp, self.agent.selected()) else {
            return;
        };
        if self.first_send.is_some() {
            return;
        }
        let mut out = Vec::new();
        let sent = send.advance(now, tracks, sealer, &mut out);
        self.transmits.extend(out.into_iter().map(|burst| (path, burst)));
        if let Err(error) = sent {
            self.end(now, Closed::Seal(error.to_string()));
        }
    }

    /// What was to go out did not fit into the way: the viewer goes on at the next keyframe.
    pub(crate) fn fall_behind(&mut self, tracks: &Histories) {
        self.counts.fell_behind += 1;
        if let Media::Send(send) = &mut self.media
            && let Some(feed) = &mut send.video
            && let Some(shared) = feed.track.and_then(|track| tracks.get(&track))
        {
            feed.sender.fall_behind(&shared.history);
        }
    }

    pub(crate) fn close(&mut self, now: Instant, reason: Closed) {
        self.handshake.close(now);
        self.drain_handshake();
        self.end(now, reason);
    }

    /// A TCP connection ended.
    pub(crate) fn forget_path(&mut self, path: Path) {
        self.agent.forget(path);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, tracks: &mut Histories) {
        match self.state {
            State::Closed => return,
            State::Checking { until } if now >= until => return self.end(now, Closed::Unreachable),
            State::Handshaking { until } if now >= until => {
                let reason = self.trouble.take().map_or(Closed::HandshakeTimeout, Closed::Handshake);
                return self.end(now, reason);
            }
            State::Connected if now >= self.agent.consent_until() => return self.end(now, Closed::ConsentLost),
            _ => {}
        }
        if self.handshake.poll_timeout().is_some_and(|at| at <= now) {
            let handled = self.handshake.handle_timeout(now);
            self.after_handshake(handled.map(|()| Progress::Nothing), now);
        }
        if let Media::Receive(receive) = &mut self.media {
            receive.handle_timeout(now);
        }
        self.report(now);
        self.first_send = self.first_send.filter(|at| now < *at);
        self.advance(now, tracks);
        if now >= self.report_at {
            self.report_at = now + REPORT_INTERVAL;
            self.report_periodically(now, tracks);
        }
        self.collect();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.state {
            State::Closed => return None,
            State::Checking { until } | State::Handshaking { until } => until,
            State::Connected => self.agent.consent_until().min(self.report_at),
        };
        let media = match &self.media {
            Media::Receive(receive) => receive.poll_timeout(),
            // Without a way nothing is sent, and nothing is due.
            Media::Send(_) if self.agent.selected().is_none() => None,
            Media::Send(send) => {
                [&send.video, &send.audio].into_iter().flatten().filter_map(|feed| feed.sender.poll_timeout()).min()
            }
        };
        [Some(phase), self.handshake.poll_timeout(), self.first_send, media.filter(|_| self.srtp.is_some())]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(Path, Burst)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn after_handshake(&mut self, progress: Result<Progress, rtc_shared::error::Error>, now: Instant) {
        self.drain_handshake();
        match progress {
            Ok(Progress::Nothing) => {}
            Ok(Progress::ClosedByPeer) => self.end(now, Closed::ByPeer),
            Ok(Progress::Done(keys)) => match srtp::contexts(*keys, Arc::clone(self.identity.provider())) {
                Ok(contexts) => {
                    self.srtp = Some(contexts);
                    self.state = State::Connected;
                    self.first_send = Some(now + FIRST_SEND_PAUSE);
                    if let Some(path) = self.agent.selected() {
                        self.events.push_back(Event::Connected { peer: path.remote() });
                    }
                }
                Err(error) => self.end(now, Closed::Handshake(error.to_string())),
            },
            Err(_) if self.handshake.is_refused() => {
                let reason = "the certificate is not the one that the offer named";
                self.end(now, Closed::Handshake(reason.into()));
            }
            Err(rtc_shared::error::Error::ErrAlertFatalOrClose) if self.srtp.is_none() => {
                self.end(now, Closed::Handshake("the peer refused it".into()));
            }
            // A broken record is noise, before the keys as after them (RFC 6347 4.1.2.7); what keeps the handshake from
            // its end is told when its time is over.
            Err(error) => {
                self.counts.unopened += 1;
                self.trouble = Some(error.to_string());
            }
        }
    }

    fn drain_handshake(&mut self) {
        while let Some(datagram) = self.handshake.poll_transmit() {
            if let Some(path) = self.agent.selected() {
                self.transmits.push_back((path, Burst::single(datagram.to_vec())));
            }
        }
    }

    fn handle_rtp(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        let (Media::Receive(receive), Some((_, opener))) = (&mut self.media, &mut self.srtp) else { return };
        let Ok(header) = rtc_rtp::Header::unmarshal(&mut &datagram[..]) else {
            self.counts.unopened += 1;
            return;
        };
        if !receive.admits(header.ssrc) {
            self.counts.strays += 1;
            return;
        }
        let Ok(opened) = opener.open_rtp(datagram, &header) else {
            self.counts.unopened += 1;
            return;
        };
        self.agent.heard(now, path);
        let payload = opened.freeze();
        let Some(payload) = unpadded(&header, payload) else { return };
        if !receive.handle_packet(now, &header, payload) {
            self.counts.strays += 1;
        }
        self.report(now);
        self.collect();
    }

    fn handle_rtcp(&mut self, now: Instant, path: Path, datagram: &[u8], tracks: &mut Histories) {
        let Some((sealer, opener)) = &mut self.srtp else { return };
        let Ok(opened) = opener.open_rtcp(datagram) else {
            self.counts.unopened += 1;
            return;
        };
        self.agent.heard(now, path);
        let Some(way) = self.agent.selected() else { return };
        let mut out = Vec::new();
        let mut sealed = Ok(());
        for packet in rtcp::parse(&opened) {
            match (&mut self.media, packet) {
                (Media::Receive(receive), Packet::SenderReport { ssrc, ntp, rtp }) => {
                    receive.handle_sender_report(now, ssrc, ntp, rtp);
                }
                (Media::Send(send), Packet::Nack { ssrc, lost }) => {
                    self.counts.nacked += lost.len() as u64;
                    match send.handle_nack(ssrc, &lost, tracks, sealer, &mut out) {
                        Ok(repeated) => self.counts.repeated += repeated,
                        Err(error) => sealed = Err(error),
                    }
                }
                (Media::Send(send), Packet::PictureLoss { .. } | Packet::FullIntra { .. }) => {
                    self.counts.picture_losses += 1;
                    send.handle_picture_loss(now, tracks);
                }
                _ => {}
            }
        }
        self.transmits.extend(out.into_iter().map(|burst| (way, burst)));
        if let Err(error) = sealed {
            self.end(now, Closed::Seal(error.to_string()));
        }
        self.advance(now, tracks);
    }

    /// Sends what the receivers ask for now.
    fn report(&mut self, now: Instant) {
        loop {
            let Media::Receive(receive) = &mut self.media else { return };
            let Some(report) = receive.poll_report(now) else { break };
            let bytes = match report {
                Report::Nack { ssrc, lost } => {
                    let nacks = nack_pairs_from_sequence_numbers(&lost);
                    TransportLayerNack { sender_ssrc: self.ssrc, media_ssrc: ssrc, nacks }.marshal()
                }
                Report::PictureLoss { ssrc, fir: false } => {
                    PictureLossIndication { sender_ssrc: self.ssrc, media_ssrc: ssrc }.marshal()
                }
                Report::PictureLoss { ssrc, fir: true } => {
                    self.fir_sequence = self.fir_sequence.wrapping_add(1);
                    let fir = vec![FirEntry { ssrc, sequence_number: self.fir_sequence }];
                    FullIntraRequest { sender_ssrc: self.ssrc, media_ssrc: ssrc, fir }.marshal()
                }
            };
            if let Ok(bytes) = bytes {
                self.send_rtcp(now, &bytes);
            }
        }
        let Media::Receive(receive) = &mut self.media else { return };
        if let Some(feedback) = receive.poll_transport_cc(now) {
            self.send_rtcp(now, &feedback);
        }
    }

    fn report_periodically(&mut self, now: Instant, tracks: &Histories) {
        if self.srtp.is_none() {
            return;
        }
        let mut packets = Vec::new();
        let wall_us = self.wall_us(now);
        match &mut self.media {
            Media::Receive(receive) => {
                let reports = receive.receptions(now);
                packets.push(ReceiverReport { ssrc: self.ssrc, reports, profile_extensions: Bytes::new() }.marshal());
                if let Some((bitrate, ssrcs)) = receive.estimate(now).filter(|(_, ssrcs)| !ssrcs.is_empty()) {
                    let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: self.ssrc, bitrate: bitrate as f32, ssrcs };
                    packets.push(remb.marshal());
                }
            }
            Media::Send(send) => packets.extend(send.reports(now, wall_us, tracks)),
        }
        let compound: Vec<u8> = packets.into_iter().filter_map(Result::ok).flatten().collect();
        if !compound.is_empty() {
            self.send_rtcp(now, &compound);
        }
    }

    fn send_rtcp(&mut self, now: Instant, packet: &[u8]) {
        let (Some((sealer, _)), Some(path)) = (&mut self.srtp, self.agent.selected()) else { return };
        match sealer.seal_rtcp(packet) {
            Ok(sealed) => self.transmits.push_back((path, Burst::single(sealed))),
            Err(error) => self.end(now, Closed::Seal(error.to_string())),
        }
    }

    fn collect(&mut self) {
        if let Media::Receive(receive) = &mut self.media {
            self.events.extend(std::iter::from_fn(|| receive.poll_event()));
        }
    }

    fn end(&mut self, _now: Instant, reason: Closed) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.events.push_back(Event::Closed(reason));
        }
    }

    fn wall_us(&self, now: Instant) -> i64 {
        let (instant, wall) = self.wall;
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default() + now.saturating_duration_since(instant);
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

impl Send {
    fn new(negotiated: &Negotiated, [video, audio]: [Option<TrackKey>; 2], random: [u8; 32]) -> Self {
        let mut cname = String::new();
        let sound = negotiated.audio().is_some();
        let mut feed = |line: Option<(&crate::sdp::Media, &crate::sdp::Accepted)>, track, clock, marks_frames, at: usize| {
            let (_, accepted) = line?;
            let source = accepted.source.as_ref()?;
            cname.clone_from(&source.cname);
            let config = SenderConfig {
                ssrc: source.ssrc,
                payload_type: accepted.payload_type,
                rtx: accepted.rtx.zip(source.rtx_ssrc),
                clock,
                playout_delay: accepted.extensions.playout_delay.map(|id| (id, if sound { LIP_SYNC_STEPS } else { 0 })),
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

    fn advance(
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

    fn handle_nack(
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

    fn handle_picture_loss(&mut self, now: Instant, tracks: &mut Histories) {
        let Some(feed) = &mut self.video else { return };
        let Some(shared) = feed.track.and_then(|track| tracks.get_mut(&track)) else { return };
        if !feed.sender.handle_picture_loss(now, &shared.history) {
            shared.keyframe_wanted = true;
        }
    }

    /// A sender report and description of each track (RFC 3550 6.4.1): both on one media timeline, for lip sync.
    fn reports(
        &mut self,
        now: Instant,
        wall_us: i64,
        tracks: &Histories,
    ) -> Vec<Result<bytes::BytesMut, rtc_shared::error::Error>> {
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
        shared.keyframe_wanted |= progress == crate::send::Progress::NeedsKeyframe;
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

/// The payload behind the header, without padding (RFC 3550 5.1). `None` where the padding lies.
fn unpadded(header: &rtc_rtp::Header, packet: Bytes) -> Option<Bytes> {
    use rtc_shared::marshal::MarshalSize;
    let start = header.marshal_size();
    let padding = if header.padding { usize::from(*packet.last()?) } else { 0 };
    let end = packet.len().checked_sub(padding)?;
    (start <= end).then(|| packet.slice(start..end))
}
