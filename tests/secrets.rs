//! A stream key is told to its streamer alone: after a life with everything in it, nothing else holds it (field case 36).

mod common;

use common::{
    Launch, Server,
    clients::Turn,
    real::{Clips, publish},
    until,
};

/// A key that opens nothing is somebody's all the same: often the right one of another service.
const WRONG: &str = "a-wrong-secret-98765";
const ORDINARY: &str = "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast \
                        -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac";

#[test]
fn a_key_appears_nowhere() {
    let _turn = Turn::take();
    let mut server = Launch::new("").arg("--log").arg("trace").start();
    let clips = Clips::new();
    let clip = clips.encode("clip", 8, ORDINARY);

    let first = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let refused = publish(&clip, &format!("{}/{WRONG}", server.rtmp));
    let mut told = everything(&server);
    // A second publisher with the same key while the first one lives, a publisher that dies: their logs and errors too.
    let second = publish(&clip, &server.rtmp_with_key());
    let outcome = |outcome: &str| server.metric(&format!("codecast_rtmp_connections_total{{outcome=\"{outcome}\"}}"));
    until("the wrong key is refused", || (outcome("denied") >= 1.0).then_some(()));
    until("the second publisher is refused beside the first", || (outcome("refused") >= 1.0).then_some(()));
    first.kill();
    second.kill();
    refused.kill();
    until("the publishers are gone", || (server.metric("codecast_publishers") == 0.0).then_some(()));
    told += &everything(&server);

    assert!(server.stop().success());
    told += &server.log();
    for secret in [server.stream_key.as_str(), WRONG] {
        let found = told.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "a key was told: {found:?}");
    }
    assert!(told.contains("#EXTINF") && told.contains("codecast_publishers"), "too little was looked at");
}

/// Who takes the key for the stream's name is not shown it again: such an answer ends in a screenshot or a log.
#[test]
fn an_answer_does_not_repeat_a_key() {
    let server = Server::start("");
    let key = &server.stream_key;
    for path in ["/KEY", "/watch/KEY", "/live/KEY/index.m3u8", "/live/KEY/status.json", "/live/KEY/video/1/s0.m4s"] {
        let answer = server.get(&path.replace("KEY", key));
        let told = format!("{:?} {}", answer.headers, answer.text());
        assert!(!told.contains(key), "{path}: {told}");
    }
}

/// All that a guest can ask for: pages, status, metrics, every playlist, and what the server says to a wrong request.
fn everything(server: &Server) -> String {
    let stream = &server.stream;
    let multivariant = until("a segment is listed", || {
        let text = server.get(&format!("/live/{stream}/index.m3u8")).text();
        let medias: Vec<_> = text.lines().filter(|line| line.ends_with(".m3u8")).map(str::to_owned).collect();
        let listed = medias.first().is_some_and(|m| server.get(&format!("/live/{stream}/{m}")).text().contains("#EXTINF"));
        listed.then_some(text)
    });
    let mut paths: Vec<_> = ["/", "/metrics", "/live.json", "/healthz", "/readyz", "/nothing"].map(String::from).into();
    paths.push(format!("/watch/{stream}"));
    paths.push(format!("/live/{stream}/status.json"));
    paths.push(format!("/live/{stream}/index.m3u8"));
    paths.extend(multivariant.lines().filter(|line| line.ends_with(".m3u8")).map(|media| format!("/live/{stream}/{media}")));
    paths.iter().fold(String::new(), |told, path| {
        let answer = server.get(path);
        told + &format!("{:?}\n{}\n", answer.headers, answer.text())
    })
}
