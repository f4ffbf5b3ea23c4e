//! `robo cycle`: everything a person does with cycles. What each verb means is told once, in docs/cycles.md.

use std::path::Path;

use clap::Subcommand;

use super::{
    cycle_cancel, cycle_diff, cycle_explain, cycle_fork, cycle_graph, cycle_logs, cycle_read, cycle_retry,
    cycle_roster, cycle_show, cycle_watch, db,
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::config::Database;
use crate::cycle::{CycleStatus, Journal, TaskKey, TaskState, TaskStatus};
use crate::plan;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A cycle is named by its id, a unique beginning of it, or @latest.

Examples:
  robo cycle ls --format json
  robo cycle show @latest --episodes     # every episode with its outcome and reason
  robo cycle resume                      # the latest one, after Ctrl-C or a crash
  robo cycle fork 01a20489 --from weights --with pipelines/stricter.yaml
  robo cycle miners                      # who took part, and why somebody did not
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
    /// Run again what did not succeed, in the same cycle
    Retry(cycle_retry::Args),
    /// New cycle that keeps what is finished upstream of a stage and runs the rest
    Fork(cycle_fork::Fork),
    /// New cycle that keeps all episodes and only scores again
    Rescore(cycle_fork::Rescore),
    /// Ask a cycle to stop for good; its teardown still runs
    Cancel(cycle_cancel::Args),
    /// Compare two cycles: definitions, stages, scores, weights
    Diff(cycle_diff::Args),
    /// Say why a stage ran again or was kept
    Explain(cycle_explain::Args),
    /// Follow a cycle that another process runs, and exit as it ends
    Watch(cycle_watch::Args),
    /// Print a cycle's graph with where its stages stand
    Graph(cycle_graph::Args),
    /// Print what has happened to a cycle's tasks
    Logs(cycle_logs::Args),
    /// List the miners of a cycle: who took part, and why somebody did not
    Miners(cycle_roster::Args),
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
        Verb::Retry(args) => cycle_retry::run(&desk, &args).await,
        Verb::Fork(args) => cycle_fork::fork(&desk, &args).await,
        Verb::Rescore(args) => cycle_fork::rescore(&desk, &args).await,
        Verb::Cancel(args) => cycle_cancel::run(&desk, &args).await,
        Verb::Diff(args) => cycle_diff::run(&desk.store, &args).await,
        Verb::Explain(args) => cycle_explain::run(&desk.store, &args).await,
        Verb::Watch(args) => cycle_watch::run(&desk, &args).await,
        Verb::Graph(args) => cycle_graph::run(&desk.store, &args).await,
        Verb::Logs(args) => cycle_logs::run(&desk.store, &args).await,
        Verb::Miners(args) => cycle_roster::run(&desk.store, &args).await,
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
            return Err(Failure::new(Exit::Failed, error).hint(format!(
                "run again what did not succeed with: {}",
                desk.command(&format!("cycle retry {cycle}"))
            )));
        }
    }
    let definition = cycle_read::definition(&record)?;
    plan::check_builds(&definition, Path::new(&record.root)).map_err(drive::build_failure)?;
    let waits = |task: &&TaskState| matches!(task.status, TaskStatus::Paused { .. });
    let paused: Vec<TaskKey> = record.tasks.iter().filter(waits).map(|task| task.key.clone()).collect();
    if !paused.is_empty() {
        desk.store.reopen(cycle, &paused).await.map_err(drive::journal_failure)?;
    }
    drive(desk, cycle, options).await
}
