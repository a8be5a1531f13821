//! What encoders send that is out of the ordinary, all of it at once: frame rates from 1 to 240, odd, upright and 4K pictures,
//! intra-only, open and long GOPs, slices, interlacing, 5.1, 8 and 96 kHz. Each is followed by the outside checker, and read
//! by a player that decodes what the source had: its size, its rate, its channels; every picture and every frame of sound.

mod common;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use common::{
    Server,
    clients::Turn,
    key_of,
    peers::{seen, view},
    real::{Client, Clips, checker, ffmpeg, seconds, told},
    streams, within,
};

/// Longer than the test: a clip that begins again has a seam.
const CLIP_SECONDS: (u32, u32) = (75, 180);
const CHECKED_SECONDS: u32 = 15;
/// What ffprobe decodes of the listed window.
const READ_SECONDS: u32 = 4;
/// And of what hashes are compared: some pictures of the slowest.
const HASHED_SECONDS: u32 = 10;
/// What a decoder shows before it has all that it needs.
const HASHES_ASIDE: usize = 8;

struct Source {
    name: &'static str,
    picture: &'static str,
    /// Pictures a second, width, height.
    shown: (u32, u32, u32),
    sound: &'static str,
    channels: u32,
    checker: &'static [&'static str],
}

const STEREO: &str = "-ar 48000 -ac 2 -c:a aac";
const ORDINARY: &str = "testsrc2=s=320x180:r=30 -pix_fmt yuv420p -preset ultrafast -tune zerolatency -g 60 -b:v 200k";

const fn of(name: &'static str, picture: &'static str, shown: (u32, u32, u32)) -> Source {
    Source { name, picture, shown, sound: STEREO, channels: 2, checker: &[] }
}

const fn heard(name: &'static str, sound: &'static str, channels: u32) -> Source {
    Source { name, picture: ORDINARY, shown: (30, 320, 180), sound, channels, checker: &[] }
}

const SOURCES: [Source; 15] = [
    of("intra", "testsrc2=s=320x180:r=30 -pix_fmt yuv420p -preset ultrafast -g 1 -b:v 600k", (30, 320, 180)),
    of("gop10", "testsrc2=s=320x180:r=30 -pix_fmt yuv420p -preset ultrafast -g 300 -sc_threshold 0 -b:v 200k", (30, 320, 180)),
    of("fps1", "testsrc2=s=320x180:r=1 -pix_fmt yuv420p -preset ultrafast -tune zerolatency -g 2 -b:v 100k", (1, 320, 180)),
    of("fps5", "testsrc2=s=320x180:r=5 -pix_fmt yuv420p -preset ultrafast -tune zerolatency -g 10 -b:v 100k", (5, 320, 180)),
    of("fps120", "testsrc2=s=160x90:r=120 -pix_fmt yuv420p -preset ultrafast -g 240 -b:v 300k", (120, 160, 90)),
    of("fps240", "testsrc2=s=160x90:r=240 -pix_fmt yuv420p -preset ultrafast -g 480 -b:v 300k", (240, 160, 90)),
    of("uhd", "testsrc=s=3840x2160:r=2 -pix_fmt yuv420p -preset ultrafast -tune zerolatency -g 4 -b:v 800k", (2, 3840, 2160)),
    of("upright", "testsrc2=s=180x322:r=30 -pix_fmt yuv420p -preset ultrafast -g 60 -b:v 200k", (30, 180, 322)),
    of("odd", "testsrc=s=321x181:r=30 -vf scale=321:181 -pix_fmt yuv444p -preset ultrafast -g 60 -b:v 200k", (30, 321, 181)),
    of(
        "interlaced",
        "testsrc2=s=320x192:r=25 -pix_fmt yuv420p -preset ultrafast -flags +ildct+ilme -g 50 -b:v 200k",
        (25, 320, 192),
    ),
    of(
        "open",
        "testsrc2=s=320x180:r=30 -pix_fmt yuv420p -preset veryfast -x264-params open-gop=1:keyint=60:bframes=3 -b:v 200k",
        (30, 320, 180),
    ),
    of(
        "slices",
        "testsrc2=s=320x180:r=30 -pix_fmt yuv420p -preset ultrafast -tune zerolatency \
         -x264-params slices=4:keyint=60:aud=1:nal-hrd=cbr:bitrate=300:vbv-maxrate=300:vbv-bufsize=300",
        (30, 320, 180),
    ),
    heard("surround", "-ar 48000 -ac 6 -c:a aac -b:a 256k", 6),
    heard("phone", "-ar 8000 -ac 1 -c:a aac -b:a 16k", 1),
    heard("studio", "-ar 96000 -ac 2 -c:a aac -b:a 160k", 2),
];

fn clip(clips: &Clips, source: &Source) -> std::path::PathBuf {
    let (input, coding) = source.picture.split_once(' ').expect("an input, then its coding");
    let coding = format!("-f lavfi -i {input} -f lavfi -i sine=r=48000 -c:v libx264 {coding} {}", source.sound);
    clips.encode(source.name, clip_seconds(), &coding)
}

/// As long as all that is done with them, in the short run and in the long one.
fn clip_seconds() -> u32 {
    seconds(CLIP_SECONDS.0, CLIP_SECONDS.1)
}

fn publish(file: &Path, url: &str) -> Client {
    let mut command = ffmpeg();
    command.arg("-re").arg("-i").arg(file).args(["-c", "copy", "-f", "flv", url]);
    Client::start(command)
}

/// Size, decoded pictures and channels, as ffprobe reads them from the playlist.
fn read(server: &Server, name: &str) -> (u32, u32, u32, u32) {
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-read_intervals", &format!("%+{READ_SECONDS}"), "-count_frames", "-of", "json"])
        .args(["-show_entries", "stream=codec_type,width,height,nb_read_frames,channels", &server.playlist(name)])
        .output()
        .expect("ffmpeg's package brings ffprobe");
    let found: serde_json::Value =
        serde_json::from_slice(&probe.stdout).unwrap_or_else(|e| panic!("{name}: {e}: {}", told(&probe)));
    let all = found["streams"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| {
        all.iter().find(|stream| stream["codec_type"] == kind).unwrap_or_else(|| panic!("{name} has no {kind}: {found}"))
    };
    let number = |kind: &str, field: &str| of(kind)[field].as_u64().unwrap_or(0) as u32;
    let frames = of("video")["nb_read_frames"].as_str().and_then(|frames| frames.parse().ok()).unwrap_or(0);
    (number("video", "width"), number("video", "height"), frames, number("audio", "channels"))
}

/// Of each decoded picture and each coded frame of sound, in order.
fn hashes(input: &str, seconds: u32) -> [Vec<String>; 2] {
    ["-map 0:v:0 -fps_mode passthrough -enc_time_base -1", "-map 0:a:0 -c copy"].map(|what| {
        let mut command = ffmpeg();
        command.args(["-i", input, "-t", &seconds.to_string()]).args(what.split(' ')).args(["-f", "framemd5", "-"]);
        let made = command.output().expect("ffmpeg is installed by `make test`");
        let text = String::from_utf8_lossy(&made.stdout).into_owned();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit(", ").next())
            .map(str::to_owned)
            .collect()
    })
}

/// How many of `heard` lie in a row in `sent`, the first few aside.
fn in_a_row(heard: &[String], sent: &[String]) -> usize {
    let heard = heard.get(HASHES_ASIDE..).unwrap_or_default();
    let run = |at: usize| heard.iter().zip(&sent[at..]).take_while(|(heard, sent)| heard == sent).count();
    (0..sent.len()).filter(|&at| heard.first() == Some(&sent[at])).map(run).max().unwrap_or(0)
}

#[test]
fn whatever_encoders_send_is_played_as_it_was() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let files = SOURCES.each_ref().map(|source| clip(&clips, source));
    let server = Server::start(&streams(&SOURCES.each_ref().map(|source| source.name)));
    let publishers: Vec<_> = SOURCES
        .iter()
        .zip(&files)
        .map(|(source, file)| publish(file, &format!("{}/{}", server.rtmp, key_of(source.name))))
        .collect();
    for source in &SOURCES {
        server.playable(source.name);
    }
    let mut wrong = String::new();
    let follow = |source: &Source| checker(&server.playlist(source.name), seconds(CHECKED_SECONDS, 45), source.checker);
    let checkers = SOURCES.each_ref().map(follow);
    for (source, checker) in SOURCES.iter().zip(checkers) {
        let found = checker.wait_with_output().expect("a child can be waited for");
        if !found.status.success() {
            let _ = writeln!(wrong, "{}: {}", source.name, told(&found));
        }
    }
    for source in &SOURCES {
        let (fps, width, height) = source.shown;
        let (w, h, frames, channels) = read(&server, source.name);
        // The interval ends within a picture, and a window that opens at a recovery point has leading pictures that are not shown.
        let whole = READ_SECONDS * fps;
        if (w, h, channels) != (width, height, source.channels) || !(whole.saturating_sub(4)..=whole + 2).contains(&frames) {
            let _ = writeln!(wrong, "{}: {w}x{h}, {frames} pictures, {channels} channels", source.name);
        }
    }
    let compared: Vec<_> = thread::scope(|scope| {
        let one = |(source, file): (&Source, &PathBuf)| {
            let (playlist, file) = (server.playlist(source.name), file.to_string_lossy().into_owned());
            scope.spawn(move || (hashes(&playlist, HASHED_SECONDS), hashes(&file, clip_seconds())))
        };
        let all: Vec<_> = SOURCES.iter().zip(&files).map(one).collect();
        all.into_iter().map(|thread| thread.join().expect("it has said why")).collect()
    });
    for (source, (heard, sent)) in SOURCES.iter().zip(&compared) {
        for (what, heard, sent) in [("pictures", &heard[0], &sent[0]), ("frames of sound", &heard[1], &sent[1])] {
            let row = in_a_row(heard, sent);
            if row < heard.len().saturating_sub(HASHES_ASIDE) || heard.len() <= HASHES_ASIDE {
                let _ = writeln!(wrong, "{}: of {} {what}, {row} in a row are those that were sent", source.name, heard.len());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");

    // What WebRTC cannot carry is made for it: stereo of six channels, 48 kHz of eight, pictures without open GOPs.
    for name in ["surround", "phone", "open"] {
        let length = seconds(5, 20);
        let watched = seen(view(&server, name, length, &[]), length);
        assert!(watched["framesDecoded"].as_u64() >= Some(u64::from(length) * 15), "{name}: {watched}");
        assert!(watched["audioBytes"].as_u64() > Some(1000), "{name}: {watched}");
    }
    within(Duration::from_secs(5), "nobody was torn down", || (server.metric("codecast_publishers") == 15.0).then_some(()));
    drop(publishers);
}
