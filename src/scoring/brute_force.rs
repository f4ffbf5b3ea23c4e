//! The subset game played subset by subset, pair by pair, word for word as it is defined: what the fast one must equal.
//!
//! Used by the tests and, as the yardstick, by `benches/scoring.rs`.

use super::{MinerRow, Rule, SubsetWeighting, Table, Ties};

/// What decides between two rates of an environment: whether the miner of the first row is better than that of the second by more
/// than the rule's margin.
pub(crate) type IsBetter<'a> = &'a dyn Fn(usize, usize, usize) -> bool;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Played {
    /// Whom nobody dominates on all environments.
    pub(crate) undominated: Vec<u16>,
    /// Who wins all environments together.
    pub(crate) winner: Option<u16>,
    /// Points, by row.
    pub(crate) points: Vec<f64>,
}

/// Play a table, given how two rates compare under the rule.
pub(crate) fn play(
    table: &Table,
    (rule, ties): (Rule, Ties),
    weighting: SubsetWeighting,
    is_better: IsBetter<'_>,
) -> Played {
    let game = Game { miners: table.miners(), rule, ties, is_better };
    let rows = 0..game.miners.len();
    let all: Vec<usize> = (0..table.environments().len()).collect();
    let is_dominated = |a: usize| rows.clone().any(|b| b != a && game.dominates(b, a, &all));
    let undominated = rows.clone().filter(|a| !is_dominated(*a)).map(|a| game.miners[a].uid).collect();

    let mut points = vec![0.0; game.miners.len()];
    for number in 1_u64..1 << all.len() {
        let subset: Vec<usize> = all.iter().copied().filter(|environment| number >> environment & 1 == 1).collect();
        if let Some(winner) = game.winner(&subset) {
            points[winner] += match weighting {
                SubsetWeighting::Size => subset.len() as f64,
                SubsetWeighting::Exponential => 2_f64.powi(subset.len() as i32 - 1),
                SubsetWeighting::Equal => 1.0,
            };
        }
    }
    Played { undominated, winner: game.winner(&all).map(|row| game.miners[row].uid), points }
}

struct Game<'a> {
    miners: &'a [MinerRow],
    rule: Rule,
    ties: Ties,
    is_better: IsBetter<'a>,
}

impl Game<'_> {
    /// The first, by age and then uid, of those that dominate everybody else.
    fn winner(&self, subset: &[usize]) -> Option<usize> {
        let mut order: Vec<usize> = (0..self.miners.len()).collect();
        order.sort_by_key(|row| (self.block(*row), self.miners[*row].uid));
        let wins = |a: &usize| order.iter().all(|b| b == a || self.dominates(*a, *b, subset));
        order.iter().copied().find(wins)
    }

    fn dominates(&self, a: usize, b: usize, subset: &[usize]) -> bool {
        let is_better = |a: usize, b: usize| move |&e: &usize| (self.is_better)(a, b, e);
        match self.rule {
            Rule::Epsilon => !subset.iter().any(is_better(b, a)) && subset.iter().any(is_better(a, b)),
            Rule::FirstCommit if self.is_later(a, b) => subset.iter().all(is_better(a, b)),
            Rule::FirstCommit => !subset.iter().all(is_better(b, a)),
        }
    }

    fn block(&self, row: usize) -> u128 {
        self.miners[row].first_block.map_or(u128::MAX, u128::from)
    }

    fn is_later(&self, a: usize, b: usize) -> bool {
        match self.ties {
            Ties::BothEarlier => self.block(a) > self.block(b),
            Ties::LowerUid => (self.block(a), self.miners[a].uid) > (self.block(b), self.miners[b].uid),
        }
    }
}
