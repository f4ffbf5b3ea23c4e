//! What a cycle has published, in the bodies that clients know.
//!
//! Two generations of clients read them, so some things stand under two names. Everything of the published documents is
//! kept as it is; names are only added. Pure functions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::standing::{Status, Validity};
use crate::{
    cycle::{CycleId, CycleNumber, CycleStatus},
    stage::documents::{ScoreEntry, ScoresDocument, WeightsDocument},
    store::{CycleSummary, PublicationRow},
};

/// A published document is not what this program publishes.
#[derive(Debug, thiserror::Error)]
#[error("the {document} published by cycle `{cycle}` cannot be read")]
pub struct Unreadable {
    document: &'static str,
    cycle: CycleId,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A miner's weight.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Weight {
    /// Slot on the subnet at the pinned block.
    pub uid: u16,
    /// Who it is; nobody for a weight that is burnt.
    pub hotkey: Option<String>,
    /// Share of the whole.
    pub weight: f64,
    /// The share as the chain takes it.
    pub weight_u16: u16,
}

/// The weights of a publication, in the order they were published.
///
/// # Errors
/// [`Unreadable`].
pub fn weight_entries(row: &PublicationRow) -> Result<Vec<Weight>, Unreadable> {
    #[derive(Deserialize)]
    struct Weights {
        entries: Vec<Weight>,
    }
    let weights: Weights = read(&row.publication.weights, "weights", row.cycle)?;
    Ok(weights.entries)
}

/// The body of `/v1/weights/...`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Weights")]
struct WeightsBody<'a> {
    /// Number of the cycle it is the result of.
    cycle_id: CycleNumber,
    /// UUID of that cycle.
    cycle_uuid: CycleId,
    /// The pipeline of that cycle.
    pipeline: &'a str,
    /// The block the cycle was pinned to, where a chain was read.
    block: Option<u64>,
    /// When it was published.
    created_at: DateTime<Utc>,
    /// The same as `block`; 0 where no chain was read.
    block_number: u64,
    /// The same as `created_at`.
    timestamp: DateTime<Utc>,
    /// The document that the digest covers, as it was published.
    #[serde(flatten)]
    #[schemars(with = "WeightsDocument")]
    published: Map<String, Value>,
    /// The subnet, where a chain was read.
    netuid: Option<u16>,
    /// Hash of the chain's block 0, as `0x` and digits.
    genesis: Option<String>,
    /// SHA-256 of the published document.
    digest: &'a str,
    /// Digest of the vector published before it.
    previous_digest: Option<&'a str>,
    /// Its place in the chain of publications, from 1.
    sequence: i64,
    /// The last block in which it counts.
    valid_until_block: Option<u64>,
    /// Of the vector that counts `fresh`, `stale`, `held` or `burn`; of any other `published` or `held`.
    status: &'a str,
    /// Why it is not fresh.
    reason: Option<&'a str>,
    /// By whose word a held vector is given out.
    released: Option<ReleasedBody<'a>>,
    /// What it rests on.
    metadata: Metadata,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Release")]
struct ReleasedBody<'a> {
    /// What that person says.
    reason: &'a str,
    /// When.
    at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
struct Metadata {
    /// Miners with a score.
    n_miners_evaluated: usize,
    /// In how many environments.
    n_environments: usize,
    /// Seconds from the cycle's start to its end.
    evaluation_duration_seconds: f64,
}

/// The body of `/v1/weights/...`. Only the vector that counts has a status.
///
/// # Errors
/// [`Unreadable`].
pub fn weights(
    (row, cycle): (&PublicationRow, &CycleSummary),
    validity: Validity,
    status: Option<&Status>,
) -> Result<Value, Unreadable> {
    let published: Map<String, Value> = read(&row.publication.weights, "weights", row.cycle)?;
    let size = Size::of(&read(&row.publication.scores, "scores", row.cycle)?);
    // Where clients look for them; the document's own `pin` is what the digest covers.
    let pin = |name: &str| published.get("pin").map(|pin| pin[name].clone());
    let body = WeightsBody {
        cycle_id: cycle.number,
        cycle_uuid: row.cycle,
        pipeline: &cycle.pipeline,
        block: row.block,
        created_at: row.created_at,
        block_number: row.block.unwrap_or_default(),
        timestamp: row.created_at,
        netuid: pin("netuid").and_then(|netuid| netuid.as_u64()?.try_into().ok()),
        genesis: pin("genesis").and_then(|genesis| Some(genesis.as_str()?.to_owned())),
        published,
        digest: &row.publication.digest,
        previous_digest: row.previous_digest.as_deref(),
        sequence: row.sequence,
        valid_until_block: row.block.map(|block| validity.until(block)),
        status: status.map_or(given_out(row), Status::word),
        reason: status.map_or(row.held.as_deref(), Status::reason),
        released: row.release.as_ref().map(|it| ReleasedBody { reason: &it.reason, at: it.at }),
        metadata: Metadata {
            n_miners_evaluated: size.miners,
            n_environments: size.environments,
            evaluation_duration_seconds: duration(cycle, row.created_at),
        },
    };
    written(&body, "weights", row.cycle)
}

/// What a weights body looks like.
pub(super) fn weights_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<WeightsBody<'_>>()
}

/// The body of `/v1/scores/...`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Scores")]
struct ScoresBody<'a> {
    /// Number of the cycle they are the result of.
    cycle_id: CycleNumber,
    /// UUID of that cycle.
    cycle_uuid: CycleId,
    /// The block the cycle was pinned to, where a chain was read.
    block: Option<u64>,
    /// When they were published.
    created_at: DateTime<Utc>,
    /// Success rate by uid and environment.
    scores: &'a ByMiner,
    /// The same as `scores`.
    miner_summary: &'a ByMiner,
    /// The document as it was published; each entry with the names that older clients know, too.
    #[serde(flatten)]
    #[schemars(with = "PublishedScores")]
    published: Map<String, Value>,
    /// The cycle as older clients know it.
    cycle: OlderCycle,
}

type ByMiner = BTreeMap<u16, BTreeMap<String, f64>>;

/// The published document with its entries' older names.
#[derive(Serialize, JsonSchema)]
struct PublishedScores {
    #[serde(flatten)]
    document: ScoresDocument,
    /// Sorted by uid, then environment.
    entries: Vec<PublishedScore>,
}

/// How one miner did in one environment.
#[derive(Serialize, JsonSchema)]
struct PublishedScore {
    #[serde(flatten)]
    entry: ScoreEntry,
    /// The same as `environment`.
    env_id: String,
    /// The same as `mean_return`.
    mean_reward: f64,
    /// Episodes whose simulation came to its end.
    episodes_completed: u64,
    /// Episodes that the miner broke off.
    episodes_failed: u64,
}

/// The body of `/v1/scores/...`.
///
/// # Errors
/// [`Unreadable`].
pub fn scores(row: &PublicationRow, cycle: &CycleSummary) -> Result<Value, Unreadable> {
    let mut published: Map<String, Value> = read(&row.publication.scores, "scores", row.cycle)?;
    let document = Evaluated::of(row)?;
    if let Some(Value::Array(entries)) = published.get_mut("entries") {
        for (entry, score) in entries.iter_mut().zip(&document.entries) {
            if let Value::Object(entry) = entry {
                score.add_older_names(entry);
            }
        }
    }
    let mut by_miner = ByMiner::new();
    for score in &document.entries {
        by_miner.entry(score.uid).or_default().insert(score.environment.clone(), score.success_rate);
    }
    let body = ScoresBody {
        cycle_id: cycle.number,
        cycle_uuid: row.cycle,
        block: row.block,
        created_at: row.created_at,
        scores: &by_miner,
        miner_summary: &by_miner,
        published,
        cycle: self::cycle(cycle, Some(&document)),
    };
    written(&body, "scores", row.cycle)
}

/// What a scores body looks like.
pub(super) fn scores_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<ScoresBody<'_>>()
}

/// A cycle as older clients know it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OlderCycle {
    /// Its number.
    id: CycleNumber,
    /// Its UUID.
    uuid: CycleId,
    /// The block it is pinned to; 0 where no chain was read.
    block_number: u64,
    /// When it was created.
    started_at: DateTime<Utc>,
    /// When it ended.
    completed_at: Option<DateTime<Utc>>,
    /// `pending`, `running`, `completed`, or `failed`, which a cancelled cycle is too.
    status: &'static str,
    /// Miners with a score; 0 before it has published.
    n_miners: usize,
    /// In how many environments; 0 before it has published.
    n_environments: usize,
    /// Seconds from its start to its end.
    duration_seconds: Option<f64>,
}

/// A cycle as older clients know it; what was evaluated in it is known once it has published.
pub(super) fn cycle(cycle: &CycleSummary, evaluated: Option<&Evaluated>) -> OlderCycle {
    let size = evaluated.map(Size::of);
    OlderCycle {
        id: cycle.number,
        uuid: cycle.id,
        block_number: cycle.block.unwrap_or_default(),
        started_at: cycle.created_at,
        completed_at: cycle.finished_at,
        status: match cycle.status {
            CycleStatus::Open if cycle.is_running => "running",
            CycleStatus::Open => "pending",
            CycleStatus::Completed => "completed",
            CycleStatus::Failed | CycleStatus::Cancelled => "failed",
        },
        n_miners: size.as_ref().map_or(0, |size| size.miners),
        n_environments: size.as_ref().map_or(0, |size| size.environments),
        duration_seconds: cycle.finished_at.map(|ended| duration(cycle, ended)),
    }
}

/// The scores of a publication as a table: one line for each miner and environment.
///
/// # Errors
/// [`Unreadable`].
pub fn scores_csv(row: &PublicationRow) -> Result<String, Unreadable> {
    let table = |error: csv::Error| Unreadable { document: "scores", cycle: row.cycle, source: error.into() };
    let mut writer = csv::Writer::from_writer(Vec::new());
    for entry in Evaluated::of(row)?.entries {
        let Score { uid, hotkey, environment, success_rate, interval: [lower, upper], .. } = entry;
        let Score { mean_return, episodes, successes, .. } = entry;
        let line = Line { uid, hotkey, environment, success_rate, lower, upper, mean_return, episodes, successes };
        writer.serialize(line).map_err(table)?;
    }
    let bytes = writer.into_inner().map_err(|error| table(error.into_error().into()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of that table.
#[derive(Serialize)]
struct Line {
    uid: u16,
    hotkey: String,
    environment: String,
    success_rate: f64,
    lower: f64,
    upper: f64,
    mean_return: f64,
    episodes: u64,
    successes: u64,
}

/// A vector that is looked at by itself.
fn given_out(row: &PublicationRow) -> &'static str {
    if row.is_given_out() { "published" } else { "held" }
}

/// Seconds from the cycle's start to its end, which is when it is published.
fn duration(cycle: &CycleSummary, published: DateTime<Utc>) -> f64 {
    let span = cycle.finished_at.unwrap_or(published) - cycle.created_at;
    span.num_milliseconds() as f64 / 1000.0
}

fn read<'a, T: Deserialize<'a>>(text: &'a str, document: &'static str, cycle: CycleId) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|error| Unreadable { document, cycle, source: error.into() })
}

/// The body as a value: what is said twice is as the published document says it.
fn written(body: &impl Serialize, document: &'static str, cycle: CycleId) -> Result<Value, Unreadable> {
    serde_json::to_value(body).map_err(|error| Unreadable { document, cycle, source: error.into() })
}

/// What clients of the API are told of a scores document.
#[derive(Debug, Deserialize)]
pub struct Evaluated {
    /// In what.
    pub environments: Vec<String>,
    /// Who, and how it went.
    pub entries: Vec<Score>,
}

/// How a miner did in an environment.
#[derive(Debug, Deserialize)]
pub struct Score {
    /// Slot on the subnet at the pinned block.
    pub uid: u16,
    /// Who.
    pub hotkey: String,
    /// Where.
    pub environment: String,
    /// Share of episodes that succeeded.
    pub success_rate: f64,
    /// 95 % Wilson interval of that.
    pub interval: [f64; 2],
    /// Mean return of an episode.
    pub mean_return: f64,
    /// Scored episodes.
    pub episodes: u64,
    /// Those that succeeded.
    pub successes: u64,
    outcomes: Map<String, Value>,
}

impl Evaluated {
    /// What a publication rests on.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn of(row: &PublicationRow) -> Result<Self, Unreadable> {
        read(&row.publication.scores, "scores", row.cycle)
    }

    /// How many miners.
    pub fn miners(&self) -> usize {
        Size::of(self).miners
    }
}

impl Score {
    /// Scored episodes by outcome.
    pub(super) fn outcomes(&self) -> BTreeMap<&str, u64> {
        self.outcomes.iter().filter_map(|(word, count)| Some((word.as_str(), count.as_u64()?))).collect()
    }

    /// Older clients call an episode failed when its miner broke off, and completed when the simulation came to its end.
    fn add_older_names(&self, entry: &mut Map<String, Value>) {
        let is_fault = |word: &str| word.starts_with("miner_fault");
        let faults = self.outcomes.iter().filter(|(word, _)| is_fault(word)).filter_map(|(_, count)| count.as_u64());
        let failed: u64 = faults.sum();
        entry.insert("env_id".into(), json!(self.environment));
        entry.insert("mean_reward".into(), json!(self.mean_return));
        entry.insert("episodes_completed".into(), json!(self.episodes.saturating_sub(failed)));
        entry.insert("episodes_failed".into(), json!(failed));
    }
}

struct Size {
    miners: usize,
    environments: usize,
}

impl Size {
    fn of(scores: &Evaluated) -> Self {
        let uids: std::collections::BTreeSet<u16> = scores.entries.iter().map(|entry| entry.uid).collect();
        Self { miners: uids.len(), environments: scores.environments.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::{Publication, PublishGuard};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn published() -> (PublicationRow, CycleSummary) {
        let id: CycleId = "01900000-0000-7000-8000-000000000001".parse().unwrap();
        let scores = json!({
            "environments": ["metaworld/reach-v3"], "epsilons": {"metaworld/reach-v3": 0.1},
            "pareto_frontier": [1], "rule": "epsilon",
            "entries": [
                {"uid": 1, "hotkey": "ann", "environment": "metaworld/reach-v3", "success_rate": 0.8, "interval": [0.37, 0.96],
                 "mean_return": 12.5, "episodes": 5, "successes": 4, "outcomes": {"success": 4, "miner_fault(action_timeout)": 1}},
                {"uid": 2, "hotkey": "bob", "environment": "metaworld/reach-v3", "success_rate": 0.0, "interval": [0.0, 0.43],
                 "mean_return": 1.0, "episodes": 5, "successes": 0, "outcomes": {"failure": 5}},
            ],
        });
        let weights = json!({
            "entries": [{"uid": 1, "hotkey": "ann", "weight": 0.75, "weight_u16": 49151},
                        {"uid": 2, "hotkey": "bob", "weight": 0.25, "weight_u16": 16383}],
            "weights": {"1": 0.75, "2": 0.25},
            "weights_u16": {"uids": [1, 2], "values": [49151, 16383]},
        });
        let row = PublicationRow {
            cycle: id,
            sequence: 3,
            publication: Publication {
                scores: scores.to_string(),
                weights: weights.to_string(),
                digest: "d3".into(),
                guard: PublishGuard::default(),
            },
            previous_digest: Some("d2".into()),
            block: Some(77),
            created_at: at(60),
            as_of: at(60),
            held: None,
            release: None,
        };
        let cycle = CycleSummary {
            id,
            number: 42.try_into().unwrap(),
            pipeline: "quickstart".into(),
            definition_hash: "h".into(),
            status: CycleStatus::Completed,
            reason: None,
            is_running: false,
            paused: false,
            has_begun: true,
            cancel_requested: false,
            block: Some(77),
            salt_sha256: "s".into(),
            salt: None,
            created_at: at(0),
            finished_at: Some(at(61)),
            tasks: (8, 8),
            episodes: (10, 10),
            weights_digest: Some("d3".into()),
        };
        (row, cycle)
    }

    #[test]
    fn weights_have_the_names_of_both_generations() {
        let (row, cycle) = published();
        insta::assert_json_snapshot!(weights((&row, &cycle), Validity::default(), Some(&Status::Fresh)).unwrap());
        assert_eq!(weight_entries(&row).unwrap()[1].weight_u16, 16383);
    }

    #[test]
    fn scores_have_the_names_of_both_generations() {
        let (row, cycle) = published();
        insta::assert_json_snapshot!(scores(&row, &cycle).unwrap());
    }

    #[test]
    fn a_document_of_another_kind_is_refused() {
        let (mut row, cycle) = published();
        row.publication.scores = "{}".into();
        let error = scores(&row, &cycle).unwrap_err().to_string();
        assert_eq!(error, "the scores published by cycle `01900000-0000-7000-8000-000000000001` cannot be read");
    }
}
