//! `codecast serve`: where the parts meet, from the first bind to the last playlist.
//!
//! Start: everything is bound, then served, then announced. Stop, in order: not ready any more,
//! publishers told, playlists ended, answers finished.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail};
use edge::whep::{self, Whep};
use ingest::{
    rtmp,
    whip::{self, Whip},
};
use media_core::Registry;
use packager::hls::{self, Packager};
use serde::Serialize;
use tokio::{sync::oneshot, task::JoinHandle};
use tracing::{debug, info, warn};
use transcode::Transcoder;
use transport::{Engine, sdp::Protocol};

use crate::{
    admission::ByKey,
    cli::{self, Serve},
    config::{self, Config, Credential},
    doctor,
    greeting::{self, Facts},
    http::{self, Health, Phase, pages},
    kept,
    keys::{self, DataDir},
    log, metrics, srt,
    system::{self, StopSignals},
    tls::{self, Tls},
};

/// How long ended playlists are still served at a stop while viewers are connected: a player that was
/// not waiting for a part asks again within a target duration, which is 2 s for most streams.
const LAST_LOOK: Duration = Duration::from_secs(2);

pub fn run(args: &Serve, config: Config) -> anyhow::Result<()> {
    log::start(&config.log)?;
    system::raise_descriptor_limit(system::descriptors_needed(&config));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(serve(args, config));
    // What has outlived the deadline is not waited for again.
    runtime.shutdown_background();
    result
}

async fn serve(args: &Serve, config: Config) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    forget_ready_file(args.ready_file.as_deref())?;
    let data = DataDir::open(&args.data_dir)?;
    let generated = config.credentials.is_empty();
    let credentials = if generated { vec![data.first_credential()?] } else { config.credentials.clone() };
    let deadline = config.shutdown.deadline;
    let metrics = metrics::registry()?;
    let tls = tls(&config.tls, &data, &metrics)?;
    let kept = kept::Folder::open(data.path())?;
    let mut running = Running::start(&config, tls, &credentials, kept, metrics).await?;
    let first = credentials.first().context("there is always a first stream")?;
    announce(args, &running, &Announced { first, generated, streams: credentials.len(), data_dir: data.path() })?;
    let signal = tokio::select! {
        name = signals.next() => name,
        part = running.failed() => bail!("the {part} listener has failed"),
    };
    signals.next_ends_process();
    running.stop(signal, deadline).await;
    Ok(())
}

/// `None` where nothing is served by it.
fn tls(config: &config::Tls, data: &DataDir, metrics: &prometheus::Registry) -> anyhow::Result<Option<Tls>> {
    let served = config.https_address.is_some() || config.rtmps_address.is_some();
    served.then(|| Tls::open(config, data, metrics)).transpose()
}

/// Everything that serves.
struct Running {
    health: Health,
    registry: Arc<Registry>,
    packager: Packager,
    transcoder: Transcoder,
    whip: Whip,
    whep: Whep,
    /// UDP, as bound.
    webrtc: SocketAddr,
    /// Whether any stream has come to life.
    had_streams: Arc<AtomicBool>,
    /// Connections of viewers, open now.
    viewers: prometheus::IntGauge,
    rtmp: Part,
    /// `None` where it is not served.
    srt: Option<Part>,
    http: Part,
    /// As bound, where they are served.
    https: Option<SocketAddr>,
    rtmps: Option<SocketAddr>,
}

/// A listener, its address as bound, and the way to stop it.
struct Part {
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Running {
    /// Binds everything before anything is served.
    async fn start(
        config: &Config,
        tls: Option<Tls>,
        credentials: &[Credential],
        kept: kept::Folder,
        metrics: prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let address = config.http.address;
        let connections = metrics::Http::new(&metrics)?;
        let viewers = connections.connections.clone();
        let mut http = http::Listener::bind(&config.http, connections)
            .await
            .map_err(|e| cannot_listen("HTTP", "http.address", address, &e))?;
        if let (Some(address), Some(tls)) = (config.tls.https_address, &tls) {
            let secure = http.secure(address, tls.server_config(tls::HTTP)?, config.tls.handshake_timeout).await;
            http = secure.map_err(|e| cannot_listen("HTTPS", "tls.https_address", address, &e))?;
        }
        let packager = Packager::new(packaging(config), &metrics)?;
        let after = restore(&packager, kept, credentials, &metrics)?;
        let transcoder = Transcoder::new(transcoding(&config.transcode), &metrics)?;
        let had_streams = Arc::new(AtomicBool::new(false));
        let registry = registry(after, config.limits.streams_max, packager.clone(), transcoder.clone(), Arc::clone(&had_streams));
        let engine =
            Engine::start(connecting(&config.webrtc), &metrics).await.context("see webrtc.address and webrtc.advertise")?;
        let webrtc = engine.address();
        tokio::spawn(test_addresses(engine.clone()));
        let admission = Arc::new(ByKey::new(credentials.to_vec()));
        let publishers = ingest::metrics::Metrics::new(&metrics)?;
        let whip = Whip::new(
            engine.clone(),
            Arc::clone(&registry),
            admission.clone(),
            publishing(&config.webrtc),
            publishers.clone(),
            &metrics,
        )?;
        let whep = Whep::new(engine, Arc::downgrade(&registry), viewing(config), &metrics)?;
        let address = config.rtmp.address;
        let srt = srt::bind(config, &registry, admission.clone(), publishers.clone(), &metrics).await?;
        let mut rtmp = rtmp::Listener::bind(address, ingesting(config), Arc::clone(&registry), admission, publishers)
            .await
            .map_err(|e| cannot_listen("RTMP", "rtmp.address", address, &e))?;
        if let (Some(address), Some(tls)) = (config.tls.rtmps_address, &tls) {
            let secure = rtmp.secure(address, tls.server_config(tls::RTMP)?).await;
            rtmp = secure.map_err(|e| cannot_listen("RTMPS", "tls.rtmps_address", address, &e))?;
        }
        let (https, rtmps) = (http.secure_addr(), rtmp.secure_addr());
        let health = Health::default();
        let media = packager.router().merge(whip::router(whip.clone())).merge(whep::router(whep.clone()));
        let challenges = tls.as_ref().map(Tls::router).unwrap_or_default();
        let router = pages::router(health.clone(), metrics, media.merge(challenges));
        // The sender gone means stop too.
        let rtmp = Part::start(rtmp.local_addr(), |stopped| rtmp.serve(async { drop(stopped.await) }));
        let srt = srt.map(|srt| Part::start(srt.local_addr(), |stopped| srt.serve(async { drop(stopped.await) })));
        let http = Part::start(http.local_addr()?, |stopped| http.serve(router, async { drop(stopped.await) }));
        if let Some(tls) = tls {
            tls.watch().context("cannot keep the TLS certificate fresh")?;
        }
        health.enter(Phase::Ready);
        info!(http = %http.address, rtmp = %rtmp.address, %webrtc, version = env!("CARGO_PKG_VERSION"), "ready");
        Ok(Self {
            health,
            registry,
            packager,
            transcoder,
            whip,
            whep,
            webrtc,
            had_streams,
            viewers,
            rtmp,
            srt,
            http,
            https,
            rtmps,
        })
    }

    /// The name of a part that has ended though nobody stopped it.
    async fn failed(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.http.task => "HTTP",
            _ = &mut self.rtmp.task => "RTMP",
            () = ended(self.srt.as_mut()) => "SRT",
        }
    }

    /// In order: not ready any more, publishers told, playlists ended, answers finished.
    async fn stop(self, signal: &str, deadline: Duration) {
        info!("{signal}: shutting down");
        self.health.enter(Phase::Draining);
        let drained = tokio::time::timeout(deadline, async {
            self.registry.drain();
            // Publishers take a moment to leave; viewers need not wait for that.
            tokio::join!(
                self.rtmp.stop(),
                stop(self.srt),
                self.whip.ended(),
                self.whep.drain(),
                self.transcoder.drain(),
                async {
                    self.packager.drain().await;
                    if self.had_streams.load(Ordering::Relaxed) && self.viewers.get() > 0 {
                        tokio::time::sleep(LAST_LOOK).await;
                    }
                }
            );
            self.http.stop().await;
        });
        match drained.await {
            Ok(()) => info!("stopped"),
            Err(_) => warn!("stopped at the deadline, with connections still open (shutdown.deadline)"),
        }
    }
}

/// Of a part that may be missing.
async fn ended(part: Option<&mut Part>) {
    match part {
        Some(part) => _ = (&mut part.task).await,
        None => std::future::pending().await,
    }
}

async fn stop(part: Option<Part>) {
    if let Some(part) = part {
        part.stop().await;
    }
}

/// Streams that were cut off by the end of an earlier process are away, and go on when their publishers return. Answers
/// when the last of their epochs began: those of this process come later, whatever its clock says.
fn restore(
    packager: &Packager,
    folder: kept::Folder,
    credentials: &[Credential],
    metrics: &prometheus::Registry,
) -> anyhow::Result<SystemTime> {
    let inbox = packager.keep();
    let mut found = folder.read();
    // A stream that nobody may publish any more does not come back.
    found.retain(|(stream, _)| credentials.iter().any(|credential| credential.stream == *stream));
    let epoch = found.iter().map(|(_, kept)| kept.state.epoch).max().unwrap_or(0);
    let resumable = packager.restore(found);
    if resumable > 0 {
        info!(streams = resumable, "an earlier run was cut off: its streams go on when their publishers return");
    }
    kept::write(folder, inbox, metrics)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(epoch))
}

/// The self-test: whether what peers are told reaches this server.
async fn test_addresses(engine: Engine) {
    for candidate in engine.candidates().iter().filter(|candidate| candidate.protocol == Protocol::Udp) {
        let address = candidate.address;
        if engine.reaches(address).await {
            debug!(%address, "advertised UDP address reaches this server");
        } else {
            warn!(%address, "advertised UDP address does not reach this server from here. {}", doctor::UNREACHED);
        }
    }
}

/// Every stream that comes to life is packaged, and transcoded when somebody needs it.
fn registry(
    after: SystemTime,
    streams_max: usize,
    packager: Packager,
    transcoder: Transcoder,
    had_streams: Arc<AtomicBool>,
) -> Arc<Registry> {
    Arc::new_cyclic(|registry: &Weak<Registry>| {
        let registry = registry.clone();
        Registry::new(after.max(SystemTime::now()), streams_max, move |stream| {
            had_streams.store(true, Ordering::Relaxed);
            packager.adopt(&stream, registry.clone());
            transcoder.adopt(stream);
        })
    })
}

fn packaging(config: &Config) -> hls::Config {
    let program = transcode::find_program(config.transcode.program.as_deref()).is_some();
    hls::Config {
        resume_window: config.hls.resume_window,
        target_duration_min: config.hls.target_duration_min,
        keyframe_interval: config.hls.keyframe_interval,
        rungs: program,
        made_bitrate: config.transcode.video_bitrate,
        ladder: config.transcode.ladder.clone(),
        constant_rate: config.transcode.constant_rate,
        rescue: config.transcode.rescue,
        ladders: config.credentials.iter().filter_map(|c| Some((c.stream.clone(), c.ladder.clone()?))).collect(),
        rung_idle: config.transcode.idle,
        thumbnails: program && config.transcode.thumbnail_interval.is_some(),
    }
}

pub fn connecting(config: &crate::config::WebRtc) -> transport::Config {
    let mut public = config.advertise.clone();
    if public.is_empty() && config.address.ip().is_unspecified() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        public.extend(system::lan_address().into_iter().chain([loopback]).map(|ip| SocketAddr::new(ip, 0)));
        public.dedup();
    }
    let (tcp, sessions_max, shards) = (config.tcp, config.sessions_max, config.shards);
    transport::Config { listen: config.address, public, tcp, sessions_max, shards }
}

fn publishing(config: &crate::config::WebRtc) -> whip::Config {
    whip::Config {
        ice_servers: config.ice_servers.clone(),
        reach: config.reach.clone(),
        keyframe_interval: config.keyframe_interval,
    }
}

fn viewing(config: &Config) -> whep::Config {
    let rescue = config.transcode.rescue;
    let config = &config.webrtc;
    // Viewers leave some places to publishers.
    let viewers_max = config.sessions_max - (config.sessions_max / 10).max(1).min(config.sessions_max - 1);
    whep::Config { viewers_max, ice_servers: config.ice_servers.clone(), reach: config.reach.clone(), rescue }
}

fn transcoding(config: &crate::config::Transcode) -> transcode::Config {
    transcode::Config {
        program: config.program.clone(),
        opus_bitrate: config.opus_bitrate,
        aac_bitrate: config.aac_bitrate,
        video_bitrate: config.video_bitrate,
        thumbnail_interval: config.thumbnail_interval.unwrap_or_default(),
        cores: transcode::cores(config.cpu_percent),
        idle: config.idle,
    }
}

fn ingesting(config: &Config) -> rtmp::Config {
    let limits = &config.rtmp;
    rtmp::Config {
        caps: rtmp::gate::Caps {
            connections_max: limits.connections_max,
            pending_max: limits.pending_max,
            pending_per_address_max: limits.pending_per_address_max,
        },
        deadlines: rtmp::session::Deadlines {
            handshake: limits.handshake_timeout,
            publish: limits.publish_timeout,
            idle: limits.idle_timeout,
        },
        admission_timeout: config.publish.admission_deadline,
    }
}

/// Resolves when a part has to stop.
type Stopped = oneshot::Receiver<()>;

impl Part {
    fn start<F>(address: SocketAddr, serve: impl FnOnce(Stopped) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        Self { address, task: tokio::spawn(serve(stopped)), stop }
    }

    async fn stop(self) {
        // A part that has ended already needs no word.
        let _ = self.stop.send(());
        if let Err(e) = self.task.await {
            warn!("a listener ended badly: {e}");
        }
    }
}

pub fn cannot_listen(protocol: &str, key: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "address in use: is another server running?".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied: ports below 1024 need a privilege;".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address:".to_owned(),
        _ => format!("{error}:"),
    };
    anyhow!("cannot listen on {address} for {protocol}: {why} choose another with {key}")
}

/// What is told of a server that is ready.
struct Announced<'a> {
    first: &'a Credential,
    generated: bool,
    streams: usize,
    data_dir: &'a Path,
}

/// What the ready file holds: for tests and scripts that must not guess ports.
#[derive(Serialize)]
struct Ready<'a> {
    http: String,
    rtmp: String,
    /// UDP address of WebRTC.
    webrtc: String,
    /// Empty where it is not served.
    https: String,
    rtmps: String,
    srt: String,
    stream: &'a str,
    stream_key: &'a str,
}

fn announce(args: &Serve, running: &Running, announced: &Announced<'_>) -> anyhow::Result<()> {
    let (http, rtmp) = (running.http.address, running.rtmp.address);
    let first = announced.first;
    cli::print(&greeting::greeting(&Facts {
        http,
        https: running.https,
        rtmp,
        srt: running.srt.as_ref().map(|srt| srt.address),
        lan: system::lan_address(),
        credential: first,
        generated: announced.generated,
        streams: announced.streams,
        config: args.config.as_deref(),
        data_dir: announced.data_dir,
    }));
    let Some(file) = &args.ready_file else { return Ok(()) };
    let ready = Ready {
        http: greeting::http_address(http),
        rtmp: greeting::rtmp_address(rtmp),
        webrtc: running.webrtc.to_string(),
        https: running.https.map(greeting::https_address).unwrap_or_default(),
        rtmps: running.rtmps.map(greeting::rtmps_address).unwrap_or_default(),
        srt: running.srt.as_ref().map(|srt| greeting::srt_address(srt.address)).unwrap_or_default(),
        stream: first.stream.as_str(),
        stream_key: first.key.expose(),
    };
    let text = serde_json::to_vec(&ready).context("addresses and names always fit JSON")?;
    keys::write_whole(file, &text).with_context(|| format!("cannot write the ready file {}", file.display()))
}

/// One of an earlier run would tell of a server that is not there yet.
fn forget_ready_file(file: Option<&Path>) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot replace the ready file {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn the_reference_and_the_parts_agree_on_defaults() {
        let config = Config::new(&Layers::reference()).unwrap();
        assert_eq!(format!("{:?}", ingesting(&config)), format!("{:?}", rtmp::Config::default()));
        assert_eq!(format!("{:?}", srt::receiving(&config)), format!("{:?}", ingest::srt::Config::default()));
        // Whether there is a helper program is a matter of the machine.
        let packaging = hls::Config { rungs: false, ladder: media_core::Ladder::default(), ..packaging(&config) };
        assert_eq!(format!("{packaging:?}"), format!("{:?}", hls::Config::default()));
        assert_eq!(format!("{:?}", transcoding(&config.transcode)), format!("{:?}", transcode::Config::default()));
    }

    #[test]
    fn a_port_that_cannot_be_had_is_told_with_the_way_out() {
        let check = |kind: io::ErrorKind, expected: &str| {
            let error = cannot_listen("RTMP", "rtmp.address", "0.0.0.0:1935".parse().unwrap(), &kind.into());
            assert_eq!(
                error.to_string(),
                format!("cannot listen on 0.0.0.0:1935 for RTMP: {expected} choose another with rtmp.address")
            );
        };
        check(io::ErrorKind::AddrInUse, "address in use: is another server running?");
        check(io::ErrorKind::PermissionDenied, "permission denied: ports below 1024 need a privilege;");
        check(io::ErrorKind::AddrNotAvailable, "this machine has no such address:");
    }
}
