//! The journal as people read and follow it, and the counts that change while a cycle runs.

use chrono::{DateTime, Utc};

use crate::cycle::{CycleId, TaskEvent, TaskKey};

use super::{Error, Store};

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

type Row = (DateTime<Utc>, String, String, i32, i64, String);

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
}

fn event((at, stage, cell, attempt, epoch, payload): Row) -> Result<EventRow, Error> {
    let unreadable = || Error::Corrupt(format!("a line about `{stage}[{cell}]` that cannot be read"));
    let task = TaskKey { stage: stage.parse().map_err(|_| unreadable())?, cell: cell.clone() };
    let attempt = u32::try_from(attempt).map_err(|_| unreadable())?;
    let event = serde_json::from_str(&payload).map_err(|_| unreadable())?;
    Ok(EventRow { at, task, attempt, epoch, event })
}
