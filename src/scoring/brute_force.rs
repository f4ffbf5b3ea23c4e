//! The subset game played subset by subset, pair by pair, word for word as it is defined: what the fast one must equal.
//!
//! Used by the tests and, as the yardstick, by `benches/scoring.rs`.

use super::{MinerRow, Pareto, Rule, SubsetWeighting, Table};

/// Frontier and points of a table, given the margins that `pareto` found for it.
pub(crate) fn play(table: &Table, rule: Rule, weighting: SubsetWeighting, margins: &Pareto) -> (Vec<u16>, Vec<f64>) {
    let environments = table.environments();
    let game = Game {
        miners: table.miners(),
        rule,
        epsilons: environments.iter().map(|name| margins.epsilons[name]).collect(),
        thresholds: margins
            .thresholds
            .values()
            .map(|row| environments.iter().map(|name| row[name]).collect())
            .collect(),
    };
    let rows = 0..game.miners.len();
    let all: Vec<usize> = (0..environments.len()).collect();
    let is_dominated = |a: usize| rows.clone().any(|b| b != a && game.dominates(b, a, &all));
    let frontier = rows.clone().filter(|a| !is_dominated(*a)).map(|a| game.miners[a].uid).collect();

    let mut points = vec![0.0; game.miners.len()];
    for number in 1_u64..1 << all.len() {
        let subset: Vec<usize> = all.iter().copied().filter(|environment| number >> environment & 1 == 1).collect();
        for a in rows.clone() {
            if rows.clone().all(|b| b == a || game.dominates(a, b, &subset)) {
                points[a] += match weighting {
                    SubsetWeighting::Size => subset.len() as f64,
                    SubsetWeighting::Exponential => 2_f64.powi(subset.len() as i32 - 1),
                    SubsetWeighting::Equal => 1.0,
                };
            }
        }
    }
    (frontier, points)
}

struct Game<'a> {
    miners: &'a [MinerRow],
    rule: Rule,
    epsilons: Vec<f64>,
    thresholds: Vec<Vec<f64>>,
}

impl Game<'_> {
    fn dominates(&self, a: usize, b: usize, subset: &[usize]) -> bool {
        match self.rule {
            Rule::Epsilon => {
                let (mine, theirs) = (&self.miners[a].rates, &self.miners[b].rates);
                subset.iter().all(|&e| mine[e] >= theirs[e] - self.epsilons[e])
                    && subset.iter().any(|&e| mine[e] > theirs[e] + self.epsilons[e])
            }
            Rule::FirstCommit if self.is_later(a, b) => self.is_above(a, b, subset),
            Rule::FirstCommit => !self.is_above(b, a, subset),
        }
    }

    fn is_above(&self, later: usize, earlier: usize, subset: &[usize]) -> bool {
        subset.iter().all(|&e| self.miners[later].rates[e] > self.thresholds[earlier][e])
    }

    fn is_later(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.miners[a], &self.miners[b]);
        match (a.first_block, b.first_block) {
            (Some(mine), Some(theirs)) if mine != theirs => mine > theirs,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            _ => a.uid > b.uid,
        }
    }
}
