//! `robo backend`: serve weights and scores over HTTP.

use std::net::IpAddr;

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{
    db,
    exit::{Exit, Failure, Result},
    gc, render,
};
use crate::{api, config, store::Store};

/// Answers `/health`, `/v1/weights/latest` and `/v1/scores/latest` from the database until SIGINT or SIGTERM
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  robo backend --host 127.0.0.1\n  curl http://127.0.0.1:8000/v1/weights/latest")]
pub(super) struct Args {
    /// Address to listen on
    #[arg(long, env = "ROBO_BACKEND_HOST", default_value = "0.0.0.0")]
    host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "ROBO_BACKEND_PORT", default_value_t = 8000)]
    port: u16,

    #[command(flatten)]
    retention: config::Retention,

    #[command(flatten)]
    database: config::Database,
}

pub(super) async fn run(args: Args) -> Result {
    // Before the database: a port in use is found at once, and nothing has to be taken back.
    let listener = TcpListener::bind((args.host, args.port)).await.map_err(|error| cannot_listen(&args, error))?;
    let address = listener.local_addr()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let store = Store::open(&args.database, &db::progress()).await.map_err(db::failure)?;
    render::note(format!("listening on http://{address} (database: {}); Ctrl-C stops", store.location()));
    let retention = tokio::spawn(gc::daily(store.clone(), args.retention.retention));
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let served = api::serve(listener, store.clone(), stop).await;
    retention.abort();
    // It holds the store, which is closed in order once nobody else does.
    let _ = retention.await;
    store.close().await;
    served?;
    render::note("stopped");
    Ok(Exit::Ok)
}

fn cannot_listen(args: &Args, error: std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another program listens there: stop it, or choose another with --port",
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose another with --port",
        _ => "choose an address of this machine with --host, 127.0.0.1 for this machine only",
    };
    let what = format!("cannot listen on port {} of {}", args.port, args.host);
    Failure::new(Exit::Failed, anyhow::Error::from(error).context(what)).hint(hint)
}
