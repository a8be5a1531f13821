//! Whether the configured ports are free, and who has them where they are not.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use super::finding::Finding;
use crate::config::Config;

const ABOUT: &str = "ports";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A process, as far as `/proc` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    pub name: String,
}

/// Each configured address. The ports are held until the last was tried, so that two of ours do not pass for free.
pub fn look(config: &Config) -> Vec<Finding> {
    let tcp = [
        (Some(config.http.address), "http.address"),
        (config.tls.https_address, "tls.https_address"),
        (Some(config.rtmp.address), "rtmp.address"),
        (config.tls.rtmps_address, "tls.rtmps_address"),
        (config.webrtc.tcp.then_some(config.webrtc.address), "webrtc.address"),
    ];
    let mut held = Vec::new();
    let mut findings: Vec<_> = tcp
        .into_iter()
        .filter_map(|(address, key)| {
            let address = address?;
            let bound = TcpListener::bind(address).map(|socket| held.push(socket)).map_err(|e| e.kind());
            Some(verdict(Protocol::Tcp, address, key, bound, || owner(Protocol::Tcp, address)))
        })
        .collect();
    for (address, key) in [(Some(config.webrtc.address), "webrtc.address"), (config.srt.address, "srt.address")] {
        let Some(address) = address else { continue };
        let bound = UdpSocket::bind(address).map(drop).map_err(|e| e.kind());
        findings.push(verdict(Protocol::Udp, address, key, bound, || owner(Protocol::Udp, address)));
    }
    findings
}

fn verdict(
    protocol: Protocol,
    address: SocketAddr,
    key: &str,
    bound: Result<(), ErrorKind>,
    owner: impl FnOnce() -> Option<Owner>,
) -> Finding {
    let port = format!("{} {address} ({key})", if protocol == Protocol::Tcp { "TCP" } else { "UDP" });
    match bound {
        Ok(()) => Finding::ok(ABOUT, format!("{port} is free")),
        Err(ErrorKind::AddrInUse) => match owner() {
            Some(owner) if owner.name == "codecast" => Finding::warning(
                ABOUT,
                format!("{port} is used by codecast, process {}", owner.pid),
                "That is well if it is this server; what is found here of its ports is then of no use",
            ),
            Some(Owner { pid, name }) => Finding::fault(
                ABOUT,
                format!("{port} is used by {name}, process {pid}"),
                format!("Stop it, or choose another {key}"),
            ),
            None => Finding::fault(
                ABOUT,
                format!("{port} is used by another process, or twice in the configuration"),
                format!("Choose another {key}; root sees who has it"),
            ),
        },
        Err(ErrorKind::PermissionDenied) => Finding::fault(
            ABOUT,
            format!("{port} may not be used by this user"),
            "Ports below 1024 need a privilege: setcap cap_net_bind_service=+ep on the program, or a higher port with a forwarding",
        ),
        Err(ErrorKind::AddrNotAvailable) => Finding::fault(
            ABOUT,
            format!("{port} is no address of this machine"),
            format!("Set {key} to one, or to 0.0.0.0 or [::]"),
        ),
        Err(other) => Finding::fault(ABOUT, format!("{port} cannot be used: {other}"), format!("Choose another {key}")),
    }
}

fn owner(protocol: Protocol, address: SocketAddr) -> Option<Owner> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes = tables.into_iter().filter_map(|table| fs::read_to_string(table).ok());
    let inodes: Vec<_> = inodes.flat_map(|table| inodes_of(&table, address.port(), protocol)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.into_iter().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let has_it = open.any(|link| inodes.iter().any(|inode| link.as_os_str() == format!("socket:[{inode}]").as_str()));
        let name = fs::read_to_string(process.path().join("comm")).ok()?.trim().to_owned();
        has_it.then_some(Owner { pid, name })
    })
}

/// Of the sockets that listen on this port (proc(5), /proc/net/tcp): the ninth column and ten.
fn inodes_of(table: &str, port: u16, protocol: Protocol) -> Vec<String> {
    let listens = |state: &str| match protocol {
        Protocol::Tcp => state == "0A",
        Protocol::Udp => state == "07",
    };
    let line = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (_, hex) = columns.get(1)?.rsplit_once(':')?;
        let here = u16::from_str_radix(hex, 16).ok()? == port && listens(columns.get(3)?);
        here.then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn a_port_that_cannot_be_had_is_told_with_who_has_it() {
        let check = |bound: Result<(), ErrorKind>, owner: Option<&str>, expected: Verdict, text: &str| {
            let owner = || owner.map(|name| Owner { pid: 7, name: name.to_owned() });
            let found = verdict(Protocol::Tcp, "0.0.0.0:80".parse().unwrap(), "http.address", bound, owner);
            assert_eq!(found.verdict, expected, "{found:?}");
            assert!(found.render().contains(text), "{found:?}");
        };
        check(Ok(()), None, Verdict::Ok, "TCP 0.0.0.0:80 (http.address) is free");
        check(Err(ErrorKind::AddrInUse), Some("codecast"), Verdict::Warning, "used by codecast, process 7");
        check(Err(ErrorKind::AddrInUse), Some("nginx"), Verdict::Fault, "used by nginx, process 7. Stop it");
        check(Err(ErrorKind::AddrInUse), None, Verdict::Fault, "or twice in the configuration");
        check(Err(ErrorKind::PermissionDenied), None, Verdict::Fault, "setcap");
        check(Err(ErrorKind::AddrNotAvailable), None, Verdict::Fault, "no address of this machine");
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n   \
                     1: 0100007F:1F90 0100007F:ABCD 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0 0 10 0\n";
        assert_eq!(inodes_of(table, 8080, Protocol::Tcp), ["4242"]);
        assert!(inodes_of(table, 80, Protocol::Tcp).is_empty());
    }

    #[test]
    fn who_holds_a_port_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = owner(Protocol::Tcp, socket.local_addr().unwrap()).unwrap();
        assert_eq!(found.pid, std::process::id());
    }
}
