//! Cycles and their stages as JSON, for clients of the API and of the command line alike. Pure functions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::view::View;
use crate::{
    cycle::{CycleId, CycleNumber, CycleStatus, FailureClass, Salt, StageId},
    store::{CycleSummary, StageRow, TaskLine},
};

/// Tasks of a stage that are listed one by one; of a wider stage only their number by status is told.
pub(super) const LISTED: u64 = 64;

/// An open cycle is running when somebody holds it, interrupted when nobody does any more, and waiting when nobody has yet.
pub fn state(cycle: &CycleSummary) -> &'static str {
    match (cycle.status, cycle.is_running) {
        (CycleStatus::Open, true) => "running",
        (CycleStatus::Open, false) if cycle.paused => "paused",
        (CycleStatus::Open, false) if !cycle.has_begun => "waiting",
        (CycleStatus::Open, false) => "interrupted",
        (ended, _) => ended.word(),
    }
}

/// A cycle in a list. What only its operator should read, such as the words of a failure, is not part of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Cycle")]
pub struct Summary<'a> {
    /// Its UUID. UUIDs sort as cycles were created.
    id: CycleId,
    /// Its number, which stands for the UUID wherever a cycle is named.
    number: CycleNumber,
    /// The pipeline it is a run of.
    pipeline: &'a str,
    /// `running`, `waiting`, `paused` or `interrupted` while it is open; then `completed`, `failed` or `cancelled`.
    status: &'static str,
    /// Content hash of the definition it is pinned to.
    definition_hash: &'a str,
    /// The block it is pinned to, where a chain was read.
    block: Option<u64>,
    /// The secret its seeds came from, once the cycle has completed.
    salt: Option<&'a Salt>,
    /// SHA-256 of that secret, shown from the start.
    salt_sha256: &'a str,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
    /// Tasks that have ended.
    tasks_ended: u64,
    /// All tasks.
    tasks_planned: u64,
    /// Episodes with an outcome that counts.
    episodes_scored: u64,
    /// All episodes.
    episodes_planned: u64,
    /// Digest of the weights it has published.
    weights_digest: Option<&'a str>,
}

/// A cycle in a list.
pub fn summary(cycle: &CycleSummary) -> Summary<'_> {
    Summary {
        id: cycle.id,
        number: cycle.number,
        pipeline: &cycle.pipeline,
        status: state(cycle),
        definition_hash: &cycle.definition_hash,
        block: cycle.block,
        salt: cycle.salt.as_ref(),
        salt_sha256: &cycle.salt_sha256,
        created_at: cycle.created_at,
        finished_at: cycle.finished_at,
        tasks_ended: cycle.tasks.0,
        tasks_planned: cycle.tasks.1,
        episodes_scored: cycle.episodes.0,
        episodes_planned: cycle.episodes.1,
        weights_digest: cycle.weights_digest.as_deref(),
    }
}

/// A stage of a cycle, without the words of its failures.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stage<'a> {
    /// Its name in the pipeline.
    stage: &'a StageId,
    /// How many tasks it has.
    tasks: u64,
    /// How many of them have each status: `pending`, `running`, `paused`, `succeeded`, `failed`, `skipped`, `cancelled`.
    statuses: &'a BTreeMap<String, u64>,
    /// Attempts that have begun, of all its tasks.
    attempts: u64,
    /// When its first task began.
    started_at: Option<DateTime<Utc>>,
    /// When its last task ended; null while one has not.
    finished_at: Option<DateTime<Utc>>,
}

/// A stage of a cycle.
pub fn stage(row: &StageRow) -> Stage<'_> {
    Stage {
        stage: &row.stage,
        tasks: row.tasks(),
        statuses: &row.statuses,
        attempts: row.attempts,
        started_at: row.started_at,
        finished_at: row.finished_at,
    }
}

/// A cycle with its stages.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CycleInDetail")]
pub(super) struct Detail<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    /// Why it ended as it did; operators are told.
    reason: Option<&'a str>,
    /// Seconds from its creation to its end, or until now.
    duration_seconds: f64,
    /// Its stages, in the plan's order.
    stages: Vec<TimedStage<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StageOfCycle")]
struct TimedStage<'a> {
    #[serde(flatten)]
    stage: Stage<'a>,
    /// Seconds from its first task's beginning to its last task's end, or until now; null before it has begun.
    duration_seconds: Option<f64>,
    /// Its tasks, in the plan's order; null where they are more than 64, of which only the numbers above are told.
    task_list: Option<Vec<Task<'a>>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Task<'a> {
    /// The cell of the stage's matrix; empty where it has none.
    cell: &'a str,
    /// Its status.
    status: &'a str,
    /// Attempts that have begun.
    attempts: u32,
    /// When the first one began.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
    /// Seconds between the two, or until now.
    duration_seconds: Option<f64>,
    /// What kind of failure ended it.
    failure_class: Option<FailureClass>,
    /// What exactly happened, or why it was skipped; operators are told.
    why: Option<&'a str>,
}

/// A cycle with its stages and, where they are few, their tasks, as it stands `now`.
pub(super) fn detail<'a>(
    cycle: &'a CycleSummary,
    (stages, tasks): (&'a [StageRow], &'a [TaskLine]),
    (view, now): (View, DateTime<Utc>),
) -> Detail<'a> {
    let took = |from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>| {
        from.map(|from| (to.unwrap_or(now) - from).num_milliseconds() as f64 / 1000.0)
    };
    let task = |line: &'a TaskLine| Task {
        cell: &line.key.cell,
        status: &line.status,
        attempts: line.attempts,
        started_at: line.started_at,
        finished_at: line.finished_at,
        duration_seconds: took(line.started_at, line.finished_at),
        failure_class: line.failure.as_ref().map(|failure| failure.class),
        why: line
            .failure
            .as_ref()
            .map(|failure| failure.message.as_str())
            .or(line.reason.as_deref())
            .and_then(|why| view.operators(why)),
    };
    let timed = |row: &'a StageRow| TimedStage {
        stage: stage(row),
        duration_seconds: took(row.started_at, row.finished_at),
        task_list: (row.tasks() <= LISTED)
            .then(|| tasks.iter().filter(|line| line.key.stage == row.stage).map(task).collect()),
    };
    Detail {
        summary: summary(cycle),
        reason: cycle.reason.as_deref().and_then(|reason| view.operators(reason)),
        duration_seconds: took(Some(cycle.created_at), cycle.finished_at).unwrap_or_default(),
        stages: stages.iter().map(timed).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cycle::{TaskFailure, TaskKey};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn shown(tasks: u64, view: View) -> Value {
        let cycle = CycleSummary {
            id: "01900000-0000-7000-8000-000000000001".parse().unwrap(),
            number: 42.try_into().unwrap(),
            pipeline: "test".into(),
            definition_hash: "h".into(),
            status: CycleStatus::Failed,
            reason: Some("a secret".into()),
            is_running: false,
            paused: false,
            has_begun: true,
            cancel_requested: false,
            block: None,
            salt_sha256: "s".into(),
            salt: None,
            created_at: at(0),
            finished_at: Some(at(60)),
            tasks: (tasks, tasks),
            episodes: (0, 0),
            weights_digest: None,
        };
        let stage = StageRow {
            stage: "episodes".parse().unwrap(),
            statuses: [("failed".to_owned(), tasks)].into(),
            attempts: tasks,
            started_at: Some(at(10)),
            finished_at: None,
            why: None,
        };
        let task = TaskLine {
            key: TaskKey { stage: stage.stage.clone(), cell: "m/a".into() },
            status: "failed".into(),
            attempts: 1,
            started_at: Some(at(10)),
            finished_at: Some(at(12)),
            failure: Some(TaskFailure { class: FailureClass::Infra, message: "a secret".into() }),
            reason: None,
        };
        json!(detail(&cycle, (&[stage], &[task]), (view, at(100))))
    }

    #[test]
    fn why_something_failed_is_for_operators_and_how_long_it_took_for_everybody() {
        let public = shown(1, View::Public);
        assert!(!public.to_string().contains("secret"), "{public}");
        let task = &public["stages"][0]["task_list"][0];
        assert_eq!((&task["failure_class"], &task["duration_seconds"]), (&json!("infra"), &json!(2.0)));
        assert_eq!(
            (&public["duration_seconds"], &public["stages"][0]["duration_seconds"]),
            (&json!(60.0), &json!(90.0))
        );
        let operators = shown(1, View::Operator);
        assert_eq!(
            (&operators["reason"], &operators["stages"][0]["task_list"][0]["why"]),
            (&json!("a secret"), &json!("a secret"))
        );
    }

    #[test]
    fn the_tasks_of_a_wide_stage_are_only_counted() {
        assert_eq!(shown(LISTED, View::Public)["stages"][0]["task_list"].as_array().unwrap().len(), 1);
        let wide = shown(LISTED + 1, View::Operator);
        assert_eq!((&wide["stages"][0]["task_list"], &wide["stages"][0]["tasks"]), (&Value::Null, &json!(LISTED + 1)));
    }
}
