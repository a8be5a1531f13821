//! What a child costs, as the system counts it.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Between two looks: a GOP of most sources, whose keyframe costs more than the rest.
const SPAN: Duration = Duration::from_secs(4);
/// Linux counts processor time in hundredths of a second for whoever asks, on every machine (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Default)]
pub struct Usage {
    last: Option<(Instant, u64)>,
}

impl Usage {
    /// Thousandths of a core that a process used since the last look, once a span has passed; nothing where the system does
    /// not tell.
    pub fn look(&mut self, process: Option<u32>, now: Instant) -> Option<f64> {
        let due = self.last.is_none_or(|(at, _)| now.saturating_duration_since(at) >= SPAN);
        let ticks = due.then(|| ticks(&fs::read_to_string(format!("/proc/{}/stat", process?)).ok()?)).flatten()?;
        let (at, before) = self.last.replace((now, ticks))?;
        let used = ticks.saturating_sub(before) as f64 / TICKS_PER_SECOND;
        Some(used * 1000.0 / now.saturating_duration_since(at).as_secs_f64())
    }
}

/// utime and stime of proc_pid_stat(5). The name before them is in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "4711 (a) b) S 1 4711 4711 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 7 0 100 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("4711 (cut"), None);
    }

    #[test]
    fn this_process_costs_something() {
        let (mut usage, start) = (Usage::default(), Instant::now());
        assert_eq!(usage.look(Some(std::process::id()), start), None);
        assert_eq!(usage.look(Some(std::process::id()), start + SPAN / 2), None, "too soon");
        assert!(usage.look(Some(std::process::id()), start + SPAN).is_some());
    }
}
