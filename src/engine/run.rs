//! Runs one cycle: performs what the dispatcher decides, journal first.
//!
//! Every attempt is a task of one `JoinSet` that this function owns; none outlives it. It knows nothing of stages: how an
//! attempt is run is the caller's function.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::attempt::{Attempt, timed_out};
use super::dispatcher::{CycleFacts, Dispatcher, Effect, Step};
use crate::cycle::{
    CycleId, CycleRecord, CycleStatus, Entry, FailureClass, Journal, JournalError, Lease, TaskEvent, TaskFailure,
    TaskKey,
};
use crate::plan::{BuildError, Definition, GraphError, Phase};
use crate::stage::{self, Output};

/// A third of the lease's length, so that two heartbeats may fail before it is lost.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How the caller steers a running cycle and hears of it.
#[derive(Clone)]
pub struct Control {
    /// Cancelled: stop at once, leave the cycle open to be resumed.
    pub suspend: CancellationToken,
    /// Called with every entry the journal has taken.
    pub observer: Arc<dyn Fn(&Entry) + Send + Sync>,
    /// Tasks in flight at a time.
    pub parallelism: usize,
}

/// How a run of a cycle ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The cycle has ended.
    Ended(CycleStatus, Option<TaskFailure>),
    /// It was suspended and can be resumed.
    Suspended,
}

/// Why a cycle could not be run on. It stays open and can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal refused or failed.
    #[error("the cycle stopped where it was")]
    Journal(#[from] JournalError),
    /// The stored definition is not a plan.
    #[error("the definition of the cycle was changed by hand")]
    Graph(#[from] GraphError),
    /// What would simulate is not what the cycle is pinned to.
    #[error("the cycle stopped where it was")]
    Build(#[from] BuildError),
    /// The stored definition is not one this version understands.
    #[error("cycle `{0}` was started by a version of robo whose definitions this one does not read")]
    Definition(CycleId, #[source] serde_json::Error),
}

/// Everything an attempt may know of its cycle.
#[derive(Clone)]
pub struct Scope {
    /// The right to write.
    pub lease: Lease,
    /// The pinned definition.
    pub definition: Arc<Definition>,
    /// What the journal said of the cycle when it was taken up.
    pub record: Arc<CycleRecord>,
}

/// Run a cycle from wherever it stands to its end.
///
/// # Guarantees
/// Nothing is started before the journal holds it, and no result counts before the journal holds it. When this returns,
/// every attempt has stopped.
///
/// # Errors
/// [`Error`] when another process took over, or the journal stayed unreachable.
pub async fn run<J, X, F>(journal: &Arc<J>, cycle: CycleId, execute: X, control: Control) -> Result<Ending, Error>
where
    J: Journal,
    X: Fn(Scope, Attempt) -> F,
    F: Future<Output = Result<Output, stage::Error>> + Send + 'static,
{
    let lease = journal.acquire(cycle).await?;
    // Read after the lease is ours: nobody else changes it from here on.
    let record = journal.load(cycle).await?;
    let definition: Definition =
        serde_json::from_value(record.definition.clone()).map_err(|source| Error::Definition(cycle, source))?;
    let facts = CycleFacts { id: cycle, block: record.block };
    let dispatcher = Dispatcher::new(definition.clone(), facts, record.tasks.clone(), control.parallelism)?;
    let cancelled = record.cancel_requested;
    let scope = Scope { lease, definition: Arc::new(definition), record: Arc::new(record) };
    let mut run = Run {
        journal,
        scope,
        dispatcher,
        control,
        attempts: JoinSet::new(),
        running: HashMap::new(),
        waits: FuturesUnordered::new(),
        stop: CancellationToken::new(),
    };
    if cancelled {
        run.cancel();
    }
    let (pulse, mut beats) = mpsc::channel(1);
    let heart = tokio::spawn(beat(Arc::clone(journal), lease, pulse));
    let ending = run.until_the_end(&execute, &mut beats).await;
    run.attempts.shutdown().await;
    heart.abort();
    // The heart holds the journal: once it has stopped, the caller's handle is the last one and can be closed in order.
    let _ = heart.await;
    ending
}

type Wait = BoxFuture<'static, TaskKey>;

struct Run<'a, J> {
    journal: &'a Arc<J>,
    scope: Scope,
    dispatcher: Dispatcher,
    control: Control,
    attempts: JoinSet<Result<Output, stage::Error>>,
    running: HashMap<Id, Attempt>,
    waits: FuturesUnordered<Wait>,
    /// Stops what is in flight of the main body.
    stop: CancellationToken,
}

impl<J: Journal> Run<'_, J> {
    async fn until_the_end<X, F>(
        &mut self,
        execute: &X,
        beats: &mut mpsc::Receiver<Result<(), JournalError>>,
    ) -> Result<Ending, Error>
    where
        X: Fn(Scope, Attempt) -> F,
        F: Future<Output = Result<Output, stage::Error>> + Send + 'static,
    {
        loop {
            match self.dispatcher.next() {
                Step::Record(entry) => {
                    self.record(*entry, execute).await?;
                    continue;
                }
                Step::End(status, failure) => {
                    let reason = failure.as_ref().map(|failure| failure.message.as_str());
                    self.journal.finish(&self.scope.lease, status, reason).await?;
                    return Ok(Ending::Ended(status, failure));
                }
                Step::Wait => {}
            }
            tokio::select! {
                Some(joined) = self.attempts.join_next_with_id() => {
                    let (id, result) = match joined {
                        Ok((id, Ok(output))) => (id, Ok(output)),
                        Ok((id, Err(stage::Error::Failed(failure)))) => (id, Err(failure)),
                        // The attempt stays as it stands in the journal, and is lost with us.
                        Ok((_, Err(stage::Error::Journal(error)))) => return Err(error.into()),
                        Ok((_, Err(stage::Error::Build(error)))) => return Err(error.into()),
                        Err(error) => (error.id(), Err(TaskFailure { class: FailureClass::Infra, message: format!("the attempt crashed: {error}") })),
                    };
                    if let Some(attempt) = self.running.remove(&id) {
                        let entry = self.dispatcher.finished(&attempt, result);
                        let entry = self.unless_cancelled(entry).await?;
                        self.record(entry, execute).await?;
                    }
                }
                Some(task) = self.waits.next() => self.dispatcher.retry_due(&task),
                Some(beat) = beats.recv() => match beat {
                    Ok(()) => self.cancel(),
                    Err(error) => return Err(error.into()),
                },
                () = self.control.suspend.cancelled() => return self.suspend().await,
            }
        }
    }

    /// Weights do not go out after somebody has asked for the cycle to stop, even if the next heartbeat is seconds away.
    async fn unless_cancelled(&mut self, entry: Entry) -> Result<Entry, Error> {
        if entry.publication.is_none() || !self.journal.heartbeat(&self.scope.lease).await?.cancel_requested {
            return Ok(entry);
        }
        self.cancel();
        Ok(Entry { event: TaskEvent::Cancelled, publication: None, ..entry })
    }

    /// Journal first, memory second, deeds last.
    async fn record<X, F>(&mut self, entry: Entry, execute: &X) -> Result<(), Error>
    where
        X: Fn(Scope, Attempt) -> F,
        F: Future<Output = Result<Output, stage::Error>> + Send + 'static,
    {
        let _ = self.journal.append(&self.scope.lease, &entry).await?;
        let effect = self.dispatcher.apply(&entry).map_err(JournalError::from)?;
        (self.control.observer)(&entry);
        match effect {
            Effect::Nothing => {}
            Effect::Wait(task, time) => self.waits.push(Box::pin(async move {
                sleep(time).await;
                task
            })),
            Effect::Run(attempt) => self.start(*attempt, execute),
        }
        Ok(())
    }

    fn start<X, F>(&mut self, attempt: Attempt, execute: &X)
    where
        X: Fn(Scope, Attempt) -> F,
        F: Future<Output = Result<Output, stage::Error>> + Send + 'static,
    {
        debug!(task = %attempt.task, attempt = attempt.number, "attempt starts");
        let work = execute(self.scope.clone(), attempt.clone());
        let stop = match attempt.stage.phase {
            Phase::Main => self.stop.clone(),
            Phase::OnFailure | Phase::Finally => CancellationToken::new(),
        };
        let stage = attempt.stage.clone();
        let handle = self.attempts.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => Err(TaskFailure { class: FailureClass::Infra, message: "stopped with the cycle".into() }.into()),
                result = timeout(Duration::from_millis(stage.timeout_ms), work) => result.unwrap_or_else(|_| Err(timed_out(&stage).into())),
            }
        });
        self.running.insert(handle.id(), attempt);
    }

    /// The cycle ends as cancelled: stop the main body, let `finally` run.
    fn cancel(&mut self) {
        self.dispatcher.cancel();
        self.waits.clear();
        self.stop.cancel();
    }

    /// Stop everything, write down that attempts in flight are lost, give the lease back.
    async fn suspend(&mut self) -> Result<Ending, Error> {
        self.attempts.shutdown().await;
        for (_, attempt) in self.running.drain() {
            let entry = Entry::new(attempt.task, attempt.number, TaskEvent::Lost);
            let _ = self.journal.append(&self.scope.lease, &entry).await?;
        }
        self.journal.release(&self.scope.lease).await?;
        Ok(Ending::Suspended)
    }
}

/// Prolong the lease; say `Ok` once when somebody asks for the cycle to be cancelled, and `Err` when the lease is lost.
async fn beat<J: Journal>(journal: Arc<J>, lease: Lease, pulse: mpsc::Sender<Result<(), JournalError>>) {
    let mut clock = interval(HEARTBEAT);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        clock.tick().await;
        match journal.heartbeat(&lease).await {
            Ok(heartbeat) if heartbeat.cancel_requested && !told => {
                told = true;
                if pulse.send(Ok(())).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            // The journal has already tried for a while; the next write of the run meets the same wall and says so.
            Err(error @ JournalError::Storage(_)) => warn!(%error, "heartbeat failed"),
            Err(error) => {
                let _ = pulse.send(Err(error)).await;
                return;
            }
        }
    }
}
