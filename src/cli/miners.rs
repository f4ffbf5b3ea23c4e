//! `robo miners`: who is registered on a subnet, what they committed, and what is made of it.

use std::{collections::BTreeMap, fs};

use serde_json::json;

use super::{
    chain::{network, unreachable},
    db, drive,
    exit::{Exit, Failure, Result},
    render::{self, Format},
    report,
};
use crate::{
    address,
    chain::{
        Metagraph, Patience,
        roster::{self, Entry, Rules, Status},
        seal::Secret,
    },
    config,
    cycle::{Journal, Standing},
    store::Store,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo miners ls --netuid 7
  robo miners ls --netuid 7 --network ws://127.0.0.1:9944 --format json")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List everybody who is registered or has committed something, at the last finalized block
    Ls(Ls),
}

#[derive(Debug, clap::Args)]
struct Ls {
    #[command(flatten)]
    subnet: config::Subnet,

    #[command(flatten)]
    deployments: config::Deployments,

    #[command(flatten)]
    key: config::PrivateKey,

    /// Database whose cycles have kept since when each hotkey serves what it serves; without one, commitments count from their
    /// own block
    #[arg(long, env = "ROBO_BACKEND_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// Leave out who has committed nothing
    #[arg(long)]
    committed: bool,

    /// How to show them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(args: Args) -> Result {
    let Verb::Ls(args) = args.verb;
    let network = network(&args.subnet.chain)?;
    let secret = secret(&args.key)?;
    let template = template(&args.deployments)?;
    let metagraph = Metagraph::read(&network, args.subnet.netuid, Patience::default()).await.map_err(unreachable)?;
    if metagraph.neurons.is_empty() {
        render::note(format!("No miners found: nobody is registered on subnet {} of `{network}`", metagraph.netuid));
    }
    let known = known(args.database_url.as_ref(), &metagraph).await;
    let mut entries = judge_by(&metagraph, (template, secret.as_ref()), &known);
    entries.retain(|entry| !args.committed || entry.status != Status::None);
    match args.format {
        Format::Json => render::json(&json!({
            "netuid": metagraph.netuid, "block": metagraph.block, "hash": metagraph.hash, "miners": entries,
        })),
        Format::Table => {
            let mut table = report::plain(["uid", "hotkey", "model", "since block", "status"].map(str::to_owned));
            for entry in &entries {
                let since =
                    entry.standing.as_ref().map_or_else(|| "-".into(), |standing| standing.first_block.to_string());
                let model = entry.commitment.as_ref().and_then(|commitment| commitment.model.as_ref());
                let model = model.map_or("-", |model| &model.repository);
                let uid = entry.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
                table.add_row([uid, entry.hotkey.clone(), crate::cycle::plain_text(model), since, status(entry)]);
            }
            render::line(table.to_string());
            render::line(format!("block {} of subnet {}", metagraph.block, metagraph.netuid));
        }
    }
    Ok(Exit::Ok)
}

/// A status in words that are safe to print: strangers write commitments.
pub(super) fn status(entry: &Entry) -> String {
    let word = entry.status.word();
    entry
        .status
        .detail()
        .map_or_else(|| word.to_owned(), |detail| format!("{word}: {}", crate::cycle::plain_text(detail)))
}

/// What is made of everybody, without anything that was known before.
pub(super) fn judge(metagraph: &Metagraph, template: &str, secret: Option<&Secret>) -> Vec<Entry> {
    judge_by(metagraph, (template, secret), &BTreeMap::new())
}

/// The address of deployments.
pub(super) fn template(deployments: &config::Deployments) -> Result<&str> {
    let template = deployments.deployment_template.as_deref().unwrap_or(roster::TEMPLATE);
    let is_address = ["http://", "https://"].iter().any(|scheme| template.starts_with(scheme));
    if is_address && template.contains("{id}") {
        return Ok(template);
    }
    let error = anyhow::anyhow!("--deployment-template is `{template}`, and not an address with {{id}} in it");
    Err(Failure::new(Exit::Usage, error).hint(format!("write it as `{}`", roster::TEMPLATE)))
}

/// What is made of everybody, given the standings of before.
fn judge_by(
    metagraph: &Metagraph,
    (template, secret): (&str, Option<&Secret>),
    known: &BTreeMap<String, Standing>,
) -> Vec<Entry> {
    let addresses = address::Rules::default();
    roster::roster(metagraph, &Rules { template, secret, addresses: &addresses, known })
}

/// The standings that cycles have kept. A database that cannot be read costs them, and nothing else.
async fn known(database_url: Option<&String>, metagraph: &Metagraph) -> BTreeMap<String, Standing> {
    let Some(url) = database_url else { return BTreeMap::new() };
    let database = config::Database { database_url: Some(url.clone()), ..config::Database::default() };
    let read = async {
        let store = Store::open(&database, &db::progress()).await.map_err(db::failure)?;
        let known = store.standings(&metagraph.genesis, metagraph.netuid).await.map_err(drive::journal_failure);
        store.close().await;
        known
    };
    match read.await {
        Ok(known) => known.into_iter().map(|(hotkey, standing)| (hotkey.to_string(), standing)).collect(),
        Err(failure) => {
            let why = failure.error;
            render::note(format!("warning: commitments count from their own block, because {why:#}"));
            BTreeMap::new()
        }
    }
}

/// The backend's private key, where one is named.
pub(super) fn secret(key: &config::PrivateKey) -> Result<Option<Secret>> {
    let Some(path) = &key.private_key_file else { return Ok(None) };
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Usage, anyhow::anyhow!("cannot read the private key `{shown}`: {error}"))
    })?;
    Secret::from_hex(&text).map(Some).ok_or_else(|| {
        Failure::new(Exit::Usage, anyhow::anyhow!("`{shown}` does not hold a private key: 64 hexadecimal digits"))
            .hint("make one with: robo crypto generate-keypair --out FILE")
    })
}
