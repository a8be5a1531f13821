//! What is kept of streams in the data directory, one small file each: read at the start, written while they live.
//!
//! A file is written whole or not at all. One writer serves all streams, off the road of the media: a slow or full
//! disk delays no stream, and is counted and told once. A damaged file is told, put aside, and nothing else is lost.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use media_core::StreamName;
use packager::hls::{Inbox, Keep, kept::Kept};
use prometheus::{IntCounterVec, Opts, Registry};
use tracing::{debug, info, warn};

use crate::keys::write_whole;

const FOLDER: &str = "streams";
const ENDING: &str = ".json";
/// What cannot be read is kept under this ending, for whoever wants to look at it.
const ASIDE: &str = ".damaged";
/// A file of ours has less than one kilobyte.
const BYTES_MAX: u64 = 16 << 10;
/// Files looked at: more streams than any server carries.
const FILES_MAX: usize = 16_384;

/// The folder of the files.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Self { path })
    }

    /// All that is readable. What is not is told and put aside: its stream starts anew.
    pub fn read(&self) -> Vec<(StreamName, Kept)> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) => {
                warn!("cannot read {}, so no stream goes on from before: {e}", self.path.display());
                return Vec::new();
            }
        };
        let files = entries.filter_map(Result::ok).map(|entry| entry.path()).take(FILES_MAX);
        files.filter_map(|file| self.read_file(&file)).collect()
    }

    fn read_file(&self, file: &Path) -> Option<(StreamName, Kept)> {
        let name = file.file_name()?.to_str()?;
        if name.starts_with('.') {
            // Unfinished when an earlier process ended; the data directory is ours alone.
            let _ = fs::remove_file(file);
            return None;
        }
        let stream = StreamName::parse(name.strip_suffix(ENDING)?).ok()?;
        match read_kept(file) {
            Ok(kept) => Some((stream, kept)),
            Err(problem) => {
                let aside = self.path.join(format!("{name}{ASIDE}"));
                let put = if fs::rename(file, &aside).is_ok() { &aside } else { file };
                warn!(%stream, file = %put.display(), "cannot go on from before, so the stream starts anew: {problem:#}");
                None
            }
        }
    }

    fn write(&self, keep: &Keep) -> io::Result<()> {
        let file = self.path.join(format!("{}{ENDING}", keep.stream.as_str()));
        match &keep.kept {
            Some(kept) => write_whole(&file, kept.render().as_bytes()),
            None => match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            },
        }
    }
}

fn read_kept(file: &Path) -> anyhow::Result<Kept> {
    if fs::metadata(file)?.len() > BYTES_MAX {
        anyhow::bail!("it is larger than any file of ours");
    }
    Ok(Kept::parse(&fs::read_to_string(file)?)?)
}

/// Writes what comes, one after the other, for as long as the process lives.
pub fn write(folder: Folder, inbox: Inbox, registry: &Registry) -> anyhow::Result<()> {
    let writes = Writes::new(registry)?;
    let folder = Arc::new(folder);
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            let keep = inbox.next().await;
            let stream = keep.stream.clone();
            let folder = Arc::clone(&folder);
            let written =
                tokio::task::spawn_blocking(move || folder.write(&keep)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
            let overtaken = inbox.written();
            writes.count(written.is_ok(), overtaken);
            match &written {
                Err(e) if !failing => {
                    warn!(%stream, "cannot keep where streams are, so that they would start anew after a crash: {e}")
                }
                Err(e) => debug!(%stream, "cannot keep where the stream is: {e}"),
                Ok(()) if failing => info!("where streams are is kept again"),
                Ok(()) => {}
            }
            failing = written.is_err();
        }
    });
    Ok(())
}

struct Writes(IntCounterVec);

impl Writes {
    fn new(registry: &Registry) -> anyhow::Result<Self> {
        let help = "Writes of what a stream goes on with after a crash, by outcome; overtaken ones never reached the disk.";
        let writes = IntCounterVec::new(Opts::new("codecast_kept_writes_total", help), &["outcome"])?;
        registry.register(Box::new(writes.clone()))?;
        for outcome in ["written", "failed", "overtaken"] {
            writes.with_label_values(&[outcome]);
        }
        Ok(Self(writes))
    }

    fn count(&self, written: bool, overtaken: u64) {
        self.0.with_label_values(&[if written { "written" } else { "failed" }]).inc();
        self.0.with_label_values(&["overtaken"]).inc_by(overtaken);
    }
}
