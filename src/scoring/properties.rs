//! What must hold of every table, and small tables worked out by hand.

use num_bigint::BigInt;
use num_rational::BigRational;
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
    let found = pareto(&three_miners(), Rule::Epsilon, Ties::default(), SubsetWeighting::Size).unwrap();
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
        assert_eq!(
            points(&pareto(&table, Rule::Epsilon, Ties::default(), weighting).unwrap()),
            [(1, 0.0), (2, expected)]
        );
    }
}

#[test]
fn points_without_a_success_are_burnt_and_not_paid() {
    let rows = |best: f64| table(2, 100, vec![row(1, Some(10), &[0.0, 0.0]), row(2, Some(11), &[best, 0.0])]);
    // Nobody succeeds, and whoever came first has every point; so has a lone miner, under either rule.
    let lone =
        |rule| pareto(&table(1, 9, vec![row(1, None, &[0.0])]), rule, Ties::default(), SubsetWeighting::Size).unwrap();
    let first = pareto(&rows(0.0), Rule::FirstCommit, Ties::default(), SubsetWeighting::Size).unwrap();
    for found in [first, lone(Rule::FirstCommit), lone(Rule::Epsilon)] {
        assert!(found.all_rates_zero && found.points[&1] > 0.0);
        let burnt = found.weights(1.0, AllZero::Burn(7)).unwrap().weights;
        assert_eq!((burnt[&7], burnt[&1]), (1.0, 0.0));
        // As the reference paid.
        assert!(found.weights(1.0, AllZero::Uniform).unwrap().weights[&1] > 0.9);
    }
    // A single success is enough, whoever has it.
    let some = pareto(&rows(0.01), Rule::FirstCommit, Ties::default(), SubsetWeighting::Size).unwrap();
    assert!(!some.all_rates_zero);
    assert_eq!(some.weights(1.0, AllZero::Burn(7)), some.weights(1.0, AllZero::Uniform));
}

#[test]
fn first_commit_by_hand() {
    // At 100 episodes the threshold of 0.5 is 0.575 and that of 0.6 is 0.6 + 1.5 * sqrt(0.24 / 100) = 0.673485.
    let rows = |second: Option<u64>| table(2, 100, vec![row(1, Some(10), &[0.5, 0.5]), row(2, second, &[0.6, 0.55])]);
    // 2 came later: above 0.575 on e00 only, so {e00} is its own, {e01} and both together stay with 1.
    for (later, ties) in [
        (Some(11), Ties::BothEarlier),
        (Some(11), Ties::LowerUid),
        (None, Ties::BothEarlier),
        (Some(10), Ties::LowerUid),
    ] {
        let found = pareto(&rows(later), Rule::FirstCommit, ties, SubsetWeighting::Size).unwrap();
        assert_eq!((found.winner, points(&found)), (Some(1), vec![(1, 3.0), (2, 1.0)]), "{later:?}");
        // The frontier is that of `epsilon`, by which 2 is better everywhere: the rates are 0.1 and 0.05 apart, the epsilons 0.01.
        assert_eq!(found.frontier, [2]);
        assert!((found.thresholds[&1]["e00"] - 0.575).abs() < 1e-12);
        assert!((found.thresholds[&2]["e00"] - 0.673_484_692_283_495_4).abs() < 1e-12);
    }
    // 2 came first: 1 is above nothing.
    let found = pareto(&rows(Some(9)), Rule::FirstCommit, Ties::default(), SubsetWeighting::Size).unwrap();
    assert_eq!((found.winner, points(&found)), (Some(2), vec![(1, 0.0), (2, 4.0)]));
}

#[test]
fn first_commit_may_go_round_in_a_circle() {
    // Thresholds at 100 episodes: 0.5 -> 0.575, 0.55 -> 0.6246, 0.6 -> 0.6735. 3 (latest) is above 1 but not above 2, which
    // is not above 1: 1 beats 2, 2 beats 3, 3 beats 1.
    let table = table(1, 100, vec![row(1, Some(1), &[0.5]), row(2, Some(2), &[0.55]), row(3, Some(3), &[0.6])]);
    let found = pareto(&table, Rule::FirstCommit, Ties::default(), SubsetWeighting::Size).unwrap();
    assert_eq!((found.winner, points(&found)), (None, vec![(1, 0.0), (2, 0.0), (3, 0.0)]));
    assert_eq!(undominated(&table, Rule::FirstCommit, Ties::default()), [0; 0]);
}

#[test]
fn a_lone_miner_wins_all() {
    for rule in [Rule::Epsilon, Rule::FirstCommit] {
        let alone = table(3, 50, vec![row(7, None, &[0.0, 0.0, 0.0])]);
        let found = pareto(&alone, rule, Ties::default(), SubsetWeighting::Size).unwrap();
        // 3 subsets of 1, 3 of 2, 1 of 3.
        assert_eq!((found.frontier.clone(), points(&found)), (vec![7], vec![(7, 12.0)]));
    }
}

#[test]
fn nobody_at_all_is_an_empty_result() {
    for rule in [Rule::Epsilon, Rule::FirstCommit] {
        let found = pareto(&table(3, 50, vec![]), rule, Ties::default(), SubsetWeighting::Size).unwrap();
        assert!(found.frontier.is_empty() && found.points.is_empty() && found.thresholds.is_empty());
        assert_eq!(found.epsilons["e00"], 0.01);
    }
}

#[test]
fn equals_share_the_frontier_and_win_nothing() {
    let twins = table(2, 50, vec![row(1, None, &[0.5, 0.5]), row(2, None, &[0.5, 0.5])]);
    let found = pareto(&twins, Rule::Epsilon, Ties::default(), SubsetWeighting::Size).unwrap();
    assert_eq!((found.frontier.clone(), points(&found)), (vec![1, 2], vec![(1, 0.0), (2, 0.0)]));
    // By age, the lower uid holds everything, also where each counts as the earlier one and dominates the other.
    for (ties, frontier) in [(Ties::BothEarlier, vec![]), (Ties::LowerUid, vec![1])] {
        let found = pareto(&twins, Rule::FirstCommit, ties, SubsetWeighting::Size).unwrap();
        assert_eq!((found.winner, points(&found)), (Some(1), vec![(1, 4.0), (2, 0.0)]));
        assert_eq!((found.frontier, undominated(&twins, Rule::FirstCommit, ties)), (vec![1, 2], frontier));
    }
}

#[test]
fn sixty_four_environments_are_exact() {
    let all = table(64, 50, vec![row(1, None, &[0.9; 64]), row(2, None, &[0.1; 64])]);
    let won = |weighting| points(&pareto(&all, Rule::Epsilon, Ties::default(), weighting).unwrap())[0].1;
    // Sums over all subsets of 64: 64 * 2^63, (3^64 - 1) / 2 and 2^64 - 1, to the nearest double.
    assert_eq!(won(SubsetWeighting::Size), 64.0 * 2_f64.powi(63));
    assert_eq!(won(SubsetWeighting::Exponential), ((3_u128.pow(64) - 1) / 2) as f64);
    assert_eq!(won(SubsetWeighting::Equal), 2_f64.powi(64));
}

#[test]
fn ties_of_first_blocks_follow_the_reference_unless_told_otherwise() {
    // At 100 episodes the threshold of 0.5 is 0.575. 1 is above that of 2 on e00, and 2 above that of 1 on e01.
    let table = table(2, 100, vec![row(1, Some(10), &[0.6, 0.5]), row(2, Some(10), &[0.5, 0.6])]);
    let found = |ties| pareto(&table, Rule::FirstCommit, ties, SubsetWeighting::Size).unwrap();
    // Both count as earlier: each wins where it is clearly better, and the lower uid what both win.
    let both = found(Ties::BothEarlier);
    assert_eq!((both.winner, points(&both)), (Some(1), vec![(1, 3.0), (2, 1.0)]));
    // As the later one, 2 would have to be clearly better on all of a subset.
    let lower = found(Ties::LowerUid);
    assert_eq!((lower.winner, points(&lower)), (Some(1), vec![(1, 3.0), (2, 1.0)]));
    // With three of them: 2 is not above the threshold of 1, nor 3 above that of 2, but 3 is above that of 1.
    let rows = vec![row(1, Some(7), &[0.5]), row(2, Some(7), &[0.55]), row(3, Some(7), &[0.6])];
    let circle = super::Table::new(vec!["e".into()], vec![100], rows).unwrap();
    let found = |ties| pareto(&circle, Rule::FirstCommit, ties, SubsetWeighting::Size).unwrap();
    assert_eq!(points(&found(Ties::BothEarlier)), [(1, 0.0), (2, 1.0), (3, 0.0)]);
    assert_eq!(points(&found(Ties::LowerUid)), [(1, 0.0), (2, 0.0), (3, 0.0)]);
}

/// A table as whole numbers: successes and episodes of every cell, by row and environment.
#[derive(Debug, Clone)]
struct Counts {
    /// Episodes of each environment.
    episodes: Vec<u32>,
    rows: Vec<(u16, Option<u64>, Cells)>,
}

/// Successes and episodes, by environment.
type Cells = Vec<(u32, u32)>;

impl Counts {
    fn table(&self) -> Table {
        let names = (0..self.episodes.len()).map(|index| format!("e{index:02}")).collect();
        let rate = |(successes, episodes): &(u32, u32)| f64::from(*successes) / f64::from(*episodes);
        let rows =
            self.rows.iter().map(|(uid, block, cells)| row(*uid, *block, &cells.iter().map(rate).collect::<Vec<_>>()));
        Table::new(names, self.episodes.clone(), rows.collect()).unwrap()
    }

    /// The cells of a table's row, which are in the order of uids there.
    fn sorted(mut self) -> Self {
        self.rows.sort_by_key(|(uid, ..)| *uid);
        self
    }
}

/// Few episodes, so that ties and exact margins happen; blocks from a small range and sometimes none. Where episodes were lost, the
/// miners of an environment have different numbers of them.
fn small_tables(miners: usize, environments: usize) -> impl Strategy<Value = Counts> {
    let episodes = prop_oneof![1_u32..=12, Just(16), Just(20), Just(25), Just(50), Just(100), Just(400)];
    vec((episodes, any::<bool>()), 1..=environments).prop_flat_map(move |columns| {
        let cells: Vec<_> = columns
            .iter()
            .map(|(episodes, loses)| {
                let most = if *loses { episodes + 3 } else { *episodes };
                (*episodes..=most)
                    .prop_flat_map(|episodes| (0..=episodes).prop_map(move |successes| (successes, episodes)))
            })
            .collect();
        let episodes: Vec<u32> = columns.into_iter().map(|(episodes, _)| episodes).collect();
        let rows = hash_map(any::<u16>(), (proptest::option::of(0_u64..4), cells), 0..=miners);
        rows.prop_map(move |rows| {
            let rows = rows.into_iter().map(|(uid, (block, cells))| (uid, block, cells)).collect();
            Counts { episodes: episodes.clone(), rows }.sorted()
        })
    })
}

fn rational(above: i64, below: i64) -> BigRational {
    BigRational::new(BigInt::from(above), BigInt::from(below))
}

/// The rules as they are defined, in fractions of any size. Roots are compared by their squares.
struct Oracle {
    rates: Vec<Vec<BigRational>>,
    episodes: Vec<u32>,
    /// Squares of the epsilons, by environment.
    epsilons: Vec<BigRational>,
}

impl Oracle {
    fn new(counts: &Counts) -> Self {
        let rate = |(successes, episodes): &(u32, u32)| rational(i64::from(*successes), i64::from(*episodes));
        let rates: Vec<Vec<BigRational>> =
            counts.rows.iter().map(|(.., cells)| cells.iter().map(rate).collect()).collect();
        let epsilon = |(column, episodes): (usize, &u32)| {
            let column: Vec<&BigRational> = rates.iter().map(|row| &row[column]).collect();
            if *episodes <= 1 || column.is_empty() {
                return rational(1, 25);
            }
            let miners = rational(column.len() as i64, 1);
            let mean = column.iter().copied().sum::<BigRational>() / &miners;
            let variance = column.iter().map(|rate| (*rate - &mean) * (*rate - &mean)).sum::<BigRational>() / miners;
            let square = rational(4, 1) * variance / rational(i64::from(*episodes), 1);
            square.clamp(rational(1, 10_000), rational(1, 25))
        };
        let epsilons = counts.episodes.iter().enumerate().map(epsilon).collect();
        Self { rates, episodes: counts.episodes.clone(), epsilons }
    }

    fn is_better(&self, rule: Rule, a: usize, b: usize, environment: usize) -> bool {
        let (mine, theirs) = (&self.rates[a][environment], &self.rates[b][environment]);
        let square = match rule {
            Rule::Epsilon => self.epsilons[environment].clone(),
            Rule::FirstCommit => {
                let p = theirs.clone().clamp(rational(1, 100), rational(99, 100));
                let square =
                    rational(9, 4) * &p * (rational(1, 1) - &p) / rational(i64::from(self.episodes[environment]), 1);
                square.clamp(rational(1, 2500), rational(1, 100))
            }
        };
        mine > theirs && (mine - theirs) * (mine - theirs) > square
    }
}

fn assert_equal_to_the_oracle(counts: &Counts) -> Result<(), TestCaseError> {
    let (table, oracle) = (counts.table(), Oracle::new(counts));
    let (rows, environments) = (0..counts.rows.len(), 0..counts.episodes.len());
    // The game asks the same again for every subset.
    let better = [Rule::Epsilon, Rule::FirstCommit].map(|rule| {
        let row = |a, b| environments.clone().map(|e| oracle.is_better(rule, a, b, e)).collect::<Vec<bool>>();
        rows.clone().map(|a| rows.clone().map(|b| row(a, b)).collect::<Vec<_>>()).collect::<Vec<_>>()
    });
    let played = |rule, ties, weighting| {
        let better = &better[usize::from(rule == Rule::FirstCommit)];
        brute_force::play(&table, (rule, ties), weighting, &|a, b, e| better[a][b][e])
    };
    let frontier = played(Rule::Epsilon, Ties::BothEarlier, SubsetWeighting::Equal).undominated;
    for rule in [Rule::Epsilon, Rule::FirstCommit] {
        for ties in [Ties::BothEarlier, Ties::LowerUid] {
            for weighting in [SubsetWeighting::Size, SubsetWeighting::Exponential, SubsetWeighting::Equal] {
                let found = pareto(&table, rule, ties, weighting).unwrap();
                let expected = played(rule, ties, weighting);
                let said = format!("{rule:?} {ties:?} {weighting:?}");
                prop_assert_eq!(&found.frontier, &frontier, "{}", &said);
                prop_assert_eq!(found.winner, expected.winner, "{}", &said);
                prop_assert_eq!(found.points.into_values().collect::<Vec<_>>(), expected.points, "{}", &said);
                prop_assert_eq!(undominated(&table, rule, ties), expected.undominated, "{}", &said);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]
    #[test]
    fn equal_to_the_oracle(counts in small_tables(6, 4)) {
        assert_equal_to_the_oracle(&counts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equal_to_the_oracle_with_more_of_both(counts in small_tables(12, 7)) {
        assert_equal_to_the_oracle(&counts)?;
    }
}

#[test]
fn miners_of_one_age_cannot_make_a_table_too_hard() {
    // Forty miners of one block on forty environments, each clearly better than the others on a pair of its own.
    let rates = |uid: u16| (0..40).map(|e| if e / 2 == uid / 2 { 0.9 } else { 0.5 }).collect::<Vec<f64>>();
    let rows = (0..40).map(|uid| row(uid, Some(1), &rates(uid))).collect();
    let table = table(40, 100, rows);
    let found = |ties| pareto(&table, Rule::FirstCommit, ties, SubsetWeighting::Equal).unwrap();
    let total: f64 = found(Ties::BothEarlier).points.values().sum();
    assert!(total > 0.0 && total <= 2_f64.powi(40));
}

proptest! {
    #[test]
    fn the_order_of_rows_does_not_matter(counts in small_tables(8, 6)) {
        let table = counts.table();
        let reversed = table.miners().iter().rev().cloned().collect();
        let again = Table::new(table.environments().to_vec(), table.episodes().to_vec(), reversed).unwrap();
        for rule in [Rule::Epsilon, Rule::FirstCommit] {
            let text = |table| {
                serde_json::to_string(&pareto(table, rule, Ties::default(), SubsetWeighting::Size).unwrap()).unwrap()
            };
            prop_assert_eq!(text(&table), text(&again));
        }
    }
}
