//! `robo run-pipeline`: one cycle of a pipeline, from discovery to weights.

use std::{path::PathBuf, sync::Arc};

use super::{
    db,
    drive::{self, close, drive},
    exit::Result,
    inputs::{self, Inputs},
    render,
};
use crate::config::Database;
use crate::cycle::Salt;
use crate::store::{NewCycle, Store};

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
    let data_dir = db::data_dir(&args.database.data)?;
    let store = Store::open(&args.database, &db::progress()).await.map_err(db::failure)?;
    let store = Arc::new(store);
    let definition = &compiled.definition;
    let salt = args.salt.unwrap_or_else(Salt::random);
    let commitment = salt.commitment();
    let cycle = store
        .create_cycle(&NewCycle {
            pipeline: definition.pipeline.clone(),
            definition: definition.to_json(),
            definition_hash: definition.hash(),
            root: compiled.root.display().to_string(),
            salt,
            block: None,
            tasks: definition.stages.iter().flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone())).collect(),
        })
        .await
        .map_err(db::failure)?;
    render::note(format!("cycle {cycle} of `{}`", definition.pipeline));
    render::note(format!("definition sha256:{}, salt commitment sha256:{commitment}", definition.hash()));
    let result = drive(Arc::clone(&store), cycle, &data_dir, &args.options).await;
    close(store).await;
    result
}
