//! The command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Config, Layers, LogFormat, REFERENCE},
    doctor, serve,
};

/// A media server for live coding: RTMP and WHIP in, WebRTC and Low-Latency HLS out.
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
    /// Say whether what the configuration asks for works on this machine, and what to do where it does not
    Doctor(Doctor),
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

#[derive(Args)]
struct Doctor {
    /// Configuration file (TOML), as `serve` takes it
    #[arg(long, value_name = "FILE", env = "CODECAST_CONFIG")]
    config: Option<PathBuf>,
    /// Where the server would keep its state
    #[arg(long, value_name = "DIR", env = "CODECAST_DATA_DIR", default_value = "./codecast-data")]
    data_dir: PathBuf,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// The configuration cannot be used: the person who wrote it must act.
const EXIT_CONFIG: u8 = 2;

pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Config => {
            print(REFERENCE);
            ExitCode::SUCCESS
        }
        Command::Serve(args) => with(args.configuration(), |config| ended(serve::run(&args, config))),
        Command::Doctor(args) => with(layers(args.config.as_deref(), &[]), |layers| examined(&args, &layers)),
    }
}

fn with<T>(read: Result<T, config::Error>, use_it: impl FnOnce(T) -> ExitCode) -> ExitCode {
    match read {
        Ok(read) => use_it(read),
        Err(e) => {
            complain(&e.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn examined(args: &Doctor, layers: &Layers) -> ExitCode {
    with(Config::new(layers), |config| {
        let (file, data_dir) = (args.config.as_deref(), args.data_dir.clone());
        let patient = doctor::Patient { config: &config, layers, file, data_dir, json: args.json };
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) if runtime.block_on(patient.examine()) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(e) => ended(Err(e.into())),
        }
    })
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
    fn configuration(&self) -> Result<Config, config::Error> {
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
        Config::new(&layers(self.config.as_deref(), &flags)?)
    }
}

/// A flag, the key that it stands for, and its text where it was given.
type Flag<'a> = (&'static str, &'static str, Option<&'a str>);

/// Defaults < file < environment < flags.
fn layers(file: Option<&Path>, flags: &[Flag<'_>]) -> Result<Layers, config::Error> {
    let mut layers = Layers::reference();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|source| config::Error::Read { path: path.to_owned(), source })?;
        layers.file(path, &text)?;
    }
    // A variable that is not Unicode cannot be one of ours.
    layers.environment(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))?;
    for &(flag, key, text) in flags {
        if let Some(text) = text {
            layers.flag(flag, key, text)?;
        }
    }
    Ok(layers)
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
