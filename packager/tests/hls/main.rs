//! The packager from outside: what a scripted publisher sends, read back as a player reads it.

mod reader;
mod script;
mod segmenter;
