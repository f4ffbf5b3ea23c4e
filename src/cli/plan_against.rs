//! `robo plan --against`: what a cycle of this pipeline could keep of another one, and how long the rest would take.
//!
//! The estimate is that of finished cycles: the longest chain of stages, each as long as its slowest task was at the
//! median. It knows nothing of the machine, nor of miners that have changed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    cycle_read::Stored,
    db, differences,
    exit::Result,
    render::{self, Format},
    report,
};
use crate::cycle::{EnvironmentId, StageId};
use crate::plan::{Again, Definition, Graph, Reuse, Stage, Verdict};
use crate::store::Store;

/// What is known of the time things take.
struct Paces {
    episodes: BTreeMap<EnvironmentId, f64>,
    kinds: BTreeMap<String, f64>,
}

/// A stage with what becomes of it.
struct Row {
    stage: StageId,
    what: &'static str,
    why: Vec<String>,
    /// Episodes to run; none when that is known later.
    episodes: Option<u64>,
    /// Seconds to run; none when nothing like it has finished yet.
    seconds: Option<f64>,
    verdict: Option<Verdict>,
}

/// Show what `definition` shares with the cycle called `name`.
pub(super) async fn show(store: &Store, definition: &Definition, name: &str, format: Format) -> Result<()> {
    let against = Stored::find(store, name).await?;
    let reuse = Reuse::of(definition, &against.definition, &against.done(), &BTreeSet::new());
    let paces = Paces::of(store).await?;
    let mut rows: Vec<Row> = Vec::new();
    for (id, verdict) in &reuse.stages {
        let stage = definition.stage(id);
        let runs = *verdict != Verdict::Reused;
        rows.push(Row {
            stage: id.clone(),
            what: what(verdict),
            why: why(verdict),
            episodes: stage.and_then(|stage| if runs { episodes(definition, stage) } else { Some(0) }),
            seconds: stage.and_then(|stage| if runs { paces.seconds(definition, stage) } else { Some(0.0) }),
            verdict: Some(verdict.clone()),
        });
    }
    let gone = reuse.gone.iter().map(|id| Row {
        stage: id.clone(),
        what: "gone",
        why: vec!["the pipeline has it no more".into()],
        episodes: Some(0),
        seconds: Some(0.0),
        verdict: None,
    });
    let total = longest_chain(&Graph::new(definition)?, &rows);
    rows.extend(gone);
    match format {
        Format::Json => render::json(&document(&against, &rows, total)),
        Format::Table => print(&against, &rows, total),
    }
    Ok(())
}

impl Paces {
    async fn of(store: &Store) -> Result<Self> {
        let episodes = store.episode_paces().await.map_err(db::failure)?;
        let kinds = store.kind_paces().await.map_err(db::failure)?;
        Ok(Self {
            episodes: episodes.into_iter().map(|pace| (pace.environment, pace.seconds)).collect(),
            kinds: kinds.into_iter().map(|pace| (pace.kind, pace.seconds)).collect(),
        })
    }

    /// How long a stage takes: as long as its slowest task.
    fn seconds(&self, definition: &Definition, stage: &Stage) -> Option<f64> {
        let (Some(planned), "episodes/run") = (definition.planned_episodes(stage), stage.uses.as_str()) else {
            return self.kinds.get(&stage.uses).copied();
        };
        let each = planned as f64 / stage.tasks.len().max(1) as f64;
        let environments = stage.tasks.iter().flat_map(|task| task.matrix.values().chain(stage.with.values()));
        let known = environments.filter_map(|value| self.episodes.get(&value.as_str()?.parse::<EnvironmentId>().ok()?));
        known.map(|seconds| seconds * each).reduce(f64::max)
    }
}

/// Episodes of a stage; none when it does not know yet how many.
fn episodes(definition: &Definition, stage: &Stage) -> Option<u64> {
    if stage.uses == "episodes/run" { definition.planned_episodes(stage) } else { Some(0) }
}

fn what(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Reused => "reused",
        Verdict::New => "new",
        Verdict::Again(_) => "runs again",
    }
}

fn why(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Reused => vec!["the same fingerprint".into()],
        Verdict::New => vec!["the cycle had no such stage".into()],
        Verdict::Again(Again::Changed(changes)) => differences::lines(changes),
        Verdict::Again(Again::NotDone) => vec!["it had not succeeded".into()],
        Verdict::Again(Again::EveryTime) => vec!["it belongs to the end of every cycle".into()],
        Verdict::Again(Again::Asked) => vec!["asked for".into()],
        Verdict::Again(Again::After(stage)) => vec![format!("`{stage}` runs again")],
    }
}

/// Seconds along the longest chain of stages; none when no stage that runs has a known time.
fn longest_chain(graph: &Graph, rows: &[Row]) -> Option<f64> {
    let known: BTreeMap<&StageId, f64> = rows.iter().filter_map(|row| Some((&row.stage, row.seconds?))).collect();
    if !rows.iter().any(|row| row.what != "reused" && row.seconds.is_some()) {
        return None;
    }
    let mut ends: BTreeMap<&StageId, f64> = BTreeMap::new();
    for stage in graph.topological() {
        let begins =
            graph.dependencies(&stage.id).into_iter().filter_map(|id| ends.get(id)).fold(0.0, |a, b| f64::max(a, *b));
        ends.insert(&stage.id, begins + known.get(&stage.id).copied().unwrap_or(0.0));
    }
    ends.into_values().reduce(f64::max)
}

fn total_episodes(rows: &[Row]) -> Option<u64> {
    rows.iter().map(|row| row.episodes).sum()
}

fn document(against: &Stored, rows: &[Row], total: Option<f64>) -> Value {
    let row = |row: &Row| {
        let changes = match &row.verdict {
            Some(Verdict::Again(Again::Changed(changes))) => differences::document(changes),
            _ => json!([]),
        };
        json!({
            "stage": row.stage, "what": row.what, "why": row.why, "changes": changes, "episodes": row.episodes,
            "seconds": row.seconds,
        })
    };
    json!({
        "against": against.id,
        "stages": rows.iter().map(row).collect::<Vec<_>>(),
        "episodes": total_episodes(rows),
        "seconds": total,
    })
}

fn print(against: &Stored, rows: &[Row], total: Option<f64>) {
    render::line(format!("against cycle {} of `{}`\n", against.id, against.definition.pipeline));
    let mut table = report::plain(["stage", "", "episodes", "about", "why"].map(str::to_owned));
    for row in rows {
        let counts = row.what == "runs again" || row.what == "new";
        let episodes = match row.episodes {
            Some(0) => String::new(),
            Some(episodes) => episodes.to_string(),
            None => "known later".into(),
        };
        let about = if counts { time(row.seconds) } else { String::new() };
        table.add_row([row.stage.to_string(), row.what.to_owned(), episodes, about, row.why.join("\n")]);
    }
    render::line(table.to_string());
    let episodes = total_episodes(rows).map_or_else(|| "known later".into(), |episodes| episodes.to_string());
    render::line(format!("\nepisodes to run  {episodes}"));
    render::line(format!("time             {}", time(total)));
}

/// `1.5 s`, `12 min`, `3.2 h`.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "unknown: nothing like it has finished yet".into(),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.1} s"),
        Some(seconds) if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        Some(seconds) => format!("{:.1} h", seconds / 3600.0),
    }
}
