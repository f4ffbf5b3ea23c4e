//! What a person does to a cycle that nobody runs: paused tasks go on, tasks that have not succeeded run again.
//!
//! The triggers allow exactly what is written here; whatever has succeeded in the main body stays out of reach.

use serde_json::Value;
use sqlx::PgConnection;

use crate::cycle::{CycleId, CycleStatus, Entry, JournalError, Lease, Role, TaskKey};

use super::{
    Error,
    append::{locked_tasks, write},
    error::Trouble,
    lease, secrecy, turn,
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
    turn::lock(connection).await?;
    secrecy::require_secret(connection, cycle).await?;
    let status = lease::hold_for_a_person(connection, cycle).await?;
    if status == CycleStatus::Completed.word() {
        return Err(JournalError::Completed(cycle).into());
    }
    // That it ended like this stays true.
    super::tally::keep(connection, cycle.as_uuid()).await?;
    // A new epoch voids the lease of whoever may have fallen asleep over the cycle.
    let (epoch, definition): (i64, String) = sqlx::query_as(
        "update cycle
         set status = 'open', reason = null, cancel_requested = cancel_requested and status = 'open', finished_at = null, paused_at = null,
             owner = null, lease_until = null, holder = null, epoch = epoch + 1
         where cycle_id = $1
         returning epoch, definition::text",
    )
    .bind(cycle.as_uuid())
    .fetch_one(&mut *connection)
    .await?;
    let definition: Value = serde_json::from_str(&definition)
        .map_err(|error| Error::Corrupt(format!("a definition of cycle `{cycle}` that is not JSON: {error}")))?;
    let mut locked = locked_tasks(connection, cycle, None, tasks.iter()).await?;
    let mut lines = Vec::new();
    for key in tasks {
        let task =
            locked.get_mut(key).ok_or_else(|| Error::NotPlanned(format!("the task `{key}` of cycle `{cycle}`")))?;
        let reopened = task.state.reopen(Role::of(&definition, &key.stage)).map_err(JournalError::from)?;
        let Some((event, next)) = reopened else { continue };
        lines.push(Entry::new(key.clone(), next.attempt, event));
        task.change(next);
    }
    write(connection, (cycle, epoch), &lines.iter().collect::<Vec<_>>(), locked.into_values()).await
}
