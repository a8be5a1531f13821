//! The rules of negotiation, one line per case, on a small offer that each case edits.

use super::*;

const FINGERPRINT: &str =
    "sha-256 00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f";

/// A publisher's offer with audio and video, session-level transport.
fn offer() -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:a\r\na=sendonly\r\na=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=sendonly\r\na=rtcp-mux\r\n\
         a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-fb:96 nack pli\r\n\
         a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
    )
}

/// The offer with the first `from` replaced. `from` must be there, so that no case tests nothing.
fn edited(from: &str, to: &str) -> String {
    let offer = offer();
    assert!(offer.contains(from), "{from}");
    offer.replacen(from, to, 1)
}

/// The offer with lines added to its last m-line, the video.
fn with(lines: &str) -> String {
    offer() + lines
}

fn sending() -> Sending {
    let video = SendVideo { profile_level_id: None, ssrc: 1, rtx_ssrc: 2 };
    Sending { video: Some(video), audio: Some(3), cname: "cname".to_owned(), stream_id: "stream".to_owned() }
}

fn received(text: &str) -> Result<Negotiated, Refusal> {
    fuzz::fuzz(text.as_bytes());
    Offer::parse(text.as_bytes()).and_then(|offer| negotiate(&offer, &Wants::Receive))
}

fn video(text: &str) -> Accepted {
    received(text).expect("acceptable").video().expect("video").1.clone()
}

fn answer(negotiated: &Negotiated) -> String {
    let ice = IceCredentials::new("ourU", "ourPasswordOf22Letters+").expect("valid");
    negotiated.answer(&Local { ice: &ice, fingerprint: &Fingerprint::sha256([1; 32]), candidates: &[], session_id: u64::MAX })
}

#[test]
fn what_is_no_offer_is_refused_with_400() {
    let check = |text: String, want: &str| {
        let refusal = received(&text).expect_err(want);
        assert_eq!(refusal.to_string(), want);
        assert_eq!(refusal.status(), 400, "{want}");
    };
    check(String::new(), "the body is not an SDP: it is empty or ends early");
    check("{\"sdp\":1}".into(), "the body is not an SDP: {\"sdp\":1}");
    check(edited("v=0", "v=1"), "the body is not an SDP: 1");
    check(edited("m=audio 9", "m=audio nine"), "the body is not an SDP: parse int: invalid digit found in string");
    check("x".repeat(BYTES_MAX + 1), "the SDP has 65537 bytes: at most 65536 are taken");
    check("\n".repeat(5000), "the SDP has more than 4096 lines");
    check(with(&"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(15)), "the SDP has more than 16 m-lines");
    check(edited("a=mid:a", "a=mid:a\ra=ice-lite"), "the SDP holds a control character in line 12");
    check(edited("a=mid:a", "a=mid:a\0"), "the SDP holds a control character in line 12");
    check(edited("a=mid:a", "a=mid:v"), "two m-lines have the same a=mid:v");
    check(edited("a=mid:a", "a=mid:a b"), "the line a=mid:a b cannot be read");
    check(edited("a=mid:a", "a=mid:"), "the line a=mid: cannot be read");
    check(with("a=simulcast:send l;;h\r\n"), "the line a=rid: cannot be read");
    check(with("a=rid:a/b send\r\n"), "the line a=rid:a/b cannot be read");
    check(edited("abcd\r\n", "abc\r\n"), "a=ice-ufrag must have 4 to 256 characters out of letters, digits, + and /");
    check(edited("qrstuv", "q"), "a=ice-pwd must have 22 to 256 characters out of letters, digits, + and /");
    check(edited(FINGERPRINT, "sha-256 01:02"), "a=fingerprint:sha-256 01:02 is not a hash in hexadecimal bytes with colons");
    check(offer().split("m=").next().expect("head").to_owned(), "the offer has no m-line");
    assert_eq!(Offer::parse(&[b'v', b'=', 0xff]), Err(Refusal::NotText));
}

/// Codecs as a publisher lists them, by payload type from 100 on; mode 0 is H.264 in single NAL units.
#[test]
fn a_publisher_sends_what_it_prefers_unless_it_lists_everything() {
    let check = |listed: &[&str], want: Option<&str>| {
        let types: Vec<String> = (100..100 + listed.len()).map(|number| number.to_string()).collect();
        let codecs: String = types
            .iter()
            .zip(listed)
            .map(|(number, name)| match name.split_once(' ') {
                Some((name, fmtp)) => format!("a=rtpmap:{number} {name}/90000\r\na=fmtp:{number} {fmtp}\r\n"),
                None => format!("a=rtpmap:{number} {name}/90000\r\n"),
            })
            .collect();
        let text = edited("SAVPF 96 97", &format!("SAVPF {}", types.join(" "))) + &codecs;
        let taken = received(&text).ok().map(|it| it.video().expect("video").1.encoding.clone());
        assert_eq!(taken.as_deref().map(|encoding| encoding.split_once('/').expect("a clock").0), want, "{listed:?}");
    };
    check(&["H265"], Some("H265"));
    check(&["AV1"], Some("AV1"));
    check(&["AV1", "H264"], Some("AV1"));
    check(&["H265", "AV1", "H264"], Some("H265"));
    check(&["VP8", "AV1", "H265", "H264"], Some("H264"));
    check(&["AV1", "H265", "vp8"], Some("H265"));
    check(&["VP8", "AV1"], Some("AV1"));
    check(&["H264 packetization-mode=0", "AV1"], Some("AV1"));
    check(&["VP8", "H264 packetization-mode=0"], Some("H264"));
    check(&["VP8", "VP9"], None);
    check(&["H265 sprop-max-don-diff=2"], None);
}

#[test]
fn what_cannot_be_accepted_is_refused_with_422() {
    let check = |text: String, want: &str| {
        let refusal = received(&text).expect_err(want);
        assert_eq!(refusal.to_string(), want);
        assert_eq!(refusal.status(), 422, "{want}");
    };
    check(
        edited("H264/90000", "VP8/90000").replace("a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n", ""),
        "the video offers no H.264, H.265 or AV1 in RTP over DTLS (it offers VP8): set the encoder's codec to H.264",
    );
    check(
        edited("opus/48000/2", "MPEG4-GENERIC/48000/2"),
        "the audio offers no Opus in RTP over DTLS (it offers MPEG4-GENERIC): set the encoder's audio codec to Opus",
    );
    check(
        edited("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/AVP"),
        "the video offers no H.264, H.265 or AV1 in RTP over DTLS (it offers RTP/AVP): set the encoder's codec to H.264",
    );
    check(
        edited("m=video 9 UDP/TLS/RTP/SAVPF 96 97", "m=video 9 UDP/TLS/RTP/SAVPF 99"),
        "the video offers no H.264, H.265 or AV1 in RTP over DTLS (it offers nothing): set the encoder's codec to H.264",
    );
    check(offer().replace("sendonly", "recvonly"), "the offer sends nothing: a publisher offers its audio and video as sendonly");
    check(offer().replace(" 9 UDP", " 0 UDP"), "the offer sends nothing: a publisher offers its audio and video as sendonly");
    check(
        offer().replace("m=audio", "m=application").replace("m=video", "m=application"),
        "the offer has neither audio nor video",
    );
    check(
        edited("a=group:BUNDLE a v\r\n", ""),
        "audio and video must share one transport: the offer needs a=group:BUNDLE with the a=mid of both",
    );
    check(
        edited("BUNDLE a v", "BUNDLE a"),
        "audio and video must share one transport: the offer needs a=group:BUNDLE with the a=mid of both",
    );
    check(
        edited("a=mid:v\r\n", ""),
        "audio and video must share one transport: the offer needs a=group:BUNDLE with the a=mid of both",
    );
    check(edited("a=rtcp-mux\r\n", ""), "RTP and RTCP must share one port: the offer needs a=rtcp-mux in every m-line");
    check(edited("a=ice-ufrag:abcd\r\n", ""), "the offer has no a=ice-ufrag and a=ice-pwd");
    check(edited("a=ice-pwd:abcdefghijklmnopqrstuv\r\n", ""), "the offer has no a=ice-ufrag and a=ice-pwd");
    check(
        edited("a=setup", "a=ice-lite\r\na=setup"),
        "the offer comes from an ICE-lite agent; this server is one too, and one side must make the checks",
    );
    check(
        edited(&format!("a=fingerprint:{FINGERPRINT}\r\n"), ""),
        "the offer has no a=fingerprint: media must be encrypted with DTLS-SRTP",
    );
    check(
        edited(FINGERPRINT, "sha-1 01:02"),
        "the offer's only certificate hash is sha-1: sha-256, sha-384 or sha-512 is needed",
    );
    check(edited("actpass", "holdconn"), "a=setup:holdconn cannot be answered: offer actpass, active or passive");
    check(
        with("a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=simulcast:send 1;2;3;4;5;6;7;8;9\r\n"),
        "the offer has more than 8 simulcast layers",
    );
    let no_rid = "simulcast layers need the header extension urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id with an id of 1 to 14";
    check(with("a=simulcast:send l;h\r\n"), no_rid);
    check(with("a=extmap:15 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=simulcast:send l;h\r\n"), no_rid);
}

#[test]
fn the_offerer_says_who_opens_dtls() {
    let check = |setup: &str, client: bool| {
        let negotiated = received(&edited("a=setup:actpass\r\n", setup)).expect("acceptable");
        assert_eq!(negotiated.dtls_client, client, "{setup}");
    };
    check("a=setup:actpass\r\n", false);
    check("a=setup:active\r\n", false);
    check("a=setup:passive\r\n", true);
    check("", false);
}

/// Attributes of the m-line go before those of the session; a bundled m-line may leave them to the tagged one.
#[test]
fn the_transport_is_that_of_the_bundle() {
    let check = |text: String, ufrag: &str| {
        let negotiated = received(&text).expect("acceptable");
        assert_eq!(negotiated.remote.ice.ufrag(), ufrag, "{text}");
    };
    let own = |ufrag: &str| format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{}\r\n", "p".repeat(24));
    check(offer(), "abcd");
    check(edited("a=mid:a\r\n", &format!("a=mid:a\r\n{}", own("audi"))), "audi");
    check(with(&own("vide")), "abcd");
    check(with(&own("vide")).replace("BUNDLE a v", "BUNDLE v a"), "vide");
    // The tagged m-line is rejected, so the next one carries the transport.
    check(with(&own("vide")).replacen("sendonly", "recvonly", 1), "vide");
    // Nothing at the session, all at a tagged data channel.
    let session = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n";
    let channel = format!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n{}m=audio", own("data"));
    check(edited(session, "").replace("BUNDLE", "BUNDLE d").replace("m=audio", &channel), "data");
}

#[test]
fn m_lines_keep_their_places() {
    let check = |text: String, want: &str| {
        let negotiated = received(&text).expect("acceptable");
        let answer = answer(&negotiated);
        let lines =
            answer.lines().filter(|line| line.starts_with("m=") || line.starts_with("a=group") || line.starts_with("a=mid"));
        let short = lines.map(|line| line.replace(" UDP/TLS/RTP/SAVPF", "").replace("a=", "").replace("group:", ""));
        assert_eq!(short.collect::<Vec<_>>().join(", "), want, "{text}");
    };
    let second = "m=video 9 UDP/TLS/RTP/SAVPF 100\r\na=mid:w\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:100 H264/90000\r\n";
    let channel = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n";
    check(offer(), "BUNDLE a v, m=audio 9 111, mid:a, m=video 9 96 97, mid:v");
    check(with(second), "BUNDLE a v, m=audio 9 111, mid:a, m=video 9 96 97, mid:v, m=video 0 100, mid:w");
    check(
        with(channel).replace("BUNDLE a v", "BUNDLE a v d"),
        "BUNDLE a v, m=audio 9 111, mid:a, m=video 9 96 97, mid:v, m=application 0 UDP/DTLS/SCTP webrtc-datachannel, mid:d",
    );
    check(edited("BUNDLE a v", "BUNDLE v a"), "BUNDLE v a, m=audio 9 111, mid:a, m=video 9 96 97, mid:v");
    check(edited("m=audio 9", "m=audio 0"), "BUNDLE v, m=audio 0 111, mid:a, m=video 9 96 97, mid:v");
    check(
        edited("m=audio 9", "m=audio 0").replace("mid:a\r\n", "mid:a\r\na=bundle-only\r\n"),
        "BUNDLE a v, m=audio 9 111, mid:a, m=video 9 96 97, mid:v",
    );
    // One m-line needs neither group nor mid.
    let (head, _) = offer().split_once("m=video").map(|(head, video)| (head.to_owned(), video.to_owned())).expect("video");
    check(head.clone(), "BUNDLE a, m=audio 9 111, mid:a");
    check(head.replace("a=group:BUNDLE a v\r\n", ""), "m=audio 9 111, mid:a");
    check(head.replace("a=group:BUNDLE a v\r\n", "").replace("a=mid:a\r\n", ""), "m=audio 9 111");
}

#[test]
fn codecs_in_the_offers_order_but_fragments_first() {
    let check = |formats: &str, lines: &str, want: (u8, Option<u8>)| {
        let accepted =
            video(&edited("SAVPF 96 97", &format!("SAVPF {formats}")).replace("a=rtpmap:96", &format!("{lines}a=rtpmap:96")));
        assert_eq!((accepted.payload_type, accepted.rtx), want, "{formats} {lines}");
    };
    let mode0 = "a=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=0;profile-level-id=42001f\r\n";
    let high = "a=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=1;profile-level-id=640028\r\n";
    check("98 96 97", mode0, (96, Some(97)));
    check("98", mode0, (98, None));
    check("98 96 97", high, (98, None));
    check("96 98 97", high, (96, Some(97)));
    check("96 96 97 97", "", (96, Some(97)));
    check("96 97", "a=rtpmap:99 H264/90000\r\na=fmtp:42 apt=96\r\na=fmtp:x y\r\na=rtpmap:300 H264/90000\r\n", (96, Some(97)));
    // 72 would read as RTCP.
    check("72 96", "a=rtpmap:72 H264/90000\r\n", (96, None));
}

#[test]
fn feedback_and_extensions_only_as_offered() {
    let check = |lines: &str, want: &[&str]| {
        let negotiated = received(&with(lines)).expect("acceptable");
        let text = answer(&negotiated);
        let video = text.split("m=video").nth(1).expect("video");
        let got = video.lines().filter(|line| line.starts_with("a=extmap") || line.starts_with("a=rtcp-fb")).collect::<Vec<_>>();
        assert_eq!(got, want, "{lines}");
    };
    const TWCC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    let twcc = format!("a=extmap:5 {TWCC}");
    let pli = "a=rtcp-fb:96 nack pli";
    check("", &[pli]);
    check("a=rtcp-fb:96 goog-lntf\r\na=rtcp-fb:97 nack\r\n", &[pli]);
    check("a=rtcp-fb:* ccm fir\r\na=rtcp-fb:96 nack\r\n", &["a=rtcp-fb:96 ccm fir", "a=rtcp-fb:96 nack", pli]);
    check(&format!("{twcc}\r\na=rtcp-fb:96 transport-cc\r\n"), &[&twcc, "a=rtcp-fb:96 transport-cc", pli]);
    check(&format!("{twcc}\r\n"), &[pli]);
    check("a=rtcp-fb:96 transport-cc\r\n", &[pli]);
    let mid = "urn:ietf:params:rtp-hdrext:sdes:mid";
    check(&format!("a=extmap:3/recvonly {mid}\r\n"), &[&format!("a=extmap:3 {mid}"), pli]);
    check(&format!("a=extmap:3 {mid}\r\na=extmap:4 {mid}\r\n"), &[&format!("a=extmap:3 {mid}"), pli]);
    check(&format!("a=extmap:3 urn:x\r\na=extmap:3 {mid}\r\n"), &[pli]);
    for id in ["0", "15", "16", "255", "256", "-1", "x", ""] {
        check(&format!("a=extmap:{id} {mid}\r\n"), &[pli]);
    }
    // A publisher's playout delay is not ours to carry on.
    check("a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n", &[pli]);
}

/// OBS stops when the answer names fewer layers than it offered.
#[test]
fn every_layer_is_answered() {
    let check = |lines: &str, want: &[&str], simulcast: Option<&str>| {
        let text = with(&format!("a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n{lines}"));
        let answer = answer(&received(&text).expect("acceptable"));
        let rids: Vec<&str> = answer.lines().filter(|line| line.starts_with("a=rid")).collect();
        assert_eq!(rids, want.iter().map(|rid| format!("a=rid:{rid} recv")).collect::<Vec<_>>(), "{lines}");
        assert_eq!(answer.lines().find_map(|line| line.strip_prefix("a=simulcast:")), simulcast, "{lines}");
    };
    let rids = |names: &[&str]| names.iter().map(|name| format!("a=rid:{name} send\r\n")).collect::<String>();
    check("", &[], None);
    check(&(rids(&["0", "1"]) + "a=simulcast:send 0;1\r\n"), &["0", "1"], Some("recv 0;1"));
    check(&(rids(&["a", "b", "c", "d"]) + "a=simulcast:send d;c;b;a\r\n"), &["d", "c", "b", "a"], Some("recv d;c;b;a"));
    check("a=simulcast:send h,m;~l\r\n", &["h", "m", "l"], Some("recv h;m;l"));
    check("a=simulcast:recv x send h;l\r\n", &["h", "l"], Some("recv h;l"));
    check("a=simulcast: send rid=h;l\r\n", &["h", "l"], Some("recv h;l"));
    check("a=simulcast:send h;h\r\n", &["h"], Some("recv h"));
    check(&rids(&["h"]), &["h"], None);
    check("a=rid:h recv\r\na=simulcast:recv h\r\n", &[], None);
    check("a=simulcast:send 1;2;3;4;5;6;7;8\r\n", &["1", "2", "3", "4", "5", "6", "7", "8"], Some("recv 1;2;3;4;5;6;7;8"));
}

#[test]
fn sources() {
    let check = |lines: &str, want: &[(u32, Option<u32>)]| {
        let ssrcs: Vec<_> = video(&with(lines)).ssrcs.iter().map(|it| (it.ssrc, it.rtx)).collect();
        assert_eq!(ssrcs, want, "{lines}");
    };
    check("", &[]);
    check("a=ssrc:1 cname:x\r\na=ssrc:1 msid:x y\r\n", &[(1, None)]);
    check("a=ssrc:2 cname:x\r\na=ssrc:1 cname:x\r\na=ssrc-group:FID 1 2\r\n", &[(1, Some(2))]);
    check(
        "a=ssrc-group:SIM 3 1 2\r\na=ssrc-group:FID 1 11\r\na=ssrc-group:FID 3 13\r\n",
        &[(3, Some(13)), (1, Some(11)), (2, None)],
    );
    check("a=ssrc-group:FEC-FR 1 9\r\na=ssrc:1 a\r\na=ssrc:9 a\r\n", &[(1, None)]);
    check("a=ssrc-group:FID 1\r\na=ssrc-group:FID\r\na=ssrc:x\r\na=ssrc:4294967296 a\r\n", &[(1, None)]);
    let many: String = (0..1000).map(|ssrc| format!("a=ssrc:{ssrc} cname:x\r\n")).collect();
    assert_eq!(video(&with(&many)).ssrcs.len(), 24);
}

/// Rejected only where nothing could be kept: aiortc wants ICE and DTLS in every m-line.
#[test]
fn a_viewer_is_sent_what_there_is() {
    let check = |text: String, sending: Sending, want: &str| {
        let negotiated = Offer::parse(text.as_bytes()).and_then(|offer| negotiate(&offer, &Wants::Send(sending)));
        let got = match negotiated {
            Ok(negotiated) => {
                let media = negotiated.media.iter();
                media
                    .map(|media| media.accepted.as_ref().map_or("rejected", |it| it.direction.name()))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
            Err(refusal) => refusal.to_string(),
        };
        assert_eq!(got, want, "{text}");
    };
    let viewer = || offer().replace("sendonly", "recvonly");
    let nothing = "the offer receives nothing that this stream has: a viewer offers audio and video as recvonly";
    check(viewer(), sending(), "sendonly sendonly");
    check(offer().replace("sendonly", "sendrecv"), sending(), "sendonly sendonly");
    check(viewer(), Sending { video: None, ..sending() }, "sendonly inactive");
    check(viewer(), Sending { audio: None, ..sending() }, "inactive sendonly");
    check(viewer().replace("VP8", "VP9").replace("H264", "VP8"), Sending { video: None, ..sending() }, "sendonly rejected");
    check(edited("sendonly", "recvonly"), sending(), "sendonly inactive");
    check(offer(), sending(), nothing);
    check(viewer(), Sending { video: None, audio: None, ..sending() }, nothing);
    check(viewer() + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n", sending(), "sendonly sendonly rejected");
    check(
        viewer().replace("H264", "VP8"),
        sending(),
        "the video offers no H.264 in RTP over DTLS (it offers VP8): set the encoder's codec to H.264",
    );
}

#[test]
fn fragments() {
    let check = |text: &str, ufrag: Option<&str>, mids: &[&str], candidates: usize, end_of_candidates: bool| {
        let ice = ufrag.map(|ufrag| IceCredentials::new(ufrag, "abcdefghijklmnopqrstuv").expect("valid"));
        let mids = mids.iter().map(|mid| (*mid).to_owned()).collect();
        assert_eq!(Fragment::parse(text.as_bytes()), Ok(Fragment { ice, mids, candidates, end_of_candidates }), "{text}");
    };
    let refused = |text: &str, want: Refusal| assert_eq!(Fragment::parse(text.as_bytes()), Err(want), "{text}");
    let ice = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n";
    let section = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n";
    let candidate = "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host\r\n";
    check("", None, &[], 0, false);
    check(&format!("{ice}{section}{candidate}{candidate}a=end-of-candidates\r\n"), Some("abcd"), &["0"], 2, true);
    check(&format!("a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\n{section}{ice}{candidate}"), Some("abcd"), &["0"], 1, false);
    check(&format!("{section}{candidate}").replace("\r\n", "\n"), None, &["0"], 1, false);
    refused("a=ice-ufrag:abcd\r\n", Refusal::BadIcePwd);
    refused("a=ice-pwd:abcdefghijklmnopqrstuv\r\n", Refusal::BadIceUfrag);
    refused("a=ice-ufrag:a\r\na=ice-pwd:b\r\n", Refusal::BadIceUfrag);
    refused("a=mid:\0", Refusal::ControlCharacter(1));
}

/// The dearest input of each kind that the limits allow is read within moments: 2 s is a hundred times what it takes.
#[test]
fn work_grows_with_the_input_only() {
    let began = std::time::Instant::now();
    let lines = [
        "a=ssrc:1 a\n",
        "a=rid:x send\n",
        "a=ssrc-group:FID 1 2\n",
        "a=extmap:1 u\n",
        "a=fingerprint:sha-1 0\n",
        "a=rtpmap:96 H264/90000\n",
    ];
    for line in lines {
        let text = with(&line.repeat(2500));
        assert!(!matches!(received(&text), Err(Refusal::TooLong(_) | Refusal::TooManyLines)), "{line}");
    }
    _ = received(&with(&format!("a=ssrc-group:SIM {}\r\n", "1 ".repeat(30_000))));
    _ = received(&edited("SAVPF 96 97", &format!("SAVPF 96{}", " 97".repeat(20_000))));
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
}
