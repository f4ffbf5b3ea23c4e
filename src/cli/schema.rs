//! `robo schema`: print the JSON Schema of a manifest.

use crate::{manifest, plan};

use super::exit::{Exit, Result};
use super::render;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  robo schema pipeline > schemas/pipeline.v1.json\n\nA manifest that starts with\n  # yaml-language-server: $schema=../schemas/pipeline.v1.json\nis then checked and completed by editors as it is typed."
)]
pub(super) struct Args {
    /// Which manifest
    #[arg(value_enum)]
    manifest: Manifest,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Manifest {
    /// pipelines/*.yaml
    Pipeline,
    /// Files that pipelines include
    Fragment,
    /// environments/*.yaml
    Environment,
}

pub(super) async fn run(args: Args) -> Result {
    render::json(&match args.manifest {
        Manifest::Pipeline => plan::schema::pipeline(),
        Manifest::Fragment => plan::schema::fragment(),
        Manifest::Environment => manifest::schema::environment(),
    });
    Ok(Exit::Ok)
}
