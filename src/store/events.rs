//! The journal as people read and follow it, and the counts that change while a cycle runs.

use chrono::{DateTime, Utc};

use crate::cycle::{CycleId, CycleStatus, TaskEvent, TaskFailure, TaskKey};

use super::{Error, Store, cycle};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The task it is about.
    pub task: TaskKey,
    /// The attempt it is about.
    pub attempt: u32,
    /// The lease under which it was written; 0 for what a fork took over.
    pub epoch: i64,
    /// What happened.
    pub event: TaskEvent,
}

/// A line of the journal as the API's clients follow it: without what a task has put out.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowedEvent {
    /// Its place in the journal.
    pub id: i64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The task it is about.
    pub task: TaskKey,
    /// The attempt it is about.
    pub attempt: u32,
    /// The word of what happened.
    pub kind: String,
    /// What failed, where something did.
    pub failure: Option<TaskFailure>,
    /// Why the task does not run, where it is skipped.
    pub reason: Option<String>,
}

/// Lines that follow one another, and how their cycle stood when they were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Followed {
    /// Once it is not open, nothing follows the last line unless somebody opens the cycle again.
    pub status: CycleStatus,
    /// The lines, in order.
    pub events: Vec<FollowedEvent>,
}

type Row = (DateTime<Utc>, String, String, i32, i64, String);

#[derive(sqlx::FromRow)]
struct FollowedRow {
    cycle_status: String,
    // None of them in the one row of a cycle that nothing follows in.
    event_id: Option<i64>,
    at: Option<DateTime<Utc>>,
    stage: Option<String>,
    cell: Option<String>,
    attempt: Option<i32>,
    kind: Option<String>,
    payload: Option<String>,
}

impl Store {
    /// The journal of a cycle in the order it was written, from a moment on.
    ///
    /// Lines get the time at which their transaction began and can appear a little later: whoever follows a journal asks
    /// from some time before the last line it has seen, and leaves out what it knows.
    pub async fn events(&self, cycle: CycleId, since: Option<DateTime<Utc>>) -> Result<Vec<EventRow>, Error> {
        let rows: Vec<Row> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select event.at, stage, cell, event.attempt, epoch, payload::text
                     from task_event event join task using (cycle_id, stage, cell)
                     where cycle_id = $1 and ($2::timestamptz is null or event.at >= $2)
                     order by event.at, position, event.attempt, event.kind <> 'started'",
                )
                .bind(cycle.as_uuid())
                .bind(since)
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        rows.into_iter().map(event).collect()
    }

    /// What follows a place in the journal of a cycle; nothing where there is no such cycle.
    pub async fn events_after(&self, cycle: CycleId, after: i64, limit: u32) -> Result<Option<Followed>, Error> {
        // One statement: where the cycle has ended, the lines before its end are among these or behind them.
        let rows: Vec<FollowedRow> = self
            .ask(|| async {
                Ok(sqlx::query_as(
                    "select cycle.status as cycle_status, event_id, at, stage, cell, attempt, kind, payload
                     from cycle left join lateral (
                         select event_id, at, stage, cell, attempt, kind,
                                case when kind in ('retried', 'failed', 'paused', 'skipped') then payload::text end as payload
                         from task_event where task_event.cycle_id = cycle.cycle_id and event_id > $2
                         order by event_id limit $3
                     ) event on true
                     where cycle.cycle_id = $1 order by event_id",
                )
                .bind(cycle.as_uuid())
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?)
            })
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let status = cycle::status(&first.cycle_status)?;
        let events = rows.into_iter().map(FollowedRow::event).filter_map(Result::transpose);
        Ok(Some(Followed { status, events: events.collect::<Result<_, _>>()? }))
    }

    /// The place of the last line of a cycle's journal; 0 before the first.
    pub async fn last_event(&self, cycle: CycleId) -> Result<i64, Error> {
        self.ask(|| async {
            let last: Option<i64> = sqlx::query_scalar("select max(event_id) from task_event where cycle_id = $1")
                .bind(cycle.as_uuid())
                .fetch_one(&self.pool)
                .await?;
            Ok(last.unwrap_or_default())
        })
        .await
    }
}

impl FollowedRow {
    fn event(self) -> Result<Option<FollowedEvent>, Error> {
        let Self { event_id: Some(id), at: Some(at), stage: Some(stage), cell: Some(cell), kind: Some(kind), .. } =
            self
        else {
            return Ok(None);
        };
        let unreadable = || Error::Corrupt(format!("a line about `{stage}[{cell}]` that cannot be read"));
        let task = TaskKey { stage: stage.parse().map_err(|_| unreadable())?, cell: cell.clone() };
        let attempt = self.attempt.and_then(|attempt| u32::try_from(attempt).ok()).ok_or_else(unreadable)?;
        let event = self.payload.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| unreadable())?;
        let (failure, reason) = match event {
            Some(TaskEvent::Retried { failure } | TaskEvent::Failed { failure } | TaskEvent::Paused { failure }) => {
                (Some(failure), None)
            }
            Some(TaskEvent::Skipped { reason }) => (None, Some(reason)),
            _ => (None, None),
        };
        Ok(Some(FollowedEvent { id, at, task, attempt, kind, failure, reason }))
    }
}

fn event((at, stage, cell, attempt, epoch, payload): Row) -> Result<EventRow, Error> {
    let unreadable = || Error::Corrupt(format!("a line about `{stage}[{cell}]` that cannot be read"));
    let task = TaskKey { stage: stage.parse().map_err(|_| unreadable())?, cell: cell.clone() };
    let attempt = u32::try_from(attempt).map_err(|_| unreadable())?;
    let event = serde_json::from_str(&payload).map_err(|_| unreadable())?;
    Ok(EventRow { at, task, attempt, epoch, event })
}
