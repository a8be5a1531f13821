//! Every kind of publisher at once, each followed by the outside checker of LL-HLS: it must report nothing.

mod common;

use std::{fmt::Write as _, time::Duration};

use common::{
    Server,
    real::{Clips, away, checker, publish, seconds, told},
    until,
};

/// Name, seconds of the clip, ffmpeg's coding, what the checker must know.
const KINDS: [(&str, u32, &str, &[&str]); 8] = [
    (
        "gop2s",
        8,
        concat!(
            "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 ",
            "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac"
        ),
        &[],
    ),
    (
        "fps25",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 -b:v 300k -c:a aac",
        &[],
    ),
    (
        "ntsc",
        25,
        "-f lavfi -i testsrc2=s=320x180:r=30000/1001 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 250 -sc_threshold 0 -b:v 300k -c:a aac",
        &["--long-gop"],
    ),
    (
        "fps60b",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=60 -f lavfi -i sine=r=48000 -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 120 -bf 2 -b:v 400k -c:a aac",
        &[],
    ),
    (
        "scenecuts",
        12,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 60 -force_key_frames 0.3,1.9,2.9,6.3,7.9,8.9 -b:v 300k -c:a aac",
        &[],
    ),
    ("audio", 8, "-f lavfi -i sine=r=48000 -ac 2 -c:a aac", &[]),
    ("video", 8, "-f lavfi -i testsrc2=s=320x180:r=30 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 60 -b:v 300k", &[]),
    (
        "mono44",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=44100 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 60 -b:v 300k -ac 1 -c:a aac",
        &[],
    ),
];
/// The first kind once more, stopped and started again under the checker's eyes.
const RETURNING: &str = "returning";

fn key(name: &str) -> String {
    format!("a-secret-key-for-{name}")
}

#[test]
fn the_checker_reports_nothing_for_any_kind_of_publisher() {
    let names = KINDS.iter().map(|kind| kind.0).chain([RETURNING]);
    let config = names.clone().fold(String::new(), |mut config, name| {
        let _ = writeln!(config, "[[stream]]\nname = \"{name}\"\nkey = \"{}\"", key(name));
        config
    });
    let clips = Clips::new();
    let files: Vec<_> = KINDS.iter().map(|(name, length, coding, _)| clips.encode(name, *length, coding)).collect();
    let server = Server::start(&config);
    let url = |name: &str| format!("{}/{}", server.rtmp, key(name));
    let mut publishers: Vec<_> = KINDS.iter().zip(&files).map(|(kind, file)| publish(file, &url(kind.0))).collect();
    let first = publish(&files[0], &url(RETURNING));

    for name in names {
        until(&format!("{name} is playable"), || (server.get(&format!("/live/{name}/index.m3u8")).status == 200).then_some(()));
    }
    let run = seconds(25, 600);
    let playlist = |name: &str| format!("{}/live/{name}/index.m3u8", server.http_url);
    let mut checkers: Vec<_> = KINDS.iter().map(|kind| (kind.0, checker(&playlist(kind.0), run, kind.3))).collect();
    checkers.push((RETURNING, checker(&playlist(RETURNING), run, &[])));

    away(Duration::from_secs(5));
    first.kill();
    away(Duration::from_secs(3));
    publishers.push(publish(&files[0], &url(RETURNING)));

    let mut violations = String::new();
    for (name, checker) in checkers {
        let output = checker.wait_with_output().expect("a child can be waited for");
        if !output.status.success() {
            let _ = writeln!(violations, "{name}: {}", told(&output));
        }
    }
    assert!(violations.is_empty(), "{violations}");
    let returned = server.get(&format!("/live/{RETURNING}/video.m3u8")).text();
    assert!(returned.contains("#EXT-X-DISCONTINUITY"), "the publisher came back to the same playlist:\n{returned}");
}
