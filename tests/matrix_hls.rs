//! Every player of HLS against every kind of stream: four in Chromium, four programs. `make e2e` alone runs it. What a
//! player cannot do by its own limits stands in the table that is left in target/tmp/players.md, with the reason.

mod common;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Folder, Server,
    clients::Turn,
    key_of,
    peers::whip_ffmpeg,
    real::{Client, ffmpeg, play, publish, tool},
    streams, until, within,
};
use serde_json::Value;

/// How long each player plays.
const LENGTH: u32 = 12;
/// Of that, what it has played at least: a player begins with a few segments, and eight on two cores are slow.
const SHARE: f64 = 0.5;
const FPS: f64 = 30.0;
/// A player that has had bad luck may try again, as a viewer who reloads the page.
const ATTEMPTS: usize = 3;
/// Between two reconnects of the publisher: shorter than a player plays.
const CONNECTED: Duration = Duration::from_secs(8);

const BROWSER: [&str; 4] = ["hls.js", "shaka", "vhs", "native"];
const PROGRAMS: [&str; 4] = ["vlc", "mpv", "ffplay", "gstreamer"];

const KINDS: [(&str, &str); 6] = [
    ("plain", "H.264 and AAC, keyframes 2 s apart"),
    ("reconnect", "The same, its publisher connects anew every 8 s"),
    ("resize", "The picture changes between 320x180 and 480x270"),
    ("sound", "AAC alone"),
    ("hevc", "HEVC and AAC by enhanced RTMP"),
    ("surround", "H.264 and AAC of six channels"),
];

/// What a player does not do, at times or ever, and why; where it does, that stands in the table.
fn limit(kind: &str, player: &str) -> Option<&'static str> {
    match (kind, player) {
        ("hevc", "native") => Some("asks for segments that are marked as gaps, and gives up at the first 404"),
        (_, "native") => Some("gives up when a playlist that it loads again has nothing new yet"),
        ("reconnect" | "resize", "vlc") => Some("keeps one EXT-X-MAP of a playlist, and finds none behind a discontinuity"),
        ("hevc", "gstreamer") => Some("1.22.0 ends at once: internal data stream error, or a failed assertion of hlsdemux2"),
        // Whose fault these are is not known yet: docs/results/players-2026-11-30.md.
        ("reconnect", "shaka") => Some("the picture stands for seconds behind a discontinuity"),
        ("resize", "vhs") => Some("does not begin at times where a window has several EXT-X-MAP"),
        _ => None,
    }
}

/// By its player: the version, and what it did.
type Cells = BTreeMap<String, (String, String)>;
type Row = (&'static str, Cells);

/// Clips of some seconds, coded once.
struct Stage {
    folder: Folder,
}

impl Stage {
    fn encode(&self, name: &str, mut with: Command, picture: &str, sound: &str) -> PathBuf {
        let file = self.folder.join(&format!("{name}.flv"));
        with.args(picture.split_whitespace()).args("-f lavfi -i sine=r=48000".split(' ')).args(sound.split_whitespace());
        let made = with.args(["-t", "10", "-pix_fmt", "yuv420p", "-f", "flv"]).arg(&file).output().expect("ffmpeg is installed");
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        file
    }
}

fn picture(size: &str) -> String {
    format!("-f lavfi -i testsrc2=s={size}:r=30")
}

const H264: &str = "-c:v libx264 -preset ultrafast -g 60 -b:v 300k -c:a aac";

/// The tags of one FLV behind those of another: one stream whose parameters change.
fn join(first: &Path, second: &Path, joined: &Path) {
    let [one, two] = [first, second].map(|file| fs::read(file).expect("it was encoded"));
    let (mut out, mut end) = (one.clone(), 0);
    each_tag(&one, |tag| end = end.max(stamp(tag)));
    each_tag(&two, |tag| {
        let mut tag = tag.to_vec();
        let at = stamp(&tag) + end + 33;
        tag[4..8].copy_from_slice(&[(at >> 16) as u8, (at >> 8) as u8, at as u8, (at >> 24) as u8]);
        // The second metadata would be read as a third track.
        if tag[0] != 18 {
            let length = u32::try_from(tag.len()).expect("a tag is short");
            out.extend(tag);
            out.extend(length.to_be_bytes());
        }
    });
    fs::write(joined, out).expect("a test's folder is writable");
}

fn stamp(tag: &[u8]) -> u32 {
    u32::from_be_bytes([tag[7], tag[4], tag[5], tag[6]])
}

fn each_tag(flv: &[u8], mut handle: impl FnMut(&[u8])) {
    let mut rest = &flv[13..];
    while rest.len() > 11 {
        let length = 11 + (u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize);
        handle(&rest[..length]);
        rest = &rest[length + 4..];
    }
}

fn publish_hevc(file: &Path, url: &str) -> Client {
    let mut command = Command::new(whip_ffmpeg());
    command.args("-hide_banner -loglevel error -nostdin -re -stream_loop -1 -i".split(' ')).arg(file);
    command.args("-c copy -f flv -rtmp_enhanced_codecs hvc1".split(' ')).arg(url);
    Client::start(command)
}

/// Publishes, is gone, and comes back until `stop`.
fn come_and_go(file: &Path, url: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let publisher = publish(file, url);
        let until = Instant::now() + CONNECTED;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            common::real::away(Duration::from_millis(50));
        }
        publisher.kill();
        common::real::away(Duration::from_millis(300));
    }
}

/// What each of the players saw of a stream, by its name.
fn watch(server: &Server, kind: &str, players: &[&str]) -> BTreeMap<String, Value> {
    let url = server.playlist(kind);
    let (browser, programs): (Vec<_>, Vec<_>) = players.iter().partition(|player| BROWSER.contains(player));
    let mut seen = Vec::new();
    if !browser.is_empty() {
        seen.extend(play(LENGTH, &browser.into_iter().map(|player| (player, url.as_str())).collect::<Vec<_>>()));
    }
    if !programs.is_empty() {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-B").arg(tool("tools/hls-programs.py")).args([&url, &LENGTH.to_string()]).args(programs);
        let output = command.output().expect("python3 is installed by `make test`");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        seen.extend(lines.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    seen.into_iter().map(|one: Value| (one["player"].as_str().unwrap_or_default().to_owned(), one)).collect()
}

/// Whether a player has played nearly as much as there was: its pictures where it counts them, its clock where it tells it.
fn well(kind: &str, seen: &Value) -> bool {
    let least = f64::from(LENGTH) * SHARE;
    let number = |name: &str| seen[name].as_f64();
    let frames = kind == "sound" || number("frames").is_none_or(|frames| frames >= least * FPS);
    let clock = number("playedS").is_none_or(|played| played >= least);
    let sound = number("audioBytes").or(number("audioFrames")).is_none_or(|sound| sound > 0.0);
    let told = number("frames").or(number("playedS")).is_some();
    let clean = !seen["said"].as_str().is_some_and(|said| said.contains("error while decoding"));
    frames && clock && sound && told && clean
}

/// The words of a cell.
fn cell(kind: &str, attempt: usize, seen: &Value) -> String {
    let mut words = Vec::new();
    if let Some(frames) = seen["frames"].as_f64().filter(|_| kind != "sound") {
        words.push(format!("{frames} pictures"));
    }
    if let Some(played) = seen["playedS"].as_f64() {
        words.push(format!("{played:.1} s"));
    }
    if kind == "hevc"
        && let Some(width) = seen["width"].as_u64()
    {
        words.push(format!("the rung, {width} wide"));
    }
    if attempt > 1 {
        words.push(format!("at attempt {attempt}"));
    }
    words.join(", ")
}

/// One row: each player's cell, and what is wrong with it.
fn row(server: &Server, kind: &'static str) -> (Cells, Vec<String>) {
    let (mut cells, mut wrong) = (BTreeMap::new(), Vec::new());
    // The programs after the browser: all eight at once would measure the machine.
    for group in [BROWSER, PROGRAMS] {
        let mut left = group.to_vec();
        for attempt in 1..=ATTEMPTS {
            let seen = watch(server, kind, &left);
            left.retain(|player| {
                let found = seen.get(*player).cloned().unwrap_or_default();
                let good = well(kind, &found);
                println!("{kind} {player} attempt {attempt} {}: {found}", if good { "well" } else { "not well" });
                let version = found["version"].as_str().unwrap_or_default().to_owned();
                let words = match limit(kind, player) {
                    _ if good => cell(kind, attempt, &found),
                    Some(reason) => format!("no: {reason}"),
                    None => {
                        wrong.extend((attempt == ATTEMPTS).then(|| format!("{kind}, {player}: {found}")));
                        "no".to_owned()
                    }
                };
                cells.insert((*player).to_owned(), (version, words));
                !good
            });
            if left.is_empty() {
                break;
            }
        }
    }
    (cells, wrong)
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| Player |");
    for (kind, _) in rows {
        let _ = write!(text, " {kind} |");
    }
    text += &format!("\n|{}\n", " --- |".repeat(rows.len() + 1));
    for player in BROWSER.into_iter().chain(PROGRAMS) {
        let version = rows.iter().find_map(|(_, cells)| cells.get(player).map(|cell| cell.0.clone()).filter(|v| !v.is_empty()));
        let _ = write!(text, "| {player} {} |", version.unwrap_or_default());
        for (_, cells) in rows {
            let _ = write!(text, " {} |", cells.get(player).map_or("", |cell| cell.1.as_str()));
        }
        text.push('\n');
    }
    text
}

#[test]
#[ignore = "a matrix of players that `make e2e` installs"]
fn every_player_plays_every_kind_of_stream() {
    let _turn = Turn::take();
    let stage = Stage { folder: Folder::new() };
    let small = stage.encode("plain", ffmpeg(), &picture("320x180"), &format!("{H264} -ac 2"));
    let large = stage.encode("large", ffmpeg(), &picture("480x270"), &format!("{H264} -ac 2"));
    let sound = stage.encode("sound", ffmpeg(), "", "-c:a aac -ac 2");
    let surround = stage.encode("surround", ffmpeg(), &picture("320x180"), &format!("{H264} -ac 6"));
    let mut newer = Command::new(whip_ffmpeg());
    newer.args(["-hide_banner", "-loglevel", "error", "-nostdin"]);
    let coding = "-c:v libx265 -preset ultrafast -x265-params log-level=error:pools=1 -g 60 -b:v 300k -c:a aac -ac 2 \
                  -rtmp_enhanced_codecs hvc1";
    let hevc = stage.encode("hevc", newer, &picture("320x180"), coding);
    let resize = stage.folder.join("resize.flv");
    join(&small, &large, &resize);

    let server = Server::start(&streams(&KINDS.map(|(kind, _)| kind)));
    let url = |kind: &str| format!("{}/{}", server.rtmp, key_of(kind));
    let _publishers = [
        publish(&small, &url("plain")),
        publish(&resize, &url("resize")),
        publish(&sound, &url("sound")),
        publish_hevc(&hevc, &url("hevc")),
        publish(&surround, &url("surround")),
    ];
    let stop = AtomicBool::new(false);
    let (rows, wrong) = thread::scope(|scope| {
        scope.spawn(|| come_and_go(&small, &url("reconnect"), &stop));
        // Also when a player's row panics: the scope waits for the publisher.
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rows(&server)));
        stop.store(true, Ordering::Relaxed);
        found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("players.md");
    fs::write(&path, table(&rows)).expect("cargo has made the folder");
    println!("{}", table(&rows));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rows(server: &Server) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (kind, _) in KINDS {
        // Shaka 5.2.12 asks for the address `undefined` where there are few whole segments.
        within(Duration::from_secs(40), "there are whole segments", || {
            (server.get(&format!("/live/{kind}/audio.m3u8")).text().matches("#EXTINF").count() >= 4).then_some(())
        });
    }
    within(Duration::from_secs(40), "the publisher has come back once", || {
        let playlist = server.get("/live/reconnect/audio.m3u8").text();
        playlist.contains("#EXT-X-DISCONTINUITY\n").then_some(())
    });
    until("the picture has changed", || {
        server.get("/live/resize/video.m3u8").text().contains("#EXT-X-DISCONTINUITY\n").then_some(())
    });
    for (kind, _) in KINDS {
        let (cells, complaints) = row(server, kind);
        rows.push((kind, cells));
        wrong.extend(complaints);
    }
    (rows, wrong)
}
