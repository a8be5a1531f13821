//! A certificate chain and its key, in two PEM files.

use std::{fs, path::PathBuf, time::SystemTime};

use anyhow::{Context, bail};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

#[derive(Debug)]
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
        let read = |path: &PathBuf| fs::read(path).with_context(|| format!("in {}", path.display()));
        certified(&read(&self.certificate)?, &read(&self.key)?, provider)
            .with_context(|| format!("in {} and {}", self.certificate.display(), self.key.display()))
    }
}

/// The chain and the key in two texts, which may be one.
pub fn certified(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().context("the certificate")?;
    if chain.is_empty() {
        bail!("there is no certificate");
    }
    let key = PrivateKeyDer::from_pem_slice(key).context("there is no private key")?;
    CertifiedKey::from_der(chain, key, provider).context("certificate and key do not belong together")
}
