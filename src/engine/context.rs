//! What expressions of a stage may refer to: `inputs`, `cycle`, `stages`, and the matrix of a task.
//!
//! Pure. Made once for a stage, when it opens, with only those outputs that its texts speak of.

use serde_json::{Map, Value, json};

use super::board::{Board, StageNode};
use crate::cycle::{CycleId, TaskFailure, TaskKey, TaskStatus};
use crate::plan::{Definition, kinds::DISCOVERY};

/// Facts about the cycle that expressions may ask for.
#[derive(Debug, Clone)]
pub(super) struct CycleFacts {
    /// Its id.
    pub(super) id: CycleId,
}

/// The parts of a context that are the same for all stages.
#[derive(Debug)]
pub(super) struct Common {
    inputs: Map<String, Value>,
    cycle: Map<String, Value>,
}

impl Common {
    pub(super) fn new(definition: &Definition, facts: &CycleFacts) -> Self {
        let environments: Vec<&str> =
            definition.environments.iter().map(|environment| environment.simulation.environment.as_str()).collect();
        let cycle =
            [("id", json!(facts.id.to_string())), ("environments", json!(environments)), ("publish", json!(true))];
        let cycle = cycle.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { inputs: definition.inputs.clone(), cycle }
    }

    /// The context of a stage, without a matrix. `failure` is that of the main body, where there is one.
    pub(super) fn of(&self, board: &Board, stage: usize, failure: Option<&(TaskKey, TaskFailure)>) -> Value {
        let mentioned = board.stages[stage].mentions.iter().map(|place| &board.stages[*place]);
        let stages: Map<String, Value> =
            mentioned.filter_map(|node| Some((node.stage.id.to_string(), output(board, node)?))).collect();
        let mut cycle = self.cycle.clone();
        cycle.insert("block".into(), block(board));
        if let Some((task, failure)) = failure {
            cycle.insert("failure".into(), json!(format!("{task}: {}", failure.message)));
        }
        json!({ "inputs": self.inputs, "cycle": cycle, "stages": stages })
    }
}

/// The block that the cycle is pinned to, as the stage says that has found it. Whoever asks for it waits for that stage, so that
/// the answer is the same whenever it is asked.
fn block(board: &Board) -> Value {
    let discovery = board.stages.iter().find(|node| node.stage.uses == DISCOVERY);
    match discovery.and_then(|node| node.tasks.first()).map(|task| &board.tasks[*task].state.status) {
        Some(TaskStatus::Succeeded { output }) => output["block"].clone(),
        _ => Value::Null,
    }
}

/// The context of one task.
pub(super) fn with_matrix(context: &Value, matrix: &Map<String, Value>) -> Value {
    let mut context = context.clone();
    if let Value::Object(fields) = &mut context {
        fields.insert("matrix".into(), Value::Object(matrix.clone()));
    }
    context
}

/// What a stage that has succeeded gives to others. Outputs of a matrix are lists in the order of its tasks.
fn output(board: &Board, node: &StageNode) -> Option<Value> {
    if !node.has_succeeded() {
        return None;
    }
    let outputs = node.tasks.iter().filter_map(|task| match &board.tasks[*task].state.status {
        TaskStatus::Succeeded { output } => Some(output),
        _ => None,
    });
    if !node.is_matrix() {
        return { outputs }.next().cloned();
    }
    // A matrix without cells has outputs too: empty lists.
    let mut lists: Map<String, Value> = match node.tasks.as_slice() {
        [] => node.stage.output_names().map(|name| (name.to_owned(), json!([]))).collect(),
        _ => Map::new(),
    };
    for output in outputs {
        for (name, value) in output.as_object()? {
            lists.entry(name.clone()).or_insert_with(|| json!([])).as_array_mut()?.push(value.clone());
        }
    }
    Some(Value::Object(lists))
}
