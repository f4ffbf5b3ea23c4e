//! Where environment servers run.
//!
//! [`Runtime`] is what every place has in common; [`Process`] is the one on this machine without containers. [`Servers`]
//! keeps one server per kind for a whole cycle. This module starts, watches and ends servers; what is said to them is
//! the business of `rollout`.

pub mod conformance;
mod demo;
mod interpreter;
mod pip;
mod process;
pub mod python;
mod recorded;
pub mod replay;
mod servers;

use std::path::PathBuf;

use futures::future::BoxFuture;

pub use demo::DemoMiners;
pub use process::Process;
pub use servers::Servers;

use crate::{
    host::{
        child::ChildError,
        ledger::{LedgerError, RecordError},
    },
    plan,
};

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Order {
    /// The server as the definition describes it.
    pub server: plan::Server,
    /// Directory that its relative paths start from.
    pub root: PathBuf,
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
}

/// A server that was started. Dropping it ends it the hard way.
pub trait Running: Send + Sync {
    /// How it is reached.
    fn address(&self) -> &Address;

    /// Whether it still runs and answers.
    fn check(&mut self) -> BoxFuture<'_, Result<(), Error>>;

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
            Self::NoPackage { .. } => true,
            Self::Python(error) => error.is_permanent(),
            Self::Child(_) | Self::Ledger(_) | Self::Silent { .. } | Self::Executable(_) => false,
        }
    }

    /// The error with its causes and what to do about it, in one text.
    pub fn explain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
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
            Self::Child(_) | Self::Ledger(_) | Self::Silent { .. } | Self::Executable(_) => None,
        }
    }
}
