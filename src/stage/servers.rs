//! Environment servers ready to run episodes: started by `runtime`, opened through `rollout`, shared by a cycle's tasks.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use futures::future::join_all;
use uuid::Uuid;

use super::chain;
use crate::cycle::{FailureClass, TaskFailure};
use crate::plan::{self, Definition, Environment};
use crate::rollout::{
    self, Driver,
    protocol::{Open, Opened},
};
use crate::runtime::{self, DemoMiners, Lent, Runtime};

/// An environment server that has loaded its environments. It is not replaced while this lives.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The server.
    pub lent: Lent,
    /// Speaks to it.
    pub client: Driver,
    /// What it said of itself.
    pub opened: Opened,
}

/// Why there is no environment server, or no demo miner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("environment server failed to start: {}", .0.explain())]
    Start(runtime::Error),
    /// What would simulate now is not what the cycle is pinned to.
    #[error(transparent)]
    Changed(#[from] plan::BuildError),
    /// A demo miner cannot be started.
    #[error("demo miner failed to start: {}", .0.explain())]
    Miner(runtime::Error),
    /// It runs and cannot load the environments.
    #[error("the environment server on {0} cannot load `{1}`")]
    Open(String, String, #[source] rollout::Error),
    /// No HTTP client can be made here.
    #[error(transparent)]
    Client(rollout::Error),
}

/// Whether an endpoint is that of a demonstration miner, which robo serves itself.
pub(super) fn is_demo(endpoint: &str) -> bool {
    DemoMiners::serves(endpoint)
}

impl Error {
    /// Whether another attempt may help without the operator doing something.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Start(error) | Self::Miner(error) => !error.is_permanent(),
            Self::Open(_, _, error) => error.is_retryable(),
            Self::Client(_) | Self::Changed(_) => false,
        }
    }
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let class = if error.is_retryable() { FailureClass::Infra } else { FailureClass::Config };
        match error {
            Error::Changed(error) => Self::Build(error),
            error => Self::Failed(TaskFailure { class, message: chain(&error) }),
        }
    }
}

/// The servers and demo miners of a cycle. Started when first needed, replaced when they died.
#[derive(Debug)]
pub struct Servers {
    servers: runtime::Servers,
    miners: DemoMiners,
    root: PathBuf,
    /// What was opened, by the start of the server: one that replaces another at the same address must be told again.
    opened: std::sync::Mutex<HashMap<Uuid, Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Opened>>>;

impl Servers {
    /// No servers yet. Paths in definitions start from `root`.
    pub fn new(runtime: Arc<dyn Runtime>, miners: DemoMiners, root: PathBuf) -> Self {
        let servers = runtime::Servers::new(runtime, root.clone());
        Self { servers, miners, root, opened: std::sync::Mutex::default() }
    }

    /// The servers of an environment, with every environment of the definition that shares them loaded. At least one.
    ///
    /// # Errors
    /// `Error` when none can be had; the next call tries again.
    pub async fn environment(&self, definition: &Definition, environment: &Environment) -> Result<Vec<Ready>, Error> {
        let family = environment.simulation.environment.family();
        let kinds: BTreeSet<&str> =
            definition.environments.iter().map(|other| other.simulation.environment.family()).collect();
        let lent = self.servers.get(family, &environment.server, kinds.len()).await.map_err(Error::Start)?;
        let (mut ready, mut problem) = (Vec::new(), None);
        for opened in join_all(lent.into_iter().map(|lent| self.open(definition, environment, lent))).await {
            match opened {
                Ok(server) => ready.push(server),
                Err(error) => {
                    tracing::warn!(family, "one environment server less: {}", chain(&error));
                    problem.get_or_insert(error);
                }
            }
        }
        match problem {
            Some(error) if ready.is_empty() => Err(error),
            _ => Ok(ready),
        }
    }

    async fn open(&self, definition: &Definition, environment: &Environment, lent: Lent) -> Result<Ready, Error> {
        let family = environment.simulation.environment.family();
        let address = lent.address().clone();
        let client = Driver::new(&environment.server, &address.url, &address.token).map_err(Error::Client)?;
        let slot = self.slot(&lent);
        // Tasks that want the same server wait here while the first of them opens it.
        let mut slot = slot.lock().await;
        let opened = match slot.as_ref() {
            Some(opened) => opened.clone(),
            None => {
                // Every server that is started loads the sources as they are now: after a fault, long after the cycle began.
                plan::check_builds(definition, &self.root)?;
                let opened = client
                    .open(&everything(definition, environment))
                    .await
                    .map_err(|error| Error::Open(address.description.clone(), family.to_owned(), error))?;
                slot.insert(opened).clone()
            }
        };
        drop(slot);
        Ok(Ready { lent, client, opened })
    }

    /// Where a miner answers; a demo miner is started for `demo:POLICY`.
    ///
    /// # Errors
    /// `Error::Start` when a demo miner does not come up.
    pub async fn endpoint(&self, endpoint: &str) -> Result<String, Error> {
        self.miners.resolve(endpoint).await.map_err(Error::Miner)
    }

    /// End all of them.
    pub async fn stop(&self) {
        tokio::join!(self.servers.stop(), self.miners.stop());
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Have a server told again what it is to load: it says that it does not know.
    pub fn forget(&self, server: &Ready) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).remove(&server.lent.start());
    }

    fn slot(&self, lent: &Lent) -> Slot {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).entry(lent.start()).or_default().clone()
    }
}

/// Everything a server is to load: the environments that share its family and description.
fn everything(definition: &Definition, environment: &Environment) -> Open {
    let family = environment.simulation.environment.family();
    let mates = definition
        .environments
        .iter()
        .filter(|other| other.simulation.environment.family() == family && other.server == environment.server);
    Open {
        simulations: mates.map(|environment| environment.simulation.clone()).collect(),
        // Where it runs it knows best how many cores it has.
        workers: environment.server.workers.unwrap_or(0),
        slots_per_worker: environment.server.slots_per_worker,
    }
}
