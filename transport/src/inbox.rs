//! The bounded ways between handles and threads: commands in, events out, and what threads give each other.
//!
//! A session's commands go to the shard that accepted it, its home, which passes them on where it has
//! given the session away: so they come in order.

use std::{ops::Range, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    engine::{OutgoingShared, Owner},
    event::{Closed, Event},
    resource::PatchError,
    sdp::IceCredentials,
    send::{OutFrame, TrackKey},
    session::Setup,
    shard::Handed,
    udp::Slot,
};

/// Commands that wait for a thread: a second of frames of hundreds of tracks.
const COMMANDS_MAX: usize = 4096;

/// Events that wait for a session's owner: some seconds of frames.
const EVENTS_MAX: usize = 512;
/// And their bytes: eight seconds at the 12 Mbit/s that a publisher may send, or one frame of the largest size and a rest.
const EVENT_BYTES_MAX: usize = 12 << 20;

/// With the room that it takes until it is read.
type Waiting = (Event, Option<OwnedSemaphorePermit>);

/// The end of the engine's thread, which never waits.
pub(crate) struct Events {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// The end of a session's owner.
pub(crate) struct Inbox(mpsc::Receiver<Waiting>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    Full,
    /// The owner is gone.
    Closed,
}

pub(crate) fn channel() -> (Events, Inbox) {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    (Events { sender, room: Arc::new(Semaphore::new(EVENT_BYTES_MAX)) }, Inbox(receiver))
}

impl Events {
    pub(crate) fn send(&self, event: Event) -> Result<(), NotSent> {
        let bytes = u32::try_from(event.bytes()).map_err(|_| NotSent::Full)?;
        let room = match bytes {
            0 => None,
            _ => Some(Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| NotSent::Full)?),
        };
        self.sender.try_send((event, room)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::Closed,
        })
    }
}

impl Inbox {
    /// Cancel safe.
    pub(crate) async fn recv(&mut self) -> Option<Event> {
        self.0.recv().await.map(|(event, _)| event)
    }
}

/// What a thread is told.
pub(crate) enum Command {
    Accept {
        id: u64,
        setup: Box<Setup>,
        owner: Owner,
        accepted: oneshot::Sender<Result<(), String>>,
    },
    /// `replaces`: our user name fragment as it was when the restart was asked for.
    Restart {
        id: u64,
        replaces: String,
        local: IceCredentials,
        remote: IceCredentials,
        done: oneshot::Sender<Result<(), PatchError>>,
    },
    RequestKeyframe {
        id: u64,
        layer: usize,
    },
    Select {
        id: u64,
        track: TrackKey,
        rests: bool,
    },
    Aim {
        id: u64,
        bitrate: Option<u64>,
    },
    Close {
        id: u64,
        reason: Closed,
    },
    AddTrack(Arc<OutgoingShared>),
    RemoveTrack(TrackKey),
    Push {
        track: TrackKey,
        frame: Arc<OutFrame>,
    },
    ExpectProbe(IceCredentials),
}

impl Command {
    /// The session that it is for, if that may have been given to another shard.
    pub(crate) fn session(&self) -> Option<u64> {
        match self {
            Self::Restart { id, .. }
            | Self::RequestKeyframe { id, .. }
            | Self::Select { id, .. }
            | Self::Aim { id, .. }
            | Self::Close { id, .. } => Some(*id),
            Self::Accept { .. } | Self::AddTrack(_) | Self::RemoveTrack(_) | Self::Push { .. } | Self::ExpectProbe(_) => None,
        }
    }
}

/// The ways to all threads, which end when the last of these is gone.
#[derive(Clone)]
pub(crate) struct Commands(Arc<[mpsc::Sender<Command>]>);

/// A way to each of so many threads, and its end there.
pub(crate) fn commands(shards: usize) -> (Commands, Vec<mpsc::Receiver<Command>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(COMMANDS_MAX)).unzip();
    (Commands(senders.into()), receivers)
}

impl Commands {
    pub(crate) fn shards(&self) -> Range<usize> {
        0..self.0.len()
    }

    /// Waits for room.
    pub(crate) async fn send(&self, id: u64, command: Command) -> Result<(), ()> {
        self.0[self.home(id)].send(command).await.map_err(drop)
    }

    /// For what may be lost. False when there is no room.
    pub(crate) fn try_send(&self, shard: usize, command: Command) -> bool {
        self.0[shard].try_send(command).is_ok()
    }

    /// Never waits, never lost.
    pub(crate) fn to_home(&self, id: u64, command: Command) {
        send_later(&self.0[self.home(id)], command);
    }

    pub(crate) fn to_all(&self, command: impl Fn() -> Command) {
        self.0.iter().for_each(|shard| send_later(shard, command()));
    }

    fn home(&self, id: u64) -> usize {
        (id % self.0.len() as u64) as usize
    }
}

/// Where what a thread is told comes from, and where it tells others.
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) messages: mpsc::Receiver<Message>,
    /// Of all shards, by their numbers.
    pub(crate) neighbours: Vec<mpsc::Sender<Message>>,
}

/// From shard to shard.
pub(crate) enum Message {
    /// The slot of a session comes with it.
    Handed(Handed, Option<Slot>),
    /// For a session that was given away.
    Command(Command),
}

/// Never waits. A full queue is retried by a task: such a message must not be lost.
pub(crate) fn send_later<T: Send + 'static>(sender: &mpsc::Sender<T>, message: T) {
    let Err(mpsc::error::TrySendError::Full(message)) = sender.try_send(message) else { return };
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let sender = sender.clone();
        runtime.spawn(async move { sender.send(message).await });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::rtp::Frame;

    fn frame(bytes: usize) -> Event {
        let frame = Frame {
            timestamp: 0,
            payload: Bytes::from(vec![0; bytes]),
            vps: None,
            sps: None,
            pps: None,
            keyframe: true,
            damaged_before: false,
            first_received: Instant::now(),
            received: Instant::now(),
            ntp: None,
        };
        Event::Frame { media: 0, layer: 0, frame }
    }

    #[tokio::test]
    async fn it_is_bounded_by_bytes_and_by_number() {
        let (events, mut inbox) = channel();
        assert_eq!(events.send(frame(8 << 20)), Ok(()));
        assert_eq!(events.send(frame(8 << 20)), Err(NotSent::Full));
        assert_eq!(events.send(frame(4 << 20)), Ok(()));
        assert!(inbox.recv().await.is_some());
        assert_eq!(events.send(frame(8 << 20)), Ok(()), "what was read has made room");
        let small = (2..EVENTS_MAX + 1).map(|_| events.send(frame(0))).filter(Result::is_ok).count();
        assert_eq!(small, EVENTS_MAX - 2);
        drop(inbox);
        assert_eq!(events.send(frame(0)), Err(NotSent::Closed));
    }
}
