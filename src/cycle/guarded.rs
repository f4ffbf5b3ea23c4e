//! A journal with something that stands around each of its writes: what kills the process there, or fails it, is written once.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Appended, CycleId, CycleRecord, CycleStatus, Entry, Episode, EpisodeKey, Heartbeat, Hotkey, Journal, JournalError,
    Lease, PendingEpisode, Question, Rows, RowsError, Sighting, Standing, TaskKey,
};

/// What stands around a write.
pub trait Guard: Send + Sync + 'static {
    /// Do the write, or not, and say what came of it.
    fn write<T: Send>(
        &self,
        work: impl Future<Output = Result<T, JournalError>> + Send,
    ) -> impl Future<Output = Result<T, JournalError>> + Send;
}

/// A journal whose writes go through a [`Guard`]. What only reads does not, and neither do heartbeats: they come by the
/// clock, and change nothing that a cycle depends on.
#[derive(Debug)]
pub struct Guarded<J, G> {
    journal: Arc<J>,
    guard: G,
}

impl<J, G> Guarded<J, G> {
    /// The journal behind the guard.
    pub fn new(journal: Arc<J>, guard: G) -> Self {
        Self { journal, guard }
    }

    /// What stands around the writes.
    pub fn guard(&self) -> &G {
        &self.guard
    }
}

impl<J: Journal, G: Guard> Journal for Guarded<J, G> {
    async fn load(&self, cycle: CycleId) -> Result<CycleRecord, JournalError> {
        self.journal.load(cycle).await
    }

    async fn acquire(&self, cycle: CycleId) -> Result<Lease, JournalError> {
        self.guard.write(self.journal.acquire(cycle)).await
    }

    async fn heartbeat(&self, lease: &Lease) -> Result<Heartbeat, JournalError> {
        self.journal.heartbeat(lease).await
    }

    async fn append_all(&self, lease: &Lease, entries: &[Entry]) -> Result<Vec<Appended>, JournalError> {
        self.guard.write(self.journal.append_all(lease, entries)).await
    }

    async fn expand(&self, lease: &Lease, tasks: &[TaskKey]) -> Result<(), JournalError> {
        self.guard.write(self.journal.expand(lease, tasks)).await
    }

    async fn pause(&self, lease: &Lease) -> Result<(), JournalError> {
        self.guard.write(self.journal.pause(lease)).await
    }

    async fn reopen(&self, cycle: CycleId, tasks: &[TaskKey]) -> Result<(), JournalError> {
        self.guard.write(self.journal.reopen(cycle, tasks)).await
    }

    async fn plan_episodes(&self, lease: &Lease, task: &TaskKey, keys: &[EpisodeKey]) -> Result<(), JournalError> {
        self.guard.write(self.journal.plan_episodes(lease, task, keys)).await
    }

    async fn pending_episodes(&self, cycle: CycleId, task: &TaskKey) -> Result<Vec<PendingEpisode>, JournalError> {
        self.journal.pending_episodes(cycle, task).await
    }

    async fn record_episode(&self, lease: &Lease, episode: &Episode) -> Result<Appended, JournalError> {
        self.guard.write(self.journal.record_episode(lease, episode)).await
    }

    async fn record_sighting(&self, lease: &Lease, sighting: &Sighting) -> Result<(), JournalError> {
        // Nothing that a cycle depends on: whether it stands there or not, the cycle ends the same.
        self.journal.record_sighting(lease, sighting).await
    }

    async fn standings(&self, genesis: &str, netuid: u16) -> Result<BTreeMap<Hotkey, Standing>, JournalError> {
        self.journal.standings(genesis, netuid).await
    }

    async fn scored_episodes(&self, cycle: CycleId) -> Result<Vec<Episode>, JournalError> {
        self.journal.scored_episodes(cycle).await
    }

    async fn finish(
        &self,
        lease: &Lease,
        status: CycleStatus,
        reason: Option<&str>,
    ) -> Result<CycleStatus, JournalError> {
        self.guard.write(self.journal.finish(lease, status, reason)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.guard.write(self.journal.release(lease)).await
    }
}

impl<J: Journal + Rows, G: Guard> Rows for Guarded<J, G> {
    async fn ask(&self, question: &Question) -> Result<Vec<serde_json::Value>, RowsError> {
        self.journal.ask(question).await
    }
}
