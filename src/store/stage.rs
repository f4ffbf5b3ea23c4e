//! The stages of a cycle, each as one line however many tasks it has: counted where the rows are.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::cycle::{CycleId, StageId, TaskFailure};

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
            Ok(stages)
        })
        .await
    }

    /// The tasks of some stages of a cycle, in the plan's order.
    pub async fn task_rows_of(&self, cycle: CycleId, stages: &[StageId]) -> Result<Vec<TaskRow>, Error> {
        self.ask(|| cycle::task_rows(&self.pool, cycle, Some(stages))).await
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
