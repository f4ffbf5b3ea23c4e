//! Who holds a lease: one process of one machine, named so that its death can be told from here.
//!
//! A holder that cannot be judged (another machine, another container) is never called dead; its lease runs out instead.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A process, told apart from every other that has had its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    hostname: String,
    /// Changes when the machine starts anew.
    boot_id: String,
    /// The space of process numbers: that of a container differs from its host's.
    namespace: String,
    pid: u32,
    /// When the process started, in clock ticks since the boot.
    started: u64,
}

impl Holder {
    /// This process, where the system lets us see enough of it.
    pub(super) fn current() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let pid = std::process::id();
        Some(Self {
            hostname: read("/proc/sys/kernel/hostname")?,
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            namespace: fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned(),
            pid,
            started: start_of(pid)?,
        })
    }

    /// The form that is stored.
    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether the stored holder was a process of this machine that has ended.
    pub(super) fn is_known_dead(stored: Option<&Value>) -> bool {
        let stored = stored.and_then(|value| serde_json::from_value::<Self>(value.clone()).ok());
        stored.zip(Self::current()).is_some_and(|(stored, here)| stored.is_dead_seen_from(&here))
    }

    fn is_dead_seen_from(&self, here: &Self) -> bool {
        let place = |holder: &Self| (holder.hostname.clone(), holder.boot_id.clone(), holder.namespace.clone());
        place(self) == place(here) && start_of(self.pid) != Some(self.started)
    }
}

/// When a living process started; none for one that is gone, or dead and only not yet collected by its parent.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, spaces and parentheses included: count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if ["Z", "X"].contains(&state) {
        return None;
    }
    // Field 22 of the line; the state is field 3.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_is_alive_and_anything_unknown_is_not_called_dead() {
        let here = Holder::current().unwrap();
        assert!(!Holder::is_known_dead(Some(&here.to_json())));
        assert!(!Holder::is_known_dead(None));
        assert!(!Holder::is_known_dead(Some(&serde_json::json!({"pid": 1}))));
        let elsewhere = Holder { hostname: "another".into(), started: 1, ..here.clone() };
        assert!(!Holder::is_known_dead(Some(&elsewhere.to_json())));
        let reused = Holder { started: here.started + 1, ..here };
        assert!(Holder::is_known_dead(Some(&reused.to_json())));
    }

    #[test]
    fn a_killed_process_is_dead_before_its_parent_collects_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let started = start_of(child.id()).unwrap();
        let holder = Holder { pid: child.id(), started, ..Holder::current().unwrap() };
        assert!(!Holder::is_known_dead(Some(&holder.to_json())));
        child.kill().unwrap();
        // Its end of the pipe closes only when it is gone; the kernel keeps the entry until `wait`.
        std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut vec![]).unwrap();
        let waited = nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(child.id() as i32)),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        );
        waited.unwrap();
        assert!(Holder::is_known_dead(Some(&holder.to_json())));
        child.wait().unwrap();
    }
}
