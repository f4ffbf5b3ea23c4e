//! `GET /health`: whether this process and its database are well.

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::{Api, ask};

/// That this process answers at all.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "alive", "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn show(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let (status, health, database) = match ask(api.store.require_schema()).await {
        Ok(()) => (StatusCode::OK, "healthy", "connected"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", "unreachable"),
    };
    (status, Json(json!({ "status": health, "database": database, "version": env!("CARGO_PKG_VERSION") })))
}
