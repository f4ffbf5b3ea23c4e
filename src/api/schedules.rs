//! `GET /v1/pipelines` and `GET /v1/schedules`: what this backend runs, when, and what became of the last due times.

use std::collections::BTreeMap;

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, Shown,
    answer::{Answer, Cache},
    ask,
    caller::Caller,
    problem::Problem,
    view::View,
};
use crate::cycle::{CycleId, CycleNumber};
use crate::schedule::{Catchup, Due, Overlap, Schedule};
use crate::store::{Fired, Outcome, PauseRow, ScheduleRow};

/// The pipelines of this backend.
#[derive(Serialize, JsonSchema)]
pub(super) struct Pipelines<'a> {
    /// By their place on the command line.
    pipelines: Vec<Pipeline<'a>>,
}

/// A pipeline.
#[derive(Serialize, JsonSchema)]
struct Pipeline<'a> {
    /// What it calls itself.
    name: &'a str,
    /// The file it is read from; operators are told.
    file: Option<String>,
    /// What its next cycle is pinned to; null when its file has never been usable.
    definition_hash: Option<&'a str>,
    /// What it evaluates.
    environments: &'a [String],
    /// When it runs by itself.
    schedules: Vec<Entry>,
    /// `current`, or `broken` when the file can no longer be used and its last good version counts.
    status: &'static str,
    /// Why it is broken; operators are told.
    problem: Option<&'a str>,
    /// What is wrong beside it, as a manifest that it does not use; operators are told.
    warnings: Option<&'a str>,
}

/// An entry of a pipeline's schedule.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ScheduleEntry")]
struct Entry {
    /// What tells it from the others of its pipeline.
    key: String,
    /// Five fields of cron and a time zone, or `every N blocks`.
    timing: String,
    /// What happens when a cycle is due and another one is open.
    overlap: Overlap,
    /// What happens to due times that were missed.
    catchup: Catchup,
}

impl From<&Schedule> for Entry {
    fn from(schedule: &Schedule) -> Self {
        Self {
            key: schedule.key(),
            timing: schedule.timing.to_string(),
            overlap: schedule.overlap,
            catchup: schedule.catchup,
        }
    }
}

/// Numbers of cycles.
type Numbers = BTreeMap<CycleId, CycleNumber>;

/// The schedules in force, of all backends on this database.
#[derive(Serialize, JsonSchema)]
pub(super) struct Schedules<'a> {
    /// By pipeline and place in its file.
    schedules: Vec<InForce<'a>>,
}

/// A schedule in force.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Schedule")]
struct InForce<'a> {
    /// The pipeline's name.
    pipeline: &'a str,
    #[serde(flatten)]
    entry: Entry,
    /// The file it was read from; operators are told.
    file: Option<&'a str>,
    /// When it is due next by the clock; null while it is paused, and for blocks.
    next_due_at: Option<DateTime<Utc>>,
    /// The block at which it is due next, as far as the chain has been followed; null while it is paused, and for times.
    next_due_block: Option<u64>,
    /// Since when it is paused.
    paused_at: Option<DateTime<Utc>>,
    /// Why it is paused; operators are told.
    paused_because: Option<&'a str>,
    /// What became of the last due time.
    last: Option<LastFire<'a>>,
}

/// What became of a due time.
#[derive(Serialize, JsonSchema)]
struct LastFire<'a> {
    /// The moment.
    due_at: Option<DateTime<Utc>>,
    /// Or the block.
    due_block: Option<u64>,
    /// Number of the cycle that was started.
    cycle_id: Option<CycleNumber>,
    /// UUID of that cycle.
    cycle_uuid: Option<CycleId>,
    /// Or why none was, in a word.
    skipped: Option<&'a str>,
}

pub(super) async fn pipelines(State(api): State<Api>, caller: Caller, request: HeaderMap) -> Result<Response, Problem> {
    let view = View::from(&caller);
    let shown = api.pipelines.shown();
    let body = Pipelines { pipelines: shown.iter().map(|shown| pipeline(shown, view)).collect() };
    Ok(Answer::of(&body, Cache::for_view(view))?.to(&request))
}

fn pipeline(shown: &Shown, view: View) -> Pipeline<'_> {
    Pipeline {
        name: &shown.name,
        file: view.operators(shown.file.display().to_string()),
        definition_hash: shown.definition_hash.as_deref(),
        environments: &shown.environments,
        schedules: shown.schedules.iter().map(Entry::from).collect(),
        status: if shown.problem.is_some() { "broken" } else { "current" },
        problem: shown.problem.as_deref().and_then(|problem| view.operators(problem)),
        warnings: shown.warnings.as_deref().and_then(|warnings| view.operators(warnings)),
    }
}

pub(super) async fn schedules(State(api): State<Api>, caller: Caller, request: HeaderMap) -> Result<Response, Problem> {
    let view = View::from(&caller);
    let rows = ask(api.store.schedules()).await?;
    let pauses = ask(api.store.pauses()).await?;
    let started = |row: &ScheduleRow| match row.last.as_ref()?.outcome {
        Outcome::Cycle(cycle) => Some(cycle),
        Outcome::Skipped(_) => None,
    };
    let started: Vec<CycleId> = rows.iter().filter_map(started).collect();
    let numbers = ask(api.store.cycle_numbers(&started)).await?;
    let now = Utc::now();
    let schedules = rows.iter().map(|row| in_force(row, &pauses, &numbers, (view, now))).collect();
    Ok(Answer::of(&Schedules { schedules }, Cache::for_view(view))?.to(&request))
}

fn in_force<'a>(
    row: &'a ScheduleRow,
    pauses: &'a [PauseRow],
    numbers: &Numbers,
    (view, now): (View, DateTime<Utc>),
) -> InForce<'a> {
    let pause = pauses.iter().find(|pause| pause.pipeline == row.pipeline);
    let timing = &row.schedule.timing;
    let next = match (pause, row.decided_until) {
        (Some(_), _) => None,
        (None, Some(until @ Due::Block(_))) => timing.next(until),
        (None, _) => timing.next_time(now).map(Due::Time),
    };
    InForce {
        pipeline: &row.pipeline,
        entry: Entry::from(&row.schedule),
        file: view.operators(&row.file),
        next_due_at: next.and_then(time),
        next_due_block: next.and_then(block),
        paused_at: pause.map(|pause| pause.paused_at),
        paused_because: pause.and_then(|pause| view.operators(pause.reason.as_str())),
        last: row.last.as_ref().map(|fired| last_fire(fired, numbers)),
    }
}

fn last_fire<'a>(fired: &'a Fired, numbers: &Numbers) -> LastFire<'a> {
    let (cycle_uuid, skipped) = match &fired.outcome {
        Outcome::Cycle(cycle) => (Some(*cycle), None),
        Outcome::Skipped(word) => (None, Some(word.as_str())),
    };
    let cycle_id = cycle_uuid.and_then(|cycle| numbers.get(&cycle).copied());
    LastFire { due_at: time(fired.due), due_block: block(fired.due), cycle_id, cycle_uuid, skipped }
}

fn time(due: Due) -> Option<DateTime<Utc>> {
    match due {
        Due::Time(time) => Some(time),
        Due::Block(_) => None,
    }
}

fn block(due: Due) -> Option<u64> {
    match due {
        Due::Block(block) => Some(block),
        Due::Time(_) => None,
    }
}
