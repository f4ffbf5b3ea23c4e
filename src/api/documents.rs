//! What a cycle has published, in the bodies that clients know.
//!
//! Two generations of clients read them, so some things stand under two names. Everything of the published documents is
//! kept as it is; names are only added. Pure functions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::standing::{Status, Validity};
use crate::{
    cycle::CycleId,
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
    let mut body = head(row);
    body.insert("block_number".into(), json!(row.block));
    body.insert("timestamp".into(), json!(row.created_at));
    body.extend(published);
    // Where clients look for them; the document's own `pin` is what the digest covers.
    for name in ["netuid", "genesis"] {
        body.insert(name.into(), body.get("pin").map_or(Value::Null, |pin| pin[name].clone()));
    }
    body.insert("digest".into(), json!(row.publication.digest));
    body.insert("previous_digest".into(), json!(row.previous_digest));
    body.insert("sequence".into(), json!(row.sequence));
    body.insert("valid_until_block".into(), json!(row.block.map(|block| validity.until(block))));
    body.insert("status".into(), json!(status.map_or(given_out(row), Status::word)));
    body.insert("reason".into(), json!(status.map_or(row.held.as_deref(), Status::reason)));
    let release = row.release.as_ref();
    body.insert("released".into(), json!(release.map(|it| json!({ "reason": it.reason, "at": it.at }))));
    body.insert(
        "metadata".into(),
        json!({
            "n_miners_evaluated": size.miners,
            "n_environments": size.environments,
            "evaluation_duration_seconds": duration(cycle, row.created_at),
        }),
    );
    Ok(body.into())
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
    let mut by_miner: Map<String, Value> = Map::new();
    for score in &document.entries {
        let miner = by_miner.entry(score.uid.to_string()).or_insert_with(|| json!({}));
        miner[&score.environment] = json!(score.success_rate);
    }
    let mut body = head(row);
    body.insert("scores".into(), by_miner.clone().into());
    body.insert("miner_summary".into(), by_miner.into());
    body.extend(published);
    body.insert("cycle".into(), self::cycle(cycle, Some(&document)));
    Ok(body.into())
}

/// A cycle as older clients know it; what was evaluated in it is known once it has published.
pub fn cycle(cycle: &CycleSummary, evaluated: Option<&Evaluated>) -> Value {
    let size = evaluated.map(Size::of);
    json!({
        "id": cycle.id,
        "block_number": cycle.block,
        "started_at": cycle.created_at,
        "completed_at": cycle.finished_at,
        "status": cycle.status,
        "n_miners": size.as_ref().map_or(0, |size| size.miners),
        "n_environments": size.as_ref().map_or(0, |size| size.environments),
        "duration_seconds": cycle.finished_at.map(|ended| duration(cycle, ended)),
    })
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

fn head(row: &PublicationRow) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("cycle_id".into(), json!(row.cycle));
    body.insert("block".into(), json!(row.block));
    body.insert("created_at".into(), json!(row.created_at));
    body
}

/// Seconds from the cycle's start to its end, which is when it is published.
fn duration(cycle: &CycleSummary, published: DateTime<Utc>) -> f64 {
    let span = cycle.finished_at.unwrap_or(published) - cycle.created_at;
    span.num_milliseconds() as f64 / 1000.0
}

fn read<'a, T: Deserialize<'a>>(text: &'a str, document: &'static str, cycle: CycleId) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|error| Unreadable { document, cycle, source: error.into() })
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
    use crate::cycle::{CycleStatus, Publication, PublishGuard};

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
            held: None,
            release: None,
        };
        let cycle = CycleSummary {
            id,
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
