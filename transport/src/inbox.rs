//! The bounded way of events from the engine's thread to a session's owner.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::event::Event;

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
