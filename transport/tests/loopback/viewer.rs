//! A port of so many shards, and viewers of it that are not ours (`rtc`'s peer connection), over loopback.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use prometheus::Registry;
use rtc::{
    interceptor::Registry as Interceptors,
    peer_connection::{
        RTCPeerConnection, RTCPeerConnectionBuilder,
        configuration::{
            interceptor_registry::register_default_interceptors,
            media_engine::{MIME_TYPE_H264, MediaEngine},
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
use transport::{
    Config, Engine, OutFrame, Outgoing, Session,
    sdp::{Offer, SendVideo, Sending, Wants, negotiate},
};

pub const MS: Duration = Duration::from_millis(1);
/// For what has to come: never reached but by a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Sockets tried until the kernel has put one on another shard: with two shards it fails once in 2^64.
const TRIES: usize = 64;
/// A fragment (FU-A) of which the application is told as it is.
const NAL: u8 = 0x41;

pub struct Port {
    pub engine: Engine,
    pub track: Outgoing,
    metrics: Registry,
    pub frames: u32,
}

impl Port {
    pub async fn start(shards: usize) -> Self {
        let metrics = Registry::new();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config { listen, public: Vec::new(), tcp: true, sessions_max: 500, shards };
        let engine = Engine::start(config, &metrics).await.unwrap();
        Self { track: engine.outgoing(), engine, metrics, frames: 0 }
    }

    /// Three packets, which say whose they are.
    pub fn push(&mut self, keyframe: bool) {
        let payloads = (0..3).map(|part| [&[NAL][..], &self.frames.to_be_bytes(), &[part], &[7; 500]].concat().into()).collect();
        let (timestamp, at_us) = (u64::from(self.frames) * 3000, i64::from(self.frames) * 33_333);
        self.track.push(OutFrame { timestamp, at_us, keyframe, payloads });
        self.frames += 1;
    }

    /// The sum over labels.
    pub fn metric(&self, name: &str) -> i64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == format!("codecast_webrtc_{name}")).unwrap();
        let all = family.get_metric().iter();
        all.map(|series| series.get_counter().get_value() + series.get_gauge().get_value()).sum::<f64>() as i64
    }

    pub async fn watch(&self, way: Way) -> Viewer {
        let nominal = "127.0.0.1:9".parse().unwrap();
        let mut peer = build(nominal);
        let offer = peer.create_offer(None).unwrap();
        peer.set_local_description(Instant::now(), offer).unwrap();
        let offer = peer.local_description().unwrap().sdp;
        let video = Some(SendVideo { profile_level_id: None, ssrc: 0x1111, rtx_ssrc: 0x2222 });
        let sending = Sending { video, audio: None, cname: "codecast".into(), stream_id: "live".into() };
        let negotiated = negotiate(&Offer::parse(offer.as_bytes()).unwrap(), &Wants::Send(sending)).unwrap();
        let accepted = self.engine.send(negotiated, Some(&self.track), None).await.unwrap();
        let pwd = line(&accepted.answer, "a=ice-pwd:");
        let answer: String = accepted.answer.split_inclusive('\n').filter(|line| !line.contains("tcptype")).collect();
        peer.set_remote_description(Instant::now(), RTCSessionDescription::answer(answer).unwrap()).unwrap();
        let (session, server) = (accepted.session, self.engine.address());
        Viewer { peer, way, nominal, server, session, pwd, got: BTreeSet::new(), lose: 0, answers: 0 }
    }

    /// A socket whose datagrams the kernel gives to another shard than the session's.
    pub async fn socket_elsewhere(&self, viewer: &Viewer) -> UdpSocket {
        for _ in 0..TRIES {
            let (socket, before) = (udp(), self.metric("handed_datagrams_total"));
            let check = viewer.check(false);
            socket.send_to(&check, self.engine.address()).unwrap();
            wait(async || socket.recv(&mut [0; 200]).is_ok()).await;
            if self.metric("handed_datagrams_total") > before {
                return socket;
            }
        }
        panic!("the kernel gives everything to one shard");
    }
}

/// How a viewer's datagrams go.
pub enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream, VecDeque<u8>),
}

impl Way {
    pub fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.send_to(datagram, to)),
            Self::Tcp(stream, _) => {
                let length = (datagram.len() as u16).to_be_bytes();
                stream.write_all(&[&length[..], datagram].concat()).unwrap();
            }
        }
    }

    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        match self {
            Self::Udp(socket) => {
                let length = socket.recv(&mut buffer).ok()?;
                Some(buffer[..length].to_vec())
            }
            Self::Tcp(stream, read) => {
                match stream.read(&mut buffer) {
                    Ok(length) => read.extend(&buffer[..length]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                let length = usize::from(u16::from_be_bytes([*read.front()?, *read.get(1)?]));
                (read.len() >= 2 + length).then(|| read.drain(..2 + length).skip(2).collect())
            }
        }
    }
}

pub fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

pub fn tcp(port: &Port) -> Way {
    let stream = TcpStream::connect(port.engine.address()).unwrap();
    stream.set_nonblocking(true).unwrap();
    Way::Tcp(stream, VecDeque::new())
}

pub struct Viewer {
    pub peer: RTCPeerConnection,
    pub way: Way,
    /// The address that it believes to have.
    nominal: SocketAddr,
    server: SocketAddr,
    pub session: Session,
    pub pwd: String,
    /// Frame and part.
    pub got: BTreeSet<(u32, u8)>,
    /// So many media packets are lost on their way to it.
    pub lose: usize,
    /// To checks that were not its peer connection's.
    answers: usize,
}

impl Viewer {
    /// Everything that has arrived, and everything that is due.
    pub fn turn(&mut self) {
        while let Some(datagram) = self.way.receive() {
            if datagram.first().is_some_and(|byte| *byte >= 128) && self.lose > 0 {
                self.lose -= 1;
                continue;
            }
            if datagram.first() == Some(&1) && datagram[8..20] == [7; 12] {
                self.answers += 1;
                continue;
            }
            let transport = TransportContext {
                local_addr: self.nominal,
                peer_addr: self.server,
                transport_protocol: TransportProtocol::UDP,
                ecn: None,
            };
            let message = BytesMut::from(&datagram[..]);
            let _ = self.peer.handle_read(TaggedBytesMut { now: Instant::now(), transport, message });
            self.take();
        }
        self.peer.handle_timeout(Instant::now()).unwrap();
        self.take();
        while let Some(sent) = self.peer.poll_write() {
            self.way.send(self.server, &sent.message);
        }
    }

    fn take(&mut self) {
        while self.peer.poll_event().is_some() {}
        while let Some(TaggedRTCMessage { message, .. }) = self.peer.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = message
                && let Some([NAL, frame @ .., part]) = packet.payload.first_chunk::<6>()
            {
                self.got.insert((u32::from_be_bytes(*frame), *part));
            }
        }
    }

    /// One that is not its peer connection's own, as another browser's would be.
    pub fn check(&self, nominate: bool) -> Vec<u8> {
        check(&self.session.control().ufrag(), &self.pwd, nominate)
    }

    /// From now on everything goes another way.
    pub async fn moves(&mut self, way: Way) {
        self.way = way;
        let before = self.answers;
        self.way.send(self.server, &self.check(true));
        wait(async || {
            self.turn();
            self.answers > before
        })
        .await;
    }

    pub fn has_all_of(&self, frames: std::ops::Range<u32>) -> bool {
        frames.into_iter().all(|frame| (0..3).all(|part| self.got.contains(&(frame, part))))
    }
}

/// A binding request (RFC 8445 7.1.1).
fn check(ufrag: &str, pwd: &str, nominate: bool) -> Vec<u8> {
    let username = format!("{ufrag}:peer");
    let mut out = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12], &[0, 6, 0, username.len() as u8]].concat();
    out.extend_from_slice(username.as_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(if nominate { &[0, 0x25, 0, 0] } else { &[] });
    out[3] = (out.len() + 4) as u8;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes());
    let tag = ring::hmac::sign(&key, &out);
    [&out, &[0, 8, 0, 20][..], tag.as_ref()].concat()
}

pub fn line(text: &str, start: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix(start)).unwrap().trim().to_owned()
}

pub async fn wait(mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < until, "it did not come");
        tokio::time::sleep(2 * MS).await;
    }
}

/// Frames for all, until all have them.
pub async fn stream(port: &mut Port, viewers: &mut [Viewer], frames: u32) {
    let first = port.frames;
    for _ in 0..frames {
        port.push(port.frames.is_multiple_of(30));
        tokio::time::sleep(2 * MS).await;
        viewers.iter_mut().for_each(Viewer::turn);
    }
    let all = first..port.frames;
    wait(async || {
        viewers.iter_mut().for_each(Viewer::turn);
        viewers.iter().all(|viewer| viewer.has_all_of(all.clone()))
    })
    .await;
}

fn build(address: SocketAddr) -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    let codec = |mime: &str, fmtp: &str| RTCRtpCodec {
        mime_type: mime.into(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: fmtp.into(),
        rtcp_feedback: vec![],
    };
    let h264 = codec(MIME_TYPE_H264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f");
    for (payload_type, rtp_codec) in [(102, h264), (103, codec("video/rtx", "apt=102"))] {
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, RtpCodecKind::Video).unwrap();
    }
    let interceptors = register_default_interceptors(Interceptors::new(), &mut engine).unwrap();
    let builder = RTCPeerConnectionBuilder::new().with_media_engine(engine).with_interceptor_registry(interceptors);
    let mut peer = builder.build(Instant::now()).unwrap();
    let recvonly = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
    peer.add_transceiver_from_kind(RtpCodecKind::Video, Some(recvonly)).unwrap();
    let base_config = CandidateConfig {
        network: "udp".into(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..Default::default()
    };
    let candidate = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host().unwrap();
    peer.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap()).unwrap();
    peer
}
