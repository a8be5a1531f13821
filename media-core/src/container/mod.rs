//! Containers that Samples come in and go out.

pub mod fmp4;
