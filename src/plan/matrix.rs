//! The matrix of a stage as a manifest writes it: its lists, the cells added and left out, how its tasks share their time.
//!
//! What is known before the start becomes tasks here; what uses outputs of earlier stages is checked as far as it can be
//! and kept for [`super::expand()`].

use serde_json::{Map, Value};

use crate::manifest::decode::{alternatives, decode_at};
use crate::manifest::document::{Document, NodeId};
use crate::manifest::located::{Entries, Located, Raw};
use crate::manifest::{Diagnostic, Diagnostics};

use super::expand::{self, Lists};
use super::kinds::Type;
use super::references::Scope;
use super::{Expansion, Task};

/// What a manifest says of a stage's matrix.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    axes: Vec<(Located<String>, Raw)>,
    include: Vec<Located<Entries<Raw>>>,
    exclude: Vec<Located<Entries<Raw>>>,
    pub(super) max_parallel: Option<u32>,
    pub(super) fail_fast: bool,
}

/// What a matrix comes to before the start.
pub(super) enum Expanded {
    Tasks(Vec<Task>),
    /// It needs outputs of earlier stages.
    Later(Expansion),
    /// It needs an input that has no value; there is nothing to run then.
    Open,
}

impl Matrix {
    /// Read it out of the document; what is wrong with its form is reported.
    pub(super) fn read(document: &Document, wire: &Entries<Raw>, found: &mut Diagnostics) -> Self {
        let mut matrix = Self::default();
        for (name, raw) in &wire.0 {
            match name.value.as_str() {
                "include" => matrix.include = decode_at(document, raw.0, found).unwrap_or_default(),
                "exclude" => matrix.exclude = decode_at(document, raw.0, found).unwrap_or_default(),
                "fail_fast" => matrix.fail_fast = decode_at(document, raw.0, found).unwrap_or_default(),
                "max_parallel" => match decode_at(document, raw.0, found) {
                    Some(0) => found.push(document.error(raw.0, "`max_parallel` is at least 1")),
                    most => matrix.max_parallel = most,
                },
                other => {
                    if other.parse::<crate::cycle::StageId>().is_err() {
                        let message =
                            format!("`{other}` is not a name of a matrix (a-z, 0-9 and _, starting with a letter)");
                        found.push(document.error(name.at, message));
                    }
                    matrix.axes.push((name.clone(), *raw));
                }
            }
        }
        if let (None, Some((first, _))) = (matrix.names().next(), wire.0.first()) {
            let problem = document.error(first.at, "the matrix has no list");
            found.push(problem.help("give it one: `name: [1, 2, 3]`, or cells under `include`"));
        }
        matrix
    }

    /// Its names: those of its lists or, without any, of the first cell that is added.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let first = self.include.first().filter(|_| self.axes.is_empty());
        let added = first.into_iter().flat_map(|cell| cell.value.names());
        self.axes.iter().map(|(name, _)| name.value.as_str()).chain(added)
    }

    /// Everything in it that may hold expressions.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let cells = self.include.iter().chain(&self.exclude).flat_map(|cell| &cell.value.0);
        self.axes.iter().chain(cells).map(|(_, raw)| raw.0)
    }

    /// Every name of a cell must be one of the matrix; one that is added has them all.
    fn check_cells(&self, document: &Document) -> Vec<Diagnostic> {
        let names: Vec<&str> = self.names().collect();
        let mut problems = Vec::new();
        for (cell, added) in self.include.iter().map(|it| (it, true)).chain(self.exclude.iter().map(|it| (it, false))) {
            for (name, _) in cell.value.0.iter().filter(|(name, _)| !names.contains(&name.value.as_str())) {
                let message = format!("the matrix has no list `{}`", name.value);
                problems.push(document.error(name.at, message).closest(&name.value, names.iter().copied()));
            }
            let missing: Vec<&str> =
                names.iter().copied().filter(|name| !cell.value.names().any(|known| known == *name)).collect();
            if added && !missing.is_empty() {
                let message =
                    format!("a cell that is added has a value for every name: {} is missing", alternatives(&missing));
                problems.push(document.error(cell.at, message));
            }
            if !added && cell.value.0.is_empty() {
                problems.push(document.error(cell.at, "this leaves out every cell"));
            }
        }
        problems
    }
}

/// A value of a matrix, as far as it is known.
enum Known {
    Now(Value),
    Later(Value),
    Open,
}

/// Expand the matrix of a stage, or find out what it waits for.
pub(super) fn expand(scope: &Scope<'_>, index: usize) -> Result<Expanded, Vec<Diagnostic>> {
    let draft = &scope.drafts[index];
    let matrix = &draft.matrix;
    let mut problems = matrix.check_cells(scope.document);
    let mut expansion = Expansion { axes: Map::new(), include: Vec::new(), exclude: Vec::new() };
    let (mut later, mut open) = (false, false);
    let mut take = |known: Result<Known, Vec<Diagnostic>>| match known {
        Ok(Known::Now(value)) => Some(value),
        Ok(Known::Later(value)) => {
            later = true;
            Some(value)
        }
        Ok(Known::Open) => {
            open = true;
            None
        }
        Err(more) => {
            problems.extend(more);
            None
        }
    };
    for (name, raw) in &matrix.axes {
        if let Some(value) = take(axis(scope, index, raw.0)) {
            expansion.axes.insert(name.value.clone(), value);
        }
    }
    for (cells, made) in [(&matrix.include, &mut expansion.include), (&matrix.exclude, &mut expansion.exclude)] {
        for cell in cells {
            let values = cell.value.0.iter().filter_map(|(name, raw)| {
                take(value_in_cell(scope, index, raw.0)).map(|value| (name.value.clone(), value))
            });
            made.push(values.collect());
        }
    }
    match (problems.is_empty(), open, later) {
        (false, ..) => Err(problems),
        (true, true, _) => Ok(Expanded::Open),
        (true, false, true) => Ok(Expanded::Later(expansion)),
        (true, false, false) => now(scope, index, expansion).map(Expanded::Tasks),
    }
}

fn now(scope: &Scope<'_>, index: usize, expansion: Expansion) -> Result<Vec<Task>, Vec<Diagnostic>> {
    let draft = &scope.drafts[index];
    let values = |value: Value| match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    };
    let Expansion { axes, include, exclude } = expansion;
    let axes = axes.into_iter().map(|(name, list)| (name, values(list))).collect();
    let at = draft.matrix.axes.first().map_or(draft.at, |(name, _)| name.at);
    match (Lists { axes, include, exclude }).tasks(&draft.id) {
        Ok(tasks) if tasks.is_empty() => {
            Err(vec![scope.document.error(at, "every cell is left out, so the stage would have no task")])
        }
        Ok(tasks) => Ok(tasks),
        Err((_, message)) => Err(vec![scope.document.error(at, message)]),
    }
}

/// One list of the matrix.
fn axis(scope: &Scope<'_>, index: usize, node: NodeId) -> Result<Known, Vec<Diagnostic>> {
    let known = value(scope, index, node)?;
    let refuse = |message: String| Err(vec![scope.document.error(node, message)]);
    let kind = scope.check(index, node)?.kind.filter(|_| matches!(known, Known::Later(_)));
    match kind {
        Some(Type::Miners) => {
            let text = scope.document.text(node).unwrap_or_default().trim();
            let source = text.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")).unwrap_or(text).trim();
            let problem = scope.document.error(node, "a matrix takes texts, numbers and booleans, not miners");
            return Err(vec![problem.help(format!("write `${{{{ {source} | map(attribute='hotkey') }}}}`"))]);
        }
        Some(kind) if !Type::List.accepts(kind) => {
            return refuse(format!("a matrix needs a list, this is {}", kind.word()));
        }
        _ => {}
    }
    if let Known::Now(list) = &known {
        match expand::list(list) {
            Err(message) => return refuse(message),
            Ok(values) if values.is_empty() => {
                return refuse("the list is empty, so the stage would have no task".into());
            }
            Ok(_) => {}
        }
    }
    Ok(known)
}

/// One value of a cell.
fn value_in_cell(scope: &Scope<'_>, index: usize, node: NodeId) -> Result<Known, Vec<Diagnostic>> {
    let known = value(scope, index, node)?;
    match &known {
        Known::Now(value) => match expand::cell_text(value) {
            Ok(_) => Ok(known),
            Err(message) => Err(vec![scope.document.error(node, message)]),
        },
        _ => Ok(known),
    }
}

fn value(scope: &Scope<'_>, index: usize, node: NodeId) -> Result<Known, Vec<Diagnostic>> {
    let found = scope.check(index, node)?;
    let refuse = |message: String| Err(vec![scope.document.error(node, message)]);
    if found.uses_matrix {
        return refuse("a matrix cannot use itself".into());
    }
    let (inputs, others): (Vec<_>, Vec<_>) = found.waits_for.iter().partition(|name| name.starts_with("inputs."));
    if let Some(other) = others.first() {
        return refuse(format!(
            "a matrix can use `inputs`, `cycle.environments` and the outputs of stages, not `{other}`"
        ));
    }
    let written = scope.document.value(node);
    match (inputs.is_empty(), found.stages.is_empty()) {
        (false, _) => Ok(Known::Open),
        (true, false) => Ok(Known::Later(written)),
        (true, true) => scope.evaluate(node, &written, &Map::new()).map(Known::Now).map_err(|problem| vec![problem]),
    }
}
