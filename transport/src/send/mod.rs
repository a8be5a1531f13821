//! Media out: frames packetised once a track, sealed for each viewer.

mod feeds;
mod history;
mod sender;

#[cfg(test)]
mod tests;

pub(crate) use feeds::{Feeds, Histories, Shared, TrackKey};
pub(crate) use history::History;
pub use history::OutFrame;
pub(crate) use sender::{Burst, PlayoutDelay, Progress, Sender, SenderConfig};
