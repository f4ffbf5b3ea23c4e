//! Lines of a cycle's journal: the events, the tasks' new statuses and publications, together or not at all.
//!
//! However many lines there are, they cost the same few statements: lock the tasks under the fence, decide in memory what
//! [`TaskState::record`] makes of each line, write all of it at once.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;
use sqlx::PgConnection;

use crate::cycle::{Appended, CycleId, Entry, JournalError, Lease, TaskFailure, TaskKey, TaskState, TaskStatus};

use super::{Error, error::Trouble, lease, pool, publication, standing};

/// Write `entries` in the transaction that `connection` is in.
///
/// Locks are taken in one order by everybody, so that writers wait for each other and never in a circle: pools by name,
/// tasks by key, standings by hotkey, the chain of publications.
pub(super) async fn append_all(
    connection: &mut PgConnection,
    lease: &Lease,
    entries: &[Entry],
) -> Result<Vec<Appended>, Trouble> {
    if entries.is_empty() {
        return Ok(vec![]);
    }
    let pools: BTreeSet<&str> = entries.iter().filter_map(|entry| Some(entry.pool.as_ref()?.name.as_str())).collect();
    pool::lock(connection, &pools).await?;
    let tasks = locked_tasks(connection, lease.cycle, Some(lease), entries.iter().map(|entry| &entry.task)).await?;
    if tasks.is_empty() {
        // Either the lease is lost or there are no such tasks.
        lease::fence(connection, lease).await?;
    }
    let occupancy = pool::occupancy(connection, lease.cycle, &pools).await?;
    let mut batch = Batch { tasks, occupancy, answers: vec![], lines: vec![], doubts: vec![] };
    for entry in entries {
        batch.take(lease.cycle, entry);
    }
    let Batch { tasks, answers, lines, doubts, .. } = batch;
    refuse_unless_recorded(connection, lease, doubts).await?;
    write(connection, (lease.cycle, lease.epoch), &lines, tasks.into_values()).await?;
    for discovery in lines.iter().filter_map(|entry| entry.discovery.as_ref()) {
        standing::keep(connection, lease.cycle, discovery).await?;
    }
    for document in lines.iter().filter_map(|entry| entry.publication.as_ref()) {
        publication::keep(connection, lease.cycle, document).await?;
    }
    Ok(answers)
}

/// A task whose row is locked.
pub(super) struct Locked {
    pub(super) state: TaskState,
    /// The pool it takes a place of.
    pool: Option<String>,
    is_changed: bool,
    /// Whether an attempt begins in these lines.
    begins: bool,
}

/// Lines that are being taken, in order, and what they make of the tasks.
struct Batch<'a> {
    tasks: HashMap<TaskKey, Locked>,
    occupancy: pool::Occupancy,
    answers: Vec<Appended>,
    /// Lines that are new.
    lines: Vec<&'a Entry>,
    /// Lines that do not fit, each with what to say if it is not the repetition of one that stands there.
    doubts: Vec<(&'a Entry, Trouble)>,
}

impl<'a> Batch<'a> {
    fn take(&mut self, cycle: CycleId, entry: &'a Entry) {
        let answer = self.tasks.get_mut(&entry.task).map(|task| task.take(entry, &mut self.occupancy));
        let trouble = match answer {
            Some(Ok(answer)) => {
                if answer == Appended::Recorded {
                    self.lines.push(entry);
                }
                self.answers.push(answer);
                return;
            }
            Some(Err(illegal)) => JournalError::from(illegal).into(),
            None => Error::NotPlanned(format!("the task `{}` of cycle `{cycle}`", entry.task)).into(),
        };
        // A line that has been written is illegal for as long as the lease lasts: attempts only grow, and ends are final
        // until somebody reopens the task under another epoch. So only lines that do not fit can be repetitions. If one
        // turns out to be none, nothing of the batch is written and no answer counts.
        if !self.lines.iter().any(|line| name(line) == name(entry)) {
            self.doubts.push((entry, trouble));
        }
        self.answers.push(Appended::AlreadyRecorded);
    }
}

impl Locked {
    fn take(
        &mut self,
        entry: &Entry,
        occupancy: &mut pool::Occupancy,
    ) -> Result<Appended, crate::cycle::IllegalTransition> {
        let next = self.state.record(entry.attempt, &entry.event)?;
        if entry.pool.as_ref().is_some_and(|claim| occupancy.is_full(claim)) {
            return Ok(Appended::Full);
        }
        if let Some(pool) = &self.pool {
            occupancy.leave(pool);
        }
        self.change(next);
        if self.state.status == TaskStatus::Running {
            self.begins = true;
            self.pool = entry.pool.as_ref().map(|claim| claim.name.clone());
            if let Some(pool) = &self.pool {
                occupancy.enter(pool);
            }
        }
        Ok(Appended::Recorded)
    }

    /// What it becomes; it takes no place of a pool any more.
    pub(super) fn change(&mut self, next: TaskState) {
        self.state = next;
        self.pool = None;
        self.is_changed = true;
    }
}

/// What a line is known by, within its cycle.
fn name(entry: &Entry) -> (&str, &str, i64, &str) {
    (entry.task.stage.as_str(), &entry.task.cell, entry.attempt.into(), entry.event.word())
}

/// The tasks of these keys, their rows locked, and the cycle held against a new owner: under a lease only if it is still good,
/// which makes fence and locks one question.
pub(super) async fn locked_tasks(
    connection: &mut PgConnection,
    cycle: CycleId,
    lease: Option<&Lease>,
    keys: impl Iterator<Item = &TaskKey>,
) -> Result<HashMap<TaskKey, Locked>, Trouble> {
    let keys: BTreeSet<&TaskKey> = keys.collect();
    let rows: Vec<LockedRow> = sqlx::query_as(
        // Looked up one by one through the key, whatever the planner thinks of tables it has not analysed yet: else each batch
        // of a wide cycle would read all of its tasks. It also locks them in the order of the arrays.
        "select found.stage, found.cell, found.attempt, found.failed_attempts, found.status, found.output::text,
                found.failure::text, found.reason, found.pool
         from unnest($4::text[], $5::text[]) as wanted (stage, cell)
         cross join lateral (
             select * from task
             where task.cycle_id = $1 and task.stage = wanted.stage and task.cell = wanted.cell
             limit 1 for update
         ) found
         join cycle on cycle.cycle_id = $1
         where $2::uuid is null or (cycle.owner = $2 and cycle.epoch = $3 and cycle.status = 'open')
         for share of cycle",
    )
    .bind(cycle.as_uuid())
    .bind(lease.map(|lease| lease.owner))
    .bind(lease.map(|lease| lease.epoch))
    .bind(keys.iter().map(|key| key.stage.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.cell.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let tasks = rows.into_iter().map(|row| {
        let state = row.state.state()?;
        Ok((state.key.clone(), Locked { state, pool: row.pool, is_changed: false, begins: false }))
    });
    tasks.collect()
}

/// Fail with the first line that does not fit and has not been written before under this lease.
async fn refuse_unless_recorded(
    connection: &mut PgConnection,
    lease: &Lease,
    doubts: Vec<(&Entry, Trouble)>,
) -> Result<(), Trouble> {
    if doubts.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = doubts.iter().map(|(entry, _)| name(entry)).collect();
    let recorded: Vec<(String, String, i64, String)> = sqlx::query_as(
        "select stage, cell, attempt::bigint, kind
         from task_event join unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) as line (stage, cell, attempt, kind)
              using (stage, cell, attempt, kind)
         where cycle_id = $1 and epoch = $6",
    )
    .bind(lease.cycle.as_uuid())
    .bind(names.iter().map(|name| name.0).collect::<Vec<_>>())
    .bind(names.iter().map(|name| name.1).collect::<Vec<_>>())
    .bind(names.iter().map(|name| name.2).collect::<Vec<_>>())
    .bind(names.iter().map(|name| name.3).collect::<Vec<_>>())
    .bind(lease.epoch)
    .fetch_all(connection)
    .await?;
    let recorded: HashSet<_> =
        recorded.iter().map(|(stage, cell, attempt, kind)| (&**stage, &**cell, *attempt, &**kind)).collect();
    match doubts.into_iter().find(|(entry, _)| !recorded.contains(&name(entry))) {
        Some((_, trouble)) => Err(trouble),
        None => Ok(()),
    }
}

/// Write the events and the new rows of the tasks that have changed, in one statement.
pub(super) async fn write(
    connection: &mut PgConnection,
    (cycle, epoch): (CycleId, i64),
    lines: &[&Entry],
    tasks: impl Iterator<Item = Locked>,
) -> Result<(), Trouble> {
    if lines.is_empty() {
        return Ok(());
    }
    let tasks: Vec<Locked> = tasks.filter(|task| task.is_changed).collect();
    let payloads: Vec<String> = lines.iter().map(|entry| json(&entry.event)).collect::<Result<_, _>>()?;
    let columns: Vec<StatusColumns> =
        tasks.iter().map(|task| StatusColumns::new(&task.state.status)).collect::<Result<_, _>>()?;
    sqlx::query(
        "with line as (
             insert into task_event (cycle_id, stage, cell, attempt, kind, epoch, payload)
             select $1, stage, cell, attempt, kind, $2, payload::json
             from unnest($3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[])
                  as line (stage, cell, attempt, kind, payload)
         )
         update task
         set status = changed.status, attempt = changed.attempt, failed_attempts = changed.failed_attempts,
             output = changed.output::json, failure = changed.failure::json, reason = changed.reason, pool = changed.pool,
             started_at = case when begins then coalesce(started_at, clock_timestamp()) else started_at end,
             finished_at = case when ends then clock_timestamp() end
         from unnest($8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::text[], $14::text[],
                     $15::text[], $16::text[], $17::boolean[], $18::boolean[])
              as changed (stage, cell, status, attempt, failed_attempts, output, failure, reason, pool, begins, ends)
         -- The rows are locked and stay where they are; see `locked_tasks` for why they are looked up one by one.
         cross join lateral (
             select ctid as place from task
             where task.cycle_id = $1 and task.stage = changed.stage and task.cell = changed.cell
             limit 1
         ) found
         where task.ctid = found.place",
    )
    .bind(cycle.as_uuid())
    .bind(epoch)
    .bind(lines.iter().map(|entry| entry.task.stage.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|entry| entry.task.cell.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|entry| i64::from(entry.attempt)).collect::<Vec<_>>())
    .bind(lines.iter().map(|entry| entry.event.word()).collect::<Vec<_>>())
    .bind(payloads)
    .bind(tasks.iter().map(|task| task.state.key.stage.as_str()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| task.state.key.cell.as_str()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| task.state.status.word()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| i64::from(task.state.attempt)).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| i64::from(task.state.failed_attempts)).collect::<Vec<_>>())
    .bind(columns.iter().map(|columns| columns.output.as_deref()).collect::<Vec<_>>())
    .bind(columns.iter().map(|columns| columns.failure.as_deref()).collect::<Vec<_>>())
    .bind(columns.iter().map(|columns| columns.reason.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| task.pool.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| task.begins).collect::<Vec<_>>())
    .bind(tasks.iter().map(|task| task.state.status.is_terminal()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What a status keeps beside its word.
#[derive(Default)]
struct StatusColumns {
    output: Option<String>,
    failure: Option<String>,
    reason: Option<String>,
}

impl StatusColumns {
    fn new(status: &TaskStatus) -> Result<Self, Error> {
        let none = Self::default();
        Ok(match status {
            TaskStatus::Pending | TaskStatus::Running | TaskStatus::Cancelled => none,
            TaskStatus::Succeeded { output } => Self { output: Some(json(output)?), ..none },
            TaskStatus::Failed { failure } | TaskStatus::Paused { failure } => {
                Self { failure: Some(json(failure)?), ..none }
            }
            TaskStatus::Skipped { reason } => Self { reason: Some(storable(reason)), ..none },
        })
    }
}

/// Add tasks to the plan, in the transaction that `connection` is in.
pub(super) async fn expand(connection: &mut PgConnection, lease: &Lease, tasks: &[TaskKey]) -> Result<(), Trouble> {
    lease::fence(connection, lease).await?;
    let stages: Vec<&str> = tasks.iter().map(|task| task.stage.as_str()).collect();
    let cells: Vec<&str> = tasks.iter().map(|task| task.cell.as_str()).collect();
    sqlx::query(
        "insert into task (cycle_id, stage, cell, position)
         select $1, stage, cell, place + (select coalesce(max(position), 0) from task where cycle_id = $1)
         from unnest($2::text[], $3::text[]) with ordinality as expanded (stage, cell, place)
         on conflict (cycle_id, stage, cell) do nothing",
    )
    .bind(lease.cycle.as_uuid())
    .bind(stages)
    .bind(cells)
    .execute(&mut *connection)
    .await?;
    Ok(super::cycle::note_growth(connection, tasks.len()).await?)
}

#[derive(sqlx::FromRow)]
struct LockedRow {
    #[sqlx(flatten)]
    state: StateRow,
    pool: Option<String>,
}

/// A task's row as [`TaskState`] is made from it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct StateRow {
    stage: String,
    cell: String,
    attempt: i32,
    failed_attempts: i32,
    status: String,
    output: Option<String>,
    failure: Option<String>,
    reason: Option<String>,
}

impl StateRow {
    pub(super) fn state(self) -> Result<TaskState, Error> {
        let unreadable = || Error::Corrupt(format!("a task `{}[{}]` that cannot be read", self.stage, self.cell));
        let status = match (self.status.as_str(), &self.output, &self.failure, &self.reason) {
            ("pending", None, None, None) => TaskStatus::Pending,
            ("running", None, None, None) => TaskStatus::Running,
            ("cancelled", None, None, None) => TaskStatus::Cancelled,
            ("succeeded", Some(output), None, None) => {
                TaskStatus::Succeeded { output: serde_json::from_str(output).map_err(|_| unreadable())? }
            }
            (word @ ("failed" | "paused"), None, Some(failure), None) => {
                let failure: TaskFailure = serde_json::from_str(failure).map_err(|_| unreadable())?;
                if word == "failed" { TaskStatus::Failed { failure } } else { TaskStatus::Paused { failure } }
            }
            ("skipped", None, None, Some(reason)) => TaskStatus::Skipped { reason: reason.clone() },
            _ => return Err(unreadable()),
        };
        let key = TaskKey { stage: self.stage.parse().map_err(|_| unreadable())?, cell: self.cell.clone() };
        let number = |value: i32| u32::try_from(value).map_err(|_| unreadable());
        Ok(TaskState { key, attempt: number(self.attempt)?, failed_attempts: number(self.failed_attempts)?, status })
    }
}

/// Text that Postgres takes: it knows no U+0000.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The text of a value for a `json` column.
pub(super) fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Query(sqlx::Error::Encode(Box::new(error))))
}
