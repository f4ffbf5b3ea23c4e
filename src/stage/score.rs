//! `scores/pareto` and `scores/weights`: the pure scoring module as stages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::documents::{Frontier, ScoreEntry, Scores, WeightEntry, WeightsDocument};
use super::{Invocation, Output, chain, config, scores};
use crate::cycle::{FailureClass, Hotkey, TaskFailure};
use crate::scoring::{self, AllZero, MinerRow, Pareto, Rule, SubsetWeighting, Table, Ties, TooHard};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParetoSettings {
    scores: Scores,
    rule: Rule,
    /// None in a definition that was made before there was a choice.
    #[serde(default)]
    ties: Option<Ties>,
    subset_weighting: SubsetWeighting,
}

/// The frontier of a table of scores.
pub(super) async fn pareto(invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let mut settings: ParetoSettings = invocation.settings()?;
    settings.scores =
        scores::in_order(settings.scores).map_err(|problem| config(format!("`with.scores`: {problem}")))?;
    let miners: BTreeMap<u16, Hotkey> =
        settings.scores.entries.iter().map(|entry| (entry.uid, entry.hotkey.clone())).collect();
    let table = table(&settings.scores)?;
    // Counting subsets may take seconds of pure work, which must not hold up heartbeats.
    let ParetoSettings { rule, ties, subset_weighting, .. } = settings;
    let counting = tokio::task::spawn_blocking(move || found(&table, rule, ties, subset_weighting));
    let pareto = counting.await.map_err(crashed)?.map_err(|error| config(error.to_string()))?;
    let frontier = Frontier { rule, ties, subset_weighting, miners, pareto };
    Ok(json!({ "pareto": frontier }).into())
}

/// A definition from before there was a choice of `ties` comes to what it came to then: the lower uid is the earlier one, and the
/// frontier is that of the rule.
fn found(table: &Table, rule: Rule, ties: Option<Ties>, weighting: SubsetWeighting) -> Result<Pareto, TooHard> {
    if let Some(ties) = ties {
        return scoring::pareto(table, rule, ties, weighting);
    }
    let found = scoring::pareto(table, rule, Ties::LowerUid, weighting)?;
    Ok(Pareto { frontier: scoring::undominated(table, rule, Ties::LowerUid), winner: None, ..found })
}

/// Counting panics only by a mistake of ours.
fn crashed(error: tokio::task::JoinError) -> TaskFailure {
    TaskFailure { class: FailureClass::Infra, message: chain(&error) }
}

/// The table of rates. Where miners have different numbers of episodes in an environment, the smallest counts.
fn table(scores: &Scores) -> Result<Table, TaskFailure> {
    let cells: BTreeMap<(u16, &str), &ScoreEntry> =
        scores.entries.iter().map(|entry| ((entry.uid, entry.environment.as_str()), entry)).collect();
    let mut rows: BTreeMap<u16, MinerRow> = BTreeMap::new();
    let mut episodes = vec![u32::MAX; scores.environments.len()];
    for entry in &scores.entries {
        rows.entry(entry.uid).or_insert_with(|| MinerRow {
            uid: entry.uid,
            first_block: entry.first_block,
            rates: Vec::new(),
        });
    }
    for row in rows.values_mut() {
        for (environment, smallest) in scores.environments.iter().zip(&mut episodes) {
            let cell = cells
                .get(&(row.uid, environment.as_str()))
                .ok_or_else(|| config(format!("the scores have no entry for uid {} in `{environment}`", row.uid)))?;
            row.rates.push(cell.success_rate);
            *smallest = (*smallest).min(cell.episodes);
        }
    }
    let environments = scores.environments.iter().map(ToString::to_string).collect();
    Table::new(environments, episodes, rows.into_values().collect())
        .map_err(|error| TaskFailure { class: FailureClass::Config, message: error.to_string() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsSettings {
    pareto: Frontier,
    temperature: f64,
    #[serde(default)]
    all_zero: Option<AllZeroChoice>,
    #[serde(default)]
    burn_uid: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AllZeroChoice {
    Uniform,
    Burn,
}

/// The weight vector of a frontier.
pub(super) fn weights(invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let settings: WeightsSettings = invocation.settings()?;
    let all_zero = match (settings.all_zero, settings.burn_uid) {
        (Some(AllZeroChoice::Uniform), _) | (None, None) => AllZero::Uniform,
        (Some(AllZeroChoice::Burn) | None, Some(uid)) => AllZero::Burn(uid),
        (Some(AllZeroChoice::Burn), None) => return Err(config("`all_zero: burn` needs `burn_uid`")),
    };
    let weights = settings.pareto.pareto.weights(settings.temperature, all_zero);
    let weights = weights.map_err(|error| config(error.to_string()))?;
    let u16s: BTreeMap<u16, u16> =
        weights.weights_u16.uids.iter().copied().zip(weights.weights_u16.values.iter().copied()).collect();
    let entries = weights
        .weights
        .iter()
        .map(|(&uid, &weight)| WeightEntry {
            uid,
            hotkey: settings.pareto.miners.get(&uid).cloned(),
            weight,
            weight_u16: u16s.get(&uid).copied().unwrap_or(0),
        })
        .collect();
    let document = WeightsDocument { pin: None, entries, weights: weights.weights, weights_u16: weights.weights_u16 };
    Ok(json!({ "weights": document }).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_from_before_ties_comes_to_what_it_came_to_then() {
        let row = |uid, rate| MinerRow { uid, first_block: Some(5), rates: vec![rate] };
        let rows = vec![row(1, 0.5), row(2, 0.55), row(3, 0.6)];
        let table = Table::new(vec!["e/a".into()], vec![100], rows).unwrap();
        let of = |rule, ties| found(&table, rule, ties, SubsetWeighting::Size).unwrap();
        let now = of(Rule::FirstCommit, Some(Ties::BothEarlier));
        assert_eq!((now.frontier.as_slice(), now.winner), (&[3_u16][..], Some(2)));
        let then = of(Rule::FirstCommit, None);
        assert_eq!((then.frontier.len(), then.winner, then.points.values().sum::<f64>()), (0, None, 0.0));
        let written = json!(of(Rule::Epsilon, None));
        assert_eq!((written.get("winner"), &written["frontier"]), (None, &json!([3])));
    }
}
