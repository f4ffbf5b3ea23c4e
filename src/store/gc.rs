//! Retention: episodes, attempts and events of cycles that ended long ago go; scores, weights, outputs, definition and salt
//! stay for good.
//!
//! Rows go in batches of a short transaction each, so that nobody waits and a crash loses nothing but the rest of the
//! work: a cycle that is half gone is marked as such before its first row goes, and is finished the next time.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::cycle::CycleId;

use super::{Error, Store};

/// Rows deleted in one transaction.
const BATCH: i64 = 5000;

/// Serialises collectors: any number of backends may run one.
const LOCK: i64 = 0x726f_626f_6763;

/// What went, or would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Aged {
    /// Cycles.
    pub cycles: u64,
    /// Their episodes.
    pub episodes: u64,
    /// Attempts that were lost to faults of ours.
    pub attempts: u64,
    /// Lines of their journals.
    pub events: u64,
    /// What those rows took, without indexes.
    pub bytes: u64,
}

/// A table whose rows go: how they are deleted, how they are counted, and where that is noted. Children first.
struct Detail {
    delete: &'static str,
    count: &'static str,
    note: &'static str,
}

const DETAILS: [Detail; 3] = [
    Detail {
        delete: "with gone as (
                     delete from episode_attempt
                     where ctid = any(array(select ctid from episode_attempt where cycle_id = $1 limit $2))
                     returning pg_column_size(episode_attempt.*) as size)
                 select count(*), coalesce(sum(size), 0)::bigint from gone",
        count: "select count(*), coalesce(sum(pg_column_size(episode_attempt.*)), 0)::bigint
                from episode_attempt where cycle_id = $1",
        note: "update aged_out set attempts = attempts + $2, bytes = bytes + $3 where cycle_id = $1",
    },
    Detail {
        delete: "with gone as (
                     delete from episode where ctid = any(array(select ctid from episode where cycle_id = $1 limit $2))
                     returning pg_column_size(episode.*) as size)
                 select count(*), coalesce(sum(size), 0)::bigint from gone",
        count: "select count(*), coalesce(sum(pg_column_size(episode.*)), 0)::bigint from episode where cycle_id = $1",
        note: "update aged_out set episodes = episodes + $2, bytes = bytes + $3 where cycle_id = $1",
    },
    Detail {
        delete: "with gone as (
                     delete from task_event
                     where ctid = any(array(select ctid from task_event where cycle_id = $1 limit $2))
                     returning pg_column_size(task_event.*) as size)
                 select count(*), coalesce(sum(size), 0)::bigint from gone",
        count: "select count(*), coalesce(sum(pg_column_size(task_event.*)), 0)::bigint
                from task_event where cycle_id = $1",
        note: "update aged_out set events = events + $2, bytes = bytes + $3 where cycle_id = $1",
    },
];

impl Aged {
    fn add(&mut self, table: usize, rows: i64, bytes: i64) {
        let counter = match table {
            0 => &mut self.attempts,
            1 => &mut self.episodes,
            _ => &mut self.events,
        };
        *counter += rows.unsigned_abs();
        self.bytes += bytes.unsigned_abs();
    }
}

impl Store {
    /// Delete the detail of every cycle that ended longer ago than `age`, and tell `progress` after each batch. Safe to
    /// call from any number of processes and to interrupt at any point.
    pub async fn collect_garbage(&self, age: Duration, progress: &(dyn Fn(&Aged) + Sync)) -> Result<Aged, Error> {
        let mut aged = Aged::default();
        for cycle in self.old_cycles(age).await? {
            self.ask(|| mark(self, cycle)).await?;
            aged.cycles += 1;
            for (table, detail) in DETAILS.iter().enumerate() {
                loop {
                    let (rows, bytes) = self.ask(|| delete_batch(self, cycle, detail)).await?;
                    aged.add(table, rows, bytes);
                    progress(&aged);
                    if rows < BATCH {
                        break;
                    }
                }
            }
            self.ask(|| async {
                // A few rows for each miner, which belong to its episodes.
                let seen = "delete from miner_sighting where cycle_id = $1 and exists (select from aged_out where cycle_id = $1)";
                sqlx::query(seen).bind(cycle.as_uuid()).execute(&self.pool).await?;
                let done = "update aged_out set ended_at = clock_timestamp() where cycle_id = $1 and ended_at is null";
                sqlx::query(done).bind(cycle.as_uuid()).execute(&self.pool).await?;
                Ok(())
            })
            .await?;
        }
        Ok(aged)
    }

    /// What [`Store::collect_garbage`] would delete now.
    pub async fn count_garbage(&self, age: Duration) -> Result<Aged, Error> {
        let mut aged = Aged::default();
        for cycle in self.old_cycles(age).await? {
            aged.cycles += 1;
            for (table, detail) in DETAILS.iter().enumerate() {
                let (rows, bytes): (i64, i64) = self
                    .ask(|| async {
                        Ok(sqlx::query_as(detail.count).bind(cycle.as_uuid()).fetch_one(&self.pool).await?)
                    })
                    .await?;
                aged.add(table, rows, bytes);
            }
        }
        Ok(aged)
    }

    /// Cycles that ended longer ago than `age` and still have detail, the oldest first.
    async fn old_cycles(&self, age: Duration) -> Result<Vec<CycleId>, Error> {
        self.ask(|| async {
            let ids: Vec<Uuid> = sqlx::query_scalar(
                "select cycle_id from cycle left join aged_out using (cycle_id)
                 where status <> 'open' and finished_at < clock_timestamp() - $1 * interval '1 second'
                   and ended_at is null
                 order by cycle_id",
            )
            .bind(age.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
            Ok(ids.into_iter().map(CycleId::from).collect())
        })
        .await
    }
}

/// Say that a cycle's detail goes. Waits for forks that are being made of it; those that come later are refused.
async fn mark(store: &Store, cycle: CycleId) -> Result<(), Error> {
    let mut transaction = store.pool.begin().await?;
    let ended: Option<i32> =
        sqlx::query_scalar("select 1 from cycle where cycle_id = $1 and status <> 'open' for update")
            .bind(cycle.as_uuid())
            .fetch_optional(&mut *transaction)
            .await?;
    if ended.is_some() {
        super::tally::keep(&mut transaction, cycle.as_uuid()).await?;
        // One that an older version has ended, while this one brought the schema up to date, has none yet.
        super::cycle::keep_episode_count(&mut transaction, cycle.as_uuid()).await?;
        sqlx::query("insert into aged_out (cycle_id) values ($1) on conflict do nothing")
            .bind(cycle.as_uuid())
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

async fn delete_batch(store: &Store, cycle: CycleId, detail: &Detail) -> Result<(i64, i64), Error> {
    let mut transaction = store.pool.begin().await?;
    let (rows, bytes) = delete_in(&mut transaction, cycle, detail).await?;
    transaction.commit().await?;
    Ok((rows, bytes))
}

async fn delete_in(connection: &mut PgConnection, cycle: CycleId, detail: &Detail) -> Result<(i64, i64), Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *connection).await?;
    // A cycle that somebody has opened again keeps what it has.
    let is_marked: bool = sqlx::query_scalar("select exists (select from aged_out where cycle_id = $1)")
        .bind(cycle.as_uuid())
        .fetch_one(&mut *connection)
        .await?;
    if !is_marked {
        return Ok((0, 0));
    }
    let (rows, bytes): (i64, i64) =
        sqlx::query_as(detail.delete).bind(cycle.as_uuid()).bind(BATCH).fetch_one(&mut *connection).await?;
    sqlx::query(detail.note).bind(cycle.as_uuid()).bind(rows).bind(bytes).execute(connection).await?;
    Ok((rows, bytes))
}
