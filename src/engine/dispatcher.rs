//! Decides what happens next in a cycle. Synchronous and pure: it never waits, writes or starts anything, and the time is
//! what it is told.
//!
//! The loop in `run.rs` asks [`Dispatcher::next`], writes the entries it is given to the journal in one transaction, and then
//! tells of each with [`Dispatcher::recorded`], which says what to run. The board is ahead of the journal by the entries of that
//! one batch and no more; if the journal does not take them, the dispatcher is thrown away. Recovery needs no code of its own:
//! a task that the journal calls running and that is not in flight here was lost with its process, and `next` says so.
//!
//! Nothing here scans all tasks: an event touches its task, its stage's counts, and the stages that wait for it.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::attempt::Attempt;
use super::board::{Board, Flight, Gate, PHASES, rank};
use super::context::{Common, CycleFacts, with_matrix};
use super::gates::Readiness;
use super::limits::{Pools, jitter};
use crate::cycle::{
    Appended, CycleStatus, Entry, FailureClass, IllegalTransition, TaskEvent, TaskFailure, TaskKey, TaskState,
    TaskStatus,
};
use crate::plan::{Definition, GraphError, Phase, Task, Then};
use crate::stage::Output;

/// Entries of one transaction at most.
const BATCH: usize = 1000;

/// The next thing to do.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum Step {
    /// Write these down together, then tell of each. No task comes twice.
    Record(Vec<Entry>),
    /// Write down that a stage has these tasks, then tell of it.
    Expand(Vec<TaskKey>),
    /// Nothing until an attempt ends, or this time has come.
    Wait(Option<Duration>),
    /// Only a person can get the cycle on.
    Pause(TaskFailure),
    /// The cycle has ended. The failure is what made it fail, or else what went wrong in its cleanup.
    End(CycleStatus, Option<TaskFailure>),
}

/// The state of a cycle's tasks in memory, never ahead of the journal but for one batch.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) board: Board,
    pub(super) common: Common,
    pools: Pools,
    parallelism: usize,
    cancelled: bool,
    phase: usize,
    /// Decided and not handed out yet.
    pub(super) outbox: VecDeque<Entry>,
    /// Stages to look at.
    pub(super) agenda: BTreeSet<usize>,
    /// Stages with ready tasks.
    eager: BTreeSet<usize>,
    /// Matrices that have become known: the stage with its tasks.
    pub(super) expansions: VecDeque<(usize, Vec<Task>)>,
    /// Waits before another attempt.
    due: BTreeSet<(Duration, usize)>,
    /// When ready tasks have waited too long.
    deadlines: BTreeSet<(Duration, usize)>,
}

impl Dispatcher {
    /// A dispatcher that goes on where `tasks` stand.
    ///
    /// # Errors
    /// [`GraphError`] when the stages of the definition do not form a graph without circles.
    pub(super) fn new(
        definition: &Definition,
        facts: &CycleFacts,
        tasks: Vec<TaskState>,
        parallelism: usize,
    ) -> Result<Self, GraphError> {
        let board = Board::new(definition, tasks)?;
        let mut dispatcher = Self {
            common: Common::new(definition, facts),
            pools: Pools::new(&definition.pools),
            parallelism: parallelism.max(1),
            cancelled: false,
            phase: 0,
            outbox: VecDeque::new(),
            agenda: (0..board.stages.len()).collect(),
            eager: BTreeSet::new(),
            expansions: VecDeque::new(),
            due: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            board,
        };
        dispatcher.expand_again();
        Ok(dispatcher)
    }

    /// The next thing to do, given where everything stands at `now`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when a decision does not fit the state: a bug.
    pub(super) fn next(&mut self, now: Duration) -> Result<Step, IllegalTransition> {
        for task in std::mem::take(&mut self.board.lost) {
            self.emit(task, TaskEvent::Lost)?;
        }
        self.wake(now)?;
        loop {
            while let Some(stage) = self.agenda.pop_first() {
                self.settle(stage, now)?;
            }
            if self.phase + 1 >= PHASES.len() || !self.board.is_over(PHASES[self.phase]) {
                break;
            }
            self.phase += 1;
            let begins = PHASES[self.phase];
            self.agenda.extend((0..self.board.stages.len()).filter(|it| self.board.stages[*it].stage.phase == begins));
        }
        self.start()?;
        Ok(self.step())
    }

    fn step(&mut self) -> Step {
        let mut batch: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(entry) = self.outbox.front()
            && batch.len() < BATCH
            && seen.insert(entry.task.clone())
        {
            batch.extend(self.outbox.pop_front());
        }
        if !batch.is_empty() {
            return Step::Record(batch);
        }
        if let Some((_, tasks)) = self.expansions.front() {
            return Step::Expand(tasks.iter().map(|task| task.key.clone()).collect());
        }
        if self.is_over() {
            let (status, failure) = self.verdict();
            return Step::End(status, failure);
        }
        match (self.board.in_flight, self.alarm(), self.paused()) {
            (0, None, Some(failure)) => Step::Pause(failure),
            (_, alarm, _) => Step::Wait(alarm),
        }
    }

    /// An attempt has ended. Word about one that is over already, or of another process, changes nothing.
    ///
    /// # Errors
    /// [`IllegalTransition`]: a bug.
    pub(super) fn ended(
        &mut self,
        attempt: (&TaskKey, u32),
        result: Result<Output, TaskFailure>,
        now: Duration,
    ) -> Result<(), IllegalTransition> {
        let Some(task) = self.board.place(attempt.0) else { return Ok(()) };
        let node = &self.board.tasks[task];
        if !node.in_flight || node.state.attempt != attempt.1 {
            return Ok(());
        }
        let stage = Arc::clone(&self.board.stages[node.stage].stage);
        let (failed, is_stopped) = (node.state.failed_attempts + 1, self.is_stopped(node.stage));
        let (mut publication, mut discovery) = (None, None);
        let event = match result {
            Ok(output) => {
                (publication, discovery) = (output.publication, output.discovery);
                TaskEvent::Succeeded { output: output.value }
            }
            Err(_) if is_stopped => TaskEvent::Cancelled,
            Err(failure) if stage.retry.on.contains(&failure.class) && failed < stage.retry.max_attempts => {
                let wait = stage.retry.wait(failed, jitter(attempt.0, attempt.1));
                self.due.insert((now + wait, task));
                TaskEvent::Retried { failure }
            }
            Err(failure) if stage.retry.then == Then::Pause => TaskEvent::Paused { failure },
            Err(failure) => TaskEvent::Failed { failure },
        };
        self.pools.leave(stage.pool.as_deref());
        self.emit(task, event)?;
        if let Some(entry) = self.outbox.back_mut() {
            entry.publication = publication;
            entry.discovery = discovery;
        }
        Ok(())
    }

    /// The journal has answered for an entry of the last batch; the attempt that is to run now, if it was a start.
    pub(super) fn recorded(&mut self, entry: &Entry, answer: Appended, now: Duration) -> Option<Attempt> {
        let (task, TaskEvent::Started) = (self.board.place(&entry.task)?, &entry.event) else { return None };
        let place = self.board.tasks[task].stage;
        let stage = Arc::clone(&self.board.stages[place].stage);
        if answer == Appended::Full {
            let attempt = entry.attempt - 1;
            let before = TaskState { attempt, status: TaskStatus::Pending, ..self.board.tasks[task].state.clone() };
            self.board.set(task, before);
            self.board.set_in_flight(task, Flight::Ends);
            self.pools.refused(stage.pool.as_deref(), now);
            self.requeue(task, now);
            return None;
        }
        let context = self.board.stages[place].context.as_deref().unwrap_or(&Value::Null);
        let context = with_matrix(context, &self.board.tasks[task].matrix);
        Some(Attempt { task: entry.task.clone(), number: entry.attempt, stage, context })
    }

    /// The journal holds the tasks of the last [`Step::Expand`].
    pub(super) fn expanded(&mut self) {
        let Some((stage, tasks)) = self.expansions.pop_front() else { return };
        self.board.adopt(stage, &tasks);
        if self.board.stages[stage].gate == Gate::Expanding {
            self.board.stages[stage].gate = Gate::Shut;
        }
        self.agenda.insert(stage);
        self.agenda.extend(self.board.stages[stage].feeds.iter().copied());
    }

    /// The cycle is to stop: nothing more of it starts but `finally`.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        self.agenda.extend(0..self.board.stages.len());
    }

    /// Whether an attempt that runs must be stopped.
    pub(super) fn must_stop(&self, task: &TaskKey) -> bool {
        self.board.place(task).is_some_and(|task| self.is_stopped(self.board.tasks[task].stage))
    }

    /// Whether tasks of a stage that have not ended must end without running.
    fn is_stopped(&self, stage: usize) -> bool {
        let node = &self.board.stages[stage];
        let cancelled = self.cancelled && node.stage.phase != Phase::Finally;
        cancelled || (node.stage.fail_fast && node.counts.failed > 0)
    }

    /// Decide an event: the board takes it at once, the journal in the next batch.
    pub(super) fn emit(&mut self, task: usize, event: TaskEvent) -> Result<(), IllegalTransition> {
        let node = &self.board.tasks[task];
        let stage = node.stage;
        let attempt = node.state.attempt + u32::from(event == TaskEvent::Started);
        let next = node.state.record(attempt, &event)?;
        self.outbox.push_back(Entry::new(next.key.clone(), attempt, event));
        self.dequeue(task);
        let flight = if next.status == TaskStatus::Running { Flight::Begins } else { Flight::Ends };
        self.board.set_in_flight(task, flight);
        if self.board.set(task, next) {
            self.agenda.extend(self.board.stages[stage].feeds.iter().copied());
        }
        let node = &self.board.stages[stage];
        if node.gate != Gate::Open || self.is_stopped(stage) {
            self.agenda.insert(stage);
        }
        Ok(())
    }

    /// A task waits for its turn from now on.
    pub(super) fn requeue(&mut self, task: usize, now: Duration) {
        let stage = self.board.tasks[task].stage;
        if self.is_stopped(stage) {
            self.agenda.insert(stage);
            return;
        }
        self.board.stages[stage].ready.insert(task);
        self.eager.insert(stage);
        if let Some(milliseconds) = self.board.stages[stage].stage.queue_timeout_ms {
            let deadline = now + Duration::from_millis(milliseconds);
            self.board.tasks[task].deadline = Some(deadline);
            self.deadlines.insert((deadline, task));
        }
    }

    /// It waits no longer.
    fn dequeue(&mut self, task: usize) {
        let node = &mut self.board.tasks[task];
        if let Some(deadline) = node.deadline.take() {
            self.deadlines.remove(&(deadline, task));
        }
        self.board.stages[node.stage].ready.remove(&task);
    }

    /// Waits that are over: tasks that may try again, and tasks that have waited too long for their turn.
    fn wake(&mut self, now: Duration) -> Result<(), IllegalTransition> {
        self.pools.wake(now);
        while let Some((_, task)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            if self.board.tasks[task].state.status == TaskStatus::Pending {
                self.requeue(task, now);
            }
        }
        while let Some((_, task)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let stage = &self.board.stages[self.board.tasks[task].stage].stage;
            let seconds = stage.queue_timeout_ms.unwrap_or_default() as f64 / 1000.0;
            let message = format!("waited longer for its turn than its queue_timeout of {seconds} s");
            self.emit(task, TaskEvent::Failed { failure: TaskFailure { class: FailureClass::Timeout, message } })?;
        }
        Ok(())
    }

    /// The next time at which something happens by itself.
    fn alarm(&self) -> Option<Duration> {
        let queued = self.eager.iter().flat_map(|stage| self.board.stages[*stage].stage.pool.as_deref());
        let waits = [self.due.first(), self.deadlines.first()].into_iter().flatten().map(|(at, _)| *at);
        waits.chain(self.pools.next_try(queued)).min()
    }

    /// Start what is ready, as far as limits allow.
    fn start(&mut self) -> Result<(), IllegalTransition> {
        for stage in self.eager.clone() {
            let shared = Arc::clone(&self.board.stages[stage].stage);
            let limit = shared.max_parallel.map_or(usize::MAX, |limit| limit.max(1) as usize);
            while self.board.in_flight < self.parallelism
                && self.board.stages[stage].in_flight < limit
                && self.pools.may_enter(shared.pool.as_deref())
                && let Some(task) = self.board.stages[stage].ready.first().copied()
            {
                self.emit(task, TaskEvent::Started)?;
                let claim = self.pools.enter(shared.pool.as_deref());
                if let Some(entry) = self.outbox.back_mut() {
                    entry.pool = claim;
                }
            }
            if self.board.stages[stage].ready.is_empty() {
                self.eager.remove(&stage);
            }
        }
        Ok(())
    }

    /// Take a step with a stage whose neighbours, or whose fate, have changed.
    fn settle(&mut self, stage: usize, now: Duration) -> Result<(), IllegalTransition> {
        let node = &self.board.stages[stage];
        let is_settled = node.is_closed() && node.gate != Gate::Expanding;
        if rank(node.stage.phase) > self.phase || is_settled || self.is_expanding(stage) {
            return Ok(());
        }
        if self.is_stopped(stage) {
            return self.end_all(stage, &TaskEvent::Cancelled);
        }
        match node.gate.clone() {
            Gate::Expanding | Gate::Open => Ok(()),
            Gate::Broken(message) => {
                let failure = TaskFailure { class: FailureClass::Config, message };
                self.end_all(stage, &TaskEvent::Failed { failure })
            }
            Gate::Shut => match self.readiness(stage) {
                Readiness::NotYet => Ok(()),
                Readiness::Never(reason) => self.end_all(stage, &TaskEvent::Skipped { reason }),
                Readiness::Ready => self.open(stage, now),
            },
        }
    }
}
