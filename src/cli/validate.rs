//! `robo validate`: put a backend's weights on chain with the hotkey of this machine, once or for as long as it runs.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    chain::{network, wallet},
    exit::{Exit, Failure, Result},
    lifetime::signals,
    render::{self, Format},
    report,
};
use crate::{
    chain::{Patience, Wallet, is_hotkey},
    config, manifest,
    validator::{
        self, Backend, BackendUrl, Burns, Cadence, Demands, Document, Done, Plan, Settings, Terms, Trouble, Validator,
        Way,
    },
};

/// Puts a backend's weights on chain, every tempo, until SIGINT or SIGTERM
///
/// Polls the backend's /v1/weights/latest, looks up who has which uid now, finds what the chain would refuse before anything is
/// signed, sets weights (or commits them where commit-reveal is on) and reads them back. Starts and keeps running while the
/// backend or the chain is down. Only the hotkey's file is needed on this machine, never the coldkey's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  robo validate --backend-url https://robo.example --netuid 7 --wallet-name validator --hotkey-name default --dry-run
  robo validate --backend-url https://robo.example --netuid 7 --wallet-name validator --once
  robo validate --backend-url https://robo.example --netuid 7 --network test --listen 127.0.0.1:9600
  curl http://127.0.0.1:9600/health

With --once and --dry-run it ends with 0 when weights were set (or would be), 1 when not, and 6 when something else
stands on the chain afterwards. Every refusal and its remedy: docs/validator.md")]
pub(super) struct Args {
    /// Address of the backend whose weights are set
    #[arg(long, env = "ROBO_VALIDATE_BACKEND_URL", value_name = "URL", hide_env_values = true)]
    backend_url: String,

    #[command(flatten)]
    subnet: config::Subnet,

    #[command(flatten)]
    wallet: config::Wallet,

    /// Hotkey (SS58) that has to have signed the weights; may be repeated while a backend changes its key
    #[arg(long, env = "ROBO_VALIDATE_BACKEND_HOTKEY", value_name = "HOTKEY", value_delimiter = ',', value_parser = hotkey)]
    backend_hotkey: Vec<String>,

    /// Slot that gets the shares of hotkeys that are gone [default: that of the subnet's owner, where they are burnt]
    #[arg(long, env = "ROBO_VALIDATE_BURN_UID", value_name = "UID")]
    burn_uid: Option<u16>,

    /// Set a vector that burns everything also right after one that paid somebody, which is refused otherwise
    #[arg(long, env = "ROBO_VALIDATE_ACCEPT_BURN")]
    accept_burn: bool,

    /// Blocks after which weights are too old, when they do not say so themselves
    #[arg(long, env = "ROBO_VALIDATE_MAX_AGE_BLOCKS", value_name = "N", default_value_t = 7200)]
    max_age_blocks: u64,

    /// How often weights are set, as `72m`; never more often than the chain allows [default: every tempo of the subnet]
    #[arg(long, env = "ROBO_VALIDATE_INTERVAL", value_name = "DURATION", value_parser = manifest::duration)]
    interval: Option<Duration>,

    /// How often the backend is asked for new weights
    #[arg(long, env = "ROBO_VALIDATE_POLL", value_name = "DURATION", default_value = "1m", value_parser = manifest::duration)]
    poll: Duration,

    /// Version that is stated to the chain: the subnet's owner may ask for a least one
    #[arg(long, env = "ROBO_VALIDATE_VERSION_KEY", value_name = "N", default_value_t = 0)]
    version_key: u64,

    /// Intervals without success after which /health says that it is unwell
    #[arg(long, env = "ROBO_VALIDATE_WATCHDOG", value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..))]
    watchdog: u32,

    /// Answer GET /health and GET /metrics at this address
    #[arg(long, env = "ROBO_VALIDATE_LISTEN", value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,

    /// Set weights once, due or not, and end
    #[arg(long)]
    once: bool,

    /// Print what would be submitted, and what the chain would refuse of it; sign and submit nothing
    #[arg(long, conflicts_with = "once")]
    dry_run: bool,

    /// How to show the outcome of --once and --dry-run
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    /// Whether it runs until it is told to stop, and tells in its log how it goes.
    pub(super) fn serves(&self) -> bool {
        !self.once && !self.dry_run
    }
}

fn hotkey(text: &str) -> std::result::Result<String, &'static str> {
    if is_hotkey(text) { Ok(text.to_owned()) } else { Err("it is not the address of a hotkey (SS58)") }
}

pub(super) async fn run(args: Args) -> Result {
    let url = url(&args)?;
    let (settings, wallet) = (settings(&args)?, wallet(&args.wallet)?);
    let backend = Backend::new(&url)?;
    if args.dry_run {
        let (document, plan) = Validator::new(settings, wallet, backend).plan().await.map_err(failure)?;
        return Ok(show(&document, &plan, args.format));
    }
    if args.once {
        let done = Validator::new(settings, wallet, backend).once().await.map_err(failure)?;
        tell(&done, args.format);
        return Ok(Exit::Ok);
    }
    serve(&args, settings, (wallet, backend, url)).await
}

/// The address is not repeated when it is wrong: it may hold a password.
fn url(args: &Args) -> Result<BackendUrl> {
    let wrong = |reason: String| Failure::new(Exit::Usage, anyhow::anyhow!("--backend-url: {reason}"));
    args.backend_url.parse().map_err(wrong)
}

fn settings(args: &Args) -> Result<Settings> {
    // A validator that runs has pauses of its own.
    let rounds = if args.serves() { 1 } else { Patience::default().rounds };
    let patience = Patience { rounds, ..Patience::default() };
    let demands =
        Demands { netuid: args.subnet.netuid, signers: args.backend_hotkey.clone(), max_age: args.max_age_blocks };
    let burns = if args.accept_burn { Burns::Accepted } else { Burns::Refused };
    Ok(Settings {
        network: network(&args.subnet.chain)?,
        patience,
        terms: Terms { demands, burn_uid: args.burn_uid, version_key: args.version_key, burns },
        cadence: args.interval.map_or(Cadence::EachTempo, Cadence::Every),
        poll: args.poll,
        missed: args.watchdog,
    })
}

async fn serve(args: &Args, settings: Settings, (wallet, backend, url): (Wallet, Backend, BackendUrl)) -> Result {
    let stop = CancellationToken::new();
    // Before anything is said: whoever reads that it runs can stop it.
    let signals = signals()?;
    let listener = match args.listen {
        None => None,
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| cannot_listen(address, error))?),
    };
    let (netuid, network) = (args.subnet.netuid, settings.network.to_string());
    let who = format!("validating subnet {netuid} of `{network}` with hotkey {}", wallet.hotkey());
    let validator = Validator::new(settings, wallet, backend);
    let health = listener.map(|listener| {
        let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
        render::note(format!("health and metrics on http://{address}"));
        let served = validator::serve(listener, validator.report(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!("/health and /metrics are not answered any more: {error}");
            }
        })
    });
    render::note(format!("{who}, weights from {url}; Ctrl-C stops"));
    let stopping = stop.clone();
    let work = validator.run(stop);
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        () = signals => stopping.cancel(),
    }
    if let Some(health) = health {
        // It ends with the token.
        let _ = health.await;
    }
    render::note("stopped");
    Ok(Exit::Ok)
}

/// What would be submitted.
fn show(document: &Document, plan: &Plan, format: Format) -> Exit {
    match format {
        Format::Json => render::json(&plan.to_json(document)),
        Format::Table => table(document, plan),
    }
    if plan.refusals.is_empty() && plan.sudden_burn.is_none() { Exit::Ok } else { Exit::Failed }
}

fn table(document: &Document, plan: &Plan) {
    let Plan { hotkey, subnet, vector, way, age, .. } = plan;
    let uid = subnet.seat.as_ref().map_or_else(|| "-".to_owned(), |seat| seat.uid.to_string());
    let block = document.block.map_or_else(|| "-".to_owned(), |block| block.to_string());
    let cycle = document.cycle.as_deref().unwrap_or("-");
    render::line(format!("subnet     {} at block {} ({})", subnet.netuid, subnet.block, subnet.node));
    render::line(format!("hotkey     {hotkey} (uid {uid})"));
    render::line(format!("document   cycle {cycle}, block {block}, {age} blocks old, {}", document.status.word()));
    render::line(format!("call       {}", call(way)));
    let mut rows = report::plain(["uid", "hotkey", "share", "u16"].map(str::to_owned));
    for (uid, value) in vector.amounts.uids.iter().zip(&vector.amounts.values) {
        let hotkey = subnet.slots.get(uid).map_or("-", |slot| slot.hotkey.as_str());
        let share = vector.shares.get(uid).copied().unwrap_or_default();
        rows.add_row([uid.to_string(), hotkey.to_owned(), format!("{share:.6}"), value.to_string()]);
    }
    render::line(format!("\n{rows}"));
    for burnt in &vector.burnt {
        let (payee, percent, why) = (&burnt.payee, 100.0 * burnt.share, &burnt.why);
        let uid = vector.burn_uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
        render::line(format!("burnt in uid {uid}: {percent:.2} %, {payee} ({why})"));
    }
    if let Some(paid) = plan.sudden_burn {
        let trouble = Trouble::SuddenBurn { paid };
        render::line(format!("\n{trouble}\n    {}", trouble.remedies().join("; ")));
    }
    if plan.refusals.is_empty() && plan.sudden_burn.is_some() {
        return;
    }
    if plan.refusals.is_empty() {
        render::line("\nnothing that was looked at speaks against it; nothing was signed or submitted");
        return;
    }
    render::line("\nthe chain would refuse it:");
    for refusal in &plan.refusals {
        render::line(format!("  {refusal}\n    {}", refusal.remedy()));
    }
}

fn call(way: &Way) -> String {
    match way {
        Way::Set => way.call().to_owned(),
        Way::Commit { round, block, .. } => {
            format!("{}, revealed about block {block} (beacon round {round})", way.call())
        }
    }
}

fn tell(done: &Done, format: Format) {
    match format {
        Format::Table => render::line(format!("{done}\nextrinsic {}", done.extrinsic)),
        Format::Json => render::json(&serde_json::json!({
            "block": done.block, "hash": done.hash, "extrinsic": done.extrinsic, "call": done.way.call(), "paid": done.paid,
        })),
    }
}

fn failure(trouble: Trouble) -> Failure {
    let exit = if matches!(trouble, Trouble::Unconfirmed { .. }) { Exit::Mismatch } else { Exit::Failed };
    let hints = trouble.remedies();
    hints.into_iter().fold(Failure::new(exit, trouble), Failure::hint)
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Failure {
    let problem = anyhow::Error::from(error).context(format!("cannot listen on {address}"));
    Failure::new(Exit::Failed, problem).hint("choose another address with --listen")
}
