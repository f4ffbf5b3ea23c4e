//! How things stand now, for metrics: what waits, what runs, who holds it. One question for all of it, which sees one state
//! of the database.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::{Counters, Error, Store, Tally, holder::Holder, tally};

/// Ready are tasks that wait for nothing but a free place: whatever they depend on has ended, and so have the phases
/// before theirs.
const TASKS: &str = "
    with stage as (
        select cycle_id, planned ->> 'id' as stage, (planned -> 'depends_on')::jsonb as needs,
               array_position(array['main', 'on_failure', 'finally'], planned ->> 'phase') as phase
        from cycle cross join lateral json_array_elements(definition -> 'stages') planned
        where status = 'open'
    ), counted as (
        select stage.cycle_id, stage.stage, needs, phase, count(*) filter (where task.status = 'pending') as pending,
               count(*) filter (where task.status = 'running') as running,
               count(*) filter (where task.status = 'paused') as paused
        from stage join task on task.cycle_id = stage.cycle_id and task.stage = stage.stage
        group by stage.cycle_id, stage.stage, needs, phase
    ), judged as (
        select pending, running, paused, not exists (
            select from counted other
            where other.cycle_id = counted.cycle_id and other.pending + other.running + other.paused > 0
              and (other.phase < counted.phase or counted.needs ? other.stage)
        ) as is_ready
        from counted
    )
    select coalesce(sum(pending) filter (where is_ready), 0)::bigint as ready,
           coalesce(sum(pending) filter (where not is_ready), 0)::bigint as waiting,
           coalesce(sum(running), 0)::bigint as running, coalesce(sum(paused), 0)::bigint as paused
    from judged";

/// Environment servers that cycles have started, by what they run as.
const SERVERS: &str = "
    select count(*) filter (where kind = 'process') as process, count(*) filter (where kind = 'container') as container,
           count(*) filter (where kind = 'service') as service
    from resource where name like 'the environment server%'";

/// How the connections of this process are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Open.
    pub size: u32,
    /// Of these, not used at the moment.
    pub idle: u32,
}

/// Tasks of open cycles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Queue {
    /// Wait for a free place.
    pub ready: i64,
    /// Wait for other tasks.
    pub waiting: i64,
    /// Run.
    pub running: i64,
    /// Wait for a person.
    pub paused: i64,
}

/// Environment servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Servers {
    /// As processes.
    pub process: i64,
    /// In containers.
    pub container: i64,
    /// As services of a swarm.
    pub service: i64,
}

/// The newest cycles of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LastCycle {
    /// The pipeline's name.
    pub pipeline: String,
    /// When the newest was created.
    pub created_at: DateTime<Utc>,
    /// When the last one that completed did so.
    pub completed_at: Option<DateTime<Utc>>,
}

/// How things stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gauges {
    /// What has been counted so far.
    pub tally: Tally,
    /// Cycles under a live lease, and those of them that this process holds.
    pub leases: (i64, i64),
    /// Tasks of open cycles.
    pub tasks: Queue,
    /// Episodes of open cycles that are still to be played.
    pub episodes_pending: i64,
    /// Environment servers that run.
    pub servers: Servers,
    /// By pipeline.
    pub last_cycles: Vec<LastCycle>,
}

impl Store {
    /// How things stand. Not tried again when the database is away: whoever asks does so again soon.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub async fn gauges(&self, counters: &Counters) -> Result<Gauges, Error> {
        let mut connection = self.pool.acquire().await?;
        tally::catch_up(&mut connection).await?;
        let mut transaction = connection.begin_with("begin isolation level repeatable read read only").await?;
        let gauges = Gauges {
            tally: counters.read(&mut transaction).await?,
            leases: leases(&mut transaction).await?,
            tasks: sqlx::query_as(TASKS).fetch_one(&mut *transaction).await?,
            episodes_pending: sqlx::query_scalar(
                "select count(*) from cycle join episode using (cycle_id)
                 where status = 'open' and (outcome is null or outcome = 'infra_fault')",
            )
            .fetch_one(&mut *transaction)
            .await?,
            servers: sqlx::query_as(SERVERS).fetch_one(&mut *transaction).await?,
            last_cycles: sqlx::query_as(
                "select pipeline, max(created_at) as created_at,
                        max(finished_at) filter (where status = 'completed') as completed_at
                 from cycle where origin = 'run' group by pipeline order by pipeline",
            )
            .fetch_all(&mut *transaction)
            .await?,
        };
        transaction.commit().await?;
        Ok(gauges)
    }

    /// How the connections of this process are used.
    pub fn pool_state(&self) -> PoolState {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        PoolState { size: self.pool.size(), idle: idle.min(self.pool.size()) }
    }
}

async fn leases(connection: &mut PgConnection) -> Result<(i64, i64), Error> {
    let own = Holder::current().map(|holder| holder.to_json());
    let counts = sqlx::query_as(
        "select count(*), count(*) filter (where holder = $1) from cycle where lease_until > clock_timestamp()",
    );
    Ok(counts.bind(own).fetch_one(connection).await?)
}
