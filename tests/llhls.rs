//! What comes out is Low-Latency HLS, whatever goes in: many kinds of stream at once, each followed by
//! tests/tools/llhls_check.py, which knows the draft and not our server.

mod common;

use std::{process::Command, thread, time::Duration};

use common::{
    Folder, Server,
    clients::{Program, Turn, encode, publish, tool},
    is_long_run, streams,
};

/// Name, whether keyframes lie further apart than a segment may last, and how the clip is made.
const KINDS: [(&str, bool, &str); 9] = [
    ("p30", false, "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -g 60 -sc_threshold 0"),
    ("p25", false, "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=r=48000 -g 50 -sc_threshold 0"),
    ("ntsc-long", true, "-f lavfi -i testsrc2=s=320x180:r=30000/1001 -f lavfi -i sine=r=48000 -g 250 -sc_threshold 0"),
    ("p60-bframes", false, "-f lavfi -i testsrc2=s=320x180:r=60 -f lavfi -i sine=r=48000 -g 120 -sc_threshold 0 -bf 3"),
    ("scene-cuts", false, "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -g 60 -sc_threshold 0 -force_key_frames CUTS"),
    ("audio-only", false, "-f lavfi -i sine=r=48000"),
    ("video-only", false, "-f lavfi -i testsrc2=s=320x180:r=30 -g 60 -sc_threshold 0"),
    ("mono-44100", false, "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=44100 -ac 1 -g 60 -sc_threshold 0"),
    ("returns", false, "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -g 60 -sc_threshold 0"),
];
/// One round of a clip; longer than a run of `make test`, where no clip begins again.
const CLIP_SECONDS: u32 = 64;
/// When the publisher of `returns` leaves, and for how long.
const LEAVES_AFTER: Duration = Duration::from_secs(8);
const AWAY: Duration = Duration::from_millis(1500);

#[test]
fn every_kind_of_stream_is_low_latency_hls() {
    let _turn = Turn::take();
    let seconds = if is_long_run() { 600 } else { 20 };
    let server = Server::start(&streams(&KINDS.map(|(name, ..)| name)));
    let folder = Folder::new();
    let clips = KINDS.map(|(name, _, how)| encode(&folder, name, CLIP_SECONDS, &how.replace("CUTS", &cuts())));
    let mut publishers: Vec<_> =
        KINDS.iter().zip(&clips).map(|((name, ..), clip)| publish(clip, &server.rtmp_of(name))).collect();
    KINDS.iter().for_each(|(name, ..)| server.playable(name));

    let checks: Vec<_> = KINDS.iter().map(|(name, long_gop, _)| check(&server, name, *long_gop, seconds)).collect();
    thread::sleep(LEAVES_AFTER);
    publishers.pop().expect("the last one returns").stop();
    thread::sleep(AWAY);
    publishers.push(publish(&clips[KINDS.len() - 1], &server.rtmp_of("returns")));

    let mut wrong = String::new();
    for ((name, ..), mut check) in KINDS.iter().zip(checks) {
        let status = check.finish(Duration::from_secs(seconds + 90));
        println!("{name}:\n{}", check.output());
        if !status.success() {
            wrong += &format!("{name}:\n{}{}", check.output(), check.errors());
        }
    }
    for ((name, ..), publisher) in KINDS.iter().zip(&mut publishers) {
        if publisher.ended().is_some() {
            wrong += &format!("{name}: its publisher has ended: {}", publisher.errors());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(server.metric("codecast_publishers"), KINDS.len() as f64);
}

/// Keyframes at 0.3, 1.9 and 2.9 s of every four seconds.
fn cuts() -> String {
    let times = (0..CLIP_SECONDS / 4).flat_map(|n| [0.3, 1.9, 2.9].map(|at| f64::from(n * 4) + at));
    times.map(|at| format!("{at:.1}")).collect::<Vec<_>>().join(",")
}

fn check(server: &Server, name: &str, long_gop: bool, seconds: u64) -> Program {
    let mut command = Command::new("python3");
    command.arg("-B").arg(tool("llhls_check.py")).arg(server.playlist(name)).arg("--seconds").arg(seconds.to_string());
    if long_gop {
        command.arg("--long-gop");
    }
    Program::start(command)
}
