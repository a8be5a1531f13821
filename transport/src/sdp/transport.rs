//! What an offer says of its transport: ICE credentials, certificate hash, DTLS role.

use std::fmt;

use super::refusal::{Refusal, excerpt};

/// One agent's ICE user name fragment and password, valid by RFC 8839 5.4. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    ufrag: String,
    pwd: String,
}

impl IceCredentials {
    pub fn new(ufrag: impl Into<String>, pwd: impl Into<String>) -> Result<Self, Refusal> {
        let (ufrag, pwd) = (ufrag.into(), pwd.into());
        if !(4..=256).contains(&ufrag.len()) || !ufrag.bytes().all(is_ice_char) {
            return Err(Refusal::BadIceUfrag);
        }
        if !(22..=256).contains(&pwd.len()) || !pwd.bytes().all(is_ice_char) {
            return Err(Refusal::BadIcePwd);
        }
        Ok(Self { ufrag, pwd })
    }

    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    pub fn pwd(&self) -> &str {
        &self.pwd
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({}, ..)", self.ufrag)
    }
}

fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Strong enough to pin a certificate with (RFC 8122 5 forbids md5 and md2; sha-1 is broken).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl HashAlgorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|it| name.eq_ignore_ascii_case(it.name()))
    }
}

/// The hash of a DTLS certificate. `Display` is the value of `a=fingerprint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    algorithm: HashAlgorithm,
    value: Vec<u8>,
}

impl Fingerprint {
    pub fn sha256(value: [u8; 32]) -> Self {
        Self { algorithm: HashAlgorithm::Sha256, value: value.to_vec() }
    }

    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Of several hashes of one certificate, each true, sha-256 is taken: every DTLS stack computes it (RFC 8122 5).
    pub(super) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Result<Option<Self>, Refusal> {
        let mut best: Option<Self> = None;
        let mut weak: Option<&str> = None;
        for value in values {
            let (name, hex) = value.split_once(' ').ok_or_else(|| Refusal::BadFingerprint(excerpt(value)))?;
            let Some(algorithm) = HashAlgorithm::parse(name) else {
                weak = Some(name);
                continue;
            };
            let bytes = parse_hex(hex.trim()).filter(|bytes| bytes.len() == algorithm.bytes());
            let value = bytes.ok_or_else(|| Refusal::BadFingerprint(excerpt(value)))?;
            if best.as_ref().is_none_or(|best| algorithm.bytes() < best.algorithm.bytes()) {
                best = Some(Self { algorithm, value });
            }
        }
        match (best, weak) {
            (None, Some(name)) => Err(Refusal::WeakFingerprint(excerpt(name))),
            (best, _) => Ok(best),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        for (index, byte) in self.value.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|pair| if is_hex_pair(pair) { u8::from_str_radix(pair, 16).ok() } else { None }).collect()
}

/// `from_str_radix` alone takes a sign.
fn is_hex_pair(pair: &str) -> bool {
    pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Who opens the DTLS handshake (RFC 8842 5.1), as the offer puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    Actpass,
    Active,
    Passive,
}

impl Setup {
    pub(super) fn parse(value: &str) -> Result<Self, Refusal> {
        match value.to_ascii_lowercase().as_str() {
            "actpass" => Ok(Self::Actpass),
            "active" => Ok(Self::Active),
            "passive" => Ok(Self::Passive),
            _ => Err(Refusal::BadSetup(excerpt(value))),
        }
    }
}

/// The transport attributes found at one level, session or m-line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transport {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    pub fingerprint: Option<Fingerprint>,
    pub setup: Option<Setup>,
}

impl Transport {
    /// What is missing here comes from `wider`: an m-line from the session, a bundled one from the tagged one.
    /// Name and password come from one level, since they belong together.
    pub fn or(&self, wider: &Self) -> Self {
        let ice = if self.ufrag.is_some() || self.pwd.is_some() { self } else { wider };
        Self {
            ufrag: ice.ufrag.clone(),
            pwd: ice.pwd.clone(),
            fingerprint: self.fingerprint.clone().or_else(|| wider.fingerprint.clone()),
            setup: self.setup.or(wider.setup),
        }
    }

    pub fn ice(&self) -> Result<IceCredentials, Refusal> {
        match (&self.ufrag, &self.pwd) {
            (Some(ufrag), Some(pwd)) => IceCredentials::new(ufrag, pwd),
            _ => Err(Refusal::NoIce),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_held_to_the_grammar() {
        let pwd = "a".repeat(22);
        let check = |ufrag: &str, pwd: &str, want: Result<(), Refusal>| {
            assert_eq!(IceCredentials::new(ufrag, pwd).map(|_| ()), want, "{ufrag} {pwd}");
        };
        check("abcd", &pwd, Ok(()));
        check("Yg/l", "F3B8h+aGx4waUywSGf2CtbVI", Ok(()));
        check(&"u".repeat(256), &"p".repeat(256), Ok(()));
        check("abc", &pwd, Err(Refusal::BadIceUfrag));
        check(&"u".repeat(257), &pwd, Err(Refusal::BadIceUfrag));
        check("ab:d", &pwd, Err(Refusal::BadIceUfrag));
        check("abcd", &pwd[1..], Err(Refusal::BadIcePwd));
        check("abcd", &"p".repeat(257), Err(Refusal::BadIcePwd));
        check("abcd", "aaaaaaaaaaaaaaaaaaaaa=", Err(Refusal::BadIcePwd));
        assert!(!format!("{:?}", IceCredentials::new("abcd", &pwd)).contains(&pwd));
    }

    #[test]
    fn fingerprints() {
        let hex = |byte: &str, count: usize| vec![byte; count].join(":");
        let sha256 = format!("sha-256 {}", hex("AB", 32));
        let choose = |values: &[&str]| Fingerprint::choose(values.iter().copied());
        let text = |values: &[&str]| choose(values).expect("valid").expect("some").to_string();

        assert_eq!(choose(&[]), Ok(None));
        assert_eq!(text(&[&sha256]), sha256);
        assert_eq!(text(&[&format!("SHA-256 {}", hex("ab", 32))]), sha256);
        assert_eq!(text(&[&format!("sha-512 {}", hex("00", 64)), &sha256, &format!("sha-1 {}", hex("00", 20))]), sha256);
        assert_eq!(choose(&[&format!("sha-1 {}", hex("00", 20))]), Err(Refusal::WeakFingerprint("sha-1".into())));
        for bad in
            ["sha-256", "sha-256 ", "sha-256 AB", &format!("sha-256 {}", hex("+1", 32)), &format!("sha-256 {}", hex("é", 32))]
        {
            assert!(matches!(choose(&[bad]), Err(Refusal::BadFingerprint(_))), "{bad}");
        }
    }
}
