//! One task for every combination of the lists of a matrix.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cycle::TaskKey;
use crate::manifest::Diagnostic;
use crate::manifest::document::NodeId;

use super::Task;
use super::draft::Draft;
use super::expression;
use super::references::Scope;

/// The most tasks one stage may have.
const MOST_TASKS: usize = 10_000;

/// The tasks of a stage, in the order of the lists; names of the matrix in alphabetical order.
///
/// None when a list depends on an input that has no value yet.
pub(super) fn tasks(scope: &Scope<'_>, index: usize) -> Result<Option<Vec<Task>>, Vec<Diagnostic>> {
    let draft = &scope.drafts[index];
    let mut axes = Vec::new();
    let mut problems = Vec::new();
    let mut open = false;
    for (name, raw) in &draft.wire.matrix.0 {
        match axis(scope, index, raw.0) {
            Ok(Some(values)) => axes.push((name.value.as_str(), values)),
            Ok(None) => open = true,
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if open {
        return Ok(None);
    }
    // Key order in the file must not change the keys of tasks.
    axes.sort_by_key(|(name, _)| *name);
    let count = axes.iter().try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
    match count.filter(|count| *count <= MOST_TASKS) {
        Some(_) => Ok(Some(product(draft, &axes))),
        None => {
            let at = draft.wire.matrix.0.first().map_or(draft.at, |(name, _)| name.at);
            Err(vec![scope.document.error(at, format!("the matrix makes more than {MOST_TASKS} tasks"))])
        }
    }
}

fn axis(scope: &Scope<'_>, index: usize, node: NodeId) -> Result<Option<Vec<Value>>, Vec<Diagnostic>> {
    let found = scope.check(index, node)?;
    let refuse = |message: String| Err(vec![scope.document.error(node, message)]);
    if !found.stages.is_empty() {
        return refuse("a matrix must be known before the cycle starts: it can use `inputs` and `cycle.environments`, not the outputs of stages".into());
    }
    if found.uses_matrix {
        return refuse("a matrix cannot use itself".into());
    }
    if let Some(waits_for) = found.waits_for.first() {
        return match waits_for.starts_with("inputs.") {
            true => Ok(None),
            false => refuse(format!("a matrix must be known before the cycle starts, and `{waits_for}` is not")),
        };
    }
    let value = scope.evaluate(node, &scope.document.value(node), &Map::new()).map_err(|problem| vec![problem])?;
    let Value::Array(values) = value else {
        return refuse(format!("a matrix needs a list, found {}", expression::kind_of(&value)));
    };
    if values.is_empty() {
        return refuse("the list is empty, so the stage would have no task".into());
    }
    if values.len() > MOST_TASKS {
        return refuse(format!("the list is longer than {MOST_TASKS}"));
    }
    let mut texts: BTreeSet<String> = BTreeSet::new();
    for value in &values {
        match cell_text(value) {
            None => {
                return refuse(format!(
                    "a matrix takes texts, numbers and booleans, not {}",
                    expression::kind_of(value)
                ));
            }
            Some(text) if texts.contains(&text) => return refuse(format!("`{text}` comes twice")),
            Some(text) => drop(texts.insert(text)),
        }
    }
    Ok(Some(values))
}

fn cell_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn product(draft: &Draft<'_>, axes: &[(&str, Vec<Value>)]) -> Vec<Task> {
    let mut cells = vec![Map::new()];
    for (name, values) in axes {
        let extend = |cell: Map<String, Value>| {
            values.iter().map(move |value| {
                let mut cell = cell.clone();
                cell.insert((*name).to_owned(), value.clone());
                cell
            })
        };
        cells = cells.into_iter().flat_map(extend).collect();
    }
    let task = |matrix: Map<String, Value>| {
        let cell = matrix.values().filter_map(cell_text).collect::<Vec<_>>().join(",");
        Task { key: TaskKey { stage: draft.id.clone(), cell }, matrix }
    };
    cells.into_iter().map(task).collect()
}
