//! HTTP reads for validators: the latest weights and scores, and whether we are well.
//!
//! Reads the store and never writes to it, never runs a stage, and never shows a database error to a client: those go to
//! the log. One file per resource; `documents.rs` turns what a cycle has published into the bodies clients know.

mod answer;
mod body;
mod caller;
pub mod cycle_documents;
mod cycles;
pub mod documents;
mod guard;
mod health;
mod keys;
mod latest;
mod pipelines;
mod problem;
mod scores;
pub mod standing;
mod status;
mod token;
mod weights;
mod writes;

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{
        HeaderValue, Method, StatusCode,
        header::{ETAG, X_CONTENT_TYPE_OPTIONS},
    },
    middleware,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{
    cors::{Any, CorsLayer},
    set_header::SetResponseHeaderLayer,
    trace::TraceLayer,
};

use crate::store::Store;

pub use pipelines::{Pipelines, Refused, Shown};
pub use token::Token;

use guard::Guard;
use keys::Keys;
use latest::{Keeper, Latest};
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
}

/// What handlers answer from.
#[derive(Clone)]
struct Api {
    store: Store,
    latest: Latest,
    validity: Validity,
    pipelines: Arc<dyn Pipelines>,
}

fn router(api: Api, guard: Guard) -> Router {
    Router::new()
        .route("/health", get(health::show))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::show))
        .route("/v1/weights/latest", get(weights::latest))
        .route("/v1/weights/{block}", get(weights::at_block))
        .route("/v1/status", get(status::show))
        .route("/v1/environments", get(status::environments))
        .route("/v1/cycles", get(cycles::list))
        .route("/v1/cycles/{cycle}", get(cycles::show))
        .route("/v1/cycles/{cycle}/scores.csv", get(cycles::scores_csv))
        .route("/v1/scores/latest", get(scores::latest))
        .route("/v1/scores/{cycle}", get(scores::of_cycle))
        .merge(writes::routes())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not answer that method; `Allow` says which")
        })
        .layer(middleware::from_fn_with_state(guard, guard::pass))
        .layer(TraceLayer::new_for_http())
        .layer(SetResponseHeaderLayer::if_not_present(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        // Everything here is public, and is asked for without anybody's credentials.
        .layer(CorsLayer::new().allow_origin(Any).allow_methods([Method::GET, Method::HEAD]).expose_headers([ETAG]))
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
    let Settings { validity, pipelines } = settings;
    let (latest, mut keeper): (Latest, Keeper) = Latest::of(&store, validity);
    let keys = Keys::of(&store);
    tokio::join!(keeper.look(), keys.look_now());
    let stopping = CancellationToken::new();
    let router = router(Api { store, latest, validity, pipelines }, Guard { keys: keys.clone() });
    let server = axum::serve(listener, router).with_graceful_shutdown(stopping.clone().cancelled_owned()).into_future();
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        _ = futures::future::join(keeper.keep(), keys.keep()) => {}
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
