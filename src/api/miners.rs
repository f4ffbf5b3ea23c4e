//! `GET /v1/miners`: everybody whom the last discovery saw, and how they did in the vector that counts.

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    answer::{Answer, Cache},
    ask,
    caller::Caller,
    problem::Problem,
    roster::{Known, Roster},
    view::View,
    weights::unreadable,
};
use crate::cycle::CycleId;
use crate::plan::kinds::FINDERS;

/// Everybody.
#[derive(Serialize, JsonSchema)]
pub(super) struct Miners<'a> {
    /// The cycle of the last discovery; null where there was none.
    discovered_in: Option<CycleId>,
    /// Everybody it saw, those who take no part included: by uid, then those who have none.
    miners: Vec<Miner<'a>>,
}

/// A miner in the list.
#[derive(Serialize, JsonSchema)]
struct Miner<'a> {
    /// Slot on the subnet; null for whoever has none.
    uid: Option<u16>,
    /// Identity.
    hotkey: &'a str,
    /// Where it answers; null unless the operator shows endpoints.
    endpoint: Option<&'a str>,
    /// `active` where it takes part, else a word for why not.
    status: &'a str,
    /// When the vector that counts was published, where it rests on this miner, too.
    last_evaluated: Option<DateTime<Utc>>,
    /// The block that it is as of.
    last_evaluated_block: Option<u64>,
    /// Mean of its success rates over all environments.
    avg_success_rate: Option<f64>,
    /// In what it was evaluated.
    environments_evaluated: Vec<&'a str>,
}

pub(super) async fn list(State(api): State<Api>, caller: Caller, request: HeaderMap) -> Result<Response, Problem> {
    let view = View::from(&caller);
    let make = async {
        let roster = read(&api).await?;
        let mut current: Vec<(&str, &Known)> = roster
            .miners
            .iter()
            .map(|(hotkey, known)| (hotkey.as_str(), known))
            .filter(|it| it.1.is_current())
            .collect();
        current.sort_by_key(|(_, known)| (known.uid.is_none(), known.uid));
        let miners = current.into_iter().map(|(hotkey, known)| miner(&api, &roster, (hotkey, known), view));
        let body = Miners { discovered_in: roster.discovered_in, miners: miners.collect() };
        Answer::of(&body, Cache::for_view(view))
    };
    Ok(api.memo.answer(("miners", view), make).await?.to(&request))
}

/// What the store knows of everybody.
pub(super) async fn read(api: &Api) -> Result<Roster, Problem> {
    let discovered = ask(api.store.discovered(&FINDERS)).await?;
    let publication = ask(api.store.latest_publication()).await?;
    Roster::of(discovered, publication.as_ref()).map_err(unreadable)
}

fn miner<'a>(api: &Api, roster: &Roster, (hotkey, known): (&'a str, &'a Known), view: View) -> Miner<'a> {
    let evaluated = roster.evaluated.filter(|_| !known.scores.is_empty());
    Miner {
        uid: known.uid,
        hotkey,
        endpoint: known.endpoint.as_deref().and_then(|endpoint| view.endpoint(api.endpoints, endpoint)),
        status: known.word(),
        last_evaluated: evaluated.map(|(_, at, _)| at),
        last_evaluated_block: evaluated.and_then(|(.., block)| block),
        avg_success_rate: known.mean_rate(),
        environments_evaluated: known.scores.iter().map(|score| score.environment.as_str()).collect(),
    }
}
