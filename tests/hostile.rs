//! Guests who mean harm beside a publisher and a viewer who do not: half-open connections, garbage, absurd lengths.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use common::{
    Server,
    clients::Turn,
    real::{Clips, checker, publish, told},
    until,
};

const HALF_OPEN: usize = 500;
const LIARS: usize = 50;
/// What the server may grow by: 50 KiB a connection as the configuration says, and as much again for the allocator.
const GROWTH_MAX: f64 = 100.0 * 1024.0 * (HALF_OPEN + LIARS) as f64;
/// All of them are let in, so that it is the timeouts and bounds that are tested, not the door.
const CONFIG: &str = "[rtmp]\npending_max = 800\npending_per_address_max = 800\n";
const ORDINARY: &str = "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -c:v libx264 -preset ultrafast \
                        -pix_fmt yuv420p -g 60 -b:v 300k -c:a aac";

#[test]
fn nobody_notices_the_hostile() {
    let _turn = Turn::take();
    let clips = Clips::new();
    let clip = clips.encode("clip", 30, ORDINARY);
    let server = Server::start(CONFIG);
    let _publisher = publish(&clip, &server.rtmp_with_key());
    server.playable(&server.stream);
    let follower = checker(&server.playlist(&server.stream), 15, &[]);
    let before = server.metric("process_resident_memory_bytes");

    let half_open: Vec<_> = (0..HALF_OPEN).map(|n| attack(&server, &[3; 1000][..n % 1000])).collect();
    let liars: Vec<_> = (0..LIARS).map(|_| announce_16_mib(&server)).collect();
    let garbage: Vec<_> = (0..LIARS).map(|_| attack(&server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    let grown = server.metric("process_resident_memory_bytes") - before;
    assert!(grown < GROWTH_MAX, "grown by {grown} bytes");
    assert!(server.metric("codecast_rtmp_connections") > 1.0);

    // Each is shown the door by a timeout or for what it said; the publisher stays.
    until("only the publisher is connected", || (server.metric("codecast_rtmp_connections") == 1.0).then_some(()));
    let metrics = server.get("/metrics").text();
    let ended = |line: &&str| line.starts_with("codecast_rtmp_connections_total{");
    let total: f64 = metrics.lines().filter(ended).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(total, (HALF_OPEN + 2 * LIARS) as f64, "each end is counted once:\n{metrics}");
    drop((half_open, liars, garbage));

    let found = follower.wait_with_output().expect("a child can be waited for");
    assert!(found.status.success(), "the viewer noticed: {}", told(&found));
    assert_eq!(server.metric("codecast_publishers"), 1.0);
}

/// A connection that says this and no more.
fn attack(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(rtmp_address(server)).expect("the server accepts");
    stream.write_all(bytes).expect("a few bytes fit the socket");
    stream
}

/// A whole handshake, then a message that claims to be as long as its length field can say.
fn announce_16_mib(server: &Server) -> TcpStream {
    let mut stream = attack(server, &[&[3][..], &[0; 1536]].concat());
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a timeout");
    let mut answer = [0; 1 + 2 * 1536];
    stream.read_exact(&mut answer).expect("the server answers the handshake");
    let echo = &answer[1..1537];
    let header = [3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 20, 0, 0, 0, 0];
    // The server may close at once, with the rest unread.
    let _ = stream.write_all(&[echo, &header, &[0; 128]].concat());
    stream
}

fn rtmp_address(server: &Server) -> SocketAddr {
    let host = server.rtmp.trim_start_matches("rtmp://").split('/').next().unwrap_or_default();
    host.parse().expect("the ready file has a real address")
}
