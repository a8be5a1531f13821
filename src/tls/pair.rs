//! A certificate chain and its key, in two PEM files.

use std::{fs, path::PathBuf, time::SystemTime};

use anyhow::{Context, bail};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What tells one writing of the files from the next.
pub type Stamp = [(SystemTime, u64); 2];

impl Pair {
    /// `None` while one of them is not there: a renewal may remove before it writes.
    pub fn stamp(&self) -> Option<Stamp> {
        let stamp = |path: &PathBuf| {
            let data = fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len()))
        };
        Some([stamp(&self.certificate)?, stamp(&self.key)?])
    }

    /// The error names the file, and nothing of what is in it.
    pub fn load(&self, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
        let told = || format!("in {}", self.certificate.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.certificate).with_context(told)?.collect();
        let chain = chain.with_context(told)?;
        if chain.is_empty() {
            bail!("there is no certificate {}", told());
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("there is no private key in {}", self.key.display()))?;
        CertifiedKey::from_der(chain, key, provider)
            .with_context(|| format!("{} and {} do not belong together", self.certificate.display(), self.key.display()))
    }
}
