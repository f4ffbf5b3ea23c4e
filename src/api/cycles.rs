//! `GET /v1/cycles...`: what has been evaluated, newest first, and how one cycle went.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    answer::{Answer, Cache},
    ask,
    caller::Caller,
    cycle_documents::{self, LISTED, Summary},
    documents,
    part::Part,
    problem::Problem,
    query::{Asked, PageSize, Question},
    view::View,
    weights::unreadable,
};
use crate::cycle::{CycleId, CycleName, CycleStatus};
use crate::store::{CycleFilter, CycleSummary};

/// Which cycles.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Only cycles that are older than this one: the `next_before` of the page before.
    before: Option<CycleId>,
    /// How many; 20 where nothing is said.
    limit: Option<PageSize>,
    /// Only cycles that stand so. `open` are those that run, wait, are paused or interrupted.
    status: Option<StatusWord>,
    /// Only cycles of the pipeline of this name.
    pipeline: Option<String>,
}

impl Question for Page {
    const TAKES: &'static str = "the question takes `before`, the id of a cycle; `limit`, from 1 to 100; `status`, one of open, \
        completed, failed and cancelled; and `pipeline`, a name";
}

/// How a cycle stands, as it is stored.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum StatusWord {
    Open,
    Completed,
    Failed,
    Cancelled,
}

impl From<StatusWord> for CycleStatus {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Open => Self::Open,
            StatusWord::Completed => Self::Completed,
            StatusWord::Failed => Self::Failed,
            StatusWord::Cancelled => Self::Cancelled,
        }
    }
}

/// A page of cycles.
#[derive(Serialize, JsonSchema)]
pub(super) struct Cycles<'a> {
    /// The cycles, newest first.
    cycles: Vec<Summary<'a>>,
    /// What `before` has to be for the next page; null when this is the last one.
    next_before: Option<CycleId>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Asked(page): Asked<Page>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let name = format!("cycles {page:?}");
    let make = async {
        let size = page.limit.unwrap_or_default();
        let filter = CycleFilter { before: page.before, pipeline: page.pipeline, status: page.status.map(Into::into) };
        let cycles = ask(api.store.cycles_of(&filter, size.number())).await?;
        let body = Cycles {
            next_before: size.last(&cycles).map(|cycle| cycle.id),
            cycles: cycles.iter().map(cycle_documents::summary).collect(),
        };
        Answer::of(&body, Cache::Moments)
    };
    Ok(api.memo.answer((name, View::Public), make).await?.to(&request))
}

pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Part(id): Part,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let view = View::from(&caller);
    let id = id_of(&api, &id).await?;
    let make = async {
        let cycle = find(&api, id).await?;
        let stages = ask(api.store.stage_rows(cycle.id)).await?;
        let narrow: Vec<_> = stages.iter().filter(|row| row.tasks() <= LISTED).map(|row| &row.stage).collect();
        let tasks = ask(api.store.task_lines_of(cycle.id, &narrow)).await?;
        let body = cycle_documents::detail(&cycle, (&stages, &tasks), (view, Utc::now()));
        // Even of one that has completed the episodes age out.
        Answer::of(&body, Cache::for_view(view))
    };
    Ok(api.memo.answer((format!("cycle {id}"), view), make).await?.to(&request))
}

/// The scores of a cycle as a table, one line per miner and environment.
pub(super) async fn scores_csv(State(api): State<Api>, Part(id): Part) -> Result<Response, Problem> {
    let cycle = find(&api, id_of(&api, &id).await?).await?;
    let none = Problem::new(StatusCode::NOT_FOUND, "the cycle has published no scores");
    let row = ask(api.store.publication(cycle.id)).await?.ok_or(none)?;
    let table = documents::scores_csv(&row).map_err(unreadable)?;
    let name = format!("attachment; filename=\"scores-{}.csv\"", cycle.id);
    let headers = [(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, table).into_response())
}

fn no_such_cycle() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such cycle")
}

/// The cycle that an address names by its number or its UUID.
pub(super) async fn id_of(api: &Api, text: &str) -> Result<CycleId, Problem> {
    let name: CycleName = text.parse().map_err(|_| no_such_cycle())?;
    ask(api.store.cycle_named(name)).await?.ok_or_else(no_such_cycle)
}

/// A cycle that there is.
pub(super) async fn find(api: &Api, id: CycleId) -> Result<CycleSummary, Problem> {
    let found = ask(async {
        match api.store.cycle_summary(id).await {
            Ok(cycle) => Ok(Some(cycle)),
            Err(crate::store::Error::UnknownCycle { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    });
    found.await?.ok_or_else(no_such_cycle)
}
