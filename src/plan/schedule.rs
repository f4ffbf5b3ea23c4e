//! A pipeline's `schedule`: from what is written to schedules that can be kept, every mistake located.

use std::{
    collections::HashSet,
    num::{NonZeroU32, NonZeroU64},
};

use chrono_tz::{TZ_VARIANTS, Tz};

use crate::manifest::document::{Document, NodeId};
use crate::manifest::located::Located;
use crate::manifest::pipeline;
use crate::manifest::{Diagnostic, Diagnostics, suggest};
use crate::schedule::{Catchup, Cron, Schedule, Timing, WINDOW_MS};

/// The longest jitter: more is another schedule.
const LONGEST_JITTER_MS: u64 = 86_400_000;

const MOST_FAILURES: u32 = 1000;

/// The longest interval in seconds: 30 days.
const LONGEST_INTERVAL: u32 = 30 * 86_400;

/// The schedules of a pipeline; those that are wrong are reported and left out.
pub(super) fn read(
    document: &Document,
    entries: &[Located<pipeline::Schedule>],
    found: &mut Diagnostics,
) -> Vec<Schedule> {
    let mut keys = HashSet::new();
    let mut schedules = Vec::new();
    for entry in entries {
        let Some(schedule) = schedule(document, entry, found) else { continue };
        if keys.insert(schedule.key()) {
            schedules.push(schedule);
        } else {
            found.push(document.error(entry.at, "another entry is due at the same times"));
        }
    }
    schedules
}

fn schedule(document: &Document, entry: &Located<pipeline::Schedule>, found: &mut Diagnostics) -> Option<Schedule> {
    let wire = &entry.value;
    let timing = match (&wire.cron, &wire.every) {
        (Some(cron), None) => by_clock(document, cron, wire.timezone.as_ref(), found),
        (None, Some(again)) => every(document, entry.at, again, wire, found),
        (Some(_), Some(_)) => {
            found.push(document.error(entry.at, "`cron` and `every` exclude each other"));
            None
        }
        (None, None) => {
            found.push(document.error(entry.at, "it is never due: write `cron` or `every`"));
            None
        }
    };
    if let Some(window) = wire.window.as_ref().filter(|_| wire.catchup == Catchup::None) {
        found.push(
            document.error(window.at, "`window` changes nothing: `catchup: none` makes up for nothing").warning(),
        );
    }
    let jitter_ms = wire.jitter.as_ref().map_or(0, |jitter| jitter.value.milliseconds());
    if let Some(jitter) = wire.jitter.as_ref().filter(|_| jitter_ms > LONGEST_JITTER_MS) {
        found.push(document.error(jitter.at, "a jitter is at most a day (`24h`)"));
    }
    let failures = wire.pause_on_failure.as_ref();
    if let Some(failures) = failures.filter(|count| !(1..=MOST_FAILURES).contains(&count.value)) {
        let message = format!("write how many failed cycles in a row: 1 to {MOST_FAILURES}");
        found.push(document.error(failures.at, message));
    }
    Some(Schedule {
        timing: timing?,
        overlap: wire.overlap,
        catchup: wire.catchup,
        window_ms: wire.window.as_ref().map_or(WINDOW_MS, |window| window.value.milliseconds()),
        jitter_ms,
        pause_on_failure: failures.map(|count| count.value),
    })
}

fn by_clock(
    document: &Document,
    cron: &Located<String>,
    timezone: Option<&Located<String>>,
    found: &mut Diagnostics,
) -> Option<Timing> {
    let fields: Option<Cron> = match cron.value.parse::<Cron>() {
        Ok(fields) => Some(fields),
        Err(error) => {
            found.push(document.error_within(cron.at, &error.part, error.message.clone()));
            None
        }
    };
    let zone = match timezone.map(|zone| zone.value.parse::<Tz>().map_err(|_| zone)) {
        None => Some(Tz::UTC),
        Some(Ok(zone)) => Some(zone),
        Some(Err(zone)) => {
            found.push(unknown_zone(document, zone));
            None
        }
    };
    Some(Timing::Cron { cron: fields?, timezone: zone? })
}

fn unknown_zone(document: &Document, zone: &Located<String>) -> Diagnostic {
    if zone.value.trim().is_empty() {
        return document.error(zone.at, "the time zone is empty");
    }
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    let problem = document.error(zone.at, format!("there is no time zone `{}`", zone.value));
    // A city is remembered where its continent is not.
    let city = zone.value.rsplit('/').next().unwrap_or_default().replace(' ', "_");
    let with_city =
        || names().find(|name| name.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&city)));
    match suggest::closest(&zone.value, names()).or_else(with_city) {
        Some(name) => problem.help(format!("did you mean `{name}`?")),
        None => problem.help("zones are named as in the IANA database: `UTC`, `Europe/Berlin`, `America/New_York`"),
    }
}

/// Again and again, by the chain or by the time that passes.
fn every(
    document: &Document,
    at: NodeId,
    every: &pipeline::Every,
    wire: &pipeline::Schedule,
    found: &mut Diagnostics,
) -> Option<Timing> {
    let zone = ("timezone", wire.timezone.as_ref().map(|it| it.at), "no wall clock is asked");
    let jitter = wire.jitter.as_ref().filter(|_| every.blocks.is_some()).map(|it| it.at);
    for (name, at, why) in [zone, ("jitter", jitter, "blocks come at the same time everywhere")] {
        if let Some(at) = at {
            found.push(document.error(at, format!("`{name}` belongs to `cron`; {why}")));
        }
    }
    match (&every.blocks, &every.time) {
        (Some(blocks), None) => {
            let number = NonZeroU64::new(blocks.value);
            if number.is_none() {
                found.push(document.error(blocks.at, "write how many blocks lie between two cycles: 1 or more"));
            }
            number.map(Timing::Blocks)
        }
        (None, Some(time)) => {
            let seconds = interval(time.value.milliseconds());
            if seconds.is_none() {
                found.push(document.error(time.at, "write whole seconds, from `1s` to `720h`"));
            }
            seconds.map(Timing::Interval)
        }
        _ => {
            found.push(document.error(at, "write either `blocks` or `time`"));
            None
        }
    }
}

/// Whole seconds, at most 30 days of them.
fn interval(milliseconds: u64) -> Option<NonZeroU32> {
    let seconds = u32::try_from(milliseconds / 1000).ok().filter(|seconds| *seconds <= LONGEST_INTERVAL);
    seconds.filter(|_| milliseconds.is_multiple_of(1000)).and_then(NonZeroU32::new)
}
