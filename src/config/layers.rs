//! The layers of a configuration: defaults, file, environment, flags, the later over the earlier.
//!
//! Pure: text and variables come in. The embedded reference *is* the layer of defaults, so it can
//! neither lack a key nor show a wrong default; its keys are the valid ones and their types the
//! right ones. What a value may be is decided where it is read (`values.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use toml::de::{DeTable, DeValue};

use super::error::{Error, Place};

/// The commented reference, as `codecast config` prints it.
pub const REFERENCE: &str = include_str!("../../configs/codecast.toml");

/// What variables of the environment begin with.
const PREFIX: &str = "CODECAST_";
/// Variables that stand for a flag of the command line and are no keys of the configuration.
const FLAG_VARIABLES: [&str; 3] = ["CODECAST_CONFIG", "CODECAST_DATA_DIR", "CODECAST_READY_FILE"];
/// The keys of each `[[stream]]`. The reference shows them in comments: no stream is a default.
const STREAM: &str = "stream";
const STREAM_KEYS: [&str; 3] = ["name", "key", "ladder"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Switch(bool),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text in quotes",
            Self::Number(_) => "a whole number",
            Self::Switch(_) => "true or false",
        }
    }

    /// Text as the environment and flags give it, in the type of the default.
    fn parse_like(default: &Self, text: &str) -> Option<Self> {
        match default {
            Self::Text(_) => Some(Self::Text(text.to_owned())),
            Self::Number(_) => text.trim().parse().ok().map(Self::Number),
            Self::Switch(_) => text.trim().parse().ok().map(Self::Switch),
        }
    }
}

/// One `[[stream]]` as it stands in the file.
#[derive(Clone)]
pub struct RawStream {
    pub name: String,
    pub key: String,
    /// In place of `transcode.ladder`.
    pub ladder: Option<String>,
    pub place: Place,
}

#[derive(Clone)]
pub struct Layers {
    values: BTreeMap<String, (Value, Place)>,
    pub streams: Vec<RawStream>,
}

impl Layers {
    /// The defaults.
    pub fn reference() -> Self {
        let document = DeTable::parse(REFERENCE).expect("the embedded reference is TOML: a test reads it");
        let mut found = Vec::new();
        flatten("", document.get_ref(), &mut found);
        let values = found.into_iter().filter_map(|(key, value, _)| Some((key, (scalar(value)?, Place::Reference)))).collect();
        Self { values, streams: Vec::new() }
    }

    /// Lays a file's values over what is there.
    pub fn file(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let place = |at: usize| Place::File { path: path.to_owned(), line: line_of(text, at) };
        let document = DeTable::parse(text).map_err(|e| Error::Syntax {
            place: place(e.span().map_or(0, |span| span.start)),
            problem: e.message().to_owned(),
        })?;
        let mut found = Vec::new();
        flatten("", document.get_ref(), &mut found);
        // In the file's order, so that the first mistake of the file is the one told.
        found.sort_by_key(|(_, _, at)| *at);
        for (key, value, at) in found {
            if key == STREAM {
                self.streams = streams(value, &place, at)?;
                continue;
            }
            let Some((default, _)) = self.values.get(&key) else {
                if known_section(&key) {
                    let problem = format!("is a section: write [{key}] on a line of its own and its keys below");
                    return Err(Error::Value { key, place: place(at), problem });
                }
                return Err(Error::UnknownKey { nearest: self.nearest(&key), key, place: place(at) });
            };
            let value = scalar(value).filter(|value| value.kind() == default.kind()).ok_or_else(|| Error::Value {
                key: key.clone(),
                place: place(at),
                problem: format!("must be {}", default.kind()),
            })?;
            self.values.insert(key, (value, place(at)));
        }
        Ok(())
    }

    /// Lays `CODECAST_<SECTION>_<KEY>` over what is there. Other variables are none of ours.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<(), Error> {
        let keys: BTreeMap<String, String> = self.values.keys().map(|key| (variable(key), key.clone())).collect();
        let ours: BTreeMap<_, _> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        for (name, text) in ours {
            if FLAG_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let Some(key) = keys.get(&name) else {
                let valid = keys.keys().map(String::as_str).chain(FLAG_VARIABLES);
                return Err(Error::UnknownVariable { nearest: nearest(&name, valid).to_owned(), name });
            };
            self.lay(key, &text, Place::Environment(name))?;
        }
        Ok(())
    }

    /// Lays what a flag of the command line says over what is there.
    pub fn flag(&mut self, flag: &'static str, key: &str, text: &str) -> Result<(), Error> {
        self.lay(key, text, Place::Flag(flag))
    }

    fn lay(&mut self, key: &str, text: &str, place: Place) -> Result<(), Error> {
        let (default, _) = &self.values[key];
        let value = Value::parse_like(default, text).ok_or_else(|| Error::Value {
            key: key.to_owned(),
            place: place.clone(),
            problem: format!("must be {}", default.kind()),
        })?;
        self.values.insert(key.to_owned(), (value, place));
        Ok(())
    }

    /// The value of a key and where it was given. Every key of the reference has one.
    pub fn value(&self, key: &str) -> Option<&(Value, Place)> {
        self.values.get(key)
    }

    /// What differs from the defaults, and where it was said; no values, since some are secrets.
    pub fn changed(&self) -> Vec<String> {
        let reference = Self::reference();
        let differs = |key: &str, value: &Value| reference.value(key).is_none_or(|(default, _)| default != value);
        let keys = self.values.iter().filter(|(key, (value, _))| differs(key, value));
        let streams = (!self.streams.is_empty()).then(|| format!("{} streams", self.streams.len()));
        keys.map(|(key, (_, place))| format!("{key} ({place})")).chain(streams).collect()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn nearest(&self, key: &str) -> String {
        let sections: BTreeSet<&str> = self.keys().filter_map(|key| Some(key.split_once('.')?.0)).collect();
        nearest(key, self.keys().chain(sections).chain([STREAM])).to_owned()
    }
}

/// The variable of the environment that stands for a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

type Found<'a> = (String, &'a DeValue<'a>, usize);

/// Every value under its dotted key, and where the key stands. An empty section counts as a value,
/// so that an unknown one is noticed.
fn flatten<'a>(prefix: &str, table: &'a DeTable<'a>, found: &mut Vec<Found<'a>>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() && key != STREAM => flatten(&key, inner, found),
            DeValue::Table(_) if known_section(&key) => {}
            value => found.push((key, value, name.span().start)),
        }
    }
}

/// Whether the reference has such a section; an empty one in a file changes nothing.
fn known_section(name: &str) -> bool {
    REFERENCE.lines().any(|line| line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name))
}

fn scalar(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Boolean(switch) => Some(Value::Switch(*switch)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Number),
        _ => None,
    }
}

fn streams(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place, at: usize) -> Result<Vec<RawStream>, Error> {
    let wrong = |at| Error::Value {
        key: STREAM.to_owned(),
        place: place(at),
        problem: "must be written as [[stream]] with `name` and `key` below it".to_owned(),
    };
    let list = value.as_array().ok_or_else(|| wrong(at))?;
    list.iter().map(|entry| stream(entry.get_ref().as_table().ok_or_else(|| wrong(at))?, place, entry.span().start)).collect()
}

fn stream(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place, at: usize) -> Result<RawStream, Error> {
    if let Some((unknown, _)) = table.iter().find(|(name, _)| !STREAM_KEYS.contains(&name.get_ref().as_ref())) {
        return Err(Error::UnknownKey {
            key: format!("{STREAM}.{}", unknown.get_ref()),
            place: place(unknown.span().start),
            nearest: format!("{STREAM}.{}", nearest(unknown.get_ref(), STREAM_KEYS)),
        });
    }
    let problem = |key: &str, at, problem: &str| {
        let (key, problem) = (format!("{STREAM}.{key}"), problem.to_owned());
        Error::Value { key, place: place(at), problem }
    };
    let optional = |key: &str| {
        let Some(value) = table.get(key) else { return Ok(None) };
        let text = value.get_ref().as_str().ok_or_else(|| problem(key, value.span().start, "must be text in quotes"))?;
        Ok::<_, Error>(Some(text.to_owned()))
    };
    let text = |key: &str| optional(key)?.ok_or_else(|| problem(key, at, "is missing: each [[stream]] has a `name` and a `key`"));
    Ok(RawStream { name: text("name")?, key: text("key")?, ladder: optional("ladder")?, place: place(at) })
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The valid word that is the fewest edits away.
fn nearest<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> &'a str {
    let wrong = wrong.to_lowercase();
    valid
        .into_iter()
        .min_by_key(|valid| strsim::damerau_levenshtein(&wrong, &valid.to_lowercase()))
        .expect("there is always a valid key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Layers, String> {
        let mut layers = Layers::reference();
        layers.file(Path::new("codecast.toml"), text).map_err(|e| e.to_string())?;
        Ok(layers)
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_the_way_out() {
        let check = |text: &str, expected: &str| assert_eq!(file(text).err().as_deref(), Some(expected), "{text}");
        check(
            "\n[http]\nadress = \"[::]:80\"\n",
            "unknown key `http.adress` in codecast.toml line 3: did you mean `http.address`?",
        );
        check("[htp]\n", "unknown key `htp` in codecast.toml line 1: did you mean `http`?");
        check("[rtpm]\naddress = \"[::]:1\"", "unknown key `rtpm.address` in codecast.toml line 2: did you mean `rtmp.address`?");
        check("[http]\naddress = 80", "`http.address` in codecast.toml line 2 must be text in quotes");
        check("[http]\nconnections_max = \"9\"", "`http.connections_max` in codecast.toml line 2 must be a whole number");
        check("http = 3", "`http` in codecast.toml line 1 is a section: write [http] on a line of its own and its keys below");
        check(
            "[[stream]]\nname = \"a\"\nkye = \"s3cret\"",
            "unknown key `stream.kye` in codecast.toml line 3: did you mean `stream.key`?",
        );
        check(
            "[[stream]]\nname = \"a\"",
            "`stream.key` in codecast.toml line 1 is missing: each [[stream]] has a `name` and a `key`",
        );
        check("[[stream]]\nname = \"a\"\nkey = 7", "`stream.key` in codecast.toml line 3 must be text in quotes");
        check(
            "[stream]\nname = \"a\"",
            "`stream` in codecast.toml line 1 must be written as [[stream]] with `name` and `key` below it",
        );
    }

    #[test]
    fn a_broken_file_is_refused_without_quoting_it() {
        let error = file("[[stream]]\nname = \"a\"\nkey = \"s3cret-s3cret-s3cret\n").err().unwrap();
        assert!(error.starts_with("in codecast.toml line 3 is not TOML"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn later_layers_win() {
        let mut layers =
            file("[http]\naddress = \"1.1.1.1:1\"\n[rtmp]\naddress = \"1.1.1.1:2\"\n[log]\nlevel = \"warn\"").unwrap();
        let variables =
            [("CODECAST_HTTP_ADDRESS", "2.2.2.2:1"), ("CODECAST_LOG_LEVEL", "debug"), ("HOME", "/"), ("CODECAST_CONFIG", "x")];
        layers.environment(variables.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        layers.flag("--http", "http.address", "3.3.3.3:1").unwrap();
        let text = |key: &str| match layers.value(key) {
            Some((Value::Text(text), _)) => text.clone(),
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(text("http.address"), "3.3.3.3:1");
        assert_eq!(text("rtmp.address"), "1.1.1.1:2");
        assert_eq!(text("log.level"), "debug");
        assert_eq!(text("log.format"), "text");
    }

    #[test]
    fn the_environment_is_held_to_the_same_rules() {
        let check = |name: &str, value: &str, expected: &str| {
            let error = Layers::reference().environment([(name.to_owned(), value.to_owned())]).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(
            "CODECAST_HTTP_ADRESS",
            "[::]:80",
            "unknown variable CODECAST_HTTP_ADRESS in the environment: did you mean CODECAST_HTTP_ADDRESS?",
        );
        check(
            "CODECAST_HTTP_CONNECTIONS_MAX",
            "many",
            "`http.connections_max` in the environment (CODECAST_HTTP_CONNECTIONS_MAX) must be a whole number",
        );
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let reference = Layers::reference();
        let variables: BTreeSet<String> = reference.keys().map(variable).collect();
        assert_eq!(variables.len(), reference.keys().count());
    }
}
