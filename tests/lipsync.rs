//! What a viewer hears: each side of a stereo sound on its own side, and a clap when it is seen, by WebRTC from RTMP and
//! from WHIP, with a sound that is transcoded and a picture that is, too.

mod common;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use common::{
    Server,
    clients::{Program, Turn},
    key_of,
    peers::{node, told},
    real::{Client, Clips, ffmpeg, publish, seconds},
    streams,
};
use serde_json::Value;

/// The tones of the two sides.
const LEFT_HZ: f64 = 440.0;
const RIGHT_HZ: f64 = 880.0;
/// What of one side may be heard on the other: nobody hears a sound that is so much weaker beside it.
const APART_DB: f64 = 20.0;
/// By how much later the tool hears a sound than the browser believes to play it: its own output, 15 to 50 ms.
const OUTPUT_MS: f64 = 35.0;
/// How far the sound may be from the picture in five claps of the watched ones: viewers notice a sound that is 45 ms early
/// or 125 ms late (ITU-R BT.1359-1).
const APART_MS: f64 = 125.0;
/// How far what is seen and heard may be from what the server's sender reports say.
const UNTRUE_MS: f64 = 50.0;

/// A viewer by WHEP; its tool watches for so long.
struct Viewer {
    program: Program,
    patience: Duration,
}

impl Viewer {
    fn start(script: &str, server: &Server, stream: &str, length: u32) -> Self {
        let url = format!("{}/whep/{stream}", server.http_url);
        let command = node(script, &[&url, &length.to_string()]);
        Self { program: Program::start(command), patience: Duration::from_secs(u64::from(length) + 60) }
    }

    fn told(mut self) -> Value {
        self.program.finish(self.patience);
        told(&self.program)
    }
}

#[test]
fn each_side_is_heard_on_its_own() {
    let _turn = Turn::take();
    let server = Server::start(&streams(&["whip", "rtmp"]));
    let url = format!("{}/whip/whip", server.http_url);
    let mut by_whip = node("tools/webrtc-obs.mjs", &[&url, &key_of("whip"), &seconds(60, 120).to_string()]);
    by_whip.args(["--left", &LEFT_HZ.to_string(), "--right", &RIGHT_HZ.to_string()]);
    let _whip = Program::start(by_whip);
    let _rtmp = publish_tones(&server.rtmp_of("rtmp"));
    let length = seconds(5, 30);
    let viewers = ["whip", "rtmp"].map(|stream| (stream, Viewer::start("tools/webrtc-listen.mjs", &server, stream, length)));
    for (stream, viewer) in viewers {
        let heard = viewer.told();
        println!("{stream}: {heard}");
        for (side, hz) in [("left", LEFT_HZ), ("right", RIGHT_HZ)] {
            let strongest = heard[side]["hz"].as_f64().unwrap_or(0.0);
            assert!((strongest - hz).abs() <= 10.0, "{stream}, {side}: {strongest} Hz, not {hz}: {heard}");
            assert!(heard[side]["apartDb"].as_f64() >= Some(APART_DB), "{stream}, {side} has of the other side: {heard}");
        }
    }
}

/// AAC, as OBS sends it.
fn publish_tones(url: &str) -> Client {
    let mut command = ffmpeg();
    let sound = format!("aevalsrc=0.4*sin(2*PI*{LEFT_HZ}*t)|0.4*sin(2*PI*{RIGHT_HZ}*t):s=48000");
    command.args(["-re", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30", "-re", "-f", "lavfi", "-i", &sound]);
    let coding = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac -b:a 160k -f flv";
    command.args(coding.split_whitespace()).arg(url);
    Client::start(command)
}

#[test]
fn a_clap_is_heard_when_it_is_seen() {
    let _turn = Turn::take();
    let clips = Clips::new();
    // What is sent as it came, beside a sound that is made; and a picture that is made as well.
    let sources = [("source", "0"), ("reordered", "2")].map(|(stream, bframes)| (stream, claps(&clips, stream, bframes)));
    let server = Server::start(&streams(&sources.each_ref().map(|(stream, _)| *stream)));
    let _publishers =
        sources.each_ref().map(|(stream, clip): &(&str, PathBuf)| publish(Path::new(clip), &server.rtmp_of(stream)));
    // The browser needs 8 to 15 s to move sound and picture together.
    let length = seconds(18, 60);
    let viewers =
        sources.each_ref().map(|(stream, _)| (*stream, Viewer::start("tools/webrtc-clap.mjs", &server, stream, length)));
    for (stream, viewer) in viewers {
        let seen = viewer.told();
        println!("{stream}: {seen}");
        assert!(seen["claps"].as_u64() >= Some(u64::from(length) / 2), "{stream}: too few claps: {seen}");
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{stream}: not measured: {seen}"));
        let late = number(&seen["steadyMs"]) - OUTPUT_MS;
        assert!(late.abs() <= APART_MS, "{stream}: the sound is {late} ms late: {seen}");
        let untrue = number(&seen["skewMs"]["p50"]) - number(&seen["playoutSkewMs"]["p50"]) - OUTPUT_MS;
        assert!(untrue.abs() <= UNTRUE_MS, "{stream}: the sender reports are {untrue} ms off: {seen}");
    }
}

/// A minute of black with three white pictures and 40 ms of a tone at the beginning of each second.
fn claps(clips: &Clips, name: &str, bframes: &str) -> PathBuf {
    let coding = format!(
        "-f lavfi -i color=black:s=640x360:r=30 -f lavfi -i aevalsrc=0.8*sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.04):s=48000 \
         -vf drawbox=t=fill:c=white:enable=lt(mod(n\\,30)\\,3) -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 60 -bf {bframes} \
         -b:v 500k -c:a aac -ac 2 -b:a 160k"
    );
    clips.encode(name, 60, &coding)
}
