//! What a cycle has started and what may outlive it: processes, and by the same words whatever a [`Keeper`] knows.
//!
//! A [`Resource`] is written into a [`Ledger`] when it starts and taken out when it has ended. Whoever finds one there that
//! belongs to nobody any more can [`end`] it. This file knows processes; it never decides which of them is to end.
//!
//! The kernel already ends our children with us (`process.rs`). The ledger is the second line: for a child that was
//! adopted by another process, that lost its parent-death signal, or whose parent is stopped and not dead.

use std::{fmt, fs, time::Duration};

use futures::future::BoxFuture;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Identity, State,
    child::{Child, ChildError, Program},
};
use crate::cycle::Lease;

/// The variable that marks every process of a resource, its descendants included.
pub const MARK: &str = "ROBO_RESOURCE";

/// The kind of a resource that is a process and its descendants.
pub const PROCESS: &str = "process";

/// Pauses between looks at processes that were killed: a kill has no answer. Ten seconds in all.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 500;

/// Something that was started for a cycle and has to end with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its own id, which it carries as a mark.
    pub id: Uuid,
    /// What it is: `process`, or a kind that a [`Keeper`] knows.
    pub kind: String,
    /// What it does, in words.
    pub name: String,
    /// The machine it runs on; the address of one that is known by address.
    pub host: String,
    /// How it is found there: for a process its [`Identity`].
    pub identity: Value,
}

/// Where resources are written down, under the cycle and the lease they belong to.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Write down what has just been started.
    fn enter<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Take out what has ended. What stays by mistake is found and taken out by the next sweep.
    fn leave(&self, resource: Uuid) -> BoxFuture<'_, ()>;

    /// The lease under which it is written, where there is one.
    fn lease(&self) -> Option<Lease> {
        None
    }

    /// Decide once for a cycle what `name` stands for: the first `id` that anybody gives. That one comes back.
    fn pin<'a>(&'a self, _name: &'a str, id: &'a str) -> BoxFuture<'a, Result<String, LedgerError>> {
        Box::pin(async move { Ok(id.to_owned()) })
    }
}

/// Who knows resources of another kind than processes.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// Whether this is a kind it knows.
    fn keeps(&self, kind: &str) -> bool;

    /// End one of them, wherever it runs.
    fn end<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Fate>;

    /// Whether nothing of it runs any more.
    fn is_gone<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, bool>;
}

/// What was started could not be written down, and was ended again.
#[derive(Debug, thiserror::Error)]
#[error("what was started cannot be written down")]
pub struct LedgerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// No ledger: for what lives and dies inside one command.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLedger;

impl Ledger for NoLedger {
    fn enter<'a>(&'a self, _: &'a Resource) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async { Ok(()) })
    }

    fn leave(&self, _: Uuid) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Why a recorded child is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It did not start.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It could not be written down.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Start a program with a mark and write it down; it is ended if that fails.
///
/// # Errors
/// [`RecordError`].
pub async fn start(program: Program, ledger: &dyn Ledger) -> Result<(Child, Uuid), RecordError> {
    let (id, name) = (Uuid::new_v4(), program.name().to_owned());
    // Until the row is there the kernel alone answers for the child: it dies with us.
    let child = program.env(MARK, id.to_string()).start().await?;
    // A child that has ended by now will say so itself.
    if let Some(identity) = child.id().and_then(Identity::of) {
        let host = identity.hostname().to_owned();
        let resource = Resource { id, kind: PROCESS.into(), name, host, identity: identity.to_json() };
        ledger.enter(&resource).await?;
    }
    Ok((child, id))
}

/// What came of ending a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it was left.
    Gone,
    /// It ran, and was killed.
    Killed,
    /// It was killed and is still there: the kernel holds it back, as it does while a disk does not answer.
    Survives,
    /// It cannot be judged from here.
    Unknown,
}

/// Whether nothing of a resource of this machine runs any more.
pub async fn is_gone(resource: &Resource) -> bool {
    let Some(process) = process(resource) else { return false };
    let is_gone = || process.state() == State::Dead && marked(resource.id).is_empty();
    if !is_gone() {
        return false;
    }
    // A process shows no mark in the moment in which it becomes another program.
    tokio::time::sleep(LOOK).await;
    is_gone()
}

/// End a resource of this machine: the process, its group, and every process that carries its mark, wherever those have
/// gone. A process that only has the number of an old one is left alone.
pub async fn end(resource: &Resource) -> Fate {
    let Some(process) = process(resource).filter(|process| process.state() != State::Unknown) else {
        return Fate::Unknown;
    };
    let (mut fate, mut seen_gone) = (Fate::Gone, false);
    for _ in 0..LOOKS {
        let is_gone = !kill_once(&process, resource.id);
        // Seen twice: a process shows no mark in the moment in which it becomes another program.
        if is_gone && seen_gone {
            return fate;
        }
        if !is_gone {
            fate = Fate::Killed;
        }
        seen_gone = is_gone;
        tokio::time::sleep(LOOK).await;
    }
    Fate::Survives
}

/// Kill what is there now. Whether there was anything.
fn kill_once(process: &Identity, mark: Uuid) -> bool {
    let mut found = marked(mark);
    if process.state() == State::Alive {
        found.push(process.pid());
        if let Ok(group) = i32::try_from(process.pid()) {
            // Children lead a group of their own; one that leads none has no group to be found.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
    for pid in found.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
        // It may have ended since we looked.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    !found.is_empty()
}

fn process(resource: &Resource) -> Option<Identity> {
    (resource.kind == PROCESS).then(|| Identity::from_json(&resource.identity)).flatten()
}

/// Living processes that carry a mark. Those whose environment we may not read are not ours.
fn marked(mark: Uuid) -> Vec<u32> {
    let entry = format!("{MARK}={mark}");
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.filter_map(|process| process.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
        sync::Mutex,
    };

    use super::*;
    use crate::host::environment::Role;

    /// Remembers what was entered; refuses where it is told to.
    #[derive(Debug, Default)]
    struct Memory(Mutex<Vec<Resource>>);

    impl Ledger for Memory {
        fn enter<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Result<(), LedgerError>> {
            self.0.lock().unwrap().push(resource.clone());
            Box::pin(async { Ok(()) })
        }

        fn leave(&self, _: Uuid) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }

    #[derive(Debug, Default)]
    struct Refusing(Memory);

    impl Ledger for Refusing {
        fn enter<'a>(&'a self, resource: &'a Resource) -> BoxFuture<'a, Result<(), LedgerError>> {
            Box::pin(async {
                self.0.enter(resource).await?;
                Err(LedgerError("the disk is full".into()))
            })
        }

        fn leave(&self, _: Uuid) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }

    fn shell(script: &str) -> Program {
        Program::new(Role::Tool, "the test program", "/bin/sh").args(["-c", script])
    }

    #[tokio::test]
    async fn what_a_resource_has_started_ends_with_it_even_in_a_group_of_its_own() {
        let ledger = Memory::default();
        // `setsid` takes the grandchild out of the group; its parent ends, so that nobody is above it.
        let (mut child, id) =
            start(shell("setsid sh -c 'echo $$; exec sleep 1000' 2>/dev/null & read line"), &ledger).await.unwrap();
        let grandchild: u32 = child.next_line().await.unwrap().parse().unwrap();
        child.stop(Duration::from_secs(60)).await;
        let resource = ledger.0.lock().unwrap().first().cloned().unwrap();
        assert_eq!((resource.id, resource.name.as_str()), (id, "the test program"));
        let grandchild = Identity::of(grandchild).expect("it has left the group that was killed");
        assert!(!is_gone(&resource).await);
        assert_eq!(end(&resource).await, Fate::Killed);
        assert_eq!(grandchild.state(), State::Dead);
        assert!(is_gone(&resource).await);
        assert_eq!(end(&resource).await, Fate::Gone);
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_does_not_run() {
        let ledger = Refusing::default();
        let error = start(shell("exec sleep 1000"), &ledger).await.unwrap_err();
        assert_eq!(error.to_string(), "what was started cannot be written down");
        let resource = ledger.0.0.lock().unwrap().first().cloned().unwrap();
        assert!([Fate::Gone, Fate::Killed].contains(&end(&resource).await));
    }

    #[tokio::test]
    async fn a_process_that_only_has_the_number_is_left_alone() {
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut identity = Identity::of(other.id()).unwrap().to_json();
        let started = identity["started"].as_u64().unwrap();
        identity["started"] = (started - 1).into();
        let mut resource = Resource {
            id: Uuid::new_v4(),
            kind: PROCESS.into(),
            name: "an old server".into(),
            host: identity["hostname"].as_str().unwrap().into(),
            identity: identity.clone(),
        };
        assert_eq!(end(&resource).await, Fate::Gone);
        identity["boot_id"] = "another boot".into();
        resource.identity = identity.clone();
        assert_eq!(end(&resource).await, Fate::Unknown);
        resource.kind = "container".into();
        assert_eq!(end(&resource).await, Fate::Unknown);
        // It lives: it still answers.
        std::io::Write::write_all(other.stdin.as_mut().unwrap(), b"well\n").unwrap();
        let mut line = String::new();
        BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "well\n");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
