//! `robo commitment set`: what a miner commits. Nothing is signed that a backend could not read, and the end is what stands on
//! the chain, not what was sent there.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    chain::{network, unreachable, wallet},
    commitment::{NOT_A_COMMITMENT, words},
    exit::{Exit, Failure, Result},
    miners,
    render::{self, Format},
};
use crate::{
    chain::{
        Call, Commitment, Content, Included, Metagraph, Network, Node, OnChain, Patience, Place, SubmitError, Wallet,
        roster::{Entry, Status},
        seal::{Secret, Unreadable},
    },
    config,
};

/// How often the chain is read until it has come to the commitment's block, and the pause between.
const READINGS: usize = 10;
const PAUSE: Duration = Duration::from_secs(6);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo commitment set 'user/policy:01234567:https://my.example.org' --netuid 7 --wallet-name miner --dry-run
  robo commitment set \"user/policy:01234567:e:$(robo crypto encrypt ID --public-key HEX)\" --netuid 7 --wallet-name miner")]
pub(super) struct Args {
    /// The commitment, as `robo commitment parse` takes it
    text: String,

    #[command(flatten)]
    subnet: config::Subnet,

    #[command(flatten)]
    deployments: config::Deployments,

    #[command(flatten)]
    wallet: config::Wallet,

    /// Check, sign and ask the runtime whether it would take it, and submit nothing
    #[arg(long)]
    dry_run: bool,

    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(args: &Args) -> Result {
    let commitment = readable(&args.text)?;
    let wallet = wallet(&args.wallet)?;
    let network = network(&args.subnet.chain)?;
    let metagraph = read(&network, args.subnet.netuid).await?;
    let uid = registered(&metagraph, wallet.hotkey(), &network)?;
    let judged = judged(&metagraph, &wallet, (miners::template(&args.deployments)?, args.text.trim()));
    if let Status::Malformed(reason) = &judged.status {
        return Err(Failure::new(Exit::Failed, anyhow::anyhow!("{reason}")).hint(NOT_A_COMMITMENT));
    }
    let mut shown = Shown { uid, wallet: &wallet, commitment: &commitment, judged, rest: json!({}), lines: Vec::new() };
    if let Some(block) = already(&metagraph, &wallet, args.text.trim()) {
        shown.rest = json!({ "already_in_block": block });
        shown.lines.push(format!("block       {block}: it stands there already, and nothing was submitted"));
    } else if args.dry_run {
        let call = call(args);
        let node = Node::reach(&network, Patience::default()).await.map_err(unreachable)?;
        let rehearsed = node.rehearse(&call, &wallet).await.map_err(not_submitted)?;
        shown.rest = json!({ "dry_run": true, "asked_at_block": rehearsed.block, "extrinsic_bytes": rehearsed.length });
        shown.lines.push(format!(
            "block       none: nothing was submitted. A block would take it ({} bytes)",
            rehearsed.length
        ));
    } else {
        let node = Node::reach(&network, Patience::default()).await.map_err(unreachable)?;
        let included = node.submit(&call(args), &wallet).await.map_err(not_submitted)?;
        read_back(&network, args, &wallet, &included).await?;
        let Included { block, hash, extrinsic, is_final } = included;
        let finality = if is_final { "final" } else { "not final yet, look again" };
        shown.lines.push(format!("block       {block} {hash} ({finality}), read back\nextrinsic   {extrinsic}"));
        shown.rest = json!({ "block": block, "hash": hash, "extrinsic": extrinsic, "final": is_final });
    }
    shown.render(args.format);
    Ok(Exit::Ok)
}

fn call(args: &Args) -> Call {
    Call::SetCommitment { netuid: args.subnet.netuid, text: args.text.trim().to_owned() }
}

/// The text as a commitment that a backend can read.
fn readable(text: &str) -> Result<Commitment> {
    let refused = |reason: anyhow::Error| Failure::new(Exit::Failed, reason).hint(NOT_A_COMMITMENT);
    let commitment = Commitment::parse(text.as_bytes()).map_err(|reason| refused(reason.into()))?;
    if let Place::Sealed(package) = &commitment.place {
        // Any key tells a package from what is none; that it is not this one's shows only at the end.
        match Secret::generate().open(package) {
            Ok(_) | Err(Unreadable::Tag) => {}
            Err(reason) => return Err(refused(reason.into())),
        }
    }
    Ok(commitment)
}

async fn read(network: &Network, netuid: u16) -> Result<Metagraph> {
    Metagraph::read(network, netuid, Patience::default()).await.map_err(unreachable)
}

fn registered(metagraph: &Metagraph, hotkey: &str, network: &Network) -> Result<u16> {
    let netuid = metagraph.netuid;
    metagraph.neurons.iter().find(|neuron| neuron.hotkey == hotkey).map(|neuron| neuron.uid).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            anyhow::anyhow!("the hotkey `{hotkey}` is not registered on subnet {netuid} of `{network}`"),
        )
        .hint(format!(
            "register it first, or name another with --hotkey-name; who is: robo miners ls --netuid {netuid}"
        ))
    })
}

/// What a backend would make of it, if it stood on the chain.
fn judged(metagraph: &Metagraph, wallet: &Wallet, (template, text): (&str, &str)) -> Entry {
    let mut then = metagraph.clone();
    let on_chain = OnChain { block: metagraph.block + 1, content: Content::Text(text.into()) };
    then.commitments.insert(wallet.hotkey().to_owned(), on_chain);
    let mut entries = miners::judge(&then, template, None);
    let at = entries.iter().position(|entry| entry.hotkey == wallet.hotkey()).unwrap_or_default();
    entries.swap_remove(at)
}

/// The block in which the hotkey has committed this very text. To send it again would make it younger, and gain nothing.
fn already(metagraph: &Metagraph, wallet: &Wallet, text: &str) -> Option<u64> {
    let on_chain = metagraph.commitments.get(wallet.hotkey())?;
    matches!(&on_chain.content, Content::Text(found) if found == text.as_bytes()).then_some(on_chain.block)
}

fn not_submitted(error: SubmitError) -> Failure {
    let remedy = error.remedy();
    Failure::new(Exit::Failed, error).hint(remedy)
}

/// See that the chain has it now.
async fn read_back(network: &Network, args: &Args, wallet: &Wallet, included: &Included) -> Result<()> {
    for reading in 0..READINGS {
        if reading > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let metagraph = read(network, args.subnet.netuid).await?;
        if metagraph.block < included.block {
            continue;
        }
        if already(&metagraph, wallet, args.text.trim()).is_some() {
            return Ok(());
        }
        return Err(Failure::new(
            Exit::Mismatch,
            anyhow::anyhow!("block {} took the commitment, and block {} has another", included.block, metagraph.block),
        )
        .hint(format!(
            "what stands there: robo commitment show {} --netuid {}",
            wallet.hotkey(),
            metagraph.netuid
        )));
    }
    let block = included.block;
    Err(Failure::new(
        Exit::Failed,
        anyhow::anyhow!("block {block} took the commitment, and was not final for a long time"),
    )
    .hint(format!("look again: robo commitment show {} --netuid {}", wallet.hotkey(), args.subnet.netuid)))
}

/// What is told at the end.
struct Shown<'a> {
    uid: u16,
    wallet: &'a Wallet,
    commitment: &'a Commitment,
    judged: Entry,
    /// Of what was done: fields and lines.
    rest: Value,
    lines: Vec<String>,
}

impl Shown<'_> {
    fn render(&self, format: Format) {
        let is_sealed = matches!(self.commitment.place, Place::Sealed(_));
        match format {
            Format::Json => {
                let mut shown = json!({
                    "hotkey": self.wallet.hotkey(), "uid": self.uid, "commitment": self.commitment,
                    "endpoint": self.judged.endpoint,
                });
                if !is_sealed {
                    shown["status"] = self.judged.status.word().into();
                    shown["detail"] = json!(self.judged.status.detail());
                }
                if let (Some(shown), Some(rest)) = (shown.as_object_mut(), self.rest.as_object()) {
                    shown.extend(rest.clone());
                }
                render::json(&shown);
            }
            Format::Table => {
                let status = if is_sealed {
                    "encrypted: whoever has the private key reads it".to_owned()
                } else {
                    miners::status(&self.judged)
                };
                render::line(format!("hotkey      {} (uid {})", self.wallet.hotkey(), self.uid));
                render::line(words(self.commitment));
                render::line(format!("status      {status}"));
                self.lines.iter().for_each(render::line);
            }
        }
    }
}
