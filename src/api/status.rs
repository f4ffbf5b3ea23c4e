//! `GET /v1/status` and `GET /v1/environments`: where the evaluation stands, and in what it takes place.

use std::collections::BTreeSet;

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::Utc;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, Cache},
    ask,
    documents::{self, Evaluated},
    problem::Problem,
    weights::unreadable,
};
use crate::store::{Contents, Store};

pub(super) async fn show(State(api): State<Api>, request: HeaderMap) -> Result<Response, Problem> {
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
    let mut body = json!({
        "status": if contents.running.is_empty() { "idle" } else { "evaluating" },
        "is_evaluating": !contents.running.is_empty(),
        "current_cycle": contents.running.first().map(|cycle| documents::cycle(cycle, None)),
        "last_completed_cycle": last_completed,
        "next_eval_in_seconds": next,
        "total_cycles": contents.cycles,
        "total_miners_evaluated": contents.miners,
        "last_eval_block": contents.latest.as_ref().and_then(|row| row.block),
    });
    // The newest block that any cycle is pinned to: this process reads no chain for an answer.
    let pinned = contents.running.iter().chain(&contents.last_completed).filter_map(|cycle| cycle.block).max();
    let environments: Vec<&str> =
        evaluated.iter().flat_map(|evaluated| &evaluated.environments).map(String::as_str).collect();
    body["current_block"] = json!(pinned);
    body["miners_registered"] = json!(evaluated.as_ref().map_or(0, Evaluated::miners));
    body["environments_enabled"] = json!(environments);
    body["environments"] = json!(environments);
    Ok(Answer::new(&body, Cache::Moments).to(&request))
}

pub(super) async fn environments(State(api): State<Api>, request: HeaderMap) -> Result<Response, Problem> {
    let contents = ask(api.store.contents()).await?;
    let listed: Vec<Value> = match evaluated(&contents)? {
        None => Vec::new(),
        Some(evaluated) => evaluated.environments.iter().map(|id| environment(&evaluated, id)).collect(),
    };
    Ok(Answer::new(&json!({ "environments": listed }), Cache::Moments).to(&request))
}

/// One environment as the vector that counts has it: episodes in all, and the mean of the miners' success rates.
fn environment(evaluated: &Evaluated, id: &str) -> Value {
    let (family, task) = id.split_once('/').unwrap_or((id, ""));
    let entries: Vec<_> = evaluated.entries.iter().filter(|entry| entry.environment == id).collect();
    let episodes: u64 = entries.iter().map(|entry| entry.episodes).sum();
    let rates: f64 = entries.iter().map(|entry| entry.success_rate).sum();
    let mean = (!entries.is_empty()).then(|| rates / entries.len() as f64);
    json!({ "env_id": id, "env_name": family, "task_name": task, "n_evaluations": episodes, "avg_success_rate": mean })
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
