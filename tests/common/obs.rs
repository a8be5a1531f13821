//! OBS Studio, the real one, on a virtual screen.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Folder, Server, real::tool, within};

/// OBS draws in software, starts in 3 to 10 s, and shares two cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// OBS and its screen, both killed by their ids at the end.
pub struct Obs {
    folder: Folder,
}

impl Obs {
    /// 720p, with OBS's default settings of x264.
    pub fn start(server: &str, key: &str) -> Self {
        Self::with(server, key, "1280x720", "")
    }

    /// `encoder`: JSON that changes the encoder's settings.
    pub fn with(server: &str, key: &str, size: &str, encoder: &str) -> Self {
        let folder = Folder::new();
        let mut command = Command::new("bash");
        command.arg(tool("tools/obs/run-obs.sh")).arg(folder.path()).args([server, key, "0", encoder]);
        command.env("OBS_SIZE", size).stdout(Stdio::null());
        let status = command.status().expect("bash is there");
        assert!(status.success(), "run-obs.sh: {status}");
        Self { folder }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("obs.log")).unwrap_or_default()
    }

    /// The program and its screen, where their ids are known.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        ["obs.pid", "xvfb.pid"].into_iter().filter_map(|name| {
            let text = fs::read_to_string(self.folder.join(name)).ok()?;
            Pid::from_raw(text.trim().parse().ok()?)
        })
    }
}

impl Drop for Obs {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(60);
            eprintln!("OBS:\n{}", log.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
        for pid in self.pids() {
            // SIGKILL: what a crash and a pulled plug look like. It may have ended already.
            let _ = kill_process(pid, Signal::KILL);
            within(Duration::from_secs(10), "OBS is gone", || is_gone(pid).then_some(()));
        }
    }
}

/// No longer there, or dead and not yet collected by whoever inherits it.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{}/stat", pid.as_raw_nonzero()))).unwrap_or_default();
    test_kill_process(pid).is_err() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

/// Waits until the server has its stream.
pub fn publishing(server: &Server) {
    within(PATIENCE, "OBS publishes", || (server.metric("codecast_publishers") == 1.0).then_some(()));
}
