//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Config, Layers, LogFormat, REFERENCE},
    serve,
};

/// A media server for live coding: RTMP in, Low-Latency HLS out.
#[derive(Parser)]
#[command(name = "codecast", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole server in this process
    Serve(Serve),
    /// Print the commented reference configuration: every key with its default
    Config,
}

#[derive(Args)]
pub struct Serve {
    /// Configuration file (TOML); only the keys that differ from the defaults
    #[arg(long, value_name = "FILE", env = "CODECAST_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where this server keeps its state: the generated stream key
    #[arg(long, value_name = "DIR", env = "CODECAST_DATA_DIR", default_value = "./codecast-data")]
    pub data_dir: PathBuf,
    /// Once ready, write the addresses really bound and the first stream's key there, as JSON
    #[arg(long, value_name = "FILE", env = "CODECAST_READY_FILE")]
    pub ready_file: Option<PathBuf>,
    /// Address for viewers (http.address)
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// Address for publishers (rtmp.address)
    #[arg(long, value_name = "ADDR:PORT")]
    rtmp: Option<String>,
    /// How the log is written (log.format)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// How much is logged: error, warn, info, debug, trace, or by part (log.level)
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// The configuration cannot be used: the person who wrote it must act.
const EXIT_CONFIG: u8 = 2;

pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Config => {
            print(REFERENCE);
            ExitCode::SUCCESS
        }
        Command::Serve(args) => match args.configuration() {
            Ok(config) => ended(serve::run(&args, config)),
            Err(e) => {
                complain(&e.to_string());
                ExitCode::from(EXIT_CONFIG)
            }
        },
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Serve {
    /// Defaults < file < environment < flags.
    fn configuration(&self) -> Result<Config, config::Error> {
        let mut layers = Layers::reference();
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).map_err(|source| config::Error::Read { path: path.clone(), source })?;
            layers.file(path, &text)?;
        }
        // A variable that is not Unicode cannot be one of ours.
        layers.environment(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))?;
        let format = self.log_format.map(|format| match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        });
        let flags = [
            ("--http", "http.address", self.http.as_deref()),
            ("--rtmp", "rtmp.address", self.rtmp.as_deref()),
            ("--log", "log.level", self.log.as_deref()),
            ("--log-format", "log.format", format),
        ];
        for (flag, key, text) in flags {
            if let Some(text) = text {
                layers.flag(flag, key, text)?;
            }
        }
        Config::new(&layers)
    }
}

/// To the standard output; a reader that has gone, as `head` does, is no fault of ours.
pub fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(problem: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "codecast: {problem}");
}
