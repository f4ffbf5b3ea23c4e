//! The lease of a cycle: who may write, and the fence that every write passes.

use sqlx::PgConnection;
use uuid::Uuid;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::cycle::{CycleId, CycleStatus, Heartbeat, JournalError, Lease};

use super::{Error, error::Trouble, holder::Holder};

/// The fence: hold the cycle's row against a new owner until this transaction ends, if the lease is still good.
///
/// Writers of one cycle do not wait for each other (the lock is shared); `acquire` and `finish` wait for all of them.
pub(super) async fn fence(connection: &mut PgConnection, lease: &Lease) -> Result<(), Trouble> {
    let held = sqlx::query(
        "select 1 from cycle where cycle_id = $1 and owner = $2 and epoch = $3 and status = 'open' for share",
    )
    .bind(lease.cycle.as_uuid())
    .bind(lease.owner)
    .bind(lease.epoch)
    .fetch_optional(&mut *connection)
    .await?;
    if held.is_some() { Ok(()) } else { Err(lost(connection, lease).await?) }
}

/// What to say when the fence held nothing.
async fn lost(connection: &mut PgConnection, lease: &Lease) -> Result<Trouble, Error> {
    let exists: bool = sqlx::query_scalar("select exists (select from cycle where cycle_id = $1)")
        .bind(lease.cycle.as_uuid())
        .fetch_one(connection)
        .await?;
    let cycle = lease.cycle;
    Ok(if exists { JournalError::LeaseLost(cycle) } else { JournalError::Unknown(cycle) }.into())
}

#[derive(sqlx::FromRow)]
struct Held {
    status: String,
    owner: Option<Uuid>,
    epoch: i64,
    lease_until: Option<DateTime<Utc>>,
    is_live: bool,
    holder: Option<Value>,
}

/// Hold a cycle that nobody runs against a new owner until this transaction ends; its status.
pub(super) async fn hold_for_a_person(connection: &mut PgConnection, cycle: CycleId) -> Result<String, Trouble> {
    let held = held(connection, cycle).await?;
    if let Some(until) = held.live_until() {
        return Err(JournalError::Leased(cycle, until).into());
    }
    Ok(held.status)
}

async fn held(connection: &mut PgConnection, cycle: CycleId) -> Result<Held, Trouble> {
    let held: Option<Held> = sqlx::query_as(
        "select status, owner, epoch, lease_until, coalesce(lease_until > clock_timestamp(), false) as is_live, holder
         from cycle where cycle_id = $1 for update",
    )
    .bind(cycle.as_uuid())
    .fetch_optional(connection)
    .await?;
    Ok(held.ok_or(JournalError::Unknown(cycle))?)
}

impl Held {
    /// Until when the lease is good, unless it has run out or its holder is known to be dead.
    fn live_until(&self) -> Option<DateTime<Utc>> {
        self.lease_until.filter(|_| self.is_live && !Holder::is_known_dead(self.holder.as_ref()))
    }
}

/// Take the lease for `owner`. Doing it twice with one owner is doing it once.
pub(super) async fn acquire(connection: &mut PgConnection, cycle: CycleId, owner: Uuid) -> Result<Lease, Trouble> {
    let held = held(connection, cycle).await?;
    if held.status != CycleStatus::Open.word() {
        return Err(JournalError::LeaseLost(cycle).into());
    }
    if held.owner == Some(owner) {
        return Ok(Lease { cycle, owner, epoch: held.epoch });
    }
    if let Some(until) = held.live_until() {
        return Err(JournalError::Leased(cycle, until).into());
    }
    let epoch: i64 = sqlx::query_scalar(
        "update cycle
         set owner = $2, epoch = epoch + 1, lease_until = clock_timestamp() + interval '15 seconds', holder = $3,
             paused_at = null
         where cycle_id = $1
         returning epoch",
    )
    .bind(cycle.as_uuid())
    .bind(owner)
    .bind(Holder::current().map(|holder| holder.to_json()))
    .fetch_one(connection)
    .await?;
    Ok(Lease { cycle, owner, epoch })
}

/// Prolong the lease. One that has run out and that nobody has taken is good again.
pub(super) async fn heartbeat(connection: &mut PgConnection, lease: &Lease) -> Result<Heartbeat, Trouble> {
    let cancel_requested: Option<bool> = sqlx::query_scalar(
        "update cycle set lease_until = clock_timestamp() + interval '15 seconds'
         where cycle_id = $1 and owner = $2 and epoch = $3 and status = 'open'
         returning cancel_requested",
    )
    .bind(lease.cycle.as_uuid())
    .bind(lease.owner)
    .bind(lease.epoch)
    .fetch_optional(&mut *connection)
    .await?;
    match cancel_requested {
        Some(cancel_requested) => Ok(Heartbeat { cancel_requested }),
        None => Err(lost(connection, lease).await?),
    }
}

/// Give the lease back with the cycle in `status`, or `cancelled` in place of `completed` when somebody has asked for that; how it
/// stands then. An epoch belongs to one lease only, so a cycle without an owner that still has ours is one we have left already.
pub(super) async fn leave(
    connection: &mut PgConnection,
    lease: &Lease,
    status: CycleStatus,
    reason: Option<&str>,
) -> Result<CycleStatus, Trouble> {
    let left: Option<String> = sqlx::query_scalar(
        "update cycle
         set status = case when $4 = 'completed' and cancel_requested then 'cancelled' else $4 end,
             reason = $5, owner = null, lease_until = null, holder = null,
             finished_at = case when $4 = 'open' then null else clock_timestamp() end
         where cycle_id = $1 and owner = $2 and epoch = $3 and status = 'open'
         returning status",
    )
    .bind(lease.cycle.as_uuid())
    .bind(lease.owner)
    .bind(lease.epoch)
    .bind(status.word())
    .bind(reason)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(word) = left {
        let left = super::cycle::status(&word)?;
        if left != CycleStatus::Open {
            super::cycle::keep_episode_count(connection, lease.cycle.as_uuid()).await?;
        }
        return Ok(left);
    }
    let before: Option<String> = sqlx::query_scalar(
        "select status from cycle
         where cycle_id = $1 and owner is null and epoch = $2
           and status = case when $3 = 'completed' and cancel_requested then 'cancelled' else $3 end",
    )
    .bind(lease.cycle.as_uuid())
    .bind(lease.epoch)
    .bind(status.word())
    .fetch_optional(&mut *connection)
    .await?;
    match before {
        Some(word) => Ok(super::cycle::status(&word)?),
        None => Err(lost(connection, lease).await?),
    }
}
