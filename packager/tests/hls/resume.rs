//! A process that is killed and the next one: what viewers of a stream see, on a clock that the test moves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use media_core::{Publication, StreamName};
use packager::hls::{Inbox, Keep, kept::Kept};

use crate::{
    http::{Site, both, settle},
    reader::Media,
    script::{Audio, Publisher},
};

/// What lies on the disk: texts by stream.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<HashMap<StreamName, String>>>);

impl Disk {
    /// A process that starts on it, and writes to it from then on.
    fn boot(&self) -> Site {
        let site = Site::new();
        let inbox = site.packager.keep();
        let found = self.0.lock().unwrap().iter().map(|(name, text)| (name.clone(), Kept::parse(text).unwrap())).collect();
        site.packager.restore(found);
        tokio::spawn(self.clone().write(inbox));
        site
    }

    async fn write(self, inbox: Inbox) {
        loop {
            let Keep { stream, kept } = inbox.next().await;
            let mut files = self.0.lock().unwrap();
            match kept {
                Some(kept) => files.insert(stream, kept.render()),
                None => files.remove(&stream),
            };
            drop(files);
            inbox.written();
        }
    }

    /// As it is at this moment, for the next process: the one before writes no more that counts.
    fn cut_off(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

/// What a viewer has seen last of a stream.
struct Seen {
    video: Media,
    audio: Media,
    presentation: String,
    next_msn: u64,
}

async fn look(site: &Site) -> Seen {
    let video = site.get("/live/demo/video.m3u8").await.media();
    let next_msn = video.segments.last().unwrap().msn + 1;
    let audio = site.get("/live/demo/audio.m3u8").await.media();
    Seen { video, audio, presentation: status(site, "presentation").await, next_msn }
}

async fn status(site: &Site, field: &str) -> String {
    site.get("/live/demo/status.json").await.json()[field].as_str().unwrap_or_default().to_owned()
}

/// A process in which the stream ran for so long.
async fn run(disk: &Disk, ms: i64) -> (Site, Publication) {
    let site = disk.boot();
    let publication = site.publish("demo");
    site.play(&publication, &both(), ms).await;
    (site, publication)
}

fn discontinuities(media: &Media) -> u64 {
    media.discontinuity_sequence + media.segments.iter().filter(|segment| segment.discontinuity).count() as u64
}

fn goes_on(before: &Media, after: &Media) {
    let constants = |media: &Media| (media.target_duration, media.part_target_us, media.hold_back_us, media.skip_until_us);
    assert_eq!(constants(before), constants(after));
    assert!(after.media_sequence > before.segments.last().unwrap().msn, "no number is used twice");
    assert!(after.media_sequence < before.segments.last().unwrap().msn + 12, "and few are left out");
    assert_eq!(discontinuities(after), discontinuities(before) + 1);
    assert_eq!(after.discontinuity_sequence, discontinuities(before) + 1, "it lies before all that is listed");
    let addresses = |media: &Media| media.segments.iter().flat_map(|s| s.parts.iter().map(|p| p.uri.clone())).collect::<Vec<_>>();
    assert!(addresses(after).iter().all(|uri| !addresses(before).contains(uri)), "another epoch");
    assert!(!after.ended);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_after_a_crash() {
    let disk = Disk::default();
    let (first, _held) = run(&disk, 9_300).await;
    let before = look(&first).await;

    let disk = disk.cut_off();
    let site = disk.boot();
    assert_eq!(status(&site, "state").await, "away");
    assert_eq!(status(&site, "presentation").await, before.presentation, "the same to a page");
    assert_eq!(status(&site, "tracks").await, "va");
    let path = format!("/live/demo/video.m3u8?_HLS_msn={}&_HLS_part=0", before.next_msn);
    let held = site.holding(&path);
    let asked = site.start.elapsed();
    settle().await;
    let answer = held.await.unwrap();
    assert!(answer.is_problem(503), "players try again after it: {}", answer.text());
    assert_eq!(answer.at - asked, Duration::from_millis(1500), "0.75 target durations");

    let (playlist, index) = (site.holding(&path), site.holding("/live/demo/index.m3u8"));
    let publication = site.publish("demo");
    site.play(&publication, &both(), 500).await;
    let answer = playlist.await.unwrap();
    assert!(answer.media().segments.iter().any(|segment| !segment.parts.is_empty()), "{}", answer.text());
    assert_eq!(index.await.unwrap().status, 200);
    assert_eq!((status(&site, "state").await, status(&site, "tracks").await), ("live".to_owned(), "va".to_owned()));
    site.play(&publication, &Publisher { clock_us: 500_000, ..both() }, 3_600).await;
    let after = look(&site).await;
    assert_eq!(after.presentation, before.presentation);
    goes_on(&before.video, &after.video);
    goes_on(&before.audio, &after.audio);
    assert_eq!(after.video.media_sequence, after.audio.media_sequence);

    // And once more.
    let third = disk.cut_off().boot();
    let publication = third.publish("demo");
    third.play(&publication, &both(), 3_000).await;
    let last = look(&third).await;
    assert_eq!(last.presentation, before.presentation);
    goes_on(&after.video, &last.video);
    goes_on(&after.audio, &last.audio);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_away_at_the_crash_goes_on_too() {
    let disk = Disk::default();
    let (first, publication) = run(&disk, 5_000).await;
    drop(publication);
    settle().await;
    let before = look(&first).await;
    let site = disk.cut_off().boot();
    let publication = site.publish("demo");
    site.play(&publication, &both(), 3_000).await;
    goes_on(&before.video, &look(&site).await.video);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_stays_away_ends_it() {
    let disk = Disk::default();
    let (first, publication) = run(&disk, 5_000).await;
    drop(publication);
    settle().await;
    let before = look(&first).await;
    let disk = disk.cut_off();
    let site = disk.boot();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(status(&site, "state").await, "away");
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(status(&site, "state").await, "offline");
    assert!(site.get("/live/demo/video.m3u8").await.is_problem(404));
    assert!(disk.is_empty());
    let publication = site.publish("demo");
    site.play(&publication, &both(), 3_000).await;
    let after = look(&site).await;
    assert_ne!(after.presentation, before.presentation);
    assert!(after.video.media_sequence > before.next_msn, "numbers of a name never go back");
    assert_eq!(discontinuities(&after.video), 0);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_ends_what_lives_and_what_is_awaited() {
    let disk = Disk::default();
    let (first, _held) = run(&disk, 5_000).await;
    assert!(!disk.is_empty());
    let crashed = disk.cut_off();
    first.packager.drain().await;
    assert!(disk.is_empty(), "ENDLIST is never taken back");
    assert!(look(&first).await.video.ended);
    crashed.boot().packager.drain().await;
    assert!(crashed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_returns_without_picture_begins_anew() {
    let disk = Disk::default();
    let (first, _held) = run(&disk, 5_000).await;
    let before = look(&first).await;
    let site = disk.cut_off().boot();
    let publication = site.publish("demo");
    let sound = Publisher { video: None, audio: Some(Audio::new(48_000, 2)), clock_us: 0 };
    site.play(&publication, &sound, 8_000).await;
    let audio = site.get("/live/demo/audio.m3u8").await.media();
    assert!(audio.media_sequence > before.next_msn);
    assert_ne!(status(&site, "presentation").await, before.presentation);
    assert_eq!(status(&site, "tracks").await, "a");
}
