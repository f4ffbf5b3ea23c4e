//! The result of a cycle as a person reads it: success rates with intervals, the frontier, the weights.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::cycle::EnvironmentId;
use crate::scoring::Bias;
use crate::stage::documents::{ScoreEntry, ScoresDocument, WeightsDocument};

/// Tables of scores and weights, ready to print.
pub(super) fn results(scores: &ScoresDocument, weights: &WeightsDocument) -> String {
    let rates = rates(scores);
    let frontier: Vec<String> = scores.pareto_frontier.iter().map(|uid| name(scores, *uid)).collect();
    let winner = scores.winner.map(|uid| format!("\nWins all environments: {}", name(scores, uid))).unwrap_or_default();
    let weights = weights_table(scores, weights);
    let faults = faults(scores);
    format!(
        "Success rate [95 % Wilson interval] n\n{rates}\n{faults}\nPareto frontier: {}{winner}\n\nWeights\n{weights}\n",
        if frontier.is_empty() { "nobody".into() } else { frontier.join(", ") }
    )
}

/// A line about episodes that miners lost by a fault; nothing when there are none.
fn faults(scores: &ScoresDocument) -> String {
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    for (outcome, count) in scores.entries.iter().flat_map(|entry| &entry.outcomes) {
        if let Some(reason) = outcome.strip_prefix("miner_fault(") {
            *reasons.entry(reason.trim_end_matches(')')).or_default() += count;
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let (lost, all): (u32, u32) = (reasons.values().sum(), scores.entries.iter().map(|entry| entry.episodes).sum());
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("\n{lost} of {all} episodes failed by a fault of the miner: {}\n", reasons.join(", "))
}

fn rates(scores: &ScoresDocument) -> Table {
    let cells: BTreeMap<(u16, &EnvironmentId), &ScoreEntry> =
        scores.entries.iter().map(|entry| ((entry.uid, &entry.environment), entry)).collect();
    let uids: BTreeMap<u16, &ScoreEntry> = scores.entries.iter().map(|entry| (entry.uid, entry)).collect();
    let mut table = plain(
        ["uid".to_owned(), "miner".into()].into_iter().chain(scores.environments.iter().map(ToString::to_string)),
    );
    for (uid, entry) in uids {
        let rates = scores
            .environments
            .iter()
            .map(|environment| cells.get(&(uid, environment)).map_or("-".into(), |c| rate(c)));
        table.add_row([uid.to_string(), entry.hotkey.to_string()].into_iter().chain(rates));
    }
    table
}

fn rate(entry: &ScoreEntry) -> String {
    let [low, high] = entry.interval;
    format!("{:.2} [{low:.2}, {high:.2}] {}", entry.success_rate, entry.episodes)
}

fn weights_table(scores: &ScoresDocument, weights: &WeightsDocument) -> Table {
    let mut table = plain(["uid", "miner", "subset score", "weight", "u16"].map(str::to_owned));
    for entry in &weights.entries {
        let points = scores.subset_scores.get(&entry.uid).map_or("-".into(), |points| format!("{points}"));
        let hotkey = entry.hotkey.as_ref().map_or("(burn)".into(), ToString::to_string);
        table.add_row([
            entry.uid.to_string(),
            hotkey,
            points,
            format!("{:.6}", entry.weight),
            entry.weight_u16.to_string(),
        ]);
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn name(scores: &ScoresDocument, uid: u16) -> String {
    let entry = scores.entries.iter().find(|entry| entry.uid == uid);
    entry.map_or_else(|| uid.to_string(), |entry| format!("{} (uid {uid})", entry.hotkey))
}

/// A table without lines between rows, that never wraps what a script may cut.
pub(super) fn plain(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.into_iter().collect::<Vec<_>>());
    table
}

/// Whether episodes that ran again after faults of ours ended differently from the others.
pub(super) fn retried(bias: &Bias) -> String {
    let Bias { retried, observed, expected, z } = bias;
    let verdict = if bias.is_suspicious() {
        "chance alone rarely does that: look at what those episodes have in common"
    } else {
        "no sign that running them again changed the result"
    };
    format!(
        "Ran again: {retried} episodes, {observed} successes where the others suggest {expected:.1} (z {z:.2}): {verdict}."
    )
}
