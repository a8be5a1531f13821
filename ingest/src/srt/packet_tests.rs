//! The handshakes of a real caller, and what is made of them.

use super::*;

/// `testdata/srt`: ffmpeg 5.1.9 with libsrt 1.5.1, `?streamid=publish:demo:0123456789abcdef`.
pub(crate) const INDUCTION: &[u8] = include_bytes!("../../testdata/srt/induction.bin");
pub(crate) const CONCLUSION: &[u8] = include_bytes!("../../testdata/srt/conclusion.bin");
/// `?streamid=%23!::r=demo,m=publish,s=0123456789abcdef&passphrase=0123456789&pbkeylen=16`
pub(crate) const ENCRYPTED: &[u8] = include_bytes!("../../testdata/srt/conclusion-encrypted.bin");

/// The same datagram with another cookie.
pub(crate) fn with_cookie(datagram: &[u8], cookie: u32) -> Vec<u8> {
    handshake(datagram).with_cookie(cookie, 0)
}

fn handshake(datagram: &[u8]) -> Handshake<'_> {
    match Packet::read(datagram) {
        Packet::Handshake(handshake) => handshake,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_callers_conclusion_tells_who_it_is() {
    let check = |datagram: &[u8], stream_id: &str, encrypted: bool| {
        let handshake = handshake(datagram);
        assert_eq!((handshake.kind(), handshake.cookie()), (Kind::Conclusion, 0x1234_5678));
        let conclusion = handshake.conclusion().unwrap();
        assert_eq!((conclusion.stream_id.as_str(), conclusion.encrypted), (stream_id, encrypted));
        assert_eq!((conclusion.version, conclusion.socket), (0x0001_0501, handshake.socket()));
        assert_eq!(conclusion.latency, Duration::from_millis(120));
        assert!(!format!("{handshake:?} {conclusion:?}").contains("abcdef"), "a key is not printed");
    };
    check(CONCLUSION, "publish:demo:0123456789abcdef", false);
    // ffmpeg takes its options from the address as they stand there.
    check(ENCRYPTED, "%23!::r=demo,m=publish,s=0123456789abcdef", true);
    assert_eq!(handshake(INDUCTION).kind(), Kind::Induction);
    assert_eq!(handshake(INDUCTION).conclusion(), Err(Unreadable::Version(4)));
}

#[test]
fn answers_are_addressed_and_short() {
    let induction = handshake(INDUCTION);
    let answer = induction.induction_answer(7);
    let read = handshake(&answer);
    assert_eq!((read.kind(), read.cookie(), answer.len()), (Kind::Induction, 7, INDUCTION.len()));
    assert_eq!(word(&answer, AT_DESTINATION), induction.socket());
    assert_eq!((word(&answer, AT_VERSION), short(&answer, AT_EXTENSION)), (5, MAGIC));

    let refused = handshake(ENCRYPTED).rejection(1401);
    assert_eq!(handshake(&refused).kind(), Kind::Rejection(1401));
    assert_eq!((refused.len(), word(&refused, AT_DESTINATION)), (HANDSHAKE_BYTES, handshake(ENCRYPTED).socket()));

    // What libsrt sends first, but for its time.
    let again = handshake(CONCLUSION).as_induction();
    assert_eq!((&again[..8], &again[12..]), (&INDUCTION[..8], &INDUCTION[12..]));

    let later = handshake(CONCLUSION).with_cookie(9, u32::MAX);
    assert_eq!(word(&later, AT_TIME), word(CONCLUSION, AT_TIME) - 1, "it wraps");
    assert_eq!((&later[..8], &later[48..]), (&CONCLUSION[..8], &CONCLUSION[48..]));

    assert_eq!(Packet::read(&shutdown(5)), Packet::Shutdown);
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    for datagram in [INDUCTION, CONCLUSION, ENCRYPTED] {
        for end in 0..=datagram.len() {
            if let Packet::Handshake(handshake) = Packet::read(&datagram[..end]) {
                let _ = handshake.conclusion();
            }
            let mut broken = datagram.to_vec();
            if let Some(byte) = broken.get_mut(end) {
                *byte ^= 0xff;
            }
            if let Packet::Handshake(handshake) = Packet::read(&broken) {
                let _ = handshake.conclusion();
            }
        }
    }
}

#[test]
fn extensions_are_bounded() {
    let with = |extensions: &[u8]| {
        let datagram = [&CONCLUSION[..HANDSHAKE_BYTES], extensions].concat();
        handshake(&datagram).conclusion().map(|conclusion| conclusion.stream_id)
    };
    assert_eq!(with(b""), Ok(String::new()));
    assert_eq!(with(b"\0\x05\0\x01dcba"), Ok("abcd".to_owned()));
    assert_eq!(with(b"\0\x05\0\x01\0\0ba"), Ok("ab".to_owned()));
    assert_eq!(with(b"\0\x05\0\x02dcba"), Err(Unreadable::Extensions));
    assert_eq!(with(b"\0\x05\0\x01\xff\xff\xff\xff"), Err(Unreadable::StreamId));
    assert_eq!(with(&[b"\0\x05\0\x81", &[b'a'; 516][..]].concat()), Err(Unreadable::StreamId));
    assert_eq!(with(&[&b"\0\x09\0\0".repeat(EXTENSIONS_MAX)[..], b"\0\x05\0\x01dcba"].concat()), Ok(String::new()));
}
