//! Cycles and their stages as JSON, for clients of the API and of the command line alike. Pure functions.

use serde_json::{Value, json};

use crate::{
    cycle::CycleStatus,
    store::{CycleSummary, StageRow},
};

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
pub fn summary(cycle: &CycleSummary) -> Value {
    json!({
        "id": cycle.id,
        "pipeline": cycle.pipeline,
        "status": state(cycle),
        "definition_hash": cycle.definition_hash,
        "block": cycle.block,
        "salt": cycle.salt,
        "salt_sha256": cycle.salt_sha256,
        "created_at": cycle.created_at,
        "finished_at": cycle.finished_at,
        "tasks_ended": cycle.tasks.0,
        "tasks_planned": cycle.tasks.1,
        "episodes_scored": cycle.episodes.0,
        "episodes_planned": cycle.episodes.1,
        "weights_digest": cycle.weights_digest,
    })
}

/// A stage of a cycle, without the words of its failures.
pub fn stage(row: &StageRow) -> Value {
    json!({
        "stage": row.stage,
        "tasks": row.tasks(),
        "statuses": row.statuses,
        "attempts": row.attempts,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
    })
}
