//! The rules that no cycle may break, whatever happens to it. They watch the lines that the journal takes and share no code with
//! the dispatcher.

use std::collections::{HashMap, HashSet};

use super::cases::{Case, cells_of};
use crate::cycle::{CycleStatus, Entry, FailureClass, TaskEvent, TaskFailure, TaskKey, TaskState, TaskStatus};
use crate::plan::{Phase, Stage};

/// What the journal has taken so far.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) states: HashMap<TaskKey, TaskState>,
    pub(super) lines: Vec<String>,
    /// Somebody has asked the owner to stop, and it knows.
    pub(super) cancelled: bool,
}

impl Mirror {
    pub(super) fn add(&mut self, key: &TaskKey) {
        self.states.entry(key.clone()).or_insert_with(|| TaskState::new(key.clone()));
    }

    /// No task may come twice in one transaction.
    pub(super) fn batch(entries: &[Entry]) {
        let tasks: HashSet<&TaskKey> = entries.iter().map(|entry| &entry.task).collect();
        assert_eq!(tasks.len(), entries.len(), "a task comes twice in a batch: {entries:?}");
        assert!(!entries.is_empty(), "an empty batch");
    }

    /// A line that the journal has taken.
    pub(super) fn take(&mut self, case: &Case, entry: &Entry) {
        self.lines.push(format!("  {} #{} {}", entry.task, entry.attempt, entry.event.word()));
        let stage = case.definition.stage(&entry.task.stage).unwrap();
        let before = self.states.get(&entry.task).unwrap_or_else(|| panic!("{} was never written down", entry.task));
        match &entry.event {
            TaskEvent::Started => self.start(case, stage),
            TaskEvent::Retried { failure } => {
                assert!(stage.retry.on.contains(&failure.class), "{:?} is not retried", failure.class);
                assert!(before.failed_attempts + 1 < stage.retry.max_attempts, "too many attempts of {}", entry.task);
                assert!(!self.is_stopped(stage), "{} tries again in a stage that is over", entry.task);
            }
            TaskEvent::Failed { failure } if before.status == TaskStatus::Running => {
                let is_last = before.failed_attempts + 1 >= stage.retry.max_attempts;
                assert!(is_last || !stage.retry.on.contains(&failure.class), "{} had attempts left", entry.task);
            }
            TaskEvent::Failed { failure } => self.failed_before_it_began(stage, failure),
            TaskEvent::Cancelled => {
                assert!(self.is_stopped(stage), "{} was cancelled for no reason", entry.task);
                assert!(stage.phase != Phase::Finally || stage.fail_fast, "the cleanup was cancelled");
            }
            _ => {}
        }
        let next = before.record(entry.attempt, &entry.event).unwrap();
        let is_persons = matches!(entry.event, TaskEvent::Reopened | TaskEvent::Resumed);
        assert!(is_persons || !before.status.is_terminal(), "{} changed after its end", entry.task);
        self.states.insert(entry.task.clone(), next);
    }

    /// What must hold whenever an attempt begins.
    fn start(&self, case: &Case, stage: &Stage) {
        assert!(!self.is_stopped(stage), "an attempt of `{}` begins after the stage was stopped", stage.id);
        for needed in &stage.depends_on {
            let needed = case.definition.stage(needed).unwrap();
            let expected = self.expected(case, needed);
            let succeeded = self.count(needed, |status| matches!(status, TaskStatus::Succeeded { .. }));
            assert_eq!(succeeded, expected, "`{}` begins before `{}` is complete", stage.id, needed.id);
        }
        for other in &case.definition.stages {
            let is_earlier = phase_rank(other.phase) < phase_rank(stage.phase);
            let open = self.count(other, |status| !status.is_terminal());
            assert!(!is_earlier || open == 0, "`{}` begins before `{}` is over", stage.id, other.id);
        }
        assert!(stage.phase != Phase::OnFailure || self.main_failed(case), "`{}` without a failure", stage.id);
    }

    fn failed_before_it_began(&self, stage: &Stage, failure: &TaskFailure) {
        match failure.class {
            FailureClass::Timeout => assert!(stage.queue_timeout_ms.is_some(), "`{}` may wait for ever", stage.id),
            class => {
                assert!(class == FailureClass::Config && stage.expansion.is_some(), "{failure:?} of `{}`", stage.id)
            }
        }
    }

    /// How many tasks a stage that is complete has.
    fn expected(&self, case: &Case, stage: &Stage) -> usize {
        if stage.expansion.is_none() {
            return stage.tasks.len();
        }
        let source = stage.expansion.iter().flat_map(|it| it.axes.values()).next().unwrap().to_string();
        let mut stages = case.definition.stages.iter();
        let source = stages.find(|it| source.contains(&format!("stages.{}.", it.id))).unwrap();
        cells_of(&source.tasks[0].key)
    }

    /// Matrices that have turned out to have no cells.
    pub(super) fn empty_matrices(&self, case: &Case) -> usize {
        case.definition.stages.iter().filter(|stage| self.count(stage, |_| true) == 0).count()
    }

    /// Whether nothing of a stage may start any more.
    fn is_stopped(&self, stage: &Stage) -> bool {
        let failed = self.count(stage, |status| matches!(status, TaskStatus::Failed { .. }));
        (self.cancelled && stage.phase != Phase::Finally) || (stage.fail_fast && failed > 0)
    }

    fn main_failed(&self, case: &Case) -> bool {
        self.any_main(case, |status| matches!(status, TaskStatus::Failed { .. }))
    }

    fn any_main(&self, case: &Case, is: impl Fn(&TaskStatus) -> bool) -> bool {
        let mut main = case.definition.stages.iter().filter(|stage| stage.phase == Phase::Main);
        main.any(|stage| self.count(stage, &is) > 0)
    }

    fn count(&self, stage: &Stage, is: impl Fn(&TaskStatus) -> bool) -> usize {
        self.states.values().filter(|state| state.key.stage == stage.id && is(&state.status)).count()
    }

    /// What must hold when the cycle has ended.
    pub(super) fn end(&self, case: &Case, status: CycleStatus) {
        for state in self.states.values() {
            assert!(state.status.is_terminal(), "{} is {} at the end", state.key, state.status.word());
        }
        let cancelled = self.any_main(case, |status| matches!(status, TaskStatus::Cancelled));
        let expected = match (self.main_failed(case), cancelled) {
            (true, _) => CycleStatus::Failed,
            (false, true) => CycleStatus::Cancelled,
            (false, false) => CycleStatus::Completed,
        };
        assert_eq!(status, expected, "the verdict");
        for stage in case.definition.stages.iter().filter(|stage| stage.phase == Phase::Finally) {
            let ran = |status: &TaskStatus| matches!(status, TaskStatus::Succeeded { .. } | TaskStatus::Failed { .. });
            let stopped = self.count(stage, |status| stage.fail_fast && *status == TaskStatus::Cancelled);
            assert_eq!(self.count(stage, ran) + stopped, stage.tasks.len(), "`{}` did not run", stage.id);
        }
        for stage in case.definition.stages.iter().filter(|stage| stage.phase == Phase::OnFailure) {
            let skipped = self.count(stage, |status| matches!(status, TaskStatus::Skipped { .. }));
            assert!(skipped == 0 || !self.main_failed(case), "`{}` was left out", stage.id);
        }
    }
}

fn phase_rank(phase: Phase) -> u8 {
    match phase {
        Phase::Main => 0,
        Phase::OnFailure => 1,
        Phase::Finally => 2,
    }
}
