//! HTTP reads for validators: the latest weights and scores, and whether we are well.
//!
//! Reads the store and never writes to it, never runs a stage, and never shows a database error to a client: those go to
//! the log. One file per resource; `documents.rs` turns what a cycle has published into the bodies clients know.

pub mod documents;
mod health;
mod problem;
mod scores;
mod weights;

use std::{future::Future, io, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::trace::TraceLayer;

use crate::store::Store;

use problem::Problem;

/// How long answers that are on their way are waited for when we stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the database may take to answer before a client is told that it does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// All routes over one store.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/health", get(health::show))
        .route("/v1/weights/latest", get(weights::latest))
        .route("/v1/scores/latest", get(scores::latest))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address only answers GET")
        })
        .layer(TraceLayer::new_for_http())
        .with_state(store)
}

/// Serve until `stop` is over, then let answers that are on their way arrive.
///
/// # Errors
/// What the system says when the listener fails.
pub async fn serve(listener: TcpListener, store: Store, stop: impl Future<Output = ()>) -> io::Result<()> {
    let stopping = CancellationToken::new();
    let server =
        axum::serve(listener, router(store)).with_graceful_shutdown(stopping.clone().cancelled_owned()).into_future();
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
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
