//! One cycle with everything that may happen to it, as its seed wills.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::FutureExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Met,
    cases::{Case, output},
    checks::Mirror,
};
use crate::cycle::{
    Appended, CycleId, CycleRecord, CycleStatus, Entry, Episode, EpisodeKey, EpisodeReport, FailureClass, InfraFault,
    Journal, JournalError, Lease, MemoryJournal, Outcome, PendingEpisode, PoolClaim, Role, TaskEvent, TaskFailure,
    TaskKey, TaskStatus,
};
use crate::engine::{
    attempt::Attempt,
    context::CycleFacts,
    dispatcher::{Dispatcher, Step},
};

/// Steps after which the world turns kind, so that every cycle can end.
const UNREST: usize = 150;
/// Episodes of every task.
const EPISODES: u32 = 3;
/// Steps after which a cycle that has not ended never will.
const TOO_LONG: usize = 4000;

/// An attempt in flight.
struct Flight {
    attempt: Attempt,
    left: Vec<PendingEpisode>,
}

pub(super) struct World {
    pub(super) met: Met,
    random: StdRng,
    case: Case,
    journal: MemoryJournal,
    cycle: CycleId,
    lease: Lease,
    dispatcher: Dispatcher,
    now: Duration,
    flights: Vec<Flight>,
    /// Attempts of owners that are gone, who do not know it.
    zombies: Vec<(Lease, Flight)>,
    mirror: Mirror,
    counted: BTreeMap<EpisodeKey, usize>,
    /// Another cycle, with the tasks by which it takes places in the pools.
    rival: (Lease, HashMap<&'static str, (TaskKey, u32, bool)>),
    step: usize,
    reopened: usize,
}

/// The journal in memory answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn create(journal: &MemoryJournal, definition: serde_json::Value, tasks: Vec<TaskKey>) -> CycleId {
    let record = CycleRecord::new(definition, "11".repeat(32).parse().unwrap());
    let cycle = record.id;
    journal.create(record, tasks);
    cycle
}

fn dispatcher(case: &Case, journal: &MemoryJournal, cycle: CycleId) -> Dispatcher {
    let record = now(journal.load(cycle)).unwrap();
    let facts = CycleFacts { id: cycle };
    let mut dispatcher = Dispatcher::new(&case.definition, &facts, record.tasks, case.parallelism).unwrap();
    if record.cancel_requested {
        dispatcher.cancel();
    }
    dispatcher
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let case = Case::random(&mut random);
        let journal = MemoryJournal::new();
        let tasks: Vec<TaskKey> =
            case.definition.stages.iter().flat_map(|stage| stage.tasks.iter().map(|task| task.key.clone())).collect();
        let mut mirror = Mirror::default();
        tasks.iter().for_each(|key| mirror.add(key));
        let cycle = create(&journal, case.definition.to_json(), tasks);
        let rival_task =
            |name: &'static str| (name, (TaskKey { stage: name.parse().unwrap(), cell: String::new() }, 0, false));
        let rivals = HashMap::from([rival_task("one"), rival_task("two")]);
        let rival = create(&journal, serde_json::Value::Null, rivals.values().map(|it| it.0.clone()).collect());
        Self {
            met: Met::default(),
            lease: now(journal.acquire(cycle)).unwrap(),
            dispatcher: dispatcher(&case, &journal, cycle),
            rival: (now(journal.acquire(rival)).unwrap(), rivals),
            now: Duration::ZERO,
            flights: vec![],
            zombies: vec![],
            counted: BTreeMap::new(),
            step: 0,
            reopened: 0,
            mirror,
            random,
            case,
            journal,
            cycle,
        }
    }

    pub(super) fn journal_lines(&self) -> Vec<String> {
        self.mirror.lines.clone()
    }

    /// The journal that a seed comes to.
    pub(super) fn journal_of(seed: u64) -> String {
        let mut world = Self::new(seed);
        world.play();
        world.journal_lines().join("\n")
    }

    /// Play the cycle to its last end.
    pub(super) fn play(&mut self) {
        loop {
            self.step += 1;
            assert!(self.step < TOO_LONG, "the cycle does not end");
            if self.step > UNREST {
                (self.case.failures, self.case.mischief) = (0.0, 0.0);
            }
            match self.dispatcher.next(self.now).unwrap() {
                Step::Record(entries) => self.record(&entries),
                Step::Expand(tasks) => self.expand(&tasks),
                Step::Wait(alarm) => self.wait(alarm),
                Step::Pause(_) => self.pause(),
                Step::End(status, _) => {
                    if self.end(status) {
                        return;
                    }
                }
            }
        }
    }

    fn happens(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    fn record(&mut self, entries: &[Entry]) {
        Mirror::batch(entries);
        for entry in entries {
            let runs = self.flights.iter().any(|flight| flight.attempt.task == entry.task);
            assert!(!runs, "{} is said to be {} while it runs", entry.task, entry.event.word());
        }
        if self.happens(self.case.mischief) {
            return self.crash();
        }
        if self.happens(self.case.mischief / 2.0) {
            return self.rob(entries);
        }
        let answers = now(self.journal.append_all(&self.lease, entries)).unwrap();
        assert_eq!(answers.len(), entries.len());
        for (entry, answer) in entries.iter().zip(&answers) {
            match answer {
                Appended::Recorded => self.mirror.take(&self.case, entry),
                Appended::Full => self.met.full_pools += 1,
                Appended::AlreadyRecorded => panic!("{entry:?} was written before"),
            }
            self.met.retries += usize::from(matches!(entry.event, TaskEvent::Retried { .. }));
            let stage = self.case.definition.stage(&entry.task.stage).unwrap();
            let sibling = entry.event == TaskEvent::Cancelled && !self.mirror.cancelled;
            self.met.stopped_by_a_sibling += usize::from(sibling);
            let unbegun =
                matches!(&entry.event, TaskEvent::Failed { failure } if failure.message.contains("queue_timeout"));
            self.met.queue_timeouts += usize::from(unbegun);
            let alarm = stage.phase == crate::plan::Phase::OnFailure && entry.event == TaskEvent::Started;
            self.met.on_failure_runs += usize::from(alarm);
        }
        // The journal holds the batch and its owner never hears of it.
        if self.happens(self.case.mischief) {
            return self.crash();
        }
        for (entry, answer) in entries.iter().zip(answers) {
            if let Some(attempt) = self.dispatcher.recorded(entry, answer, self.now) {
                self.take_off(attempt);
            }
        }
        self.check_limits();
    }

    fn take_off(&mut self, attempt: Attempt) {
        let environment = format!("simulated/t{}", hex::encode(attempt.task.to_string())).parse().unwrap();
        let key = |seed_index| EpisodeKey {
            environment: Clone::clone(&environment),
            seed_index,
            hotkey: "one".parse().unwrap(),
        };
        let keys: Vec<EpisodeKey> = (0..EPISODES).map(key).collect();
        now(self.journal.plan_episodes(&self.lease, &attempt.task, &keys)).unwrap();
        let left = now(self.journal.pending_episodes(self.cycle, &attempt.task)).unwrap();
        self.flights.push(Flight { attempt, left });
    }

    fn check_limits(&self) {
        assert!(self.flights.len() <= self.case.parallelism, "too many attempts");
        for stage in &self.case.definition.stages {
            let running = self.flights.iter().filter(|flight| flight.attempt.stage.id == stage.id).count();
            assert!(stage.max_parallel.is_none_or(|most| running <= most as usize), "too many of `{}`", stage.id);
        }
        for (pool, limit) in &self.case.definition.pools {
            let ours = self.flights.iter().filter(|flight| flight.attempt.stage.pool.as_ref() == Some(pool)).count();
            let theirs = usize::from(self.rival.1[pool.as_str()].2);
            assert!(ours + theirs <= *limit as usize, "too many in pool `{pool}`: {ours} and {theirs}");
        }
    }

    fn expand(&mut self, tasks: &[TaskKey]) {
        if self.happens(self.case.mischief) {
            return self.crash();
        }
        now(self.journal.expand(&self.lease, tasks)).unwrap();
        tasks.iter().for_each(|key| self.mirror.add(key));
        self.met.expansions += 1;
        assert!(!tasks.is_empty(), "there is nothing to write down");
        if self.happens(self.case.mischief) {
            return self.crash();
        }
        self.dispatcher.expanded();
    }

    /// Nothing is to be done: let the world do something.
    fn wait(&mut self, alarm: Option<Duration>) {
        self.let_the_rival_move();
        self.let_zombies_write();
        if self.happens(self.case.mischief / 4.0) {
            self.journal.request_cancel(self.cycle);
            self.dispatcher.cancel();
            self.mirror.cancelled = true;
            self.mirror.lines.push("cancel".into());
            self.met.cancels += 1;
        }
        if self.happens(self.case.mischief / 2.0) {
            return self.crash();
        }
        assert!(!self.flights.is_empty() || alarm.is_some(), "nothing will ever happen again");
        match alarm {
            Some(alarm) if self.flights.is_empty() || self.random.random_bool(0.2) => self.now = self.now.max(alarm),
            _ => {
                for _ in 0..self.random.random_range(1..4) {
                    self.now += Duration::from_millis(self.random.random_range(0..200));
                    self.fly();
                }
            }
        }
    }

    /// One attempt gets on a little, or ends.
    fn fly(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.flights.len());
        self.repeat_the_attempt_before(index);
        let is_stopped = self.dispatcher.must_stop(&self.flights[index].attempt.task);
        if !is_stopped
            && !self.happens(self.case.failures / 2.0)
            && let Some(pending) = self.flights[index].left.pop()
        {
            return self.episode(index, pending);
        }
        let flight = self.flights.swap_remove(index);
        let is_enough = flight.attempt.stage.expect.is_met(played(&flight.left), EPISODES as usize);
        let failed = is_stopped || !is_enough || self.happens(self.case.failures);
        self.met.quorums += usize::from(!failed && !flight.left.is_empty());
        let class = match self.random.random_range(0..4) {
            0 => FailureClass::Infra,
            1 => FailureClass::Timeout,
            2 => FailureClass::Config,
            _ => FailureClass::BelowQuorum,
        };
        let failure = TaskFailure { class, message: "as the seed wills".into() };
        let task = (&flight.attempt.task, flight.attempt.number);
        let result = || if failed { Err(failure.clone()) } else { Ok(output(task.0).into()) };
        self.dispatcher.ended(task, result(), self.now).unwrap();
        if self.random.random_bool(0.2) {
            // The same word again, its opposite, and a late one about the attempt before.
            self.dispatcher.ended(task, result(), self.now).unwrap();
            self.dispatcher.ended(task, Err(failure.clone()), self.now).unwrap();
            self.dispatcher.ended((task.0, task.1 - 1), Ok(output(task.0).into()), self.now).unwrap();
            self.met.repeated_words += 1;
        }
    }

    /// Word about an attempt that is over comes while the next one runs.
    fn repeat_the_attempt_before(&mut self, flight: usize) {
        let Attempt { task, number, .. } = &self.flights[flight].attempt;
        if *number > 1 && self.random.random_bool(0.2) {
            self.dispatcher.ended((task, number - 1), Ok(output(task).into()), self.now).unwrap();
            self.met.repeated_words += 1;
        }
    }

    fn episode(&mut self, flight: usize, pending: PendingEpisode) {
        let outcome = match self.random.random_range(0..10) {
            0 if self.case.failures > 0.0 => Outcome::InfraFault(InfraFault::ServerLost),
            1..5 => Outcome::Failure,
            _ => Outcome::Success,
        };
        let episode = episode(&pending, outcome);
        let answer = now(self.journal.record_episode(&self.lease, &episode)).unwrap();
        assert_eq!(answer, Appended::Recorded, "{episode:?}");
        if outcome.is_scored() {
            *self.counted.entry(pending.key).or_default() += 1;
            self.met.episodes += 1;
            let again = now(self.journal.record_episode(&self.lease, &episode)).unwrap();
            assert_eq!(again, Appended::AlreadyRecorded);
        } else {
            self.flights[flight].left.push(PendingEpisode { attempt: pending.attempt + 1, ..pending });
        }
    }

    /// The owner dies. Somebody takes the cycle up again.
    fn crash(&mut self) {
        self.met.crashes += 1;
        self.mirror.lines.push("crash".into());
        let lease = self.lease;
        self.zombies.extend(self.flights.drain(..).map(|flight| (lease, flight)));
        self.journal.expire_lease(self.cycle);
        self.take_up();
    }

    fn take_up(&mut self) {
        self.lease = now(self.journal.acquire(self.cycle)).unwrap();
        self.dispatcher = dispatcher(&self.case, &self.journal, self.cycle);
        self.mirror.cancelled = now(self.journal.load(self.cycle)).unwrap().cancel_requested;
    }

    /// The owner sleeps through the loss of its lease, and writes what it has decided.
    fn rob(&mut self, entries: &[Entry]) {
        self.met.robberies += 1;
        let old = self.lease;
        self.crash();
        self.refused(now(self.journal.append_all(&old, entries)));
        self.refused(now(self.journal.expand(&old, &[])));
        self.refused(now(self.journal.finish(&old, CycleStatus::Completed, None)));
        self.refused(now(self.journal.release(&old)));
    }

    fn let_zombies_write(&mut self) {
        for (lease, flight) in std::mem::take(&mut self.zombies) {
            let ended = TaskEvent::Succeeded { output: output(&flight.attempt.task) };
            let entry = Entry::new(flight.attempt.task.clone(), flight.attempt.number, ended);
            self.refused(now(self.journal.append(&lease, &entry)));
            if let Some(pending) = flight.left.first() {
                self.refused(now(self.journal.record_episode(&lease, &episode(pending, Outcome::Failure))));
            }
        }
    }

    fn refused<T: std::fmt::Debug>(&mut self, result: Result<T, JournalError>) {
        assert!(matches!(result, Err(JournalError::LeaseLost(_))), "a write after the lease was lost: {result:?}");
        self.met.refused_writes += 1;
    }

    /// The rival takes or leaves a place in a pool.
    fn let_the_rival_move(&mut self) {
        let name = if self.random.random_bool(0.5) { "one" } else { "two" };
        let limit = self.case.definition.pools[name];
        let calm = self.step > UNREST;
        let (lease, tasks) = &mut self.rival;
        let (key, attempt, holds) = tasks.get_mut(name).unwrap();
        if *holds {
            let left = Entry::new(key.clone(), *attempt, TaskEvent::Lost);
            assert_eq!(now(self.journal.append(lease, &left)).unwrap(), Appended::Recorded);
            *holds = false;
        } else if !calm && self.random.random_bool(0.3) {
            let claim = Some(PoolClaim { name: name.into(), limit });
            let entry = Entry { pool: claim, ..Entry::new(key.clone(), *attempt + 1, TaskEvent::Started) };
            if now(self.journal.append(lease, &entry)).unwrap() == Appended::Recorded {
                (*attempt, *holds) = (*attempt + 1, true);
            }
        }
    }

    /// The cycle waits for a person, who lets it go on or gives it up.
    fn pause(&mut self) {
        assert!(self.flights.is_empty(), "a paused cycle runs");
        self.met.pauses += 1;
        now(self.journal.pause(&self.lease)).unwrap();
        let record = now(self.journal.load(self.cycle)).unwrap();
        assert!(record.paused && record.status == CycleStatus::Open);
        if self.happens(0.7) {
            self.met.resumes += 1;
            let paused = record.tasks.iter().filter(|state| matches!(state.status, TaskStatus::Paused { .. }));
            let paused: Vec<TaskKey> = paused.map(|state| state.key.clone()).collect();
            assert!(!paused.is_empty(), "nothing is paused");
            self.reopen(&paused);
        } else {
            self.journal.request_cancel(self.cycle);
        }
        self.take_up();
    }

    fn reopen(&mut self, tasks: &[TaskKey]) {
        now(self.journal.reopen(self.cycle, tasks)).unwrap();
        let record = now(self.journal.load(self.cycle)).unwrap();
        for state in record.tasks.iter().filter(|state| tasks.contains(&state.key)) {
            assert_eq!((&state.status, state.failed_attempts), (&TaskStatus::Pending, 0), "{}", state.key);
            self.mirror.lines.push(format!("  {} reopened", state.key));
            self.mirror.states.insert(state.key.clone(), state.clone());
        }
    }

    /// The cycle ends; whether a person leaves it at that.
    fn end(&mut self, status: CycleStatus) -> bool {
        assert!(self.flights.is_empty(), "attempts outlive the cycle");
        self.mirror.lines.push(format!("ended: {}", status.word()));
        self.mirror.end(&self.case, status);
        self.met.empty_matrices += self.mirror.empty_matrices(&self.case);
        let ended = now(self.journal.finish(&self.lease, status, None)).unwrap();
        let asked = now(self.journal.load(self.cycle)).unwrap().cancel_requested;
        let expected = if asked && status == CycleStatus::Completed { CycleStatus::Cancelled } else { status };
        assert_eq!(ended, expected, "a wish to stop is heard until the end");
        self.let_zombies_write();
        let scored = now(self.journal.scored_episodes(self.cycle)).unwrap();
        assert!(self.counted.values().all(|times| *times == 1), "an episode counts twice: {:?}", self.counted);
        assert_eq!(scored.len(), self.counted.len(), "an episode was lost");
        let record = now(self.journal.load(self.cycle)).unwrap();
        for state in record.tasks.iter().filter(|state| matches!(state.status, TaskStatus::Succeeded { .. })) {
            let left = now(self.journal.pending_episodes(self.cycle, &state.key)).unwrap();
            let stage = self.case.definition.stage(&state.key.stage).unwrap();
            assert!(
                stage.expect.is_met(played(&left), EPISODES as usize),
                "{} succeeded without {left:?}, though {:?}",
                state.key,
                stage.expect
            );
        }
        assert_eq!(record.tasks.len(), self.mirror.states.len());
        assert!(
            record.tasks.iter().all(|state| self.mirror.states[&state.key] == *state),
            "the journal says otherwise"
        );
        if status == CycleStatus::Completed || self.reopened == 2 || self.happens(0.6) {
            return true;
        }
        self.reopened += 1;
        self.met.reopenings += 1;
        let is_cleanup = |key: &TaskKey| Role::of(&record.definition, &key.stage) == Role::Cleanup;
        let open = record.tasks.iter().filter(|state| state.status.lacks_success() || is_cleanup(&state.key));
        let open: Vec<TaskKey> = open.map(|state| state.key.clone()).collect();
        self.reopen(&open);
        self.take_up();
        false
    }
}

/// How many episodes of a task are scored, when these are left.
fn played(left: &[PendingEpisode]) -> usize {
    EPISODES as usize - left.len()
}

fn episode(pending: &PendingEpisode, outcome: Outcome) -> Episode {
    let report = EpisodeReport {
        outcome,
        detail: None,
        steps: 1,
        total_reward: 0.0,
        score: None,
        actions: None,
        trajectory_hash: None,
        latency: None,
        wall_ms: 1.0,
    };
    Episode { key: pending.key.clone(), attempt: pending.attempt + 1, report }
}
