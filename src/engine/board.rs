//! The state of a cycle in memory: its stages, their tasks, and counts that answer in one step what a scan would.
//!
//! Keeps books and decides nothing; `dispatcher.rs` decides. It talks to nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use crate::cycle::{StageId, TaskKey, TaskState, TaskStatus};
use crate::plan::{Definition, Graph, GraphError, Phase, Stage, Task};

/// The phases in the order they run.
pub(super) const PHASES: [Phase; 3] = [Phase::Main, Phase::OnFailure, Phase::Finally];

/// A task on the board.
#[derive(Debug)]
pub(super) struct TaskNode {
    pub(super) state: TaskState,
    /// Its stage's place on the board.
    pub(super) stage: usize,
    /// Its place among the tasks of its stage.
    pub(super) matrix: Map<String, Value>,
    /// An attempt of ours runs, or will once the journal holds its start.
    pub(super) in_flight: bool,
    /// When it has waited long enough for its turn.
    pub(super) deadline: Option<Duration>,
}

/// How many tasks of a stage stand where.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// Pending or running.
    pub(super) open: usize,
    pub(super) paused: usize,
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    pub(super) cancelled: usize,
}

impl Counts {
    fn of(&mut self, status: &TaskStatus) -> &mut usize {
        match status {
            TaskStatus::Pending | TaskStatus::Running => &mut self.open,
            TaskStatus::Paused { .. } => &mut self.paused,
            TaskStatus::Succeeded { .. } => &mut self.succeeded,
            TaskStatus::Failed { .. } => &mut self.failed,
            TaskStatus::Skipped { .. } => &mut self.skipped,
            TaskStatus::Cancelled => &mut self.cancelled,
        }
    }
}

/// What a stage waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Gate {
    /// The stages it needs.
    Shut,
    /// Its tasks to be written down.
    Expanding,
    /// Nothing: its tasks run as limits allow.
    Open,
    /// Nothing: its matrix has no value, so its one stand-in fails with this message.
    Broken(String),
}

/// A stage on the board.
#[derive(Debug)]
pub(super) struct StageNode {
    pub(super) stage: Arc<Stage>,
    pub(super) needs: Vec<usize>,
    pub(super) feeds: Vec<usize>,
    /// Stages whose outputs its texts may speak of.
    pub(super) mentions: Vec<usize>,
    pub(super) tasks: Vec<usize>,
    /// Whether its tasks are known: not yet while a matrix waits for outputs.
    pub(super) known: bool,
    pub(super) gate: Gate,
    pub(super) counts: Counts,
    pub(super) in_flight: usize,
    /// Tasks that nothing but limits holds up, in their order.
    pub(super) ready: BTreeSet<usize>,
    /// What its expressions may refer to, without the matrix. Made when it opens.
    pub(super) context: Option<Arc<Value>>,
}

impl StageNode {
    /// Whether nothing more happens in it by itself.
    pub(super) fn is_closed(&self) -> bool {
        self.known && self.counts.open + self.counts.paused == 0
    }

    /// Whether every task has succeeded.
    pub(super) fn has_succeeded(&self) -> bool {
        self.known && self.counts.succeeded == self.tasks.len()
    }

    /// Whether its tasks are cells of a matrix, even if there is only one.
    pub(super) fn is_matrix(&self) -> bool {
        self.stage.expansion.is_some() || self.stage.tasks.len() != 1 || !self.stage.tasks[0].key.cell.is_empty()
    }
}

/// Everything about the tasks of a cycle.
#[derive(Debug)]
pub(super) struct Board {
    /// In topological order, phase by phase.
    pub(super) stages: Vec<StageNode>,
    pub(super) tasks: Vec<TaskNode>,
    index: HashMap<TaskKey, usize>,
    /// Rows of the journal that the definition does not list: tasks of a matrix that was expanded before.
    pub(super) recorded: HashMap<TaskKey, TaskState>,
    /// Running according to the journal and not in flight here: lost with their process.
    pub(super) lost: Vec<usize>,
    pub(super) in_flight: usize,
    /// Stages of each phase that are not closed.
    open_stages: [usize; 3],
}

impl Board {
    /// The board of a definition whose tasks stand as the journal says.
    ///
    /// # Errors
    /// [`GraphError`] when the stages do not form a graph without circles.
    pub(super) fn new(definition: &Definition, tasks: Vec<TaskState>) -> Result<Self, GraphError> {
        let stages = stages(definition)?;
        let mut board = Self {
            stages: vec![],
            tasks: Vec::with_capacity(tasks.len()),
            index: HashMap::with_capacity(tasks.len()),
            recorded: tasks.into_iter().map(|task| (task.key.clone(), task)).collect(),
            lost: vec![],
            in_flight: 0,
            open_stages: [0; 3],
        };
        for node in stages {
            let place = board.stages.len();
            let stage = Arc::clone(&node.stage);
            board.open_stages[rank(stage.phase)] += 1;
            board.stages.push(node);
            if stage.expansion.is_none() {
                board.adopt(place, &stage.tasks);
            }
        }
        Ok(board)
    }

    /// Put the tasks of a stage on the board, as the journal knows them.
    pub(super) fn adopt(&mut self, stage: usize, tasks: &[Task]) {
        for task in tasks {
            let state = self.recorded.remove(&task.key).unwrap_or_else(|| TaskState::new(task.key.clone()));
            let place = self.tasks.len();
            self.index.insert(task.key.clone(), place);
            *self.stages[stage].counts.of(&state.status) += 1;
            if state.status == TaskStatus::Running {
                self.lost.push(place);
            }
            let matrix = task.matrix.clone();
            self.tasks.push(TaskNode { state, stage, matrix, in_flight: false, deadline: None });
            self.stages[stage].tasks.push(place);
        }
        self.stages[stage].known = true;
        self.count_if_closed(stage);
    }

    /// The place of a task.
    pub(super) fn place(&self, key: &TaskKey) -> Option<usize> {
        self.index.get(key).copied()
    }

    /// Whether nothing more happens in a phase by itself.
    pub(super) fn is_over(&self, phase: Phase) -> bool {
        self.open_stages[rank(phase)] == 0
    }

    /// Change a task; whether that closed its stage.
    pub(super) fn set(&mut self, task: usize, state: TaskState) -> bool {
        let stage = self.tasks[task].stage;
        let was_closed = self.stages[stage].is_closed();
        *self.stages[stage].counts.of(&self.tasks[task].state.status) -= 1;
        *self.stages[stage].counts.of(&state.status) += 1;
        self.tasks[task].state = state;
        !was_closed && self.count_if_closed(stage)
    }

    /// An attempt of a task is ours from now on, or no longer.
    pub(super) fn set_in_flight(&mut self, task: usize, flight: Flight) {
        let node = &mut self.tasks[task];
        let stage = &mut self.stages[node.stage];
        match (node.in_flight, flight) {
            (false, Flight::Begins) => {
                self.in_flight += 1;
                stage.in_flight += 1;
            }
            (true, Flight::Ends) => {
                self.in_flight -= 1;
                stage.in_flight -= 1;
            }
            _ => {}
        }
        node.in_flight = flight == Flight::Begins;
    }

    /// How a task that has not begun, or waits for a person, is found in its stage.
    pub(super) fn idle(&self, stage: usize) -> Vec<usize> {
        let is_idle = |task: &&usize| {
            let node = &self.tasks[**task];
            !node.in_flight && matches!(node.state.status, TaskStatus::Pending | TaskStatus::Paused { .. })
        };
        self.stages[stage].tasks.iter().filter(is_idle).copied().collect()
    }

    fn count_if_closed(&mut self, stage: usize) -> bool {
        let node = &self.stages[stage];
        let closed = node.is_closed();
        if closed {
            self.open_stages[rank(node.stage.phase)] -= 1;
        }
        closed
    }
}

/// Whether an attempt begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flight {
    Begins,
    Ends,
}

/// The place of a phase in [`PHASES`].
pub(super) fn rank(phase: Phase) -> usize {
    match phase {
        Phase::Main => 0,
        Phase::OnFailure => 1,
        Phase::Finally => 2,
    }
}

/// The stages in topological order, each with its neighbours.
fn stages(definition: &Definition) -> Result<Vec<StageNode>, GraphError> {
    let graph = Graph::new(definition)?;
    let order: Vec<&Stage> = graph.topological().collect();
    let places: HashMap<&StageId, usize> = order.iter().enumerate().map(|(place, stage)| (&stage.id, place)).collect();
    let neighbours = |ids: BTreeSet<&StageId>| ids.into_iter().filter_map(|id| places.get(id).copied()).collect();
    let node = |stage: &&Stage| StageNode {
        needs: neighbours(graph.dependencies(&stage.id)),
        feeds: neighbours(graph.dependents(&stage.id)),
        mentions: mentions(stage, &order),
        stage: Arc::new((*stage).clone()),
        tasks: vec![],
        known: false,
        gate: Gate::Shut,
        counts: Counts::default(),
        in_flight: 0,
        ready: BTreeSet::new(),
        context: None,
    };
    Ok(order.iter().map(node).collect())
}

/// Stages whose names stand in the texts of `stage`. A name that only looks like one costs a little memory, nothing else.
fn mentions(stage: &Stage, all: &[&Stage]) -> Vec<usize> {
    let mut texts = Value::Object(stage.with.clone()).to_string();
    texts.push_str(stage.when.as_deref().unwrap_or_default());
    if let Some(expansion) = &stage.expansion {
        texts.push_str(&Value::Object(expansion.axes.clone()).to_string());
        for cell in expansion.include.iter().chain(&expansion.exclude) {
            texts.push_str(&Value::Object(cell.clone()).to_string());
        }
    }
    let named = all.iter().enumerate().filter(|(_, other)| texts.contains(other.id.as_str()));
    named.map(|(place, _)| place).collect()
}
