//! `robo commitment`: what a miner has committed, or would commit, and what is made of it. To commit has a file of its own.

use serde_json::{Value, json};

use super::{
    chain::{network, unreachable},
    commitment_set,
    exit::{Exit, Failure, Result},
    miners,
    render::{self, Format},
};
use crate::{
    chain::{Commitment, Metagraph, Model, Patience, Place},
    config,
};

/// What to do about a text that is no commitment.
pub(super) const NOT_A_COMMITMENT: &str =
    "write the id of the deployment, or `model:revision:deployment`, as `user/policy:01234567:https://my.example.org`";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo commitment parse 95edf2b6-e18b-400a-8398-5573df10e5e4
  robo commitment parse 'user/policy:01234567:95edf2b6-e18b-400a-8398-5573df10e5e4'
  robo commitment show 5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX --netuid 7")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Read a text as a commitment, without a chain; exit code 1 when it is none
    Parse(Parse),
    /// Show what a hotkey has committed, and what is made of it
    Show(Show),
    /// Commit it: check it, sign it with the wallet's hotkey, submit it and read it back
    Set(commitment_set::Args),
}

#[derive(Debug, clap::Args)]
struct Parse {
    /// The text, as it would stand on the chain
    text: String,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The miner's address (SS58)
    hotkey: String,

    #[command(flatten)]
    subnet: config::Subnet,

    #[command(flatten)]
    deployments: config::Deployments,

    #[command(flatten)]
    key: config::PrivateKey,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(args: Args) -> Result {
    match args.verb {
        Verb::Parse(args) => parse(&args),
        Verb::Show(args) => show(&args).await,
        Verb::Set(args) => commitment_set::run(&args).await,
    }
}

fn parse(args: &Parse) -> Result {
    match (Commitment::parse(args.text.as_bytes()), args.format) {
        (Ok(commitment), Format::Json) => render::json(&json!(commitment)),
        (Ok(commitment), Format::Table) => render::line(words(&commitment)),
        (Err(reason), _) => {
            return Err(Failure::new(Exit::Failed, reason).hint(NOT_A_COMMITMENT));
        }
    }
    Ok(Exit::Ok)
}

pub(super) fn words(commitment: &Commitment) -> String {
    let Commitment { model, place, docker_image } = commitment;
    let model = model.as_ref().map_or_else(String::new, |Model { repository, revision }| {
        format!("model       {repository}\nrevision    {revision}\n")
    });
    let place = match place {
        Place::Url(url) => format!("endpoint    {url}"),
        Place::Deployment(id) => format!("deployment  {id}"),
        Place::Sealed(package) => format!("deployment  encrypted: {package}"),
    };
    let image = docker_image.as_ref().map(|image| format!("\nimage       {image}")).unwrap_or_default();
    format!("{model}{place}{image}")
}

async fn show(args: &Show) -> Result {
    let network = network(&args.subnet.chain)?;
    let secret = miners::secret(&args.key)?;
    let template = miners::template(&args.deployments)?;
    let metagraph = Metagraph::read(&network, args.subnet.netuid, Patience::default()).await.map_err(unreachable)?;
    let entry =
        miners::judge(&metagraph, template, secret.as_ref()).into_iter().find(|entry| entry.hotkey == args.hotkey);
    let Some(entry) = entry else {
        let netuid = args.subnet.netuid;
        return Err(Failure::new(
            Exit::Failed,
            anyhow::anyhow!("`{}` is not registered on subnet {netuid} and has committed nothing there", args.hotkey),
        )
        .hint(format!("who is: robo miners ls --netuid {netuid} --network {network}")));
    };
    match args.format {
        Format::Json => {
            let mut shown = json!(entry);
            shown["block"] = metagraph.block.into();
            shown["written_at"] =
                metagraph.commitments.get(&args.hotkey).map_or(Value::Null, |on_chain| on_chain.block.into());
            render::json(&shown);
        }
        Format::Table => {
            let uid = entry.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
            render::line(format!("uid         {uid}\nstatus      {}", miners::status(&entry)));
            if let Some(commitment) = &entry.commitment {
                render::line(words(commitment));
            }
        }
    }
    Ok(Exit::Ok)
}
