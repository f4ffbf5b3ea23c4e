//! A stage on its way from the wire form to the definition.

use serde_json::{Map, Value};

use crate::cycle::{StageId, TaskKey};
use crate::manifest::decode::alternatives;
use crate::manifest::document::{Document, NodeId};
use crate::manifest::located::{Entries, Located};
use crate::manifest::pipeline::{Pipeline, Stage};
use crate::manifest::{Diagnostics, suggest};

use super::kinds::{KINDS, Kind, Type};
use super::matrix::Matrix;
use super::{Expansion, Phase, Task};

/// The most stages a pipeline may have.
const MOST_STAGES: usize = 500;

/// A stage whose names are being resolved.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) id: StageId,
    /// Its name in the file.
    pub(super) at: NodeId,
    pub(super) phase: Phase,
    pub(super) wire: &'a Stage,
    /// None when `uses` names no kind, which has been reported.
    pub(super) kind: Option<&'static Kind>,
    /// Positions of the stages it waits for, sorted, with where that is said.
    pub(super) depends_on: Vec<(usize, NodeId)>,
    pub(super) when: Option<String>,
    pub(super) with: Map<String, Value>,
    pub(super) matrix: Matrix,
    pub(super) tasks: Vec<Task>,
    /// Its matrix, when it waits for outputs.
    pub(super) expansion: Option<Expansion>,
}

impl Draft<'_> {
    /// Names of its matrix.
    pub(super) fn axes(&self) -> impl Iterator<Item = &str> {
        self.matrix.names()
    }

    /// What later stages can read of one task: what its kind gives and what the pipeline declares.
    pub(super) fn outputs(&self) -> Vec<(&str, Type)> {
        let fixed = self.kind.into_iter().flat_map(|kind| kind.outputs).map(|output| (output.name, output.kind));
        let declared = self.wire.outputs.0.iter().map(|(name, output)| (name.value.as_str(), output.kind));
        fixed.chain(declared.filter(|_| self.kind.is_some_and(|kind| kind.declares_outputs))).collect()
    }

    /// The node of a setting, or of the stage's name when the setting is not written.
    pub(super) fn setting_at(&self, name: &str) -> NodeId {
        let written = self.wire.with.0.iter().find(|(setting, _)| setting.value == name);
        written.map_or(self.at, |(_, raw)| raw.0)
    }

    /// Wait for another stage, too.
    pub(super) fn wait_for(&mut self, stage: usize, at: NodeId) -> Added {
        if self.depends_on.iter().any(|(known, _)| *known == stage) {
            return Added::Known;
        }
        self.depends_on.push((stage, at));
        self.depends_on.sort();
        Added::New
    }

    pub(super) fn whole(&mut self) {
        self.tasks = vec![Task { key: TaskKey { stage: self.id.clone(), cell: String::new() }, matrix: Map::new() }];
    }
}

/// Whether a dependency was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    Known,
    New,
}

/// Every stage in file order, those of `on_failure` and `finally` last, with `uses` and `depends_on` resolved.
pub(super) fn drafts<'a>(document: &Document, pipeline: &'a Pipeline, found: &mut Diagnostics) -> Vec<Draft<'a>> {
    let mut drafts = Vec::new();
    if let Some(stages) = &pipeline.stages {
        collect(document, &stages.value, Phase::Main, &mut drafts, found);
        if stages.value.0.is_empty() {
            found.push(document.error(stages.at, "a pipeline needs at least one stage"));
        }
    }
    collect(document, &pipeline.on_failure, Phase::OnFailure, &mut drafts, found);
    collect(document, &pipeline.finally, Phase::Finally, &mut drafts, found);
    for index in 0..drafts.len() {
        resolve_dependencies(document, &mut drafts, index, found);
    }
    drafts
}

fn collect<'a>(
    document: &Document,
    stages: &'a Entries<Located<Stage>>,
    phase: Phase,
    drafts: &mut Vec<Draft<'a>>,
    found: &mut Diagnostics,
) {
    for (name, stage) in &stages.0 {
        if drafts.len() == MOST_STAGES {
            found.push(document.error(name.at, format!("a pipeline has at most {MOST_STAGES} stages")));
            return;
        }
        let id: StageId = match name.value.parse() {
            Ok(id) => id,
            Err(error) => {
                found.push(document.error(name.at, format!("{error}")));
                continue;
            }
        };
        if let Some(other) = drafts.iter().find(|draft| draft.id == id) {
            let message = format!("there is a stage `{id}` already, at {}", document.place(other.at));
            found.push(document.error(name.at, message));
            continue;
        }
        let wire = &stage.value;
        let kind = Kind::find(&wire.uses.value);
        if kind.is_none() {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let problem = document.error(wire.uses.at, format!("there is no stage kind `{}`", wire.uses.value));
            found.push(match suggest::closest(&wire.uses.value, names.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("expected {}", alternatives(&names))),
            });
        }
        check_outputs(document, wire, kind, found);
        drafts.push(Draft {
            id,
            at: name.at,
            phase,
            wire,
            kind,
            depends_on: Vec::new(),
            when: None,
            with: Map::new(),
            matrix: Matrix::read(document, &wire.matrix, found),
            tasks: Vec::new(),
            expansion: None,
        });
    }
}

/// Declared outputs need a kind that takes them, and names that expressions can use.
fn check_outputs(document: &Document, wire: &Stage, kind: Option<&'static Kind>, found: &mut Diagnostics) {
    let Some(kind) = kind else { return };
    for (name, _) in &wire.outputs.0 {
        let problem = |message: String| document.error(name.at, message);
        if !kind.declares_outputs {
            found.push(problem(format!("`{}` says itself what it gives: it takes no `outputs`", kind.name)));
            return;
        }
        if let Some(given) = kind.output(&name.value) {
            found.push(problem(format!("`{}` gives `{}` already: {}", kind.name, given.name, given.doc)));
        } else if name.value.parse::<StageId>().is_err() {
            let message = format!("`{}` is not an output name (a-z, 0-9 and _, starting with a letter)", name.value);
            found.push(problem(message));
        }
    }
}

fn resolve_dependencies(document: &Document, drafts: &mut [Draft<'_>], index: usize, found: &mut Diagnostics) {
    let wire = drafts[index].wire;
    for name in &wire.depends_on {
        let ids: Vec<&str> = drafts.iter().map(|draft| draft.id.as_str()).collect();
        let Some(target) = ids.iter().position(|id| *id == name.value) else {
            let problem = document.error(name.at, format!("there is no stage `{}`", name.value));
            found.push(problem.closest(&name.value, ids));
            continue;
        };
        if drafts[target].phase != drafts[index].phase {
            let message = "a stage of `on_failure` or `finally` runs when nothing of `stages` can: it waits only for those beside it, and only they for it";
            found.push(document.error(name.at, message));
            continue;
        }
        if drafts[index].wait_for(target, name.at) == Added::Known {
            found.push(document.error(name.at, format!("`{}` is named twice", name.value)).warning());
        }
    }
}
