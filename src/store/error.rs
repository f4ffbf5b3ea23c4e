//! Why the database could not do it. No message ever holds the password of a database URL.

use std::path::PathBuf;

use crate::cycle::{CycleId, JournalError};

use super::embedded;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text after `--database-url` is not the address of a Postgres database.
    #[error("the database URL is not of the form `postgresql://user@host/name`: {0}")]
    Url(String),
    /// There is no answer, or the server refuses us.
    #[error("Database connection failed: `{location}`")]
    Unreachable {
        /// Which database, without its password.
        location: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A variable would change how the embedded server treats our sessions.
    #[error("`PGOPTIONS` is set, which must not change how the embedded database works")]
    ForeignOptions,
    /// The server answers, the database is not there.
    #[error("Database connection failed: there is no database `{0}` yet")]
    NoDatabase(String),
    /// The server is older than the SQL we write.
    #[error("the server is PostgreSQL {0}, and robo needs 13 or newer")]
    OldServer(String),
    /// A newer robo has been here.
    #[error("the database is of a newer version ({found}) than this robo knows ({known}): upgrade robo")]
    NewerSchema {
        /// Version of the schema in the database.
        found: i64,
        /// Newest version this program knows.
        known: i64,
    },
    /// A step of its schema is not the one of that number that this program knows.
    #[error(
        "the database was made by another build of robo: step {found} of its schema is not the one this robo knows"
    )]
    OtherSchema {
        /// Which step.
        found: i64,
    },
    /// The tables are not there, or older than this program needs.
    #[error("the database is not initialised for this version of robo")]
    NotInitialised,
    /// The schema could not be brought up to date.
    #[error("the database cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A cycle is running in it.
    #[error("cycle `{0}` is running")]
    Running(CycleId),
    /// No cycle has that id.
    #[error("there is no cycle `{given}`{}", list(.recent, "; the latest are"))]
    UnknownCycle {
        /// What was asked for.
        given: String,
        /// The latest cycles.
        recent: Vec<String>,
    },
    /// More than one cycle's id starts like that.
    #[error("`{given}` is the start of several cycle ids{}", list(.candidates, ":"))]
    AmbiguousCycle {
        /// What was asked for.
        given: String,
        /// Some of those it may mean.
        candidates: Vec<String>,
    },
    /// What it was made of has been deleted.
    #[error("the episodes of cycle `{0}` have aged out: its scores and weights are kept, what they came from is not")]
    AgedOut(CycleId),
    /// A fork of it would have its salt, and give it away when it is done.
    #[error("cycle `{0}` has not ended: a cycle can be made only of one that has")]
    NotEnded(CycleId),
    /// Two would play with a salt that nobody may know yet, and the first to complete would give it away.
    #[error("cycle `{0}`, which has the same salt, is still open, and its seeds are a secret for as long")]
    SaltInUse(CycleId),
    /// `@latest` in a database without cycles.
    #[error("there is no cycle yet")]
    NoCycle,
    /// A row says what this program cannot have written.
    #[error("the database holds {0}")]
    Corrupt(String),
    /// A client calls two different requests the same.
    #[error("another request was sent under that name")]
    OtherRequest,
    /// What was to be recorded does not belong to anything that was planned.
    #[error("{0} was never planned")]
    NotPlanned(String),
    /// There is no place for the embedded database.
    #[error(transparent)]
    DataDir(#[from] crate::host::DataDirError),
    /// The embedded server does not run.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    /// A query failed.
    #[error("a query failed")]
    Query(#[from] sqlx::Error),
    /// No answer to a query in time.
    #[error("the database does not answer")]
    Timeout,
    /// Something on this machine failed.
    #[error("cannot use `{}`", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether it failed for want of room on a disk.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Query(error) => is_disk_full(error),
            Self::Unreachable { source, .. } => source.downcast_ref().is_some_and(is_disk_full),
            // In the words of `postgres`, which end a log that is quoted.
            Self::Embedded(error) => {
                let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
                error.to_string().contains("No space left on device")
                    || std::error::Error::source(error).and_then(|error| error.downcast_ref()).is_some_and(is_full)
            }
            Self::DataDir(crate::host::DataDirError::NotWritable { source, .. }) | Self::File { source, .. } => {
                source.kind() == std::io::ErrorKind::StorageFull
            }
            _ => false,
        }
    }

    /// Whether the same thing may work a moment later: the connection was lost, the server is starting, overloaded or
    /// read-only, or another transaction was in the way.
    pub(super) fn is_transient(&self) -> bool {
        self.absence().is_some()
    }

    /// Whether nothing is wrong but that another transaction came first.
    pub(super) fn is_rivalry(&self) -> bool {
        let code = match self {
            Self::Query(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        };
        matches!(code.as_deref(), Some("40001" | "40P01"))
    }

    /// For a failure that may pass by itself: what the database does, in words that go on from "the database".
    pub fn absence(&self) -> Option<&'static str> {
        match self {
            Self::Timeout => Some("does not answer"),
            Self::Query(error) => absence(error),
            _ => None,
        }
    }
}

/// What the database does that may pass by itself.
pub(super) fn absence(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => Some("has closed the connection or cannot be reached"),
        sqlx::Error::PoolTimedOut => Some("gives no connection"),
        sqlx::Error::Database(error) => match error.code()?.as_ref() {
            code if code.starts_with("08") => Some("has lost the connection"),
            "57P01" | "57P02" => Some("has closed the connection"),
            // Ours: a transaction that stood still for longer than `store::IDLE_IN_TRANSACTION`.
            "25P03" => Some("has closed a connection on which nothing came for too long"),
            "57P03" => Some("is starting or stopping"),
            "53300" => Some("has no connection left for us"),
            // A standby that is being promoted, or an operator at work.
            "25006" => Some("takes no writes: it is read-only"),
            "40001" | "40P01" => Some("had another transaction in the way"),
            _ => None,
        },
        _ => None,
    }
}

fn is_disk_full(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("53100"))
}

/// Inside a journal's method: either the contract's answer, or trouble with the database.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<Trouble> for JournalError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Journal(error) => error,
            Trouble::Store(error) => Self::Storage(Box::new(error)),
        }
    }
}

fn list(names: &[String], lead: &str) -> String {
    if names.is_empty() { String::new() } else { format!("{lead} `{}`", names.join("`, `")) }
}
