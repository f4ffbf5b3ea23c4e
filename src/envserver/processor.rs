//! Whether a worker that owes an answer gets the processor: what the kernel counts of it (`/proc/PID/stat`).

use std::{
    fs,
    time::{Duration, Instant},
};

/// The kernel's unit of processor time, fixed for user space.
const TICK: Duration = Duration::from_millis(10);

/// Below this share of the time that passed, a worker that wants to run is starved.
const SHARE: f64 = 0.5;

/// The processor time of a process between two looks.
#[derive(Debug)]
pub(super) struct Processor {
    process: Option<u32>,
    last: Option<(Instant, Used)>,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    time: Duration,
    /// It runs, or would if it could.
    wants: bool,
}

impl Processor {
    pub(super) fn of(process: Option<u32>) -> Self {
        Self { process, last: None }
    }

    /// Look at the process.
    pub(super) fn look(&mut self) {
        self.last = self.used().map(|used| (Instant::now(), used));
    }

    /// Whether the process has wanted the processor since the last look and got little of it.
    pub(super) fn is_starved(&self) -> bool {
        let (Some((since, before)), Some(now)) = (self.last, self.used()) else { return false };
        starved(before, now, since.elapsed())
    }

    fn used(&self) -> Option<Used> {
        parse(&fs::read_to_string(format!("/proc/{}/stat", self.process?)).ok()?)
    }
}

fn starved(before: Used, now: Used, passed: Duration) -> bool {
    let got = now.time.saturating_sub(before.time);
    now.wants && got.as_secs_f64() < SHARE * passed.as_secs_f64()
}

/// Fields 3, 14 and 15 of the line (`proc_pid_stat(5)`); the name before them may hold anything.
fn parse(line: &str) -> Option<Used> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    let time = TICK * (ticks(11)?.checked_add(ticks(12)?)?);
    Some(Used { time, wants: *fields.first()? == "R" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_name() {
        let line = "7 (a) R (b) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 10 1 0 5 1 2 3";
        assert_eq!(parse(line), Some(Used { time: Duration::from_secs(3), wants: true }));
        assert_eq!(parse("7 (a) S 1"), None);
        assert!(parse(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }

    #[test]
    fn a_worker_that_sleeps_or_computes_is_not_starved() {
        let used = |seconds, wants| Used { time: Duration::from_secs(seconds), wants };
        let passed = Duration::from_secs(10);
        assert!(starved(used(5, true), used(7, true), passed));
        assert!(!starved(used(5, true), used(5, false), passed), "it waits for something else");
        assert!(!starved(used(5, true), used(14, true), passed), "it had the processor and came to no end");
    }
}
