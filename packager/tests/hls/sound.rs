//! Publishers of Opus: with a transcoder that makes AAC of it, without one, and with one that is late.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use media_core::{
    Announcement, Item, Publication, Sample, Stream, StreamName, Timestamp, Track,
    stream::{Made, Making},
};
use tokio::time::Instant;

use crate::{
    http::{Site, settle},
    script::{self, Keys, Publisher, Video},
    webrtc,
};

const OPUS_FRAME: i64 = 960;
/// Far more than anything else that is packaged.
const STRANGE: Bytes = Bytes::from_static(&[0; 5_000]);

/// A publisher over WebRTC and what is made of its sound.
struct Talk {
    site: Site,
    /// `None` between two publishers.
    publication: Option<Publication>,
    stream: Arc<Stream>,
    aac: Arc<Track>,
    /// When its publisher began, in microseconds.
    from_us: i64,
    /// Until when all was sent, by its own clock.
    sent_us: i64,
}

impl Talk {
    fn new() -> Self {
        let site = Site::new();
        let publication = Some(site.publish("demo"));
        let stream = site.registry.stream(&StreamName::parse("demo").unwrap()).unwrap();
        let aac = script::audio_track(48_000, 2);
        let talk = Self { site, publication, stream, aac, from_us: 0, sent_us: 0 };
        talk.announce();
        talk
    }

    fn announce(&self) {
        self.publication().announce(Announcement { video: true, audio: true, ..Announcement::default() }).unwrap();
    }

    /// Another publisher takes the place of the first.
    async fn again(&mut self, pause: Duration) {
        self.publication = None;
        settle().await;
        tokio::time::sleep(pause).await;
        self.publication = Some(self.site.publish("demo"));
        self.announce();
        (self.from_us, self.sent_us) = (self.site.now_us(), 0);
    }

    /// Sends on until `until_ms` of the publisher's life. `makes`: AAC comes 80 ms behind the Opus.
    async fn play(&mut self, until_ms: i64, makes: bool) {
        let opus = webrtc::opus_track();
        let video = Publisher { video: Some(Video::new(30, 1, Keys::Every(60))), audio: None, clock_us: 0 };
        let base = self.site.start.into_std();
        let mut events: Vec<(i64, bool, Sample)> = video
            .samples(base, self.from_us, self.from_us + until_ms * 1000)
            .map(|(at_us, sample)| (at_us - self.from_us, false, sample))
            .collect();
        for (track, frame, made) in [(&opus, OPUS_FRAME, false), (&self.aac, 1024, true)] {
            let all = (0..).map(|n| Timestamp::new(n * frame, track.timescale));
            for at in all.take_while(|at| at.as_micros() < until_ms * 1000).filter(|_| makes || !made) {
                let late_us = if made { 80_000 } else { 0 };
                events.push((at.as_micros() + late_us, made, self.sound(track, at, frame)));
            }
        }
        events.sort_by_key(|event| event.0);
        let sent_us = self.sent_us;
        for (at_us, made, mut sample) in events.into_iter().filter(|event| event.0 >= sent_us && event.0 < until_ms * 1000) {
            tokio::time::sleep_until(self.site.start + Duration::from_micros((self.from_us + at_us) as u64)).await;
            sample.received = Instant::now().into_std();
            if made {
                self.stream.push_made(Made::Aac, Item::Sample(Arc::new(sample)));
            } else {
                self.publication().publish(sample).unwrap();
            }
        }
        self.sent_us = until_ms * 1000;
        settle().await;
    }

    fn sound(&self, track: &Arc<Track>, at: Timestamp, frame: i64) -> Sample {
        let payload = Bytes::from_static(&[0; script::PAYLOAD_BYTES]);
        let received = Instant::now().into_std();
        Sample { track: Arc::clone(track), pts: at, dts: at, duration: Some(frame as u32), keyframe: true, payload, received }
    }

    fn publication(&self) -> &Publication {
        self.publication.as_ref().unwrap()
    }

    fn join_made(&self, epoch: u64) {
        self.stream.push_made(Made::Aac, Item::Join { epoch, received: Instant::now().into_std() });
    }

    async fn codecs(&self) -> String {
        let answer = self.site.get("/live/demo/index.m3u8").await;
        assert_eq!(answer.status, 200);
        answer.text().split("CODECS=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    /// The sample entry of the audio's initialization segment, and the size of its largest Part.
    async fn audio(&self) -> (&'static str, usize) {
        let media = self.site.get("/live/demo/audio.m3u8").await.media();
        media.check();
        let init = self.site.get(&format!("/live/demo/{}", media.segments.last().unwrap().map)).await.body;
        let entry = ["mp4a", "Opus"].into_iter().find(|name| init.windows(4).any(|bytes| bytes == name.as_bytes())).unwrap();
        let mut most = 0;
        for part in media.segments.iter().flat_map(|segment| &segment.parts) {
            most = most.max(self.site.get(&format!("/live/demo/{}", part.uri)).await.body.len());
        }
        (entry, most)
    }
}

#[tokio::test(start_paused = true)]
async fn opus_is_heard_as_the_aac_that_is_made_of_it() {
    let mut talk = Talk::new();
    assert!(!talk.stream.is_demanded(Made::Aac), "there is no Opus yet");
    talk.play(100, false).await;
    assert!(talk.stream.is_demanded(Made::Aac));
    let epoch = talk.publication().epoch();
    // Of a publisher that is gone.
    talk.join_made(epoch - 1);
    let strange = Sample { payload: STRANGE, ..talk.sound(&talk.aac, Timestamp::ZERO, 1024) };
    talk.stream.push_made(Made::Aac, Item::Sample(Arc::new(strange)));
    talk.join_made(epoch);
    talk.play(6_000, true).await;
    assert_eq!(talk.codecs().await, "avc1.64001e,mp4a.40.2");
    let (entry, most) = talk.audio().await;
    assert_eq!(entry, "mp4a");
    assert!(most < STRANGE.len());
    let video = talk.site.get("/live/demo/video.m3u8").await.media();
    let audio = talk.site.get("/live/demo/audio.m3u8").await.media();
    assert_eq!(video.segments.last().unwrap().msn, audio.segments.last().unwrap().msn, "both are at the edge");
    assert!(audio.segments.iter().all(|segment| !segment.discontinuity));

    // The publisher returns: it is AAC from the start, and what is late of the first is nobody's.
    talk.again(Duration::from_secs(3)).await;
    talk.play(100, true).await;
    talk.join_made(talk.publication().epoch());
    talk.play(6_000, true).await;
    let (entry, _) = talk.audio().await;
    let audio = talk.site.get("/live/demo/audio.m3u8").await.media();
    assert_eq!((entry, audio.segments.iter().filter(|segment| segment.discontinuity).count()), ("mp4a", 1));
    talk.publication = None;
    talk.site.registry.retire(&StreamName::parse("demo").unwrap());
    settle().await;
    assert!(!talk.stream.is_demanded(Made::Aac), "the stream is over");
}

#[tokio::test(start_paused = true)]
async fn without_a_transcoder_the_opus_itself_is_heard() {
    let mut talk = Talk::new();
    talk.stream.set_making(Made::Aac, Making::Unavailable("there is none here".into()));
    talk.play(1_000, false).await;
    assert_eq!(talk.codecs().await, "avc1.64001e,opus", "nothing is waited for");
    assert_eq!(talk.audio().await.0, "Opus");
}

#[tokio::test(start_paused = true)]
async fn a_transcoder_that_is_late_changes_nothing_any_more() {
    let mut talk = Talk::new();
    talk.play(1_400, false).await;
    let early = tokio::time::timeout(Duration::ZERO, talk.site.get("/live/demo/index.m3u8")).await;
    assert!(early.is_err(), "a player waits for the sound");
    talk.play(2_500, false).await;
    assert_eq!(talk.codecs().await, "avc1.64001e,opus");
    talk.join_made(talk.publication().epoch());
    talk.play(9_000, true).await;
    assert_eq!(talk.audio().await.0, "Opus");
    let audio = talk.site.get("/live/demo/audio.m3u8").await.media();
    assert!(audio.segments.iter().all(|segment| !segment.discontinuity));
    assert!(audio.segments.len() >= 4);
}
