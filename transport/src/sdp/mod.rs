//! The session descriptions of WHIP (RFC 9725) and WHEP endpoints: an offer comes in, an answer goes out.
//!
//! ```text
//! bytes -> Offer::parse -> negotiate(&offer, &wants) -> Negotiated::answer(&local) -> text
//!                     \                \
//!                      Refusal          Refusal: a sentence for the encoder's user, and an HTTP status
//! ```
//!
//! Pure text work: no socket, clock or randomness. The answer is that of an ICE-lite agent with one
//! BUNDLE transport. Candidates of the peer are not read: a lite agent learns addresses from checks.
//! The line grammar of a description is `rtc-sdp`'s, behind our limits on size; a fragment
//! (`application/trickle-ice-sdpfrag`) has no `v=` line, so `fragment` reads its few lines itself.

mod answer;
mod codec;
mod fragment;
pub mod fuzz;
mod media;
mod negotiate;
mod offer;
mod refusal;
#[cfg(test)]
mod tests;
mod transport;

pub use answer::{Candidate, Local, Protocol};
pub use codec::{Codec, Feedback, OfferedCodec, Profile};
pub use fragment::Fragment;
pub use media::{Direction, Extensions, Kind, OfferedMedia, OfferedSsrc, RIDS_MAX};
pub use negotiate::{Accepted, Media, Negotiated, Remote, SendVideo, Sending, Source, Wants, negotiate};
pub use offer::{BYTES_MAX, Offer};
pub use refusal::Refusal;
pub use transport::{Fingerprint, HashAlgorithm, IceCredentials, Setup};
