//! The pipelines that this backend was started with, as the API shows and starts them. What reads and keeps them is above
//! us, and behind a trait.

use std::{fmt, path::PathBuf};

use crate::schedule::Schedule;
use crate::store::NewCycle;

/// Where the API finds the pipelines.
pub trait Pipelines: fmt::Debug + Send + Sync {
    /// All of them, as they are now.
    fn shown(&self) -> Vec<Shown>;

    /// A cycle of one of them with these inputs. It reads files: not for a thread that answers others, too.
    ///
    /// # Errors
    /// [`Refused`].
    fn new_cycle(&self, name: &str, inputs: &[(String, String)]) -> Result<NewCycle, Refused>;
}

/// A pipeline.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What it calls itself.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
    /// What its next cycle is pinned to; none when its file has never been usable.
    pub definition_hash: Option<String>,
    /// When it runs by itself.
    pub schedules: Vec<Schedule>,
    /// What it evaluates.
    pub environments: Vec<String>,
    /// Why the file can no longer be used; until it can, the last good version counts.
    pub problem: Option<String>,
    /// What is wrong beside it and does not keep it from working.
    pub warnings: Option<String>,
}

/// Why there is no cycle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such pipeline.
    #[error("this backend has no pipeline of that name")]
    Unknown,
    /// It cannot be compiled with these inputs; every mistake, located.
    #[error("{0}")]
    Mistaken(String),
}
