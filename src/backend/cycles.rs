//! The cycles that this process runs: takes up what nobody runs, as many at a time as it may, and lets go when told to.
//!
//! Who runs a cycle is decided by its lease alone. One that turns out to be somebody else's is left to them; one that could
//! not go on is tried again after a while, here or elsewhere.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Error, Machine, Steering, run_cycle, unreachable};
use crate::cycle::{CycleId, CycleStatus, Entry, JournalError, TaskEvent};
use crate::engine::{self, Control, Ending};
use crate::host::Progress;
use crate::stage::Drain;
use crate::store::Store;

/// The first and the longest rest of a cycle that could not go on.
const RESTS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How often what the dead have left behind is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How much one process does at a time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Cycles.
    pub cycles: usize,
    /// Tasks of each.
    pub tasks: usize,
    /// How long episodes that have begun have to end when it stops.
    pub grace: Duration,
}

pub(super) struct Cycles {
    store: Arc<Store>,
    machine: Machine,
    limits: Limits,
    suspend: CancellationToken,
    drain: Drain,
    runs: JoinSet<Result<Ending, Error>>,
    running: HashMap<Id, CycleId>,
    /// Cycles that could not go on: how often in a row, and when they are tried again.
    resting: HashMap<CycleId, (u32, Instant)>,
    /// When what the dead have left behind is looked for again.
    sweep_at: Instant,
}

impl Cycles {
    pub(super) fn new(store: Arc<Store>, machine: Machine, limits: Limits) -> Self {
        let suspend = CancellationToken::new();
        Self {
            store,
            machine,
            limits,
            suspend,
            drain: Drain::default(),
            runs: JoinSet::new(),
            running: HashMap::new(),
            resting: HashMap::new(),
            sweep_at: Instant::now(),
        }
    }

    /// End what cycles of this machine have left behind; then take up open cycles that nobody runs, while there is room.
    pub(super) async fn round(&mut self) {
        if self.sweep_at <= Instant::now() {
            self.sweep_at = Instant::now() + SWEEP;
            if let Err(error) = self.store.reap().await {
                unreachable("what cycles have left running could not be looked for", error);
            }
        }
        if self.running.len() >= self.limits.cycles {
            return;
        }
        let idle = match self.store.idle_cycles().await {
            Ok(idle) => idle,
            Err(error) => return unreachable("open cycles could not be looked for", error),
        };
        self.resting.retain(|cycle, _| idle.contains(cycle));
        for cycle in idle {
            if self.running.len() >= self.limits.cycles {
                return;
            }
            let rests = self.resting.get(&cycle).is_some_and(|(_, until)| Instant::now() < *until);
            if !rests && !self.running.values().any(|running| *running == cycle) {
                self.start(cycle);
            }
        }
    }

    /// Wait until a cycle that runs here has stopped; for ever when none does.
    pub(super) async fn ended(&mut self) {
        match self.runs.join_next_with_id().await {
            None => std::future::pending().await,
            Some(ran) => self.note(ran),
        }
    }

    /// Let episodes that have begun end, within the grace; then stop every cycle where it is, and wait until all have
    /// given their leases back.
    pub(super) async fn suspend(&mut self) {
        let grace = self.limits.grace;
        if !self.running.is_empty() && !grace.is_zero() {
            info!("episodes that have begun have {} s to end; none begins any more", grace.as_secs());
            match timeout(grace, self.drain.drained()).await {
                Ok(()) => info!("every episode that had begun has ended"),
                Err(_) => warn!("episodes were still playing after {} s: they are played again", grace.as_secs()),
            }
        }
        self.suspend.cancel();
        while let Some(ran) = self.runs.join_next_with_id().await {
            self.note(ran);
        }
    }

    fn start(&mut self, cycle: CycleId) {
        info!(cycle = %cycle, "cycle {cycle} is taken up");
        let steering = self.steering();
        let (store, machine) = (Arc::clone(&self.store), self.machine.clone());
        let run = self.runs.spawn(async move { run_cycle(&store, &store, &machine, (cycle, steering)).await });
        self.running.insert(run.id(), cycle);
    }

    fn steering(&self) -> Steering {
        let observer = move |entry: &Entry| match &entry.event {
            TaskEvent::Retried { failure } | TaskEvent::Failed { failure } => {
                warn!("`{}` failed: {failure}", entry.task);
            }
            TaskEvent::Paused { failure } => {
                warn!("`{}` failed and waits for a person (`robo cycle resume`): {failure}", entry.task);
            }
            event => debug!("`{}`: {}", entry.task, event.word()),
        };
        Steering {
            control: Control {
                suspend: self.suspend.child_token(),
                observer: Arc::new(observer),
                parallelism: self.limits.tasks,
            },
            drain: self.drain.clone(),
            watcher: Arc::new(|_| {}),
            progress: Progress::new(move |text| info!("{text}")),
        }
    }

    fn note(&mut self, ran: Result<(Id, Result<Ending, Error>), JoinError>) {
        let (id, ending) = match ran {
            Ok((id, ending)) => (id, Ok(ending)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(cycle) = self.running.remove(&id) else { return };
        match ending {
            Ok(ending) => self.conclude(cycle, ending),
            Err(error) => {
                // Its lease runs out, and whoever takes it up then goes on where the journal stands.
                error!(cycle = %cycle, "the run of cycle {cycle} crashed: {error}");
                self.rest(cycle);
            }
        }
    }

    fn conclude(&mut self, cycle: CycleId, ending: Result<Ending, Error>) {
        match ending {
            Ok(Ending::Ended(status, failure)) => {
                let reason = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
                let text = format!("cycle {cycle} ended as {}{reason}", status.word());
                match status {
                    CycleStatus::Failed => error!(cycle = %cycle, "{text}"),
                    _ => info!(cycle = %cycle, "{text}"),
                }
                self.resting.remove(&cycle);
            }
            Ok(ending) => {
                info!(cycle = %cycle, "cycle {cycle} stopped where it is: {ending:?}");
                self.rest(cycle);
            }
            Err(Error::Engine(engine::Error::Journal(
                problem @ (JournalError::Leased(..) | JournalError::LeaseLost(_) | JournalError::Waits(..)),
            ))) => {
                info!(cycle = %cycle, "cycle {cycle} is left alone: {problem}");
                self.rest(cycle);
            }
            Err(problem) => {
                error!(cycle = %cycle, "cycle {cycle} cannot go on: {:#}", anyhow::Error::from(problem));
                self.rest(cycle);
            }
        }
    }

    fn rest(&mut self, cycle: CycleId) {
        let times = self.resting.get(&cycle).map_or(0, |(times, _)| *times);
        let rest = RESTS.0.saturating_mul(1 << times.min(10)).min(RESTS.1);
        self.resting.insert(cycle, (times + 1, Instant::now() + rest));
    }
}
