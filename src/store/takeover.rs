//! What a person does to a cycle against its course: take it from an owner that hangs or sits behind a broken network, and
//! give episodes whose tries are used up as many again.

use sqlx::PgConnection;

use crate::cycle::{CycleId, TaskKey};

use super::{Error, Store, error::Trouble};

impl Store {
    /// Void the lease of an open cycle. Its owner finds out at its next write or heartbeat, both of which are refused; who
    /// acquires the cycle next gets a newer epoch. Whether there was a lease to void.
    pub async fn revoke_lease(&self, cycle: CycleId) -> Result<bool, Error> {
        self.ask(|| async {
            // Not by letting it run out: a heartbeat in between would make it good again.
            let revoked = sqlx::query(
                "update cycle set owner = null, lease_until = null, holder = null
                 where cycle_id = $1 and status = 'open' and owner is not null",
            )
            .bind(cycle.as_uuid())
            .execute(&self.pool)
            .await?;
            Ok(revoked.rows_affected() == 1)
        })
        .await
    }
}

/// Let the episodes of tasks begin with all their tries, in the transaction that `connection` is in.
pub(super) async fn forgive(connection: &mut PgConnection, cycle: CycleId, tasks: &[TaskKey]) -> Result<(), Trouble> {
    let stages: Vec<&str> = tasks.iter().map(|task| task.stage.as_str()).collect();
    let cells: Vec<&str> = tasks.iter().map(|task| task.cell.as_str()).collect();
    sqlx::query(
        "update episode set forgiven = attempt
         from unnest($2::text[], $3::text[]) as again (stage, cell)
         where cycle_id = $1 and episode.stage = again.stage and episode.cell = again.cell and outcome = 'infra_fault'",
    )
    .bind(cycle.as_uuid())
    .bind(stages)
    .bind(cells)
    .execute(connection)
    .await?;
    Ok(())
}
