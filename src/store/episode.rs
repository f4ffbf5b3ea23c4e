//! Episodes: planned before the first one runs, each with one outcome that never changes.

use futures::{StreamExt, TryStreamExt};
use sqlx::{PgConnection, PgPool};

use crate::cycle::{
    Appended, CycleId, EnvironmentId, Episode, EpisodeKey, EpisodeReport, EpisodeTally, InvalidId, LastFault,
    LatencySummary, Lease, Outcome, PendingEpisode, TaskKey,
};

use super::{Error, Store, append::storable, error::Trouble, lease};

/// Rows per statement: large enough that round trips do not count, small enough for any server.
const CHUNK: usize = 1000;

/// Write down the episodes of a task, in the transaction that `connection` is in.
pub(super) async fn plan(
    connection: &mut PgConnection,
    lease: &Lease,
    task: &TaskKey,
    episodes: &[EpisodeKey],
) -> Result<(), Trouble> {
    lease::fence(connection, lease).await?;
    for chunk in episodes.chunks(CHUNK) {
        let environments: Vec<&str> = chunk.iter().map(|key| key.environment.as_str()).collect();
        let seeds: Vec<i64> = chunk.iter().map(|key| i64::from(key.seed_index)).collect();
        let hotkeys: Vec<&str> = chunk.iter().map(|key| key.hotkey.as_str()).collect();
        sqlx::query(
            "insert into episode (cycle_id, stage, cell, environment, seed_index, hotkey)
             select $1, $2, $3, environment, seed_index, hotkey
             from unnest($4::text[], $5::bigint[], $6::text[]) as planned (environment, seed_index, hotkey)
             on conflict (cycle_id, environment, seed_index, hotkey) do nothing",
        )
        .bind(lease.cycle.as_uuid())
        .bind(task.stage.as_str())
        .bind(&task.cell)
        .bind(environments)
        .bind(seeds)
        .bind(hotkeys)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Write down how an attempt ended, in the transaction that `connection` is in.
pub(super) async fn record(
    connection: &mut PgConnection,
    lease: &Lease,
    episode: &Episode,
) -> Result<Appended, Trouble> {
    // The fence and the lock in one question.
    let row: Option<(i32, Option<String>)> = sqlx::query_as(
        "select episode.attempt, episode.outcome
         from episode join cycle using (cycle_id)
         where cycle_id = $1 and environment = $2 and seed_index = $3 and hotkey = $4
               and cycle.owner = $5 and cycle.epoch = $6 and cycle.status = 'open'
         for update of episode for share of cycle",
    )
    .bind(lease.cycle.as_uuid())
    .bind(episode.key.environment.as_str())
    .bind(i64::from(episode.key.seed_index))
    .bind(episode.key.hotkey.as_str())
    .bind(lease.owner)
    .bind(lease.epoch)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((attempts, outcome)) = row else {
        lease::fence(connection, lease).await?;
        let EpisodeKey { environment, seed_index, hotkey } = &episode.key;
        return Err(Error::NotPlanned(format!("the episode {seed_index} of `{hotkey}` in `{environment}`")).into());
    };
    let is_final = outcome.is_some_and(|word| word != "infra_fault");
    let is_late = !episode.report.outcome.is_scored() && i64::from(episode.attempt) <= i64::from(attempts);
    if is_final || is_late {
        return Ok(Appended::AlreadyRecorded);
    }
    if let Outcome::InfraFault(_) = episode.report.outcome {
        keep_attempt(connection, lease.cycle, episode).await?;
    }
    write(connection, lease.cycle, episode).await?;
    super::actions::keep(connection, lease.cycle, episode).await?;
    Ok(Appended::Recorded)
}

async fn write(connection: &mut PgConnection, cycle: CycleId, episode: &Episode) -> Result<(), Trouble> {
    let report = &episode.report;
    sqlx::query(
        "update episode
         set attempt = greatest(attempt, $5), outcome = $6, reason = $7, detail = $8, steps = $9, return = $10,
             trajectory_hash = $11, latency_p50_ms = $12, latency_p95_ms = $13, latency_max_ms = $14, wall_ms = $15,
             score = $16, finished_at = clock_timestamp()
         where cycle_id = $1 and environment = $2 and seed_index = $3 and hotkey = $4",
    )
    .bind(cycle.as_uuid())
    .bind(episode.key.environment.as_str())
    .bind(i64::from(episode.key.seed_index))
    .bind(episode.key.hotkey.as_str())
    .bind(i64::from(episode.attempt))
    .bind(report.outcome.word())
    .bind(report.outcome.reason())
    .bind(report.detail.as_deref().map(storable))
    .bind(i64::from(report.steps))
    .bind(report.total_reward)
    .bind(&report.trajectory_hash)
    .bind(report.latency.map(|latency| latency.p50_ms))
    .bind(report.latency.map(|latency| latency.p95_ms))
    .bind(report.latency.map(|latency| latency.max_ms))
    .bind(report.wall_ms)
    .bind(report.score)
    .execute(connection)
    .await?;
    Ok(())
}

async fn keep_attempt(connection: &mut PgConnection, cycle: CycleId, episode: &Episode) -> Result<(), Trouble> {
    let report = &episode.report;
    sqlx::query(
        "insert into episode_attempt
             (cycle_id, environment, seed_index, hotkey, attempt, reason, detail, steps, wall_ms)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict do nothing",
    )
    .bind(cycle.as_uuid())
    .bind(episode.key.environment.as_str())
    .bind(i64::from(episode.key.seed_index))
    .bind(episode.key.hotkey.as_str())
    .bind(i64::from(episode.attempt))
    .bind(report.outcome.reason())
    .bind(report.detail.as_deref().map(storable))
    .bind(i64::from(report.steps))
    .bind(report.wall_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// Environment, seed index, hotkey, attempts, those that count, and how the last one ended: outcome, reason, steps, detail.
type PendingRow = (String, i32, String, i32, i32, Option<String>, Option<String>, Option<i64>, Option<String>);

/// Episodes of a task without a scored outcome, in the order they run.
pub(super) async fn pending(pool: &PgPool, cycle: CycleId, task: &TaskKey) -> Result<Vec<PendingEpisode>, Error> {
    let rows: Vec<PendingRow> = sqlx::query_as(
        "select environment, seed_index, hotkey, attempt, attempt - forgiven, outcome, reason, steps, detail from episode
         where cycle_id = $1 and stage = $2 and cell = $3 and (outcome is null or outcome = 'infra_fault')
         order by seed_index, hotkey, environment",
    )
    .bind(cycle.as_uuid())
    .bind(task.stage.as_str())
    .bind(&task.cell)
    .fetch_all(pool)
    .await?;
    let pending = rows.into_iter().map(|row| {
        let (environment, seed_index, hotkey, attempt, counted, word, reason, steps, detail) = row;
        let key = key(&environment, seed_index, &hotkey)?;
        let last = match word.map(|word| outcome(&word, reason.as_deref())).transpose()? {
            Some(Outcome::InfraFault(fault)) => Some(LastFault { fault, steps: number(steps.unwrap_or(0))?, detail }),
            _ => None,
        };
        Ok(PendingEpisode { key, attempt: number(attempt.into())?, counted: number(counted.into())?, last })
    });
    pending.collect()
}

#[derive(sqlx::FromRow)]
struct ScoredRow {
    environment: String,
    seed_index: i32,
    hotkey: String,
    attempt: i32,
    outcome: String,
    reason: Option<String>,
    detail: Option<String>,
    steps: i64,
    r#return: f64,
    trajectory_hash: Option<String>,
    latency_p50_ms: Option<f64>,
    latency_p95_ms: Option<f64>,
    latency_max_ms: Option<f64>,
    wall_ms: f64,
    score: Option<f64>,
}

/// Episodes with a scored outcome. The order is part of the contract; the primary key gives it.
pub(super) async fn scored(pool: &PgPool, cycle: CycleId) -> Result<Vec<Episode>, Error> {
    // Row by row: hundreds of thousands of them would not be wanted in memory twice.
    let rows = sqlx::query_as(
        "select environment, seed_index, hotkey, attempt, outcome, reason, detail, steps, return, trajectory_hash,
                latency_p50_ms, latency_p95_ms, latency_max_ms, wall_ms, score
         from episode
         where cycle_id = $1 and outcome <> 'infra_fault'
         order by environment, seed_index, hotkey",
    )
    .bind(cycle.as_uuid())
    .fetch(pool);
    rows.map(|row| ScoredRow::episode(row?)).try_collect().await
}

impl ScoredRow {
    fn episode(self) -> Result<Episode, Error> {
        let latency = match (self.latency_p50_ms, self.latency_p95_ms, self.latency_max_ms) {
            (Some(p50_ms), Some(p95_ms), Some(max_ms)) => Some(LatencySummary { p50_ms, p95_ms, max_ms }),
            _ => None,
        };
        let report = EpisodeReport {
            outcome: outcome(&self.outcome, self.reason.as_deref())?,
            detail: self.detail,
            steps: number(self.steps)?,
            total_reward: self.r#return,
            score: self.score,
            actions: None,
            trajectory_hash: self.trajectory_hash,
            latency,
            wall_ms: self.wall_ms,
        };
        let key = key(&self.environment, self.seed_index, &self.hotkey)?;
        Ok(Episode { key, attempt: number(self.attempt.into())?, report })
    }
}

/// How far the episodes of an environment have come.
pub(super) async fn tally(pool: &PgPool, cycle: CycleId, environment: &EnvironmentId) -> Result<EpisodeTally, Error> {
    let (scored, successes): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where outcome = 'success')
         from episode where cycle_id = $1 and environment = $2 and outcome <> 'infra_fault'",
    )
    .bind(cycle.as_uuid())
    .bind(environment.as_str())
    .fetch_one(pool)
    .await?;
    let count = |value: i64| usize::try_from(value).unwrap_or_default();
    Ok(EpisodeTally { scored: count(scored), successes: count(successes) })
}

type CountRow = (String, i32, String, Option<String>, Option<String>, i64);

/// How many episodes of a miner in an environment ended one way.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeCount {
    /// The environment and the miner; its seed index is that of the first such episode.
    pub key: EpisodeKey,
    /// How they ended; none for those that have not been run yet.
    pub outcome: Option<Outcome>,
    /// How many.
    pub count: u64,
}

impl Store {
    /// Episodes of a cycle, counted by environment, miner and outcome, in that order.
    pub async fn episode_counts(&self, cycle: CycleId) -> Result<Vec<EpisodeCount>, Error> {
        self.ask(|| async {
            let rows: Vec<CountRow> = sqlx::query_as(
                "select environment, min(seed_index), hotkey, outcome, reason, count(*)
                 from episode where cycle_id = $1
                 group by environment, hotkey, outcome, reason
                 order by environment, hotkey, outcome, reason",
            )
            .bind(cycle.as_uuid())
            .fetch_all(&self.pool)
            .await?;
            let counts = rows.into_iter().map(|(environment, seed_index, hotkey, word, reason, count)| {
                let outcome = word.map(|word| outcome(&word, reason.as_deref())).transpose()?;
                Ok(EpisodeCount { key: key(&environment, seed_index, &hotkey)?, outcome, count: count.unsigned_abs() })
            });
            counts.collect()
        })
        .await
    }
}

fn key(environment: &str, seed_index: i32, hotkey: &str) -> Result<EpisodeKey, Error> {
    let corrupt = |error: InvalidId| Error::Corrupt(format!("an episode whose name is wrong: {error}"));
    Ok(EpisodeKey {
        environment: environment.parse().map_err(corrupt)?,
        seed_index: number(seed_index.into())?,
        hotkey: hotkey.parse().map_err(corrupt)?,
    })
}

fn outcome(word: &str, reason: Option<&str>) -> Result<Outcome, Error> {
    // Nearly all of many rows say one of these.
    match (word, reason) {
        ("success", None) => return Ok(Outcome::Success),
        ("failure", None) => return Ok(Outcome::Failure),
        _ => {}
    }
    Outcome::from_words(word, reason).ok_or_else(|| Error::Corrupt(format!("an outcome `{word}` that nobody knows")))
}

fn number(value: i64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Corrupt(format!("the number {value} where a count should be")))
}
