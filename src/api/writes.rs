//! `POST /v1/...`: what operators do over the API. Each is one transaction, in which it is also written down who did it: after a
//! crash or without a database it was done as a whole, or not at all.
//!
//! Nothing runs here. A cycle that is created or opened again is taken up by whichever backend has room for it.

use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Api, Refused, ask, body::Body, caller::Operator, cycles, part::Part, problem::Problem};
use crate::{
    cycle::{CycleId, CycleStatus, Journal, JournalError, StageId},
    plan::{self, Definition, Graph, Rerun},
    store::{self, Admission, CancelAnswer, Earlier, NewCycle, Once, Operation, ReleaseAnswer},
};

/// By which a client says the same request twice.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The longest text that somebody gives as a reason.
const LONGEST_REASON: usize = 1000;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Start {
    /// Inputs of the pipeline.
    inputs: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cancel {
    /// Take it from whoever runs it.
    force: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// The stage that runs again, with all that comes after it.
    stage: Option<StageId>,
    /// Only tasks that have failed, and what they kept from running.
    failed: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pause {
    /// Why, for whoever wonders.
    reason: Option<Reason>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    /// Why, for everybody who reads the vector.
    reason: Reason,
}

/// A reason in words, without the blanks around them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("pattern" = r"\S", "maxLength" = LONGEST_REASON))]
struct Reason(String);

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        match text.chars().count() {
            0 => Err("a reason has words in it".into()),
            1..=LONGEST_REASON => Ok(Self(text.to_owned())),
            _ => Err(format!("a reason has at most {LONGEST_REASON} characters")),
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A cycle that was created.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Started {
    id: CycleId,
    pipeline: String,
}

/// A cycle that is to stop.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Stopping {
    id: CycleId,
    cancel_requested: bool,
}

/// A cycle of which something runs again.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reopened {
    id: CycleId,
    /// The tasks.
    tasks: Vec<String>,
}

/// A vector that was held.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Released {
    id: CycleId,
    released: bool,
    /// Whether it was held until now.
    changed: bool,
}

/// The schedules of a pipeline.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Paused {
    pipeline: String,
    paused: bool,
    /// Whether it was otherwise until now.
    changed: bool,
}

/// A cycle of a pipeline, now.
pub(super) async fn start(
    State(api): State<Api>,
    operator: Operator,
    Part(name): Part,
    headers: HeaderMap,
    Body(body): Body<Start>,
) -> Result<Response, Problem> {
    let detail = json!({ "inputs": body.inputs });
    let once = once(&headers, &name, &detail)?;
    let operation = Operation { once, ..operation(&operator, "start", &name, detail) };
    // Before the files: what was done with them once is not undone by what has become of them.
    let earlier = ask(api.store.earlier(&operation)).await?;
    let cycle = match earlier {
        Earlier::Same(cycle) => cycle,
        Earlier::Other => return Err(other_request()),
        Earlier::None => create(&api, operation, new_cycle(&api, &name, body.inputs).await?).await?,
    };
    let headers = [(LOCATION, format!("/v1/cycles/{cycle}"))];
    Ok((StatusCode::CREATED, headers, Json(Started { id: cycle, pipeline: name })).into_response())
}

async fn new_cycle(api: &Api, name: &str, inputs: BTreeMap<String, Value>) -> Result<NewCycle, Problem> {
    let as_typed = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
    let inputs: Vec<(String, String)> = inputs.into_iter().map(|(name, value)| (name, as_typed(value))).collect();
    let (pipelines, name) = (Arc::clone(&api.pipelines), name.to_owned());
    let made = tokio::task::spawn_blocking(move || pipelines.new_cycle(&name, &inputs)).await;
    match made {
        Ok(Ok(new)) => Ok(new),
        Ok(Err(unknown @ Refused::Unknown)) => Err(Problem::new(StatusCode::NOT_FOUND, unknown.to_string())),
        Ok(Err(Refused::Mistaken(mistakes))) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, mistakes)),
        Err(crash) => {
            tracing::error!("a pipeline could not be compiled: {crash}");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the pipeline could not be compiled"))
        }
    }
}

async fn create(api: &Api, operation: Operation, new: NewCycle) -> Result<CycleId, Problem> {
    let store = api.store.noting(operation);
    let admission = ask(async {
        match store.trigger(&new, Utc::now()).await {
            // Somebody said it at the same moment.
            Err(store::Error::OtherRequest) => Ok(None),
            other => other.map(Some),
        }
    });
    match admission.await? {
        Some(Admission::Created(cycle)) => Ok(cycle),
        Some(Admission::Refused { group, limit, open }) => {
            Err(conflict(format!("of `{group}` at most {limit} may be open, and cycle {open} is")))
        }
        None => Err(other_request()),
    }
}

pub(super) async fn cancel(
    State(api): State<Api>,
    operator: Operator,
    Part(id): Part,
    Body(body): Body<Cancel>,
) -> Result<Response, Problem> {
    let cycle = find(&api, &id).await?;
    let operation = operation(&operator, "cancel", &cycle.to_string(), json!({ "force": body.force }));
    let store = api.store.noting(operation);
    let answer = match body.force {
        true => ask(store.force_cancel(cycle)).await?,
        false => ask(store.request_cancel(cycle)).await?,
    };
    match answer {
        CancelAnswer::Requested | CancelAnswer::NobodyRuns => {
            Ok((StatusCode::ACCEPTED, Json(Stopping { id: cycle, cancel_requested: true })).into_response())
        }
        CancelAnswer::Ended(status) => Err(conflict(format!("cycle {cycle} has ended already: {}", status.word()))),
    }
}

pub(super) async fn retry(
    State(api): State<Api>,
    operator: Operator,
    Part(id): Part,
    Body(body): Body<Retry>,
) -> Result<Response, Problem> {
    let cycle = find(&api, &id).await?;
    let detail = json!({ "stage": body.stage, "failed": body.failed });
    let record = ask_journal(api.store.load(cycle)).await?;
    if record.status == CycleStatus::Completed {
        return Err(conflict(format!("cycle {cycle} has completed: nothing in it can be run again")));
    }
    if ask(api.store.lineage(cycle)).await?.aged_out_at.is_some() {
        return Err(conflict(store::Error::AgedOut(cycle).to_string()));
    }
    let other_version = |error: &dyn std::error::Error| {
        conflict(format!("cycle {cycle} is of another version of robo, which has to go on with it: {error}"))
    };
    let definition: Definition =
        serde_json::from_value(record.definition.clone()).map_err(|error| other_version(&error))?;
    let graph = Graph::new(&definition).map_err(|error| other_version(&error))?;
    if let Some(stage) = body.stage.as_ref().filter(|stage| !definition.stages.iter().any(|it| it.id == **stage)) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("cycle {cycle} has no stage `{stage}`")));
    }
    let tasks = Rerun { stage: body.stage, failed_only: body.failed }.select(&record, &graph);
    if tasks.is_empty() {
        return Err(conflict("nothing that was asked for has ended without success"));
    }
    let root = record.root;
    let checked = tokio::task::spawn_blocking(move || plan::check_builds(&definition, FilePath::new(&root)));
    if let Ok(Err(changed)) = checked.await {
        return Err(conflict(changed.to_string()));
    }
    let store = api.store.noting(operation(&operator, "retry", &cycle.to_string(), detail));
    ask_journal(store.reopen(cycle, &tasks)).await?;
    let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
    Ok((StatusCode::ACCEPTED, Json(Reopened { id: cycle, tasks })).into_response())
}

pub(super) async fn release(
    State(api): State<Api>,
    operator: Operator,
    Part(id): Part,
    Body(Release { reason: Reason(reason) }): Body<Release>,
) -> Result<Json<Released>, Problem> {
    let cycle = find(&api, &id).await?;
    let store = api.store.noting(operation(&operator, "release", &cycle.to_string(), json!({ "reason": reason })));
    match ask(store.release_publication(cycle, &reason)).await? {
        ReleaseAnswer::Released => Ok(Json(Released { id: cycle, released: true, changed: true })),
        ReleaseAnswer::AlreadyReleased => Ok(Json(Released { id: cycle, released: true, changed: false })),
        ReleaseAnswer::NotHeld => Err(conflict(format!("the weights of cycle {cycle} are not held"))),
        ReleaseAnswer::Outdated(by) => {
            Err(conflict(format!("the weights of cycle {by} are newer than those of cycle {cycle}, and count")))
        }
        ReleaseAnswer::Unpublished => Err(conflict(format!("cycle {cycle} has published no weights"))),
    }
}

pub(super) async fn pause(
    State(api): State<Api>,
    operator: Operator,
    Part(pipeline): Part,
    Body(Pause { reason }): Body<Pause>,
) -> Result<Json<Paused>, Problem> {
    require_schedule(&api, &pipeline).await?;
    let reason = reason.map_or_else(|| "over the API".into(), |Reason(reason)| reason);
    let store = api.store.noting(operation(&operator, "pause", &pipeline, json!({ "reason": reason })));
    let changed = ask(store.pause_schedules(&pipeline, &reason, Utc::now())).await?;
    Ok(Json(Paused { pipeline, paused: true, changed }))
}

pub(super) async fn resume(
    State(api): State<Api>,
    operator: Operator,
    Part(pipeline): Part,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Paused>, Problem> {
    require_schedule(&api, &pipeline).await?;
    let store = api.store.noting(operation(&operator, "resume", &pipeline, json!({})));
    let changed = ask(store.resume_schedules(&pipeline, Utc::now())).await?;
    Ok(Json(Paused { pipeline, paused: false, changed }))
}

/// Refuse a pipeline of which no backend has read a schedule: a pause would look as if it held something up.
async fn require_schedule(api: &Api, pipeline: &str) -> Result<(), Problem> {
    let is_known = ask(api.store.schedules()).await?.iter().any(|row| row.pipeline == pipeline);
    let none = || Problem::new(StatusCode::NOT_FOUND, "no backend has read a schedule of a pipeline of that name");
    is_known.then_some(()).ok_or_else(none)
}

async fn find(api: &Api, id: &str) -> Result<CycleId, Problem> {
    cycles::id_of(api, id).await
}

/// What is written down.
fn operation(operator: &Operator, action: &'static str, subject: &str, detail: Value) -> Operation {
    Operation {
        id: Uuid::now_v7(),
        key: operator.key,
        client: operator.client.to_string(),
        action,
        subject: subject.to_owned(),
        detail,
        once: None,
    }
}

/// The name that a client has given its request, and a digest of what it asks for.
fn once(headers: &HeaderMap, pipeline: &str, detail: &Value) -> Result<Option<Once>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let name = value.to_str().unwrap_or_default().trim();
    if name.is_empty() || name.len() > 200 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad_request("`Idempotency-Key` is 1 to 200 visible characters"));
    }
    let sha256 = Sha256::digest(json!([pipeline, detail]).to_string()).into();
    Ok(Some(Once { name: name.to_owned(), sha256 }))
}

/// Ask the journal, but not for ever.
async fn ask_journal<T>(question: impl Future<Output = Result<T, JournalError>>) -> Result<T, Problem> {
    let answer = ask(async {
        match question.await {
            Err(JournalError::Storage(error)) => Err(match error.downcast::<store::Error>() {
                Ok(error) => *error,
                Err(error) => store::Error::Corrupt(error.to_string()),
            }),
            other => Ok(other),
        }
    });
    answer.await?.map_err(|refused| match refused {
        JournalError::Unknown(_) => Problem::new(StatusCode::NOT_FOUND, refused.to_string()),
        refused => conflict(refused.to_string()),
    })
}

fn bad_request(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn conflict(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::CONFLICT, detail)
}

fn other_request() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "another request was sent with this `Idempotency-Key`")
}
