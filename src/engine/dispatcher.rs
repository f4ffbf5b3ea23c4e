//! Decides what happens next in a cycle. Synchronous and pure: it never waits, writes or starts anything.
//!
//! The loop in `run.rs` asks [`Dispatcher::next`], writes the entry it is given to the journal, and only then calls
//! [`Dispatcher::apply`], which changes memory and says what to do. Recovery needs no code of its own: a task that the
//! journal calls running and that is not in flight here was lost with its process, and `next` says so.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::attempt::Attempt;
use crate::cycle::{
    CycleId, CycleStatus, Entry, IllegalTransition, StageId, TaskEvent, TaskFailure, TaskKey, TaskState, TaskStatus,
};
use crate::plan::{self, Definition, Graph, GraphError, Phase, Stage};
use crate::stage::Output;

/// Facts about the cycle that expressions may ask for.
#[derive(Debug, Clone)]
pub(super) struct CycleFacts {
    /// Its id.
    pub id: CycleId,
    /// Block it is pinned to.
    pub block: Option<u64>,
}

/// What to do after an entry has been written down.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum Effect {
    /// Nothing.
    Nothing,
    /// Run this attempt.
    Run(Box<Attempt>),
    /// Call [`Dispatcher::retry_due`] for the task after this time.
    Wait(TaskKey, Duration),
}

/// The next thing to do.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum Step {
    /// Write this down, then apply it.
    Record(Box<Entry>),
    /// Nothing until an attempt ends or a wait is over.
    Wait,
    /// The cycle has ended.
    End(CycleStatus, Option<TaskFailure>),
}

/// The state of a cycle's tasks in memory, never ahead of the journal.
#[derive(Debug)]
pub(super) struct Dispatcher {
    definition: Definition,
    graph: Graph,
    facts: CycleFacts,
    tasks: HashMap<TaskKey, TaskState>,
    in_flight: HashSet<TaskKey>,
    waiting: HashSet<TaskKey>,
    parallelism: usize,
    cancelled: bool,
}

impl Dispatcher {
    /// A dispatcher that goes on where `tasks` stand.
    ///
    /// # Errors
    /// [`GraphError`] when the stages of the definition do not form a graph without circles.
    pub(super) fn new(
        definition: Definition,
        facts: CycleFacts,
        tasks: Vec<TaskState>,
        parallelism: usize,
    ) -> Result<Self, GraphError> {
        Ok(Self {
            graph: Graph::new(&definition)?,
            definition,
            facts,
            tasks: tasks.into_iter().map(|task| (task.key.clone(), task)).collect(),
            in_flight: HashSet::new(),
            waiting: HashSet::new(),
            parallelism: parallelism.max(1),
            cancelled: false,
        })
    }

    /// The next thing to do, given where everything stands.
    pub(super) fn next(&self) -> Step {
        for phase in [Phase::Main, Phase::Finally] {
            if let Some(entry) = self.next_in(phase) {
                return Step::Record(Box::new(entry));
            }
            if !self.is_over(phase) {
                return Step::Wait;
            }
        }
        let (status, failure) = self.verdict();
        Step::End(status, failure)
    }

    /// The entry for an attempt that has ended.
    pub(super) fn finished(&self, attempt: &Attempt, result: Result<Output, TaskFailure>) -> Entry {
        let failed = self.tasks.get(&attempt.task).map_or(0, |task| task.failed_attempts) + 1;
        let mut publication = None;
        let event = match result {
            Ok(output) => {
                publication = output.publication;
                TaskEvent::Succeeded { output: output.value }
            }
            Err(_) if self.cancelled && attempt.stage.phase == Phase::Main => TaskEvent::Cancelled,
            Err(failure) if failure.class.is_retryable() && failed < attempt.stage.retry.max_attempts => {
                TaskEvent::Retried { failure }
            }
            Err(failure) => TaskEvent::Failed { failure },
        };
        Entry { publication, ..Entry::new(attempt.task.clone(), attempt.number, event) }
    }

    /// Take an entry that the journal holds now into account.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the entry does not fit the state: a bug.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<Effect, IllegalTransition> {
        let Some(task) = self.tasks.get_mut(&entry.task) else { return Ok(Effect::Nothing) };
        *task = task.record(entry.attempt, &entry.event)?;
        let failed = task.failed_attempts;
        let key = entry.task.clone();
        match &entry.event {
            TaskEvent::Started => {
                self.in_flight.insert(key.clone());
                Ok(self.attempt(key, entry.attempt).map_or(Effect::Nothing, |attempt| Effect::Run(Box::new(attempt))))
            }
            TaskEvent::Retried { .. } => {
                self.in_flight.remove(&key);
                let wait =
                    self.stage(&key.stage).map(|stage| stage.retry.wait(failed, rand::random())).unwrap_or_default();
                self.waiting.insert(key.clone());
                Ok(Effect::Wait(key, wait))
            }
            TaskEvent::Failed { .. }
            | TaskEvent::Lost
            | TaskEvent::Succeeded { .. }
            | TaskEvent::Skipped { .. }
            | TaskEvent::Cancelled => {
                self.in_flight.remove(&key);
                Ok(Effect::Nothing)
            }
        }
    }

    /// The wait before another attempt is over.
    pub(super) fn retry_due(&mut self, task: &TaskKey) {
        self.waiting.remove(task);
    }

    /// The cycle is to stop: nothing more of the main body starts; `finally` still runs. The caller stops what is in flight.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        self.waiting.clear();
    }

    fn next_in(&self, phase: Phase) -> Option<Entry> {
        let stages = self.graph.phase(phase);
        stages.flat_map(|stage| stage.tasks.iter().map(move |task| (stage, task))).find_map(|(stage, task)| {
            let state = self.tasks.get(&task.key)?;
            let entry = |event, attempt| Entry::new(task.key.clone(), attempt, event);
            match &state.status {
                TaskStatus::Running if !self.in_flight.contains(&task.key) => {
                    Some(entry(TaskEvent::Lost, state.attempt))
                }
                TaskStatus::Pending if self.cancelled && phase == Phase::Main => {
                    Some(entry(TaskEvent::Cancelled, state.attempt))
                }
                TaskStatus::Pending => match self.readiness(stage, &task.matrix) {
                    Readiness::Never(reason) => Some(entry(TaskEvent::Skipped { reason }, state.attempt)),
                    Readiness::Ready
                        if !self.waiting.contains(&task.key) && self.in_flight.len() < self.parallelism =>
                    {
                        Some(entry(TaskEvent::Started, state.attempt + 1))
                    }
                    Readiness::Ready | Readiness::NotYet => None,
                },
                _ => None,
            }
        })
    }

    fn readiness(&self, stage: &Stage, matrix: &Map<String, Value>) -> Readiness {
        for needed in self.graph.dependencies(&stage.id) {
            for state in self.states(needed) {
                match &state.status {
                    TaskStatus::Succeeded { .. } => {}
                    TaskStatus::Pending | TaskStatus::Running => return Readiness::NotYet,
                    TaskStatus::Skipped { .. } => return Readiness::Never(format!("`{needed}` was skipped")),
                    TaskStatus::Failed { .. } | TaskStatus::Cancelled => {
                        return Readiness::Never(format!("`{needed}` did not succeed"));
                    }
                }
            }
        }
        // A condition that cannot be evaluated starts the task, whose attempt then fails with the reason.
        match stage.when.as_deref().map(|when| plan::truth(when, &self.context(matrix))) {
            Some(Ok(false)) => Readiness::Never("its `when` is false".into()),
            _ => Readiness::Ready,
        }
    }

    fn is_over(&self, phase: Phase) -> bool {
        self.graph.phase(phase).all(|stage| self.states(&stage.id).all(|state| state.status.is_terminal()))
    }

    /// How the cycle ended. One that was cancelled too late to stop anything has completed: its weights may be out.
    fn verdict(&self) -> (CycleStatus, Option<TaskFailure>) {
        let mut cancelled = false;
        for stage in self.graph.topological() {
            for state in self.states(&stage.id) {
                match &state.status {
                    TaskStatus::Failed { failure } => {
                        let message = format!("{}: {}", state.key, failure.message);
                        return (CycleStatus::Failed, Some(TaskFailure { class: failure.class, message }));
                    }
                    TaskStatus::Cancelled => cancelled = true,
                    _ => {}
                }
            }
        }
        (if cancelled { CycleStatus::Cancelled } else { CycleStatus::Completed }, None)
    }

    fn attempt(&self, task: TaskKey, number: u32) -> Option<Attempt> {
        let stage = self.stage(&task.stage)?.clone();
        let matrix = &stage.tasks.iter().find(|planned| planned.key == task)?.matrix;
        let context = self.context(matrix);
        Some(Attempt { task, number, stage, context })
    }

    /// `inputs`, `cycle`, `stages` and `matrix`, as expressions see them. Outputs of a matrix stage are lists in task order.
    fn context(&self, matrix: &Map<String, Value>) -> Value {
        let stages: Map<String, Value> = self
            .definition
            .stages
            .iter()
            .filter_map(|stage| Some((stage.id.to_string(), self.output(stage)?)))
            .collect();
        let environments: Vec<&str> =
            self.definition.environments.iter().map(|e| e.simulation.environment.as_str()).collect();
        json!({
            "inputs": self.definition.inputs,
            "cycle": { "id": self.facts.id.to_string(), "environments": environments, "publish": true, "block": self.facts.block },
            "stages": stages,
            "matrix": matrix,
        })
    }

    fn output(&self, stage: &Stage) -> Option<Value> {
        let outputs: Option<Vec<&Value>> = self
            .states(&stage.id)
            .map(|state| match &state.status {
                TaskStatus::Succeeded { output } => Some(output),
                _ => None,
            })
            .collect();
        let outputs = outputs?;
        match (stage.tasks.as_slice(), outputs.as_slice()) {
            ([task], [output]) if task.key.cell.is_empty() => Some((*output).clone()),
            _ => {
                let mut fields: Map<String, Value> = Map::new();
                for output in outputs {
                    for (name, value) in output.as_object()? {
                        let list = fields.entry(name.clone()).or_insert_with(|| json!([]));
                        list.as_array_mut()?.push(value.clone());
                    }
                }
                Some(Value::Object(fields))
            }
        }
    }

    fn stage(&self, id: &StageId) -> Option<&Stage> {
        self.definition.stage(id)
    }

    fn states<'a>(&'a self, id: &StageId) -> impl Iterator<Item = &'a TaskState> {
        let tasks = self.definition.stage(id).map_or(&[][..], |stage| &stage.tasks);
        tasks.iter().filter_map(|task| self.tasks.get(&task.key))
    }
}

/// Whether a pending task may start.
enum Readiness {
    Ready,
    NotYet,
    Never(String),
}
