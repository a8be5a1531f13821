//! What can be wrong with a configuration, told so that the reader knows which line to change.
//!
//! No variant holds a stream key, and none quotes a line of the file: a key may stand in it.

use std::{fmt, path::PathBuf};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The embedded reference: a default.
    Reference,
    File {
        path: PathBuf,
        line: usize,
    },
    /// The name of the variable.
    Environment(String),
    /// The flag as it is typed.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference => f.write_str("in the embedded reference"),
            Self::File { path, line } => write!(f, "in {} line {line}", path.display()),
            Self::Environment(name) => write!(f, "in the environment ({name})"),
            Self::Flag(flag) => write!(f, "given by {flag}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the configuration file {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{place} is not TOML: {problem}")]
    Syntax { place: Place, problem: String },
    #[error("unknown key `{key}` {place}: did you mean `{nearest}`?")]
    UnknownKey { key: String, place: Place, nearest: String },
    #[error("unknown variable {name} in the environment: did you mean {nearest}?")]
    UnknownVariable { name: String, nearest: String },
    #[error("`{key}` {place} {problem}")]
    Value { key: String, place: Place, problem: String },
}
