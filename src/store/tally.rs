//! Counters that survive restarts and the deletion of old episodes: how cycles ended, how episodes did, how long attempts
//! and actions took.
//!
//! A cycle that has ended is counted once, into a row of `tally`; only open cycles are counted anew each time. A cycle that is
//! opened again keeps the row of its first end, of which only the end still counts. So no counter ever goes back.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;

/// Upper bounds of the buckets of a cycle's duration, in seconds.
pub const CYCLE_SECONDS: [f64; 10] = [30.0, 60.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0];

/// Those of an attempt of a task. Tallies hold the number of the bucket: whoever changes these changes what they mean.
pub const STAGE_SECONDS: [f64; 12] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0];

/// Those of an episode's median latency. The same holds for them.
pub const LATENCY_SECONDS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0];

/// Cycles that are tallied in one go; after an upgrade there may be thousands.
const MOST: i64 = 20;

/// Everything that is counted of the cycles in `$1`. Lines that came with a fork are its parent's.
macro_rules! counts {
    () => {
        "select 'episode' as what, outcome as label, coalesce(episode.reason, '') as detail, 0 as bucket, count(*) as count,
                0::float8 as total
         from episode join cycle using (cycle_id)
         where cycle_id = any($1) and outcome <> 'infra_fault' and episode.finished_at >= cycle.created_at
         group by outcome, coalesce(episode.reason, '')
         union all
         select 'episode', 'infra_fault', episode_attempt.reason, 0, count(*), 0
         from episode_attempt join cycle using (cycle_id)
         where cycle_id = any($1) and at >= cycle.created_at group by episode_attempt.reason
         union all
         select 'latency', '', '', width_bucket(latency_p50_ms / 1000, $2), count(*), sum(latency_p50_ms / 1000)
         from episode join cycle using (cycle_id)
         where cycle_id = any($1) and outcome <> 'infra_fault' and latency_p50_ms is not null and steps > 0
           and episode.finished_at >= cycle.created_at
         group by 4
         union all
         select 'stage', uses, '', width_bucket(seconds, $3), count(*), sum(seconds)
         from (
             select uses, extract(epoch from ended.at - began.at)::float8 as seconds
             from task_event began
             join task_event ended using (cycle_id, stage, cell, attempt, epoch)
             join (
                 select cycle_id, planned ->> 'id' as stage, planned ->> 'uses' as uses
                 from cycle
                 -- PostgreSQL does not read NUL in texts, and no stage is called so.
                 cross join lateral json_array_elements(replace(definition::text, '\\u0000', '\\ufffd')::json -> 'stages') planned
                 where cycle_id = any($1)
             ) listed using (cycle_id, stage)
             where cycle_id = any($1) and began.epoch > 0
               and began.kind = 'started' and ended.kind in ('succeeded', 'retried', 'failed', 'paused', 'cancelled')
         ) attempt
         group by uses, 4"
    };
}

/// How often the cycles of a pipeline ended like this.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Ended {
    /// The pipeline's name.
    pub pipeline: String,
    /// `completed`, `failed` or `cancelled`.
    pub status: String,
    /// How often.
    pub count: i64,
}

/// Values in a bucket: the first holds what is below the first bound, the last what is above all.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct InBucket {
    /// Its place.
    pub bucket: i32,
    /// How many.
    pub count: i64,
    /// Their sum.
    pub total: f64,
}

/// A number of things that were counted.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Count {
    /// `episode`, `latency` or `stage`.
    pub what: String,
    /// An episode's outcome, a stage's kind.
    pub label: String,
    /// The reason of a fault.
    pub detail: String,
    /// Place in the bounds, where it is a duration.
    pub bucket: i32,
    /// How many.
    pub count: i64,
    /// Sum of the durations.
    pub total: f64,
}

/// What cycles that have ended come to. It changes only when another one ends.
#[derive(Debug, Clone, Default)]
struct Past {
    mark: Mark,
    counts: Vec<Count>,
    ended: Vec<Ended>,
    durations: Vec<InBucket>,
}

/// What tells one state of the past from the next.
type Mark = (i64, Option<DateTime<Utc>>);

/// The counters of a database as they were the last time, so that only what is new is counted. One for a process.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Past>);

/// All of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Episodes, latencies and attempts. Several may have the same labels.
    pub counts: Vec<Count>,
    /// How cycles ended.
    pub ended: Vec<Ended>,
    /// How long completed ones took that were not made of others.
    pub durations: Vec<InBucket>,
}

impl Counters {
    /// The counters in the transaction that `connection` is in, which sees one state of everything.
    pub(super) async fn read(&self, connection: &mut PgConnection) -> Result<Tally, Error> {
        let mark: Mark = sqlx::query_as(
            "select count(*) filter (where cycle.status <> 'open' and cycle.epoch = tally.epoch), max(tallied_at)
             from tally join cycle using (cycle_id)",
        )
        .fetch_one(&mut *connection)
        .await?;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let past = if known.mark == mark && mark.0 > 0 { known } else { Past::read(connection, mark).await? };
        let mut tally =
            Tally { counts: past.counts.clone(), ended: past.ended.clone(), durations: past.durations.clone() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = past;
        tally.counts.extend(open(connection).await?);
        Ok(tally)
    }
}

impl Past {
    async fn read(connection: &mut PgConnection, mark: Mark) -> Result<Self, Error> {
        let counts = sqlx::query_as(
            "select line ->> 0 as what, line ->> 1 as label, line ->> 2 as detail, (line ->> 3)::integer as bucket,
                    sum((line ->> 4)::bigint)::bigint as count, sum((line ->> 5)::float8) as total
             from tally join cycle using (cycle_id) cross join lateral jsonb_array_elements(counts) line
             where cycle.status <> 'open' and cycle.epoch = tally.epoch
             group by 1, 2, 3, 4",
        )
        .fetch_all(&mut *connection)
        .await?;
        let ended = sqlx::query_as("select pipeline, status, count(*) from tally group by 1, 2 order by 1, 2")
            .fetch_all(&mut *connection)
            .await?;
        let durations = sqlx::query_as(
            "select width_bucket(seconds, $1) as bucket, count(*) as count, sum(seconds) as total
             from tally where status = 'completed' and seconds is not null group by 1 order by 1",
        )
        .bind(CYCLE_SECONDS)
        .fetch_all(connection)
        .await?;
        Ok(Self { mark, counts, ended, durations })
    }
}

/// What is counted of cycles that run, wait, or ended a moment ago and have no tally yet.
async fn open(connection: &mut PgConnection) -> Result<Vec<Count>, Error> {
    let cycles: Vec<Uuid> = sqlx::query_scalar(
        "select cycle_id from cycle where status = 'open'
         union all
         select cycle_id from cycle where status <> 'open' and finished_at > clock_timestamp() - interval '1 minute'
           and not exists (select from tally where tally.cycle_id = cycle.cycle_id and tally.epoch = cycle.epoch)",
    )
    .fetch_all(&mut *connection)
    .await?;
    if cycles.is_empty() {
        return Ok(vec![]);
    }
    let counts = sqlx::query_as(counts!()).bind(cycles).bind(LATENCY_SECONDS).bind(STAGE_SECONDS);
    Ok(counts.fetch_all(connection).await?)
}

/// Tally some of the cycles that have ended and have no tally, the newest first.
pub(super) async fn catch_up(connection: &mut PgConnection) -> Result<(), Error> {
    let cycles: Vec<Uuid> = sqlx::query_scalar(
        "select cycle_id from cycle where status <> 'open'
           and not exists (select from tally where tally.cycle_id = cycle.cycle_id and tally.epoch = cycle.epoch)
         order by finished_at desc limit $1",
    )
    .bind(MOST)
    .fetch_all(&mut *connection)
    .await?;
    for cycle in cycles {
        keep(connection, cycle).await?;
    }
    Ok(())
}

/// Write down what an ended cycle came to, unless that is done. It has to be, before any of it is deleted or changes.
pub(super) async fn keep(connection: &mut PgConnection, cycle: Uuid) -> Result<(), Error> {
    let sql = concat!(
        "insert into tally (cycle_id, epoch, pipeline, status, seconds, counts)
         select cycle_id, epoch, pipeline, status,
                case when origin = 'run' then extract(epoch from finished_at - created_at)::float8 end,
                (select coalesce(jsonb_agg(jsonb_build_array(what, label, detail, bucket, count, total)), '[]')
                 from (",
        counts!(),
        ") line)
         from cycle
         where cycle_id = any($1) and status <> 'open'
           and not exists (select from tally where tally.cycle_id = cycle.cycle_id and tally.epoch = cycle.epoch)
         on conflict do nothing"
    );
    sqlx::query(sql).bind([cycle]).bind(LATENCY_SECONDS).bind(STAGE_SECONDS).execute(connection).await?;
    Ok(())
}
