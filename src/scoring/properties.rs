//! What must hold of every table, and small tables worked out by hand.

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;

use super::*;

fn table(environments: usize, episodes: u32, miners: Vec<MinerRow>) -> Table {
    let names = (0..environments).map(|index| format!("e{index:02}")).collect();
    Table::new(names, vec![episodes; environments], miners).unwrap()
}

fn row(uid: u16, first_block: Option<u64>, rates: &[f64]) -> MinerRow {
    MinerRow { uid, first_block, rates: rates.to_vec() }
}

fn points(found: &Pareto) -> Vec<(u16, f64)> {
    found.points.iter().map(|(uid, points)| (*uid, *points)).collect()
}

/// Margins: e00 has rates 0.5, 0.9 and 0.7, e01 has 0.5, 0.5 and 0.9, at 16 episodes:
/// std 0.163299 and 0.188562, so epsilons 0.081650 and 0.094281.
fn three_miners() -> Table {
    table(2, 16, vec![row(1, None, &[0.5, 0.5]), row(2, None, &[0.9, 0.5]), row(3, None, &[0.7, 0.9])])
}

#[test]
fn epsilon_by_hand() {
    let found = pareto(&three_miners(), Rule::Epsilon, SubsetWeighting::Size).unwrap();
    assert!((found.epsilons["e00"] - 0.081_649_658_092_772_6).abs() < 1e-12);
    assert!((found.epsilons["e01"] - 0.094_280_904_158_206_34).abs() < 1e-12);
    // 2 beats 1 (better on e00, equal on e01); 3 beats 1; 2 and 3 each are better somewhere.
    assert_eq!(found.frontier, [2, 3]);
    // {e00} goes to 2, {e01} to 3; on both together 2 and 3 do not dominate each other, so nobody wins.
    assert_eq!(points(&found), [(1, 0.0), (2, 1.0), (3, 1.0)]);
}

#[test]
fn weightings_by_hand() {
    // 2 is better on e00 and equal on e01 and e02: it wins every subset that holds e00: 1 of size 1, 2 of size 2, 1 of 3.
    let table = table(3, 16, vec![row(1, None, &[0.1, 0.5, 0.5]), row(2, None, &[0.9, 0.5, 0.5])]);
    for (weighting, expected) in [
        (SubsetWeighting::Size, 1.0 + 2.0 * 2.0 + 3.0),
        (SubsetWeighting::Exponential, 1.0 + 2.0 * 2.0 + 4.0),
        (SubsetWeighting::Equal, 4.0),
    ] {
        assert_eq!(points(&pareto(&table, Rule::Epsilon, weighting).unwrap()), [(1, 0.0), (2, expected)]);
    }
}

#[test]
fn points_without_a_success_are_burnt_and_not_paid() {
    let rows = |best: f64| table(2, 100, vec![row(1, Some(10), &[0.0, 0.0]), row(2, Some(11), &[best, 0.0])]);
    // Nobody succeeds, and whoever came first has every point; so has a lone miner, under either rule.
    let lone = |rule| pareto(&table(1, 9, vec![row(1, None, &[0.0])]), rule, SubsetWeighting::Size).unwrap();
    let first = pareto(&rows(0.0), Rule::FirstCommit, SubsetWeighting::Size).unwrap();
    for found in [first, lone(Rule::FirstCommit), lone(Rule::Epsilon)] {
        assert!(found.all_rates_zero && found.points[&1] > 0.0);
        let burnt = found.weights(1.0, AllZero::Burn(7)).unwrap().weights;
        assert_eq!((burnt[&7], burnt[&1]), (1.0, 0.0));
        // As the reference paid.
        assert!(found.weights(1.0, AllZero::Uniform).unwrap().weights[&1] > 0.9);
    }
    // A single success is enough, whoever has it.
    let some = pareto(&rows(0.01), Rule::FirstCommit, SubsetWeighting::Size).unwrap();
    assert!(!some.all_rates_zero);
    assert_eq!(some.weights(1.0, AllZero::Burn(7)), some.weights(1.0, AllZero::Uniform));
}

#[test]
fn first_commit_by_hand() {
    // At 100 episodes the threshold of 0.5 is 0.575 and that of 0.6 is 0.6 + 1.5 * sqrt(0.24 / 100) = 0.673485.
    let rows = |second: Option<u64>| table(2, 100, vec![row(1, Some(10), &[0.5, 0.5]), row(2, second, &[0.6, 0.55])]);
    // 2 came later: above 0.575 on e00 only, so {e00} is its own, {e01} and both together stay with 1.
    for later in [Some(11), Some(10), None] {
        let found = pareto(&rows(later), Rule::FirstCommit, SubsetWeighting::Size).unwrap();
        assert_eq!((found.frontier.clone(), points(&found)), (vec![1], vec![(1, 3.0), (2, 1.0)]), "{later:?}");
        assert!((found.thresholds[&1]["e00"] - 0.575).abs() < 1e-12);
        assert!((found.thresholds[&2]["e00"] - 0.673_484_692_283_495_4).abs() < 1e-12);
    }
    // 2 came first: 1 is above nothing.
    let found = pareto(&rows(Some(9)), Rule::FirstCommit, SubsetWeighting::Size).unwrap();
    assert_eq!((found.frontier.clone(), points(&found)), (vec![2], vec![(1, 0.0), (2, 4.0)]));
}

#[test]
fn first_commit_may_go_round_in_a_circle() {
    // Thresholds at 100 episodes: 0.5 -> 0.575, 0.55 -> 0.6246, 0.6 -> 0.6735. 3 (latest) is above 1 but not above 2, which
    // is not above 1: 1 beats 2, 2 beats 3, 3 beats 1.
    let table = table(1, 100, vec![row(1, Some(1), &[0.5]), row(2, Some(2), &[0.55]), row(3, Some(3), &[0.6])]);
    let found = pareto(&table, Rule::FirstCommit, SubsetWeighting::Size).unwrap();
    assert_eq!((found.frontier.clone(), points(&found)), (vec![], vec![(1, 0.0), (2, 0.0), (3, 0.0)]));
}

#[test]
fn a_lone_miner_wins_all() {
    for rule in [Rule::Epsilon, Rule::FirstCommit] {
        let alone = table(3, 50, vec![row(7, None, &[0.0, 0.0, 0.0])]);
        let found = pareto(&alone, rule, SubsetWeighting::Size).unwrap();
        // 3 subsets of 1, 3 of 2, 1 of 3.
        assert_eq!((found.frontier.clone(), points(&found)), (vec![7], vec![(7, 12.0)]));
    }
}

#[test]
fn nobody_at_all_is_an_empty_result() {
    for rule in [Rule::Epsilon, Rule::FirstCommit] {
        let found = pareto(&table(3, 50, vec![]), rule, SubsetWeighting::Size).unwrap();
        assert!(found.frontier.is_empty() && found.points.is_empty() && found.thresholds.is_empty());
        assert_eq!(found.epsilons["e00"], 0.01);
    }
}

#[test]
fn equals_share_the_frontier_and_win_nothing() {
    let twins = table(2, 50, vec![row(1, None, &[0.5, 0.5]), row(2, None, &[0.5, 0.5])]);
    let found = pareto(&twins, Rule::Epsilon, SubsetWeighting::Size).unwrap();
    assert_eq!((found.frontier.clone(), points(&found)), (vec![1, 2], vec![(1, 0.0), (2, 0.0)]));
    // By age, the lower uid holds everything.
    let found = pareto(&twins, Rule::FirstCommit, SubsetWeighting::Size).unwrap();
    assert_eq!((found.frontier.clone(), points(&found)), (vec![1], vec![(1, 4.0), (2, 0.0)]));
}

#[test]
fn sixty_four_environments_are_exact() {
    let all = table(64, 50, vec![row(1, None, &[0.9; 64]), row(2, None, &[0.1; 64])]);
    let won = |weighting| points(&pareto(&all, Rule::Epsilon, weighting).unwrap())[0].1;
    // Sums over all subsets of 64: 64 * 2^63, (3^64 - 1) / 2 and 2^64 - 1, to the nearest double.
    assert_eq!(won(SubsetWeighting::Size), 64.0 * 2_f64.powi(63));
    assert_eq!(won(SubsetWeighting::Exponential), ((3_u128.pow(64) - 1) / 2) as f64);
    assert_eq!(won(SubsetWeighting::Equal), 2_f64.powi(64));
}

/// Rates from a coarse grid, so that ties and exact margins happen; blocks from a small range and sometimes none.
fn small_tables(miners: usize, environments: usize) -> impl Strategy<Value = Table> {
    (1..=environments, prop_oneof![Just(1_u32), Just(4), Just(20), Just(50), Just(400)], 1_u32..=20).prop_flat_map(
        move |(environments, episodes, grid)| {
            let rates = vec((0..=grid).prop_map(move |k| f64::from(k) / f64::from(grid)), environments);
            let rows = hash_map(any::<u16>(), (proptest::option::of(0_u64..4), rates), 0..=miners);
            rows.prop_map(move |rows| {
                let rows = rows.into_iter().map(|(uid, (block, rates))| MinerRow { uid, first_block: block, rates });
                table(environments, episodes, rows.collect())
            })
        },
    )
}

fn assert_equal_to_brute_force(table: &Table) -> Result<(), TestCaseError> {
    for rule in [Rule::Epsilon, Rule::FirstCommit] {
        for weighting in [SubsetWeighting::Size, SubsetWeighting::Exponential, SubsetWeighting::Equal] {
            let found = pareto(table, rule, weighting).unwrap();
            let (frontier, points) = brute_force::play(table, rule, weighting, &found);
            prop_assert_eq!(&found.frontier, &frontier, "{:?} {:?}", rule, weighting);
            prop_assert_eq!(found.points.into_values().collect::<Vec<_>>(), points, "{:?} {:?}", rule, weighting);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn equal_to_brute_force(table in small_tables(6, 5)) {
        assert_equal_to_brute_force(&table)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn equal_to_brute_force_with_more_of_both(table in small_tables(14, 8)) {
        assert_equal_to_brute_force(&table)?;
    }
}

proptest! {
    #[test]
    fn the_order_of_rows_does_not_matter(table in small_tables(8, 6)) {
        let reversed = table.miners().iter().rev().cloned().collect();
        let again = Table::new(table.environments().to_vec(), table.episodes().to_vec(), reversed).unwrap();
        for rule in [Rule::Epsilon, Rule::FirstCommit] {
            let text = |table| serde_json::to_string(&pareto(table, rule, SubsetWeighting::Size).unwrap()).unwrap();
            prop_assert_eq!(text(&table), text(&again));
        }
    }
}
