//! The frontier and the subset game: who is dominated by nobody, and who wins how many subsets of environments.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hitting::{Counts, Effort};
use super::relation::Relation;
use super::ties::{Wins, first_of};
use super::weights::{AllZero, Weights, WeightsError, weights};
use super::{Rule, Table, Ties, TooHard, margin};

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
    /// The epsilon-Pareto frontier, whatever the rule: miners that nobody dominates over all environments by the rule `epsilon`,
    /// ascending.
    pub frontier: Vec<u16>,
    /// Who wins all environments together under the rule; none where nobody does. Not known of what was written before there was
    /// this field: the frontier was that of the rule then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<u16>,
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
/// receives the subset's weight. A lone miner wins every subset. A table without miners gives an empty result. `ties` matters to
/// the rule `first_commit` alone; where counting what miners of one age share would take minutes, the lower uid is the earlier one.
///
/// # Errors
/// [`TooHard`] when counting would take minutes: never with up to 256 miners and 32 environments, and beyond that only
/// for tables made for the purpose (`docs/scoring.md`).
pub fn pareto(table: &Table, rule: Rule, ties: Ties, weighting: SubsetWeighting) -> Result<Pareto, TooHard> {
    let mut relation = Relation::new(table, rule, ties);
    let mut counted = points(&relation, weighting);
    if counted.is_err() && rule == Rule::FirstCommit && ties == Ties::BothEarlier {
        // Miners who commit in one block must not be able to stop a cycle.
        relation = relation.with(rule, Ties::LowerUid);
        counted = points(&relation, weighting);
    }
    let points = counted?;
    let (epsilons, thresholds) = margins(table);
    let by_environment = |values: &[f64]| table.environments().iter().cloned().zip(values.iter().copied()).collect();
    Ok(Pareto {
        frontier: uids(table, relation.with(Rule::Epsilon, ties).undominated()),
        winner: relation.winner().map(|row| table.miners()[row].uid),
        epsilons: by_environment(&epsilons),
        thresholds: table.miners().iter().zip(&thresholds).map(|(row, t)| (row.uid, by_environment(t))).collect(),
        points,
        all_rates_zero: table.miners().iter().all(|row| row.rates.iter().all(|&rate| rate == 0.0)),
    })
}

/// Points per miner.
fn points(relation: &Relation<'_>, weighting: SubsetWeighting) -> Result<BTreeMap<u16, f64>, TooHard> {
    let miners = relation.table.miners();
    let mut effort = Effort::new();
    let mut points: BTreeMap<u16, f64> = miners.iter().map(|miner| (miner.uid, 0.0)).collect();
    for (rows, wins) in tied(relation) {
        for (row, won) in rows.into_iter().zip(first_of(relation.everywhere(), &wins, &mut effort)?) {
            points.insert(miners[row].uid, weighting.points(&won));
        }
    }
    Ok(points)
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

/// The miners that nobody dominates over all environments by a rule, ascending.
///
/// What the frontier was under the rule `first_commit` before it was the epsilon-Pareto frontier under every rule.
pub fn undominated(table: &Table, rule: Rule, ties: Ties) -> Vec<u16> {
    uids(table, Relation::new(table, rule, ties).undominated())
}

fn uids(table: &Table, rows: impl Iterator<Item = usize>) -> Vec<u16> {
    rows.map(|row| table.miners()[row].uid).collect()
}

/// The rows that win anything and what each wins, those of one age together and by uid. Only miners of one age may dominate
/// everybody else on the same subset.
fn tied(relation: &Relation<'_>) -> Vec<(Vec<usize>, Vec<Wins>)> {
    let mut groups: Vec<(Vec<usize>, Vec<Wins>)> = Vec::new();
    for row in 0..relation.table.miners().len() {
        let Some(wins) = subsets_won(relation, row) else { continue };
        match groups.iter_mut().find(|(rows, _)| relation.is_tied(rows[0], row)) {
            Some((rows, all)) => {
                rows.push(row);
                all.push(wins);
            }
            None => groups.push((vec![row], vec![wins])),
        }
    }
    groups
}

/// The subsets on which `row` dominates everybody else: those within its allowed environments that meet every mask. None when
/// there is no such subset.
fn subsets_won(relation: &Relation<'_>, row: usize) -> Option<Wins> {
    let mut allowed = relation.everywhere();
    let mut masks = Vec::with_capacity(relation.table.miners().len());
    for other in (0..relation.table.miners().len()).filter(|&other| other != row) {
        let condition = relation.condition(row, other);
        allowed &= !condition.avoid;
        masks.push(condition.meet);
        if allowed == 0 {
            // Nothing is left to win on, as for most miners of most tables after a few rivals.
            return None;
        }
    }
    // Only non-empty subsets are played, which matters to a lone miner.
    masks.push(allowed);
    Wins::new(allowed, masks)
}
