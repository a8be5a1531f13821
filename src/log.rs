//! The log: to the error output, a line for people or an object for machines.

use std::io::{IsTerminal, stderr};

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

pub fn start(config: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&config.level)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.format {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Text => log.with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).try_init(),
    }
    .map_err(|e| anyhow!("cannot start the log: {e}"))
}
