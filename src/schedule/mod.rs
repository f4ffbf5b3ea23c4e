//! When cycles start by themselves: due times of a schedule, and what becomes of each.
//!
//! Pure: the time and the block are arguments, so a year is a loop in a test. `cron` reads five fields, `zone` finds the
//! moment a clock on a wall shows a time, [`decide()`] says what happens to every due time. Who writes that down, and starts
//! the cycles, is in `store` and `backend`.

mod cron;
mod decide;
mod zone;

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
};

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
    /// The clock of the machine: moments whose distance from 1970 in seconds is a multiple of this.
    Interval(NonZeroU32),
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

/// How far back a missed cycle is made up for when nobody says: one of last month helps nobody; one of last week's holiday may.
pub const WINDOW_MS: u64 = 7 * 86_400_000;

impl Schedule {
    /// A schedule that leaves everything else as it is when nobody says.
    pub fn of(timing: Timing) -> Self {
        let (overlap, catchup) = (Overlap::default(), Catchup::default());
        Self { timing, overlap, catchup, window_ms: WINDOW_MS, jitter_ms: 0, pause_on_failure: None }
    }

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
            Self::Interval(seconds) => {
                let seconds = i64::from(seconds.get());
                DateTime::from_timestamp((after.timestamp().div_euclid(seconds) + 1) * seconds, 0)
            }
            Self::Blocks(_) => None,
        }
    }

    /// Whether the chain decides, and no clock.
    pub fn is_by_block(&self) -> bool {
        matches!(self, Self::Blocks(_))
    }

    /// What is due next after `after`.
    pub fn next(&self, after: Due) -> Option<Due> {
        match (self, after) {
            (Self::Cron { .. } | Self::Interval(_), Due::Time(after)) => self.next_time(after).map(Due::Time),
            (Self::Blocks(every), Due::Block(after)) => {
                (after / every.get()).checked_add(1)?.checked_mul(every.get()).map(Due::Block)
            }
            // A schedule that went by the clock and goes by blocks now has another key.
            (Self::Cron { .. } | Self::Interval(_), Due::Block(_)) | (Self::Blocks(_), Due::Time(_)) => None,
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { cron, timezone } => write!(f, "{cron} {timezone}"),
            Self::Interval(seconds) => write!(f, "every {}", span(seconds.get())),
            Self::Blocks(every) => write!(f, "every {every} blocks"),
        }
    }
}

/// Seconds in the largest unit that they are a multiple of.
fn span(seconds: u32) -> String {
    match (seconds % 3600, seconds % 60) {
        (0, _) => format!("{}h", seconds / 3600),
        (_, 0) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(seconds: u32, after: &str) -> String {
        let timing = Timing::Interval(seconds.try_into().unwrap());
        timing.next_time(after.parse().unwrap()).unwrap().to_rfc3339()
    }

    #[test]
    fn an_interval_is_due_at_multiples_of_itself_whoever_asks_and_whenever() {
        assert_eq!(next(3600, "2026-03-01T10:00:00Z"), "2026-03-01T11:00:00+00:00");
        assert_eq!(next(3600, "2026-03-01T10:59:59.999Z"), "2026-03-01T11:00:00+00:00");
        assert_eq!(next(90, "1970-01-01T00:00:00Z"), "1970-01-01T00:01:30+00:00");
        assert_eq!(next(90, "1969-12-31T23:59:00Z"), "1970-01-01T00:00:00+00:00");
    }

    #[test]
    fn an_interval_is_told_in_its_largest_unit() {
        let told = |seconds: u32| Timing::Interval(seconds.try_into().unwrap()).to_string();
        assert_eq!([told(7200), told(5400), told(61)], ["every 2h", "every 90m", "every 61s"]);
    }
}
