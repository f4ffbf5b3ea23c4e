//! `robo plan`: show what a pipeline would do: stages, tasks, episodes, definition hash.

use super::exit::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args) -> Result {
    Err(anyhow::anyhow!("not built yet").into())
}
