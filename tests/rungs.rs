//! Publishers of HEVC and AV1 for players that play neither: Chromium's hls.js gets the H.264 that is made of HEVC. AV1 it
//! may play as it is.

mod common;

use std::{fs, process::Command, time::Duration};

use common::{
    Server,
    clients::{Program, Turn},
    key_of, kill_hard,
    peers::whip_ffmpeg,
    real::{checker, ffmpeg, play, seconds, told},
    streams, within,
};

/// Without B-frames, so that a segment holds the same pictures in either order.
const HEVC: &str = "-f lavfi -i testsrc2=s=320x180:r=15 -f lavfi -i sine=r=48000 -map 0 -map 1 -c:v libx265 -preset ultrafast \
                    -x265-params log-level=error:pools=1:bframes=0 -g 30 -b:v 300k -c:a aac";
const AV1: &str = "-f lavfi -i testsrc2=s=320x180:r=15 -f lavfi -i sine=r=48000 -map 0 -map 1 -c:v libsvtav1 -preset 12 \
                   -svtav1-params pred-struct=1 -g 30 -crf 50 -c:a aac";
/// Mean difference of brightness, of 255, between two codings of one picture. Of pictures half a second apart it is 20.
const DIFFERENCE_MAX: f64 = 6.0;

fn publish(server: &Server, stream: &str, coding: &str) -> Program {
    let mut command = Command::new(whip_ffmpeg());
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-re"]);
    // Every input in real time.
    command.args(coding.replace(" -f lavfi", " -re -f lavfi").split_whitespace());
    command.args(["-pix_fmt", "yuv420p", "-t", &seconds(150, 400).to_string(), "-f", "flv"]);
    command.args(["-rtmp_enhanced_codecs", "hvc1,av01"]).arg(format!("{}/{}", server.rtmp, key_of(stream)));
    Program::start(command)
}

fn text(server: &Server, stream: &str, playlist: &str) -> String {
    server.get(&format!("/live/{stream}/{playlist}")).text()
}

/// The newest whole segment that a rung and its source both have, as small grey pictures of each.
fn pictures(server: &Server, stream: &str) -> [Vec<u8>; 2] {
    let whole = |list: &str| -> Vec<String> {
        let lines: Vec<_> = list.lines().collect();
        let whole = lines.windows(3).filter(|l| l[1].starts_with("#EXTINF") && l[0] != "#EXT-X-GAP");
        whole.map(|l| l[2].rsplit_once('/').expect("an address has a folder").1.to_owned()).collect()
    };
    let (lists, newest) = within(Duration::from_secs(15), "both have whole segments", || {
        let lists = ["video.m3u8", "rung-1.m3u8"].map(|playlist| text(server, stream, playlist));
        let [source, rung] = [&lists[0], &lists[1]].map(|list| whole(list));
        let newest = rung.into_iter().rev().find(|segment| source.contains(segment))?;
        Some((lists, newest))
    });
    [(&lists[0], "video"), (&lists[1], "rung-1")].map(|(list, folder)| {
        let map = list.lines().rev().find_map(|l| l.strip_prefix("#EXT-X-MAP:URI=\"")?.strip_suffix('"')).expect("it has a map");
        let epoch = map.split('/').nth(1).expect("an address has an epoch");
        let mut media = server.get(&format!("/live/{stream}/{map}")).body;
        media.extend(server.get(&format!("/live/{stream}/{folder}/{epoch}/{newest}")).body);
        let file = server.folder.join(&format!("{folder}.mp4"));
        fs::write(&file, media).expect("a test's folder is writable");
        let mut decode = ffmpeg();
        decode.args(["-v", "error", "-i"]).arg(file).args(["-vf", "scale=80:45,format=gray", "-f", "rawvideo", "-"]);
        let decoded = decode.output().expect("ffmpeg is installed");
        assert!(decoded.status.success(), "{}", told(&decoded));
        decoded.stdout
    })
}

#[test]
fn hevc_and_av1_play_where_neither_can_be_decoded() {
    let _turn = Turn::take();
    let server = Server::start(&format!("{}[transcode]\nidle = \"4s\"\n", streams(&["hevc", "av1"])));
    let _publishers = [("hevc", HEVC), ("av1", AV1)].map(|(stream, coding)| publish(&server, stream, coding));
    for stream in ["hevc", "av1"] {
        server.playable(stream);
        let offer = text(&server, stream, "index.m3u8");
        assert!(offer.contains("CODECS=\"avc1.64001e,mp4a.40.2\",RESOLUTION=320x180,FRAME-RATE=15,SCORE=1"), "{offer}");
        within(Duration::from_secs(20), "a cold rung has gaps", || {
            text(&server, stream, "video.m3u8").contains("rung-1.m3u8\",LAST-MSN=").then_some(())
        });
    }
    assert_eq!(server.children("codecast-transcode").len(), 0, "nothing is made that nobody asks for");

    let run = seconds(8, 60);
    let urls = ["hevc", "av1"].map(|stream| server.playlist(stream));
    for seen in play(run, &[("hls.js", &urls[0]), ("hls.js", &urls[1])]) {
        assert!(seen["frames"].as_u64() > Some(u64::from(run) * 15 / 2), "{seen}");
        assert!(seen["currentTimeAdvancedS"].as_f64() > Some(f64::from(run) / 2.0), "{seen}");
    }
    for stream in ["hevc", "av1"] {
        let [source, rung] = pictures(&server, stream);
        assert_eq!(source.len(), rung.len(), "{stream}: as many pictures");
        let apart: u64 = source.iter().zip(&rung).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let apart = apart as f64 / source.len() as f64;
        assert!(apart < DIFFERENCE_MAX, "{stream}: equal numbers are equal pictures, not {apart} apart");
    }
    within(Duration::from_secs(30), "what nobody asks for is made no longer", || {
        server.children("codecast-transcode").is_empty().then_some(())
    });

    // Cold, then warm, then over the death of the program that makes it.
    let check = checker(&urls[0], seconds(16, 60), &[]);
    let child = within(Duration::from_secs(15), "it is made again", || server.children("codecast-transcode").first().copied());
    within(Duration::from_secs(15), "there is something of it", || {
        text(&server, "hevc", "rung-1.m3u8").contains("#EXT-X-PART:").then_some(())
    });
    kill_hard(child);
    within(Duration::from_secs(10), "another takes its place", || {
        server.children("codecast-transcode").iter().any(|other| *other != child).then_some(())
    });
    let checked = check.wait_with_output().expect("the checker ends by itself");
    assert!(checked.status.success(), "{}", told(&checked));
}

#[test]
fn without_the_program_nothing_is_listed_that_cannot_be_had() {
    let _turn = Turn::take();
    let server = Server::start(&format!("{}[transcode]\nprogram = \"/nowhere/codecast-transcode\"\n", streams(&["hevc"])));
    let _publisher = publish(&server, "hevc", HEVC);
    server.playable("hevc");
    let offer = text(&server, "hevc", "index.m3u8");
    assert!(offer.contains("CODECS=\"hvc1.") && !offer.contains("rung-1") && !offer.contains("SCORE"), "{offer}");
    assert_eq!(server.get("/live/hevc/rung-1.m3u8").status, 404);
}
