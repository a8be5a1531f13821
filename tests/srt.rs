//! SRT with real programs: ffmpeg and GStreamer publish through libsrt, all to one port, and viewers get it.

mod common;

use std::{process::Command, time::Duration};

use common::{
    Server,
    clients::{Program, Turn},
    key_of, kill_hard,
    real::{decoded_as, seconds},
    relay::{Bound, Weather},
    streams, within,
};

/// 15 pictures a second of 320x180, and half of that where a machine is busy.
const PICTURES_MIN: u32 = 4 * 15 / 2;
/// How soon a caller must know that it is refused, and how long a busy machine may take to start a program.
const SOON: Duration = Duration::from_secs(15);

const INPUTS: &str = "-re -f lavfi -i testsrc2=s=320x180:r=15 -re -f lavfi -i sine=r=48000 -pix_fmt yuv420p";
const H264: &str = "-c:v libx264 -preset ultrafast -g 30 -b:v 300k";
const HEVC: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=error -g 30 -b:v 300k";
const AAC: &str = "-c:a aac -ac 2";
const OPUS: &str = "-c:a libopus -ac 2";
const PASSPHRASE: &str = "correct horse battery";

/// ffmpeg; `query` is what stands behind the address.
fn ffmpeg(address: &str, query: &str, coding: &[&str]) -> Program {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin"]).args(INPUTS.split(' '));
    command.args(["-t", &seconds(90, 180).to_string()]);
    command.args(coding.iter().flat_map(|part| part.split(' ')));
    command.args(["-f", "mpegts"]).arg(format!("{address}?{query}"));
    Program::start(command)
}

/// As encoders with a field for name and one for the key put it together.
fn of(stream: &str) -> String {
    format!("streamid=publish:{stream}:{}", key_of(stream))
}

/// GStreamer, with a stream id that is the key alone.
fn gstreamer(address: &str, stream: &str) -> Program {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "mpegtsmux", "name=mux", "alignment=7", "!", "srtsink", "wait-for-connection=true"]);
    command.arg(format!("uri={address}?mode=caller")).arg(format!("streamid={}", key_of(stream)));
    let picture = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! x264enc tune=zerolatency \
                   speed-preset=ultrafast bitrate=300 key-int-max=30 ! h264parse ! mux.";
    let sound = "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! audioconvert ! opusenc ! mux.";
    command.args(picture.split_whitespace()).args(sound.split_whitespace());
    Program::start(command)
}

fn ended(server: &Server, outcome: &str) -> f64 {
    server.metric(&format!("codecast_srt_sessions_total{{outcome=\"{outcome}\"}}"))
}

/// The caller is told, and the server counts it once.
fn refused(server: &Server, mut caller: Program, outcome: &str) {
    assert!(!caller.finish(SOON).success(), "it is told");
    within(SOON, outcome, || (ended(server, outcome) == 1.0).then_some(()));
}

/// Of a process of ours that has one.
fn udp_port(pid: u32) -> u16 {
    let output = Command::new("ss").arg("-ulnpH").output().expect("iproute2 is installed by `make test`");
    let listed = String::from_utf8_lossy(&output.stdout);
    let line = listed.lines().find(|line| line.contains(&format!("pid={pid},"))).unwrap_or_else(|| panic!("{listed}"));
    let port = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:")?.parse().ok());
    port.unwrap_or_else(|| panic!("{line}"))
}

fn plays(server: &Server, stream: &str, codec: &str) {
    server.playable(stream);
    let frames = decoded_as(server, stream, codec);
    assert!(frames >= PICTURES_MIN, "{frames} of {stream}");
}

#[test]
fn publishers_of_every_kind_share_one_port() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["ffmpeg", "access", "gst", "free"]));
    let first = ffmpeg(&server.srt, &of("ffmpeg"), &[H264, AAC]);
    let standard = format!("streamid=#!::r=access,m=publish,s={}", key_of("access"));
    let publishers = [ffmpeg(&server.srt, &standard, &[HEVC, OPUS]), gstreamer(&server.srt, "gst")];
    plays(&server, "ffmpeg", "h264");
    plays(&server, "access", "hevc");
    plays(&server, "gst", "h264");
    assert_eq!(server.metric("codecast_publishers"), 3.0);

    // Each refusal is the caller's own, in SRT's words.
    refused(&server, ffmpeg(&server.srt, "streamid=publish:free:a-wrong-key-0123456789", &[AAC]), "denied");
    refused(&server, ffmpeg(&server.srt, "", &[AAC]), "stream_id");
    refused(&server, ffmpeg(&server.srt, &format!("{}&passphrase={PASSPHRASE}", of("free")), &[AAC]), "passphrase");
    refused(&server, ffmpeg(&server.srt, &of("ffmpeg"), &[AAC]), "refused");
    assert_eq!(server.metric("codecast_publishers"), 3.0, "those that are live stay so");
    assert!(!server.log().contains(&key_of("ffmpeg")), "no key is logged");

    // A publisher that was cut off comes back within the resume window, before its silence was noticed.
    drop(first);
    let again = ffmpeg(&server.srt, &of("ffmpeg"), &[H264, AAC]);
    within(SOON, "the second takes over", || (ended(&server, "taken_over") == 1.0).then_some(()));
    within(SOON, "the playlist goes on", || {
        server.get("/live/ffmpeg/video.m3u8").text().contains("#EXT-X-DISCONTINUITY\n").then_some(())
    });

    // Without its receivers every publisher is told, and may come back.
    let receivers = server.children("\0receive");
    assert_eq!(receivers.len(), 3);
    receivers.into_iter().for_each(kill_hard);
    within(SOON, "all have ended", || (ended(&server, "receiver_died") == 3.0).then_some(()));
    let [mut encoder, gstreamer] = publishers;
    for publisher in [&mut encoder, &mut { again }] {
        assert!(!publisher.finish(SOON).success(), "it is told");
    }
    let last = ffmpeg(&server.srt, &of("ffmpeg"), &[H264, AAC]);
    within(SOON, "one is started again, the other calls again by itself", || {
        (server.metric("codecast_publishers") == 2.0).then_some(())
    });
    let resumed = || server.get("/live/ffmpeg/video.m3u8").text().matches("#EXT-X-DISCONTINUITY\n").count() >= 2;
    within(SOON, "and is seen", || resumed().then_some(()));
    drop((last, gstreamer));
}

#[test]
fn a_passphrase_is_asked_of_everybody() {
    let _turn = Turn::take();
    // The log tells of one refused publisher a second; of the others where it is asked to.
    let log = "[log]\nlevel = \"info,ingest=debug\"\n";
    let server = Server::start(&format!("{log}[srt]\npassphrase = \"{PASSPHRASE}\"\n{}", streams(&["demo", "free"])));
    let publisher = ffmpeg(&server.srt, &format!("{}&passphrase={PASSPHRASE}&pbkeylen=32", of("demo")), &[H264, AAC]);
    plays(&server, "demo", "h264");
    refused(&server, ffmpeg(&server.srt, &of("free"), &[AAC]), "passphrase");
    let mut wrong = ffmpeg(&server.srt, &format!("{}&passphrase=wrong-passphrase", of("free")), &[AAC]);
    assert!(!wrong.finish(SOON).success());
    within(SOON, "both are counted", || (ended(&server, "passphrase") == 2.0).then_some(()));
    assert!(server.log().contains("it has another passphrase than this server"), "{}", server.log());
    assert!(!server.log().contains(PASSPHRASE));
    let shown: String = server
        .children("\0receive")
        .iter()
        .map(|pid| format!("/proc/{pid}/cmdline"))
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect();
    assert!(shown.contains("receive") && !shown.contains("horse"), "{shown}");
    drop(publisher);
}

#[test]
fn lost_datagrams_cost_no_picture() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["demo"]));
    let link = Bound::new();
    let address = format!("srt://{}", link.address());
    let relay = link.start(server.srt.trim_start_matches("srt://").parse().expect("the ready file has a real address"));
    relay.set(Weather { loss_percent: 5, delay: Duration::from_millis(10), ..Weather::default() });
    // Twenty round trips: a busy machine adds some.
    let mut publisher = ffmpeg(&address, &format!("{}&latency=400000", of("demo")), &[H264, AAC, "-t 10"]);
    plays(&server, "demo", "h264");

    // Whoever else is on this machine finds the receiver's port, and is turned away by it.
    let receiver = server.children("\0receive");
    let stranger = ffmpeg(&format!("srt://127.0.0.1:{}", udp_port(receiver[0])), "", &[AAC, "-t 1"]).finish(SOON);
    assert!(!stranger.success(), "it has no business here");

    publisher.finish(Duration::from_secs(200));
    within(SOON, "it has ended", || server.log().contains("publisher ended").then_some(()));
    assert!(server.metric("codecast_srt_packets_lost_total") > 0.0, "the relay has lost some");
    assert_eq!(server.metric("codecast_ingest_dropped_total{reason=\"malformed\"}"), 0.0);
}

#[test]
fn what_is_not_taken_is_refused_by_name() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["old", "noise"]));
    let noise = "videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! srtsink";
    let mut command = Command::new("gst-launch-1.0");
    command
        .arg("-q")
        .args(noise.split(' '))
        .arg(format!("uri={}?mode=caller", server.srt))
        .arg(format!("streamid={}", of("noise").replace("streamid=", "")));
    let noise = Program::start(command);
    let mut publisher = ffmpeg(&server.srt, &of("old"), &["-c:v mpeg2video", "-c:a mp2"]);
    within(SOON, "MPEG-2 is refused", || server.log().contains("but MPEG-2 video was sent").then_some(()));
    assert_eq!(ended(&server, "media_refused"), 1.0);
    assert!(!publisher.finish(SOON).success(), "its connection ends");
    within(SOON, "noise is given up", || (ended(&server, "no_media") == 1.0).then_some(()));
    drop(noise);
    within(SOON, "no receiver is left", || server.children("\0receive").is_empty().then_some(()));
}
