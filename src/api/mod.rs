//! HTTP reads for validators: the latest weights and scores, and whether we are well.
//!
//! Reads the store and never writes to it, never runs a stage, and never shows a database error to a client: those go to
//! the log. One file per resource; `documents.rs` turns what a cycle has published into the bodies clients know.

mod answer;
mod caller;
pub mod cycle_documents;
mod cycles;
pub mod documents;
mod episodes;
mod events;
mod followers;
mod frontier;
mod health;
mod latest;
mod memo;
mod metrics;
mod miner;
mod miners;
mod openapi;
mod operation;
mod operations;
mod pipelines;
mod problem;
mod query;
mod reference;
mod roster;
mod schedules;
mod scores;
pub mod standing;
mod status;
mod view;
mod weights;

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{
        HeaderValue, Method, StatusCode,
        header::{ETAG, X_CONTENT_TYPE_OPTIONS},
    },
    middleware,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{
    cors::{Any, CorsLayer},
    set_header::SetResponseHeaderLayer,
    trace::TraceLayer,
};

use crate::store::Store;

pub use metrics::Metrics;
pub use pipelines::{Pipelines, Refused, Shown};

use answer::{Answer, Cache};
use followers::Followers;
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
    /// Whether everybody is told where miners answer.
    pub endpoints: Endpoints,
    /// How it is.
    pub metrics: Metrics,
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

fn router(api: Api) -> Router {
    let counted = middleware::from_fn_with_state(api.metrics.clone(), metrics::count);
    operation::router(operations::operations())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address only answers GET")
        })
        .layer(middleware::from_fn(problem::name_instance))
        .layer(TraceLayer::new_for_http())
        .layer(SetResponseHeaderLayer::if_not_present(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        // Everything here is public, and is asked for without anybody's credentials.
        .layer(CorsLayer::new().allow_origin(Any).allow_methods([Method::GET, Method::HEAD]).expose_headers([ETAG]))
        .layer(counted)
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
    let Settings { validity, pipelines, endpoints, metrics } = settings;
    let (latest, mut keeper): (Latest, Keeper) = Latest::of(&store, validity);
    keeper.look().await;
    let stopping = CancellationToken::new();
    let followers = Followers::new(&store, FOLLOWERS, stopping.clone());
    let document = Arc::new(Answer::new(&openapi::document(&operations::operations()), Cache::Moments));
    let (memo, files) = (Memo::default(), reference::Files::default());
    let router =
        router(Api { store, latest, validity, pipelines, endpoints, memo, followers, document, files, metrics });
    let server = axum::serve(listener, router).with_graceful_shutdown(stopping.clone().cancelled_owned()).into_future();
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        () = keeper.keep() => {}
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
