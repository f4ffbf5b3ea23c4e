//! Episodes as the API's clients read them: page by page, and those of one miner at a glance.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::cycle::{CycleId, EnvironmentId, EpisodeKey, Hotkey};

use super::{Error, Store};

/// How an episode stands, for those who look for some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpisodeOutcome {
    /// It ended with the word of this outcome.
    Ended(&'static str),
    /// It has not been played yet.
    Pending,
}

/// Which episodes of a cycle: those of which everything holds that is said.
#[derive(Debug, Clone, Default)]
pub struct EpisodeFilter {
    /// Behind this one in the order of environment, seed index and hotkey.
    pub after: Option<EpisodeKey>,
    /// In this environment.
    pub environment: Option<EnvironmentId>,
    /// Of this miner.
    pub hotkey: Option<Hotkey>,
    /// That ended so.
    pub outcome: Option<EpisodeOutcome>,
}

/// An episode.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct EpisodeRow {
    /// The environment.
    pub environment: String,
    /// Position in the list of seeds, from 0.
    pub seed_index: i32,
    /// The miner.
    pub hotkey: String,
    /// Attempts that have ended.
    pub attempt: i32,
    /// The word of the outcome; none before the first attempt has ended.
    pub outcome: Option<String>,
    /// Of a fault: which.
    pub reason: Option<String>,
    /// What exactly went wrong, for the miner and the operator to read.
    pub detail: Option<String>,
    /// Steps of the simulation.
    pub steps: Option<i64>,
    /// Sum of the rewards.
    pub r#return: Option<f64>,
    /// What it is worth, where the environment says.
    pub score: Option<f64>,
    /// Hash of what happened in it.
    pub trajectory_hash: Option<String>,
    /// Median latency of the miner's answers.
    pub latency_p50_ms: Option<f64>,
    /// 95th percentile of it.
    pub latency_p95_ms: Option<f64>,
    /// Slowest answer.
    pub latency_max_ms: Option<f64>,
    /// How long it took.
    pub wall_ms: Option<f64>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// How fast a miner answered in the episodes of a cycle. Nearest rank, over episodes.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct LatencyRow {
    /// Episodes in which it answered.
    pub episodes: i64,
    /// Median of the episodes' medians.
    pub p50_ms: Option<f64>,
    /// 95th percentile of the episodes' 95th percentiles.
    pub p95_ms: Option<f64>,
    /// 99th percentile of the episodes' slowest answers.
    pub p99_ms: Option<f64>,
    /// The slowest answer of all.
    pub max_ms: Option<f64>,
}

impl Store {
    /// Some episodes of a cycle, in the order of environment, seed index and hotkey.
    pub async fn episodes_of(
        &self,
        cycle: CycleId,
        filter: &EpisodeFilter,
        limit: u32,
    ) -> Result<Vec<EpisodeRow>, Error> {
        let after = filter.after.as_ref();
        let (word, is_pending) = match filter.outcome {
            Some(EpisodeOutcome::Ended(word)) => (Some(word), false),
            Some(EpisodeOutcome::Pending) => (None, true),
            None => (None, false),
        };
        self.ask(|| async {
            Ok(sqlx::query_as(
                "select environment, seed_index, hotkey, attempt, outcome, reason, detail, steps, return, score,
                        trajectory_hash, latency_p50_ms, latency_p95_ms, latency_max_ms, wall_ms, finished_at
                 from episode
                 where cycle_id = $1
                       and ($2::text is null or (environment, seed_index, hotkey) > ($2, $3, $4))
                       and ($5::text is null or environment = $5) and ($6::text is null or hotkey = $6)
                       and ($7::text is null or outcome = $7) and (not $8 or outcome is null)
                 order by environment, seed_index, hotkey
                 limit $9",
            )
            .bind(cycle.as_uuid())
            .bind(after.map(|key| key.environment.as_str()))
            .bind(after.map(|key| i32::try_from(key.seed_index).unwrap_or(i32::MAX)))
            .bind(after.map(|key| key.hotkey.as_str()))
            .bind(filter.environment.as_ref().map(EnvironmentId::as_str))
            .bind(filter.hotkey.as_ref().map(Hotkey::as_str))
            .bind(word)
            .bind(is_pending)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?)
        })
        .await
    }

    /// The last cycle that had episodes of a miner, as far as they have not aged out.
    pub async fn last_cycle_of(&self, hotkey: &Hotkey) -> Result<Option<CycleId>, Error> {
        self.ask(|| async {
            let sql = "select cycle_id from episode where hotkey = $1 order by cycle_id desc limit 1";
            let id: Option<Uuid> = sqlx::query_scalar(sql).bind(hotkey.as_str()).fetch_optional(&self.pool).await?;
            Ok(id.map(CycleId::from))
        })
        .await
    }

    /// How a miner's episodes in a cycle ended: outcome and reason, none where they are still to be played, and how many.
    pub async fn outcomes_of(
        &self,
        cycle: CycleId,
        hotkey: &Hotkey,
    ) -> Result<Vec<(Option<String>, Option<String>, u64)>, Error> {
        let rows: Vec<(Option<String>, Option<String>, i64)> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select outcome, reason, count(*) from episode where cycle_id = $1 and hotkey = $2
                     group by outcome, reason order by count(*) desc, outcome, reason",
                )
                .bind(cycle.as_uuid())
                .bind(hotkey.as_str())
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        Ok(rows.into_iter().map(|(outcome, reason, count)| (outcome, reason, count.unsigned_abs())).collect())
    }

    /// How fast a miner answered in a cycle.
    pub async fn latency_of(&self, cycle: CycleId, hotkey: &Hotkey) -> Result<LatencyRow, Error> {
        self.ask(|| async {
            Ok(sqlx::query_as(
                "select count(latency_max_ms) as episodes,
                        percentile_disc(0.5) within group (order by latency_p50_ms) as p50_ms,
                        percentile_disc(0.95) within group (order by latency_p95_ms) as p95_ms,
                        percentile_disc(0.99) within group (order by latency_max_ms) as p99_ms,
                        max(latency_max_ms) as max_ms
                 from episode where cycle_id = $1 and hotkey = $2",
            )
            .bind(cycle.as_uuid())
            .bind(hotkey.as_str())
            .fetch_one(&self.pool)
            .await?)
        })
        .await
    }
}
