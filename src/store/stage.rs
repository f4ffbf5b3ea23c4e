//! The stages of a cycle, each as one line however many tasks it has: counted where the rows are.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgPool;

use crate::cycle::{CycleId, StageId, TaskFailure, TaskKey};

use super::{Error, Store, TaskRow, cycle};

/// A stage and how its tasks stand.
#[derive(Debug, Clone, PartialEq)]
pub struct StageRow {
    /// The stage.
    pub stage: StageId,
    /// Its tasks by the word of their status.
    pub statuses: BTreeMap<String, u64>,
    /// Attempts that have begun, of all its tasks.
    pub attempts: u64,
    /// When its first task began.
    pub started_at: Option<DateTime<Utc>>,
    /// When its last task ended; none while one has not.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the first task that did not end well says, in the plan's order.
    pub why: Option<String>,
}

impl StageRow {
    /// How many tasks it has.
    pub fn tasks(&self) -> u64 {
        self.statuses.values().sum()
    }
}

/// A task as the API's clients see it: without what it has put out.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskLine {
    /// Which.
    pub key: TaskKey,
    /// The word of its status.
    pub status: String,
    /// Attempts that have begun.
    pub attempts: u32,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// What failed, where something did.
    pub failure: Option<TaskFailure>,
    /// Why it was skipped, where it was.
    pub reason: Option<String>,
}

#[derive(sqlx::FromRow)]
struct LineRow {
    stage: String,
    cell: String,
    status: String,
    attempt: i32,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    failure: Option<String>,
    reason: Option<String>,
}

impl LineRow {
    fn line(self) -> Result<TaskLine, Error> {
        let corrupt = || Error::Corrupt(format!("a task `{}[{}]` that cannot be read", self.stage, self.cell));
        let failure = self.failure.as_deref().map(serde_json::from_str).transpose().map_err(|_| corrupt())?;
        let stage = self.stage.parse().map_err(|_| corrupt())?;
        Ok(TaskLine {
            key: TaskKey { stage, cell: self.cell },
            status: self.status,
            attempts: self.attempt.unsigned_abs(),
            started_at: self.started_at,
            finished_at: self.finished_at,
            failure,
            reason: self.reason,
        })
    }
}

type Row = (String, String, i64, i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>, Option<String>, Option<String>);

impl Store {
    /// The stages of a cycle in the plan's order.
    pub async fn stage_rows(&self, cycle: CycleId) -> Result<Vec<StageRow>, Error> {
        self.ask(|| async {
            // A task that has not ended has no end, and neither has its stage: such a row counts as infinitely late.
            let rows: Vec<Row> = sqlx::query_as(
                "select stage, status, count(*), sum(attempt), min(started_at),
                        nullif(max(coalesce(finished_at, 'infinity')), 'infinity'),
                        (array_agg(failure::text order by position))[1], (array_agg(reason order by position))[1]
                 from task where cycle_id = $1
                 group by stage, status
                 order by min(min(position)) over (partition by stage), min(position)",
            )
            .bind(cycle.as_uuid())
            .fetch_all(&self.pool)
            .await?;
            let mut stages: Vec<StageRow> = Vec::new();
            for row in rows {
                let part = part(row)?;
                match stages.last_mut().filter(|stage| stage.stage == part.stage) {
                    Some(stage) => stage.add(part),
                    None => stages.push(part),
                }
            }
            let planned = Planned::of(&self.pool, cycle).await?;
            stages.sort_by_key(|row| planned.place(&row.stage));
            Ok(stages)
        })
        .await
    }

    /// The tasks of some stages of a cycle, in the plan's order.
    pub async fn task_rows_of(&self, cycle: CycleId, stages: &[StageId]) -> Result<Vec<TaskRow>, Error> {
        self.rows_in_order(cycle, Some(stages)).await
    }

    /// The same, but what they have put out stays where it is.
    pub async fn task_lines_of(&self, cycle: CycleId, stages: &[&StageId]) -> Result<Vec<TaskLine>, Error> {
        let rows: Vec<LineRow> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select stage, cell, status, attempt, started_at, finished_at, failure::text, reason
                     from task where cycle_id = $1 and stage = any($2) order by position",
                )
                .bind(cycle.as_uuid())
                .bind(stages.iter().map(|stage| stage.as_str()).collect::<Vec<_>>())
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        rows.into_iter().map(LineRow::line).collect()
    }

    pub(super) async fn rows_in_order(
        &self,
        cycle: CycleId,
        stages: Option<&[StageId]>,
    ) -> Result<Vec<TaskRow>, Error> {
        self.ask(|| async {
            let mut rows = cycle::task_rows(&self.pool, cycle, stages).await?;
            let planned = Planned::of(&self.pool, cycle).await?;
            rows.sort_by_key(|row| planned.place(&row.state.key.stage));
            Ok(rows)
        })
        .await
    }
}

/// Where each stage stands in the plan. The positions of tasks do not say so: those of a matrix that became known late come last.
struct Planned(HashMap<String, usize>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    stages: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl Planned {
    /// Read here and not in the query, because JSON in the database may hold texts that SQL cannot.
    async fn of(pool: &PgPool, cycle: CycleId) -> Result<Self, Error> {
        let definition: Option<String> = sqlx::query_scalar("select definition::text from cycle where cycle_id = $1")
            .bind(cycle.as_uuid())
            .fetch_optional(pool)
            .await?;
        let listed: Listed = definition.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(Self(listed.stages.into_iter().enumerate().map(|(place, stage)| (stage.id, place)).collect()))
    }

    /// Behind all others when the plan does not know it.
    fn place(&self, stage: &StageId) -> usize {
        self.0.get(stage.as_str()).copied().unwrap_or(usize::MAX)
    }
}

impl StageRow {
    /// Take the tasks of another status into account.
    fn add(&mut self, part: Self) {
        self.statuses.extend(part.statuses);
        self.attempts += part.attempts;
        self.started_at = [self.started_at, part.started_at].into_iter().flatten().min();
        self.finished_at = self.finished_at.zip(part.finished_at).map(|(one, other)| one.max(other));
        self.why = self.why.take().or(part.why);
    }
}

/// The tasks of a stage that have one status.
fn part((stage, status, tasks, attempts, started_at, finished_at, failure, reason): Row) -> Result<StageRow, Error> {
    let corrupt = || Error::Corrupt(format!("a task of the stage `{stage}` that cannot be read"));
    let failure = failure.map(|text| serde_json::from_str::<TaskFailure>(&text)).transpose().map_err(|_| corrupt())?;
    Ok(StageRow {
        statuses: BTreeMap::from([(status, tasks.unsigned_abs())]),
        attempts: attempts.unsigned_abs(),
        started_at,
        finished_at,
        why: failure.map(|failure| failure.message).or(reason),
        stage: stage.parse().map_err(|_| corrupt())?,
    })
}
