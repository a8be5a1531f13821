//! Certificates from an ACME directory (RFC 8555), such as Let's Encrypt, for names that the public can reach.
//!
//! One task asks, keeps what it is given in the data directory, and asks again when two thirds of the lifetime are over or
//! when the directory suggests it (RFC 9773). Whatever fails is told in the log, once an attempt, and the certificate in
//! force stays. When to ask is decided in `plan.rs`; what a failure means in `told.rs`.

mod challenge;
mod order;
mod plan;
mod store;
mod told;
mod web;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use tracing::{debug, info, warn};

pub use self::challenge::{Answers, PROTOCOL};
use self::{plan::Failure, store::Store, told::Trouble, web::Web};
use super::{Current, leaf::Leaf, pair::Pair};
use crate::config;

/// Clocks are set, and machines sleep: a wait is looked at again.
const LOOK: Duration = Duration::from_secs(600);

pub struct Acme {
    config: config::Acme,
    store: Store,
    web: Web,
    answers: Answers,
    provider: Arc<CryptoProvider>,
}

/// The certificate that is kept, and when the next one is due.
struct Kept {
    leaf: Leaf,
    due: SystemTime,
    /// When the directory is asked whether that has changed.
    ask_again: Option<SystemTime>,
}

/// The certificate that is kept from this directory.
pub fn kept(data_dir: &Path, directory: &str) -> Option<Pair> {
    let store = Store::at(data_dir, directory);
    store.has_certificate().then(|| store.pair())
}

impl Acme {
    pub fn open(config: &config::Acme, data_dir: &Path, answers: Answers, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let web = Web::new(config.root.as_deref(), Arc::clone(&provider)).context("cannot ask for certificates")?;
        let store = Store::open(data_dir, &config.directory)?;
        // What cannot be read is told before anything is served.
        store.account()?;
        Ok(Self { config: config.clone(), store, web, answers, provider })
    }

    /// The one that is kept, to begin with.
    pub fn kept(&self) -> Option<CertifiedKey> {
        if !self.store.has_certificate() {
            return None;
        }
        let kept = self.store.pair().load(&self.provider);
        kept.inspect_err(|e| warn!("the kept certificate cannot be used, and another is asked for: {e:#}")).ok()
    }

    /// Keeps a certificate in force until the process ends.
    pub async fn run(self, current: Arc<Current>) {
        let mut kept = self.begin(current.leaf());
        // In a row.
        let mut failures: u32 = 0;
        if let Some([at, not_before]) = self.store.failed() {
            let wait = plan::after_restart(at, not_before, SystemTime::now());
            if kept.is_none() && !wait.is_zero() {
                info!(wait = ?round(wait), "the last attempt failed not long ago: the directory is asked after a while");
            }
            tokio::time::sleep(wait).await;
        }
        loop {
            if let Some(kept) = &mut kept {
                self.wait_until_due(kept).await;
            }
            let replaced = kept.as_ref().map(|kept| &kept.leaf).filter(|_| failures == 0);
            match self.renew(replaced).await {
                Ok(key) => {
                    self.store.forget_failure();
                    failures = 0;
                    kept = self.take(key, &current);
                    current.count("renewed");
                    if let Some(kept) = &kept {
                        tokio::time::sleep(plan::rest(kept.leaf.validity, SystemTime::now())).await;
                    }
                }
                Err(trouble) => {
                    current.count(if trouble.failure == Failure::Refused { "refused" } else { "unreachable" });
                    failures = failures.saturating_add(1);
                    let bidden = self.web.bidden();
                    let wait = plan::back_off(trouble.failure, failures, bidden, random());
                    self.tell(&trouble, wait, bidden);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// What is in force may be of this directory and for these names, or not.
    fn begin(&self, leaf: Option<Leaf>) -> Option<Kept> {
        let kept = leaf.filter(|leaf| self.store.has_certificate() && leaf.is_for(&self.config.names)).map(Kept::new);
        if let Some(kept) = &kept {
            info!(names = %self.config.names.join(" "), ends = %when(kept.leaf.validity.until), "the kept certificate goes on");
        }
        kept
    }

    fn take(&self, key: CertifiedKey, current: &Current) -> Option<Kept> {
        current.put(key);
        let kept = current.leaf().map(Kept::new)?;
        let (names, ends) = (self.config.names.join(" "), when(kept.leaf.validity.until));
        info!(%names, directory = %self.config.directory, %ends, "TLS goes on with a new certificate from the directory");
        if !kept.leaf.validity.holds(SystemTime::now()) {
            warn!("by this machine's clock the new certificate is not valid: is the clock right?");
        }
        Some(kept)
    }

    fn tell(&self, trouble: &Trouble, wait: Duration, bidden: Option<Duration>) {
        warn!(names = %self.config.names.join(" "), directory = %self.config.directory, again_in = ?round(wait),
              "no certificate: {}", trouble.text);
        if trouble.account_unknown {
            self.store.forget_account();
        }
        if trouble.failure == Failure::Refused {
            let now = SystemTime::now();
            // The longest of waits is a promise to the directory; ours alone may be cut short by a new start.
            let not_before = bidden.map_or(now, |told| now + told.min(plan::WAIT_MAX));
            if let Err(e) = self.store.note_failure(now, not_before) {
                warn!("{e:#}");
            }
        }
    }

    async fn wait_until_due(&self, kept: &mut Kept) {
        loop {
            let now = SystemTime::now();
            if kept.ask_again.is_none_or(|at| at <= now) {
                self.ask_when(kept).await;
            }
            let Ok(left) = kept.due.duration_since(SystemTime::now()) else { return };
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    /// Asks the directory when it wants the certificate to be renewed (RFC 9773). Not every one says.
    async fn ask_when(&self, kept: &mut Kept) {
        let validity = kept.leaf.validity;
        let again = match self.suggested(&kept.leaf).await {
            Ok(Some((window, again))) => {
                kept.due = plan::within(window, validity, random());
                debug!(due = %when(kept.due), "the directory suggests when to renew");
                again
            }
            Ok(None) => plan::ask_again(Duration::MAX),
            Err(e) => {
                debug!("the directory does not say when to renew: {}", e.text);
                plan::ask_again(Duration::ZERO)
            }
        };
        kept.ask_again = Some(SystemTime::now() + again);
    }
}

impl Kept {
    fn new(leaf: Leaf) -> Self {
        Self { due: plan::due(leaf.validity, random()), leaf, ask_again: None }
    }
}

/// In 0..1.
fn random() -> f64 {
    // Without random bytes nothing is spread, and nothing fails.
    getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX))
}

fn when(at: SystemTime) -> String {
    httpdate::fmt_http_date(at.max(SystemTime::UNIX_EPOCH))
}

fn round(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs().max(1))
}
