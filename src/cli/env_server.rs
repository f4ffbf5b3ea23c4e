//! `robo env-server`: run an environment server (started by robo itself).

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;

use crate::envserver::{Config, Python, Server};
use crate::manifest;

use super::{
    demo_miner::{duration, listen},
    exit::{Exit, Failure, Result},
    lifetime::Lifetime,
    render,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Python interpreter of an environment that has the simulator installed
    #[arg(long, value_name = "PATH")]
    python: PathBuf,

    /// Directory that holds the package `robo_eval_env`
    #[arg(long, value_name = "DIR")]
    package: PathBuf,

    /// Requirements lock that the interpreter was installed from: with it the server can say what it simulates with, which
    /// `--env-server` asks
    #[arg(long, value_name = "LOCK")]
    requirements: Option<PathBuf>,

    /// Address to listen on; port 0 takes a free one. The first line of output says which: {"listening": "HOST:PORT"}
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// What every request must carry as its bearer token
    #[arg(long, env = "ROBO_ENV_SERVER_TOKEN", hide_env_values = true)]
    token: String,

    /// How long a simulator's worker may take for an answer before it is killed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    worker_timeout: Duration,

    #[command(flatten)]
    lifetime: Lifetime,
}

/// Fit the runtime to a server whose cores belong to simulators: one thread for the network serves many of them, and no
/// time goes into handing work from thread to thread.
pub(super) fn tune(runtime: &mut tokio::runtime::Builder) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    runtime.worker_threads(cores.div_ceil(16));
}

pub(super) async fn run(args: Args) -> Result {
    if args.token.is_empty() {
        let error = anyhow::anyhow!("the token is empty");
        return Err(Failure::new(Exit::Usage, error).hint("set ROBO_ENV_SERVER_TOKEN to a random word"));
    }
    let digest = args.requirements.as_ref().map(|lock| {
        manifest::build_digest(&args.package, lock).with_context(|| format!("cannot read `{}`", lock.display()))
    });
    let digest = digest.transpose()?;
    let python = Python { interpreter: args.python, package: args.package };
    let server = Server::new(Config { python, token: args.token, worker_timeout: args.worker_timeout, digest })?;
    let listener = listen(args.listen).await?;
    let end = args.lifetime.watch()?;
    render::line(serde_json::json!({ "listening": listener.local_addr()?.to_string() }).to_string());
    server.serve(listener, end).await?;
    Ok(Exit::Ok)
}
