//! The tables of `robo cycle show`: a fan-out that nobody could read task by task is one line that counts.

use std::collections::BTreeMap;

use comfy_table::Table;
use serde_json::{Value, json};

use super::{cycle_show::took, db, exit::Result, report};
use crate::api::cycle_documents;
use crate::cycle::{CycleId, StageId, TaskStatus};
use crate::store::{EpisodeCount, StageRow, Store, TaskRow};

/// A stage of more tasks, and a list of more outcomes, is summed up.
const READABLE: u64 = 40;

/// The tasks of a cycle, a wide stage on one line. What is not shown is not read.
pub(super) async fn tasks(store: &Store, cycle: CycleId) -> Result<Table> {
    let stages = store.stage_rows(cycle).await.map_err(db::failure)?;
    let narrow: Vec<StageId> =
        stages.iter().filter(|stage| stage.tasks() <= READABLE).map(|stage| stage.stage.clone()).collect();
    let tasks = store.task_rows_of(cycle, &narrow).await.map_err(db::failure)?;
    let mut table = report::plain(["task", "status", "attempts", "took", "why"].map(str::to_owned));
    for stage in &stages {
        if stage.tasks() > READABLE {
            table.add_row(wide(stage));
        }
        for task in tasks.iter().filter(|task| task.state.key.stage == stage.stage) {
            table.add_row(narrow_one(task));
        }
    }
    Ok(table)
}

fn wide(stage: &StageRow) -> [String; 5] {
    let statuses: Vec<String> = stage.statuses.iter().map(|(word, count)| format!("{count} {word}")).collect();
    [
        format!("{}[{} tasks]", stage.stage, stage.tasks()),
        statuses.join(", "),
        stage.attempts.to_string(),
        took(stage.started_at, stage.finished_at),
        stage.why.as_ref().map(|why| format!("the first: {why}")).unwrap_or_default(),
    ]
}

fn narrow_one(task: &TaskRow) -> [String; 5] {
    let why = match &task.state.status {
        TaskStatus::Failed { failure } | TaskStatus::Paused { failure } => failure.message.clone(),
        TaskStatus::Skipped { reason } => reason.clone(),
        TaskStatus::Pending | TaskStatus::Running | TaskStatus::Succeeded { .. } | TaskStatus::Cancelled => {
            String::new()
        }
    };
    [
        task.state.key.to_string(),
        task.state.status.word().to_owned(),
        task.state.attempt.to_string(),
        took(task.started_at, task.finished_at),
        why,
    ]
}

/// A stage for programs, with the words of its failures.
pub(super) fn stage(row: &StageRow) -> Value {
    let mut document = json!(cycle_documents::stage(row));
    document["why"] = json!(row.why);
    document
}

/// Episodes by miner and outcome, or of very many miners by environment and outcome.
pub(super) fn outcomes(counts: &[EpisodeCount]) -> Table {
    let is_long = counts.len() as u64 > READABLE;
    let mut lines: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for count in counts {
        let miner = if is_long { "(all)".to_owned() } else { count.key.hotkey.to_string() };
        let outcome = count.outcome.map_or("to run".into(), |outcome| outcome.to_string());
        *lines.entry([count.key.environment.to_string(), miner, outcome]).or_default() += count.count;
    }
    let mut table = report::plain(["environment", "miner", "outcome", "episodes"].map(str::to_owned));
    for (line, count) in lines {
        table.add_row(line.into_iter().chain([count.to_string()]));
    }
    table
}
