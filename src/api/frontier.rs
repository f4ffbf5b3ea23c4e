//! Where a miner stands to the frontier and what it lacks to be paid more, out of the scores that a vector rests on. Pure.

use schemars::JsonSchema;
use serde::Serialize;

use super::documents::Unreadable;
use crate::cycle::Hotkey;
use crate::scoring::{Gap, MinerRow, Missing, Rule, Table, Ties, missing};
use crate::stage::documents::{ScoreEntry, ScoresDocument};
use crate::store::PublicationRow;

/// Where a miner stands to the frontier.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Frontier {
    /// Whether it is on the epsilon-Pareto frontier, `pareto_frontier` of the scores.
    is_on_it: bool,
    /// The rule of domination.
    rule: Rule,
    /// Who dominates it on all environments together by the rule.
    dominated_by: Vec<Dominator>,
    /// How far it is from them, by environment. Closing every gap, or taking one lead, leaves none of them.
    environments: Vec<Distance>,
}

/// Somebody who dominates the miner.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Dominator {
    /// Slot on the subnet.
    uid: u16,
    /// Identity.
    hotkey: Hotkey,
}

/// How far a miner is from those who dominate it, in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Distance {
    /// The environment.
    environment: String,
    /// Its success rate.
    success_rate: f64,
    /// The best success rate of those who dominate it; its own where nobody does.
    best_of_dominators: f64,
    /// The margin within which two rates count as equal under the rule `epsilon`.
    epsilon: f64,
    /// How much its success rate must grow so that none of them is better here by more than the margin; 0 where none is. Under
    /// the rule `first_commit`: how much it must grow, and a little more.
    gap: f64,
    /// How much more than this it must grow to be better than all of them by more than the margin, which in one environment is
    /// enough; null where no rate is that high, where nobody dominates it, and under the rule `first_commit`.
    lead: Option<f64>,
}

impl From<Gap> for Distance {
    fn from(Gap { environment, rate, best, epsilon, gap, lead }: Gap) -> Self {
        Self { environment, success_rate: rate, best_of_dominators: best, epsilon, gap, lead }
    }
}

/// Where a miner stands to the frontier of a vector. None where it is not among those who were scored in all environments.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn of(row: &PublicationRow, hotkey: &Hotkey) -> Result<Option<Frontier>, Unreadable> {
    // Documents of earlier versions may not say by which rule.
    let Ok(scores) = serde_json::from_str::<ScoresDocument>(&row.publication.scores) else {
        super::documents::Evaluated::of(row)?;
        return Ok(None);
    };
    let Some(uid) = scores.entries.iter().find(|entry| entry.hotkey == *hotkey).map(|entry| entry.uid) else {
        return Ok(None);
    };
    let Some(table) = table(&scores) else { return Ok(None) };
    let ties = scores.ties.unwrap_or(Ties::LowerUid);
    let Some(Missing { dominated_by, gaps }) = missing(&table, scores.rule, ties, uid) else { return Ok(None) };
    let hotkey_of = |uid: u16| scores.entries.iter().find(|entry| entry.uid == uid).map(|entry| entry.hotkey.clone());
    let dominators = dominated_by.into_iter().filter_map(|uid| Some(Dominator { uid, hotkey: hotkey_of(uid)? }));
    let dominated_by: Vec<Dominator> = dominators.collect();
    Ok(Some(Frontier {
        is_on_it: scores.pareto_frontier.contains(&uid),
        rule: scores.rule,
        dominated_by,
        environments: gaps.into_iter().map(Distance::from).collect(),
    }))
}

/// The table that was scored: whoever has a rate in every environment.
fn table(scores: &ScoresDocument) -> Option<Table> {
    let environments: Vec<String> = scores.environments.iter().map(ToString::to_string).collect();
    let fewest = |id: &String| {
        let entries = scores.entries.iter().filter(|entry| entry.environment.as_str() == id);
        entries.map(|entry| entry.episodes).min().unwrap_or(0)
    };
    let episodes = environments.iter().map(fewest).collect();
    let mut miners: Vec<MinerRow> = Vec::new();
    for entries in scores.entries.chunk_by(|one, other| one.uid == other.uid) {
        let rate = |id: &String| Some(entries.iter().find(|entry| entry.environment.as_str() == id)?.success_rate);
        let Some(rates) = environments.iter().map(rate).collect::<Option<Vec<f64>>>() else { continue };
        let [ScoreEntry { uid, first_block, .. }, ..] = entries else { continue };
        miners.push(MinerRow { uid: *uid, first_block: *first_block, rates });
    }
    Table::new(environments, episodes, miners).ok()
}
