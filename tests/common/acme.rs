//! An ACME directory of a test's own: Debian's `pebble`, with names that all lead to 127.0.0.1.
//!
//! The server is told an address that outlives the directory: a `Front` in this process, behind which there is one or none.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use super::{clients::Program, within};

/// Where the server looks for the directory. Connections are closed while there is none.
pub struct Front {
    address: SocketAddr,
    /// 0: none.
    behind: Arc<AtomicU16>,
}

impl Front {
    pub fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = socket.local_addr().expect("it is bound");
        let behind = Arc::new(AtomicU16::new(0));
        let to = Arc::clone(&behind);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in socket.incoming().flatten() {
                let port = to.load(Ordering::Relaxed);
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                    join(&client, &server);
                    join(&server, &client);
                }
            }
        });
        Self { address, behind }
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    pub fn lead_to(&self, pebble: &Pebble) {
        self.behind.store(pebble.port, Ordering::Relaxed);
    }
}

fn join(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket has a copy"), to.try_clone().expect("a socket has a copy"));
    thread::spawn(move || {
        // Either may go first.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// How the directory is to be.
pub struct Settings {
    /// Where it looks for challenges.
    pub http: u16,
    pub tls: u16,
    pub lifetime: Duration,
    /// Of a hundred good nonces, so many are refused.
    pub nonces_refused: u32,
}

pub struct Pebble {
    port: u16,
    management: u16,
    process: Program,
    _names: Program,
}

/// The files that a directory needs before it is there: its own certificate.
pub struct Papers {
    folder: PathBuf,
    /// What its clients have to trust.
    pub root: PathBuf,
}

impl Papers {
    pub fn new(folder: &Path) -> Self {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("no names are good names");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().expect("a key can be made");
        let root = authority.self_signed(&authority_key).expect("it signs itself");
        let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).expect("they are names").signed_by(&key, &issuer);
        let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("a test's folder is writable");
        write("directory-root.pem", root.pem());
        write("directory.pem", certificate.expect("it is signed").pem());
        write("directory-key.pem", key.serialize_pem());
        Self { folder: folder.to_owned(), root: folder.join("directory-root.pem") }
    }

    /// Starts a directory with an empty memory.
    pub fn pebble(&self, settings: &Settings) -> Pebble {
        let names = within(Duration::from_secs(30), "there is a server of names", || self.names());
        within(Duration::from_secs(30), "there is a directory", || self.try_pebble(settings, names.1)).into_pebble(names.0)
    }

    /// The port was free a moment ago, and somebody may have taken it since.
    fn names(&self) -> Option<(Program, u16)> {
        let port = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        command.args(["-management", "", "-dns01", &format!("127.0.0.1:{port}")]);
        let program = Program::start(command);
        let started = || program.said().contains("Starting challenge servers").then_some(());
        within(Duration::from_secs(10), "it has begun", started);
        Some((program, port))
    }

    fn try_pebble(&self, settings: &Settings, names: u16) -> Option<Unnamed> {
        let free = || Some(TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port());
        let (port, management) = (free()?, free()?);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": self.folder.join("directory.pem"), "privateKey": self.folder.join("directory-key.pem"),
            "httpPort": settings.http, "tlsPort": settings.tls, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": settings.lifetime.as_secs(),
        }});
        let file = self.folder.join("pebble.json");
        fs::write(&file, config.to_string()).expect("a test's folder is writable");
        let mut command = Command::new("pebble");
        command.arg("-strict=false").arg("-config").arg(file).args(["-dnsserver", &format!("127.0.0.1:{names}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.env("PEBBLE_WFE_NONCEREJECT", settings.nonces_refused.to_string());
        let mut process = Program::start(command);
        within(Duration::from_secs(10), "it listens, or cannot", || {
            (process.ended() || [port, management].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()))
                .then_some(())
        });
        (!process.ended()).then_some(Unnamed { port, management, process })
    }
}

struct Unnamed {
    port: u16,
    management: u16,
    process: Program,
}

impl Unnamed {
    fn into_pebble(self, names: Program) -> Pebble {
        Pebble { port: self.port, management: self.management, process: self.process, _names: names }
    }
}

impl Pebble {
    /// Certificates given so far.
    pub fn issued(&self) -> usize {
        self.process.said().matches("Issued certificate serial").count()
    }

    /// What a browser would have to trust, written into the folder.
    pub fn root(&self, folder: &Path) -> PathBuf {
        let file = folder.join("pebble-root.pem");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", "--fail", "--output"]).arg(&file);
        let got = curl.arg(format!("https://localhost:{}/roots/0", self.management)).status().expect("curl is there");
        assert!(got.success(), "the directory tells its root");
        file
    }
}

/// Whether a client that trusts this root alone is served under the name.
pub fn trusted(root: &Path, name: &str, https_url: &str) -> bool {
    let port = https_url.rsplit(':').next().expect("the ready file has a port");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "10", "--cacert"]).arg(root);
    curl.arg("--resolve").arg(format!("{name}:{port}:127.0.0.1")).arg(format!("https://{name}:{port}/healthz"));
    curl.output().expect("curl is there").status.success()
}
