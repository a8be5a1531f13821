//! A certificate that this server signs itself, so that HTTPS works before anyone has bought or asked for one: a browser
//! gives its screen and its microphone to HTTPS pages alone. Kept in the data directory.

use std::{fs, path::Path};

use anyhow::Context;
use rcgen::{DistinguishedName, DnType};

use super::pair::Pair;
use crate::{keys, system};

const CERTIFICATE: &str = "tls-certificate.pem";
const KEY: &str = "tls-key.pem";

/// Made if it is not there.
pub fn pair(data_dir: &Path) -> anyhow::Result<Pair> {
    let pair = Pair { certificate: data_dir.join(CERTIFICATE), key: data_dir.join(KEY) };
    let there = |path: &Path| fs::exists(path).with_context(|| format!("cannot look for {}", path.display()));
    if !there(&pair.certificate)? || !there(&pair.key)? {
        write(&pair).context("cannot make a certificate for HTTPS and RTMPS")?;
    }
    Ok(pair)
}

fn write(pair: &Pair) -> anyhow::Result<()> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(system::lan_address().map(|address| address.to_string()));
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "CodeCast development certificate");
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    keys::write_whole(&pair.key, key.serialize_pem().as_bytes())?;
    keys::write_whole(&pair.certificate, certificate.pem().as_bytes())?;
    Ok(())
}
