//! Whether WebRTC peers reach the addresses that they are told, and whether these are addresses for peers at all.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
};

use transport::{Engine, StartError, sdp::Protocol};

use super::{finding::Finding, ports};
use crate::{config::Config, serve};

const ABOUT: &str = "webrtc";

/// What to do about an advertised address that does not answer.
pub const UNREACHED: &str = "Is it this machine's address as others see it (webrtc.advertise)? Is its UDP port open in the firewall and forwarded? \
                             Some routers do not take their own address back: then try from outside";

pub async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = ports::look(config);
    let engine = match Engine::start(serve::connecting(&config.webrtc), &prometheus::Registry::new()).await {
        Ok(engine) => engine,
        // Who has the port was told.
        Err(StartError::Bind(..)) => return findings,
        Err(error) => {
            findings.push(Finding::fault(ABOUT, error.to_string(), "See webrtc.address and webrtc.advertise"));
            return findings;
        }
    };
    let mut candidates = Vec::new();
    for candidate in engine.candidates().iter().filter(|candidate| candidate.protocol == Protocol::Udp) {
        let address = candidate.address;
        candidates.push(address);
        findings.push(if engine.reaches(address).await {
            Finding::ok(ABOUT, format!("UDP {address}, told to WebRTC peers, reaches this server"))
        } else {
            Finding::fault(ABOUT, format!("UDP {address}, told to WebRTC peers, does not reach this server from here"), UNREACHED)
        });
    }
    findings.push(addresses(&candidates, !config.webrtc.advertise.is_empty(), in_container()));
    findings.push(ipv6(global_ipv6(), config.http.address, &candidates));
    findings
}

/// Whether others can use them.
fn addresses(candidates: &[SocketAddr], configured: bool, container: bool) -> Finding {
    let listed = candidates.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    let foreign = candidates.iter().any(|address| !address.ip().is_loopback());
    if !foreign {
        return Finding::warning(
            ABOUT,
            "WebRTC peers are told loopback addresses alone: only this machine can use them",
            "Set webrtc.advertise to the address under which others reach this machine",
        );
    }
    let bridge = candidates.iter().find(|address| is_bridge(address.ip()));
    match (configured, container, bridge) {
        // Of no use to anybody outside, and another after the next start of the container.
        (_, true, Some(address)) => Finding::fault(
            ABOUT,
            format!("this is a container, and {} is an address inside it: no peer outside reaches it", address.ip()),
            "Set webrtc.advertise (CODECAST_WEBRTC_ADVERTISE) to the address of the machine, and publish the UDP port",
        ),
        (false, true, None) => Finding::warning(
            ABOUT,
            format!("this is a container, and peers are told {listed}, which was found out"),
            "Set webrtc.advertise to the address of the machine, unless the container uses the machine's own network",
        ),
        _ => Finding::ok(ABOUT, format!("WebRTC peers are told exactly {listed}")),
    }
}

/// The networks that docker, podman and their kin give to containers.
fn is_bridge(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip else { return false };
    let [a, b, ..] = ip.octets();
    (a == 172 && (17..32).contains(&b)) || (a == 10 && (b == 88 || b == 89)) || ip == Ipv4Addr::new(10, 0, 2, 100)
}

fn ipv6(global: bool, http: SocketAddr, candidates: &[SocketAddr]) -> Finding {
    let (pages, media) = (http.is_ipv6(), candidates.iter().any(SocketAddr::is_ipv6));
    match (global, pages, media) {
        (false, ..) => Finding::ok("ipv6", "this machine has no public IPv6 address, and nothing needs one"),
        (true, true, true) => Finding::ok("ipv6", "IPv6 is served, for pages and for WebRTC"),
        (true, ..) => Finding::warning(
            "ipv6",
            format!(
                "this machine has a public IPv6 address, and {} not served by it",
                match (pages, media) {
                    (false, false) => "nothing is",
                    (true, _) => "WebRTC is",
                    (false, true) => "pages are",
                }
            ),
            "Some mobile networks have nothing else: listen on [::] (http.address, webrtc.address) and add it to webrtc.advertise",
        ),
    }
}

/// Nothing is sent: connecting a UDP socket only chooses a route.
fn global_ipv6() -> bool {
    let chosen = UdpSocket::bind("[::]:0").and_then(|socket| {
        // Somebody else's public address.
        socket.connect("[2620:fe::fe]:9")?;
        socket.local_addr()
    });
    chosen.is_ok_and(|address| matches!(address.ip(), IpAddr::V6(ip) if ip.segments()[0] & 0xe000 == 0x2000))
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
        || std::env::var_os("container").is_some()
        || fs::read_to_string("/proc/1/cgroup")
            .is_ok_and(|text| ["docker", "kubepods", "libpod"].iter().any(|word| text.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn sockets(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 8189)).collect()
    }

    #[test]
    fn addresses_are_for_peers() {
        let check = |list: &[&str], configured, container, expected| {
            assert_eq!(addresses(&sockets(list), configured, container).verdict, expected, "{list:?}");
        };
        check(&["127.0.0.1"], false, false, Verdict::Warning);
        check(&["192.0.2.7", "127.0.0.1"], false, false, Verdict::Ok);
        check(&["172.17.0.2", "127.0.0.1"], false, true, Verdict::Fault);
        check(&["172.17.0.2"], true, true, Verdict::Fault);
        check(&["172.17.0.2"], false, false, Verdict::Ok);
        check(&["10.88.0.5"], false, true, Verdict::Fault);
        check(&["192.168.1.5"], false, true, Verdict::Warning);
        check(&["203.0.113.9"], true, true, Verdict::Ok);
    }

    #[test]
    fn ipv6_is_missed_where_there_is_one() {
        let check = |global, http: &str, list: &[&str], expected| {
            assert_eq!(ipv6(global, http.parse().unwrap(), &sockets(list)).verdict, expected, "{http} {list:?}");
        };
        check(false, "0.0.0.0:80", &["192.0.2.1"], Verdict::Ok);
        check(true, "0.0.0.0:80", &["192.0.2.1"], Verdict::Warning);
        check(true, "[::]:80", &["192.0.2.1"], Verdict::Warning);
        check(true, "[::]:80", &["2001:db8::1"], Verdict::Ok);
    }
}
