//! `GET /health`: whether this process and its database are well.

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::ask;
use crate::store::Store;

pub(super) async fn show(State(store): State<Store>) -> (StatusCode, Json<Value>) {
    let (status, health, database) = match ask(store.require_schema()).await {
        Ok(()) => (StatusCode::OK, "healthy", "connected"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", "unreachable"),
    };
    (status, Json(json!({ "status": health, "database": database, "version": env!("CARGO_PKG_VERSION") })))
}
