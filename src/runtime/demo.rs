//! Demonstration miners that robo starts itself: `demo:POLICY` in a list of miners becomes a process and its address.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::future::join_all;

use super::{
    Error,
    process::{GRACE, START, current_program, health},
    recorded::Recorded,
};
use crate::host::{
    child::Program,
    environment::Role,
    ledger::{Ledger, NoLedger},
};

/// What an endpoint of a demonstration miner begins with.
const SCHEME: &str = "demo:";

type Slot = Arc<tokio::sync::Mutex<Option<Demo>>>;

/// The demonstration miners of a cycle, one process per policy. Cheap to clone; dropping the last clone kills them.
#[derive(Debug, Clone)]
pub struct DemoMiners {
    program: PathBuf,
    ledger: Arc<dyn Ledger>,
    slots: Arc<std::sync::Mutex<HashMap<String, Slot>>>,
}

#[derive(Debug)]
struct Demo {
    recorded: Recorded,
    url: String,
}

impl Demo {
    async fn is_well(&mut self) -> bool {
        matches!(self.recorded.child.has_ended(), Ok(None)) && health(&self.url, None).await.is_ok()
    }
}

impl DemoMiners {
    /// No miners yet; they will be started from `program`, a `robo`.
    pub fn new(program: PathBuf) -> Self {
        Self { program, ledger: Arc::new(NoLedger), slots: Arc::default() }
    }

    /// The same, started from the running program.
    ///
    /// # Errors
    /// [`Error::Executable`].
    pub fn with_defaults() -> Result<Self, Error> {
        Ok(Self::new(current_program()?))
    }

    /// The same, with every process written into `ledger`.
    #[must_use]
    pub fn with_ledger(self, ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, ..self }
    }

    /// Whether an endpoint names one of these, and no address.
    pub fn serves(endpoint: &str) -> bool {
        endpoint.starts_with(SCHEME)
    }

    /// The address behind an endpoint: for `demo:POLICY` that of a process, started if it does not run; any other
    /// endpoint is its own address.
    ///
    /// # Errors
    /// [`Error`] when the process does not come up; an unknown policy is reported in the process's own words.
    pub async fn resolve(&self, endpoint: &str) -> Result<String, Error> {
        let Some(policy) = endpoint.strip_prefix(SCHEME) else { return Ok(endpoint.to_owned()) };
        let slot =
            self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(policy.to_owned()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(demo) = slot.as_mut() {
            if demo.is_well().await {
                return Ok(demo.url.clone());
            }
            tracing::warn!(policy, "the demonstration miner `{policy}` has ended; starting another");
        }
        if let Some(broken) = slot.take() {
            broken.recorded.stop(Duration::ZERO).await;
        }
        Ok(slot.insert(self.start(policy).await?).url.clone())
    }

    /// End all of them.
    pub async fn stop(&self) {
        let slots: Vec<Slot> =
            self.slots.lock().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, slot)| slot).collect();
        join_all(slots.into_iter().map(|slot| async move {
            if let Some(demo) = slot.lock().await.take() {
                demo.recorded.stop(GRACE).await;
            }
        }))
        .await;
    }

    async fn start(&self, policy: &str) -> Result<Demo, Error> {
        let name = format!("the demonstration miner `{policy}`");
        let program = Program::new(Role::Robo, name, &self.program).args([
            "demo-miner",
            "--policy",
            policy,
            "--port",
            "0",
            "--until-eof",
        ]);
        let mut recorded = Recorded::start(program, &self.ledger).await?;
        let listening = recorded.child.listening(START).await?;
        Ok(Demo { recorded, url: format!("http://{listening}") })
    }
}
