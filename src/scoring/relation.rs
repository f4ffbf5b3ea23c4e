//! When one miner dominates another on a subset of environments, for both rules, as two bit masks per pair.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exact::{Place, places};
use super::{MinerRow, Table};

/// How two miners are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// At least as good everywhere and better somewhere, up to a margin per environment; age does not matter.
    #[default]
    Epsilon,
    /// The earlier miner dominates unless the later one is clearly better on every environment.
    FirstCommit,
}

/// Which of two miners with the same first block is the earlier one, under the rule `first_commit`. Miners without a first
/// block have the same one, which is later than any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// Both: each dominates the other unless the other is clearly better. Of several miners that dominate all others on a
    /// subset, the lowest uid wins it.
    #[default]
    BothEarlier,
    /// The one with the lower uid.
    LowerUid,
}

/// What a subset S of environments must be for one miner to dominate another on it: S avoids one mask and meets the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition {
    /// Environments that S must not hold.
    pub(super) avoid: u64,
    /// S must hold at least one of these.
    pub(super) meet: u64,
}

impl Condition {
    /// Whether a subset meets the condition.
    pub(super) fn holds_on(self, subset: u64) -> bool {
        subset & self.avoid == 0 && subset & self.meet != 0
    }
}

/// The dominance relation of a table. Miners are named by their row.
pub(super) struct Relation<'a> {
    pub(super) table: &'a Table,
    pub(super) rule: Rule,
    pub(super) ties: Ties,
    /// Where each rate stands, by row and environment.
    places: Vec<Vec<Place>>,
}

impl<'a> Relation<'a> {
    pub(super) fn new(table: &'a Table, rule: Rule, ties: Ties) -> Self {
        let mut by_row: Vec<Vec<Place>> = vec![Vec::new(); table.miners().len()];
        for (column, episodes) in table.episodes().iter().enumerate() {
            let rates: Vec<f64> = table.miners().iter().map(|miner| miner.rates[column]).collect();
            for (row, place) in by_row.iter_mut().zip(places(&rates, *episodes)) {
                row.push(place);
            }
        }
        Self { table, rule, ties, places: by_row }
    }

    /// The same rates under another rule.
    pub(super) fn with(&self, rule: Rule, ties: Ties) -> Self {
        Self { table: self.table, rule, ties, places: self.places.clone() }
    }

    /// All environments as a mask.
    pub(super) fn everywhere(&self) -> u64 {
        // A table has 1 to 64 environments, so the shift is 0 to 63.
        u64::MAX >> (64 - self.table.environments().len())
    }

    /// The rows that nobody dominates on all environments together.
    pub(super) fn undominated(&self) -> impl Iterator<Item = usize> + '_ {
        let (everywhere, rows) = (self.everywhere(), self.places.len());
        let is_dominated = move |row| (0..rows).any(|o| o != row && self.condition(o, row).holds_on(everywhere));
        (0..rows).filter(move |&row| !is_dominated(row))
    }

    /// The row that wins all environments together: the oldest, then the lowest uid, of those that dominate everybody else.
    pub(super) fn winner(&self) -> Option<usize> {
        let (everywhere, rows) = (self.everywhere(), self.places.len());
        let wins = |row: &usize| (0..rows).all(|o| o == *row || self.condition(*row, o).holds_on(everywhere));
        (0..rows).filter(wins).min_by_key(|row| age(&self.table.miners()[*row]))
    }

    /// The subsets on which `row` dominates `other`.
    pub(super) fn condition(&self, row: usize, other: usize) -> Condition {
        match self.rule {
            Rule::Epsilon => self.epsilon(row, other),
            Rule::FirstCommit if self.is_earlier(row, other) => {
                // The earlier one holds its place unless the later one is above its thresholds on all of S.
                Condition { avoid: 0, meet: self.everywhere() & !self.above_threshold(other, row) }
            }
            Rule::FirstCommit => {
                Condition { avoid: self.everywhere() & !self.above_threshold(row, other), meet: self.everywhere() }
            }
        }
    }

    fn epsilon(&self, row: usize, other: usize) -> Condition {
        let pairs = self.places[row].iter().zip(&self.places[other]);
        pairs.enumerate().fold(Condition { avoid: 0, meet: 0 }, |condition, (environment, (mine, theirs))| Condition {
            avoid: condition.avoid | u64::from(theirs.is_clearly_better_than(*mine)) << environment,
            meet: condition.meet | u64::from(mine.is_clearly_better_than(*theirs)) << environment,
        })
    }

    /// Environments on which `later` is strictly above the thresholds of `earlier`.
    fn above_threshold(&self, later: usize, earlier: usize) -> u64 {
        let pairs = self.places[later].iter().zip(&self.places[earlier]);
        pairs.enumerate().fold(0, |mask, (environment, (rate, threshold))| {
            mask | u64::from(rate.is_above_threshold_of(*threshold)) << environment
        })
    }

    /// Whether `row` counts as earlier than `other`.
    pub(super) fn is_earlier(&self, row: usize, other: usize) -> bool {
        let (row, other) = (age(&self.table.miners()[row]), age(&self.table.miners()[other]));
        match self.ties {
            Ties::BothEarlier => (row.0, row.1) <= (other.0, other.1),
            Ties::LowerUid => row < other,
        }
    }

    /// Whether two rows are of the same age, so that each counts as earlier than the other.
    pub(super) fn is_tied(&self, row: usize, other: usize) -> bool {
        self.rule == Rule::FirstCommit && self.is_earlier(row, other) && self.is_earlier(other, row)
    }
}

/// The earlier, the smaller; a miner without a block is the latest.
fn age(miner: &MinerRow) -> (bool, Option<u64>, u16) {
    (miner.first_block.is_none(), miner.first_block, miner.uid)
}
