//! `robo cycle retry`: the same cycle runs again what did not succeed, and nothing that did.

use std::collections::BTreeSet;
use std::path::Path;

use super::{
    cycle_read::{Stored, require_stage},
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    render,
};
use crate::cycle::{CycleStatus, Journal, Role, StageId, TaskKey, TaskState, TaskStatus};
use crate::plan::{self, Graph};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tasks that failed, were cancelled or wait for somebody run again, and what was skipped because of them. Episodes whose tries
were used up get as many again.

Examples:
  robo cycle retry                        # the latest one
  robo cycle retry 01a20489 --stage publish")]
pub(super) struct Args {
    /// Which cycle
    #[arg(default_value = "@latest")]
    cycle: String,

    /// Only what did not succeed in this stage, and what was skipped or cancelled because of it
    #[arg(long)]
    stage: Option<StageId>,

    /// Leave out what was cancelled without having failed
    #[arg(long)]
    failed: bool,

    #[command(flatten)]
    options: drive::Options,
}

pub(super) async fn run(desk: &Desk, args: &Args) -> Result {
    let stored = Stored::find(&desk.store, &args.cycle).await?;
    let id = stored.id;
    if stored.record.status == CycleStatus::Completed {
        let error = anyhow::anyhow!("cycle {id} has completed: nothing in it can be run again");
        return Err(Failure::new(Exit::Failed, error)
            .hint(format!("make a new cycle of it with: {}", desk.command(&format!("cycle fork {id} --from STAGE")))));
    }
    stored.require_detail()?;
    if let Some(stage) = &args.stage {
        require_stage(&stored, stage)?;
    }
    let tasks = args.select(&stored)?;
    if tasks.is_empty() {
        let error = anyhow::anyhow!("nothing that was asked for has ended without success in cycle {id}");
        return Err(Failure::new(Exit::Failed, error).hint(super::cycle_read::show_hint(desk, id)));
    }
    plan::check_builds(&stored.definition, Path::new(&stored.record.root)).map_err(drive::build_failure)?;
    desk.store.reopen(id, &tasks).await.map_err(drive::journal_failure)?;
    let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
    render::note(format!("cycle {id} runs again: {}", names.join(", ")));
    drive(desk, id, &args.options).await
}

impl Args {
    /// The tasks that run again.
    fn select(&self, stored: &Stored) -> Result<Vec<TaskKey>> {
        let graph = Graph::new(&stored.definition)?;
        let tasks = &stored.record.tasks;
        let chosen = |task: &&TaskState| {
            let ended_badly = match &task.status {
                TaskStatus::Failed { .. } | TaskStatus::Paused { .. } => true,
                TaskStatus::Cancelled => !self.failed,
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
            let is_cleanup = |key: &TaskKey| Role::of(&stored.record.definition, &key.stage) == Role::Cleanup;
            let cleanup = tasks.iter().map(|task| &task.key).filter(|key| is_cleanup(key) && !again.contains(key));
            let cleanup: Vec<TaskKey> = cleanup.cloned().collect();
            again.extend(cleanup);
        }
        Ok(again)
    }
}
