//! `robo cycle`: list, show, resume and cancel cycles.

use std::path::Path;

use clap::Subcommand;

use super::{
    cycle_show, db,
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::config::Database;
use crate::cycle::{CycleStatus, Journal, TaskKey, TaskState, TaskStatus};
use crate::engine;
use crate::plan::{self, Definition};
use crate::store::CancelAnswer;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A cycle is named by its id, a unique beginning of it, or @latest.

Examples:
  robo cycle ls --format json
  robo cycle show @latest --episodes     # every episode with its outcome and reason
  robo cycle resume                      # the latest one, after Ctrl-C or a crash
  robo cycle cancel 01a20489")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    database: Database,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List cycles, newest first
    Ls {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Only older ones than this: the last one of the page before
        #[arg(long, value_name = "CYCLE")]
        before: Option<String>,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show a cycle: its tasks, its episodes by outcome, its result
    Show {
        /// Which cycle
        #[arg(default_value = "@latest")]
        cycle: String,
        #[command(flatten)]
        parts: cycle_show::Parts,
        /// How to show it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Go on with a cycle that was interrupted; nothing that is finished runs again
    Resume {
        /// Which cycle
        #[arg(default_value = "@latest")]
        cycle: String,
        #[command(flatten)]
        options: drive::Options,
    },
    /// Ask a cycle to stop for good; its teardown still runs
    Cancel {
        /// Which cycle
        cycle: String,
    },
}

pub(super) async fn run(args: Args) -> Result {
    let desk = Desk::open(&args.database).await?;
    let result = match args.verb {
        Verb::Ls { limit, before, format } => {
            let page = cycle_show::Page { limit, before: before.as_deref() };
            cycle_show::list(&desk.store, page, format).await
        }
        Verb::Show { cycle, parts, format } => cycle_show::show(&desk.store, &cycle, parts, format).await,
        Verb::Resume { cycle, options } => resume(&desk, &cycle, &options).await,
        Verb::Cancel { cycle } => cancel(&desk, &cycle).await,
    };
    desk.close().await;
    result
}

async fn resume(desk: &Desk, name: &str, options: &drive::Options) -> Result {
    let cycle = desk.store.resolve(name).await.map_err(db::failure)?;
    let record = desk.store.load(cycle).await.map_err(drive::journal_failure)?;
    match record.status {
        CycleStatus::Open => {}
        CycleStatus::Completed => {
            render::note(format!("cycle {cycle} is complete already"));
            drive::show_result(desk, cycle, options.format).await?;
            return Ok(Exit::Ok);
        }
        ended => {
            let error = anyhow::anyhow!("cycle {cycle} has ended as {}; it cannot be resumed", ended.word());
            return Err(Failure::new(Exit::Failed, error).hint("start a new cycle with: robo run-pipeline FILE"));
        }
    }
    let definition: Definition = serde_json::from_value(record.definition.clone())
        .map_err(|error| engine::Error::Definition(cycle, error))
        .map_err(|error| Failure::new(Exit::Mismatch, error).hint("resume it with the version that started it"))?;
    plan::check_builds(&definition, Path::new(&record.root)).map_err(drive::build_failure)?;
    let waits = |task: &&TaskState| matches!(task.status, TaskStatus::Paused { .. });
    let paused: Vec<TaskKey> = record.tasks.iter().filter(waits).map(|task| task.key.clone()).collect();
    if !paused.is_empty() {
        desk.store.reopen(cycle, &paused).await.map_err(drive::journal_failure)?;
    }
    drive(desk, cycle, options).await
}

async fn cancel(desk: &Desk, name: &str) -> Result {
    let cycle = desk.store.resolve(name).await.map_err(db::failure)?;
    match desk.store.request_cancel(cycle).await.map_err(db::failure)? {
        CancelAnswer::Requested => {
            render::line(format!("cycle {cycle} will stop within seconds; its teardown still runs"))
        }
        CancelAnswer::NobodyRuns => {
            // Nobody else would end it: do what its owner would have done, teardown included.
            let options = drive::Options::default();
            return match drive(desk, cycle, &options).await? {
                Exit::Cancelled => Ok(Exit::Ok),
                other => Ok(other),
            };
        }
        CancelAnswer::Ended(status) => {
            let error = anyhow::anyhow!("cycle {cycle} has ended already: {}", status.word());
            return Err(Failure::new(Exit::Failed, error));
        }
    }
    Ok(Exit::Ok)
}
