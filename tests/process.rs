//! The whole process: command line, configuration, start, HTTP manners, stop.

mod common;

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    Folder, Launch, Server,
    http::{self, Connection},
    until,
};
use rustix::process::Signal;

fn codecast(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_codecast")).args(args).output().expect("cargo has built it");
    (out.status.code(), String::from_utf8(out.stdout).expect("it writes text"))
}

#[test]
fn the_program_tells_its_version_and_its_configuration() {
    assert_eq!(codecast(&["--version"]), (Some(0), format!("codecast {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, reference) = codecast(&["config"]);
    assert_eq!((code, reference.as_str()), (Some(0), include_str!("../configs/codecast.toml")));
}

#[test]
fn the_reference_is_a_configuration() {
    let server = Server::start(include_str!("../configs/codecast.toml"));
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn a_start_greets_with_everything_and_logs_no_key() {
    let mut server = Launch::new("").arg("--log").arg("trace").start();
    let greeting = until("the greeting is written", || Some(server.greeting()).filter(|text| text.contains("Ctrl-C")));
    let watch = format!("{}/watch/{}", server.http_url, server.stream);
    for part in [&server.rtmp, &server.stream_key, &watch] {
        assert!(greeting.contains(part), "{part} is missing in:\n{greeting}");
    }
    let ready_file = server.folder.join("ready.json");
    assert_eq!(fs::metadata(ready_file).unwrap().permissions().mode() & 0o777, 0o600);
    let answers: String = ["/", "/watch/demo", "/metrics", "/live.json", "/nothing"].map(|path| server.get(path).text()).concat();
    assert!(server.stop().success());
    assert!(!answers.contains(&server.stream_key), "an answer told the key");
    assert!(!server.log().contains(&server.stream_key), "the log told the key");
}

#[test]
fn a_wrong_configuration_ends_the_start_with_its_line() {
    let check = |launch: Launch, part: &str| {
        let (code, log) = launch.fail();
        assert!(log.contains(part), "{log}");
        assert_eq!(code, Some(2), "{log}");
    };
    check(Launch::new("\n[http]\nadress = \"[::]:80\""), "codecast.toml line 3: did you mean `http.address`?");
    check(Launch::new("").env("CODECAST_HTTP_ADRESS", "x"), "did you mean CODECAST_HTTP_ADDRESS?");
    check(Launch::new("").arg("--http").arg("nowhere"), "`http.address` given by --http is \"nowhere\"");
    check(Launch::new("[[stream]]\nname = \"a\"\nkey = \"short\""), "`stream.key` in");
    check(Launch::new("").arg("--config").arg("/nonexistent.toml"), "cannot be used multiple times");
}

#[test]
fn the_environment_overrides_the_file_and_a_flag_overrides_both() {
    let json = |server: &mut Server| {
        assert!(server.stop().success());
        server.log().lines().next().is_some_and(|line| line.starts_with('{'))
    };
    let file = "[log]\nformat = \"text\"\nlevel = \"info\"";
    assert!(!json(&mut Launch::new(file).start()));
    assert!(json(&mut Launch::new(file).env("CODECAST_LOG_FORMAT", "json").start()));
    assert!(!json(&mut Launch::new(file).env("CODECAST_LOG_FORMAT", "json").arg("--log-format").arg("text").start()));
}

#[test]
fn configured_streams_replace_the_generated_one() {
    let server = Server::start("[[stream]]\nname = \"evening\"\nkey = \"an-evening-secret-0\"");
    assert_eq!((server.stream.as_str(), server.stream_key.as_str()), ("evening", "an-evening-secret-0"));
}

#[test]
fn a_taken_port_is_told_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, protocol, key) in [("--http", "HTTP", "http.address"), ("--rtmp", "RTMP", "rtmp.address")] {
        let (code, log) = Launch::new("").arg(flag).arg(&address).fail();
        let told = format!(
            "cannot listen on {address} for {protocol}: address in use: is another server running? choose another with {key}"
        );
        assert!(log.contains(&told), "{log}");
        assert_eq!(code, Some(1));
    }
}

#[test]
fn the_generated_key_is_kept() {
    let folder = Folder::new();
    let data = folder.join("data");
    let key = || {
        let mut server = Launch::new("").data_dir(&data).start();
        assert!(server.stop().success());
        server.stream_key.clone()
    };
    assert_eq!(key(), key());
    fs::write(data.join("stream-key.json"), "{\"stream\":").unwrap();
    let (code, log) = Launch::new("").data_dir(&data).fail();
    assert!(log.contains("put the file right, or remove it"), "{log}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_signal_ends_it_orderly_and_soon() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start("");
        // One that rests, one that has sent half a head: neither may hold the stop up.
        let mut resting = Connection::open(server.http);
        resting.get("/healthz");
        let mut half = Connection::open(server.http);
        half.send(b"GET / HT");
        let start = Instant::now();
        server.signal(signal);
        let status = server.wait();
        assert!(status.success(), "{status}");
        assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
        assert!(resting.is_closed_clean());
        assert!(server.log().contains("shutting down"));
    }
}

#[test]
fn health_readiness_and_metrics_are_told() {
    let server = Server::start("");
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(server.metric(&format!("codecast_build_info{{version=\"{version}\"}}")), 1.0);
    until("only the connection that asks is open", || (server.metric("codecast_http_connections") == 1.0).then_some(()));
    assert!(server.metric("process_resident_memory_bytes") > 1e6);
    assert!(server.metric("process_open_fds") > 3.0);
    assert!(server.metric("process_start_time_seconds") > 1e9);
    until("closed connections are counted", || {
        Some(server.metric("codecast_http_connections_total{outcome=\"closed\"}")).filter(|count| *count >= 7.0)
    });
}

#[test]
fn pages_are_there_and_what_is_not_there_is_a_problem() {
    let server = Server::start("");
    for path in ["/", "/watch/demo", "/watch/not-yet-live"] {
        let page = server.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{path}");
    }
    let page = server.get("/watch/no%20such.name");
    assert_eq!(page.status, 404);
    assert!(page.text().contains("No stream can have this name"));
    let check = |method: &str, path: &str, status: u16| {
        let answer = http::request(server.http, method, path, &[]);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {path}");
        assert_eq!(answer.json()["status"], status, "{method} {path}");
    };
    check("GET", "/nothing", 404);
    check("GET", "/assets/nothing.js", 404);
    check("GET", "/assets/../Cargo.toml", 404);
    check("POST", "/", 405);
    check("DELETE", "/healthz", 405);
}

#[test]
fn heads_come_in_every_legal_shape() {
    let server = Server::start("");
    let mut bytewise = Connection::open(server.http);
    for byte in b"GET /healthz HTTP/1.1\r\nhOST: localhost\r\nX-EMPTY:\r\n\r\n" {
        bytewise.send(&[*byte]);
    }
    assert_eq!(bytewise.response("GET").status, 200);
    assert_eq!(bytewise.get("/healthz").status, 200, "the connection goes on");

    let mut pipelined = Connection::open(server.http);
    pipelined.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(pipelined.response("GET").status, 200);
    assert_eq!(pipelined.response("GET").status, 404);

    let mut expecting = Connection::open(server.http);
    let answer = expecting.request("POST", "/", &[("Expect", "100-continue"), ("Content-Length", "5")]);
    assert_eq!(answer.status, 405, "the final answer needs no body");

    let head = http::request(server.http, "HEAD", "/healthz", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn what_is_not_http_is_closed_and_the_server_goes_on() {
    let server = Server::start("");
    let mut tls = Connection::open(server.http);
    // The head of a ClientHello, and some of its body.
    tls.send(&[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat());
    assert!(tls.is_closed_clean(), "TLS gets a clean close");
    let mut garbage = Connection::open(server.http);
    garbage.send(b"\x03rtmp?\r\n\r\n");
    assert_eq!(garbage.response("GET").status, 400);
    let mut endless = Connection::open(server.http);
    // More than a head may have; the server may close before it has taken all.
    let _ = TcpStream::write_all(&mut TcpStream::connect(server.http).unwrap(), &[b'a'; 1 << 20]);
    endless.send(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20 << 10)).as_bytes());
    assert!(endless.try_response("GET").is_none_or(|answer| answer.status == 431));
    assert_eq!(server.get("/healthz").status, 200);
    until("the outcomes are counted", || {
        (server.metric("codecast_http_connections_total{outcome=\"tls\"}") == 1.0
            && server.metric("codecast_http_connections_total{outcome=\"not_http\"}") >= 2.0)
            .then_some(())
    });
}

#[test]
fn slow_and_silent_connections_are_closed() {
    let server = Server::start("[http]\nheader_timeout = \"200ms\"\nidle_timeout = \"400ms\"");
    let mut silent = Connection::open(server.http);
    let mut slow = Connection::open(server.http);
    slow.send(b"GET / HTTP/1.1\r\nHost:");
    let mut idle = Connection::open(server.http);
    idle.get("/healthz");
    assert!(silent.is_closed_clean());
    assert!(slow.is_closed_clean());
    assert!(idle.is_closed_clean());
    until("they are counted", || {
        (server.metric("codecast_http_connections_total{outcome=\"slow_head\"}") == 2.0
            && server.metric("codecast_http_connections_total{outcome=\"idle\"}") >= 1.0)
            .then_some(())
    });
}

#[test]
fn one_connection_too_many_is_told_so() {
    for (config, outcome) in
        [("[http]\nconnections_max = 3", "refused_full"), ("[http]\nconnections_per_address_max = 3", "refused_address")]
    {
        let server = Server::start(config);
        let mut seated: Vec<_> = (0..3).map(|_| Connection::open(server.http)).collect();
        seated.iter_mut().for_each(|connection| assert_eq!(connection.get("/healthz").status, 200));
        let refused = http::get(server.http, "/healthz");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json()["status"], 503);
        assert!(refused.header("retry-after").is_some());
        seated.pop();
        until("the seat is free again", || (http::get(server.http, "/healthz").status == 200).then_some(()));
        let refusals = format!("codecast_http_connections_total{{outcome=\"{outcome}\"}}");
        until("the refusal is counted", || (server.metric(&refusals) >= 1.0).then_some(()));
    }
}

#[test]
fn without_descriptors_the_server_waits_and_goes_on() {
    let server = Launch::with_open_files_max(48, "").start();
    let mut crowd: Vec<_> = (0..60).map(|_| TcpStream::connect(server.http).unwrap()).collect();
    until("accepting has failed", || server.log().contains("cannot accept an HTTP connection").then_some(()));
    crowd.clear();
    assert_eq!(server.get("/healthz").status, 200);
    assert!(server.metric("codecast_http_accept_errors_total") >= 1.0);
}

/// Asks for far more than two sockets hold and takes none of it. Returns when they are full.
fn greedy(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).expect("the server accepts");
    let requests = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5000);
    stream.write_all(requests.as_bytes()).expect("the sockets hold the requests");
    let mut arrived = vec![0; 32 << 20];
    let (mut most, mut since) = (0, Instant::now());
    until("nothing more arrives", || {
        let now = stream.peek(&mut arrived).expect("the server answers");
        if now > most {
            (most, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(500)).then_some(())
    });
    stream
}

#[test]
fn a_viewer_that_takes_nothing_is_closed() {
    let server = Server::start("[http]\nwrite_timeout = \"300ms\"");
    let _greedy = greedy(&server);
    until("it is counted", || (server.metric("codecast_http_connections_total{outcome=\"slow_reader\"}") == 1.0).then_some(()));
}

#[test]
fn nobody_holds_a_stop_up_beyond_its_deadline() {
    let mut server = Server::start("[shutdown]\ndeadline = \"1s\"");
    let _greedy = greedy(&server);
    assert!(server.stop().success());
    assert!(server.log().contains("stopped at the deadline"));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start("[shutdown]\ndeadline = \"300s\"");
    let _greedy = greedy(&server);
    server.signal(Signal::TERM);
    until("it drains", || server.log().contains("shutting down").then_some(()));
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(130));
}

#[test]
fn other_origins_may_ask_for_media() {
    let server = Server::start("");
    let preflight = http::request(server.http, "OPTIONS", "/live/demo/index.m3u8", &[("Origin", "https://example.org")]);
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    let offline = server.get("/live/demo/index.m3u8");
    assert_eq!(offline.status, 404);
    assert_eq!(offline.header("access-control-allow-origin"), Some("*"));
    assert_eq!(offline.header("cache-control"), Some("no-store"));
}
