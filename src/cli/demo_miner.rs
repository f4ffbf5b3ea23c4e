//! `robo demo-miner`: serve a demonstration policy over the miner protocol.

use std::{net::IpAddr, time::Duration};

use anyhow::Context;
use tokio::net::TcpListener;

use crate::manifest::simulation::Dialect;
use crate::miner::demo::{self, Misbehaviour, Policy, Settings};

use super::{
    exit::{Exit, Failure, Result},
    lifetime::Lifetime,
    render,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  robo demo-miner --policy heuristic --port 9000\n  robo demo-miner --policy noop --port 9001 --fail timeout-after:10\n\nIn a list of miners, `http://127.0.0.1:9000` is then its endpoint; `demo:heuristic` lets robo start one by itself.\nThe policies move MetaWorld's arm: they answer with four numbers."
)]
pub(super) struct Args {
    /// What it plays
    #[arg(long, value_enum)]
    policy: Policy,

    /// Port to listen on; 0 takes a free one. The first line of output says which: {"listening": "HOST:PORT"}
    #[arg(long)]
    port: u16,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,

    /// How long it thinks about each action: 20ms, 1.5s
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0ms")]
    latency: Duration,

    /// The one dialect it speaks [default: that of each request]
    #[arg(long, value_enum)]
    dialect: Option<Speaks>,

    /// Break the protocol on purpose, at once or, as KIND-after:N, after N good answers to /act. KIND is one of timeout,
    /// reset-timeout, http-500, malformed, nan, wrong-size, out-of-range, huge, redirect, gzip, close (connection reset in
    /// the middle of the answer), slow-body, down (the process ends)
    #[arg(long, value_name = "KIND[-after:N]")]
    fail: Option<Misbehaviour>,

    #[command(flatten)]
    lifetime: Lifetime,
}

/// A dialect, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Speaks {
    /// One list of numbers each way
    Native,
    /// Named channels each way
    Canonical,
}

pub(super) async fn run(args: Args) -> Result {
    let listener = listen((args.host, args.port)).await?;
    let end = args.lifetime.watch()?;
    render::line(serde_json::json!({ "listening": listener.local_addr()?.to_string() }).to_string());
    let dialect = args.dialect.map(|dialect| match dialect {
        Speaks::Native => Dialect::Native,
        Speaks::Canonical => Dialect::Canonical,
    });
    let settings = Settings { policy: args.policy, latency: args.latency, misbehaviour: args.fail, dialect };
    tokio::select! {
        served = demo::serve(listener, settings) => served?,
        () = end => {}
    }
    Ok(Exit::Ok)
}

/// Listen, or say what is in the way.
pub(super) async fn listen(address: impl Into<std::net::SocketAddr>) -> Result<TcpListener> {
    let address = address.into();
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}")).map_err(|error| {
        Failure::new(Exit::Failed, error).hint("choose another port, or 0 for a free one that is then printed")
    })
}

/// Read a time that carries its unit.
pub(super) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let expected = || format!("`{text}` is not a time such as 20ms or 1.5s");
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1e-3),
        (None, Some(number)) => (number, 1.0),
        (None, None) => return Err(expected()),
    };
    let number: f64 = number.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "20", "ms", "-1s", "infs", "1m", "1e400s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
