//! One peer: ICE, DTLS, SRTP, and its media in one direction.
//!
//! ```text
//! Checking --first proved check--> Handshaking --keys--> Connected --> Closed(reason)
//! ```
//!
//! Sans-IO: checks and datagrams of proved paths come in, datagrams and events go out. After every
//! call drain `poll_transmit` and `poll_event`, and ask `poll_timeout` anew.

use std::{
    collections::VecDeque,
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
    transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers},
};
use rtc_shared::marshal::{Marshal, Unmarshal};

use crate::{
    dtls::{Handshake, Identity, Progress},
    event::{Closed, Event},
    ice::{Agent, Checked},
    metrics::Counts,
    path::Path,
    receive::{Receive, Report},
    rtp::rtcp::{self, Packet},
    sdp::{IceCredentials, Negotiated},
    send::{Burst, Feeds, Histories, TrackKey},
    srtp::{self, Opener, Sealer},
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
    Send(Box<Feeds>),
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
            Some(tracks) => Media::Send(Box::new(Feeds::new(&negotiated, tracks, random, now))),
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

    /// Whether no check was proved yet.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Checking { .. })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// False when the check was forged.
    pub(crate) fn handle_check(&mut self, now: Instant, path: Path, request: &Request<'_>) -> bool {
        let Checked::Answer { bytes, nominated } = self.agent.handle_check(now, path, request) else { return false };
        self.transmits.push_back((path, Burst::single(bytes)));
        if let State::Checking { .. } = self.state {
            self.state = State::Handshaking { until: now + HANDSHAKE_WAIT };
        }
        if nominated {
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
    pub(crate) fn select(&mut self, now: Instant, track: TrackKey, rests: bool, tracks: &Histories) {
        if let Media::Send(feeds) = &mut self.media {
            feeds.select(now, track, rests, tracks);
        }
    }

    /// What a better picture than the viewer has would need, in bits a second.
    pub(crate) fn aim(&mut self, bitrate: Option<u64>) {
        if let Media::Send(feeds) = &mut self.media {
            feeds.bandwidth.aim(bitrate);
        }
    }

    /// The tracks this viewer is fed from, and goes over to.
    pub(crate) fn tracks(&self) -> impl Iterator<Item = TrackKey> {
        let feeds = match &self.media {
            Media::Send(feeds) => Some(feeds),
            Media::Receive(_) => None,
        };
        feeds.into_iter().flat_map(|feeds| feeds.tracks())
    }

    /// A frame was pushed to one of this viewer's tracks, or time has come to send more.
    pub(crate) fn advance(&mut self, now: Instant, tracks: &mut Histories) {
        let (Media::Send(feeds), Some((sealer, _)), Some(path)) = (&mut self.media, &mut self.srtp, self.agent.selected()) else {
            return;
        };
        if self.first_send.is_some() {
            return;
        }
        let mut out = Vec::new();
        let sent = feeds.advance(now, tracks, sealer, &mut out);
        self.transmits.extend(out.into_iter().map(|burst| (path, burst)));
        self.events.extend(feeds.take_switched().map(|track| Event::Switched { track }));
        self.events.extend(feeds.bandwidth.poll_bitrate(now).map(|bitrate| Event::Bandwidth { bitrate }));
        self.counts.probes += std::mem::take(&mut feeds.bandwidth.probes);
        self.counts.probes_refused += std::mem::take(&mut feeds.bandwidth.probes_refused);
        if let Err(error) = sent {
            self.end(Closed::Seal(error.to_string()));
        }
    }

    /// What was to go out did not fit into the way: the viewer goes on at the next keyframe.
    pub(crate) fn fall_behind(&mut self, tracks: &Histories) {
        self.counts.fell_behind += 1;
        if let Media::Send(feeds) = &mut self.media {
            feeds.fall_behind(tracks);
        }
    }

    pub(crate) fn close(&mut self, now: Instant, reason: Closed) {
        self.handshake.close(now);
        self.drain_handshake();
        self.end(reason);
    }

    /// A TCP connection ended.
    pub(crate) fn forget_path(&mut self, path: Path) {
        self.agent.forget(path);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, tracks: &mut Histories) {
        match self.state {
            State::Closed => return,
            State::Checking { until } if now >= until => return self.end(Closed::Unreachable),
            State::Handshaking { until } if now >= until => {
                let reason = self.trouble.take().map_or(Closed::HandshakeTimeout, Closed::Handshake);
                return self.end(reason);
            }
            State::Connected if now >= self.agent.consent_until() => return self.end(Closed::ConsentLost),
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
            Media::Send(feeds) => feeds.poll_timeout(),
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
            Ok(Progress::ClosedByPeer) => self.end(Closed::ByPeer),
            Ok(Progress::Done(keys)) => match srtp::contexts(*keys, Arc::clone(self.identity.provider())) {
                Ok(contexts) => {
                    self.srtp = Some(contexts);
                    self.state = State::Connected;
                    self.first_send = Some(now + FIRST_SEND_PAUSE);
                    if let Some(path) = self.agent.selected() {
                        self.events.push_back(Event::Connected { peer: path.remote() });
                    }
                }
                Err(error) => self.end(Closed::Handshake(error.to_string())),
            },
            Err(_) if self.handshake.is_refused() => {
                let reason = "the certificate is not the one that the offer named";
                self.end(Closed::Handshake(reason.into()));
            }
            Err(rtc_shared::error::Error::ErrAlertFatalOrClose) if self.srtp.is_none() => {
                self.end(Closed::Handshake("the peer refused it".into()));
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
                (Media::Send(feeds), Packet::Nack { ssrc, lost }) => {
                    self.counts.nacked += lost.len() as u64;
                    match feeds.handle_nack(now, ssrc, &lost, tracks, sealer, &mut out) {
                        Ok(repeated) => self.counts.repeated += repeated,
                        Err(error) => sealed = Err(error),
                    }
                }
                (Media::Send(feeds), Packet::PictureLoss { .. } | Packet::FullIntra { .. }) => {
                    self.counts.picture_losses += 1;
                    feeds.handle_picture_loss(now, tracks);
                }
                (Media::Send(feeds), Packet::TransportFeedback(feedback)) => feeds.handle_feedback(now, &feedback),
                (Media::Send(feeds), Packet::Reception(reception)) => feeds.handle_reception(now, &reception),
                _ => {}
            }
        }
        self.transmits.extend(out.into_iter().map(|burst| (way, burst)));
        if let Err(error) = sealed {
            self.end(Closed::Seal(error.to_string()));
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
                self.send_rtcp(&bytes);
            }
        }
        // Packets that were overtaken, or lie far apart, take a message each: all are due.
        while let Media::Receive(receive) = &mut self.media
            && let Some(feedback) = receive.poll_transport_cc(now)
        {
            self.send_rtcp(&feedback);
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
            Media::Send(feeds) => packets.extend(feeds.reports(now, wall_us, tracks)),
        }
        let compound: Vec<u8> = packets.into_iter().filter_map(Result::ok).flatten().collect();
        if !compound.is_empty() {
            self.send_rtcp(&compound);
        }
    }

    fn send_rtcp(&mut self, packet: &[u8]) {
        let (Some((sealer, _)), Some(path)) = (&mut self.srtp, self.agent.selected()) else { return };
        match sealer.seal_rtcp(packet) {
            Ok(sealed) => self.transmits.push_back((path, Burst::single(sealed))),
            Err(error) => self.end(Closed::Seal(error.to_string())),
        }
    }

    fn collect(&mut self) {
        if let Media::Receive(receive) = &mut self.media {
            self.events.extend(std::iter::from_fn(|| receive.poll_event()));
        }
    }

    fn end(&mut self, reason: Closed) {
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

/// The payload behind the header, without padding (RFC 3550 5.1). `None` where the padding lies.
fn unpadded(header: &rtc_rtp::Header, packet: Bytes) -> Option<Bytes> {
    use rtc_shared::marshal::MarshalSize;
    let start = header.marshal_size();
    let padding = if header.padding { usize::from(*packet.last()?) } else { 0 };
    let end = packet.len().checked_sub(padding)?;
    (start <= end).then(|| packet.slice(start..end))
}
