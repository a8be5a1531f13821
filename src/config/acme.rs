//! For which names a certificate is asked, and of whom.

use std::{net::IpAddr, path::PathBuf};

use super::{error::Error, values::Reader};

/// Let's Encrypt puts no more into one certificate.
const NAMES_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// At least one, in lower case, none twice.
    pub names: Vec<String>,
    /// As the directory wants it: `mailto:…`.
    pub contact: Option<String>,
    pub directory: String,
    pub challenge: AcmeChallenge,
    /// Whom to trust there; `None`: as this machine does.
    pub root: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// On the port of HTTPS (RFC 8737).
    TlsAlpn01,
    /// On the port of HTTP (RFC 8555 8.3).
    Http01,
}

impl Acme {
    /// `None` where no names are. `with_files`: there is a certificate already.
    pub fn read(reader: &Reader<'_>, with_files: bool, https: bool) -> Result<Option<Self>, Error> {
        let names = reader.text("tls.acme_names", |text| match names(text)? {
            names if with_files && !names.is_empty() => {
                Err("is set together with tls.certificate: choose where the certificate comes from".to_owned())
            }
            names => Ok(names),
        })?;
        let acme = Self {
            contact: reader.text("tls.acme_contact", contact)?,
            directory: reader.text("tls.acme_directory", |text| match text.starts_with("https://") {
                true => Ok(text.to_owned()),
                false => Err(format!("is {text:?}, and must begin with https://")),
            })?,
            challenge: reader.text("tls.acme_challenge", |text| match text {
                "tls-alpn-01" if !https && !names.is_empty() => {
                    Err("is \"tls-alpn-01\", which needs tls.https_address; \"http-01\" does not".to_owned())
                }
                "tls-alpn-01" => Ok(AcmeChallenge::TlsAlpn01),
                "http-01" => Ok(AcmeChallenge::Http01),
                _ => Err(format!("is {text:?}, and must be \"tls-alpn-01\" or \"http-01\"")),
            })?,
            root: reader.text("tls.acme_root", |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))))?,
            names,
        };
        Ok((!acme.names.is_empty()).then_some(acme))
    }
}

fn contact(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    match text.strip_prefix("mailto:").unwrap_or(text) {
        "" => Ok(None),
        address if address.contains('@') && address.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(format!("mailto:{address}")))
        }
        _ => Err(format!("is {text:?}, which is no address for e-mail")),
    }
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split_whitespace().map(|name| name.trim_end_matches('.').to_ascii_lowercase()) {
        check_name(&name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > NAMES_MAX {
        return Err(format!("has {} names, and a certificate is for {NAMES_MAX} at most", names.len()));
    }
    Ok(names)
}

fn check_name(name: &str) -> Result<(), String> {
    if name.starts_with("*.") {
        return Err(format!("has {name:?}: for all names of a domain a directory wants to see its DNS changed; list each name"));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(format!("has {name:?}: a certificate is for names, not for addresses"));
    }
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(()),
        false => {
            Err(format!("has {name:?}, which is no name of a host, as in \"cast.example.org\" (write other alphabets as xn--…)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hosts() {
        assert_eq!(
            names(" Cast.Example.org. www.example.org  cast.example.org"),
            Ok(vec!["cast.example.org".into(), "www.example.org".into()])
        );
        assert_eq!(names(""), Ok(vec![]));
        let refused = |text: &str, part: &str| assert!(names(text).unwrap_err().contains(part), "{text}");
        refused("*.example.org", "list each name");
        refused("192.0.2.1", "not for addresses");
        refused("2001:db8::1", "not for addresses");
        refused("https://example.org", "no name of a host");
        refused("a..b", "no name of a host");
        refused("-a.example", "no name of a host");
        refused("bücher.example", "xn--");
        refused(&(0..101).map(|n| format!("n{n}.example ")).collect::<String>(), "has 101 names");
    }

    #[test]
    fn a_contact_is_an_address() {
        assert_eq!(contact(""), Ok(None));
        assert_eq!(contact("a@example.org"), Ok(Some("mailto:a@example.org".into())));
        assert_eq!(contact("mailto:a@example.org"), Ok(Some("mailto:a@example.org".into())));
        assert!(contact("somebody").is_err());
        assert!(contact("a@b\r\nc").is_err());
    }
}
