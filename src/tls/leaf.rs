//! What a certificate says of itself: for whom it is, from when until when, and how a directory calls it.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use rustls::pki_types::{CertificateDer, Der};
use x509_parser::{extensions::ParsedExtension, prelude::*};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// DNS names and addresses, as the certificate has them.
    pub names: Vec<String>,
    pub validity: Validity,
    /// Who signed it, and whom it is for: the order of a chain is told by them.
    pub issuer: String,
    pub subject: String,
    /// What a directory calls it by (RFC 9773 4.1): the key of its issuer, and its own number.
    pub id: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: SystemTime,
    pub until: SystemTime,
}

impl Validity {
    pub fn length(self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }

    pub fn holds(self, now: SystemTime) -> bool {
        (self.from..self.until).contains(&now)
    }
}

impl Leaf {
    pub fn read(certificate: &CertificateDer<'_>) -> anyhow::Result<Self> {
        let (_, read) = X509Certificate::from_der(certificate).map_err(|e| anyhow!("it is no X.509 certificate: {e}"))?;
        let validity = Validity { from: time(read.validity.not_before), until: time(read.validity.not_after) };
        let names = read.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
        let signer = read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(signer) => signer.key_identifier.as_ref(),
            _ => None,
        });
        Ok(Self {
            names: names.into_iter().flatten().filter_map(name).collect(),
            validity,
            issuer: read.issuer().to_string(),
            subject: read.subject().to_string(),
            id: signer.map(|signer| (signer.0.to_vec(), read.raw_serial().to_vec())),
        })
    }

    /// Whether it is for exactly these names, which are lower case.
    pub fn is_for(&self, names: &[String]) -> bool {
        let sorted = |names: &[String]| {
            let mut names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
            names.sort();
            names.dedup();
            names
        };
        sorted(&self.names) == sorted(names)
    }

    pub fn identifier(&self) -> Option<instant_acme::CertificateIdentifier<'static>> {
        let (signer, serial) = self.id.as_ref()?;
        Some(instant_acme::CertificateIdentifier::new(Der::from_slice(signer), Der::from_slice(serial)).into_owned())
    }
}

fn time(at: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(at.timestamp().try_into().unwrap_or(0))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read() {
        let names = ["Cast.example", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let leaf = Leaf::read(made.der()).unwrap();
        assert_eq!(leaf.names, names);
        assert!(leaf.validity.holds(SystemTime::now()));
        assert!(leaf.is_for(&["::1", "cast.example", "127.0.0.1"].map(str::to_owned)));
        assert!(!leaf.is_for(&["cast.example".to_owned()]));
        assert!(Leaf::read(&CertificateDer::from(vec![0x30, 1])).is_err());
    }
}
