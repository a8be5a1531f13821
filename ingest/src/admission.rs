//! Who may publish, and under which public name: asked once a publisher, with a deadline.

use std::{borrow::Cow, future::Future, net::IpAddr, pin::Pin};

use media_core::{StreamKey, StreamName};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Rtmp,
    Whip,
    Srt,
}

/// What a publisher showed. The key is the only secret in it, and prints as `StreamKey(..)`.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    pub protocol: Protocol,
    pub peer: IpAddr,
    /// RTMP's application: what stands between the host and the key. WHIP and SRT have none.
    pub app: String,
    pub key: StreamKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stream's public name, which is never the key.
    Allow { stream: StreamName },
    /// In words for the publisher. They must not repeat the key.
    Deny { reason: Cow<'static, str> },
}

/// A verdict on its way.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Implemented by whoever knows the keys: a configuration now, a control plane later. The asker
/// drops the answer when it takes too long, so it must be safe to cancel.
pub trait Admission: Send + Sync {
    fn admit(&self, request: PublishRequest) -> Answer<'_>;
}
