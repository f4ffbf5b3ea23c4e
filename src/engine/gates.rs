//! When a stage of the dispatcher opens, and what becomes of its tasks when it never does.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::Value;

use super::board::{Board, Gate, PHASES};
use super::context::with_matrix;
use super::dispatcher::Dispatcher;
use super::expansion::stand_in;
use crate::cycle::{CycleStatus, Entry, IllegalTransition, StageId, TaskEvent, TaskFailure, TaskKey, TaskStatus};
use crate::plan::{self, Phase, Task};

/// Whether the tasks of a stage may start.
pub(super) enum Readiness {
    Ready,
    NotYet,
    Never(String),
}

impl Dispatcher {
    /// Whether a stage may open, as far as others are concerned.
    pub(super) fn readiness(&self, stage: usize) -> Readiness {
        let node = &self.board.stages[stage];
        if node.stage.phase == Phase::OnFailure && self.main_failure().is_none() {
            return Readiness::Never("the main body did not fail".into());
        }
        let mut readiness = Readiness::Ready;
        for needed in node.needs.iter().map(|place| &self.board.stages[*place]) {
            if !needed.is_closed() {
                readiness = Readiness::NotYet;
            } else if needed.counts.failed + needed.counts.cancelled > 0 {
                return Readiness::Never(format!("`{}` did not succeed", needed.stage.id));
            } else if needed.counts.skipped > 0 {
                return Readiness::Never(format!("`{}` was skipped", needed.stage.id));
            }
        }
        readiness
    }

    /// Nothing but limits holds a stage up any more: find out its tasks if they are not known, and line them up.
    pub(super) fn open(&mut self, stage: usize, now: Duration) -> Result<(), IllegalTransition> {
        if self.board.stages[stage].context.is_none() {
            let context = self.context(stage);
            self.board.stages[stage].context = Some(Arc::new(context));
        }
        if !self.board.stages[stage].known {
            return self.open_matrix(stage);
        }
        self.board.stages[stage].gate = Gate::Open;
        let idle = self.board.idle(stage);
        let pending = idle.into_iter().filter(|task| self.board.tasks[*task].state.status == TaskStatus::Pending);
        let refused = self.refused_by_condition(stage, pending.clone().collect());
        for task in pending.collect::<Vec<_>>() {
            if refused.contains(&task) {
                self.emit(task, TaskEvent::Skipped { reason: "its `when` is false".into() })?;
            } else {
                self.requeue(task, now);
            }
        }
        Ok(())
    }

    /// What the stage's expressions may refer to. While the main body runs, its failures are not told: which of several comes
    /// first is a matter of time.
    fn context(&self, stage: usize) -> Value {
        let failure = self.main_failure().filter(|_| self.board.stages[stage].stage.phase != Phase::Main);
        self.common.of(&self.board, stage, failure.as_ref())
    }

    /// Tasks whose `when` is false. One that cannot be evaluated starts its task, whose attempt then fails with the reason.
    fn refused_by_condition(&self, stage: usize, tasks: Vec<usize>) -> HashSet<usize> {
        let node = &self.board.stages[stage];
        let (Some(when), Some(context)) = (&node.stage.when, &node.context) else { return HashSet::new() };
        let is_false = |context: &Value| plan::truth(when, context) == Ok(false);
        if when.contains("matrix") {
            let of = |task: &usize| with_matrix(context, &self.board.tasks[*task].matrix);
            return tasks.into_iter().filter(|task| is_false(&of(task))).collect();
        }
        if is_false(context) { tasks.into_iter().collect() } else { HashSet::new() }
    }

    fn open_matrix(&mut self, stage: usize) -> Result<(), IllegalTransition> {
        let node = &self.board.stages[stage];
        let context = node.context.clone().unwrap_or_default();
        match plan::expand(&node.stage, &context) {
            Err(error) => {
                self.board.stages[stage].gate = Gate::Broken(error.to_string());
                self.agenda.insert(stage);
            }
            Ok(tasks) => {
                self.retire_stand_in(stage, &tasks);
                self.board.stages[stage].gate = Gate::Expanding;
                self.announce(stage, tasks);
            }
        }
        Ok(())
    }

    /// The tasks of a stage have become known: the journal has to hold them before they can be on the board.
    fn announce(&mut self, stage: usize, tasks: Vec<Task>) {
        let is_new = tasks.iter().any(|task| !self.board.recorded.contains_key(&task.key));
        if is_new {
            self.expansions.push_back((stage, tasks));
        } else {
            self.expansions.push_front((stage, tasks));
            self.expanded();
        }
    }

    /// A person has reopened a stage that had ended without its matrix; now that it has one, the stand-in is over.
    fn retire_stand_in(&mut self, stage: usize, tasks: &[Task]) {
        let key = stand_in(&self.board.stages[stage].stage).key;
        if tasks.iter().any(|task| task.key == key) {
            return;
        }
        let Some(state) = self.board.recorded.remove(&key) else { return };
        if state.status == TaskStatus::Pending {
            let reason = format!("the matrix has become known: {} tasks", tasks.len());
            self.outbox.push_back(Entry::new(key, state.attempt, TaskEvent::Skipped { reason }));
        }
    }

    /// The tasks of a stage that have not begun, or wait for a person, end like this.
    pub(super) fn end_all(&mut self, stage: usize, event: &TaskEvent) -> Result<(), IllegalTransition> {
        if !self.board.stages[stage].known {
            let stand_in = stand_in(&self.board.stages[stage].stage);
            self.announce(stage, vec![stand_in]);
            return Ok(());
        }
        for task in self.board.idle(stage) {
            let is_pending = self.board.tasks[task].state.status == TaskStatus::Pending;
            if is_pending || *event == TaskEvent::Cancelled {
                self.emit(task, event.clone())?;
            }
        }
        Ok(())
    }

    pub(super) fn is_expanding(&self, stage: usize) -> bool {
        self.expansions.iter().any(|(place, _)| *place == stage)
    }

    /// Matrices that an earlier run expanded have the same tasks again, whatever happens to their stages now.
    pub(super) fn expand_again(&mut self) {
        let is_cell = |key: &&TaskKey| !key.cell.is_empty();
        let begun: HashSet<StageId> = self.board.recorded.keys().filter(is_cell).map(|key| key.stage.clone()).collect();
        for stage in 0..self.board.stages.len() {
            let node = &self.board.stages[stage];
            let stand_in = stand_in(&node.stage);
            let over = self.board.recorded.get(&stand_in.key).map(|state| &state.status);
            let is_over = matches!(over, Some(TaskStatus::Failed { .. } | TaskStatus::Cancelled));
            if !node.known && is_over && !begun.contains(&node.stage.id) {
                self.board.adopt(stage, &[stand_in]);
                continue;
            }
            let needs_are_met = node.needs.iter().all(|needed| self.board.stages[*needed].has_succeeded());
            // An empty matrix has left no trace, and others may stand on it.
            let may_have_begun = begun.contains(&node.stage.id) || node.stage.phase == Phase::Main;
            if node.known || !needs_are_met || !may_have_begun {
                continue;
            }
            let context = self.context(stage);
            if let Ok(tasks) = plan::expand(&node.stage, &context)
                && tasks.iter().all(|task| self.board.recorded.contains_key(&task.key))
            {
                self.retire_stand_in(stage, &tasks);
                self.board.adopt(stage, &tasks);
            }
        }
    }

    /// What made the main body fail: the first failure in the order of its stages.
    pub(super) fn main_failure(&self) -> Option<(TaskKey, TaskFailure)> {
        first_failure(&self.board, Phase::Main)
    }

    /// How the cycle ended: as its main body did. What goes wrong while it is cleaned up is kept as the reason, and takes
    /// nothing back; one that was cancelled too late to stop anything has completed, for its weights may be out.
    pub(super) fn verdict(&self) -> (CycleStatus, Option<TaskFailure>) {
        let told = |(task, failure): (TaskKey, TaskFailure)| {
            let message = format!("{task}: {}", failure.message);
            TaskFailure { class: failure.class, message }
        };
        if let Some(failure) = self.main_failure() {
            return (CycleStatus::Failed, Some(told(failure)));
        }
        let main = || self.board.stages.iter().filter(|node| node.stage.phase == Phase::Main);
        let cancelled = main().any(|node| node.counts.cancelled > 0);
        let status = if cancelled { CycleStatus::Cancelled } else { CycleStatus::Completed };
        (status, first_failure(&self.board, Phase::Finally).map(told))
    }

    /// Why the first task that waits for a person does.
    pub(super) fn paused(&self) -> Option<TaskFailure> {
        let waiting = self.board.stages.iter().filter(|node| node.counts.paused > 0);
        waiting.flat_map(|node| &node.tasks).find_map(|task| {
            let state = &self.board.tasks[*task].state;
            let TaskStatus::Paused { failure } = &state.status else { return None };
            let message = format!("{}: {}", state.key, failure.message);
            Some(TaskFailure { class: failure.class, message })
        })
    }

    /// Whether the last phase is over.
    pub(super) fn is_over(&self) -> bool {
        PHASES.iter().all(|phase| self.board.is_over(*phase))
    }
}

fn first_failure(board: &Board, phase: Phase) -> Option<(TaskKey, TaskFailure)> {
    let failed = board.stages.iter().filter(|node| node.stage.phase == phase && node.counts.failed > 0);
    failed.flat_map(|node| &node.tasks).find_map(|task| {
        let state = &board.tasks[*task].state;
        let TaskStatus::Failed { failure } = &state.status else { return None };
        Some((state.key.clone(), failure.clone()))
    })
}
