//! Exit codes and the one way a verb fails.

use std::process::ExitCode;

/// What the process says when it ends. Documented in README.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The command line, a manifest or a pipeline is wrong.
    Usage = 2,
    /// Too few episodes could be scored.
    BelowQuorum = 3,
    /// Stopped on request.
    Cancelled = 4,
    /// No database.
    DatabaseUnreachable = 5,
    /// A check found something else than it should.
    Mismatch = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb failed, for the person who typed it.
#[derive(Debug)]
pub(super) struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong; printed with its causes.
    pub error: anyhow::Error,
    /// What to do about it, a line each.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure with its exit code.
    pub(super) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hints: Vec::new() }
    }

    /// The same, with a line that says what to do.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Exit::Failed, error)
    }
}

/// What a verb returns.
pub(super) type Result<T = Exit> = std::result::Result<T, Failure>;
