//! How many cycles may be open, which of them goes first, and which nobody runs.
//!
//! Nothing is counted ahead of time: whether there is room is asked of the open cycles themselves, in the transaction that
//! creates one or takes one up, and those transactions come one after the other.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::cycle::{CycleId, JournalError};
use crate::plan::{Concurrency, OnLimit};

use super::{
    Error, Publishing, Store,
    cycle::{NewCycle, insert_into},
    error::Trouble,
    holder::Holder,
};

/// Serialises what creates cycles and what takes up those with a limit.
const LOCK: i64 = 0x726f_626f_7475;

/// What came of wanting a new cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is there. With `on_limit: queue` it may have to wait for its turn.
    Created(CycleId),
    /// As many cycles of its group are open as may be, and `on_limit: skip`.
    Refused {
        /// The group.
        group: String,
        /// How many may be open.
        limit: u32,
        /// The oldest that is.
        open: CycleId,
    },
}

impl Store {
    /// Write down a new cycle with all its tasks, if its `concurrency` lets it.
    pub async fn admit_cycle(&self, new: &NewCycle) -> Result<Admission, Error> {
        self.admit_cycle_as(new, Publishing::Public).await
    }

    /// The same; the weights of a [`Publishing::Draft`] are kept beside the chain, where validators never see them.
    pub async fn admit_cycle_as(&self, new: &NewCycle, publishing: Publishing) -> Result<Admission, Error> {
        let id = CycleId::generate();
        self.ask(|| async {
            let mut transaction = self.pool.begin().await?;
            lock(&mut transaction).await?;
            super::secrecy::require_unused(&mut transaction, &new.salt, id).await?;
            let admission = admit(&mut transaction, id, new).await?;
            if publishing == Publishing::Draft {
                sqlx::query("update cycle set publishes = false where cycle_id = $1")
                    .bind(id.as_uuid())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(admission)
        })
        .await
    }

    /// Open cycles that nobody runs and whose turn it is, the oldest first. One that a person has just created is theirs to
    /// start for as long as a lease lasts; one that waits for a person is left alone, unless it is to stop.
    pub async fn idle_cycles(&self) -> Result<Vec<CycleId>, Error> {
        self.ask(|| async {
            let rows: Vec<(Uuid, bool, Option<serde_json::Value>)> = sqlx::query_as(
                "select cycle_id, coalesce(lease_until > clock_timestamp(), false), holder
                 from cycle
                 where status = 'open' and (paused_at is null or cancel_requested) and cycle_waits_for(cycle_id) is null
                   and (epoch > 0 or created_at < clock_timestamp() - interval '15 seconds'
                        or exists (select from schedule_fire fire where fire.cycle_id = cycle.cycle_id))
                 order by place",
            )
            .fetch_all(&self.pool)
            .await?;
            let is_idle = |(_, is_leased, holder): &(Uuid, bool, Option<serde_json::Value>)| {
                !is_leased || Holder::is_known_dead(holder.as_ref())
            };
            Ok(rows.into_iter().filter(is_idle).map(|(id, ..)| id.into()).collect())
        })
        .await
    }

    /// Cycles that are to stop, whose place this one takes, and that nobody runs: they still have to be cleaned up after.
    pub async fn given_up_for(&self, cycle: CycleId) -> Result<Vec<CycleId>, Error> {
        let idle = self.idle_cycles().await?;
        self.ask(|| async {
            let given_up: Vec<Uuid> = sqlx::query_scalar(
                "select other.cycle_id from cycle other join cycle this on this.cycle_id = $1
                 where other.status = 'open' and other.cancel_requested and other.place < this.place
                   and other.concurrency_group = this.concurrency_group
                 order by other.place",
            )
            .bind(cycle.as_uuid())
            .fetch_all(&self.pool)
            .await?;
            Ok(given_up.into_iter().map(CycleId::from).filter(|id| idle.contains(id)).collect())
        })
        .await
    }

    /// The cycle that has to end before this one may start.
    pub async fn waits_for(&self, cycle: CycleId) -> Result<Option<CycleId>, Error> {
        self.ask(|| async {
            let ahead = ahead(&mut *self.pool.acquire().await?, cycle).await?;
            Ok(ahead)
        })
        .await
    }
}

/// Until the transaction that `connection` is in ends, nobody else creates or takes up a cycle.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await?;
    Ok(())
}

/// Create a cycle as its `concurrency` demands, in the transaction that `connection` is in.
pub(super) async fn admit(connection: &mut PgConnection, id: CycleId, new: &NewCycle) -> Result<Admission, Error> {
    lock(connection).await?;
    let concurrency = concurrency(new)?;
    if let Some(concurrency) = &concurrency
        && let Some(open) = make_room(connection, id, concurrency).await?
    {
        return Ok(Admission::Refused { group: concurrency.group.clone(), limit: concurrency.limit, open });
    }
    insert_into(connection, id, new).await?;
    Ok(Admission::Created(id))
}

/// The limit that a cycle's definition declares.
fn concurrency(new: &NewCycle) -> Result<Option<Concurrency>, Error> {
    let declared = new.definition.get("concurrency").filter(|value| !value.is_null());
    declared
        .map(|value| serde_json::from_value(value.clone()))
        .transpose()
        .map_err(|error| Error::Corrupt(format!("a definition whose `concurrency` cannot be read: {error}")))
}

/// Write the limit beside the definition, where it can be counted: for every cycle, however it came to be created.
pub(super) async fn note_limit(connection: &mut PgConnection, id: CycleId, new: &NewCycle) -> Result<(), Error> {
    let Some(concurrency) = concurrency(new)? else { return Ok(()) };
    sqlx::query("update cycle set concurrency_group = $2, concurrency_limit = $3 where cycle_id = $1")
        .bind(id.as_uuid())
        .bind(&concurrency.group)
        .bind(i32::try_from(concurrency.limit).unwrap_or(i32::MAX))
        .execute(connection)
        .await?;
    Ok(())
}

/// Take a cycle out of its group: it neither waits for the others nor do they for it.
pub(super) async fn forget_limit(connection: &mut PgConnection, id: CycleId) -> Result<(), sqlx::Error> {
    sqlx::query("update cycle set concurrency_group = null, concurrency_limit = null where cycle_id = $1")
        .bind(id.as_uuid())
        .execute(connection)
        .await?;
    Ok(())
}

/// Do to the open cycles of a group what one more calls for. The oldest of them, when there must not be one more.
async fn make_room(
    connection: &mut PgConnection,
    new: CycleId,
    concurrency: &Concurrency,
) -> Result<Option<CycleId>, Error> {
    let open: Vec<(Uuid, bool)> = sqlx::query_as(
        "select cycle_id, cancel_requested from cycle
         where status = 'open' and concurrency_group = $1 and cycle_id <> $2 order by place",
    )
    .bind(&concurrency.group)
    .bind(new.as_uuid())
    .fetch_all(&mut *connection)
    .await?;
    let limit = concurrency.limit as usize;
    match concurrency.on_limit {
        OnLimit::Queue => Ok(None),
        OnLimit::Skip => Ok(open.first().filter(|_| open.len() >= limit).map(|(id, _)| (*id).into())),
        OnLimit::Replace => {
            let staying: Vec<Uuid> = open.iter().filter(|(_, is_cancelled)| !is_cancelled).map(|(id, _)| *id).collect();
            let excess = (staying.len() + 1).saturating_sub(limit);
            sqlx::query("update cycle set cancel_requested = true where cycle_id = any($1) and status = 'open'")
                .bind(&staying[..excess.min(staying.len())])
                .execute(connection)
                .await?;
            Ok(None)
        }
    }
}

/// Refuse a cycle whose turn has not come. Until the transaction that `connection` is in ends, the answer stays true.
pub(super) async fn check(connection: &mut PgConnection, cycle: CycleId) -> Result<(), Trouble> {
    let has_limit: Option<bool> = sqlx::query_scalar(
        "select concurrency_group is not null or waits_for_pipeline from cycle where cycle_id = $1 and owner is null",
    )
    .bind(cycle.as_uuid())
    .fetch_optional(&mut *connection)
    .await?;
    if has_limit != Some(true) {
        return Ok(());
    }
    lock(connection).await?;
    match ahead(connection, cycle).await? {
        Some(ahead) => Err(JournalError::Waits(cycle, ahead).into()),
        None => Ok(()),
    }
}

async fn ahead(connection: &mut PgConnection, cycle: CycleId) -> Result<Option<CycleId>, sqlx::Error> {
    let ahead: Option<Uuid> =
        sqlx::query_scalar("select cycle_waits_for($1)").bind(cycle.as_uuid()).fetch_one(connection).await?;
    Ok(ahead.map(CycleId::from))
}
