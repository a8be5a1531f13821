//! A server that is killed and started again on the same data directory and ports: what is served before and after.

mod common;

use std::{fs, path::Path, time::Duration};

use common::{
    Folder, Launch, Server, kill_hard,
    real::{Clips, publish},
    until,
};

/// A media playlist, as far as it is compared.
#[derive(Debug)]
struct Listed {
    text: String,
}

impl Listed {
    fn read(server: &Server, rendition: &str) -> Self {
        Self { text: server.get(&format!("/live/{}/{rendition}.m3u8", server.stream)).text() }
    }

    fn number(&self, tag: &str) -> u64 {
        let value = self.text.lines().find_map(|line| line.strip_prefix(tag)?.strip_prefix(':'));
        value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{tag} is no number in:\n{}", self.text)))
    }

    /// The number behind the last segment that is whole.
    fn next_msn(&self) -> u64 {
        self.number("#EXT-X-MEDIA-SEQUENCE") + self.text.matches("#EXTINF").count() as u64
    }

    fn discontinuities(&self) -> u64 {
        self.number("#EXT-X-DISCONTINUITY-SEQUENCE") + self.text.matches("#EXT-X-DISCONTINUITY\n").count() as u64
    }

    fn constants(&self) -> Vec<&str> {
        const TAGS: [&str; 3] = ["#EXT-X-TARGETDURATION", "#EXT-X-SERVER-CONTROL", "#EXT-X-PART-INF"];
        self.text.lines().filter(|line| TAGS.iter().any(|tag| line.starts_with(tag))).collect()
    }

    fn segments(&self) -> usize {
        self.text.matches("segment-").count()
    }
}

/// On the ports of `before`, where there is one.
fn launch(data: &Path, before: Option<&Server>) -> Server {
    let launch = Launch::new("").data_dir(data);
    let Some(before) = before else { return launch.start() };
    let rtmp = before.rtmp.trim_start_matches("rtmp://").trim_end_matches("/live").to_owned();
    launch.arg("--http").arg(&before.http.to_string()).arg("--rtmp").arg(&rtmp).start()
}

fn status(server: &Server, field: &str) -> String {
    let status = server.get(&format!("/live/{}/status.json", server.stream)).json();
    status[field].as_str().unwrap_or_default().to_owned()
}

/// Until a rendition lists so many whole segments.
fn wait_for(server: &Server, segments: usize) {
    until("there are segments", || (Listed::read(server, "audio").segments() >= segments).then_some(()));
}

fn clip(clips: &Clips) -> std::path::PathBuf {
    clips.encode(
        "clip",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -tune zerolatency \
         -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac",
    )
}

#[test]
fn a_killed_server_goes_on_where_it_was() {
    let (clips, folder) = (Clips::new(), Folder::new());
    let (clip, data) = (clip(&clips), folder.join("data"));
    let mut server = launch(&data, None);
    let mut publisher = publish(&clip, &server.rtmp_with_key());
    let mut before: Option<(Listed, Listed, String)> = None;
    // Twice: what is kept of the second process is made of what the first has kept.
    for crash in 0..3 {
        wait_for(&server, 3);
        let (video, audio) = (Listed::read(&server, "video"), Listed::read(&server, "audio"));
        let presentation = status(&server, "presentation");
        if let Some((old_video, old_audio, old_presentation)) = &before {
            assert_eq!(&presentation, old_presentation, "a page just goes on");
            for (old, new) in [(old_video, &video), (old_audio, &audio)] {
                assert_eq!(old.constants(), new.constants());
                assert!(new.number("#EXT-X-MEDIA-SEQUENCE") >= old.next_msn(), "{}\n{}", old.text, new.text);
                assert_eq!(new.discontinuities(), old.discontinuities() + 1, "{}\n{}", old.text, new.text);
            }
            assert_eq!(video.number("#EXT-X-MEDIA-SEQUENCE"), audio.number("#EXT-X-MEDIA-SEQUENCE"));
        }
        before = Some((video, audio, presentation));
        if crash == 2 {
            break;
        }
        kill_hard(server.pid());
        server.wait();
        publisher.kill();
        server = launch(&data, Some(&server));
        assert_eq!(status(&server, "state"), "away");
        assert!(server.log().contains("an earlier run was cut off"), "{}", server.log());
        let answer = server.get(&format!("/live/{}/video.m3u8", server.stream));
        assert_eq!(answer.status, 503, "held, and then to be asked for again");
        publisher = publish(&clip, &server.rtmp_with_key());
    }
    assert_eq!(server.metric("codecast_hls_presentations_total{event=\"resumed\"}"), 1.0);
    assert!(server.metric("codecast_kept_writes_total{outcome=\"written\"}") >= 1.0);

    // An orderly stop ends it, and what comes later is another.
    let last = status(&server, "presentation");
    assert!(server.stop().success());
    publisher.kill();
    let server = launch(&data, Some(&server));
    assert_eq!(status(&server, "state"), "offline");
    let _publisher = publish(&clip, &server.rtmp_with_key());
    wait_for(&server, 1);
    assert_ne!(status(&server, "presentation"), last);
    assert_eq!(Listed::read(&server, "video").discontinuities(), 0);
}

#[test]
fn a_damaged_file_costs_its_stream_alone() {
    let folder = Folder::new();
    let data = folder.join("data");
    let streams = data.join("streams");
    fs::create_dir_all(&streams).unwrap();
    fs::write(streams.join("demo.json"), "{\"version\":1,").unwrap();
    fs::write(streams.join(".other.json.17"), "unfinished").unwrap();
    let server = launch(&data, None);
    assert_eq!(status(&server, "state"), "offline");
    assert!(server.log().contains("cannot go on from before, so the stream starts anew: it is not what"), "{}", server.log());
    assert_eq!(fs::read_to_string(streams.join("demo.json.damaged")).unwrap(), "{\"version\":1,");
    assert!(!streams.join(".other.json.17").exists());
    let clips = Clips::new();
    let _publisher = publish(&clip(&clips), &server.rtmp_with_key());
    wait_for(&server, 1);
}

#[test]
fn a_disk_that_takes_nothing_stalls_no_stream() {
    let folder = Folder::new();
    let data = folder.join("data");
    let server = launch(&data, None);
    // A folder that is no more: every write fails, whoever runs this.
    fs::remove_dir_all(data.join("streams")).unwrap();
    let clips = Clips::new();
    let _publisher = publish(&clip(&clips), &server.rtmp_with_key());
    wait_for(&server, 4);
    until("failures are counted", || (server.metric("codecast_kept_writes_total{outcome=\"failed\"}") >= 2.0).then_some(()));
    let told = server.log().matches("cannot keep where streams are").count();
    assert_eq!(told, 1, "told once: {}", server.log());
    fs::create_dir(data.join("streams")).unwrap();
    common::within(Duration::from_secs(60), "it is kept again", || server.log().contains("is kept again").then_some(()));
}
