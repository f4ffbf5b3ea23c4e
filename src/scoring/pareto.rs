//! The frontier and the subset game: who is dominated by nobody, and who wins how many subsets of environments.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hitting::{Counts, Effort};
use super::relation::Relation;
use super::weights::{AllZero, Weights, WeightsError, weights};
use super::{Rule, Table, TooHard, margin};

/// What winning a subset of `s` environments is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubsetWeighting {
    /// `s`.
    #[default]
    Size,
    /// `2^(s-1)`.
    Exponential,
    /// 1.
    Equal,
}

/// What the comparison of all miners found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pareto {
    /// Miners that nobody dominates over all environments, ascending.
    pub frontier: Vec<u16>,
    /// Margin per environment; the rule `epsilon` compares with it.
    pub epsilons: BTreeMap<String, f64>,
    /// Threshold per miner and environment; the rule `first_commit` compares with it.
    pub thresholds: BTreeMap<u16, BTreeMap<String, f64>>,
    /// Points per miner: the exact integer when it is below 2^53, else the double nearest to it.
    pub points: BTreeMap<u16, f64>,
    /// Whether every rate of everybody is 0. Whoever has points then has them for being alone or the first. Not known of what was
    /// written before there was this field, which counts as no.
    #[serde(default)]
    pub all_rates_zero: bool,
}

impl Pareto {
    /// The softmax of the points at `temperature`: `exp((p - max) / temperature)`, divided by the sum of all. When nobody has a point,
    /// `all_zero` decides. Where all rates are 0 nobody has earned anything, so a burn burns it all.
    ///
    /// # Errors
    /// [`WeightsError`] when the temperature or a point is out of range.
    pub fn weights(&self, temperature: f64, all_zero: AllZero) -> Result<Weights, WeightsError> {
        let nothing = || self.points.keys().map(|&uid| (uid, 0.0)).collect();
        match all_zero {
            AllZero::Burn(_) if self.all_rates_zero => weights(&nothing(), temperature, all_zero),
            _ => weights(&self.points, temperature, all_zero),
        }
    }
}

/// Compare all miners of a table under a rule and play the subset game.
///
/// The winner of a subset of environments is the miner that dominates every other one on it, if there is one; it
/// receives the subset's weight. A lone miner wins every subset. A table without miners gives an empty result.
///
/// # Errors
/// [`TooHard`] when counting would take minutes: never with up to 256 miners and 32 environments, and beyond that only
/// for tables made for the purpose (`docs/scoring.md`).
pub fn pareto(table: &Table, rule: Rule, weighting: SubsetWeighting) -> Result<Pareto, TooHard> {
    let (epsilons, thresholds) = margins(table);
    let relation = Relation { table, rule, epsilons: &epsilons, thresholds: &thresholds };

    let mut effort = Effort::new();
    let mut points = BTreeMap::new();
    for (row, miner) in table.miners().iter().enumerate() {
        let won = subsets_won(&relation, row, &mut effort)?;
        points.insert(miner.uid, weighting.points(&won));
    }
    let by_environment = |values: &[f64]| table.environments().iter().cloned().zip(values.iter().copied()).collect();
    Ok(Pareto {
        frontier: frontier(&relation),
        epsilons: by_environment(&epsilons),
        thresholds: table.miners().iter().zip(&thresholds).map(|(row, t)| (row.uid, by_environment(t))).collect(),
        points,
        all_rates_zero: table.miners().iter().all(|row| row.rates.iter().all(|&rate| rate == 0.0)),
    })
}

/// The margin of each environment, and the threshold of each row in each environment.
pub(super) fn margins(table: &Table) -> (Vec<f64>, Vec<Vec<f64>>) {
    let columns = 0..table.environments().len();
    let epsilons = columns
        .map(|column| margin::epsilon(table.miners().iter().map(|row| row.rates[column]), table.episodes()[column]))
        .collect();
    let thresholds = table
        .miners()
        .iter()
        .map(|row| row.rates.iter().zip(table.episodes()).map(|(rate, n)| margin::threshold(*rate, *n)).collect())
        .collect();
    (epsilons, thresholds)
}

impl SubsetWeighting {
    fn points(self, won: &Counts) -> f64 {
        let weight = |size: usize| match self {
            Self::Size => size as u128,
            // The empty subset is never won, so its weight does not matter.
            Self::Exponential => (1 << size) >> 1,
            Self::Equal => 1,
        };
        // At most 3^64 / 2 < 2^101, so the sum is exact; only the last step rounds.
        won.by_size().map(|(size, subsets)| weight(size) * subsets).sum::<u128>() as f64
    }
}

fn frontier(relation: &Relation<'_>) -> Vec<u16> {
    let everywhere = relation.everywhere();
    let miners = relation.table.miners();
    let is_dominated = |row| (0..miners.len()).any(|o| o != row && relation.condition(o, row).holds_on(everywhere));
    (0..miners.len()).filter(|&row| !is_dominated(row)).map(|row| miners[row].uid).collect()
}

/// How many subsets of each size `row` wins: those that avoid every mask it must avoid and meet every mask it must meet.
fn subsets_won(relation: &Relation<'_>, row: usize, effort: &mut Effort) -> Result<Counts, TooHard> {
    let mut allowed = relation.everywhere();
    let mut families = Vec::with_capacity(relation.table.miners().len());
    for other in (0..relation.table.miners().len()).filter(|&other| other != row) {
        let condition = relation.condition(row, other);
        allowed &= !condition.avoid;
        families.push(condition.meet);
        if allowed == 0 {
            // Nothing is left to win on, as for most miners of most tables after a few rivals.
            break;
        }
    }
    // Only non-empty subsets are played, which matters to a lone miner.
    families.push(allowed);
    for family in &mut families {
        *family &= allowed;
    }
    effort.count(allowed, families)
}
