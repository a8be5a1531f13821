//! Media as RTP: packets to access units and back, what is asked of the sender, and what it is told.
//!
//! ```text
//! publisher: packet -> window (order, NACK) -> depacketiser -> receiver (keyframes, clocks) -> Frame
//! viewer:    access unit -> h264::packetize -> RTP payloads
//! RTCP:      rtcp::parse in; Arrivals, Remb and Receiver::report out
//! ```
//!
//! Pure: `now` and bytes come in. Headers are read and sealed outside, by SSRC and session.

pub mod fuzz;
pub mod h264;
pub mod opus;
pub mod rtcp;

mod av1;
mod depacketize;
mod draft;
mod feedback;
mod hevc;
mod receiver;
mod reception;
mod remb;
mod transport_cc;
mod unwrap;
mod window;

pub use feedback::TransportFeedback;
pub use receiver::{Codec, Feedback, Frame, Receiver, Stats};
pub use remb::Remb;
pub use transport_cc::Arrivals;
