//! STUN binding checks as an ICE-lite agent meets them (RFC 8489, RFC 8445 7.3): read a request,
//! write the answer. Nothing is copied on the way in.
//!
//! A request is read in two steps: `Request::parse` finds the session by its user name, `verify`
//! proves that the sender knows the password. Nothing else in this crate acts on a datagram before.

use std::net::{IpAddr, SocketAddr};

use ring::hmac;

const HEADER_BYTES: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const INTEGRITY_BYTES: usize = 20;
/// Checks of real agents carry about eight attributes.
const ATTRIBUTES_MAX: usize = 32;
/// Longest binding request taken; real ones have about 100 bytes, long user names up to 600.
const REQUEST_BYTES_MAX: usize = 1500;

/// A binding request with a user name and an integrity attribute. Not yet believed.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    bytes: &'a [u8],
    username: &'a str,
    /// Where the MESSAGE-INTEGRITY attribute begins.
    integrity_at: usize,
    pub(crate) use_candidate: bool,
}

impl<'a> Request<'a> {
    /// `None` for anything that is not a well-formed check: it gets no answer.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_request = u16::from_be_bytes([header[0], header[1]]) == BINDING_REQUEST && header[4..8] == MAGIC_COOKIE;
        if !is_request || bytes.len() > REQUEST_BYTES_MAX || HEADER_BYTES + length != bytes.len() || length % 4 != 0 {
            return None;
        }
        let (mut username, mut integrity_at, mut use_candidate) = (None, None, false);
        for (at, kind, value) in attributes(bytes).take(ATTRIBUTES_MAX) {
            match kind {
                USERNAME if username.is_none() => username = Some(std::str::from_utf8(value).ok()?),
                USE_CANDIDATE => use_candidate = true,
                MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => {
                    integrity_at = Some(at);
                    break; // What follows is not protected (RFC 8489 14.5).
                }
                _ => {}
            }
        }
        Some(Self { bytes, username: username?, integrity_at: integrity_at?, use_candidate })
    }

    /// The fragment that we gave out: what stands before the colon (RFC 8445 7.2.2).
    pub(crate) fn local_ufrag(&self) -> &'a str {
        self.username.split_once(':').map_or(self.username, |(local, _)| local)
    }

    /// Whether the sender knows our password (RFC 8489 14.5: the length counts up to and with the attribute).
    pub(crate) fn verify(&self, key: &hmac::Key) -> bool {
        let Some(attribute) = self.bytes.get(self.integrity_at..self.integrity_at + 4 + INTEGRITY_BYTES) else { return false };
        let length = u16::try_from(self.integrity_at + 4 + INTEGRITY_BYTES - HEADER_BYTES).unwrap_or(u16::MAX);
        let mut protected = [0; REQUEST_BYTES_MAX];
        let protected = &mut protected[..self.integrity_at];
        protected.copy_from_slice(&self.bytes[..self.integrity_at]);
        protected[2..4].copy_from_slice(&length.to_be_bytes());
        hmac::verify(key, protected, &attribute[4..]).is_ok()
    }

    /// The answer that proves we heard it, and tells the sender its address as we see it.
    pub(crate) fn success(&self, key: &hmac::Key, from: SocketAddr) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.extend_from_slice(&BINDING_SUCCESS.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.bytes[4..HEADER_BYTES]);
        put_attribute(&mut out, XOR_MAPPED_ADDRESS, &xor_address(from, &self.bytes[4..HEADER_BYTES]));
        put_length(&mut out, 4 + INTEGRITY_BYTES);
        let tag = hmac::sign(key, &out);
        put_attribute(&mut out, MESSAGE_INTEGRITY, tag.as_ref());
        put_length(&mut out, 8);
        let crc = crc32(&out) ^ FINGERPRINT_XOR;
        put_attribute(&mut out, FINGERPRINT, &crc.to_be_bytes());
        out
    }
}

/// A check of our own, as the self-test sends it.
pub(crate) fn check(username: &str, key: &hmac::Key, id: [u8; 12]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&BINDING_REQUEST.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&MAGIC_COOKIE);
    out.extend_from_slice(&id);
    put_attribute(&mut out, USERNAME, username.as_bytes());
    put_length(&mut out, 4 + INTEGRITY_BYTES);
    let tag = hmac::sign(key, &out);
    put_attribute(&mut out, MESSAGE_INTEGRITY, tag.as_ref());
    out
}

/// Whether this answers the check with that id.
pub(crate) fn answers(datagram: &[u8], id: [u8; 12]) -> bool {
    datagram.starts_with(&BINDING_SUCCESS.to_be_bytes()) && datagram.get(8..HEADER_BYTES) == Some(&id)
}

/// The key of an integrity attribute: the answerer's password (RFC 8445 7.2.2).
pub(crate) fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// Place, type and value of each attribute; it ends early where a length lies.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (usize, u16, &[u8])> {
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        let header = bytes.get(at..at + 4)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let value = bytes.get(at + 4..at + 4 + length)?;
        let here = at;
        at += 4 + length.next_multiple_of(4);
        Some((here, kind, value))
    })
}

fn put_attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).expect("our attributes are short").to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Sets the header's length as if `more` bytes followed.
fn put_length(out: &mut [u8], more: usize) {
    let length = u16::try_from(out.len() + more - HEADER_BYTES).expect("our answers are short");
    out[2..4].copy_from_slice(&length.to_be_bytes());
}

/// RFC 8489 14.2: port and address hidden from middleboxes that rewrite what looks like one.
fn xor_address(address: SocketAddr, cookie_and_id: &[u8]) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    // A socket for both families shows IPv4 in IPv6's clothes.
    let ip = address.ip().to_canonical();
    let mut out = vec![0, if ip.is_ipv4() { 1 } else { 2 }, port[0] ^ MAGIC_COOKIE[0], port[1] ^ MAGIC_COOKIE[1]];
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    out.extend(octets.iter().zip(cookie_and_id).map(|(octet, mask)| octet ^ mask));
    out
}

/// ITU-T V.42, as in Ethernet; bit by bit, since an answer has 60 bytes and comes every few seconds.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// The body of a fuzz target: no datagram may panic, and none that was not signed may be believed.
pub fn fuzz(data: &[u8]) {
    let key = key("a password that no input knows");
    if let Some(request) = Request::parse(data) {
        assert!(!request.verify(&key), "a forged check was believed");
        let answer = request.success(&key, SocketAddr::from(([127, 0, 0, 1], 9)));
        assert!(answer.len() <= 128, "an answer does not amplify");
    }
}

#[cfg(test)]
mod tests {
    use rtc_stun::{
        attributes::{ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME},
        fingerprint::FINGERPRINT,
        integrity::MessageIntegrity,
        message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId},
        textattrs::TextAttribute,
        xoraddr::XorMappedAddress,
    };

    use super::*;

    const PASSWORD: &str = "0123456789abcdefghijklmn";

    /// As an independent agent writes it.
    fn check(priority: bool, nominate: bool) -> Vec<u8> {
        let provider = rtc_crypto::default_provider().unwrap();
        let mut message = Message::new();
        let mut setters: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId([7; 12])),
            Box::new(TextAttribute::new(ATTR_USERNAME, "ours:theirs".into())),
        ];
        for (wanted, attribute, value) in [(priority, ATTR_PRIORITY, &[1, 2, 3, 4][..]), (nominate, ATTR_USE_CANDIDATE, &[])] {
            if wanted {
                setters.push(Box::new(rtc_stun::attributes::RawAttribute {
                    typ: attribute,
                    length: value.len() as u16,
                    value: value.to_vec(),
                }));
            }
        }
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(PASSWORD.into(), provider.crypto());
        message.build(&setters).unwrap();
        message.build_more(integrity);
        message.raw
    }

    trait BuildMore {
        fn build_more(&mut self, integrity: MessageIntegrity<'_>);
    }
    impl BuildMore for Message {
        fn build_more(&mut self, integrity: MessageIntegrity<'_>) {
            integrity.add_to(self).unwrap();
            FINGERPRINT.add_to(self).unwrap();
        }
    }

    #[test]
    fn a_check_of_another_agent_is_believed_if_its_password_is_right() {
        for (priority, nominate) in [(true, true), (true, false), (false, true)] {
            let bytes = check(priority, nominate);
            let request = Request::parse(&bytes).expect("a check");
            assert_eq!((request.local_ufrag(), request.use_candidate), ("ours", nominate));
            assert!(request.verify(&key(PASSWORD)));
            assert!(!request.verify(&key("another")));
        }
    }

    #[test]
    fn the_answer_is_read_by_another_agent() {
        let bytes = check(true, true);
        for from in ["192.0.2.7:5000", "[2001:db8::7]:5001"] {
            let from: SocketAddr = from.parse().unwrap();
            let answer = Request::parse(&bytes).unwrap().success(&key(PASSWORD), from);
            let mut message = Message::new();
            message.unmarshal_binary(&answer).unwrap();
            assert_eq!((message.typ, message.transaction_id), (BINDING_SUCCESS, TransactionId([7; 12])));
            FINGERPRINT.check(&message).unwrap();
            MessageIntegrity::check(&mut message, PASSWORD.as_bytes(), rtc_crypto::default_provider().unwrap().crypto()).unwrap();
            let mut mapped = XorMappedAddress::default();
            mapped.get_from_as(&message, rtc_stun::attributes::ATTR_XORMAPPED_ADDRESS).unwrap();
            assert_eq!((mapped.ip, mapped.port), (from.ip(), from.port()));
        }
    }

    #[test]
    fn what_is_cut_changed_or_no_request_is_not_believed() {
        let bytes = check(true, true);
        for end in 0..bytes.len() {
            assert!(Request::parse(&bytes[..end]).is_none(), "cut at {end}");
        }
        let protected = bytes.len() - 8; // The fingerprint is not.
        for at in 0..protected {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let believed = Request::parse(&changed).is_some_and(|request| request.verify(&key(PASSWORD)));
            assert!(!believed, "byte {at} changed");
        }
        fuzz(&bytes);
        let ours = super::check("ours:self", &key(PASSWORD), [9; 12]);
        let request = Request::parse(&ours).expect("a check");
        assert!(request.verify(&key(PASSWORD)));
        let answer = request.success(&key(PASSWORD), SocketAddr::from(([127, 0, 0, 1], 9)));
        assert!(answers(&answer, [9; 12]) && !answers(&answer, [8; 12]) && !answers(&ours, [9; 12]));
    }
}
