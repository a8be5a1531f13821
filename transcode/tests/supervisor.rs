//! The supervisor against a child that misbehaves. The child is this very test program, started by a script as
//! `worker_of_the_others`, which speaks the protocol on descriptor 3, for standard output is the test runner's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use media_core::{
    Cursor, Item, Parameters, Publication, Registry, Rung, Sample, Stream, StreamKey, StreamName, Timescale, Timestamp, Track,
    TrackId,
    codec::{aac, h264, opus},
    registry::Acquire,
    stream::{Made, Making, Thumbnail},
};
use tokio::time::sleep;
use transcode::{
    Config, Transcoder,
    wire::{Coded, LaneId, Message, Order, PICTURE_LANES, Reader, Report, THUMBNAIL_LANE},
};

// ---- the child ------------------------------------------------------------------------------------------------------

const BEHAVIOUR: &str = "CODECAST_TEST_WORKER";

#[test]
fn worker_of_the_others() {
    let Ok(behaviour) = std::env::var(BEHAVIOUR) else { return };
    let out = fs::File::options().write(true).open("/dev/fd/3").unwrap();
    let say = |report: Report| {
        let frame = report.encode();
        if (&out).write_all(&[frame.head, frame.payload].concat()).is_err() {
            exit(0);
        }
    };
    match behaviour.as_str() {
        "mute" => loop {
            std::thread::park();
        },
        "unlinked" => exit(127),
        "talker" => {
            (1..=40).for_each(|n| eprintln!("complaint {n}"));
            eprintln!("the reason");
            exit(3);
        }
        "future" => {
            let _ = (&out).write_all(&[0, 0, 0, 3, 200, 16, 0]);
        }
        "lacks" => say(Report::Hello { missing: vec![(Made::Opus, "opusenc".into())] }),
        _ => say(Report::Hello { missing: Vec::new() }),
    }
    let (mut reader, mut bytes, mut samples) = (Reader::<Order>::default(), vec![0; 4096], 0);
    let mut makes = Vec::new();
    loop {
        if behaviour == "stuck" {
            std::thread::park();
        }
        let length = std::io::stdin().read(&mut bytes).unwrap();
        if length == 0 {
            exit(0);
        }
        reader.buffer().extend_from_slice(&bytes[..length]);
        while let Some(order) = reader.next_message().unwrap() {
            match order {
                Order::Make(lane, made, _) => makes.push((lane, made)),
                Order::Leave(lane, made) => makes.retain(|known| *known != (lane, made)),
                Order::Track(lane, _) if behaviour == "choosy" && PICTURE_LANES.contains(&lane) => {
                    say(Report::Refused(lane, "no decoder of it is installed".into()));
                }
                Order::Track(lane, _) => {
                    let coded = of(&makes, lane).filter(|made| *made != Made::Thumbnail);
                    coded.for_each(|made| say(Report::Track(lane, made, Arc::new(opus_track()))));
                }
                Order::Sample(lane, coded) => {
                    samples += 1;
                    let make = || of(&makes, lane).for_each(|made| say(made_of(lane, made, &coded)));
                    match behaviour.as_str() {
                        "deaf" => (),
                        "dreams" if lane == THUMBNAIL_LANE => (),
                        "fragile" if lane == THUMBNAIL_LANE => exit(11),
                        "lavish" if lane == THUMBNAIL_LANE && samples > 1 => {
                            say(Report::Consumed(lane, 1));
                            say(Report::Thumbnail(lane, vec![0; 300 << 10].into()));
                        }
                        "blind" | "startled" | "choosy" if PICTURE_LANES.contains(&lane) => say(Report::Consumed(lane, 1)),
                        "miser" => make(),
                        "liar" => say(Report::Consumed(lane, 1_000_000)),
                        "dies" if samples == 20 => exit(7),
                        _ => {
                            say(Report::Consumed(lane, 1));
                            make();
                        }
                    }
                }
                Order::End(THUMBNAIL_LANE) if behaviour == "dreams" => (),
                Order::End(lane) => {
                    if behaviour == "lingers" {
                        std::thread::sleep(Duration::from_millis(600));
                    }
                    say(Report::Ended(lane));
                }
                Order::Keyframe(_, Made::Video) if behaviour == "startled" => exit(9),
                Order::Keyframe(..) => (),
            }
        }
    }
}

fn of(makes: &[(LaneId, Made)], lane: LaneId) -> impl Iterator<Item = Made> {
    makes.iter().filter(move |(known, _)| *known == lane).map(|(_, made)| *made)
}

fn made_of(lane: LaneId, made: Made, coded: &Coded) -> Report {
    if made == Made::Thumbnail {
        return Report::Thumbnail(lane, coded.payload.clone());
    }
    let pts = coded.pts.to(opus_track().timescale);
    let (cut, live, payload) = (false, true, coded.payload.clone());
    Report::Sample(lane, made, Coded { pts, dts: pts, duration: 960, keyframe: true, cut, live, payload })
}

fn opus_track() -> Track {
    let parameters = Parameters::Opus(opus::Parameters { channels: 2 });
    Track { id: TrackId::AUDIO, timescale: Timescale::new(48_000).unwrap(), parameters }
}

/// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30 -c:v libx264 -tune zerolatency -g 60`: the avcC box.
const RECORD: &[u8] = &[
    0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xb2, 0x01, 0x40, 0x5f, 0xf2, 0xe0, 0x22, 0x00,
    0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x79, 0x1e, 0x2c, 0x5c, 0x90, 0x01, 0x00, 0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22,
    0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];

// ---- its server -----------------------------------------------------------------------------------------------------

struct Rig {
    folder: PathBuf,
    registry: Arc<Registry>,
    publication: Option<Publication>,
    stream: Arc<Stream>,
    metrics: prometheus::Registry,
    transcoder: Transcoder,
    track: Arc<Track>,
    sent: i64,
}

impl Rig {
    fn new(behaviour: &str) -> Self {
        Self::with_cores(behaviour, Config::default().cores)
    }

    fn with_cores(behaviour: &str, cores: f64) -> Self {
        let folder = folder();
        let program = folder.join("codecast-transcode");
        // What its work costs: "hangs" never says so.
        let measure = match behaviour {
            "hangs" => "[ \"$1\" = --measure ] && kill -STOP $$",
            "measured" => "[ \"$1\" = --measure ] && echo encode x264enc 8 decode avdec_h264 0.1 && exit 0",
            _ => "[ \"$1\" = --measure ] && exit 1",
        };
        let script = format!(
            "#!/bin/sh\n{measure}\nexport {BEHAVIOUR}={behaviour}\necho $$ >> {folder}/pids\nexec 3>&1\n\
             exec {exe} --exact worker_of_the_others --nocapture --quiet > /dev/null {errors}\n",
            errors = if behaviour == "talker" { "" } else { "2>&1" },
            folder = folder.display(),
            exe = std::env::current_exe().unwrap().display(),
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self::with_program(folder, program, cores)
    }

    fn with_program(folder: PathBuf, program: PathBuf, cores: f64) -> Self {
        let metrics = prometheus::Registry::new();
        let (idle, thumbnail_interval) = (Duration::from_millis(300), Duration::from_millis(100));
        let config = Config { program: Some(program), idle, thumbnail_interval, cores, ..Config::default() };
        let transcoder = Transcoder::new(config, &metrics).unwrap();
        let adopting = transcoder.clone();
        let registry = Arc::new(Registry::new(SystemTime::now(), 1, move |stream| adopting.adopt(stream)));
        let publication = Some(acquire(&registry));
        let stream = registry.stream(&name()).unwrap();
        let parameters = Parameters::Aac(aac::Parameters::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
        let track = Arc::new(Track { id: TrackId::AUDIO, timescale: Timescale::new(48_000).unwrap(), parameters });
        Self { folder, registry, publication, stream, metrics, transcoder, track, sent: 0 }
    }

    /// One frame of sound every 5 ms, four times faster than real.
    async fn publish(&mut self) {
        let pts = Timestamp::new(self.sent * 1024, self.track.timescale);
        self.sent += 1;
        let (track, payload, received) = (Arc::clone(&self.track), Bytes::from_static(&[0; 200]), Instant::now());
        let sample = Sample { track, pts, dts: pts, duration: Some(1024), keyframe: true, payload, received };
        self.publication.as_ref().unwrap().publish(sample).unwrap();
        sleep(Duration::from_millis(5)).await;
    }

    /// A keyframe, a few milliseconds after the last.
    fn publish_picture(&self) {
        let parameters = Parameters::H264(h264::Parameters::parse(Bytes::from_static(RECORD)).unwrap());
        let track = Arc::new(Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters });
        let (pts, payload, received) = (Timestamp::from_millis(self.sent * 5), Bytes::from_static(&[0; 9]), Instant::now());
        let sample = Sample { track, pts, dts: pts, duration: None, keyframe: true, payload, received };
        self.publication.as_ref().unwrap().publish(sample).unwrap();
    }

    /// Publishes until it is so.
    async fn until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !so(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            self.publish().await;
        }
    }

    fn value(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |f| f.get_metric().iter().map(|m| m.get_gauge().get_value() + m.get_counter().get_value()).sum())
    }

    fn workers(&self) -> f64 {
        self.value("codecast_transcode_workers")
    }

    fn restarts(&self) -> f64 {
        self.value("codecast_transcode_restarts_total")
    }

    fn dropped(&self) -> f64 {
        self.value("codecast_transcode_dropped_samples_total")
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.join("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("supervisor-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn name() -> StreamName {
    StreamName::parse("tones").unwrap()
}

fn acquire(registry: &Registry) -> Publication {
    match registry.acquire(&name(), &StreamKey::new("key"), None, Instant::now()) {
        Acquire::Granted(publication) => publication,
        other => panic!("{other:?}"),
    }
}

fn alive(pid: u32) -> bool {
    // One that has ended but was not yet waited for is not alive.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn read(cursor: &mut Cursor<Item>, items: &mut Vec<Item>) {
    let _ = cursor.poll_next(&mut Context::from_waker(Waker::noop()), items, usize::MAX);
}

fn samples(items: &[Item]) -> Vec<Arc<Sample>> {
    items.iter().filter_map(|item| if let Item::Sample(sample) = item { Some(Arc::clone(sample)) } else { None }).collect()
}

fn joins(items: &[Item]) -> usize {
    items.iter().filter(|item| matches!(item, Item::Join { .. })).count()
}

// ---- the tests ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn it_starts_on_demand_and_ends_when_nobody_needs_it() {
    let mut rig = Rig::new("good");
    for _ in 0..20 {
        rig.publish().await;
    }
    assert_eq!((rig.workers(), rig.pids().len()), (0.0, 0));
    let demand = rig.stream.demand(Made::Opus);
    let (mut cursor, mut items) = (demand.subscribe(), Vec::new());
    rig.until("opus", |_| {
        read(&mut cursor, &mut items);
        samples(&items).len() > 20
    })
    .await;
    assert!(matches!(items[0], Item::Join { .. }));
    assert_eq!((demand.making(), rig.workers()), (Making::Running, 1.0));
    // A second demand, and one for what the source is already, start nothing.
    let others = [rig.stream.demand(Made::Opus), rig.stream.demand(Made::Aac)];
    for _ in 0..40 {
        rig.publish().await;
    }
    assert_eq!(rig.pids().len(), 1);
    drop((demand, others));
    rig.until("the end", |rig| rig.workers() == 0.0).await;
    let pid = rig.pids()[0];
    rig.until("the process's end", |_| !alive(pid)).await;
    assert_eq!(rig.restarts(), 0.0);
    // And again.
    let demand = rig.stream.demand(Made::Opus);
    let (mut cursor, mut again) = (demand.subscribe(), Vec::new());
    rig.until("opus again", |_| {
        read(&mut cursor, &mut again);
        samples(&again).len() > 3
    })
    .await;
    assert_eq!(joins(&again), 0, "the same publisher joins once");
    rig.transcoder.drain().await;
    assert_eq!(rig.workers(), 0.0);
}

#[tokio::test]
async fn a_killed_child_is_replaced_and_the_stream_lives_on() {
    let mut rig = Rig::new("good");
    let demand = rig.stream.demand(Made::Opus);
    let (mut cursor, mut items) = (demand.subscribe(), Vec::new());
    for kills in 1..=3 {
        rig.until("opus", |rig| {
            read(&mut cursor, &mut items);
            rig.pids().len() == kills && demand.making() == Making::Running
        })
        .await;
        for _ in 0..kills * 7 {
            rig.publish().await;
        }
        let pid = rig.pids()[kills - 1].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        rig.until("the loss to be seen", |rig| rig.restarts() == kills as f64).await;
    }
    let before = samples(&items).len();
    rig.until("opus after all", |_| {
        read(&mut cursor, &mut items);
        samples(&items).len() > before + 20
    })
    .await;
    assert_eq!(joins(&items), 1);
    assert!(samples(&items).windows(2).all(|pair| pair[0].dts < pair[1].dts));
    assert!(samples(&items).windows(2).all(|pair| Arc::ptr_eq(&pair[0].track, &pair[1].track)), "the same track all along");
}

#[tokio::test]
async fn children_that_die_lie_or_hang_are_replaced() {
    for (behaviour, restarts) in [("dies", 3), ("liar", 3), ("deaf", 1), ("stuck", 1)] {
        let mut rig = Rig::new(behaviour);
        let _demand = rig.stream.demand(Made::Opus);
        let begun = Instant::now();
        rig.until(behaviour, |rig| rig.restarts() >= f64::from(restarts)).await;
        println!("{behaviour}: {restarts} replaced after {:?}", begun.elapsed());
        let first = rig.pids()[0];
        rig.until("the process's end", |_| !alive(first)).await;
        assert!(rig.pids().len() <= restarts as usize + 1);
        assert_eq!(rig.registry.publishers(), 1);
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_made_is_given_up_and_the_others_go_on() {
    let mut rig = Rig::new("blind");
    let demands = [Made::Opus, Made::Video].map(|made| rig.stream.demand(made));
    rig.until("it is given up", |rig| {
        rig.publish_picture();
        matches!(demands[1].making(), Making::Unavailable(_))
    })
    .await;
    let (mut cursor, mut items) = (demands[0].subscribe(), Vec::new());
    rig.until("opus goes on", |_| {
        read(&mut cursor, &mut items);
        samples(&items).len() > 20
    })
    .await;
    assert_eq!((rig.restarts(), rig.pids().len()), (0.0, 1));
}

/// Where its decoder is not installed: said at once, in the child's words.
#[tokio::test]
async fn an_output_that_the_child_refuses_is_given_up_at_once_and_the_others_go_on() {
    let mut rig = Rig::new("choosy");
    let demands = [Made::Opus, Made::Video].map(|made| rig.stream.demand(made));
    let begun = Instant::now();
    rig.until("it is given up", |rig| {
        rig.publish_picture();
        matches!(demands[1].making(), Making::Unavailable(_))
    })
    .await;
    assert_eq!(demands[1].making(), Making::Unavailable("no decoder of it is installed".into()));
    assert!(begun.elapsed() < Duration::from_secs(4), "without waiting for it");
    let (mut cursor, mut items) = (demands[0].subscribe(), Vec::new());
    rig.until("opus goes on", |_| {
        read(&mut cursor, &mut items);
        samples(&items).len() > 20
    })
    .await;
    assert_eq!((rig.restarts(), rig.pids().len()), (0.0, 1));
}

/// The child ends when it is asked for a keyframe.
#[tokio::test]
async fn a_keyframe_is_asked_of_the_child_while_the_picture_is_made_and_of_the_publisher_otherwise() {
    let asked = |rig: &Rig| rig.publication.as_ref().unwrap().poll_keyframe_request(&mut Context::from_waker(Waker::noop()));
    let mut rig = Rig::new("startled");
    let demand = rig.stream.demand(Made::Video);
    rig.until("the child is asked", |rig| {
        rig.publish_picture();
        rig.stream.request_keyframe(TrackId::VIDEO);
        rig.restarts() >= 1.0
    })
    .await;
    assert_eq!(asked(&rig), Poll::Pending, "the publisher's pictures are of no use");
    drop(demand);
    rig.stream.request_keyframe(TrackId::VIDEO);
    assert!(asked(&rig).is_ready());
}

#[tokio::test]
async fn without_credit_samples_are_dropped_and_counted_and_the_publisher_never_waits() {
    let mut rig = Rig::new("miser");
    let demand = rig.stream.demand(Made::Opus);
    let (mut cursor, mut items) = (demand.subscribe(), Vec::new());
    rig.until("drops", |rig| rig.dropped() > 20.0).await;
    read(&mut cursor, &mut items);
    let got = samples(&items).len();
    // A second of sound that has waited for a second is credit; this publisher is faster than time, so more of it was given.
    assert!((40..=512).contains(&got), "{got} frames came");
}

#[tokio::test]
async fn a_missing_program_is_said_and_not_tried_all_the_time() {
    let folder = folder();
    let program = folder.join("not-there");
    let mut rig = Rig::with_program(folder, program, Config::default().cores);
    let demand = rig.stream.demand(Made::Opus);
    rig.until("it is said", |_| matches!(demand.making(), Making::Unavailable(_))).await;
    let Making::Unavailable(sentence) = demand.making() else { panic!() };
    assert!(sentence.contains("not-there"), "{sentence}");
    assert_eq!((rig.workers(), rig.restarts()), (0.0, 0.0));
}

#[tokio::test]
async fn a_program_that_never_starts_or_is_of_another_release_is_said() {
    for (behaviour, words, tries) in [("unlinked", "before it has started", 3), ("future", "of one release", 1)] {
        let mut rig = Rig::new(behaviour);
        let demand = rig.stream.demand(Made::Opus);
        rig.until("it is said", |_| matches!(demand.making(), Making::Unavailable(_))).await;
        let Making::Unavailable(sentence) = demand.making() else { panic!() };
        assert!(sentence.contains(words), "{sentence}");
        for _ in 0..200 {
            rig.publish().await;
        }
        assert_eq!((rig.pids().len(), rig.workers()), (tries, 0.0));
    }
}

#[tokio::test]
async fn missing_elements_are_said_and_the_child_ends() {
    let mut rig = Rig::new("lacks");
    let demand = rig.stream.demand(Made::Opus);
    rig.until("it is said", |_| matches!(demand.making(), Making::Unavailable(_))).await;
    let Making::Unavailable(sentence) = demand.making() else { panic!() };
    assert!(sentence.contains("opusenc"), "{sentence}");
    rig.until("the end", |rig| rig.workers() == 0.0).await;
    for _ in 0..100 {
        rig.publish().await;
    }
    assert_eq!((rig.pids().len(), rig.restarts()), (1, 0.0));
}

#[tokio::test]
async fn a_returning_publisher_is_joined_anew_and_a_retired_stream_ends_the_task() {
    let mut rig = Rig::new("good");
    let demand = rig.stream.demand(Made::Opus);
    let (mut cursor, mut items) = (demand.subscribe(), Vec::new());
    rig.until("opus", |_| {
        read(&mut cursor, &mut items);
        samples(&items).len() > 5
    })
    .await;
    rig.publication = None;
    rig.publication = Some(acquire(&rig.registry));
    rig.sent = 0;
    rig.until("a second join", |_| {
        read(&mut cursor, &mut items);
        joins(&items) == 2 && samples(&items).len() > 20
    })
    .await;
    let leave = items.iter().position(|item| matches!(item, Item::Leave)).unwrap();
    assert!(matches!(items[leave + 1], Item::Join { .. }));
    rig.publication = None;
    assert!(rig.registry.retire(&name()));
    let deadline = Instant::now() + Duration::from_secs(5);
    while rig.workers() > 0.0 {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    let _ = demand;
}

fn newest(stream: &Stream) -> Option<Thumbnail> {
    let mut thumbnails = Vec::new();
    let _ = stream.subscribe_thumbnails().poll_next(&mut Context::from_waker(Waker::noop()), &mut thumbnails, 9);
    assert!(thumbnails.len() <= 1, "only the newest is kept");
    thumbnails.pop()
}

fn demand_rung(rig: &Rig) -> media_core::stream::Demand {
    let rung = Rung { id: TrackId::rung(1).unwrap(), made: Made::Rung(1), source_rate: 30.0, ..Rung::ALIKE };
    rig.stream.set_rungs(Arc::from([rung]));
    rig.stream.demand(Made::Rung(1))
}

#[tokio::test]
async fn a_thumbnail_is_made_now_and_then_and_outlives_its_publisher() {
    let mut rig = Rig::new("good");
    let kept = |rig: &Rig| rig.value("codecast_transcode_thumbnails_total");
    let demand = rig.stream.demand(Made::Thumbnail);
    rig.until("three are made", |rig| {
        rig.publish_picture();
        kept(rig) >= 3.0
    })
    .await;
    assert_eq!(demand.making(), Making::Running);
    assert!(kept(&rig) <= (rig.sent * 5 / 100 + 1) as f64, "one in 100 ms of {} ms at most", rig.sent * 5);
    let wall = newest(&rig.stream).unwrap().wall;
    assert!(wall.elapsed().unwrap() < Duration::from_secs(15));
    rig.publication = None;
    drop(demand);
    let deadline = Instant::now() + Duration::from_secs(15);
    while rig.workers() > 0.0 {
        assert!(Instant::now() < deadline, "the child ends");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(newest(&rig.stream).unwrap().wall, wall);
    assert_eq!(rig.restarts(), 0.0);
}

#[tokio::test]
async fn a_thumbnail_that_is_too_large_is_counted_and_not_kept() {
    let mut rig = Rig::new("lavish");
    let _demand = rig.stream.demand(Made::Thumbnail);
    rig.until("some were made", |rig| {
        rig.publish_picture();
        rig.value("codecast_transcode_thumbnails_total") >= 3.0
    })
    .await;
    assert_eq!(newest(&rig.stream).unwrap().jpeg.len(), 9, "the first was small");
}

#[tokio::test]
async fn a_child_that_dies_of_a_thumbnail_is_asked_for_none_again() {
    let mut rig = Rig::new("fragile");
    let (rung, _thumbnail) = (demand_rung(&rig), rig.stream.demand(Made::Thumbnail));
    rig.until("it has died", |rig| {
        rig.publish_picture();
        rig.restarts() == 1.0
    })
    .await;
    let (mut cursor, mut items) = (rung.subscribe(), Vec::new());
    rig.until("the rung goes on", |rig| {
        rig.publish_picture();
        read(&mut cursor, &mut items);
        samples(&items).len() > 50
    })
    .await;
    assert_eq!((rig.restarts(), rig.pids().len()), (1.0, 2));
}

#[tokio::test]
async fn a_thumbnail_that_hangs_ends_nothing_else() {
    let mut rig = Rig::new("dreams");
    let (rung, thumbnail) = (demand_rung(&rig), rig.stream.demand(Made::Thumbnail));
    rig.until("it is given up", |rig| {
        rig.publish_picture();
        matches!(thumbnail.making(), Making::Unavailable(_))
    })
    .await;
    let (mut cursor, mut items) = (rung.subscribe(), Vec::new());
    rig.until("the rung goes on", |rig| {
        rig.publish_picture();
        read(&mut cursor, &mut items);
        samples(&items).len() > 20
    })
    .await;
    assert_eq!((rig.restarts(), rig.pids().len()), (0.0, 1));
    drop((rung, thumbnail));
    rig.until("the child ends, alone with it", |rig| rig.workers() == 0.0).await;
}

/// The machine has room for one of two rungs, and the cheaper one is asked for later.
#[tokio::test]
async fn a_rung_that_makes_room_for_another_is_refused_once() {
    let mut rig = Rig::with_cores("lingers", 0.07);
    let rung = |number| Rung { id: TrackId::rung(number).unwrap(), made: Made::Rung(number), source_rate: 30.0, ..Rung::ALIKE };
    rig.stream.set_rungs(Arc::from([rung(1), rung(2)]));
    let dear = rig.stream.demand(Made::Rung(1));
    rig.until("it is made", |rig| {
        rig.publish_picture();
        dear.making() == Making::Running
    })
    .await;
    let cheap = rig.stream.demand(Made::Rung(2));
    // No further picture: at a keyframe both would go one way.
    let made_instead = |rig: &Rig| cheap.making() == Making::Running && rig.value("codecast_transcode_outputs") == 1.0;
    rig.until("the other one is made instead", made_instead).await;
    assert!(matches!(dear.making(), Making::Unavailable(_)), "{:?}", dear.making());
    assert_eq!(rig.value("codecast_transcode_refused_total"), 1.0, "however long its lane takes to end");
    assert_eq!(rig.restarts(), 0.0);
}

/// What is logged from here on, on this thread.
fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::<Mutex<Vec<u8>>>::default();
    let written = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Log(Arc::clone(&written))).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// Whether it ends by itself, breaks the protocol or hangs; and whatever else it wrote.
#[tokio::test]
async fn the_log_says_why_a_child_is_replaced() {
    let (log, _guard) = logged();
    let cases: [(&str, &[&str]); 4] = [
        (
            "talker",
            &["it closed its output (exit status: 3; it wrote last: complaint 39 | complaint 40 | the reason)", "more lines"],
        ),
        ("dies", &["it closed its output (exit status: 7; it wrote nothing)"]),
        ("liar", &["(it did not end by itself; it wrote nothing)"]),
        ("deaf", &["it was fed and made no opus for too long (it did not end by itself; it wrote nothing)"]),
    ];
    for (behaviour, sentences) in cases {
        log.lock().unwrap().clear();
        let mut rig = Rig::new(behaviour);
        let _demand = rig.stream.demand(Made::Opus);
        let text = || String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        rig.until(behaviour, |rig| rig.restarts() >= 1.0 && text().contains("is replaced in")).await;
        let text = text();
        assert!(sentences.iter().all(|sentence| text.contains(sentence)), "{behaviour}: {text}");
    }
    log.lock().unwrap().clear();
    let mut rig = Rig::new("good");
    let demand = rig.stream.demand(Made::Opus);
    rig.until("opus", |_| demand.making() == Making::Running).await;
    assert!(Command::new("kill").args(["-KILL", &rig.pids()[0].to_string()]).status().unwrap().success());
    let text = || String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
    rig.until("it is told", |_| text().contains("it closed its output (signal: 9 (SIGKILL)")).await;
}

/// Players do not ask for what is not offered.
#[tokio::test]
async fn a_rung_that_had_no_place_is_offered_when_there_is_one() {
    let mut rig = Rig::with_cores("good", 0.07);
    let rung = |number| Rung { id: TrackId::rung(number).unwrap(), made: Made::Rung(number), source_rate: 30.0, ..Rung::ALIKE };
    rig.stream.set_rungs(Arc::from([rung(1), rung(2)]));
    let cheap = rig.stream.demand(Made::Rung(2));
    rig.until("it is made", |rig| {
        rig.publish_picture();
        cheap.making() == Making::Running
    })
    .await;
    let dear = rig.stream.demand(Made::Rung(1));
    rig.until("there is no room", |rig| {
        rig.publish_picture();
        matches!(dear.making(), Making::Unavailable(_))
    })
    .await;
    // Whoever wanted it has gone, and so has soon who had its place: nothing is made any more.
    drop((dear, cheap));
    rig.until("the child ends", |rig| rig.workers() == 0.0).await;
    assert!(matches!(rig.stream.making(Made::Rung(1)), Making::Unavailable(_)), "not at once");
    rig.until("it is offered", |rig| rig.stream.making(Made::Rung(1)) == Making::Idle).await;
    let dear = rig.stream.demand(Made::Rung(1));
    rig.until("and made", |rig| {
        rig.publish_picture();
        dear.making() == Making::Running
    })
    .await;
    assert_eq!(rig.restarts(), 0.0);
}

/// What is thought to cost what: encoding and decoding, in milliseconds of a core a million pixels.
fn prices(rig: &Rig) -> [f64; 2] {
    let families = rig.metrics.gather();
    let family = families.iter().find(|family| family.name() == "codecast_transcode_seconds_per_megapixel").unwrap();
    let price = |work: &str| {
        let of = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == work;
        (family.get_metric().iter().find(of).unwrap().get_gauge().get_value() * 1e6).round() / 1e3
    };
    ["encode", "decode"].map(price)
}

#[tokio::test]
async fn what_was_measured_is_what_things_cost() {
    let mut rig = Rig::new("measured");
    let rung = demand_rung(&rig);
    rig.until("it is made, and what it costs is known", |rig| {
        rig.publish_picture();
        rung.making() == Making::Running && prices(rig) != [4.0, 2.4]
    })
    .await;
    assert_eq!(prices(&rig), [8.0, 0.72], "the second is not believed to the end");
    // 640x360, 30 a second: 6.9 million pixels.
    let load = rig.value("codecast_transcode_cores");
    assert!((load - 6.912 * 8.72e-3 - 0.008).abs() < 1e-4, "{load}");
}

/// In virtual time, since nobody waits for so long.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_measured_is_assumed() {
    let processes = |rig: &Rig| {
        let folder = rig.folder.to_str().unwrap().to_owned();
        let lines =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(&folder) && line.contains("--measure")).count()
    };
    for behaviour in ["hangs", "good"] {
        let rig = Rig::new(behaviour);
        let deadline = Instant::now() + Duration::from_secs(15);
        sleep(Duration::from_secs(1)).await;
        while behaviour == "hangs" && processes(&rig) == 0 {
            assert!(Instant::now() < deadline, "it is waited for");
        }
        sleep(Duration::from_secs(30)).await;
        while processes(&rig) > 0 {
            assert!(Instant::now() < deadline, "{behaviour}: it is ended");
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(prices(&rig), [4.0, 2.4], "{behaviour}");
    }
    let missing = folder();
    let rig = Rig::with_program(missing.clone(), missing.join("not-there"), 1.0);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(prices(&rig), [4.0, 2.4]);
}

#[tokio::test]
async fn measuring_ends_with_the_server() {
    let rig = Rig::new("hangs");
    let begun = Instant::now();
    rig.transcoder.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}
