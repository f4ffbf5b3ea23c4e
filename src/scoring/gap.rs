//! What a miner lacks that others dominate: how far it is, environment by environment, from those who dominate it.

use super::{Rule, Table, Ties, pareto::margins, relation::Relation};

/// What a miner lacks.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// Who dominates it on all environments together by the rule, by uid.
    pub dominated_by: Vec<u16>,
    /// In each environment, in the table's order.
    pub gaps: Vec<Gap>,
}

/// What it lacks in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// The environment.
    pub environment: String,
    /// Its own success rate.
    pub rate: f64,
    /// The best success rate of those who dominate it; its own where nobody does.
    pub best: f64,
    /// The margin within which two rates count as equal.
    pub epsilon: f64,
    /// How much its rate must grow so that none of those who dominate it is better by more than the margin: 0 where none is.
    ///
    /// Once every environment's gap is closed (under `first_commit`: more than closed), none of those who dominate it does.
    pub gap: f64,
    /// How much more than this its rate must grow to be ahead of all who dominate it, which in a single environment is enough.
    /// None where no rate is that high, and under `first_commit`, where being ahead once does not help.
    pub lead: Option<f64>,
}

/// What a miner of a table lacks so that nobody dominates it. None for a uid that the table does not have.
///
/// The margins are those of the table as it is; when rates change they do, too, by a little.
pub fn missing(table: &Table, rule: Rule, ties: Ties, uid: u16) -> Option<Missing> {
    let row = table.miners().iter().position(|miner| miner.uid == uid)?;
    let margins = margins(table);
    let relation = Relation::new(table, rule, ties);
    let everywhere = relation.everywhere();
    let dominates = |other: &usize| *other != row && relation.condition(*other, row).holds_on(everywhere);
    let rivals: Vec<usize> = (0..table.miners().len()).filter(dominates).collect();
    let gaps = (0..table.environments().len()).map(|column| gap(&relation, &margins, (row, &rivals), column)).collect();
    let dominated_by = rivals.iter().map(|rival| table.miners()[*rival].uid).collect();
    Some(Missing { dominated_by, gaps })
}

fn gap(
    relation: &Relation<'_>,
    (epsilons, thresholds): &(Vec<f64>, Vec<Vec<f64>>),
    (row, rivals): (usize, &[usize]),
    column: usize,
) -> Gap {
    let rate_of = |row: usize| relation.table.miners()[row].rates[column];
    let (rate, epsilon) = (rate_of(row), epsilons[column]);
    let best = rivals.iter().map(|rival| rate_of(*rival)).reduce(f64::max).unwrap_or(rate);
    let enough = |rival: &usize| match relation.rule {
        Rule::Epsilon => rate_of(*rival) - epsilon,
        Rule::FirstCommit if relation.is_earlier(*rival, row) => thresholds[*rival][column],
        Rule::FirstCommit => rate_of(*rival),
    };
    let needed = rivals.iter().map(enough).fold(rate, f64::max);
    let lead = match relation.rule {
        Rule::Epsilon if !rivals.is_empty() && best + epsilon < 1.0 => Some((best + epsilon - rate).max(0.0)),
        _ => None,
    };
    Gap { environment: relation.table.environments()[column].clone(), rate, best, epsilon, gap: needed - rate, lead }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scoring::{MinerRow, SubsetWeighting, pareto};

    fn table(rates: &[&[f64]], episodes: u32) -> Table {
        let environments: Vec<String> = (0..rates[0].len()).map(|column| format!("e/{column}")).collect();
        let miner = |(uid, rates): (usize, &&[f64])| MinerRow {
            uid: u16::try_from(uid).unwrap(),
            first_block: Some(uid as u64),
            rates: rates.to_vec(),
        };
        let count = environments.len();
        Table::new(environments, vec![episodes; count], rates.iter().enumerate().map(miner).collect()).unwrap()
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn whoever_is_dominated_is_told_by_how_much() {
        // Spread 0.2 around 0.8 with 16 episodes: a margin of 0.1 in the first; none in the second, so the least one.
        let table = table(&[&[1.0, 0.6], &[0.6, 0.6]], 16);
        let missing = missing(&table, Rule::Epsilon, Ties::default(), 1).unwrap();
        assert_eq!(missing.dominated_by, [0]);
        let [first, second] = &missing.gaps[..] else { panic!("{missing:?}") };
        assert_near(first.gap, 0.3);
        assert_eq!((first.lead, first.best), (None, 1.0), "nobody is better than 1.0");
        assert_eq!((second.gap, second.epsilon), (0.0, 0.01));
        assert_near(second.lead.unwrap(), 0.01);
    }

    #[test]
    fn nothing_is_missing_on_the_frontier_and_nobody_is_nobody() {
        let table = table(&[&[0.9, 0.1], &[0.1, 0.9]], 16);
        for uid in [0, 1] {
            let missing = missing(&table, Rule::Epsilon, Ties::default(), uid).unwrap();
            assert!(missing.dominated_by.is_empty(), "{missing:?}");
            assert!(missing.gaps.iter().all(|gap| gap.gap == 0.0 && gap.lead.is_none() && gap.best == gap.rate));
        }
        assert_eq!(missing(&table, Rule::Epsilon, Ties::default(), 2), None);
    }

    #[test]
    fn a_copy_must_exceed_the_threshold_of_its_original() {
        let table = table(&[&[0.5], &[0.5]], 16);
        let missing = missing(&table, Rule::FirstCommit, Ties::default(), 1).unwrap();
        assert_eq!((missing.dominated_by.as_slice(), missing.gaps[0].lead), (&[0_u16][..], None));
        assert_near(missing.gaps[0].gap, 0.1);
    }

    /// Who dominates the miner in a table that has changed, by the margins of the table before.
    fn dominators(table: &Table, changed: &Table, uid: u16) -> Vec<u16> {
        let (epsilons, _) = margins(table);
        let own = &changed.miners().iter().find(|miner| miner.uid == uid).unwrap().rates;
        let dominates = |rates: &[f64]| {
            let each = || rates.iter().zip(own).zip(&epsilons);
            each().all(|((theirs, mine), epsilon)| *theirs >= mine - epsilon)
                && each().any(|((theirs, mine), epsilon)| *theirs > mine + epsilon)
        };
        let others = changed.miners().iter().filter(|miner| miner.uid != uid);
        others.filter(|miner| dominates(&miner.rates)).map(|miner| miner.uid).collect()
    }

    fn raised(table: &Table, uid: u16, by: impl Fn(usize) -> f64) -> Table {
        let rows = table.miners().iter().cloned().map(|mut miner| {
            if miner.uid == uid {
                miner.rates.iter_mut().enumerate().for_each(|(column, rate)| *rate = (*rate + by(column)).min(1.0));
            }
            miner
        });
        Table::new(table.environments().to_vec(), table.episodes().to_vec(), rows.collect()).unwrap()
    }

    proptest! {
        #[test]
        fn who_closes_every_gap_or_takes_one_lead_is_dominated_no_more(
            rates in (1_usize..6).prop_flat_map(|m| prop::collection::vec(prop::collection::vec(0_u32..=20, m), 1..8)),
            uid in 0_usize..8,
        ) {
            let rates: Vec<Vec<f64>> =
                rates.iter().map(|row| row.iter().map(|successes| f64::from(*successes) / 20.0).collect()).collect();
            let uid = u16::try_from(uid % rates.len()).unwrap();
            let table = table(&rates.iter().map(Vec::as_slice).collect::<Vec<_>>(), 20);
            let missing = missing(&table, Rule::Epsilon, Ties::default(), uid).unwrap();
            let frontier = pareto(&table, Rule::Epsilon, Ties::default(), SubsetWeighting::Size).unwrap().frontier;
            prop_assert_eq!(frontier.contains(&uid), missing.dominated_by.is_empty());
            // Rounding may leave a hair's breadth.
            let hair = 1e-9;
            let closed = raised(&table, uid, |column| if missing.gaps[column].gap > 0.0 { missing.gaps[column].gap + hair } else { 0.0 });
            prop_assert_eq!(dominators(&table, &closed, uid), Vec::<u16>::new());
            for (leading, gap) in missing.gaps.iter().enumerate() {
                let Some(lead) = gap.lead else { continue };
                let ahead = raised(&table, uid, |column| if column == leading { lead + hair } else { 0.0 });
                prop_assert_eq!(dominators(&table, &ahead, uid), Vec::<u16>::new());
            }
        }

        #[test]
        fn a_gap_that_is_left_open_somewhere_is_one_that_counts(
            rates in prop::collection::vec(prop::collection::vec(0_u32..=20, 3), 2..8),
        ) {
            let rates: Vec<Vec<f64>> =
                rates.iter().map(|row| row.iter().map(|successes| f64::from(*successes) / 20.0).collect()).collect();
            let table = table(&rates.iter().map(Vec::as_slice).collect::<Vec<_>>(), 20);
            for uid in 0..u16::try_from(rates.len()).unwrap() {
                let missing = missing(&table, Rule::Epsilon, Ties::default(), uid).unwrap();
                // Somebody who dominates is better by more than the margin somewhere.
                prop_assert_eq!(missing.gaps.iter().any(|gap| gap.gap > 0.0), !missing.dominated_by.is_empty());
            }
        }
    }
}
