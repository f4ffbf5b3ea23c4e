//! `robo cycle graph`: the graph of a cycle with where each stage stands.

use std::collections::BTreeMap;

use super::{
    cycle_read::Stored,
    exit::{Exit, Result},
    graph::Language,
    render,
};
use crate::cycle::{TaskState, TaskStatus};
use crate::plan::{Graph, Stage};
use crate::store::Store;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  robo cycle graph @latest --format dot | dot -Tsvg > cycle.svg")]
pub(super) struct Args {
    /// Which cycle
    #[arg(default_value = "@latest")]
    cycle: String,

    /// The language of the graph
    #[arg(long, value_enum, default_value_t)]
    format: Language,
}

/// The states a stage can be in and their colours, the one that matters most first.
const STATES: [(&str, &str); 7] = [
    ("failed", "#f4a6a0"),
    ("paused", "#f7c98b"),
    ("cancelled", "#d9c3e8"),
    ("running", "#a9cdf5"),
    ("pending", "#eeeeee"),
    ("skipped", "#f2e6b6"),
    ("succeeded", "#b7e1b0"),
];

pub(super) async fn run(store: &Store, args: &Args) -> Result {
    let stored = Stored::find(store, &args.cycle).await?;
    let graph = Graph::new(&stored.definition)?;
    let states = graph.topological().map(|stage| (stage, Standing::of(stage, &stored.record.tasks)));
    let states: Vec<(&Stage, Standing)> = states.collect();
    render::print(&match args.format {
        Language::Mermaid => mermaid(&graph, &states),
        Language::Dot => dot(&graph, &states),
    });
    Ok(Exit::Ok)
}

/// Where the tasks of a stage stand.
struct Standing {
    counts: BTreeMap<&'static str, usize>,
}

impl Standing {
    fn of(stage: &Stage, tasks: &[TaskState]) -> Self {
        let mut counts = BTreeMap::new();
        for task in tasks.iter().filter(|task| task.key.stage == stage.id) {
            let state = match (&task.status, task.attempt) {
                // Between two attempts it is under way, though nothing runs.
                (TaskStatus::Pending, 1..) => "running",
                (status, _) => status.word(),
            };
            *counts.entry(state).or_insert(0) += 1;
        }
        Self { counts }
    }

    /// The state that matters most.
    fn state(&self) -> (&'static str, &'static str) {
        STATES.into_iter().find(|(state, _)| self.counts.contains_key(state)).unwrap_or(("pending", "#eeeeee"))
    }

    /// `succeeded`, or `3 succeeded, 1 failed` for a matrix.
    fn text(&self) -> String {
        match (self.counts.len(), self.counts.values().sum::<usize>()) {
            (0, _) => "pending".into(),
            (1, 1) => self.state().0.into(),
            _ => {
                let counts: Vec<String> = self.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
                counts.join(", ")
            }
        }
    }
}

/// Both languages take a later line about a node as an addition to the first.
fn mermaid(graph: &Graph, states: &[(&Stage, Standing)]) -> String {
    let mut lines: Vec<String> = graph.mermaid().lines().map(str::to_owned).collect();
    for (state, colour) in STATES {
        lines.push(format!("  classDef {state} fill:{colour},stroke:#555,color:#111"));
    }
    for (stage, standing) in states {
        lines.push(format!("  s_{}[\"{}<br/>{}<br/>{}\"]", stage.id, stage.id, stage.uses, standing.text()));
        lines.push(format!("  class s_{} {}", stage.id, standing.state().0));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn dot(graph: &Graph, states: &[(&Stage, Standing)]) -> String {
    let text = graph.dot();
    let mut lines: Vec<String> = text.trim_end().trim_end_matches('}').lines().map(str::to_owned).collect();
    for (stage, standing) in states {
        let label = format!("{}\\n{}\\n{}", stage.id, stage.uses, standing.text());
        let colour = standing.state().1;
        lines.push(format!("  {} [label=\"{label}\", style=\"rounded,filled\", fillcolor=\"{colour}\"];", stage.id));
    }
    lines.push("}\n".into());
    lines.join("\n")
}
