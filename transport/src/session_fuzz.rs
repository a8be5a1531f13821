//! The body of the fuzz target for sessions: bytes script what peers, owners and time do to one port.
//!
//! ```text
//! script: variant, then (what, which, wait in ms, length, bytes) over and over
//! Peer (knows the passwords, has DTLS and SRTP of its own) <-> one to four shards, in virtual time
//! ```
//!
//! There is one publisher and one viewer. Nothing may panic or spin, only a peer that knows the
//! password may be believed, what goes out must be readable, and of a closed session nothing stays.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use ring::hmac;
use rtc_shared::marshal::{Marshal, MarshalSize, Unmarshal};

use crate::{
    dtls::{Handshake, Identity, Progress},
    event::{Closed, Event},
    metrics::Fate,
    path::Path,
    sdp::{IceCredentials, Negotiated, Offer, SendVideo, Sending, Wants, negotiate},
    send::{OutFrame, TrackKey},
    session::Setup,
    shard::together::Shards,
    srtp::{self, Opener, Sealer},
    stun,
};

const MS: Duration = Duration::from_millis(1);
/// The publisher's place among the peers, and the viewer's.
const PUBLISHER: usize = 0;
const VIEWER: usize = 1;
const VIDEO: TrackKey = 1;
const OTHER_VIDEO: TrackKey = 2;
const AUDIO: TrackKey = 3;
/// More than an agent remembers. Those from `TCP_FROM` on are connections.
const PATHS: u8 = 64;
const TCP_FROM: u8 = 56;
/// Datagrams or bursts in one turn: retransmissions saved up, twice the pace, and flights of a handshake.
const TRANSMITS_MAX: usize = 600;
/// Turns of the clock that a millisecond and a session may take, and those at rest.
const TURNS_A_MS: usize = 4;
const TURNS_MAX: usize = 64;
/// Rounds of a handshake: four flights each way, and some.
const ROUNDS: usize = 8;

pub fn fuzz(now: Instant, data: &[u8]) {
    let Some((variant, mut script)) = data.split_first() else { return };
    let mut world = World::new(now, *variant);
    while let [what, which, wait, length, rest @ ..] = script {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        script = rest;
        world.act(*what, *which, bytes);
        world.pass(u32::from(*wait) * MS);
    }
    world.end();
}

struct World {
    now: Instant,
    began: Instant,
    shards: Shards,
    peers: [Peer; 2],
    variant: u8,
    /// Which sessions have proved a path: it is the first one's, while that uses it. Those of a closed one are taken out.
    proved: BTreeSet<(u8, u64)>,
    /// Numbers sessions and credentials, never twice; no session is 0.
    next: u64,
    frames: u64,
}

/// The other side of a session.
struct Peer {
    id: u64,
    alive: bool,
    connected: bool,
    credentials: IceCredentials,
    former: Option<IceCredentials>,
    handshake: Handshake,
    srtp: Option<(Sealer, Opener)>,
    sequence: [u16; 4],
    timestamp: u32,
}

impl World {
    fn new(now: Instant, variant: u8) -> Self {
        let mut shards = Shards::new(1 + usize::from(variant >> 2 & 3), now);
        [VIDEO, OTHER_VIDEO, AUDIO].into_iter().for_each(|track| shards.add_track(track));
        let peers = [PUBLISHER, VIEWER].map(|at| Peer::accepted(&mut shards, now, at, at as u64 + 1, variant));
        Self { now, began: now, shards, peers, variant, proved: BTreeSet::new(), next: 3, frames: 0 }
    }

    fn act(&mut self, what: u8, which: u8, bytes: &[u8]) {
        let (now, at) = (self.now, usize::from(what >> 4 & 1));
        let id = self.peers[at].id;
        match what & 15 {
            0 => self.send_datagram(which % PATHS, bytes),
            1 => self.send_check(at, which, !bytes.is_empty()),
            2 => self.send_forged(at, which, bytes),
            3 => self.shake_hands(at, which, bytes),
            4 => self.send_media(at, which, bytes),
            5 => self.send_packet(at, which, bytes),
            6 => self.send_rtcp(at, which, bytes),
            7 => self.push_frame(which, bytes),
            8 => self.shards.select(now, id, u64::from(which % 5), which & 0x80 != 0),
            9 => self.restart(at),
            10 => self.shards.close(now, id, Closed::ByUs),
            11 if at == VIEWER => self.shards.aim(id, (which > 0).then_some(u64::from(which) * 100_000)),
            11 => self.shards.request_keyframe(now, id, usize::from(which % 4)),
            12 => self.pass(u32::from(which % 40) * 1000 * MS),
            13 if which & 0x80 != 0 => self.shards.fall_behind(id),
            13 => self.end_connection(TCP_FROM + which % (PATHS - TCP_FROM)),
            14 if which & 0x80 != 0 => self.shards.remove_track(u64::from(which % 5)),
            14 => self.shards.add_track(1 + u64::from(which % 3)),
            _ => self.accept_again(at),
        }
        self.drain();
    }

    /// Anything, from anywhere.
    fn send_datagram(&mut self, number: u8, bytes: &[u8]) {
        let fate = self.shards.handle_datagram(self.now, path(number), bytes);
        if !self.proved.iter().any(|(proved, _)| *proved == number) {
            assert!(!matches!(fate, Fate::Media | Fate::Check), "{fate:?} from a path that was not proved");
        }
    }

    fn send_check(&mut self, at: usize, which: u8, former: bool) {
        let peer = &self.peers[at];
        let Some(credentials) = (if former { peer.former.as_ref() } else { Some(&peer.credentials) }) else { return };
        let number = which % PATHS;
        let fate = self.shards.handle_datagram(self.now, path(number), &check(credentials, which & 0x40 != 0));
        assert_eq!(fate, if peer.alive { Fate::Check } else { Fate::Forged }, "a check with the right password");
        if peer.alive {
            self.proved.insert((number, peer.id));
        }
    }

    /// A check that was changed, or whose sender only knows the name.
    fn send_forged(&mut self, at: usize, which: u8, bytes: &[u8]) {
        let credentials = &self.peers[at].credentials;
        let genuine = check(credentials, which & 0x40 != 0);
        let mut datagram = genuine.clone();
        datagram.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
        if datagram == genuine {
            let guessed = IceCredentials::new(credentials.ufrag(), "a/password/that/is/wrong");
            datagram = check(&guessed.expect("these credentials are valid"), true);
        }
        let fate = self.shards.handle_datagram(self.now, path(which % PATHS), &datagram);
        assert!(matches!(fate, Fate::Forged | Fate::Malformed | Fate::Unproved | Fate::Media), "a forged check was believed");
    }

    /// Handshake datagrams both ways; a byte of the script may change one on its way in.
    fn shake_hands(&mut self, at: usize, which: u8, bytes: &[u8]) {
        let mut changes = bytes.iter();
        _ = self.peers[at].handshake.begin(self.now);
        for _ in 0..ROUNDS {
            let mut quiet = true;
            while let Some(mut datagram) = self.peers[at].handshake.poll_transmit() {
                quiet = false;
                if let Some(change) = changes.next() {
                    let place = usize::from(*change) * 7 % datagram.len().max(1);
                    datagram.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= change);
                }
                self.shards.handle_datagram(self.now, path(which % PATHS), &datagram);
            }
            self.drain();
            if quiet {
                break;
            }
        }
    }

    /// A packet as a publisher of this offer sends it: layer, step, timestamp and marker by the first byte.
    fn send_media(&mut self, at: usize, which: u8, bytes: &[u8]) {
        let Some((kind, payload)) = bytes.split_first() else { return };
        let peer = &mut self.peers[at];
        let layer = usize::from(kind & 3);
        let step = [1, 2, 0, 0xfffd][usize::from(kind >> 2 & 3)];
        peer.sequence[layer] = peer.sequence[layer].wrapping_add(step);
        peer.timestamp = peer.timestamp.wrapping_add(u32::from(kind >> 4 & 1) * 3000);
        let header = header(layer, peer.sequence[layer], peer.timestamp, kind & 0x20 != 0, kind & 0x40 == 0);
        self.seal_packet(at, which, &header, payload);
    }

    /// A packet with any header.
    fn send_packet(&mut self, at: usize, which: u8, bytes: &[u8]) {
        let Ok(header) = rtc_rtp::Header::unmarshal(&mut &bytes[..]) else { return };
        let (header, payload) = bytes.split_at(header.marshal_size().min(bytes.len()));
        self.seal_packet(at, which, header, payload);
    }

    fn seal_packet(&mut self, at: usize, which: u8, header: &[u8], payload: &[u8]) {
        let Some((sealer, _)) = &mut self.peers[at].srtp else { return };
        let mut out = Vec::new();
        if header.len() >= 12 && sealer.seal_rtp(header, 0, &[payload], &mut out).is_ok() {
            self.shards.handle_datagram(self.now, path(which % PATHS), &out);
        }
    }

    fn send_rtcp(&mut self, at: usize, which: u8, bytes: &[u8]) {
        let Some((sealer, _)) = &mut self.peers[at].srtp else { return };
        if let Ok(sealed) = sealer.seal_rtcp(bytes) {
            self.shards.handle_datagram(self.now, path(which % PATHS), &sealed);
        }
    }

    fn push_frame(&mut self, which: u8, bytes: &[u8]) {
        let (track, keyframe, payloads) = (u64::from(which % 4), which & 0x10 != 0, usize::from(which >> 5));
        self.frames += 1;
        let payloads = (0..payloads).map(|_| Bytes::copy_from_slice(bytes)).collect();
        let at_us = i64::try_from((self.now - self.began).as_micros()).expect("a script is short");
        for viewer in self.shards.push(self.now, track, OutFrame { timestamp: self.frames * 3000, at_us, keyframe, payloads }) {
            self.shards.advance(self.now, viewer);
        }
    }

    fn restart(&mut self, at: usize) {
        let (credentials, peer) = (numbered(self.next), &mut self.peers[at]);
        self.next += 1;
        let stale = self.shards.restart(self.now, peer.id, "another", &credentials);
        assert!(stale.is_err(), "a restart of another ICE session is none of this one");
        let restarted = self.shards.restart(self.now, peer.id, peer.credentials.ufrag(), &credentials);
        assert_eq!(restarted.is_ok(), peer.alive, "who is there can restart");
        if peer.alive {
            peer.former = Some(std::mem::replace(&mut peer.credentials, credentials));
        }
    }

    fn end_connection(&mut self, number: u8) {
        self.shards.forget_path(self.now, path(number));
        self.proved.retain(|(proved, _)| *proved != number);
    }

    fn accept_again(&mut self, at: usize) {
        if !self.peers[at].alive {
            self.peers[at] = Peer::accepted(&mut self.shards, self.now, at, self.next, self.variant);
            self.next += 1;
        }
    }

    /// Lets time go by, from one due moment to the next.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let turns_max = TURNS_MAX + TURNS_A_MS * time.as_millis() as usize;
        for turn in 0.. {
            let Some(at) = self.shards.poll_timeout().filter(|at| *at <= until) else { break };
            assert!(turn < turns_max, "{turn} turns in {time:?}");
            self.now = self.now.max(at);
            self.shards.handle_timeout(self.now);
            assert!(self.shards.poll_timeout().is_none_or(|next| next > self.now), "what is due was done");
            self.drain();
            for peer in &mut self.peers {
                _ = peer.handshake.handle_timeout(self.now);
            }
        }
        self.now = until;
    }

    /// Takes what the shard has to say, and compares it with what is known.
    fn drain(&mut self) {
        let mut transmits = 0;
        while let Some((id, _, burst)) = self.shards.poll_transmit() {
            transmits += 1;
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) {
                burst.datagrams().for_each(|datagram| peer.handle_datagram(self.now, datagram));
            }
        }
        assert!(transmits <= TRANSMITS_MAX, "{transmits} transmits in one turn");
        while let Some((id, event)) = self.shards.poll_event() {
            let at = self.peers.iter().position(|peer| peer.id == id).expect("an event is of a session that was accepted");
            self.handle_event(at, &event);
        }
        _ = (self.shards.take_counts(), self.shards.poll_wanted(self.now));
        let alive = self.peers.iter().filter(|peer| peer.alive).count();
        assert_eq!(self.shards.sessions(), alive, "a session is there until it says that it is closed");
        let watching = usize::from(self.peers[VIEWER].alive);
        for track in [VIDEO, OTHER_VIDEO, AUDIO] {
            assert!(self.shards.viewers(track) <= watching, "a viewer is counted once, and while it is there");
        }
        assert!(alive > 0 || self.shards.poll_timeout().is_none(), "without sessions nothing is due");
    }

    fn handle_event(&mut self, at: usize, event: &Event) {
        let peer = &mut self.peers[at];
        assert!(peer.alive, "nothing is said after Closed");
        match event {
            Event::Connected { .. } => assert!(!std::mem::replace(&mut peer.connected, true), "connected once"),
            Event::Frame { media, layer, .. } => {
                assert!(at == PUBLISHER && peer.connected && *media < 2 && *layer < 2, "a frame of what was offered");
            }
            Event::Switched { track } => {
                assert!(at == VIEWER && [VIDEO, OTHER_VIDEO, AUDIO].contains(track), "a track that was chosen");
            }
            Event::Bandwidth { bitrate } => assert!(at == VIEWER && *bitrate > 0, "a way that carries nothing is none"),
            Event::Closed(_) => {
                peer.alive = false;
                self.proved.retain(|(_, id)| *id != peer.id);
            }
        }
    }

    /// Of closed sessions no name, path, timer or viewer is left.
    fn end(&mut self) {
        for at in [PUBLISHER, VIEWER] {
            self.shards.close(self.now, self.peers[at].id, Closed::ByUs);
        }
        self.drain();
        assert_eq!((self.shards.sessions(), self.shards.poll_timeout()), (0, None));
        assert_eq!((self.shards.paths(), self.shards.entries()), (0, 0), "no table keeps anything");
        for peer in &self.peers {
            for credentials in [Some(&peer.credentials), peer.former.as_ref()].into_iter().flatten() {
                let fate = self.shards.handle_datagram(self.now, path(0), &check(credentials, true));
                assert_eq!(fate, Fate::Forged, "the name of a closed session is forgotten");
            }
        }
        for number in 0..PATHS {
            let fate = self.shards.handle_datagram(self.now, path(number), &[0x80, 96, 0, 0]);
            assert_eq!(fate, Fate::Unproved, "the paths of a closed session are forgotten");
        }
    }
}

impl Peer {
    fn accepted(shards: &mut Shards, now: Instant, at: usize, id: u64, variant: u8) -> Self {
        let [ours, theirs] = identities();
        let mut negotiated = negotiated(at, variant);
        negotiated.remote.fingerprint = theirs.fingerprint.clone();
        let handshake = Handshake::new(theirs, !negotiated.dtls_client, ours.fingerprint.clone());
        let handshake = handshake.expect("a handshake can be prepared with a certificate of ours");
        let credentials = numbered(id + 1_000_000);
        let setup = Setup {
            negotiated,
            local: credentials.clone(),
            identity: Arc::clone(ours),
            wall: (now, SystemTime::UNIX_EPOCH),
            random: [7; 32],
            sends: (at == VIEWER).then_some([Some(VIDEO), Some(AUDIO)]),
        };
        shards.accept(now, id, setup).expect("a session can be made with a certificate of ours");
        Self {
            id,
            alive: true,
            connected: false,
            credentials,
            former: None,
            handshake,
            srtp: None,
            sequence: [100; 4],
            timestamp: 9000,
        }
    }

    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        match datagram {
            [20..=63, ..] => {
                if let Ok(Progress::Done(keys)) = self.handshake.handle(now, datagram) {
                    self.srtp = srtp::contexts(*keys, Arc::clone(identities()[1].provider())).ok();
                }
            }
            [128..=191, kind, ..] => {
                let Some((_, opener)) = &mut self.srtp else { return };
                let opened = if (192..=223).contains(kind) {
                    opener.open_rtcp(datagram)
                } else {
                    let header = rtc_rtp::Header::unmarshal(&mut &datagram[..]).expect("a header of ours can be read");
                    opener.open_rtp(datagram, &header)
                };
                assert!(opened.is_ok(), "the peer can open what is sent to it: {opened:?}");
            }
            _ => assert_eq!(datagram.first(), Some(&1), "else there are only answers to checks"),
        }
    }
}

/// Ours and the peers': made once, since keys take time.
fn identities() -> &'static [Arc<Identity>; 2] {
    static IDENTITIES: OnceLock<[Arc<Identity>; 2]> = OnceLock::new();
    IDENTITIES.get_or_init(|| [(); 2].map(|()| Arc::new(Identity::generate().expect("a certificate can be made"))))
}

fn path(number: u8) -> Path {
    let remote = SocketAddr::from((Ipv4Addr::new(10, 0, 0, number), 5000));
    match number {
        TCP_FROM.. => Path::Tcp { connection: u64::from(number), remote },
        _ => Path::Udp { remote, local: None },
    }
}

fn numbered(number: u64) -> IceCredentials {
    IceCredentials::new(format!("name{number}"), "0123456789abcdefghijklmn").expect("these credentials are valid")
}

/// A binding request (RFC 8445 7.1.1), with little more than what is read of it.
fn check(credentials: &IceCredentials, nominate: bool) -> Vec<u8> {
    let username = format!("{}:peer", credentials.ufrag());
    let mut out = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    out.extend_from_slice(&[7; 12]);
    out.extend_from_slice(&[0, 6, 0, username.len() as u8]);
    out.extend_from_slice(username.as_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    if nominate {
        out.extend_from_slice(&[0, 0x25, 0, 0]);
    }
    out[3] = (out.len() + 24 - 20) as u8;
    let tag = hmac::sign(&stun::key(credentials.pwd()), &out);
    out.extend_from_slice(&[0, 8, 0, 20]);
    out.extend_from_slice(tag.as_ref());
    out
}

/// Sound, two layers of the picture, and repetitions of the first.
fn header(layer: usize, sequence_number: u16, timestamp: u32, marker: bool, named: bool) -> Bytes {
    type Extensions = &'static [(u8, &'static [u8])];
    const LAYERS: [(u8, Extensions); 4] =
        [(111, &[(1, b"0")]), (96, &[(1, b"1"), (2, b"l")]), (96, &[(1, b"1"), (2, b"h")]), (97, &[(1, b"1"), (3, b"l")])];
    let (payload_type, extensions) = LAYERS[layer];
    let ssrc = 11 + layer as u32;
    let mut header = rtc_rtp::Header { version: 2, payload_type, sequence_number, timestamp, marker, ssrc, ..Default::default() };
    for (id, value) in extensions.iter().filter(|_| named) {
        header.set_extension(*id, Bytes::from_static(value)).expect("short extensions fit");
    }
    let number = Bytes::copy_from_slice(&sequence_number.to_be_bytes());
    header.set_extension(4, number).expect("short extensions fit");
    header.marshal().expect("a header of ours can be written").freeze()
}

/// By the lowest bit of the variant a publisher has layers and transport-wide feedback, or names its SSRCs; by the
/// second a viewer takes retransmissions as such, or not; by the fifth it tells when packets arrived. The two between say how
/// many shards there are.
fn negotiated(at: usize, variant: u8) -> Negotiated {
    let wants = match at {
        PUBLISHER => Wants::Receive,
        _ => Wants::Send(Sending {
            video: Some(SendVideo { profile_level_id: None, ssrc: 21, rtx_ssrc: 22 }),
            audio: Some(23),
            cname: "codecast".to_owned(),
            stream_id: "live".to_owned(),
        }),
    };
    let offer = Offer::parse(offer(at, variant).as_bytes()).expect("this offer can be read");
    negotiate(&offer, &wants).expect("this offer can be taken")
}

fn offer(at: usize, variant: u8) -> String {
    let direction = if at == PUBLISHER { "sendonly" } else { "recvonly" };
    let common = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:peer\r\na=ice-pwd:peerpeerpeerpeerpeerpeer\r\na=setup:actpass\r\n\
         a=fingerprint:sha-256 {}00\r\na=rtcp-mux\r\na={direction}\r\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        "00:".repeat(31)
    );
    let publisher = match variant & 1 {
        0 => {
            "a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
             a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
             a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
             a=rtcp-fb:96 transport-cc\r\na=rid:l send\r\na=rid:h send\r\na=simulcast:send l;h\r\n"
        }
        _ => "a=rtcp-fb:96 goog-remb\r\na=ssrc-group:FID 12 14\r\na=ssrc:12 cname:c\r\na=ssrc:14 cname:c\r\n",
    };
    let rtx = if variant & 2 == 0 { "a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n" } else { "" };
    let viewer = match variant & 16 {
        0 => "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n",
        _ => {
            "a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\na=rtcp-fb:96 transport-cc\r\n"
        }
    };
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{common}a=mid:0\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n{common}a=mid:1\r\na=rtpmap:96 H264/90000\r\n\
         a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n{rtx}{}",
        if at == PUBLISHER { publisher } else { viewer }
    )
}
