//! `GET /v1/scores/latest`: what the weights were made from.

use axum::{Json, extract::State};
use serde_json::Value;

use super::{
    documents,
    problem::Problem,
    weights::{latest_publication, unreadable},
};
use crate::store::Store;

pub(super) async fn latest(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    let (row, cycle) = latest_publication(&store).await?;
    documents::scores(&row, &cycle).map(Json).map_err(unreadable)
}
