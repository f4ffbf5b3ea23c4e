//! The memory of a cycle: what is written before anything depends on it, and read back after a crash.

use std::{collections::BTreeMap, future::Future};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    CycleId, Discovery, EnvironmentId, Episode, EpisodeKey, Hotkey, IllegalTransition, LastFault, Outcome, Pin,
    PublishGuard, Salt, Sighting, StageId, Standing, TaskEvent, TaskKey, TaskStatus,
};

/// The right to write to a cycle. Every write carries it; a newer epoch makes all older leases void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The cycle.
    pub cycle: CycleId,
    /// Who holds it: a fresh id for every process that acquires.
    pub owner: Uuid,
    /// Counts the holders so far.
    pub epoch: i64,
}

/// Where a cycle stands. Whether an open cycle is running is not a state: it follows from its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CycleStatus {
    /// Created and not ended.
    Open,
    /// Every stage ended well or was skipped by its `when`.
    Completed,
    /// A stage failed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl CycleStatus {
    /// The word stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A task as the journal knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// Which task.
    pub key: TaskKey,
    /// Attempts begun.
    pub attempt: u32,
    /// Attempts that failed and count against `max_attempts`.
    pub failed_attempts: u32,
    /// Where it stands.
    pub status: TaskStatus,
}

impl TaskState {
    /// A task that nothing has happened to yet.
    pub fn new(key: TaskKey) -> Self {
        Self { key, attempt: 0, failed_attempts: 0, status: TaskStatus::Pending }
    }

    /// The task after `event` of `attempt`: every journal counts attempts with this one function.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event cannot happen in this state, or is about an attempt that is over: a late
    /// word about attempt 1 must not end attempt 2.
    pub fn record(&self, attempt: u32, event: &TaskEvent) -> Result<Self, IllegalTransition> {
        let current = if *event == TaskEvent::Started { self.attempt + 1 } else { self.attempt };
        let status = self.status.apply(event)?;
        if attempt != current {
            return Err(IllegalTransition { status: "at another attempt", event: event.word() });
        }
        let failed_attempts = match event {
            TaskEvent::Retried { .. } | TaskEvent::Failed { .. } | TaskEvent::Paused { .. } => self.failed_attempts + 1,
            TaskEvent::Resumed | TaskEvent::Reopened => 0,
            _ => self.failed_attempts,
        };
        Ok(Self { key: self.key.clone(), attempt, failed_attempts, status })
    }

    /// What a person's wish to have the task run again does to it; nothing when it is open anyway.
    ///
    /// # Errors
    /// [`IllegalTransition`]: what has succeeded in the main body never runs again.
    pub fn reopen(&self, role: Role) -> Result<Option<(TaskEvent, Self)>, IllegalTransition> {
        let event = match (&self.status, role) {
            (TaskStatus::Pending | TaskStatus::Running, _) => return Ok(None),
            (TaskStatus::Succeeded { .. }, Role::Main) => {
                return Err(IllegalTransition { status: "succeeded", event: TaskEvent::Reopened.word() });
            }
            (TaskStatus::Paused { .. }, _) => TaskEvent::Resumed,
            _ => TaskEvent::Reopened,
        };
        let next = self.record(self.attempt, &event)?;
        Ok(Some((event, next)))
    }
}

/// What a task is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The result: it succeeds once.
    Main,
    /// Cleaning up and telling, in `on_failure` or `finally`: it has to happen again when the cycle goes on after it.
    Cleanup,
}

impl Role {
    /// The role of a stage's tasks, by the definition that the cycle is pinned to.
    pub fn of(definition: &Value, stage: &StageId) -> Self {
        let mut stages = definition["stages"].as_array().into_iter().flatten();
        let phase = stages.find(|listed| listed["id"] == stage.as_str()).and_then(|found| found["phase"].as_str());
        if matches!(phase, Some("on_failure" | "finally")) { Self::Cleanup } else { Self::Main }
    }
}

/// A cycle as the journal knows it: all that is needed to go on with it.
#[derive(Debug, Clone)]
pub struct CycleRecord {
    /// Its id.
    pub id: CycleId,
    /// The resolved definition it is pinned to, as `plan::Definition` serialises itself.
    pub definition: Value,
    /// Directory that relative paths in the definition start from.
    pub root: String,
    /// The secret its seeds come from.
    pub salt: Salt,
    /// Block it is pinned to, once a chain was read.
    pub pin: Option<Pin>,
    /// Where it stands.
    pub status: CycleStatus,
    /// Whether somebody has asked for it to stop.
    pub cancel_requested: bool,
    /// Whether it is open but waits for a person: who takes it up without being asked to has nothing to do.
    pub paused: bool,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Every task of the plan, in the plan's order.
    pub tasks: Vec<TaskState>,
}

impl CycleRecord {
    /// A cycle that begins now, before its tasks are known; relative paths start from where we are.
    pub fn new(definition: Value, salt: Salt) -> Self {
        Self {
            id: CycleId::generate(),
            definition,
            root: ".".into(),
            salt,
            pin: None,
            status: CycleStatus::Open,
            cancel_requested: false,
            paused: false,
            created_at: Utc::now(),
            tasks: Vec::new(),
        }
    }
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The task it is about.
    pub task: TaskKey,
    /// The attempt it is about, from 1; 0 for events of a task that never started.
    pub attempt: u32,
    /// What happened.
    pub event: TaskEvent,
    /// Weights that become the latest when the cycle completes.
    pub publication: Option<Publication>,
    /// What was found on the chain: the cycle is pinned to its block, and standings are kept for the next one.
    pub discovery: Option<Discovery>,
    /// For an attempt that begins: the pool it takes a place of.
    pub pool: Option<PoolClaim>,
}

impl Entry {
    /// A line without weights, discoveries and pools.
    pub fn new(task: TaskKey, attempt: u32, event: TaskEvent) -> Self {
        Self { task, attempt, event, publication: None, discovery: None, pool: None }
    }
}

/// A place that an attempt wants in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolClaim {
    /// The pool's name.
    pub name: String,
    /// How many tasks may run in it, over all cycles. Only those of live leases are counted.
    pub limit: u32,
}

/// What `weights/publish` puts out. Both documents are canonical JSON and depend only on definition, salt and outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// Scores per miner and environment with the frontier: canonical JSON text.
    pub scores: String,
    /// The weight vector: canonical JSON text.
    pub weights: String,
    /// SHA-256 in hex of the weights text.
    pub digest: String,
    /// Limits within which validators are given it.
    pub guard: PublishGuard,
}

/// Whether a write changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It was new.
    Recorded,
    /// The same thing stood there already: a repeated write, harmless.
    AlreadyRecorded,
    /// The pool has no place left; nothing was written. Worth another try later.
    Full,
}

/// What a heartbeat brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Somebody has asked for the cycle to stop.
    pub cancel_requested: bool,
}

/// An episode that still has to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingEpisode {
    /// Which one.
    pub key: EpisodeKey,
    /// Attempts that ended in our own faults.
    pub attempt: u32,
    /// Those of them that count against the stage's limit: all since a person last had the task run again.
    pub counted: u32,
    /// How the last attempt failed; none before the first.
    pub last: Option<LastFault>,
}

/// Scored episodes, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpisodeTally {
    /// Those with a scored outcome.
    pub scored: usize,
    /// Successes among them.
    pub successes: usize,
}

impl EpisodeTally {
    /// Count these, which must be scored.
    fn of<'a>(episodes: impl Iterator<Item = &'a Episode>) -> Self {
        episodes.fold(Self::default(), |tally, episode| Self {
            scored: tally.scored + 1,
            successes: tally.successes + usize::from(episode.report.outcome == Outcome::Success),
        })
    }
}

/// Why the journal could not do it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The lease is void: another process owns the cycle, or it has ended. Stop at once and write nothing more.
    #[error("cycle `{0}` is owned by another process, or has ended")]
    LeaseLost(CycleId),
    /// A live lease of somebody else is in the way.
    #[error("cycle `{0}` is running in another process until at least {1}")]
    Leased(CycleId, DateTime<Utc>),
    /// Other cycles go first: by their schedule, or because of `concurrency`. Worth another try when the one named has ended.
    #[error("cycle `{0}` waits for its turn, which comes when cycle `{1}` has ended")]
    Waits(CycleId, CycleId),
    /// There is no such cycle.
    #[error("there is no cycle `{0}`")]
    Unknown(CycleId),
    /// It has ended well: nothing in it is run again.
    #[error("cycle `{0}` has completed; nothing in it can be run again")]
    Completed(CycleId),
    /// What it still has to play could be known before.
    #[error("cycle `{0}` cannot go on: its salt is known since cycle `{1}`, which has the same, has completed")]
    SaltShown(CycleId, CycleId),
    /// Two would play with a salt that nobody may know yet, and the first to complete would give it away.
    #[error("cycle `{0}` cannot go on while cycle `{1}`, which has the same salt, is open")]
    SaltInUse(CycleId, CycleId),
    /// The task's journal says otherwise.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The storage failed: worth another try later.
    #[error("the journal cannot be reached")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The durable log of cycles.
///
/// # Guarantees
/// When a method returns `Ok`, what it wrote survives any crash. Every write is fenced by the lease and idempotent:
/// writing the same thing twice is [`Appended::AlreadyRecorded`], writing under a void lease is
/// [`JournalError::LeaseLost`]. Terminal states change through [`Journal::reopen`] alone, and success never does.
pub trait Journal: Send + Sync + 'static {
    /// Everything known about a cycle.
    fn load(&self, cycle: CycleId) -> impl Future<Output = Result<CycleRecord, JournalError>> + Send;

    /// Take the lease of an open cycle that nobody holds (or whose lease has run out) under a new epoch.
    fn acquire(&self, cycle: CycleId) -> impl Future<Output = Result<Lease, JournalError>> + Send;

    /// Prolong the lease.
    fn heartbeat(&self, lease: &Lease) -> impl Future<Output = Result<Heartbeat, JournalError>> + Send;

    /// Write lines, the tasks' new statuses, what was discovered and the documents that are to be published in one transaction:
    /// all of them or, after an error, none. Nobody sees the documents before [`Self::finish`].
    /// A line whose pool is full is left out and the others are written. No task comes twice among them.
    fn append_all(
        &self,
        lease: &Lease,
        entries: &[Entry],
    ) -> impl Future<Output = Result<Vec<Appended>, JournalError>> + Send;

    /// Write one line.
    fn append(&self, lease: &Lease, entry: &Entry) -> impl Future<Output = Result<Appended, JournalError>> + Send {
        async move {
            let appended = self.append_all(lease, std::slice::from_ref(entry)).await?;
            Ok(appended.into_iter().next().unwrap_or(Appended::AlreadyRecorded))
        }
    }

    /// Write down the tasks of a stage whose matrix has become known, before the first one runs. Those that stand there
    /// already stay as they are.
    fn expand(&self, lease: &Lease, tasks: &[TaskKey]) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Write down all episodes of a task before the first one runs. Those that stand there already stay as they are.
    fn plan_episodes(
        &self,
        lease: &Lease,
        task: &TaskKey,
        episodes: &[EpisodeKey],
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Episodes of a task without a scored outcome, ordered by seed index, then hotkey.
    fn pending_episodes(
        &self,
        cycle: CycleId,
        task: &TaskKey,
    ) -> impl Future<Output = Result<Vec<PendingEpisode>, JournalError>> + Send;

    /// Write down how an attempt at an episode ended. A scored outcome is final; an infra fault leaves the episode pending.
    fn record_episode(
        &self,
        lease: &Lease,
        episode: &Episode,
    ) -> impl Future<Output = Result<Appended, JournalError>> + Send;

    /// Write down how a miner was found. The same again changes nothing.
    fn record_sighting(
        &self,
        lease: &Lease,
        sighting: &Sighting,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The standings of a subnet's hotkeys, as discoveries of this chain have left them.
    fn standings(
        &self,
        genesis: &str,
        netuid: u16,
    ) -> impl Future<Output = Result<BTreeMap<Hotkey, Standing>, JournalError>> + Send;

    /// Episodes of a cycle with a scored outcome, ordered by environment, seed index, hotkey.
    fn scored_episodes(&self, cycle: CycleId) -> impl Future<Output = Result<Vec<Episode>, JournalError>> + Send;

    /// How far the episodes of an environment have come, without reading them one by one.
    fn tally(
        &self,
        cycle: CycleId,
        environment: &EnvironmentId,
    ) -> impl Future<Output = Result<EpisodeTally, JournalError>> + Send {
        async move {
            let scored = self.scored_episodes(cycle).await?;
            Ok(EpisodeTally::of(scored.iter().filter(|episode| episode.key.environment == *environment)))
        }
    }

    /// End the cycle, publish what it has to publish, and give the lease back, in one transaction.
    ///
    /// Returns how it ended: a cycle that has `completed` while somebody asked for it to stop is `cancelled`. Only one that
    /// completed publishes.
    fn finish(
        &self,
        lease: &Lease,
        status: CycleStatus,
        reason: Option<&str>,
    ) -> impl Future<Output = Result<CycleStatus, JournalError>> + Send;

    /// Give the lease back and leave the cycle open, to be resumed.
    fn release(&self, lease: &Lease) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The same, and mark the cycle as waiting for a person. The mark is gone when somebody takes the lease.
    fn pause(&self, lease: &Lease) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// What a person does before a cycle that nobody holds is run again: paused tasks are resumed, tasks that failed, were
    /// skipped or cancelled are reopened, all with no failed attempts; a cycle that failed or was cancelled is open again
    /// with no wish to stop. All of it under a new epoch. Tasks that are pending stay so; episodes of all these tasks get as
    /// many tries as if there had been none.
    ///
    /// # Errors
    /// [`JournalError::Completed`], [`JournalError::Leased`], and [`JournalError::Illegal`] for a task that has succeeded;
    /// after an error nothing has changed.
    fn reopen(&self, cycle: CycleId, tasks: &[TaskKey]) -> impl Future<Output = Result<(), JournalError>> + Send;
}
