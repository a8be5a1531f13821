//! The engine's threads: a socket, the clock, and the queue of commands around one `Shard` each.
//!
//! Datagrams are read by the batch, with receive offload; a viewer's packets of one frame leave in
//! one call, with segmentation offload. What shards give each other goes by one more queue each.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::{
    io::Interest,
    net::{TcpListener, UdpSocket},
};

use crate::{
    directory::Seat,
    engine::{OutgoingShared, Owner},
    event::{Closed, Event},
    inbox::{Command, Ends, Message, NotSent, send_later},
    listener::Sockets,
    metrics::Metrics,
    path::Path,
    send::{Burst, TrackKey},
    shard::{Handed, Shard},
    tcp,
};

/// Commands and batches of datagrams handled before the other side gets its turn.
const TURN: usize = 64;
/// What one receive buffer holds: a run of datagrams joined by the kernel.
const RECEIVE_BYTES: usize = 64 << 10;
/// The kernel's buffers: bursts of many publishers, and of a keyframe to many viewers.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Bytes that may wait for the socket: a keyframe to a hundred viewers. What comes on top is lost, and its viewers go on
/// at the next keyframe.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Viewers served between two looks at the socket.
const FLUSH_VIEWERS: usize = 16;

pub(crate) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    ends: Ends,
    connections: tcp::Connections,
    shard: Shard,
    owners: HashMap<u64, Slot>,
    tracks: HashMap<TrackKey, Arc<OutgoingShared>>,
    /// What the socket did not take yet.
    backlog: VecDeque<(u64, Path, Burst)>,
    backlog_bytes: usize,
    metrics: Metrics,
    /// This shard's part of the gauges.
    told: Gauges,
}

#[derive(Default)]
struct Gauges {
    sessions: i64,
    backlog: i64,
}

pub(crate) struct Slot {
    owner: Owner,
    /// Layers whose owner was too slow: nothing of them until the next keyframe.
    lagging: HashSet<(usize, usize)>,
}

impl Port {
    /// In the runtime of its thread.
    pub(crate) fn open(sockets: Sockets, ends: Ends, seat: Seat, ways: tcp::Ways, metrics: Metrics) -> io::Result<Self> {
        let socket = UdpSocket::from_std(sockets.udp)?;
        let listener = sockets.tcp.map(TcpListener::from_std).transpose()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The kernel may give less (net.core.rmem_max): a smaller buffer is still one.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        Ok(Self {
            socket,
            state,
            ends,
            connections: tcp::Connections::new(listener, seat.own(), ways, metrics.clone()),
            shard: Shard::new(seat),
            owners: HashMap::new(),
            tracks: HashMap::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            metrics,
            told: Gauges::default(),
        })
    }

    pub(crate) async fn run(mut self) {
        let mut buffers = vec![vec![0_u8; RECEIVE_BYTES]; BATCH_SIZE.min(8)];
        loop {
            let deadline = self.shard.poll_timeout();
            tokio::select! {
                command = self.ends.commands.recv() => {
                    let Some(command) = command else { break };
                    self.handle_commands(command);
                }
                Some(message) = self.ends.messages.recv() => self.handle_messages(message),
                ready = self.socket.readable() => {
                    if ready.is_ok() {
                        self.receive(&mut buffers);
                    }
                }
                _ = self.socket.writable(), if !self.backlog.is_empty() => self.send_backlog(),
                arrival = self.connections.next() => self.handle_arrivals(arrival),
                () = sleep_until(deadline) => {}
            }
            self.shard.handle_timeout(Instant::now());
            self.settle();
        }
        self.end();
    }

    fn handle_commands(&mut self, first: Command) {
        let now = Instant::now();
        self.handle_command(now, first);
        for _ in 1..TURN {
            let Ok(command) = self.ends.commands.try_recv() else { break };
            self.handle_command(now, command);
        }
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        if let Some(shard) = command.session().and_then(|id| self.shard.elsewhere(id)) {
            return send_later(&self.ends.neighbours[shard], Message::Command(command));
        }
        match command {
            Command::Accept { id, setup, owner, accepted } => {
                let result = self.shard.accept(now, id, *setup).map_err(|e| e.to_string());
                if result.is_ok() {
                    self.owners.insert(id, Slot { owner, lagging: HashSet::new() });
                }
                if accepted.send(result).is_err() {
                    self.shard.close(now, id, Closed::ByUs);
                }
            }
            Command::Restart { id, replaces, local, remote, done } => {
                let restarted = self.shard.restart(now, id, &replaces, &local);
                if let (Ok(()), Some(slot)) = (&restarted, self.owners.get(&id)) {
                    slot.owner.shared.set_ice(&local, remote);
                }
                let _ = done.send(restarted);
            }
            Command::RequestKeyframe { id, layer } => self.shard.request_keyframe(now, id, layer),
            Command::Select { id, track, rests } => self.shard.select(now, id, track, rests),
            Command::Aim { id, bitrate } => self.shard.aim(id, bitrate),
            Command::Close { id, reason } => {
                // Who has shown up meanwhile stays.
                let stays = reason == Closed::CrowdedOut && self.owners.get(&id).is_some_and(|slot| !slot.owner.shared.waits());
                if !stays {
                    self.shard.close(now, id, reason);
                }
            }
            Command::AddTrack(shared) => {
                self.shard.add_track(shared.key, shared.told.clone());
                self.tracks.insert(shared.key, shared);
            }
            Command::RemoveTrack(track) => {
                self.shard.remove_track(track);
                self.tracks.remove(&track);
            }
            Command::ExpectProbe(credentials) => self.shard.expect_probe(&credentials),
            Command::Push { track, frame } => {
                let viewers = self.shard.push(now, track, frame);
                for some in viewers.chunks(FLUSH_VIEWERS) {
                    some.iter().for_each(|id| self.shard.advance(now, *id));
                    self.flush();
                }
            }
        }
    }

    fn handle_messages(&mut self, first: Message) {
        let now = Instant::now();
        self.handle_message(now, first);
        for _ in 1..TURN {
            let Ok(message) = self.ends.messages.try_recv() else { break };
            self.handle_message(now, message);
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message) {
        match message {
            Message::Command(command) => self.handle_command(now, command),
            Message::Handed(handed, slot) => self.handle_handed(now, handed, slot),
        }
    }

    fn handle_handed(&mut self, now: Instant, handed: Handed, slot: Option<Slot>) {
        if let (Handed::Session { id, .. }, Some(slot)) = (&handed, slot) {
            self.owners.insert(*id, slot);
        }
        let fate = self.shard.handle_handed(now, handed);
        self.metrics.received(fate);
        self.hand_over(now);
    }

    /// Gives other shards what is theirs. A datagram for which there is no room is lost; a session then stays here.
    fn hand_over(&mut self, now: Instant) {
        while let Some((shard, handed)) = self.shard.poll_handed() {
            let neighbour = &self.ends.neighbours[shard];
            match handed {
                Handed::Datagram(_) => {
                    self.metrics.handed.inc();
                    if neighbour.try_send(Message::Handed(handed, None)).is_err() {
                        self.metrics.handed_lost.inc();
                    }
                }
                Handed::Session { id, .. } => match neighbour.try_reserve() {
                    Ok(room) => {
                        room.send(Message::Handed(handed, self.owners.remove(&id)));
                        self.shard.given(id, shard);
                    }
                    Err(_) => self.metrics.received(self.shard.handle_handed(now, handed)),
                },
                Handed::Ended(_) => send_later(neighbour, Message::Handed(handed, None)),
            }
        }
    }

    fn receive(&mut self, buffers: &mut [Vec<u8>]) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        for _ in 0..TURN {
            let room = buffers.len();
            let mut slices: Vec<IoSliceMut<'_>> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let (state, socket) = (&self.state, &self.socket);
            let received =
                socket.try_io(Interest::READABLE, || state.recv(UdpSockRef::from(socket), &mut slices, &mut metas[..room]));
            let Ok(messages) = received else { return };
            let now = Instant::now();
            for (buffer, meta) in buffers.iter().zip(&metas).take(messages) {
                // No answer can be sent to port 0, and trying to would cost all the offload.
                if meta.addr.port() == 0 {
                    continue;
                }
                let path = Path::Udp { remote: meta.addr, local: meta.dst_ip };
                for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
                    let fate = self.shard.handle_datagram(now, path, datagram);
                    self.metrics.received(fate);
                }
            }
            // What they are answered does not pile up over a whole turn, nor what is not for here.
            self.flush();
            self.hand_over(now);
        }
    }

    fn handle_arrivals(&mut self, first: tcp::Arrival) {
        self.handle_arrival(first);
        for _ in 1..TURN {
            let Some(arrival) = self.connections.try_next() else { break };
            self.handle_arrival(arrival);
        }
    }

    fn handle_arrival(&mut self, arrival: tcp::Arrival) {
        match arrival {
            tcp::Arrival::Datagram { path, bytes } => {
                let fate = self.shard.handle_datagram(Instant::now(), path, &bytes);
                self.metrics.received(fate);
            }
            tcp::Arrival::Ended(path) => self.shard.forget_path(path),
        }
    }

    /// Sends what is to be sent, and tells owners what happened.
    fn settle(&mut self) {
        let now = Instant::now();
        self.hand_over(now);
        self.flush();
        while let Some((id, event)) = self.shard.poll_event() {
            self.tell(id, event);
        }
        while let Some(track) = self.shard.poll_wanted(now) {
            if let Some(shared) = self.tracks.get(&track) {
                shared.wanted.notify_one();
            }
        }
        self.metrics.count(self.shard.take_counts());
        let sessions = i64::try_from(self.shard.sessions()).unwrap_or(i64::MAX);
        self.metrics.sessions.add(sessions - std::mem::replace(&mut self.told.sessions, sessions));
    }

    /// Sends what is sealed. What the socket does not take waits, in order, and bounded.
    fn flush(&mut self) {
        while let Some((id, path, mut burst)) = self.shard.poll_transmit() {
            let waits = matches!(path, Path::Udp { .. }) && !self.backlog.is_empty();
            if !waits && self.send(path, &mut burst) {
                continue;
            }
            let room = matches!(path, Path::Udp { .. }) && self.backlog_bytes + burst.bytes.len() <= BACKLOG_BYTES_MAX;
            if room {
                self.backlog_bytes += burst.bytes.len();
                self.backlog.push_back((id, path, burst));
            } else {
                self.metrics.send_blocked.inc();
                if burst.pictures {
                    self.shard.fall_behind(id);
                }
            }
        }
        let backlog = i64::try_from(self.backlog_bytes).unwrap_or(i64::MAX);
        self.metrics.backlog.add(backlog - std::mem::replace(&mut self.told.backlog, backlog));
    }

    fn send_backlog(&mut self) {
        while let Some((id, path, mut burst)) = self.backlog.pop_front() {
            self.backlog_bytes -= burst.bytes.len();
            if !self.send(path, &mut burst) {
                self.backlog_bytes += burst.bytes.len();
                self.backlog.push_front((id, path, burst));
                break;
            }
        }
    }

    fn tell(&mut self, id: u64, event: Event) {
        if let Event::Closed(reason) = event {
            self.metrics.closed(&reason);
            if let Some(slot) = self.owners.remove(&id) {
                slot.owner.shared.set_closed(reason);
            }
            return;
        }
        let Some(slot) = self.owners.get_mut(&id) else { return };
        if matches!(event, Event::Connected { .. }) {
            slot.owner.shared.set_connected();
        }
        let place = match &event {
            Event::Frame { media, layer, frame } if !frame.keyframe && slot.lagging.contains(&(*media, *layer)) => {
                return self.metrics.frames_dropped.inc();
            }
            Event::Frame { media, layer, .. } => Some((*media, *layer)),
            Event::Connected { .. } | Event::Switched { .. } | Event::Bandwidth { .. } | Event::Closed(_) => None,
        };
        match (slot.owner.events.send(event), place) {
            (Ok(()), Some(place)) => drop(slot.lagging.remove(&place)),
            (Ok(()), None) => {}
            (Err(NotSent::Full), place) => {
                slot.lagging.extend(place);
                self.metrics.frames_dropped.inc();
            }
            (Err(NotSent::Closed), _) => self.shard.close(Instant::now(), id, Closed::ByUs),
        }
    }

    /// False when the way is full: what is left of the burst did not go out.
    fn send(&self, path: Path, burst: &mut Burst) -> bool {
        let (bytes, datagrams) = (burst.bytes.len(), burst.datagrams().count());
        let sent = match path {
            Path::Udp { remote, local } => self.send_udp(remote, local, burst),
            Path::Tcp { connection, .. } => self.connections.send(connection, burst),
        };
        if sent {
            self.metrics.sent_bursts.inc();
            self.metrics.sent_bytes.inc_by(bytes as u64);
            self.metrics.sent_datagrams.inc_by(datagrams as u64);
        }
        sent
    }

    fn send_udp(&self, destination: SocketAddr, src_ip: Option<IpAddr>, burst: &mut Burst) -> bool {
        // Where the kernel has no segmentation offload the pieces go one by one.
        let step = burst.segment.max(1) * self.state.max_gso_segments().max(1);
        let mut gone = 0;
        for contents in burst.bytes.chunks(step) {
            let segment_size = (contents.len() > burst.segment).then_some(burst.segment);
            let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
            let (state, socket) = (&self.state, &self.socket);
            match socket.try_io(Interest::WRITABLE, || state.try_send(UdpSockRef::from(socket), &transmit)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An address without a route, a port that answers with an error: the peer's loss alone.
                Err(_) => self.metrics.send_errors.inc(),
            }
            gone += contents.len();
        }
        let all = gone == burst.bytes.len();
        if !all {
            burst.bytes.drain(..gone);
        }
        all
    }

    /// Every handle is gone: the process ends, or a test.
    fn end(&mut self) {
        let now = Instant::now();
        let ids: Vec<u64> = self.owners.keys().copied().collect();
        for id in ids {
            self.shard.close(now, id, Closed::ByUs);
        }
        self.settle();
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
