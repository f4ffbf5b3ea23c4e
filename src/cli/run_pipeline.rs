//! `robo run-pipeline`: one cycle of a pipeline, from discovery to weights.

use std::path::PathBuf;

use super::{
    db,
    desk::Desk,
    drive::{self, drive},
    exit::{Exit, Result},
    inputs::{self, Inputs},
    project, render,
};
use crate::backend;
use crate::config::Database;
use crate::cycle::{CycleId, Salt};
use crate::store::{Admission, Publishing};

/// Run one cycle of a pipeline, from discovery to weights.
///
/// Checks the pipeline, pins a cycle to it, runs every stage and shows the result. Everything is kept as it happens:
/// after Ctrl-C, a crash or a power cut, `robo cycle resume @latest` goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  robo run-pipeline pipelines/quickstart.yaml -i episodes_per_env=10")]
pub(super) struct Args {
    /// The pipeline
    #[arg(value_name = "FILE")]
    pipeline: PathBuf,

    #[command(flatten)]
    inputs: Inputs,

    /// Secret that the episodes' seeds come from, 64 hexadecimal digits [default: random]. The same definition and salt
    /// give the same scores and weights, byte for byte.
    #[arg(long, value_name = "HEX")]
    salt: Option<Salt>,

    /// Keep the weights as a draft: validators never see them
    #[arg(long)]
    no_publish: bool,

    #[command(flatten)]
    options: drive::Options,

    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(args: Args) -> Result {
    let discovery = &args.options.discovery;
    let place = &args.options.place;
    let variable = |name: &str| place.variable(name).or_else(|| discovery.variable(name));
    let compiled =
        inputs::compile_with(&project::pipeline(&args.pipeline, &args.database.data)?, &args.inputs, &variable)?;
    // A wrong address is said before anything is written down.
    drive::machine(db::data_dir(&args.database.data)?, (&args.options.place, discovery))?;
    let desk = Desk::open(&args.database).await?;
    let definition = &compiled.definition;
    let mut new = backend::new_cycle(&compiled);
    new.salt = args.salt.unwrap_or(new.salt);
    let publishing = if args.no_publish { Publishing::Draft } else { Publishing::Public };
    let commitment = new.salt.commitment();
    let created = desk.store.admit_cycle_as(&new, publishing).await;
    let result = match created {
        Ok(Admission::Created(cycle)) => {
            render::note(format!("cycle {cycle} of `{}`", definition.pipeline));
            let hash = definition.hash();
            render::note(format!("definition sha256:{hash}, salt commitment sha256:{commitment}"));
            drive(&desk, cycle, &args.options).await
        }
        Ok(Admission::Refused { group, limit, open }) => Ok(refused(&desk, (&group, limit), open)),
        Err(error) => Err(db::failure(error)),
    };
    desk.close().await;
    result
}

/// Nothing was started, as the pipeline demands: no failure, and no cycle.
pub(super) fn refused(desk: &Desk, (group, limit): (&str, u32), open: CycleId) -> Exit {
    let most = if limit == 1 { "one cycle".to_owned() } else { format!("{limit} cycles") };
    render::note(format!(
        "no cycle was started: at most {most} of the group `{group}` may be open, and cycle {open} is"
    ));
    render::note(format!("see how far it is with: {}", desk.command(&format!("cycle show {open}"))));
    Exit::Cancelled
}
