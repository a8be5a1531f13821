//! Where SRT's port meets the program that receives for it: `codecast-transcode receive`, one a publisher.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ingest::{
    rtmp::gate::Caps,
    srt::{Heard, Listener, Receiver, Receivers, Starting, Wanted},
};
use media_core::{Registry, StreamName};
use tracing::warn;
use transcode::{receive, wire::receive as wire};

use crate::{admission::ByKey, config::Config, serve::cannot_listen};

/// `None` where it is not served.
pub async fn bind(
    config: &Config,
    registry: &Arc<Registry>,
    admission: Arc<ByKey>,
    publishers: ingest::metrics::Metrics,
    metrics: &prometheus::Registry,
) -> anyhow::Result<Option<Listener>> {
    let Some(address) = config.srt.address else { return Ok(None) };
    let programs = Arc::new(Programs { configured: config.transcode.program.clone() });
    let tested = Arc::clone(&programs);
    tokio::spawn(async move {
        if let Err(words) = tested.test().await {
            warn!("publishers by SRT will be refused until this is mended: {words}");
        }
    });
    let metrics = ingest::srt::Metrics::new(metrics)?;
    let listener =
        Listener::bind(address, receiving(config), Arc::clone(registry), admission, programs, publishers, metrics).await;
    listener.map(Some).map_err(|e| cannot_listen("SRT", "srt.address", address, &e))
}

pub fn receiving(config: &Config) -> ingest::srt::Config {
    let srt = &config.srt;
    ingest::srt::Config {
        passphrase: srt.passphrase.clone(),
        latency: srt.latency,
        caps: Caps {
            connections_max: srt.connections_max,
            pending_max: srt.pending_max,
            pending_per_address_max: srt.pending_per_address_max,
        },
        admission_timeout: config.publish.admission_deadline,
    }
}

/// Starts them with the program that is configured, or found.
pub struct Programs {
    pub configured: Option<PathBuf>,
}

/// What to do where there is none.
const MISSING: &str = "codecast-transcode is neither beside this program nor in PATH (transcode.program): install it";

impl Programs {
    /// Starts one that nobody calls: whether it can be, in words. It also makes the first publisher's start a fast one, since
    /// on a new machine GStreamer looks at all of its plugins once.
    pub async fn test(&self) -> Result<(), String> {
        let stream = StreamName::parse("self-test").map_err(|error| error.to_string())?;
        let from = (Ipv4Addr::LOCALHOST, 0).into();
        self.start(Wanted { stream, from, latency: Duration::ZERO, passphrase: None }).await.map(drop)
    }
}

impl Receivers for Programs {
    fn start(&self, wanted: Wanted) -> Starting<'_> {
        Box::pin(async move {
            let program = transcode::find_program(self.configured.as_deref()).ok_or(MISSING)?;
            let latency_ms = u32::try_from(wanted.latency.as_millis()).unwrap_or(u32::MAX);
            let listen = wire::Listen { from_port: wanted.from.port(), latency_ms, passphrase: wanted.passphrase };
            let started = receive::start(&program, &wanted.stream, listen).await;
            started.map(|receiver| Box::new(Program(receiver)) as Box<dyn Receiver>).map_err(|error| error.to_string())
        })
    }
}

struct Program(receive::Receiver);

impl Receiver for Program {
    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.port).into()
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, String>> {
        loop {
            return Poll::Ready(match std::task::ready!(self.0.poll_heard(cx)) {
                Ok(wire::Heard::Bytes(bytes)) => Ok(Heard::Bytes(bytes)),
                Ok(wire::Heard::Lost(packets)) => Ok(Heard::Lost(packets)),
                Ok(wire::Heard::Gone) => Ok(Heard::Gone),
                Ok(wire::Heard::Failed(sentence)) => Err(sentence),
                // Said before, and nothing new.
                Ok(wire::Heard::Listening { .. }) => continue,
                Err(words) => Err(words),
            });
        }
    }
}
