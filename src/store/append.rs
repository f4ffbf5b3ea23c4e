//! One line of a cycle's journal: the event, the task's new status and its publication, together or not at all.

use serde::Serialize;
use sqlx::PgConnection;

use crate::cycle::{Appended, CycleId, Entry, Lease, TaskFailure, TaskKey, TaskState, TaskStatus};

use super::{Error, error::Trouble, lease, publication};

/// Write `entry` in the transaction that `connection` is in.
pub(super) async fn append(connection: &mut PgConnection, lease: &Lease, entry: &Entry) -> Result<Appended, Trouble> {
    lease::fence(connection, lease).await?;
    // The task's row is locked first, so that two writers of one task see each other's lines.
    let task = locked_task(connection, lease.cycle, &entry.task).await?;
    let is_new = sqlx::query(
        "insert into task_event (cycle_id, stage, cell, attempt, kind, epoch, payload)
         values ($1, $2, $3, $4, $5, $6, $7::text::json)
         on conflict on constraint task_event_once do nothing",
    )
    .bind(lease.cycle.as_uuid())
    .bind(entry.task.stage.as_str())
    .bind(&entry.task.cell)
    .bind(i64::from(entry.attempt))
    .bind(entry.event.word())
    .bind(lease.epoch)
    .bind(json(&entry.event)?)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if is_new == 0 {
        return Ok(Appended::AlreadyRecorded);
    }
    let next = task.record(entry.attempt, &entry.event).map_err(crate::cycle::JournalError::from)?;
    write_task(connection, lease.cycle, &next).await?;
    if let Some(document) = &entry.publication {
        publication::insert(connection, lease.cycle, document).await?;
    }
    Ok(Appended::Recorded)
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
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn locked_task(
    connection: &mut PgConnection,
    cycle: CycleId,
    key: &TaskKey,
) -> Result<TaskState, Trouble> {
    let row: Option<StateRow> = sqlx::query_as(
        "select stage, cell, attempt, failed_attempts, status, output::text, failure::text, reason
         from task where cycle_id = $1 and stage = $2 and cell = $3 for update",
    )
    .bind(cycle.as_uuid())
    .bind(key.stage.as_str())
    .bind(&key.cell)
    .fetch_optional(connection)
    .await?;
    let row = row.ok_or_else(|| Error::NotPlanned(format!("the task `{key}` of cycle `{cycle}`")))?;
    Ok(row.state()?)
}

pub(super) async fn write_task(connection: &mut PgConnection, cycle: CycleId, task: &TaskState) -> Result<(), Trouble> {
    let (output, failure, reason) = match &task.status {
        TaskStatus::Pending | TaskStatus::Running | TaskStatus::Cancelled => (None, None, None),
        TaskStatus::Succeeded { output } => (Some(json(output)?), None, None),
        TaskStatus::Failed { failure } | TaskStatus::Paused { failure } => (None, Some(json(failure)?), None),
        TaskStatus::Skipped { reason } => (None, None, Some(storable(reason))),
    };
    sqlx::query(
        "update task
         set status = $4, attempt = $5, failed_attempts = $6, output = $7::text::json, failure = $8::text::json,
             reason = $9,
             started_at = case when $4 = 'running' then coalesce(started_at, clock_timestamp()) else started_at end,
             finished_at = case when $4 in ('pending', 'running', 'paused') then null else clock_timestamp() end
         where cycle_id = $1 and stage = $2 and cell = $3",
    )
    .bind(cycle.as_uuid())
    .bind(task.key.stage.as_str())
    .bind(&task.key.cell)
    .bind(task.status.word())
    .bind(i64::from(task.attempt))
    .bind(i64::from(task.failed_attempts))
    .bind(output)
    .bind(failure)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
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
