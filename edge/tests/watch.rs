//! A publisher, a server and a viewer that is not ours (`rtc`'s peer connection), over loopback.

#![expect(clippy::unwrap_used, reason = "in a test a failed step is the failure")]

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use bytes::{Bytes, BytesMut};
use edge::whep::{self, Whep};
use media_core::{
    Announcement, Item, Ladder, Layer, Parameters, Publication, Registry, Rung, Sample, Stream, StreamKey, StreamName, Timescale,
    Timestamp, Track, TrackId,
    codec::{h264, opus},
    registry::Acquire,
    stream::Made,
    timeline::Grid,
};
use rtc::{
    interceptor::Registry as Interceptors,
    peer_connection::{
        RTCPeerConnection, RTCPeerConnectionBuilder,
        configuration::{
            interceptor_registry::register_default_interceptors,
            media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine},
        },
        message::{RTCMessage, TaggedRTCMessage},
        sdp::RTCSessionDescription,
        transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate},
    },
    rtp_transceiver::{
        RTCRtpTransceiverDirection, RTCRtpTransceiverInit,
        rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind},
    },
    sansio::Protocol as _,
    shared::{TaggedBytesMut, TransportContext, TransportProtocol},
};
use tokio::net::UdpSocket;
use tower::ServiceExt;
use transport::Engine;

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`: the avcC box of the init
/// segment. It promises that no picture is reordered.
const RECORD_360P30: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];
const VIDEO: u8 = 102;
const AUDIO: u8 = 111;
/// In the pictures of a layer.
const LAYER: u8 = 0x77;
const MS: Duration = Duration::from_millis(1);

/// Publishes at the pace of its own clock: a picture and a packet of sound each 20 ms.
struct Publisher {
    publication: Publication,
    video: Arc<Track>,
    audio: Arc<Track>,
    frames: i64,
    keyframe_each: i64,
    /// A second coding of the picture, which has a keyframe when it is asked for one.
    layer: Option<Arc<Track>>,
}

impl Publisher {
    fn new(registry: &Registry, keyframe_each: i64) -> Self {
        let name = StreamName::parse("demo").unwrap();
        let Acquire::Granted(publication) = registry.acquire(&name, &StreamKey::new("key"), None, Instant::now()) else {
            panic!("nobody else publishes");
        };
        let parameters = h264::Parameters::parse(Bytes::from_static(RECORD_360P30)).unwrap();
        let video = Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters: Parameters::H264(parameters) };
        let scale = Timescale::new(48_000).unwrap();
        let audio =
            Track { id: TrackId::AUDIO, timescale: scale, parameters: Parameters::Opus(opus::Parameters { channels: 2 }) };
        Self { publication, video: Arc::new(video), audio: Arc::new(audio), frames: 0, keyframe_each, layer: None }
    }

    fn with_layer(mut self, track: TrackId) -> Self {
        let layer = |track, rid: &str| Layer { track, rid: rid.into(), apart: false };
        let layers = vec![layer(TrackId::VIDEO, "h"), layer(track, "l")];
        self.publication.announce(Announcement { video: true, audio: true, layers, ..Announcement::default() }).unwrap();
        let parameters = self.video.parameters.clone();
        self.layer = Some(Arc::new(Track { id: track, timescale: Timescale::MILLIS, parameters }));
        self
    }

    fn send_layer(&mut self) {
        let Some(layer) = self.layer.clone() else { return };
        let asked = self.publication.poll_keyframe_request(&mut Context::from_waker(Waker::noop()));
        let keyframe = matches!(asked, Poll::Ready(tracks) if tracks & 1 << layer.id.index() != 0);
        let nal: &[u8] = if keyframe { &[0x65, 0x88, LAYER] } else { &[0x41, 0x9a, LAYER] };
        self.picture(&layer, nal, keyframe);
    }

    fn picture(&self, track: &Arc<Track>, nal: &[u8], keyframe: bool) {
        let payload = [&(nal.len() as u32).to_be_bytes()[..], nal].concat().into();
        let at = Timestamp::from_millis(self.frames * 20);
        let (track, received) = (Arc::clone(track), Instant::now());
        self.publication.publish(Sample { track, pts: at, dts: at, duration: None, keyframe, payload, received }).unwrap();
    }

    fn send(&mut self) {
        let keyframe = self.frames % self.keyframe_each == 0;
        let nal = if keyframe { [&[0x65, 0x88][..], &[0xaa; 3000]].concat() } else { vec![0x41, 0x9a, 0x80] };
        self.picture(&self.video, &nal, keyframe);
        self.send_layer();
        let at = Timestamp::new(self.frames * 960, self.audio.timescale);
        let (track, payload) = (Arc::clone(&self.audio), Bytes::from_static(&[0xfc, 0xff, 0xfe]));
        let (duration, received) = (Some(960), Instant::now());
        self.publication.publish(Sample { track, pts: at, dts: at, duration, keyframe: true, payload, received }).unwrap();
        self.frames += 1;
    }
}

/// In the place of the transcoder: it makes one rung, while somebody wants it, of the pictures that are being published. The
/// first keyframe lies three seconds back, and the next one comes when it is asked for.
struct Transcoder {
    stream: Arc<Stream>,
    track: Arc<Track>,
    made: Made,
    /// Of the next picture.
    frame: Option<i64>,
    wanted: bool,
}

impl Transcoder {
    fn new(server: &Server, publisher: &Publisher, made: Made) -> Self {
        let stream = server.registry.stream(&StreamName::parse("demo").unwrap()).unwrap();
        let known = Grid { target_duration: 4, part_target_ms: 200, frame_rate: 50.0, ..Grid::default() };
        let grid = Grid { independent_segments: true, ..known };
        stream.set_rungs(Rung::all(&Ladder::motion(), &grid).into());
        Self { stream, track: Arc::clone(&publisher.video), made, frame: None, wanted: false }
    }

    /// All pictures before this one.
    fn follow(&mut self, publisher: &Publisher) {
        let asked = self.stream.poll_asked(&mut Context::from_waker(Waker::noop()));
        self.wanted |= matches!(asked, Poll::Ready(asked) if asked.wants_keyframe(self.made));
        if !self.stream.is_demanded(self.made) {
            self.frame = None;
            return;
        }
        let first = (publisher.frames - 150).max(0);
        if self.frame.is_none() {
            let (epoch, received) = (self.stream.present().epoch.unwrap(), Instant::now());
            self.stream.push_made(self.made, Item::Join { epoch, received });
        }
        for frame in self.frame.unwrap_or(first)..publisher.frames {
            let keyframe = self.frame.is_none() && frame == first || frame + 1 == publisher.frames && self.wanted;
            self.wanted &= !keyframe;
            let nal: &[u8] = if keyframe { &[0x65, 0x88, LAYER] } else { &[0x41, 0x9a, LAYER] };
            let payload = [&(nal.len() as u32).to_be_bytes()[..], nal].concat().into();
            let (track, pts, received) = (Arc::clone(&self.track), Timestamp::from_millis(frame * 20), Instant::now());
            let sample = Sample { track, pts, dts: pts, duration: None, keyframe, payload, received };
            self.stream.push_made(self.made, Item::Sample(sample.into()));
        }
        self.frame = Some(publisher.frames);
    }
}

struct Server {
    registry: Arc<Registry>,
    router: Router,
}

impl Server {
    async fn start() -> Self {
        let metrics = prometheus::Registry::new();
        let listen = "127.0.0.1:0".parse().unwrap();
        let engine = transport::Config { listen, public: Vec::new(), tcp: false, sessions_max: 4, shards: 2 };
        let engine = Engine::start(engine, &metrics).await.unwrap();
        let registry = Arc::new(Registry::new(SystemTime::now(), 4, |_| {}));
        let config = whep::Config { viewers_max: 4, ice_servers: Vec::new(), reach: Default::default(), rescue: false };
        let whep = Whep::new(engine, Arc::downgrade(&registry), config, &metrics).unwrap();
        Self { registry, router: whep::router(whep) }
    }

    /// The path of the session, and the answer.
    async fn answer(&self, offer: String) -> (String, String) {
        let request = Request::post("/whep/demo").header("content-type", "application/sdp").body(Body::from(offer)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 201);
        let session = response.headers()["location"].to_str().unwrap().to_owned();
        let answer = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (session, String::from_utf8(answer.to_vec()).unwrap())
    }

    async fn choose(&self, session: &str, body: &'static str) {
        let request = Request::post(format!("{session}/layer")).body(Body::from(body)).unwrap();
        assert_eq!(self.router.clone().oneshot(request).await.unwrap().status(), 200);
    }
}

/// An RTP packet as the viewer's application got it.
struct Got {
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    payload: Bytes,
    at: Instant,
}

struct Viewer {
    peer: RTCPeerConnection,
    socket: UdpSocket,
    session: String,
    got: Vec<Got>,
}

impl Viewer {
    async fn watch(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut peer = build(Instant::now());
        let address = socket.local_addr().unwrap();
        peer.add_local_candidate(RTCIceCandidate::from(&host(address)).to_json().unwrap()).unwrap();
        let offer = peer.create_offer(None).unwrap();
        peer.set_local_description(Instant::now(), offer).unwrap();
        let (session, answer) = server.answer(peer.local_description().unwrap().sdp).await;
        peer.set_remote_description(Instant::now(), RTCSessionDescription::answer(answer).unwrap()).unwrap();
        Self { peer, socket, session, got: Vec::new() }
    }

    /// Everything that has arrived, and everything that is due.
    async fn turn(&mut self) {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = self.socket.try_recv_from(&mut datagram) {
            let transport = TransportContext {
                local_addr: self.socket.local_addr().unwrap(),
                peer_addr: from,
                transport_protocol: TransportProtocol::UDP,
                ecn: None,
            };
            let message = BytesMut::from(&datagram[..length]);
            let _ = self.peer.handle_read(TaggedBytesMut { now: Instant::now(), transport, message });
            // The handshake's last datagram and the first pictures come together: it has to be done in between.
            self.take();
        }
        self.peer.handle_timeout(Instant::now()).unwrap();
        self.take();
        while let Some(sent) = self.peer.poll_write() {
            let _ = self.socket.send_to(&sent.message, sent.transport.peer_addr).await;
        }
    }

    fn take(&mut self) {
        while self.peer.poll_event().is_some() {}
        while let Some(TaggedRTCMessage { message, .. }) = self.peer.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = message {
                self.got.push(Got {
                    payload_type: packet.header.payload_type,
                    sequence: packet.header.sequence_number,
                    timestamp: packet.header.timestamp,
                    payload: packet.payload,
                    at: Instant::now(),
                });
            }
        }
    }

    fn of(&self, payload_type: u8) -> Vec<&Got> {
        self.got.iter().filter(|got| got.payload_type == payload_type).collect()
    }
}

fn build(now: Instant) -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    let codec = |mime: &str, clock_rate, channels, fmtp: &str| RTCRtpCodec {
        mime_type: mime.into(),
        clock_rate,
        channels,
        sdp_fmtp_line: fmtp.into(),
        rtcp_feedback: vec![],
    };
    let h264 = codec(MIME_TYPE_H264, 90_000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f");
    let opus = codec(MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1");
    for (payload_type, rtp_codec, kind) in [(VIDEO, h264, RtpCodecKind::Video), (AUDIO, opus, RtpCodecKind::Audio)] {
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind).unwrap();
    }
    let interceptors = register_default_interceptors(Interceptors::new(), &mut engine).unwrap();
    let builder = RTCPeerConnectionBuilder::new().with_media_engine(engine).with_interceptor_registry(interceptors);
    let mut peer = builder.build(now).unwrap();
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        let recvonly = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        peer.add_transceiver_from_kind(kind, Some(recvonly)).unwrap();
    }
    peer
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

/// Lets the world go on: the viewer all the time, the publisher every 20 ms.
async fn run(time: Duration, mut publisher: Option<&mut Publisher>, viewer: &mut Viewer) {
    let mut tick = tokio::time::interval(5 * MS);
    let until = Instant::now() + time;
    let mut ticks = 0;
    while Instant::now() < until {
        tick.tick().await;
        if let Some(publisher) = publisher.as_mut().filter(|_| ticks % 4 == 0) {
            publisher.send();
        }
        viewer.turn().await;
        ticks += 1;
    }
}

#[tokio::test]
async fn a_viewer_that_joins_within_a_gop_starts_at_its_keyframe() {
    let server = Server::start().await;
    let mut publisher = Publisher::new(&server.registry, 1000);
    (0..50).for_each(|_| publisher.send());
    let asked = Instant::now();
    let mut viewer = Viewer::watch(&server).await;
    run(1500 * MS, Some(&mut publisher), &mut viewer).await;
    let video = viewer.of(VIDEO);
    let first = video.first().expect("pictures came");
    assert!(first.at - asked < Duration::from_secs(1), "{:?}", first.at - asked);
    assert_eq!(first.payload[0] & 0x1f, 24, "the keyframe's parameter sets, together");
    assert!(video.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)), "no gap");
    assert!(viewer.of(AUDIO).len() > 20);
}

#[tokio::test]
async fn a_viewer_that_came_first_goes_on_when_publishers_come_and_return() {
    let server = Server::start().await;
    // The stream is known, and its publisher is away.
    drop(Publisher::new(&server.registry, 50));
    let mut viewer = Viewer::watch(&server).await;
    run(500 * MS, None, &mut viewer).await;
    assert!(viewer.got.is_empty());
    let mut publisher = Publisher::new(&server.registry, 50);
    let published = Instant::now();
    run(600 * MS, Some(&mut publisher), &mut viewer).await;
    let first = viewer.of(VIDEO).first().map(|got| got.at - published).expect("pictures came");
    assert!(first < Duration::from_secs(1), "{first:?}");
    drop(publisher);
    let left = viewer.got.len();
    run(700 * MS, None, &mut viewer).await;
    let mut publisher = Publisher::new(&server.registry, 50);
    run(600 * MS, Some(&mut publisher), &mut viewer).await;
    assert!(viewer.got.len() > left + 20, "it goes on");
    for (payload_type, clock) in [(VIDEO, 90), (AUDIO, 48)] {
        let packets = viewer.of(payload_type);
        assert!(packets.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)), "no gap in {payload_type}");
        let steps =
            packets.windows(2).map(|pair| (pair[1].timestamp.wrapping_sub(pair[0].timestamp) / clock, pair[1].at - pair[0].at));
        let (gap_ms, wall) = steps.max_by_key(|(ms, _)| *ms).unwrap();
        assert!((600..1200).contains(&gap_ms), "{gap_ms} ms");
        assert!(wall.as_millis().abs_diff(gap_ms.into()) < 300, "{gap_ms} ms of media, {wall:?} of the wall");
    }
}

#[tokio::test]
async fn a_rung_is_made_for_who_chooses_it_and_goes_on_where_the_picture_was() {
    let server = Server::start().await;
    let mut publisher = Publisher::new(&server.registry, 25);
    let made = Made::Rung(2);
    let mut transcoder = Transcoder::new(&server, &publisher, made);
    (0..200).for_each(|_| publisher.send());
    let mut viewer = Viewer::watch(&server).await;
    let is_rung = |got: &&Got| got.payload.last() == Some(&LAYER);
    let mut go_on = async |viewer: &mut Viewer, turns: u32| {
        for _ in 0..turns {
            // One picture, and what follows from it.
            run(14 * MS, Some(&mut publisher), viewer).await;
            transcoder.follow(&publisher);
        }
    };
    go_on(&mut viewer, 25).await;
    assert!(!viewer.of(VIDEO).is_empty() && !viewer.of(VIDEO).iter().any(is_rung));
    server.choose(&viewer.session.clone(), r#"{"encodingId":"rung-3"}"#).await;
    go_on(&mut viewer, 60).await;
    let shown = viewer.of(VIDEO).iter().filter(|got| is_rung(got)).count();
    assert!((10..55).contains(&shown), "{shown} pictures of the rung, and none of its past");
    server.choose(&viewer.session.clone(), "{}").await;
    go_on(&mut viewer, 50).await;
    let video = viewer.of(VIDEO);
    assert!(!is_rung(video.last().unwrap()), "and back again");
    assert!(video.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)), "in one sequence");
    let live = video.iter().skip_while(|got| !is_rung(got));
    let steps: Vec<u32> = live.clone().zip(live.skip(1)).map(|(one, next)| next.timestamp.wrapping_sub(one.timestamp)).collect();
    assert!(steps.iter().all(|step| *step <= 3 * 1800), "times go on: {steps:?}");
    let stream = server.registry.stream(&StreamName::parse("demo").unwrap()).unwrap();
    go_on(&mut viewer, 60).await;
    assert!(!stream.is_demanded(made), "nobody wants it any more");
}

#[tokio::test]
async fn a_layer_that_is_chosen_is_asked_for_a_keyframe_and_shown() {
    let server = Server::start().await;
    let mut publisher = Publisher::new(&server.registry, 25).with_layer(TrackId::layer(0).unwrap());
    let mut viewer = Viewer::watch(&server).await;
    run(500 * MS, Some(&mut publisher), &mut viewer).await;
    let is_layer = |got: &&Got| got.payload.last() == Some(&LAYER);
    assert!(!viewer.of(VIDEO).is_empty() && !viewer.of(VIDEO).iter().any(is_layer));
    server.choose(&viewer.session.clone(), r#"{"encodingId":"l"}"#).await;
    run(500 * MS, Some(&mut publisher), &mut viewer).await;
    let shown = viewer.of(VIDEO).iter().filter(|got| is_layer(got)).count();
    assert!(shown > 10, "{shown} pictures of the layer");
    server.choose(&viewer.session.clone(), "{}").await;
    run(800 * MS, Some(&mut publisher), &mut viewer).await;
    let video = viewer.of(VIDEO);
    assert!(!is_layer(video.last().unwrap()), "and back again");
    assert!(video.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)), "in one sequence");
}
