//! `GET /health` and `GET /metrics` of a running validator. Shows its report and takes nothing.

use std::{io, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use super::report::Report;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serve until `stop`.
///
/// # Errors
/// What the system says when the listener fails.
pub async fn serve(listener: TcpListener, report: Report, stop: CancellationToken) -> io::Result<()> {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE))
        .with_state(report);
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served,
        // Whoever asks how we are as we end gets no answer, which is one.
        () = stop.cancelled() => Ok(()),
    }
}

async fn health(State(report): State<Report>) -> impl IntoResponse {
    let (is_well, value) = report.health();
    (if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(value))
}

async fn metrics(State(report): State<Report>) -> impl IntoResponse {
    match report.metrics() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!("metrics cannot be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
