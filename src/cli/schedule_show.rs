//! `robo schedule ls` and `robo schedule next`: schedules as people and programs read them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{
    db,
    desk::Desk,
    exit::{Exit, Result},
    inputs,
    render::{self, Format},
    report,
};
use crate::plan::{self, Bindings, Compiled, Missing};
use crate::schedule::{Due, Schedule, Timing};
use crate::store::{Fired, Outcome, PauseRow, ScheduleRow};

/// A schedule and how it stands.
struct Standing {
    pipeline: String,
    schedule: Schedule,
    file: String,
    state: String,
    last: Option<Fired>,
    next: Option<DateTime<Utc>>,
}

/// Schedules of these files, or all that a backend has read.
pub(super) async fn list(desk: &Desk, files: &[PathBuf], format: Format) -> Result {
    let known = desk.store.schedules().await.map_err(db::failure)?;
    let pauses = desk.store.pauses().await.map_err(db::failure)?;
    let pauses: BTreeMap<&str, &PauseRow> = pauses.iter().map(|pause| (pause.pipeline.as_str(), pause)).collect();
    let now = Utc::now();
    let mut all = Vec::new();
    if files.is_empty() {
        all.extend(
            known.iter().map(|row| standing((&row.pipeline, &row.file), &row.schedule, Some(row), &pauses, now)),
        );
    }
    for file in files {
        let compiled = compile(file)?;
        let (pipeline, file) = (&compiled.definition.pipeline, file.display().to_string());
        for schedule in &compiled.schedules {
            let row = known.iter().find(|row| row.pipeline == *pipeline && row.schedule.key() == schedule.key());
            all.push(standing((pipeline, &file), schedule, row, &pauses, now));
        }
    }
    match format {
        Format::Json => render::json(&json!({ "schedules": all.iter().map(document).collect::<Vec<_>>() })),
        Format::Table if all.is_empty() => {
            render::note("There is no schedule yet; a backend reads them: robo backend --pipeline FILE");
        }
        Format::Table => table(&all),
    }
    Ok(Exit::Ok)
}

fn standing(
    (pipeline, file): (&str, &str),
    schedule: &Schedule,
    row: Option<&ScheduleRow>,
    pauses: &BTreeMap<&str, &PauseRow>,
    now: DateTime<Utc>,
) -> Standing {
    let pause = pauses.get(pipeline);
    let by_block = schedule.timing.is_by_block();
    let state = match (pause, row) {
        (Some(pause), _) => format!("paused: {}", pause.reason),
        (None, None) => "no backend has read it".to_owned(),
        (None, Some(row)) if by_block && row.decided_until.is_none() => "waits for the chain".to_owned(),
        (None, Some(_)) => "active".to_owned(),
    };
    let next = schedule.timing.next_time(now).filter(|_| pause.is_none());
    Standing {
        pipeline: pipeline.to_owned(),
        schedule: schedule.clone(),
        file: file.to_owned(),
        state,
        last: row.and_then(|row| row.last.clone()),
        next,
    }
}

fn table(all: &[Standing]) {
    let header = ["pipeline", "schedule", "state", "last due", "outcome", "next"];
    let mut table = report::plain(header.map(str::to_owned));
    for one in all {
        let (due, outcome) = match &one.last {
            None => ("-".to_owned(), "-".to_owned()),
            Some(fired) => (due(fired.due), outcome(&fired.outcome)),
        };
        let next = one.next.map_or_else(|| "-".to_owned(), moment);
        table.add_row([one.pipeline.clone(), one.schedule.timing.to_string(), one.state.clone(), due, outcome, next]);
    }
    render::line(table.to_string());
}

fn document(one: &Standing) -> Value {
    let last = one.last.as_ref().map(|fired| match &fired.outcome {
        Outcome::Cycle(cycle) => json!({ "due": due(fired.due), "cycle": cycle, "skipped": null }),
        Outcome::Skipped(reason) => json!({ "due": due(fired.due), "cycle": null, "skipped": reason }),
    });
    json!({
        "pipeline": one.pipeline,
        "schedule": one.schedule.timing.to_string(),
        "settings": one.schedule,
        "file": one.file,
        "state": one.state,
        "last": last,
        "next": one.next.map(moment),
    })
}

/// The due times that come next, found without a database.
pub(super) fn next(file: &Path, count: usize, after: DateTime<Utc>, format: Format) -> Result {
    let compiled = compile(file)?;
    let times = |schedule: &Schedule| -> Vec<DateTime<Utc>> {
        let timing = schedule.timing.clone();
        let first = timing.next_time(after);
        std::iter::successors(first, |last| timing.next_time(*last)).take(count).collect()
    };
    if format == Format::Json {
        let entry = |schedule: &Schedule| {
            let due: Vec<Value> = times(schedule)
                .into_iter()
                .map(|time| json!({ "local": local(schedule, time), "utc": moment(time) }))
                .collect();
            json!({ "schedule": schedule.timing.to_string(), "settings": schedule, "due": due })
        };
        let entries: Vec<Value> = compiled.schedules.iter().map(entry).collect();
        render::json(&json!({ "pipeline": compiled.definition.pipeline, "schedules": entries }));
        return Ok(Exit::Ok);
    }
    if compiled.schedules.is_empty() {
        render::note(format!("`{}` has no schedule", compiled.definition.pipeline));
    }
    for schedule in &compiled.schedules {
        render::line(schedule.timing.to_string());
        if let Timing::Blocks(every) = schedule.timing {
            render::line(format!("  blocks whose number is a multiple of {every}; the chain says when"));
        }
        for time in times(schedule) {
            render::line(format!("  {}   {}", local(schedule, time), moment(time)));
        }
        if schedule.jitter_ms > 0 {
            render::line(format!("  each starts up to {} s later", schedule.jitter_ms as f64 / 1000.0));
        }
    }
    Ok(Exit::Ok)
}

/// Read a pipeline for its schedules; inputs need no values for that.
fn compile(file: &Path) -> Result<Compiled> {
    let bindings = Bindings { flags: &[], variable: &|_| None, missing: Missing::Tolerate };
    plan::compile(file, &bindings).map_err(|problems| inputs::refused(&problems))
}

fn local(schedule: &Schedule, time: DateTime<Utc>) -> String {
    match &schedule.timing {
        Timing::Cron { timezone, .. } => time.with_timezone(timezone).format("%a %Y-%m-%d %H:%M %:z").to_string(),
        Timing::Interval(_) | Timing::Blocks(_) => moment(time),
    }
}

fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn due(due: Due) -> String {
    match due {
        Due::Time(time) => moment(time),
        Due::Block(block) => format!("block {block}"),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Cycle(cycle) => format!("cycle {cycle}"),
        Outcome::Skipped(reason) => format!("left out: {reason}"),
    }
}
