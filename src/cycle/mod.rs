//! What a cycle is: ids, episodes and their outcomes, the states of a task, and the journal that remembers them.
//!
//! This module is pure. It talks to nothing; `store` implements [`Journal`] on Postgres and the `engine` drives it.

mod actions;
mod blame;
mod episode;
mod guarded;
mod id;
mod journal;
mod memory;
mod publish_guard;
mod rows;
mod seed;
mod sighting;
mod standing;
mod task;
mod text;
mod unexplained;

pub use actions::{Actions, Keep};
pub use blame::{Condition, Party};
pub use episode::{Episode, EpisodeKey, EpisodeReport, InfraFault, LatencySummary, Miner, MinerFault, Outcome};
pub use guarded::{Guard, Guarded};
pub use id::{CycleId, CycleName, CycleNumber, EnvironmentId, Hotkey, InvalidId, StageId, TaskKey};
pub use journal::{
    Appended, CycleRecord, CycleStatus, Entry, EpisodeTally, Heartbeat, Journal, JournalError, Lease, PendingEpisode,
    PoolClaim, Publication, Role, TaskState,
};
pub use memory::MemoryJournal;
pub use publish_guard::{Course, Facts, PublishGuard, Shares, Turnout, burnt, distance, shares};
pub use rows::{Question, Rows, RowsError};
pub use seed::{InvalidSalt, Salt, WINDOW};
pub use sighting::{Change, MinerStatus, Seen, Sighting, changes};
pub use standing::{Discovery, Pin, Standing};
pub use task::{FailureClass, IllegalTransition, TaskEvent, TaskFailure, TaskStatus};
pub use text::{plain_text, with_causes};
pub use unexplained::{Evidence, LastFault, unexplained};

#[cfg(test)]
pub(crate) use unexplained::tests as unexplained_tests;
