//! `GET /health`: whether this process and its database are well.

use axum::{Json, extract::State, http::StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, ask};

/// That this process answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Alive {
    /// `alive`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// How this process and its database are.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// `connected` or `unreachable`.
    database: &'static str,
    /// The program's version.
    version: &'static str,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// That this process answers at all.
pub(super) async fn live() -> Json<Alive> {
    Json(Alive { status: "alive", version: VERSION })
}

pub(super) async fn show(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    match ask(api.store.require_schema()).await {
        Ok(()) => (StatusCode::OK, Json(Health { status: "healthy", database: "connected", version: VERSION })),
        Err(_) => {
            let health = Health { status: "unhealthy", database: "unreachable", version: VERSION };
            (StatusCode::SERVICE_UNAVAILABLE, Json(health))
        }
    }
}
