//! From the lists of a matrix to the tasks of its stage: the same cells, order and checks whether the lists were known
//! before the start or are outputs of earlier stages.
//!
//! Pure: what comes out follows from the definition and the outputs alone, so a cycle that is resumed makes the same tasks.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cycle::{StageId, TaskKey};

use super::expression::{self, ExpressionError};
use super::{Expansion, Stage, Task};

/// The most tasks one stage may have.
pub(super) const MOST_TASKS: usize = 10_000;

/// The longest text that can be part of a task's key.
const LONGEST_CELL: usize = 200;

/// Why a matrix makes no tasks. Another attempt with the same outputs would end the same way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`matrix.{part}`: {message}")]
pub struct ExpansionError {
    /// The list, `include` or `exclude`.
    pub part: String,
    /// What is wrong with it.
    pub message: String,
}

/// The tasks of a stage. For one whose matrix uses outputs of earlier stages, `context` holds what expressions see
/// (`inputs`, `cycle`, `stages`); a list that has become empty gives no tasks.
///
/// # Errors
/// [`ExpansionError`] when an expression has no value, or the lists do not make a matrix.
pub fn expand(stage: &Stage, context: &Value) -> Result<Vec<Task>, ExpansionError> {
    let Some(Expansion { axes, include, exclude }) = &stage.expansion else { return Ok(stage.tasks.clone()) };
    let wrong = |part: &str, error: ExpressionError| ExpansionError { part: part.to_owned(), message: error.message };
    let mut lists = Lists::default();
    for (name, written) in axes {
        let value = expression::render(written, context).map_err(|error| wrong(name, error))?;
        let values = list(&value).map_err(|message| ExpansionError { part: name.clone(), message })?;
        lists.axes.push((name.clone(), values));
    }
    for (part, written, cells) in [("include", include, &mut lists.include), ("exclude", exclude, &mut lists.exclude)] {
        for cell in written {
            let rendered = cell.iter().map(|(name, value)| Ok((name.clone(), expression::render(value, context)?)));
            cells.push(rendered.collect::<Result<_, _>>().map_err(|error| wrong(part, error))?);
        }
    }
    lists.tasks(&stage.id).map_err(|(part, message)| ExpansionError { part: part.to_owned(), message })
}

/// The values of one name of a matrix.
pub(super) fn list(value: &Value) -> Result<Vec<Value>, String> {
    let Value::Array(values) = value else {
        return Err(format!("a matrix needs a list, found {}", expression::kind_of(value)));
    };
    if values.len() > MOST_TASKS {
        return Err(format!("the list is longer than {MOST_TASKS}"));
    }
    let mut texts: BTreeSet<String> = BTreeSet::new();
    for value in values {
        let text = cell_text(value)?;
        if texts.contains(&text) {
            return Err(format!("`{text}` comes twice"));
        }
        texts.insert(text);
    }
    Ok(values.clone())
}

/// A value as it stands in the key of its task.
pub(super) fn cell_text(value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        other => {
            return Err(format!("a matrix takes texts, numbers and booleans, not {}", expression::kind_of(other)));
        }
    };
    match text.chars().count() <= LONGEST_CELL && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => Err(format!("a value of a matrix is one line of at most {LONGEST_CELL} characters")),
    }
}

/// A matrix whose values are all known.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) axes: Vec<(String, Vec<Value>)>,
    /// Cells that are added.
    pub(super) include: Vec<Map<String, Value>>,
    /// Cells that are left out, by some or all of their values.
    pub(super) exclude: Vec<Map<String, Value>>,
}

impl Lists {
    /// One task for every combination that is not left out, then one for every cell that is added; names of the matrix in
    /// alphabetical order. An error comes with the part it is about.
    pub(super) fn tasks(mut self, stage: &StageId) -> Result<Vec<Task>, (&'static str, String)> {
        // Key order in the file must not change the keys of tasks.
        self.axes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let too_many = || ("include", format!("the matrix makes more than {MOST_TASKS} tasks"));
        let count = self.axes.iter().try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
        let added = self.include.len();
        count.and_then(|count| count.checked_add(added)).filter(|count| *count <= MOST_TASKS).ok_or_else(too_many)?;
        let mut cells = if self.axes.is_empty() { Vec::new() } else { self.product() };
        cells.retain(|cell| !self.exclude.iter().any(|pattern| agrees(cell, pattern)));
        cells.extend(self.include.into_iter().map(in_order));
        let mut keys: BTreeSet<String> = BTreeSet::new();
        let mut tasks = Vec::with_capacity(cells.len());
        for matrix in cells {
            let texts: Result<Vec<String>, String> = matrix.values().map(cell_text).collect();
            let cell = texts.map_err(|message| ("include", message))?.join(",");
            if !keys.insert(cell.clone()) {
                return Err(("include", format!("the cell `{cell}` comes twice")));
            }
            tasks.push(Task { key: TaskKey { stage: stage.clone(), cell }, matrix });
        }
        Ok(tasks)
    }

    fn product(&self) -> Vec<Map<String, Value>> {
        let mut cells = vec![Map::new()];
        for (name, values) in &self.axes {
            let extend = |cell: Map<String, Value>| {
                values.iter().map(move |value| {
                    let mut cell = cell.clone();
                    cell.insert(name.clone(), value.clone());
                    cell
                })
            };
            cells = cells.into_iter().flat_map(extend).collect();
        }
        cells
    }
}

/// Whether a cell has all values of a pattern.
pub(super) fn agrees(cell: &Map<String, Value>, pattern: &Map<String, Value>) -> bool {
    pattern.iter().all(|(name, wanted)| cell.get(name) == Some(wanted))
}

fn in_order(cell: Map<String, Value>) -> Map<String, Value> {
    let mut fields: Vec<(String, Value)> = cell.into_iter().collect();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stage(axes: Value, include: Value, exclude: Value) -> Stage {
        let maps = |value: Value| serde_json::from_value(value).unwrap();
        Stage {
            expansion: Some(Expansion {
                axes: axes.as_object().unwrap().clone(),
                include: maps(include),
                exclude: maps(exclude),
            }),
            ..Stage::new("s".parse().unwrap(), "file/miners")
        }
    }

    fn cells(stage: &Stage, context: &Value) -> Result<Vec<String>, String> {
        expand(stage, context)
            .map(|tasks| tasks.into_iter().map(|task| task.key.cell).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn outputs_become_tasks() {
        let context = json!({"stages": {"a": {"names": ["x", "y"], "none": [], "n": 3}}, "inputs": {"k": 7}});
        let late = stage(
            json!({"b": "${{ stages.a.names }}", "a": [1, 2]}),
            json!([{"b": "${{ inputs.k }}", "a": 9}]),
            json!([{"b": "x", "a": 2}]),
        );
        assert_eq!(cells(&late, &context).unwrap(), ["1,x", "1,y", "2,y", "9,7"]);
        let tasks = expand(&late, &context).unwrap();
        assert_eq!(Value::Object(tasks[3].matrix.clone()), json!({"a": 9, "b": 7}));
        let empty = stage(json!({"a": "${{ stages.a.none }}"}), json!([]), json!([]));
        assert_eq!(cells(&empty, &context).unwrap(), [""; 0]);
    }

    #[test]
    fn what_makes_no_matrix_says_which_part() {
        let context = json!({"stages": {"a": {"n": 3, "deep": [[1]], "twice": ["1", 1]}}});
        let error = |list: &str| cells(&stage(json!({"x": list}), json!([]), json!([])), &context).unwrap_err();
        assert_eq!(error("${{ stages.a.n }}"), "`matrix.x`: a matrix needs a list, found a number");
        assert!(error("${{ stages.a.deep }}").contains("not a list"));
        assert!(error("${{ stages.a.twice }}").contains("`1` comes twice"));
        assert!(error("${{ stages.a.gone }}").contains("no value"));
        let long = stage(json!({"x": ["y".repeat(201)]}), json!([]), json!([]));
        assert!(cells(&long, &context).unwrap_err().contains("at most 200"));
        let both = stage(json!({"x": ["a", "b"]}), json!([{"x": "b"}]), json!([]));
        assert_eq!(cells(&both, &context).unwrap_err(), "`matrix.include`: the cell `b` comes twice");
        // Left out and added again is not twice.
        let again = stage(json!({"x": ["a", "b"]}), json!([{"x": "a"}]), json!([{"x": "a"}]));
        assert_eq!(cells(&again, &context).unwrap(), ["b", "a"]);
        let large: Vec<usize> = (0..101).collect();
        let large = stage(json!({"x": large, "y": large}), json!([]), json!([]));
        assert!(cells(&large, &context).unwrap_err().contains("more than 10000 tasks"));
    }

    proptest! {
        #[test]
        fn every_combination_once_and_none_that_is_left_out(
            a in prop::collection::btree_set(0u8..9, 1..5), b in prop::collection::btree_set(0u8..9, 1..5), out in 0u8..9,
        ) {
            let made = expand(&stage(json!({"b": b, "a": a}), json!([]), json!([{"b": out}])), &json!({})).unwrap();
            let expected: Vec<String> = a
                .iter()
                .flat_map(|a| b.iter().filter(|b| **b != out).map(move |b| format!("{a},{b}")))
                .collect();
            prop_assert_eq!(made.into_iter().map(|task| task.key.cell).collect::<Vec<_>>(), expected);
        }
    }
}
