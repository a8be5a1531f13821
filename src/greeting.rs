//! What a person reads at start: where to send, what to set in OBS and why, where to watch.
//!
//! Pure. It is the only place that shows the stream key, and goes to the standard output: the log
//! goes to the error output and never has it.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::config::Credential;

pub struct Facts<'a> {
    /// As bound.
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub rtmp: SocketAddr,
    pub srt: Option<SocketAddr>,
    /// This machine's address as others on its network see it, if it has one.
    pub lan: Option<IpAddr>,
    /// The first one is shown with its key.
    pub credential: &'a Credential,
    /// Whether the key was generated, rather than configured.
    pub generated: bool,
    pub streams: usize,
    pub config: Option<&'a Path>,
    pub data_dir: &'a Path,
}

/// An address that can be typed on this machine: one that means "all" becomes loopback.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

pub fn http_address(bound: SocketAddr) -> String {
    format!("http://{}", reachable(bound))
}

pub fn https_address(bound: SocketAddr) -> String {
    format!("https://{}", reachable(bound))
}

pub fn rtmps_address(bound: SocketAddr) -> String {
    format!("rtmps://{}/live", reachable(bound))
}

pub fn rtmp_address(bound: SocketAddr) -> String {
    format!("rtmp://{}/live", reachable(bound))
}

pub fn srt_address(bound: SocketAddr) -> String {
    format!("srt://{}", reachable(bound))
}

pub fn greeting(facts: &Facts<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_greeting(&mut text, facts);
    text
}

fn write_greeting(out: &mut String, facts: &Facts<'_>) -> std::fmt::Result {
    let Credential { stream, key, .. } = facts.credential;
    writeln!(out, "CodeCast {} is ready.\n", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  Send to      {}", rtmp_address(facts.rtmp))?;
    writeln!(out, "  Stream key   {}   (secret: who has it can publish)", key.expose())?;
    writeln!(
        out,
        "  Or by WHIP   {}/whip/{stream}   (OBS 30 and later; bearer token: the stream key)",
        http_address(facts.http)
    )?;
    if let Some(srt) = facts.srt {
        writeln!(out, "  Or by SRT    {}   (stream id: the stream key; OBS has it in the same field)", srt_address(srt))?;
    }
    writeln!(out, "  Or a browser {}/studio?stream={stream}", http_address(facts.http))?;
    writeln!(out, "  Watch at     {}/watch/{stream}", http_address(facts.http))?;
    writeln!(out, "  What is live {}/", http_address(facts.http))?;
    if let Some(https) = facts.https {
        writeln!(out, "  By HTTPS     {}/   (browsers share a screen from elsewhere by HTTPS alone)", https_address(https))?;
    }
    write_lan(out, facts)?;
    if facts.streams > 1 {
        writeln!(out, "  Streams      {} are configured; this is the first", facts.streams)?;
    }
    writeln!(out)?;
    match facts.config {
        Some(path) => writeln!(out, "  Configuration {}", path.display())?,
        None => writeln!(out, "  Configuration built-in defaults; `codecast config` prints them, --config FILE changes them")?,
    }
    writeln!(
        out,
        "  Data          {}{}",
        facts.data_dir.display(),
        if facts.generated { " (keeps the generated key)" } else { "" }
    )?;
    out.push_str(OBS);
    Ok(())
}

/// What others type, where everything is bound and this machine has an address for them.
fn write_lan(out: &mut String, facts: &Facts<'_>) -> std::fmt::Result {
    if !facts.http.ip().is_unspecified() && !facts.rtmp.ip().is_unspecified() {
        return Ok(());
    }
    match facts.lan.filter(|ip| !ip.is_loopback()) {
        Some(ip) => writeln!(out, "  From another machine, type {ip} in place of {}", reachable(facts.http).ip()),
        None => writeln!(out, "  From another machine, type this one's name in place of {}", reachable(facts.http).ip()),
    }
}

const OBS: &str = "
  OBS, Settings > Stream: Service \"Custom...\", Server and Stream Key as above.
  OBS, Settings > Output, Output Mode \"Advanced\", tab Streaming:
    Encoder            x264 (or a hardware H.264)  every browser plays H.264
    Rate Control       CBR, 2500 to 6000 Kbps      an even rate: no viewer stalls at a busy picture
    Keyframe Interval  2 s                         segments are cut at keyframes; \"0\" (auto) means about 8 s
    Profile            high                        smallest at the same quality; text stays sharp
    Tune               zerolatency                 no look-ahead and no B-frames: 0.1 to 0.5 s less delay
                       (other encoders: B-frames 0)
    Audio Bitrate      160 Kbps AAC                clear speech and music
  OBS, Settings > Audio: Sample Rate 48 kHz        the rate that every player runs at: no resampling

  Ctrl-C stops: publishers are told and playlists ended first.
";

#[cfg(test)]
mod tests {
    use media_core::{StreamKey, StreamName};

    use super::*;

    #[test]
    fn addresses_can_be_typed_as_they_stand() {
        let check = |bound: &str, expected: &str| assert_eq!(http_address(bound.parse().unwrap()), expected);
        check("0.0.0.0:8080", "http://127.0.0.1:8080");
        check("[::]:80", "http://[::1]:80");
        check("192.0.2.7:80", "http://192.0.2.7:80");
        assert_eq!(rtmp_address("0.0.0.0:1935".parse().unwrap()), "rtmp://127.0.0.1:1935/live");
    }

    #[test]
    fn the_greeting_has_all_that_a_streamer_needs() {
        let credential =
            Credential { stream: StreamName::parse("demo").unwrap(), key: StreamKey::new("the-key-itself-0"), ladder: None };
        let text = greeting(&Facts {
            http: "0.0.0.0:8080".parse().unwrap(),
            https: Some("0.0.0.0:8443".parse().unwrap()),
            rtmp: "0.0.0.0:1935".parse().unwrap(),
            srt: Some("0.0.0.0:8890".parse().unwrap()),
            lan: Some("192.0.2.7".parse().unwrap()),
            credential: &credential,
            generated: true,
            streams: 1,
            config: None,
            data_dir: Path::new("./codecast-data"),
        });
        for part in [
            "rtmp://127.0.0.1:1935/live",
            "the-key-itself-0",
            "http://127.0.0.1:8080/watch/demo",
            "http://127.0.0.1:8080/whip/demo",
            "http://127.0.0.1:8080/studio?stream=demo",
            "srt://127.0.0.1:8890 ",
            "https://127.0.0.1:8443/",
            "type 192.0.2.7 in place of 127.0.0.1",
            "codecast config",
            "./codecast-data",
            "Keyframe Interval  2 s",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }
}
