//! What durability costs: a chain of stages, a wide fan-out, and the episodes of a large cycle, on the embedded database.
//!
//! Everything is real but the work: stages do nothing, so that what is measured is the engine, the journal and the disk. The
//! disk decides the times and differs by machine and by minute, so the chain is measured against a bare loop of commits that
//! takes turns with it. Prints each figure next to its target and fails when one is missed: `cargo bench --bench engine`.
#![expect(clippy::print_stdout, reason = "a bench is there to print")]

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../src/tests/support/database.rs"]
mod database;
mod engine_support;

use std::{process::ExitCode, time::Duration};

use engine_support::{bare, cycles, episodes, memory, server::Place};

const CHAIN: usize = 40;
const CHAIN_ROUNDS: usize = 15;
const FAN_OUT: usize = 10_000;
const FAN_OUT_ROUNDS: usize = 3;

/// The TLS provider that `main` of the program installs.
fn install_tls() {
    // The support files may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(measure())
}

async fn measure() -> ExitCode {
    let place = Place::start().await;
    println!("\n{}\nload of the machine at the start: {}", place.server(), memory::load());
    // First, while this process has not used much memory for anything else.
    let large = episodes::measure(&place).await;
    large.print();
    let chain = chain(&place).await;
    let fan_out = fan_out(&place).await;
    let checks = [
        ("commits of a stage, in bare commits", chain.stage_in_commits, Relation::AtMost, 4.0),
        ("durable tasks of a fan-out per second", fan_out, Relation::AtLeast, 1000.0),
        ("seconds to plan 256,000 episodes", large.planned.as_secs_f64(), Relation::AtMost, 10.0),
        ("seconds to resume among them", large.resumed.as_secs_f64(), Relation::AtMost, 5.0),
        ("MB at most, in all of that", large.peak_mb, Relation::AtMost, 500.0),
    ];
    println!("\nload of the machine at the end: {}\n", memory::load());
    place.stop().await;
    verdict(&checks)
}

struct Chain {
    stage_in_commits: f64,
}

/// A chain of no-ops and as many bare commits, in turns.
async fn chain(place: &Place) -> Chain {
    let mut bare = bare::Loop::new(&place.url).await;
    // Once for each, so that nobody pays for first times.
    bare.run(2 * CHAIN).await;
    cycles::run(&place.store, &cycles::chain(CHAIN)).await;
    let mut rounds = Vec::new();
    for _ in 0..CHAIN_ROUNDS {
        let commit = bare.run(2 * CHAIN).await / (2 * CHAIN) as u32;
        let stage = cycles::run(&place.store, &cycles::chain(CHAIN)).await / CHAIN as u32;
        rounds.push((commit, stage));
    }
    let ratios: Vec<f64> = rounds.iter().map(|(commit, stage)| stage.as_secs_f64() / commit.as_secs_f64()).collect();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("\n{CHAIN} stages one after the other; medians of {CHAIN_ROUNDS} rounds that take turns");
    println!("  bare commit       {:>9.3} ms", median(rounds.iter().map(|round| milliseconds(round.0)).collect()));
    println!("  stage             {:>9.3} ms", median(rounds.iter().map(|round| milliseconds(round.1)).collect()));
    let shown: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!("  stage / commit    {}", shown.join("  "));
    Chain { stage_in_commits: median(ratios) }
}

/// Tasks per second of a stage of many no-ops in the slowest round, creation of the cycle and its end included. Not the median: the
/// first wide stage of a new database is one that an operator sees.
async fn fan_out(place: &Place) -> f64 {
    let mut rates = Vec::new();
    for _ in 0..FAN_OUT_ROUNDS {
        let took = cycles::run(&place.store, &cycles::fan_out(FAN_OUT)).await;
        rates.push(FAN_OUT as f64 / took.as_secs_f64());
    }
    let shown: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    println!("\n{FAN_OUT} tasks side by side\n  tasks per second  {}", shown.join("  "));
    rates.into_iter().fold(f64::INFINITY, f64::min)
}

/// The middle one of an odd number of figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[derive(Clone, Copy)]
enum Relation {
    AtMost,
    AtLeast,
}

fn verdict(checks: &[(&str, f64, Relation, f64)]) -> ExitCode {
    let mut passed = true;
    for (name, value, relation, target) in checks {
        let (holds, sign) = match relation {
            Relation::AtMost => (value <= target, "<="),
            Relation::AtLeast => (value >= target, ">="),
        };
        passed &= holds;
        println!("{} {name:<38} {value:>9.2} {sign} {target}", if holds { "PASS" } else { "FAIL" });
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
