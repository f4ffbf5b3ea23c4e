//! `robo chain`: whether a chain can be read, and where it stands.

use serde_json::json;

use super::{
    exit::{Exit, Failure, Result},
    render::{self, Format},
};
use crate::{
    chain::{Head, Network, Patience, Unreachable, Wallet},
    config,
    store::Scope,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo chain status
  robo chain status --network wss://entrypoint-finney.opentensor.ai:443,ws://127.0.0.1:9944")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Connect to the first good node and show the last finalized block
    Status(Status),
}

#[derive(Debug, clap::Args)]
struct Status {
    #[command(flatten)]
    chain: config::Chain,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(args: Args) -> Result {
    let Verb::Status(args) = args.verb;
    let network = network(&args.chain)?;
    let head = Head::read(&network, Patience::default()).await.map_err(unreachable)?;
    let Head { node, genesis, block, hash, best, spec_version, .. } = head;
    match args.format {
        Format::Json => render::json(&json!({
            "network": network.to_string(), "node": node, "genesis": genesis, "block": block, "hash": hash, "best_block": best,
            "spec_version": spec_version,
        })),
        Format::Table => {
            render::line(format!("network    {network}\nnode       {node}\ngenesis    {genesis}"));
            render::line(format!("finalized  {block} {hash}\nbest       {best}\nruntime    {spec_version}"));
        }
    }
    Ok(Exit::Ok)
}

/// The network that an operator names.
pub(super) fn network(chain: &config::Chain) -> Result<Network> {
    chain.network.parse().map_err(|error: crate::chain::Unknown| Failure::new(Exit::Usage, error))
}

/// Whose vectors are served. The genesis is compared where the network's name stands for one chain only.
pub(super) fn scope(netuid: Option<u16>, network: &Network) -> Scope {
    let genesis = network.genesis().map(str::to_owned);
    netuid.map_or(Scope::First, |netuid| Scope::Subnet { netuid, genesis })
}

/// No node could be read.
pub(super) fn unreachable(error: Unreachable) -> Failure {
    Failure::new(Exit::Failed, error)
        .hint("name other nodes with --network ws://...,wss://... (or ROBO_BACKEND_NETWORK), tried in that order")
}

/// The hotkey that signs.
pub(super) fn wallet(args: &config::Wallet) -> Result<Wallet> {
    let Some(directory) = args.directory() else {
        return Err(Failure::new(Exit::Usage, anyhow::anyhow!("there is no home directory with wallets"))
            .hint("name their directory with --wallets-dir"));
    };
    Wallet::at(&directory, &args.wallet_name, &args.hotkey_name).map_err(|error| {
        let remedy = error.remedy();
        Failure::new(Exit::Usage, error).hint(remedy)
    })
}
