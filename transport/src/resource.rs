//! The rules of WHIP's and WHEP's endpoint and session URLs (RFC 9725, draft-ietf-wish-whep): what a request
//! on them means, and the headers of the answers.
//!
//! Pure: header values and bodies come in, verdicts and values go out. Admission, routing and the
//! sessions themselves are the endpoints' business.

use std::fmt::Write;

use crate::sdp::{Fragment, IceCredentials, Refusal};

pub const SDP: &str = "application/sdp";
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// Of `Allow`, and what CORS may be told. Every other method is 405: RFC 9725 4.2 reserves them.
pub const ENDPOINT_METHODS: &str = "POST, OPTIONS";
pub const SESSION_METHODS: &str = "PATCH, DELETE, OPTIONS";
/// Any page may publish and view: what counts is the key in the request, which no browser adds by itself.
pub const CORS: [(&str, &str); 4] = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST, PATCH, DELETE, OPTIONS"),
    ("access-control-allow-headers", "authorization, content-type, if-match"),
    ("access-control-expose-headers", "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After"),
];
/// How long a browser may remember it, in seconds.
pub const CORS_MAX_AGE: &str = "86400";
/// 128 bits in hexadecimal: whoever knows a session's URL may end it, so none can be guessed.
pub const ID_BYTES: usize = 16;
/// Longest host and path prefix that is believed of a request: a DNS name with its port, and some folders.
const HOST_BYTES_MAX: usize = 262;
const PREFIX_BYTES_MAX: usize = 256;

/// The last part of a session's URL, made of random bytes.
pub fn session_id(random: [u8; ID_BYTES]) -> String {
    random.iter().fold(String::with_capacity(2 * ID_BYTES), |mut id, byte| {
        write!(id, "{byte:02x}").expect("a String takes everything");
        id
    })
}

/// An ICE session's entity tag: our user name fragment names it (RFC 9725 4.3.1).
pub fn etag(ufrag: &str) -> String {
    format!("\"{ufrag}\"")
}

/// Whether a Content-Type is this one, whatever parameters follow.
pub fn is_type(content_type: Option<&str>, expected: &str) -> bool {
    content_type.is_some_and(|it| it.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected))
}

/// The token of `Authorization: Bearer` (RFC 6750 2.1); the scheme is case-insensitive (RFC 9110 11.1).
pub fn bearer(authorization: Option<&str>) -> Option<&str> {
    let (scheme, token) = authorization?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What a PATCH asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Patch {
    /// Candidates of the peer. A lite agent has no use for them: 204.
    Trickle,
    /// New credentials: 200 with ours, and a new entity tag.
    Restart(IceCredentials),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("the body must be {FRAGMENT}")]
    Type,
    #[error("the fragment cannot be read: {0}")]
    Fragment(#[from] Refusal),
    #[error("If-Match is missing: send the session's ETag, or \"*\" with an ICE restart")]
    NoPrecondition,
    #[error("If-Match does not name the session's ETag: its ICE session was restarted")]
    OtherSession,
    #[error("this session is over")]
    Gone,
}

impl PatchError {
    pub fn status(&self) -> u16 {
        match self {
            Self::Type => 415,
            Self::Fragment(_) => 400,
            Self::NoPrecondition => 428,
            Self::OtherSession => 412,
            Self::Gone => 404,
        }
    }
}

impl Patch {
    /// `ufrag` is ours now, `remote` the peer's credentials now.
    ///
    /// RFC 9725 4.3.1: who trickles names the ICE session by its entity tag, lest candidates of an old
    /// one be taken for the new one's; who restarts sends `*`.
    pub(crate) fn judge(
        content_type: Option<&str>,
        if_match: Option<&str>,
        body: &[u8],
        ufrag: &str,
        remote: &IceCredentials,
    ) -> Result<Self, PatchError> {
        if !is_type(content_type, FRAGMENT) {
            return Err(PatchError::Type);
        }
        let fragment = Fragment::parse(body)?;
        let matches = if_match.ok_or(PatchError::NoPrecondition)?;
        if !is_any(matches) && !names(matches, ufrag) {
            return Err(PatchError::OtherSession);
        }
        Ok(match fragment.ice {
            Some(ice) if ice != *remote => Self::Restart(ice),
            _ => Self::Trickle,
        })
    }
}

/// RFC 9725 writes it in quotes, RFC 9110 13.1.1 without.
fn is_any(if_match: &str) -> bool {
    matches!(if_match.trim(), "*" | "\"*\"")
}

/// Strong comparison: a weak tag fits nothing (RFC 9110 13.1.1).
fn names(if_match: &str, ufrag: &str) -> bool {
    if_match.split(',').any(|tag| tag.trim().strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(ufrag))
}

/// A STUN or TURN server that peers are told of (RFC 9725 4.6).
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` (RFC 7064, RFC 7065).
    pub url: String,
    pub login: Option<IceLogin>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct IceLogin {
    pub username: String,
    pub credential: String,
}

impl IceServer {
    /// The value of one `Link` header.
    pub fn link(&self) -> String {
        let mut link = format!("<{}>; rel=\"ice-server\"", self.url.replace(['<', '>'], ""));
        if let Some(login) = &self.login {
            link += &format!(
                "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
                quoted(&login.username),
                quoted(&login.credential)
            );
        }
        link
    }
}

impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServer({})", self.url)
    }
}

/// The inside of a quoted-string (RFC 9110 5.6.4).
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// The listener of this server sets it to `https` where a request came by TLS, and lets no peer's own through.
pub const SCHEME: &str = "codecast-scheme";

/// How this server is reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// `https://live.example.org/folder`: then nothing else counts.
    pub public_url: Option<String>,
    /// A proxy stands in front that sets `Forwarded` or `X-Forwarded-*`, and lets none of a peer's through.
    pub trust_forwarded: bool,
}

impl Reach {
    /// The absolute address of `path`, as the peer that sent these headers reaches it. Where not even
    /// a host is known it is the path alone, which every client resolves against its own request.
    pub fn location<'a>(&self, path: &str, header: impl Fn(&str) -> Option<&'a str>) -> String {
        if let Some(url) = &self.public_url {
            return format!("{}{path}", url.trim_end_matches('/'));
        }
        let proxy = if self.trust_forwarded { Forwarded::read(&header) } else { Forwarded::default() };
        let Some(host) = proxy.host.or_else(|| header("host")).filter(|host| is_host(host)) else { return path.to_owned() };
        let ours = || header(SCHEME).and_then(scheme);
        let scheme = proxy.scheme.or_else(ours).or_else(|| scheme_of_origin(header("origin")?, host)).unwrap_or("http");
        format!("{scheme}://{host}{}{path}", proxy.prefix.unwrap_or_default())
    }
}

/// What a proxy tells of the request as it came to it.
#[derive(Default)]
struct Forwarded<'a> {
    scheme: Option<&'static str>,
    host: Option<&'a str>,
    /// The folder that it took off the path.
    prefix: Option<&'a str>,
}

impl<'a> Forwarded<'a> {
    /// Several proxies append: the first value is the one nearest to the peer.
    fn read(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let first = |name: &str| Some(header(name)?.split(',').next()?.trim());
        let standard = first("forwarded");
        let element = |name: &str| {
            let pairs = standard?.split(';').filter_map(|pair| pair.split_once('='));
            let found = pairs.into_iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().trim_matches('"'))
        };
        let prefix = first("x-forwarded-prefix").map(|prefix| prefix.trim_end_matches('/'));
        Self {
            scheme: element("proto").or_else(|| first("x-forwarded-proto")).and_then(scheme),
            host: element("host").or_else(|| first("x-forwarded-host")).filter(|host| is_host(host)),
            prefix: prefix.filter(|prefix| is_prefix(prefix)),
        }
    }
}

fn scheme(name: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| name.eq_ignore_ascii_case(known))
}

/// A page of this very host tells whether it came by TLS, which a proxy may have ended.
fn scheme_of_origin(origin: &str, host: &str) -> Option<&'static str> {
    let (name, authority) = origin.split_once("://")?;
    if authority.eq_ignore_ascii_case(host) { scheme(name) } else { None }
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= HOST_BYTES_MAX
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= PREFIX_BYTES_MAX
        && prefix.starts_with('/')
        && !prefix.starts_with("//")
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._~%-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n";
    const NEW: &str = "a=ice-ufrag:efgh\r\na=ice-pwd:ABCDEFGHIJKLMNOPQRSTUV\r\n";
    const CANDIDATE: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n";

    fn credentials(ufrag: &str, pwd: &str) -> IceCredentials {
        IceCredentials::new(ufrag, pwd).expect("valid")
    }

    #[test]
    fn a_patch_is_a_trickle_a_restart_or_refused() {
        let check = |content_type: &str, if_match: Option<&str>, body: &str, expected: Result<Patch, u16>| {
            let remote = credentials("abcd", "abcdefghijklmnopqrstuv");
            let judged = Patch::judge(Some(content_type), if_match, body.as_bytes(), "ours", &remote);
            assert_eq!(judged.map_err(|error| error.status()), expected, "{content_type} {if_match:?} {body}");
        };
        let restart = || Ok(Patch::Restart(credentials("efgh", "ABCDEFGHIJKLMNOPQRSTUV")));
        let trickle = || Ok(Patch::Trickle);
        let with_old = format!("{OLD}{CANDIDATE}");
        let with_new = format!("{NEW}{CANDIDATE}");
        check(FRAGMENT, Some("\"ours\""), &with_old, trickle());
        check(FRAGMENT, Some("\"other\", \"ours\""), &with_old, trickle());
        check("Application/Trickle-ICE-sdpfrag; charset=utf-8", Some("\"ours\""), CANDIDATE, trickle());
        check(FRAGMENT, Some("\"ours\""), "a=end-of-candidates\r\n", trickle());
        check(FRAGMENT, Some("*"), &with_old, trickle());
        check(FRAGMENT, Some("\"other\""), &with_old, Err(412));
        check(FRAGMENT, Some("W/\"ours\""), &with_old, Err(412));
        check(FRAGMENT, Some("ours"), &with_old, Err(412));
        check(FRAGMENT, None, &with_old, Err(428));
        check(FRAGMENT, Some("\"*\""), &with_new, restart());
        check(FRAGMENT, Some(" * "), &with_new, restart());
        check(FRAGMENT, Some("\"ours\""), &with_new, restart());
        check(FRAGMENT, Some("\"other\""), &with_new, Err(412));
        check(FRAGMENT, None, &with_new, Err(428));
        check(SDP, Some("*"), &with_new, Err(415));
        check(FRAGMENT, Some("*"), "a=ice-ufrag:efgh\r\n", Err(400));
        check(FRAGMENT, Some("*"), "a=ice-ufrag:e\r\na=ice-pwd:x\r\n", Err(400));
        check(FRAGMENT, Some("*"), "a=ice-ufrag:\0\r\n", Err(400));
    }

    #[test]
    fn a_bearer_token_is_found() {
        let check = |value, expected| assert_eq!(bearer(value), expected, "{value:?}");
        check(Some("Bearer key"), Some("key"));
        check(Some(" bearer   key "), Some("key"));
        check(Some("Basic key"), None);
        check(Some("Bearer"), None);
        check(Some("Bearer  "), None);
        check(None, None);
    }

    #[test]
    fn a_link_tells_of_an_ice_server() {
        let stun = IceServer { url: "stun:stun.example.org:3478".into(), login: None };
        assert_eq!(stun.link(), "<stun:stun.example.org:3478>; rel=\"ice-server\"");
        let login = IceLogin { username: "me".into(), credential: "a\"b".into() };
        let turn = IceServer { url: "turn:turn.example.org?transport=udp".into(), login: Some(login) };
        assert_eq!(
            turn.link(),
            "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"me\"; credential=\"a\\\"b\"; \
             credential-type=\"password\""
        );
        assert!(!format!("{turn:?}").contains("a\"b"));
    }

    #[test]
    fn a_location_is_what_the_peer_can_reach() {
        let check = |public_url: Option<&str>, trust_forwarded: bool, headers: &[(&str, &'static str)], expected: &str| {
            let reach = Reach { public_url: public_url.map(str::to_owned), trust_forwarded };
            let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            assert_eq!(reach.location("/whip/demo/1", header), expected, "{headers:?}");
        };
        const HOST: (&str, &str) = ("host", "10.0.0.1:8080");
        const PROTO: (&str, &str) = ("x-forwarded-proto", "https, http");
        check(Some("https://a.example/tv/"), true, &[HOST, PROTO], "https://a.example/tv/whip/demo/1");
        check(None, false, &[HOST, PROTO, ("x-forwarded-host", "b.example")], "http://10.0.0.1:8080/whip/demo/1");
        check(None, false, &[("host", "[::1]:80")], "http://[::1]:80/whip/demo/1");
        check(None, false, &[HOST, (SCHEME, "https")], "https://10.0.0.1:8080/whip/demo/1");
        check(None, true, &[HOST, PROTO], "https://10.0.0.1:8080/whip/demo/1");
        check(None, true, &[HOST, PROTO, ("x-forwarded-host", "b.example")], "https://b.example/whip/demo/1");
        let prefix = ("x-forwarded-prefix", "/tv/");
        check(None, true, &[PROTO, ("x-forwarded-host", "b.example"), prefix], "https://b.example/tv/whip/demo/1");
        check(None, true, &[HOST, ("x-forwarded-prefix", "//evil.example")], "http://10.0.0.1:8080/whip/demo/1");
        let forwarded = ("forwarded", "for=1.2.3.4;Proto=HTTPS;host=\"c.example:8443\", for=5.6.7.8");
        check(None, true, &[HOST, forwarded], "https://c.example:8443/whip/demo/1");
        check(None, false, &[("host", "d.example"), ("origin", "https://d.example")], "https://d.example/whip/demo/1");
        check(None, false, &[("host", "d.example"), ("origin", "https://e.example")], "http://d.example/whip/demo/1");
        check(None, false, &[("host", "d.example/x")], "/whip/demo/1");
        check(None, true, &[("x-forwarded-host", "a b")], "/whip/demo/1");
        check(None, false, &[], "/whip/demo/1");
    }

    #[test]
    fn ids_and_tags() {
        assert_eq!(session_id([0xab; ID_BYTES]), "ab".repeat(16));
        assert_eq!(etag("Yg/l"), "\"Yg/l\"");
        assert!(is_type(Some("application/sdp;x=y"), SDP) && !is_type(Some("text/plain"), SDP) && !is_type(None, SDP));
    }
}
