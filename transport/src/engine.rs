//! The handle that WHIP and WHEP hold: peers are accepted, frames pushed, events awaited.
//!
//! All work is done by a few threads (`udp.rs`), each behind a bounded queue of commands. Handles never
//! wait for them, but for the answer to an offer or a restart.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::UdpSocket,
    sync::{Notify, oneshot},
    time::timeout,
};

use crate::{
    directory::Told,
    dtls::Identity,
    event::{Closed, Event},
    inbox::{self, Command, Commands, Events, Inbox},
    listener,
    lobby::Lobby,
    metrics::Metrics,
    resource::{Patch, PatchError},
    sdp::{Candidate, IceCredentials, Local, Negotiated, Protocol},
    send::{OutFrame, TrackKey},
    session::Setup,
    stun,
};

/// ICE ufrag and password: 48 and 192 bits of randomness (RFC 8445 5.3 asks for 24 and 128).
const UFRAG_BYTES: usize = 6;
const PWD_BYTES: usize = 24;
/// Of the places for sessions, the share that viewers may hold before they have shown up. Each takes about 50 KiB.
const LOBBY_SHARE: usize = 4;
const LOBBY_MIN: usize = 16;
const LOBBY_MAX: usize = 500;
/// And the share that viewers leave to publishers.
const PUBLISHERS_SHARE: usize = 20;
/// The self-test: so many checks, and how long each waits.
const PROBES: usize = 3;
const PROBE_WAIT: Duration = Duration::from_millis(400);

#[derive(Clone, Debug)]
pub struct Config {
    /// UDP, and TCP if `tcp`; port 0 takes any.
    pub listen: SocketAddr,
    /// The candidates, exactly; port 0 stands for the bound one. Empty: the listen address.
    pub public: Vec<SocketAddr>,
    /// ICE-TCP on the same port.
    pub tcp: bool,
    /// Peers at once.
    pub sessions_max: usize,
    /// Threads that share the port. The kernel spreads peers over them, on Linux; elsewhere there is one.
    pub shards: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("WebRTC: {0} cannot be listened on: {1}. Is another server running there?")]
    Bind(SocketAddr, io::Error),
    #[error("WebRTC: no certificate could be made: {0}")]
    Certificate(String),
    #[error("WebRTC: its metrics could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("WebRTC: listen address {0} stands for every interface: say which addresses are advertised")]
    NoAddress(SocketAddr),
    #[error("WebRTC: a thread of it could not be started: {0}")]
    Thread(io::Error),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error("this server already carries as many WebRTC sessions as it is configured for: try again in a moment")]
    Full,
    #[error("this server is shutting down: connect again in a moment")]
    Stopped,
    #[error("the DTLS handshake cannot be prepared: {0}")]
    Dtls(String),
}

/// The handle of the port and its threads; they end with the last one.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    commands: Commands,
    candidates: Vec<Candidate>,
    bound: SocketAddr,
    identity: Arc<Identity>,
    metrics: Metrics,
    sessions_max: usize,
    sessions: Arc<AtomicUsize>,
    lobby: Mutex<Lobby<SessionShared>>,
    next: AtomicU64,
    random: SystemRandom,
    probe: IceCredentials,
}

/// A peer was accepted.
pub struct Accepted {
    pub session: Session,
    /// The SDP answer.
    pub answer: String,
}

/// An ICE restart was done.
#[derive(Debug)]
pub struct Restarted {
    /// The body of the answer (RFC 8840).
    pub fragment: String,
    pub ufrag: String,
}

impl Engine {
    pub async fn start(config: Config, registry: &prometheus::Registry) -> Result<Self, StartError> {
        let metrics = Metrics::new(registry)?;
        let identity = Arc::new(Identity::generate().map_err(|e| StartError::Certificate(e.to_string()))?);
        let (commands, inboxes) = inbox::commands(listener::shards(&config));
        let bound = listener::start(&config, inboxes, metrics.clone()).await?;
        let candidates = candidates(&config, bound)?;
        let random = SystemRandom::new();
        let probe = credentials(&random);
        commands.to_all(|| Command::ExpectProbe(probe.clone()));
        Ok(Self(Arc::new(Inner {
            commands,
            candidates,
            bound,
            identity,
            metrics,
            sessions_max: config.sessions_max,
            sessions: Arc::default(),
            lobby: Mutex::new(Lobby::new((config.sessions_max / LOBBY_SHARE).clamp(LOBBY_MIN, LOBBY_MAX))),
            next: AtomicU64::new(1),
            random,
            probe,
        })))
    }

    /// UDP, as bound.
    pub fn address(&self) -> SocketAddr {
        self.0.bound
    }

    /// What peers are told.
    pub fn candidates(&self) -> &[Candidate] {
        &self.0.candidates
    }

    /// Whether a datagram sent to this address reaches the engine, and its answer the sender: the
    /// self-test of an advertised UDP address. From inside a NAT that does not take its own address
    /// back it fails though peers outside succeed.
    pub async fn reaches(&self, address: SocketAddr) -> bool {
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { return false };
        let id = self.random();
        let check = stun::check(&format!("{}:self", self.0.probe.ufrag()), &stun::key(self.0.probe.pwd()), id);
        for _ in 0..PROBES {
            if socket.send_to(&check, address).await.is_err() {
                return false;
            }
            let mut answer = [0; 256];
            let received = timeout(PROBE_WAIT, socket.recv_from(&mut answer)).await;
            if received.is_ok_and(|received| received.is_ok_and(|(length, _)| stun::answers(&answer[..length], id))) {
                return true;
            }
        }
        false
    }

    /// WHIP: a publisher.
    pub async fn receive(&self, negotiated: Negotiated) -> Result<Accepted, AcceptError> {
        self.accept(negotiated, None).await
    }

    /// WHEP: a viewer of these tracks.
    pub async fn send(
        &self,
        negotiated: Negotiated,
        video: Option<&Outgoing>,
        audio: Option<&Outgoing>,
    ) -> Result<Accepted, AcceptError> {
        self.accept(negotiated, Some([video, audio].map(|track| track.map(|track| track.shared.key)))).await
    }

    /// A track that many viewers share. They stay connected when it is dropped.
    pub fn outgoing(&self) -> Outgoing {
        let key = self.0.next.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(OutgoingShared { key, wanted: Notify::new(), told: Told::default() });
        self.0.commands.to_all(|| Command::AddTrack(Arc::clone(&shared)));
        let (commands, metrics) = (self.0.commands.clone(), self.0.metrics.clone());
        let broken = commands.shards().map(|_| AtomicBool::new(false)).collect();
        Outgoing { shared, commands, metrics, broken }
    }

    /// A random number, for SSRCs and session addresses.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        random(&self.0.random)
    }

    async fn accept(&self, negotiated: Negotiated, sends: Option<[Option<TrackKey>; 2]>) -> Result<Accepted, AcceptError> {
        // Viewers, whom anybody may be, leave places for publishers, who have a key.
        let kept = if sends.is_some() { self.0.sessions_max / PUBLISHERS_SHARE } else { 0 };
        let place = Place::take(&self.0.sessions, self.0.sessions_max - kept).ok_or(AcceptError::Full)?;
        let is_viewer = sends.is_some();
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let local = credentials(&self.0.random);
        let answer = negotiated.answer(&self.local(&local, id));
        let shared = Arc::new(SessionShared {
            ice: Mutex::new(Ice { ufrag: local.ufrag().to_owned(), remote: negotiated.remote.ice.clone() }),
            closed: Mutex::new(None),
            waits: AtomicBool::new(true),
            negotiated: negotiated.clone(),
        });
        let (events, inbox) = inbox::channel();
        let setup = Setup {
            negotiated,
            local,
            identity: Arc::clone(&self.0.identity),
            wall: (Instant::now(), SystemTime::now()),
            random: self.random(),
            sends,
        };
        let (accepted, result) = oneshot::channel();
        let owner = Owner { events, shared: Arc::clone(&shared), place };
        if is_viewer && let Some(id) = self.lobby().enter(id, Arc::downgrade(&shared), SessionShared::waits) {
            self.0.commands.to_home(id, Command::Close { id, reason: Closed::CrowdedOut });
        }
        let command = Command::Accept { id, setup: Box::new(setup), owner, accepted };
        // There before it is waited for: who asked may be gone meanwhile, and dropping it closes it.
        let session = Session { control: Control { id, engine: self.clone(), shared }, events: inbox, over: false };
        self.0.commands.send(id, command).await.map_err(|_| AcceptError::Stopped)?;
        result.await.map_err(|_| AcceptError::Stopped)?.map_err(AcceptError::Dtls)?;
        Ok(Accepted { session, answer })
    }

    fn lobby(&self) -> MutexGuard<'_, Lobby<SessionShared>> {
        self.0.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local<'a>(&'a self, ice: &'a IceCredentials, id: u64) -> Local<'a> {
        Local { ice, fingerprint: &self.0.identity.fingerprint, candidates: &self.0.candidates, session_id: id }
    }
}

fn credentials(source: &SystemRandom) -> IceCredentials {
    let (ufrag, pwd) = (text(&random::<UFRAG_BYTES>(source)), text(&random::<PWD_BYTES>(source)));
    IceCredentials::new(ufrag, pwd).expect("hexadecimal digits, enough of them")
}

fn random<const N: usize>(source: &SystemRandom) -> [u8; N] {
    let mut bytes = [0; N];
    source.fill(&mut bytes).expect("the system has randomness: it was there when the certificate was made");
    bytes
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn candidates(config: &Config, bound: SocketAddr) -> Result<Vec<Candidate>, StartError> {
    let listed = if config.public.is_empty() { vec![bound] } else { config.public.clone() };
    if let Some(address) = listed.iter().find(|address| address.ip().is_unspecified()) {
        return Err(StartError::NoAddress(*address));
    }
    let addresses = listed.into_iter().map(|mut address| {
        if address.port() == 0 {
            address.set_port(bound.port());
        }
        address
    });
    let addresses: Vec<SocketAddr> = addresses.collect();
    let with = |protocol| addresses.iter().map(move |&address| Candidate { address, protocol });
    let tcp = with(Protocol::TcpPassive).filter(|_| config.tcp);
    Ok(with(Protocol::Udp).chain(tcp).collect())
}

/// Owner of one peer: dropping it closes the session.
pub struct Session {
    control: Control,
    events: Inbox,
    over: bool,
}

impl Session {
    /// The next event; `Closed` is the last one, and comes once. Cancel safe.
    pub async fn event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.recv().await {
            return Some(event);
        }
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let closed = self.control.shared.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(Event::Closed(closed.unwrap_or(Closed::ByUs)))
    }

    pub fn control(&self) -> Control {
        self.control.clone()
    }

    pub fn negotiated(&self) -> &Negotiated {
        &self.control.shared.negotiated
    }

    /// WHIP: asks the publisher for a keyframe of one of its layers; coalesced.
    pub fn request_keyframe(&self, layer: usize) {
        self.control.command(Command::RequestKeyframe { id: self.control.id, layer });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// For those who answer requests about a session.
#[derive(Clone)]
pub struct Control {
    id: u64,
    engine: Engine,
    shared: Arc<SessionShared>,
}

impl Control {
    /// A PATCH (RFC 9725 4.3). Candidates are no news to a lite agent, which learns addresses from checks: `None`. An ICE
    /// restart gives both sides other credentials, and media goes on. Of two at once the first counts.
    pub async fn patch(
        &self,
        content_type: Option<&str>,
        if_match: Option<&str>,
        body: &[u8],
    ) -> Result<Option<Restarted>, PatchError> {
        let ice = self.shared.ice().clone();
        let Patch::Restart(remote) = Patch::judge(content_type, if_match, body, &ice.ufrag, &ice.remote)? else {
            return Ok(None);
        };
        let local = credentials(&self.engine.0.random);
        let fragment = self.shared.negotiated.fragment(&self.engine.local(&local, self.id));
        let restarted = Restarted { fragment, ufrag: local.ufrag().to_owned() };
        let (done, result) = oneshot::channel();
        let restart = Command::Restart { id: self.id, replaces: ice.ufrag, local, remote, done };
        self.engine.0.commands.send(self.id, restart).await.map_err(|_| PatchError::Gone)?;
        result.await.unwrap_or(Err(PatchError::Gone))?;
        Ok(Some(restarted))
    }

    /// Our ICE user name fragment now: an ETag's value.
    pub fn ufrag(&self) -> String {
        self.shared.ice().ufrag.clone()
    }

    pub fn negotiated(&self) -> &Negotiated {
        &self.shared.negotiated
    }

    pub fn close(&self) {
        self.command(Command::Close { id: self.id, reason: Closed::ByUs });
    }

    /// WHEP: goes over to another track of the picture at its next keyframe. `rests`: until then, for some seconds, nothing of
    /// the picture is sent, since the way carries far too little for it.
    pub fn select(&self, video: &Outgoing, rests: bool) {
        self.command(Command::Select { id: self.id, track: video.shared.key, rests });
    }

    /// WHEP: what a better picture would need, in bits a second, so that it is found out whether that fits. `None`: there is
    /// none.
    pub fn aim(&self, bitrate: Option<u64>) {
        self.command(Command::Aim { id: self.id, bitrate });
    }

    fn command(&self, command: Command) {
        self.engine.0.commands.to_home(self.id, command);
    }
}

/// One track that many viewers share.
pub struct Outgoing {
    shared: Arc<OutgoingShared>,
    commands: Commands,
    metrics: Metrics,
    /// A frame was lost on the way to this shard: nothing but a keyframe makes sense of what follows.
    broken: Box<[AtomicBool]>,
}

pub(crate) struct OutgoingShared {
    pub(crate) key: TrackKey,
    pub(crate) wanted: Notify,
    pub(crate) told: Told,
}

impl Outgoing {
    /// As `Event::Switched` names it.
    pub fn key(&self) -> u64 {
        self.shared.key
    }

    /// One frame for all viewers. Never waits: where a thread cannot keep up it is dropped there and counted.
    pub fn push(&self, frame: OutFrame) {
        let frame = Arc::new(frame);
        for (shard, broken) in self.broken.iter().enumerate() {
            let makes_sense = frame.keyframe || !broken.load(Ordering::Relaxed);
            let push = || Command::Push { track: self.shared.key, frame: Arc::clone(&frame) };
            let pushed = makes_sense && self.commands.try_send(shard, push());
            if !pushed {
                self.metrics.frames_dropped.inc();
                self.shared.wanted.notify_one();
            }
            broken.store(!pushed, Ordering::Relaxed);
        }
    }

    /// Waits until a viewer needs a keyframe that is not here; coalesced.
    pub async fn keyframe_wanted(&self) {
        self.shared.wanted.notified().await;
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.commands.to_all(|| Command::RemoveTrack(self.shared.key));
    }
}

/// The way back to who owns a session.
pub(crate) struct Owner {
    pub(crate) events: Events,
    pub(crate) shared: Arc<SessionShared>,
    #[expect(dead_code, reason = "held: it counts the session")]
    place: Place,
}

pub(crate) struct SessionShared {
    ice: Mutex<Ice>,
    closed: Mutex<Option<Closed>>,
    /// For the first sign of the peer: a proved check, and the keys.
    waits: AtomicBool,
    negotiated: Negotiated,
}

/// What the next PATCH is compared with.
#[derive(Clone)]
struct Ice {
    /// Ours.
    ufrag: String,
    /// The peer's. A lite agent never sends checks, so nothing but a restart is told by them.
    remote: IceCredentials,
}

impl SessionShared {
    fn ice(&self) -> MutexGuard<'_, Ice> {
        self.ice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_ice(&self, local: &IceCredentials, remote: IceCredentials) {
        *self.ice() = Ice { ufrag: local.ufrag().to_owned(), remote };
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    pub(crate) fn set_connected(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_closed(&self, reason: Closed) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// One of the sessions that there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(sessions: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Self(Arc::clone(sessions)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
