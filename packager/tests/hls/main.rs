//! The packager from outside: what a scripted publisher sends, read back as a player reads it.

#![expect(clippy::unwrap_used, reason = "in a test a failed step is the failure")]

mod changes;
mod codecs;
mod constant;
mod http;
mod playlist;
mod presentation;
mod reader;
mod resume;
mod rungs;
mod script;
mod segmenter;
mod sound;
mod tracks;
mod webrtc;
