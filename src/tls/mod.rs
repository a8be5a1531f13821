//! TLS for viewers and publishers: one certificate for every port, renewed while connections go on.
//!
//! The certificate comes from a pair of PEM files, which are looked at every few seconds, or is made at the first start
//! for development. Connections that stand keep what they began with; the next one gets the new one.

mod development;
mod pair;

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::Duration,
};

use anyhow::Context;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tracing::{error, info};

use self::pair::{Pair, Stamp};
use crate::{config, keys::DataDir};

/// How often the files are looked at: a renewal is never urgent.
const LOOK: Duration = Duration::from_secs(5);

/// Application protocols of HTTPS (RFC 7301), the preferred first.
pub const HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Of RTMPS, which has none.
pub const RTMP: &[&[u8]] = &[];

pub struct Tls {
    pair: Pair,
    stamp: Option<Stamp>,
    current: Arc<Current>,
    provider: Arc<CryptoProvider>,
}

/// The certificate in force.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// From the configured files; without any, from those in the data directory, which are made when they are missing.
    pub fn open(config: &config::Tls, data: &DataDir) -> anyhow::Result<Self> {
        let (pair, development) = match &config.files {
            Some((certificate, key)) => (Pair { certificate: certificate.clone(), key: key.clone() }, false),
            None => (development::pair(data.path())?, true),
        };
        let provider = Arc::new(ring::default_provider());
        let stamp = pair.stamp();
        let key = pair.load(&provider).with_context(|| {
            let way_out = if development { "remove both to have new ones made" } else { "see tls.certificate and tls.key" };
            format!("cannot use the certificate for TLS: {way_out}")
        })?;
        if development {
            info!("HTTPS and RTMPS have a certificate of this server's own: browsers ask before they trust it (tls.certificate)");
        }
        Ok(Self { pair, stamp, current: Arc::new(Current(RwLock::new(Arc::new(key)))), provider })
    }

    pub fn server_config(&self, protocols: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let resolver = Arc::clone(&self.current);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }

    /// Looks at the files until the process ends, in a thread of its own: a network's file system may take its time.
    pub fn watch(mut self) -> io::Result<()> {
        let watch = move || {
            let mut seen = self.stamp;
            loop {
                thread::sleep(LOOK);
                let stamp = self.pair.stamp();
                // Both files are rewritten one after the other: what changes still is looked at again.
                if stamp == std::mem::replace(&mut seen, stamp) && stamp != self.stamp {
                    self.stamp = stamp;
                    self.renew();
                }
            }
        };
        thread::Builder::new().name("tls-files".into()).spawn(watch).map(drop)
    }

    /// What cannot be used is told once, and the one in force stays.
    fn renew(&self) {
        match self.pair.load(&self.provider) {
            Ok(key) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                info!(certificate = %self.pair.certificate.display(), "TLS goes on with the new certificate");
            }
            Err(e) => error!("the new certificate for TLS cannot be used, and the one before stays: {e:#}"),
        }
    }
}
