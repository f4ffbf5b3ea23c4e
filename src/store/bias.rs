//! Episodes that ran again beside those that ran once, counted by the database.

use crate::cycle::CycleId;
use crate::scoring::Stratum;

use super::{Error, Store};

#[derive(sqlx::FromRow)]
struct Row {
    retried: i64,
    retried_successes: i64,
    once: i64,
    once_successes: i64,
}

impl Store {
    /// The scored episodes of a cycle by miner and environment, those with more than one try apart.
    pub async fn retried_episodes(&self, cycle: CycleId) -> Result<Vec<Stratum>, Error> {
        let rows: Vec<Row> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select count(*) filter (where attempt > 1) as retried,
                            count(*) filter (where attempt > 1 and outcome = 'success') as retried_successes,
                            count(*) filter (where attempt <= 1) as once,
                            count(*) filter (where attempt <= 1 and outcome = 'success') as once_successes
                     from episode
                     where cycle_id = $1 and outcome <> 'infra_fault'
                     group by environment, hotkey",
                )
                .bind(cycle.as_uuid())
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        let stratum = |row: Row| Stratum {
            retried: row.retried.unsigned_abs(),
            retried_successes: row.retried_successes.unsigned_abs(),
            once: row.once.unsigned_abs(),
            once_successes: row.once_successes.unsigned_abs(),
        };
        Ok(rows.into_iter().map(stratum).collect())
    }
}
