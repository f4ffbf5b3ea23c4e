//! Ten thousand random cycles through the dispatcher, on a clock that is only a number.
//!
//! Every cycle is a pure function of its seed: its definition, what its attempts come to, when its owner crashes, is robbed of
//! its lease, is cancelled, hears things twice or late, and what the person does whom a paused or failed cycle waits for.
//! `world.rs` plays it, `checks.rs` watches every line that the journal takes. A seed that breaks a rule is printed;
//! `ROBO_SIMULATION_SEED=n cargo test simulation` plays that one cycle again and shows its journal.

mod cases;
mod checks;
mod world;

use std::{
    ops::AddAssign,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use crate::config;
use world::World;

const CYCLES: u64 = 10_000;

/// How often the worlds met what they are there to meet.
#[derive(Debug, Default, Clone, Copy)]
struct Met {
    crashes: usize,
    robberies: usize,
    refused_writes: usize,
    cancels: usize,
    repeated_words: usize,
    full_pools: usize,
    expansions: usize,
    empty_matrices: usize,
    pauses: usize,
    resumes: usize,
    reopenings: usize,
    retries: usize,
    queue_timeouts: usize,
    stopped_by_a_sibling: usize,
    on_failure_runs: usize,
    episodes: usize,
    quorums: usize,
}

impl Met {
    fn fields(&self) -> [(&'static str, usize); 17] {
        [
            ("crashes", self.crashes),
            ("robberies", self.robberies),
            ("refused_writes", self.refused_writes),
            ("cancels", self.cancels),
            ("repeated_words", self.repeated_words),
            ("full_pools", self.full_pools),
            ("expansions", self.expansions),
            ("empty_matrices", self.empty_matrices),
            ("pauses", self.pauses),
            ("resumes", self.resumes),
            ("reopenings", self.reopenings),
            ("retries", self.retries),
            ("queue_timeouts", self.queue_timeouts),
            ("stopped_by_a_sibling", self.stopped_by_a_sibling),
            ("on_failure_runs", self.on_failure_runs),
            ("episodes", self.episodes),
            ("quorums", self.quorums),
        ]
    }
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.robberies += other.robberies;
        self.refused_writes += other.refused_writes;
        self.cancels += other.cancels;
        self.repeated_words += other.repeated_words;
        self.full_pools += other.full_pools;
        self.expansions += other.expansions;
        self.empty_matrices += other.empty_matrices;
        self.pauses += other.pauses;
        self.resumes += other.resumes;
        self.reopenings += other.reopenings;
        self.retries += other.retries;
        self.queue_timeouts += other.queue_timeouts;
        self.stopped_by_a_sibling += other.stopped_by_a_sibling;
        self.on_failure_runs += other.on_failure_runs;
        self.episodes += other.episodes;
        self.quorums += other.quorums;
    }
}

/// Play one cycle; what it met, or the seed with what went wrong.
fn play(seed: u64) -> Result<Met, String> {
    watched(seed, World::play)
}

/// Have something done with the world of a seed; if that breaks a rule, how to see it again.
fn watched(seed: u64, deed: impl FnOnce(&mut World)) -> Result<Met, String> {
    let mut world = World::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| deed(&mut world)));
    played.map(|()| world.met).map_err(|panic| {
        let told = panic.downcast_ref::<String>().cloned();
        let told = told.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let journal: Vec<String> = world.journal_lines();
        format!("{}\n\nROBO_SIMULATION_SEED={seed} cargo test simulation\n{told}", journal.join("\n"))
    })
}

#[test]
fn simulation_of_ten_thousand_cycles_breaks_no_rule() {
    if let Some(seed) = config::simulation_seed() {
        play(seed).unwrap_or_else(|told| panic!("{told}"));
        return;
    }
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let shares = thread::scope(|scope| {
        let share =
            |first: u64| move || (first..CYCLES).step_by(threads as usize).map(play).collect::<Result<Vec<_>, _>>();
        let handles: Vec<_> = (0..threads).map(|first| scope.spawn(share(first))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect::<Vec<_>>()
    });
    let mut met = Met::default();
    for share in shares {
        share.unwrap_or_else(|told| panic!("{told}")).into_iter().for_each(|one| met += one);
    }
    // A world that never meets what it is there for proves nothing.
    for (name, count) in met.fields() {
        assert!(count >= 100, "only {count} {name}: {met:?}");
    }
}

#[test]
fn a_broken_rule_is_told_with_its_seed_and_journal() {
    let told = watched(1234, |world| {
        world.play();
        panic!("two and two are {}", 5);
    })
    .unwrap_err();
    assert!(told.contains("\nROBO_SIMULATION_SEED=1234 cargo test simulation\ntwo and two are 5"), "{told}");
    assert!(told.starts_with(&World::journal_of(1234)), "the same seed has another journal: {told}");
}
