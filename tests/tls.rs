//! HTTPS and RTMPS as clients see them: HTTP/2 and HTTP/1.1, certificates that are renewed, and guests who mean harm.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use common::{
    Folder, Launch, Server,
    clients::{Program, Turn},
    real::{Clips, ffmpeg, play, publish, tool},
    within,
};
use serde_json::Value;

const CLIP: &str = "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
                    -g 60 -b:v 300k -c:a aac";

/// What the tool says of a request by HTTP/2.
fn http2(mode: &str, url: &str, amount: &str) -> Value {
    told(started(mode, url, amount))
}

fn started(mode: &str, url: &str, amount: &str) -> Program {
    let mut command = Command::new("node");
    command.arg(tool("tools/http2.mjs")).args([mode, url, amount]);
    Program::start(command)
}

fn told(mut program: Program) -> Value {
    program.finish(Duration::from_secs(40));
    let said = program.said();
    said.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("no JSON in {said}"))
}

/// A pair of PEM files that belong together.
fn certify(folder: &Path, name: &str) {
    let mut command = Command::new("openssl");
    command
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj".split(' '))
        .arg(format!("/CN={name}"));
    command.args(["-keyout"]).arg(folder.join("new-key.pem")).arg("-out").arg(folder.join("new-certificate.pem"));
    let made = command.output().expect("openssl is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // The key first, as certbot writes: for a moment they do not belong together.
    for file in ["key.pem", "certificate.pem"] {
        fs::rename(folder.join(format!("new-{file}")), folder.join(file)).expect("they are in one folder");
    }
}

#[test]
fn a_publisher_by_rtmps_is_watched_by_http2() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let clip = clips.encode("clip", 20, CLIP);
    let server = Server::start("");
    let _publisher = publish(&clip, &format!("{}/{}", server.rtmps, server.stream_key));
    server.playable(&server.stream);
    let playlist = format!("{}/live/{}/index.m3u8", server.https_url, server.stream);
    let got = http2("get", &playlist, "");
    assert_eq!((&got["status"], &got["type"]), (&200.into(), &"application/vnd.apple.mpegurl".into()), "{got}");
    let played = &play(6, &[("hls.js", &playlist)])[0];
    assert!(played["frames"].as_f64() >= Some(60.0), "{played}");
    assert_eq!(server.metric("codecast_publishers"), 1.0);
}

#[test]
fn http1_is_kept_and_plain_http_is_told_the_way() {
    let server = Server::start("");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--http1.1", "--write-out", "%{http_code} %{http_version}"]);
    let got = curl.arg(format!("{}/healthz", server.https_url)).output().expect("curl is there");
    let said = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(said.ends_with("200 1.1"), "{said}");
    let address = server.https_url.trim_start_matches("https://");
    let mut plain = TcpStream::connect(address).expect("the server accepts");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it takes bytes");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
}

#[test]
fn a_session_url_is_told_as_it_was_reached() {
    let server = Server::start("");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--include", "--request", "POST", "--header", "Content-Type: application/sdp"]);
    curl.args(["--header", &format!("Authorization: Bearer {}", server.stream_key), "--header", "codecast-scheme: gopher"]);
    let offer = fs::read_to_string(tool("../transport/testdata/sdp/chromium156-whip-simulcast.sdp")).expect("a recorded offer");
    curl.args(["--data-binary", &offer]).arg(format!("{}/whip/{}", server.https_url, server.stream));
    let got = curl.output().expect("curl is there");
    let said = String::from_utf8_lossy(&got.stdout).to_lowercase();
    assert!(said.starts_with("http/2 201") && said.contains(&format!("location: {}/whip/", server.https_url)), "{said}");
}

#[test]
fn a_renewed_certificate_costs_no_connection() {
    let folder = Folder::new();
    certify(folder.path(), "first");
    let config = format!("[tls]\ncertificate = \"{0}/certificate.pem\"\nkey = \"{0}/key.pem\"\n", folder.path().display());
    let server = Launch::new(&config).start();
    let url = format!("{}/healthz", server.https_url);
    let first = http2("get", &url, "")["certificate"].clone();
    let stays = started("stay", &url, "12");
    certify(folder.path(), "second");
    within(Duration::from_secs(20), "the new certificate is in force", || {
        (http2("get", &url, "")["certificate"] != first).then_some(())
    });
    // What is no certificate changes nothing.
    fs::write(folder.path().join("certificate.pem"), "garbage").expect("it can be written");
    within(Duration::from_secs(20), "the log says so", || server.log().contains("the one before stays").then_some(()));
    assert_ne!(http2("get", &url, "")["certificate"], first);
    let stayed = told(stays);
    assert!(stayed["answered"].as_u64() > Some(20), "{stayed}");
    assert_eq!((&stayed["certificate"], &stayed["ended"]), (&first, &false.into()), "{stayed}");
}

/// The address of a playlist that comes with the segment after the open one.
fn held(server: &Server) -> String {
    let playlist = server.get(&format!("/live/{}/video.m3u8", server.stream)).text();
    let first = playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")?.parse::<usize>().ok());
    let msn = first.expect("every playlist tells it") + playlist.matches("#EXTINF").count() + 1;
    format!("{}/live/{}/video.m3u8?_HLS_msn={msn}", server.https_url, server.stream)
}

#[test]
fn guests_who_mean_harm_by_http2_harm_themselves() {
    let server = Server::start("[http]\nwrite_timeout = \"1s\"\nheader_timeout = \"1s\"\n[tls]\nhandshake_timeout = \"1s\"\n");
    let page = format!("{}/", server.https_url);
    let ended = |reason: &str| server.metric(&format!("codecast_http_connections_total{{outcome=\"{reason}\"}}"));

    // What is held is certainly not answered before it is given up, as a page may be.
    let clips = Clips::new();
    let publisher = publish(&clips.encode("clip", 20, CLIP), &server.rtmp_with_key());
    server.playable(&server.stream);
    // The server is asked, since node at times does not notice that its socket is gone.
    let resetting = started("reset", &held(&server), "20000");
    within(Duration::from_secs(20), "it was shown the door", || (ended("rapid_reset") >= 1.0).then_some(()));
    drop((resetting, publisher));

    let headers = http2("headers", &page, "512");
    assert_ne!(headers["status"], 200, "{headers}");

    let shut = http2("shut", &page, "");
    assert_eq!(shut["ended"], true, "{shut}");
    within(Duration::from_secs(5), "it is counted", || (ended("slow_reader") >= 1.0).then_some(()));

    // Half a handshake, and one that is none.
    let address = server.https_url.trim_start_matches("https://").to_owned();
    let mut silent: Vec<_> = (0..50).map(|_| TcpStream::connect(&address).expect("the server accepts")).collect();
    for half in silent.iter_mut().take(25) {
        half.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("a few bytes fit");
    }
    within(Duration::from_secs(10), "all were shown the door", || (ended("tls_slow") >= 50.0).then_some(()));
    let mut garbage = TcpStream::connect(&address).expect("the server accepts");
    garbage.write_all(&[0x16; 600]).expect("a few bytes fit");
    within(Duration::from_secs(5), "it is counted", || (ended("tls_refused") >= 1.0).then_some(()));

    // Who asks for a challenge that there is not, as a directory would.
    let mut stranger = Command::new("openssl");
    stranger.args(["s_client", "-alpn", "acme-tls/1", "-servername", "cast.test", "-connect", &address]);
    assert!(!stranger.output().expect("openssl is there").status.success());
    within(Duration::from_secs(5), "it is counted", || (ended("tls_refused") >= 2.0).then_some(()));

    assert_eq!(http2("get", &page, "")["status"], 200, "everybody else is served");
    // A TLS handshake on the port of RTMPS that never ends is no connection of a publisher.
    let rtmps = server.rtmps.trim_start_matches("rtmps://").split('/').next().unwrap_or_default().to_owned();
    let mut publisher = ffmpeg();
    publisher.args("-f lavfi -i testsrc=s=64x64 -t 1 -c:v flv -f flv".split(' ')).arg(format!("rtmp://{rtmps}/live/x"));
    assert!(!publisher.output().expect("ffmpeg is there").status.success());
    let refused = || server.metric("codecast_rtmp_connections_total{outcome=\"tls_refused\"}");
    within(Duration::from_secs(20), "it is counted", || (refused() >= 1.0).then_some(()));
}
