//! What becomes of every due time: a cycle, or a reason why there is none.
//!
//! One function over what is known, without clock, database or chance: two backends that know the same decide the same.

use chrono::{DateTime, Duration, Utc};
use serde::Serialize;
use serde_json::json;

use super::{Catchup, Due, Overlap, Schedule};
use crate::evidence;

/// Due times that are decided at once. After a year without a backend the rest follows in the next rounds.
pub const MOST_DECISIONS: usize = 500;

/// Cycles of a pipeline that may be open for one more to be queued behind them.
const MOST_OPEN: usize = 20;

/// A cycle that starts this long after its due time is on time: a round takes a second, a restart some more.
const GRACE_SECONDS: i64 = 60;

/// What a block takes on the chain, for spans of time that are given for schedules by block.
const BLOCK_SECONDS: i64 = 12;

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The time.
    pub now: DateTime<Utc>,
    /// The block, where there is a chain.
    pub block: Option<u64>,
}

/// The last time somebody, or too many failures, stopped the schedules of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub from: DateTime<Utc>,
    /// Until when; none while it lasts.
    pub until: Option<DateTime<Utc>>,
}

/// What is known of a schedule when it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// All due times up to this one are decided.
    pub decided_until: Due,
    /// The last pause of the pipeline.
    pub pause: Option<Pause>,
    /// Open cycles of the pipeline.
    pub open: usize,
}

/// What becomes of one due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The due time.
    pub due: Due,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// A cycle or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A cycle is created.
    Fire(Start),
    /// None is.
    Skip(Reason),
}

/// When the cycle that was created may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Now,
    /// When all that are open now have ended.
    AfterOthers,
    /// When all that are open now have ended, and they are asked to stop.
    InsteadOfOthers,
}

/// Why there is no cycle for a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The pipeline was paused.
    Paused,
    /// Nobody ran the schedule then, and `catchup: none`.
    Missed,
    /// Nobody ran the schedule then, a later time was missed as well, and `catchup: latest`.
    Superseded,
    /// Nobody ran the schedule then, and it was longer ago than `window`.
    OutsideWindow,
    /// Another cycle was open, and `overlap: skip`.
    Overlap,
    /// `overlap: queue` and too many wait already.
    QueueFull,
    /// As many cycles of the group were open as may be, and `on_limit: skip`.
    Concurrency,
}

impl Reason {
    /// The word stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Missed => "missed",
            Self::Superseded => "superseded",
            Self::OutsideWindow => "outside_window",
            Self::Overlap => "overlap",
            Self::QueueFull => "queue_full",
            Self::Concurrency => "concurrency",
        }
    }
}

/// What becomes of the due times that have come since the last decision, in their order.
///
/// At most [`MOST_DECISIONS`] of them; asked again with the last one decided, it goes on behind it.
pub fn decide(schedule: &Schedule, state: &State<'_>, clock: &Clock) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut open = state.open;
    let mut upcoming = ripe(schedule, state, state.decided_until, clock);
    while let Some((due, age)) = upcoming.filter(|_| decisions.len() < MOST_DECISIONS) {
        upcoming = ripe(schedule, state, due, clock);
        let moment = match due {
            Due::Time(time) => time,
            Due::Block(_) => clock.now - age,
        };
        let verdict = match missed(schedule, state, (moment, age), upcoming.is_some()) {
            Some(reason) => Verdict::Skip(reason),
            None => overlapping(schedule.overlap, open),
        };
        match verdict {
            Verdict::Fire(Start::InsteadOfOthers) => open = 1,
            Verdict::Fire(_) => open += 1,
            Verdict::Skip(_) => {}
        }
        decisions.push(Decision { due, verdict });
    }
    decisions
}

/// The due time after `after`, if it has come, and how long ago it was to start.
fn ripe(schedule: &Schedule, state: &State<'_>, after: Due, clock: &Clock) -> Option<(Due, Duration)> {
    let due = schedule.timing.next(after)?;
    let age = match due {
        Due::Time(time) => clock.now - time - jitter(schedule, state.pipeline, time),
        Due::Block(block) => time_of(clock.block?.checked_sub(block)?),
    };
    (age >= Duration::zero()).then_some((due, age))
}

/// About how long so many blocks take.
fn time_of(blocks: u64) -> Duration {
    let most = i64::MAX / 1000 / BLOCK_SECONDS;
    Duration::seconds(i64::try_from(blocks).unwrap_or(most).min(most) * BLOCK_SECONDS)
}

/// Why there will be no cycle, whatever is open, for what was due at a moment (of a block: about then) and was to start so long ago.
/// `is_followed` says that a later due time has come, too.
fn missed(
    schedule: &Schedule,
    state: &State<'_>,
    (moment, age): (DateTime<Utc>, Duration),
    is_followed: bool,
) -> Option<Reason> {
    let was_paused = |pause: Pause| pause.until.is_none_or(|until| (pause.from..until).contains(&moment));
    if state.pause.is_some_and(was_paused) {
        return Some(Reason::Paused);
    }
    if age <= Duration::seconds(GRACE_SECONDS) {
        return None;
    }
    match schedule.catchup {
        Catchup::None => Some(Reason::Missed),
        _ if age.num_milliseconds() > i64::try_from(schedule.window_ms).unwrap_or(i64::MAX) => {
            Some(Reason::OutsideWindow)
        }
        Catchup::Latest if is_followed => Some(Reason::Superseded),
        Catchup::Latest | Catchup::All => None,
    }
}

fn overlapping(overlap: Overlap, open: usize) -> Verdict {
    match overlap {
        _ if open == 0 => Verdict::Fire(Start::Now),
        Overlap::Skip => Verdict::Skip(Reason::Overlap),
        Overlap::Queue if open >= MOST_OPEN => Verdict::Skip(Reason::QueueFull),
        Overlap::Queue => Verdict::Fire(Start::AfterOthers),
        Overlap::Replace => Verdict::Fire(Start::InsteadOfOthers),
    }
}

/// How long after its due time the cycle starts: the same on every backend, another for every due time and pipeline.
pub fn jitter(schedule: &Schedule, pipeline: &str, due: DateTime<Utc>) -> Duration {
    if schedule.jitter_ms == 0 || schedule.timing.is_by_block() {
        return Duration::zero();
    }
    let digest = evidence::digest(&json!([pipeline, schedule.key(), due.timestamp()]));
    let random = u64::from_str_radix(&digest[..12], 16).unwrap_or_default();
    Duration::milliseconds(i64::try_from(random % schedule.jitter_ms).unwrap_or_default())
}

/// The first moment after `now` at which a cycle starts, if nothing is in its way. None for blocks.
pub fn next_start(schedule: &Schedule, pipeline: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // A due time that has passed may still lie ahead with its jitter.
    let longest = Duration::milliseconds(i64::try_from(schedule.jitter_ms).unwrap_or_default());
    let mut due = schedule.timing.next_time(now - longest)?;
    loop {
        let start = due + jitter(schedule, pipeline, due);
        if start > now {
            return Some(start);
        }
        due = schedule.timing.next_time(due)?;
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
