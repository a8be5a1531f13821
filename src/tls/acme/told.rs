//! What a directory said of a failure, and what to do about it (RFC 8555 6.7, its table of problems).

use instant_acme::{Error, Problem};

use super::plan::Failure;
use crate::config::AcmeChallenge;

/// Why there is no certificate, in words.
#[derive(Debug)]
pub struct Trouble {
    pub failure: Failure,
    pub text: String,
    /// The directory does not know our account.
    pub account_unknown: bool,
}

impl Trouble {
    pub fn unreachable(text: impl Into<String>) -> Self {
        Self { failure: Failure::Unreachable, text: text.into(), account_unknown: false }
    }

    pub fn refused(text: impl Into<String>) -> Self {
        Self { failure: Failure::Refused, text: text.into(), account_unknown: false }
    }

    pub fn of(error: &Error, challenge: AcmeChallenge) -> Self {
        match error {
            Error::Api(problem) => Self {
                failure: if SOON.contains(&kind(problem)) { Failure::Unreachable } else { Failure::Refused },
                text: format!("the directory says: {}", told(problem, challenge)),
                account_unknown: kind(problem) == "accountDoesNotExist",
            },
            Error::Timeout(_) => Self::refused("the directory takes longer than we wait; tried again later"),
            Error::Json(_) => Self::unreachable("what answers at tls.acme_directory is no ACME directory: is the address right?"),
            Error::Other(error) => Self::unreachable(format!(
                "the directory cannot be reached: {error}. See tls.acme_directory, and whether this machine may connect to it"
            )),
            error => Self::refused(format!("the directory's answer is none that we understand: {error}")),
        }
    }

    /// What became of challenges: a name, and the problem that the directory had with it.
    pub fn challenges(failed: &[(String, Problem)], challenge: AcmeChallenge) -> Self {
        if failed.is_empty() {
            return Self::refused("the directory does not say why it calls the order invalid");
        }
        let each: Vec<_> = failed.iter().map(|(name, problem)| format!("{name}: {}", told(problem, challenge))).collect();
        Self::refused(format!("the directory could not confirm that the names are this server's: {}", each.join("; ")))
    }
}

fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default()
}

fn told(problem: &Problem, challenge: AcmeChallenge) -> String {
    let detail = problem.detail.as_deref().unwrap_or("nothing more");
    let each = problem.subproblems.iter().map(|problem| format!(", {problem}")).collect::<String>();
    let kind = kind(problem);
    // A directory quotes what it found, which may be long.
    let said: String = format!("{detail}{each}").chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
    match advice(kind, challenge) {
        Some(advice) => format!("{said} ({kind}). {advice}"),
        None => format!("{said} ({kind})"),
    }
}

/// What goes away by asking again.
const SOON: [&str; 2] = ["badNonce", "accountDoesNotExist"];
/// Of one problem, in characters.
const TEXT_MAX: usize = 500;

fn advice(kind: &str, challenge: AcmeChallenge) -> Option<&'static str> {
    let alpn = challenge == AcmeChallenge::TlsAlpn01;
    Some(match kind {
        "connection" | "tls" | "unauthorized" | "incorrectResponse" if alpn => {
            "It must reach port 443 of that name, and meet tls.https_address of this server there: is it open in the firewall and \
             forwarded? A proxy that ends TLS is in the way of it: then try tls.acme_challenge = \"http-01\""
        }
        "connection" | "unauthorized" | "incorrectResponse" => {
            "It must reach port 80 of that name, and meet http.address of this server there: is it open in the firewall and forwarded?"
        }
        "dns" => "Has the name an address in the public DNS, and is it this machine's?",
        "caa" => "A CAA record of the name forbids this directory",
        "rateLimited" => "Nothing helps but to wait, which this server does",
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "See tls.acme_names: this directory gives no certificate for such a name"
        }
        "externalAccountRequired" => {
            "It wants an account that was made elsewhere, which this server cannot use: choose another tls.acme_directory"
        }
        "invalidContact" | "unsupportedContact" => "See tls.acme_contact",
        "userActionRequired" => "Its terms have changed: read what it says",
        "accountDoesNotExist" => "A new account is made with the next attempt",
        "serverInternal" => "The fault is the directory's own; tried again later",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let r#type = Some(format!("urn:ietf:params:acme:error:{kind}"));
        Problem { r#type, detail: Some(detail.to_owned()), status: None, subproblems: Vec::new() }
    }

    #[test]
    fn what_the_directory_said_is_told_with_the_way_out() {
        let check = |kind, challenge, expected: &str| {
            let trouble = Trouble::challenges(&[("a.example".into(), problem(kind, "no\nluck"))], challenge);
            assert!(trouble.text.contains(&format!("a.example: noluck ({kind})")), "{}", trouble.text);
            assert!(trouble.text.contains(expected), "{}", trouble.text);
            assert_eq!(trouble.failure, Failure::Refused);
        };
        check("connection", AcmeChallenge::TlsAlpn01, "port 443");
        check("connection", AcmeChallenge::Http01, "port 80");
        check("dns", AcmeChallenge::Http01, "public DNS");
        check("unauthorized", AcmeChallenge::TlsAlpn01, "http-01");
        check("unauthorized", AcmeChallenge::Http01, "http.address");
        check("caa", AcmeChallenge::TlsAlpn01, "CAA");
        check("somethingNew", AcmeChallenge::TlsAlpn01, "noluck");
    }

    #[test]
    fn whose_fault_it_is_decides_how_long_to_wait() {
        let of = |error| Trouble::of(&error, AcmeChallenge::TlsAlpn01);
        assert_eq!(of(Error::Other("connection refused".into())).failure, Failure::Unreachable);
        assert_eq!(of(Error::Api(problem("rateLimited", "too many"))).failure, Failure::Refused);
        assert_eq!(of(Error::Timeout(None)).failure, Failure::Refused);
        assert!(of(Error::Api(problem("accountDoesNotExist", "who?"))).account_unknown);
        assert_eq!(of(Error::Api(problem("badNonce", "again"))).failure, Failure::Unreachable);
        assert!(!of(Error::Api(problem("malformed", "what?"))).account_unknown);
    }
}
