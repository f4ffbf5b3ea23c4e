//! The decisions over a virtual clock: every rule alone, then all of them at random.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::{Cron, Timing};
use super::*;

fn at(time: &str) -> DateTime<Utc> {
    format!("2026-11-22T{time}:00Z").parse().unwrap()
}

fn hourly() -> Schedule {
    let cron: Cron = "0 * * * *".parse().unwrap();
    Schedule {
        timing: Timing::Cron { cron, timezone: chrono_tz::UTC },
        overlap: Overlap::Skip,
        catchup: Catchup::Latest,
        window_ms: 7 * 86_400_000,
        jitter_ms: 0,
        pause_on_failure: None,
    }
}

fn state(decided_until: Due) -> State<'static> {
    State { pipeline: "p", decided_until, pause: None, open: 0 }
}

fn words(decisions: &[Decision]) -> Vec<String> {
    let word = |decision: &Decision| {
        let due = match decision.due {
            Due::Time(time) => time.format("%H:%M").to_string(),
            Due::Block(block) => block.to_string(),
        };
        match decision.verdict {
            Verdict::Fire(start) => format!("{due} {start:?}"),
            Verdict::Skip(reason) => format!("{due} {}", reason.word()),
        }
    };
    decisions.iter().map(word).collect()
}

fn decided(schedule: &Schedule, state: &State<'_>, now: &str) -> Vec<String> {
    words(&decide(schedule, state, &Clock { now: at(now), block: None }))
}

#[test]
fn a_due_time_fires_once_and_nothing_fires_early() {
    let (schedule, before) = (hourly(), state(Due::Time(at("09:30"))));
    assert!(decided(&schedule, &before, "09:59").is_empty());
    assert_eq!(decided(&schedule, &before, "10:00"), ["10:00 Now"]);
    assert!(decided(&schedule, &state(Due::Time(at("10:00"))), "10:00").is_empty());
    // A clock that was set back an hour.
    assert!(decided(&schedule, &state(Due::Time(at("10:00"))), "09:10").is_empty());
}

#[test]
fn missed_times_are_made_up_for_as_declared() {
    let before = state(Due::Time(at("07:30")));
    let of = |catchup| decided(&Schedule { catchup, overlap: Overlap::Queue, ..hourly() }, &before, "10:30");
    assert_eq!(of(Catchup::None), ["08:00 missed", "09:00 missed", "10:00 missed"]);
    assert_eq!(of(Catchup::Latest), ["08:00 superseded", "09:00 superseded", "10:00 Now"]);
    assert_eq!(of(Catchup::All), ["08:00 Now", "09:00 AfterOthers", "10:00 AfterOthers"]);
    let short = Schedule { window_ms: 100 * 60_000, catchup: Catchup::All, ..hourly() };
    assert_eq!(decided(&short, &before, "10:30"), ["08:00 outside_window", "09:00 Now", "10:00 overlap"]);
    let none = Schedule { catchup: Catchup::None, ..hourly() };
    assert_eq!(decided(&none, &state(Due::Time(at("09:30"))), "10:01"), ["10:00 Now"], "a minute is on time");
}

#[test]
fn an_open_cycle_is_respected_as_declared() {
    let before = State { open: 1, ..state(Due::Time(at("09:30"))) };
    let of = |overlap, open| decided(&Schedule { overlap, ..hourly() }, &State { open, ..before }, "10:00");
    assert_eq!(of(Overlap::Skip, 1), ["10:00 overlap"]);
    assert_eq!(of(Overlap::Queue, 1), ["10:00 AfterOthers"]);
    assert_eq!(of(Overlap::Queue, MOST_OPEN), ["10:00 queue_full"]);
    assert_eq!(of(Overlap::Replace, 3), ["10:00 InsteadOfOthers"]);
}

#[test]
fn what_falls_into_a_pause_is_not_made_up_for() {
    let all = Schedule { catchup: Catchup::All, overlap: Overlap::Queue, ..hourly() };
    let paused = |until| State { pause: Some(Pause { from: at("08:30"), until }), ..state(Due::Time(at("07:30"))) };
    assert_eq!(decided(&all, &paused(Some(at("09:30"))), "10:00"), ["08:00 Now", "09:00 paused", "10:00 AfterOthers"]);
    assert_eq!(decided(&all, &paused(None), "10:00"), ["08:00 paused", "09:00 paused", "10:00 paused"]);
}

/// The chain knows no clock times: a block is taken to be as old as its distance from the head says.
#[test]
fn blocks_of_a_pause_that_nobody_was_there_for_are_not_made_up_for() {
    let schedule = Schedule {
        timing: Timing::Blocks(100.try_into().unwrap()),
        catchup: Catchup::All,
        overlap: Overlap::Queue,
        ..hourly()
    };
    // A block is 12 s: 1000 was due at 09:00, and then one every 20 minutes.
    let (before, clock) = (state(Due::Block(900)), Clock { now: at("10:00"), block: Some(1300) });
    let paused = |from, until| State { pause: Some(Pause { from: at(from), until: Some(at(until)) }), ..before };
    assert_eq!(
        words(&decide(&schedule, &paused("09:10", "09:50"), &clock)),
        ["1000 Now", "1100 paused", "1200 paused", "1300 AfterOthers"]
    );
    assert_eq!(
        words(&decide(&schedule, &paused("08:30", "09:00"), &clock)),
        ["1000 Now", "1100 AfterOthers", "1200 AfterOthers", "1300 AfterOthers"],
        "at its very end it is over"
    );
}

#[test]
fn blocks_are_due_at_multiples_and_never_without_a_chain() {
    let schedule = Schedule { timing: Timing::Blocks(360.try_into().unwrap()), ..hourly() };
    let of =
        |decided, block| words(&decide(&schedule, &state(Due::Block(decided)), &Clock { now: at("10:00"), block }));
    assert!(of(1000, None).is_empty(), "nothing is decided, so nothing is lost");
    assert!(of(1000, Some(1079)).is_empty());
    assert_eq!(of(1000, Some(1080)), ["1080 Now"]);
    assert_eq!(of(1000, Some(1500)), ["1080 superseded", "1440 Now"]);
    assert!(of(1080, Some(900)).is_empty(), "a node that lags");
    assert!(of(u64::MAX - 1, Some(u64::MAX)).is_empty(), "the end of all blocks");
}

#[test]
fn jitter_spreads_pipelines_and_is_the_same_everywhere() {
    let schedule = Schedule { jitter_ms: 600_000, ..hourly() };
    let waits: BTreeSet<Duration> = (0..50).map(|n| jitter(&schedule, &format!("p{n}"), at("10:00"))).collect();
    assert!(waits.len() > 45 && waits.iter().all(|wait| *wait < Duration::minutes(10)), "{waits:?}");
    assert_eq!(jitter(&schedule, "p", at("10:00")), jitter(&schedule.clone(), "p", at("10:00")));
    let (before, wait) = (state(Due::Time(at("09:30"))), jitter(&schedule, "p", at("10:00")));
    let count = |now| decide(&schedule, &before, &Clock { now, block: None }).len();
    assert_eq!((count(at("10:00") + wait - Duration::milliseconds(1)), count(at("10:00") + wait)), (0, 1));
    assert_eq!(next_start(&schedule, "p", at("10:00")), Some(at("10:00") + wait));
    let later = at("11:00") + jitter(&schedule, "p", at("11:00"));
    assert_eq!(next_start(&schedule, "p", at("10:00") + wait), Some(later));
}

#[test]
fn a_year_without_a_backend_is_decided_in_pieces() {
    let start = at("00:00");
    let schedule = Schedule { timing: minutely(), ..hourly() };
    let (last, late) = (start + Duration::days(2), Duration::seconds(30));
    let clock = Clock { now: last + late, block: None };
    let (mut until, mut all) = (Due::Time(start), Vec::new());
    loop {
        let some = decide(&schedule, &state(until), &clock);
        let Some(last) = some.last() else { break };
        assert!(some.len() <= MOST_DECISIONS);
        until = last.due;
        all.extend(some);
    }
    assert_eq!(all.len(), 2 * 24 * 60);
    let fired: Vec<_> = all.iter().filter(|one| matches!(one.verdict, Verdict::Fire(_))).collect();
    assert_eq!((fired.len(), fired[0].due), (1, Due::Time(last)), "only the latest");
}

fn minutely() -> Timing {
    Timing::Cron { cron: "* * * * *".parse().unwrap(), timezone: chrono_tz::UTC }
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let zones = prop::sample::select(vec![chrono_tz::UTC, chrono_tz::Europe::Berlin, chrono_tz::America::New_York]);
    let crons = prop::sample::select(vec!["*/10 * * * *", "0 * * * *", "30 2 * * *", "0 */6 * * 1-5"]);
    let overlaps = prop::sample::select(vec![Overlap::Skip, Overlap::Queue, Overlap::Replace]);
    let catchups = prop::sample::select(vec![Catchup::None, Catchup::Latest, Catchup::All]);
    (zones, crons, overlaps, catchups, 0..3_600_000u64, 1..86_400_000u64).prop_map(
        |(timezone, cron, overlap, catchup, jitter_ms, window_ms)| Schedule {
            timing: Timing::Cron { cron: cron.parse().unwrap(), timezone },
            overlap,
            catchup,
            window_ms,
            jitter_ms,
            pause_on_failure: None,
        },
    )
}

proptest! {
    /// However often and irregularly it is asked, every due time is decided exactly once and in order, and nobody decides
    /// about the future.
    #[test]
    fn every_due_time_is_decided_once(
        schedule in schedules(),
        steps in prop::collection::vec((0..20_000i64, 0..3usize), 1..60),
    ) {
        let start: DateTime<Utc> = "2026-10-23T00:00:00Z".parse().unwrap();
        let (mut now, mut until, mut seen) = (start, Due::Time(start), Vec::new());
        for (seconds, open) in steps {
            now += Duration::seconds(seconds);
            for decision in decide(&schedule, &State { open, ..state(until) }, &Clock { now, block: None }) {
                until = decision.due;
                seen.push(decision.due);
            }
        }
        let mut expected = Vec::new();
        let mut next = schedule.timing.next_time(start);
        while let Some(due) = next.filter(|due| *due + jitter(&schedule, "p", *due) <= now) {
            expected.push(Due::Time(due));
            next = schedule.timing.next_time(due);
        }
        prop_assert_eq!(seen, expected);
    }
}
