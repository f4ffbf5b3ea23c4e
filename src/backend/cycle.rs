//! One cycle with everything it needs around it: environment servers, demo miners, the stages' context.

use std::{path::Path, sync::Arc};

use crate::cycle::{CycleId, Journal, JournalError};
use crate::engine::{self, Control, Ending};
use crate::host::Progress;
use crate::runtime::{self, DemoMiners};
use crate::stage::{self, Context, EpisodeProgress, Invocation, Servers};
use crate::store::Store;

/// How the caller steers a cycle and hears of it.
pub struct Steering {
    /// Stops it, and says how much of it runs at a time.
    pub control: Control,
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
pub async fn run_cycle(
    store: &Arc<Store>,
    data_dir: &Path,
    cycle: CycleId,
    steering: Steering,
) -> Result<Ending, Error> {
    let record = store.load(cycle).await?;
    let runtime = runtime::Process::with_defaults(data_dir.to_owned(), steering.progress)?;
    let servers = Arc::new(Servers::new(Arc::new(runtime), DemoMiners::with_defaults()?, record.root.into()));
    let execute = |scope: engine::Scope, attempt: engine::Attempt| {
        let context = Context {
            journal: Arc::clone(store),
            lease: scope.lease,
            definition: scope.definition,
            record: scope.record,
            servers: Arc::clone(&servers),
            watcher: Arc::clone(&steering.watcher),
        };
        async move {
            let settings = attempt.settings()?;
            let invocation = Invocation { task: &attempt.task, stage: &attempt.stage, settings: &settings };
            stage::run(&context, invocation).await
        }
    };
    let ending = engine::run(store, cycle, execute, steering.control).await;
    servers.stop().await;
    Ok(ending?)
}
