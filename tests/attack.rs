//! Guests who mean harm beside a publisher and viewers who do not: each attack of docs/security.md by itself, then all at
//! once. The viewers see no stall, each attack moves its counter, and memory levels off.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use rustix::thread::gettid;

use common::{
    Server,
    clients::{Program, Turn},
    peers::view,
    real::{Clips, checker, publish, seconds, told, tool},
    within,
};

/// Everybody is let in, so that bounds and timeouts are tested and not the door; and shown out soon.
const CONFIG: &str = "[http]\nheader_timeout = \"2s\"\nwrite_timeout = \"2s\"\n[tls]\nhandshake_timeout = \"2s\"\n\
                      [rtmp]\npending_max = 800\npending_per_address_max = 800\nhandshake_timeout = \"2s\"\npublish_timeout = \"2s\"\n\
                      [webrtc]\nsessions_max = 200\n";
const ORDINARY: &str = "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast \
                        -tune zerolatency -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac";
/// Until an attack is told: its timeout, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What memory may differ by after all attacks, and after all of them again: the allocator keeps what it once had.
const KEPT_MIB_MAX: f64 = 64.0;
const LEAKED_MIB_MAX: f64 = 8.0;

struct Attack {
    name: &'static str,
    /// Answers how many bytes it has sent.
    run: fn(&Server) -> usize,
    counter: &'static str,
    /// What that counts at least.
    least: f64,
}

impl Attack {
    /// With what everybody else leaves of the processors: real attackers have machines of their own, and what is asked is whether
    /// they keep the server from its viewers, not whether they keep a browser beside them from its pictures.
    fn launch(&self, server: &Server) -> usize {
        let attack = || {
            let me = gettid().as_raw_nonzero().to_string();
            let idle = Command::new("chrt").args(["--idle", "--pid", "0", &me]).status().expect("util-linux has it");
            assert!(idle.success(), "less is always allowed");
            (self.run)(server)
        };
        thread::scope(|scope| scope.spawn(attack).join().expect("an attack that cannot be made has said why"))
    }
}

const ATTACKS: [Attack; 17] = [
    Attack {
        name: "half an RTMP handshake, 300 times",
        run: |server| outlast((0..300).map(|n| hold(rtmp(server), &[3; 1000][..n]))),
        counter: "codecast_rtmp_connections_total{outcome=\"handshake_timeout\"}",
        least: 299.0,
    },
    Attack {
        name: "HTTP on RTMP's port",
        run: |server| outlast((0..100).map(|_| hold(rtmp(server), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))),
        counter: "codecast_rtmp_connections_total{outcome=\"not_rtmp\"}",
        least: 100.0,
    },
    Attack {
        name: "an RTMP message of 16 MiB, announced",
        run: |server| outlast((0..50).map(|_| behind_handshake(server, &chunks(20, 0xff_ffff, &[0; 128])))),
        counter: "codecast_rtmp_connections_total{outcome=\"violation\"}",
        least: 50.0,
    },
    Attack {
        name: "AMF0 objects in objects, 15,000 deep",
        run: |server| outlast((0..20).map(|_| behind_handshake(server, &nested_connect()))),
        counter: "codecast_rtmp_connections_total{outcome=\"violation\"}",
        least: 20.0,
    },
    Attack {
        name: "stream keys, guessed",
        run: |server| {
            let recorded = fs::read(tool("../ingest/testdata/ffmpeg-5.1.9.bin")).expect("a recorded publisher");
            outlast((0..30).map(|_| behind_handshake(server, &recorded[1 + 2 * 1536..])))
        },
        counter: "codecast_rtmp_connections_total{outcome=\"denied\"}",
        least: 30.0,
    },
    Attack {
        name: "a request's head that never ends, 200 times",
        run: |server| outlast((0..200).map(|_| hold(server.http, b"GET / HTTP/1.1\r\nX-Slow: 1"))),
        counter: "codecast_http_connections_total{outcome=\"slow_head\"}",
        least: 199.0,
    },
    Attack {
        name: "a request's head of 512 KiB",
        run: |server| outlast((0..20).map(|_| hold(server.http, &huge_head()))),
        counter: "codecast_http_connections_total{outcome=\"not_http\"}",
        least: 20.0,
    },
    Attack {
        name: "blocking reloads of the far future",
        run: |server| {
            let path = format!("/live/{}/video.m3u8?_HLS_msn=99999999999&_HLS_part=7", server.stream);
            (0..500).map(|_| server.get(&path).status).for_each(|status| assert_eq!(status, 400));
            500 * path.len()
        },
        counter: "codecast_hls_requests_total{asked=\"playlist\",status=\"4xx\"}",
        least: 500.0,
    },
    Attack {
        name: "answers that are never read",
        run: |server| outlast((0..30).map(|_| hold(server.http, &endless_requests(server)))),
        counter: "codecast_http_connections_total{outcome=\"slow_reader\"}",
        least: 20.0,
    },
    Attack {
        name: "HTTP/2 requests given up as soon as they are made",
        run: |server| http2("reset", &format!("{}/healthz", server.https_url), "20000"),
        counter: "codecast_http_connections_total{outcome=\"rapid_reset\"}",
        least: 1.0,
    },
    Attack {
        name: "half a TLS handshake",
        run: |server| outlast((0..100).map(|_| hold(https(server), &[0x16, 3, 1, 2, 0, 1]))),
        counter: "codecast_http_connections_total{outcome=\"tls_slow\"}",
        least: 99.0,
    },
    Attack {
        name: "WHIP with guessed bearer tokens",
        run: |server| {
            let offer = sdp("chromium156-whip-h264.sdp");
            (0..50).map(|n| post(server, "whip", &format!("guessed-key-number-{n:04}"), &offer, 403)).sum()
        },
        counter: "codecast_whip_sessions_total{result=\"denied\"}",
        least: 50.0,
    },
    Attack {
        name: "WHEP offers of viewers that never come",
        run: |server| {
            let offer = sdp("chromium156-whep.sdp");
            (0..200).map(|_| post(server, "whep", "", &offer, 201)).sum()
        },
        counter: "codecast_webrtc_sessions_closed_total{reason=\"crowded_out\"}",
        least: 140.0,
    },
    Attack {
        name: "forged checks",
        run: |server| flood(server.webrtc, forged_check),
        counter: "codecast_webrtc_received_datagrams_total{fate=\"forged\"}",
        least: 500.0,
    },
    Attack {
        name: "DTLS and RTP from nowhere",
        run: |server| flood(server.webrtc, |n| [if n % 2 == 0 { 22 } else { 0x80 }; 1200].to_vec()),
        counter: "codecast_webrtc_received_datagrams_total{fate=\"unproved\"}",
        least: 500.0,
    },
    Attack {
        name: "ICE-TCP connections that lie of a length",
        run: |server| outlast((0..100).map(|_| hold(server.webrtc, &[0xff; 64]))),
        counter: "codecast_webrtc_tcp_refused_total",
        least: 100.0,
    },
    Attack {
        name: "SRT handshakes with a cookie that is none",
        run: |server| {
            let conclusion = fs::read(tool("../ingest/testdata/srt/conclusion.bin")).expect("a recorded handshake");
            flood(server.srt.trim_start_matches("srt://").parse().expect("a real address"), |_| conclusion.clone())
        },
        counter: "codecast_srt_stray_datagrams_total{reason=\"cookie\"}",
        least: 500.0,
    },
];

/// A connection that is held until the server ends it, and the bytes that it was sent.
struct Held(TcpStream, usize);

/// All of one attack are open at once. The sum of their bytes.
fn outlast(all: impl Iterator<Item = Held>) -> usize {
    let all: Vec<Held> = all.collect();
    let ended = |Held(stream, _): &Held| {
        let mut stream = stream;
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let _ = stream.read_to_end(&mut Vec::new());
    };
    all.iter().for_each(ended);
    all.iter().map(|held| held.1).sum()
}

fn hold(address: SocketAddr, bytes: &[u8]) -> Held {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket takes a timeout");
    // The server may close at once, with the rest unread.
    let _ = stream.write_all(bytes);
    Held(stream, bytes.len())
}

/// A whole handshake, and then this.
fn behind_handshake(server: &Server, bytes: &[u8]) -> Held {
    let Held(mut stream, _) = hold(rtmp(server), &[&[3][..], &[0; 1536]].concat());
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    let mut answer = [0; 1 + 2 * 1536];
    stream.read_exact(&mut answer).expect("the server answers the handshake");
    let all = [&answer[1..1537], bytes].concat();
    let _ = stream.write_all(&all);
    Held(stream, 1537 + all.len())
}

/// One message on chunk stream 3, in chunks of 128 bytes.
fn chunks(kind: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = [&[3, 0, 0, 0][..], &length.to_be_bytes()[1..], &[kind, 0, 0, 0, 0]].concat();
    for (n, chunk) in payload.chunks(128).enumerate() {
        if n > 0 {
            out.push(0xc3);
        }
        out.extend_from_slice(chunk);
    }
    out
}

fn nested_connect() -> Vec<u8> {
    let payload = [&b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0"[..], &b"\x03\0\x01a".repeat(15_000)].concat();
    chunks(20, payload.len() as u32, &payload)
}

fn huge_head() -> Vec<u8> {
    [&b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "[..], &[b'x'; 512 << 10], b"\r\n\r\n"].concat()
}

/// More segments than any buffer on the way holds.
fn endless_requests(server: &Server) -> Vec<u8> {
    let playlist = server.get(&format!("/live/{}/video.m3u8", server.stream)).text();
    let segment = playlist.lines().rfind(|line| line.contains("segment-") && !line.starts_with('#')).expect("one is listed");
    format!("GET /live/{}/{segment} HTTP/1.1\r\nHost: localhost\r\n\r\n", server.stream).repeat(400).into_bytes()
}

fn http2(mode: &str, url: &str, amount: &str) -> usize {
    let mut command = Command::new("node");
    command.arg(tool("tools/http2.mjs")).args([mode, url, amount]);
    Program::start(command).finish(Duration::from_secs(60));
    // A HEADERS and a RST_STREAM frame each, the fields from the table.
    amount.parse::<usize>().unwrap_or(0) * 40
}

fn sdp(name: &str) -> String {
    fs::read_to_string(tool("../transport/testdata/sdp").join(name)).expect("a recorded offer")
}

fn post(server: &Server, protocol: &str, bearer: &str, offer: &str, status: u16) -> usize {
    let authorization = format!("Bearer {bearer}");
    let headers = [("Content-Type", "application/sdp"), ("Authorization", authorization.as_str())];
    let answer = server.post(&format!("/{protocol}/{}", server.stream), &headers[..if bearer.is_empty() { 1 } else { 2 }], offer);
    assert_eq!(answer.status, status, "{}", answer.text());
    offer.len()
}

/// From one socket, in bursts that the receiver's buffer holds.
fn flood(to: SocketAddr, datagram: impl Fn(u32) -> Vec<u8>) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut bytes = 0;
    for n in 0..20_000 {
        let datagram = datagram(n);
        bytes += datagram.len();
        // What the system does not take is lost.
        let _ = socket.send_to(&datagram, to);
        if n % 64 == 63 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    bytes
}

/// A binding request in every detail but that nobody has this name.
fn forged_check(n: u32) -> Vec<u8> {
    let name = format!("{n:08x}:peer");
    let mut out = [&[0, 1, 0, 44, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12], &[0, 6, 0, 13], name.as_bytes(), &[0; 3]].concat();
    out.extend([0, 8, 0, 20].into_iter().chain([9; 20]));
    out
}

fn rtmp(server: &Server) -> SocketAddr {
    let host = server.rtmp.trim_start_matches("rtmp://").split('/').next().unwrap_or_default();
    host.parse().expect("the ready file has a real address")
}

fn https(server: &Server) -> SocketAddr {
    server.https_url.trim_start_matches("https://").parse().expect("the ready file has a real address")
}

fn memory(server: &Server) -> f64 {
    server.metric("process_resident_memory_bytes")
}

#[test]
fn viewers_go_on_and_operators_see_each_attack() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let clip = clips.encode("clip", 30, ORDINARY);
    let server = Server::start(CONFIG);
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let length = seconds(60, 180);
    let by_webrtc = view(&server, &server.stream, length, &["--settle", "5"]);
    let by_hls = view(&server, &server.stream, length, &["--settle", "5", "--transport", "hls"]);
    let watching = |viewer: &Program| viewer.said().contains("watching");
    within(PATIENCE, "both watch", || (watching(&by_webrtc) && watching(&by_hls)).then_some(()));
    let follower = checker(&server.playlist(&server.stream), 40, &[]);
    let before = memory(&server);

    println!("| Attack | Sent | Counted | Memory before | After |\n| --- | --- | --- | --- | --- |");
    for attack in &ATTACKS {
        let (counted, from) = (server.metric(attack.counter), memory(&server));
        let sent = attack.launch(&server);
        let more = within(PATIENCE, attack.name, || {
            let more = server.metric(attack.counter) - counted;
            (more >= attack.least).then_some(more)
        });
        let [from, to] = [from, memory(&server)].map(|bytes| bytes / (1024.0 * 1024.0));
        println!("| {} | {sent} bytes | {more} | {from:.1} MiB | {to:.1} MiB |", attack.name);
    }
    // Of WebRTC the viewer is left, until its time is over.
    let forgotten = |what: &str| {
        within(PATIENCE, what, || {
            let open = ["rtmp_connections", "webrtc_sessions"].map(|name| server.metric(&format!("codecast_{name}")));
            (open[0] == 1.0 && open[1] <= 1.0).then_some(())
        });
    };
    forgotten("viewers that never came are forgotten");
    let after = memory(&server);
    // What the allocator keeps levels off; what leaks grows each time.
    let [_, first, second] = [(); 3].map(|()| {
        thread::scope(|scope| ATTACKS.iter().for_each(|attack| drop(scope.spawn(|| attack.launch(&server)))));
        forgotten("only the publisher is connected");
        memory(&server)
    });
    let [before, after, first, second] = [before, after, first, second].map(|bytes| bytes / (1024.0 * 1024.0));
    println!("{before:.1} MiB before, {after:.1} after all, {first:.1} after all at once, twice, {second:.1} and once more");
    assert!(first - before < KEPT_MIB_MAX, "memory has grown from {before} to {first} MiB");
    assert!(second - first < LEAKED_MIB_MAX, "memory has grown from {first} to {second} MiB when all came again");

    let found = follower.wait_with_output().expect("a child can be waited for");
    assert!(found.status.success(), "the follower noticed: {}", told(&found));
    for (mut viewer, stalls) in [(by_webrtc, "freezeCount"), (by_hls, "stalls")] {
        viewer.finish(Duration::from_secs(u64::from(length) + 45));
        let seen = common::peers::told(&viewer);
        assert_eq!((seen[stalls].as_u64(), seen["state"].as_str()), (Some(0), Some("live")), "{seen}");
        assert!(seen["framesDecoded"].as_u64() > Some(u64::from(length) * 25), "{seen}");
    }
    assert_eq!(server.metric("codecast_publishers"), 1.0);
}
