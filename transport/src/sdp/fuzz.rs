//! The body of the fuzz target for this module: nothing may panic, and what we render must be readable.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    Candidate, Fingerprint, Fragment, IceCredentials, Local, Negotiated, Offer, Protocol, SendVideo, Sending, Wants, negotiate,
};

pub fn fuzz(data: &[u8]) {
    _ = Fragment::parse(data);
    let Ok(offer) = Offer::parse(data) else { return };
    let video = SendVideo { profile_level_id: Some([0x64, 0, 0x1f]), ssrc: 1, rtx_ssrc: 2 };
    let sending = Sending { video: Some(video), audio: Some(3), cname: "cname".to_owned(), stream_id: "stream".to_owned() };
    let audio_only = Sending { video: None, ..sending.clone() };
    for wants in [Wants::Receive, Wants::Send(sending), Wants::Send(audio_only)] {
        if let Ok(negotiated) = negotiate(&offer, &wants) {
            check_readable(&offer, &negotiated);
        }
    }
}

fn check_readable(offer: &Offer, negotiated: &Negotiated) {
    let ice = IceCredentials::new("abcd", "abcdefghijklmnopqrstuv").expect("these credentials are valid");
    let candidate = Candidate { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), protocol: Protocol::Udp };
    let local = Local { ice: &ice, fingerprint: &Fingerprint::sha256([7; 32]), candidates: &[candidate], session_id: u64::MAX };

    let answer = Offer::parse(negotiated.answer(&local).as_bytes()).expect("an answer of ours can be read");
    assert_eq!(answer.media.len(), offer.media.len(), "an answer has the m-lines of its offer");
    for (ours, theirs) in answer.media.iter().zip(&offer.media) {
        assert_eq!(ours.mid, theirs.mid, "every mid keeps its place");
    }
    let fragment = Fragment::parse(negotiated.fragment(&local).as_bytes()).expect("a fragment of ours can be read");
    assert_eq!(fragment.ice, Some(ice));
}
