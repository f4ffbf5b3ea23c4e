//! Which tasks of a cycle run again when a person wants it to be tried once more. Pure: who reads the journal and who opens it
//! again are above.

use std::collections::BTreeSet;

use crate::cycle::{CycleRecord, Role, StageId, TaskKey, TaskState, TaskStatus};

use super::Graph;

/// What is to run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rerun {
    /// Only what did not succeed in this stage, and what was skipped or cancelled because of it.
    pub stage: Option<StageId>,
    /// Leave out what was cancelled without having failed.
    pub failed_only: bool,
}

impl Rerun {
    /// The tasks that run again: what ended badly, what waited for it, and then what cleans up and tells of failures.
    pub fn select(&self, record: &CycleRecord, graph: &Graph) -> Vec<TaskKey> {
        let tasks = &record.tasks;
        let chosen = |task: &&TaskState| {
            let ended_badly = match &task.status {
                TaskStatus::Failed { .. } | TaskStatus::Paused { .. } => true,
                TaskStatus::Cancelled => !self.failed_only,
                _ => false,
            };
            ended_badly && self.stage.as_ref().is_none_or(|stage| task.key.stage == *stage)
        };
        let roots: BTreeSet<&StageId> = tasks.iter().filter(chosen).map(|task| &task.key.stage).collect();
        let waited = |task: &&TaskState| {
            matches!(task.status, TaskStatus::Skipped { .. } | TaskStatus::Cancelled)
                && !graph.ancestors(&task.key.stage).is_disjoint(&roots)
        };
        let mut again: Vec<TaskKey> =
            tasks.iter().filter(|task| chosen(task) || waited(task)).map(|task| task.key.clone()).collect();
        if !again.is_empty() {
            // What goes on has to be cleaned up after, and told of when it fails, whatever was done the last time.
            let is_cleanup = |key: &TaskKey| Role::of(&record.definition, &key.stage) == Role::Cleanup;
            let cleanup = tasks.iter().map(|task| &task.key).filter(|key| is_cleanup(key) && !again.contains(key));
            let cleanup: Vec<TaskKey> = cleanup.cloned().collect();
            again.extend(cleanup);
        }
        again
    }
}
