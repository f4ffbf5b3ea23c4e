//! `GET /v1/weights/...`: the vectors that validators put on chain.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{
    Api,
    answer::{Answer, Cache},
    ask, documents, latest,
    part::Part,
    problem::Problem,
};
use crate::store::{CycleSummary, PublicationRow, Store};

/// The vector that counts, from memory.
pub(super) async fn latest(State(api): State<Api>, request: HeaderMap) -> Result<Response, Problem> {
    match api.latest.answer() {
        Some(answer) => Ok(answer.to(&request)),
        None => Err(latest::nothing(&api.store).await),
    }
}

/// The vector of the last cycle that was pinned to a block.
pub(super) async fn at_block(
    State(api): State<Api>,
    Part(block): Part,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let block: u64 = block.parse().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "the address ends with the number of a block, or `latest`")
    })?;
    let none = Problem::new(StatusCode::NOT_FOUND, "no weights have been published for this block");
    let row = ask(api.store.publication_at(block)).await?.ok_or(none)?;
    let cycle = ask(api.store.cycle_summary(row.cycle)).await?;
    let body = documents::weights((&row, &cycle), api.validity, None).map_err(unreadable)?;
    Ok(Answer::new(&body, Cache::Moments).to(&request))
}

/// The vector that counts and the cycle it is from.
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
