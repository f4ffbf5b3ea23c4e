//! The workers of a server: started together, each started again when it dies, as long as that helps.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::rollout::protocol::{Open, Opened};

use super::{
    frame::{OpenAnswer, Refusal, Request},
    slots::Slots,
    spawner::Spawner,
    worker::{CallError, Fate, Part, Worker, worker},
};

/// A worker that dies sooner than this did not help.
const WORTHWHILE: Duration = Duration::from_secs(60);

/// Starts in a row that did not help, after which a worker is given up.
const STARTS: u32 = 5;

/// Why the workers could not be started, in words for an operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the simulator's worker refused ({kind}): {message}")]
    Refused { kind: String, message: String },
    #[error("the simulator's worker did not start: {0}")]
    Died(String),
}

/// Workers that run.
#[derive(Debug)]
pub(super) struct Fleet {
    /// What they were opened with.
    pub(super) open: Open,
    /// What they said.
    pub(super) opened: Opened,
    /// Their places.
    pub(super) slots: Arc<Slots>,
    keepers: TaskTracker,
    stop: CancellationToken,
}

/// What it takes to start a worker.
#[derive(Debug, Clone)]
struct Recipe {
    spawner: Spawner,
    open: Open,
    /// Longest silence of a worker that owes an answer.
    patience: Duration,
}

impl Fleet {
    /// Start all workers and wait until each has opened its environments.
    pub(super) async fn open(spawner: Spawner, open: Open, patience: Duration) -> Result<Self, OpenError> {
        let recipe = Recipe { spawner, open: open.clone(), patience };
        let starts = (0..open.workers.max(1)).map(|_| recipe.start());
        let started = futures::future::try_join_all(starts).await?;
        let slots = Slots::new(open.workers.max(1), open.slots_per_worker.max(1));
        let (keepers, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut opened = None;
        for (seat, start) in started.into_iter().enumerate() {
            opened.get_or_insert_with(|| start.opened.clone());
            let keeper = Keeper { seat, recipe: recipe.clone(), slots: slots.clone() };
            let stop = stop.clone();
            keepers.spawn(async move { stop.run_until_cancelled_owned(keeper.run(start)).await });
        }
        keepers.close();
        let opened = opened.ok_or_else(|| OpenError::Died("there is none".to_owned()))?;
        Ok(Self { open, opened, slots, keepers, stop })
    }

    /// End all workers.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.keepers.wait().await;
    }
}

/// A worker that has opened its environments. Its process ends with this.
struct Started {
    worker: Worker,
    life: Pin<Box<dyn Future<Output = Fate> + Send>>,
    opened: Opened,
}

impl Recipe {
    async fn start(&self) -> Result<Started, OpenError> {
        let child = self.spawner.spawn().await.map_err(|error| OpenError::Died(error.to_string()))?;
        let (worker, life) = worker(child, self.patience);
        let mut life: Pin<Box<dyn Future<Output = Fate> + Send>> = Box::pin(life.run());
        let request = Request::Open { simulations: &self.open.simulations };
        let answer = tokio::select! {
            answer = worker.call::<OpenAnswer>(&request) => answer,
            fate = &mut life => Err(CallError::Gone(fate, Part::Culprit)),
        };
        match answer {
            Ok(answer) => Ok(Started { worker, life, opened: answer.into() }),
            Err(CallError::Refused(Refusal { kind, message })) => Err(OpenError::Refused { kind, message }),
            Err(CallError::Gone(Fate::Died(how) | Fate::OutOfMemory(how), _)) => Err(OpenError::Died(how)),
            Err(CallError::Gone(Fate::Hung | Fate::Starved | Fate::Dismissed, _)) => {
                Err(OpenError::Died("it did not answer in time".to_owned()))
            }
        }
    }
}

/// Keeps one seat filled.
struct Keeper {
    seat: usize,
    recipe: Recipe,
    slots: Arc<Slots>,
}

impl Keeper {
    /// Run the worker; when it is gone, start another, until that has not helped too often.
    async fn run(self, first: Started) {
        let mut started = first;
        let mut vain = 0;
        loop {
            let since = Instant::now();
            let Started { worker, life, opened: _ } = started;
            self.slots.fill(self.seat, worker);
            let fate = life.await;
            self.slots.clear(self.seat);
            tracing::error!(worker = self.seat, "a simulator's worker is gone: {}", fate.describe());
            vain = if since.elapsed() < WORTHWHILE { vain + 1 } else { 0 };
            started = loop {
                if vain >= STARTS {
                    tracing::error!(worker = self.seat, "the worker is given up after {STARTS} starts");
                    self.slots.give_up(self.seat);
                    return;
                }
                match self.recipe.start().await {
                    Ok(started) => break started,
                    Err(error) => {
                        tracing::error!(worker = self.seat, "{error}");
                        vain += 1;
                    }
                }
            };
        }
    }
}
