//! `GET /v1/miners/{hotkey}`: all there is to say to one miner: whether it was found, how fast it answers, how it did, why it
//! failed, and what it lacks to be on the frontier.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    answer::{Answer, Cache},
    ask,
    caller::Caller,
    documents::Score,
    frontier::{self, Frontier},
    miners,
    part::Part,
    problem::Problem,
    roster::{Known, Roster},
    view::View,
    weights::unreadable,
};
use crate::cycle::{Change, CycleId, CycleNumber, Hotkey, Sighting, Standing, changes};
use crate::store::LatencyRow;

/// A miner.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MinerInDetail")]
pub(super) struct Miner<'a> {
    /// Identity.
    hotkey: &'a Hotkey,
    /// Slot on the subnet; null for whoever has none.
    uid: Option<u16>,
    /// Where it answers; null unless the operator shows endpoints.
    endpoint: Option<&'a str>,
    /// What it has committed to.
    commitment: Commitment<'a>,
    /// How it was found before its last episodes, by environment.
    reachability: Vec<Reachability<'a>>,
    /// What did not stay what it was within that cycle: `address_changed`, `certificate_changed`, `model_changed`.
    flags: Vec<&'a str>,
    /// The cycle of the vector that counts, where it rests on this miner, too.
    evaluated_in: Option<CycleId>,
    /// When it was published.
    last_evaluated: Option<DateTime<Utc>>,
    /// The block that it is as of.
    last_evaluated_block: Option<u64>,
    /// Mean of its success rates over all environments.
    avg_success_rate: Option<f64>,
    /// How it did in that cycle, by environment.
    scores: Vec<ShownScore<'a>>,
    /// What it lacks to be on the frontier of that cycle; null where it is not among the scored.
    frontier: Option<Frontier>,
    /// Its last episodes, of whatever cycle; null where it had none, or they have aged out.
    episodes: Option<&'a LastEpisodes>,
}

/// What a miner has committed to, as the last discovery saw it.
#[derive(Serialize, JsonSchema)]
struct Commitment<'a> {
    /// `active` where it takes part, else a word for why not; `gone` for whoever was evaluated and is not there any more.
    status: &'a str,
    /// The same in words; operators are told.
    detail: Option<&'a str>,
    /// Block since when it has served what it serves. Of two equal policies the older is the original.
    first_block: Option<u64>,
    /// Block of its registration.
    registered_at_block: Option<u64>,
    /// The model it names, with its revision.
    model: Option<&'a str>,
}

/// How a miner was found in an environment.
#[derive(Serialize, JsonSchema)]
struct Reachability<'a> {
    /// The environment.
    environment: &'a str,
    /// `active`, `cold`, `unreachable` or `refused`.
    status: &'static str,
    /// When it was seen so last.
    seen_at: DateTime<Utc>,
    /// What it says its model is.
    model: Option<&'a str>,
    /// Why it is not active; operators are told.
    detail: Option<&'a str>,
    /// The address that answered; operators are told.
    address: Option<&'a str>,
}

/// How a miner did in an environment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MinerScore")]
struct ShownScore<'a> {
    /// The environment.
    environment: &'a str,
    /// Share of its episodes that succeeded.
    success_rate: f64,
    /// 95 % Wilson interval of that.
    interval: [f64; 2],
    /// Mean of the undiscounted returns.
    mean_return: f64,
    /// Scored episodes.
    episodes: u64,
    /// Those that succeeded.
    successes: u64,
    /// Scored episodes by outcome, as `failure` or `miner_fault(action_timeout)`.
    outcomes: BTreeMap<&'a str, u64>,
}

/// The last episodes of a miner.
#[derive(Serialize, JsonSchema)]
struct LastEpisodes {
    /// Number of the cycle they are of, which may still run.
    cycle_id: Option<CycleNumber>,
    /// UUID of that cycle.
    cycle_uuid: CycleId,
    /// How they ended, the most frequent first.
    outcomes: Vec<OutcomeCount>,
    /// How fast it answered in them, in milliseconds from the last byte sent to the last byte received; null where it never did.
    latency: Option<Latency>,
}

/// Episodes that ended one way.
#[derive(Serialize, JsonSchema)]
struct OutcomeCount {
    /// `success`, `failure`, `miner_fault` or `infra_fault`; null for episodes that are still to be played.
    outcome: Option<String>,
    /// Of a fault: which.
    reason: Option<String>,
    /// How many.
    count: u64,
}

/// How fast a miner answered, over its episodes. An episode keeps its median, 95th percentile and slowest answer, so these are
/// percentiles of those.
#[derive(Serialize, JsonSchema)]
struct Latency {
    /// Episodes in which it answered.
    episodes: u64,
    /// Median of the episodes' medians.
    p50_ms: f64,
    /// 95th percentile of the episodes' 95th percentiles.
    p95_ms: f64,
    /// 99th percentile of the episodes' slowest answers.
    p99_ms: f64,
    /// The slowest answer of all.
    max_ms: f64,
}

/// What the store knows of one miner beside the roster.
struct Looked {
    standing: Option<Standing>,
    sightings: Vec<(DateTime<Utc>, Sighting)>,
    changes: Vec<Change>,
    frontier: Option<Frontier>,
    episodes: Option<LastEpisodes>,
}

pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Part(hotkey): Part,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let view = View::from(&caller);
    let none = || Problem::new(StatusCode::NOT_FOUND, "no miner of this hotkey is known");
    let hotkey: Hotkey = hotkey.parse().map_err(|_| none())?;
    let make = async {
        let roster = miners::read(&api).await?;
        let looked = look(&api, &roster, &hotkey).await?;
        let unknown = Known::default();
        let known = match roster.miners.get(hotkey.as_str()) {
            Some(known) => known,
            None if looked.episodes.is_some() => &unknown,
            None => return Err(none()),
        };
        Answer::of(&document(&api, &roster, (&hotkey, known, &looked), view), Cache::for_view(view))
    };
    Ok(api.memo.answer((format!("miner {hotkey}"), view), make).await?.to(&request))
}

async fn look(api: &Api, roster: &Roster, hotkey: &Hotkey) -> Result<Looked, Problem> {
    let store = &api.store;
    let last = ask(store.last_cycle_of(hotkey)).await?;
    let sightings = match last.or(roster.discovered_in) {
        Some(cycle) => ask(store.sightings_of(cycle, hotkey)).await?,
        None => Vec::new(),
    };
    let episodes = match last {
        Some(cycle) => Some(last_episodes(api, cycle, hotkey).await?),
        None => None,
    };
    let standing = match &roster.pin {
        Some(pin) => ask(store.standing_of((&pin.genesis, pin.netuid), hotkey)).await?,
        None => None,
    };
    let frontier = match roster.evaluated {
        Some((cycle, ..)) => {
            let row = ask(store.publication(cycle)).await?;
            row.as_ref().map(|row| frontier::of(row, hotkey)).transpose().map_err(unreadable)?.flatten()
        }
        None => None,
    };
    let seen: Vec<Sighting> = sightings.iter().map(|(_, sighting)| sighting.clone()).collect();
    let changes = changes(&seen).remove(hotkey).unwrap_or_default();
    Ok(Looked { standing, sightings, changes, frontier, episodes })
}

async fn last_episodes(api: &Api, cycle: CycleId, hotkey: &Hotkey) -> Result<LastEpisodes, Problem> {
    let outcomes = ask(api.store.outcomes_of(cycle, hotkey)).await?;
    let outcomes = outcomes.into_iter().map(|(outcome, reason, count)| OutcomeCount { outcome, reason, count });
    let latency = ask(api.store.latency_of(cycle, hotkey)).await?;
    let number = ask(api.store.cycle_numbers(&[cycle])).await?.remove(&cycle);
    Ok(LastEpisodes {
        cycle_id: number,
        cycle_uuid: cycle,
        outcomes: outcomes.collect(),
        latency: Latency::of(&latency),
    })
}

impl Latency {
    fn of(row: &LatencyRow) -> Option<Self> {
        Some(Self {
            episodes: row.episodes.unsigned_abs(),
            p50_ms: row.p50_ms?,
            p95_ms: row.p95_ms?,
            p99_ms: row.p99_ms?,
            max_ms: row.max_ms?,
        })
    }
}

fn document<'a>(
    api: &Api,
    roster: &Roster,
    (hotkey, known, looked): (&'a Hotkey, &'a Known, &'a Looked),
    view: View,
) -> Miner<'a> {
    let evaluated = roster.evaluated.filter(|_| !known.scores.is_empty());
    let standing = looked.standing.as_ref();
    Miner {
        hotkey,
        uid: known.uid,
        endpoint: known.endpoint.as_deref().and_then(|endpoint| view.endpoint(api.endpoints, endpoint)),
        commitment: Commitment {
            status: known.word(),
            detail: known.detail.as_deref().and_then(|detail| view.operators(detail)),
            first_block: known.first_block.or(standing.map(|standing| standing.first_block)),
            registered_at_block: standing.and_then(|standing| standing.registered_at),
            // A commitment need not name one.
            model: standing.map(|standing| standing.model.as_str()).filter(|model| !model.is_empty()),
        },
        reachability: reachability(&looked.sightings, view),
        flags: looked.changes.iter().map(|change| change.flag).collect(),
        evaluated_in: evaluated.map(|(cycle, ..)| cycle),
        last_evaluated: evaluated.map(|(_, at, _)| at),
        last_evaluated_block: evaluated.and_then(|(.., block)| block),
        avg_success_rate: known.mean_rate(),
        scores: known.scores.iter().map(score).collect(),
        frontier: looked.frontier.clone(),
        episodes: looked.episodes.as_ref(),
    }
}

/// What was seen last in each environment.
fn reachability(sightings: &[(DateTime<Utc>, Sighting)], view: View) -> Vec<Reachability<'_>> {
    let mut last: BTreeMap<&str, Reachability<'_>> = BTreeMap::new();
    for (seen_at, Sighting { environment, seen, .. }) in sightings {
        let shown = Reachability {
            environment: environment.as_str(),
            status: seen.status.word(),
            seen_at: *seen_at,
            model: seen.model.as_deref(),
            detail: seen.detail.as_deref().and_then(|detail| view.operators(detail)),
            address: seen.address.as_deref().and_then(|address| view.operators(address)),
        };
        last.insert(environment.as_str(), shown);
    }
    last.into_values().collect()
}

fn score(score: &Score) -> ShownScore<'_> {
    ShownScore {
        environment: &score.environment,
        success_rate: score.success_rate,
        interval: score.interval,
        mean_return: score.mean_return,
        episodes: score.episodes,
        successes: score.successes,
        outcomes: score.outcomes(),
    }
}
