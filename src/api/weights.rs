//! `GET /v1/weights/latest`: the vector that validators put on chain.

use axum::{Json, extract::State, http::StatusCode};
use serde_json::Value;

use super::{ask, documents, problem::Problem};
use crate::store::{CycleSummary, PublicationRow, Store};

pub(super) async fn latest(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    let (row, cycle) = latest_publication(&store).await?;
    documents::weights(&row, &cycle).map(Json).map_err(unreadable)
}

/// The last publication and the cycle it is from.
pub(super) async fn latest_publication(store: &Store) -> Result<(PublicationRow, CycleSummary), Problem> {
    let none = Problem::new(StatusCode::NOT_FOUND, "no weights have been published yet");
    let row = ask(store.latest_publication()).await?.ok_or(none)?;
    let cycle = ask(store.cycle_summary(row.cycle)).await?;
    Ok((row, cycle))
}

pub(super) fn unreadable(error: documents::Unreadable) -> Problem {
    tracing::error!("{:#}", anyhow::Error::from(error));
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the published document cannot be read")
}
