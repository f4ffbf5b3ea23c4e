//! Runs one cycle: performs what the dispatcher decides, journal first.
//!
//! Every attempt is a task of one `JoinSet` that this function owns; none outlives it. It knows nothing of stages: how an
//! attempt is run is the caller's function.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, field::Empty, info_span, warn};

use super::attempt::{Attempt, timed_out};
use super::context::CycleFacts;
use super::dispatcher::{Dispatcher, Step};
use crate::cycle::{
    Appended, CycleId, CycleRecord, CycleStatus, Entry, FailureClass, Journal, JournalError, Lease, TaskEvent,
    TaskFailure,
};
use crate::plan::{BuildError, Definition, GraphError};
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
    /// A task waits for a person and nothing else can run: with this failure of its last attempt. The cycle is open, and
    /// [`Journal::reopen`] lets the task go on.
    Paused(TaskFailure),
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
/// Nothing is started before the journal holds it, and no result counts before the journal holds it: the ends that have come
/// in and the starts that follow from them are one transaction, and a crash loses all of it or nothing. When this returns, every
/// attempt has stopped.
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
    let facts = CycleFacts { id: cycle };
    let dispatcher = Dispatcher::new(&definition, &facts, record.tasks.clone(), control.parallelism)?;
    let cancelled = record.cancel_requested;
    let scope = Scope { lease, definition: Arc::new(definition), record: Arc::new(record) };
    let mut run = Run {
        journal,
        scope,
        dispatcher,
        control,
        attempts: JoinSet::new(),
        running: HashMap::new(),
        began: Instant::now(),
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

/// An attempt in flight and what stops it.
struct Running {
    attempt: Attempt,
    stop: CancellationToken,
}

struct Run<'a, J> {
    journal: &'a Arc<J>,
    scope: Scope,
    dispatcher: Dispatcher,
    control: Control,
    attempts: JoinSet<Result<Output, stage::Error>>,
    running: HashMap<Id, Running>,
    began: Instant,
}

type Joined = Result<(Id, Result<Output, stage::Error>), JoinError>;

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
            let alarm = match self.dispatcher.next(self.began.elapsed()).map_err(JournalError::from)? {
                Step::Record(entries) => {
                    self.record(entries, execute).await?;
                    continue;
                }
                Step::Expand(tasks) => {
                    self.journal.expand(&self.scope.lease, &tasks).await?;
                    self.dispatcher.expanded();
                    continue;
                }
                Step::End(status, failure) => {
                    let reason = failure.as_ref().map(|failure| failure.message.as_str());
                    let ended = self.journal.finish(&self.scope.lease, status, reason).await?;
                    return Ok(Ending::Ended(ended, failure));
                }
                Step::Pause(failure) => {
                    self.journal.pause(&self.scope.lease).await?;
                    return Ok(Ending::Paused(failure));
                }
                Step::Wait(alarm) => alarm.map(|at| self.began + at),
            };
            tokio::select! {
                Some(joined) = self.attempts.join_next_with_id() => self.collect(joined).await?,
                () = until(alarm) => {}
                Some(beat) = beats.recv() => {
                    beat?;
                    self.cancel();
                }
                () = self.control.suspend.cancelled() => return self.suspend().await,
            }
        }
    }

    /// An attempt has ended; take the others that have ended by now along, so that one transaction holds them all.
    async fn collect(&mut self, first: Joined) -> Result<(), Error> {
        self.end(first).await?;
        // Those that need no more than a turn of the runtime get it.
        yield_now().await;
        while let Some(joined) = self.attempts.try_join_next_with_id() {
            self.end(joined).await?;
        }
        Ok(())
    }

    async fn end(&mut self, joined: Joined) -> Result<(), Error> {
        let (id, result) = match joined {
            Ok((id, Ok(output))) => (id, Ok(output)),
            Ok((id, Err(stage::Error::Failed(failure)))) => (id, Err(failure)),
            // The attempt stays as it stands in the journal, and is lost with us.
            Ok((_, Err(stage::Error::Journal(error)))) => return Err(error.into()),
            Ok((_, Err(stage::Error::Build(error)))) => return Err(error.into()),
            Err(error) => {
                let message = format!("the attempt crashed: {error}");
                (error.id(), Err(TaskFailure { class: FailureClass::Infra, message }))
            }
        };
        let Some(Running { attempt, .. }) = self.running.remove(&id) else { return Ok(()) };
        let task = (&attempt.task, attempt.number);
        Ok(self.dispatcher.ended(task, result, self.began.elapsed()).map_err(JournalError::from)?)
    }

    /// Journal first, memory second, deeds last.
    async fn record<X, F>(&mut self, entries: Vec<Entry>, execute: &X) -> Result<(), Error>
    where
        X: Fn(Scope, Attempt) -> F,
        F: Future<Output = Result<Output, stage::Error>> + Send + 'static,
    {
        let answers = self.journal.append_all(&self.scope.lease, &entries).await?;
        let now = self.began.elapsed();
        for (entry, answer) in entries.iter().zip(answers) {
            if let Some(discovery) = &entry.discovery {
                // From here on every attempt knows the block that the journal has.
                Arc::make_mut(&mut self.scope.record).pin = Some(discovery.pin.clone());
            }
            let attempt = self.dispatcher.recorded(entry, answer, now);
            if answer != Appended::Full {
                (self.control.observer)(entry);
            }
            if let Some(attempt) = attempt {
                self.start(attempt, execute);
            }
        }
        self.stop_what_must();
        Ok(())
    }

    fn start<X, F>(&mut self, attempt: Attempt, execute: &X)
    where
        X: Fn(Scope, Attempt) -> F,
        F: Future<Output = Result<Output, stage::Error>> + Send + 'static,
    {
        debug!(task = %attempt.task, attempt = attempt.number, "attempt starts");
        let work = execute(self.scope.clone(), attempt.clone());
        let (stage, stop) = (Arc::clone(&attempt.stage), CancellationToken::new());
        let told = stop.clone();
        let span = attempt_span(&attempt);
        let work = async move {
            tokio::select! {
                () = told.cancelled() => Err(stopped().into()),
                result = timeout(Duration::from_millis(stage.timeout_ms), work) => {
                    result.unwrap_or_else(|_| Err(timed_out(&stage).into()))
                }
            }
        };
        let handle = self.attempts.spawn(work.instrument(span));
        self.running.insert(handle.id(), Running { attempt, stop });
    }

    /// The cycle ends as cancelled: stop the main body, let `finally` run.
    fn cancel(&mut self) {
        self.dispatcher.cancel();
        self.stop_what_must();
    }

    /// Stop attempts that the dispatcher wants no more: those of a cancelled cycle, and of a stage that fails fast.
    fn stop_what_must(&self) {
        for running in self.running.values().filter(|running| self.dispatcher.must_stop(&running.attempt.task)) {
            running.stop.cancel();
        }
    }

    /// Stop everything, write down that attempts in flight are lost, give the lease back.
    async fn suspend(&mut self) -> Result<Ending, Error> {
        self.attempts.shutdown().await;
        let lost = self.running.drain().map(|(_, running)| running.attempt);
        let lost: Vec<Entry> = lost.map(|attempt| Entry::new(attempt.task, attempt.number, TaskEvent::Lost)).collect();
        if !lost.is_empty() {
            self.journal.append_all(&self.scope.lease, &lost).await?;
        }
        self.journal.release(&self.scope.lease).await?;
        Ok(Ending::Suspended)
    }
}

/// What every line and every trace of an attempt carries.
fn attempt_span(attempt: &Attempt) -> Span {
    let span = info_span!(
        target: "robo",
        "attempt",
        stage = %attempt.task.stage,
        task = %attempt.task,
        attempt = attempt.number,
        environment = Empty,
    );
    if let Some(environment) = attempt.context["matrix"]["environment"].as_str() {
        span.record("environment", environment);
    }
    span
}

/// The failure of an attempt that was told to stop. The journal sees it as cancelled.
fn stopped() -> TaskFailure {
    TaskFailure { class: FailureClass::Infra, message: "stopped with the cycle".into() }
}

/// The time has come; never, if there is none.
async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(alarm) => sleep_until(alarm).await,
        None => std::future::pending().await,
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
