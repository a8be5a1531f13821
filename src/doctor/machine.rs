//! What the machine gives: descriptors, buffers, disk, clock, memory, cores.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};

use super::finding::Finding;
use crate::{config::Config, keys, system};

/// Less than this much free is soon none: a core dump, a log.
const DISK_LOW: u64 = 200 << 20;
const DISK_NONE: u64 = 10 << 20;
const INODES_LOW: u64 = 1000;
/// A server with one stream has some 60 MiB, and its transcoder 150.
const MEMORY_LOW: u64 = 256 << 20;
/// How long two clocks are compared, and how far apart they may go: slewing is at most 0.05 %, a busy machine's delays more.
const CLOCK_WATCH: Duration = Duration::from_millis(200);
const CLOCK_APART: Duration = Duration::from_millis(50);

pub fn look(config: &Config, data_dir: &Path) -> Vec<Finding> {
    let limit = getrlimit(Resource::Nofile).maximum;
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok();
    let mut findings = vec![
        descriptors(limit, system::descriptors_needed(config)),
        buffers(sysctl("rmem_max"), sysctl("wmem_max"), transport::SOCKET_BUFFER_BYTES as u64),
    ];
    findings.extend(disk(data_dir));
    findings.push(synchronised(ntp()));
    findings.push(clock_sanity());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    findings.push(memory_and_cores(available_memory(), cores));
    findings
}

fn descriptors(limit: Option<u64>, needed: usize) -> Finding {
    let text = |limit| format!("this process may open {limit} files, and all that is configured would need {needed}");
    match limit {
        Some(limit) if limit < needed as u64 => Finding::warning(
            "files",
            text(limit.to_string()),
            "Raise it (ulimit -n, LimitNOFILE= of systemd, ulimits of compose), or lower http.connections_max or webrtc.sessions_max",
        ),
        Some(limit) => Finding::ok("files", text(limit.to_string())),
        None => Finding::ok("files", text("any number of".to_owned())),
    }
}

fn buffers(receive: Option<u64>, send: Option<u64>, wanted: u64) -> Finding {
    let (Some(receive), Some(send)) = (receive, send) else {
        return Finding::ok("buffers", "the kernel does not tell how large a UDP socket's buffers may be");
    };
    let text = format!("UDP sockets may buffer {receive} bytes in and {send} out; {wanted} are asked for");
    if receive.min(send) >= wanted {
        return Finding::ok("buffers", text);
    }
    let advice = format!(
        "With many viewers packets are lost in bursts: sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}, and the same in \
         /etc/sysctl.d to keep it"
    );
    Finding::warning("buffers", text, advice)
}

fn disk(data_dir: &Path) -> Vec<Finding> {
    let shown = data_dir.display();
    // Where it is not there yet, what it will lie in counts.
    let Some(folder) =
        data_dir.ancestors().find(|folder| folder.exists() && !folder.as_os_str().is_empty()).or(Some(Path::new(".")))
    else {
        return Vec::new();
    };
    let trial = folder.join(".codecast-doctor");
    let written = keys::write_whole(&trial, b"written by codecast doctor, and of no use\n");
    let _ = fs::remove_file(&trial);
    let writable = match written {
        Ok(()) if folder == data_dir => Finding::ok("data", format!("the data directory {shown} can be written")),
        Ok(()) => Finding::ok("data", format!("the data directory {shown} is not there yet, and can be made")),
        Err(e) => Finding::fault(
            "data",
            format!("the data directory {shown} cannot be written: {e}"),
            "Give it to the user that runs codecast, or choose another with --data-dir",
        ),
    };
    let space = match statvfs(folder) {
        Ok(disk) => space(disk.f_bavail * disk.f_frsize, (disk.f_files > 0).then_some(disk.f_favail)),
        Err(e) => Finding::warning("disk", format!("how much of the disk is free is not told: {e}"), "Look with df"),
    };
    vec![writable, space]
}

/// Bytes, and inodes where the file system counts them.
fn space(bytes: u64, inodes: Option<u64>) -> Finding {
    let text = match inodes {
        Some(inodes) => format!("{} MiB and {inodes} inodes are free for the data directory", bytes >> 20),
        None => format!("{} MiB are free for the data directory", bytes >> 20),
    };
    let advice = "What survives a crash, and certificates, are kept there: make room";
    if bytes < DISK_NONE || inodes == Some(0) {
        return Finding::fault("disk", text, advice);
    }
    if bytes < DISK_LOW || inodes.is_some_and(|inodes| inodes < INODES_LOW) {
        return Finding::warning("disk", text, advice);
    }
    Finding::ok("disk", text)
}

/// Whether something sets the clock; `None` where nothing tells.
fn synchronised(by: Option<bool>) -> Finding {
    match by {
        Some(true) => Finding::ok("clock", "the clock is synchronised"),
        Some(false) => Finding::warning(
            "clock",
            "the clock is not synchronised",
            "Players measure their delay by it, and certificates end by it: install chrony or systemd-timesyncd",
        ),
        None => Finding::ok(
            "clock",
            "whether the clock is synchronised is not told here; in a container the machine outside sees to it",
        ),
    }
}

/// The kernel's own flag, as systemd and chrony pass it on.
fn ntp() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let asked = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match asked("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).as_deref() {
        Some("yes") => Some(true),
        Some("no") => Some(false),
        _ => asked("chronyc", &["-n", "tracking"]).map(|told| told.contains("Leap status     : Normal")),
    }
}

fn clock_sanity() -> Finding {
    let built = std::env::current_exe().and_then(|exe| exe.metadata()?.modified()).ok();
    let (monotonic, wall) = (Instant::now(), SystemTime::now());
    std::thread::sleep(CLOCK_WATCH);
    let (monotonic, now) = (monotonic.elapsed(), SystemTime::now());
    clock(monotonic, now.duration_since(wall).ok(), built, now)
}

fn clock(monotonic: Duration, wall: Option<Duration>, built: Option<SystemTime>, now: SystemTime) -> Finding {
    if let Some(built) = built
        && now < built
    {
        return Finding::fault(
            "clock",
            "the clock is behind: this program was written to the disk later than now",
            "Set the clock: no certificate holds with a wrong one",
        );
    }
    match wall {
        Some(wall) if wall.abs_diff(monotonic) <= CLOCK_APART => Finding::ok("clock", "the clock runs evenly"),
        _ => Finding::warning(
            "clock",
            format!("the clock was set while it was watched: {wall:?} passed by it, and {monotonic:?} in truth"),
            "Only one program may set it; a virtual machine's tools and chrony fight at times",
        ),
    }
}

fn memory_and_cores(memory: Option<u64>, cores: usize) -> Finding {
    let told = memory.map_or("an unknown amount of".to_owned(), |memory| format!("{} MiB of", memory >> 20));
    let text = format!("{told} memory may be used, and {cores} cores");
    if memory.is_some_and(|memory| memory < MEMORY_LOW) {
        return Finding::warning(
            "memory",
            text,
            "A stream that is transcoded needs some 250 MiB: stop something, or give it more",
        );
    }
    if cores < 2 {
        let advice = "Where a stream is transcoded, that takes one for itself: send without B-frames and by WHIP";
        return Finding::warning("memory", text, advice);
    }
    Finding::ok("memory", text)
}

/// What is left of the machine's, or of the control group's where that is less.
fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let number = |file: &str| -> io::Result<Option<u64>> { Ok(fs::read_to_string(file)?.trim().parse().ok()) };
    let limit = number("/sys/fs/cgroup/memory.max").ok().flatten();
    let used = number("/sys/fs/cgroup/memory.current").ok().flatten();
    let group = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    [machine, group].into_iter().flatten().min()
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    const MIB: u64 = 1 << 20;

    #[test]
    fn limits_are_held_against_what_is_configured() {
        let check = |finding: Finding, expected| assert_eq!(finding.verdict, expected, "{finding:?}");
        check(descriptors(Some(1024), 11_000), Verdict::Warning);
        check(descriptors(Some(11_000), 11_000), Verdict::Ok);
        check(descriptors(None, 11_000), Verdict::Ok);
        check(buffers(Some(212_992), Some(8 * MIB), 4 * MIB), Verdict::Warning);
        check(buffers(Some(4 * MIB), Some(4 * MIB), 4 * MIB), Verdict::Ok);
        check(buffers(None, Some(1), 4 * MIB), Verdict::Ok);
        check(space(DISK_LOW, Some(INODES_LOW)), Verdict::Ok);
        check(space(DISK_LOW - 1, None), Verdict::Warning);
        check(space(1 << 40, Some(5)), Verdict::Warning);
        check(space(1 << 40, Some(0)), Verdict::Fault);
        check(space(5 * MIB, Some(100_000)), Verdict::Fault);
        check(memory_and_cores(Some(4096 * MIB), 2), Verdict::Ok);
        check(memory_and_cores(Some(100 * MIB), 2), Verdict::Warning);
        check(memory_and_cores(None, 1), Verdict::Warning);
    }

    #[test]
    fn clocks_are_compared() {
        let (ms, now) = (Duration::from_millis, SystemTime::now());
        let check = |wall, built, expected| assert_eq!(clock(ms(200), wall, built, now).verdict, expected, "{wall:?}");
        check(Some(ms(201)), Some(now - ms(9)), Verdict::Ok);
        check(Some(ms(900)), None, Verdict::Warning);
        check(None, None, Verdict::Warning);
        check(Some(ms(200)), Some(now + ms(9)), Verdict::Fault);
        assert_eq!(synchronised(Some(true)).verdict, Verdict::Ok);
        assert_eq!(synchronised(Some(false)).verdict, Verdict::Warning);
        assert_eq!(synchronised(None).verdict, Verdict::Ok);
    }

    #[test]
    fn what_memory_is_left_is_read() {
        assert_eq!(available("MemTotal:  8 kB\nMemAvailable:      1024 kB\nx: 1\n"), Some(MIB));
        assert_eq!(available("MemTotal:  8 kB\n"), None);
    }
}
