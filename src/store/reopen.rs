//! What a person does to a cycle that nobody runs: paused tasks go on, tasks that have not succeeded run again.
//!
//! The triggers allow exactly what is written here; whatever has succeeded stays out of reach.

use sqlx::PgConnection;

use crate::cycle::{CycleId, CycleStatus, JournalError, Lease, TaskEvent, TaskKey, TaskStatus};

use super::{
    append::{json, locked_task, write_task},
    error::Trouble,
    lease,
};

/// Remember that the cycle, whose lease has just been given back, waits for a person.
pub(super) async fn mark_paused(connection: &mut PgConnection, lease: &Lease) -> Result<(), Trouble> {
    sqlx::query(
        "update cycle set paused_at = coalesce(paused_at, clock_timestamp()) where cycle_id = $1 and epoch = $2",
    )
    .bind(lease.cycle.as_uuid())
    .bind(lease.epoch)
    .execute(connection)
    .await?;
    Ok(())
}

/// Reopen tasks, and with them their cycle, in the transaction that `connection` is in.
pub(super) async fn reopen(connection: &mut PgConnection, cycle: CycleId, tasks: &[TaskKey]) -> Result<(), Trouble> {
    let status = lease::hold_for_a_person(connection, cycle).await?;
    if status == CycleStatus::Completed.word() {
        return Err(JournalError::Completed(cycle).into());
    }
    // A new epoch voids the lease of whoever may have fallen asleep over the cycle.
    let epoch: i64 = sqlx::query_scalar(
        "update cycle
         set status = 'open', reason = null, cancel_requested = cancel_requested and status = 'open', finished_at = null, paused_at = null,
             owner = null, lease_until = null, holder = null, epoch = epoch + 1
         where cycle_id = $1
         returning epoch",
    )
    .bind(cycle.as_uuid())
    .fetch_one(&mut *connection)
    .await?;
    for key in tasks {
        reopen_task(connection, (cycle, epoch), key).await?;
    }
    Ok(())
}

async fn reopen_task(
    connection: &mut PgConnection,
    (cycle, epoch): (CycleId, i64),
    key: &TaskKey,
) -> Result<(), Trouble> {
    let task = locked_task(connection, cycle, key).await?;
    let event = match (&task.status, task.status.reopening()) {
        (TaskStatus::Succeeded { .. }, _) => TaskEvent::Reopened,
        (_, Some(event)) => event,
        (_, None) => return Ok(()),
    };
    let next = task.record(task.attempt, &event).map_err(JournalError::from)?;
    sqlx::query(
        "insert into task_event (cycle_id, stage, cell, attempt, kind, epoch, payload)
         values ($1, $2, $3, $4, $5, $6, $7::text::json)",
    )
    .bind(cycle.as_uuid())
    .bind(key.stage.as_str())
    .bind(&key.cell)
    .bind(i64::from(next.attempt))
    .bind(event.word())
    .bind(epoch)
    .bind(json(&event)?)
    .execute(&mut *connection)
    .await?;
    write_task(connection, cycle, &next).await
}
