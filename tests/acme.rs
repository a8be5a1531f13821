//! Certificates from an ACME directory, a real one: the first, the next without dropping anybody, and none for good reasons.

mod common;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use common::{
    Folder, Launch, Server,
    acme::{Front, Papers, Settings, trusted},
    clients::{Program, Turn},
    real::tool,
    within,
};
use serde_json::Value;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A failed attempt at the start is tried again after 5 s or 10; each takes a second.
const SOON: Duration = Duration::from_secs(90);
const RENEWED: &str = "codecast_tls_certificate_renewals_total{result=\"renewed\"}";
const REFUSED: &str = "codecast_tls_certificate_renewals_total{result=\"refused\"}";
const UNREACHABLE: &str = "codecast_tls_certificate_renewals_total{result=\"unreachable\"}";

fn config(front: &Front, papers: &Papers, more: &str) -> String {
    format!(
        "[tls]\nacme_names = \"cast.test www.cast.test\"\nacme_contact = \"me@cast.test\"\nacme_directory = \"{}\"\nacme_root = \"{}\"\n{more}",
        front.directory(),
        papers.root.display()
    )
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the ready file has a port")
}

fn settings(server: &Server) -> Settings {
    Settings { http: port(&server.http_url), tls: port(&server.https_url), lifetime: YEAR, nonces_refused: 0 }
}

/// All files below it.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

fn stay(url: &str, seconds: u32) -> Program {
    let mut command = Command::new("node");
    command.arg(tool("tools/http2.mjs")).args(["stay", &format!("{url}/healthz"), &seconds.to_string()]);
    Program::start(command)
}

#[test]
fn a_certificate_comes_late_and_is_renewed_under_open_connections() {
    let _turn = Turn::take();
    let folder = Folder::new();
    let (front, papers) = (Front::new(), Papers::new(folder.path()));
    // There is no directory yet: the server serves with what it has, and says so.
    let server = Launch::new(&config(&front, &papers, "")).data_dir(&folder.join("data")).start();
    within(SOON, "the log says so", || server.log().contains("the directory cannot be reached").then_some(()));
    assert!(server.metric(UNREACHABLE) >= 1.0);
    let short = Settings { lifetime: Duration::from_secs(24), ..settings(&server) };
    let pebble = papers.pebble(&short);
    front.lead_to(&pebble);
    let root = pebble.root(folder.path());
    assert!(!trusted(&root, "cast.test", &server.https_url), "one of its own");
    within(SOON, "a certificate came", || (server.metric(RENEWED) >= 1.0).then_some(()));
    let stays = stay(&server.https_url, 26);
    assert!(trusted(&root, "cast.test", &server.https_url) && trusted(&root, "www.cast.test", &server.https_url));
    let mut kept = Vec::new();
    files(&folder.join("data").join("acme"), &mut kept);
    assert_eq!(kept.len(), 2, "an account, and a certificate with its key: {kept:?}");
    for file in kept {
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let first = server.metric("codecast_tls_certificate_expiry_time_seconds");
    within(SOON, "a second one came", || (server.metric(RENEWED) >= 2.0).then_some(()));
    assert!(server.metric("codecast_tls_certificate_expiry_time_seconds") > first);
    let mut stays = stays;
    stays.finish(Duration::from_secs(60));
    let said = stays.said();
    let stayed: Value = said.lines().rev().find_map(|line| serde_json::from_str(line).ok()).expect("the tool says JSON");
    assert!(stayed["answered"].as_u64() > Some(40) && stayed["ended"] == false, "{stayed}");
    // A directory that has forgotten everybody is told anew who asks.
    drop(pebble);
    let pebble = papers.pebble(&short);
    front.lead_to(&pebble);
    let root = pebble.root(folder.path());
    within(SOON, "the new directory's certificate is served", || trusted(&root, "cast.test", &server.https_url).then_some(()));
    assert!(server.log().contains("accountDoesNotExist"), "{}", server.log());
}

#[test]
fn a_kept_certificate_is_used_again() {
    let _turn = Turn::take();
    let folder = Folder::new();
    let (front, papers) = (Front::new(), Papers::new(folder.path()));
    // By HTTP this time, and of a directory that wants many things said twice.
    let config = config(&front, &papers, "acme_challenge = \"http-01\"\n");
    let mut server = Launch::new(&config).data_dir(&folder.join("data")).start();
    let pebble = papers.pebble(&Settings { nonces_refused: 20, ..settings(&server) });
    front.lead_to(&pebble);
    within(SOON, "a certificate came", || (server.metric(RENEWED) >= 1.0).then_some(()));
    let (root, issued) = (pebble.root(folder.path()), pebble.issued());
    assert!(trusted(&root, "www.cast.test", &server.https_url));
    assert!(server.stop().success());
    let server = Launch::new(&config).data_dir(&folder.join("data")).start();
    assert!(trusted(&root, "www.cast.test", &server.https_url), "from the first moment");
    within(SOON, "the log says so", || server.log().contains("the kept certificate goes on").then_some(()));
    assert_eq!((server.metric(RENEWED), pebble.issued()), (0.0, issued));
    // Other names are another certificate, and the one before serves until it is there.
    drop(server);
    let server = Launch::new(&config.replace("cast.test www", "www")).data_dir(&folder.join("data")).start();
    assert!(trusted(&root, "www.cast.test", &server.https_url));
    within(SOON, "another is asked for", || server.log().contains("no certificate: ").then_some(()));
}

#[test]
fn a_name_that_leads_elsewhere_is_told_with_the_way_out() {
    let _turn = Turn::take();
    let folder = Folder::new();
    let (front, papers) = (Front::new(), Papers::new(folder.path()));
    let config = config(&front, &papers, "");
    let mut server = Launch::new(&config).data_dir(&folder.join("data")).start();
    // A port where nobody is.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("loopback has ports").local_addr().expect("it is bound").port();
    let pebble = papers.pebble(&Settings { tls: nobody, ..settings(&server) });
    front.lead_to(&pebble);
    within(SOON, "it is counted", || (server.metric(REFUSED) >= 1.0).then_some(()));
    let log = server.log();
    assert!(log.contains("cast.test: Failed to connect") && log.contains("It must reach port 443"), "{log}");
    assert_eq!((server.metric(RENEWED), pebble.issued()), (0.0, 0));
    assert_eq!(server.get("/healthz").status, 200);
    assert!(!trusted(&pebble.root(folder.path()), "cast.test", &server.https_url), "its own still serves");
    // A new start does not ask at once again.
    assert!(server.stop().success());
    let server = Launch::new(&config).data_dir(&folder.join("data")).start();
    within(SOON, "the log says so", || server.log().contains("the last attempt failed").then_some(()));
    assert_eq!(server.metric(REFUSED), 0.0);
}
