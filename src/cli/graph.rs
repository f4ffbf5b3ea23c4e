//! `robo graph`: print a pipeline's graph as DOT or Mermaid.

use std::path::PathBuf;

use crate::config;
use crate::plan::Graph;

use super::exit::{Exit, Result};
use super::inputs::{self, Inputs};
use super::{project, render};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  robo graph pipelines/quickstart.yaml\n  robo graph pipelines/quickstart.yaml --format dot | dot -Tsvg > graph.svg"
)]
pub(super) struct Args {
    /// The pipeline
    file: PathBuf,

    #[command(flatten)]
    inputs: Inputs,

    /// The language of the graph
    #[arg(long, value_enum, default_value_t)]
    format: Language,

    #[command(flatten)]
    data: config::DataDir,
}

/// A language that describes graphs.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(super) enum Language {
    /// For Markdown pages
    #[default]
    Mermaid,
    /// For Graphviz
    Dot,
}

pub(super) async fn run(args: Args) -> Result {
    let compiled = inputs::compile(&project::pipeline(&args.file, &args.data)?, &args.inputs)?;
    let graph = Graph::new(&compiled.definition)?;
    render::print(&match args.format {
        Language::Mermaid => graph.mermaid(),
        Language::Dot => graph.dot(),
    });
    Ok(Exit::Ok)
}
