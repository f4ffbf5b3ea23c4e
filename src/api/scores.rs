//! `GET /v1/scores/...`: what the weights were made from.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{
    Api,
    answer::{Answer, Cache},
    ask, documents,
    part::Part,
    problem::Problem,
    view::View,
    weights::{latest_publication, unreadable},
};
use crate::cycle::CycleName;

/// Those of the vector that counts.
pub(super) async fn latest(State(api): State<Api>, request: HeaderMap) -> Result<Response, Problem> {
    let make = async {
        let (row, cycle) = latest_publication(&api.store).await?;
        let body = documents::scores(&row, &cycle).map_err(unreadable)?;
        Ok(Answer::new(&body, Cache::Moments))
    };
    Ok(api.memo.answer(("scores", View::Public), make).await?.to(&request))
}

/// Those of a cycle, which never change.
pub(super) async fn of_cycle(State(api): State<Api>, Part(id): Part, request: HeaderMap) -> Result<Response, Problem> {
    let name: CycleName = id.parse().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "the address ends with the number or the UUID of a cycle, or `latest`")
    })?;
    let none = Problem::new(StatusCode::NOT_FOUND, "no such cycle has published scores");
    let id = ask(api.store.cycle_named(name)).await?.ok_or_else(|| none.clone())?;
    let row = ask(api.store.publication(id)).await?.ok_or(none)?;
    let cycle = ask(api.store.cycle_summary(row.cycle)).await?;
    let body = documents::scores(&row, &cycle).map_err(unreadable)?;
    Ok(Answer::new(&body, Cache::Forever).to(&request))
}
