//! The tasks of a matrix that is made of earlier outputs.
//!
//! Pure: the same outputs give the same tasks, so a resumed cycle finds the ones it had.

use serde_json::{Map, Value};

use crate::cycle::TaskKey;
use crate::plan::{self, Expansion, Stage, Task};

/// The one task that stands for a stage whose matrix has not become known: it is skipped, cancelled or fails for it.
pub(super) fn stand_in(stage: &Stage) -> Task {
    Task { key: TaskKey { stage: stage.id.clone(), cell: String::new() }, matrix: Map::new() }
}

/// The tasks of a stage whose dependencies have all ended.
pub(super) fn expand(stage: &Stage, context: &Value) -> Result<Vec<Task>, String> {
    let Some(Expansion { axes, include, exclude }) = &stage.expansion else { return Ok(stage.tasks.clone()) };
    let mut cells = vec![Map::new()];
    for (name, list) in axes {
        let list = plan::render(list, context).map_err(|error| format!("`matrix.{name}`: {error}"))?;
        let Value::Array(values) = list else { return Err(format!("`matrix.{name}`: a matrix needs a list")) };
        let extend = |cell: Map<String, Value>| {
            values.iter().map(move |value| {
                let mut cell = cell.clone();
                cell.insert(name.clone(), value.clone());
                cell
            })
        };
        cells = cells.iter().cloned().flat_map(extend).collect();
    }
    if axes.is_empty() {
        cells.clear();
    }
    let is_out = |cell: &Map<String, Value>| {
        exclude.iter().any(|out| out.iter().all(|(name, value)| cell.get(name) == Some(value)))
    };
    cells.retain(|cell| !is_out(cell));
    cells.extend(include.iter().cloned());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let task = |matrix: Map<String, Value>| {
        let cell = matrix.values().map(text).collect::<Vec<_>>().join(",");
        Task { key: TaskKey { stage: stage.id.clone(), cell }, matrix }
    };
    Ok(cells.into_iter().map(task).collect())
}
