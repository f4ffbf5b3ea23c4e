//! `GET /v1/cycles/{cycle}/episodes`: the evidence of a cycle, page by page, without endpoints and with the seeds only when they
//! are no secret any more.

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    answer::{Answer, Cache},
    ask,
    caller::Caller,
    cycles,
    part::Part,
    problem::Problem,
    query::{Asked, EpisodePlace, PageSize, Question},
    view::View,
};
use crate::cycle::{CycleId, CycleNumber, EnvironmentId, Hotkey, Salt};
use crate::store::{EpisodeFilter, EpisodeOutcome, EpisodeRow};

/// Which episodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Only episodes behind this one: the `next_after` of the page before.
    after: Option<EpisodePlace>,
    /// How many; 20 where nothing is said.
    limit: Option<PageSize>,
    /// Only those in this environment.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,62}/[a-z][a-z0-9_-]{0,62}$"))]
    environment: Option<EnvironmentId>,
    /// Only those of this miner.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    hotkey: Option<Hotkey>,
    /// Only those that ended so, or have not been played yet.
    outcome: Option<OutcomeWord>,
}

impl Question for Page {
    const TAKES: &'static str = "the question takes `after`, the `next_after` of another page; `limit`, from 1 to 100; \
        `environment`, as family/task; `hotkey`; and `outcome`, one of success, failure, miner_fault, infra_fault and pending";
}

/// How an episode stands.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum OutcomeWord {
    Success,
    Failure,
    MinerFault,
    InfraFault,
    Pending,
}

impl From<OutcomeWord> for EpisodeOutcome {
    fn from(word: OutcomeWord) -> Self {
        match word {
            OutcomeWord::Success => Self::Ended("success"),
            OutcomeWord::Failure => Self::Ended("failure"),
            OutcomeWord::MinerFault => Self::Ended("miner_fault"),
            OutcomeWord::InfraFault => Self::Ended("infra_fault"),
            OutcomeWord::Pending => Self::Pending,
        }
    }
}

/// A page of episodes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Episodes<'a> {
    /// Number of the cycle they are of.
    cycle_id: CycleNumber,
    /// UUID of that cycle.
    cycle_uuid: CycleId,
    /// The episodes, by environment, seed index and hotkey.
    episodes: Vec<Episode<'a>>,
    /// What `after` has to be for the next page; null when this is the last one.
    next_after: Option<String>,
}

/// An episode.
#[derive(Serialize, JsonSchema)]
struct Episode<'a> {
    /// The environment.
    environment: &'a str,
    /// Position in the list of seeds, which is the same for every miner.
    seed_index: i32,
    /// The seed, once the cycle has completed.
    seed: Option<u32>,
    /// The miner.
    hotkey: &'a str,
    /// Attempts that have ended.
    attempts: i32,
    /// `success`, `failure`, `miner_fault` or `infra_fault`, which is played again; null before it was played.
    outcome: Option<&'a str>,
    /// Of a fault: which.
    reason: Option<&'a str>,
    /// What exactly went wrong; operators are told.
    detail: Option<&'a str>,
    /// Steps of the simulation.
    steps: Option<i64>,
    /// Sum of the rewards.
    r#return: Option<f64>,
    /// What it is worth from 0 to 1, where the environment says.
    score: Option<f64>,
    /// Hash of what happened in it.
    trajectory_hash: Option<&'a str>,
    /// How fast the miner answered, in milliseconds.
    latency: Option<EpisodeLatency>,
    /// How long it took, in milliseconds.
    wall_ms: Option<f64>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

/// How fast a miner answered in an episode.
#[derive(Serialize, JsonSchema)]
struct EpisodeLatency {
    /// Median.
    p50_ms: f64,
    /// 95th percentile.
    p95_ms: f64,
    /// Slowest answer.
    max_ms: f64,
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Part(cycle): Part,
    Asked(page): Asked<Page>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let view = View::from(&caller);
    let cycle = cycles::find(&api, cycles::id_of(&api, &cycle).await?).await?;
    let size = page.limit.unwrap_or_default();
    let filter = EpisodeFilter {
        after: page.after.map(|EpisodePlace(key)| key),
        environment: page.environment,
        hotkey: page.hotkey,
        outcome: page.outcome.map(Into::into),
    };
    let rows = ask(api.store.episodes_of(cycle.id, &filter, size.number())).await?;
    let next = size.last(&rows).map(|row| EpisodePlace::text(&row.environment, row.seed_index, &row.hotkey));
    let episodes = rows.iter().map(|row| episode(row, cycle.salt.as_ref(), view)).collect();
    let body = Episodes { cycle_id: cycle.number, cycle_uuid: cycle.id, episodes, next_after: next };
    Ok(Answer::of(&body, Cache::for_view(view))?.to(&request))
}

/// The store gives the salt of completed cycles alone, and what has no salt has no seeds.
fn episode<'a>(row: &'a EpisodeRow, salt: Option<&Salt>, view: View) -> Episode<'a> {
    let seed = || Some(salt?.seed(&row.environment.parse().ok()?, u32::try_from(row.seed_index).ok()?));
    let latency = match (row.latency_p50_ms, row.latency_p95_ms, row.latency_max_ms) {
        (Some(p50_ms), Some(p95_ms), Some(max_ms)) => Some(EpisodeLatency { p50_ms, p95_ms, max_ms }),
        _ => None,
    };
    Episode {
        environment: &row.environment,
        seed_index: row.seed_index,
        seed: seed(),
        hotkey: &row.hotkey,
        attempts: row.attempt,
        outcome: row.outcome.as_deref(),
        reason: row.reason.as_deref(),
        detail: row.detail.as_deref().and_then(|detail| view.operators(detail)),
        steps: row.steps,
        r#return: row.r#return,
        score: row.score,
        trajectory_hash: row.trajectory_hash.as_deref(),
        latency,
        wall_ms: row.wall_ms,
        finished_at: row.finished_at,
    }
}
