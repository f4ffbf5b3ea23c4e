//! `robo run-pipeline`: one cycle of a pipeline, from discovery to weights.

use std::path::PathBuf;

use super::{
    db,
    desk::Desk,
    drive::{self, drive},
    exit::Result,
    inputs::{self, Inputs},
    render,
};
use crate::config::Database;
use crate::cycle::Salt;
use crate::store::NewCycle;

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

    #[command(flatten)]
    options: drive::Options,

    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(args: Args) -> Result {
    let compiled = inputs::compile(&args.pipeline, &args.inputs)?;
    let desk = Desk::open(&args.database).await?;
    let definition = &compiled.definition;
    let salt = args.salt.unwrap_or_else(Salt::random);
    let commitment = salt.commitment();
    let created = desk
        .store
        .create_cycle(&NewCycle {
            pipeline: definition.pipeline.clone(),
            definition: definition.to_json(),
            definition_hash: definition.hash(),
            root: compiled.root.display().to_string(),
            salt,
            block: None,
            tasks: definition.stages.iter().flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone())).collect(),
        })
        .await;
    let result = match created {
        Ok(cycle) => {
            render::note(format!("cycle {cycle} of `{}`", definition.pipeline));
            let hash = definition.hash();
            render::note(format!("definition sha256:{hash}, salt commitment sha256:{commitment}"));
            drive(&desk, cycle, &args.options).await
        }
        Err(error) => Err(db::failure(error)),
    };
    desk.close().await;
    result
}
