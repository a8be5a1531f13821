//! Who may publish to a name, and when, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::{
    codec::h264,
    fanout::{Cursor, Next},
    sample::{Parameters, Track, TrackId},
    timestamp::{Timescale, Timestamp},
};

const WALL_MS: u64 = 1_800_000_000_000;

fn name(name: &str) -> StreamName {
    StreamName::parse(name).unwrap()
}

/// A registry, its clock, and how many streams came to life.
struct Desk {
    registry: Registry,
    start: Instant,
    born: Arc<AtomicUsize>,
}

impl Desk {
    fn new(streams_max: usize) -> Self {
        let born = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&born);
        let wall = UNIX_EPOCH + Duration::from_millis(WALL_MS);
        let registry = Registry::new(wall, streams_max, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        Self { registry, start: Instant::now(), born }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn ask(&self, key: &str, claim: Option<Claim>, ms: u64) -> Acquire {
        self.registry.acquire(&name("demo"), &StreamKey::new(key), claim, self.at(ms))
    }

    fn grant(&self, key: &str, ms: u64) -> Publication {
        match self.ask(key, None, ms) {
            Acquire::Granted(publication) => publication,
            other => panic!("{other:?}"),
        }
    }

    /// The claim of a held request, which must wait until `until_ms`.
    fn hold(&self, key: &str, ms: u64, until_ms: u64) -> Claim {
        match self.ask(key, None, ms) {
            Acquire::Held { until, claim } => {
                assert_eq!(until, self.at(until_ms), "asked at {ms} ms");
                claim
            }
            other => panic!("{other:?}"),
        }
    }

    fn sample(&self, ms: u64) -> Sample {
        let track = Arc::new(Track {
            id: TrackId::VIDEO,
            timescale: Timescale::MILLIS,
            parameters: Parameters::H264(h264::Parameters::parse(Bytes::from_static(h264::tests::RECORD_360P30)).unwrap()),
        });
        let at = Timestamp::from_millis(ms as i64);
        Sample { track, pts: at, dts: at, duration: None, keyframe: true, payload: Bytes::new(), received: self.at(ms) }
    }

    fn send(&self, publication: &Publication, ms: u64) -> Result<(), Superseded> {
        publication.publish(self.sample(ms))
    }
}

/// An answer in one word.
fn word(answer: &Acquire) -> &'static str {
    match answer {
        Acquire::Granted(_) => "granted",
        Acquire::Held { .. } => "held",
        Acquire::Refused(Refusal::LiveEncoder) => "live",
        Acquire::Refused(Refusal::OtherKey) => "other key",
        Acquire::Refused(Refusal::TooManyStreams) => "too many",
        Acquire::Refused(Refusal::Draining) => "draining",
    }
}

/// What a reader sees, as letters: Join, Announce, sample, Leave.
fn story(cursor: &mut Cursor<Item>) -> String {
    let mut items = Vec::new();
    while cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut items, 64) == Poll::Ready(Next::Items) {}
    let letter = |item: &Item| match item {
        Item::Join { .. } => 'J',
        Item::Announce(_) => 'A',
        Item::Sample(_) => 's',
        Item::Leave => 'L',
    };
    items.iter().map(letter).collect()
}

fn stopped(publication: &Publication) -> Option<Stop> {
    match publication.poll_stop(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(stop) => Some(stop),
        Poll::Pending => None,
    }
}

#[test]
fn a_second_publisher_gets_the_answer_that_the_first_ones_silence_gives() {
    // The first is granted at 0 ms and sends at `sent`; a second asks with `key` at `asked`.
    let check = |sent: &[u64], key: &str, asked, expected| {
        let desk = Desk::new(8);
        let first = desk.grant("key", 0);
        sent.iter().for_each(|&ms| desk.send(&first, ms).unwrap());
        assert_eq!(word(&desk.ask(key, None, asked)), expected, "{sent:?} {key} {asked}");
    };
    check(&[], "key", 0, "held");
    check(&[], "key", 1499, "held");
    check(&[], "key", 1500, "granted");
    check(&[1000], "key", 1500, "held");
    check(&[1000], "key", 2499, "held");
    check(&[1000], "key", 2500, "granted");
    check(&[1000, 2000], "key", 2500, "held");
    check(&[1000], "other", 1100, "other key");
    check(&[1000], "other", 60_000, "other key"); // however long it is silent
}

#[test]
fn a_held_publisher_takes_over_only_from_one_that_stays_silent() {
    // The claim is of 1100 ms; the first sends at `sent`; the second asks again at `asked`.
    let check = |sent: &[u64], asked, expected| {
        let desk = Desk::new(8);
        let first = desk.grant("key", 0);
        desk.send(&first, 1000).unwrap();
        let claim = desk.hold("key", 1100, 2500);
        sent.iter().for_each(|&ms| desk.send(&first, ms).unwrap());
        assert_eq!(word(&desk.ask("key", Some(claim), asked)), expected, "{sent:?} {asked}");
    };
    check(&[], 2499, "held");
    check(&[], 2500, "granted");
    check(&[1133], 1200, "live");
    check(&[1133], 2500, "live");
    check(&[1133], 2633, "granted"); // silent since
}

#[test]
fn of_two_that_wait_one_takes_over() {
    let desk = Desk::new(8);
    let first = desk.grant("key", 0);
    let (a, b) = (desk.hold("key", 100, 1500), desk.hold("key", 200, 1500));
    let Acquire::Granted(second) = desk.ask("key", Some(a), 1500) else { panic!("a takes over") };
    assert_eq!(word(&desk.ask("key", Some(b), 1500)), "live", "two encoders do not duel");
    assert_eq!((stopped(&first), stopped(&second)), (Some(Stop::TakenOver), None));
}

#[test]
fn nothing_of_the_first_follows_a_takeover() {
    let desk = Desk::new(8);
    let first = desk.grant("key", 0);
    let mut cursor = first.stream.subscribe();
    desk.send(&first, 10).unwrap();
    let second = desk.grant("key", 2000);
    assert_eq!(desk.send(&first, 2001), Err(Superseded));
    assert_eq!(first.announce(Announcement::default()), Err(Superseded));
    second.announce(Announcement::default()).unwrap();
    desk.send(&second, 2002).unwrap();
    drop(first);
    desk.send(&second, 2003).unwrap();
    assert_eq!(story(&mut cursor), "sLJAss", "and its end takes nothing from the second");
    assert_eq!(desk.registry.publishers(), 1);
}

#[test]
fn dropping_a_publication_gives_the_name_back() {
    let desk = Desk::new(8);
    let first = desk.grant("key", 0);
    let mut cursor = first.stream.subscribe();
    drop(first);
    assert_eq!(desk.registry.publishers(), 0);
    let second = desk.grant("other", 1);
    assert_eq!(story(&mut cursor), "LJ", "the same stream goes on");
    assert_eq!(desk.born.load(Ordering::Relaxed), 1);
    assert_eq!(second.name(), &name("demo"));
}

#[test]
fn epochs_only_grow_and_begin_at_the_wall_clock() {
    let desk = Desk::new(8);
    let mut last = WALL_MS;
    for round in 0..5 {
        let Acquire::Granted(other) = desk.registry.acquire(&name("two"), &StreamKey::new("k"), None, desk.at(round)) else {
            panic!("granted")
        };
        for epoch in [other.epoch(), desk.grant("key", round).epoch()] {
            assert!(epoch > last, "{epoch} after {last}");
            last = epoch;
        }
    }
}

#[test]
fn a_stream_is_forgotten_only_while_nobody_publishes() {
    let desk = Desk::new(8);
    assert!(desk.registry.retire(&name("demo")), "never there");
    let first = desk.grant("key", 0);
    let mut cursor = first.stream.subscribe();
    assert!(!desk.registry.retire(&name("demo")), "somebody publishes");
    desk.send(&first, 1).unwrap();
    drop(first);
    // The publisher came back in the very moment in which the stream was to be forgotten.
    let second = desk.grant("key", 2);
    assert!(!desk.registry.retire(&name("demo")));
    drop(second);
    assert!(desk.registry.retire(&name("demo")));
    assert_eq!(story(&mut cursor), "sLJL");
    let closed = cursor.poll_next(&mut Context::from_waker(Waker::noop()), &mut Vec::new(), 1);
    assert_eq!(closed, Poll::Ready(Next::Closed), "readers are told");
    let third = desk.grant("key", 3);
    assert_eq!(desk.born.load(Ordering::Relaxed), 2, "another stream under the same name");
    desk.send(&third, 4).unwrap();
}

#[test]
fn a_drain_refuses_and_stops_everyone() {
    let desk = Desk::new(8);
    let first = desk.grant("key", 0);
    assert_eq!(stopped(&first), None);
    desk.registry.drain();
    assert_eq!(stopped(&first), Some(Stop::Drain));
    assert_eq!(word(&desk.ask("key", None, 5000)), "draining");
    desk.send(&first, 5001).expect("what is under way still arrives");
    drop(first);
    assert!(desk.registry.retire(&name("demo")));
}

#[test]
fn a_stop_wakes_who_waits_for_it() {
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let desk = Desk::new(8);
    let first = desk.grant("key", 0);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    assert!(first.poll_stop(&mut Context::from_waker(&waker)).is_pending());
    let _second = desk.grant("key", 1500);
    desk.registry.drain();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(stopped(&first), Some(Stop::TakenOver), "the first reason stays");
}

#[test]
fn there_is_room_for_so_many_streams() {
    let desk = Desk::new(2);
    let ask = |stream| desk.registry.acquire(&name(stream), &StreamKey::new("key"), None, desk.at(0));
    let (one, two) = (ask("one"), ask("two"));
    assert_eq!((word(&one), word(&two), word(&ask("three"))), ("granted", "granted", "too many"));
    drop(one);
    assert_eq!(word(&ask("three")), "too many", "a stream whose publisher is away keeps its place");
    assert_eq!(word(&ask("one")), "granted", "which is its own");
    assert!(desk.registry.retire(&name("one")));
    assert_eq!(word(&ask("three")), "granted");
}

#[test]
fn a_publication_outlives_the_registry_harmlessly() {
    let desk = Desk::new(8);
    let first = desk.grant("key", 0);
    let sample = desk.sample(1);
    drop(desk);
    assert_eq!(first.publish(sample), Err(Superseded));
}
