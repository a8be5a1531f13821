//! A synthetic clip, coded by ffmpeg at run time, so that no media lies in the repository.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use timed_publisher::picture::Size;

/// One clip's worth: a moving test picture with noise that makes the encoder use its rate, a tone.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub size: Size,
    pub fps: u32,
    pub gop_frames: u32,
    pub kbps: u32,
    pub seconds: u32,
    pub bframes: u32,
}

/// A folder of this process, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("codecast-load-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes the clip as FLV.
pub fn make(recipe: &Recipe, to: &Path) -> Result<()> {
    let Recipe { size, fps, gop_frames, kbps, seconds, bframes } = recipe;
    let video = format!("testsrc2=s={size}:r={fps},noise=alls=12:allf=t");
    let (rate, gop) = (format!("{kbps}k"), gop_frames.to_string());
    let status = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &video])
        .args(["-f", "lavfi", "-i", "sine=f=468.75:r=48000", "-t", &seconds.to_string()])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", &bframes.to_string()])
        .args(["-g", &gop, "-keyint_min", &gop, "-sc_threshold", "0", "-b:v", &rate, "-minrate", &rate, "-maxrate", &rate])
        .args(["-bufsize", &rate, "-x264-params", "nal-hrd=cbr", "-c:a", "aac", "-b:a", "128k", "-ac", "2", "-f", "flv"])
        .arg(to)
        .status()
        .context("ffmpeg does not start")?;
    if !status.success() {
        bail!("ffmpeg could not make the clip: {status}");
    }
    Ok(())
}
