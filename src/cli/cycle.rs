//! `robo cycle`: list, show, resume and cancel cycles.

use super::exit::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args) -> Result {
    Err(anyhow::anyhow!("not built yet").into())
}
