//! Where environment servers run.
//!
//! [`Runtime`] is what every place has in common; [`Process`] is the one on this machine without containers, [`docker`] has
//! those in containers, on engines and on the nodes of a swarm, [`Url`] is the one of servers that run already. [`Servers`]
//! keeps a pool of servers per kind for a whole cycle. This module starts, watches and ends servers; what is said to them is
//! the business of `rollout`.

pub mod conformance;
mod demo;
pub mod docker;
mod fault;
mod interpreter;
mod pip;
mod process;
pub mod python;
mod recorded;
pub mod replay;
mod servers;
mod url;

use std::path::PathBuf;

use futures::future::BoxFuture;

pub use demo::DemoMiners;
pub use fault::Fault;
pub use process::Process;
pub use servers::{Lent, Servers};
pub use url::{Named, ServerSpec, Url};

use crate::{
    cycle::{InfraFault, with_causes},
    host::{
        child::ChildError,
        ledger::{LedgerError, RecordError},
    },
    plan,
};

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Order {
    /// Name of the environment family, for people.
    pub family: String,
    /// The server as the definition describes it.
    pub server: plan::Server,
    /// Directory that its relative paths start from.
    pub root: PathBuf,
    /// How many kinds of servers share the place in this cycle, this one included.
    pub kinds: usize,
}

/// How a running server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `http://host:port`, without a slash at the end.
    pub url: String,
    /// What it wants to see as `Authorization: Bearer`.
    pub token: String,
    /// Where it runs, in words for the operator.
    pub description: String,
}

/// A place where environment servers run.
pub trait Runtime: Send + Sync + 'static {
    /// Prepare what the server needs, start it, and wait until it answers.
    ///
    /// Giving up the future ends whatever was started.
    fn start<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Box<dyn Running>, Error>>;

    /// How many servers of this kind there is room for, when every kind gets its part. None is as good as one: a full place
    /// says so when something is started.
    fn room<'a>(&'a self, _: &'a Order) -> BoxFuture<'a, usize> {
        Box::pin(async { 1 })
    }
}

/// A server that was started. Dropping it ends it the hard way.
pub trait Running: Send + Sync {
    /// How it is reached.
    fn address(&self) -> &Address;

    /// Whether it still runs and answers.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Error>>;

    /// Let it reach these miners, too. The endpoints come back, in the same order, as they are written where the server
    /// stands: `127.0.0.1` is another machine to a server behind walls.
    fn reach<'a>(&'a mut self, miners: &'a [String]) -> BoxFuture<'a, Result<Vec<String>, Error>> {
        Box::pin(async { Ok(miners.to_vec()) })
    }

    /// Whether it may be ended for a fresh one when it has played enough. Who has not started it cannot start another.
    fn can_be_recycled(&self) -> bool {
        true
    }

    /// End it, nicely first.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Why a server cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The simulator's Python environment cannot be prepared.
    #[error("cannot prepare the simulator's Python environment")]
    Python(#[from] python::Error),
    /// The definition names something that is not there.
    #[error("`{}`, the simulator's package, is not a directory", path.display())]
    NoPackage {
        /// Where it should be.
        path: PathBuf,
    },
    /// A process of ours did not come up, or has ended.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It could not be written into the ledger, and was ended again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It runs but does not answer.
    #[error("{name} at {url} does not answer: {problem}")]
    Silent {
        /// What was asked.
        name: String,
        /// Where.
        url: String,
        /// What came instead.
        problem: String,
    },
    /// The place where it was to run, or runs, has failed it.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
    /// There is no place for servers of this kind.
    #[error("there is no place for environment servers of `{family}`: {why}")]
    Nowhere {
        /// The environments' family.
        family: String,
        /// Why not.
        why: String,
    },
    /// Our own program file is not known.
    #[error("the path of the running program is not known")]
    Executable(#[source] std::io::Error),
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Child(error) => error.into(),
            RecordError::Ledger(error) => error.into(),
        }
    }
}

impl Error {
    /// Whether the operator has to change something before another attempt can help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoPackage { .. } | Self::Nowhere { .. } => true,
            Self::Python(error) => error.is_permanent(),
            // Another place, or this one in a while, may do better.
            Self::Fault(_) => false,
            Self::Child(_) | Self::Ledger(_) | Self::Silent { .. } | Self::Executable(_) => false,
        }
    }

    /// What it is to the episodes that needed the server.
    pub fn reason(&self) -> InfraFault {
        match self {
            Self::Fault(fault) => fault.reason,
            Self::Silent { .. } => InfraFault::Unhealthy,
            Self::Python(_)
            | Self::NoPackage { .. }
            | Self::Nowhere { .. }
            | Self::Child(_)
            | Self::Ledger(_)
            | Self::Executable(_) => InfraFault::ServerLost,
        }
    }

    /// The error with its causes and what to do about it, in one text.
    pub fn explain(&self) -> String {
        let text = with_causes(self.to_string(), self);
        match self.remedy() {
            Some(remedy) => format!("{text}; {remedy}"),
            None => text,
        }
    }

    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Python(error) => error.remedy(),
            Self::NoPackage { .. } => Some("correct `build.context` in the environment's manifest".into()),
            Self::Nowhere { family, .. } => Some(format!(
                "name a server that runs with --env-server {family}=URL, or run containers with --runtime docker"
            )),
            Self::Fault(fault) => fault.remedy.clone(),
            Self::Child(_) | Self::Ledger(_) | Self::Silent { .. } | Self::Executable(_) => None,
        }
    }
}
