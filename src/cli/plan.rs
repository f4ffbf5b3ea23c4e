//! `robo plan`: show what a pipeline would do: stages, tasks, episodes, definition hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::config;
use crate::plan::{Compiled, Concurrency, Definition, Graph, OnLimit, Phase, Stage, closing_time, wall_budget};
use crate::store::Store;

use super::exit::{Exit, Result};
use super::inputs::{self, Inputs};
use super::render::{self, Format};
use super::{db, plan_against, project};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  robo plan pipelines/quickstart.yaml -i episodes_per_env=10\n  robo plan pipelines/quickstart.yaml --format json\n  robo plan pipelines/quickstart.yaml --against @latest\n\nThe JSON holds the whole definition; the hash is SHA-256 over its canonical form (RFC 8785)."
)]
pub(super) struct Args {
    /// The pipeline
    file: PathBuf,

    #[command(flatten)]
    inputs: Inputs,

    /// Show what could be kept of this cycle (an id, the start of one, @latest), and about how long the rest would take
    #[arg(long, value_name = "CYCLE")]
    against: Option<String>,

    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    database: config::Database,
}

pub(super) async fn run(args: Args) -> Result {
    let compiled = inputs::compile(&project::pipeline(&args.file, &args.database.data)?, &args.inputs)?;
    if let Some(cycle) = &args.against {
        let store = Store::open(&args.database, &db::progress()).await.map_err(db::failure)?;
        let shown = plan_against::show(&store, &compiled.definition, cycle, args.format).await;
        store.close().await;
        return shown.map(|()| Exit::Ok);
    }
    let graph = Graph::new(&compiled.definition)?;
    match args.format {
        Format::Json => render::json(&document(&compiled, &graph)),
        Format::Table => table(&compiled, &graph),
    }
    Ok(Exit::Ok)
}

fn document(compiled: &Compiled, graph: &Graph) -> Value {
    let definition = &compiled.definition;
    let stage = |stage: &Stage| {
        json!({
            "id": stage.id, "uses": stage.uses, "phase": stage.phase, "depends_on": stage.depends_on,
            "when": stage.when, "with": stage.with,
            "outputs": stage.outputs, "expansion": stage.expansion, "pool": stage.pool,
            "tasks": stage.tasks.iter().map(|task| task.key.to_string()).collect::<Vec<_>>(),
            "episodes": definition.planned_episodes(stage),
            "wall_budget_seconds": wall_budgets(definition, stage),
            "closing_seconds": closes(definition, stage).map(|closes| closes.as_secs()),
        })
    };
    json!({
        "pipeline": definition.pipeline,
        "inputs": definition.inputs,
        "environments": definition.environments.iter().map(|one| &one.simulation.environment).collect::<Vec<_>>(),
        "stages": graph.topological().map(stage).collect::<Vec<_>>(),
        "episodes": total(compiled),
        "definition_hash": definition.hash(),
        "definition": definition.to_json(),
    })
}

/// Episodes of the whole cycle; none when one of its stages does not know yet.
fn total(compiled: &Compiled) -> Option<u64> {
    let runs = compiled.definition.stages.iter().filter(|stage| stage.uses == "episodes/run");
    runs.map(|stage| compiled.definition.planned_episodes(stage)).sum()
}

fn table(compiled: &Compiled, graph: &Graph) {
    let definition = &compiled.definition;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["stage", "uses", "after", "when", "episodes", "tasks", "matrix"]);
    for stage in graph.topological() {
        let after: Vec<&str> = stage.depends_on.iter().map(|id| id.as_str()).collect();
        let after = match stage.phase {
            Phase::OnFailure if after.is_empty() => "(on failure)".to_owned(),
            Phase::Finally if after.is_empty() => "(at the end)".to_owned(),
            _ => after.join(", "),
        };
        let episodes = match (stage.uses.as_str(), definition.planned_episodes(stage)) {
            ("episodes/run", Some(episodes)) => episodes.to_string(),
            ("episodes/run", None) => "known later".to_owned(),
            _ => String::new(),
        };
        let when = stage.when.clone().unwrap_or_default();
        let tasks = if stage.expansion.is_some() { "later".to_owned() } else { stage.tasks.len().to_string() };
        table.add_row([stage.id.to_string(), stage.uses.clone(), after, when, episodes, tasks, matrix(stage)]);
    }
    let mut text = format!("pipeline {}\n", definition.pipeline);
    for (name, value) in &definition.inputs {
        text.push_str(&["input ", name, " = ", &value.to_string(), "\n"].concat());
    }
    let episodes = total(compiled).map_or_else(|| "known later".to_owned(), |episodes| episodes.to_string());
    render::print(&format!("{text}\n{}\n\n", table.trim_fmt()));
    render::line(format!("environments  {}", definition.environments.len()));
    render::line(format!("episodes      {episodes}"));
    for family in foreign(definition) {
        render::line(format!(
            "affinetes     {family}: a server of others plays; it may show miners the seed, keeps its own clock, and tells no \
             trajectory"
        ));
    }
    for stage in graph.topological() {
        let budgets = wall_budgets(definition, stage);
        let (Some(least), Some(most)) = (budgets.values().min(), budgets.values().max()) else { continue };
        let range = if least == most { least.to_string() } else { format!("{least} to {most}") };
        render::line(format!(
            "wall budget   {}: a miner may keep an environment waiting for {range} s in all; the rest of its episodes then fails",
            stage.id
        ));
    }
    for stage in graph.topological() {
        if let Some(closes) = closes(definition, stage) {
            render::line(format!(
                "closing time  {}: after {} s on a third-party server, a miner that keeps it busy for more than twice as long as \
                 the typical miner fails its remaining episodes",
                stage.id,
                closes.as_secs()
            ));
        }
    }
    if let Some(limits) = guard(definition) {
        render::line(format!("publish guard {limits}"));
    }
    for (name, limit) in &definition.pools {
        render::line(format!("pool          {name}: {limit} tasks at a time"));
    }
    if let Some(Concurrency { group, limit, on_limit }) = &definition.concurrency {
        let then = match on_limit {
            OnLimit::Queue => "one more waits",
            OnLimit::Skip => "one more is not started",
            OnLimit::Replace => "the oldest is cancelled for one more",
        };
        render::line(format!("concurrency   {limit} open cycles of `{group}`; {then}"));
    }
    render::line(format!("definition    sha256:{}", definition.hash()));
}

/// How many seconds one miner may keep each environment of a stage waiting, where that is known before the start.
fn wall_budgets<'a>(definition: &'a Definition, stage: &Stage) -> BTreeMap<&'a str, u64> {
    let episodes = stage.with.get("episodes").and_then(Value::as_u64).filter(|_| stage.uses == "episodes/run");
    let Some(episodes) = episodes else { return BTreeMap::new() };
    let chosen = stage.with.get("budget_seconds").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let played = definition.environments.iter().filter(|environment| !environment.server.is_foreign());
    played
        .map(|environment| {
            let budget = wall_budget(stage, environment, episodes).as_secs().min(chosen);
            (environment.simulation.environment.as_str(), budget)
        })
        .collect()
}

/// When miners may be out of budget on the third-party servers of a stage, if it uses any.
fn closes(definition: &Definition, stage: &Stage) -> Option<Duration> {
    let plays = stage.uses == "episodes/run" && !foreign(definition).is_empty();
    plays.then(|| closing_time(stage))
}

/// The limits of the publish guard, those that the pipeline leaves out included.
fn guard(definition: &Definition) -> Option<String> {
    let publish = definition.stages.iter().find(|stage| stage.uses == "weights/publish")?;
    let limits = match publish.with.get("guard")? {
        Value::Object(limits) => limits.iter().map(|(name, limit)| format!("{name} {limit}")).collect::<Vec<_>>(),
        computed => vec![computed.to_string()],
    };
    Some(limits.join(", "))
}

/// Families that servers of others simulate.
fn foreign(definition: &Definition) -> BTreeSet<&str> {
    let foreign = definition.environments.iter().filter(|environment| environment.server.is_foreign());
    foreign.map(|environment| environment.simulation.environment.family()).collect()
}

/// The tasks of a matrix, one a line; of very many only the first. What is expanded later shows where its lists come from.
fn matrix(stage: &Stage) -> String {
    const SHOWN: usize = 32;
    if let Some(expansion) = &stage.expansion {
        let lists = expansion.axes.iter().map(|(name, list)| match list {
            Value::String(text) => format!("{name}: {text}"),
            list => format!("{name}: {list}"),
        });
        return std::iter::once("expanded later".to_owned()).chain(lists).collect::<Vec<_>>().join("\n");
    }
    let mut cells: Vec<String> = stage.tasks.iter().take(SHOWN).map(|task| task.key.cell.clone()).collect();
    if stage.tasks.len() > SHOWN {
        cells.push(format!("... and {} more", stage.tasks.len() - SHOWN));
    }
    cells.join("\n")
}
