//! How a publisher comes by its stream's name: the registry is asked for the lease, and asked again while a publisher with the
//! same key has the name and may be gone.

use std::time::Duration;

use media_core::{
    Publication, Registry, StreamKey, StreamName,
    registry::{Acquire, Refusal},
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Span, debug};

/// How often a held request asks. Twice decides it; the rest is for a clock that rounds.
const ASK_MAX: usize = 3;

/// `grace`: for so long what the other one has sent may still be on its way, and its silence says nothing. Names the stream in
/// the span: before, an unknown name may be a key in the wrong place.
pub async fn acquire(
    registry: &Registry,
    stream: &StreamName,
    key: &StreamKey,
    grace: Option<Duration>,
) -> Result<Publication, Refusal> {
    Span::current().record("stream", stream.as_str());
    let (mut claim, mut grace) = (None, grace);
    for _ in 0..ASK_MAX + usize::from(grace.is_some()) {
        match registry.acquire(stream, key, claim, Instant::now().into_std()) {
            Acquire::Granted(publication) => return Ok(publication),
            Acquire::Refused(refusal) => return Err(refusal),
            Acquire::Held { until, claim: seen } => {
                debug!("held: a publisher with the same key has the name");
                if let Some(grace) = grace.take() {
                    sleep(grace).await;
                } else {
                    claim.get_or_insert(seen);
                    sleep_until(Instant::from_std(until)).await;
                }
            }
        }
    }
    Err(Refusal::LiveEncoder)
}
