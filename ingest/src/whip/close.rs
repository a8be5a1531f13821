//! Why a session that was begun ended: the words for the log and the label for the metric.

use media_core::registry::Stop;
use transport::Closed;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CloseReason {
    /// DELETE: the orderly end.
    #[error("the publisher stopped")]
    Deleted,
    #[error("{0}")]
    Transport(Closed),
    #[error(
        "no media connection within {0} s of the answer: UDP and TCP are blocked on the way, or the advertised address is wrong"
    )]
    NeverConnected(u64),
    #[error("a publisher with the same key took the stream over")]
    TakenOver,
    #[error("the server is shutting down")]
    Drain,
}

impl CloseReason {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Transport(closed) => closed.label(),
            Self::NeverConnected(_) => "never_connected",
            Self::TakenOver => "taken_over",
            Self::Drain => "drain",
        }
    }

    /// Of those that are no transport's.
    pub const LABELS: [&'static str; 4] = ["deleted", "never_connected", "taken_over", "drain"];
}

impl From<Closed> for CloseReason {
    /// The owner of a session ends without this event; so only a DELETE closes it from our side.
    fn from(closed: Closed) -> Self {
        if closed == Closed::ByUs { Self::Deleted } else { Self::Transport(closed) }
    }
}

impl From<Stop> for CloseReason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TakenOver => Self::TakenOver,
            Stop::Drain => Self::Drain,
        }
    }
}
