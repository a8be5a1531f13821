//! Whole calls in virtual time: our shards against `rtc`'s peer connection, over an emulated network
//! that delays, loses, repeats and reorders. One shard or several: the peer must not notice.

mod shards_tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use rtc::{
    interceptor::Registry,
    peer_connection::{
        RTCPeerConnectionBuilder,
        configuration::{
            interceptor_registry::register_default_interceptors,
            media_engine::{MIME_TYPE_H264, MediaEngine},
        },
        event::RTCPeerConnectionEvent,
        message::{RTCMessage, TaggedRTCMessage},
        sdp::RTCSessionDescription,
        state::RTCPeerConnectionState,
        transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate},
    },
    rtp_transceiver::{
        RTCRtpTransceiverDirection, RTCRtpTransceiverInit,
        rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind},
    },
    sansio::Protocol as _,
    shared::{TaggedBytesMut, TransportContext, TransportProtocol},
};

use crate::{
    dtls::Identity,
    event::{Closed, Event},
    metrics::Fate,
    path::Path,
    resource::PatchError,
    sdp::{self, Candidate, IceCredentials, Local, Negotiated, Offer, Protocol, SendVideo, Sending, Wants, negotiate},
    send::OutFrame,
    session::Setup,
    shard::together::Shards,
};

const MS: Duration = Duration::from_millis(1);
const SESSION: u64 = 1;
const TRACK: u64 = 2;
const OTHER_TRACK: u64 = 3;

/// What the network does to each datagram of one direction.
#[derive(Clone, Copy, Default)]
struct Weather {
    delay: Duration,
    /// One in so many; 0 for none.
    lose: u64,
    repeat: u64,
    /// One in so many comes 10 ms late.
    reorder: u64,
}

struct Link {
    weather: Weather,
    random: u64,
    flying: BTreeMap<(Instant, u64), BytesMut>,
    sent: u64,
    lost: u64,
}

impl Link {
    fn new(weather: Weather, seed: u64) -> Self {
        Self { weather, random: seed, flying: BTreeMap::new(), sent: 0, lost: 0 }
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most > 0 && (self.random >> 33).is_multiple_of(most)
    }

    fn send(&mut self, now: Instant, datagram: BytesMut) {
        if self.one_in(self.weather.lose) {
            self.lost += 1;
            return;
        }
        let late = if self.one_in(self.weather.reorder) { 10 * MS } else { Duration::ZERO };
        for _ in 0..=u64::from(self.one_in(self.weather.repeat)) {
            self.sent += 1;
            self.flying.insert((now + self.weather.delay + late, self.sent), datagram.clone());
        }
    }

    fn arrive(&mut self, now: Instant) -> Option<BytesMut> {
        let (&key, _) = self.flying.first_key_value().filter(|((at, _), _)| *at <= now)?;
        self.flying.remove(&key)
    }
}

/// A viewer of one H.264 track, and everything between it and our shards.
struct Call {
    shards: Shards,
    negotiated: Negotiated,
    identity: Arc<Identity>,
    viewer: rtc::peer_connection::RTCPeerConnection,
    viewer_address: SocketAddr,
    /// What a NAT shows in place of it.
    behind: Option<SocketAddr>,
    up: Link,
    down: Link,
    now: Instant,
    began: Instant,
    connected: Option<Duration>,
    events: Vec<Event>,
    /// RTP sequence numbers and timestamps as the viewer's application got them.
    got: Vec<(u16, u32, Instant)>,
    frames: u64,
}

fn our_address() -> SocketAddr {
    "203.0.113.9:8189".parse().unwrap()
}

/// The same call with one shard and with several, where neither its home nor its second address is where it begins.
fn calls(weather: Weather) -> impl Iterator<Item = Call> {
    [1, 2, 4].into_iter().map(move |shards| Call::new(shards, weather))
}

impl Call {
    fn new(shards: usize, weather: Weather) -> Self {
        let now = Instant::now();
        let viewer_address: SocketAddr = "10.0.0.2:5000".parse().unwrap();
        let mut engine = MediaEngine::default();
        let codec = |mime: &str, fmtp: &str| RTCRtpCodec {
            mime_type: mime.into(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: fmtp.into(),
            rtcp_feedback: vec![],
        };
        for (payload_type, codec) in [
            (102, codec(MIME_TYPE_H264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")),
            (103, codec("video/rtx", "apt=102")),
        ] {
            engine.register_codec(RTCRtpCodecParameters { rtp_codec: codec, payload_type }, RtpCodecKind::Video).unwrap();
        }
        let registry = register_default_interceptors(Registry::new(), &mut engine).unwrap();
        let mut viewer =
            RTCPeerConnectionBuilder::new().with_media_engine(engine).with_interceptor_registry(registry).build(now).unwrap();
        let recvonly = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        viewer.add_transceiver_from_kind(RtpCodecKind::Video, Some(recvonly)).unwrap();
        viewer.add_local_candidate(RTCIceCandidate::from(&host(viewer_address)).to_json().unwrap()).unwrap();
        let offer = viewer.create_offer(None).unwrap();
        viewer.set_local_description(now, offer).unwrap();
        let offer = viewer.local_description().unwrap().sdp;

        let identity = Arc::new(Identity::generate().unwrap());
        let wants = Wants::Send(Sending {
            video: Some(SendVideo { profile_level_id: None, ssrc: 0x1111, rtx_ssrc: 0x2222 }),
            audio: None,
            cname: "codecast".into(),
            stream_id: "live".into(),
        });
        let negotiated = negotiate(&Offer::parse(offer.as_bytes()).unwrap(), &wants).unwrap();
        let local = credentials("ours");
        let candidates = [Candidate { address: our_address(), protocol: Protocol::Udp }];
        let answer =
            negotiated.answer(&Local { ice: &local, fingerprint: &identity.fingerprint, candidates: &candidates, session_id: 1 });
        viewer.set_remote_description(now, RTCSessionDescription::answer(answer).unwrap()).unwrap();
        let mut shards = Shards::new(shards, now);
        shards.add_track(TRACK);
        shards.add_track(OTHER_TRACK);
        shards.accept(now, SESSION, setup(&negotiated, local, &identity, now)).unwrap();
        Self {
            shards,
            negotiated,
            identity,
            viewer,
            viewer_address,
            behind: None,
            up: Link::new(weather, 1),
            down: Link::new(weather, 2),
            now,
            began: now,
            connected: None,
            events: Vec::new(),
            got: Vec::new(),
            frames: 0,
        }
    }

    fn path(&self) -> Path {
        Path::Udp { remote: self.behind.unwrap_or(self.viewer_address), local: Some(our_address().ip()) }
    }

    fn context(&self) -> TransportContext {
        TransportContext {
            local_addr: self.viewer_address,
            peer_addr: our_address(),
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        }
    }

    /// A millisecond of the world.
    fn tick(&mut self) {
        while let Some(sent) = self.viewer.poll_write() {
            self.up.send(self.now, sent.message);
        }
        while let Some(datagram) = self.up.arrive(self.now) {
            self.shards.handle_datagram(self.now, self.path(), &datagram);
        }
        self.shards.handle_timeout(self.now);
        while let Some((_, path, burst)) = self.shards.poll_transmit() {
            if path == self.path() {
                burst.datagrams().for_each(|datagram| self.down.send(self.now, BytesMut::from(datagram)));
            }
        }
        self.events.extend(std::iter::from_fn(|| self.shards.poll_event()).map(|(_, event)| event));
        while let Some(message) = self.down.arrive(self.now) {
            let transport = self.context();
            let _ = self.viewer.handle_read(TaggedBytesMut { now: self.now, transport, message });
        }
        while let Some(event) = self.viewer.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Connected) = event {
                self.connected.get_or_insert(self.now - self.began);
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.viewer.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = message {
                self.got.push((packet.header.sequence_number, packet.header.timestamp, self.now));
            }
        }
        self.now += MS;
        self.viewer.handle_timeout(self.now).unwrap();
    }

    fn run(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.tick());
    }

    /// Frames of five packets, thirty a second, a keyframe each two seconds.
    fn stream(&mut self, track: u64, frames: u64) {
        for _ in 0..frames {
            let keyframe = self.frames.is_multiple_of(60);
            let payloads = (0..5).map(|_| Bytes::from(vec![0x41; if keyframe { 1100 } else { 600 }])).collect();
            let (timestamp, at_us) = (self.frames * 3000, self.frames as i64 * 33_333);
            for viewer in self.shards.push(self.now, track, OutFrame { timestamp, at_us, keyframe, payloads }) {
                self.shards.advance(self.now, viewer);
            }
            self.frames += 1;
            self.run(33);
        }
    }
}

fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials::new(ufrag, "0123456789abcdefghijklmn").unwrap()
}

fn setup(negotiated: &Negotiated, local: IceCredentials, identity: &Arc<Identity>, now: Instant) -> Setup {
    Setup {
        negotiated: negotiated.clone(),
        local,
        identity: Arc::clone(identity),
        wall: (now, SystemTime::now()),
        random: [7; 32],
        sends: Some([Some(TRACK), None]),
    }
}

fn host(address: SocketAddr) -> rtc::ice::candidate::Candidate {
    let base_config = CandidateConfig {
        network: "udp".into(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..Default::default()
    };
    CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host().unwrap()
}

#[test]
fn a_viewer_joins_at_once_and_gets_everything() {
    for mut call in calls(Weather { delay: 5 * MS, ..Default::default() }) {
        call.run(1500);
        assert!(call.connected.is_some_and(|after| after < 250 * MS), "connected after {:?}", call.connected);
        assert!(matches!(call.events[..], [Event::Connected { .. }]));
        call.stream(TRACK, 90);
        assert_eq!(call.got.len(), 450);
        assert!(call.got.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)), "in order, without a gap");
    }
}

#[test]
fn a_handshake_survives_heavy_loss() {
    for mut call in calls(Weather { delay: 20 * MS, lose: 5, repeat: 7, reorder: 6 }) {
        call.run(4000);
        assert!(call.connected.is_some(), "20 % loss both ways");
    }
}

#[test]
fn lost_packets_are_sent_again() {
    for mut call in calls(Weather { delay: 20 * MS, ..Default::default() }) {
        call.run(300);
        (call.up.weather.lose, call.down.weather.lose) = (20, 20);
        call.stream(TRACK, 300);
        call.down.weather.lose = 0;
        call.stream(TRACK, 30);
        let mut sequences: Vec<u16> = call.got.iter().map(|(sequence, ..)| *sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        assert!(call.down.lost > 40, "{} lost", call.down.lost);
        let missing = 330 * 5 - sequences.len();
        assert!(missing <= 15, "of 1650 packets {missing} never came; the peer gives up late ones by itself");
        assert!(call.shards.take_counts().repeated > 40);
    }
}

#[test]
fn a_viewer_that_moves_goes_on() {
    for mut call in calls(Weather { delay: 5 * MS, ..Default::default() }) {
        call.run(200);
        call.stream(TRACK, 30);
        let before = call.got.len();
        let stranger = Path::Udp { remote: "198.51.100.7:4000".parse().unwrap(), local: None };
        assert_eq!(call.shards.handle_datagram(call.now, stranger, &[0x80, 96, 0, 0]), Fate::Unproved);
        assert_eq!(call.shards.handle_datagram(call.now, stranger, &[22, 254, 253]), Fate::Unproved);
        call.stream(TRACK, 30);
        assert_eq!(call.got.len(), before + 150);
        // A NAT gives it another port. Its checks come from there and nominate nothing anew; once the former port has been
        // silent for a while, everything goes there.
        call.behind = Some("10.0.0.2:6000".parse().unwrap());
        call.stream(TRACK, 600);
        let moved = call.got.len();
        call.stream(TRACK, 30);
        assert_eq!(call.got.len(), moved + 150);
    }
}

#[test]
fn a_viewer_goes_over_to_another_layer_at_its_keyframe() {
    for mut call in calls(Weather { delay: 5 * MS, ..Default::default() }) {
        call.run(200);
        call.stream(TRACK, 31);
        call.shards.select(call.now, SESSION, OTHER_TRACK, false);
        assert_eq!(call.shards.poll_wanted(call.now), Some(OTHER_TRACK));
        call.stream(OTHER_TRACK, 10);
        assert_eq!(call.got.len(), 31 * 5, "no keyframe there yet");
        call.stream(TRACK, 9);
        call.frames = 60;
        call.stream(OTHER_TRACK, 10);
        call.run(50);
        assert_eq!(call.got.len(), (31 + 9 + 10) * 5);
        assert!(call.got.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)), "continuous numbers");
        assert!(call.got.windows(2).all(|pair| pair[1].1.wrapping_sub(pair[0].1) < 100_000), "time goes on");
    }
}

/// Both were asked for when our name was the first one.
#[test]
fn of_two_restarts_at_once_the_first_counts() {
    for mut call in calls(Weather { delay: 5 * MS, ..Default::default() }) {
        call.run(200);
        let mut restart = |id, ufrag| call.shards.restart(call.now, id, "ours", &credentials(ufrag));
        assert_eq!(restart(SESSION, "second"), Ok(()));
        assert_eq!(restart(SESSION, "third"), Err(PatchError::OtherSession));
        assert_eq!(restart(SESSION + 1, "third"), Err(PatchError::Gone));
        call.stream(TRACK, 3);
        assert_eq!(call.got.len(), 3 * 5, "media goes on");
    }
}

#[test]
fn silence_ends_a_session_and_nothing_is_kept() {
    for mut call in calls(Weather { delay: 5 * MS, ..Default::default() }) {
        call.run(200);
        call.stream(TRACK, 3);
        assert_eq!(call.shards.viewers(TRACK), 1);
        call.up.weather.lose = 1;
        call.run(31_000);
        assert!(matches!(call.events.last(), Some(Event::Closed(Closed::ConsentLost))), "{:?}", call.events.last());
        assert_eq!((call.shards.sessions(), call.shards.viewers(TRACK), call.shards.poll_timeout()), (0, 0, None));
        assert_eq!((call.shards.paths(), call.shards.entries()), (0, 0));
    }
}

#[test]
fn a_peer_that_never_comes_is_given_up() {
    for mut call in calls(Weather { delay: 5 * MS, lose: 1, ..Default::default() }) {
        call.run(21_000);
        assert!(matches!(call.events[..], [Event::Closed(Closed::Unreachable)]));
    }
}

#[test]
fn a_certificate_other_than_the_offer_named_is_refused() {
    let mut call = Call::new(1, Weather { delay: 5 * MS, ..Default::default() });
    call.shards = Shards::new(1, call.now);
    call.shards.add_track(TRACK);
    let identity = Arc::clone(&call.identity);
    let offer = call.viewer.local_description().unwrap().sdp;
    let at = offer.find("fingerprint:sha-256 ").unwrap() + 20;
    let forged = format!("{}{}{}", &offer[..at], if &offer[at..at + 2] == "00" { "11" } else { "00" }, &offer[at + 2..]);
    let wants = Wants::Send(Sending {
        video: Some(SendVideo { profile_level_id: None, ssrc: 1, rtx_ssrc: 2 }),
        audio: None,
        cname: "c".into(),
        stream_id: "s".into(),
    });
    let negotiated = sdp::negotiate(&Offer::parse(forged.as_bytes()).unwrap(), &wants).unwrap();
    call.shards.accept(call.now, SESSION, setup(&negotiated, credentials("ours"), &identity, call.now)).unwrap();
    call.run(3000);
    assert!(call.connected.is_none());
    let told = "the certificate is not the one that the offer named";
    assert!(matches!(&call.events[..], [Event::Closed(Closed::Handshake(reason))] if reason == told), "{:?}", call.events);
}

/// A viewer in the middle of catching up with a GOP.
fn catching_up() -> Call {
    let mut call = Call::new(1, Weather { delay: 5 * MS, ..Default::default() });
    for n in 0..300_u64 {
        let payloads = (0..8).map(|_| Bytes::from(vec![0x41; 1100])).collect();
        call.shards.push(call.now, TRACK, OutFrame { timestamp: n * 3000, at_us: n as i64 * 33_333, keyframe: n == 0, payloads });
    }
    while call.got.is_empty() {
        call.tick();
    }
    assert!(call.shards.poll_timeout().is_some_and(|at| at < call.now + 5 * MS), "it is catching up");
    call
}

/// Every timer that is handled lies in the future afterwards, or the thread would never do anything else.
#[test]
fn what_ends_while_a_viewer_catches_up_leaves_no_timer_behind() {
    let mut without_track = catching_up();
    without_track.shards.remove_track(TRACK);
    let mut without_path = catching_up();
    let path = without_path.path();
    without_path.shards.forget_path(without_path.now, path);
    for call in [&mut without_track, &mut without_path] {
        let later = call.now + 10 * MS;
        for _ in 0..10 {
            call.shards.handle_timeout(later);
        }
        assert!(call.shards.poll_timeout().is_none_or(|at| at > later), "nothing is due for ever");
    }
}

/// One record, one fragment of one byte of a ClientHello without end.
fn fragment(offset: u32) -> Vec<u8> {
    let number = u64::from(offset).to_be_bytes();
    let place = offset.to_be_bytes();
    [&[22, 254, 253, 0, 0][..], &number[2..], &[0, 13, 1, 255, 255, 255, 0, 0], &place[1..], &[0, 0, 1, 7]].concat()
}

#[test]
fn a_handshake_in_endless_fragments_costs_little() {
    let identity = Identity::generate().unwrap();
    let mut handshake = crate::dtls::Handshake::new(&identity, false, identity.fingerprint.clone()).unwrap();
    let began = Instant::now();
    for datagram in 0..1000_u32 {
        let records: Vec<u8> = (0..50).flat_map(|n| fragment(datagram * 50 + n + 1)).collect();
        let _ = handshake.handle(began, &records);
    }
    let _ = handshake.handle(began, &fragment(0));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_peer_of_many_addresses_is_remembered_by_few() {
    for mut call in calls(Weather::default()) {
        let key = crate::stun::key("0123456789abcdefghijklmn");
        for n in 1..5000_u16 {
            let path = Path::Udp { remote: SocketAddr::from(([10, 9, 8, 7], n)), local: None };
            let check = crate::stun::check("ours:x", &key, [7; 12]);
            assert_eq!(call.shards.handle_datagram(call.now, path, &check), Fate::Check);
            while call.shards.poll_transmit().is_some() {}
        }
        assert!(call.shards.paths() <= 16, "{}", call.shards.paths());
        call.shards.close(call.now, SESSION, Closed::ByUs);
        assert_eq!((call.shards.paths(), call.shards.entries()), (0, 0));
    }
}

#[test]
fn a_datagram_beyond_any_path_is_not_looked_at() {
    let mut call = Call::new(1, Weather::default());
    let path = call.path();
    assert_eq!(call.shards.handle_datagram(call.now, path, &[22; 2049]), Fate::Malformed);
}

/// Whoever can send under the peer's address has no key: an alert in the clear (RFC 6347 4.1, epoch 0) is nobody's word.
#[test]
fn an_alert_in_the_clear_ends_no_connection() {
    let mut call = Call::new(1, Weather { delay: 5 * MS, ..Default::default() });
    call.run(300);
    call.stream(TRACK, 3);
    let path = call.path();
    for (level, description) in [(1, 0), (2, 0), (2, 40), (2, 90)] {
        for number in [0_u8, 9, 200] {
            let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, number, 0, 2, level, description];
            call.shards.handle_datagram(call.now, path, &alert);
        }
        call.run(5);
        assert!(matches!(call.events[..], [Event::Connected { .. }]), "{level} {description}: {:?}", call.events);
    }
    call.stream(TRACK, 30);
    assert_eq!(call.got.len(), 33 * 5);
}
