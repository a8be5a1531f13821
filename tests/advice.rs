//! What a streamer is told of an encoder that could be set better, and of one that could not.

mod common;

use common::{
    Server,
    real::{Clips, publish},
    within,
};
use serde_json::Value;
use std::time::Duration;

fn advice(server: &Server) -> Vec<Value> {
    let body = server.get(&format!("/live/{}/advice.json", server.stream)).json();
    body["advice"].as_array().cloned().unwrap_or_default()
}

fn codes(advice: &[Value]) -> Vec<&str> {
    advice.iter().filter_map(|one| one["code"].as_str()).collect()
}

#[test]
fn a_badly_set_encoder_is_advised_once_in_the_log() {
    let clips = Clips::new();
    let clip = clips.encode(
        "bad",
        16,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=44100 -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 120 \
         -x264-params scenecut=0 -bf 2 -b:v 400k -c:a aac",
    );
    let server = Server::start("");
    let _publisher = publish(&clip, &server.rtmp_with_key());
    let expected = ["b_frames", "channels_mono", "keyframe_interval", "sample_rate"];
    within(Duration::from_secs(40), "all is said", || {
        let advice = advice(&server);
        expected.iter().all(|code| codes(&advice).contains(code)).then_some(())
    });
    let advice = advice(&server);
    let interval = advice.iter().find(|one| one["code"] == "keyframe_interval").unwrap();
    assert!(interval["text"].as_str().unwrap().contains("4.0 s apart"), "{interval}");
    assert!(interval["change"].as_str().unwrap().contains("Keyframe Interval 2 s"), "{interval}");
    for code in expected {
        assert_eq!(server.metric(&format!("codecast_advice_total{{code=\"{code}\"}}")), 1.0, "{code}");
        let line = format!("code=\"{code}\"");
        assert_eq!(server.log().matches(&line).count(), 1, "{code} once in:\n{}", server.log());
    }
}

#[test]
fn a_well_set_encoder_is_left_alone() {
    let clips = Clips::new();
    let clip = clips.encode(
        "good",
        16,
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset veryfast -tune zerolatency \
         -pix_fmt yuv420p -g 60 -x264-params scenecut=0 -b:v 400k -maxrate 400k -bufsize 400k -c:a aac -ac 2 -ar 48000",
    );
    let server = Server::start("");
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    common::real::away(Duration::from_secs(14));
    assert_eq!(codes(&advice(&server)), [""; 0], "{:?}", advice(&server));
}
