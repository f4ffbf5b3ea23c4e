//! Whether the kernel kills processes here for want of memory: the counter of our own control group.
//!
//! A worker that is killed so says nothing, and its signal alone could have come from anybody.

use std::fs;

/// Where the counter stands under version 2 and version 1 of control groups, as a container sees its own.
const COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Kills so far; nothing where the kernel does not tell.
pub(super) fn kills() -> Option<u64> {
    COUNTERS.iter().find_map(|file| count(&fs::read_to_string(file).ok()?))
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(count("low 0\nhigh 3\nmax 9\noom 2\noom_kill 7\noom_group_kill 0\n"), Some(7));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
