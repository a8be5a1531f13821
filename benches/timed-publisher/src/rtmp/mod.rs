//! The client side of RTMP, as far as a publisher needs it: where to send, and what went wrong.
//!
//! Its chunks and commands are its own, not those of `ingest`: a load tool that shares the
//! server's code would share its mistakes and never show them.

pub mod amf0;
pub mod chunk;
mod conn;

pub use conn::Connection;

/// Bytes of a stream key or an application name: beyond, it is a mistake of the caller.
const NAME_BYTES_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, or ended it, in its own words.
    #[error("refused: {code}: {description}")]
    Refused { code: String, description: String },
    #[error("the server closed the connection")]
    Closed,
    #[error("no answer within {0} s: {1}")]
    Silent(u64, &'static str),
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("not RTMP: {0}")]
    Protocol(&'static str),
}

/// Where to publish: `rtmp://host[:port]/app`, and the key.
#[derive(Clone, PartialEq)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    pub app: String,
    pub url: String,
    key: String,
}

impl Target {
    pub fn new(url: &str, key: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("rtmp://").ok_or("the address begins with rtmp://")?;
        let (host, app) = rest.split_once('/').ok_or("the address names an application: rtmp://host:port/live")?;
        let app = app.trim_end_matches('/');
        if host.is_empty() || app.is_empty() || key.is_empty() || app.len() > NAME_BYTES_MAX || key.len() > NAME_BYTES_MAX {
            return Err("host, application and key: none empty, none longer than 1024 bytes".into());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.into() } else { format!("{host}:1935") };
        Ok(Self { address, app: app.into(), url: format!("rtmp://{host}/{app}"), key: key.into() })
    }

    /// The secret, to be sent and never shown.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}, ..)", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |url, expected: Option<(&str, &str)>| {
            let target = Target::new(url, "secret").ok();
            assert_eq!(target.as_ref().map(|t| (t.address.as_str(), t.app.as_str())), expected, "{url}");
            assert!(!format!("{target:?}").contains("secret"));
        };
        check("rtmp://127.0.0.1:1936/live", Some(("127.0.0.1:1936", "live")));
        check("rtmp://host/live/", Some(("host:1935", "live")));
        check("rtmp://[::1]:1935/app/inst", Some(("[::1]:1935", "app/inst")));
        check("rtmp://host", None);
        check("http://host/live", None);
    }
}
