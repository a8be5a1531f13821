//! The RTMP handshake, sans-IO, both ends.
//!
//! The server answers the simple form (RTMP 1.0, 5.2) and the digest form that Flash-era encoders
//! insist on. The digests authenticate nobody: they only prove that both ends know two published
//! strings. The client speaks the simple form.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// C1, S1, C2 and S2.
pub const PACKET_BYTES: usize = 1536;
const VERSION: u8 = 3;
const DIGEST_BYTES: usize = 32;
/// What a server puts where Flash Media Server puts its version: not zero says "digests".
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];

const SERVER_KEY: &[u8; 68] = b"Genuine Adobe Flash Media Server 001\
\xf0\xee\xc2\x4a\x80\x68\xbe\xe8\x2e\x00\xd0\xd1\x02\x9e\x7e\x57\
\x6e\xec\x5d\x2d\x29\x80\x6f\xab\x93\xb8\xe6\x36\xcf\xeb\x31\xae";
/// The text alone makes the digest of S1; text and tail make the key of S2.
const SERVER_TEXT_BYTES: usize = 36;
const CLIENT_TEXT: &[u8] = b"Genuine Adobe Flash Player 001";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("this is HTTP, and the port speaks RTMP")]
    Http,
    #[error("this is TLS, and the port speaks plain RTMP: use rtmp:// in place of rtmps://")]
    Tls,
    #[error("RTMP version {0} is not spoken here, only 3")]
    Version(u8),
}

/// Where a digest lies in C1 and S1. The two forms differ in which half the key exchange has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schema {
    DigestFirst,
    KeyFirst,
}

impl Schema {
    fn digest_at(self, packet: &[u8; PACKET_BYTES]) -> usize {
        let (at, base) = match self {
            Self::DigestFirst => (8, 12),
            Self::KeyFirst => (772, 776),
        };
        packet[at..at + 4].iter().map(|&b| usize::from(b)).sum::<usize>() % 728 + base
    }
}

/// Fills up a packet of the handshake over however many reads.
struct Packet {
    bytes: Box<[u8; PACKET_BYTES]>,
    have: usize,
}

impl Packet {
    fn new() -> Self {
        Self { bytes: Box::new([0; PACKET_BYTES]), have: 0 }
    }

    /// True when it is whole.
    fn fill(&mut self, input: &mut &[u8]) -> bool {
        let (taken, rest) = input.split_at(input.len().min(PACKET_BYTES - self.have));
        self.bytes[self.have..self.have + taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        *input = rest;
        self.have == PACKET_BYTES
    }
}

enum State {
    Version,
    /// C1 for a server, S1 for a client.
    First(Packet),
    /// C2 or S2; nobody checks it: encoders put anything there.
    Second(Packet),
    Done,
}

/// The server's side.
pub struct Server {
    state: State,
    seed: u64,
}

impl Server {
    /// `seed` makes the random bytes of S1, which keep no secret.
    pub fn new(seed: u64) -> Self {
        Self { state: State::Version, seed }
    }

    /// Takes what belongs to the handshake off `input`, appends replies to `out`. True when done.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Error> {
        loop {
            match &mut self.state {
                State::Version => {
                    let Some((&version, rest)) = input.split_first() else { return Ok(false) };
                    check_version(version)?;
                    *input = rest;
                    self.state = State::First(Packet::new());
                }
                State::First(c1) => {
                    if !c1.fill(input) {
                        return Ok(false);
                    }
                    out.push(VERSION);
                    answer(&c1.bytes, self.seed, out);
                    self.state = State::Second(Packet::new());
                }
                State::Second(c2) => {
                    if !c2.fill(input) {
                        return Ok(false);
                    }
                    self.state = State::Done;
                }
                State::Done => return Ok(true),
            }
        }
    }
}

fn check_version(version: u8) -> Result<(), Error> {
    match version {
        VERSION => Ok(()),
        b'G' | b'P' | b'H' | b'O' => Err(Error::Http),
        0x16 => Err(Error::Tls),
        other => Err(Error::Version(other)),
    }
}

/// S1 and S2 for this C1, in the form that it speaks.
fn answer(c1: &[u8; PACKET_BYTES], seed: u64, out: &mut Vec<u8>) {
    let mut s1 = noise(seed);
    s1[..8].fill(0);
    let Some((schema, c1_digest)) = client_digest(c1) else {
        out.extend_from_slice(&s1);
        out.extend_from_slice(c1);
        return;
    };
    s1[4..8].copy_from_slice(&SERVER_VERSION);
    let at = schema.digest_at(&s1);
    let digest = digest_around(&s1, at, &SERVER_KEY[..SERVER_TEXT_BYTES]);
    s1[at..at + DIGEST_BYTES].copy_from_slice(&digest);
    let mut s2 = noise(seed.wrapping_add(1));
    let key = hmac(SERVER_KEY, &[&c1_digest]);
    let (body, tail) = s2.split_at_mut(PACKET_BYTES - DIGEST_BYTES);
    tail.copy_from_slice(&hmac(&key, &[body]));
    out.extend_from_slice(&s1);
    out.extend_from_slice(&s2);
}

/// The digest in C1 and where it lies; `None` when the peer speaks the simple form.
fn client_digest(c1: &[u8; PACKET_BYTES]) -> Option<(Schema, [u8; DIGEST_BYTES])> {
    [Schema::DigestFirst, Schema::KeyFirst].into_iter().find_map(|schema| {
        let at = schema.digest_at(c1);
        let digest = digest_around(c1, at, CLIENT_TEXT);
        (c1[at..at + DIGEST_BYTES] == digest).then_some((schema, digest))
    })
}

fn digest_around(packet: &[u8; PACKET_BYTES], at: usize, key: &[u8]) -> [u8; DIGEST_BYTES] {
    hmac(key, &[&packet[..at], &packet[at + DIGEST_BYTES..]])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Bytes that differ from one connection to the next (SplitMix64).
fn noise(seed: u64) -> [u8; PACKET_BYTES] {
    let mut bytes = [0; PACKET_BYTES];
    let mut state = seed;
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    bytes
}

/// The client's side, in the simple form: what our load generator opens with.
pub struct Client {
    state: State,
}

impl Client {
    /// Appends C0 and C1 to `out`.
    pub fn new(seed: u64, out: &mut Vec<u8>) -> Self {
        let mut c1 = noise(seed);
        c1[..8].fill(0);
        out.push(VERSION);
        out.extend_from_slice(&c1);
        Self { state: State::Version }
    }

    /// Takes what belongs to the handshake off `input`, appends C2 to `out`. True when done.
    pub fn read(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Error> {
        loop {
            match &mut self.state {
                State::Version => {
                    let Some((&version, rest)) = input.split_first() else { return Ok(false) };
                    check_version(version)?;
                    *input = rest;
                    self.state = State::First(Packet::new());
                }
                State::First(s1) => {
                    if !s1.fill(input) {
                        return Ok(false);
                    }
                    out.extend_from_slice(&s1.bytes[..]);
                    self.state = State::Second(Packet::new());
                }
                State::Second(s2) => {
                    if !s2.fill(input) {
                        return Ok(false);
                    }
                    self.state = State::Done;
                }
                State::Done => return Ok(true),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c1(schema: Option<Schema>) -> Vec<u8> {
        let mut packet = noise(7);
        packet[..4].fill(0);
        packet[4..8].copy_from_slice(&[0x80, 0, 7, 2]);
        if let Some(schema) = schema {
            let at = schema.digest_at(&packet);
            let digest = digest_around(&packet, at, CLIENT_TEXT);
            packet[at..at + DIGEST_BYTES].copy_from_slice(&digest);
        }
        packet.to_vec()
    }

    fn serve(bytes: &[u8], step: usize) -> (Result<bool, Error>, Vec<u8>, usize) {
        let (mut server, mut out, mut left) = (Server::new(1), Vec::new(), 0);
        let mut done = Ok(false);
        for piece in bytes.chunks(step) {
            let mut input = piece;
            done = server.read(&mut input, &mut out);
            left += input.len();
        }
        (done, out, left)
    }

    #[test]
    fn both_forms_are_answered_in_their_own_way_one_byte_at_a_time() {
        for schema in [None, Some(Schema::DigestFirst), Some(Schema::KeyFirst)] {
            let hello = [&[3][..], &c1(schema), &[0; PACKET_BYTES], b"next"].concat();
            let (done, out, left) = serve(&hello, hello.len());
            assert_eq!((done, out.len(), left), (Ok(true), 1 + 2 * PACKET_BYTES, 4), "{schema:?}");
            assert_eq!(serve(&hello, 1), (Ok(true), out.clone(), 4), "{schema:?} byte by byte");
            let s1: &[u8; PACKET_BYTES] = out[1..=PACKET_BYTES].try_into().unwrap();
            let s2 = &out[1 + PACKET_BYTES..];
            let Some(schema) = schema else {
                assert_eq!(s2, &hello[1..=PACKET_BYTES], "the simple form echoes C1");
                continue;
            };
            let at = schema.digest_at(s1);
            assert_eq!(s1[at..at + 32], digest_around(s1, at, &SERVER_KEY[..36]));
        }
    }

    #[test]
    fn other_protocols_are_named() {
        let check = |bytes: &[u8], expected| assert_eq!(serve(bytes, 1).0, Err(expected), "{bytes:?}");
        check(b"G", Error::Http);
        check(&[0x16], Error::Tls);
        check(&[6], Error::Version(6));
    }

    #[test]
    fn our_client_and_server_agree() {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut client = Client::new(2, &mut up);
        let mut server = Server::new(1);
        assert_eq!(server.read(&mut &up[..], &mut down), Ok(false));
        up.clear();
        assert_eq!(client.read(&mut &down[..], &mut up), Ok(true));
        assert_eq!(server.read(&mut &up[..], &mut Vec::new()), Ok(true));
    }
}
