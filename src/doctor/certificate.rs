//! The certificate that would serve: whose, for which names, until when, and whether a directory could give another.

use std::{
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::crypto::ring;

use super::finding::Finding;
use crate::{
    config::{Acme, AcmeChallenge, Config},
    tls::{self, leaf::Leaf, pair::Pair},
};

const ABOUT: &str = "certificate";
/// Whoever renews has failed for a while then: at two thirds of ninety days there are thirty left.
const SOON: Duration = Duration::from_secs(10 * 24 * 3600);

pub fn look(config: &Config, data_dir: &Path) -> Vec<Finding> {
    if config.tls.https_address.is_none() && config.tls.rtmps_address.is_none() {
        return vec![Finding::ok(ABOUT, "no TLS is served")];
    }
    let mut findings = match (&config.tls.files, &config.tls.acme) {
        (Some((certificate, key)), _) => {
            pair(&Pair { certificate: certificate.clone(), key: key.clone() }, "tls.certificate", &[])
        }
        (None, Some(acme)) => match tls::kept(data_dir, &acme.directory) {
            Some(kept) => pair(&kept, "kept from the directory", &acme.names),
            None => vec![Finding::ok(
                ABOUT,
                format!("no certificate is kept from {} yet: it is asked for at the start", acme.directory),
            )],
        },
        (None, None) => vec![Finding::ok(
            ABOUT,
            "the server makes a certificate of its own, which browsers ask about and encoders refuse (tls.acme_names, tls.certificate)",
        )],
    };
    if let Some(acme) = &config.tls.acme {
        findings.extend(directory(config, acme));
    }
    findings
}

fn pair(pair: &Pair, whose: &str, names: &[String]) -> Vec<Finding> {
    let key = match pair.load(&Arc::new(ring::default_provider())) {
        Ok(key) => key,
        Err(e) => {
            return vec![Finding::fault(
                ABOUT,
                format!("the certificate ({whose}) cannot be used: {e:#}"),
                "See tls.certificate and tls.key",
            )];
        }
    };
    let chain: Result<Vec<_>, _> = key.cert.iter().map(Leaf::read).collect();
    let mut findings = match chain {
        Ok(chain) => vec![expiry(&chain[0], whose, SystemTime::now()), order(&chain)],
        Err(e) => {
            return vec![Finding::warning(
                ABOUT,
                format!("the certificate ({whose}) cannot be read: {e:#}"),
                "Look at it with openssl",
            )];
        }
    };
    if let (Ok(leaf), false) = (Leaf::read(&key.cert[0]), names.is_empty())
        && !leaf.is_for(names)
    {
        findings.push(Finding::ok(
            ABOUT,
            "the kept certificate is for other names than tls.acme_names: another is asked for at the start",
        ));
    }
    if let Some(open) = readable_by_others(&pair.key) {
        findings.push(open);
    }
    findings
}

fn expiry(leaf: &Leaf, whose: &str, now: SystemTime) -> Finding {
    let text = |state: &str| format!("the certificate ({whose}) is for {} {state}", leaf.names.join(" "));
    let until = httpdate::fmt_http_date(leaf.validity.until);
    if now < leaf.validity.from {
        return Finding::fault(ABOUT, text("and is not valid yet"), "Is the clock right?");
    }
    match leaf.validity.until.duration_since(now) {
        Err(_) => Finding::fault(ABOUT, text(&format!("and has ended at {until}")), "Renew it: players and encoders refuse it"),
        // Short-lived ones are renewed at two thirds of their time.
        Ok(left) if left < SOON.min(leaf.validity.length() / 4) => {
            Finding::warning(ABOUT, text(&format!("and ends soon, at {until}")), "Whatever renews it has failed: look at its log")
        }
        Ok(_) => Finding::ok(ABOUT, text(&format!("until {until}"))),
    }
}

/// Each is signed by the next (RFC 8446 4.4.2).
fn order(chain: &[Leaf]) -> Finding {
    let broken = chain.windows(2).position(|pair| pair[0].issuer != pair[1].subject);
    let alone = chain.len() == 1 && chain[0].issuer != chain[0].subject;
    match broken {
        Some(at) => Finding::fault(
            ABOUT,
            format!("certificate {} of the chain is not signed by the one that follows it", at + 1),
            "Write them in order: the server's first, then each one's issuer (certbot's fullchain.pem is so)",
        ),
        None if alone => Finding::warning(
            ABOUT,
            "the chain holds the server's certificate alone",
            "Encoders and phones may not know its issuer: add the intermediate certificate (certbot's fullchain.pem)",
        ),
        None => Finding::ok(ABOUT, format!("key and chain fit: {} certificates, each signed by the next", chain.len())),
    }
}

fn readable_by_others(key: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(key).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        Finding::warning(ABOUT, format!("every user of this machine may read the private key {}", key.display()), "chmod o-r it")
    })
}

/// Whether the directory would find this server under the names.
fn directory(config: &Config, acme: &Acme) -> Vec<Finding> {
    let mut findings: Vec<_> = acme
        .names
        .iter()
        .map(|name| {
            let found = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
            let advertised: Vec<_> = config.webrtc.advertise.iter().map(SocketAddr::ip).collect();
            resolved(name, found.ok().as_deref(), |ip| is_ours(ip) || advertised.contains(&ip))
        })
        .collect();
    findings.push(match (acme.challenge, config.tls.https_address) {
        (AcmeChallenge::TlsAlpn01, Some(address)) => port(443, address, "tls.https_address"),
        _ => port(80, config.http.address, "http.address"),
    });
    findings
}

fn resolved(name: &str, addresses: Option<&[IpAddr]>, ours: impl Fn(IpAddr) -> bool) -> Finding {
    let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) else {
        return Finding::warning(
            ABOUT,
            format!("the name {name} (tls.acme_names) has no address here"),
            "The directory needs one in the public DNS. Is the name spelt right?",
        );
    };
    let foreign: Vec<_> = addresses.iter().filter(|ip| !ours(**ip)).map(IpAddr::to_string).collect();
    if foreign.is_empty() {
        return Finding::ok(ABOUT, format!("the name {name} leads to this machine"));
    }
    Finding::warning(
        ABOUT,
        format!("the name {name} leads to {}, which is no address of this machine", foreign.join(" ")),
        "That is well behind a router that forwards to here; else correct the DNS. Each address is tried, IPv6 first",
    )
}

/// Only its own addresses can be bound.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

fn port(wanted: u16, address: SocketAddr, key: &str) -> Finding {
    if address.port() == wanted {
        return Finding::ok(ABOUT, format!("the directory's challenge meets {key} on port {wanted}"));
    }
    Finding::warning(
        ABOUT,
        format!("the directory's challenge comes to port {wanted}, and {key} is {address}"),
        format!("Forward port {wanted} of the public address to it, or set {key}"),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};
    use crate::tls::leaf::Validity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn leaf(subject: &str, issuer: &str) -> Leaf {
        let day = |n: u32| SystemTime::UNIX_EPOCH + DAY * n;
        let validity = Validity { from: day(100), until: day(190) };
        Leaf { names: vec!["a.example".into()], validity, issuer: issuer.into(), subject: subject.into(), id: None }
    }

    #[test]
    fn a_certificate_ends() {
        let check = |day: u32, expected| {
            let now = SystemTime::UNIX_EPOCH + DAY * day;
            assert_eq!(expiry(&leaf("a", "b"), "x", now).verdict, expected, "{day}");
        };
        check(99, Verdict::Fault);
        check(100, Verdict::Ok);
        check(179, Verdict::Ok);
        check(181, Verdict::Warning);
        check(191, Verdict::Fault);
    }

    #[test]
    fn a_chain_has_an_order() {
        let check = |chain: &[(&str, &str)], expected| {
            let chain: Vec<_> = chain.iter().map(|(subject, issuer)| leaf(subject, issuer)).collect();
            assert_eq!(order(&chain).verdict, expected);
        };
        check(&[("leaf", "middle"), ("middle", "root")], Verdict::Ok);
        check(&[("self", "self")], Verdict::Ok);
        check(&[("leaf", "middle")], Verdict::Warning);
        check(&[("middle", "root"), ("leaf", "middle")], Verdict::Fault);
    }

    #[test]
    fn a_name_leads_here() {
        let check = |found: Option<&[&str]>, expected| {
            let found: Option<Vec<IpAddr>> = found.map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect());
            let ours = |ip: IpAddr| ip.is_loopback();
            assert_eq!(resolved("a.example", found.as_deref(), ours).verdict, expected);
        };
        check(None, Verdict::Warning);
        check(Some(&[]), Verdict::Warning);
        check(Some(&["127.0.0.1"]), Verdict::Ok);
        check(Some(&["127.0.0.1", "2001:db8::1"]), Verdict::Warning);
        assert!(is_ours(IpAddr::from([127, 0, 0, 1])) && !is_ours(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(port(443, "0.0.0.0:443".parse().unwrap(), "k").verdict, Verdict::Ok);
        assert_eq!(port(443, "0.0.0.0:8443".parse().unwrap(), "k").verdict, Verdict::Warning);
    }
}
