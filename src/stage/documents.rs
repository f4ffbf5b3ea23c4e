//! What scoring stages hand on to each other, and what is published in the end.
//!
//! Only these fields are read downstream, so a stage of an operator's own may stand between any two of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cycle::{EnvironmentId, Hotkey, Miner, Pin, Salt};
use crate::scoring::{Pareto, Rule, SubsetWeighting, Ties};

/// What a stage that finds miners puts out of them; its other outputs are passed over.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Listed {
    /// Those who take part.
    pub miners: Vec<Miner>,
    /// Hotkeys that do not, where a chain was read.
    pub left_out: Vec<LeftOut>,
    /// How many hotkeys have which status, where a chain was read.
    pub statuses: BTreeMap<String, u64>,
}

/// A hotkey that does not take part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Slot on the subnet, where it is registered.
    pub uid: Option<u16>,
    /// Identity, as the chain writes it.
    pub hotkey: String,
    /// Why, in a word.
    pub status: String,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Output of `scores/aggregate`: one entry per miner and environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Sorted.
    pub environments: Vec<EnvironmentId>,
    /// Sorted by uid, then environment; complete.
    pub entries: Vec<ScoreEntry>,
}

/// How one miner did in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreEntry {
    /// Slot on the subnet.
    pub uid: u16,
    /// Identity.
    pub hotkey: Hotkey,
    /// Block of the miner's first commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_block: Option<u64>,
    /// The environment.
    pub environment: EnvironmentId,
    /// Successes by scored episodes; the mean score where the aggregate measures by score.
    pub success_rate: f64,
    /// 95 % Wilson interval of that.
    pub interval: [f64; 2],
    /// Mean of the undiscounted returns.
    pub mean_return: f64,
    /// Mean of the episodes' scores, where the environment declares one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_score: Option<f64>,
    /// Scored episodes.
    pub episodes: u32,
    /// Successes among them.
    pub successes: u32,
    /// Scored episodes by outcome, as `failure` or `miner_fault(action_timeout)`.
    pub outcomes: BTreeMap<String, u32>,
}

/// Output of `scores/pareto`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontier {
    /// The rule of domination.
    pub rule: Rule,
    /// Which of two miners with the same first block is the earlier one; the lower uid where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ties: Option<Ties>,
    /// What a subset of environments is worth.
    pub subset_weighting: SubsetWeighting,
    /// Who took part, by uid.
    pub miners: BTreeMap<u16, Hotkey>,
    /// What the rule found.
    pub pareto: Pareto,
}

/// Output of `scores/weights`, and the document validators read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightsDocument {
    /// The block that uids are as of, where a chain was read. Only publishing sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Sorted by uid.
    pub entries: Vec<WeightEntry>,
    /// Weight by uid; they sum to 1.
    pub weights: BTreeMap<u16, f64>,
    /// What goes on chain.
    pub weights_u16: crate::scoring::WeightsU16,
}

/// The weight of one miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightEntry {
    /// Slot on the subnet at the pinned block.
    pub uid: u16,
    /// Identity; none for a burn uid that is no miner.
    pub hotkey: Option<Hotkey>,
    /// Share, 0 to 1.
    pub weight: f64,
    /// floor(share of the sum x 65535).
    pub weight_u16: u16,
}

/// The scores document that is published beside the weights: all that is needed to see where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoresDocument {
    /// The block that uids are as of, where a chain was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Content hash of the definition the cycle was pinned to.
    pub definition_hash: String,
    /// The secret its seeds came from, shown now that the episodes are over.
    pub salt: Salt,
    /// Sorted.
    pub environments: Vec<EnvironmentId>,
    /// Sorted by uid, then environment.
    pub entries: Vec<ScoreEntry>,
    /// The rule of domination.
    pub rule: Rule,
    /// Under the rule `first_commit`, which of two miners with the same first block is the earlier one; the lower uid where nothing
    /// is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ties: Option<Ties>,
    /// What a subset of environments is worth.
    pub subset_weighting: SubsetWeighting,
    /// Tolerance by environment.
    pub epsilons: BTreeMap<String, f64>,
    /// What a later miner must exceed under the rule `first_commit`, by uid and environment.
    pub thresholds: BTreeMap<u16, BTreeMap<String, f64>>,
    /// The epsilon-Pareto frontier: miners that nobody dominates by the rule `epsilon`. In documents without `ties` it is that of
    /// the document's own rule.
    pub pareto_frontier: Vec<u16>,
    /// Who wins all environments together under the rule; absent where nobody does, and in documents without `ties`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<u16>,
    /// Points by uid.
    pub subset_scores: BTreeMap<u16, f64>,
}
