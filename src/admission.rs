//! Admission from the configured stream keys: the key decides the name, and is told to nobody.

use ingest::admission::{Admission, Answer, Protocol, PublishRequest, Verdict};
use media_core::StreamName;

use crate::config::Credential;

/// RTMP's application in the address we tell streamers: `rtmp://HOST/live`.
const APP: &str = "live";

pub struct ByKey {
    credentials: Vec<Credential>,
}

impl ByKey {
    pub fn new(credentials: Vec<Credential>) -> Self {
        Self { credentials }
    }

    fn decide(&self, request: &PublishRequest) -> Verdict {
        let app = request.app.trim_matches('/');
        if request.protocol == Protocol::Rtmp && app != APP {
            return deny("the server address ends in the wrong application: it must end in /live, as in rtmp://HOST/live");
        }
        // All are compared, so that the time tells nothing about which one matched.
        let mut found: Option<&StreamName> = None;
        for credential in &self.credentials {
            if credential.key == request.key {
                found = Some(&credential.stream);
            }
        }
        match found {
            Some(stream) => Verdict::Allow { stream: stream.clone() },
            None => deny("this stream key is not known here: copy it again from where the server shows it"),
        }
    }
}

fn deny(reason: &'static str) -> Verdict {
    Verdict::Deny { reason: reason.into() }
}

impl Admission for ByKey {
    fn admit(&self, request: PublishRequest) -> Answer<'_> {
        let verdict = self.decide(&request);
        Box::pin(std::future::ready(verdict))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use media_core::StreamKey;

    use super::*;

    #[test]
    fn a_key_opens_its_own_stream_and_no_other() {
        let credential = |stream: &str, key: &str| Credential {
            stream: StreamName::parse(stream).unwrap(),
            key: StreamKey::new(key),
            ladder: None,
        };
        let admission = ByKey::new(vec![credential("one", "first-secret-key-1"), credential("two", "second-secret-key")]);
        let check = |app: &str, key: &str, expected: Option<&str>| {
            let request = PublishRequest {
                protocol: Protocol::Rtmp,
                peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
                app: app.into(),
                key: StreamKey::new(key),
            };
            match (admission.decide(&request), expected) {
                (Verdict::Allow { stream }, Some(name)) => assert_eq!(stream.as_str(), name),
                (Verdict::Deny { reason }, None) => assert!(key.is_empty() || !reason.contains(key), "the key is not repeated"),
                (verdict, _) => panic!("{app} {key}: {verdict:?}"),
            }
        };
        check("live", "first-secret-key-1", Some("one"));
        check("live/", "second-secret-key", Some("two"));
        check("live", "second-secret-ke", None);
        check("live", "one", None);
        check("live", "", None);
        check("app", "first-secret-key-1", None);
    }
}
