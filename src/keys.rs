//! The generated stream key: made at the first start, kept in the data directory.
//!
//! The file is written whole or not at all, and a damaged one is an error: a key that silently
//! changed would lock its streamer out.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use media_core::{StreamKey, StreamName};
use serde::{Deserialize, Serialize};

use crate::config::Credential;

const FILE: &str = "stream-key.json";
const LOCK: &str = "lock";
/// The stream of a server that was not told of any.
const FIRST_STREAM: &str = "demo";

/// Digits and letters without those that people take for each other (0 O, 1 I l).
const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 24 of 57 characters are 140 bits: beyond guessing.
const KEY_CHARACTERS: usize = 24;

/// The directory of all that this server keeps, held by this process alone.
pub struct DataDir {
    path: PathBuf,
    /// Unlocked by the system when the process ends, however it ends.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    stream: String,
    key: String,
}

impl DataDir {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let told = || format!("cannot use the data directory {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(told)?;
        let lock = private().write(true).create(true).truncate(false).open(path.join(LOCK)).with_context(told)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("the data directory {} is in use by another codecast: choose another with --data-dir", path.display())
            }
            // Some network file systems have no locks; one server there is still fine.
            Err(TryLockError::Error(e)) => tracing::debug!("no lock on the data directory: {e}"),
            Ok(()) => {}
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kept key, or a new one that is kept from now on.
    pub fn first_credential(&self) -> anyhow::Result<Credential> {
        let file = self.path.join(FILE);
        match fs::read_to_string(&file) {
            Ok(text) => read(&text).with_context(|| damaged(&file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let kept = Kept { stream: FIRST_STREAM.to_owned(), key: generate()? };
                let text = serde_json::to_string(&kept).context("a stream and its key always fit JSON")?;
                write_whole(&file, text.as_bytes())
                    .with_context(|| format!("cannot keep the stream key in {}", file.display()))?;
                read(&text)
            }
            Err(e) => Err(e).with_context(|| damaged(&file)),
        }
    }
}

fn damaged(file: &Path) -> String {
    format!("cannot read the stream key in {}: put the file right, or remove it to have a new key made", file.display())
}

fn read(text: &str) -> anyhow::Result<Credential> {
    // serde's own message could quote what it found, and that may be the key.
    let Ok(kept) = serde_json::from_str::<Kept>(text) else { bail!("it is not {{\"stream\": …, \"key\": …}}") };
    let stream = StreamName::parse(&kept.stream)?;
    crate::config::check_key(&kept.key).map_err(|problem| anyhow::anyhow!("its key {problem}"))?;
    if kept.key == kept.stream {
        bail!("its key is the stream's public name");
    }
    Ok(Credential { stream, key: StreamKey::new(&kept.key), ladder: None })
}

fn generate() -> anyhow::Result<String> {
    let mut key = String::with_capacity(KEY_CHARACTERS);
    while key.len() < KEY_CHARACTERS {
        let mut random = [0; KEY_CHARACTERS];
        getrandom::fill(&mut random).context("the system gives no random bytes for a stream key")?;
        key.extend(random.into_iter().filter_map(letter).take(KEY_CHARACTERS - key.len()));
    }
    Ok(key)
}

/// A letter for a random byte; none for those that would make some letters likelier.
fn letter(random: u8) -> Option<char> {
    let random = usize::from(random);
    let fair = 256 - 256 % ALPHABET.len();
    (random < fair).then(|| char::from(ALPHABET[random % ALPHABET.len()]))
}

/// Readable by the owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Writes a file that only its owner may read, so that it is there whole or not at all, even after
/// a power cut.
pub fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut out = private().write(true).create_new(true).open(&unfinished)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&unfinished, file)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder of this test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("codecast-keys-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_generated_key_is_kept_and_private() {
        let folder = Folder::new("kept");
        let data = DataDir::open(&folder.0).unwrap();
        let first = data.first_credential().unwrap();
        let again = data.first_credential().unwrap();
        assert_eq!(first.key, again.key);
        assert_eq!(first.stream.as_str(), "demo");
        assert_eq!(first.key.expose().len(), KEY_CHARACTERS);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.0), 0o700);
        assert_eq!(mode(&folder.0.join(FILE)), 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2, "nothing unfinished is left");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let folder = Folder::new("damaged");
        let data = DataDir::open(&folder.0).unwrap();
        for damaged in ["", "{", "{\"stream\":\"demo\"}", "{\"stream\":\"demo\",\"key\":\"short-secret\"}", "\u{0}\u{0}"] {
            fs::write(folder.0.join(FILE), damaged).unwrap();
            let error = format!("{:#}", data.first_credential().unwrap_err());
            assert!(error.contains("remove it to have a new key made"), "{error}");
            assert!(!error.contains("secret"), "{error}");
            assert_eq!(fs::read_to_string(folder.0.join(FILE)).unwrap(), damaged);
        }
    }

    #[test]
    fn two_processes_do_not_share_a_data_directory() {
        let folder = Folder::new("shared");
        let first = DataDir::open(&folder.0).unwrap();
        let error = DataDir::open(&folder.0).err().unwrap().to_string();
        assert!(error.contains("in use by another codecast"), "{error}");
        drop(first);
        assert!(DataDir::open(&folder.0).is_ok());
    }

    #[test]
    fn every_letter_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for letter in (0..=255).filter_map(letter) {
            *counts.entry(letter).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), ALPHABET.len());
        assert!(counts.values().all(|count| *count == 4), "{counts:?}");
    }

    #[test]
    fn no_letter_is_taken_for_another() {
        assert!(ALPHABET.iter().all(|b| !b"0O1Il".contains(b)));
    }
}
