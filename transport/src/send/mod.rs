//! Media out: frames packetised once a track, sealed for each viewer.

mod bandwidth;
mod estimate;
mod feeds;
mod history;
mod numbers;
mod pace;
mod probe;
mod sender;

#[cfg(test)]
mod tests;

pub use bandwidth::Bandwidth;
pub(crate) use feeds::{Feeds, Histories, Shared, TrackKey};
pub(crate) use history::History;
pub use history::OutFrame;
pub use numbers::Numbers;
pub(crate) use sender::{Burst, PlayoutDelay, Progress, Sender, SenderConfig, Way};
