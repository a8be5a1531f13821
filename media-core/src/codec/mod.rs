//! One file a codec: all that is known of it.

pub mod aac;
pub mod h264;
pub mod opus;
