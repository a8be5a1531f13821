//! What is kept of a directory, each in a folder of its own: the account, the certificate with its key, and the last
//! failure. All of it only its owner may read.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use instant_acme::AccountCredentials;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::{keys, tls::pair::Pair};

const FOLDER: &str = "acme";
const ACCOUNT: &str = "account.json";
/// Chain and key in one file: they are of one order, whatever happens between two writes.
const CERTIFICATE: &str = "certificate-and-key.pem";
const FAILED: &str = "failed.json";

pub struct Store {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
pub struct Account {
    pub contact: Option<String>,
    pub credentials: AccountCredentials,
}

/// The last failure; seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Failed {
    at: u64,
    not_before: u64,
}

impl Store {
    pub fn open(data_dir: &Path, directory: &str) -> anyhow::Result<Self> {
        let store = Self::at(data_dir, directory);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&store.folder);
        made.with_context(|| format!("cannot use {}", store.folder.display()))?;
        Ok(store)
    }

    /// As it is, if it is.
    pub fn at(data_dir: &Path, directory: &str) -> Self {
        Self { folder: data_dir.join(FOLDER).join(folder_name(directory)) }
    }

    pub fn pair(&self) -> Pair {
        let file = self.folder.join(CERTIFICATE);
        Pair { certificate: file.clone(), key: file }
    }

    pub fn has_certificate(&self) -> bool {
        self.folder.join(CERTIFICATE).exists()
    }

    /// What the directory gave is looked at before anything that works is replaced.
    pub fn keep(&self, chain: &str, key: &str) -> anyhow::Result<()> {
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        if certificates.context("the directory's certificate is no PEM")?.is_empty() {
            bail!("the directory gave no certificate");
        }
        let text = format!("{}\n{key}", chain.trim_end());
        self.write(CERTIFICATE, text.as_bytes())
    }

    pub fn account(&self) -> anyhow::Result<Option<Account>> {
        let file = self.folder.join(ACCOUNT);
        match fs::read(&file) {
            // serde's own message could quote the key.
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(account) => Ok(Some(account)),
                Err(_) => bail!("{} is damaged: put it right, or remove it to have a new account made", file.display()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    pub fn keep_account(&self, account: &Account) -> anyhow::Result<()> {
        self.write(ACCOUNT, &serde_json::to_vec(account)?)
    }

    pub fn forget_account(&self) {
        let _ = fs::remove_file(self.folder.join(ACCOUNT));
    }

    /// When the last attempt failed, and until when the directory bade us to wait.
    pub fn failed(&self) -> Option<[SystemTime; 2]> {
        let failed: Failed = serde_json::from_slice(&fs::read(self.folder.join(FAILED)).ok()?).ok()?;
        let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Some([time(failed.at)?, time(failed.not_before)?])
    }

    pub fn note_failure(&self, at: SystemTime, not_before: SystemTime) -> anyhow::Result<()> {
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.write(FAILED, &serde_json::to_vec(&Failed { at: seconds(at), not_before: seconds(not_before) })?)
    }

    pub fn forget_failure(&self) {
        let _ = fs::remove_file(self.folder.join(FAILED));
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let file = self.folder.join(name);
        keys::write_whole(&file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Accounts and certificates of one directory are nothing to another.
fn folder_name(directory: &str) -> String {
    let address = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c.to_ascii_lowercase() } else { '_' };
    // A dot at the beginning would hide it, or lead out of the folder.
    let name: String = address.chars().map(plain).take(100).collect();
    format!("at-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_its_folder() {
        let check = |directory, name| assert_eq!(folder_name(directory), name);
        check("https://acme-v02.api.letsencrypt.org/directory", "at-acme-v02.api.letsencrypt.org_directory");
        check("https://localhost:14000/dir", "at-localhost_14000_dir");
        check("https://../../etc", "at-.._.._etc");
    }
}
