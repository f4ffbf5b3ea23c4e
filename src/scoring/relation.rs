//! When one miner dominates another on a subset of environments, for both rules, as two bit masks per pair.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Table;

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
    /// Margin per environment.
    pub(super) epsilons: &'a [f64],
    /// Threshold per row and environment.
    pub(super) thresholds: &'a [Vec<f64>],
}

impl Relation<'_> {
    /// All environments as a mask.
    pub(super) fn everywhere(&self) -> u64 {
        // A table has 1 to 64 environments, so the shift is 0 to 63.
        u64::MAX >> (64 - self.table.environments().len())
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
        let (mine, theirs) = (&self.table.miners()[row].rates, &self.table.miners()[other].rates);
        let mut condition = Condition { avoid: 0, meet: 0 };
        for (environment, ((mine, theirs), epsilon)) in mine.iter().zip(theirs).zip(self.epsilons).enumerate() {
            condition.avoid |= u64::from(*mine < theirs - epsilon) << environment;
            condition.meet |= u64::from(*mine > theirs + epsilon) << environment;
        }
        condition
    }

    /// Environments on which `later` is strictly above the thresholds of `earlier`.
    fn above_threshold(&self, later: usize, earlier: usize) -> u64 {
        let rates = &self.table.miners()[later].rates;
        let pairs = rates.iter().zip(&self.thresholds[earlier]).enumerate();
        pairs.fold(0, |mask, (environment, (rate, threshold))| mask | u64::from(rate > threshold) << environment)
    }

    pub(super) fn is_earlier(&self, row: usize, other: usize) -> bool {
        let age = |row: usize| {
            let miner = &self.table.miners()[row];
            // `None` sorts before `Some`, and a miner without a block is the latest.
            (miner.first_block.is_none(), miner.first_block, miner.uid)
        };
        age(row) < age(other)
    }
}
