//! A journal that kills its process: the testing aid behind `robo chaos`.
//!
//! Counts the writes that pass through to the real journal and, at the one it was told, ends the process with SIGKILL right
//! before it or right after it was committed. A death in the middle of a write is one of the two: a transaction that was not
//! committed never was. Heartbeats do not count; they come by the clock and change nothing that a cycle depends on.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::cycle::{
    Appended, CycleId, CycleRecord, CycleStatus, Entry, Episode, EpisodeKey, Heartbeat, Journal, JournalError, Lease,
    PendingEpisode, Question, Rows, RowsError, TaskKey,
};
use serde_json::Value;

/// Which side of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Nothing of it is in the database.
    Before,
    /// All of it is in the database, and nobody in the process has learnt of that.
    After,
}

/// When to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DieAt {
    /// Never: count the writes and say how many there were.
    Never,
    /// At a write, the first being 1.
    Write(u64, Side),
}

impl fmt::Display for DieAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::Write(number, Side::Before) => write!(f, "{number}:before"),
            Self::Write(number, Side::After) => write!(f, "{number}:after"),
        }
    }
}

impl FromStr for DieAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write `never`, `NUMBER:before` or `NUMBER:after`";
        if text == "never" {
            return Ok(Self::Never);
        }
        let (number, side) = text.split_once(':').ok_or(FORM)?;
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(FORM),
        };
        Ok(Self::Write(number.parse().map_err(|_| FORM)?, side))
    }
}

/// A journal, and when to die.
pub(super) struct Mortal<J> {
    journal: Arc<J>,
    die_at: Option<DieAt>,
    writes: AtomicU64,
}

impl<J: Journal> Mortal<J> {
    /// The journal as it is, unless it is told when to die.
    pub(super) fn new(journal: Arc<J>, die_at: Option<DieAt>) -> Self {
        Self { journal, die_at, writes: AtomicU64::new(0) }
    }

    /// The writes so far, if somebody wants to know.
    pub(super) fn asked_to_count(&self) -> Option<u64> {
        self.die_at.map(|_| self.writes.load(Ordering::Relaxed))
    }

    async fn write<T>(&self, work: impl Future<Output = Result<T, JournalError>>) -> Result<T, JournalError> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.die_if(DieAt::Write(number, Side::Before)).await;
        let done = work.await;
        self.die_if(DieAt::Write(number, Side::After)).await;
        done
    }

    async fn die_if(&self, here: DieAt) {
        if self.die_at == Some(here) {
            // Nobody survives this to see an error.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::future::pending::<()>().await;
        }
    }
}

impl<J: Journal> Journal for Mortal<J> {
    async fn load(&self, cycle: CycleId) -> Result<CycleRecord, JournalError> {
        self.journal.load(cycle).await
    }

    async fn acquire(&self, cycle: CycleId) -> Result<Lease, JournalError> {
        self.write(self.journal.acquire(cycle)).await
    }

    async fn heartbeat(&self, lease: &Lease) -> Result<Heartbeat, JournalError> {
        self.journal.heartbeat(lease).await
    }

    async fn append_all(&self, lease: &Lease, entries: &[Entry]) -> Result<Vec<Appended>, JournalError> {
        self.write(self.journal.append_all(lease, entries)).await
    }

    async fn expand(&self, lease: &Lease, tasks: &[TaskKey]) -> Result<(), JournalError> {
        self.write(self.journal.expand(lease, tasks)).await
    }

    async fn pause(&self, lease: &Lease) -> Result<(), JournalError> {
        self.write(self.journal.pause(lease)).await
    }

    async fn reopen(&self, cycle: CycleId, tasks: &[TaskKey]) -> Result<(), JournalError> {
        self.write(self.journal.reopen(cycle, tasks)).await
    }

    async fn plan_episodes(&self, lease: &Lease, task: &TaskKey, keys: &[EpisodeKey]) -> Result<(), JournalError> {
        self.write(self.journal.plan_episodes(lease, task, keys)).await
    }

    async fn pending_episodes(&self, cycle: CycleId, task: &TaskKey) -> Result<Vec<PendingEpisode>, JournalError> {
        self.journal.pending_episodes(cycle, task).await
    }

    async fn record_episode(&self, lease: &Lease, episode: &Episode) -> Result<Appended, JournalError> {
        self.write(self.journal.record_episode(lease, episode)).await
    }

    async fn scored_episodes(&self, cycle: CycleId) -> Result<Vec<Episode>, JournalError> {
        self.journal.scored_episodes(cycle).await
    }

    async fn finish(&self, lease: &Lease, status: CycleStatus, reason: Option<&str>) -> Result<(), JournalError> {
        self.write(self.journal.finish(lease, status, reason)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.write(self.journal.release(lease)).await
    }
}

impl<J: Journal + Rows> Rows for Mortal<J> {
    async fn ask(&self, question: &Question) -> Result<Vec<Value>, RowsError> {
        self.journal.ask(question).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_die_is_read_as_it_is_written() {
        for text in ["never", "1:before", "12:after"] {
            assert_eq!(text.parse::<DieAt>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1:during", "x:after", "-1:before"] {
            assert!(text.parse::<DieAt>().is_err(), "{text}");
        }
    }
}
