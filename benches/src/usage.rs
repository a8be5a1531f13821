//! What a process has used, from /proc.

/// Ticks a second in /proc: USER_HZ, 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all threads so far.
    pub cpu_seconds: f64,
    pub resident_mib: f64,
    /// Voluntary and involuntary, of all threads alive.
    pub context_switches: u64,
}

/// `pid` may be `self`. `None` where there is no such process.
pub fn of(pid: &str) -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let status = read("status")?;
    let resident_kib: f64 = field(&status, "VmRSS:")?;
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let switches =
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok()).map(|status| {
            let of = |name| field::<u64>(&status, name).unwrap_or(0);
            of("voluntary_ctxt_switches:") + of("nonvoluntary_ctxt_switches:")
        });
    Some(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        resident_mib: resident_kib / 1024.0,
        context_switches: switches.sum(),
    })
}

fn field<T: std::str::FromStr>(status: &str, name: &str) -> Option<T> {
    status.lines().find(|line| line.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_this_process() {
        let usage = super::of("self").unwrap();
        assert!(usage.resident_mib > 0.5 && usage.context_switches > 0);
        assert!(super::of("0").is_none());
    }
}
