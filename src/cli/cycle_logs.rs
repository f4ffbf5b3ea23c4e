//! `robo cycle logs`: the journal of a cycle as lines, and its tail as it grows.
//!
//! These are the transitions of tasks, a few per task. What programs print is no row of the database: it goes to their
//! log files and to standard error.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    cycle_read::{Stored, require_stage},
    db,
    exit::{Exit, Result},
    render::{self, Format},
};
use crate::cycle::{CycleId, CycleStatus, StageId, TaskEvent};
use crate::store::{EventRow, Store};

/// How often the tail is read.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// How much later than its time a line may appear.
const OVERLAP: chrono::Duration = chrono::Duration::seconds(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which cycle
    #[arg(default_value = "@latest")]
    cycle: String,

    /// Only what happened to the tasks of this stage
    #[arg(long)]
    stage: Option<StageId>,

    /// Go on as lines are written, until the cycle has ended
    #[arg(long)]
    follow: bool,

    /// How to show them; with --follow, JSON is one document a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The lines of a journal, each once.
pub(super) struct Tail {
    cycle: CycleId,
    seen: HashSet<String>,
    latest: Option<DateTime<Utc>>,
}

impl Tail {
    pub(super) fn new(cycle: CycleId) -> Self {
        Self { cycle, seen: HashSet::new(), latest: None }
    }

    /// The lines that have been added since the last call.
    pub(super) async fn next(&mut self, store: &Store) -> Result<Vec<EventRow>> {
        let since = self.latest.map(|latest| latest - OVERLAP);
        let mut rows = store.events(self.cycle, since).await.map_err(db::failure)?;
        rows.retain(|row| self.seen.insert(format!("{} {} {}", row.task, row.attempt, row.event.word())));
        self.latest = rows.iter().map(|row| row.at).chain(self.latest).max();
        Ok(rows)
    }
}

pub(super) async fn run(store: &Store, args: &Args) -> Result {
    let cycle = store.resolve(&args.cycle).await.map_err(db::failure)?;
    let stored = Stored::load(store, cycle).await?;
    stored.require_detail()?;
    if let Some(stage) = &args.stage {
        require_stage(&stored, stage)?;
    }
    let mut tail = Tail::new(cycle);
    loop {
        // Looked at before the lines: once it has ended, none are added after those.
        let summary = store.cycle_summary(cycle).await.map_err(db::failure)?;
        let mut rows = tail.next(store).await?;
        rows.retain(|row| args.stage.as_ref().is_none_or(|stage| row.task.stage == *stage));
        match (args.format, args.follow) {
            (Format::Table, _) => rows.iter().for_each(|row| render::line(line(row))),
            (Format::Json, true) => rows.iter().for_each(|row| render::line(document(row).to_string())),
            (Format::Json, false) => {
                render::json(&json!({ "id": cycle, "events": rows.iter().map(document).collect::<Vec<_>>() }));
            }
        }
        if !args.follow || summary.status != CycleStatus::Open {
            return Ok(Exit::Ok);
        }
        // Another process writes them, and nothing tells us but the database.
        sleep(LOOK).await;
    }
}

/// `2026-01-01 10:00:00.000  provision[environment=m/a]  #1 started`
pub(super) fn line(row: &EventRow) -> String {
    let at = row.at.format("%Y-%m-%d %H:%M:%S%.3f");
    let taken_over = if row.epoch == 0 { "  (taken over)" } else { "" };
    format!("{at}  {}  #{} {}{taken_over}", row.task, row.attempt, describe(&row.event))
}

/// What happened, in one line.
pub(super) fn describe(event: &TaskEvent) -> String {
    let word = event.word();
    match event {
        TaskEvent::Retried { failure } => format!("failed and is tried again: {}", failure.message),
        TaskEvent::Paused { failure } => format!("failed and waits for somebody: {}", failure.message),
        TaskEvent::Failed { failure } => format!("{word}: {}", failure.message),
        TaskEvent::Skipped { reason } => format!("{word}: {reason}"),
        _ => word.to_owned(),
    }
}

fn document(row: &EventRow) -> Value {
    json!({
        "at": row.at, "task": row.task.to_string(), "stage": row.task.stage, "attempt": row.attempt,
        "epoch": row.epoch, "event": row.event,
    })
}
