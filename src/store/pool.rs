//! Places in pools: how many are taken, counted from live rows while nobody else can take one.
//!
//! There are no counters, so nothing can leak: a task that ends, and a cycle whose lease runs out or whose holder is known
//! to have died, give their places back by that alone.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::cycle::{CycleId, PoolClaim, TaskKey};

use super::{Error, Store, holder::Holder};

/// Who has a place in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPlace {
    /// The pool's name.
    pub pool: String,
    /// The cycle.
    pub cycle: CycleId,
    /// Its task.
    pub task: TaskKey,
}

impl Store {
    /// The places that are taken, pool by pool: exactly those that keep others waiting.
    pub async fn pool_places(&self) -> Result<Vec<PoolPlace>, Error> {
        let rows: Vec<(String, Uuid, String, String, Option<Value>)> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select task.pool, cycle_id, task.stage, task.cell, cycle.holder
                     from task join cycle using (cycle_id)
                     where task.pool is not null and task.status = 'running' and cycle.lease_until > clock_timestamp()
                     order by task.pool, cycle.place, task.position",
                )
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        let live = rows.into_iter().filter(|(.., holder)| !Holder::is_known_dead(holder.as_ref()));
        live.map(|(pool, cycle, stage, cell, _)| {
            let stage = stage.parse().map_err(|_| Error::Corrupt(format!("a stage that is called `{stage}`")))?;
            Ok(PoolPlace { pool, cycle: cycle.into(), task: TaskKey { stage, cell } })
        })
        .collect()
    }
}

/// Wait for our turn to take places of these pools; it lasts until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, pools: &BTreeSet<&str>) -> Result<(), Error> {
    if pools.is_empty() {
        return Ok(());
    }
    // In the order of their names, as everybody does.
    sqlx::query("select pg_advisory_xact_lock(hashtextextended(name, 1869571954)) from unnest($1::text[]) as name")
        .bind(pools.iter().copied().collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Places that are taken.
pub(super) struct Occupancy {
    taken: HashMap<String, u64>,
    /// Whether the tasks of the writing cycle count: not while its lease has run out, though nobody may have taken it yet.
    counts_own: bool,
}

/// Count the places that are taken of these pools, which must be locked.
pub(super) async fn occupancy(
    connection: &mut PgConnection,
    own: CycleId,
    pools: &BTreeSet<&str>,
) -> Result<Occupancy, Error> {
    if pools.is_empty() {
        return Ok(Occupancy { taken: HashMap::new(), counts_own: false });
    }
    let rows: Vec<(String, Option<Value>, i64)> = sqlx::query_as(
        "select task.pool, cycle.holder, count(*)
         from task join cycle using (cycle_id)
         where task.pool = any($1::text[]) and task.status = 'running' and cycle.lease_until > clock_timestamp()
         group by task.pool, cycle.cycle_id",
    )
    .bind(pools.iter().copied().collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let counts_own: bool =
        sqlx::query_scalar("select coalesce(lease_until > clock_timestamp(), false) from cycle where cycle_id = $1")
            .bind(own.as_uuid())
            .fetch_one(connection)
            .await?;
    let mut taken = HashMap::new();
    for (pool, _, count) in rows.into_iter().filter(|(_, holder, _)| !Holder::is_known_dead(holder.as_ref())) {
        *taken.entry(pool).or_default() += count.unsigned_abs();
    }
    Ok(Occupancy { taken, counts_own })
}

impl Occupancy {
    /// Whether no place is left for this claim.
    pub(super) fn is_full(&self, claim: &PoolClaim) -> bool {
        self.taken.get(&claim.name).copied().unwrap_or(0) >= claim.limit.into()
    }

    /// A task of the writing cycle takes a place.
    pub(super) fn enter(&mut self, pool: &str) {
        if self.counts_own {
            *self.taken.entry(pool.to_owned()).or_default() += 1;
        }
    }

    /// A task of the writing cycle gives its place back.
    pub(super) fn leave(&mut self, pool: &str) {
        if let Some(taken) = self.taken.get_mut(pool).filter(|_| self.counts_own) {
            *taken = taken.saturating_sub(1);
        }
    }
}
