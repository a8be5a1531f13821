//! `codecast doctor` as an operator runs it: on a machine that is well, and on some that are not.

mod common;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Command};

use common::{Folder, Server};
use serde_json::Value;

/// Free ports, and whatever else the test says.
fn doctor(folder: &Folder, config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let file = folder.join("codecast.toml");
    fs::write(&file, config).expect("a test's folder is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_codecast"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CODECAST_")) {
        command.env_remove(name);
    }
    command.arg("doctor").arg("--config").arg(file).arg("--data-dir").arg(folder.join("data")).args(arguments);
    let output = command.output().expect("cargo has built it");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

const PORTS: &str = "[http]\naddress = \"127.0.0.1:0\"\n[rtmp]\naddress = \"127.0.0.1:0\"\n[webrtc]\naddress = \"127.0.0.1:0\"\n\
                     [srt]\naddress = \"127.0.0.1:0\"\n\
                     [tls]\nhttps_address = \"127.0.0.1:0\"\nrtmps_address = \"127.0.0.1:0\"\n";

fn findings(told: &str) -> Vec<Value> {
    let told: Value = serde_json::from_str(told).expect("it is JSON");
    told["findings"].as_array().expect("it is a list").clone()
}

#[test]
fn a_machine_that_is_well_is_told_so() {
    let folder = Folder::new();
    let (code, told) = doctor(&folder, PORTS, &["--json"]);
    let found = findings(&told);
    assert_eq!(code, Some(0), "{told}");
    let about = |word: &str| found.iter().filter(|finding| finding["about"] == word).count();
    for word in [
        "configuration",
        "files",
        "buffers",
        "data",
        "disk",
        "clock",
        "memory",
        "ports",
        "webrtc",
        "ipv6",
        "certificate",
        "media",
    ] {
        assert!(about(word) > 0, "nothing about {word}: {told}");
    }
    assert_eq!(about("ports"), 7, "{told}");
    let works = |element: &str| {
        found.iter().any(|finding| {
            finding["verdict"] == "ok"
                && finding["text"].as_str().is_some_and(|text| text.starts_with(element) && text.ends_with("works"))
        })
    };
    for element in ["x264enc", "avdec_h264", "avdec_h265", "av1dec", "avdec_aac", "avenc_aac", "opusenc", "opusdec"] {
        assert!(works(element), "{element}: {told}");
    }
    // Every line that is not well says what to do.
    assert!(found.iter().all(|finding| finding["verdict"] == "ok" || finding["advice"].is_string()), "{told}");
    assert!(!folder.join("data").exists(), "it only looks");
}

#[test]
fn what_is_not_well_is_told_with_what_to_do() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = taken.local_addr().expect("it is bound");
    // A transcoder whose encoder crashes, and which has no decoder.
    let program = folder.join("codecast-transcode");
    let script = "#!/bin/sh\nlist() { echo '{\"element\":\"x264enc\",\"purpose\":\"encodes H.264\",\"need\":\"core\"}'\n\
                  echo '{\"element\":\"nvh264enc\",\"purpose\":\"encodes H.264 by NVIDIA\",\"need\":\"spare\"}'; }\n\
                  case \"$2\" in '') list;; x264enc) echo '{\"element\":\"x264enc\",\"outcome\":\"missing\",\"problem\":null}';;\n\
                  *) kill -SEGV $$;; esac\n";
    fs::write(&program, script).expect("a test's folder is writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let config = PORTS.replacen("address = \"127.0.0.1:0\"", &format!("address = \"{address}\""), 1)
        + "certificate = \"/nowhere/chain.pem\"\nkey = \"/nowhere/key.pem\"\n"
        + &format!("[transcode]\nprogram = \"{}\"\n", program.display());
    let (code, told) = doctor(&folder, &config, &[]);
    assert_eq!(code, Some(1), "{told}");
    let says = |beginning: &str, part: &str| {
        assert!(told.lines().any(|line| line.starts_with(beginning) && line.contains(part)), "{beginning} … {part}\n{told}");
    };
    says("fault   TCP", "(http.address) is used by doctor-");
    says("fault   the certificate", "/nowhere/chain.pem");
    says("fault   x264enc", "is not there. Install");
    says("warning nvh264enc", "does not work: it ended by signal: 11");
    says("ok      the configuration is", "http.address (in ");
    says("warning WebRTC peers are told loopback addresses alone", "webrtc.advertise");
}

#[test]
fn a_running_server_is_known() {
    let server = Server::start("");
    let folder = Folder::new();
    let config = PORTS.replacen("127.0.0.1:0", &server.http.to_string(), 1);
    let (_, told) = doctor(&folder, &config, &[]);
    assert!(told.contains(&format!("is used by codecast, process {}", server.pid())), "{told}");
}

#[test]
fn a_configuration_that_cannot_be_used_has_its_own_status() {
    let folder = Folder::new();
    let (code, told) = doctor(&folder, "[http]\nadress = \"127.0.0.1:0\"\n", &["--json"]);
    assert_eq!((code, told.as_str()), (Some(2), ""));
}
