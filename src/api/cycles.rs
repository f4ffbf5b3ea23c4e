//! `GET /v1/cycles...`: what has been evaluated, newest first, and how one cycle went.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Api,
    answer::{Answer, Cache},
    ask, cycle_documents, documents,
    problem::Problem,
    weights::unreadable,
};
use crate::cycle::CycleId;

/// Cycles of a page, at most.
const MOST: u32 = 100;

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Cycles older than this one.
    before: Option<String>,
    /// How many.
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let asked = "the question takes `before`, the id of a cycle, and `limit`, from 1 to 100";
    let bad = || Problem::new(StatusCode::BAD_REQUEST, asked);
    let Query(page) = page.map_err(|_| bad())?;
    let limit = page.limit.unwrap_or(20);
    if !(1..=MOST).contains(&limit) {
        return Err(bad());
    }
    let cycles = match page.before {
        None => ask(api.store.cycles(limit)).await?,
        Some(before) => {
            let before: CycleId = before.parse().map_err(|_| bad())?;
            ask(api.store.cycles_before(before, limit)).await?
        }
    };
    // A full page may have another after it; a page that is not full is the last.
    let next = cycles.last().filter(|_| cycles.len() == limit as usize).map(|cycle| cycle.id);
    let listed: Vec<_> = cycles.iter().map(cycle_documents::summary).collect();
    Ok(Answer::new(&json!({ "cycles": listed, "next_before": next }), Cache::Moments).to(&request))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let cycle = find(&api, &id).await?;
    let stages = ask(api.store.stage_rows(cycle.id)).await?;
    let mut body = cycle_documents::summary(&cycle);
    body["stages"] = stages.iter().map(cycle_documents::stage).collect();
    // Even of one that has completed the episodes age out.
    Ok(Answer::new(&body, Cache::Moments).to(&request))
}

/// The scores of a cycle as a table, one line per miner and environment.
pub(super) async fn scores_csv(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let cycle = find(&api, &id).await?;
    let none = Problem::new(StatusCode::NOT_FOUND, "the cycle has published no scores");
    let row = ask(api.store.publication(cycle.id)).await?.ok_or(none)?;
    let table = documents::scores_csv(&row).map_err(unreadable)?;
    let name = format!("attachment; filename=\"scores-{}.csv\"", cycle.id);
    let headers = [(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, table).into_response())
}

pub(super) async fn find(api: &Api, id: &str) -> Result<crate::store::CycleSummary, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "there is no such cycle");
    let id: CycleId = id.parse().map_err(|_| none())?;
    let found = ask(async {
        match api.store.cycle_summary(id).await {
            Ok(cycle) => Ok(Some(cycle)),
            Err(crate::store::Error::UnknownCycle { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    });
    found.await?.ok_or_else(none)
}
