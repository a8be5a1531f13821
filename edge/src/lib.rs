//! Viewers out, other than by HLS from the packager: WHEP.
//!
//! It reads streams through their windows and sends by `transport`; it never parses boxes and never transcodes.

pub mod whep;
