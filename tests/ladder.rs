//! The ladder of a live stream: every rung is decoded and compared with its source, checked by the outside checker while it is
//! cold, warm and made anew, and played over a line that changes.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    Server,
    clients::{Program, Turn},
    key_of, kill_hard,
    real::{checker, ffmpeg, seconds, told, tool},
    streams, within,
};

/// Three rungs of a small picture: at the source's rate with two GOPs in a segment, and at a third and a sixth of it with one.
const LADDER: &str = "360p 800k, 270p10 400k, 180p5 200k";
/// Playlist, width, the source's pictures to one of its own, keyframes in a segment of 4 s.
const RUNGS: [(&str, u32, usize, usize); 3] = [("rung-2", 640, 1, 2), ("rung-3", 480, 3, 1), ("rung-4", 320, 6, 1)];
/// Mean difference of brightness, of 255, between two codings of one picture. Of pictures a third of a second apart it is 20.
const DIFFERENCE_MAX: f64 = 6.0;
/// Of 48 s in which the line changes twice: 60 ms are usual, and no stall is to be seen.
const STALLED_MS_MAX: u64 = 400;
/// From the death of the program to 2 s of Parts more than there were: those of the 2 s are made at once, when rungs are back.
const BACK_MAX: Duration = Duration::from_secs(4);
/// Of times in 90 kHz, in seconds.
const SAME_TIME: f64 = 0.0005;

fn serve(ladder: &str) -> Server {
    Server::start(&format!("{}[transcode]\nladder = \"{ladder}\"\n", streams(&["demo"])))
}

/// 640x360 at 30 pictures a second, keyframes 2 s apart.
fn publish(server: &Server, source: &str, gop: u32) -> Program {
    let mut command = ffmpeg();
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-re", "-f", "lavfi", "-i", source]);
    command.args(["-re", "-f", "lavfi", "-i", "sine=r=48000", "-map", "0", "-map", "1", "-c:a", "aac", "-ac", "2"]);
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-b:v", "3000k", "-pix_fmt", "yuv420p"]);
    command.args(["-g", &gop.to_string(), "-keyint_min", &gop.to_string(), "-sc_threshold", "0"]);
    command.args(["-t", &seconds(150, 400).to_string(), "-f", "flv"]).arg(format!("{}/{}", server.rtmp, key_of("demo")));
    Program::start(command)
}

const MOVING: &str = "testsrc2=s=640x360:r=30";

fn text(server: &Server, playlist: &str) -> String {
    server.get(&format!("/live/demo/{playlist}.m3u8")).text()
}

/// Whole segments of a playlist by number: the address of each, and of the init segment in force.
fn segments(list: &str) -> BTreeMap<u64, (String, String)> {
    let (mut map, mut gap, mut found) = (String::new(), false, BTreeMap::new());
    for line in list.lines() {
        if let Some(rest) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            map = rest.trim_end_matches('"').to_owned();
        } else if line == "#EXT-X-GAP" {
            gap = true;
        } else if !line.starts_with('#') && !line.is_empty() {
            let number = line.rsplit_once("segment-").and_then(|(_, rest)| rest.strip_suffix(".m4s")?.parse().ok());
            if let Some(number) = number.filter(|_| !std::mem::take(&mut gap)) {
                found.insert(number, (map.clone(), line.to_owned()));
            }
        }
    }
    found
}

/// The newest whole segment that the source and all rungs have, as files.
fn newest_of_all(server: &Server) -> Vec<std::path::PathBuf> {
    let names: Vec<_> = ["video"].into_iter().chain(RUNGS.map(|(name, ..)| name)).collect();
    let all = within(Duration::from_secs(30), "all have whole segments", || {
        let lists: Vec<_> = names.iter().map(|name| segments(&text(server, name))).collect();
        // The first segment of all is a short one.
        let whole = lists[0].keys().skip(1).rev();
        let number = *whole.into_iter().find(|number| lists.iter().all(|list| list.contains_key(number)))?;
        Some(lists.into_iter().map(|mut list| list.remove(&number).expect("all have it")).collect::<Vec<_>>())
    });
    names
        .iter()
        .zip(all)
        .map(|(name, (map, segment))| {
            let file = server.folder.join(&format!("{name}.mp4"));
            let media = [map, segment].map(|uri| server.get(&format!("/live/demo/{uri}")).body).concat();
            fs::write(&file, media).expect("a test's folder is writable");
            file
        })
        .collect()
}

/// Time, and whether it is a keyframe, of every picture; none may be a B-frame.
fn pictures(file: &Path) -> Vec<(f64, bool)> {
    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-select_streams", "v", "-show_entries", "frame=pts_time,pict_type,key_frame", "-of", "json"]);
    let probed = probe.arg(file).output().expect("ffprobe is installed");
    assert!(probed.status.success(), "{}", told(&probed));
    let probed: serde_json::Value = serde_json::from_slice(&probed.stdout).expect("ffprobe writes JSON");
    let frames = probed["frames"].as_array().expect("there are pictures");
    let read = |frame: &serde_json::Value| {
        assert_ne!(frame["pict_type"], "B", "{}: {frame}", file.display());
        let at = frame["pts_time"].as_str().and_then(|text| text.parse().ok()).expect("a picture has a time");
        (at, frame["key_frame"] == 1)
    };
    frames.iter().map(read).collect()
}

/// The number of the newest Part, which runs through the presentation.
fn parts(list: &str) -> u64 {
    let newest = list.lines().rev().find(|line| line.starts_with("#EXT-X-PART:"));
    let number = newest.and_then(|line| line.rsplit_once("part-")?.1.split_once('.')?.0.parse().ok());
    number.unwrap_or(0)
}

/// Every picture small and grey.
fn grey(file: &Path) -> Vec<Vec<u8>> {
    let mut decode = ffmpeg();
    decode.args(["-v", "error", "-i"]).arg(file).args(["-vf", "scale=80:45,format=gray", "-fps_mode", "passthrough"]);
    let decoded = decode.args(["-f", "rawvideo", "-"]).output().expect("ffmpeg is installed");
    assert!(decoded.status.success(), "{}", told(&decoded));
    decoded.stdout.chunks_exact(80 * 45).map(<[u8]>::to_vec).collect()
}

#[test]
fn every_rung_shows_the_same_at_the_same_number() {
    let _turn = Turn::take();
    let server = serve(LADDER);
    let _publisher = publish(&server, MOVING, 60);
    server.playable("demo");
    let offer = text(&server, "index");
    for (rung, width, divisor, _) in RUNGS {
        let variant = format!(",RESOLUTION={width}x{},FRAME-RATE={},", width * 9 / 16, 30 / divisor);
        let listed = offer.lines().zip(offer.lines().skip(1)).any(|(a, b)| a.contains(&variant) && b == format!("{rung}.m3u8"));
        assert!(listed, "{rung}, {variant} of\n{offer}");
    }
    let files = newest_of_all(&server);
    let (source, shown) = (pictures(&files[0]), grey(&files[0]));
    assert_eq!(source.len(), 120, "a segment of 4 s");
    for (file, (rung, _, divisor, keyframes)) in files[1..].iter().zip(RUNGS) {
        let made = pictures(file);
        assert_eq!(made.len(), 120 / divisor, "{rung}");
        for (n, (at, _)) in made.iter().enumerate() {
            assert!(
                (at - source[n * divisor].0).abs() < SAME_TIME,
                "{rung}: picture {n} is shown at {at}, not {:?}",
                source[n * divisor]
            );
        }
        let keys: Vec<_> = made.iter().enumerate().filter(|(_, (_, key))| *key).map(|(n, _)| n * divisor).collect();
        assert_eq!(keys, (0..keyframes).map(|n| n * 60).collect::<Vec<_>>(), "{rung}");
        for (n, picture) in grey(file).iter().enumerate() {
            let of = &shown[n * divisor];
            let apart: u64 = of.iter().zip(picture).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            let apart = apart as f64 / of.len() as f64;
            assert!(apart < DIFFERENCE_MAX, "{rung}: picture {n} is {apart} apart");
        }
    }
}

#[test]
fn the_checker_finds_nothing_in_a_ladder_cold_warm_or_made_anew() {
    let _turn = Turn::take();
    let server = serve(LADDER);
    let publisher = publish(&server, MOVING, 60);
    server.playable("demo");
    assert_eq!(server.children("codecast-transcode").len(), 0, "nothing is made that nobody asks for");
    // Cold, then warm, then over the death of the program that makes it, then another picture.
    let check = checker(&server.playlist("demo"), seconds(34, 120), &[]);
    let child = within(Duration::from_secs(15), "it is made", || server.children("codecast-transcode").first().copied());
    within(Duration::from_secs(15), "there is something of all", || {
        RUNGS.iter().all(|(rung, ..)| text(&server, rung).contains("#EXT-X-PART:")).then_some(())
    });
    let newest = || RUNGS.map(|(rung, ..)| parts(&text(&server, rung)));
    let go_on = |from: [u64; 3], parts: u64, what: &str| {
        within(Duration::from_secs(20), what, || newest().iter().zip(from).all(|(now, from)| *now >= from + parts).then_some(()));
    };
    // A segment and a half, so that all are in one lane.
    go_on(newest(), 30, "all go on");
    let before = newest();
    kill_hard(child);
    let killed = Instant::now();
    go_on(before, 10, "rungs are back");
    let back = killed.elapsed();
    println!("2 s of every rung were there {back:?} after the program was killed");
    assert!(back < BACK_MAX, "2 s of every rung after {back:?}");
    assert!(server.children("codecast-transcode").iter().all(|other| *other != child), "another takes its place");
    go_on(newest(), 30, "all go on with the other one");
    drop(publisher);
    let _publisher = publish(&server, "testsrc2=s=480x360:r=15", 30);
    let checked = check.wait_with_output().expect("the checker ends by itself");
    assert!(checked.status.success(), "{}", told(&checked));
}

/// Sizes that were shown in each phase, as a player goes through phases of a line (`SECONDS:KBIT`), and what it says at the end.
fn watch(player: &str, url: &str, phases: &[&str]) -> (Vec<Vec<String>>, serde_json::Value) {
    let mut command = Command::new("node");
    let output = command.arg(tool("tools/rungs.mjs")).args([player, url]).args(phases).output().expect("node is there");
    assert!(output.status.success(), "{player}: {}", told(&output));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it says JSON");
    let shown = |phase: &serde_json::Value| {
        let all = phase["shown"].as_array().expect("something was shown").iter();
        all.map(|one| one[0].as_str().expect("a size").to_owned()).collect()
    };
    let phases = seen["phases"].as_array().expect("there are phases").iter().map(shown).collect();
    (phases, seen)
}

/// The source costs 3 Mbit/s, the rungs 800, 400 and 200 kbit/s.
#[test]
fn the_page_steps_down_and_up_with_the_line() {
    let _turn = Turn::take();
    let server = serve(LADDER);
    let _publisher = publish(&server, MOVING, 60);
    server.playable("demo");
    let page = format!("http://{}/watch/demo?transport=hls", server.http);
    let (shown, seen) = watch("page", &page, &["8:0", "16:1800", "24:0"]);
    let ends = |phase: &[String], name: &str| phase.last().is_some_and(|last| last.ends_with(name));
    assert!(ends(&shown[0], "video.m3u8"), "it begins with the source: {seen}");
    assert!(!ends(&shown[1], "video.m3u8"), "the line does not carry it: {seen}");
    assert!(shown[1].iter().any(|one| one.ends_with("rung-2.m3u8")), "it does carry the best rung: {seen}");
    assert!(ends(&shown[2], "video.m3u8"), "back to the source: {seen}");
    // The picture is 360 lines high on two of them, which is no reason to begin anew.
    println!("stalled for {} ms", seen["stalledMs"]);
    assert!(seen["stalledMs"].as_u64() < Some(STALLED_MS_MAX), "{seen}");
}
