//! One cycle with everything it needs around it: environment servers, demo miners, the stages' context.

use std::sync::Arc;

use tracing::Instrument;

use super::Machine;
use crate::config;
use crate::cycle::{CycleId, CycleRecord, Journal, JournalError, Rows};
use crate::engine::{self, Control, Ending};
use crate::host::Progress;
use crate::plan;
use crate::runtime::{self, DemoMiners};
use crate::stage::{self, Context, Drain, EpisodeProgress, Invocation, Servers};
use crate::store::Store;
use crate::telemetry;

/// How the caller steers a cycle and hears of it.
pub struct Steering {
    /// Stops it, and says how much of it runs at a time.
    pub control: Control,
    /// Has it begin no more episodes.
    pub drain: Drain,
    /// Called as episodes end.
    pub watcher: Arc<dyn Fn(EpisodeProgress) + Send + Sync>,
    /// Hears what is prepared and fetched.
    pub progress: Progress,
}

/// Why a cycle could not be run on. It stays open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine stopped.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// Nothing can be started on this machine.
    #[error("this machine cannot run environment servers")]
    Runtime(#[from] runtime::Error),
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        Self::Engine(error.into())
    }
}

/// Run an open cycle from wherever it stands. When this returns, all that was started for it has stopped.
///
/// # Errors
/// [`Error`] when the lease cannot be had or was lost, when the database stayed away, or when nothing can be started here.
pub async fn run_cycle<J: Journal + Rows>(
    journal: &Arc<J>,
    store: &Arc<Store>,
    machine: &Machine,
    (cycle, steering): (CycleId, Steering),
) -> Result<Ending, Error> {
    let record = journal.load(cycle).await?;
    let (pipeline, created) =
        (record.definition["pipeline"].as_str().unwrap_or_default().to_owned(), record.created_at);
    let span = telemetry::run_span(cycle, &pipeline);
    let ending = run_loaded(journal, (store, machine), (cycle, record, steering)).instrument(span).await;
    if let Ok(Ending::Ended(status, _)) = &ending {
        machine.permits().forget(cycle);
        telemetry::cycle_ended(cycle, &pipeline, created.into(), status.word());
    }
    ending
}

async fn run_loaded<J: Journal + Rows>(
    journal: &Arc<J>,
    (store, machine): (&Arc<Store>, &Machine),
    (cycle, record, steering): (CycleId, CycleRecord, Steering),
) -> Result<Ending, Error> {
    let ledger = Arc::new(store.ledger());
    let runtime = machine.runtime(steering.progress, ledger.clone())?;
    let programs = Arc::new(machine.programs(ledger.clone()));
    let miners = DemoMiners::with_defaults()?.with_ledger(ledger.clone());
    let servers = Arc::new(Servers::new(runtime, miners, record.root.into()));
    let definition = serde_json::from_value(record.definition);
    // One that cannot be read is told by whoever runs the cycle.
    let secrets = definition.map(|definition| plan::Secrets::of(&definition, &config::secret)).unwrap_or_default();
    let execute = |scope: engine::Scope, attempt: engine::Attempt| {
        let (ledger, lease) = (Arc::clone(&ledger), scope.lease);
        let context = Context {
            journal: Arc::clone(journal),
            lease: scope.lease,
            definition: scope.definition,
            record: scope.record,
            servers: Arc::clone(&servers),
            ledger: ledger.clone(),
            programs: Arc::clone(&programs),
            subnet: machine.subnet(),
            outages: machine.outages(),
            drain: steering.drain.clone(),
            stalls: machine.stalls(),
            permits: machine.permits().clone(),
            watcher: Arc::clone(&steering.watcher),
        };
        let secrets = secrets.clone();
        async move {
            // Before anything of this lease starts, what older ones have left on this machine ends.
            ledger.take_over(lease).await?;
            let settings = attempt.settings_with(&secrets)?;
            let invocation = Invocation {
                task: &attempt.task,
                stage: &attempt.stage,
                settings: &settings,
                context: &attempt.context,
            };
            engine::without_secrets(stage::run(&context, invocation).await, &secrets)
        }
    };
    let ending = engine::run(journal, cycle, execute, steering.control).await;
    servers.stop().await;
    ledger.close().await;
    Ok(ending?)
}
