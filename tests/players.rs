//! Real publishers against real players: frames shown, sound heard, nothing broken.

mod common;

use std::process::Command;

use common::{
    Server,
    real::{Client, Clips, ffmpeg, play, publish, seconds, told},
    until,
};
use serde_json::Value;

/// Chromium's players on one stream: each must show nearly every picture.
fn assert_plays(server: &Server, stream: &str, fps: u32) {
    let run = seconds(12, 60);
    let playlist = format!("{}/live/{stream}/index.m3u8", server.http_url);
    let page = format!("{}/watch/{stream}?transport=hls", server.http_url);
    for seen in play(run, &[("hls.js", &playlist), ("shaka", &playlist), ("page", &page)]) {
        let frames = seen["frames"].as_u64().unwrap_or(0);
        // A busy machine starts late and drops pictures; a player that is stuck shows a handful.
        assert!(frames > u64::from(run * fps) / 2, "{seen}");
        assert!(seen["currentTimeAdvancedS"].as_f64() > Some(f64::from(run) / 2.0), "{seen}");
        assert!(seen["audioBytes"].as_u64() > Some(0), "no sound: {seen}");
        let fatal = |errors: &Value| errors.as_object().is_some_and(|e| e.keys().any(|name| name.contains("fatal")));
        assert!(!fatal(&seen["errors"]), "{seen}");
    }
}

/// Shaka 5.2.12 asks for the address `undefined` when a presentation has few whole segments yet.
fn wait_for_segments(server: &Server, stream: &str) {
    until(&format!("{stream} has segments"), || {
        (server.get(&format!("/live/{stream}/audio.m3u8")).text().matches("#EXTINF").count() >= 4).then_some(())
    });
}

#[test]
fn an_ffmpeg_stream_with_b_frames_plays_everywhere() {
    let clips = Clips::new();
    let clip = clips.encode(
        "bframes",
        8,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=44100 -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 60 -bf 2 \
         -b:v 400k -c:a aac",
    );
    let server = Server::start("");
    let _publisher = publish(&clip, &server.rtmp_with_key());
    wait_for_segments(&server, &server.stream);
    assert_plays(&server, &server.stream, 30);

    // A player that knows nothing of parts reads whole segments, from the beginning of what is listed.
    let url = format!("{}/live/{}/index.m3u8", server.http_url, server.stream);
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height,channels", "-of", "csv=p=0", &url])
        .output()
        .expect("ffmpeg's package brings ffprobe");
    let found = told(&probe);
    assert!(found.contains("h264,320,180") && found.contains("aac,1"), "{found}");
    let mut decode = ffmpeg();
    decode.args(["-i", &url, "-t", "4", "-map", "0:v", "-map", "0:a", "-f", "null", "-"]);
    let decoded = decode.output().expect("ffmpeg is installed");
    assert!(decoded.status.success() && told(&decoded).trim().is_empty(), "{}", told(&decoded));
}

#[test]
fn a_gstreamer_stream_plays_everywhere() {
    let server = Server::start("");
    // It has a machine of its own elsewhere: where browsers that start take this one from it, its pictures are late and its times wrong.
    let mut command = Command::new("nice");
    command.args(
        "-n -15 gst-launch-1.0 -q videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! x264enc tune=zerolatency \
         speed-preset=ultrafast key-int-max=60 bitrate=400 ! h264parse ! queue ! mux. \
         audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! queue ! mux. \
         flvmux name=mux streamable=true ! rtmp2sink"
            .split_whitespace(),
    );
    command.arg(format!("location={}", server.rtmp_with_key()));
    let _publisher = Client::start(command);
    wait_for_segments(&server, &server.stream);
    assert_plays(&server, &server.stream, 30);
}
