//! Every offer in `testdata/sdp` is answered, and the answer is read back; then mutants of all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use transport::sdp::{
    Candidate, Codec, Direction, Fingerprint, IceCredentials, Kind, Local, Negotiated, Offer, Protocol, SendVideo, Sending,
    Wants, fuzz::fuzz, negotiate,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../testdata/sdp/", $name))
    };
}

const WHIP: [(&str, &str); 12] = [
    ("aiortc", fixture!("aiortc-whip.sdp")),
    ("chromium", fixture!("chromium156-whip-h264.sdp")),
    ("chromium simulcast", fixture!("chromium156-whip-simulcast.sdp")),
    ("ffmpeg 8", fixture!("ffmpeg8.0-whip.sdp")),
    ("ffmpeg 9", fixture!("ffmpeg9-whip.sdp")),
    ("gstreamer", fixture!("gstreamer-whipsink-0.12.sdp")),
    ("obs", fixture!("obs-like-libdatachannel-whip.sdp")),
    ("firefox", fixture!("firefox-esr-whip.sdp")),
    ("chromium av1", fixture!("chromium156-whip-av1.sdp")),
    ("chromium everything", fixture!("chromium156-whip-everything.sdp")),
    ("obs h265", fixture!("obs-like-libdatachannel-whip-h265.sdp")),
    ("obs av1", fixture!("obs-like-libdatachannel-whip-av1.sdp")),
];

const WHEP: [(&str, &str); 4] = [
    ("chromium", fixture!("chromium156-whep.sdp")),
    ("gstreamer", fixture!("gstreamer-whepsrc-0.12.sdp")),
    ("werift", fixture!("werift-whep.sdp")),
    ("firefox", fixture!("firefox-esr-whep.sdp")),
];

/// An OBS stream: High without B-frames.
fn sending() -> Sending {
    Sending {
        video: Some(SendVideo { profile_level_id: Some([0x64, 0x00, 0x1f]), ssrc: 1001, rtx_ssrc: 1002 }),
        audio: Some(1003),
        cname: "codecast".to_owned(),
        stream_id: "live".to_owned(),
    }
}

fn render(negotiated: &Negotiated, text: impl Fn(&Negotiated, &Local) -> String) -> String {
    let ice = IceCredentials::new("ourU", "ourPasswordOf22Letters+").expect("valid");
    let candidate = |ip: IpAddr, protocol| Candidate { address: SocketAddr::new(ip, 8443), protocol };
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)));
    let candidates = [
        candidate(v4, Protocol::Udp),
        candidate(v6, Protocol::Udp),
        candidate(v4, Protocol::TcpPassive),
        candidate(v6, Protocol::TcpPassive),
    ];
    let fingerprint = Fingerprint::sha256(std::array::from_fn(|index| index as u8));
    text(negotiated, &Local { ice: &ice, fingerprint: &fingerprint, candidates: &candidates, session_id: 4242 })
}

fn answered(offer: &str, wants: &Wants) -> (Negotiated, String) {
    let offer = Offer::parse(offer.as_bytes()).expect("the offer can be read");
    let negotiated = negotiate(&offer, wants).expect("the offer is acceptable");
    let answer = render(&negotiated, Negotiated::answer);
    check_answer(&offer, &negotiated, &answer);
    (negotiated, answer)
}

/// What must hold for every answer, read back from its text.
fn check_answer(offer: &Offer, negotiated: &Negotiated, text: &str) {
    let answer = Offer::parse(text.as_bytes()).expect("the answer can be read");
    assert!(answer.ice_lite);
    assert!(text.lines().count() == text.matches("\r\n").count() && text.ends_with("\r\n"), "{text}");
    assert_eq!(answer.media.len(), offer.media.len());
    assert_eq!(text.matches("a=candidate:").count(), 4, "{text}");
    assert_eq!(text.matches("a=end-of-candidates").count(), 1);
    assert!(!text.contains("trickle"));
    let setup = if negotiated.dtls_client { "a=setup:active" } else { "a=setup:passive" };
    assert_eq!(text.matches("a=setup:").count(), text.matches(setup).count());
    for ((ours, theirs), media) in answer.media.iter().zip(&offer.media).zip(&negotiated.media) {
        assert_eq!((&ours.mid, ours.kind, &ours.protocol), (&theirs.mid, theirs.kind, &theirs.protocol));
        assert_eq!(ours.disabled, media.accepted.is_none());
        let Some(accepted) = &media.accepted else { continue };
        assert_eq!(ours.direction, accepted.direction);
        assert!(ours.rtcp_mux);
        assert_eq!(ours.rtcp_rsize, theirs.rtcp_rsize);
        assert_eq!(ours.codecs[0].payload_type, accepted.payload_type);
        assert_eq!(ours.codecs.len(), 1 + usize::from(accepted.rtx.is_some()));
        let offered = theirs.codecs.iter().find(|codec| codec.payload_type == accepted.payload_type).expect("it was offered");
        assert_eq!(ours.codecs[0].encoding, offered.encoding);
        assert_eq!(ours.extensions, accepted.extensions);
    }
}

/// `video` is payload type, RTX, packetization mode, DTLS client, layers.
#[test]
fn publishers_are_answered() {
    let check = |name: &str, want: (u8, Option<u8>, u8, bool, &[&str]), audio: u8, ssrcs: &[(u32, Option<u32>)]| {
        let (_, offer) = WHIP.iter().find(|(it, _)| *it == name).expect("a fixture");
        let (negotiated, answer) = answered(offer, &Wants::Receive);
        let (_, video) = negotiated.video().expect("video");
        let Codec::H264 { packetization_mode, .. } = video.codec else { panic!("{name}: H.264") };
        let rids: Vec<&str> = video.rids.iter().map(String::as_str).collect();
        assert_eq!((video.payload_type, video.rtx, packetization_mode, negotiated.dtls_client, rids.as_slice()), want, "{name}");
        assert_eq!(video.direction, Direction::RecvOnly);
        assert_eq!(video.ssrcs.iter().map(|it| (it.ssrc, it.rtx)).collect::<Vec<_>>(), ssrcs, "{name}");
        assert_eq!(negotiated.audio().expect("audio").1.payload_type, audio, "{name}");
        assert!(answer.contains(";stereo=1;"), "{name}");
    };
    check("aiortc", (99, None, 1, false, &[]), 96, &[(3_412_931_114, None)]);
    check("chromium", (102, Some(103), 1, false, &[]), 111, &[(1_395_912_557, Some(2_363_843_781))]);
    check("chromium simulcast", (102, None, 1, false, &["l", "m", "h"]), 111, &[]);
    check("ffmpeg 8", (106, None, 1, true, &[]), 111, &[(1_167_365_147, None)]);
    check("ffmpeg 9", (106, Some(105), 1, true, &[]), 111, &[(3_917_164_441, Some(3_917_164_442))]);
    check("gstreamer", (96, None, 1, false, &[]), 97, &[(1_297_255_684, None)]);
    check("obs", (96, None, 1, false, &[]), 111, &[(1_616_154_919, None)]);
    check("firefox", (126, Some(127), 1, false, &[]), 109, &[(1_742_856_310, Some(3_021_974_458))]);
}

/// Who sends one codec alone means it; who lists everything sends H.264, whatever it lists first.
#[test]
fn publishers_of_other_codecs_are_answered() {
    let check = |name: &str, want: (u8, Option<u8>), codec: &str, fmtp: Option<&str>| {
        let (_, offer) = WHIP.iter().find(|(it, _)| *it == name).expect("a fixture");
        let (negotiated, answer) = answered(offer, &Wants::Receive);
        let (_, video) = negotiated.video().expect("video");
        assert_eq!((video.payload_type, video.rtx), want, "{name}");
        assert!(answer.contains(&format!("a=rtpmap:{} {codec}/90000\r\n", want.0)), "{name}: {answer}");
        let told = answer.lines().find_map(|line| line.strip_prefix(&format!("a=fmtp:{} ", want.0)));
        assert_eq!(told, fmtp, "{name}");
        assert!(video.feedback.nack && video.feedback.pli, "{name}");
    };
    check("chromium av1", (45, Some(46)), "AV1", Some("level-idx=5;profile=0;tier=0"));
    let h264 = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f";
    check("chromium everything", (102, Some(103)), "H264", Some(h264));
    check("obs h265", (96, None), "H265", None);
    check("obs av1", (96, None), "AV1", None);
}

/// A High stream goes under Main where it is offered (Chromium), else under the best there is.
#[test]
fn viewers_are_answered() {
    let check = |name: &str, video: (u8, Option<u8>), audio: u8, playout_delay: Option<u8>| {
        let (_, offer) = WHEP.iter().find(|(it, _)| *it == name).expect("a fixture");
        let (negotiated, answer) = answered(offer, &Wants::Send(sending()));
        let accepted = negotiated.video().expect("video").1;
        assert_eq!((accepted.payload_type, accepted.rtx), video, "{name}");
        assert_eq!(accepted.extensions.playout_delay, playout_delay, "{name}");
        assert_eq!(negotiated.audio().expect("audio").1.payload_type, audio, "{name}");
        assert!(!negotiated.dtls_client);
        for line in
            ["a=msid:live video", "a=ssrc:1001 cname:codecast", "a=msid:live audio", "a=ssrc:1003 cname:codecast", "a=sendonly"]
        {
            assert!(answer.contains(&format!("{line}\r\n")), "{name}: {line}");
        }
        assert_eq!(answer.contains("a=ssrc-group:FID 1001 1002\r\n"), video.1.is_some(), "{name}");
    };
    check("chromium", (116, Some(117)), 111, Some(5));
    check("gstreamer", (96, None), 111, None);
    check("werift", (97, None), 96, None);
    check("firefox", (126, Some(127)), 109, Some(6));
}

/// The stream's own profile is taken where the viewer lists it.
#[test]
fn the_same_profile_goes_first() {
    let check = |profile_level_id: Option<[u8; 3]>, want: u8| {
        let video = SendVideo { profile_level_id, ssrc: 1, rtx_ssrc: 2 };
        let (negotiated, _) = answered(WHEP[0].1, &Wants::Send(Sending { video: Some(video), ..sending() }));
        assert_eq!(negotiated.video().expect("video").1.payload_type, want, "{profile_level_id:02x?}");
    };
    check(Some([0x42, 0x00, 0x1e]), 102);
    check(Some([0x42, 0xc0, 0x1f]), 108);
    check(Some([0x4d, 0x40, 0x28]), 116);
    check(Some([0xf4, 0x00, 0x28]), 41);
    check(Some([0x64, 0x00, 0x28]), 116);
    check(None, 116);
}

#[test]
fn a_stream_without_one_kind_leaves_it_inactive() {
    for (name, offer) in WHEP {
        let (negotiated, answer) = answered(offer, &Wants::Send(Sending { video: None, ..sending() }));
        assert!(negotiated.video().is_none() && negotiated.audio().is_some(), "{name}");
        let media = negotiated.media.iter().find(|media| media.kind == Kind::Video).expect("in its place");
        assert_eq!(
            media.accepted.as_ref().map(|it| (it.direction, it.source.is_none())),
            Some((Direction::Inactive, true)),
            "{name}"
        );
        assert!(!answer.contains("m=video 0") && !answer.contains("a=msid:live video"), "{name}");
        let (negotiated, _) = answered(offer, &Wants::Send(Sending { audio: None, ..sending() }));
        assert!(negotiated.video().is_some() && negotiated.audio().is_none(), "{name}");
    }
}

#[test]
fn answers_are_golden() {
    let check = |offer: &str, wants: Wants, golden: &str| {
        let (_, answer) = answered(offer, &wants);
        assert!(answer == golden, "the answer has changed:\n{answer}");
    };
    check(WHIP[2].1, Wants::Receive, fixture!("chromium156-whip-simulcast.answer"));
    check(WHIP[4].1, Wants::Receive, fixture!("ffmpeg9-whip.answer"));
    check(WHEP[0].1, Wants::Send(sending()), fixture!("chromium156-whep.answer"));
}

/// RFC 9725 4.3.3: new credentials, the mid of the transport, all candidates.
#[test]
fn an_ice_restart_is_answered_by_a_fragment() {
    let (negotiated, _) = answered(WHIP[5].1, &Wants::Receive);
    let want = "a=ice-lite\r\n\
        a=group:BUNDLE video0 audio1\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
        a=mid:video0\r\n\
        a=ice-ufrag:ourU\r\n\
        a=ice-pwd:ourPasswordOf22Letters+\r\n\
        a=candidate:1 1 udp 2130706431 192.0.2.10 8443 typ host\r\n\
        a=candidate:2 1 udp 2130706175 2001:db8::10 8443 typ host\r\n\
        a=candidate:3 1 tcp 1520434687 192.0.2.10 8443 typ host tcptype passive\r\n\
        a=candidate:4 1 tcp 1520434431 2001:db8::10 8443 typ host tcptype passive\r\n\
        a=end-of-candidates\r\n";
    assert_eq!(render(&negotiated, Negotiated::fragment), want);
}

/// CRLF, bare LF and a last line without an end all mean the same.
#[test]
fn line_ends() {
    for (name, offer) in WHIP.iter().chain(&WHEP) {
        let want = Offer::parse(offer.as_bytes()).expect("readable");
        let bare = offer.replace("\r\n", "\n");
        assert_eq!(Offer::parse(bare.as_bytes()), Ok(want.clone()), "{name}");
        assert_eq!(Offer::parse(bare.trim_end().as_bytes()), Ok(want), "{name}");
    }
}

/// Damage in every form that a text suffers, the same on every run.
#[test]
fn mutants_never_panic() {
    const MUTANTS_PER_OFFER: usize = 400;
    let mut lcg = Lcg(2024);
    for (_, offer) in WHIP.iter().chain(&WHEP) {
        fuzz(offer.as_bytes());
        for _ in 0..MUTANTS_PER_OFFER {
            let mut mutant = offer.as_bytes().to_vec();
            for _ in 0..=lcg.below(4) {
                mutate(&mut mutant, &mut lcg);
            }
            fuzz(&mutant);
        }
    }
}

fn mutate(text: &mut Vec<u8>, lcg: &mut Lcg) {
    if text.is_empty() {
        return;
    }
    let mut lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (one, other) = (lcg.below(lines.len()), lcg.below(lines.len()));
    match lcg.below(7) {
        0 => return text.truncate(lcg.below(text.len())),
        1 => {
            let at = lcg.below(text.len());
            text[at] ^= 1 << lcg.below(8);
            return;
        }
        2 => {
            let at = lcg.below(text.len());
            text[at] = b"0123456789:;=/ ~,\r\n\0-"[lcg.below(21)];
            return;
        }
        3 => _ = lines.remove(one),
        4 => lines.insert(other, lines[one].clone()),
        5 => lines.swap(one, other),
        _ => lines[one] = [&lines[one][..lcg.below(lines[one].len())], lines[other].as_slice()].concat(),
    }
    *text = lines.concat();
}

/// Numerical Recipes' generator; its upper bits are the good ones.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}
