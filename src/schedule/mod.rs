//! When cycles start by themselves: due times of a schedule, and what becomes of each.
//!
//! Pure: the time and the block are arguments, so a year is a loop in a test. `cron` reads five fields, `zone` finds the
//! moment a clock on a wall shows a time, [`decide()`] says what happens to every due time. Who writes that down, and starts
//! the cycles, is in `store` and `backend`.

mod cron;
mod decide;
mod zone;

use std::{fmt, num::NonZeroU64};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cron::{Cron, CronError};
pub use decide::{Clock, Decision, MOST_DECISIONS, Pause, Reason, Start, State, Verdict, decide, jitter, next_start};
pub use zone::first_moment;

use crate::evidence;

/// When a pipeline runs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// When cycles are due.
    pub timing: Timing,
    /// What happens when one is due and another cycle of the pipeline is open.
    pub overlap: Overlap,
    /// What happens to due times that were missed.
    pub catchup: Catchup,
    /// How far back a missed one is made up for, in milliseconds.
    pub window_ms: u64,
    /// Longest that a cycle starts after it is due, in milliseconds.
    pub jitter_ms: u64,
    /// Failed cycles in a row after which the pipeline is paused.
    pub pause_on_failure: Option<u32>,
}

/// What a schedule goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// The clock on a wall.
    Cron {
        /// Its five fields.
        cron: Cron,
        /// Where the wall is.
        timezone: Tz,
    },
    /// The chain: blocks whose number is a multiple of this.
    Blocks(NonZeroU64),
}

/// What happens when a cycle is due and another one of the pipeline is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new one is left out.
    #[default]
    Skip,
    /// The new one waits until the others have ended.
    Queue,
    /// The others are cancelled, and the new one starts when they have ended.
    Replace,
}

/// What happens to due times that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Catchup {
    /// The latest is made up for.
    #[default]
    Latest,
    /// None is.
    None,
    /// Every one is.
    All,
}

/// What makes one due time different from all others of its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// A moment.
    Time(DateTime<Utc>),
    /// A block.
    Block(u64),
}

impl Schedule {
    /// What tells this schedule from the others of its pipeline. It stays the same when entries change places, and changes
    /// with the due times.
    pub fn key(&self) -> String {
        let digest = evidence::digest(&serde_json::json!(self.timing));
        digest[..12].to_owned()
    }
}

impl Timing {
    /// The first moment after `after` at which a cycle is due by the clock. None for blocks.
    pub fn next_time(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Cron { cron, timezone } => zone::next(cron, *timezone, after),
            Self::Blocks(_) => None,
        }
    }

    /// What is due next after `after`.
    pub fn next(&self, after: Due) -> Option<Due> {
        match (self, after) {
            (Self::Cron { .. }, Due::Time(after)) => self.next_time(after).map(Due::Time),
            (Self::Blocks(every), Due::Block(after)) => {
                (after / every.get()).checked_add(1)?.checked_mul(every.get()).map(Due::Block)
            }
            // A schedule that went by the clock and goes by blocks now has another key.
            (Self::Cron { .. }, Due::Block(_)) | (Self::Blocks(_), Due::Time(_)) => None,
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { cron, timezone } => write!(f, "{cron} {timezone}"),
            Self::Blocks(every) => write!(f, "every {every} blocks"),
        }
    }
}
