//! One process of one machine, named so that it is told apart from every other that has had its number.
//!
//! Reads `/proc` and nothing else. A process that cannot be judged from here (another machine, another container) is
//! never called dead.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A process, told apart from every other that has had its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    hostname: String,
    /// Changes when the machine starts anew.
    boot_id: String,
    /// The space of process numbers: that of a container differs from its host's.
    namespace: String,
    pid: u32,
    /// When the process started, in clock ticks since the boot.
    started: u64,
}

impl Identity {
    /// This process, where the system lets us see enough of it.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// A living process of this machine, where the system lets us see enough of it.
    pub fn of(pid: u32) -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Some(Self {
            hostname: read("/proc/sys/kernel/hostname")?,
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            namespace: fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned(),
            pid,
            started: start_of(pid)?,
        })
    }

    /// The form that is stored.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// What was stored, if it can be read.
    pub fn from_json(stored: &Value) -> Option<Self> {
        serde_json::from_value(stored.clone()).ok()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name of its machine.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// What can be said of it from here.
    pub fn state(&self) -> State {
        Self::current().map_or(State::Unknown, |here| self.seen_from(&here))
    }

    /// Whether the stored identity was a process of this machine that has ended.
    pub fn is_known_dead(stored: Option<&Value>) -> bool {
        stored.and_then(Self::from_json).is_some_and(|stored| stored.state() == State::Dead)
    }

    /// Whether the stored identity is a process of this machine that lives.
    pub fn is_known_alive(stored: Option<&Value>) -> bool {
        stored.and_then(Self::from_json).is_some_and(|stored| stored.state() == State::Alive)
    }

    fn seen_from(&self, here: &Self) -> State {
        let place = |identity: &Self| (identity.hostname.clone(), identity.boot_id.clone(), identity.namespace.clone());
        if place(self) != place(here) {
            // Another boot of a machine of this name may as well be another machine.
            State::Unknown
        } else if start_of(self.pid) == Some(self.started) {
            State::Alive
        } else {
            State::Dead
        }
    }
}

/// What can be said of a process from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Alive,
    /// It has ended; its number may belong to another process by now.
    Dead,
    /// It is a process of another machine, another container or another boot.
    Unknown,
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
        let here = Identity::current().unwrap();
        assert!(!Identity::is_known_dead(Some(&here.to_json())));
        assert!(!Identity::is_known_dead(None));
        assert!(!Identity::is_known_dead(Some(&serde_json::json!({"pid": 1}))));
        let elsewhere = Identity { hostname: "another".into(), started: 1, ..here.clone() };
        assert!(!Identity::is_known_dead(Some(&elsewhere.to_json())));
        let reused = Identity { started: here.started + 1, ..here };
        assert!(Identity::is_known_dead(Some(&reused.to_json())));
    }

    #[test]
    fn a_killed_process_is_dead_before_its_parent_collects_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let started = start_of(child.id()).unwrap();
        let identity = Identity { pid: child.id(), started, ..Identity::current().unwrap() };
        assert!(!Identity::is_known_dead(Some(&identity.to_json())));
        child.kill().unwrap();
        // Its end of the pipe closes only when it is gone; the kernel keeps the entry until `wait`.
        std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut vec![]).unwrap();
        let waited = nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(child.id() as i32)),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        );
        waited.unwrap();
        assert!(Identity::is_known_dead(Some(&identity.to_json())));
        child.wait().unwrap();
    }
}
