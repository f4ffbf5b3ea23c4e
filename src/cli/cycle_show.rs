//! `robo cycle ls` and `robo cycle show`: cycles as people and programs read them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    cycle_miners, cycle_tables, db,
    drive::journal_failure,
    exit::{Exit, Result},
    render::{self, Format},
    report, weights,
};
use crate::api::cycle_documents::{self, state};
use crate::cycle::{Episode, Journal, TaskStatus};
use crate::scoring;
use crate::stage::documents::{ScoresDocument, WeightsDocument};
use crate::store::{CycleSummary, EpisodeCount, Lineage, Publishing, Store, TaskRow};

/// Cycles, newest first: the latest, or those older than the last one of the page before.
pub(super) async fn list(store: &Store, page: Page<'_>, format: Format) -> Result {
    let cycles = match page.before {
        None => store.cycles(page.limit).await,
        Some(name) => store.cycles_before(store.resolve(name).await.map_err(db::failure)?, page.limit).await,
    };
    let cycles = cycles.map_err(db::failure)?;
    if format == Format::Json {
        render::json(&json!({ "cycles": cycles.iter().map(summary).collect::<Vec<_>>() }));
        return Ok(Exit::Ok);
    }
    if cycles.is_empty() && page.before.is_some() {
        render::note("There is no older cycle.");
        return Ok(Exit::Ok);
    }
    if cycles.is_empty() {
        render::note("There is no cycle yet; start one with: robo run-pipeline pipelines/quickstart.yaml");
        return Ok(Exit::Ok);
    }
    let mut table =
        report::plain(["no", "cycle", "pipeline", "status", "tasks", "episodes", "created", "took"].map(str::to_owned));
    for cycle in &cycles {
        table.add_row([
            cycle.number.to_string(),
            cycle.id.to_string(),
            cycle.pipeline.clone(),
            state(cycle).to_owned(),
            format!("{}/{}", cycle.tasks.0, cycle.tasks.1),
            format!("{}/{}", cycle.episodes.0, cycle.episodes.1),
            moment(cycle.created_at),
            took(Some(cycle.created_at), cycle.finished_at),
        ]);
    }
    render::line(table.to_string());
    Ok(Exit::Ok)
}

/// A part of the list of cycles.
pub(super) struct Page<'a> {
    /// How many.
    pub(super) limit: u32,
    /// The cycle that the page before ended with.
    pub(super) before: Option<&'a str>,
}

/// Which parts of a cycle to show.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Parts {
    /// List every scored episode too
    #[arg(long)]
    episodes: bool,
}

/// One cycle: tasks, episodes by outcome, result.
pub(super) async fn show(store: &Store, name: &str, parts: Parts, format: Format) -> Result {
    let id = store.resolve(name).await.map_err(db::failure)?;
    let cycle = store.cycle_summary(id).await.map_err(db::failure)?;
    let counts = store.episode_counts(id).await.map_err(db::failure)?;
    let lineage = store.lineage(id).await.map_err(db::failure)?;
    // The documents hold the salt, and with it the seeds of what may still be played.
    let result = match cycle.salt {
        Some(_) => store.result(id).await.map_err(db::failure)?,
        None => None,
    };
    let documents: Option<(ScoresDocument, WeightsDocument)> = match &result {
        Some(result) => Some((serde_json::from_str(&result.scores)?, serde_json::from_str(&result.weights)?)),
        None => None,
    };
    let episodes = if parts.episodes { store.scored_episodes(id).await.map_err(journal_failure)? } else { Vec::new() };
    let miners = cycle_miners::find(store, id).await?;
    let held = store.publication(id).await.map_err(db::failure)?.filter(|row| !row.is_given_out());
    let bias = scoring::bias(store.retried_episodes(id).await.map_err(db::failure)?);
    if format == Format::Json {
        let mut document = summary(&cycle);
        let record = store.load(id).await.map_err(journal_failure)?;
        document["pin"] = json!(record.pin);
        document["definition"] = record.definition;
        document["stages"] = store.stage_rows(id).await.map_err(db::failure)?.iter().map(cycle_tables::stage).collect();
        document["tasks"] = store.task_rows(id).await.map_err(db::failure)?.iter().map(task).collect();
        document["outcomes"] = counts.iter().map(count).collect();
        document["miners"] = miners.iter().map(cycle_miners::Found::document).collect();
        document["retried_episodes"] = json!(bias);
        document["scores_document"] = json!(documents.as_ref().map(|(scores, _)| scores));
        document["weights_document"] = json!(documents.as_ref().map(|(_, weights)| weights));
        document["weights_digest"] = json!(result.map(|result| result.digest));
        document["published"] = json!(cycle.weights_digest.is_some());
        document["held"] = json!(held.as_ref().map(weights::why));
        document["lineage"] = origin(&lineage);
        if parts.episodes {
            document["episodes"] = episodes.iter().map(episode).collect();
        }
        render::json(&document);
        return Ok(Exit::Ok);
    }
    render::line(format!("Cycle {} ({}) of `{}`: {}", cycle.number, cycle.id, cycle.pipeline, state(&cycle)));
    if let Some(reason) = &cycle.reason {
        render::line(format!("  {reason}"));
    }
    render::line(format!("  definition sha256:{}", cycle.definition_hash));
    if let Some(block) = cycle.block {
        render::line(format!("  pinned to block {block}; who took part: robo cycle miners {}", cycle.id));
    }
    render::line(format!(
        "  created {}, took {}",
        moment(cycle.created_at),
        took(Some(cycle.created_at), cycle.finished_at)
    ));
    provenance(&lineage).into_iter().for_each(|line| render::line(format!("  {line}")));
    render::line(format!("\nTasks\n{}", cycle_tables::tasks(store, id).await?));
    if !counts.is_empty() {
        render::line(format!("\nEpisodes\n{}", cycle_tables::outcomes(&counts)));
        bias.iter().for_each(|bias| render::line(report::retried(bias)));
    }
    if let Some(table) = cycle_miners::table(&miners) {
        render::line(format!("\nMiners\n{table}"));
    }
    if parts.episodes {
        render::line(format!("\nScored episodes\n{}", episode_table(&episodes)));
    }
    if let Some((scores, vector)) = &documents {
        render::line(format!("\n{}", report::results(scores, vector)));
        if let Some(held) = &held {
            render::line(format!("HELD BACK: {}; {}", weights::why(held), weights::how_to_release(held)));
        }
    } else if state(&cycle) == "interrupted" {
        render::line(format!("\nGo on with: robo cycle resume {}", cycle.id));
    }
    Ok(Exit::Ok)
}

/// Where a cycle comes from and what is left of it, for programs.
fn origin(lineage: &Lineage) -> Value {
    json!({
        "origin": lineage.origin.word(),
        "parent": lineage.parent.as_ref().map(|parent| parent.cycle),
        "from_stage": lineage.parent.as_ref().map(|parent| &parent.from),
        "kept": lineage.kept,
        "publishes": lineage.publishing == Publishing::Public,
        "aged_out_at": lineage.aged_out_at,
    })
}

/// The same for people: nothing for a cycle of its own with all its detail.
fn provenance(lineage: &Lineage) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(parent) = &lineage.parent {
        lines.push(format!("{} of {} from `{}`", lineage.origin.word(), parent.cycle, parent.from));
    }
    if lineage.publishing == Publishing::Draft {
        lines.push("its weights are not published: validators do not see them".into());
    }
    if let Some(at) = lineage.aged_out_at {
        lines.push(format!("its episodes and journal have aged out on {}", moment(at)));
    }
    lines
}

/// A cycle with the words of its end.
pub(super) fn summary(cycle: &CycleSummary) -> Value {
    let mut document = json!(cycle_documents::summary(cycle));
    document["reason"] = json!(cycle.reason);
    document
}

fn task(row: &TaskRow) -> Value {
    let (output, why) = match &row.state.status {
        TaskStatus::Succeeded { output } => (output.clone(), Value::Null),
        TaskStatus::Failed { failure } | TaskStatus::Paused { failure } => (Value::Null, json!(failure)),
        TaskStatus::Skipped { reason } => (Value::Null, json!({ "message": reason })),
        TaskStatus::Pending | TaskStatus::Running | TaskStatus::Cancelled => (Value::Null, Value::Null),
    };
    json!({
        "task": row.state.key.to_string(),
        "status": row.state.status.word(),
        "output": output,
        "why": why,
        "attempts": row.state.attempt,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
    })
}

fn count(count: &EpisodeCount) -> Value {
    json!({
        "environment": count.key.environment,
        "hotkey": count.key.hotkey,
        "outcome": count.outcome.map(|outcome| outcome.word()),
        "reason": count.outcome.and_then(|outcome| outcome.reason()),
        "count": count.count,
    })
}

fn episode(episode: &Episode) -> Value {
    json!({
        "environment": episode.key.environment,
        "seed_index": episode.key.seed_index,
        "hotkey": episode.key.hotkey,
        "attempt": episode.attempt,
        "report": episode.report,
    })
}

fn episode_table(episodes: &[Episode]) -> comfy_table::Table {
    let header = ["environment", "seed", "miner", "outcome", "steps", "return", "score", "p95 ms", "detail"];
    let mut table = report::plain(header.map(str::to_owned));
    for Episode { key, report, .. } in episodes {
        table.add_row([
            key.environment.to_string(),
            key.seed_index.to_string(),
            key.hotkey.to_string(),
            report.outcome.to_string(),
            report.steps.to_string(),
            format!("{:.1}", report.total_reward),
            report.score.map_or("-".into(), |score| format!("{score:.2}")),
            report.latency.map_or("-".into(), |latency| format!("{:.1}", latency.p95_ms)),
            report.detail.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

pub(super) fn took(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{:.1} s", (to - from).num_milliseconds() as f64 / 1000.0),
        _ => "-".into(),
    }
}
