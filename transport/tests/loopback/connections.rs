//! ICE-TCP under load: nothing that came by a connection is lost on its way in, or it is counted.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use crate::viewer::{Port, Way, udp, wait};

/// Together more than are handled in one turn, again and again.
const CONNECTIONS: usize = 8;
const CHECKS: usize = 200;
/// An answer behind its length: header, address, integrity, fingerprint.
const ANSWER_BYTES: usize = 2 + 20 + 12 + 24 + 8;

#[tokio::test]
async fn what_comes_in_a_burst_is_all_handled() {
    for shards in [1, 2] {
        let port = Port::start(shards).await;
        let viewer = port.watch(Way::Udp(udp())).await;
        let check = viewer.check(false);
        let all = [&(check.len() as u16).to_be_bytes()[..], &check].concat().repeat(CHECKS);
        let streams: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(port.engine.address()).unwrap()).collect();
        let reading = streams.iter().map(|stream| {
            let mut stream = stream.try_clone().unwrap();
            thread::spawn(move || stream.read_exact(&mut [0; ANSWER_BYTES]).unwrap())
        });
        let reading: Vec<_> = reading.collect();
        streams.iter().for_each(|mut stream| stream.write_all(&all).unwrap());
        reading.into_iter().for_each(|thread| thread.join().unwrap());
        // What is another shard's is handed over; while that one does not run, only so much waits for it, and the rest is counted.
        let lost = async || if shards == 1 { 0 } else { port.metric("handed_lost_total") };
        wait(async || port.metric("received_datagrams_total") + lost().await == (CONNECTIONS * CHECKS) as i64).await;
    }
}
