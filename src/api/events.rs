//! `GET /v1/cycles/{cycle}/events`: the journal of a cycle as it is written, as server-sent events that a client can take up
//! again where it was.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, ask,
    caller::Caller,
    cycles,
    followers::{Follower, Next},
    part::Part,
    problem::Problem,
    query::mistaken,
    view::View,
};
use crate::cycle::{CycleStatus, FailureClass};
use crate::store::FollowedEvent;

/// How long nothing is said before something is, so that nobody between takes the connection for a dead one.
const SILENCE: Duration = Duration::from_secs(15);

/// The `type` of the problem that too many follow.
const TOO_MANY: &str = "urn:robo:problem:too-many-followers";

/// The data of an event `task`: a line of the journal.
#[derive(Serialize, JsonSchema)]
pub(super) struct TaskLine<'a> {
    /// Its place in the journal, which is the event's id.
    id: i64,
    /// When it was written.
    at: DateTime<Utc>,
    /// The stage.
    stage: &'a str,
    /// The cell of the stage's matrix; empty where it has none.
    cell: &'a str,
    /// The attempt it is about; 0 for a task that never began.
    attempt: u32,
    /// What happened: `started`, `lost`, `succeeded`, `retried`, `failed`, `paused`, `resumed`, `skipped`, `cancelled` or `reopened`.
    event: &'a str,
    /// What kind of failure it was.
    failure_class: Option<FailureClass>,
    /// What exactly happened, or why it was skipped; operators are told.
    why: Option<&'a str>,
}

/// The data of the event `end`, which is the last one.
#[derive(Serialize, JsonSchema)]
pub(super) struct End {
    /// `completed`, `failed` or `cancelled`.
    status: &'static str,
}

pub(super) async fn follow(
    State(api): State<Api>,
    caller: Caller,
    Part(cycle): Part,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let (cycle, view) = (cycles::id_of(&api, &cycle).await?, View::from(&caller));
    let last = last_known(&request)?;
    let none = Problem::new(StatusCode::NOT_FOUND, "there is no such cycle");
    let found = ask(api.store.events_after(cycle, last.unwrap_or_default(), 1)).await?.ok_or(none)?;
    if last.is_some() && found.events.is_empty() && found.status != CycleStatus::Open {
        // Who has seen everything of a cycle that has ended is told not to come again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let follower = api.followers.follow(cycle, last.unwrap_or_default()).await?.ok_or_else(|| {
        let many =
            "too many clients follow cycles already: come back later, or ask for /v1/cycles/{cycle} now and then";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, many).of_type(TOO_MANY)
    })?;
    let mut response = kept_alive(events(follower, view)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers answers before it passes them on would hold every event back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The last line that a client has, where it says so.
fn last_known(request: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = request.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id: &i64| *id >= 0);
    id.map(Some).ok_or_else(|| mistaken("the header `Last-Event-ID` is the id of an event: a whole number"))
}

fn events(follower: Follower, view: View) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(follower), move |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Next::Line(line) => Some((Ok(task(&line, view)), Some(follower))),
            Next::End(status) => {
                let event = Event::default().event("end").json_data(End { status: status.word() });
                Some((Ok(event.unwrap_or_default()), None))
            }
            Next::Away => None,
        }
    })
}

fn kept_alive<S>(events: S) -> impl IntoResponse
where
    S: Stream<Item = Result<Event, Infallible>> + Send + 'static,
{
    Sse::new(events).keep_alive(KeepAlive::new().interval(SILENCE).text("still there"))
}

fn task(line: &FollowedEvent, view: View) -> Event {
    let why = line.failure.as_ref().map(|failure| failure.message.as_str()).or(line.reason.as_deref());
    let data = TaskLine {
        id: line.id,
        at: line.at,
        stage: line.task.stage.as_str(),
        cell: &line.task.cell,
        attempt: line.attempt,
        event: &line.kind,
        failure_class: line.failure.as_ref().map(|failure| failure.class),
        why: why.and_then(|why| view.operators(why)),
    };
    // Texts, times and numbers are always JSON.
    Event::default().id(line.id.to_string()).event("task").json_data(data).unwrap_or_default()
}
