//! What this server is configured to do: valid values, parsed once, here.
//!
//! Defaults < file < environment < flags (`layers.rs`); ranges stand beside the keys that they
//! bind, below. A key that is read here and missing in the reference, or the other way round,
//! fails a test.

mod acme;
mod error;
mod layers;
mod streams;
mod values;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use acme::{Acme, AcmeChallenge};
pub use error::Error;
pub use layers::{Layers, REFERENCE};
use media_core::{Ladder, Passphrase};
pub use streams::{Credential, check_key};
use transport::resource::{IceLogin, IceServer, Reach};
use values::Reader;

#[derive(Debug)]
pub struct Config {
    pub http: Http,
    pub tls: Tls,
    pub rtmp: Rtmp,
    pub srt: Srt,
    pub publish: Publish,
    pub hls: Hls,
    pub webrtc: WebRtc,
    pub transcode: Transcode,
    pub limits: Limits,
    pub log: Log,
    pub shutdown: Shutdown,
    /// Who may publish what. Empty: one stream with a generated key.
    pub credentials: Vec<Credential>,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub address: SocketAddr,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Tls {
    /// `None`: not served.
    pub https_address: Option<SocketAddr>,
    pub rtmps_address: Option<SocketAddr>,
    /// Certificate chain and key; `None`: one of our own.
    pub files: Option<(PathBuf, PathBuf)>,
    /// `None`: nothing is asked of a directory.
    pub acme: Option<Acme>,
    pub handshake_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Rtmp {
    pub address: SocketAddr,
    pub connections_max: usize,
    pub pending_max: usize,
    pub pending_per_address_max: usize,
    pub handshake_timeout: Duration,
    pub publish_timeout: Duration,
    pub idle_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Srt {
    /// `None`: not served.
    pub address: Option<SocketAddr>,
    /// `None`: nobody encrypts.
    pub passphrase: Option<Passphrase>,
    pub latency: Duration,
    pub connections_max: usize,
    pub pending_max: usize,
    pub pending_per_address_max: usize,
}

#[derive(Clone, Debug)]
pub struct Publish {
    pub admission_deadline: Duration,
}

#[derive(Clone, Debug)]
pub struct Hls {
    pub resume_window: Duration,
    /// Seconds; 0 leaves it to the source.
    pub target_duration_min: u32,
    /// `None` where it is found out.
    pub keyframe_interval: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct WebRtc {
    pub address: SocketAddr,
    /// Port 0 stands for the bound one. Empty: found out.
    pub advertise: Vec<SocketAddr>,
    pub tcp: bool,
    pub sessions_max: usize,
    /// Found out where none was asked for.
    pub shards: usize,
    pub ice_servers: Vec<IceServer>,
    pub keyframe_interval: Duration,
    pub reach: Reach,
}

#[derive(Clone, Debug)]
pub struct Transcode {
    /// `None` looks beside this program, then in PATH.
    pub program: Option<PathBuf>,
    /// Bits a second.
    pub opus_bitrate: u32,
    pub aac_bitrate: u32,
    /// `None`: as the source has.
    pub video_bitrate: Option<u32>,
    /// Sources of an irregular rate are packaged at a constant one.
    pub constant_rate: bool,
    /// The cheapest rung is made while anybody follows the source's live edge.
    pub rescue: bool,
    /// Of all cores, for pictures.
    pub cpu_percent: u32,
    /// What is made of streams that have none of their own.
    pub ladder: Ladder,
    /// `None`: none are made.
    pub thumbnail_interval: Option<Duration>,
    pub idle: Duration,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub streams_max: usize,
}

#[derive(Clone, Debug)]
pub struct Log {
    /// As `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

#[derive(Clone, Debug)]
pub struct Shutdown {
    pub deadline: Duration,
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Above this a limit on connections is a typing mistake: no machine has the descriptors.
const CONNECTIONS_MAX: usize = 1_000_000;
/// Each is a process.
const SRT_CONNECTIONS_MAX: usize = 1000;

/// More threads than this on one port wait for each other.
const SHARDS_MAX: usize = 64;

impl Config {
    pub fn new(layers: &Layers) -> Result<Self, Error> {
        let reader = Reader::new(layers);
        let config = Self::read(&reader, layers)?;
        debug_assert!(reader.unread().is_empty(), "the reference has keys that nothing reads: {:?}", reader.unread());
        Ok(config)
    }

    fn read(reader: &Reader<'_>, layers: &Layers) -> Result<Self, Error> {
        Ok(Self {
            http: Http::read(reader)?,
            tls: Tls::read(reader)?,
            rtmp: Rtmp::read(reader)?,
            srt: Srt::read(reader)?,
            publish: Publish { admission_deadline: reader.duration("publish.admission_deadline", 100 * MS..=30 * SECOND)? },
            hls: Hls::read(reader)?,
            webrtc: WebRtc::read(reader)?,
            transcode: Transcode::read(reader)?,
            limits: Limits { streams_max: reader.number("limits.streams_max", 1..=10_000)? },
            log: Log::read(reader)?,
            shutdown: Shutdown { deadline: reader.duration("shutdown.deadline", SECOND..=300 * SECOND)? },
            credentials: streams::credentials(&layers.streams)?,
        })
    }
}

impl Http {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            address: reader.address("http.address")?,
            connections_max: reader.number("http.connections_max", 1..=CONNECTIONS_MAX)?,
            connections_per_address_max: reader.number("http.connections_per_address_max", 1..=CONNECTIONS_MAX)?,
            header_timeout: reader.duration("http.header_timeout", 100 * MS..=60 * SECOND)?,
            idle_timeout: reader.duration("http.idle_timeout", 100 * MS..=HOUR)?,
            write_timeout: reader.duration("http.write_timeout", 100 * MS..=300 * SECOND)?,
        })
    }
}

impl Tls {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let file = |key| reader.text(key, |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))));
        let certificate = file("tls.certificate")?;
        // The pair is told as one: half of it is a mistake.
        let missing = |other: &str| format!("must be set together with {other}");
        let key = reader.text("tls.key", |text| match (&certificate, text.is_empty()) {
            (Some(_), false) => Ok(Some(PathBuf::from(text))),
            (None, true) => Ok(None),
            _ => Err(missing("tls.certificate")),
        })?;
        let files = certificate.zip(key);
        let https_address = reader.address_or_off("tls.https_address")?;
        Ok(Self {
            acme: Acme::read(reader, files.is_some(), https_address.is_some())?,
            https_address,
            rtmps_address: reader.address_or_off("tls.rtmps_address")?,
            files,
            handshake_timeout: reader.duration("tls.handshake_timeout", 100 * MS..=60 * SECOND)?,
        })
    }
}

impl Rtmp {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            address: reader.address("rtmp.address")?,
            connections_max: reader.number("rtmp.connections_max", 1..=CONNECTIONS_MAX)?,
            pending_max: reader.number("rtmp.pending_max", 1..=CONNECTIONS_MAX)?,
            pending_per_address_max: reader.number("rtmp.pending_per_address_max", 1..=CONNECTIONS_MAX)?,
            handshake_timeout: reader.duration("rtmp.handshake_timeout", 100 * MS..=60 * SECOND)?,
            publish_timeout: reader.duration("rtmp.publish_timeout", 100 * MS..=60 * SECOND)?,
            idle_timeout: reader.duration("rtmp.idle_timeout", SECOND..=300 * SECOND)?,
        })
    }
}

impl Srt {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let passphrase = |text: &str| (!text.is_empty()).then(|| Passphrase::parse(text)).transpose().map_err(|e| e.to_string());
        Ok(Self {
            address: reader.address_or_off("srt.address")?,
            passphrase: reader.text("srt.passphrase", passphrase)?,
            latency: reader.duration("srt.latency", 20 * MS..=10 * SECOND)?,
            connections_max: reader.number("srt.connections_max", 1..=SRT_CONNECTIONS_MAX)?,
            pending_max: reader.number("srt.pending_max", 1..=SRT_CONNECTIONS_MAX)?,
            pending_per_address_max: reader.number("srt.pending_per_address_max", 1..=SRT_CONNECTIONS_MAX)?,
        })
    }
}

impl Hls {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let interval = reader.duration("hls.keyframe_interval", Duration::ZERO..=60 * SECOND)?;
        Ok(Self {
            resume_window: reader.duration("hls.resume_window", Duration::ZERO..=HOUR)?,
            target_duration_min: reader.number("hls.target_duration_min", 0..=30)?,
            keyframe_interval: (!interval.is_zero()).then_some(interval),
        })
    }
}

impl WebRtc {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            address: reader.address("webrtc.address")?,
            advertise: reader.text("webrtc.advertise", |text| text.split_whitespace().map(advertised).collect())?,
            tcp: reader.switch("webrtc.tcp")?,
            sessions_max: reader.number("webrtc.sessions_max", 1..=100_000)?,
            shards: shards(reader.number("webrtc.shards", 0..=SHARDS_MAX)?),
            ice_servers: reader.text("webrtc.ice_servers", ice_servers)?,
            keyframe_interval: reader.duration("webrtc.keyframe_interval", 500 * MS..=10 * SECOND)?,
            reach: Reach {
                public_url: reader.text("webrtc.public_url", public_url)?,
                trust_forwarded: reader.switch("webrtc.trust_forwarded")?,
            },
        })
    }
}

/// Half of the cores, since WebRTC is half of what a server does: HLS, ingest and the transcoder have the others. A core
/// sends 2.5 Mbit/s to about 2,000 viewers, and four of them nearly fill a network card of 25 Gbit/s.
fn shards(asked: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if asked > 0 { asked } else { (cores / 2).clamp(1, 4) }
}

/// An address with or without a port.
fn advertised(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)));
    match address {
        Ok(address) if !address.ip().is_unspecified() => Ok(address),
        Ok(_) => Err(format!("has {text:?}, which stands for every address: peers need one that they can reach")),
        Err(_) => Err(format!("has {text:?}, which is no address, as in \"203.0.113.9\" or \"[2001:db8::9]:8189\"")),
    }
}

fn ice_servers(text: &str) -> Result<Vec<IceServer>, String> {
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let mut words = entry.split_whitespace().map(str::to_owned);
            let url = words.next().unwrap_or_default();
            let (username, credential) = (words.next(), words.next());
            let login = username.clone().zip(credential).map(|(username, credential)| IceLogin { username, credential });
            let complete = match url.split(':').next().unwrap_or_default() {
                "stun" | "stuns" => username.is_none(),
                "turn" | "turns" => login.is_some(),
                _ => false,
            };
            let plain =
                entry.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && !entry.contains(['"', '<', '>', '\\']);
            if complete && plain && words.next().is_none() {
                Ok(IceServer { url, login })
            } else {
                Err("must list servers as \"stun:HOST\" or \"turn:HOST user password\", separated by ';'".to_owned())
            }
        })
        .collect()
}

fn public_url(text: &str) -> Result<Option<String>, String> {
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Ok(None);
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && (text.starts_with("https://") || text.starts_with("http://")) {
        Ok(Some(text.to_owned()))
    } else {
        Err(format!("is {text:?}, and must begin with https:// or http://"))
    }
}

impl Transcode {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            program: reader.text("transcode.program", |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))))?,
            opus_bitrate: reader.number("transcode.opus_bitrate", 16_000..=510_000)?,
            aac_bitrate: reader.number("transcode.aac_bitrate", 32_000..=320_000)?,
            video_bitrate: Some(reader.number("transcode.video_bitrate", 0..=50_000_000)?).filter(|bits| *bits > 0),
            constant_rate: reader.switch("transcode.constant_rate")?,
            rescue: reader.switch("transcode.rescue")?,
            cpu_percent: reader.number("transcode.cpu_percent", 1..=100)?,
            ladder: reader.text("transcode.ladder", Ladder::parse)?,
            thumbnail_interval: Some(reader.duration("transcode.thumbnail_interval", Duration::ZERO..=HOUR)?)
                .filter(|interval| !interval.is_zero()),
            idle: reader.duration("transcode.idle", Duration::ZERO..=HOUR)?,
        })
    }
}

impl Log {
    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let level = reader.text("log.level", |text| {
            let filter = tracing_subscriber::EnvFilter::builder().parse(text);
            let told = "which is no level (error, warn, info, debug, trace) nor a list such as \"info,ingest=debug\"";
            filter.map(|_| text.to_owned()).map_err(|_| format!("is {text:?}, {told}"))
        })?;
        let format = reader.text("log.format", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("is {text:?}, and must be \"text\" or \"json\"")),
        })?;
        Ok(Self { level, format })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_holds_every_key_and_no_other() {
        let layers = Layers::reference();
        let reader = Reader::new(&layers);
        // Reading a key that the reference lacks panics.
        let config = Config::read(&reader, &layers).unwrap();
        assert_eq!(reader.unread(), Vec::<&str>::new(), "keys in the reference that nothing reads");
        assert!(config.credentials.is_empty());
    }

    #[test]
    fn the_defaults_are_the_promised_ones() {
        let config = Config::new(&Layers::reference()).unwrap();
        assert_eq!(config.http.address.to_string(), "0.0.0.0:8080");
        assert_eq!(config.rtmp.address.to_string(), "0.0.0.0:1935");
        assert_eq!(config.srt.address.map(|address| address.to_string()).as_deref(), Some("0.0.0.0:8890"));
        assert_eq!(config.hls.resume_window, 60 * SECOND);
        assert_eq!(config.publish.admission_deadline, 3 * SECOND);
        assert_eq!(config.shutdown.deadline, 8 * SECOND);
    }

    /// What the reference promises in its head: default, unit and reason of every key.
    #[test]
    fn every_key_of_the_reference_is_explained() {
        let lines: Vec<&str> = REFERENCE.lines().collect();
        for pair in lines.windows(2) {
            if pair[1].contains(" = ") && !pair[1].starts_with('#') {
                assert!(pair[0].starts_with('#'), "no comment above {:?}", pair[1]);
            }
        }
    }

    #[test]
    fn addresses_and_servers_for_peers_are_lists() {
        let mut layers = Layers::reference();
        let text = "[webrtc]\nadvertise = \"203.0.113.9 [2001:db8::9]:443\"\n\
                    ice_servers = \"stun:a.example; turn:b.example?transport=tcp user secret\"\npublic_url = \"https://a.example/cast/\"";
        layers.file(Path::new("c.toml"), text).unwrap();
        let webrtc = Config::new(&layers).unwrap().webrtc;
        let advertised: Vec<String> = webrtc.advertise.iter().map(SocketAddr::to_string).collect();
        assert_eq!(advertised, ["203.0.113.9:0", "[2001:db8::9]:443"]);
        assert_eq!(webrtc.ice_servers.len(), 2);
        assert_eq!(webrtc.ice_servers[1].login.as_ref().map(|login| login.credential.as_str()), Some("secret"));
        assert_eq!(webrtc.reach.public_url.as_deref(), Some("https://a.example/cast"));
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name() {
        let check = |text: &str, expected: &str| {
            let mut layers = Layers::reference();
            layers.file(Path::new("c.toml"), text).unwrap();
            assert_eq!(Config::new(&layers).unwrap_err().to_string(), expected);
        };
        check(
            "[http]\nheader_timeout = \"2h\"",
            "`http.header_timeout` in c.toml line 2 must be between \"100ms\" and \"1m\", and is \"2h\"",
        );
        check(
            "[http]\nheader_timeout = \"2\"",
            "`http.header_timeout` in c.toml line 2 is \"2\", which is no duration, as in \"1500ms\", \"2s\", \"5m\" or \"1h\"",
        );
        check("[http]\nconnections_max = 0", "`http.connections_max` in c.toml line 2 must be between 1 and 1000000, and is 0");
        check("[http]\nconnections_max = -1", "`http.connections_max` in c.toml line 2 must be between 1 and 1000000, and is -1");
        check(
            "[rtmp]\naddress = \"localhost\"",
            "`rtmp.address` in c.toml line 2 is \"localhost\", which is no address with a port, as in \"0.0.0.0:8080\", \
             \"[::]:8080\" or \"127.0.0.1:0\"",
        );
        check(
            "[srt]\npassphrase = \"too short\"",
            "`srt.passphrase` in c.toml line 2 has 9 characters, and must have 10 to 79: SRT takes no other passphrase",
        );
        check("[webrtc]\ntcp = \"yes\"", "`webrtc.tcp` in c.toml line 2 is \"yes\", and must be \"on\" or \"off\"");
        check(
            "[webrtc]\nadvertise = \"203.0.113.9 0.0.0.0\"",
            "`webrtc.advertise` in c.toml line 2 has \"0.0.0.0\", which stands for every address: peers need one that they can reach",
        );
        check(
            "[webrtc]\nice_servers = \"turn:example.net\"",
            "`webrtc.ice_servers` in c.toml line 2 must list servers as \"stun:HOST\" or \"turn:HOST user password\", separated by ';'",
        );
        check("[log]\nformat = \"xml\"", "`log.format` in c.toml line 2 is \"xml\", and must be \"text\" or \"json\"");
    }
}
