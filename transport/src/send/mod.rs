//! Media out: frames packetised once a track, sealed for each viewer.

mod history;
mod sender;

#[cfg(test)]
mod tests;

pub(crate) use history::History;
pub use history::OutFrame;
pub(crate) use sender::{Burst, Progress, Sender, SenderConfig};
