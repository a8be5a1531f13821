//! A bounded window from one writer to many readers.
//!
//! The writer appends and never waits. Each reader has a `Cursor`; one that falls behind the
//! window is told how many items it missed and goes on at the oldest that is left. Nothing here
//! knows a runtime: a reader that has read everything leaves its `Waker`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// How far a slow reader may lag before items are lost to it: a late picture is worth less than
/// a live one. Bytes, not items: GOPs differ in length. Two segments of 4 s of 8 Mbit/s: what a rung that is asked for begins
/// with.
pub const LAG_BYTES_MAX: usize = 8 << 20;
/// And items, for streams of tiny ones.
pub const LAG_ITEMS_MAX: usize = 4096;

pub struct Fanout<T> {
    window: Mutex<Window<T>>,
    bytes_max: usize,
}

struct Window<T> {
    items: VecDeque<(usize, T)>,
    /// Number of `items[0]`, counted from the first item ever.
    first: u64,
    bytes: usize,
    closed: bool,
    /// Readers that have read everything.
    waiting: Vec<Waker>,
}

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self::new(LAG_BYTES_MAX)
    }
}

impl<T> Fanout<T> {
    /// That keeps so many bytes for those who lag or come late.
    pub fn new(bytes_max: usize) -> Self {
        let window = Window { items: VecDeque::new(), first: 0, bytes: 0, closed: false, waiting: Vec::new() };
        Self { window: Mutex::new(window), bytes_max }
    }
}

impl<T: Clone> Fanout<T> {
    /// Appends an item that weighs `bytes`, and wakes who waits. After `close` it does nothing.
    pub fn push(&self, item: T, bytes: usize) {
        let mut window = self.lock();
        if window.closed {
            return;
        }
        window.items.push_back((bytes, item));
        window.bytes += bytes;
        // The newest item stays whatever it weighs.
        while window.items.len() > 1 && (window.bytes > self.bytes_max || window.items.len() > LAG_ITEMS_MAX) {
            let (dropped, _) = window.items.pop_front().expect("more than one item is there");
            window.bytes -= dropped;
            window.first += 1;
        }
        wake(window);
    }

    /// Nothing follows. Readers get what is left, then `Next::Closed`.
    pub fn close(&self) {
        let mut window = self.lock();
        window.closed = true;
        wake(window);
    }

    /// A reader of everything pushed from now on.
    pub fn subscribe(self: &Arc<Self>) -> Cursor<T> {
        let window = self.lock();
        let next = window.first + window.items.len() as u64;
        drop(window);
        Cursor { fanout: Arc::clone(self), next }
    }

    /// A reader from the newest item that fits on, or of everything from now on where none does.
    pub fn subscribe_at(self: &Arc<Self>, fits: impl Fn(&T) -> bool) -> Cursor<T> {
        let window = self.lock();
        let at = window.items.iter().rposition(|(_, item)| fits(item)).unwrap_or(window.items.len());
        let next = window.first + at as u64;
        drop(window);
        Cursor { fanout: Arc::clone(self), next }
    }

    /// A reader from the newest item that fits on, if one does.
    pub fn find(self: &Arc<Self>, fits: impl Fn(&T) -> bool) -> Option<Cursor<T>> {
        let window = self.lock();
        let at = window.items.iter().rposition(|(_, item)| fits(item))?;
        let next = window.first + at as u64;
        drop(window);
        Some(Cursor { fanout: Arc::clone(self), next })
    }

    fn lock(&self) -> MutexGuard<'_, Window<T>> {
        // No code of ours panics while it holds the lock; the data is whole either way.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes outside the lock: the first thing a woken reader does is to take it.
fn wake<T>(mut window: MutexGuard<'_, Window<T>>) {
    let waiting = std::mem::take(&mut window.waiting);
    drop(window);
    for waker in waiting {
        waker.wake();
    }
}

pub struct Cursor<T> {
    fanout: Arc<Fanout<T>>,
    next: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// At least one item was appended to the caller's buffer.
    Items,
    /// So many items left the window unread; the cursor stands at the oldest that is left.
    Lagged(u64),
    /// Everything was read, and nothing follows.
    Closed,
}

impl<T> Cursor<T> {
    /// How many items lay before the next one that it reads: two cursors of a window with the same number are at one place.
    pub fn position(&self) -> u64 {
        self.next
    }
}

impl<T: Clone> Cursor<T> {
    /// Appends all that is unread to `out`, at most `most` items.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<T>, most: usize) -> Poll<Next> {
        let mut window = self.fanout.lock();
        if self.next < window.first {
            let missed = window.first - self.next;
            self.next = window.first;
            return Poll::Ready(Next::Lagged(missed));
        }
        let unread = usize::try_from(self.next - window.first).expect("a cursor is never past the window");
        let before = out.len();
        out.extend(window.items.iter().skip(unread).take(most).map(|(_, item)| item.clone()));
        let read = out.len() - before;
        self.next += read as u64;
        if read > 0 {
            return Poll::Ready(Next::Items);
        }
        if window.closed {
            return Poll::Ready(Next::Closed);
        }
        if !window.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            window.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cursor: &mut Cursor<u32>) -> (Poll<Next>, Vec<u32>) {
        let mut out = Vec::new();
        let next = cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut out, 64);
        (next, out)
    }

    #[test]
    fn a_reader_gets_what_follows_its_subscription() {
        let fanout = Arc::new(Fanout::default());
        fanout.push(1, 1);
        let mut cursor = fanout.subscribe();
        assert_eq!(read(&mut cursor), (Poll::Pending, vec![]));
        fanout.push(2, 1);
        fanout.push(3, 1);
        assert_eq!(read(&mut cursor), (Poll::Ready(Next::Items), vec![2, 3]));
        fanout.close();
        fanout.push(4, 1);
        assert_eq!(read(&mut cursor), (Poll::Ready(Next::Closed), vec![]));
    }

    #[test]
    fn a_late_reader_starts_where_it_can() {
        let fanout = Arc::new(Fanout::default());
        for n in [1, 20, 3, 40, 5] {
            fanout.push(n, 1);
        }
        assert_eq!(read(&mut fanout.subscribe_at(|n| *n >= 10)), (Poll::Ready(Next::Items), vec![40, 5]));
        assert_eq!(read(&mut fanout.subscribe_at(|n| *n >= 100)), (Poll::Pending, vec![]));
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed_and_the_window_stays_bounded() {
        let fanout = Arc::new(Fanout::default());
        let mut cursor = fanout.subscribe();
        for n in 0..10 {
            fanout.push(n, LAG_BYTES_MAX / 4);
        }
        assert_eq!(read(&mut cursor), (Poll::Ready(Next::Lagged(6)), vec![]));
        assert_eq!(read(&mut cursor), (Poll::Ready(Next::Items), vec![6, 7, 8, 9]));
        fanout.push(10, LAG_BYTES_MAX * 2);
        assert_eq!(read(&mut cursor), (Poll::Ready(Next::Items), vec![10]), "the newest item always fits");
    }

    #[test]
    fn readers_that_wait_often_leave_one_waker() {
        let fanout: Arc<Fanout<u32>> = Arc::default();
        let mut cursor = fanout.subscribe();
        for _ in 0..100 {
            assert_eq!(read(&mut cursor).0, Poll::Pending);
        }
        assert_eq!(fanout.lock().waiting.len(), 1);
    }
}
