//! What the rollout loop costs, what it gains over playing one episode at a time, and what a hostile miner can take from it.
//!
//! Starts the real environment server with the real simulator, and a mock miner that takes 20 or 50 ms over each action and
//! keeps book of how long it really took, with and without cameras. Prints each figure next to its target and fails when one is missed.
//! `ROBO_TEST_PYTHON` names the interpreter, as for the tests: `cargo bench --bench rollout`. Names of parts play only
//! these: `cargo bench --bench rollout -- 20ms 50ms hostile`.
#![expect(clippy::print_stdout, reason = "a bench is there to print")]

#[path = "../src/tests/abuse.rs"]
mod abuse;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../src/tests/children.rs"]
mod children;
mod rollout_support;

use std::{process::ExitCode, time::Duration};

use rollout_support::{
    contained::{self, Pair},
    hostile,
    mock::Mock,
    overload, permits,
    play::{Kind, Load, STEPS, Table, simulations},
    raw::Raw,
    round::{Round, inflation, median, watch},
};

/// What is played, and what is to be reached with it.
struct Part {
    name: &'static str,
    load: Load,
    served: Kind,
    /// Workers alone that it is compared with; the CPU of a step is held against that of the first.
    alone: &'static [Kind],
    cpu: f64,
    rounds: u32,
    /// Playing one episode at a time is slow; in so many rounds it is tried.
    slow_rounds: u32,
    steps: Steps,
}

/// How many steps per second are to be reached.
enum Steps {
    /// Times as many as one episode at a time.
    Times(f64),
    /// So many.
    Rate(f64),
}

const PARTS: [Part; 5] = [
    Part {
        name: "shipped",
        load: Load { miner: Duration::from_millis(20), of_each: 8 },
        served: Kind::Shipped,
        alone: &[Kind::Shipped],
        cpu: 1.25,
        rounds: 15,
        slow_rounds: 5,
        steps: Steps::Times(40.0),
    },
    Part {
        name: "20ms",
        load: Load { miner: Duration::from_millis(20), of_each: 8 },
        served: Kind::Quick,
        alone: &[Kind::Shipped, Kind::Quick],
        cpu: 1.15,
        rounds: 15,
        slow_rounds: 5,
        steps: Steps::Times(50.0),
    },
    Part {
        name: "50ms",
        load: Load { miner: Duration::from_millis(50), of_each: 18 },
        served: Kind::Quick,
        alone: &[Kind::Shipped, Kind::Quick],
        cpu: 1.15,
        rounds: 9,
        slow_rounds: 3,
        steps: Steps::Times(110.0),
    },
    Part {
        name: "busy",
        load: Load { miner: Duration::from_millis(20), of_each: 18 },
        served: Kind::Quick,
        alone: &[Kind::Shipped, Kind::Quick],
        cpu: 1.15,
        rounds: 15,
        slow_rounds: 5,
        steps: Steps::Times(50.0),
    },
    Part {
        name: "cameras",
        load: Load { miner: Duration::from_millis(20), of_each: 2 },
        served: Kind::Cameras,
        alone: &[Kind::Cameras],
        cpu: 1.1,
        rounds: 7,
        slow_rounds: 1,
        steps: Steps::Rate(200.0),
    },
];

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("it is the first");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    // Cargo says `--bench` to whatever it runs.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut passed = true;
    for part in PARTS.iter().filter(|part| is_wanted(part.name)) {
        passed &= verdict(part, workers, &play(part, workers, &runtime));
    }
    if is_wanted("overload") {
        passed &= overload_verdict(&runtime.block_on(overload::measure(workers)));
    }
    if is_wanted("container") {
        passed &= container_verdict(&runtime.block_on(contained::measure(workers)));
    }
    if is_wanted("hostile") {
        passed &= hostile_verdict(&runtime.block_on(hostile::measure(workers)));
    }
    if is_wanted("permits") {
        let miner = Duration::from_millis(20);
        passed &= permits_verdict(&runtime.block_on(permits::measure(workers, miner)), permits::bookkeeping());
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(part: &Part, workers: u32, runtime: &tokio::runtime::Runtime) -> Vec<Round> {
    let load = part.load;
    let mock = Mock::start(load.miner);
    let table = runtime.block_on(async {
        let table = Table::set(load, workers, part.served).await;
        // Once for the environments to be made.
        table.play_many(load, &mock, 0).await;
        table
    });
    let start = |kind: &Kind| Raw::start(&simulations(*kind), workers, load.slots(workers));
    let mut alone: Vec<Raw> = part.alone.iter().map(start).collect();
    // The machine may be faster in one second than in the next: rounds are short, and what is compared takes turns.
    let rounds = (1..=part.rounds).map(|round| {
        let alone = alone.iter_mut().map(|alone| alone.cpu_ms_per_step(1000 * round, STEPS)).collect();
        runtime.block_on(async {
            let watch = watch(load, &mock, table.process);
            let (reports, many) = tokio::join!(table.play_many(load, &mock, 1000 * round), watch);
            let slow = round <= part.slow_rounds;
            let one = if slow { Some(table.play_one(&mock, 1000 * round + 500).await) } else { None };
            Round { alone, one, inflation: inflation(&reports, &mock), ..many }
        })
    });
    rounds.collect()
}

fn verdict(part: &Part, workers: u32, rounds: &[Round]) -> bool {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let one = median(rounds.iter().filter_map(|round| round.one));
    let (in_flight, miner) = (part.load.in_flight(), part.load.miner.as_millis());
    println!("\n{}: {in_flight} episodes in flight, {workers} workers, a miner of {miner} ms", part.name);
    println!("medians of {} rounds; CPU in milliseconds a step\n", rounds.len());
    println!("  steps per second                    {:>9.0}", of(|round| round.steps_per_second));
    println!("  one episode at a time               {:>9.1}", one);
    println!("  CPU of server + workers             {:>9.3}", of(|round| round.cpu_ms_per_step));
    println!("  of it the server                    {:>9.3}", of(|round| round.cpu_ms_per_step * round.server_share));
    for (at, kind) in part.alone.iter().enumerate() {
        println!(
            "  CPU of workers alone, {:<14}{:>9.3}",
            kind.word(),
            median(rounds.iter().map(|round| round.alone[at]))
        );
    }
    let [recorded, taken] = [|round: &Round| round.inflation.recorded, |round: &Round| round.inflation.taken];
    for (name, latency) in [("recorded      ", recorded), ("the miner took", taken)] {
        let [p50, p95] = [0, 1].map(|at| median(rounds.iter().map(|round| latency(round)[at])));
        println!("  latency {name}              {p50:>9.2} ms p50 {p95:>9.2} ms p95");
    }
    println!("  worst episode's inflation           {:>9.2} ms p95\n", of(|round| round.inflation.worst_p95));
    for (at, kind) in part.alone.iter().enumerate() {
        let ratios: Vec<f64> = rounds.iter().map(|round| round.cpu_ms_per_step / round.alone[at]).collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        println!("  CPU against {:<14}{:>6.2}, by round {}", kind.word(), median(ratios), each.join(" "));
    }
    println!();
    let rate = of(|round| round.steps_per_second);
    [
        at_most("CPU against workers alone", of(|round| round.cpu_ms_per_step / round.alone[0]), part.cpu),
        at_most("error of the latency's p50 in ms", of(|round| round.error()[0]), 1.0),
        at_most("error of the latency's p95 in ms", of(|round| round.error()[1]), 3.0),
        match part.steps {
            Steps::Times(times) => at_least("steps/s against one at a time", rate / one, times),
            Steps::Rate(least) => at_least("steps/s", rate, least),
        },
    ]
    .into_iter()
    .all(|holds| holds)
}

fn container_verdict(pairs: &[Pair]) -> bool {
    println!("\ncontainer: the same episodes by a server on this machine and by one in a container, in turns");
    let cpu: Vec<f64> =
        pairs.iter().map(|pair| pair.container.cpu_ms_per_step / pair.process.cpu_ms_per_step).collect();
    let steps: Vec<f64> =
        pairs.iter().map(|pair| pair.process.steps_per_second / pair.container.steps_per_second).collect();
    for (name, of) in
        [("process", (|pair| &pair.process) as fn(&Pair) -> &Round), ("container", |pair| &pair.container)]
    {
        let [rate, cpu] = [|round: &Round| round.steps_per_second, |round: &Round| round.cpu_ms_per_step]
            .map(|figure| median(pairs.iter().map(|pair| figure(of(pair)))));
        println!("  {name:<10} {rate:>7.0} steps per second {cpu:>7.3} ms of CPU a step");
    }
    println!();
    [
        at_most("CPU per step against process", median(cpu), 1.05),
        at_most("time per step against process", median(steps), 1.05),
    ]
    .into_iter()
    .all(|holds| holds)
}

fn overload_verdict([idle, busy]: &[overload::Outcomes; 2]) -> bool {
    println!("\noverload: honest miners of 20 ms with a time-out of 100 ms, alone and beside 8 busy loops\n");
    println!(
        "                       episodes  miner faults  overloaded  recorded p50, p95 ms     truth p50, p95 ms  seconds"
    );
    for (name, of) in [("alone", idle), ("beside busy loops", busy)] {
        let overload::Outcomes { played, miner_faults, overloaded, inflation, seconds } = of;
        let ([recorded, recorded_p95], [taken, taken_p95]) = (inflation.recorded, inflation.taken);
        println!(
            "  {name:<20} {played:>8} {miner_faults:>13} {overloaded:>11} {recorded:>12.2} {recorded_p95:>9.2} {taken:>13.2} \
             {taken_p95:>8.2} {seconds:>8.1}"
        );
    }
    println!();
    let error = (busy.inflation.recorded[1] - busy.inflation.taken[1]).abs();
    [
        at_most("miner faults beside busy loops", busy.miner_faults as f64, 0.0),
        at_most("error of the latency's p95 in ms", error, 10.0),
    ]
    .into_iter()
    .all(|holds| holds)
}

fn permits_verdict(rates: &permits::Rates, bookkeeping: f64) -> bool {
    println!("\npermits: steps per second of eight tasks with 64 places, miners of 20 ms");
    println!("  {:<8} {:>16} {:>16} {:>16}", "miners", "without permits", "one at a time", "announced 16");
    for (miners, [without, one, sixteen]) in permits::MINERS.iter().zip(rates) {
        println!("  {miners:<8} {without:>16.0} {one:>16.0} {sixteen:>16.0}");
    }
    println!("  bookkeeping of an episode, 256 miners and 16 environments: {bookkeeping:.2} us\n");
    let [_, some, many] = rates;
    [
        at_least("64 miners, one at a time", many[1] / many[0], 0.95),
        at_least("64 miners that announce 16", many[2] / many[0], 0.95),
        at_least("16 miners that announce 16", some[2] / some[0], 0.95),
        at_most("bookkeeping in us", bookkeeping, 100.0),
    ]
    .into_iter()
    .all(|holds| holds)
}

fn hostile_verdict(damage: &hostile::Damage) -> bool {
    println!("\nseven miners beside a hostile one: their steps per second, as a share of those beside a polite one");
    for (abuse, kept) in &damage.kept {
        println!("  {:<26} {kept:>9.2}", format!("{abuse:?}"));
    }
    let memory: Vec<String> = damage.memory.iter().map(|memory| format!("{memory:.1}")).collect();
    println!("  the server's memory after each round: {} MiB\n", memory.join("  "));
    let least = damage.kept.iter().map(|(_, kept)| *kept).fold(f64::INFINITY, f64::min);
    let grown = damage.memory.last().zip(damage.memory.first()).map_or(0.0, |(last, first)| last - first);
    [at_least("least share of steps/s kept", least, 0.9), at_most("growth of memory in MiB", grown, 8.0)]
        .into_iter()
        .all(|holds| holds)
}

fn at_most(name: &str, value: f64, target: f64) -> bool {
    check(name, value, "<=", target, value <= target)
}

fn at_least(name: &str, value: f64, target: f64) -> bool {
    check(name, value, ">=", target, value >= target)
}

fn check(name: &str, value: f64, relation: &str, target: f64, holds: bool) -> bool {
    println!("{} {name:<33} {value:>8.2} {relation} {target}", if holds { "PASS" } else { "FAIL" });
    holds
}
