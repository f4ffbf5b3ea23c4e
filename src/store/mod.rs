//! All SQL, the embedded server, and the journal on Postgres.
//!
//! [`Store`] is the one handle: a small pool of connections and, where no server was named, a share in the embedded
//! one. The same SQL runs on both. It never runs a stage and never prints; what a query answers is a plain struct.
//!
//! | file | what it asks |
//! |---|---|
//! | `journal.rs` | the contract of [`crate::cycle::Journal`], with `append.rs`, `pool.rs`, `episode.rs` and `lease.rs` beneath it |
//! | `cycle.rs` | cycles: create, find, list, cancel |
//! | `stage.rs` | stages, each with its tasks counted |
//! | `turn.rs` | how many cycles may be open, which of them goes first, which nobody runs |
//! | `schedule.rs` | schedules and pauses as they stand, with `fire.rs`: what became of due times |
//! | `lineage.rs` | forks: what a cycle keeps of another, and results that are not published |
//! | `retry.rs` | everything again while the database is away, with `absence.rs`: what is told of that |
//! | `secrecy.rs` | whether a salt is still a secret, and what may not be made or opened again for that reason |
//! | `events.rs` | the journal as people and clients follow it |
//! | `evaluated.rs` | episodes page by page, and of one miner |
//! | `discovered.rs` | whom the last discovery has found |
//! | `takeover.rs` | a lease taken from an owner that hangs; tries given anew |
//! | `sighting.rs` | how miners were found |
//! | `standing.rs` | the block a cycle is pinned to; since when hotkeys have served what they serve |
//! | `history.rs` | what finished cycles took |
//! | `gc.rs` | detail that is old enough to go |
//! | `url.rs` | database URLs as people write them |
//! | `scope.rs` | the subnet whose vectors a handle serves |
//! | `publication.rs` | published weights |
//! | `bias.rs` | episodes that ran again beside the others |
//! | `api_key.rs` | keys of the API, and with `operation.rs` what was done with them |
//! | `query.rs` | an operator's own question about a cycle |
//! | `ledger.rs` | what cycles have started and what may outlive them |
//! | `tally.rs` | what cycles came to, counted once, with `gauges.rs`: how things stand; both for metrics |
//! | `status.rs` | the whole database at a glance |
//! | `admin.rs` | create, migrate, reset |
//! | `embedded/` | the server of our own |

mod absence;
mod actions;
mod admin;
mod api_key;
mod append;
mod bias;
mod cycle;
mod discovered;
pub mod embedded;
mod episode;
mod error;
mod evaluated;
mod events;
mod fire;
mod gauges;
mod gc;
mod history;
mod holder;
mod journal;
mod lease;
mod ledger;
mod lineage;
mod location;
mod operation;
mod pool;
mod publication;
mod query;
mod reopen;
mod retry;
mod schedule;
mod scope;
mod secrecy;
mod sighting;
mod stage;
mod standing;
mod status;
mod takeover;
mod tally;
mod turn;
mod url;

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    config,
    host::{Progress, ledger::Keeper},
};

pub use admin::Created;
pub use api_key::{ApiKey, KeyAnswer, NewApiKey};
pub use cycle::{CancelAnswer, CycleFilter, CycleSummary, NewCycle, TaskRow};
pub use discovered::Discovered;
pub use episode::EpisodeCount;
pub use error::Error;
pub use evaluated::{EpisodeFilter, EpisodeOutcome, EpisodeRow, LatencyRow};
pub use events::{EventRow, Followed, FollowedEvent};
pub use fire::{Fired, Outcome, Round};
pub use gauges::{Gauges, LastCycle, PoolState, Queue, Servers};
pub use gc::Aged;
pub use history::{EpisodePace, KindPace};
pub use ledger::{CycleLedger, Reaped};
pub use lineage::{Ancestor, Lineage, NewFork, Origin, Publishing};
pub use operation::{Earlier, Once, Operation, OperationRow};
pub use pool::PoolPlace;
pub use publication::{PublicationRow, Release, ReleaseAnswer, Standing};
pub use schedule::{PauseRow, ScheduleRow};
pub use scope::Scope;
pub use sighting::FaultCount;
pub use stage::{StageRow, TaskLine};
pub use status::{Contents, DatabaseStatus};
pub use tally::{CYCLE_SECONDS, Count, Counters, Ended, InBucket, LATENCY_SECONDS, STAGE_SECONDS, Tally};
pub use turn::Admission;

use absence::Absence;
use location::Location;

/// Connections a process holds at most: enough for every task of a cycle, few enough for many processes on one server.
const CONNECTIONS: u32 = 8;

/// How long one try waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the server waits inside a transaction of ours for the next statement. A process that is stopped there holds the
/// row of its cycle, and nobody could take the cycle over. Shorter than a lease, longer than any pause of a process that
/// lives; who was only slow tries again.
const IDLE_IN_TRANSACTION: &str = "set idle_in_transaction_session_timeout = '5s'";

/// A database that has been opened. Clones share it; the embedded server runs for as long as one of them lives.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    location: Arc<Location>,
    /// Who ends resources that are no processes.
    keeper: Option<Arc<dyn Keeper>>,
    /// What is written down with the next thing that a person does through this handle.
    operation: Option<Arc<Operation>>,
    /// Whose vectors are served.
    scope: Scope,
    /// What is told of a database that is away.
    absence: Absence,
}

impl Store {
    /// Open the configured database and make it ready: start the embedded server if it is the one, create its database,
    /// bring the schema up to date.
    ///
    /// # Errors
    /// [`Error`], each with what to do in its message or its hint at the edge.
    pub async fn open(config: &config::Database, progress: &Progress) -> Result<Self, Error> {
        let store = Self::open_as_is(config, progress).await?;
        match store.migrate().await {
            Ok(()) => Ok(store),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// Open the configured database as it stands: no schema is changed or asked for. Only the embedded database is made
    /// if it is missing; that of a server is its operator's to create.
    ///
    /// # Errors
    /// [`Error::NoDatabase`] where there is none, [`Error::Unreachable`] where no server answers.
    pub async fn open_as_is(config: &config::Database, progress: &Progress) -> Result<Self, Error> {
        let location = Location::find(config, progress).await?;
        let prepared =
            if location.is_embedded() { admin::create_database(&location).await.map(|_| ()) } else { Ok(()) };
        Self::connect_to(location, prepared).await
    }

    /// The store on a database that has been `prepared`. If it cannot be had, nothing of ours is left running.
    async fn connect_to(location: Location, prepared: Result<(), Error>) -> Result<Self, Error> {
        let checked = match prepared {
            Ok(()) => admin::check_server(&location).await,
            failed => failed,
        };
        if let Err(error) = checked {
            location.leave().await;
            return Err(error);
        }
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query(IDLE_IN_TRANSACTION).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(location.options().clone());
        let (keeper, operation) = (None, None);
        let location = Arc::new(location);
        Ok(Self { pool, location, keeper, operation, scope: Scope::default(), absence: Absence::default() })
    }

    /// The same, with somebody who ends what its ledger names and what is no process.
    #[must_use]
    pub fn with_keeper(self, keeper: Arc<dyn Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Where the database is, for people; without its password.
    pub fn location(&self) -> String {
        self.location.to_string()
    }

    /// Close the connections. If we are the last user of the embedded server, wait until it has
    /// stopped, so that nothing is left running. Clones of this store are closed with it.
    pub async fn close(self) {
        self.pool.close().await;
        self.location.leave().await;
    }
}
