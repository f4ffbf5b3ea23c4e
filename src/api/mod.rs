//! HTTP: what validators and everybody else may read, and what operators may do.
//!
//! Never runs a stage, and never shows a database error to a client: those go to the log. Whoever asks passes `guard.rs`, on a
//! connection of `server.rs`; `writes.rs` alone changes anything. One file per resource; `documents.rs` turns what a cycle has published into the bodies clients know.

mod answer;
mod body;
mod caller;
mod client;
pub mod cycle_documents;
mod cycles;
pub mod documents;
mod episodes;
mod events;
mod followers;
mod frontier;
mod guard;
mod health;
mod keys;
mod latest;
mod memo;
mod metrics;
mod miner;
mod miners;
mod openapi;
mod operation;
mod operations;
mod page;
mod part;
mod pipelines;
mod problem;
mod protection;
mod query;
mod rate;
mod reference;
mod roster;
mod schedules;
mod scores;
mod server;
pub mod standing;
mod status;
mod tls;
mod token;
mod view;
mod weights;
mod writes;

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, middleware};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

pub use metrics::Metrics;
pub use pipelines::{Pipelines, Refused, Shown};
pub use protection::Protection;
pub use tls::Error as TlsError;
pub use token::Token;

use answer::{Answer, Cache};
use followers::Followers;
use keys::Keys;
use latest::{Keeper, Latest};
use memo::Memo;
use problem::Problem;
use standing::Validity;

/// How long answers that are on their way are waited for when we stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the database may take to answer before a client is told that it does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an operator decides of the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For how long a vector counts.
    pub validity: Validity,
    /// What this backend runs.
    pub pipelines: Arc<dyn Pipelines>,
    /// Who may ask, and how much.
    pub protection: Protection,
    /// Whether everybody is told where miners answer.
    pub endpoints: Endpoints,
    /// How it is.
    pub metrics: Metrics,
    /// What is answered.
    pub addresses: Addresses,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Everything.
    All,
    /// Only how this process is: `/health...` and `/metrics`.
    Health,
}

impl Addresses {
    fn operations(self) -> Vec<operation::Operation> {
        let mut operations = operations::operations();
        operations.retain(|one| self == Self::All || one.path.starts_with("/health") || one.path == "/metrics");
        operations
    }
}

/// Whether everybody is told where miners answer; operators always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// Nobody else is.
    Hidden,
    /// Everybody is.
    Shown,
}

/// Clients that follow cycles at a time.
const FOLLOWERS: usize = 256;

/// What handlers answer from.
#[derive(Clone)]
struct Api {
    store: Store,
    latest: Latest,
    validity: Validity,
    pipelines: Arc<dyn Pipelines>,
    endpoints: Endpoints,
    memo: Memo,
    followers: Followers,
    /// The OpenAPI document.
    document: Arc<Answer>,
    files: reference::Files,
    metrics: Metrics,
}

fn router(api: Api, addresses: Addresses) -> Router {
    operation::router(addresses.operations())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not answer that method; `Allow` says which")
        })
        .with_state(api)
}

/// Serve until `stop` is over, then let answers that are on their way arrive.
///
/// # Errors
/// What the system says when the listener fails.
pub async fn serve(
    listener: TcpListener,
    (store, settings): (Store, Settings),
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let Settings { validity, pipelines, protection, endpoints, metrics, addresses } = settings;
    let (latest, mut keeper): (Latest, Keeper) = Latest::of(&store, validity);
    let keys = Keys::of(&store);
    tokio::join!(keeper.look(), keys.look_now());
    let stopping = CancellationToken::new();
    let followers = Followers::new(&store, FOLLOWERS, stopping.clone());
    let document = Arc::new(Answer::new(&openapi::document(&operations::operations()), Cache::Moments));
    let (memo, files) = (Memo::default(), reference::Files::default());
    let counted = middleware::from_fn_with_state(metrics.clone(), metrics::count);
    let router = router(
        Api { store, latest, validity, pipelines, endpoints, memo, followers, document, files, metrics },
        addresses,
    );
    let router = protection.wrap(router, keys.clone(), stopping.clone()).layer(counted);
    let server = server::run(listener, router, protection.entrance(), stopping.clone());
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        _ = futures::future::join3(keeper.keep(), keys.keep(), protection.keep()) => {}
        () = stop => stopping.cancel(),
    }
    // A client that never reads its answer does not keep us.
    tokio::time::timeout(FAREWELL, server).await.unwrap_or(Ok(()))
}

/// Ask the store, but not for ever.
async fn ask<T>(question: impl Future<Output = Result<T, crate::store::Error>>) -> Result<T, Problem> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => tracing::error!("Database connection failed: {:#}", anyhow::Error::from(error)),
        Err(_) => tracing::error!("Database connection failed: no answer within {} s", PATIENCE.as_secs()),
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database is unreachable; try again later"))
}
