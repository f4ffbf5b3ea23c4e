//! `robo cycle retry`: the same cycle runs again what did not succeed, and nothing that did.

use std::path::Path;

use super::{
    cycle_read::{Stored, require_stage},
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    render,
};
use crate::cycle::{CycleStatus, Journal, StageId};
use crate::plan::{self, Graph, Rerun};

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
    let rerun = Rerun { stage: args.stage.clone(), failed_only: args.failed };
    let tasks = rerun.select(&stored.record, &Graph::new(&stored.definition)?);
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
