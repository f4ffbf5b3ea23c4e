//! `GET /v1/status` and `GET /v1/environments`: where the evaluation stands, and in what it takes place.

use std::collections::BTreeSet;

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    answer::{Answer, Cache},
    ask,
    documents::{self, Evaluated, OlderCycle},
    problem::Problem,
    view::View,
    weights::unreadable,
};
use crate::store::{Contents, Store};

/// Where the evaluation stands.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub(super) struct StatusBody<'a> {
    /// `running`, as long as this process answers; `is_evaluating` tells whether a cycle runs.
    status: &'static str,
    /// Whether a cycle runs.
    is_evaluating: bool,
    /// The newest cycle that runs.
    current_cycle: Option<OlderCycle>,
    /// The cycle that completed last.
    last_completed_cycle: Option<OlderCycle>,
    /// Seconds until a cycle is due by the clock.
    next_eval_in_seconds: Option<i64>,
    /// Cycles ever created.
    total_cycles: u64,
    /// Different miners ever evaluated.
    total_miners_evaluated: u64,
    /// The block of the vector that counts.
    last_eval_block: Option<u64>,
    /// The newest block that any cycle is pinned to.
    current_block: Option<u64>,
    /// Miners in the vector that counts.
    miners_registered: usize,
    /// Environments in the vector that counts.
    environments_enabled: &'a [String],
    /// The same as `environments_enabled`.
    environments: &'a [String],
}

pub(super) async fn show(State(api): State<Api>, request: HeaderMap) -> Result<Response, Problem> {
    let make = async {
        let contents = ask(api.store.contents()).await?;
        let next = next_due(&api.store).await?;
        let evaluated = evaluated(&contents)?;
        let last_completed = match &contents.last_completed {
            Some(cycle) => {
                // Its own result, which is not the one that counts while it is held.
                let own = ask(api.store.publication(cycle.id)).await?.as_ref().map(Evaluated::of).transpose();
                Some(documents::cycle(cycle, own.map_err(unreadable)?.as_ref()))
            }
            None => None,
        };
        let body = status(&contents, (last_completed, next), evaluated.as_ref());
        Answer::of(&body, Cache::Moments)
    };
    Ok(api.memo.answer(("status", View::Public), make).await?.to(&request))
}

fn status<'a>(
    contents: &Contents,
    (last_completed_cycle, next): (Option<OlderCycle>, Option<i64>),
    evaluated: Option<&'a Evaluated>,
) -> StatusBody<'a> {
    let environments = evaluated.map_or(&[][..], |evaluated| &evaluated.environments);
    StatusBody {
        status: "running",
        is_evaluating: !contents.running.is_empty(),
        current_cycle: contents.running.first().map(|cycle| documents::cycle(cycle, None)),
        last_completed_cycle,
        next_eval_in_seconds: next,
        total_cycles: contents.cycles,
        total_miners_evaluated: contents.miners,
        last_eval_block: contents.latest.as_ref().and_then(|row| row.block),
        // This process reads no chain for an answer.
        current_block: contents.running.iter().chain(&contents.last_completed).filter_map(|cycle| cycle.block).max(),
        miners_registered: evaluated.map_or(0, Evaluated::miners),
        environments_enabled: environments,
        environments,
    }
}

/// In what is evaluated.
#[derive(Serialize, JsonSchema)]
pub(super) struct Environments<'a> {
    /// The environments of the vector that counts.
    environments: Vec<Environment<'a>>,
}

/// One environment as the vector that counts has it.
#[derive(Serialize, JsonSchema)]
struct Environment<'a> {
    /// `family/task`.
    env_id: &'a str,
    /// The family.
    env_name: &'a str,
    /// The task.
    task_name: &'a str,
    /// Episodes in all.
    n_evaluations: u64,
    /// Mean of the miners' success rates.
    avg_success_rate: Option<f64>,
}

pub(super) async fn environments(State(api): State<Api>, request: HeaderMap) -> Result<Response, Problem> {
    let make = async {
        let latest = ask(api.store.latest_publication()).await?;
        let evaluated = latest.as_ref().map(Evaluated::of).transpose().map_err(unreadable)?;
        let listed = evaluated.iter().flat_map(|it| it.environments.iter().map(|id| environment(it, id)));
        Answer::of(&Environments { environments: listed.collect() }, Cache::Moments)
    };
    Ok(api.memo.answer(("environments", View::Public), make).await?.to(&request))
}

fn environment<'a>(evaluated: &Evaluated, id: &'a str) -> Environment<'a> {
    let (env_name, task_name) = id.split_once('/').unwrap_or((id, ""));
    let entries: Vec<_> = evaluated.entries.iter().filter(|entry| entry.environment == id).collect();
    let rates: f64 = entries.iter().map(|entry| entry.success_rate).sum();
    Environment {
        env_id: id,
        env_name,
        task_name,
        n_evaluations: entries.iter().map(|entry| entry.episodes).sum(),
        avg_success_rate: (!entries.is_empty()).then(|| rates / entries.len() as f64),
    }
}

fn evaluated(contents: &Contents) -> Result<Option<Evaluated>, Problem> {
    contents.latest.as_ref().map(Evaluated::of).transpose().map_err(unreadable)
}

/// Seconds until the next cycle is due by the clock, where a schedule in force says so.
async fn next_due(store: &Store) -> Result<Option<i64>, Problem> {
    let now = Utc::now();
    let paused: BTreeSet<String> = ask(store.pauses()).await?.into_iter().map(|pause| pause.pipeline).collect();
    let schedules = ask(store.schedules()).await?;
    let due = schedules.iter().filter(|row| !paused.contains(&row.pipeline));
    let next = due.filter_map(|row| row.schedule.timing.next_time(now)).min();
    Ok(next.map(|next| (next - now).num_seconds()))
}
