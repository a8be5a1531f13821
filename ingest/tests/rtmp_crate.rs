//! The `rtmp` crate as an independent peer: its digests and its chunk writer against our handshake and chunk reader.

use std::sync::Arc;

use bytes::BytesMut;
use bytesio::bytesio::{TNetIO, TcpIO};
use ingest::rtmp::{
    chunk::read_all,
    handshake::{PACKET_BYTES, Server},
    message,
};
use rtmp::{
    chunk::{ChunkInfo, packetizer::ChunkPacketizer},
    handshake::{define, digest::DigestProcessor},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

#[test]
fn its_digest_in_c1_is_answered_by_digests_that_it_accepts() {
    for seed in 0..50_u8 {
        let noise: Vec<u8> = (0..PACKET_BYTES).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed.wrapping_mul(77))).collect();
        let client_key = BytesMut::from(define::RTMP_CLIENT_KEY_FIRST_HALF);
        let c1 = DigestProcessor::new(BytesMut::from(&noise[..]), client_key.clone()).generate_and_fill_digest().unwrap();
        let mut out = Vec::new();
        let hello = [&[3][..], &c1].concat();
        assert_eq!(Server::new(u64::from(seed)).read(&mut &hello[..], &mut out), Ok(false));
        let (s1, s2) = out[1..].split_at(PACKET_BYTES);

        let server_key = BytesMut::from(define::RTMP_SERVER_KEY_FIRST_HALF);
        assert!(DigestProcessor::new(BytesMut::from(s1), server_key).read_digest().is_ok(), "S1, seed {seed}");

        let (c1_digest, _) = DigestProcessor::new(BytesMut::from(&c1[..]), client_key).read_digest().unwrap();
        let digest = |key: &[u8], message: &[u8]| {
            DigestProcessor::new(BytesMut::new(), BytesMut::from(key)).make_digest(message.to_vec()).unwrap()
        };
        let (body, tail) = s2.split_at(PACKET_BYTES - define::RTMP_DIGEST_LENGTH);
        let key = digest(&define::RTMP_SERVER_KEY, &c1_digest);
        assert_eq!(tail, &digest(&key, body)[..], "S2, seed {seed}");
    }
}

#[tokio::test]
async fn its_chunks_are_read_as_the_messages_they_were() {
    let sent: Vec<(u32, u8, u32, Vec<u8>)> = (0..60_u32)
        .map(|n| {
            let (csid, kind) = [(4, message::AUDIO), (6, message::VIDEO), (100, message::VIDEO)][n as usize % 3];
            // Headers of every form: lengths and steps that repeat, and some that do not.
            (csid, kind, 1000 + n * 40, vec![n as u8; if n < 30 { 333 } else { n as usize * 61 }])
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
    let io: Box<dyn TNetIO + Send + Sync> = Box::new(TcpIO::new(theirs.unwrap()));
    let io = Arc::new(Mutex::new(io));
    let mut packetizer = ChunkPacketizer::new(Arc::clone(&io));
    let write = async {
        for (csid, kind, timestamp, payload) in &sent {
            let mut chunk = ChunkInfo::new(*csid, 0, *timestamp, payload.len() as u32, *kind, 1, BytesMut::from(&payload[..]));
            packetizer.write_chunk(&mut chunk).await.unwrap();
        }
        drop((packetizer, io));
    };
    let (mut bytes, mut socket) = (Vec::new(), ours.unwrap().0);
    // It uses chunks of 4096 bytes from the start, as if it had said so.
    ingest::rtmp::chunk::Writer::default().set_chunk_size(&mut bytes, 4096);
    let (_, read) = tokio::join!(write, socket.read_to_end(&mut bytes));
    read.unwrap();
    let (messages, violation) = read_all(&bytes);
    assert_eq!(violation, None);
    let read: Vec<_> = messages.into_iter().map(|m| (m.csid, m.kind, m.timestamp, m.payload.to_vec())).collect();
    assert_eq!(read, sent);
}
