//! The certificate in force: who asks gets it, and metrics tell when it ends.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    acme::{Answers, PROTOCOL},
    leaf::Leaf,
};

#[derive(Debug)]
pub struct Current {
    key: RwLock<Arc<CertifiedKey>>,
    answers: Answers,
    expiry: IntGauge,
    renewals: IntCounterVec,
}

impl Current {
    pub fn new(key: CertifiedKey, answers: Answers, metrics: &Registry) -> anyhow::Result<Self> {
        let expiry = IntGauge::new(
            "codecast_tls_certificate_expiry_time_seconds",
            "When the TLS certificate in force ends, in seconds since 1970.",
        )?;
        let renewals = IntCounterVec::new(
            Opts::new(
                "codecast_tls_certificate_renewals_total",
                "Attempts to have a new TLS certificate, by result; those before the first success included.",
            ),
            &["result"],
        )?;
        metrics.register(Box::new(expiry.clone()))?;
        metrics.register(Box::new(renewals.clone()))?;
        let current = Self { key: RwLock::new(Arc::new(key)), answers, expiry, renewals };
        current.tell_expiry();
        Ok(current)
    }

    pub fn put(&self, key: CertifiedKey) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        self.tell_expiry();
    }

    /// `renewed`, `refused`, `unreachable`, or `unusable`.
    pub fn count(&self, result: &'static str) {
        self.renewals.with_label_values(&[result]).inc();
    }

    /// `None`: what TLS takes and we cannot read.
    pub fn leaf(&self) -> Option<Leaf> {
        let key = self.key();
        Leaf::read(key.end_entity_cert().ok()?).ok()
    }

    fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell_expiry(&self) {
        let ends = self.leaf().and_then(|leaf| leaf.validity.until.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.expiry.set(ends.and_then(|ends| ends.as_secs().try_into().ok()).unwrap_or(0));
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Who offers that protocol and no other is a directory that looks for its challenge (RFC 8737 3).
        let challenged = hello.alpn().is_some_and(|mut offered| offered.next() == Some(PROTOCOL) && offered.next().is_none());
        if challenged { self.answers.for_name(hello.server_name()?) } else { Some(self.key()) }
    }
}
