//! TLS for viewers and publishers: one certificate for every port, renewed while connections go on.
//!
//! The certificate comes from a pair of PEM files, which are looked at every few seconds, from an ACME directory
//! (`acme/`), or is made at the first start for development. Connections that stand keep what they began with; the next
//! one gets the new one.

mod acme;
mod current;
mod development;
pub mod leaf;
pub mod pair;

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use anyhow::Context;
use axum::Router;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
};
use tracing::{error, info};

pub use self::acme::PROTOCOL as ACME;
use self::{
    acme::{Acme, Answers},
    current::Current,
    pair::{Pair, Stamp},
};
use crate::{config, keys::DataDir};

/// How often the files are looked at: a renewal is never urgent.
const LOOK: Duration = Duration::from_secs(5);

/// Application protocols of HTTPS (RFC 7301), the preferred first, and of the directory that looks whether a name is ours.
pub const HTTP: &[&[u8]] = &[b"h2", b"http/1.1", ACME];
/// Of RTMPS, which has none.
pub const RTMP: &[&[u8]] = &[];

pub struct Tls {
    source: Source,
    answers: Answers,
    current: Arc<Current>,
    provider: Arc<CryptoProvider>,
}

/// Where the next certificate comes from.
enum Source {
    Files(Files),
    Directory(Box<Acme>),
}

struct Files {
    pair: Pair,
    stamp: Option<Stamp>,
}

impl Tls {
    /// From the configured files or the directory; without either, from files in the data directory, which are made when
    /// they are missing.
    pub fn open(config: &config::Tls, data: &DataDir, metrics: &prometheus::Registry) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let answers = Answers::default();
        let (source, key) = match (&config.files, &config.acme) {
            (Some((certificate, key)), _) => {
                let pair = Pair { certificate: certificate.clone(), key: key.clone() };
                Source::files(pair, "see tls.certificate and tls.key", &provider)?
            }
            (None, Some(config)) => {
                let acme = Acme::open(config, data.path(), answers.clone(), Arc::clone(&provider))?;
                let key = match acme.kept() {
                    Some(key) => key,
                    None => made(data, &provider)?.1,
                };
                (Source::Directory(Box::new(acme)), key)
            }
            (None, None) => made(data, &provider)?,
        };
        let current = Arc::new(Current::new(key, answers.clone(), metrics)?);
        Ok(Self { source, answers, current, provider })
    }

    pub fn server_config(&self, protocols: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let resolver = Arc::clone(&self.current);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }

    /// What a directory may ask by HTTP.
    pub fn router(&self) -> Router {
        self.answers.router()
    }

    /// Keeps the certificate fresh until the process ends. Call it once everything is served: a directory looks at once.
    pub fn watch(self) -> io::Result<()> {
        match self.source {
            // A thread of its own: a network's file system may take its time.
            Source::Files(files) => {
                let (current, provider) = (self.current, self.provider);
                let watch = move || files.watch(&current, &provider);
                thread::Builder::new().name("tls-files".into()).spawn(watch).map(drop)
            }
            Source::Directory(acme) => {
                tokio::spawn(acme.run(self.current));
                Ok(())
            }
        }
    }
}

/// What is kept of a directory, for who only wants to look.
pub fn kept(data_dir: &Path, directory: &str) -> Option<Pair> {
    acme::kept(data_dir, directory)
}

type Key = rustls::sign::CertifiedKey;

/// One of this server's own.
fn made(data: &DataDir, provider: &CryptoProvider) -> anyhow::Result<(Source, Key)> {
    let found = Source::files(development::pair(data.path())?, "remove both to have new ones made", provider)?;
    info!("HTTPS and RTMPS have a certificate of this server's own: browsers ask before they trust it (tls.certificate)");
    Ok(found)
}

impl Source {
    fn files(pair: Pair, way_out: &str, provider: &CryptoProvider) -> anyhow::Result<(Self, Key)> {
        let stamp = pair.stamp();
        let key = pair.load(provider).with_context(|| format!("cannot use the certificate for TLS: {way_out}"))?;
        Ok((Self::Files(Files { pair, stamp }), key))
    }
}

impl Files {
    fn watch(mut self, current: &Current, provider: &CryptoProvider) {
        let mut seen = self.stamp;
        loop {
            thread::sleep(LOOK);
            let stamp = self.pair.stamp();
            // Both files are rewritten one after the other: what changes still is looked at again.
            if stamp == std::mem::replace(&mut seen, stamp) && stamp != self.stamp {
                self.stamp = stamp;
                self.renew(current, provider);
            }
        }
    }

    /// What cannot be used is told once, and the one in force stays.
    fn renew(&self, current: &Current, provider: &CryptoProvider) {
        match self.pair.load(provider) {
            Ok(key) => {
                current.put(key);
                current.count("renewed");
                info!(certificate = %self.pair.certificate.display(), "TLS goes on with the new certificate");
            }
            Err(e) => {
                current.count("unusable");
                error!("the new certificate for TLS cannot be used, and the one before stays: {e:#}");
            }
        }
    }
}
