//! Stage kinds: one file each, and what they share.
//!
//! A stage reads its settings, does its work through the services in its [`Context`], and returns an [`Output`]. It never
//! sees the database, the engine or the API; the engine writes its output down before anything depends on it.

mod aggregate;
mod chain_miners;
mod container;
pub mod documents;
mod drain;
mod environments;
mod episodes;
mod expr;
mod miners;
mod outage;
mod outputs;
mod overload;
mod permits;
mod publish;
mod score;
mod scores;
mod sealed;
mod servers;
mod shares;
mod sql;
mod vector;
mod webhook;

use std::sync::Arc;

pub use chain_miners::Subnet;
pub use drain::Drain;
pub use outage::Outages;
pub use overload::ServerStalls;
pub use permits::{Asked, Member, Permits};
pub use servers::Servers;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cycle::{
    CycleRecord, Discovery, EnvironmentId, FailureClass, Journal, JournalError, Lease, Publication, Rows, TaskFailure,
    TaskKey, with_causes,
};
use crate::host::ledger::Ledger;
use crate::plan::{BuildError, Definition, Stage};
use crate::runtime::docker::Once;

/// What a stage leaves behind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    /// An object of the outputs its kind declares.
    pub value: Value,
    /// Weights to be published in the transaction that records the output.
    pub publication: Option<Publication>,
    /// What was found on the chain, to be kept in the same transaction.
    pub discovery: Option<Discovery>,
}

impl From<Value> for Output {
    fn from(value: Value) -> Self {
        Self { value, ..Self::default() }
    }
}

/// Why an attempt left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task failed; its class says whether another attempt may help.
    #[error(transparent)]
    Failed(#[from] TaskFailure),
    /// What the stage did could not be written down or read. That is no failure of the task: nothing can be said of it any
    /// more, and the cycle has to stop where it is.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What would simulate now is not what the cycle is pinned to. The cycle stops where it is, until somebody decides.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// How far the episodes of an environment have come. `scored` counts those of earlier attempts too.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeProgress {
    /// The environment.
    pub environment: EnvironmentId,
    /// Episodes in all.
    pub planned: usize,
    /// Episodes with a scored outcome.
    pub scored: usize,
    /// Successes among them.
    pub successes: usize,
    /// Faults of ours so far.
    pub infra_faults: usize,
    /// Simulator steps since this attempt began.
    pub steps: u64,
}

/// What a stage may use.
pub struct Context<J> {
    /// The cycle's memory.
    pub journal: Arc<J>,
    /// The right to write to it.
    pub lease: Lease,
    /// The pinned definition.
    pub definition: Arc<Definition>,
    /// The cycle as it was taken up: salt, root, block.
    pub record: Arc<CycleRecord>,
    /// Environment servers and demo miners.
    pub servers: Arc<Servers>,
    /// Where programs that outlive us would be looked for.
    pub ledger: Arc<dyn Ledger>,
    /// Runs programs that come as images.
    pub programs: Arc<Once>,
    /// The chain as this machine reads it.
    pub subnet: Arc<Subnet>,
    /// How an outage of this machine's network is told and waited for.
    pub outages: Arc<Outages>,
    /// Whether to begin anything that takes long.
    pub drain: Drain,
    /// How long environment servers were stalled.
    pub stalls: Arc<ServerStalls>,
    /// How many episodes of a miner may be played at a time.
    pub permits: Permits,
    /// Called as episodes end.
    pub watcher: Arc<dyn Fn(EpisodeProgress) + Send + Sync>,
}

/// One attempt of one task.
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    /// The task.
    pub task: &'a TaskKey,
    /// Its stage.
    pub stage: &'a Stage,
    /// The stage's settings with every expression evaluated.
    pub settings: &'a Value,
    /// What expressions may refer to, for stages that evaluate some themselves.
    pub context: &'a Value,
}

impl Invocation<'_> {
    /// The settings as the type the stage works with.
    fn settings<T: DeserializeOwned>(&self) -> Result<T, TaskFailure> {
        serde_path_to_error::deserialize(self.settings)
            .map_err(|error| config(format!("`with.{}`: {}", error.path(), error.inner())))
    }
}

/// Run a task of the given kind.
///
/// # Errors
/// [`Error`]: a failure of the task, or of the journal.
pub async fn run<J: Journal + Rows>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, Error> {
    match invocation.stage.uses.as_str() {
        "file/miners" => Ok(miners::run(context, invocation).await?),
        "chain/miners" => chain_miners::run(context, invocation).await,
        "environments/provision" => environments::provision(context, invocation).await,
        "environments/teardown" => Ok(environments::teardown(context).await?),
        "episodes/run" => episodes::run(context, invocation).await,
        "scores/aggregate" => aggregate::run(context, invocation).await,
        "scores/pareto" => Ok(score::pareto(invocation).await?),
        "scores/weights" => Ok(score::weights(invocation)?),
        "container/run" => Ok(container::run(context, invocation).await?),
        "sql/query" => Ok(sql::run(context, invocation).await?),
        "expr/map" => Ok(expr::run(invocation).await?),
        "webhook/send" => Ok(webhook::run(context, invocation).await?),
        "weights/publish" => Ok(publish::run(context, invocation)?),
        unknown => Err(config(format!("this version of robo has no stage kind `{unknown}`")).into()),
    }
}

/// A failure that no further attempt mends.
fn config(message: impl Into<String>) -> TaskFailure {
    TaskFailure { class: FailureClass::Config, message: message.into() }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error)
}
