//! The subset game: random tables, tables made to be hard, and the yardstick that tries every subset.
//!
//! `cargo bench --bench scoring`; `docs/scoring.md` has figures.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use robo::scoring::{MinerRow, Pareto, Rule, SubsetWeighting, Table, Ties, pareto};

#[path = "../src/scoring/brute_force.rs"]
mod brute_force;

/// `SplitMix64`: the same tables on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

fn table(environments: usize, rates: Vec<Vec<f64>>) -> Table {
    let names = (0..environments).map(|index| format!("metaworld/task-{index}")).collect();
    let miners =
        (0_u16..).zip(rates).map(|(uid, rates)| MinerRow { uid, first_block: Some(u64::from(uid)), rates }).collect();
    Table::new(names, vec![50; environments], miners).expect("the rates are within 0 and 1")
}

/// Every rate a whole number of successes of 50 episodes, all equally likely.
fn random(miners: usize, environments: usize) -> Table {
    let mut random = Random(1);
    table(
        environments,
        (0..miners).map(|_| (0..environments).map(|_| random.below(51) as f64 / 50.0).collect()).collect(),
    )
}

/// Every miner is weak on `weak` environments of its own and equally good on the others: nobody is out of the game early,
/// each has as many large masks to meet as there are rivals, and almost no two masks are alike.
fn adversarial(miners: usize, environments: usize, weak: usize) -> Table {
    let mut random = Random(2);
    let mut row = || {
        let mut rates = vec![0.9; environments];
        while rates.iter().filter(|rate| **rate < 0.5).count() < weak {
            rates[random.below(environments as u64) as usize] = 0.1;
        }
        rates
    };
    table(environments, (0..miners).map(|_| row()).collect())
}

fn play(table: &Table, rule: Rule) -> Pareto {
    pareto(black_box(table), rule, Ties::default(), SubsetWeighting::Size).expect("the tables here can be counted")
}

fn scoring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("random");
    for (rule, name) in [(Rule::Epsilon, "epsilon"), (Rule::FirstCommit, "first_commit")] {
        for (miners, environments) in [(64, 8), (256, 8), (256, 24)] {
            let table = random(miners, environments);
            group.bench_function(format!("{name}/{miners}x{environments}"), |bencher| {
                bencher.iter(|| play(&table, rule))
            });
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("adversarial");
    group.sample_size(10);
    for (miners, environments, weak) in [(256, 8, 3), (256, 24, 4), (256, 32, 6)] {
        let table = adversarial(miners, environments, weak);
        group.bench_function(format!("epsilon/{miners}x{environments}"), |bencher| {
            bencher.iter(|| play(&table, Rule::Epsilon));
        });
    }
    group.finish();

    let table = random(64, 8);
    let margins = play(&table, Rule::Epsilon);
    let epsilons: Vec<f64> = table.environments().iter().map(|name| margins.epsilons[name]).collect();
    let mut group = criterion.benchmark_group("every_subset");
    group.sample_size(10);
    group.bench_function("epsilon/64x8", |bencher| {
        let rate = |row: usize, environment: usize| table.miners()[row].rates[environment];
        let is_better = |a: usize, b: usize, e: usize| rate(a, e) > rate(b, e) + epsilons[e];
        let rule = (Rule::Epsilon, Ties::default());
        bencher.iter(|| brute_force::play(black_box(&table), rule, SubsetWeighting::Size, &is_better));
    });
    group.finish();
}

criterion_group!(benches, scoring);
criterion_main!(benches);
