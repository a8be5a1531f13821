//! `codecast`: a media server for live coding, one process, one command.
//!
//! The command line (`cli.rs`) makes a configuration (`config/`); `serve.rs` is the only place where
//! the parts meet: publishers come in by `ingest`, live in `media-core`'s registry, are packaged by
//! `packager`, and viewers are answered by `http/`.

mod admission;
mod cli;
mod config;
mod doctor;
mod greeting;
mod http;
mod kept;
mod keys;
mod log;
mod metrics;
mod serve;
mod srt;
mod system;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
