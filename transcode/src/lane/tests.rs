//! A lane in virtual time, as publisher, child and clock see it.

use bytes::Bytes;
use media_core::codec::{aac, opus};

use super::*;

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`: the avcC box.
const RECORD: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];

fn video() -> Arc<Track> {
    let parameters = Parameters::H264(media_core::codec::h264::Parameters::parse(Bytes::from_static(RECORD)).unwrap());
    Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters })
}

fn sound() -> Arc<Track> {
    let parameters = Parameters::Aac(aac::Parameters::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    Arc::new(Track { id: TrackId::AUDIO, timescale: Timescale::new(48_000).unwrap(), parameters })
}

fn lane(made: Made, epoch: Option<u64>, now: Instant) -> Lane {
    let id = if made.is_picture() { 2 } else { 0 };
    let mut lane = Lane::new(id, made, epoch, now);
    if made == Made::Thumbnail {
        lane = lane.only_keyframes(Duration::from_secs(5));
    }
    lane.make(made, Wish::default(), &History::default());
    lane
}

/// One lane, the time, and what was sent and pushed as short words.
struct Play {
    lane: Lane,
    histories: Histories,
    now: Instant,
    track: Arc<Track>,
    dropped: usize,
}

impl Play {
    fn new(made: Made) -> Self {
        let now = Instant::now();
        let track = if feeds(made, &video()) { video() } else { sound() };
        Self { lane: lane(made, Some(1), now), histories: Histories::default(), now, track, dropped: 0 }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn item(&mut self, item: Item) -> String {
        let mut orders = Vec::new();
        self.dropped += usize::from(self.lane.handle_item(&item, true, self.now, &mut orders));
        orders.iter().map(order_word).collect::<Vec<_>>().join(" ")
    }

    fn sample(&mut self, ms: i64, keyframe: bool) -> String {
        self.sample_of(ms, keyframe, 1000, 0)
    }

    fn sample_of(&mut self, ms: i64, keyframe: bool, bytes: usize, age_ms: u64) -> String {
        let at = Timestamp::from_millis(ms).to(self.track.timescale);
        let received = self.now - Duration::from_millis(age_ms);
        let (track, payload) = (Arc::clone(&self.track), vec![0; bytes].into());
        self.item(Item::Sample(Arc::new(Sample { track, pts: at, dts: at, duration: None, keyframe, payload, received })))
    }

    fn join(&mut self, epoch: u64) -> String {
        self.item(Item::Join { epoch, received: self.now })
    }

    fn report(&mut self, report: Report) -> String {
        match self.lane.handle_report(report, self.now, &mut self.histories) {
            Ok(verdict) if verdict.closed => "closed".into(),
            Ok(Verdict { thumbnail: Some(_), .. }) => "jpeg".into(),
            Ok(verdict) => verdict.push.iter().map(|(_, item)| item_word(item)).collect::<Vec<_>>().join(" "),
            Err(Broken(why)) => format!("broken: {why}"),
        }
    }

    fn made(&mut self, ms: i64) -> String {
        let (id, made) = (self.lane.id, self.lane.kind);
        let scale = timescale(made, 48_000).unwrap();
        let pts = Timestamp::from_millis(ms).to(scale);
        let duration = if made == Made::Video { 0 } else { 960 };
        let (cut, live, payload) = (false, true, Bytes::new());
        self.report(Report::Sample(id, made, Coded { pts, dts: pts, duration, keyframe: false, cut, live, payload }))
    }

    fn made_track(&mut self) -> String {
        let (id, made) = (self.lane.id, self.lane.kind);
        let track = match made {
            Made::Video => {
                Track { timescale: timescale(made, 0).unwrap(), parameters: video().parameters.clone(), id: TrackId::VIDEO }
            }
            _ => {
                let parameters = Parameters::Opus(opus::Parameters { channels: 2 });
                Track { id: TrackId::AUDIO, timescale: timescale(made, 0).unwrap(), parameters }
            }
        };
        self.report(Report::Track(id, made, Arc::new(track)))
    }

    fn consumed(&mut self, samples: u32) -> String {
        self.report(Report::Consumed(self.lane.id, samples))
    }
}

fn order_word(order: &Order) -> String {
    match order {
        Order::Make(..) => "make".into(),
        Order::Leave(..) => "leave".into(),
        Order::Track(..) => "track".into(),
        Order::Sample(_, coded) => format!("{}", coded.pts.ticks_in(Timescale::MILLIS)),
        Order::End(_) => "end".into(),
        Order::Keyframe(..) => "keyframe".into(),
    }
}

fn item_word(item: &Item) -> String {
    match item {
        Item::Join { epoch, .. } => format!("join{epoch}"),
        Item::Sample(sample) => format!("{}", sample.pts.ticks_in(Timescale::MILLIS)),
        Item::Leave => "leave".into(),
        Item::Announce(_) => "announce".into(),
    }
}

#[test]
fn a_run_begins_at_a_keyframe_with_its_track() {
    let mut p = Play::new(Made::Video);
    assert_eq!(p.sample(0, false), "");
    assert_eq!(p.dropped, 0, "nobody was promised what lies before the first keyframe");
    assert_eq!(p.sample(33, true), "track 33");
    assert_eq!(p.sample(66, false), "66");
    p.track = video();
    assert_eq!(p.sample(100, false), "100", "an equal track is no other one");
    p.track = sound();
    assert_eq!(p.sample(101, true), "", "sound makes no picture");
}

#[test]
fn what_comes_back_is_joined_once_and_grows() {
    let mut p = Play::new(Made::Opus);
    assert_eq!(p.sample(20, true), "track 20");
    assert_eq!(p.made(0), "broken: a Sample before its track");
    assert_eq!(p.made_track(), "");
    assert_eq!(p.made(0), "join1 0");
    assert_eq!(p.made(20), "20");
    assert_eq!(p.made(20), "");
    assert_eq!(p.consumed(1), "");
    assert_eq!(p.consumed(1), "broken: a receipt for more than it was given");
    assert_eq!(p.item(Item::Leave), "end");
    assert_eq!(p.report(Report::Ended(p.lane.id)), "leave");
    assert_eq!(p.made(40), "broken: a Sample though it was fed nothing");
}

#[test]
fn a_takeover_ends_the_run_and_its_output_before_the_next_one_is_joined() {
    let mut p = Play::new(Made::Video);
    p.sample(0, true);
    p.made_track();
    assert_eq!(p.made(0), "join1 0");
    assert_eq!(p.item(Item::Leave), "end");
    assert_eq!(p.sample(33, true), "", "of nobody");
    assert_eq!(p.join(2), "");
    assert_eq!(p.sample(5, false), "");
    assert_eq!(p.sample(10, true), "track 10");
    assert_eq!(p.made(66), "66", "what the decoder held back is still the old publisher's");
    assert_eq!(p.report(Report::Ended(p.lane.id)), "leave");
    assert_eq!(p.made(10), "join2 10");
    assert_eq!(p.join(3), "end", "a Join without a Leave");
}

#[test]
fn a_second_child_goes_on_where_the_first_one_stopped() {
    let mut p = Play::new(Made::Video);
    p.sample(0, true);
    p.made_track();
    p.made(0);
    p.made(33);
    let first = p.histories[0].track.clone().unwrap();
    p.lane = Lane::new(2, Made::Video, Some(1), p.now);
    assert!(p.histories[0].settle(Some(1)).is_none(), "the publisher is still there");
    let Order::Make(_, _, wish) = p.lane.make(Made::Video, Wish::default(), &p.histories[0]) else { panic!() };
    assert_eq!(wish.after, Some(Timestamp::from_millis(33)));
    p.sample(0, true);
    p.made_track();
    assert!(Arc::ptr_eq(&first, p.histories[0].track.as_ref().unwrap()));
    assert_eq!(p.made(33), "");
    assert_eq!(p.made(66), "66");
    p.lane = Lane::new(2, Made::Video, Some(2), p.now);
    assert!(
        matches!(p.lane.make(Made::Video, Wish::default(), &p.histories[0]), Order::Make(_, _, Wish { after: None, .. })),
        "another publisher's time"
    );
    assert!(matches!(p.histories[0].settle(Some(2)), Some(Item::Leave)));
    assert!(p.histories[0].settle(Some(2)).is_none(), "said once");
}

#[test]
fn a_slow_child_costs_pictures_up_to_the_next_keyframe() {
    let mut p = Play::new(Made::Video);
    assert_eq!(p.sample(0, true), "track 0");
    let sent = (1..40).filter(|n| {
        p.pass(33);
        !p.sample(n * 33, false).is_empty()
    });
    assert_eq!(sent.count(), 31, "a second of them");
    assert!(!p.lane.is_full(), "the stream is read on: sound and publisher do not wait");
    assert_eq!(p.consumed(20), "");
    assert_eq!(p.sample(1333, false), "", "its reference is missing");
    assert_eq!(p.dropped, 9);
    assert_eq!(p.sample(1366, true), "1366");
    assert_eq!(p.sample(1400, false), "1400");
}

#[test]
fn what_comes_at_once_is_not_dropped_unless_the_child_leaves_it() {
    let mut p = Play::new(Made::Opus);
    (0..150).for_each(|n| assert!(!p.sample(n * 20, true).is_empty(), "{n}"));
    p.consumed(80);
    p.pass(1001);
    assert_eq!(p.sample(3000, true), "", "the oldest has waited for more than a second");
    p.consumed(70);
    assert_eq!((p.sample(3020, true), p.dropped), ("3020".into(), 1));
    // However soon it comes, there is an end.
    let sent = (1..1000).filter(|n| !p.sample(3020 + n * 20, true).is_empty()).count();
    assert_eq!(sent, UNREAD_SAMPLES_MAX - 1);
}

#[test]
fn bytes_are_bounded_too() {
    let mut p = Play::new(Made::Video);
    p.sample_of(0, true, UNREAD_BYTES_MAX, 0);
    p.sample(10, false);
    assert_eq!(p.sample(20, true), "");
    p.consumed(1);
    assert_eq!(p.sample(30, true), "30");
}

#[test]
fn catching_up_waits_instead_of_dropping() {
    let mut p = Play::new(Made::Video);
    for n in 0..32 {
        assert!(!p.sample_of(n * 33, n == 0, 1000, 5000 - n as u64 * 33).is_empty());
    }
    assert!(p.lane.is_full());
    p.consumed(1);
    assert!(!p.lane.is_full());
    // What was just received is waited for as well, as long as the child has all before it to read still.
    assert_eq!(p.sample_of(1056, false, 1000, 10), "1056");
    assert!(p.lane.is_full());
    p.consumed(30);
    assert_eq!(p.sample_of(1089, false, 1000, 10), "1089");
    // Caught up: a child without credit is not waited for any longer.
    for n in 34..63 {
        assert!(!p.sample(n * 33, false).is_empty());
        p.pass(40);
    }
    assert_eq!((p.sample(63 * 33, false), p.lane.is_full(), p.dropped), (String::new(), false, 1));
}

#[test]
fn a_child_that_never_catches_up_is_not_waited_for_for_ever() {
    let mut p = Play::new(Made::Video);
    for n in 0..32 {
        p.sample_of(n * 33, n == 0, 1000, 3000);
    }
    assert!(p.lane.is_full());
    p.pass(4999);
    p.consumed(1);
    assert_eq!(p.sample_of(1056, false, 1000, 3000), "1056");
    assert!(p.lane.is_full());
    p.pass(1);
    assert_eq!((p.sample_of(1089, false, 1000, 3000), p.dropped), (String::new(), 1));
    assert!(!p.lane.is_full());
}

#[test]
fn a_child_that_gives_nothing_hangs_and_a_silent_publisher_is_nobodys_fault() {
    let mut p = Play::new(Made::Opus);
    let mut hung_after = None;
    for n in 0..400 {
        p.pass(20);
        p.sample(n * 20, true);
        p.consumed(1);
        if p.lane.handle_tick(p.now) && hung_after.is_none() {
            hung_after = Some(n * 20);
        }
        if n < 100 && n > 0 {
            p.made_track();
            p.made(n * 20);
        }
    }
    assert!((6980..7100).contains(&hung_after.unwrap()), "{hung_after:?}");
    let mut p = Play::new(Made::Opus);
    p.sample(0, true);
    p.consumed(1);
    for _ in 0..600 {
        p.pass(100);
        assert!(!p.lane.handle_tick(p.now));
    }
    p.sample(60_000, true);
    assert!(!p.lane.handle_tick(p.now));
    for _ in 0..60 {
        p.pass(100);
        p.lane.handle_tick(p.now);
    }
    assert!(p.lane.handle_tick(p.now), "what it was given stays unread");
}

#[test]
fn closing_waits_for_the_end() {
    let mut p = Play::new(Made::Opus);
    assert!(p.lane.close(&mut Vec::new()), "nothing was begun");
    let mut p = Play::new(Made::Opus);
    p.sample(0, true);
    p.made_track();
    p.made(0);
    let mut orders = Vec::new();
    assert!(!p.lane.close(&mut orders));
    assert_eq!(orders.iter().map(order_word).collect::<String>(), "end");
    assert_eq!(p.sample(20, true), "");
    assert_eq!(p.made(20), "20");
    assert_eq!(p.report(Report::Ended(p.lane.id)), "closed");
}

#[test]
fn latency_is_told_from_the_source_that_a_sample_was_made_of() {
    let mut p = Play::new(Made::Video);
    p.made_track();
    for n in 0..10 {
        p.sample(n * 33, n == 0);
        p.pass(33);
    }
    let pts = Timestamp::from_millis(9 * 33).to(Timescale::new(90_000).unwrap());
    let (cut, live, payload) = (false, true, Bytes::new());
    let coded = Coded { pts, dts: pts, duration: 0, keyframe: false, cut, live, payload };
    let verdict = p.lane.handle_report(Report::Sample(2, Made::Video, coded), p.now, &mut p.histories);
    assert_eq!(verdict.unwrap().latency, Some(Duration::from_millis(33)));
}

#[test]
fn one_source_has_several_outputs() {
    let mut p = Play::new(Made::Video);
    assert_eq!(p.sample(0, true), "track 0");
    let wish = Wish { after: Some(Timestamp::from_millis(99)), ..Wish::default() };
    let order = p.lane.make(Made::Rung(2), wish.clone(), &p.histories[Made::Rung(2).index()]);
    assert_eq!(order, Order::Make(2, Made::Rung(2), wish), "what is said goes before what is known");
    assert_eq!(p.sample(100, true), "100", "nothing of it is sent twice");
    p.made_track();
    assert_eq!(p.made(0), "join1 0");
    p.lane.kind = Made::Rung(2);
    p.made_track();
    assert_eq!(p.made(100), "join1 100", "each has readers of its own");
    assert_eq!(p.item(Item::Leave), "end");
    assert_eq!(p.report(Report::Ended(2)), "leave leave");
    p.join(2);
    p.sample(200, true);
    p.lane.leave(Made::Rung(2));
    assert_eq!(p.made(200), "", "it was on its way");
}

#[test]
fn a_thumbnail_takes_a_keyframe_now_and_then() {
    let mut p = Play::new(Made::Thumbnail);
    assert_eq!(p.sample(0, false), "");
    assert_eq!(p.sample(33, true), "track 33", "the first one at once");
    assert_eq!(p.consumed(1), "");
    assert_eq!(p.report(Report::Thumbnail(0, Bytes::from_static(b"jpeg"))), "jpeg");
    assert_eq!(p.sample(66, false), "");
    assert_eq!(p.sample(4033, true), "");
    assert_eq!(p.sample(6033, true), "6033", "the next that is 5 s behind");
    assert_eq!(p.consumed(1), "");
    for _ in 0..100 {
        p.pass(100);
        assert!(!p.lane.handle_tick(p.now), "nothing was asked of the child");
    }
    assert_eq!(p.join(2), "end");
    assert_eq!(p.sample(7000, true), "track 7000", "another publisher shows itself at once");
    assert_eq!(p.dropped, 0);
}
