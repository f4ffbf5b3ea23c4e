//! `weights/publish`: the two documents of a cycle. The engine stores them in the transaction that ends the task.
//!
//! Both are canonical JSON and hold nothing but definition, salt, the block of the chain and outcomes: no cycle id, no time.
//! Two cycles of one definition, salt and block give the same bytes. Whoever made the vector, it is checked here once more before anybody is paid.

use serde::Deserialize;
use serde_json::{Value, json};

use super::documents::{Frontier, Scores, ScoresDocument};
use super::{Context, Invocation, Output, config, scores, vector};
use crate::cycle::{Publication, PublishGuard, TaskFailure};
use crate::evidence;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    scores: Scores,
    pareto: Frontier,
    /// The document, or what [`vector`] makes it of.
    weights: Value,
    #[serde(default)]
    guard: Option<PublishGuard>,
}

pub(super) fn run<J>(context: &Context<J>, invocation: Invocation<'_>) -> Result<Output, TaskFailure> {
    let Settings { scores, pareto: frontier, weights, guard } = invocation.settings()?;
    let guard = guard.unwrap_or_default();
    guard.check().map_err(|problem| config(format!("`with.guard`: {problem}")))?;
    let scores = scores::in_order(scores).map_err(|problem| config(format!("`with.scores`: {problem}")))?;
    let mut miners = frontier.miners.clone();
    miners.extend(scores.entries.iter().map(|entry| (entry.uid, entry.hotkey.clone())));
    let mut weights = vector::parse(&weights)
        .and_then(|given| vector::resolve(given, &miners))
        .map_err(|problem| config(format!("`with.weights`: {problem}")))?;
    weights.pin = context.record.pin.clone();
    let scores = ScoresDocument {
        pin: context.record.pin.clone(),
        definition_hash: context.definition.hash(),
        salt: context.record.salt.clone(),
        environments: scores.environments,
        entries: scores.entries,
        rule: frontier.rule,
        ties: frontier.ties,
        subset_weighting: frontier.subset_weighting,
        epsilons: frontier.pareto.epsilons,
        thresholds: frontier.pareto.thresholds,
        pareto_frontier: frontier.pareto.frontier,
        winner: frontier.pareto.winner,
        subset_scores: frontier.pareto.points,
    };
    let (scores, weights) = (json!(scores), json!(weights));
    let digest = evidence::digest(&weights);
    let publication = Publication {
        scores: evidence::canonical(&scores),
        weights: evidence::canonical(&weights),
        digest: digest.clone(),
        guard,
    };
    Ok(Output { publication: Some(publication), ..json!({ "digest": digest }).into() })
}
